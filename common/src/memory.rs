//! How much memory a lane needs: counted from the model's shape and the plan's batches, so that `ablate plan` shows
//! what a worker will later reckon with.
//!
//! A pass keeps whole what later stages read (the residual stream, z and the attention's output of all rows), and runs
//! everything wider than that on a slice of tokens at a time. Nothing here decides a number: batches and chunks are
//! the plan's, and only how many base states stay in memory between chunks follows from it.

use crate::head::Stream;
use crate::metric::Metric;
use crate::model::ModelInfo;
use crate::plan::{Ablation, Batch, Plan, PlannedSweep, SweepKind};
use crate::sharing::Sharing;
use crate::spec::Dtype;
use crate::task::{Item, Prepared, Scope, TaskKind};
use std::collections::HashSet;

/// Tokens that a layer's wide temporaries are made for at once, on GPUs; on CPUs fewer.
pub const SLICE_TOKENS: u64 = 8192;
/// The same on CPUs.
pub const CPU_SLICE_TOKENS: u64 = 1024;
/// Bytes of one attention's scores in a graph: decides how many items of a batch go back together.
pub const GRAPH_SCORE_BYTES: u64 = 64 << 20;
/// Bytes of logits that are held at once.
pub const LOGIT_BYTES: u64 = 96 << 20;

/// Bytes that a lane needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// The model's weights.
    pub weights: u64,
    /// Base state (and donors' states) of the largest batch.
    pub state: u64,
    /// Those of all batches: what is kept between chunks where there is room.
    pub states: u64,
    /// One subset's rows of the largest batch.
    pub row: u64,
    /// A chunk's rows of the largest batch.
    pub rows: u64,
    /// Temporaries of a slice of tokens.
    pub slice: u64,
    /// Keys and values that one subset's decoding caches.
    pub cache: u64,
    /// A chunk's.
    pub caches: u64,
    /// Logits.
    pub logits: u64,
}

impl Need {
    /// What no batch can do without: with less, nothing of the plan can run.
    #[must_use]
    pub fn least(&self) -> u64 {
        [self.weights, self.state, self.row, self.slice, self.cache].into_iter().fold(0, u64::saturating_add)
    }

    /// What the passes of the plan take at once, base states that stay left out.
    #[must_use]
    pub fn passes(&self) -> u64 {
        [self.weights, self.state, self.rows, self.slice, self.caches, self.logits]
            .into_iter()
            .fold(0, u64::saturating_add)
    }

    /// All that a lane uses where memory allows it: the passes, and every base state.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.passes().saturating_add(self.states.saturating_sub(self.state))
    }

    fn join(self, other: Self) -> Self {
        Self {
            weights: self.weights.max(other.weights),
            state: self.state.max(other.state),
            states: self.states.max(other.states),
            row: self.row.max(other.row),
            rows: self.rows.max(other.rows),
            slice: self.slice.max(other.slice),
            cache: self.cache.max(other.cache),
            caches: self.caches.max(other.caches),
            logits: self.logits.max(other.logits),
        }
    }
}

/// What sweep `sweep` of a plan needs, with slices of at most `slice` tokens. `prepared` are the data of the plan's
/// tasks, then of its reference sets.
#[must_use]
pub fn of_sweep(plan: &Plan, prepared: &[Prepared], sweep: usize, slice: u64) -> Need {
    let count = Count { model: &plan.model, bytes: value_bytes(plan.spec.model.dtype), slice };
    let mut need = Need { weights: count.weights(), ..Need::default() };
    let Some(planned) = plan.sweeps.get(sweep) else { return need };
    let resampled = plan
        .ablations
        .get(planned.ablation as usize)
        .is_some_and(|a| matches!(a.method, Ablation::Resample { .. }));
    for &t in &planned.tasks {
        let (Some(task), Some(items)) = (plan.tasks.get(t as usize), prepared.get(t as usize)) else {
            continue;
        };
        let decoded = task.metric == Metric::Bleu;
        let logits = task.kind != TaskKind::Classification && task.kind != TaskKind::Similarity;
        for batch in task.batches(planned.scope) {
            need = need.join(match planned.kind {
                SweepKind::Attention { .. } => count.patterns(&items.items, batch),
                // The items go through by themselves.
                SweepKind::Patterns { .. } => Need::default(),
                SweepKind::Gradient { .. } => count.backward(&items.items, batch, resampled, logits),
                // The way back goes from a state of its own.
                SweepKind::Fit => {
                    let back = count.backward(&items.items, batch, false, logits);
                    Need { state: 2 * back.state, ..back }
                }
                _ => count.batch(&items.items, batch, u64::from(planned.chunk), resampled, decoded, logits),
            });
        }
        // A probe is fitted, and means and donors are measured, batch by batch in a state of their own.
        if let SweepKind::Patterns { items: shown } = &planned.kind {
            for one in shown {
                let len = items.items.get(one.item as usize).map_or(0, |i| i.tokens.len() as u32);
                need = need.join(count.patterns(&items.items, &Batch { items: vec![one.item], len }));
            }
        }
        for (items, batches) in beside(plan, prepared, planned.ablation, t) {
            for batch in batches {
                let state = count.kept(items, batch, State::Base);
                need.state = need.state.max(state);
            }
        }
    }
    need.states = count.resident(plan, prepared, std::iter::once(planned)).max(need.state);
    need
}

/// What a whole plan needs: of everything the most that a sweep needs, and the base states of all.
#[must_use]
pub fn of_plan(plan: &Plan, prepared: &[Prepared], slice: u64) -> Need {
    let mut need =
        (0..plan.sweeps.len()).map(|s| of_sweep(plan, prepared, s, slice)).fold(Need::default(), Need::join);
    let count = Count { model: &plan.model, bytes: value_bytes(plan.spec.model.dtype), slice };
    need.states = count.resident(plan, prepared, plan.sweeps.iter()).max(need.state);
    need
}

/// What is kept of a batch between chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    /// The unablated model's base state.
    Base,
    /// That of a greedy sweep's removed heads, or of a base, of an ablation.
    Pruned(u32),
    /// The donors' z of an ablation.
    Donors(u32),
}

/// The base states that some sweeps of a plan keep: task, scope and which.
fn resident<'p>(
    plan: &Plan,
    prepared: &[Prepared],
    sweeps: impl Iterator<Item = &'p PlannedSweep>,
) -> HashSet<(u32, Scope, State)> {
    let (sharing, mut kept) = (Sharing::of(&plan.tasks, prepared), HashSet::new());
    for sweep in sweeps {
        let method = plan.ablations.get(sweep.ablation as usize).map(|a| a.method);
        for &task in &sweep.tasks {
            let first = sharing.first_under(plan, sweep.ablation, task);
            let (task, shown) = (first, sharing.first(task));
            kept.insert((shown, sweep.scope, State::Base));
            if matches!(sweep.kind, SweepKind::Greedy { .. } | SweepKind::Conditional { .. }) {
                kept.insert((task, sweep.scope, State::Pruned(sweep.ablation)));
            }
            match method {
                Some(Ablation::Resample { .. }) => {
                    kept.insert((task, sweep.scope, State::Donors(sweep.ablation)));
                }
                Some(Ablation::Mean { .. }) => {
                    kept.insert((shown, Scope::All, State::Base));
                }
                _ => {}
            }
        }
    }
    kept
}

/// Batches that run unablated beside a task's own: of its probe, and of the set that its b is measured on.
fn beside<'p>(
    plan: &'p Plan,
    prepared: &'p [Prepared],
    ablation: u32,
    task: u32,
) -> Vec<(&'p [Item], &'p [Batch])> {
    let mut out = Vec::new();
    if let Some(probe) = prepared.get(task as usize).and_then(|p| p.probe.as_ref()) {
        out.push((probe.items.as_slice(), probe.batches.as_slice()));
    }
    let source = plan.ablations.get(ablation as usize).and_then(|a| a.sources.get(task as usize));
    if let Some(reference) = source.and_then(|s| s.reference)
        && let (Some(r), Some(p)) =
            (plan.references.get(reference as usize), prepared.get(plan.tasks.len() + reference as usize))
    {
        out.push((p.items.as_slice(), r.batches.as_slice()));
    }
    out
}

/// Bytes of a value.
#[must_use]
pub fn value_bytes(dtype: Dtype) -> u64 {
    match dtype {
        Dtype::F64 => 8,
        Dtype::F32 => 4,
        Dtype::Bf16 | Dtype::F16 => 2,
    }
}

struct Count<'a> {
    model: &'a ModelInfo,
    bytes: u64,
    slice: u64,
}

impl Count<'_> {
    /// Bytes of all base states that some sweeps keep.
    fn resident<'p>(
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
    fn weights(&self) -> u64 {
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
    fn kept(&self, items: &[Item], batch: &Batch, state: State) -> u64 {
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
    fn patterns(&self, items: &[Item], batch: &Batch) -> Need {
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
            row,
            rows: row,
            slice: group * (each / self.bytes) * (2 * self.bytes + 4 * 8),
            ..Need::default()
        }
    }

    /// A batch of a gradient sweep: its state, the gradients at a stage's ends, and one stage's graph of those items that
    /// go back together, whatever the number of units.
    fn backward(&self, items: &[Item], batch: &Batch, resampled: bool, logits: bool) -> Need {
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
            row,
            rows: row,
            slice: graph,
            logits: if logits { wanted.min(2 * LOGIT_BYTES) } else { 0 },
            ..Need::default()
        }
    }

    fn batch(
        &self,
        items: &[Item],
        batch: &Batch,
        chunk: u64,
        resampled: bool,
        decoded: bool,
        logits: bool,
    ) -> Need {
        let m = self.model;
        let (d, q, kv) = (u64::from(m.d_model), self.queries(), self.values());
        let n = batch.items.len() as u64;
        let (stages, last) = self.lengths(items, batch);
        let widest = stages.iter().copied().max().unwrap_or(0);
        let mut state = self.kept(items, batch, State::Base);
        if resampled {
            state += self.kept(items, batch, State::Donors(0));
        }
        // Residual stream, z, the attention's output and the next residual stream; while rows join, the first and
        // the third once more.
        let row = n * widest * (3 * d + q) * self.bytes;
        let joining = n * widest * 2 * d * self.bytes;
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
        let scored: u64 =
            batch.items.iter().filter_map(|&i| items.get(i as usize)).map(|i| i.positions() as u64).sum();
        let wanted = (chunk * if scored > 0 { scored } else { n * last }) * u64::from(m.target_vocab()) * 8;
        Need {
            weights: 0,
            state,
            states: 0,
            row,
            rows: chunk * (row + joining),
            slice,
            cache,
            caches: chunk * cache,
            // Two of a block are held while its exponentials are summed.
            logits: if logits || decoded { wanted.min(2 * LOGIT_BYTES) } else { 0 },
        }
    }
}

/// A number of bytes as people write it: 2GiB, 500MB, 1048576.
///
/// # Errors
/// Where it isn't one.
pub fn parse(text: &str) -> Result<u64, String> {
    let wrong = || "give a number of bytes such as 2GiB, 500MB or 1048576".to_owned();
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = number * factor as f64;
    if bytes >= 1.0 && bytes < 2f64.powi(63) { Ok(bytes as u64) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse("2GiB"), Ok(2 << 30));
        assert_eq!(parse("1.5 MB"), Ok(1_500_000));
        assert_eq!(parse("4096"), Ok(4096));
        for bad in ["", "GiB", "2 parsecs", "-1", "0", "1e99", "99999999999TiB"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
