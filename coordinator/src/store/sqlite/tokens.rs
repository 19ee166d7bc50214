//! Tokens. Written by `ablate token` beside a coordinator that runs: SQLite's own lock keeps the two apart.

use super::SqliteStore;
use crate::store::Error;
use crate::store::encode::{MAX_TOKENS, name_taken, token_of, too_many_tokens};
use crate::token::Token;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

const COLUMNS: &str = "id, name, role, hash, created, expires";

fn token(r: &SqliteRow) -> Result<Token, Error> {
    token_of(r.get(0), r.get(1), r.get(2), r.get(3), r.get(4), r.get(5))
}

impl SqliteStore {
    pub(super) async fn all_tokens(&self) -> Result<Vec<Token>, Error> {
        let sql = format!("SELECT {COLUMNS} FROM tokens ORDER BY created, id");
        sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(&self.readers).await?.iter().map(token).collect()
    }

    pub(super) async fn keep_token(&self, new: Token) -> Result<(), Error> {
        let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM tokens").fetch_one(&mut *tx).await?;
        if count as usize >= MAX_TOKENS {
            return Err(too_many_tokens());
        }
        let made = sqlx::query("INSERT OR IGNORE INTO tokens VALUES (?, ?, ?, ?, ?, ?)")
            .bind(&new.id)
            .bind(&new.name)
            .bind(new.role.name())
            .bind(&new.hash[..])
            .bind(new.created)
            .bind(new.expires)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        if made.rows_affected() == 1 { Ok(()) } else { Err(name_taken(&new)) }
    }

    pub(super) async fn drop_token(&self, which: &str) -> Result<Option<Token>, Error> {
        let sql = format!("DELETE FROM tokens WHERE id = ?1 OR name = ?1 RETURNING {COLUMNS}");
        let gone = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(which).fetch_optional(&self.writer).await?;
        gone.as_ref().map(token).transpose()
    }
}
