//! Interactions given a base: pairs that are measured with other units already removed, I(i, j | S) = Δ(Sij) − Δ(Si) − Δ(Sj) + Δ(S).
//!
//! A [`PairRow`] says here what it says of the whole model, with S gone in place of nothing: its deltas are Δ(Si) − Δ(S), Δ(Sj) − Δ(S)
//! and Δ(Sij) − Δ(S).

use crate::analyse::{Group, PairRow, Relation, interactions, places, resolve, units};
use crate::measure::{Measure, Sample};
use crate::results::Results;
use crate::tables::{BATCH, batch, floats, pair_columns, texts};
use crate::view;
use ablate_common::plan::SweepKind;
use ablate_common::stats::Estimate;
use ablate_common::units::{UnitIx, UnitMap};
use arrow_array::RecordBatch;
use rayon::prelude::*;

/// All pairs of other units, with a base already removed.
#[derive(Clone, Debug)]
pub struct Conditional {
    /// Names of the base's units, joined by " + ".
    pub base: String,
    /// The same for people: of many units their number and the first.
    pub short: String,
    /// Δ of the base alone.
    pub delta: Estimate,
    /// Every pair of other units, in lexicographic order; q over these.
    pub pairs: Vec<PairRow>,
}

impl Conditional {
    /// The strongest interactions: those that are resolved first, then by their size.
    #[must_use]
    pub fn strongest(&self, k: usize) -> Vec<&PairRow> {
        let mut v: Vec<&PairRow> = self.pairs.iter().filter(|p| !p.interaction.value.is_nan()).collect();
        v.sort_by(|a, b| {
            let resolved = |p: &PairRow| p.relation != Relation::Unresolved;
            resolved(b)
                .cmp(&resolved(a))
                .then(b.interaction.value.abs().total_cmp(&a.interaction.value.abs()))
                .then((a.a, a.b).cmp(&(b.a, b.b)))
        });
        v.truncate(k);
        v
    }

    /// Number of pairs of a relation.
    #[must_use]
    pub fn count(&self, relation: Relation) -> usize {
        self.pairs.iter().filter(|p| p.relation == relation).count()
    }
}

/// The same two units in the whole model, where that is measured.
pub fn without<'g>(g: &'g Group, pair: &PairRow) -> Option<&'g PairRow> {
    g.pairs.iter().find(|p| (p.a, p.b) == (pair.a, pair.b))
}

/// What the sweeps given a base measure of a task, in the plan's order; `none` is the sample with nothing removed. Sweeps of one base that
/// differ in streams are one: q is over all of their pairs.
pub fn rows(
    results: &Results,
    ablation: u32,
    task: u32,
    measure: &Measure<'_>,
    none: &Sample,
) -> Vec<Conditional> {
    let sweeps = view::sweeps_of(results, ablation, task, |k| matches!(k, SweepKind::Conditional { .. }));
    let mut out: Vec<(Vec<Option<UnitIx>>, Conditional)> = Vec::new();
    for sweep in sweeps {
        let Some(found) = of_sweep(results, sweep, task, measure, none) else { continue };
        let base = base_of(results, sweep);
        match out.iter_mut().find(|known| known.0 == base) {
            Some((_, known)) => known.pairs.extend(found.pairs),
            None => out.push((base, found)),
        }
    }
    let whole = |(_, mut given): (_, Conditional)| {
        given.pairs.sort_by_key(|p| (p.a, p.b));
        resolve(&mut given.pairs);
        given
    };
    out.into_iter().map(whole).collect()
}

/// The base of a sweep by its places among all units of the ablation; nothing where it has none.
fn base_of(results: &Results, sweep: u32) -> Vec<Option<UnitIx>> {
    let places = places(results, sweep);
    match &results.plan.sweeps[sweep as usize].kind {
        SweepKind::Conditional { base } => {
            base.iter().map(|u| places.get(u.at()).copied().flatten()).collect()
        }
        _ => Vec::new(),
    }
}

/// What one sweep measures; its pairs have no q yet.
fn of_sweep(
    results: &Results,
    sweep: u32,
    task: u32,
    measure: &Measure<'_>,
    none: &Sample,
) -> Option<Conditional> {
    let planned = &results.plan.sweeps[sweep as usize];
    let SweepKind::Conditional { base } = &planned.kind else { return None };
    let (space, places) = (results.plan.space(sweep, &[]), places(results, sweep));
    let sample = |rank| measure.sample(&view::columns(results, sweep, 0, task, rank)?, planned.scope);
    let gone = sample(0)?;
    // The base alone comes first, then each other unit with it, then pairs.
    let pairs_from = 1 + places.len().saturating_sub(base.len()) as u64;
    let each: Vec<(UnitIx, Sample)> = (1..pairs_from)
        .into_par_iter()
        .filter_map(|rank| {
            let unit = space.subset(rank)?.into_iter().find(|u| base.binary_search(u).is_err())?;
            Some(((*places.get(unit.at())?)?, sample(rank)?))
        })
        .collect();
    let mut with_base = vec![None; units(results, planned.ablation).map_or(0, UnitMap::len)];
    for (unit, sample) in each {
        if let Some(slot) = with_base.get_mut(unit.at()) {
            *slot = Some(sample);
        }
    }
    let ranks = pairs_from..results.plan.round_subsets(sweep, 0);
    let found = interactions(results, sweep, task, measure, &gone, &with_base, ranks).map(|r| r.1);
    Some(Conditional {
        base: results.plan.base_name(sweep).unwrap_or_default(),
        short: results.plan.base_short(sweep).unwrap_or_default(),
        delta: measure.contrast(&[(1.0, &gone), (-1.0, none)]),
        pairs: found.collect(),
    })
}

/// `conditional`: every pair given a base, in batches made one after another; no table where no sweep asks for it.
pub fn table(results: &Results, groups: &[Group]) -> impl Iterator<Item = anyhow::Result<RecordBatch>> {
    let asked = results.plan.sweeps.iter().any(|s| matches!(s.kind, SweepKind::Conditional { .. }));
    let parts = groups.iter().flat_map(|g| {
        g.conditional.iter().flat_map(move |c| {
            c.pairs.chunks(BATCH).map(move |rows| (g, c.base.as_str(), c.delta.value, rows))
        })
    });
    // Of no rows it is a table all the same.
    let rowless = asked && groups.iter().all(|g| g.conditional.iter().all(|c| c.pairs.is_empty()));
    let none: &[PairRow] = &[];
    let empty = groups.first().filter(|_| rowless).map(|g| (g, "", f64::NAN, none));
    parts.chain(empty).map(|(g, base, delta, rows)| {
        let mut c = pair_columns(g, rows);
        c.push(("base", texts(rows.iter().map(|_| base)), false));
        c.push(("delta_base", floats(rows.iter().map(|_| delta)), false));
        batch(c)
    })
}
