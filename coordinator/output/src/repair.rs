//! Self-repair: what comes of a unit's direct effect behind it, which may make up for a part, amplify it, or turn its sign.

use crate::analyse::{Group, places};
use crate::measure::{Measure, Sample};
use crate::results::Results;
use crate::tables::{batch, common, floats, ints, place, unit_names};
use crate::view;
use ablate_common::plan::SweepKind;
use ablate_common::stats::Estimate;
use ablate_common::stats::fdr::benjamini_hochberg;
use ablate_common::units::UnitIx;
use arrow_array::RecordBatch;
use rayon::prelude::*;

/// One unit's direct effect beside its whole one.
#[derive(Clone, Copy, Debug)]
pub struct RepairRow {
    /// The unit's place in [`crate::Group::places`].
    pub ix: UnitIx,
    /// Δ with everything downstream frozen.
    pub direct: f64,
    /// Δ.
    pub total: f64,
    /// direct − total: of the sign of `direct` where what comes behind makes up for a part of it, and of the other where it is amplified.
    pub repair: Estimate,
    /// Benjamini–Hochberg q over all units of the group.
    pub q: f64,
    /// Examples.
    pub n: u32,
}

/// The units that repair sweeps measure, in the order of the units; those whose whole effect isn't known are left out.
pub fn rows(
    results: &Results,
    ablation: u32,
    task: u32,
    measure: &Measure<'_>,
    none: &Sample,
    singles: &[Option<Sample>],
) -> Vec<RepairRow> {
    let mut out: Vec<RepairRow> = Vec::new();
    for sweep in view::sweeps_of(results, ablation, task, |k| *k == SweepKind::Repair) {
        let scope = results.plan.sweeps[sweep as usize].scope;
        let places = places(results, sweep);
        let of_sweep = (0..places.len() as u64).into_par_iter().filter_map(|rank| {
            let ix = (*places.get(rank as usize)?)?;
            let total = singles.get(ix.at())?.as_ref()?;
            let direct = measure.sample(&view::columns(results, sweep, 0, task, rank)?, scope)?;
            let delta = |s: &Sample| measure.contrast_value(&[(1.0, s), (-1.0, none)]);
            Some(RepairRow {
                ix,
                direct: delta(&direct),
                total: delta(total),
                repair: measure.contrast(&[(1.0, &direct), (-1.0, total)]),
                q: f64::NAN,
                n: measure.examples() as u32,
            })
        });
        out.extend(of_sweep.collect::<Vec<_>>());
    }
    out.sort_by_key(|r| r.ix);
    let q = benjamini_hochberg(&out.iter().map(|r| r.repair.p).collect::<Vec<_>>());
    for (row, q) in out.iter_mut().zip(q) {
        row.q = q;
    }
    out
}

/// `repair`: every unit; no table where no sweep asks for it.
pub fn table(results: &Results, groups: &[Group]) -> anyhow::Result<Vec<RecordBatch>> {
    if !results.plan.sweeps.iter().any(|s| s.kind == SweepKind::Repair) {
        return Ok(Vec::new());
    }
    let one = |g: &Group| {
        let rows = &g.repair;
        let f = |f: fn(&RepairRow) -> f64| floats(rows.iter().map(f));
        let mut c = common(g, rows.len());
        let units: Vec<_> = rows.iter().map(|r| Some(r.ix)).collect();
        c.extend(place(["stream", "layer", "head"], g, &units));
        c.push(("name", unit_names(g, &units), true));
        c.push(("direct", f(|r| r.direct), false));
        c.push(("total", f(|r| r.total), false));
        c.push(("repair", f(|r| r.repair.value), false));
        c.push(("se", f(|r| r.repair.se), false));
        c.push(("ci_low", f(|r| r.repair.low), false));
        c.push(("ci_high", f(|r| r.repair.high), false));
        c.push(("p_value", f(|r| r.repair.p), false));
        c.push(("q_value", f(|r| r.q), false));
        c.push(("n", ints(rows.iter().map(|r| r.n)), false));
        batch(c)
    };
    groups.iter().map(one).collect()
}
