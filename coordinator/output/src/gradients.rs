//! Scores by gradient: gradient importance and attribution patching, see [`ablate_common::gradient`].

use crate::analyse::places;
use crate::reliability::Halves;
use crate::results::Results;
use crate::view;
use ablate_common::gradient;
use ablate_common::plan::SweepKind;
use ablate_common::stats::Estimate;
use ablate_common::stats::paired::{Link, Weighted};
use ablate_common::task::Scope;
use ablate_common::units::{Place, UnitIx, UnitKind};
use std::collections::BTreeMap;

/// One unit's scores by gradient, on all examples.
#[derive(Clone, Copy, Debug)]
pub struct GradientRow {
    /// The unit's place in [`crate::Group::places`].
    pub ix: UnitIx,
    /// I = E |zᵀ ∂ℓ/∂z|.
    pub importance: f64,
    /// I by the ℓ2 norm of all of its layer's; none for layers and sets, and where all of them are 0.
    pub normalised: Option<f64>,
    /// E (ẑ − z)ᵀ ∂ℓ/∂z: the first-order estimate of Δ, with the error of its mean.
    pub attribution: Estimate,
    /// Rows that were averaged.
    pub n: u32,
    /// Documents of these.
    pub clusters: u32,
}

/// The units that the spec's gradient sweeps score, in the order of the units.
pub fn rows(results: &Results, ablation: u32, task: u32, kind: UnitKind, of: &[Place]) -> Vec<GradientRow> {
    let prepared = &results.prepared[task as usize];
    let (weights, documents) = gradient::weights(prepared, Scope::All);
    let measure = Weighted::new(weights.clone(), &documents);
    let asked = |k: &SweepKind| *k == SweepKind::Gradient { greedy: None };
    let mut out = Vec::new();
    for sweep in view::sweeps_of(results, ablation, task, asked) {
        let chunk = u64::from(results.plan.sweeps[sweep as usize].chunk.max(1));
        for (rank, place) in (0u64..).zip(places(results, sweep)) {
            let Some(block) = view::block(results, sweep, 0, (rank / chunk) as u32, task) else { continue };
            let (Some(ix), unit) = (place, (rank % chunk) as usize) else { continue };
            out.push(GradientRow {
                ix,
                importance: gradient::importance(block, unit, &weights),
                normalised: None,
                attribution: measure.contrast(&[(1.0, block.column(unit, 1))], Link::Identity),
                n: weights.len() as u32,
                clusters: measure.clusters() as u32,
            });
        }
    }
    out.sort_by_key(|r| r.ix);
    if matches!(kind, UnitKind::Head | UnitKind::KvGroup) {
        normalise(&mut out, of);
    }
    out
}

/// Importance and attribution of every unit on each half of the documents; none where rows are items, since each has a part in the
/// gradients of those of the other half.
pub fn halves(results: &Results, ablation: u32, task: u32) -> [Halves; 2] {
    let mut out: [Halves; 2] = Default::default();
    let prepared = &results.prepared[task as usize];
    if gradient::by_item(prepared.kind) {
        return out;
    }
    let (weights, _) = gradient::weights(prepared, Scope::All);
    let of_rows: Vec<Option<u8>> =
        prepared.examples_in(Scope::All).iter().map(|&e| prepared.examples[e as usize].half).collect();
    let asked = |k: &SweepKind| *k == SweepKind::Gradient { greedy: None };
    for sweep in view::sweeps_of(results, ablation, task, asked) {
        let chunk = u64::from(results.plan.sweeps[sweep as usize].chunk.max(1));
        for (rank, place) in (0u64..).zip(places(results, sweep)) {
            let Some(block) = view::block(results, sweep, 0, (rank / chunk) as u32, task) else { continue };
            let (Some(ix), unit) = (place, (rank % chunk) as usize) else { continue };
            for half in [0u8, 1] {
                let mean = |column: usize, of: fn(f64) -> f64| {
                    let rows = block.column(unit, column).iter().zip(&weights).zip(&of_rows);
                    let own = rows.filter(|r| *r.1 == Some(half)).map(|r| r.0);
                    let (sum, all) = own.fold((0.0, 0.0), |s, (x, w)| (s.0 + of(*x), s.1 + w));
                    sum / all
                };
                out[0][usize::from(half)].insert(ix, mean(0, f64::abs));
                out[1][usize::from(half)].insert(ix, mean(1, |x| x));
            }
        }
    }
    out
}

/// Divides each layer's importances by their ℓ2 norm.
fn normalise(rows: &mut [GradientRow], places: &[Place]) {
    let layer = |r: &GradientRow| places.get(r.ix.at()).map(|p| (p.stream, p.layer));
    let mut squares = BTreeMap::<_, f64>::new();
    for row in rows.iter() {
        *squares.entry(layer(row)).or_default() += row.importance * row.importance;
    }
    for row in rows {
        let norm = squares.get(&layer(row)).map_or(0.0, |s| s.sqrt());
        row.normalised = (norm > 0.0).then(|| row.importance / norm);
    }
}
