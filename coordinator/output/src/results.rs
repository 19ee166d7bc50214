//! What a store gives for an experiment: the input of every table.

use ablate_common::plan::{Decision, Plan};
use ablate_common::scores::ChunkScores;
use ablate_common::task::Prepared;
use ablate_common::units::UnitIx;
use std::collections::BTreeMap;

/// All that was recorded of an experiment. May be partial: rounds or chunks that are missing are left
/// out of the tables, and named in `run.json`.
#[derive(Clone, Debug)]
pub struct Results {
    /// Identity of the experiment (hex).
    pub id: String,
    /// Recorded plan.
    pub plan: Plan,
    /// Prepared tasks, in the plan's order.
    pub prepared: Vec<Prepared>,
    /// (sweep, round) → what was recorded of it.
    pub rounds: BTreeMap<(u32, u32), RoundResult>,
    /// How the run went.
    pub run: RunInfo,
}

/// One round of a sweep.
#[derive(Clone, Debug, Default)]
pub struct RoundResult {
    /// Input of the round (see [`Plan::space`]).
    pub list: Vec<UnitIx>,
    /// Decision, where the round has ended.
    pub decision: Option<Decision>,
    /// Chunk → scores.
    pub chunks: BTreeMap<u32, ChunkScores>,
}

/// Everything about a run that isn't a score.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct RunInfo {
    /// Chunks in the plan.
    pub planned: u64,
    /// Results that reached the coordinator.
    pub computed: u64,
    /// Results that were the first for their chunk.
    pub accepted: u64,
    /// Results for chunks that had one already.
    pub duplicate: u64,
    /// Of these, those that another worker of the same device class computed: their bytes were compared.
    pub compared: u64,
    /// Chunks whose bytes weren't equal: (sweep, round, chunk, worker whose result is stored, the other one).
    pub differing: Vec<(u32, u32, u32, String, String)>,
    /// Quarantined shards: (sweep, round, first chunk, count, error).
    pub quarantined: Vec<(u32, u32, u32, u32, String)>,
    /// Device classes that contributed, with the chunks of each.
    pub device_classes: BTreeMap<String, u64>,
    /// Seconds by step ("prepare", "sweep single", …) as measured by the coordinator.
    pub seconds: BTreeMap<String, f64>,
    /// Names and versions of the programs ("ablate", "ablate-worker", "libtorch").
    pub versions: BTreeMap<String, String>,
}
