//! The store of several coordinators: a PostgreSQL database. One leads, by an epoch and a lease on the
//! database's clock; the others stand by. Every write holds a shared lock on the epoch for its whole transaction.

mod address;
mod bulk;
mod lead;
mod look;
#[cfg(test)]
mod tests;
mod tokens;

pub use address::Address;
pub use look::{Look, look};

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
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::{Connection, PgConnection, PgPool, Postgres, Row, Transaction};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

/// How long the first connection may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an operation waits for a connection of a pool.
const QUEUE: Duration = Duration::from_secs(5);
/// Oldest server that is known to work, as `server_version_num`.
const OLDEST: i32 = 130_000;

/// A coordinator among those that share a database.
#[derive(Clone, Debug)]
pub struct Member {
    /// No other has the same: host, process and something random.
    pub name: String,
    /// Where workers and clients reach it, for those that ask another.
    pub url: String,
    /// How long its lead holds without a renewal.
    pub lead: Duration,
}

/// A store in a PostgreSQL database.
#[derive(Clone, Debug)]
pub struct PostgresStore {
    writers: PgPool,
    readers: PgPool,
    /// Of its own: a renewal must not queue behind results.
    lead: PgPool,
    member: Member,
}

/// What every session is told, whatever the defaults of the database or the user are.
fn session(address: &Address, member: &Member) -> PgConnectOptions {
    address.options().application_name(&format!("ablate {}", member.name)).options([
        // A commit returns once it is on the disk (invariant "durable before acknowledged").
        ("synchronous_commit", "on".to_owned()),
        // A statement that waited for the epoch's lock sees the epoch as it is then.
        ("default_transaction_isolation", "read committed".to_owned()),
        // A coordinator that is stopped in the middle of a write must not hold the epoch's lock for ever.
        ("idle_in_transaction_session_timeout", member.lead.as_millis().to_string()),
    ])
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, Error> {
    match tokio::time::timeout(PATIENCE, PgConnection::connect_with(options)).await {
        Ok(connected) => Ok(connected?),
        Err(_) => Err(Error::Unavailable(format!("no answer within {} s", PATIENCE.as_secs()))),
    }
}

/// PostgreSQL's text can't hold NUL, which a message may carry.
fn text(s: &str) -> Cow<'_, str> {
    if s.contains('\0') { Cow::Owned(s.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(s) }
}

fn at(row: &PgRow, column: usize) -> u32 {
    row.get::<i64, _>(column) as u32
}

impl PostgresStore {
    /// Opens the database, making or migrating its tables as needed.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where it doesn't answer; [`Error::Refused`] where it lets this user not in or
    /// not do what is needed, or was written by a later version.
    pub async fn open(address: &Address, member: Member) -> Result<Self, Error> {
        let options = session(address, &member);
        // Alone first: a pool would hide why it can't connect behind its own time-out.
        let mut one = connect(&options).await?;
        let version: i32 = sqlx::query_scalar("SELECT current_setting('server_version_num')::int")
            .fetch_one(&mut one)
            .await?;
        if version < OLDEST {
            return Err(Error::Refused(format!(
                "PostgreSQL {} is too old; version {} or later is needed",
                version / 10_000,
                OLDEST / 10_000
            )));
        }
        schema::postgres().run(&mut one).await?;
        let fsync: String = sqlx::query_scalar("SHOW fsync").fetch_one(&mut one).await?;
        if fsync == "off" {
            tracing::warn!("fsync is off in this database: what is acknowledged is lost with its machine");
        }
        // The server has its answers; how it takes the goodbye doesn't matter.
        let _ = one.close().await;
        let pool = |connections| {
            PgPoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(QUEUE)
                .connect_lazy_with(options.clone())
        };
        Ok(Self { writers: pool(4), readers: pool(4), lead: pool(2), member })
    }

    /// A transaction that holds only while `epoch` leads.
    async fn write(&self, epoch: u64) -> Result<Transaction<'static, Postgres>, Error> {
        self.begin(epoch, "SELECT epoch FROM leader FOR SHARE").await
    }

    /// The same, with no other write beside it.
    async fn write_alone(&self, epoch: u64) -> Result<Transaction<'static, Postgres>, Error> {
        self.begin(epoch, "SELECT epoch FROM leader FOR UPDATE").await
    }

    async fn begin(&self, epoch: u64, lock: &'static str) -> Result<Transaction<'static, Postgres>, Error> {
        let mut tx = self.writers.begin().await?;
        let newer: i64 = sqlx::query_scalar(lock).fetch_one(&mut *tx).await?;
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

    async fn put(&self, epoch: u64, new: NewExperiment) -> Result<bool, Error> {
        let id = new.plan.identity();
        let mut tx = self.write(epoch).await?;
        for ((hash, ..), prepared) in new.plan.blobs().zip(&new.prepared) {
            let data = serde_json::to_vec(prepared).map_err(damaged)?;
            sqlx::query("INSERT INTO blobs VALUES ($1, $2) ON CONFLICT DO NOTHING")
                .bind(hash)
                .bind(data)
                .execute(&mut *tx)
                .await?;
        }
        let (model_path, output) = (new.model_path.to_string_lossy(), new.output.to_string_lossy());
        let made = sqlx::query(
            "INSERT INTO experiments (id, name, plan, spec, model_path, output, state)
                 VALUES ($1, $2, $3, $4, $5, $6, 'running') ON CONFLICT DO NOTHING",
        )
        .bind(&id)
        .bind(text(&new.plan.spec.name))
        .bind(json(&new.plan)?)
        .bind(text(&new.spec_text))
        .bind(&model_path)
        .bind(&output)
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
            sqlx::query("UPDATE experiments SET model_path = $1, output = $2 WHERE id = $3")
                .bind(&model_path)
                .bind(&output)
                .bind(&id)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(made)
    }
}

fn stored_of(r: &PgRow) -> Result<Stored, Error> {
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

fn round_of(r: &PgRow) -> Result<StoredRound, Error> {
    let decision: Option<&str> = r.get(3);
    Ok(StoredRound {
        sweep: at(r, 0),
        round: at(r, 1),
        list: serde_json::from_str(r.get(2)).map_err(damaged)?,
        decision: decision.map(serde_json::from_str).transpose().map_err(damaged)?,
    })
}

async fn open_round(
    tx: &mut Transaction<'static, Postgres>,
    id: &str,
    sweep: u32,
    round: u32,
    list: &str,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO rounds (experiment, sweep, round, list) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
    )
    .bind(id)
    .bind(i64::from(sweep))
    .bind(i64::from(round))
    .bind(list)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

impl Store for PostgresStore {
    fn acquire_epoch(&self) -> Answer<'_, u64> {
        Box::pin(self.take_lead())
    }

    fn lead_time(&self) -> Option<Duration> {
        Some(self.member.lead)
    }

    fn renew_lead(&self, epoch: u64) -> Answer<'_, ()> {
        Box::pin(self.renew(epoch))
    }

    fn resign(&self, epoch: u64) -> Answer<'_, ()> {
        Box::pin(self.leave(epoch))
    }

    fn put_experiment(&self, epoch: u64, new: NewExperiment) -> Answer<'_, bool> {
        Box::pin(self.put(epoch, new))
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
            sqlx::query("UPDATE experiments SET state = $1, error = $2 WHERE id = $3")
                .bind(state.name())
                .bind(text(error))
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

    fn accepted<'a>(&'a self, id: &'a str) -> Answer<'a, Vec<ChunkAt>> {
        Box::pin(async move {
            let rows =
                sqlx::query("SELECT sweep, round, chunk FROM chunks WHERE experiment = $1 ORDER BY 1, 2, 3")
                    .bind(id);
            Ok(rows.fetch_all(&self.readers).await?.iter().map(|r| (at(r, 0), at(r, 1), at(r, 2))).collect())
        })
    }

    fn busy<'a>(&'a self, id: &'a str) -> Answer<'a, BTreeMap<u32, u64>> {
        Box::pin(async move {
            let rows = sqlx::query("SELECT sweep, us FROM busy WHERE experiment = $1").bind(id);
            let rows = rows.fetch_all(&self.readers).await?;
            Ok(rows.iter().map(|r| (at(r, 0), r.get::<i64, _>(1) as u64)).collect())
        })
    }

    fn chunks<'a>(&'a self, id: &'a str, sweep: u32, round: u32, of: Range<u32>) -> Answer<'a, Round> {
        Box::pin(async move {
            let mut rows = sqlx::query(
                "SELECT chunk, scores FROM chunks
                WHERE experiment = $1 AND sweep = $2 AND round = $3 AND chunk >= $4 AND chunk < $5",
            )
            .bind(id)
            .bind(i64::from(sweep))
            .bind(i64::from(round))
            .bind(i64::from(of.start))
            .bind(i64::from(of.end))
            .fetch(&self.readers);
            let mut out = Round::new();
            while let Some(r) = rows.try_next().await? {
                out.insert(at(&r, 0), ChunkScores::decode(r.get(1)).map_err(damaged)?);
            }
            Ok(out)
        })
    }

    fn rounds<'a>(&'a self, id: &'a str) -> Answer<'a, Vec<StoredRound>> {
        Box::pin(async move {
            let rows = sqlx::query(
                "SELECT sweep, round, list, decision FROM rounds WHERE experiment = $1 ORDER BY 1, 2",
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
                "SELECT sweep, round, list, decision FROM rounds WHERE experiment = $1 AND sweep = $2 AND round = $3",
            );
            let row = row.bind(id).bind(i64::from(sweep)).bind(i64::from(round));
            row.fetch_optional(&self.readers).await?.as_ref().map(round_of).transpose()
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
            sqlx::query(
                "UPDATE rounds SET decision = $1 WHERE experiment = $2 AND sweep = $3 AND round = $4",
            )
            .bind(json(decision)?)
            .bind(id)
            .bind(i64::from(sweep))
            .bind(i64::from(round))
            .execute(&mut *tx)
            .await?;
            if let (Some(hash), Some(bytes)) = (&decision.constants, constants) {
                sqlx::query("INSERT INTO blobs VALUES ($1, $2) ON CONFLICT DO NOTHING")
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
            // Beside a result that is being stored, neither of the two would see the other.
            let mut tx = self.write_alone(epoch).await?;
            sqlx::query(
                "INSERT INTO quarantine SELECT $1::text, $2::bigint, $3::bigint, $4::bigint, $5::text WHERE NOT EXISTS
                     (SELECT 1 FROM chunks WHERE experiment = $1 AND sweep = $2 AND round = $3 AND chunk = $4)
                     ON CONFLICT (experiment, sweep, round, chunk) DO UPDATE SET error = excluded.error",
            )
            .bind(id)
            .bind(i64::from(what.0))
            .bind(i64::from(what.1))
            .bind(i64::from(what.2))
            .bind(text(&what.3))
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(())
        })
    }

    fn quarantined<'a>(&'a self, id: &'a str) -> Answer<'a, Vec<Quarantined>> {
        Box::pin(async move {
            let rows = sqlx::query(
                "SELECT sweep, round, chunk, error FROM quarantine WHERE experiment = $1 ORDER BY 1, 2, 3",
            );
            let rows = rows.bind(id).fetch_all(&self.readers).await?;
            Ok(rows.iter().map(|r| (at(r, 0), at(r, 1), at(r, 2), r.get(3))).collect())
        })
    }

    fn release<'a>(&'a self, epoch: u64, id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut tx = self.write(epoch).await?;
            sqlx::query("DELETE FROM quarantine WHERE experiment = $1").bind(id).execute(&mut *tx).await?;
            sqlx::query("UPDATE experiments SET state = $1, error = '' WHERE id = $2")
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
                sqlx::query(
                    "INSERT INTO timings VALUES ($1, $2, $3)
                         ON CONFLICT (experiment, step) DO UPDATE SET seconds = timings.seconds + excluded.seconds",
                )
                .bind(id)
                .bind(text(step))
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
            let row = sqlx::query_scalar("SELECT data FROM blobs WHERE hash = $1")
                .bind(text(hash))
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
        Box::pin(async {
            self.lead.close().await;
            self.readers.close().await;
            self.writers.close().await;
        })
    }
}
