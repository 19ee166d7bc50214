//! Effects so far, for whoever follows an experiment: units alone, curves, and greedy sweeps round by round. They are computed from
//! what is stored, by what tables are computed by, and only while somebody asks; pairs, which are most of what is stored, aren't read.

use super::{Compute, Error, Handle, Status};
use crate::store::{Store, StoredRound};
use ablate_common::decide::Round;
use ablate_common::plan::{Plan, SweepKind};
use ablate_common::stats::point;
use ablate_common::task::{Prepared, Scope};
use ablate_common::units::UnitIx;
use ablate_output::results::{Results, RoundResult, RunInfo};
use ablate_output::{Analysis, Curve, Group};
use ablate_proto::v1;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Experiments whose effects are kept at once.
const MOST: usize = 4;
/// Least time between two computations; longer ones rest for so many times what they took.
const REST: Duration = Duration::from_secs(1);
const TIMES: u32 = 4;
/// q up to which an effect counts as resolved.
const RESOLVED: f64 = 0.05;

/// What is known of each experiment that was asked for lately.
#[derive(Default)]
pub struct Effects(std::sync::Mutex<BTreeMap<String, Arc<Mutex<Known>>>>);

#[derive(Default)]
struct Known {
    asked: Option<Instant>,
    /// Accepted chunks and state when it was computed.
    of: (u64, String),
    again: Option<Instant>,
    reply: v1::LiveReply,
    prepared: Option<Arc<Vec<Prepared>>>,
    walks: BTreeMap<u32, Vec<v1::LivePoint>>,
}

impl Effects {
    /// The effects of an experiment, where they aren't those that the caller has `seen`.
    ///
    /// # Errors
    /// Where there is no such experiment, or the store can't be read.
    pub async fn of(&self, handle: &Handle, id: &str, seen: u64) -> Result<v1::LiveReply, Error> {
        let status = handle.statuses().get(id).cloned();
        let (status, plan) = status.zip(handle.plan(id)).ok_or_else(|| Error::NoExperiment(id.to_owned()))?;
        let known = self.slot(id);
        let mut known = known.lock().await;
        let now = Instant::now();
        known.asked = Some(now);
        let of = (status.accepted, status.state.clone());
        if known.of != of && known.again.is_none_or(|again| now >= again) {
            let began = Instant::now();
            known.compute(handle, &status, plan).await?;
            known.of = of;
            known.again = Some(Instant::now() + (began.elapsed() * TIMES).max(REST));
        }
        if known.reply.revision == seen {
            return Ok(v1::LiveReply { revision: seen, groups: Vec::new() });
        }
        Ok(known.reply.clone())
    }

    fn slot(&self, id: &str) -> Arc<Mutex<Known>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains_key(id) && all.len() >= MOST {
            // One that is being computed was asked for just now.
            let asked = |k: &Arc<Mutex<Known>>| k.try_lock().map_or(Some(Instant::now()), |k| k.asked);
            let oldest = all.iter().min_by_key(|(_, k)| asked(k)).map(|(id, _)| id.clone());
            oldest.map(|id| all.remove(&id));
        }
        Arc::clone(all.entry(id.to_owned()).or_default())
    }
}

impl Known {
    async fn compute(&mut self, handle: &Handle, status: &Status, plan: Arc<Plan>) -> Result<(), Error> {
        let store = handle.store();
        let rounds = store.rounds(&status.id).await?;
        let prepared = self.prepared(store.as_ref(), &plan).await?;
        let mut results = Results {
            id: status.id.clone(),
            plan: Plan::clone(&plan),
            prepared: Vec::clone(&prepared),
            rounds: BTreeMap::new(),
            run: RunInfo::default(),
        };
        for stored in &rounds {
            let matters = matches!(
                plan.sweeps.get(stored.sweep as usize).map(|s| &s.kind),
                Some(
                    SweepKind::Reference
                        | SweepKind::Single
                        | SweepKind::Path { .. }
                        | SweepKind::Random { .. }
                )
            );
            if matters && status.sweeps.get(stored.sweep as usize).is_some_and(|s| s.chunks_done > 0) {
                let chunks = store.round(&status.id, stored.sweep, stored.round).await?;
                let round = RoundResult {
                    list: stored.list.clone(),
                    decision: stored.decision.clone(),
                    chunks: chunks.into_iter().collect(),
                };
                results.rounds.insert((stored.sweep, stored.round), round);
            }
        }
        for (sweep, planned) in (0u32..).zip(&plan.sweeps) {
            if let SweepKind::Greedy { objective, .. } = planned.kind {
                self.walk(store.as_ref(), &results, &rounds, sweep, objective).await?;
            }
        }
        let walks = self.walks.clone();
        let compute: Compute = handle.options.compute;
        let groups = compute.run(move || described(&results, &walks)).await.map_err(Error::State)?;
        self.reply = v1::LiveReply { revision: self.reply.revision + 1, groups };
        Ok(())
    }

    async fn prepared(&mut self, store: &dyn Store, plan: &Plan) -> Result<Arc<Vec<Prepared>>, Error> {
        if let Some(prepared) = &self.prepared {
            return Ok(Arc::clone(prepared));
        }
        let mut all = Vec::with_capacity(plan.tasks.len());
        for task in &plan.tasks {
            let bytes = store.blob(&task.prepared).await?;
            let mut task: Prepared = serde_json::from_slice(&bytes)
                .map_err(|e| Error::State(format!("a prepared task is damaged: {e}")))?;
            // No statistic looks at images.
            task.items.iter_mut().for_each(|i| i.image = None);
            all.push(task);
        }
        Ok(Arc::clone(self.prepared.insert(Arc::new(all))))
    }

    /// Goes on along a greedy sweep: the metric of what each round left, on the examples that it selects by.
    async fn walk(
        &mut self,
        store: &dyn Store,
        results: &Results,
        rounds: &[StoredRound],
        sweep: u32,
        task: u32,
    ) -> Result<(), Error> {
        let points = self.walks.entry(sweep).or_default();
        if points.is_empty() {
            points.extend(nothing_gone(results, sweep, task));
        }
        let units = results.plan.units(sweep);
        let decided = rounds.iter().filter(|r| r.sweep == sweep && r.decision.is_some());
        let mut decided: Vec<&StoredRound> = decided.collect();
        decided.sort_by_key(|r| r.round);
        for stored in decided.into_iter().skip(points.len().saturating_sub(1)) {
            let Some(unit) = stored.decision.as_ref().and_then(|d| d.remove) else { return Ok(()) };
            let scores = store.round(&results.id, sweep, stored.round).await?;
            let Some(value) = chosen(results, sweep, task, stored, unit, &scores) else { return Ok(()) };
            let gone: Vec<UnitIx> = stored.list.iter().copied().chain([unit]).collect();
            let name = units.place(results.plan.heads(), unit).map_or_else(String::new, |p| p.name);
            let removed = units.union(&gone).len() as u32;
            points.push(v1::LivePoint { removed, value, retained: None, unit: name });
        }
        Ok(())
    }
}

/// The value of a metric from one subset of stored scores, on the examples of a scope.
fn value(results: &Results, task: u32, scope: Scope, columns: &[&[f64]]) -> Option<f64> {
    let prepared = results.prepared.get(task as usize)?;
    let keep = prepared.examples_in(scope);
    let fits = columns.iter().all(|c| c.len() == keep.len());
    fits.then(|| point::value(results.plan.tasks[task as usize].metric, prepared, &keep, columns))
}

/// Where a greedy sweep begins.
fn nothing_gone(results: &Results, sweep: u32, task: u32) -> Option<v1::LivePoint> {
    let planned = results.plan.sweeps.get(sweep as usize)?;
    let reference = (0u32..)
        .zip(&results.plan.sweeps)
        .find(|(_, s)| s.ablation == planned.ablation && s.kind == SweepKind::Reference)?;
    let at = reference.1.tasks.iter().position(|&t| t == task)?;
    let block = results.rounds.get(&(reference.0, 0))?.chunks.get(&0)?.tasks.get(at)?;
    let keep = results.prepared.get(task as usize)?.examples_in(planned.scope);
    let column = |c| {
        let all = block.column(0, c);
        keep.iter().map(|&e| all.get(e as usize).copied()).collect::<Option<Vec<f64>>>()
    };
    let columns = (0..block.columns as usize).map(column).collect::<Option<Vec<_>>>()?;
    let columns: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
    let value = value(results, task, planned.scope, &columns)?;
    Some(v1::LivePoint { value, ..v1::LivePoint::default() })
}

/// The value that a round's choice left.
fn chosen(
    results: &Results,
    sweep: u32,
    task: u32,
    stored: &StoredRound,
    unit: UnitIx,
    scores: &Round,
) -> Option<f64> {
    let planned = results.plan.sweeps.get(sweep as usize)?;
    let mut subset: Vec<UnitIx> = stored.list.iter().copied().chain([unit]).collect();
    subset.sort_unstable();
    let rank = results.plan.space(sweep, &stored.list).rank(&subset)?;
    let chunk = u32::try_from(rank / u64::from(planned.chunk.max(1))).ok()?;
    let at = planned.tasks.iter().position(|&t| t == task)?;
    let block = scores.get(&chunk)?.tasks.get(at)?;
    let row = usize::try_from(rank - results.plan.chunk_ranks(sweep, stored.round, chunk).start).ok()?;
    let columns: Vec<&[f64]> = (0..block.columns as usize).map(|c| block.column(row, c)).collect();
    value(results, task, planned.scope, &columns)
}

/// On the wire.
fn described(results: &Results, walks: &BTreeMap<u32, Vec<v1::LivePoint>>) -> Vec<v1::LiveGroup> {
    let Analysis { groups, .. } = ablate_output::analyse(results);
    groups.iter().map(|g| group(results, g, walks)).collect()
}

fn group(results: &Results, g: &Group, walks: &BTreeMap<u32, Vec<v1::LivePoint>>) -> v1::LiveGroup {
    let mut units: Vec<v1::LiveUnit> = g
        .places
        .iter()
        .map(|p| v1::LiveUnit {
            name: p.name.clone(),
            stream: p.stream.map_or_else(String::new, |s| s.name().to_owned()),
            layer: p.layer,
            head: p.head,
            ..v1::LiveUnit::default()
        })
        .collect();
    for row in &g.heads {
        if let Some(unit) = units.get_mut(row.ix.at()) {
            let known = |v: f64| (!v.is_nan()).then_some(v);
            unit.delta = Some(row.delta.value);
            (unit.low, unit.high) = (known(row.delta.low), known(row.delta.high));
            unit.resolved = row.q <= RESOLVED;
        }
    }
    let walk = |(sweep, planned): (u32, &ablate_common::plan::PlannedSweep)| {
        let SweepKind::Greedy { objective, .. } = planned.kind else { return None };
        if (planned.ablation, objective) != (g.ablation, g.task) {
            return None;
        }
        let points = walks.get(&sweep).filter(|w| w.len() > 1)?.clone();
        Some(v1::LiveCurve { order: "greedy".to_owned(), selecting: true, last: 0, points })
    };
    let going = (0u32..).zip(&results.plan.sweeps).filter_map(walk);
    v1::LiveGroup {
        task: g.name.clone(),
        metric: g.metric.name().to_owned(),
        method: g.method.to_owned(),
        unit: g.unit.name().to_owned(),
        baseline: (!g.baseline.is_nan()).then_some(g.baseline),
        curves: g.curves.iter().filter(|c| c.points.len() > 1).map(|c| curve(g, c)).chain(going).collect(),
        units,
    }
}

fn curve(g: &Group, c: &Curve) -> v1::LiveCurve {
    let points = c.points.iter().map(|p| v1::LivePoint {
        removed: p.removed,
        value: p.value,
        retained: p.retained,
        unit: p.unit.map_or_else(String::new, |u| g.name_of(u).to_owned()),
    });
    v1::LiveCurve { order: c.order.clone(), selecting: false, last: c.last, points: points.collect() }
}
