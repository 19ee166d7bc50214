//! Whether two scores rank the heads alike.

use crate::analyse::Group;
use crate::measure::RESAMPLES;
use ablate_common::stats::bootstrap::interval_over_units;
use ablate_common::stats::rank::{kendall, spearman};
use ablate_common::units::{UnitIx, UnitKind};
use std::collections::BTreeMap;

/// Rank agreement of two head scores.
#[derive(Clone, Debug)]
pub struct AgreementRow {
    /// The task, or both.
    pub task: String,
    /// The ablation, or both.
    pub method: String,
    /// What both remove as a whole.
    pub unit: UnitKind,
    /// First score: "delta TASK METHOD"; others are "gradient …" and "attribution …".
    pub score_a: String,
    /// Second score.
    pub score_b: String,
    /// "all", or "within_layer": the mean over layers of the correlation within each.
    pub scope: &'static str,
    /// Spearman's correlation.
    pub spearman: f64,
    /// Kendall's τ-b.
    pub kendall: f64,
    /// 95 % interval of Spearman's correlation, by bootstrap over heads (within their layers for "within_layer").
    pub ci: (f64, f64),
}

/// Agreement of every two groups that share a task or a method, and their units; then of each group's deltas with its
/// scores by gradient.
pub fn rows(groups: &[Group], seed: u64) -> Vec<AgreementRow> {
    let both = |a: &str, b: &str| if a == b { a.to_owned() } else { format!("{a}, {b}") };
    let mut out = Vec::new();
    for (i, a) in groups.iter().enumerate() {
        let alike = |b: &&Group| b.unit == a.unit && b.places == a.places;
        let shared_side = |b: &&Group| b.task == a.task || b.ablation == a.ablation;
        for b in groups[i + 1..].iter().filter(alike).filter(shared_side) {
            let of = |g: &Group| Score {
                name: format!("delta {} {}", g.name, g.method),
                values: g.heads.iter().map(|h| (h.ix, h.delta.value)).collect(),
            };
            let sides = [both(&a.name, &b.name), both(a.method, b.method)];
            agree(a, sides, [&of(a), &of(b)], seed, &mut out);
        }
    }
    for g in groups.iter().filter(|g| !g.gradients.is_empty()) {
        let of = |name: &str, values| Score { name: format!("{name} {} {}", g.name, g.method), values };
        let delta = of("delta", g.heads.iter().map(|h| (h.ix, h.delta.value)).collect());
        let gradient = of("gradient", g.gradients.iter().map(|r| (r.ix, r.importance)).collect());
        let patched = of("attribution", g.gradients.iter().map(|r| (r.ix, r.attribution.value)).collect());
        for other in [&gradient, &patched] {
            agree(g, [g.name.clone(), g.method.to_owned()], [&delta, other], seed, &mut out);
        }
    }
    out
}

/// A score of units.
struct Score {
    name: String,
    values: BTreeMap<UnitIx, f64>,
}

/// Adds the agreement of two scores of the units of `g`.
fn agree(
    g: &Group,
    [task, method]: [String; 2],
    [a, b]: [&Score; 2],
    seed: u64,
    out: &mut Vec<AgreementRow>,
) {
    let (layers, x, y) = shared(g, a, b);
    if x.len() < 2 {
        return;
    }
    // Sets lie in no layer, and layers in one of their own.
    let scopes: &[&'static str] = match g.unit {
        UnitKind::Head | UnitKind::KvGroup => &["all", "within_layer"],
        UnitKind::Layer | UnitKind::Set => &["all"],
    };
    for &scope in scopes {
        let units = if scope == "all" { vec![(0..x.len()).collect()] } else { layers.clone() };
        let statistic = |f: fn(&[f64], &[f64]) -> f64| within(&units, &x, &y, f);
        let ci = interval_over_units(x.len(), RESAMPLES, seed, |drawn| {
            // Each layer keeps its size: a drawn number picks a head of the layer it stands in.
            let mut at = drawn.iter();
            let drawn: Vec<Vec<usize>> = units
                .iter()
                .map(|u| u.iter().filter_map(|_| at.next().map(|&d| u[d % u.len()])).collect())
                .collect();
            within(&drawn, &x, &y, spearman)
        });
        out.push(AgreementRow {
            task: task.clone(),
            method: method.clone(),
            unit: g.unit,
            score_a: a.name.clone(),
            score_b: b.name.clone(),
            scope,
            spearman: statistic(spearman),
            kendall: statistic(kendall),
            ci,
        });
    }
}

/// Units by layer, and both scores of those that have both.
fn shared(g: &Group, a: &Score, b: &Score) -> (Vec<Vec<usize>>, Vec<f64>, Vec<f64>) {
    let (mut layers, mut x, mut y) = (BTreeMap::<_, Vec<usize>>::new(), Vec::new(), Vec::new());
    for (ix, &value) in &a.values {
        if let Some(&other) = b.values.get(ix).filter(|v| !v.is_nan() && !value.is_nan()) {
            layers.entry(g.places.get(ix.at()).map(|p| (p.stream, p.layer))).or_default().push(x.len());
            x.push(value);
            y.push(other);
        }
    }
    (layers.into_values().collect(), x, y)
}

/// Mean over `units` (those in which it is defined) of a correlation.
fn within(units: &[Vec<usize>], x: &[f64], y: &[f64], f: fn(&[f64], &[f64]) -> f64) -> f64 {
    let pick = |v: &[f64], u: &[usize]| u.iter().map(|&i| v[i]).collect::<Vec<f64>>();
    let r: Vec<f64> =
        units.iter().map(|u| f(&pick(x, u), &pick(y, u))).filter(|r: &f64| !r.is_nan()).collect();
    r.iter().sum::<f64>() / r.len() as f64
}
