//! F1 and Matthews' correlation of predicted labels, as scikit-learn computes them, and their paired bootstrap.
//!
//! Neither is a mean over examples. A resample draws as many documents as there are, with replacement, and takes
//! all examples of each as often as it was drawn; the same resamples serve every subset [Efron & Tibshirani
//! 1993]. What becomes of the values of the resamples is said in [`super::bootstrap`].

use super::resamples::Resamples;
use crate::metric::Metric;

/// Which number is made of labels and predictions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelMetric {
    /// Mean over the labels that occur, as right one or as prediction, of 2 · hits / (occurrences of both): macro F1.
    MacroF1,
    /// 2 · hits / (occurrences as right one and as prediction) of label 1; 0 where it doesn't occur.
    BinaryF1,
    /// Matthews' correlation, of any number of labels; 0 where it is undefined because either side has one label only.
    Matthews,
}

/// Labels are small numbers: this is more than any task has.
const MOST: usize = 4096;

impl LabelMetric {
    /// What a task's metric is here; `None` where it isn't one of labels.
    #[must_use]
    pub fn of_metric(metric: Metric) -> Option<Self> {
        match metric {
            Metric::F1 => Some(Self::MacroF1),
            Metric::F1Binary => Some(Self::BinaryF1),
            Metric::Matthews => Some(Self::Matthews),
            _ => None,
        }
    }

    /// The metric of `predictions` against `labels`. NaN for no example, and where a label isn't a number.
    #[must_use]
    pub fn value(self, predictions: &[f64], labels: &[f64]) -> f64 {
        let numbers = labels.iter().zip(predictions).map(|(&l, &p)| Some((number(l)?, number(p)?)));
        let Some(examples) = numbers.collect::<Option<Vec<_>>>() else { return f64::NAN };
        let most = examples.iter().map(|e| e.0.max(e.1) + 1).max().unwrap_or(0);
        let (mut hits, mut rows, mut columns) = (vec![0.0; most], vec![0.0; most], vec![0.0; most]);
        for (label, prediction) in examples {
            rows[label] += 1.0;
            columns[prediction] += 1.0;
            if label == prediction {
                hits[label] += 1.0;
            }
        }
        self.of(&hits, &rows, &columns)
    }

    /// From counts: `hits[label]`, and how often each is right (`rows`) and predicted (`columns`).
    fn of(self, hits: &[f64], rows: &[f64], columns: &[f64]) -> f64 {
        let each = || rows.iter().zip(columns);
        match self {
            Self::MacroF1 => {
                let (mut sum, mut occurring) = (0.0, 0.0);
                for (hit, (row, column)) in hits.iter().zip(each()).filter(|c| c.1.0 + c.1.1 > 0.0) {
                    sum += 2.0 * hit / (row + column);
                    occurring += 1.0;
                }
                sum / occurring
            }
            Self::BinaryF1 => match (hits.get(1), rows.get(1), columns.get(1)) {
                (Some(hit), Some(row), Some(column)) if row + column > 0.0 => 2.0 * hit / (row + column),
                _ if rows.iter().sum::<f64>() > 0.0 => 0.0,
                _ => f64::NAN,
            },
            Self::Matthews => {
                let n: f64 = rows.iter().sum();
                let both = hits.iter().sum::<f64>() * n - each().map(|(r, c)| r * c).sum::<f64>();
                let spread = |v: &[f64]| n * n - v.iter().map(|x| x * x).sum::<f64>();
                let product = spread(rows) * spread(columns);
                if n == 0.0 {
                    f64::NAN
                } else if product == 0.0 {
                    0.0
                } else {
                    both / product.sqrt()
                }
            }
        }
    }
}

/// The number of a label; `None` for what isn't one.
fn number(v: f64) -> Option<usize> {
    (v >= 0.0 && v.fract() == 0.0 && v < MOST as f64).then_some(v as usize)
}

/// The resamples of one set of examples, made once.
#[derive(Clone, Debug)]
pub struct LabelBootstrap {
    metric: LabelMetric,
    /// Numbers of the right labels; none where one isn't a label.
    labels: Option<Vec<usize>>,
    resamples: Resamples,
    /// `rows[label * resamples + resample]`: how often each label is right.
    rows: Vec<f64>,
}

impl LabelBootstrap {
    /// `resamples` resamples of the documents `clusters` (one number per label). Equal arguments give equal
    /// resamples.
    #[must_use]
    pub fn new(metric: LabelMetric, labels: &[f64], clusters: &[u32], resamples: usize, seed: u64) -> Self {
        let resamples = Resamples::new(clusters, resamples, seed);
        let labels = labels.iter().map(|&l| number(l)).collect::<Option<Vec<_>>>();
        let labels = labels.filter(|l| l.len() == resamples.examples());
        let rows = labels.as_ref().map_or_else(Vec::new, |labels| {
            resamples.sums(labels.iter().max().map_or(0, |l| l + 1), |e| [(labels[e], 1.0)])
        });
        Self { metric, labels, resamples, rows }
    }

    /// Number of documents.
    #[must_use]
    pub fn clusters(&self) -> usize {
        self.resamples.documents()
    }

    /// The metric of `predictions` in every resample, in order; NaN everywhere where one isn't a label or is
    /// missing.
    #[must_use]
    pub fn vector(&self, predictions: &[f64]) -> Vec<f64> {
        let predicted = predictions.iter().map(|&p| number(p)).collect::<Option<Vec<_>>>();
        let (Some(labels), Some(predicted)) = (&self.labels, predicted) else {
            return self.resamples.undefined();
        };
        if labels.is_empty() || predicted.len() != labels.len() {
            return self.resamples.undefined();
        }
        let times = self.resamples.number();
        let most = predicted.iter().max().map_or(0, |p| p + 1).max(self.rows.len() / times.max(1));
        // First how often each label is predicted, then how often rightly.
        let sums = self.resamples.sums(2 * most, |e| {
            let hit = (labels[e] == predicted[e]).then_some((most + predicted[e], 1.0));
            std::iter::once((predicted[e], 1.0)).chain(hit)
        });
        let (mut hits, mut rows, mut columns) = (vec![0.0; most], vec![0.0; most], vec![0.0; most]);
        (0..times)
            .map(|r| {
                let each = hits.iter_mut().zip(&mut rows).zip(&mut columns);
                for (label, ((hit, row), column)) in each.enumerate() {
                    *column = sums[label * times + r];
                    *hit = sums[(most + label) * times + r];
                    *row = self.rows.get(label * times + r).copied().unwrap_or(0.0);
                }
                self.metric.of(&hits, &rows, &columns)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_are_those_of_scikit_learn() {
        // From its documentation: f1_score(…, average="macro") and matthews_corrcoef.
        let (labels, predicted) = ([0.0, 1.0, 2.0, 0.0, 1.0, 2.0], [0.0, 2.0, 1.0, 0.0, 0.0, 1.0]);
        let f1 = LabelMetric::MacroF1.value(&predicted, &labels);
        assert!((f1 - 0.8 / 3.0).abs() < 1e-15, "{f1}");
        let m = LabelMetric::Matthews.value(&[1.0, 0.0, 1.0, 1.0], &[1.0, 1.0, 1.0, 0.0]);
        assert!((m + 1.0 / 3.0).abs() < 1e-15, "{m}");
        // Three labels by hand: hits 2 of 6; Σ rows · columns = 2·3 + 2·2 + 2·1 = 12; (2·6 − 12) = 0.
        assert_eq!(LabelMetric::Matthews.value(&predicted, &labels), 0.0);
        assert_eq!(LabelMetric::Matthews.value(&labels, &labels), 1.0);
        assert_eq!(LabelMetric::Matthews.value(&[1.0; 6], &labels), 0.0, "one label only");
        assert_eq!(LabelMetric::MacroF1.value(&labels, &labels), 1.0);
        // By hand: 1 hit, 2 right, 3 predicted.
        let binary = LabelMetric::BinaryF1.value(&[1.0, 1.0, 1.0, 0.0], &[1.0, 0.0, 0.0, 1.0]);
        assert_eq!(binary, 2.0 / 5.0);
        assert_eq!(LabelMetric::BinaryF1.value(&[0.0; 3], &[0.0; 3]), 0.0, "label 1 doesn't occur");
        for metric in [LabelMetric::MacroF1, LabelMetric::BinaryF1, LabelMetric::Matthews] {
            assert!(metric.value(&[], &[]).is_nan() && metric.value(&[f64::NAN], &[0.0]).is_nan());
        }
    }

    #[test]
    fn a_resample_is_the_metric_of_the_repeated_documents() {
        let (labels, predicted) = (vec![0.0, 1.0, 2.0, 0.0, 1.0, 1.0], [0.0, 2.0, 1.0, 0.0, 1.0, 1.0]);
        let clusters = [4, 4, 7, 8, 8, 9];
        for metric in [LabelMetric::MacroF1, LabelMetric::BinaryF1, LabelMetric::Matthews] {
            let b = LabelBootstrap::new(metric, &labels, &clusters, 50, 3);
            assert_eq!(b.clusters(), 4);
            let v = b.vector(&predicted);
            assert_eq!(v.len(), 50);
            let drawn: Vec<Vec<u16>> =
                (0..50).map(|r| (0..6).map(|e| b.resamples.of(e)[r]).collect()).collect();
            for (r, (got, counts)) in v.iter().zip(&drawn).enumerate() {
                assert!(counts[0] == counts[1] && counts[3] == counts[4], "documents stay whole");
                assert_eq!(counts[0] + counts[2] + counts[3] + counts[5], 4);
                let of = |v: &[f64]| -> Vec<f64> {
                    v.iter().zip(counts).flat_map(|(x, &n)| std::iter::repeat_n(*x, n.into())).collect()
                };
                let want = metric.value(&of(&predicted), &of(&labels));
                assert!((got - want).abs() < 1e-12, "{metric:?} {r}: {got} is not {want}");
            }
            assert_eq!(v, LabelBootstrap::new(metric, &labels, &clusters, 50, 3).vector(&predicted));
            assert!(b.vector(&[f64::NAN; 6]).iter().all(|x| x.is_nan()));
            assert!(b.vector(&predicted[..5]).iter().all(|x| x.is_nan()));
        }
    }
}
