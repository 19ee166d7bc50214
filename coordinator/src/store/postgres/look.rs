//! What a database is like, for `ablate doctor`: nothing is written.

use super::{Address, OLDEST, connect};
use crate::store::{Error, schema};
use sqlx::Row;

/// What was found.
#[derive(Clone, Debug)]
pub struct Look {
    /// The server's version, as it says it.
    pub version: String,
    /// Whether that version is new enough.
    pub new_enough: bool,
    /// Whether a commit is on the disk when it returns.
    pub fsync: bool,
    /// Whether it takes no writes: a replica.
    pub read_only: bool,
    /// Whether this user may make tables.
    pub may_create: bool,
    /// Last migration; none in a database that no coordinator has used.
    pub migration: Option<i64>,
    /// Whether that is later than this version of ablate knows.
    pub later: bool,
    /// Who leads; none where nobody does.
    pub leader: Option<String>,
}

/// Looks at a database without changing it.
///
/// # Errors
/// As [`super::PostgresStore::open`].
pub async fn look(address: &Address) -> Result<Look, Error> {
    let mut one = connect(&address.options().application_name("ablate doctor")).await?;
    let row = sqlx::query(
        "SELECT current_setting('server_version'), current_setting('server_version_num')::int,
             current_setting('fsync') = 'on', pg_is_in_recovery(),
             COALESCE(has_schema_privilege(current_schema(), 'CREATE'), FALSE),
             to_regclass('_sqlx_migrations') IS NOT NULL",
    )
    .fetch_one(&mut one)
    .await?;
    let (mut migration, mut leader) = (None, None);
    if row.get(5) {
        migration =
            sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations").fetch_one(&mut one).await?;
        leader = sqlx::query_scalar("SELECT url FROM lead WHERE expires > clock_timestamp()")
            .fetch_optional(&mut one)
            .await?;
    }
    let known = schema::postgres().iter().map(|m| m.version).max();
    Ok(Look {
        version: row.get(0),
        new_enough: row.get::<i32, _>(1) >= OLDEST,
        fsync: row.get(2),
        read_only: row.get(3),
        may_create: row.get(4),
        later: migration > known,
        migration,
        leader,
    })
}

impl Look {
    /// What is wrong, and what to do; none where all is well.
    #[must_use]
    pub fn problem(&self) -> Option<(&'static str, &'static str)> {
        if !self.new_enough {
            Some(("this PostgreSQL is too old", "use version 13 or later"))
        } else if self.read_only {
            Some(("the database is read-only (a replica)", "name the primary in the URL"))
        } else if self.later {
            Some(("it was written by a later version of ablate", "use that version"))
        } else if !self.may_create && self.migration.is_none() {
            Some((
                "the user may not make tables",
                "make it the owner of the database, or grant it CREATE on the schema",
            ))
        } else if !self.fsync {
            Some(("fsync is off: what is acknowledged is lost with the machine", "set fsync = on"))
        } else {
            None
        }
    }
}
