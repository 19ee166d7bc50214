//! From final rows to per-example scores, in f64 on the host.

use super::base::DeviceBatch;
use super::classify::{self, FittedProbe};
use super::model::Model;
use super::pass::Finished;
pub use super::readout::host;
use super::readout::{Tokens, cross_entropy, divergence, probabilities};
use ablate_common::metric::Metric;
use ablate_common::scores::TaskScores;
use ablate_common::stats::bleu;
use ablate_common::task::{Prepared, Scope, TaskKind};
use std::collections::HashMap;
use tch::{Kind, Tensor};

/// What a task's scores need beside the final rows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beside<'a> {
    /// The batch's unablated final states `[scored, d_model]`, where the metric compares with them.
    pub unablated: Option<&'a Tensor>,
    /// The task's probe, where it has one.
    pub probe: Option<&'a FittedProbe>,
}

/// Collects one task's scores over the batches of a chunk.
#[derive(Debug)]
pub struct Collector<'a> {
    prepared: &'a Prepared,
    examples: Vec<u32>,
    /// Item → place of its example in the scope (kinds with one example per item).
    place: HashMap<u32, usize>,
    scores: TaskScores,
    /// Choices: log-probability of each continuation, `[subsets, items]`.
    continuations: Vec<f64>,
    /// Similarity: embeddings `[subsets, items, d_model]`, f64.
    embeddings: Option<Tensor>,
}

impl<'a> Collector<'a> {
    /// For `subsets` subsets of task `task`, which reports `metric`, on the examples of `scope`.
    #[must_use]
    pub fn new(
        model: &Model,
        task: u32,
        prepared: &'a Prepared,
        metric: Metric,
        scope: Scope,
        subsets: usize,
    ) -> Self {
        let examples = prepared.examples_in(scope);
        let columns = metric.columns(prepared.kind).len();
        let embeddings = (prepared.kind == TaskKind::Similarity).then(|| {
            Tensor::zeros(
                [subsets as i64, prepared.items.len() as i64, model.d_model()],
                (Kind::Double, model.device),
            )
        });
        Self {
            place: examples
                .iter()
                .enumerate()
                .map(|(at, &e)| (prepared.examples[e as usize].a, at))
                .collect(),
            scores: TaskScores {
                task,
                examples: examples.len() as u32,
                columns: columns as u32,
                values: vec![0.0; subsets * columns * examples.len()],
            },
            continuations: if prepared.kind == TaskKind::NextTokenChoice {
                vec![f64::NAN; subsets * prepared.items.len()]
            } else {
                Vec::new()
            },
            prepared,
            examples,
            embeddings,
        }
    }

    /// Takes the final rows of one batch.
    pub fn take(&mut self, model: &Model, batch: &DeviceBatch, done: &Finished, beside: Beside<'_>) {
        let Beside { unablated, probe } = beside;
        let x = model.finish(&done.x);
        match self.prepared.kind {
            TaskKind::Similarity => self.take_embeddings(model, batch, done, &x),
            TaskKind::Classification => {
                if let Some(logits) = classify::logits(model, batch, &x, probe) {
                    self.take_labels(batch, done, &logits);
                }
            }
            TaskKind::MaskedLm => {
                let Some(head) = &model.masked else { return };
                let tokens = match unablated {
                    Some(unablated) => divergence(model, batch, &x, unablated),
                    None => cross_entropy(model, batch, &head.transform(model, &x)),
                };
                self.add_tokens(batch, done, &tokens);
            }
            TaskKind::LanguageModeling | TaskKind::Induction | TaskKind::Seq2seq => {
                let tokens = match unablated {
                    Some(unablated) => divergence(model, batch, &x, unablated),
                    None => cross_entropy(model, batch, &x),
                };
                self.add_tokens(batch, done, &tokens);
            }
            TaskKind::GreaterThan => self.add(batch, done, 0, &probabilities(model, batch, &x)),
            TaskKind::NextTokenChoice => {
                let nll = cross_entropy(model, batch, &x).nll;
                for (row, subsets) in done.subsets.iter().enumerate() {
                    let sums = by_item(batch, row, &nll);
                    for (&item, sum) in batch.items.iter().zip(sums) {
                        for s in subsets {
                            self.continuations[s * self.prepared.items.len() + item as usize] = -sum;
                        }
                    }
                }
            }
            TaskKind::Ioi | TaskKind::LogitDifference => {
                let Some(unembed) = &model.unembed else { return };
                if let Some(unablated) = unablated {
                    self.add(batch, done, 1, &divergence(model, batch, &x, unablated).kl);
                }
                // In f64 from the rows on: two rows of the unembedding are cheap.
                let rows = |at: &Tensor| unembed.index_select(0, at).to_kind(Kind::Double);
                let x = x.to_kind(Kind::Double);
                let dot = |w: Tensor| (&x * w).sum_dim_intlist([-1i64].as_slice(), false, None::<Kind>);
                let (targets, foils) = (rows(&batch.targets), rows(&batch.foils));
                let diff = if model.info.details.logit_softcap.is_some() {
                    model.cap_logits(dot(targets)) - model.cap_logits(dot(foils))
                } else {
                    dot(targets - foils)
                };
                self.add(batch, done, 0, &host(&diff));
            }
        }
    }

    /// Takes what was decoded of one batch, subset by subset and item by item: counts for BLEU, behind the scores
    /// that every metric of the task has.
    pub fn take_decoded(&mut self, batch: &DeviceBatch, decoded: &[Vec<Vec<u32>>]) {
        let (n, columns) = (self.examples.len(), self.scores.columns as usize);
        let first = self.prepared.kind.columns().len();
        for (s, items) in decoded.iter().enumerate() {
            for (item, (hypothesis, reference)) in batch.items.iter().zip(items.iter().zip(&batch.references))
            {
                let Some(&at) = self.place.get(item) else { continue };
                for (c, count) in bleu::counts(hypothesis, reference).into_iter().enumerate() {
                    self.scores.values[(s * columns + first + c) * n + at] = count;
                }
            }
        }
    }

    fn add_tokens(&mut self, batch: &DeviceBatch, done: &Finished, tokens: &Tokens) {
        for (column, values) in [&tokens.nll, &tokens.correct, &tokens.kl].into_iter().enumerate() {
            if !values.is_empty() {
                self.add(batch, done, column, values);
            }
        }
    }

    /// Adds `values [rows, scored]` to the examples that own the scored positions.
    fn add(&mut self, batch: &DeviceBatch, done: &Finished, column: usize, values: &[f64]) {
        let (n, columns) = (self.examples.len(), self.scores.columns as usize);
        for (row, subsets) in done.subsets.iter().enumerate() {
            let sums = by_item(batch, row, values);
            for (slot, item) in batch.items.iter().enumerate() {
                let Some(&at) = self.place.get(item) else { continue };
                for &s in subsets {
                    self.scores.values[(s * columns + column) * n + at] = sums[slot];
                }
            }
        }
    }

    /// What logits `[rows, items, labels]` say of each item's label.
    fn take_labels(&mut self, batch: &DeviceBatch, done: &Finished, logits: &Tensor) {
        let labels = logits.size()[2] as usize;
        let (n, columns) = (self.examples.len(), self.scores.columns as usize);
        let logits = host(logits);
        for (row, subsets) in logits.chunks_exact(labels * batch.items.len()).zip(&done.subsets) {
            for (own, item) in row.chunks_exact(labels).zip(&batch.items) {
                let Some(&at) = self.place.get(item) else { continue };
                let gold = self.prepared.examples[self.examples[at] as usize].gold;
                let (nll, prediction) = chosen(own, gold as usize);
                for (column, value) in [nll, prediction, gold].into_iter().enumerate() {
                    for s in subsets {
                        self.scores.values[(s * columns + column) * n + at] = value;
                    }
                }
            }
        }
    }

    /// Mean over the tokens of each item.
    fn take_embeddings(&mut self, model: &Model, batch: &DeviceBatch, done: &Finished, x: &Tensor) {
        let Some(all) = &self.embeddings else { return };
        let pooled = classify::embeddings(model, batch, x);
        let items = model.indices(&batch.items.iter().map(|&i| i64::from(i)).collect::<Vec<_>>());
        for (row, subsets) in done.subsets.iter().enumerate() {
            for &s in subsets {
                let _ = all.get(s as i64).index_copy_(0, &items, &pooled.get(row as i64));
            }
        }
    }

    /// The scores of all batches.
    #[must_use]
    pub fn finish(mut self, model: &Model) -> TaskScores {
        if let Some(all) = &self.embeddings {
            let index = |pick: fn(&ablate_common::task::Example) -> u32| {
                let at: Vec<i64> = self
                    .examples
                    .iter()
                    .map(|&e| i64::from(pick(&self.prepared.examples[e as usize])))
                    .collect();
                model.indices(&at)
            };
            let (a, b) = (index(|e| e.a), index(|e| e.b));
            let n = self.examples.len();
            for s in 0..all.size()[0] {
                // One after the other: what this takes beside them is counted as that of one.
                let own = all.get(s);
                let norm = (&own * &own).sum_dim_intlist([-1i64].as_slice(), true, None::<Kind>).sqrt();
                let u = own / norm;
                let cosine = (u.index_select(0, &a) * u.index_select(0, &b)).sum_dim_intlist(
                    [-1i64].as_slice(),
                    false,
                    None::<Kind>,
                );
                let at = s as usize * n;
                self.scores.values[at..at + n].copy_from_slice(&host(&cosine));
            }
        }
        self.choose();
        self.scores
    }

    /// What the continuations' log-probabilities say of each choice.
    fn choose(&mut self) {
        let (items, n, columns) =
            (self.prepared.items.len(), self.examples.len(), self.scores.columns as usize);
        if self.continuations.is_empty() {
            return;
        }
        for (s, all) in self.continuations.chunks(items).enumerate() {
            for (k, &e) in self.examples.iter().enumerate() {
                let e = &self.prepared.examples[e as usize];
                let (nll, prediction) = chosen(&all[e.a as usize..=e.b as usize], e.gold as usize);
                for (column, value) in [nll, prediction, e.gold].into_iter().enumerate() {
                    self.scores.values[(s * columns + column) * n + k] = value;
                }
            }
        }
    }
}

/// −log of the right one's share among log-probabilities or logits, and the number of the largest, the first of equals;
/// NaN where one is.
fn chosen(logs: &[f64], right: usize) -> (f64, f64) {
    let max = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = logs.iter().map(|l| (l - max).exp()).sum();
    let first = logs.iter().position(|&l| l == max).filter(|_| !total.is_nan());
    (total.ln() + (max - logs[right]), first.map_or(f64::NAN, |i| i as f64))
}

/// Sums of row `row` of `values [rows, scored]` over the scored positions of each item of the batch.
fn by_item(batch: &DeviceBatch, row: usize, values: &[f64]) -> Vec<f64> {
    let mut sums = vec![0.0; batch.items.len()];
    for (owner, value) in batch.owner.iter().zip(&values[row * batch.owner.len()..]) {
        sums[*owner] += value;
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_a_softmax_over_log_probabilities() {
        // scipy.special.log_softmax([-3, -1, -2]) = -2.40760596, -0.40760596, -1.40760596.
        let (nll, prediction) = chosen(&[-3.0, -1.0, -2.0], 0);
        assert!((nll - 2.407_605_964_444_38).abs() < 1e-12 && prediction == 1.0);
        assert_eq!(chosen(&[-2.0, -2.0], 1), (2f64.ln(), 0.0), "the first of equals");
        assert_eq!(chosen(&[-2000.0, -1000.0], 1), (0.0, 1.0), "no underflow");
        let (nll, prediction) = chosen(&[-1.0, f64::NAN], 0);
        assert!(nll.is_nan() && prediction.is_nan());
    }
}
