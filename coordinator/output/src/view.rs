//! Checked look-ups in stored scores: whatever is missing or has the wrong shape is `None`.

use crate::results::Results;
use ablate_common::plan::SweepKind;
use ablate_common::scores::TaskScores;

/// Scores of a task in one subset: a slice per column of its kind.
pub type Columns<'a> = Vec<&'a [f64]>;

/// The block of a task in a chunk, if it has the plan's shape.
pub fn block(results: &Results, sweep: u32, round: u32, chunk: u32, task: u32) -> Option<&TaskScores> {
    let planned = results.plan.sweeps.get(sweep as usize)?;
    let at = planned.tasks.iter().position(|&t| t == task)?;
    let prepared = results.prepared.get(task as usize)?;
    let scores = results.rounds.get(&(sweep, round))?.chunks.get(&chunk)?;
    let block = scores.tasks.get(at)?;
    let range = results.plan.chunk_ranks(sweep, round, chunk);
    let shape = [scores.subsets as usize, block.columns as usize, block.examples as usize];
    let fits = block.task == task
        && block.columns as usize == results.plan.columns(sweep, task).len()
        && block.examples as usize == results.plan.rows(sweep, prepared).len()
        && u64::from(scores.subsets) == range.end.saturating_sub(range.start)
        && block.values.len() == shape.iter().product::<usize>();
    fits.then_some(block)
}

/// The columns of the subset at `rank`.
pub fn columns(results: &Results, sweep: u32, round: u32, task: u32, rank: u64) -> Option<Columns<'_>> {
    let size = u64::from(results.plan.sweeps.get(sweep as usize)?.chunk.max(1));
    let block = block(results, sweep, round, u32::try_from(rank / size).ok()?, task)?;
    let subset = (rank % size) as usize;
    let end = (subset + 1) * block.columns as usize * block.examples as usize;
    (end <= block.values.len())
        .then(|| (0..block.columns as usize).map(|c| block.column(subset, c)).collect())
}

/// The first sweep of a kind that runs an ablation on a task.
pub fn sweep_of(
    results: &Results,
    ablation: u32,
    task: u32,
    kind: impl Fn(&SweepKind) -> bool,
) -> Option<u32> {
    (0u32..)
        .zip(&results.plan.sweeps)
        .find(|(_, s)| s.ablation == ablation && s.tasks.contains(&task) && kind(&s.kind))
        .map(|s| s.0)
}

/// Every sweep of a kind that runs an ablation on a task: sweeps of different streams have no unit in common.
pub fn sweeps_of(
    results: &Results,
    ablation: u32,
    task: u32,
    kind: impl Fn(&SweepKind) -> bool,
) -> impl Iterator<Item = u32> {
    (0u32..)
        .zip(&results.plan.sweeps)
        .filter(move |(_, s)| s.ablation == ablation && s.tasks.contains(&task) && kind(&s.kind))
        .map(|s| s.0)
}

/// Chunks of a sweep's rounds: (round, present, planned) for every round that isn't complete.
pub fn missing(results: &Results, sweep: u32) -> Vec<(u32, u32, u32)> {
    let Some(planned) = results.plan.sweeps.get(sweep as usize) else { return Vec::new() };
    (0..planned.rounds())
        .filter_map(|round| {
            let of = results.plan.round_chunks(sweep, round);
            let whole =
                |chunk| planned.tasks.iter().all(|&t| block(results, sweep, round, chunk, t).is_some());
            let have = results
                .rounds
                .get(&(sweep, round))
                .map_or(0, |r| r.chunks.keys().filter(|&&c| c < of && whole(c)).count() as u32);
            (have < of).then_some((round, have, of))
        })
        .collect()
}
