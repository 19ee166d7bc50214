//! Point values: a metric from per-example scores.

use crate::metric::Metric;
use crate::task::{Prepared, TaskKind};

/// The value of `metric` on the examples `keep` (indices into `prepared.examples`), whose scores are
/// `columns[c][k]` for `keep[k]`, in the column order of the task's kind. NaN where it is undefined (no
/// example, no variance) or a score is NaN.
///
/// # Panics
/// Where a column is shorter than `keep`.
#[must_use]
pub fn value(metric: Metric, prepared: &Prepared, keep: &[u32], columns: &[&[f64]]) -> f64 {
    let examples = || keep.iter().map(|&e| &prepared.examples[e as usize]);
    let ratio = |column: &[f64]| {
        let tokens: f64 = examples().map(|e| f64::from(prepared.scored_tokens(e))).sum();
        column[..keep.len()].iter().sum::<f64>() / tokens
    };
    match metric {
        Metric::Loss => ratio(columns[0]),
        Metric::Perplexity => ratio(columns[0]).exp(),
        Metric::Accuracy if matches!(prepared.kind, TaskKind::LanguageModeling | TaskKind::Induction) => {
            ratio(columns[1])
        }
        Metric::Accuracy => {
            columns[0][..keep.len()].iter().map(|&d| above_zero(d)).sum::<f64>() / keep.len() as f64
        }
        Metric::LogitDiff => columns[0][..keep.len()].iter().sum::<f64>() / keep.len() as f64,
        Metric::Pearson => {
            pearson(&columns[0][..keep.len()], &examples().map(|e| e.gold).collect::<Vec<_>>())
        }
        Metric::Spearman => {
            super::rank::spearman(&columns[0][..keep.len()], &examples().map(|e| e.gold).collect::<Vec<_>>())
        }
    }
}

/// 1 where a logit difference is above 0 (the target wins), else 0; NaN stays NaN.
#[must_use]
pub fn above_zero(d: f64) -> f64 {
    if d.is_nan() { d } else { f64::from(u8::from(d > 0.0)) }
}

/// Pearson's correlation of two equally long samples; NaN where one has no variance.
#[must_use]
pub fn pearson(x: &[f64], y: &[f64]) -> f64 {
    let n = x.len() as f64;
    let (mx, my) = (x.iter().sum::<f64>() / n, y.iter().sum::<f64>() / n);
    let (mut sxy, mut sxx, mut syy) = (0.0, 0.0, 0.0);
    for (a, b) in x.iter().zip(y) {
        sxy += (a - mx) * (b - my);
        sxx += (a - mx) * (a - mx);
        syy += (b - my) * (b - my);
    }
    sxy / (sxx * syy).sqrt()
}

/// Ranks from 1, ties sharing the mean of theirs.
#[must_use]
pub fn midranks(x: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| x[a].total_cmp(&x[b]));
    let mut ranks = vec![0.0; x.len()];
    let mut from = 0;
    while from < order.len() {
        let mut to = from + 1;
        while to < order.len() && x[order[to]] == x[order[from]] {
            to += 1;
        }
        for &i in &order[from..to] {
            ranks[i] = (from + to + 1) as f64 / 2.0;
        }
        from = to;
    }
    ranks
}
