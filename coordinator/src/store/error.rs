//! Why a store did not do what it was asked, in words that say what to do.

use sqlx::migrate::MigrateError;
use sqlx::postgres::PgDatabaseError;
use thiserror::Error;

/// Why the store did not do what it was asked.
#[derive(Debug, Error)]
pub enum Error {
    /// A newer coordinator leads: this one must stop writing.
    #[error("a newer coordinator has taken over (its epoch is {newer}, ours {ours})")]
    StaleEpoch {
        /// Epoch of this coordinator.
        ours: u64,
        /// Epoch in the store.
        newer: u64,
    },
    /// Another coordinator leads, and its lead has not run out. Its URL.
    #[error("another coordinator leads: {0}")]
    Led(String),
    /// No room on the disk. What was acknowledged is safe.
    #[error("the disk of the store is full; free some space, then start again")]
    DiskFull,
    /// Another process holds the store.
    #[error("another coordinator is using the store; stop it first")]
    Busy,
    /// The database can't be reached now. Trying again may help.
    #[error("the database can't be reached: {0}")]
    Unavailable(String),
    /// The database doesn't let us: what, and what to do.
    #[error("{0}")]
    Refused(String),
    /// No such experiment or blob.
    #[error("the store has no {0}")]
    NotFound(String),
    /// Stored bytes are not what they should be.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// Anything else the database says.
    #[error("the store failed: {0}")]
    Other(String),
}

impl From<sqlx::Error> for Error {
    fn from(e: sqlx::Error) -> Self {
        match &e {
            sqlx::Error::Database(d) => match d.try_downcast_ref::<PgDatabaseError>() {
                Some(pg) => of_postgres(pg),
                None => of_sqlite(d.code().unwrap_or_default().as_ref(), &e),
            },
            sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::StorageFull => Self::DiskFull,
            sqlx::Error::Io(io) => Self::Unavailable(io.to_string()),
            sqlx::Error::Tls(why) => Self::Refused(format!(
                "the connection can't be encrypted: {why}; correct sslmode or sslrootcert in the URL"
            )),
            sqlx::Error::PoolTimedOut => Self::Unavailable("no connection could be made in time".to_owned()),
            sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed | sqlx::Error::BeginFailed => {
                Self::Unavailable(e.to_string())
            }
            _ => Self::Other(e.to_string()),
        }
    }
}

fn of_sqlite(code: &str, e: &sqlx::Error) -> Error {
    // Extended result codes keep the primary one in their low byte: 13 is FULL, 5 BUSY, 6 LOCKED.
    match code.parse::<u32>().map(|c| c & 0xff) {
        Ok(13) => Error::DiskFull,
        Ok(5 | 6) => Error::Busy,
        _ if e.to_string().contains("No space left") => Error::DiskFull,
        _ => Error::Other(e.to_string()),
    }
}

/// By SQLSTATE (PostgreSQL's appendix A).
fn of_postgres(e: &PgDatabaseError) -> Error {
    let said = e.message();
    match e.code() {
        "53100" => Error::DiskFull,
        "28P01" | "28000" => Error::Refused(format!(
            "the database refuses the user: {said}; correct user and password (in the URL, $PGPASSWORD or ~/.pgpass)"
        )),
        "3D000" => Error::Refused(format!("{said}; create it (createdb), or correct the URL")),
        "42501" => Error::Refused(format!(
            "the database's user may not do that: {said}; make it the owner of the database, or grant it CREATE on the schema"
        )),
        "3F000" => Error::Refused(format!("{said}; create the schema, or correct search_path in the URL")),
        "25006" => {
            Error::Refused("the database is read-only (a replica?); name the primary in the URL".to_owned())
        }
        // Connections, too many of them, a server that starts or stops, sessions that it ended, locks.
        code if code.starts_with("08") || code.starts_with("57P") => Error::Unavailable(said.to_owned()),
        "53300" | "25P03" | "25P04" | "55P03" | "40001" | "40P01" => Error::Unavailable(said.to_owned()),
        code => Error::Other(format!("{said} (SQLSTATE {code})")),
    }
}

impl From<MigrateError> for Error {
    fn from(e: MigrateError) -> Self {
        match e {
            MigrateError::VersionMissing(_) | MigrateError::VersionTooNew(..) => {
                Self::Refused("it was written by a later version of ablate; use that version".to_owned())
            }
            MigrateError::Execute(e) | MigrateError::ExecuteMigration(e, _) => e.into(),
            MigrateError::VersionMismatch(n) => {
                Self::Damaged(format!("its migration {n} isn't the one that this version of ablate has"))
            }
            e => Self::Other(e.to_string()),
        }
    }
}

impl Error {
    /// Whether this coordinator should stand by rather than end: another leads, or the database is away.
    #[must_use]
    pub fn loses_lead(&self) -> bool {
        matches!(self, Self::StaleEpoch { .. } | Self::Led(_) | Self::Unavailable(_))
    }

    /// Whether it is sure to concern the whole store: any other may come of one experiment's rows alone.
    #[must_use]
    pub fn concerns_all(&self) -> bool {
        self.loses_lead() || matches!(self, Self::DiskFull | Self::Busy)
    }
}
