//! The embedded store: one SQLite file in WAL mode with full synchronisation, one writing connection.

mod bulk;
mod tokens;

use super::encode::{damaged, json, plan_of, state_of};
use super::schema;
use super::{
    Answer, ChunkAt, Error, Incoming, Listing, NewExperiment, Outcome, Quarantined, State, Store, Stored,
    StoredRound,
};
use crate::token::Token;
use ablate_common::decide::{self, Round};
use ablate_common::plan::Decision;
use ablate_common::scores::ChunkScores;
use ablate_output::results::Results;
use futures::TryStreamExt;
use futures::future::BoxFuture;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{Row, Sqlite, SqlitePool, Transaction};
use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The embedded store.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    /// One connection: writes are serialised here rather than by the file's lock.
    writer: SqlitePool,
    readers: SqlitePool,
    /// Beside the database: held by the process that leads, let go of by the system when it dies.
    leader: Arc<Mutex<Option<File>>>,
    leader_path: PathBuf,
}

fn io(path: &Path, e: &std::io::Error) -> Error {
    match e.kind() {
        std::io::ErrorKind::StorageFull => Error::DiskFull,
        _ => Error::Other(format!("{}: {e}", path.display())),
    }
}

impl SqliteStore {
    /// Opens the file, making or migrating it as needed.
    ///
    /// # Errors
    /// Where the file can't be opened, or is from a later version.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5));
        let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
        schema::sqlite().run(&writer).await?;
        let readers = SqlitePoolOptions::new().max_connections(4).connect_with(options).await?;
        let mut leader_path = path.as_os_str().to_owned();
        leader_path.push(".leader");
        Ok(Self { writer, readers, leader: Arc::default(), leader_path: leader_path.into() })
    }

    /// Holds the leader's file, or says that another process does.
    fn lead(&self) -> Result<(), Error> {
        let mut held = self.leader.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_some() {
            return Ok(());
        }
        let file = File::create(&self.leader_path).map_err(|e| io(&self.leader_path, &e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Busy),
            // A file system without locks: the epoch alone keeps two leaders apart.
            Err(TryLockError::Error(e)) => tracing::warn!(error = %e, "the leader's file can't be locked"),
        }
        *held = Some(file);
        Ok(())
    }

    /// Closes all connections and folds the write-ahead log into the file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
        self.leader.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// A transaction that holds only while `epoch` leads.
    async fn write(&self, epoch: u64) -> Result<Transaction<'static, Sqlite>, Error> {
        let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let newer: i64 = sqlx::query_scalar("SELECT epoch FROM leader").fetch_one(&mut *tx).await?;
        if newer as u64 == epoch {
            Ok(tx)
        } else {
            Err(Error::StaleEpoch { ours: epoch, newer: newer as u64 })
        }
    }

    async fn list(&self) -> Result<Listing, Error> {
        let rows = sqlx::query(
            "SELECT id, plan, model_path, output, state, error, computed, duplicate FROM experiments ORDER BY id",
        )
        .fetch_all(&self.readers)
        .await?;
        Ok(rows.iter().map(|r| (r.get::<String, _>(0), stored_of(r))).collect())
    }
}

impl Store for SqliteStore {
    fn acquire_epoch(&self) -> Answer<'_, u64> {
        Box::pin(async {
            self.lead()?;
            let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
            let epoch: i64 = sqlx::query_scalar("UPDATE leader SET epoch = epoch + 1 RETURNING epoch")
                .fetch_one(&mut *tx)
                .await?;
            tx.commit().await?;
            Ok(epoch as u64)
        })
    }

    fn put_experiment(&self, epoch: u64, new: NewExperiment) -> Answer<'_, bool> {
        Box::pin(async move {
            let id = new.plan.identity();
            let mut tx = self.write(epoch).await?;
            for ((hash, ..), prepared) in new.plan.blobs().zip(&new.prepared) {
                let data = serde_json::to_vec(prepared).map_err(damaged)?;
                sqlx::query("INSERT OR IGNORE INTO blobs VALUES (?, ?)")
                    .bind(hash)
                    .bind(data)
                    .execute(&mut *tx)
                    .await?;
            }
            let made = sqlx::query(
                "INSERT OR IGNORE INTO experiments (id, name, plan, spec, model_path, output, state) VALUES (?, ?, ?, ?, ?, ?, 'running')",
            )
            .bind(&id)
            .bind(&new.plan.spec.name)
            .bind(json(&new.plan)?)
            .bind(&new.spec_text)
            .bind(new.model_path.to_string_lossy().into_owned())
            .bind(new.output.to_string_lossy().into_owned())
            .execute(&mut *tx)
            .await?
            .rows_affected()
                == 1;
            if made {
                for (sweep, round, list) in decide::opening(&new.plan) {
                    open_round(&mut tx, &id, sweep, round, &json(&list)?).await?;
                }
            } else {
                // Moved folders are no difference; the next run may find model and output elsewhere.
                sqlx::query("UPDATE experiments SET model_path = ?, output = ? WHERE id = ?")
                    .bind(new.model_path.to_string_lossy().into_owned())
                    .bind(new.output.to_string_lossy().into_owned())
                    .bind(&id)
                    .execute(&mut *tx)
                    .await?;
            }
            tx.commit().await?;
            Ok(made)
        })
    }

    fn experiments(&self) -> Answer<'_, Vec<Stored>> {
        Box::pin(async { self.list().await?.whole() })
    }

    fn listing(&self) -> Answer<'_, Listing> {
        Box::pin(self.list())
    }

    fn set_state<'a>(&'a self, epoch: u64, id: &'a str, state: State) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut tx = self.write(epoch).await?;
            let error = if let State::Failed(e) = &state { e.as_str() } else { "" };
            sqlx::query("UPDATE experiments SET state = ?, error = ? WHERE id = ?")
                .bind(state.name())
                .bind(error)
                .bind(id)
                .execute(&mut *tx)
                .await?;
            tx.commit().await?;
            Ok(())
        })
    }

    fn accept<'a>(&'a self, epoch: u64, batch: &'a [Incoming]) -> Answer<'a, Vec<Outcome>> {
        Box::pin(self.accept_all(epoch, batch))
    }

    fn accepted<'a>(&'a self, id: &'a str) -> Answer<'a, Vec<(u32, u32, u32)>> {
        Box::pin(async move {
            let rows =
                sqlx::query("SELECT sweep, round, chunk FROM chunks WHERE experiment = ? ORDER BY 1, 2, 3")
                    .bind(id);
            Ok(rows.fetch_all(&self.readers).await?.iter().map(|r| (r.get(0), r.get(1), r.get(2))).collect())
        })
    }

    fn busy<'a>(&'a self, id: &'a str) -> Answer<'a, BTreeMap<u32, u64>> {
        Box::pin(async move {
            let rows = sqlx::query("SELECT sweep, us FROM busy WHERE experiment = ?").bind(id);
            let rows = rows.fetch_all(&self.readers).await?;
            Ok(rows.iter().map(|r| (r.get(0), r.get::<i64, _>(1) as u64)).collect())
        })
    }

    fn chunks<'a>(&'a self, id: &'a str, sweep: u32, round: u32, of: Range<u32>) -> Answer<'a, Round> {
        Box::pin(async move {
            let mut rows = sqlx::query(
                "SELECT chunk, scores FROM chunks
                WHERE experiment = ? AND sweep = ? AND round = ? AND chunk >= ? AND chunk < ?",
            )
            .bind(id)
            .bind(sweep)
            .bind(round)
            .bind(of.start)
            .bind(of.end)
            .fetch(&self.readers);
            let mut out = Round::new();
            while let Some(r) = rows.try_next().await? {
                out.insert(r.get(0), ChunkScores::decode(r.get(1)).map_err(damaged)?);
            }
            Ok(out)
        })
    }

    fn rounds<'a>(&'a self, id: &'a str) -> Answer<'a, Vec<StoredRound>> {
        Box::pin(async move {
            let rows = sqlx::query(
                "SELECT sweep, round, list, decision FROM rounds WHERE experiment = ? ORDER BY 1, 2",
            )
            .bind(id);
            rows.fetch_all(&self.readers).await?.iter().map(round_of).collect()
        })
    }

    fn scores<'a>(&'a self, id: &'a str, chunks: &'a [ChunkAt]) -> Answer<'a, Vec<(ChunkAt, Vec<u8>)>> {
        Box::pin(self.some_scores(id, chunks))
    }

    fn opened<'a>(&'a self, id: &'a str, sweep: u32, round: u32) -> Answer<'a, Option<StoredRound>> {
        Box::pin(async move {
            let row = sqlx::query(
                "SELECT sweep, round, list, decision FROM rounds WHERE experiment = ? AND sweep = ? AND round = ?",
            );
            let row = row.bind(id).bind(sweep).bind(round).fetch_optional(&self.readers).await?;
            row.as_ref().map(round_of).transpose()
        })
    }

    fn decide<'a>(
        &'a self,
        epoch: u64,
        id: &'a str,
        sweep: u32,
        round: u32,
        decision: &'a Decision,
        constants: Option<&'a [u8]>,
    ) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut tx = self.write(epoch).await?;
            sqlx::query("UPDATE rounds SET decision = ? WHERE experiment = ? AND sweep = ? AND round = ?")
                .bind(json(decision)?)
                .bind(id)
                .bind(sweep)
                .bind(round)
                .execute(&mut *tx)
                .await?;
            if let (Some(hash), Some(bytes)) = (&decision.constants, constants) {
                sqlx::query("INSERT OR IGNORE INTO blobs VALUES (?, ?)")
                    .bind(hash)
                    .bind(bytes)
                    .execute(&mut *tx)
                    .await?;
            }
            for (sweep, round, list) in &decision.opens {
                open_round(&mut tx, id, *sweep, *round, &json(list)?).await?;
            }
            tx.commit().await?;
            Ok(())
        })
    }

    fn quarantine<'a>(&'a self, epoch: u64, id: &'a str, what: &'a Quarantined) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut tx = self.write(epoch).await?;
            sqlx::query(
                "INSERT OR REPLACE INTO quarantine SELECT ?1, ?2, ?3, ?4, ?5 WHERE NOT EXISTS
                     (SELECT 1 FROM chunks WHERE experiment = ?1 AND sweep = ?2 AND round = ?3 AND chunk = ?4)",
            )
            .bind(id)
            .bind(what.0)
            .bind(what.1)
            .bind(what.2)
            .bind(&what.3)
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(())
        })
    }

    fn quarantined<'a>(&'a self, id: &'a str) -> Answer<'a, Vec<Quarantined>> {
        Box::pin(async move {
            let rows = sqlx::query(
                "SELECT sweep, round, chunk, error FROM quarantine WHERE experiment = ? ORDER BY 1, 2, 3",
            );
            let rows = rows.bind(id).fetch_all(&self.readers).await?;
            Ok(rows.iter().map(|r| (r.get(0), r.get(1), r.get(2), r.get(3))).collect())
        })
    }

    fn release<'a>(&'a self, epoch: u64, id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut tx = self.write(epoch).await?;
            sqlx::query("DELETE FROM quarantine WHERE experiment = ?").bind(id).execute(&mut *tx).await?;
            sqlx::query("UPDATE experiments SET state = ?, error = '' WHERE id = ?")
                .bind(State::Running.name())
                .bind(id)
                .execute(&mut *tx)
                .await?;
            tx.commit().await?;
            Ok(())
        })
    }

    fn add_seconds<'a>(
        &'a self,
        epoch: u64,
        id: &'a str,
        seconds: &'a BTreeMap<String, f64>,
    ) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut tx = self.write(epoch).await?;
            for (step, s) in seconds {
                sqlx::query("INSERT INTO timings VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET seconds = seconds + excluded.seconds")
                    .bind(id)
                    .bind(step)
                    .bind(s)
                    .execute(&mut *tx)
                    .await?;
            }
            tx.commit().await?;
            Ok(())
        })
    }

    fn blob<'a>(&'a self, hash: &'a str) -> Answer<'a, Vec<u8>> {
        Box::pin(async move {
            let row = sqlx::query_scalar("SELECT data FROM blobs WHERE hash = ?")
                .bind(hash)
                .fetch_optional(&self.readers)
                .await?;
            row.ok_or_else(|| Error::NotFound(format!("blob {hash}")))
        })
    }

    fn results<'a>(&'a self, id: &'a str) -> Answer<'a, Results> {
        Box::pin(self.all_results(id))
    }

    fn tokens(&self) -> Answer<'_, Vec<Token>> {
        Box::pin(self.all_tokens())
    }

    fn put_token(&self, token: Token) -> Answer<'_, ()> {
        Box::pin(self.keep_token(token))
    }

    fn revoke_token<'a>(&'a self, which: &'a str) -> Answer<'a, Option<Token>> {
        Box::pin(self.drop_token(which))
    }

    fn closed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.close())
    }
}

fn stored_of(r: &SqliteRow) -> Result<Stored, Error> {
    Ok(Stored {
        id: r.get(0),
        plan: plan_of(r.get(0), r.get(1))?,
        model_path: r.get::<String, _>(2).into(),
        output: r.get::<String, _>(3).into(),
        state: state_of(r.get(4), r.get(5)),
        computed: r.get::<i64, _>(6) as u64,
        duplicate: r.get::<i64, _>(7) as u64,
    })
}

fn round_of(r: &SqliteRow) -> Result<StoredRound, Error> {
    let decision: Option<&str> = r.get(3);
    Ok(StoredRound {
        sweep: r.get(0),
        round: r.get(1),
        list: serde_json::from_str(r.get(2)).map_err(damaged)?,
        decision: decision.map(serde_json::from_str).transpose().map_err(damaged)?,
    })
}

async fn open_round(
    tx: &mut Transaction<'static, Sqlite>,
    id: &str,
    sweep: u32,
    round: u32,
    list: &str,
) -> Result<(), Error> {
    sqlx::query("INSERT OR IGNORE INTO rounds (experiment, sweep, round, list) VALUES (?, ?, ?, ?)")
        .bind(id)
        .bind(sweep)
        .bind(round)
        .bind(list)
        .execute(&mut **tx)
        .await?;
    Ok(())
}
