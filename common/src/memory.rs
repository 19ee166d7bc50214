//! How much memory a lane needs: counted from the model's shape and the plan's batches, so that `ablate plan` shows
//! what a worker will later reckon with.
//!
//! A pass keeps whole what later stages read (the residual stream, z and the attention's output of all rows), and runs
//! everything wider than that on a slice of tokens at a time. On a worker nothing of this decides a number: batches and
//! chunks are the plan's, and only how many base states stay in memory between chunks follows from what is free. The plan
//! itself has chunks as small as [`chunk_within`] says.

mod count;
#[cfg(test)]
mod tests;

use crate::metric::Metric;
use crate::plan::{Ablation, Batch, Plan, PlannedSweep, SweepKind};
use crate::sharing::Sharing;
use crate::spec::Dtype;
use crate::task::{Item, Prepared, Scope, TaskKind};
use count::{Count, Rows};
use std::collections::HashSet;

/// Tokens that a layer's wide temporaries are made for at once, on GPUs; on CPUs fewer.
pub const SLICE_TOKENS: u64 = 8192;
/// The same on CPUs.
pub const CPU_SLICE_TOKENS: u64 = 1024;
/// Bytes of one attention's scores in a graph: decides how many items of a batch go back together.
pub const GRAPH_SCORE_BYTES: u64 = 64 << 20;
/// Bytes of logits that are held at once.
pub const LOGIT_BYTES: u64 = 96 << 20;
/// Bytes that all subsets of a chunk may take at once, as far as it can be planned: one subset may take more.
pub const CHUNK_BYTES: u64 = 2 << 30;

/// Bytes that a lane needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// The model's weights.
    pub weights: u64,
    /// Base state (and donors' states) of the largest batch.
    pub state: u64,
    /// Those of all batches: what is kept between chunks where there is room.
    pub states: u64,
    /// A chunk's rows of the largest batch.
    pub rows: u64,
    /// Temporaries of a slice of tokens, or of what is made of a chunk's final rows, if that is more.
    pub slice: u64,
    /// Keys and values that a chunk's decoding caches.
    pub caches: u64,
    /// Logits.
    pub logits: u64,
    /// Embeddings of a chunk's subsets, of all batches: what cosines are made of.
    pub embeddings: u64,
    /// Unablated final states that divergences compare with, of all batches: kept as long as the experiment is open.
    pub finals: u64,
}

impl Need {
    /// What a lane can't do without: the passes of the plan's chunks, base states that stay left out.
    #[must_use]
    pub fn passes(&self) -> u64 {
        let fixed = [self.weights, self.state, self.slice, self.logits, self.finals];
        fixed.into_iter().fold(self.chunk(), u64::saturating_add)
    }

    /// All that a lane uses where memory allows it: the passes, and every base state.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.passes().saturating_add(self.states.saturating_sub(self.state))
    }

    /// What a chunk has of its own.
    fn chunk(&self) -> u64 {
        self.rows.saturating_add(self.caches).saturating_add(self.embeddings)
    }

    fn join(self, other: Self) -> Self {
        Self {
            weights: self.weights.max(other.weights),
            state: self.state.max(other.state),
            states: self.states.max(other.states),
            rows: self.rows.max(other.rows),
            slice: self.slice.max(other.slice),
            caches: self.caches.max(other.caches),
            logits: self.logits.max(other.logits),
            embeddings: self.embeddings.max(other.embeddings),
            finals: self.finals.max(other.finals),
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
        let logits = task.kind != TaskKind::Classification && task.kind != TaskKind::Similarity;
        let rows = Rows {
            chunk: u64::from(planned.chunk),
            resampled,
            decoded: task.metric == Metric::Bleu,
            frozen: planned.kind == SweepKind::Repair,
            logits,
        };
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
                _ => count.batch(&items.items, batch, rows),
            });
        }
        if task.kind == TaskKind::Similarity && by_rows(&planned.kind) && planned.kind != SweepKind::Shift {
            need = need.join(count.cosines(items, u64::from(planned.chunk)));
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
    need.finals = count.finals(plan, prepared, std::iter::once(planned));
    need
}

/// What a whole plan needs: of everything the most that a sweep needs, and the base states of all.
#[must_use]
pub fn of_plan(plan: &Plan, prepared: &[Prepared], slice: u64) -> Need {
    let mut need =
        (0..plan.sweeps.len()).map(|s| of_sweep(plan, prepared, s, slice)).fold(Need::default(), Need::join);
    let count = Count { model: &plan.model, bytes: value_bytes(plan.spec.model.dtype), slice };
    need.states = count.resident(plan, prepared, plan.sweeps.iter()).max(need.state);
    need.finals = count.finals(plan, prepared, plan.sweeps.iter());
    need
}

/// Subsets per chunk of sweep `sweep` that take [`CHUNK_BYTES`] together, and one at least; as many as it has where its chunks
/// aren't rows. A function of the plan alone: a chunk is computed in one piece wherever it is, as pieces of another size may give
/// other last bits.
#[must_use]
pub fn chunk_within(plan: &Plan, prepared: &[Prepared], sweep: usize) -> u32 {
    let Some(planned) = plan.sweeps.get(sweep) else { return 1 };
    let chunk = planned.chunk.max(1);
    let taken = of_sweep(plan, prepared, sweep, SLICE_TOKENS).chunk();
    if !by_rows(&planned.kind) || taken <= CHUNK_BYTES {
        return chunk;
    }
    let each = taken.div_ceil(u64::from(chunk)).max(1);
    chunk.min(u32::try_from(CHUNK_BYTES / each).unwrap_or(u32::MAX)).max(1)
}

/// Whether the subsets of a chunk are rows of one pass, so that fewer take less.
fn by_rows(kind: &SweepKind) -> bool {
    !matches!(
        kind,
        SweepKind::Fit
            | SweepKind::Gradient { .. }
            | SweepKind::Attention { .. }
            | SweepKind::Patterns { .. }
    )
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
