//! The two operations that move many chunks: taking a batch of results in a few statements, and giving
//! everything recorded.

use super::{PostgresStore, at, text};
use crate::store::assemble::{self, Frame};
use crate::store::encode::damaged;
use crate::store::{ChunkAt, ChunkKey, Error, Incoming, Outcome, Store};
use ablate_common::plan::Plan;
use ablate_common::task::Prepared;
use ablate_output::results::Results;
use futures::TryStreamExt;
use sqlx::{Postgres, Row, Transaction};
use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// Columns of several results, as arrays.
#[derive(Default)]
struct Columns<'a> {
    experiment: Vec<&'a str>,
    sweep: Vec<i64>,
    round: Vec<i64>,
    chunk: Vec<i64>,
    scores: Vec<&'a [u8]>,
    class: Vec<Cow<'a, str>>,
    worker: Vec<Cow<'a, str>>,
    version: Vec<Cow<'a, str>>,
    busy: Vec<i64>,
}

impl<'a> FromIterator<&'a Incoming> for Columns<'a> {
    fn from_iter<T: IntoIterator<Item = &'a Incoming>>(all: T) -> Self {
        let mut c = Self::default();
        for one in all {
            c.experiment.push(&one.key.experiment);
            c.sweep.push(one.key.sweep.into());
            c.round.push(one.key.round.into());
            c.chunk.push(one.key.chunk.into());
            c.scores.push(&one.scores);
            c.class.push(text(&one.device_class));
            c.worker.push(text(&one.worker));
            c.version.push(text(&one.version));
            c.busy.push(one.busy_us as i64);
        }
        c
    }
}

type Tx = Transaction<'static, Postgres>;

/// Stores those whose round is open and that have no result yet, and gives their keys.
async fn insert(tx: &mut Tx, c: &Columns<'_>) -> Result<BTreeSet<ChunkKey>, Error> {
    let rows = sqlx::query(
        "INSERT INTO chunks (experiment, sweep, round, chunk, scores, device_class, worker, version, busy_us)
             SELECT i.* FROM UNNEST($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[], $6::text[],
                 $7::text[], $8::text[], $9::bigint[])
                 AS i (experiment, sweep, round, chunk, scores, device_class, worker, version, busy_us)
             WHERE EXISTS (SELECT 1 FROM rounds r
                 WHERE r.experiment = i.experiment AND r.sweep = i.sweep AND r.round = i.round)
             ON CONFLICT DO NOTHING RETURNING experiment, sweep, round, chunk",
    )
    .bind(&c.experiment)
    .bind(&c.sweep)
    .bind(&c.round)
    .bind(&c.chunk)
    .bind(&c.scores)
    .bind(&c.class)
    .bind(&c.worker)
    .bind(&c.version)
    .bind(&c.busy)
    .fetch_all(&mut **tx)
    .await?;
    let key = |r| ChunkKey { experiment: Row::get(r, 0), sweep: at(r, 1), round: at(r, 2), chunk: at(r, 3) };
    Ok(rows.iter().map(key).collect())
}

/// What is stored of a chunk: whether it has the same bytes, its device class, its worker.
type There = (bool, String, String);

/// By place what is stored. What isn't stored isn't there.
async fn compare(tx: &mut Tx, c: &Columns<'_>) -> Result<BTreeMap<usize, There>, Error> {
    let rows = sqlx::query(
        "SELECT i.n, c.scores = i.scores, c.device_class, c.worker FROM UNNEST($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[])
             WITH ORDINALITY AS i (experiment, sweep, round, chunk, scores, n)
             JOIN chunks c USING (experiment, sweep, round, chunk)",
    )
    .bind(&c.experiment)
    .bind(&c.sweep)
    .bind(&c.round)
    .bind(&c.chunk)
    .bind(&c.scores)
    .fetch_all(&mut **tx)
    .await?;
    let there = |r| (Row::get(r, 1), Row::get(r, 2), Row::get(r, 3));
    Ok(rows.iter().map(|r| (r.get::<i64, _>(0) as usize - 1, there(r))).collect())
}

/// Records that a second result differs.
async fn differs(tx: &mut Tx, one: &Incoming, stored: &str) -> Result<(), Error> {
    sqlx::query("INSERT INTO differing VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING")
        .bind(&one.key.experiment)
        .bind(i64::from(one.key.sweep))
        .bind(i64::from(one.key.round))
        .bind(i64::from(one.key.chunk))
        .bind(text(&one.worker))
        .bind(stored)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// What was set aside has a result now.
async fn mend(tx: &mut Tx, keys: &BTreeSet<ChunkKey>) -> Result<(), Error> {
    let of = |f: fn(&ChunkKey) -> u32| keys.iter().map(|k| i64::from(f(k))).collect::<Vec<_>>();
    sqlx::query(
        "DELETE FROM quarantine q USING UNNEST($1::text[], $2::bigint[], $3::bigint[], $4::bigint[])
             AS i (experiment, sweep, round, chunk)
             WHERE (q.experiment, q.sweep, q.round, q.chunk) = (i.experiment, i.sweep, i.round, i.chunk)",
    )
    .bind(keys.iter().map(|k| k.experiment.as_str()).collect::<Vec<_>>())
    .bind(of(|k| k.sweep))
    .bind(of(|k| k.round))
    .bind(of(|k| k.chunk))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

impl PostgresStore {
    pub(super) async fn accept_all(&self, epoch: u64, batch: &[Incoming]) -> Result<Vec<Outcome>, Error> {
        let mut tx = self.write(epoch).await?;
        let mut outcomes = vec![Outcome::Unknown; batch.len()];
        // A name that PostgreSQL can't hold is no experiment's.
        let known: Vec<usize> =
            (0..batch.len()).filter(|&i| !batch[i].key.experiment.contains('\0')).collect();
        // Only the first of a chunk can be new.
        let mut firsts: BTreeMap<&ChunkKey, usize> = BTreeMap::new();
        let mut later = Vec::new();
        for &i in &known {
            match firsts.entry(&batch[i].key) {
                Entry::Vacant(v) => {
                    v.insert(i);
                }
                Entry::Occupied(_) => later.push(i),
            }
        }
        let fresh = insert(&mut tx, &firsts.values().map(|&i| &batch[i]).collect()).await?;
        let (mut stored, mut differing) = (Vec::new(), Vec::new());
        for (&key, &i) in &firsts {
            if fresh.contains(key) {
                outcomes[i] = Outcome::Accepted;
            } else {
                stored.push(i);
            }
        }
        for i in later {
            match firsts.get(&batch[i].key) {
                Some(&first) if fresh.contains(&batch[i].key) => {
                    let (one, first) = (&batch[i], &batch[first]);
                    let equal = one.scores == first.scores;
                    outcomes[i] = Outcome::second(one, equal, &first.device_class, &first.worker);
                    if outcomes[i] == (Outcome::Duplicate { equal: Some(false) }) {
                        differing.push((i, first.worker.clone()));
                    }
                }
                _ => stored.push(i),
            }
        }
        if !stored.is_empty() {
            let equal = compare(&mut tx, &stored.iter().map(|&i| &batch[i]).collect()).await?;
            for (n, &i) in stored.iter().enumerate() {
                let Some((equal, class, worker)) = equal.get(&n) else { continue };
                outcomes[i] = Outcome::second(&batch[i], *equal, class, worker);
                if outcomes[i] == (Outcome::Duplicate { equal: Some(false) }) {
                    differing.push((i, worker.clone()));
                }
            }
        }
        for (i, stored) in differing {
            differs(&mut tx, &batch[i], &stored).await?;
        }
        if !fresh.is_empty() {
            mend(&mut tx, &fresh).await?;
        }
        let mut sums: BTreeMap<(&str, u32), Sums> = BTreeMap::new();
        for (one, outcome) in batch.iter().zip(&outcomes).filter(|&(_, &o)| o != Outcome::Unknown) {
            let sum = sums.entry((&one.key.experiment, one.key.sweep)).or_default();
            sum.computed += 1;
            sum.duplicate += i64::from(*outcome != Outcome::Accepted);
            sum.compared += i64::from(matches!(outcome, Outcome::Duplicate { equal: Some(_) }));
            sum.busy_us += one.busy_us as i64;
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
        let column = |of: fn(&ChunkAt) -> u32| chunks.iter().map(|c| i64::from(of(c))).collect::<Vec<i64>>();
        let rows = sqlx::query(
            "SELECT sweep, round, chunk, c.scores FROM UNNEST($2::bigint[], $3::bigint[], $4::bigint[]) AS i (sweep, round, chunk)
                 JOIN chunks c USING (sweep, round, chunk) WHERE c.experiment = $1",
        )
        .bind(id)
        .bind(column(|c| c.0))
        .bind(column(|c| c.1))
        .bind(column(|c| c.2))
        .fetch_all(&self.readers)
        .await?;
        Ok(rows.iter().map(|r| ((at(r, 0), at(r, 1), at(r, 2)), r.get(3))).collect())
    }

    pub(super) async fn all_results(&self, id: &str) -> Result<Results, Error> {
        let row = sqlx::query("SELECT plan, computed, duplicate, compared FROM experiments WHERE id = $1")
            .bind(text(id))
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
        let rows = sqlx::query("SELECT step, seconds FROM timings WHERE experiment = $1").bind(id);
        for r in rows.fetch_all(&self.readers).await? {
            seconds.insert(r.get(0), r.get(1));
        }
        let rows = sqlx::query(
            "SELECT sweep, round, chunk, stored, worker FROM differing WHERE experiment = $1 ORDER BY 1, 2, 3, 5",
        )
        .bind(id)
        .fetch_all(&self.readers)
        .await?;
        let one = |r| ((at(r, 0), at(r, 1), at(r, 2)), Row::get(r, 3), Row::get(r, 4));
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
            "SELECT sweep, round, chunk, scores, device_class, version FROM chunks WHERE experiment = $1",
        )
        .bind(id)
        .fetch(&self.readers);
        while let Some(r) = rows.try_next().await? {
            assemble::add(&mut results, (at(&r, 0), at(&r, 1), at(&r, 2)), r.get(3), r.get(4), r.get(5))?;
        }
        Ok(results)
    }
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
    async fn add(&self, tx: &mut Tx, id: &str, sweep: u32) -> Result<(), Error> {
        sqlx::query(
            "UPDATE experiments SET computed = computed + $1, duplicate = duplicate + $2, compared = compared + $3 WHERE id = $4",
        )
        .bind(self.computed)
        .bind(self.duplicate)
        .bind(self.compared)
        .bind(id)
        .execute(&mut **tx)
        .await?;
        sqlx::query(
            "INSERT INTO busy VALUES ($1, $2, $3)
                 ON CONFLICT (experiment, sweep) DO UPDATE SET us = busy.us + excluded.us",
        )
        .bind(id)
        .bind(i64::from(sweep))
        .bind(self.busy_us)
        .execute(&mut **tx)
        .await?;
        Ok(())
    }
}
