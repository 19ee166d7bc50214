//! The experiment that hostile streams are about: two layers of three heads, and every kind of sweep that needs no other first.
//! The simulated cluster works on the same with other sweeps.

use ablate_common::head::HeadMap;
use ablate_common::metric::Metric;
use ablate_common::model::{Details, ModelInfo};
use ablate_common::plan::{Ablation, Plan, PlannedSweep, PlannedTask, SweepKind};
use ablate_common::scores::{ChunkScores, TaskScores};
use ablate_common::spec::{Dtype, ModelSpec, Spec};
use ablate_common::task::{Example, Item, Prepared, Scope, TaskKind};
use ablate_common::units::UnitMap;

/// What it is called on the wire.
pub const ID: &str = "e";

/// Its task's data.
#[must_use]
pub fn prepared() -> Prepared {
    let item = Item { tokens: vec![1, 2, 3], ..Item::default() };
    let example = |i: u32| Example { a: i, b: i, gold: 0.0, cluster: i, half: Some((i % 2) as u8) };
    Prepared {
        kind: TaskKind::Ioi,
        items: vec![item; 4],
        item_half: vec![0, 1, 0, 1],
        examples: (0..4).map(example).collect(),
        probe: None,
    }
}

/// Its plan.
///
/// # Panics
/// Never.
#[must_use]
pub fn plan() -> Plan {
    let heads = HeadMap::single_stream(2, 3);
    let model = ModelInfo {
        arch: "llama".into(),
        title: "m".into(),
        weights_sha256: "00".into(),
        heads: heads.clone(),
        layers: 2,
        d_model: 12,
        n_heads: 3,
        n_kv_heads: 3,
        head_dim: 4,
        d_ff: 16,
        vocab: 8,
        context: 16,
        norm_eps: 1e-5,
        rope_theta: None,
        tied: true,
        details: Details::default(),
    };
    let data = serde_json::to_vec(&prepared()).expect("JSON");
    let task = PlannedTask {
        name: "t".into(),
        kind: TaskKind::Ioi,
        metric: Metric::LogitDiff,
        prepared: blake3::hash(&data).to_hex().to_string(),
        items: 4,
        examples: 4,
        all: vec![],
        select: vec![],
    };
    let kinds = [
        (SweepKind::Reference, 2),
        (SweepKind::Single, 2),
        (SweepKind::Pairs, 4),
        (SweepKind::Greedy { steps: 4, objective: 0 }, 2),
        (SweepKind::Random { orders: 2, seed: 1, points: vec![1, 3, 5] }, 2),
    ];
    Plan {
        engine: ablate_common::ENGINE_VERSION,
        spec: Spec {
            name: "p".into(),
            seed: 1,
            model: ModelSpec { source: "m".into(), dtype: Dtype::F32, sha256: None },
            tasks: vec![],
            ablations: vec![Ablation::Zero.into()],
            sweeps: vec![],
        },
        model,
        tasks: vec![task],
        ablations: vec![Ablation::Zero.into()],
        units: vec![UnitMap::heads(&heads)],
        references: vec![],
        sweeps: kinds.map(sweep).to_vec(),
    }
}

/// A sweep of a kind over all heads, of so many subsets a chunk.
#[must_use]
pub fn sweep((kind, chunk): (SweepKind, u32)) -> PlannedSweep {
    let scope = if matches!(kind, SweepKind::Greedy { .. }) { Scope::Select } else { Scope::All };
    PlannedSweep { kind, ablation: 0, tasks: vec![0], units: 0, scope, chunk }
}

/// Scores of the right shape for a chunk of a round without input.
#[must_use]
pub fn scores(plan: &Plan, sweep: u32, chunk: u32) -> Vec<u8> {
    let ranks = plan.chunk_ranks(sweep, 0, chunk);
    let subsets = (ranks.end - ranks.start) as u32;
    let values = (0..subsets * 4).map(|i| f64::from(i).sqrt()).collect();
    let block = TaskScores { task: 0, examples: 4, columns: plan.columns(sweep, 0).len() as u32, values };
    ChunkScores { subsets, tasks: vec![block] }.encode()
}
