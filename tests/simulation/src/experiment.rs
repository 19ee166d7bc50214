//! What the simulated cluster works on: every kind of sweep on a model of 2 layers of 3 heads, with scores that are
//! a pure function of the subsets.

use ablate_common::plan::{Order, SweepKind};
use ablate_common::scores::{ChunkScores, TaskScores};
use ablate_common::units::UnitIx;
use ablate_coordinator::store::NewExperiment;
use ablate_hostile::experiment as hostile;
use ablate_output::results::Results;

/// An experiment on a model of 2 layers of 3 heads: every kind of sweep.
pub fn experiment(seed: u64) -> NewExperiment {
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
        (SweepKind::Conditional { base: vec![UnitIx(1), UnitIx(4)] }, 3),
    ];
    let mut plan = hostile::plan();
    plan.spec.name = format!("test-{seed}");
    plan.spec.seed = seed;
    plan.sweeps = kinds.map(hostile::sweep).to_vec();
    NewExperiment {
        plan,
        prepared: vec![hostile::prepared()],
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
