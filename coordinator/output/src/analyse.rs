//! Every number that tables and report print, computed once.

use crate::agreement::{self, AgreementRow};
use crate::curve::{self, Curve};
use crate::measure::{Measure, Sample};
use crate::results::Results;
use crate::view;
use ablate_common::head::{Head, HeadIx};
use ablate_common::metric::Metric;
use ablate_common::plan::SweepKind;
use ablate_common::stats::Estimate;
use ablate_common::stats::fdr::benjamini_hochberg;
use ablate_common::task::Scope;
use rayon::prelude::*;

/// All statistics of an experiment.
#[derive(Clone, Debug)]
pub struct Analysis {
    /// One per (ablation, task), in that order.
    pub groups: Vec<Group>,
    /// Agreement of the deltas of two tasks or methods.
    pub agreement: Vec<AgreementRow>,
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
    /// Examples of the task.
    pub examples: usize,
    /// Documents (for similarity: texts) that errors are clustered by.
    pub clusters: usize,
    /// The metric with nothing removed; NaN where it isn't known.
    pub baseline: f64,
    /// The metric with every head removed, and Δ of that.
    pub floor: Option<(f64, Estimate)>,
    /// Every head alone, in forward order.
    pub heads: Vec<HeadRow>,
    /// Every pair, in lexicographic forward order.
    pub pairs: Vec<PairRow>,
    /// Pruning curves, by sweep and order.
    pub curves: Vec<Curve>,
}

/// One head removed alone.
#[derive(Clone, Copy, Debug)]
pub struct HeadRow {
    /// Place in forward order.
    pub ix: HeadIx,
    /// The head.
    pub head: Head,
    /// The metric without it.
    pub value: f64,
    /// Δ: positive where removing it hurts.
    pub delta: Estimate,
    /// Benjamini–Hochberg q over all heads of the group.
    pub q: f64,
}

/// How two heads relate, given only at q ≤ 0.05.
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

/// Two heads removed together.
#[derive(Clone, Copy, Debug)]
pub struct PairRow {
    /// The earlier head.
    pub a: (HeadIx, Head),
    /// The later head.
    pub b: (HeadIx, Head),
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
    Analysis { groups, agreement }
}

fn group(results: &Results, ablation: u32, task: u32) -> Group {
    let planned = &results.plan.tasks[task as usize];
    let prepared = &results.prepared[task as usize];
    let measure =
        Measure::new(prepared, planned.metric, prepared.examples_in(Scope::All), results.plan.spec.seed);
    let [none, all] = references(results, ablation, task, &measure);
    let mut out = Group {
        ablation,
        task,
        name: planned.name.clone(),
        metric: planned.metric,
        method: results.plan.ablations[ablation as usize].name(),
        examples: measure.examples(),
        clusters: measure.clusters(),
        baseline: none.as_ref().map_or(f64::NAN, |s| s.value),
        floor: None,
        heads: Vec::new(),
        pairs: Vec::new(),
        curves: curve::curves(results, ablation, task),
    };
    let Some(none) = none else { return out };
    out.floor = all.map(|s| (s.value, measure.contrast(&[(1.0, &s), (-1.0, &none)])));
    let singles = singles(results, ablation, task, &measure);
    out.heads = heads(results, &measure, &none, &singles);
    out.pairs = pairs(results, ablation, task, &measure, &none, &singles);
    out
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

fn singles(results: &Results, ablation: u32, task: u32, measure: &Measure<'_>) -> Vec<Option<Sample>> {
    let n = results.plan.heads().len();
    let Some(sweep) = view::sweep_of(results, ablation, task, |k| *k == SweepKind::Single) else {
        return vec![None; n];
    };
    let scope = results.plan.sweeps[sweep as usize].scope;
    (0..n as u64)
        .into_par_iter()
        .map(|rank| measure.sample(&view::columns(results, sweep, 0, task, rank)?, scope))
        .collect()
}

fn heads(
    results: &Results,
    measure: &Measure<'_>,
    none: &Sample,
    singles: &[Option<Sample>],
) -> Vec<HeadRow> {
    let mut rows: Vec<HeadRow> = (0u32..)
        .zip(singles)
        .filter_map(|(ix, s)| {
            let (s, ix) = (s.as_ref()?, HeadIx(ix));
            let delta = measure.contrast(&[(1.0, s), (-1.0, none)]);
            Some(HeadRow { ix, head: results.plan.heads().head(ix)?, value: s.value, delta, q: f64::NAN })
        })
        .collect();
    let q = benjamini_hochberg(&rows.iter().map(|r| r.delta.p).collect::<Vec<_>>());
    for (row, q) in rows.iter_mut().zip(q) {
        row.q = q;
    }
    rows
}

fn pairs(
    results: &Results,
    ablation: u32,
    task: u32,
    measure: &Measure<'_>,
    none: &Sample,
    singles: &[Option<Sample>],
) -> Vec<PairRow> {
    let Some(sweep) = view::sweep_of(results, ablation, task, |k| *k == SweepKind::Pairs) else {
        return Vec::new();
    };
    let scope = results.plan.sweeps[sweep as usize].scope;
    let space = results.plan.space(sweep, &[]);
    let map = results.plan.heads();
    // One pair's resamples live only as long as its row is made: memory stays bounded by the rows.
    let mut rows: Vec<PairRow> = (0..space.len())
        .into_par_iter()
        .filter_map(|rank| {
            let columns = view::columns(results, sweep, 0, task, rank)?;
            let &[i, j] = space.subset(rank)?.as_slice() else { return None };
            let (a, b) = (singles.get(i.at())?.as_ref()?, singles.get(j.at())?.as_ref()?);
            let ab = measure.sample(&columns, scope)?;
            let loss = |s: &Sample| measure.contrast_value(&[(1.0, s), (-1.0, none)]);
            Some(PairRow {
                a: (i, map.head(i)?),
                b: (j, map.head(j)?),
                delta_a: loss(a),
                delta_b: loss(b),
                delta_ab: loss(&ab),
                interaction: measure.contrast(&[(1.0, &ab), (-1.0, a), (-1.0, b), (1.0, none)]),
                q: f64::NAN,
                relation: Relation::Unresolved,
            })
        })
        .collect();
    let q = benjamini_hochberg(&rows.iter().map(|r| r.interaction.p).collect::<Vec<_>>());
    for (row, q) in rows.iter_mut().zip(q) {
        row.q = q;
        row.relation = match row.interaction.value {
            v if q <= RESOLVED && v > 0.0 => Relation::Redundant,
            v if q <= RESOLVED && v < 0.0 => Relation::Overlapping,
            _ => Relation::Unresolved,
        };
    }
    rows
}
