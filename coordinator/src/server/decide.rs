//! Decisions of fits, of greedy and gradient rounds, and of what follows pairs: read what they follow from, decide, store, in a task of its own.

use super::actor::Command;
use super::compute::Compute;
use super::patience::{TRIES, pause};
use crate::scheduler::Event;
use crate::store::{Error, Store};
use ablate_common::decide;
use ablate_common::joint;
use ablate_common::plan::{Decision, Plan, SweepKind};
use ablate_common::task::Prepared;
use ablate_common::units::UnitIx;
use ablate_output::joint::Picker;
use ablate_output::results::{Results, RoundResult, RunInfo};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;

#[expect(clippy::too_many_arguments, reason = "a round and what it is decided with")]
/// Decides a round. The actor gets [`Event::Decided`], or [`Command::Broken`] where this round can't be
/// decided, or [`Command::Fatal`] where nothing of the store's can.
pub fn start(
    store: Arc<dyn Store>,
    epoch: u64,
    actor: mpsc::Sender<Command>,
    id: String,
    plan: Arc<Plan>,
    sweep: u32,
    round: u32,
    compute: Compute,
) {
    let ablation = plan.sweeps[sweep as usize].ablation;
    tokio::spawn(async move {
        let mut left = TRIES;
        let decided = loop {
            let plan = Arc::clone(&plan);
            match decide_round(store.as_ref(), epoch, &id, plan, sweep, round, compute).await {
                // It may be the whole store's trouble, for a moment.
                Err(Error::Other(why)) if left > 0 => {
                    tracing::warn!(experiment = id, sweep, round, why, "not decided; trying again");
                    left -= 1;
                }
                decided => break decided,
            }
            if !pause(&actor).await {
                return;
            }
        };
        let command = match decided {
            Ok((opens, constants)) => {
                if let Some(hash) = constants
                    && actor.send(Command::Fitted(id.clone(), ablation, hash)).await.is_err()
                {
                    return;
                }
                Command::Event(Event::Decided { experiment: id, sweep, round, opens })
            }
            Err(e) => undecided(id, sweep, round, e),
        };
        // At shutdown nobody listens; the next start finds the decision, or makes it.
        let _ = actor.send(command).await;
    });
}

/// What the actor hears of a round that can't be decided: whatever needn't stop all experiments stops this one.
fn undecided(id: String, sweep: u32, round: u32, e: Error) -> Command {
    if e.concerns_all() {
        return Command::Fatal(e);
    }
    let why = match e {
        Error::Damaged(why) => why,
        e => e.to_string(),
    };
    Command::Broken(
        id,
        format!("round {round} of sweep {sweep} can't be decided: {why}; `ablate retry` tries again"),
    )
}

/// A decision that panics does so over what is stored of its experiment: no other one's trouble.
fn panicked(why: String) -> Error {
    Error::Damaged(format!("deciding it panicked: {why}"))
}

/// Scores of a pairs sweep that are in memory at a time while it is decided, in bytes.
const PART: u64 = 256 << 20;

/// Sweeps that a decision of sweep `i` reads beside its own.
pub fn needs(plan: &Plan, i: u32) -> Vec<u32> {
    match plan.sweeps[i as usize].kind {
        // What all others wait for.
        SweepKind::Fit => Vec::new(),
        SweepKind::Pairs => joint::needs(plan, i),
        _ => vec![reference_of(plan, i)],
    }
}

/// Reference sweep with the same ablation as sweep `i`.
fn reference_of(plan: &Plan, i: u32) -> u32 {
    let ablation = plan.sweeps[i as usize].ablation;
    plan.sweeps.iter().position(|s| s.kind == SweepKind::Reference && s.ablation == ablation).unwrap_or(0)
        as u32
}

/// Rounds that a decision opens, and the name of the constants that it gives.
type Opens = (Vec<(u32, u32, Vec<u32>)>, Option<String>);

async fn decide_round(
    store: &dyn Store,
    epoch: u64,
    id: &str,
    plan: Arc<Plan>,
    sweep: u32,
    round: u32,
    compute: Compute,
) -> Result<Opens, Error> {
    let rounds = store.rounds(id).await?;
    let missing = || Error::Damaged(format!("round {round} of sweep {sweep} was never opened"));
    let list: Vec<UnitIx> =
        rounds.into_iter().find(|r| (r.sweep, r.round) == (sweep, round)).ok_or_else(missing)?.list;
    if plan.sweeps[sweep as usize].kind == SweepKind::Pairs {
        let decided = follow(store, id, plan, sweep, compute).await?;
        store.decide(epoch, id, sweep, round, &decided, None).await?;
        return Ok(opens(decided));
    }
    let scores = store.round(id, sweep, round).await?;
    if plan.sweeps[sweep as usize].kind == SweepKind::Fit {
        let decided = compute.run(move || decide::decide_fit(&plan, sweep, &scores));
        let (decided, bytes) = decided.await.map_err(panicked)?.map_err(Error::Damaged)?;
        store.decide(epoch, id, sweep, round, &decided, Some(&bytes)).await?;
        return Ok(opens(decided));
    }
    let reference = store.round(id, reference_of(&plan, sweep), 0).await?;
    let last = round + 1 == plan.sweeps[sweep as usize].rounds();
    let earlier = if last && round > 0 { Some(store.round(id, sweep, 0).await?) } else { None };
    let objective = match plan.sweeps[sweep as usize].kind {
        SweepKind::Greedy { objective, .. } => Some(objective),
        // Its one task is the objective of the greedy sweep that it is for.
        SweepKind::Gradient { .. } | SweepKind::Attention { .. } => {
            plan.sweeps[sweep as usize].tasks.first().copied()
        }
        _ => None,
    };
    let Some(objective) = objective else { return Ok((Vec::new(), None)) };
    let blob = store.blob(&plan.tasks[objective as usize].prepared).await?;
    let decided = compute
        .run(move || {
            let prepared: Prepared = serde_json::from_slice(&blob).map_err(|e| e.to_string())?;
            decide::decide(&plan, sweep, round, &list, &scores, &reference, earlier.as_ref(), &prepared)
        })
        .await
        .map_err(panicked)?
        .map_err(Error::Damaged)?;
    store.decide(epoch, id, sweep, round, &decided, None).await?;
    Ok(opens(decided))
}

/// What follows a pairs sweep, of whose scores a part is read at a time.
async fn follow(
    store: &dyn Store,
    id: &str,
    plan: Arc<Plan>,
    sweep: u32,
    compute: Compute,
) -> Result<Decision, Error> {
    let mut prepared = Vec::new();
    for task in &plan.tasks {
        let blob = store.blob(&task.prepared).await?;
        prepared.push(serde_json::from_slice(&blob).map_err(|e| Error::Damaged(e.to_string()))?);
    }
    let mut rounds = BTreeMap::new();
    for needed in joint::needs(&plan, sweep) {
        let chunks = store.round(id, needed, 0).await?.into_iter().collect();
        rounds.insert((needed, 0), RoundResult { chunks, ..RoundResult::default() });
    }
    let per_chunk = bytes_per_chunk(&plan, sweep, &prepared);
    let (all, step) =
        (plan.round_chunks(sweep, 0), u32::try_from(PART / per_chunk).unwrap_or(u32::MAX).max(1));
    let known =
        Results { id: id.to_owned(), plan: (*plan).clone(), prepared, rounds, run: RunInfo::default() };
    let mut picker = Picker::new(known, sweep);
    let mut first = 0;
    while first < all {
        let last = first.saturating_add(step).min(all);
        let chunks: BTreeMap<_, _> = store.chunks(id, sweep, 0, first..last).await?.into_iter().collect();
        if chunks.len() != (last - first) as usize {
            return Err(Error::Damaged(format!("chunks of sweep {sweep} are missing")));
        }
        let added = compute.run(move || {
            picker.add(chunks);
            picker
        });
        picker = added.await.map_err(panicked)?;
        first = last;
    }
    let sets = compute.run(move || picker.finish()).await.map_err(panicked)?;
    Ok(decide::follow(&plan, sweep, &sets))
}

/// Bytes of the scores of a chunk of a sweep.
fn bytes_per_chunk(plan: &Plan, sweep: u32, prepared: &[Prepared]) -> u64 {
    let planned = &plan.sweeps[sweep as usize];
    let of = |&task: &u32| -> u64 {
        let rows = prepared.get(task as usize).map_or(0, |p| plan.rows(sweep, p).len());
        (rows * plan.columns(sweep, task).len() * 8) as u64
    };
    (planned.tasks.iter().map(of).sum::<u64>() * u64::from(planned.chunk)).max(1)
}

fn opens(decided: Decision) -> Opens {
    let numbers = |(s, r, l): (u32, u32, Vec<UnitIx>)| (s, r, l.into_iter().map(|h| h.0).collect());
    (decided.opens.into_iter().map(numbers).collect(), decided.constants)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_concerns_all_stops_more_than_one_experiment() {
        let all = [
            Error::StaleEpoch { ours: 1, newer: 2 },
            Error::Led(String::new()),
            Error::Unavailable("away".into()),
            Error::DiskFull,
            Error::Busy,
        ];
        for e in all {
            let said = e.to_string();
            assert!(matches!(undecided("e".into(), 1, 2, e), Command::Fatal(_)), "{said}");
        }
        let panic = Compute::Pool.run(|| -> u32 { panic!("told to") }).await.map_err(panicked);
        let one = [
            (Error::NotFound("blob b".into()), "the store has no blob b"),
            (Error::Damaged("bad scores".into()), ": bad scores"),
            (Error::Other("row too large".into()), "row too large"),
            (Error::Refused("no".into()), "no"),
            (panic.unwrap_err(), "told to"),
        ];
        for (e, what) in one {
            let Command::Broken(id, why) = undecided("e".into(), 1, 2, e) else { panic!("{what}") };
            assert!(id == "e" && why.starts_with("round 2 of sweep 1") && why.contains(what), "{why}");
        }
    }
}
