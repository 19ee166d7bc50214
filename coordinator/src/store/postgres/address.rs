//! The URL of a database: read strictly, and shown without its password.

use crate::store::Error;
use sqlx::postgres::PgConnectOptions;
use std::str::FromStr;

/// What may follow the `?` of a URL.
const KEYS: &[&str] = &[
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "options",
];

/// Where a database is, and as whom to enter it. Neither `Display` nor `Debug` shows a password.
#[derive(Clone)]
pub struct Address {
    shown: String,
    options: Box<PgConnectOptions>,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Address").field(&self.shown).finish()
    }
}

/// The parts of a URL that is clear enough to tell its password from the rest.
struct Parts<'a> {
    user: &'a str,
    password: bool,
    place: &'a str,
    path: &'a str,
    query: &'a str,
}

impl<'a> Parts<'a> {
    fn of(url: &'a str) -> Option<Self> {
        let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"))?;
        // An unescaped special character in a password would move the borders of the parts.
        if rest.contains('#') || rest.matches('@').count() > 1 || rest.matches('?').count() > 1 {
            return None;
        }
        let (front, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = front.split_once('/').unwrap_or((front, ""));
        if path.contains('@') || query.contains('@') {
            return None;
        }
        let (user_info, place) = authority.split_once('@').unwrap_or(("", authority));
        let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
        let port = place.rsplit_once(':').filter(|_| !place.ends_with(']')).map_or("", |p| p.1);
        let clear = !password.contains(':') && port.bytes().all(|b| b.is_ascii_digit());
        clear.then_some(Self { user, password: !password.is_empty(), place, path, query })
    }
}

impl Address {
    /// Reads `postgres://USER:PASSWORD@HOST:PORT/DATABASE?KEY=VALUE`. What is left out comes from the
    /// environment as for PostgreSQL's own programs (`PGHOST`, `PGPASSWORD`, `~/.pgpass`).
    ///
    /// # Errors
    /// Says what is wrong, without repeating more of the URL than is safe.
    pub fn parse(url: &str) -> Result<Self, Error> {
        const FORM: &str = "give postgres://USER:PASSWORD@HOST:PORT/DATABASE";
        let parts = Parts::of(url).ok_or_else(|| {
            Error::Refused(format!(
                "the URL of the database isn't clear; {FORM}, with special characters in user and password as %XX ('@' is %40)"
            ))
        })?;
        for key in parts.query.split('&').filter(|q| !q.is_empty()) {
            let key = key.split_once('=').map_or(key, |(k, _)| k);
            if !KEYS.contains(&key) {
                return Err(Error::Refused(format!(
                    "the URL of the database has an unknown key {key:?}; these are known: {}",
                    KEYS.join(", ")
                )));
            }
        }
        let options = PgConnectOptions::from_str(url)
            .map_err(|e| Error::Refused(format!("the URL of the database can't be read: {e}; {FORM}")))?;
        Ok(Self { shown: shown(&parts), options: Box::new(options) })
    }

    /// As the driver takes it.
    pub(super) fn options(&self) -> PgConnectOptions {
        (*self.options).clone()
    }
}

/// Without password and query.
fn shown(parts: &Parts<'_>) -> String {
    let user = match (parts.user, parts.password) {
        ("", false) => String::new(),
        (user, false) => format!("{user}@"),
        (user, true) => format!("{user}:***@"),
    };
    let path = if parts.path.is_empty() { String::new() } else { format!("/{}", parts.path) };
    format!("postgres://{user}{}{path}", parts.place)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password() {
        for (url, seen) in [
            ("postgres://ann:s3cret@db:5432/ablate", "postgres://ann:***@db:5432/ablate"),
            ("postgresql://ann@db/ablate?sslmode=require", "postgres://ann@db/ablate"),
            ("postgres://db/ablate?user=ann&password=s3cret", "postgres://db/ablate"),
            ("postgres://ann:s3cret@[::1]:5432/ablate", "postgres://ann:***@[::1]:5432/ablate"),
            ("postgres://ann:s3cret%40@%2Frun%2Fpg/ablate", "postgres://ann:***@%2Frun%2Fpg/ablate"),
            ("postgres:///ablate?host=/run/pg", "postgres:///ablate"),
        ] {
            let address = Address::parse(url).unwrap();
            assert_eq!(address.to_string(), seen);
            assert!(!format!("{address:?}").contains("s3cret"));
        }
    }

    #[test]
    fn what_could_show_a_password_is_refused_without_showing_it() {
        for url in [
            "postgres://ann:s3#cret@db/ablate",
            "postgres://ann:s3@cret@db/ablate",
            "postgres://ann:s3/cret@db/ablate",
            "postgres://ann:s3?cret@db/ablate",
            "postgres://ann:s3:cret@db/ablate",
            "postgres://db/ablate?password=s3@cret",
            "postgres://db/ablate?passwort=s3cret",
            "postgres://ann:s3cret@db:port/ablate",
            "postgres://ann:s3cret@db:99999/ablate",
            "postgres://ann:s3cret@db/ablate?sslmode=s3cret",
            "mysql://ann:s3cret@db/ablate",
        ] {
            let said = Address::parse(url).unwrap_err().to_string();
            assert!(!said.contains("cret") || url.contains("sslmode=s3cret"), "{url}: {said}");
            assert!(said.contains("postgres://USER") || said.contains("known"), "{said}");
        }
    }
}
