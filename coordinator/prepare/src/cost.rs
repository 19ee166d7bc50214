//! What a plan costs: operations and memory, counted from the model's shape.

use ablate_common::model::ModelInfo;
use ablate_common::plan::{Ablation, Plan, PlannedTask, SweepKind};
use ablate_common::spec::Dtype;
use ablate_common::task::{Prepared, Scope, TaskKind};
use ablate_common::units::{UnitIx, UnitMap};

/// Cost of one sweep.
#[derive(Clone, Debug, PartialEq)]
pub struct SweepCost {
    /// Kind of sweep, with the ablation's method where the plan has several.
    pub name: String,
    /// Subsets of all rounds.
    pub subsets: u64,
    /// Chunks of all rounds.
    pub chunks: u64,
    /// Rounds.
    pub rounds: u32,
    /// Least floating-point operations, with shared prefixes counted once.
    pub flops: f64,
    /// Memory of a lane in bytes, an estimate.
    pub bytes: u64,
}

/// Cost of every sweep of a plan, in the plan's order.
#[must_use]
pub fn cost(plan: &Plan, prepared: &[Prepared]) -> Vec<SweepCost> {
    (0u32..)
        .zip(&plan.sweeps)
        .map(|(i, sweep)| {
            let rounds = sweep.rounds();
            let subsets: u64 = (0..rounds).map(|r| plan.round_subsets(i, r)).sum();
            let chunks: u64 = (0..rounds).map(|r| u64::from(plan.round_chunks(i, r))).sum();
            let work = Work::new(
                &plan.model,
                plan.spec.model.dtype,
                &plan.tasks,
                prepared,
                &sweep.tasks,
                sweep.scope,
            );
            let layers = work.layers(plan.units(i));
            let flops = match sweep.kind {
                SweepKind::Single => work.single(&layers),
                SweepKind::Pairs => work.pairs(&layers),
                // A round extends the pruned base, which it runs once.
                SweepKind::Greedy { .. } => {
                    let n = plan.units(i).len() as f64;
                    work.single(&layers) / n * subsets as f64 + f64::from(rounds) * work.whole()
                }
                SweepKind::Reference | SweepKind::Path { .. } | SweepKind::Random { .. } => {
                    work.whole() * subsets as f64
                }
            };
            let method = plan.ablations.get(sweep.ablation as usize).map_or_else(String::new, |a| a.title());
            let name = match plan.ablations.len() {
                1 => sweep.kind.name().to_owned(),
                _ => format!("{} ({method})", sweep.kind.name()),
            };
            let ablation = plan.ablations.get(sweep.ablation as usize);
            let resampled = ablation.is_some_and(|a| matches!(a.method, Ablation::Resample { .. }));
            let bytes = work.bytes(sweep.chunk) + if resampled { work.donor_bytes() } else { 0 };
            SweepCost { name, subsets, chunks, rounds, flops, bytes }
        })
        .collect()
}

/// Operations that a subset of some tasks takes, by layer.
#[derive(Debug)]
pub struct Work<'a> {
    model: &'a ModelInfo,
    value_bytes: u64,
    /// Operations of a whole layer, of a layer after its attention, and of the logits.
    layer: f64,
    rest: f64,
    logits: f64,
    /// All padded tokens, and the most in a batch; most scored positions in a batch.
    tokens: u64,
    widest: u64,
    scored: u64,
}

impl<'a> Work<'a> {
    /// The work of the tasks at `which` on `scope`.
    pub fn new(
        model: &'a ModelInfo,
        dtype: Dtype,
        tasks: &[PlannedTask],
        prepared: &[Prepared],
        which: &[u32],
        scope: Scope,
    ) -> Self {
        let (d, q) = (f64::from(model.d_model), f64::from(model.n_heads * model.head_dim));
        let kv = f64::from(model.n_kv_heads * model.head_dim);
        let matrices = f64::from(model.mlp_matrices());
        let (mut layer, mut rest, mut logits) = (0.0, 0.0, 0.0);
        let (mut tokens, mut widest, mut most_scored) = (0, 0, 0);
        for &t in which {
            let (Some(task), Some(p)) = (tasks.get(t as usize), prepared.get(t as usize)) else { continue };
            for batch in task.batches(scope) {
                let padded = batch.items.len() as u64 * u64::from(batch.len);
                let scored: u64 = batch.items.iter().map(|&i| p.items[i as usize].positions() as u64).sum();
                let mlp = 2.0 * matrices * d * f64::from(model.d_ff) * padded as f64;
                let attention = (2.0 * d * (q + 2.0 * kv) + 4.0 * f64::from(batch.len) * q) * padded as f64;
                let out = 2.0 * q * d * padded as f64;
                layer += attention + out + mlp;
                rest += mlp + 2.0 * f64::from(model.head_dim) * d * padded as f64;
                // A classification head is next to nothing.
                if task.kind != TaskKind::Classification {
                    logits += 2.0 * d * f64::from(model.vocab) * scored as f64;
                }
                tokens += padded;
                widest = widest.max(padded);
                if task.kind != TaskKind::Classification {
                    most_scored = most_scored.max(scored);
                }
            }
        }
        let value_bytes = match dtype {
            Dtype::F64 => 8,
            Dtype::F32 => 4,
            Dtype::Bf16 | Dtype::F16 => 2,
        };
        Self { model, value_bytes, layer, rest, logits, tokens, widest, scored: most_scored }
    }

    /// A subset that shares nothing.
    pub fn whole(&self) -> f64 {
        f64::from(self.model.layers) * self.layer + self.logits
    }

    /// Everything after the attention of layer `l`.
    fn after(&self, l: u32) -> f64 {
        self.rest + f64::from(self.model.layers - 1 - l) * self.layer
    }

    /// How many units begin to change the forward pass in each layer.
    pub fn layers(&self, units: &UnitMap) -> Vec<f64> {
        let mut count = vec![0.0; self.model.layers as usize];
        for unit in (0..units.len() as u32).map(UnitIx) {
            let layers =
                units.heads_of(unit).iter().filter_map(|&h| self.model.heads.head(h)).map(|h| h.layer);
            if let Some(n) = layers.min().and_then(|l| count.get_mut(l as usize)) {
                *n += 1.0;
            }
        }
        count
    }

    /// Every unit alone, of which `layers` begin in each layer.
    pub fn single(&self, layers: &[f64]) -> f64 {
        (0u32..).zip(layers).map(|(l, n)| n * (self.after(l) + self.logits)).sum()
    }

    /// Every pair, the part below the second unit's layer once per first unit.
    pub fn pairs(&self, layers: &[f64]) -> f64 {
        let mut before = 0.0;
        let mut sum = 0.0;
        for (l, &n) in (0u32..).zip(layers) {
            let second = n * before + n * (n - 1.0) / 2.0;
            sum += n * self.after(l) + second * (self.after(l) + self.logits);
            before += n;
        }
        sum
    }

    /// Memory of the donors' states of a resample ablation.
    pub fn donor_bytes(&self) -> u64 {
        let q = u64::from(self.model.n_heads * self.model.head_dim);
        u64::from(self.model.layers) * self.tokens * q * self.value_bytes
    }

    /// Memory of a lane that runs `chunk` subsets at once.
    pub fn bytes(&self, chunk: u32) -> u64 {
        let m = self.model;
        let (d, ff, q) = (u64::from(m.d_model), u64::from(m.d_ff), u64::from(m.n_heads * m.head_dim));
        let kv = u64::from(m.n_kv_heads * m.head_dim);
        let matrices = u64::from(m.mlp_matrices());
        let per_layer = d * (2 * q + 2 * kv) + matrices * d * ff;
        let embedding = u64::from(m.vocab) * d * if m.tied { 1 } else { 2 };
        let weights = u64::from(m.distinct_layers()) * per_layer + embedding;
        let base = u64::from(m.layers) * self.tokens * (d + q);
        let rows = u64::from(chunk) * self.widest;
        // Residual, its norm, Q, K, V, z, and the two or three feed-forward activations.
        let activations = rows * (3 * d + 2 * q + 2 * kv + matrices * ff);
        let logits = (u64::from(chunk) * self.scored).min(1024) * u64::from(m.vocab) * 2;
        (weights + base + activations + logits) * self.value_bytes
    }
}
