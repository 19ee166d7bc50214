//! Point values: a metric from per-example scores.

use super::labels::LabelMetric;
use crate::metric::Metric;
use crate::task::{Prepared, TaskKind};
use std::borrow::Cow;

/// What the metric is the mean of, per example: sums over its scored tokens, of a weight of
/// [`Prepared::scored_tokens`]. `columns` are in the order of [`Metric::columns`]. Of a perplexity it is the loss,
/// whose exp it is; `None` for what is no mean, and where the column is missing.
#[must_use]
pub fn terms<'c>(metric: Metric, kind: TaskKind, columns: &[&'c [f64]]) -> Option<Cow<'c, [f64]>> {
    let at = match metric {
        Metric::Loss | Metric::Perplexity | Metric::LogitDiff | Metric::ProbDiff => 0,
        Metric::Accuracy if kind.by_token() => 1,
        Metric::Accuracy if matches!(kind, TaskKind::NextTokenChoice | TaskKind::Classification) => {
            let (prediction, label) = (columns.get(1)?, columns.get(2)?);
            return Some(prediction.iter().zip(*label).map(|(&p, &l)| same(p, l)).collect());
        }
        Metric::Accuracy => return Some(columns.first()?.iter().map(|&d| above_zero(d)).collect()),
        Metric::Kl => metric.columns(kind).len() - 1,
        Metric::F1
        | Metric::F1Binary
        | Metric::Matthews
        | Metric::Bleu
        | Metric::Pearson
        | Metric::Spearman => {
            return None;
        }
    };
    columns.get(at).map(|c| Cow::Borrowed(*c))
}

/// The value of `metric` on the examples `keep` (indices into `prepared.examples`), whose scores are
/// `columns[c][k]` for `keep[k]`, in the order of [`Metric::columns`]. NaN where it is undefined (no
/// example, no variance), or a score is NaN or missing.
///
/// # Panics
/// Where a column is shorter than `keep`.
#[must_use]
pub fn value(metric: Metric, prepared: &Prepared, keep: &[u32], columns: &[&[f64]]) -> f64 {
    let examples = || keep.iter().map(|&e| &prepared.examples[e as usize]);
    let correlation = |of: fn(&[f64], &[f64]) -> f64| {
        of(&columns[0][..keep.len()], &examples().map(|e| e.gold).collect::<Vec<_>>())
    };
    match metric {
        Metric::Pearson => correlation(pearson),
        Metric::F1 | Metric::F1Binary | Metric::Matthews => {
            let (Some(metric), [_, predictions, labels]) = (LabelMetric::of_metric(metric), columns) else {
                return f64::NAN;
            };
            metric.value(&predictions[..keep.len()], &labels[..keep.len()])
        }
        Metric::Bleu => {
            let counts = columns.get(prepared.kind.columns().len()..).unwrap_or_default();
            super::bleu::weighted(counts, keep.len(), |_| 1.0)
        }
        Metric::Spearman => correlation(super::rank::spearman),
        _ => {
            let Some(terms) = terms(metric, prepared.kind, columns) else { return f64::NAN };
            let tokens: f64 = examples().map(|e| f64::from(prepared.scored_tokens(e))).sum();
            let mean = terms[..keep.len()].iter().sum::<f64>() / tokens;
            if metric == Metric::Perplexity { mean.exp() } else { mean }
        }
    }
}

/// 1 where a difference is above 0 (the target wins), else 0; NaN stays NaN.
#[must_use]
pub fn above_zero(d: f64) -> f64 {
    if d.is_nan() { d } else { f64::from(u8::from(d > 0.0)) }
}

/// 1 where the predicted label is the right one, else 0; NaN stays NaN.
#[must_use]
pub fn same(prediction: f64, label: f64) -> f64 {
    if prediction.is_nan() { prediction } else { f64::from(u8::from(prediction == label)) }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Example, Item, Scored};

    fn prepared(kind: TaskKind) -> Prepared {
        let scored = |n: u32| (0..n).map(|position| Scored { position, target: 0, foil: 0 }).collect();
        let items =
            [1, 3].map(|n| Item { tokens: vec![0; 4], scored: scored(n), ..Item::default() }).to_vec();
        let example = |a| Example { a, b: a, gold: 1.0, cluster: a, half: None };
        Prepared { kind, items, item_half: vec![0; 2], examples: vec![example(0), example(1)], probe: None }
    }

    #[test]
    fn each_metric_reads_its_own_column_and_weights() {
        let of = |metric, kind, columns: &[&[f64]]| value(metric, &prepared(kind), &[0, 1], columns);
        let text = TaskKind::LanguageModeling;
        let by_token = [text, TaskKind::MaskedLm, TaskKind::Seq2seq];
        let columns: [&[f64]; 3] = [&[2.0, 4.0], &[1.0, 2.0], &[0.5, 0.7]];
        assert_eq!(of(Metric::Loss, text, &columns), 6.0 / 4.0);
        assert_eq!(of(Metric::Perplexity, text, &columns), 1.5f64.exp());
        assert_eq!(of(Metric::Accuracy, text, &columns), 3.0 / 4.0);
        assert_eq!(by_token.map(|kind| of(Metric::Kl, kind, &columns)), [(0.5 + 0.7) / 4.0; 3]);
        let columns: [&[f64]; 2] = [&[-2.0, 4.0], &[0.5, 0.7]];
        assert_eq!(of(Metric::LogitDiff, TaskKind::Ioi, &columns), 1.0);
        assert_eq!(of(Metric::Accuracy, TaskKind::Ioi, &columns), 0.5);
        assert_eq!(of(Metric::Kl, TaskKind::Ioi, &columns), 0.6);
        let columns: [&[f64]; 3] = [&[0.5, 2.5], &[1.0, 0.0], &[1.0, 2.0]];
        assert_eq!(of(Metric::Accuracy, TaskKind::NextTokenChoice, &columns), 0.5);
        assert_eq!(of(Metric::Loss, TaskKind::NextTokenChoice, &columns), 1.5);
        // Of labels 0, 1 and 2, the second is hit once of one and one; the others are never.
        assert_eq!(of(Metric::F1, TaskKind::NextTokenChoice, &columns), 1.0 / 3.0);
        assert_eq!(of(Metric::Matthews, TaskKind::NextTokenChoice, &columns), 0.5);
        assert!(of(Metric::Kl, TaskKind::Ioi, &columns[..1]).is_nan(), "a column that isn't there");
    }
}
