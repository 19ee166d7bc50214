//! Whether two scores rank the heads alike.

use crate::analyse::Group;
use crate::attention::{AttentionRow, place};
use crate::measure::RESAMPLES;
use crate::tables::{batch, floats, ints, texts};
use ablate_common::stats::bootstrap::intervals_over_units;
use ablate_common::stats::rank::{kendall, spearman, top_jaccard, top_of};
use ablate_common::units::{UnitIx, UnitKind};
use arrow_array::RecordBatch;
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
    /// First score: "delta TASK METHOD"; others are "gradient …", "attribution …", and by attention patterns "rollout TASK" …
    pub score_a: String,
    /// Second score.
    pub score_b: String,
    /// "all", or "within_layer": the mean over layers of what is found within each.
    pub scope: &'static str,
    /// Spearman's correlation.
    pub spearman: f64,
    /// Kendall's τ-b.
    pub kendall: f64,
    /// 95 % interval of Spearman's correlation, by bootstrap over heads (within their layers for "within_layer").
    pub ci: (f64, f64),
    /// Lower end of that of Kendall's τ-b.
    pub kendall_low: f64,
    /// Upper end.
    pub kendall_high: f64,
    /// How many units count as the first (within a layer: of the largest one).
    pub top_k: u32,
    /// Jaccard's index of the units that both scores rank first.
    pub jaccard: f64,
    /// Lower end of its 95 % interval.
    pub jaccard_low: f64,
    /// Upper end.
    pub jaccard_high: f64,
}

/// A score of units.
pub struct Score {
    /// As in [`AgreementRow::score_a`].
    pub name: String,
    /// Its values, where it is known.
    pub values: BTreeMap<UnitIx, f64>,
    /// Whether it is of the unablated model's attention, the same whatever is removed how.
    pub unablated: bool,
}

/// Every score that one of `groups` has: its deltas, and what else ranks its units.
pub fn scores(groups: &[Group], g: &Group) -> Vec<Score> {
    let of = |name: &str, values: Vec<(UnitIx, f64)>| Score {
        name: format!("{name} {} {}", g.name, g.method),
        values: values.into_iter().filter(|v| !v.1.is_nan()).collect(),
        unablated: false,
    };
    let all = vec![
        of("delta", g.heads.iter().map(|h| (h.ix, h.delta.value)).collect()),
        of("gradient", g.gradients.iter().map(|r| (r.ix, r.importance)).collect()),
        of("attribution", g.gradients.iter().map(|r| (r.ix, r.attribution.value)).collect()),
    ];
    all.into_iter().chain(by_attention(groups, g)).filter(|s| !s.values.is_empty()).collect()
}

/// Name and value of a score of attention patterns.
type Named = (&'static str, fn(&AttentionRow) -> f64);

/// Scores of the heads' attention patterns; none where units aren't heads, or no sweep looks at patterns.
fn by_attention(groups: &[Group], g: &Group) -> Vec<Score> {
    // The first ablation's group has them for all, whatever its units.
    let first = groups.iter().find(|first| first.task == g.task && first.ablation == 0);
    let Some(first) = first.filter(|_| g.unit == UnitKind::Head) else { return Vec::new() };
    let named: [Named; 3] =
        [("rollout", |r| r.rollout), ("confidence", |r| r.confidence), ("entropy", |r| r.entropy)];
    let of = |(name, value): Named| {
        let ix = |r: &AttentionRow| place(&g.places, r.stream, r.layer, r.head);
        let known = first.attention.iter().filter_map(|r| Some((ix(r)?, value(r)))).filter(|v| !v.1.is_nan());
        Score { name: format!("{name} {}", g.name), values: known.collect(), unablated: true }
    };
    named.into_iter().map(of).collect()
}

/// Agreement of every two groups' deltas that share a task or a method, and their units; then of every two scores of a group.
pub fn rows(groups: &[Group], seed: u64) -> Vec<AgreementRow> {
    let both = |a: &str, b: &str| if a == b { a.to_owned() } else { format!("{a}, {b}") };
    let all: Vec<Vec<Score>> = groups.iter().map(|g| scores(groups, g)).collect();
    let delta = |at: usize| all[at].iter().find(|s| s.name.starts_with("delta "));
    let mut out = Vec::new();
    for (i, a) in groups.iter().enumerate() {
        for (j, b) in groups.iter().enumerate().skip(i + 1) {
            let alike = b.unit == a.unit && b.places == a.places;
            if alike
                && (b.task == a.task || b.ablation == a.ablation)
                && let (Some(x), Some(y)) = (delta(i), delta(j))
            {
                let sides = [both(&a.name, &b.name), both(a.method, b.method)];
                agree(a, sides, [x, y], seed, &mut out);
            }
        }
    }
    for (at, (g, scores)) in groups.iter().zip(&all).enumerate() {
        // What no ablation enters is compared once.
        let again = groups[..at].iter().any(|known| known.task == g.task && known.unit == g.unit);
        for (k, a) in scores.iter().enumerate() {
            for b in scores[k + 1..].iter().filter(|b| !(again && a.unablated && b.unablated)) {
                agree(g, [g.name.clone(), g.method.to_owned()], [a, b], seed, &mut out);
            }
        }
    }
    out
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
        let found = Agreement::of(&units, &x, &y, seed);
        out.push(AgreementRow {
            task: task.clone(),
            method: method.clone(),
            unit: g.unit,
            score_a: a.name.clone(),
            score_b: b.name.clone(),
            scope,
            spearman: found.values[0],
            kendall: found.values[1],
            ci: found.intervals[0],
            kendall_low: found.intervals[1].0,
            kendall_high: found.intervals[1].1,
            top_k: found.top_k as u32,
            jaccard: found.values[2],
            jaccard_low: found.intervals[2].0,
            jaccard_high: found.intervals[2].1,
        });
    }
}

/// Units by layer, and both scores of those that have both.
fn shared(g: &Group, a: &Score, b: &Score) -> (Vec<Vec<usize>>, Vec<f64>, Vec<f64>) {
    let (mut layers, mut x, mut y) = (BTreeMap::<_, Vec<usize>>::new(), Vec::new(), Vec::new());
    for (ix, &value) in &a.values {
        if let Some(&other) = b.values.get(ix) {
            layers.entry(g.places.get(ix.at()).map(|p| (p.stream, p.layer))).or_default().push(x.len());
            x.push(value);
            y.push(other);
        }
    }
    (layers.into_values().collect(), x, y)
}

/// How far two scores of the same units agree: Spearman, Kendall and the Jaccard index of the first.
pub struct Agreement {
    /// Spearman's correlation, Kendall's τ-b, Jaccard's index.
    pub values: [f64; 3],
    /// Their 95 % intervals, by bootstrap over units.
    pub intervals: [(f64, f64); 3],
    /// How many count as the first, in the largest part.
    pub top_k: usize,
}

impl Agreement {
    /// Of `x` and `y` in each of `parts` (the indices of its units), as the mean over those in which it is defined.
    pub fn of(parts: &[Vec<usize>], x: &[f64], y: &[f64], seed: u64) -> Self {
        let intervals = intervals_over_units(x.len(), RESAMPLES, seed, |drawn| {
            // Each layer keeps its size: a drawn number picks a head of the layer it stands in.
            let mut at = drawn.iter();
            let drawn: Vec<Vec<usize>> = parts
                .iter()
                .map(|u| u.iter().filter_map(|_| at.next().map(|&d| u[d % u.len()])).collect())
                .collect();
            within(&drawn, x, y)
        });
        let top_k = top_of(parts.iter().map(Vec::len).max().unwrap_or(0));
        Self { values: within(parts, x, y), intervals, top_k }
    }
}

/// Mean over `parts` of each measure, over those in which it is defined.
fn within(parts: &[Vec<usize>], x: &[f64], y: &[f64]) -> [f64; 3] {
    let pick = |v: &[f64], u: &[usize]| u.iter().map(|&i| v[i]).collect::<Vec<f64>>();
    let (mut sums, mut defined) = ([0.0; 3], [0.0; 3]);
    for part in parts {
        let (x, y) = (pick(x, part), pick(y, part));
        for (k, r) in
            [spearman(&x, &y), kendall(&x, &y), top_jaccard(&x, &y, top_of(x.len()))].into_iter().enumerate()
        {
            if !r.is_nan() {
                sums[k] += r;
                defined[k] += 1.0;
            }
        }
    }
    std::array::from_fn(|k| sums[k] / defined[k])
}

/// `agreement`: rank agreement of every two scores that can be compared; no rows where there are no two.
pub fn table(rows: &[AgreementRow]) -> anyhow::Result<RecordBatch> {
    let f = |f: fn(&AgreementRow) -> f64| floats(rows.iter().map(f));
    batch(vec![
        ("task", texts(rows.iter().map(|r| r.task.as_str())), false),
        ("method", texts(rows.iter().map(|r| r.method.as_str())), false),
        ("unit", texts(rows.iter().map(|r| r.unit.name())), false),
        ("score_a", texts(rows.iter().map(|r| r.score_a.as_str())), false),
        ("score_b", texts(rows.iter().map(|r| r.score_b.as_str())), false),
        ("scope", texts(rows.iter().map(|r| r.scope)), false),
        ("spearman", f(|r| r.spearman), false),
        ("kendall", f(|r| r.kendall), false),
        ("ci_low", f(|r| r.ci.0), false),
        ("ci_high", f(|r| r.ci.1), false),
        ("kendall_low", f(|r| r.kendall_low), false),
        ("kendall_high", f(|r| r.kendall_high), false),
        ("top_k", ints(rows.iter().map(|r| r.top_k)), false),
        ("jaccard", f(|r| r.jaccard), false),
        ("jaccard_low", f(|r| r.jaccard_low), false),
        ("jaccard_high", f(|r| r.jaccard_high), false),
    ])
}
