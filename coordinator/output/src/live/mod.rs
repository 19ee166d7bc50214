//! The statistics of an experiment that is under way, chunk by chunk, for whoever watches it. A chunk is taken once and let go of:
//! what stays is the sample of each unit alone, a matrix of at most a few hundred cells a side, the strongest pairs, and the values along
//! the curves. Numbers are computed by what tables are computed by, so that they are those of [`crate::analyse`] once all chunks are there.

mod chunk;
mod curves;
mod matrix;
#[cfg(test)]
mod tests;
mod views;

pub use curves::{CurvesView, Line, Mark, Walk};
pub use matrix::{Bins, CellView, LARGEST};
pub use views::{GroupView, HeadsView, PairsView, UnitPlace, short};

use crate::analyse::{self, RESOLVED};
use crate::facts;
use crate::measure::{Measure, Sample};
use crate::results::{Results, RunInfo};
use ablate_common::metric::Metric;
use ablate_common::plan::{Plan, SweepKind};
use ablate_common::scores::ChunkScores;
use ablate_common::stats::Estimate;
use ablate_common::stats::fdr::benjamini_hochberg;
use ablate_common::task::{Prepared, Scope};
use ablate_common::units::{Place, UnitIx, UnitMap};
use chunk::Chunk;
use curves::Curves;
use matrix::Matrix;
use std::collections::BTreeMap;

/// Strongest pairs of either sign that are kept with their errors.
const TOP: usize = 20;
/// Bytes of per-example terms of single units that a group keeps, for the errors of interactions.
const SAMPLES: usize = 128 << 20;

/// A chunk: (sweep, round, chunk).
pub type At = (u32, u32, u32);

/// What a plan and its tasks are without any score: what [`Live`] reads.
#[must_use]
pub fn frame(id: String, plan: Plan, prepared: Vec<Prepared>) -> Results {
    Results { id, plan, prepared, rounds: BTreeMap::new(), run: RunInfo::default() }
}

/// Whether a chunk can be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// At once.
    Now,
    /// Once the scores of the units alone are there.
    Later,
    /// Nothing here is computed from it.
    Never,
}

/// See the module.
pub struct Live<'a> {
    frame: &'a Results,
    groups: Vec<Watched<'a>>,
    /// By sweep: for each of its units the place among all units of its ablation.
    places: Vec<Vec<Option<UnitIx>>>,
    /// Inputs of rounds: the order of a path, what a greedy sweep has removed.
    lists: BTreeMap<u32, Vec<UnitIx>>,
    /// Grows with all that is taken.
    version: u64,
    /// What it was at the beginning, or when all was forgotten.
    began: u64,
}

impl std::fmt::Debug for Live<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live")
            .field("id", &self.frame.id)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// One task under one ablation.
struct Watched<'a> {
    ablation: u32,
    task: u32,
    metric: Metric,
    measure: Measure<'a>,
    places: Vec<Place>,
    none: Option<Sample>,
    all: Option<Sample>,
    singles: Vec<Option<Sample>>,
    /// Value, Δ and version by unit.
    heads: Vec<Option<(f64, Estimate, u64)>>,
    /// Whether singles keep what errors of interactions need.
    keeps: bool,
    matrix: Matrix,
    redundant: Vec<Strong>,
    overlapping: Vec<Strong>,
    /// Pairs that had to be left out, as a unit alone has no scores.
    skipped: u64,
    curves: Curves<'a>,
}

/// A strong interaction.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Strong {
    a: UnitIx,
    b: UnitIx,
    value: f64,
    /// NaN where it isn't known.
    se: f64,
}

impl<'a> Live<'a> {
    /// Nothing is known yet of what `frame` plans.
    #[must_use]
    pub fn new(frame: &'a Results) -> Self {
        let ablations = 0..frame.plan.ablations.len() as u32;
        let tasks = frame.plan.tasks.len().min(frame.prepared.len()) as u32;
        let groups = ablations
            .flat_map(|a| (0..tasks).map(move |t| (a, t)))
            .map(|(a, t)| Watched::new(frame, a, t))
            .collect();
        let places = (0..frame.plan.sweeps.len() as u32).map(|s| analyse::places(frame, s)).collect();
        Self { frame, groups, places, lists: BTreeMap::new(), version: 0, began: 0 }
    }

    /// Begins with this version: who knows an earlier one, which another told, is told all.
    #[must_use]
    pub fn beginning_at(self, version: u64) -> Self {
        Self { version, began: version, ..self }
    }

    /// Forgets all that was taken. The version goes on, so that nothing is taken for unchanged.
    pub fn reset(&mut self) {
        let version = self.version + 1;
        *self = Self { version, began: version, ..Self::new(self.frame) };
    }

    /// Number of groups: ablations × tasks, tasks within ablations.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// The version: it grows whenever something changes.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether a chunk can be taken. `settled`: no more scores of single units come, so that nothing waits for them.
    #[must_use]
    pub fn ready(&self, (sweep, round, chunk): At, settled: bool) -> Ready {
        let Some(planned) = self.frame.plan.sweeps.get(sweep as usize) else { return Ready::Never };
        match planned.kind {
            SweepKind::Reference
            | SweepKind::Single
            | SweepKind::Path { .. }
            | SweepKind::Random { .. }
            | SweepKind::Matched { .. } => Ready::Now,
            SweepKind::Pairs if settled => Ready::Now,
            SweepKind::Pairs => {
                let space = self.frame.plan.space(sweep, &[]);
                let places = &self.places[sweep as usize];
                let groups: Vec<&Watched<'_>> =
                    planned.tasks.iter().filter_map(|&t| self.group(planned.ablation, t)).collect();
                let known = |u: &UnitIx| {
                    let at = places.get(u.at()).copied().flatten();
                    at.is_some_and(|at| groups.iter().all(|g| g.none.is_some() && g.single(at).is_some()))
                };
                let mut ranks = self.frame.plan.chunk_ranks(sweep, round, chunk);
                let all = ranks.all(|r| space.subset(r).is_some_and(|s| s.iter().all(known)));
                if all { Ready::Now } else { Ready::Later }
            }
            _ => Ready::Never,
        }
    }

    fn group(&self, ablation: u32, task: u32) -> Option<&Watched<'a>> {
        self.groups.iter().find(|g| g.ablation == ablation && g.task == task)
    }

    /// Takes a chunk. What doesn't have the plan's shape is left out.
    pub fn take(&mut self, at: At, scores: &ChunkScores) {
        let (sweep, ..) = at;
        let Some(planned) = self.frame.plan.sweeps.get(sweep as usize) else { return };
        self.version += 1;
        let version = self.version;
        for (block, &task) in scores.tasks.iter().zip(&planned.tasks) {
            let Some(chunk) = Chunk::of(self.frame, at, scores, block, task) else { continue };
            let places = &self.places[sweep as usize];
            let Some(group) =
                self.groups.iter_mut().find(|g| g.ablation == planned.ablation && g.task == task)
            else {
                continue;
            };
            match planned.kind {
                SweepKind::Reference => group.reference(&chunk, version),
                SweepKind::Single => group.take_singles(&chunk, places, version),
                SweepKind::Pairs => group.take_pairs(self.frame, sweep, &chunk, places, version),
                SweepKind::Path { .. } | SweepKind::Random { .. } | SweepKind::Matched { .. } => {
                    let split = curves::splits(self.frame, sweep);
                    group.curves.take(sweep, split, &chunk, &group.measure, version);
                }
                _ => {}
            }
        }
    }

    /// Says the input of a sweep's latest round: a path's order, or what a greedy sweep has removed.
    pub fn set_list(&mut self, sweep: u32, list: Vec<UnitIx>) {
        self.version += 1;
        let planned = self.frame.plan.sweeps.get(sweep as usize);
        for g in self.groups.iter_mut().filter(|g| planned.is_some_and(|p| p.ablation == g.ablation)) {
            g.curves.version = self.version;
        }
        self.lists.insert(sweep, list);
    }

    /// The chunk of a greedy round that holds what the round removed; none while that isn't known.
    #[must_use]
    pub fn greedy_chunk(&self, sweep: u32, round: u32) -> Option<u32> {
        let rank = curves::chosen(self.frame, sweep, round, self.lists.get(&sweep)?)?;
        u32::try_from(rank / u64::from(self.frame.plan.sweeps.get(sweep as usize)?.chunk.max(1))).ok()
    }

    /// Takes the chunk that [`Self::greedy_chunk`] names.
    pub fn take_greedy(&mut self, at: At, scores: &ChunkScores) {
        let (sweep, round, _) = at;
        let Some(planned) = self.frame.plan.sweeps.get(sweep as usize) else { return };
        let Some(list) = self.lists.get(&sweep) else { return };
        let Some(rank) = curves::chosen(self.frame, sweep, round, list) else { return };
        self.version += 1;
        for (block, &task) in scores.tasks.iter().zip(&planned.tasks) {
            let Some(chunk) = Chunk::of(self.frame, at, scores, block, task) else { continue };
            let mut groups = self.groups.iter_mut();
            if let Some(g) = groups.find(|g| g.ablation == planned.ablation && g.task == task) {
                g.curves.take_greedy(sweep, round, rank, &chunk, &g.measure, self.version);
            }
        }
    }

    /// What a group is about; none past the end.
    #[must_use]
    pub fn group_view(&self, group: usize) -> Option<GroupView> {
        let g = self.groups.get(group)?;
        let plan = &self.frame.plan;
        let ablation = plan.ablations.get(g.ablation as usize)?;
        let any = |is: fn(&SweepKind) -> bool| {
            plan.sweeps.iter().any(|s| s.ablation == g.ablation && s.tasks.contains(&g.task) && is(&s.kind))
        };
        let has = (
            any(|k| matches!(k, SweepKind::Single)),
            any(|k| matches!(k, SweepKind::Pairs)),
            any(SweepKind::prunes),
        );
        let half = g.curves.reported_on().filter(|_| has.2);
        let all = (g.measure.examples(), g.measure.clusters());
        Some(GroupView {
            task: plan.tasks.get(g.task as usize)?.name.clone(),
            metric: g.metric.name(),
            lower_is_better: g.metric.lower_is_better(),
            method: ablation.method.name(),
            unit: (ablation.unit.name(), ablation.unit.plural()),
            units: g
                .places
                .iter()
                .map(|p| (p.name.clone(), p.stream.map(|s| s.name()), p.layer, p.head))
                .collect(),
            has,
            warnings: facts::narrow(self.frame.prepared.get(g.task as usize)?, g.metric, all, half),
        })
    }

    /// Units alone that changed after version `since`.
    #[must_use]
    pub fn heads(&self, group: usize, since: u64) -> Option<HeadsView> {
        let g = self.groups.get(group)?;
        let (since, whole) = self.from(since);
        let known = || (0u32..).zip(&g.heads).filter_map(|(i, h)| h.map(|h| (i, h)));
        let q = benjamini_hochberg(&known().map(|(_, h)| h.1.p).collect::<Vec<_>>());
        let row = |(i, (value, d, _)): (u32, (f64, Estimate, u64))| {
            (i, short(value), short(d.value), short(d.se), short(d.low), short(d.high))
        };
        Some(HeadsView {
            version: self.version,
            whole,
            baseline: g.none.as_ref().map_or(f64::NAN, |s| short(s.value)),
            floor: g.all.as_ref().map_or(f64::NAN, |s| short(s.value)),
            known: q.len(),
            rows: known().filter(|(_, h)| h.2 > since).map(row).collect(),
            resolved: known().zip(&q).filter(|(_, q)| **q <= RESOLVED).map(|((i, _), _)| i).collect(),
        })
    }

    /// Pairs, with the cells that changed after version `since`.
    #[must_use]
    pub fn pairs(&self, group: usize, since: u64) -> Option<PairsView> {
        let g = self.groups.get(group)?;
        let (since, whole) = self.from(since);
        let plan = &self.frame.plan;
        let planned = (0u32..)
            .zip(&plan.sweeps)
            .filter(|(_, s)| {
                s.ablation == g.ablation && s.tasks.contains(&g.task) && s.kind == SweepKind::Pairs
            })
            .map(|(i, _)| plan.round_subsets(i, 0))
            .sum();
        let top = |v: &[Strong]| v.iter().map(|s| (s.a.0, s.b.0, short(s.value), short(s.se))).collect();
        Some(PairsView {
            version: self.version,
            whole,
            known: g.matrix.known(),
            planned,
            skipped: g.skipped,
            bins: g.matrix.bins().clone(),
            cells: g.matrix.changed(since),
            redundant: top(&g.redundant),
            overlapping: top(&g.overlapping),
        })
    }

    /// From which version on changes are told to one who knows `since`, and whether that is all.
    fn from(&self, since: u64) -> (u64, bool) {
        if since == 0 || since < self.began || since > self.version { (0, true) } else { (since, false) }
    }

    /// Curves and greedy sweeps under way; only the version where nothing changed after version `since`.
    #[must_use]
    pub fn curves(&self, group: usize, since: u64) -> Option<CurvesView> {
        let g = self.groups.get(group)?;
        if !self.from(since).1 && g.curves.version <= since {
            return Some(CurvesView { version: self.version, same: true, ..CurvesView::default() });
        }
        Some(g.curves.view(self.frame, &self.lists, &self.places, &g.places, self.version))
    }
}

impl<'a> Watched<'a> {
    fn new(frame: &'a Results, ablation: u32, task: u32) -> Self {
        let (planned, prepared) = (&frame.plan.tasks[task as usize], &frame.prepared[task as usize]);
        let seed = frame.plan.spec.seed;
        let measure = Measure::new(prepared, planned.metric, prepared.examples_in(Scope::All), seed);
        let units = analyse::units(frame, ablation);
        let n = units.map_or(0, UnitMap::len);
        let place = |u| units?.place(frame.plan.heads(), UnitIx(u));
        let places: Vec<Place> = (0..n as u32).filter_map(place).collect();
        let each = measure.examples().max(crate::measure::RESAMPLES) * size_of::<f64>();
        Self {
            ablation,
            task,
            metric: planned.metric,
            none: None,
            all: None,
            singles: vec![None; n],
            heads: vec![None; n],
            keeps: n.saturating_mul(each) <= SAMPLES,
            matrix: Matrix::new(Bins::of(&places)),
            redundant: Vec::new(),
            overlapping: Vec::new(),
            skipped: 0,
            curves: Curves::new(frame, ablation, task),
            measure,
            places,
        }
    }

    fn single(&self, at: UnitIx) -> Option<&Sample> {
        self.singles.get(at.at())?.as_ref()
    }

    fn reference(&mut self, chunk: &Chunk<'_>, version: u64) {
        for (rank, columns) in chunk.each() {
            let sample = self.measure.sample(&columns, chunk.scope);
            self.curves.reference(rank, &columns, chunk.scope, &self.measure, version);
            match rank {
                0 => self.none = sample,
                _ => self.all = sample,
            }
        }
        // Units that came before it.
        for i in 0..self.singles.len() {
            self.head(i, version);
        }
    }

    fn take_singles(&mut self, chunk: &Chunk<'_>, places: &[Option<UnitIx>], version: u64) {
        for (rank, columns) in chunk.each() {
            let Some(at) = places.get(rank as usize).copied().flatten() else { continue };
            let sample = self.measure.sample(&columns, chunk.scope);
            if let Some(slot) = self.singles.get_mut(at.at()) {
                *slot = sample;
                self.head(at.at(), version);
            }
        }
    }

    /// Works out Δ of a unit, once it and the reference are there.
    fn head(&mut self, at: usize, version: u64) {
        let Some(none) = &self.none else { return };
        let Some(single) = self.singles.get_mut(at).and_then(Option::as_mut) else { return };
        if self.heads.get(at).is_some_and(Option::is_some) {
            return;
        }
        let delta = self.measure.contrast(&[(1.0, &*single), (-1.0, none)]);
        self.heads[at] = Some((single.value, delta, version));
        if !self.keeps {
            single.forget();
        }
    }

    fn take_pairs(
        &mut self,
        frame: &Results,
        sweep: u32,
        chunk: &Chunk<'_>,
        places: &[Option<UnitIx>],
        version: u64,
    ) {
        let space = frame.plan.space(sweep, &[]);
        for (rank, columns) in chunk.each() {
            if self.pair(&space, rank, &columns, chunk.scope, places, version).is_none() {
                self.skipped += 1;
            }
        }
    }

    fn pair(
        &mut self,
        space: &ablate_common::space::SubsetSpace,
        rank: u64,
        columns: &crate::view::Columns<'_>,
        scope: Scope,
        places: &[Option<UnitIx>],
        version: u64,
    ) -> Option<()> {
        let &[i, j] = space.subset(rank)?.as_slice() else { return None };
        let (i, j) = ((*places.get(i.at())?)?, (*places.get(j.at())?)?);
        let (none, a, b) = (self.none.as_ref()?, self.single(i)?, self.single(j)?);
        let ab = self.measure.sample_value(columns, scope)?;
        let value = self.measure.contrast_value(&[(1.0, &ab), (-1.0, a), (-1.0, b), (1.0, none)]);
        let list = if value > 0.0 { &self.redundant } else { &self.overlapping };
        // Of a NaN, too, there is no size.
        let enters = value.abs() > 0.0
            && (list.len() < TOP || list.last().is_some_and(|last| value.abs() > last.value.abs()));
        // An error costs a bootstrap where the metric is no mean: only those that are shown get one.
        let strong = enters.then(|| {
            let full = if self.keeps { self.measure.sample(columns, scope) } else { None };
            let se = full.map_or(f64::NAN, |ab| {
                self.measure.contrast(&[(1.0, &ab), (-1.0, a), (-1.0, b), (1.0, none)]).se
            });
            Strong { a: i, b: j, value, se }
        });
        if let Some(strong) = strong {
            let list = if value > 0.0 { &mut self.redundant } else { &mut self.overlapping };
            let at = list.partition_point(|s| s.value.abs() >= value.abs());
            list.insert(at, strong);
            list.truncate(TOP);
        }
        self.matrix.add(i, j, value, version);
        Some(())
    }
}
