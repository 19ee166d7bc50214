//! A metric on a set of examples: values, and differences with their errors.

use crate::view::Columns;
use ablate_common::metric::Metric;
use ablate_common::stats::Estimate;
use ablate_common::stats::bootstrap::{Bootstrap, Correlation};
use ablate_common::stats::paired::{Link, Weighted};
use ablate_common::stats::point;
use ablate_common::task::{Prepared, Scope};

/// Resamples of every bootstrap.
pub const RESAMPLES: usize = 1000;

/// What one subset contributes to a difference.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The metric.
    pub value: f64,
    /// Per example: the term of the mean; or per resample: the correlation.
    data: Vec<f64>,
}

enum How {
    Mean { weighted: Weighted, link: Link },
    Correlation(Box<Bootstrap>),
}

/// A metric on some of a task's examples.
pub struct Measure<'a> {
    prepared: &'a Prepared,
    metric: Metric,
    keep: Vec<u32>,
    how: How,
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
                How::Correlation(Box::new(Bootstrap::new(kind, &gold, &pairs, RESAMPLES, seed)))
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
        Self { prepared, metric, keep, how }
    }

    /// Number of examples.
    pub fn examples(&self) -> usize {
        self.keep.len()
    }

    /// Number of clusters; for correlations the number of texts isn't one, so the examples.
    pub fn clusters(&self) -> usize {
        match &self.how {
            How::Mean { weighted, .. } => weighted.clusters(),
            How::Correlation(_) => {
                let mut texts: Vec<u32> = self
                    .keep
                    .iter()
                    .flat_map(|&e| {
                        [self.prepared.examples[e as usize].a, self.prepared.examples[e as usize].b]
                    })
                    .collect();
                texts.sort_unstable();
                texts.dedup();
                texts.len()
            }
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
        let stored = self.prepared.examples_in(scope);
        let own: Vec<Vec<f64>>;
        let columns: Columns<'_> = if stored == self.keep {
            columns.clone()
        } else {
            let at: Vec<usize> =
                self.keep.iter().map(|e| stored.binary_search(e).ok()).collect::<Option<Vec<_>>>()?;
            own = columns.iter().map(|c| at.iter().map(|&i| c[i]).collect()).collect();
            own.iter().map(Vec::as_slice).collect()
        };
        let value = point::value(self.metric, self.prepared, &self.keep, &columns);
        if !data {
            return Some(Sample { value, data: Vec::new() });
        }
        let data = match &self.how {
            How::Mean { .. } => point::terms(self.metric, self.prepared.kind, &columns)?.into_owned(),
            How::Correlation(b) => b.vector(columns.first()?),
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
        let sign = self.metric.as_loss(1.0);
        let mut out = match &self.how {
            How::Mean { weighted, link, .. } => {
                let terms: Vec<(f64, &[f64])> =
                    terms.iter().map(|t| (sign * t.0, t.1.data.as_slice())).collect();
                weighted.contrast(&terms, *link)
            }
            How::Correlation(_) => {
                let value = terms.iter().map(|t| sign * t.0 * t.1.value).sum();
                let mut resampled = vec![0.0; RESAMPLES];
                for (c, sample) in terms {
                    for (r, v) in resampled.iter_mut().zip(&sample.data) {
                        *r += sign * c * v;
                    }
                }
                Bootstrap::estimate(value, &resampled)
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
