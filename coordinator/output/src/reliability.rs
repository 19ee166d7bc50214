//! `reliability`: whether a score says the same of the heads on the other half of the documents.

use crate::analyse::Group;
use crate::analyse::{places, references, units};
use crate::attention;
use crate::gradients;
use crate::measure::{Measure, RESAMPLES};
use crate::results::Results;
use crate::tables::{batch, common, floats, ints, texts};
use crate::view;
use ablate_common::plan::SweepKind;
use ablate_common::stats::bootstrap::intervals_over_units;
use ablate_common::stats::rank::{spearman, spearman_brown};
use ablate_common::units::{UnitIx, UnitKind, UnitMap};
use arrow_array::RecordBatch;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Split-half reliability of one score.
#[derive(Clone, Debug)]
pub struct ReliabilityRow {
    /// As in [`crate::AgreementRow::score_a`].
    pub score: String,
    /// Spearman's correlation of its values on the two seeded halves of the documents.
    pub split_half: f64,
    /// What that says of the score on all documents: 2r / (1 + r).
    pub corrected: f64,
    /// Lower end of the 95 % interval of `corrected`, by bootstrap over units.
    pub ci_low: f64,
    /// Upper end.
    pub ci_high: f64,
    /// Units.
    pub n: u32,
}

/// A score on each half of the documents.
pub type Halves = [BTreeMap<UnitIx, f64>; 2];

/// Every score of a task under an ablation. None where a half has fewer than two documents or units.
pub fn rows(results: &Results, g: &Group) -> Vec<ReliabilityRow> {
    let named = |name: &str| format!("{name} {} {}", g.name, g.method);
    let mut all = vec![(named("delta"), deltas(results, g.ablation, g.task))];
    if !g.gradients.is_empty() {
        let [gradient, attribution] = gradients::halves(results, g.ablation, g.task);
        all.extend([(named("gradient"), gradient), (named("attribution"), attribution)]);
    }
    // Attention patterns are those of the unablated model, whatever is removed how: said once.
    let first = results.plan.ablations.iter().position(|a| a.unit == UnitKind::Head);
    if first == Some(g.ablation as usize) {
        let [rollout, confidence, entropy] = attention::halves(results, g.task, &g.places);
        let observed = [("rollout", rollout), ("confidence", confidence), ("entropy", entropy)];
        all.extend(observed.map(|(name, halves)| (format!("{name} {}", g.name), halves)));
    }
    let seed = results.plan.spec.seed;
    all.into_iter().filter_map(|(score, halves)| row(score, &halves, seed)).collect()
}

/// The reliability of one score; `None` where fewer than two units have it on both halves.
pub fn row(score: String, [a, b]: &Halves, seed: u64) -> Option<ReliabilityRow> {
    let both =
        a.iter().filter_map(|(ix, x)| Some((*x, *b.get(ix)?))).filter(|v| !v.0.is_nan() && !v.1.is_nan());
    let (x, y): (Vec<f64>, Vec<f64>) = both.unzip();
    if x.len() < 2 {
        return None;
    }
    let pick = |v: &[f64], at: &[usize]| at.iter().map(|&i| v[i]).collect::<Vec<f64>>();
    let [ci] = intervals_over_units(x.len(), RESAMPLES, seed, |drawn| {
        [spearman_brown(spearman(&pick(&x, drawn), &pick(&y, drawn)))]
    });
    let split_half = spearman(&x, &y);
    Some(ReliabilityRow {
        score,
        split_half,
        corrected: spearman_brown(split_half),
        ci_low: ci.0,
        ci_high: ci.1,
        n: x.len() as u32,
    })
}

/// Δ of every unit on each half.
fn deltas(results: &Results, ablation: u32, task: u32) -> Halves {
    let prepared = &results.prepared[task as usize];
    let metric = results.plan.tasks[task as usize].metric;
    [0u8, 1].map(|half| {
        let examples = (0u32..).zip(&prepared.examples);
        let keep: Vec<u32> = examples.filter(|(_, e)| e.half == Some(half)).map(|(i, _)| i).collect();
        if keep.len() < 2 {
            return BTreeMap::new();
        }
        let measure = Measure::values(prepared, metric, keep);
        let [Some(none), _] = references(results, ablation, task, &measure) else { return BTreeMap::new() };
        singles(results, ablation, task, |sweep, rank| {
            let scope = results.plan.sweeps[sweep as usize].scope;
            let s = measure.sample_value(&view::columns(results, sweep, 0, task, rank)?, scope)?;
            Some(measure.contrast_value(&[(1.0, &s), (-1.0, &none)]))
        })
    })
}

/// What `of` makes of every unit alone, from all sweeps that have it.
pub fn singles(
    results: &Results,
    ablation: u32,
    task: u32,
    of: impl Fn(u32, u64) -> Option<f64> + Sync,
) -> BTreeMap<UnitIx, f64> {
    let mut out = BTreeMap::new();
    let all = units(results, ablation).map_or(0, UnitMap::len);
    for sweep in view::sweeps_of(results, ablation, task, |k| *k == SweepKind::Single) {
        let places = places(results, sweep);
        let found: Vec<Option<f64>> =
            (0..places.len() as u64).into_par_iter().map(|rank| of(sweep, rank)).collect();
        let known = places.into_iter().zip(found).filter_map(|(place, v)| Some((place?, v?)));
        out.extend(known.filter(|k| k.0.at() < all));
    }
    out
}

/// The table, a batch per group.
pub fn table(groups: &[Group]) -> anyhow::Result<Vec<RecordBatch>> {
    let one = |g: &Group| {
        let rows = &g.reliability;
        let f = |f: fn(&ReliabilityRow) -> f64| floats(rows.iter().map(f));
        let mut c = common(g, rows.len());
        c.push(("score", texts(rows.iter().map(|r| r.score.as_str())), false));
        c.push(("split_half", f(|r| r.split_half), false));
        c.push(("corrected", f(|r| r.corrected), false));
        c.push(("ci_low", f(|r| r.ci_low), false));
        c.push(("ci_high", f(|r| r.ci_high), false));
        c.push(("n", ints(rows.iter().map(|r| r.n)), false));
        batch(c)
    };
    groups.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_that_repeats_itself_is_reliable() {
        let of = |f: &dyn Fn(u32) -> f64| (0..40).map(|i| (UnitIx(i), f(i))).collect::<BTreeMap<_, _>>();
        let alike = of(&|i| f64::from(i * 7 % 41));
        let r = row("delta".into(), &[alike.clone(), alike.clone()], 1).unwrap();
        assert_eq!((r.split_half, r.corrected, r.ci_low, r.ci_high, r.n), (1.0, 1.0, 1.0, 1.0, 40));
        let near = of(&|i| f64::from(i * 7 % 41) + 20.0 * f64::from(i * 13 % 17) / 17.0);
        let r = row("delta".into(), &[alike, near], 1).unwrap();
        assert!(
            r.split_half < r.corrected
                && r.corrected < 1.0
                && r.ci_low < r.corrected
                && r.corrected < r.ci_high
        );
        assert!(row("delta".into(), &[BTreeMap::new(), BTreeMap::new()], 1).is_none());
    }
}
