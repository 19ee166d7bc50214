//! What the simulated cluster works on: every kind of sweep on a model of 2 layers of 3 heads, with scores that are
//! a pure function of the subsets.

use ablate_common::head::HeadMap;
use ablate_common::metric::Metric;
use ablate_common::model::ModelInfo;
use ablate_common::plan::{Ablation, Order, Plan, PlannedSweep, PlannedTask, SweepKind};
use ablate_common::scores::{ChunkScores, TaskScores};
use ablate_common::spec::{Dtype, ModelSpec, Spec};
use ablate_common::task::{Example, Item, Prepared, Scope, TaskKind};
use ablate_common::units::{UnitIx, UnitMap};
use ablate_coordinator::store::NewExperiment;
use ablate_output::results::Results;

/// An experiment on a model of 2 layers of 3 heads: every kind of sweep.
pub fn experiment(seed: u64) -> NewExperiment {
    let item = Item { tokens: vec![1, 2, 3], ..Item::default() };
    let example = |i: u32| Example { a: i, b: i, gold: 0.0, cluster: i, half: Some((i % 2) as u8) };
    let prepared = Prepared {
        kind: TaskKind::Ioi,
        items: vec![item; 4],
        item_half: vec![0, 1, 0, 1],
        examples: (0..4).map(example).collect(),
        probe: None,
    };
    let task = PlannedTask {
        name: "t".into(),
        kind: TaskKind::Ioi,
        metric: Metric::LogitDiff,
        prepared: blake3::hash(&serde_json::to_vec(&prepared).unwrap_or_default()).to_hex().to_string(),
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
        (SweepKind::Path { greedy: 3, order: Order::Greedy }, 3),
        (SweepKind::Path { greedy: 3, order: Order::Importance }, 3),
        (SweepKind::Random { orders: 2, seed, points: vec![1, 3, 5] }, 2),
        (SweepKind::Joint { pairs: 2, groups: 2, triples: 2 }, 3),
        (SweepKind::Matched { greedy: 3, orders: 2, seed, points: vec![1, 2, 4] }, 2),
    ];
    let sweeps = kinds
        .into_iter()
        .map(|(kind, chunk)| {
            let scope = if matches!(kind, SweepKind::Greedy { .. }) { Scope::Select } else { Scope::All };
            PlannedSweep { kind, ablation: 0, tasks: vec![0], units: 0, scope, chunk }
        })
        .collect();
    let model = ModelInfo {
        arch: "llama".into(),
        title: "m".into(),
        weights_sha256: "00".into(),
        heads: HeadMap::single_stream(2, 3),
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
        details: ablate_common::model::Details::default(),
    };
    let plan = Plan {
        engine: ablate_common::ENGINE_VERSION,
        spec: Spec {
            name: format!("test-{seed}"),
            seed,
            model: ModelSpec { source: "m".into(), dtype: Dtype::F32, sha256: None },
            tasks: vec![],
            ablations: vec![Ablation::Zero.into()],
            sweeps: vec![],
        },
        model,
        tasks: vec![task],
        ablations: vec![Ablation::Zero.into()],
        units: vec![UnitMap::heads(&HeadMap::single_stream(2, 3))],
        references: vec![],
        sweeps,
    };
    NewExperiment {
        plan,
        prepared: vec![prepared],
        model_path: "model".into(),
        spec_text: "spec".into(),
        output: "out".into(),
    }
}

/// Bytes of a chunk's scores, at most: the pairs have most subsets in a chunk, and other scores may pack a little worse.
pub fn largest(new: &NewExperiment) -> usize {
    const PAIRS: u32 = 2;
    let chunks = 0..new.plan.round_chunks(PAIRS, 0);
    32 + chunks.map(|c| scores(new, PAIRS, 0, &[], c, false).len()).max().unwrap_or_default()
}

/// Scores of a chunk: a pure function of the subsets. A `strange` engine rounds otherwise.
pub fn scores(
    new: &NewExperiment,
    sweep: u32,
    round: u32,
    list: &[UnitIx],
    chunk: u32,
    strange: bool,
) -> Vec<u8> {
    let first = if strange { 9.0f64.next_up() } else { 9.0 };
    let (plan, prepared) = (&new.plan, &new.prepared[0]);
    let space = plan.space(sweep, list);
    let ranks = plan.chunk_ranks(sweep, round, chunk);
    let keep = prepared.examples_in(plan.sweeps[sweep as usize].scope);
    let mut values = Vec::new();
    for rank in ranks.clone() {
        let subset = space.subset(rank).unwrap_or_default();
        for &e in &keep {
            let hurt = |h: &UnitIx| f64::from((h.0 * 7 + 3) % 5) + f64::from(e) * 0.01;
            // The first three heads stand in for each other, so that pairs have something to follow.
            let among = subset.iter().filter(|h| h.0 < 3).count() as f64;
            let both = among * (among - 1.0) / 2.0 * (1.0 + f64::from(e) * 0.01);
            values.push(first - subset.iter().map(hurt).sum::<f64>() - both);
        }
    }
    let block = TaskScores { task: 0, examples: keep.len() as u32, columns: 1, values };
    ChunkScores { subsets: (ranks.end - ranks.start) as u32, tasks: vec![block] }.encode()
}

/// All bytes that tables are made from.
#[must_use]
pub fn tables(r: &Results) -> String {
    let rounds = r.rounds.iter().map(|(at, r)| {
        let chunks: Vec<_> = r.chunks.iter().map(|(c, s)| (c, blake3::hash(&s.encode()))).collect();
        format!("{at:?} {:?} {:?} {chunks:?}\n", r.list, r.decision)
    });
    rounds.collect()
}
