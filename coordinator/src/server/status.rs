//! What users see of experiments and workers.

use crate::scheduler::Progress;
use crate::store::{State, Store, Stored};
use ablate_proto::v1;
use serde::Serialize;

/// An experiment's progress.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Identity.
    pub id: String,
    /// Name.
    pub name: String,
    /// State's name.
    pub state: String,
    /// What failed, or keeps a worker from it; empty otherwise.
    pub error: String,
    /// Sweeps, in the plan's order.
    pub sweeps: Vec<SweepStatus>,
    /// Chunks in the plan.
    pub planned: u64,
    /// Results received.
    pub computed: u64,
    /// Chunks accepted.
    pub accepted: u64,
    /// Results for chunks that had one already.
    pub duplicate: u64,
    /// Chunks set aside.
    pub quarantined: u64,
    /// Folder of the tables.
    pub output: String,
    /// Connected workers.
    pub workers: u32,
}

/// A sweep's progress.
#[derive(Clone, Debug, Serialize)]
pub struct SweepStatus {
    /// Kind and ablation.
    pub name: String,
    /// Subsets in all rounds.
    pub subsets_total: u64,
    /// Subsets with scores.
    pub subsets_done: u64,
    /// Chunks in all rounds.
    pub chunks_total: u64,
    /// Chunks with scores.
    pub chunks_done: u64,
    /// Latest round.
    pub round: u32,
    /// Rounds.
    pub rounds: u32,
    /// Lanes' working time so far, in seconds.
    pub busy_seconds: f64,
}

/// A connected worker.
#[derive(Clone, Debug, Serialize)]
pub struct WorkerStatus {
    /// Connection.
    pub id: u64,
    /// Host and process.
    pub name: String,
    /// Program version.
    pub version: String,
    /// Version of the protocol that is spoken with it.
    pub protocol: u32,
    /// (device, device class) of each lane.
    pub lanes: Vec<(String, String)>,
    /// Chunks leased to it.
    pub leased: u32,
    /// Results accepted from it.
    pub accepted: u64,
    /// Failures it reported.
    pub failures: u64,
    /// How long it has been connected.
    pub connected_ms: u64,
    /// Time that its lanes worked, in microseconds.
    pub busy_us: u64,
    /// Time that they waited between one chunk and the next, in microseconds.
    pub idle_us: u64,
}

impl Status {
    /// From what is stored and what the scheduler knows.
    #[must_use]
    pub fn new(stored: &Stored, progress: Option<&Progress>, workers: u32) -> Self {
        let plan = &stored.plan;
        let empty = Progress::default();
        let progress = progress.unwrap_or(&empty);
        let sweeps = (0u32..)
            .zip(&plan.sweeps)
            .map(|(i, sweep)| {
                let rounds = progress.done.get(i as usize);
                let subsets = |round: u32, chunks: u32| -> u64 {
                    let total = plan.round_subsets(i, round);
                    (u64::from(chunks) * u64::from(sweep.chunk)).min(total)
                };
                SweepStatus {
                    name: if sweep.kind.unablated() {
                        sweep.kind.name().to_owned()
                    } else {
                        let method = plan.ablations[sweep.ablation as usize].title();
                        format!("{} ({method}){}", sweep.kind.name(), plan.given(i))
                    },
                    subsets_total: (0..sweep.rounds()).map(|r| plan.round_subsets(i, r)).sum(),
                    subsets_done: rounds.into_iter().flatten().map(|(&r, &n)| subsets(r, n)).sum(),
                    chunks_total: (0..sweep.rounds()).map(|r| u64::from(plan.round_chunks(i, r))).sum(),
                    chunks_done: rounds.into_iter().flatten().map(|(_, &n)| u64::from(n)).sum(),
                    round: rounds.and_then(|r| r.keys().next_back().copied()).unwrap_or(0),
                    rounds: sweep.rounds(),
                    busy_seconds: progress.busy_us.get(i as usize).map_or(0.0, |&us| us as f64 / 1e6),
                }
            })
            .collect();
        Self {
            id: stored.id.clone(),
            name: plan.spec.name.clone(),
            state: stored.state.name().to_owned(),
            error: match (&stored.state, &progress.refused) {
                (State::Failed(e), _) => e.clone(),
                (State::Running, Some(why)) => {
                    format!(
                        "a worker can't serve it: {why}; once that is mended, `ablate retry` asks it again"
                    )
                }
                _ => String::new(),
            },
            sweeps,
            planned: plan.total_chunks(),
            computed: progress.computed,
            accepted: progress.accepted,
            duplicate: progress.duplicate,
            quarantined: progress.quarantined,
            output: stored.output.to_string_lossy().into_owned(),
            workers,
        }
    }

    /// Whether it can still change by itself.
    #[must_use]
    pub fn ended(&self) -> bool {
        matches!(self.state.as_str(), "done" | "cancelled" | "failed")
    }
}

impl From<&Status> for v1::ExperimentStatus {
    fn from(s: &Status) -> Self {
        Self {
            id: s.id.clone(),
            name: s.name.clone(),
            state: s.state.clone(),
            sweeps: s
                .sweeps
                .iter()
                .map(|w| v1::SweepStatus {
                    name: w.name.clone(),
                    subsets_total: w.subsets_total,
                    subsets_done: w.subsets_done,
                    chunks_total: w.chunks_total,
                    chunks_done: w.chunks_done,
                    round: w.round,
                    rounds: w.rounds,
                })
                .collect(),
            chunks_planned: s.planned,
            chunks_computed: s.computed,
            chunks_accepted: s.accepted,
            chunks_duplicate: s.duplicate,
            quarantined: s.quarantined,
            error: s.error.clone(),
            output: s.output.clone(),
            workers: s.workers,
            quarantined_chunks: Vec::new(),
        }
    }
}

/// Chunks that are set aside in one status, at most.
const ASIDE: usize = 100;

/// A status with the chunks that are set aside, as clients get it. While the store can't be read they are left out:
/// their number is there all the same.
pub async fn described(store: &dyn Store, status: &Status) -> v1::ExperimentStatus {
    let mut out = v1::ExperimentStatus::from(status);
    if status.quarantined == 0 {
        return out;
    }
    let stored = store.quarantined(&status.id).await.unwrap_or_else(|e| {
        tracing::warn!(error = %e, "the chunks that are set aside can't be read");
        Vec::new()
    });
    let of = |(sweep, round, chunk, error)| {
        let sweep_name = status.sweeps.get(sweep as usize).map_or_else(String::new, |s| s.name.clone());
        v1::QuarantinedChunk { sweep, round, chunk, sweep_name, error }
    };
    out.quarantined_chunks = stored.into_iter().take(ASIDE).map(of).collect();
    out
}

impl From<&WorkerStatus> for v1::WorkerStatus {
    fn from(w: &WorkerStatus) -> Self {
        Self {
            id: w.id,
            name: w.name.clone(),
            version: w.version.clone(),
            protocol: w.protocol,
            lanes: w
                .lanes
                .iter()
                .map(|(d, c)| v1::Lane { device: d.clone(), device_class: c.clone() })
                .collect(),
            leased_chunks: w.leased,
            accepted_chunks: w.accepted,
            failures: w.failures,
            connected_ms: w.connected_ms,
            busy_us: w.busy_us,
            idle_us: w.idle_us,
        }
    }
}
