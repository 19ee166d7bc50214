//! Every number that tables and report print, computed once.

use crate::agreement::{self, AgreementRow};
use crate::attention::{self, AttentionRow};
use crate::conditional::{self, Conditional};
use crate::curve::{self, Curve};
use crate::gradients::{self, GradientRow};
use crate::joint::{self, GroupRow, TripleRow};
use crate::measure::{Measure, Sample};
use crate::poly::{self, PolyRow};
use crate::reliability::{self, ReliabilityRow};
use crate::repair::{self, RepairRow};
use crate::results::Results;
use crate::selected::{self, SelectedRow};
use crate::shift::{self, ShiftRow};
use crate::view;
use ablate_common::metric::Metric;
use ablate_common::plan::SweepKind;
use ablate_common::stats::Estimate;
use ablate_common::stats::fdr::benjamini_hochberg;
use ablate_common::task::Scope;
use ablate_common::units::{Place, UnitIx, UnitKind, UnitMap};
use rayon::prelude::*;

/// All statistics of an experiment.
#[derive(Clone, Debug)]
pub struct Analysis {
    /// One per (ablation, task), in that order.
    pub groups: Vec<Group>,
    /// Agreement of the deltas of two tasks or methods, and of every two scores of a task under an ablation.
    pub agreement: Vec<AgreementRow>,
    /// Every unit over the tasks of an ablation, where there are two or more.
    pub polysemanticity: Vec<PolyRow>,
}

/// What is known of one task under one ablation.
#[derive(Clone, Debug)]
pub struct Group {
    /// Index of the ablation in the plan.
    pub ablation: u32,
    /// Index of the task in the plan.
    pub task: u32,
    /// Name of the task.
    pub name: String,
    /// Its metric.
    pub metric: Metric,
    /// Name of the ablation.
    pub method: &'static str,
    /// What was removed as a whole.
    pub unit: UnitKind,
    /// Where each of the ablation's units stands; rows name units by their place here.
    pub places: Vec<Place>,
    /// Number of heads of each unit.
    pub sizes: Vec<u32>,
    /// Examples of the task.
    pub examples: usize,
    /// Documents (for similarity: texts) that errors are clustered by.
    pub clusters: usize,
    /// The metric with nothing removed; NaN where it isn't known.
    pub baseline: f64,
    /// The metric with every head removed, and Δ of that.
    pub floor: Option<(f64, Estimate)>,
    /// Every unit alone, in the order of the units.
    pub heads: Vec<HeadRow>,
    /// Every unit by gradient, in the order of the units; empty where no sweep asks for it.
    pub gradients: Vec<GradientRow>,
    /// What every head of the unablated model looks at: in the groups of the first ablation only, as it is the same for all.
    pub attention: Vec<AttentionRow>,
    /// Every unit's direct effect beside its whole one, in the order of the units; empty where no sweep asks for it.
    pub repair: Vec<RepairRow>,
    /// The residual stream without all heads and without every unit; empty where no sweep asks for it.
    pub shift: Vec<ShiftRow>,
    /// Every pair, sweep by sweep, each in lexicographic order of the units.
    pub pairs: Vec<PairRow>,
    /// Pairs given a base, by sweep; empty where no sweep asks for them.
    pub conditional: Vec<Conditional>,
    /// Redundancy groups with their joint delta, those with the most interaction first.
    pub groups: Vec<GroupRow>,
    /// Triples with their interaction of the third order, strongest pairs first.
    pub triples: Vec<TripleRow>,
    /// Pruning curves, by sweep and order.
    pub curves: Vec<Curve>,
    /// Split-half reliability of each score.
    pub reliability: Vec<ReliabilityRow>,
    /// The largest effects on the half that selects, measured on the other.
    pub selected: Vec<SelectedRow>,
}

/// One unit removed alone.
#[derive(Clone, Copy, Debug)]
pub struct HeadRow {
    /// The unit's place in [`Group::places`].
    pub ix: UnitIx,
    /// The metric without it.
    pub value: f64,
    /// Δ: positive where removing it hurts.
    pub delta: Estimate,
    /// Benjamini–Hochberg q over all units of the group.
    pub q: f64,
}

/// How two units relate, given only at q ≤ 0.05.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// I > 0: losing both costs more than the sum.
    Redundant,
    /// I < 0: losing both costs less than the sum.
    Overlapping,
    /// q > 0.05, or unknown.
    Unresolved,
}

impl Relation {
    /// The name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Redundant => "redundant",
            Self::Overlapping => "overlapping",
            Self::Unresolved => "unresolved",
        }
    }
}

/// Two units removed together.
#[derive(Clone, Copy, Debug)]
pub struct PairRow {
    /// The earlier unit.
    pub a: UnitIx,
    /// The later unit.
    pub b: UnitIx,
    /// Δ of the earlier alone.
    pub delta_a: f64,
    /// Δ of the later alone.
    pub delta_b: f64,
    /// Δ of both.
    pub delta_ab: f64,
    /// I = Δ(ab) − Δ(a) − Δ(b).
    pub interaction: Estimate,
    /// Benjamini–Hochberg q over all pairs of the group.
    pub q: f64,
    /// Redundant, overlapping or unresolved.
    pub relation: Relation,
}

impl PairRow {
    /// I / (|Δ(a)| + |Δ(b)|), only where the relation is resolved.
    #[must_use]
    pub fn normalised(&self) -> Option<f64> {
        let scale = self.delta_a.abs() + self.delta_b.abs();
        (self.relation != Relation::Unresolved && scale > 0.0).then(|| self.interaction.value / scale)
    }
}

impl Group {
    /// Name of a unit.
    #[must_use]
    pub fn name_of(&self, unit: UnitIx) -> &str {
        self.places.get(unit.at()).map_or("", |p| p.name.as_str())
    }
}

/// Largest q at which a difference counts as resolved.
pub const RESOLVED: f64 = 0.05;

/// Computes every statistic. Rounds and chunks that are missing leave their rows out.
#[must_use]
pub fn analyse(results: &Results) -> Analysis {
    let mut groups = Vec::new();
    for ablation in 0..results.plan.ablations.len() as u32 {
        for task in 0..results.plan.tasks.len().min(results.prepared.len()) as u32 {
            groups.push(group(results, ablation, task));
        }
    }
    let agreement = agreement::rows(&groups, results.plan.spec.seed);
    let polysemanticity = poly::rows(&groups);
    Analysis { groups, agreement, polysemanticity }
}

/// Groups with their heads, and nothing that takes longer.
pub fn heads_only(results: &Results) -> Vec<Group> {
    let tasks = results.plan.tasks.len().min(results.prepared.len()) as u32;
    let each = (0..results.plan.ablations.len() as u32).flat_map(|a| (0..tasks).map(move |t| (a, t)));
    each.map(|(ablation, task)| {
        let measure = measure(results, task);
        let [none, all] = references(results, ablation, task, &measure);
        let mut out = blank(results, ablation, task, &measure, none.as_ref());
        if let Some(none) = none {
            out.floor = all.map(|s| (s.value, measure.contrast(&[(1.0, &s), (-1.0, &none)])));
            out.heads = heads(&measure, &none, &singles(results, ablation, task, &measure));
        }
        out
    })
    .collect()
}

/// A task's metric on all of its examples.
fn measure(results: &Results, task: u32) -> Measure<'_> {
    let (planned, prepared) = (&results.plan.tasks[task as usize], &results.prepared[task as usize]);
    Measure::new(prepared, planned.metric, prepared.examples_in(Scope::All), results.plan.spec.seed)
}

/// A group before anything is known of its units.
fn blank(results: &Results, ablation: u32, task: u32, measure: &Measure<'_>, none: Option<&Sample>) -> Group {
    let planned = &results.plan.tasks[task as usize];
    let planned_ablation = &results.plan.ablations[ablation as usize];
    let units = units(results, ablation);
    let each = || (0..units.map_or(0, UnitMap::len) as u32).map(UnitIx);
    let place = |u| units?.place(results.plan.heads(), u);
    Group {
        ablation,
        task,
        name: planned.name.clone(),
        metric: planned.metric,
        method: planned_ablation.method.name(),
        unit: planned_ablation.unit,
        places: each().filter_map(place).collect(),
        sizes: each().map(|u| units.map_or(0, |m| m.heads_of(u).len() as u32)).collect(),
        examples: measure.examples(),
        clusters: measure.clusters(),
        baseline: none.map_or(f64::NAN, |s| s.value),
        floor: None,
        heads: Vec::new(),
        gradients: Vec::new(),
        attention: if ablation == 0 { attention::rows(results, task) } else { Vec::new() },
        repair: Vec::new(),
        shift: shift::rows(results, ablation, task),
        pairs: Vec::new(),
        conditional: Vec::new(),
        groups: Vec::new(),
        triples: Vec::new(),
        curves: Vec::new(),
        reliability: Vec::new(),
        selected: Vec::new(),
    }
}

fn group(results: &Results, ablation: u32, task: u32) -> Group {
    let measure = measure(results, task);
    let [none, all] = references(results, ablation, task, &measure);
    let mut out = blank(results, ablation, task, &measure, none.as_ref());
    out.curves = curve::curves(results, ablation, task);
    out.gradients = gradients::rows(results, ablation, task, out.unit, &out.places);
    let Some(none) = none else { return out };
    out.floor = all.map(|s| (s.value, measure.contrast(&[(1.0, &s), (-1.0, &none)])));
    let singles = singles(results, ablation, task, &measure);
    out.heads = heads(&measure, &none, &singles);
    out.repair = repair::rows(results, ablation, task, &measure, &none, &singles);
    out.pairs = pairs(results, ablation, task, &measure, &none, &singles);
    out.conditional = conditional::rows(results, ablation, task, &measure, &none);
    (out.groups, out.triples) = joint::rows(results, ablation, task, &measure, &none, &singles, &out.pairs);
    out.reliability = reliability::rows(results, &out);
    out.selected = selected::rows(results, ablation, task);
    out
}

/// All units of an ablation: those of its reference sweep.
pub fn units(results: &Results, ablation: u32) -> Option<&UnitMap> {
    let reference = (0u32..)
        .zip(&results.plan.sweeps)
        .find(|(_, s)| s.ablation == ablation && s.kind == SweepKind::Reference)?;
    Some(results.plan.units(reference.0))
}

/// For each unit of a sweep its place among all units of its ablation.
pub fn places(results: &Results, sweep: u32) -> Vec<Option<UnitIx>> {
    let some = results.plan.units(sweep);
    let all = units(results, results.plan.sweeps[sweep as usize].ablation);
    all.map_or_else(|| vec![None; some.len()], |all| all.places_of(some))
}

/// Samples with nothing and with everything removed, from the reference sweep of an ablation.
pub fn references(results: &Results, ablation: u32, task: u32, measure: &Measure<'_>) -> [Option<Sample>; 2] {
    let sweep = view::sweep_of(results, ablation, task, |k| *k == SweepKind::Reference);
    [0, 1].map(|rank| {
        let sweep = sweep?;
        let scope = results.plan.sweeps[sweep as usize].scope;
        measure.sample(&view::columns(results, sweep, 0, task, rank)?, scope)
    })
}

/// The sample of every unit alone, from all sweeps that have it.
pub fn singles(results: &Results, ablation: u32, task: u32, measure: &Measure<'_>) -> Vec<Option<Sample>> {
    let mut out = vec![None; units(results, ablation).map_or(0, UnitMap::len)];
    for sweep in view::sweeps_of(results, ablation, task, |k| *k == SweepKind::Single) {
        let scope = results.plan.sweeps[sweep as usize].scope;
        let places = places(results, sweep);
        let samples: Vec<Option<Sample>> = (0..places.len() as u64)
            .into_par_iter()
            .map(|rank| measure.sample(&view::columns(results, sweep, 0, task, rank)?, scope))
            .collect();
        for (at, sample) in places.iter().zip(samples) {
            if let Some(slot) = at.and_then(|u| out.get_mut(u.at())) {
                *slot = sample;
            }
        }
    }
    out
}

fn heads(measure: &Measure<'_>, none: &Sample, singles: &[Option<Sample>]) -> Vec<HeadRow> {
    let mut rows: Vec<HeadRow> = (0u32..)
        .zip(singles)
        .filter_map(|(ix, s)| {
            let s = s.as_ref()?;
            let delta = measure.contrast(&[(1.0, s), (-1.0, none)]);
            Some(HeadRow { ix: UnitIx(ix), value: s.value, delta, q: f64::NAN })
        })
        .collect();
    let q = benjamini_hochberg(&rows.iter().map(|r| r.delta.p).collect::<Vec<_>>());
    for (row, q) in rows.iter_mut().zip(q) {
        row.q = q;
    }
    rows
}

/// The interactions of those pairs of a sweep whose scores are there, each with its rank; q and relation are left open. `none` and
/// `singles` are the samples with nothing and one unit removed: both with the base where the sweep has one.
pub fn interactions<'r>(
    results: &'r Results,
    sweep: u32,
    task: u32,
    measure: &'r Measure<'_>,
    none: &'r Sample,
    singles: &'r [Option<Sample>],
    ranks: std::ops::Range<u64>,
) -> impl ParallelIterator<Item = (u64, PairRow)> + 'r {
    let scope = results.plan.sweeps[sweep as usize].scope;
    let space = results.plan.space(sweep, &[]);
    let places = places(results, sweep);
    // One pair's resamples live only as long as its row is made: memory stays bounded by the rows.
    ranks.into_par_iter().filter_map(move |rank| {
        let columns = view::columns(results, sweep, 0, task, rank)?;
        let mut pair = space.subset(rank)?;
        pair.retain(|u| space.base().binary_search(u).is_err());
        let &[i, j] = pair.as_slice() else { return None };
        let (i, j) = ((*places.get(i.at())?)?, (*places.get(j.at())?)?);
        let (a, b) = (singles.get(i.at())?.as_ref()?, singles.get(j.at())?.as_ref()?);
        let ab = measure.sample(&columns, scope)?;
        let loss = |s: &Sample| measure.contrast_value(&[(1.0, s), (-1.0, none)]);
        let row = PairRow {
            a: i,
            b: j,
            delta_a: loss(a),
            delta_b: loss(b),
            delta_ab: loss(&ab),
            interaction: measure.contrast(&[(1.0, &ab), (-1.0, a), (-1.0, b), (1.0, none)]),
            q: f64::NAN,
            relation: Relation::Unresolved,
        };
        Some((rank, row))
    })
}

/// What an interaction is at its q.
pub fn relation(value: f64, q: f64) -> Relation {
    match value {
        v if q <= RESOLVED && v > 0.0 => Relation::Redundant,
        v if q <= RESOLVED && v < 0.0 => Relation::Overlapping,
        _ => Relation::Unresolved,
    }
}

fn pairs(
    results: &Results,
    ablation: u32,
    task: u32,
    measure: &Measure<'_>,
    none: &Sample,
    singles: &[Option<Sample>],
) -> Vec<PairRow> {
    let mut rows = Vec::new();
    for sweep in view::sweeps_of(results, ablation, task, |k| *k == SweepKind::Pairs) {
        let ranks = 0..results.plan.round_subsets(sweep, 0);
        let of_sweep = interactions(results, sweep, task, measure, none, singles, ranks).map(|r| r.1);
        let of_sweep: Vec<PairRow> = of_sweep.collect();
        // Millions of rows aren't copied where there is but one sweep.
        if rows.is_empty() { rows = of_sweep } else { rows.extend(of_sweep) }
    }
    resolve(&mut rows);
    rows
}

/// Gives pairs their q, over all of these, and their relation.
pub fn resolve(rows: &mut [PairRow]) {
    let q = benjamini_hochberg(&rows.iter().map(|r| r.interaction.p).collect::<Vec<_>>());
    for (row, q) in rows.iter_mut().zip(q) {
        row.q = q;
        row.relation = relation(row.interaction.value, q);
    }
}
