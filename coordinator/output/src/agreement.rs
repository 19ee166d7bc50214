//! Whether two scores rank the heads alike.

use crate::analyse::Group;
use crate::measure::RESAMPLES;
use ablate_common::stats::bootstrap::interval_over_units;
use ablate_common::stats::rank::{kendall, spearman};
use ablate_common::units::UnitKind;
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
    /// First score: "delta TASK METHOD".
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

/// Agreement of every two groups that share a task or a method, and their units.
pub fn rows(groups: &[Group], seed: u64) -> Vec<AgreementRow> {
    let both = |a: &str, b: &str| if a == b { a.to_owned() } else { format!("{a}, {b}") };
    let mut out = Vec::new();
    for (i, a) in groups.iter().enumerate() {
        let alike = |b: &&Group| b.unit == a.unit && b.places == a.places;
        let shared_side = |b: &&Group| b.task == a.task || b.ablation == a.ablation;
        for b in groups[i + 1..].iter().filter(alike).filter(shared_side) {
            let (layers, x, y) = shared(a, b);
            if x.len() < 2 {
                continue;
            }
            // Sets lie in no layer, and layers in one of their own.
            let scopes: &[&'static str] = match a.unit {
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
                    task: both(&a.name, &b.name),
                    method: both(a.method, b.method),
                    unit: a.unit,
                    score_a: format!("delta {} {}", a.name, a.method),
                    score_b: format!("delta {} {}", b.name, b.method),
                    scope,
                    spearman: statistic(spearman),
                    kendall: statistic(kendall),
                    ci,
                });
            }
        }
    }
    out
}

/// Units by layer, and the deltas of both groups.
fn shared(a: &Group, b: &Group) -> (Vec<Vec<usize>>, Vec<f64>, Vec<f64>) {
    let other: BTreeMap<_, _> = b.heads.iter().map(|h| (h.ix, h.delta.value)).collect();
    let (mut layers, mut x, mut y) = (BTreeMap::<_, Vec<usize>>::new(), Vec::new(), Vec::new());
    for h in &a.heads {
        if let Some(v) = other.get(&h.ix).filter(|v| !v.is_nan() && !h.delta.value.is_nan()) {
            layers.entry(a.places.get(h.ix.at()).map(|p| (p.stream, p.layer))).or_default().push(x.len());
            x.push(h.delta.value);
            y.push(*v);
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
