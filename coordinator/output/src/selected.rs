//! `selected`: what is left of the largest effects on documents that had no part in their choice.
//!
//! The largest of many estimates is the largest by luck too (the winner's curse). So units and pairs are ranked on the seeded half of the
//! documents that greedy sweeps select on, and the effects of the first are given on the other half, with their errors.

use crate::analyse::{Group, places, references};
use crate::measure::{Measure, Sample};
use crate::reliability::singles;
use crate::results::Results;
use crate::tables::{batch, common, floats, ints, place, texts, unit_names};
use crate::view;
use ablate_common::plan::SweepKind;
use ablate_common::stats::Estimate;
use ablate_common::units::UnitIx;
use arrow_array::RecordBatch;
use rayon::prelude::*;

/// How many are chosen.
const CHOSEN: usize = 10;

/// A unit or pair chosen on one half, measured on the other.
#[derive(Clone, Copy, Debug)]
pub struct SelectedRow {
    /// Place by descending effect on the half that selects, from 1.
    pub rank: u32,
    /// The unit, or the earlier one of a pair.
    pub a: UnitIx,
    /// The later unit of a pair.
    pub b: Option<UnitIx>,
    /// Δ of the unit, or interaction of the pair, on the half that selects.
    pub effect_select: f64,
    /// The same on the half that reports.
    pub effect: Estimate,
    /// Examples of the half that reports.
    pub n: u32,
    /// Their clusters.
    pub clusters: u32,
}

/// Scores of a task under an ablation on one half.
struct Half<'a> {
    results: &'a Results,
    ablation: u32,
    task: u32,
    measure: Measure<'a>,
    none: Sample,
}

impl<'a> Half<'a> {
    fn new(results: &'a Results, ablation: u32, task: u32, half: u8, errors: bool) -> Option<Self> {
        let prepared = &results.prepared[task as usize];
        let metric = results.plan.tasks[task as usize].metric;
        let examples = (0u32..).zip(&prepared.examples);
        let keep: Vec<u32> = examples.filter(|(_, e)| e.half == Some(half)).map(|(i, _)| i).collect();
        if keep.len() < 2 {
            return None;
        }
        let measure = if errors {
            Measure::new(prepared, metric, keep, results.plan.spec.seed)
        } else {
            Measure::values(prepared, metric, keep)
        };
        let [none, _] = references(results, ablation, task, &measure);
        Some(Self { results, ablation, task, measure, none: none? })
    }

    fn sample(&self, sweep: u32, rank: u64) -> Option<Sample> {
        let columns = view::columns(self.results, sweep, 0, self.task, rank)?;
        self.measure.sample(&columns, self.results.plan.sweeps[sweep as usize].scope)
    }

    /// Where the unit alone is: sweep and rank.
    fn single(&self, unit: UnitIx) -> Option<Sample> {
        view::sweeps_of(self.results, self.ablation, self.task, |k| *k == SweepKind::Single).find_map(
            |sweep| {
                let rank = places(self.results, sweep).iter().position(|p| *p == Some(unit))?;
                self.sample(sweep, rank as u64)
            },
        )
    }
}

/// A pair on the half that selects: its interaction, and where it is stored.
struct Candidate {
    units: (UnitIx, UnitIx),
    at: (u32, u64),
    effect: f64,
}

/// The first units and pairs of a task under an ablation. None where there are no halves.
pub fn rows(results: &Results, ablation: u32, task: u32) -> Vec<SelectedRow> {
    let Some(select) = Half::new(results, ablation, task, 0, false) else { return Vec::new() };
    let Some(report) = Half::new(results, ablation, task, 1, true) else { return Vec::new() };
    let deltas = singles(results, ablation, task, |sweep, rank| {
        let s = select.sample(sweep, rank)?;
        Some(select.measure.contrast_value(&[(1.0, &s), (-1.0, &select.none)]))
    });
    let mut out = Vec::new();
    let mut add = |rank: usize, a, b, effect_select, effect| {
        let (n, clusters) = (report.measure.examples() as u32, report.measure.clusters() as u32);
        out.push(SelectedRow { rank: rank as u32 + 1, a, b, effect_select, effect, n, clusters });
    };
    let mut units: Vec<(UnitIx, f64)> =
        deltas.iter().map(|(u, d)| (*u, *d)).filter(|d| !d.1.is_nan()).collect();
    units.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    for (rank, (unit, effect)) in units.into_iter().take(CHOSEN).enumerate() {
        let Some(s) = report.single(unit) else { continue };
        add(rank, unit, None, effect, report.measure.contrast(&[(1.0, &s), (-1.0, &report.none)]));
    }
    for (rank, pair) in first_pairs(&select, &deltas).into_iter().enumerate() {
        let (a, b) = pair.units;
        let all = (report.sample(pair.at.0, pair.at.1), report.single(a), report.single(b));
        let (Some(both), Some(one), Some(other)) = all else { continue };
        let terms = [(1.0, &both), (-1.0, &one), (-1.0, &other), (1.0, &report.none)];
        add(rank, a, Some(b), pair.effect, report.measure.contrast(&terms));
    }
    out
}

/// The pairs with the largest interactions on the half that selects. Only as many are in memory.
fn first_pairs(select: &Half<'_>, deltas: &std::collections::BTreeMap<UnitIx, f64>) -> Vec<Candidate> {
    let keep = |mut v: Vec<Candidate>| {
        v.sort_by(|a, b| b.effect.total_cmp(&a.effect).then(a.units.cmp(&b.units)));
        v.truncate(CHOSEN);
        v
    };
    let mut first = Vec::new();
    for sweep in view::sweeps_of(select.results, select.ablation, select.task, |k| *k == SweepKind::Pairs) {
        let space = select.results.plan.space(sweep, &[]);
        let places = places(select.results, sweep);
        let of = |rank: u64| -> Option<Candidate> {
            let &[i, j] = space.subset(rank)?.as_slice() else { return None };
            let units = ((*places.get(i.at())?)?, (*places.get(j.at())?)?);
            let both = select.sample(sweep, rank)?;
            let delta = select.measure.contrast_value(&[(1.0, &both), (-1.0, &select.none)]);
            let effect = delta - deltas.get(&units.0)? - deltas.get(&units.1)?;
            (!effect.is_nan()).then_some(Candidate { units, at: (sweep, rank), effect })
        };
        let found = (0..space.len())
            .into_par_iter()
            .filter_map(of)
            .fold(Vec::new, |mut v, c| {
                v.push(c);
                if v.len() > 50 * CHOSEN { keep(v) } else { v }
            })
            .reduce(Vec::new, |mut a, b| {
                a.extend(b);
                keep(a)
            });
        first.extend(found);
    }
    keep(first)
}

/// The table, a batch per group.
pub fn table(groups: &[Group]) -> anyhow::Result<Vec<RecordBatch>> {
    let one = |g: &Group| {
        let rows = &g.selected;
        let f = |f: fn(&SelectedRow) -> f64| floats(rows.iter().map(f));
        let mut c = common(g, rows.len());
        let effect = |r: &SelectedRow| if r.b.is_some() { "interaction" } else { "delta" };
        c.push(("effect_kind", texts(rows.iter().map(effect)), false));
        c.push(("rank", ints(rows.iter().map(|r| r.rank)), false));
        let (a, b): (Vec<_>, Vec<_>) = rows.iter().map(|r| (Some(r.a), r.b)).unzip();
        c.extend(place(["a_stream", "a_layer", "a_head"], g, &a));
        c.extend(place(["b_stream", "b_layer", "b_head"], g, &b));
        c.push(("a_name", unit_names(g, &a), true));
        c.push(("b_name", unit_names(g, &b), true));
        c.push(("effect_select", f(|r| r.effect_select), false));
        c.push(("effect", f(|r| r.effect.value), false));
        c.push(("se", f(|r| r.effect.se), false));
        c.push(("ci_low", f(|r| r.effect.low), false));
        c.push(("ci_high", f(|r| r.effect.high), false));
        c.push(("p_value", f(|r| r.effect.p), false));
        c.push(("n", ints(rows.iter().map(|r| r.n)), false));
        c.push(("clusters", ints(rows.iter().map(|r| r.clusters)), false));
        batch(c)
    };
    groups.iter().map(one).collect()
}
