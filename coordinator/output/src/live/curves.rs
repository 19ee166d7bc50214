//! Pruning curves as far as they are known, and greedy sweeps while they go on.

use super::chunk::Chunk;
use super::short;
use crate::measure::{Measure, Sample};
use crate::results::Results;
use crate::view::Columns;
use ablate_common::plan::{PlannedSweep, SweepKind};
use ablate_common::space::SubsetSpace;
use ablate_common::task::Scope;
use ablate_common::units::{Place, UnitIx, UnitMap};
use serde::Serialize;
use std::collections::BTreeMap;

/// Curves of a group.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CurvesView {
    /// Version; the next look may ask for what changed since.
    pub version: u64,
    /// Whether nothing changed, and nothing is said.
    pub same: bool,
    /// Heads of the model.
    pub heads: u32,
    /// Orders that are evaluated.
    pub lines: Vec<Line>,
    /// Greedy sweeps.
    pub walks: Vec<Walk>,
}

/// One order of removal, as in `curve.parquet`.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// "greedy", "importance", "gradient", "random-NN", "matched-NN" …
    pub order: String,
    /// The half of the examples that it is reported on; null: all.
    pub half: Option<u8>,
    /// The metric with nothing and with everything removed, on these examples.
    pub start: f64,
    /// See `start`.
    pub floor: f64,
    /// Whether `retained` is withheld, as the floor isn't worse than the start beyond its interval.
    pub flagged: bool,
    /// From nothing removed on, as far as they are known.
    pub points: Vec<Mark>,
}

/// A point: (heads removed, value, retained, name of the unit that went last).
pub type Mark = (u32, f64, Option<f64>, String);

/// A greedy sweep under way, on the examples on which it selects.
#[derive(Clone, Debug, Serialize)]
pub struct Walk {
    /// The task that it minimises.
    pub objective: String,
    /// Rounds that are decided, and planned.
    pub round: u32,
    /// See `round`.
    pub rounds: u32,
    /// Whether it selects on half of the examples.
    pub half: bool,
    /// From nothing removed on.
    pub points: Vec<Mark>,
}

/// Examples of one half, with what is known of them.
struct Half<'a> {
    measure: Measure<'a>,
    none: Option<Sample>,
    all: Option<Sample>,
}

/// See [`Live`](super::Live).
pub(super) struct Curves<'a> {
    ablation: u32,
    task: u32,
    /// The reporting and the selecting half, where a greedy sweep splits.
    report: Option<Half<'a>>,
    select: Option<Half<'a>>,
    none: Option<Sample>,
    all: Option<Sample>,
    /// Whether the floor isn't worse than the start: of all examples, and of the reporting half.
    flagged: [bool; 2],
    /// Sweep → values by rank.
    values: BTreeMap<u32, Vec<f64>>,
    /// Greedy sweep → round → value.
    steps: BTreeMap<u32, BTreeMap<u32, f64>>,
    pub version: u64,
}

/// The rank that a greedy round removed, given all that is gone.
pub(super) fn chosen(frame: &Results, sweep: u32, round: u32, list: &[UnitIx]) -> Option<u64> {
    let so_far = list.get(..=round as usize)?;
    let mut subset = so_far.to_vec();
    subset.sort_unstable();
    frame.plan.space(sweep, &so_far[..round as usize]).rank(&subset)
}

/// Whether a path or random orders are reported on the half on which their greedy sweep didn't select.
pub(super) fn splits(frame: &Results, sweep: u32) -> bool {
    let sweeps = &frame.plan.sweeps;
    let Some(planned) = sweeps.get(sweep as usize) else { return false };
    let greedy = match planned.kind {
        SweepKind::Path { greedy, .. } | SweepKind::Matched { greedy, .. } => sweeps.get(greedy as usize),
        // Random orders follow their greedy sweep in the plan.
        _ => sweeps[..sweep as usize]
            .iter()
            .rev()
            .find(|s| s.ablation == planned.ablation && matches!(s.kind, SweepKind::Greedy { .. })),
    };
    greedy.is_some_and(|g| g.scope == Scope::Select)
}

fn worse(measure: &Measure<'_>, none: Option<&Sample>, all: Option<&Sample>) -> bool {
    let (Some(none), Some(all)) = (none, all) else { return false };
    measure.contrast(&[(1.0, all), (-1.0, none)]).low > 0.0
}

impl<'a> Curves<'a> {
    pub fn new(frame: &'a Results, ablation: u32, task: u32) -> Self {
        let prepared = &frame.prepared[task as usize];
        let metric = frame.plan.tasks[task as usize].metric;
        let splits = frame.plan.sweeps.iter().any(|s| s.ablation == ablation && s.scope == Scope::Select);
        let half = |which: u8| {
            let keep: Vec<u32> = (0u32..)
                .zip(&prepared.examples)
                .filter(|(_, e)| e.half == Some(which))
                .map(|(i, _)| i)
                .collect();
            let measure = Measure::new(prepared, metric, keep, frame.plan.spec.seed);
            Half { measure, none: None, all: None }
        };
        Self {
            ablation,
            task,
            report: splits.then(|| half(1)),
            select: splits.then(|| half(0)),
            none: None,
            all: None,
            flagged: [true; 2],
            values: BTreeMap::new(),
            steps: BTreeMap::new(),
            version: 0,
        }
    }

    /// Examples and clusters of the half that curves are reported on; none where that is all.
    pub fn reported_on(&self) -> Option<(usize, usize)> {
        self.report.as_ref().map(|half| (half.measure.examples(), half.measure.clusters()))
    }

    pub fn reference(
        &mut self,
        rank: u64,
        columns: &Columns<'_>,
        scope: Scope,
        measure: &Measure<'_>,
        version: u64,
    ) {
        for half in [&mut self.report, &mut self.select].into_iter().flatten() {
            let sample = half.measure.sample(columns, scope);
            *(if rank == 0 { &mut half.none } else { &mut half.all }) = sample;
        }
        *(if rank == 0 { &mut self.none } else { &mut self.all }) = measure.sample(columns, scope);
        self.flagged[0] = !worse(measure, self.none.as_ref(), self.all.as_ref());
        if let Some(h) = &self.report {
            self.flagged[1] = !worse(&h.measure, h.none.as_ref(), h.all.as_ref());
        }
        self.version = version;
    }

    /// Values along a path or random orders; `split` where they are reported on a half.
    pub fn take(&mut self, sweep: u32, split: bool, chunk: &Chunk<'_>, measure: &Measure<'_>, version: u64) {
        let measure = self.report.as_ref().filter(|_| split).map_or(measure, |h| &h.measure);
        let values = self.values.entry(sweep).or_default();
        for (rank, columns) in chunk.each() {
            let Some(sample) = measure.sample_value(&columns, chunk.scope) else { continue };
            let rank = rank as usize;
            if values.len() <= rank {
                values.resize(rank + 1, f64::NAN);
            }
            values[rank] = sample.value;
        }
        self.version = version;
    }

    pub fn take_greedy(
        &mut self,
        sweep: u32,
        round: u32,
        rank: u64,
        chunk: &Chunk<'_>,
        measure: &Measure<'_>,
        version: u64,
    ) {
        let measure = match (chunk.scope, &self.select) {
            (Scope::Select, Some(half)) => &half.measure,
            _ => measure,
        };
        let value = chunk.at(rank).and_then(|i| measure.sample_value(&chunk.columns(i), chunk.scope));
        if let Some(sample) = value {
            self.steps.entry(sweep).or_default().insert(round, sample.value);
            self.version = version;
        }
    }

    pub fn view(
        &self,
        frame: &Results,
        lists: &BTreeMap<u32, Vec<UnitIx>>,
        places: &[Vec<Option<UnitIx>>],
        names: &[Place],
        version: u64,
    ) -> CurvesView {
        let plan = &frame.plan;
        let mut out = CurvesView { version, heads: plan.heads().len() as u32, ..CurvesView::default() };
        for (sweep, planned) in (0u32..).zip(&plan.sweeps) {
            if planned.ablation != self.ablation || !planned.tasks.contains(&self.task) {
                continue;
            }
            let list = lists.get(&sweep).map_or(&[][..], Vec::as_slice);
            let name = |u: &UnitIx| {
                let at = places.get(sweep as usize).and_then(|p| p.get(u.at()).copied().flatten());
                at.and_then(|at| names.get(at.at())).map_or_else(String::new, |p| p.name.clone())
            };
            match planned.kind {
                SweepKind::Greedy { objective, .. } => {
                    out.walks.push(self.walk(frame, sweep, planned, objective, list, name));
                }
                SweepKind::Path { .. } => out.lines.extend(self.path(frame, sweep, planned, list, name)),
                SweepKind::Random { .. } | SweepKind::Matched { .. } => {
                    out.lines.extend(self.random(frame, sweep, planned.kind.name(), list));
                }
                _ => {}
            }
        }
        out
    }

    /// Nothing, everything, and whether they are too close, on the examples that lines are reported on.
    fn ends(&self, split: bool) -> (f64, f64, bool) {
        let value = |s: &Option<Sample>| s.as_ref().map_or(f64::NAN, |s| s.value);
        match &self.report {
            Some(h) if split => (value(&h.none), value(&h.all), self.flagged[1]),
            _ => (value(&self.none), value(&self.all), self.flagged[0]),
        }
    }

    fn line(&self, order: String, split: bool) -> Line {
        let (start, floor, flagged) = self.ends(split);
        let half = split.then_some(1);
        let mut line =
            Line { order, half, start: short(start), floor: short(floor), flagged, points: Vec::new() };
        if !start.is_nan() {
            line.points.push(self.mark(split, 0, start, String::new()));
        }
        line
    }

    fn mark(&self, split: bool, removed: u32, value: f64, name: String) -> Mark {
        let (start, floor, flagged) = self.ends(split);
        let retained = (value - floor) / (start - floor);
        let retained = (!flagged && !retained.is_nan()).then(|| short(retained));
        (removed, short(value), retained, name)
    }

    fn path(
        &self,
        frame: &Results,
        sweep: u32,
        planned: &PlannedSweep,
        list: &[UnitIx],
        name: impl Fn(&UnitIx) -> String,
    ) -> Option<Line> {
        let values = self.values.get(&sweep)?;
        let split = splits(frame, sweep);
        let mut line = self.line(planned.kind.name().trim_start_matches("path-").to_owned(), split);
        let gone = counts(frame.plan.units(sweep), list);
        for ((unit, removed), &value) in list.iter().zip(gone).zip(values) {
            if !value.is_nan() {
                line.points.push(self.mark(split, removed, value, name(unit)));
            }
        }
        Some(line)
    }

    /// The random orders of a sweep; `list` is the order that they are matched to, if they are.
    fn random(&self, frame: &Results, sweep: u32, kind: &str, list: &[UnitIx]) -> Vec<Line> {
        let (Some(values), SubsetSpace::Random(drawn)) =
            (self.values.get(&sweep), frame.plan.space(sweep, list))
        else {
            return Vec::new();
        };
        let (points, split) = (drawn.points(), splits(frame, sweep));
        let mut out = Vec::new();
        for (k, list) in drawn.orders().iter().enumerate() {
            let gone = counts(frame.plan.units(sweep), list);
            let mut line = self.line(format!("{kind}-{k:02}"), split);
            for (p, &units) in points.iter().enumerate() {
                let value = values.get(k * points.len() + p).copied().unwrap_or(f64::NAN);
                if let (false, Some(&removed)) =
                    (value.is_nan(), (units as usize).checked_sub(1).and_then(|u| gone.get(u)))
                {
                    line.points.push(self.mark(split, removed, value, String::new()));
                }
            }
            if line.points.len() > 1 {
                out.push(line);
            }
        }
        out
    }

    fn walk(
        &self,
        frame: &Results,
        sweep: u32,
        planned: &PlannedSweep,
        objective: u32,
        list: &[UnitIx],
        name: impl Fn(&UnitIx) -> String,
    ) -> Walk {
        let split = planned.scope == Scope::Select;
        let start = match &self.select {
            Some(half) if split => &half.none,
            _ => &self.none,
        };
        let mut points: Vec<Mark> = start.iter().map(|s| (0, short(s.value), None, String::new())).collect();
        let gone = counts(frame.plan.units(sweep), list);
        for (&round, &value) in self.steps.get(&sweep).into_iter().flatten() {
            if let (Some(unit), Some(&removed)) = (list.get(round as usize), gone.get(round as usize)) {
                points.push((removed, short(value), None, name(unit)));
            }
        }
        Walk {
            objective: frame.plan.tasks.get(objective as usize).map_or_else(String::new, |t| t.name.clone()),
            round: list.len() as u32,
            rounds: planned.rounds(),
            half: split,
            points,
        }
    }
}

/// Heads that are gone after each unit of an order.
fn counts(units: &UnitMap, order: &[UnitIx]) -> Vec<u32> {
    let mut gone = std::collections::HashSet::new();
    let after = |u: &UnitIx| {
        gone.extend(units.heads_of(*u).iter().copied());
        gone.len() as u32
    };
    order.iter().map(after).collect()
}
