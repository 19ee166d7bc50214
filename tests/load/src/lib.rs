//! Imitation workers: they speak the protocol as real ones do, and make up their scores. A process has hundreds of them, each
//! with a connection and a stream of its own, and measures what they wait for.

pub mod idle;
pub mod model;
pub mod service;
mod session;
pub mod targets;

use ablate_common::plan::Plan;
use ablate_common::scores::{ChunkScores, TaskScores};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Different scores that chunks of one shape get: enough that no two neighbours are equal.
const PAYLOADS: usize = 32;

/// What is imitated.
#[derive(Clone, Debug)]
pub struct Options {
    /// The coordinator's URL.
    pub url: String,
    /// How many workers, each of one lane.
    pub workers: u32,
    /// How long a lane works on a chunk.
    pub chunk: Duration,
    /// Results that a worker may have unacknowledged before it waits.
    pub window: u32,
    /// How long to go on.
    pub time: Duration,
    /// What comes in this time isn't counted.
    pub warm_up: Duration,
    /// Ends earlier, once so many chunks are acknowledged; none: never.
    pub chunks: Option<u64>,
}

/// What was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Workers.
    pub workers: u32,
    /// Chunks that were acknowledged, as accepted or as a copy.
    pub acknowledged: u64,
    /// Of these, copies.
    pub duplicates: u64,
    /// Chunks acknowledged per second, after warming up.
    pub chunks_per_s: f64,
    /// Bytes of scores of a chunk, encoded, on average.
    pub chunk_bytes: f64,
    /// From asking for a shard to having it, in ms: half and 99 % of the times are below.
    pub lease_p50_ms: f64,
    /// See above.
    pub lease_p99_ms: f64,
    /// From sending a result to its acknowledgement, likewise.
    pub ack_p50_ms: f64,
    /// See above.
    pub ack_p99_ms: f64,
    /// Shards.
    pub shards: u64,
    /// From the start to the first shard, in seconds.
    pub first_shard_s: Option<f64>,
    /// Times that a stream ended and was opened again.
    pub reconnects: u64,
    /// What the coordinator said where it refused a worker.
    pub refused: Option<String>,
}

/// Encoded scores of chunks of one shape.
type Payloads = Arc<Vec<Vec<u8>>>;

/// An experiment, as its workers see it.
struct Experiment {
    plan: Plan,
    /// (sweep, subsets) → encoded scores.
    payloads: Mutex<HashMap<(u32, u64), Payloads>>,
}

impl Experiment {
    /// Made-up scores of a chunk.
    fn scores(&self, sweep: u32, round: u32, chunk: u32) -> Vec<u8> {
        let ranks = self.plan.chunk_ranks(sweep, round, chunk);
        let subsets = ranks.end - ranks.start;
        let mut all = self.payloads.lock().unwrap_or_else(PoisonError::into_inner);
        let own = all.entry((sweep, subsets)).or_insert_with(|| Arc::new(self.payloads(sweep, subsets)));
        own[chunk as usize % own.len()].clone()
    }

    fn payloads(&self, sweep: u32, subsets: u64) -> Vec<Vec<u8>> {
        let planned = &self.plan.sweeps[sweep as usize];
        let mut random = fastrand::Rng::with_seed(u64::from(sweep) << 32 | subsets);
        let one = |_| {
            let block = |&task: &u32| {
                let (of, columns) = (&self.plan.tasks[task as usize], self.plan.columns(sweep, task).len());
                let n = subsets as usize * columns * of.examples as usize;
                let values = (0..n).map(|_| random.f64() - 0.5).collect();
                TaskScores { task, examples: of.examples, columns: columns as u32, values }
            };
            ChunkScores { subsets: subsets as u32, tasks: planned.tasks.iter().map(block).collect() }.encode()
        };
        let mut one = one;
        (0..PAYLOADS).map(&mut one).collect()
    }
}

/// What all workers share.
struct Load {
    options: Options,
    began: Instant,
    experiments: Mutex<HashMap<String, Arc<Experiment>>>,
    acknowledged: AtomicU64,
    counted: AtomicU64,
    duplicates: AtomicU64,
    bytes: AtomicU64,
    sent: AtomicU64,
    shards: AtomicU64,
    reconnects: AtomicU64,
    first_shard: Mutex<Option<Duration>>,
    lease_waits: Mutex<Vec<u32>>,
    ack_waits: Mutex<Vec<u32>>,
    refused: Mutex<Option<String>>,
    stop: AtomicBool,
}

impl Load {
    fn warm(&self) -> bool {
        self.began.elapsed() >= self.options.warm_up
    }

    fn open(&self, id: &str, plan: &[u8]) -> anyhow::Result<()> {
        let mut all = self.experiments.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains_key(id) {
            let plan = serde_json::from_slice(plan).context("the plan can't be read")?;
            all.insert(id.to_owned(), Arc::new(Experiment { plan, payloads: Mutex::default() }));
        }
        Ok(())
    }

    fn experiment(&self, id: &str) -> Option<Arc<Experiment>> {
        self.experiments.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    fn stopped(&self) -> bool {
        let enough = self.options.chunks.is_some_and(|n| self.acknowledged.load(Ordering::Relaxed) >= n);
        enough || self.stop.load(Ordering::Relaxed)
    }

    fn wait(list: &Mutex<Vec<u32>>, time: Duration) {
        let us = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        list.lock().unwrap_or_else(PoisonError::into_inner).push(us);
    }
}

/// Share `p` of the values is at most this, in ms.
fn quantile(sorted: &[u32], p: f64) -> f64 {
    let at = ((sorted.len() as f64 * p).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).map_or(0.0, |&us| f64::from(us) / 1000.0)
}

/// Runs imitation workers until their time is over.
///
/// # Errors
/// Where the URL isn't one.
pub async fn run(options: Options) -> anyhow::Result<Summary> {
    let endpoint = session::endpoint(&options.url)?;
    let load = Arc::new(Load {
        began: Instant::now(),
        experiments: Mutex::default(),
        acknowledged: AtomicU64::new(0),
        counted: AtomicU64::new(0),
        duplicates: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        sent: AtomicU64::new(0),
        shards: AtomicU64::new(0),
        reconnects: AtomicU64::new(0),
        first_shard: Mutex::new(None),
        lease_waits: Mutex::default(),
        ack_waits: Mutex::default(),
        refused: Mutex::default(),
        stop: AtomicBool::new(false),
        options,
    });
    let workers: Vec<_> = (0..load.options.workers)
        .map(|number| tokio::spawn(session::work(Arc::clone(&load), endpoint.clone(), number)))
        .collect();
    while load.began.elapsed() < load.options.time && !load.stopped() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let measured = load.began.elapsed().saturating_sub(load.options.warm_up).as_secs_f64();
    let counted = load.counted.load(Ordering::Relaxed);
    load.stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await?;
    }
    let sorted = |list: &Mutex<Vec<u32>>| {
        let mut all = std::mem::take(&mut *list.lock().unwrap_or_else(PoisonError::into_inner));
        all.sort_unstable();
        all
    };
    let (leases, acks) = (sorted(&load.lease_waits), sorted(&load.ack_waits));
    let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
    Ok(Summary {
        workers: load.options.workers,
        acknowledged: get(&load.acknowledged),
        duplicates: get(&load.duplicates),
        chunks_per_s: if measured > 0.0 { counted as f64 / measured } else { 0.0 },
        chunk_bytes: get(&load.bytes) as f64 / get(&load.sent).max(1) as f64,
        lease_p50_ms: quantile(&leases, 0.5),
        lease_p99_ms: quantile(&leases, 0.99),
        ack_p50_ms: quantile(&acks, 0.5),
        ack_p99_ms: quantile(&acks, 0.99),
        shards: get(&load.shards),
        first_shard_s: load
            .first_shard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .map(|d| d.as_secs_f64()),
        reconnects: get(&load.reconnects),
        refused: load.refused.lock().unwrap_or_else(PoisonError::into_inner).take(),
    })
}
