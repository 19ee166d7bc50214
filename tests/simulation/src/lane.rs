//! Lanes without an engine: a chunk takes simulated time, and its scores are a pure function of its subsets.

use crate::experiment;
use crate::trace::{Sim, lock};
use ablate_coordinator::store::NewExperiment;
use ablate_worker_client::lane::{Done, ExecError, Job, LaneDevice, Report, Starter};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a lane goes without looking whether it must stop.
const LOOK: u64 = 40;

/// What the lanes of one worker have in common; faults change it.
#[derive(Debug)]
pub struct Pace {
    /// Milliseconds of a chunk.
    pub chunk: u64,
    /// Whether its engine computes slightly other numbers.
    pub strange: bool,
    /// A chunk of a first round that fails: its sweep and number.
    pub poisoned: Mutex<Option<(u32, u32)>>,
    /// Times as long, for now.
    pub slow: AtomicU64,
    /// Of a thousand chunks, how many fail.
    pub fails: AtomicU64,
    /// Of a thousand chunks, how many come out garbled.
    pub garbled: AtomicU64,
}

/// Starts the lanes of a worker.
pub fn starter(
    sim: Arc<Sim>,
    node: usize,
    pace: Arc<Pace>,
    new: Arc<NewExperiment>,
    rng: Arc<Mutex<ChaCha8Rng>>,
) -> Starter {
    Arc::new(move |device: &LaneDevice, report: Report| {
        let (to, mut jobs) = mpsc::unbounded_channel::<Job>();
        let (sim, pace, new, rng, lane) = (sim.clone(), pace.clone(), new.clone(), rng.clone(), device.lane);
        tokio::spawn(async move {
            while let Some(job) = jobs.recv().await {
                let (draw, shake) = {
                    let mut rng = lock(&rng);
                    (rng.random_range(0..1000), rng.random_range(80..120))
                };
                let at = (job.sweep, job.round, job.chunk);
                lock(&sim.checks).begun(&sim, node, lane, at, &job.stop);
                let mut left = (pace.chunk * pace.slow.load(Ordering::Relaxed) * shake / 100).max(1);
                let all = left;
                let stopped = loop {
                    if job.stop.load(Ordering::Relaxed) {
                        break true;
                    }
                    if left == 0 {
                        break false;
                    }
                    let part = left.min(LOOK);
                    tokio::time::sleep(Duration::from_millis(part)).await;
                    left -= part;
                };
                let fails = pace.fails.load(Ordering::Relaxed);
                let result = if stopped {
                    Err(ExecError::Stopped)
                } else if job.round == 0 && *lock(&pace.poisoned) == Some((job.sweep, job.chunk)) {
                    sim.fault("poisoned chunks");
                    Err(ExecError::Failed("simulated poison".to_owned()))
                } else if draw < fails {
                    sim.fault("engine failures");
                    Err(ExecError::Failed("simulated".to_owned()))
                } else {
                    let mut bytes =
                        experiment::scores(&new, job.sweep, job.round, &job.list, job.chunk, pace.strange);
                    if draw < fails + pace.garbled.load(Ordering::Relaxed) {
                        sim.fault("garbled results");
                        bytes.truncate(9);
                    }
                    Ok(bytes)
                };
                lock(&sim.checks).ended(&sim, node, lane, result.as_ref().ok().map(Vec::len));
                let busy = Duration::from_millis(all);
                if !report(Done { lane, result, busy, waited: Duration::ZERO }) {
                    return;
                }
            }
        });
        Ok(Box::new(move |job| to.send(job).is_ok()))
    })
}
