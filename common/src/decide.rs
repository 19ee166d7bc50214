//! Decisions of greedy sweeps, and of those whose scores give an order: pure functions of a round's stored scores, so that any replay decides
//! the same.

use crate::attention;
use crate::fit;
use crate::gradient;
use crate::joint;
use crate::metric::Metric;
use crate::plan::{Decision, Order, Plan, PlannedSweep, SweepKind};
use crate::scores::{ChunkScores, TaskScores};
use crate::stats::point;
use crate::task::{Prepared, Scope};
use crate::units::UnitIx;
use std::collections::HashMap;

/// Unit that a greedy round removes, given Δ of each candidate and ℓ(∅): the lowest in forward order
/// among all with Δ ≤ min + 1e-6 · max(1, |ℓ(∅)|). A NaN is never chosen while a number is there.
///
/// Candidates are (unit, delta) in forward order. `None` only where there are none.
#[must_use]
pub fn pick(candidates: &[(UnitIx, f64)], baseline_loss: f64) -> Option<UnitIx> {
    let min = candidates.iter().map(|c| c.1).filter(|d| !d.is_nan()).min_by(f64::total_cmp);
    let Some(min) = min else { return candidates.first().map(|c| c.0) };
    let limit = min + 1e-6 * baseline_loss.abs().max(1.0);
    candidates.iter().find(|c| c.1 <= limit).map(|c| c.0)
}

/// Scores of a round: chunk → its scores.
pub type Round = HashMap<u32, ChunkScores>;

/// The rounds that an experiment can start with, as (sweep, round, input): not those of paths, matched orders and follow-ups, nor
/// those that wait for the constants of a fit.
#[must_use]
pub fn opening(plan: &Plan) -> Vec<(u32, u32, Vec<UnitIx>)> {
    starting(plan).filter(|&i| !fit::waits(plan, i)).map(|i| (i, 0, Vec::new())).collect()
}

/// Sweeps that need no order, and no other's scores.
fn starting(plan: &Plan) -> impl Iterator<Item = u32> {
    let waits = |s: &PlannedSweep| {
        matches!(s.kind, SweepKind::Path { .. } | SweepKind::Matched { .. } | SweepKind::Joint { .. })
    };
    (0u32..).zip(&plan.sweeps).filter(move |(_, s)| !waits(s)).map(|(i, _)| i)
}

/// What a complete pairs sweep leads to: the sets of its follow-up.
#[must_use]
pub fn follow(plan: &Plan, pairs: u32, sets: &[Vec<UnitIx>]) -> Decision {
    let opens = joint::follower(plan, pairs).map(|i| (i, 0, joint::encode(sets)));
    Decision { opens: opens.into_iter().collect(), ..Decision::default() }
}

/// What a complete fit leads to: all other sweeps of its ablation, with the constants' bytes, which have their name in the
/// decision.
///
/// # Errors
/// Where chunks are missing or don't have the plan's shape (a damaged store).
pub fn decide_fit(plan: &Plan, sweep: u32, scores: &Round) -> Result<(Decision, Vec<u8>), String> {
    let bytes = fit::whole(plan, sweep, scores)?.encode();
    let ablation = plan.sweeps[sweep as usize].ablation;
    let of = |&i: &u32| i != sweep && plan.sweeps[i as usize].ablation == ablation;
    let opens = starting(plan).filter(of).map(|i| (i, 0, Vec::new())).collect();
    let constants = Some(blake3::hash(&bytes).to_hex().to_string());
    Ok((Decision { remove: None, opens, constants }, bytes))
}

/// What a finished round leads to.
///
/// `list` is the round's input, `scores` all its chunks. For greedy rounds `reference` holds the chunks
/// of the reference sweep with the same ablation (rank 0 is ℓ(∅)); `earlier` gives, on the last round
/// and where an importance path is planned, the scores of round 0. A gradient or attention sweep that a path follows needs its own
/// scores only.
///
/// # Errors
/// Where chunks are missing or don't have the plan's shape (a damaged store).
#[expect(clippy::too_many_arguments, reason = "the parts of a round; a struct would only rename them")]
pub fn decide(
    plan: &Plan,
    sweep: u32,
    round: u32,
    list: &[UnitIx],
    scores: &Round,
    reference: &Round,
    earlier: Option<&Round>,
    objective: &Prepared,
) -> Result<Decision, String> {
    let (steps, task) = match plan.sweeps[sweep as usize].kind {
        SweepKind::Greedy { steps, objective } => (steps, objective),
        SweepKind::Gradient { greedy: Some(greedy) } => {
            let (weights, _) = gradient::weights(objective, plan.sweeps[sweep as usize].scope);
            let importance = |block: &TaskScores, unit| gradient::importance(block, unit, &weights);
            return ascending(plan, sweep, (greedy, Order::Gradient), scores, objective, importance);
        }
        SweepKind::Attention { greedy: Some(greedy) } => {
            let order = (greedy, Order::Rollout);
            return ascending(plan, sweep, order, scores, objective, attention::rollout);
        }
        _ => return Ok(Decision::default()),
    };
    let metric = plan.tasks[task as usize].metric;
    let scope = plan.sweeps[sweep as usize].scope;
    let base = baseline(plan, sweep, task, reference, objective, scope, metric)?;
    let deltas = candidate_deltas(plan, sweep, round, list, scores, objective, task, base)?;
    let unit = pick(&deltas, base).ok_or("a greedy round has no candidate")?;
    let mut removed = list.to_vec();
    removed.push(unit);
    let mut opens = Vec::new();
    if round + 1 < steps {
        opens.push((sweep, round + 1, removed));
    } else {
        for (i, s) in (0u32..).zip(&plan.sweeps) {
            match s.kind {
                SweepKind::Path { greedy, order: Order::Greedy } | SweepKind::Matched { greedy, .. }
                    if greedy == sweep =>
                {
                    opens.push((i, 0, removed.clone()));
                }
                SweepKind::Path { greedy, order: Order::Importance } if greedy == sweep => {
                    let first = if round == 0 {
                        scores
                    } else {
                        earlier.ok_or("round 0 of the greedy sweep is missing")?
                    };
                    let mut order = candidate_deltas(plan, sweep, 0, &[], first, objective, task, base)?;
                    order.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
                    opens.push((i, 0, order.iter().take(steps as usize).map(|c| c.0).collect()));
                }
                _ => {}
            }
        }
    }
    Ok(Decision { remove: Some(unit), opens, constants: None })
}

/// The path along ascending importance that a sweep on the objective opens, for an order of a greedy sweep; `importance` is that of a
/// unit of a block.
fn ascending(
    plan: &Plan,
    sweep: u32,
    (greedy, by): (u32, Order),
    scores: &Round,
    objective: &Prepared,
    importance: impl Fn(&TaskScores, usize) -> f64,
) -> Result<Decision, String> {
    let rows = plan.rows(sweep, objective).len();
    let mut order = Vec::new();
    for chunk in 0..plan.round_chunks(sweep, 0) {
        let ranks = plan.chunk_ranks(sweep, 0, chunk);
        let scores = scores.get(&chunk).ok_or_else(|| format!("chunk {chunk} is missing"))?;
        let block = scores.tasks.first().ok_or("the sweep lacks its objective")?;
        let shape = (u64::from(scores.subsets), block.examples as usize, block.columns as usize);
        if shape != (ranks.end - ranks.start, rows, plan.columns(sweep, block.task).len()) {
            return Err(format!("chunk {chunk} doesn't have the plan's shape"));
        }
        for (at, rank) in ranks.enumerate() {
            order.push((importance(block, at), UnitIx(rank as u32)));
        }
    }
    // Units whose importance isn't a number go last.
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let steps = plan.sweeps.get(greedy as usize).map_or(0, PlannedSweep::rounds) as usize;
    let list: Vec<UnitIx> = order.into_iter().take(steps).map(|o| o.1).collect();
    let follows = |s: &PlannedSweep| s.kind == SweepKind::Path { greedy, order: by };
    let opens = (0u32..).zip(&plan.sweeps).filter(|(_, s)| follows(s)).map(|(i, _)| (i, 0, list.clone()));
    Ok(Decision { opens: opens.collect(), ..Decision::default() })
}

/// ℓ(∅) of a task on a scope, from the reference sweep of the same ablation (whose scope is `All`).
fn baseline(
    plan: &Plan,
    sweep: u32,
    task: u32,
    reference: &Round,
    prepared: &Prepared,
    scope: Scope,
    metric: Metric,
) -> Result<f64, String> {
    let ablation = plan.sweeps[sweep as usize].ablation;
    let source = plan
        .sweeps
        .iter()
        .find(|s| s.kind == SweepKind::Reference && s.ablation == ablation)
        .ok_or("the plan has no reference sweep")?;
    let at = source.tasks.iter().position(|&t| t == task).ok_or("the reference sweep lacks the objective")?;
    let chunk = reference.get(&0).ok_or("chunk 0 of the reference sweep is missing")?;
    let block = chunk.tasks.get(at).ok_or("the reference sweep lacks a block of scores")?;
    let all = prepared.examples_in(Scope::All);
    let keep = prepared.examples_in(scope);
    if block.examples as usize != all.len() {
        return Err("the reference sweep has the wrong number of examples".into());
    }
    let columns: Vec<Vec<f64>> = (0..block.columns as usize)
        .map(|c| keep.iter().map(|&e| block.column(0, c)[e as usize]).collect())
        .collect();
    let columns: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
    Ok(metric.as_loss(point::value(metric, prepared, &keep, &columns)))
}

#[expect(clippy::too_many_arguments, reason = "one call site; a struct would only rename them")]
fn candidate_deltas(
    plan: &Plan,
    sweep: u32,
    round: u32,
    list: &[UnitIx],
    scores: &Round,
    prepared: &Prepared,
    task: u32,
    base: f64,
) -> Result<Vec<(UnitIx, f64)>, String> {
    let planned = &plan.sweeps[sweep as usize];
    let metric = plan.tasks[task as usize].metric;
    let at = planned.tasks.iter().position(|&t| t == task).ok_or("the sweep lacks its objective")?;
    let keep = prepared.examples_in(planned.scope);
    let space = plan.space(sweep, list);
    let mut out = Vec::new();
    for chunk in 0..plan.round_chunks(sweep, round) {
        let block = scores
            .get(&chunk)
            .and_then(|c| c.tasks.get(at))
            .ok_or_else(|| format!("chunk {chunk} is missing"))?;
        if block.examples as usize != keep.len() {
            return Err(format!("chunk {chunk} has {} examples instead of {}", block.examples, keep.len()));
        }
        for (i, rank) in plan.chunk_ranks(sweep, round, chunk).enumerate() {
            let subset = space.subset(rank).ok_or("a rank is past the end")?;
            let unit = *subset.iter().find(|u| !list.contains(u)).ok_or("a candidate adds no unit")?;
            let columns: Vec<&[f64]> = (0..block.columns as usize).map(|c| block.column(i, c)).collect();
            out.push((unit, metric.as_loss(point::value(metric, prepared, &keep, &columns)) - base));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_within_a_millionth_go_to_the_lowest_head() {
        let c = |v: &[f64]| (0u32..).map(UnitIx).zip(v.iter().copied()).collect::<Vec<_>>();
        assert_eq!(pick(&c(&[0.5, 1e-7, 0.0]), 0.1), Some(UnitIx(1)));
        assert_eq!(pick(&c(&[0.5, 3e-6, 0.0]), 0.1), Some(UnitIx(2)));
        assert_eq!(pick(&c(&[0.5, 3e-6, 0.0]), -4.0), Some(UnitIx(1)));
        assert_eq!(pick(&c(&[f64::NAN, 2.0]), 1.0), Some(UnitIx(1)));
        assert_eq!(pick(&c(&[f64::NAN]), 1.0), Some(UnitIx(0)));
        assert_eq!(pick(&[], 1.0), None);
    }
}
