//! The migrations of both databases. They are listed here, and not gathered by sqlx's macro: that would build all of SQLite a second
//! time, for the compiler to run.

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// Migrations of a SQLite file.
pub(crate) fn sqlite() -> Migrator {
    migrator([
        ("first", include_str!("../../migrations/sqlite/0001_first.sql")),
        ("busy", include_str!("../../migrations/sqlite/0002_busy.sql")),
        ("tokens", include_str!("../../migrations/sqlite/0003_tokens.sql")),
        ("compared", include_str!("../../migrations/sqlite/0004_compared.sql")),
    ])
}

/// Migrations of a PostgreSQL database.
pub(crate) fn postgres() -> Migrator {
    migrator([
        ("first", include_str!("../../migrations/postgres/0001_first.sql")),
        ("tokens", include_str!("../../migrations/postgres/0002_tokens.sql")),
        ("compared", include_str!("../../migrations/postgres/0003_compared.sql")),
    ])
}

/// Versions are counted from 1, as files are named.
fn migrator<const N: usize>(files: [(&'static str, &'static str); N]) -> Migrator {
    let migration = |(version, (name, sql)): (i64, (&'static str, &'static str))| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations((1..).zip(files).map(migration).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_a_schema_is_a_migration() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        for (name, migrator) in [("sqlite", sqlite()), ("postgres", postgres())] {
            let mut files: Vec<(String, String)> = std::fs::read_dir(folder.join(name))
                .unwrap()
                .map(|f| f.unwrap().path())
                .map(|f| {
                    let name = f.file_name().unwrap().to_str().unwrap().to_owned();
                    (name, std::fs::read_to_string(f).unwrap())
                })
                .collect();
            files.sort();
            let listed: Vec<(String, String)> = migrator
                .iter()
                .map(|m| (format!("{:04}_{}.sql", m.version, m.description), m.sql.as_str().to_owned()))
                .collect();
            assert_eq!(listed, files);
        }
    }
}
