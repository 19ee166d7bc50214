//! A metric on a set of examples: values, and differences with their errors.

use crate::view::Columns;
use ablate_common::metric::Metric;
use ablate_common::stats::bootstrap;
use ablate_common::stats::correlations::{Correlation, CorrelationBootstrap};
use ablate_common::stats::labels::{LabelBootstrap, LabelMetric};
use ablate_common::stats::paired::{Link, Weighted};
use ablate_common::stats::point;
use ablate_common::stats::resamples::Resamples;
use ablate_common::stats::{Estimate, bleu};
use ablate_common::task::{Prepared, Scope};

/// Resamples of every bootstrap.
pub const RESAMPLES: usize = 1000;

/// What one subset contributes to a difference.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The metric.
    pub value: f64,
    /// Per example: the term of the mean; or per resample: the metric, and what else its error needs.
    data: Vec<f64>,
}

impl Sample {
    /// Keeps the value only.
    pub fn forget(&mut self) {
        self.data = Vec::new();
    }
}

enum How {
    /// Values without errors.
    Value,
    Mean {
        weighted: Weighted,
        link: Link,
    },
    Correlation(Box<CorrelationBootstrap>),
    Labels(LabelBootstrap),
    Bleu(Resamples),
}

/// A metric on some of a task's examples.
pub struct Measure<'a> {
    prepared: &'a Prepared,
    metric: Metric,
    keep: Vec<u32>,
    /// Where the scores of all examples, and of the selecting half, have those to keep.
    stored: [Stored; 2],
    how: How,
}

/// Where stored scores have the examples of a measure.
enum Stored {
    /// They are those, in their order.
    Same,
    /// At these places.
    At(Vec<usize>),
    /// Not all.
    Missing,
}

impl Stored {
    fn new(prepared: &Prepared, scope: Scope, keep: &[u32]) -> Self {
        let stored = prepared.examples_in(scope);
        if stored == keep {
            return Self::Same;
        }
        let at = keep.iter().map(|e| stored.binary_search(e).ok()).collect::<Option<Vec<_>>>();
        at.map_or(Self::Missing, Self::At)
    }
}

impl<'a> Measure<'a> {
    /// `metric` on the examples `keep`; bootstraps are seeded with `seed`.
    pub fn new(prepared: &'a Prepared, metric: Metric, keep: Vec<u32>, seed: u64) -> Self {
        let of = |f: &dyn Fn(usize) -> f64| keep.iter().map(|&e| f(e as usize)).collect::<Vec<f64>>();
        let examples = &prepared.examples;
        let how = match metric {
            Metric::Pearson | Metric::Spearman => {
                let kind =
                    if metric == Metric::Pearson { Correlation::Pearson } else { Correlation::Spearman };
                let pairs: Vec<(u32, u32)> =
                    keep.iter().map(|&e| (examples[e as usize].a, examples[e as usize].b)).collect();
                let gold = of(&|e| examples[e].gold);
                How::Correlation(Box::new(CorrelationBootstrap::new(kind, &gold, &pairs, RESAMPLES, seed)))
            }
            _ if let Some(metric) = LabelMetric::of_metric(metric) => {
                let clusters: Vec<u32> = keep.iter().map(|&e| examples[e as usize].cluster).collect();
                let labels = of(&|e| examples[e].gold);
                How::Labels(LabelBootstrap::new(metric, &labels, &clusters, RESAMPLES, seed))
            }
            Metric::Bleu => {
                let clusters: Vec<u32> = keep.iter().map(|&e| examples[e as usize].cluster).collect();
                How::Bleu(Resamples::new(&clusters, RESAMPLES, seed))
            }
            _ => {
                let weights = of(&|e| f64::from(prepared.scored_tokens(&examples[e])));
                let clusters: Vec<u32> = keep.iter().map(|&e| examples[e as usize].cluster).collect();
                How::Mean {
                    weighted: Weighted::new(weights, &clusters),
                    link: if metric == Metric::Perplexity { Link::Exp } else { Link::Identity },
                }
            }
        };
        Self::made(prepared, metric, keep, how)
    }

    /// [`Self::new`] for values alone: no errors.
    pub fn values(prepared: &'a Prepared, metric: Metric, keep: Vec<u32>) -> Self {
        Self::made(prepared, metric, keep, How::Value)
    }

    fn made(prepared: &'a Prepared, metric: Metric, keep: Vec<u32>, how: How) -> Self {
        let stored = [Scope::All, Scope::Select].map(|scope| Stored::new(prepared, scope, &keep));
        Self { prepared, metric, keep, stored, how }
    }

    /// Number of examples.
    pub fn examples(&self) -> usize {
        self.keep.len()
    }

    /// Number of clusters; for correlations of texts.
    pub fn clusters(&self) -> usize {
        match &self.how {
            How::Value => 0,
            How::Mean { weighted, .. } => weighted.clusters(),
            How::Labels(bootstrap) => bootstrap.clusters(),
            How::Bleu(resamples) => resamples.documents(),
            How::Correlation(bootstrap) => bootstrap.texts(),
        }
    }

    /// Reads one subset's columns, stored for the examples of `scope`; `None` where those lack an example.
    pub fn sample(&self, columns: &Columns<'_>, scope: Scope) -> Option<Sample> {
        self.read(columns, scope, true)
    }

    /// [`Self::sample`] with its value only.
    pub fn sample_value(&self, columns: &Columns<'_>, scope: Scope) -> Option<Sample> {
        self.read(columns, scope, false)
    }

    fn read(&self, columns: &Columns<'_>, scope: Scope, data: bool) -> Option<Sample> {
        let stored = match scope {
            Scope::All => &self.stored[0],
            Scope::Select => &self.stored[1],
        };
        let own: Vec<Vec<f64>>;
        let columns: Columns<'_> = match stored {
            Stored::Missing => return None,
            Stored::Same => columns.clone(),
            Stored::At(at) => {
                let pick = |c: &&[f64]| at.iter().map(|&i| c.get(i).copied()).collect::<Option<Vec<_>>>();
                own = columns.iter().map(pick).collect::<Option<Vec<_>>>()?;
                own.iter().map(Vec::as_slice).collect()
            }
        };
        let value = point::value(self.metric, self.prepared, &self.keep, &columns);
        if !data {
            return Some(Sample { value, data: Vec::new() });
        }
        let data = match &self.how {
            How::Value => Vec::new(),
            How::Mean { .. } => point::terms(self.metric, self.prepared.kind, &columns)?.into_owned(),
            How::Correlation(b) => b.vector(columns.first()?),
            How::Labels(b) => b.vector(columns.get(1)?),
            How::Bleu(b) => bleu::resampled(columns.get(self.prepared.kind.columns().len()..)?, b),
        };
        Some(Sample { value, data })
    }

    /// The value of [`Self::contrast`] without its error.
    pub fn contrast_value(&self, terms: &[(f64, &Sample)]) -> f64 {
        terms.iter().map(|t| self.metric.as_loss(1.0) * t.0 * t.1.value).sum()
    }

    /// Σ c · ℓ over `terms`, ℓ oriented as a loss (more is worse). p is 1 where it is within 1e-13 of the terms'
    /// size: that is rounding.
    pub fn contrast(&self, terms: &[(f64, &Sample)]) -> Estimate {
        self.combined(self.metric.as_loss(1.0), terms)
    }

    /// Σ c · P over `terms`, of the metric as it is.
    pub fn combination(&self, terms: &[(f64, &Sample)]) -> Estimate {
        self.combined(1.0, terms)
    }

    fn combined(&self, sign: f64, terms: &[(f64, &Sample)]) -> Estimate {
        let mut out = match &self.how {
            How::Mean { weighted, link, .. } => {
                let terms: Vec<(f64, &[f64])> =
                    terms.iter().map(|t| (sign * t.0, t.1.data.as_slice())).collect();
                weighted.contrast(&terms, *link)
            }
            How::Value => {
                let value = terms.iter().map(|t| sign * t.0 * t.1.value).sum();
                Estimate { value, ..Estimate::NAN }
            }
            other => {
                let value = terms.iter().map(|t| sign * t.0 * t.1.value).sum();
                let mut sum = vec![0.0; terms.first().map_or(0, |t| t.1.data.len())];
                for (c, sample) in terms {
                    for (r, v) in sum.iter_mut().zip(&sample.data) {
                        *r += sign * c * v;
                    }
                }
                match other {
                    How::Correlation(bootstrap) => bootstrap.estimate(value, &sum),
                    _ => bootstrap::estimate(value, &sum),
                }
            }
        };
        // A difference of the size of rounding is no evidence, however small its error.
        let size: f64 = terms.iter().map(|t| (t.0 * t.1.value).abs()).sum();
        if out.value.abs() <= 1e-13 * size && !out.p.is_nan() {
            out.p = 1.0;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ablate_common::task::{Example, Item, TaskKind};

    /// Twelve choices of two in six documents, half of them right with the first.
    fn choices() -> Prepared {
        let items = (0..24).map(|_| Item { tokens: vec![1, 2], ..Item::default() }).collect();
        let example = |k: u32| Example {
            a: 2 * k,
            b: 2 * k + 1,
            gold: f64::from(k % 2),
            cluster: k / 2,
            half: Some((k / 2 % 2) as u8),
        };
        Prepared {
            kind: TaskKind::NextTokenChoice,
            items,
            item_half: (0..24).map(|i| (i / 4 % 2) as u8).collect(),
            examples: (0..12).map(example).collect(),
            probe: None,
        }
    }

    #[test]
    fn metrics_of_labels_get_values_and_errors() {
        let prepared = choices();
        let label: Vec<f64> = prepared.examples.iter().map(|e| e.gold).collect();
        let nll = vec![0.5; 12];
        // Two mistakes, in the first and in the last document.
        let mut wrong = label.clone();
        (wrong[0], wrong[11]) = (1.0, 0.0);
        for (metric, expected) in
            [(Metric::Accuracy, 10.0 / 12.0), (Metric::F1, 10.0 / 12.0), (Metric::Matthews, 2.0 / 3.0)]
        {
            let measure = Measure::new(&prepared, metric, prepared.examples_in(Scope::All), 1);
            assert_eq!((measure.examples(), measure.clusters()), (12, 6));
            let of = |p: &[f64]| measure.sample(&vec![&nll, p, &label], Scope::All).unwrap();
            let (none, all) = (of(&label), of(&wrong));
            assert!((all.value - expected).abs() < 1e-12 && none.value == 1.0, "{metric:?} {}", all.value);
            let delta = measure.contrast(&[(1.0, &all), (-1.0, &none)]);
            assert!((delta.value - (1.0 - expected)).abs() < 1e-12, "worse is positive: {}", delta.value);
            assert!(delta.se > 0.0 && delta.low < delta.value && delta.high > delta.value, "{delta:?}");
            let same = measure.contrast(&[(1.0, &none), (-1.0, &none)]);
            assert_eq!((same.value, same.p), (0.0, 1.0));
        }
        // Three documents of one half.
        let half = Measure::new(&prepared, Metric::F1, prepared.examples_in(Scope::Select), 1);
        assert_eq!((half.examples(), half.clusters()), (6, 3));
        assert!(
            (half.sample_value(&vec![&nll, &wrong, &label], Scope::All).unwrap().value - 0.828_571).abs()
                < 1e-6
        );
    }

    #[test]
    fn bleu_gets_a_value_and_an_error_from_documents() {
        let mut prepared = choices();
        prepared.kind = TaskKind::Seq2seq;
        let reference = [1, 2, 3, 4, 5, 6];
        // Every third example is decoded with a wrong end.
        let counts = |garbled: bool| -> Vec<Vec<f64>> {
            let of = |e: usize| {
                let hypothesis = if garbled && e.is_multiple_of(3) { [1, 2, 3, 4, 9, 9] } else { reference };
                bleu::counts(&hypothesis, &reference)
            };
            let each: Vec<_> = (0..12).map(of).collect();
            let counts = (0..bleu::COUNTS).map(|c| each.iter().map(|own| own[c]).collect());
            [vec![0.5; 12], vec![1.0; 12]].into_iter().chain(counts).collect()
        };
        let measure = Measure::new(&prepared, Metric::Bleu, prepared.examples_in(Scope::All), 1);
        assert_eq!((measure.examples(), measure.clusters()), (12, 6));
        let of = |columns: &[Vec<f64>]| {
            measure.sample(&columns.iter().map(Vec::as_slice).collect(), Scope::All).unwrap()
        };
        let (none, all) = (of(&counts(false)), of(&counts(true)));
        // Of 72 tokens 64 are right, of 60 pairs 52, of 48 triples 40, of 36 quadruples 28.
        let wanted = 100.0 * (64.0 / 72.0 * 52.0 / 60.0 * 40.0 / 48.0 * 28.0 / 36.0f64).powf(0.25);
        assert!((all.value - wanted).abs() < 1e-9 && (none.value - 100.0).abs() < 1e-9, "{}", all.value);
        let delta = measure.contrast(&[(1.0, &all), (-1.0, &none)]);
        assert!((delta.value - (100.0 - wanted)).abs() < 1e-9, "worse is positive");
        assert!(delta.se > 0.0 && delta.low < delta.value && delta.high > delta.value, "{delta:?}");
    }
}
