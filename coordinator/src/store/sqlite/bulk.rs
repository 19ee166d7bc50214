//! The two operations that move many chunks: taking a batch of results, and giving everything recorded.

use super::SqliteStore;
use crate::store::assemble::{self, Frame};
use crate::store::encode::damaged;
use crate::store::{ChunkAt, ChunkKey, Error, Incoming, Outcome, Store};
use ablate_common::plan::Plan;
use ablate_common::task::Prepared;
use ablate_output::results::Results;
use futures::TryStreamExt;
use sqlx::{AssertSqlSafe, Connection, Row, Sqlite, Transaction};
use std::collections::BTreeMap;

impl SqliteStore {
    pub(super) async fn accept_all(&self, epoch: u64, batch: &[Incoming]) -> Result<Vec<Outcome>, Error> {
        let mut tx = self.write(epoch).await?;
        let quarantines: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM quarantine)").fetch_one(&mut *tx).await?;
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut left = batch;
        while let Some(&rows) = ROWS.iter().find(|&&rows| rows <= left.len()) {
            let (these, rest) = left.split_at(rows);
            left = rest;
            // Each statement costs several switches between threads, so that all go in at once where all are new.
            if rows > 1 {
                let mut part = tx.begin().await?;
                if insert(&mut part, these).await? == rows as u64 {
                    part.commit().await?;
                    outcomes.extend(these.iter().map(|_| Outcome::Accepted));
                    continue;
                }
                part.rollback().await?;
            }
            for one in these {
                outcomes.push(accept(&mut tx, one).await?);
            }
        }
        let mut sums: BTreeMap<(&str, u32), Sums> = BTreeMap::new();
        for (one, outcome) in batch.iter().zip(&outcomes) {
            let ChunkKey { experiment, sweep, round, chunk } = &one.key;
            if *outcome == Outcome::Unknown {
                continue;
            }
            let sum = sums.entry((experiment, *sweep)).or_default();
            sum.computed += 1;
            sum.duplicate += i64::from(*outcome != Outcome::Accepted);
            sum.compared += i64::from(matches!(outcome, Outcome::Duplicate { equal: Some(_) }));
            sum.busy_us += one.busy_us as i64;
            if quarantines && *outcome == Outcome::Accepted {
                sqlx::query(
                    "DELETE FROM quarantine WHERE experiment = ? AND sweep = ? AND round = ? AND chunk = ?",
                )
                .bind(experiment)
                .bind(sweep)
                .bind(round)
                .bind(chunk)
                .execute(&mut *tx)
                .await?;
            }
        }
        for ((experiment, sweep), sum) in sums {
            sum.add(&mut tx, experiment, sweep).await?;
        }
        tx.commit().await?;
        Ok(outcomes)
    }

    pub(super) async fn some_scores(
        &self,
        id: &str,
        chunks: &[ChunkAt],
    ) -> Result<Vec<(ChunkAt, Vec<u8>)>, Error> {
        let mut reader = self.readers.acquire().await?;
        let mut out = Vec::with_capacity(chunks.len());
        for &at in chunks {
            let one = sqlx::query_scalar(
                "SELECT scores FROM chunks WHERE experiment = ? AND sweep = ? AND round = ? AND chunk = ?",
            );
            let one = one.bind(id).bind(at.0).bind(at.1).bind(at.2).fetch_optional(&mut *reader).await?;
            out.extend(one.map(|scores| (at, scores)));
        }
        Ok(out)
    }

    pub(super) async fn all_results(&self, id: &str) -> Result<Results, Error> {
        let row = sqlx::query("SELECT plan, computed, duplicate, compared FROM experiments WHERE id = ?")
            .bind(id)
            .fetch_optional(&self.readers)
            .await?
            .ok_or_else(|| Error::NotFound(format!("experiment {id}")))?;
        let plan: Plan = serde_json::from_str(row.get(0)).map_err(damaged)?;
        let mut prepared = Vec::new();
        for task in &plan.tasks {
            let blob = self.blob(&task.prepared).await?;
            prepared.push(serde_json::from_slice::<Prepared>(&blob).map_err(damaged)?);
        }
        let mut seconds = BTreeMap::new();
        let rows = sqlx::query("SELECT step, seconds FROM timings WHERE experiment = ?").bind(id);
        for r in rows.fetch_all(&self.readers).await? {
            seconds.insert(r.get(0), r.get(1));
        }
        let rows = sqlx::query(
            "SELECT sweep, round, chunk, stored, worker FROM differing WHERE experiment = ? ORDER BY 1, 2, 3, 5",
        )
        .bind(id)
        .fetch_all(&self.readers)
        .await?;
        let one = |r| ((Row::get(r, 0), Row::get(r, 1), Row::get(r, 2)), Row::get(r, 3), Row::get(r, 4));
        let differing = rows.iter().map(one).collect();
        let frame = Frame {
            id: id.to_owned(),
            plan,
            prepared,
            computed: row.get::<i64, _>(1) as u64,
            duplicate: row.get::<i64, _>(2) as u64,
            compared: (row.get::<i64, _>(3) as u64, differing),
            rounds: self.rounds(id).await?,
            quarantined: self.quarantined(id).await?,
            seconds,
            busy_us: self.busy(id).await?,
        };
        let mut results = frame.results();
        let mut rows = sqlx::query(
            "SELECT sweep, round, chunk, scores, device_class, version FROM chunks WHERE experiment = ?",
        )
        .bind(id)
        .fetch(&self.readers);
        while let Some(r) = rows.try_next().await? {
            assemble::add(&mut results, (r.get(0), r.get(1), r.get(2)), r.get(3), r.get(4), r.get(5))?;
        }
        Ok(results)
    }
}

/// Rows of one statement: few sizes, so that prepared statements are found again.
const ROWS: [usize; 4] = [64, 16, 4, 1];

/// Inserts what is new and of a round that was opened; how many.
async fn insert(tx: &mut Transaction<'_, Sqlite>, rows: &[Incoming]) -> Result<u64, Error> {
    let values = vec!["(?, ?, ?, ?, ?, ?, ?, ?, ?)"; rows.len()].join(", ");
    let text = format!(
        "INSERT INTO chunks SELECT * FROM (VALUES {values}) AS new
             WHERE EXISTS (SELECT 1 FROM rounds WHERE experiment = column1 AND sweep = column2 AND round = column3)
             ON CONFLICT DO NOTHING"
    );
    let mut query = sqlx::query(AssertSqlSafe(text));
    for one in rows {
        let ChunkKey { experiment, sweep, round, chunk } = &one.key;
        query = query
            .bind(experiment)
            .bind(sweep)
            .bind(round)
            .bind(chunk)
            .bind(&one.scores)
            .bind(&one.device_class)
            .bind(&one.worker)
            .bind(one.busy_us as i64)
            .bind(&one.version);
    }
    Ok(query.execute(&mut **tx).await?.rows_affected())
}

/// Stores one result, or says why not.
async fn accept(tx: &mut Transaction<'static, Sqlite>, one: &Incoming) -> Result<Outcome, Error> {
    if insert(tx, std::slice::from_ref(one)).await? == 1 {
        return Ok(Outcome::Accepted);
    }
    let ChunkKey { experiment, sweep, round, chunk } = &one.key;
    let stored = sqlx::query(
        "SELECT scores = ?, device_class, worker FROM chunks WHERE experiment = ? AND sweep = ? AND round = ? AND chunk = ?",
    )
    .bind(&one.scores)
    .bind(experiment)
    .bind(sweep)
    .bind(round)
    .bind(chunk)
    .fetch_optional(&mut **tx)
    .await?;
    let Some(there) = stored else { return Ok(Outcome::Unknown) };
    let worker: &str = there.get(2);
    let outcome = Outcome::second(one, there.get(0), there.get(1), worker);
    if outcome == (Outcome::Duplicate { equal: Some(false) }) {
        sqlx::query("INSERT INTO differing VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING")
            .bind(experiment)
            .bind(sweep)
            .bind(round)
            .bind(chunk)
            .bind(&one.worker)
            .bind(worker)
            .execute(&mut **tx)
            .await?;
    }
    Ok(outcome)
}

/// What a batch adds to an experiment's counters.
#[derive(Default)]
struct Sums {
    computed: i64,
    duplicate: i64,
    compared: i64,
    busy_us: i64,
}

impl Sums {
    async fn add(&self, tx: &mut Transaction<'static, Sqlite>, id: &str, sweep: u32) -> Result<(), Error> {
        sqlx::query("UPDATE experiments SET computed = computed + ?, duplicate = duplicate + ?, compared = compared + ? WHERE id = ?")
            .bind(self.computed)
            .bind(self.duplicate)
            .bind(self.compared)
            .bind(id)
            .execute(&mut **tx)
            .await?;
        sqlx::query("INSERT INTO busy VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET us = us + excluded.us")
            .bind(id)
            .bind(sweep)
            .bind(self.busy_us)
            .execute(&mut **tx)
            .await?;
        Ok(())
    }
}
