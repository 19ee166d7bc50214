//! The two operations that move many chunks: taking a batch of results, and giving everything recorded.

use super::SqliteStore;
use crate::store::assemble::{self, Frame};
use crate::store::encode::damaged;
use crate::store::{ChunkKey, Error, Incoming, Outcome, Store};
use ablate_common::plan::Plan;
use ablate_common::task::Prepared;
use ablate_output::results::Results;
use futures::TryStreamExt;
use sqlx::{Row, Sqlite, Transaction};
use std::collections::BTreeMap;

impl SqliteStore {
    pub(super) async fn accept_all(&self, epoch: u64, batch: &[Incoming]) -> Result<Vec<Outcome>, Error> {
        let mut tx = self.write(epoch).await?;
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut sums: BTreeMap<(&str, u32), Sums> = BTreeMap::new();
        for one in batch {
            let ChunkKey { experiment, sweep, round, chunk } = &one.key;
            let made = sqlx::query(
                "INSERT INTO chunks SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9
                     WHERE EXISTS (SELECT 1 FROM rounds WHERE experiment = ?1 AND sweep = ?2 AND round = ?3)
                     ON CONFLICT DO NOTHING",
            )
            .bind(experiment)
            .bind(sweep)
            .bind(round)
            .bind(chunk)
            .bind(&one.scores)
            .bind(&one.device_class)
            .bind(&one.worker)
            .bind(one.busy_us as i64)
            .bind(&one.version)
            .execute(&mut *tx)
            .await?
            .rows_affected();
            let outcome = if made == 1 {
                sqlx::query(
                    "DELETE FROM quarantine WHERE experiment = ? AND sweep = ? AND round = ? AND chunk = ?",
                )
                .bind(experiment)
                .bind(sweep)
                .bind(round)
                .bind(chunk)
                .execute(&mut *tx)
                .await?;
                Outcome::Accepted
            } else {
                let stored: Option<bool> = sqlx::query_scalar(
                        "SELECT scores = ? FROM chunks WHERE experiment = ? AND sweep = ? AND round = ? AND chunk = ?",
                    )
                    .bind(&one.scores)
                    .bind(experiment)
                    .bind(sweep)
                    .bind(round)
                    .bind(chunk)
                    .fetch_optional(&mut *tx)
                    .await?;
                stored.map_or(Outcome::Unknown, |equal| Outcome::Duplicate { equal })
            };
            if outcome != Outcome::Unknown {
                let sum = sums.entry((experiment, *sweep)).or_default();
                sum.computed += 1;
                sum.duplicate += i64::from(outcome != Outcome::Accepted);
                sum.busy_us += one.busy_us as i64;
            }
            outcomes.push(outcome);
        }
        for ((experiment, sweep), sum) in sums {
            sum.add(&mut tx, experiment, sweep).await?;
        }
        tx.commit().await?;
        Ok(outcomes)
    }

    pub(super) async fn all_results(&self, id: &str) -> Result<Results, Error> {
        let row = sqlx::query("SELECT plan, computed, duplicate FROM experiments WHERE id = ?")
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
        let frame = Frame {
            id: id.to_owned(),
            plan,
            prepared,
            computed: row.get::<i64, _>(1) as u64,
            duplicate: row.get::<i64, _>(2) as u64,
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

/// What a batch adds to an experiment's counters.
#[derive(Default)]
struct Sums {
    computed: i64,
    duplicate: i64,
    busy_us: i64,
}

impl Sums {
    async fn add(&self, tx: &mut Transaction<'static, Sqlite>, id: &str, sweep: u32) -> Result<(), Error> {
        sqlx::query("UPDATE experiments SET computed = computed + ?, duplicate = duplicate + ? WHERE id = ?")
            .bind(self.computed)
            .bind(self.duplicate)
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
