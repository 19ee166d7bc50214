//! Where state is kept, as users name it: `sqlite://PATH` or `postgres://…`.

use super::fail::Fail;
use ablate_coordinator::store::postgres::{Address, Member};
use ablate_coordinator::store::{PostgresStore, SqliteStore, Store};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a coordinator leads without renewing: with the poll of those that stand by, the longest that a
/// takeover takes.
const LEAD: Duration = Duration::from_secs(5);

/// A store that was named. `Display` shows no password.
#[derive(Clone, Debug)]
pub enum Place {
    /// A file.
    Sqlite(PathBuf),
    /// A database.
    Postgres(Address),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            Self::Postgres(address) => address.fmt(f),
        }
    }
}

impl Place {
    /// Reads a URL that `option` gave.
    pub fn read(url: &str, option: &str) -> Result<Self, Fail> {
        match url.split_once("://") {
            Some(("sqlite", path)) if !path.is_empty() => Ok(Self::Sqlite(path.into())),
            Some(("postgres" | "postgresql", _)) => {
                Address::parse(url).map(Self::Postgres).map_err(|e| Fail::from(e).at(option))
            }
            // What it is instead may hold a password.
            _ => Err(Fail::wrong(format!("{option}: not the URL of a store"))
                .help("give sqlite://PATH or postgres://USER:PASSWORD@HOST:PORT/DATABASE")),
        }
    }

    /// Opens it for a coordinator that others reach at `url`.
    pub async fn open(&self, url: &str) -> Result<Arc<dyn Store>, Fail> {
        match self {
            Self::Sqlite(path) => {
                let store = SqliteStore::open(path).await.map_err(|e| {
                    Fail::wrong(format!("--store {self}: {e}"))
                        .help("name a file in a folder that is there, and that no other coordinator uses")
                })?;
                Ok(Arc::new(store))
            }
            Self::Postgres(address) => {
                let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
                let name = format!("{}:{}:{now:x}", host.trim(), std::process::id());
                let member = Member { name, url: url.to_owned(), lead: LEAD };
                let store = PostgresStore::open(address, member)
                    .await
                    .map_err(|e| Fail::from(e).at(format!("--store {self}")))?;
                Ok(Arc::new(store))
            }
        }
    }
}
