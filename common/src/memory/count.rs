//! Bytes of single things, counted from the model's shape.

use super::{GRAPH_SCORE_BYTES, LOGIT_BYTES, Need, State, by_rows, resident};
use crate::head::Stream;
use crate::metric::Metric;
use crate::model::ModelInfo;
use crate::plan::{Batch, Plan, PlannedSweep};
use crate::task::{Item, Prepared, Scope};
use std::collections::HashSet;

/// What counts.
pub(super) struct Count<'a> {
    /// Of this model.
    pub(super) model: &'a ModelInfo,
    /// Bytes of a value.
    pub(super) bytes: u64,
    /// Tokens of a slice, at most.
    pub(super) slice: u64,
}

/// How a chunk's subsets go through a batch.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    /// Subsets.
    pub(super) chunk: u64,
    /// Whether z of donors is kept too.
    pub(super) resampled: bool,
    /// Whether they decode.
    pub(super) decoded: bool,
    /// Whether everything downstream is frozen, so that only scored positions go on.
    pub(super) frozen: bool,
    /// Whether logits are read.
    pub(super) logits: bool,
}

impl Count<'_> {
    /// Bytes of all base states that some sweeps keep.
    pub(super) fn resident<'p>(
        &self,
        plan: &Plan,
        prepared: &[Prepared],
        sweeps: impl Iterator<Item = &'p PlannedSweep>,
    ) -> u64 {
        let of = |(task, scope, state): (u32, Scope, State)| {
            let (task, data) = (plan.tasks.get(task as usize)?, prepared.get(task as usize)?);
            Some(task.batches(scope).iter().map(|b| self.kept(&data.items, b, state)).sum::<u64>())
        };
        resident(plan, prepared, sweeps).into_iter().filter_map(of).sum()
    }

    /// The weights as the engine holds them: W_O a second time, by head.
    pub(super) fn weights(&self) -> u64 {
        let m = self.model;
        let (d, q) = (u64::from(m.d_model), self.queries());
        let matrices = u64::from(m.mlp_matrices());
        let attention = d * (3 * q + 2 * self.values());
        let layer = attention + matrices * d * u64::from(m.d_ff);
        let embedding = u64::from(m.vocab) * d * if m.tied { 1 } else { 2 };
        let layers = u64::from(m.distinct_layers());
        let all = match &m.details.seq2seq {
            None => layers * layer + embedding,
            Some(s) => {
                let decoder = u64::from(m.heads.layers(Stream::Decoder));
                layers.saturating_sub(decoder) * layer
                    + decoder * (2 * attention + matrices * d * u64::from(s.decoder_ff))
                    + embedding
                    + if s.shared { 0 } else { u64::from(s.target_vocab) * d }
            }
        };
        all * self.bytes
    }

    /// Width of all queries together.
    fn queries(&self) -> u64 {
        u64::from(self.model.n_heads) * u64::from(self.model.head_dim)
    }

    /// Width of all keys, or of all values, together.
    fn values(&self) -> u64 {
        u64::from(self.model.n_kv_heads) * u64::from(self.model.head_dim)
    }

    /// Padded lengths of a batch: of each stage, and of the final states.
    fn lengths(&self, items: &[Item], batch: &Batch) -> (Vec<u64>, u64) {
        let heads = &self.model.heads;
        let source = u64::from(batch.len);
        let target =
            batch.items.iter().filter_map(|&i| items.get(i as usize)).map(|i| i.decoder.len() as u64).max();
        let target = target.unwrap_or(0);
        let len = |at: usize| match heads.stage(at).stream {
            Stream::Decoder | Stream::Cross => target,
            Stream::SelfAttention | Stream::Encoder => source,
        };
        let all: Vec<u64> = (0..heads.stages()).map(len).collect();
        let last = all.last().copied().unwrap_or(source);
        (all, last)
    }

    /// Bytes that are kept of a batch.
    pub(super) fn kept(&self, items: &[Item], batch: &Batch, state: State) -> u64 {
        let (d, q, n) = (u64::from(self.model.d_model), self.queries(), batch.items.len() as u64);
        let (stages, last) = self.lengths(items, batch);
        let tokens = n * stages.iter().sum::<u64>();
        self.bytes
            * match state {
                State::Base | State::Pruned(_) => (tokens + n * last) * (2 * d + q),
                State::Donors(_) => tokens * q,
            }
    }

    /// A batch of an attention sweep: its state, and the weights of one stage, in f64 with their logarithms and products, of those
    /// items that are looked at together.
    pub(super) fn patterns(&self, items: &[Item], batch: &Batch) -> Need {
        let m = self.model;
        let n = batch.items.len() as u64;
        let (stages, last) = self.lengths(items, batch);
        let widest = stages.iter().copied().max().unwrap_or(0).max(1).max(last).max(u64::from(batch.len));
        let each = u64::from(m.n_heads) * widest * widest * self.bytes;
        let group = (GRAPH_SCORE_BYTES / each.max(1)).clamp(1, n.max(1));
        let token = 3 * u64::from(m.d_model) + 3 * (self.queries() + 2 * self.values());
        let row = group * widest * token * self.bytes;
        Need {
            state: self.kept(items, batch, State::Base),
            rows: row,
            slice: group * (each / self.bytes) * (2 * self.bytes + 4 * 8),
            ..Need::default()
        }
    }

    /// A batch of a gradient sweep: its state, the gradients at a stage's ends, and one stage's graph of those items that
    /// go back together, whatever the number of units.
    pub(super) fn backward(&self, items: &[Item], batch: &Batch, resampled: bool, logits: bool) -> Need {
        let m = self.model;
        let (d, q, kv) = (u64::from(m.d_model), self.queries(), self.values());
        let n = batch.items.len() as u64;
        let (stages, last) = self.lengths(items, batch);
        let widest = stages.iter().copied().max().unwrap_or(0).max(1);
        let donors = if resampled { self.kept(items, batch, State::Donors(0)) } else { 0 };
        // Those at a stage's input and output, at its z, and at what an encoder gives.
        let row = n * widest * (3 * d + q) * self.bytes;
        let each = u64::from(m.n_heads) * widest * widest * self.bytes;
        let group = (GRAPH_SCORE_BYTES / each.max(1)).clamp(1, (self.slice / widest).clamp(1, n.max(1)));
        let ff = m.details.seq2seq.as_ref().map_or(m.d_ff, |s| s.decoder_ff.max(m.d_ff));
        // Norms, queries, keys, values and the feed-forward part, each with its gradient; scores and their softmax in f64.
        let token = 2 * (6 * d + 3 * (q + 2 * kv) + u64::from(m.mlp_matrices() + 1) * u64::from(ff));
        let graph = group * (widest * token * self.bytes + each / self.bytes * 4 * (self.bytes + 8));
        let wanted = n * last * u64::from(m.target_vocab()) * 16;
        Need {
            state: self.kept(items, batch, State::Base) + donors,
            rows: row,
            slice: graph,
            logits: if logits { wanted.min(2 * LOGIT_BYTES) } else { 0 },
            ..Need::default()
        }
    }

    /// A batch of a sweep whose subsets are rows.
    pub(super) fn batch(&self, items: &[Item], batch: &Batch, how: Rows) -> Need {
        let Rows { chunk, resampled, decoded, frozen, logits } = how;
        let m = self.model;
        let (d, q, kv) = (u64::from(m.d_model), self.queries(), self.values());
        let n = batch.items.len() as u64;
        let (stages, last) = self.lengths(items, batch);
        let widest = stages.iter().copied().max().unwrap_or(0);
        let mut state = self.kept(items, batch, State::Base);
        if resampled {
            state += self.kept(items, batch, State::Donors(0));
        }
        let scored = scored(items, batch);
        let positions = if scored > 0 { scored } else { n * last };
        let values = if frozen {
            // The attention's output, and what is made of it at scored positions.
            n * widest * 2 * d + positions * 6 * d
        } else {
            // Residual stream, z, the attention's output and the next residual stream; while rows join, the first and
            // the third once more.
            n * widest * (5 * d + q)
        };
        let mut row = values * self.bytes;
        if m.details.seq2seq.is_some() && !frozen {
            // What the encoder made, twice, and its keys and values, as they are and by row.
            row += n * u64::from(batch.len) * (2 * d + 4 * q) * self.bytes;
        }
        if scored == 0 {
            // Means over tokens are taken of all final states: these, behind the norm, and twice in f64.
            row = row.max(n * last * d * (2 * self.bytes + 16));
        }
        let tokens = self.slice.max(widest).min(chunk * n * widest);
        let ff = m.details.seq2seq.as_ref().map_or(m.d_ff, |s| s.decoder_ff.max(m.d_ff));
        let feed = d + u64::from(m.mlp_matrices()) * u64::from(ff);
        let mut attention = d + 2 * (q + kv) + 2 * q;
        let mut scores = 0;
        if m.details.attention_softcap.is_some() {
            // Scores of their own, their softmax in f32 at least and its copy; keys and values repeated.
            scores = u64::from(m.n_heads) * widest * (2 * self.bytes + self.bytes.max(4));
            attention += 2 * q;
        }
        let slice = tokens * ((feed.max(attention)) * self.bytes + scores);
        let cache = if decoded {
            let steps = batch.items.iter().filter_map(|&i| items.get(i as usize));
            let steps = steps.map(|i| i.decoded_at_most(m.context) as u64).max().unwrap_or(0);
            let layers = u64::from(m.heads.layers(Stream::Decoder));
            n * (steps + u64::from(batch.len)) * layers * 2 * q * self.bytes
        } else {
            0
        };
        let wanted = chunk * positions * u64::from(m.target_vocab()) * 8;
        Need {
            state,
            rows: chunk * row,
            slice,
            caches: chunk * cache,
            // Two of a block are held while its exponentials are summed.
            logits: if logits || decoded { wanted.min(2 * LOGIT_BYTES) } else { 0 },
            ..Need::default()
        }
    }

    /// Embeddings of all texts by `chunk` subsets, in f64, and what the cosines of one of them take when no pass runs any more: unit
    /// vectors with a temporary, and both sides of all pairs with their products.
    pub(super) fn cosines(&self, task: &Prepared, chunk: u64) -> Need {
        let vector = u64::from(self.model.d_model) * 8;
        let (texts, pairs) = (task.items.len() as u64, task.examples.len() as u64);
        Need {
            embeddings: chunk * texts * vector,
            slice: (2 * texts + 3 * pairs) * vector,
            ..Need::default()
        }
    }

    /// Bytes of the unablated final states that some sweeps' divergences compare with.
    pub(super) fn finals<'p>(
        &self,
        plan: &Plan,
        prepared: &[Prepared],
        sweeps: impl Iterator<Item = &'p PlannedSweep>,
    ) -> u64 {
        let compared: HashSet<(u32, Scope)> = sweeps
            .filter(|s| by_rows(&s.kind))
            .flat_map(|s| s.tasks.iter().map(move |&task| (task, s.scope)))
            .collect();
        let of = |(task, scope): (u32, Scope)| {
            let (task, data) = (plan.tasks.get(task as usize)?, prepared.get(task as usize)?);
            let positions = || task.batches(scope).iter().map(|b| scored(&data.items, b)).sum::<u64>();
            (task.metric == Metric::Kl).then(positions)
        };
        compared.into_iter().filter_map(of).sum::<u64>() * u64::from(self.model.d_model) * self.bytes
    }
}

/// Scored positions of a batch.
fn scored(items: &[Item], batch: &Batch) -> u64 {
    batch.items.iter().filter_map(|&i| items.get(i as usize)).map(|i| i.positions() as u64).sum()
}
