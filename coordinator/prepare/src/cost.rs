//! What a plan costs: operations, counted from the model's shape; its memory is counted in `ablate_common::memory`.

use ablate_common::head::Stream;
use ablate_common::memory;
use ablate_common::metric::Metric;
use ablate_common::model::ModelInfo;
use ablate_common::plan::{Ablation, Plan, PlannedTask, SweepKind};
use ablate_common::sharing::Sharing;
use ablate_common::task::{Prepared, Probe, Scope, TaskKind};
use ablate_common::units::{UnitIx, UnitMap};
use std::collections::HashSet;

/// Cost of one sweep.
#[derive(Clone, Debug, Default, PartialEq)]
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
    /// Memory of a lane in bytes where nothing is computed twice ([`memory::Need::most`]).
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
            let work = Work::new(&plan.model, &plan.tasks, prepared, &sweep.tasks, sweep.scope);
            let units = work.beginning(plan.units(i));
            let flops = match sweep.kind {
                // The states, each stage again for its graph, and the way back, which takes two products for one.
                SweepKind::Gradient { .. } => 4.0 * work.whole() * chunks as f64,
                SweepKind::Fit => {
                    let method = plan.ablations.get(sweep.ablation as usize).map(|a| a.method);
                    let Some(Ablation::Optimal { steps, .. }) = method else { return SweepCost::default() };
                    work.fit(&units, steps)
                }
                // The states, and each stage's queries, keys and weights again.
                SweepKind::Attention { .. } => 2.0 * work.whole() * chunks as f64,
                SweepKind::Patterns { ref items } => {
                    let all =
                        sweep.tasks.first().and_then(|&t| plan.tasks.get(t as usize)).map_or(1, |t| t.items);
                    2.0 * work.whole() * items.len() as f64 / f64::from(all.max(1))
                }
                SweepKind::Repair => work.whole() + work.direct(plan.units(i).len() as u32),
                SweepKind::Shift => work.single(&units) + 2.0 * work.whole(),
                SweepKind::Single => work.single(&units),
                SweepKind::Pairs => work.pairs(&units),
                // The base is run once, and all others on top of it.
                SweepKind::Conditional { ref base } => {
                    let others = work.beginning(&plan.units(i).kept(|u| !base.contains(&u)));
                    work.whole() + work.single(&others) + work.pairs(&others)
                }
                // A round extends the pruned base, which it runs once.
                SweepKind::Greedy { .. } => {
                    let n = plan.units(i).len() as f64;
                    work.single(&units) / n * subsets as f64 + f64::from(rounds) * work.whole()
                }
                // The reference of the first ablation is what comes first, of all tasks: probes are fitted there.
                SweepKind::Reference if i == 0 => work.whole() * subsets as f64 + work.once(),
                // Slots that stay empty cost nothing, so of follow-ups that is the most.
                SweepKind::Reference
                | SweepKind::Path { .. }
                | SweepKind::Random { .. }
                | SweepKind::Matched { .. }
                | SweepKind::Joint { .. } => work.whole() * subsets as f64,
            };
            let method = plan.ablations.get(sweep.ablation as usize).map_or_else(String::new, |a| a.title());
            let name = match plan.ablations.len() {
                _ if sweep.kind.unablated() => sweep.kind.name().to_owned(),
                1 => sweep.kind.name().to_owned(),
                _ => format!("{} ({method})", sweep.kind.name()),
            };
            let name = name + &plan.given(i);
            let need = memory::of_sweep(plan, prepared, i as usize, memory::SLICE_TOKENS);
            SweepCost { name, subsets, chunks, rounds, flops, bytes: need.most() }
        })
        .collect()
}

/// Operations of one stage of the forward pass.
#[derive(Clone, Copy, Debug, Default)]
struct StageWork {
    /// All of it, but for what `keys` has.
    all: f64,
    /// What follows its attention, with one head's part of the output.
    rest: f64,
    /// One head's part of the output.
    head: f64,
    /// Keys and values of what the encoder gives: shared by all that change only the decoder.
    keys: f64,
}

impl StageWork {
    /// Adds a batch of `rows` sequences of `len` tokens, whose sources have `source`.
    fn add(&mut self, model: &ModelInfo, stream: Stream, rows: f64, len: f64, source: f64) {
        let (d, q) = (f64::from(model.d_model), f64::from(model.n_heads * model.head_dim));
        let (kv, tokens) = (f64::from(model.n_kv_heads * model.head_dim), rows * len);
        let ff = match (&model.details.seq2seq, stream) {
            (Some(s), Stream::Cross) => s.decoder_ff,
            (_, Stream::Decoder) => 0,
            _ => model.d_ff,
        };
        let feed = 2.0 * f64::from(model.mlp_matrices()) * d * f64::from(ff) * tokens;
        let attention = if stream == Stream::Cross {
            self.keys += 4.0 * d * kv * rows * source;
            (2.0 * d * q + 4.0 * source * q) * tokens
        } else {
            (2.0 * d * (q + 2.0 * kv) + 4.0 * len * q) * tokens
        };
        self.all += attention + 2.0 * q * d * tokens + feed;
        let head = 2.0 * f64::from(model.head_dim) * d * tokens;
        self.rest += feed + head;
        self.head += head;
    }
}

/// Newton steps and, in each, gradients of a linear solver that fitting a probe is taken to need; an estimate.
const FIT_PASSES: f64 = 100.0;

/// Operations of embedding a probe's items, and of fitting it to them.
fn fitting(model: &ModelInfo, probe: &Probe) -> f64 {
    let mut work = StageWork::default();
    for batch in &probe.batches {
        for at in 0..model.heads.stages() {
            work.add(model, model.heads.stage(at).stream, batch.items.len() as f64, batch.len.into(), 0.0);
        }
    }
    let size = probe.items.len() as f64 * f64::from(model.d_model) * probe.classes.len() as f64;
    work.all + work.keys + FIT_PASSES * 4.0 * size
}

/// Operations of decoding `rows` sequences for `steps` steps.
fn decoding(model: &ModelInfo, rows: u64, steps: u64, source: u64) -> f64 {
    let mut work = StageWork::default();
    let heads = &model.heads;
    for at in heads.decoder_stage().unwrap_or(0)..heads.stages() {
        work.add(model, heads.stage(at).stream, rows as f64, steps as f64, source as f64);
    }
    let logits = 2.0 * f64::from(model.d_model) * f64::from(model.target_vocab()) * (rows * steps) as f64;
    work.all + work.keys + logits
}

/// Operations that a subset of some tasks takes, by stage.
#[derive(Debug)]
pub struct Work<'a> {
    model: &'a ModelInfo,
    stages: Vec<StageWork>,
    /// Operations that no two subsets share: the logits, and decoding.
    logits: f64,
    /// Operations that are done once, before any subset: fitting probes.
    once: f64,
}

impl<'a> Work<'a> {
    /// The work of the tasks at `which` on `scope`.
    pub fn new(
        model: &'a ModelInfo,
        tasks: &[PlannedTask],
        prepared: &[Prepared],
        which: &[u32],
        scope: Scope,
    ) -> Self {
        let mut stages = vec![StageWork::default(); model.heads.stages()];
        let (mut logits, mut once) = (0.0, 0.0);
        let sharing = Sharing::of(tasks, prepared);
        let mut seen = HashSet::new();
        for &t in which {
            let (Some(task), Some(p)) = (tasks.get(t as usize), prepared.get(t as usize)) else { continue };
            // What several tasks show the model goes through it once.
            let new = seen.insert(sharing.first(t));
            if let Some(probe) = &p.probe {
                once += fitting(model, probe);
            }
            for batch in task.batches(scope) {
                let items = || batch.items.iter().map(|&i| &p.items[i as usize]);
                let source = u64::from(batch.len);
                let target = items().map(|i| i.decoder.len() as u64).max().unwrap_or(0);
                let scored: u64 = items().map(|i| i.positions() as u64).sum();
                for (at, work) in stages.iter_mut().enumerate().filter(|_| new) {
                    let stream = model.heads.stage(at).stream;
                    let len = if matches!(stream, Stream::Decoder | Stream::Cross) { target } else { source };
                    work.add(model, stream, batch.items.len() as f64, len as f64, source as f64);
                }
                if task.metric == Metric::Bleu {
                    let steps = items().map(|i| i.decoded_at_most(model.context) as u64).max().unwrap_or(0);
                    logits += decoding(model, batch.items.len() as u64, steps, source);
                }
                // A classification head is next to nothing.
                if task.kind != TaskKind::Classification {
                    logits +=
                        2.0 * f64::from(model.d_model) * f64::from(model.target_vocab()) * scored as f64;
                }
            }
        }
        Self { model, stages, logits, once }
    }

    /// What is done once, before any subset.
    pub fn once(&self) -> f64 {
        self.once
    }

    /// A subset that shares nothing.
    pub fn whole(&self) -> f64 {
        self.stages.iter().map(|s| s.all + s.keys).sum::<f64>() + self.logits
    }

    /// Everything after the attention of a stage.
    fn after(&self, stage: usize) -> f64 {
        let encoder = self.model.heads.decoder_stage().is_some_and(|d| stage < d);
        let later = self.stages[stage + 1..].iter();
        self.stages[stage].rest + later.map(|s| s.all + if encoder { s.keys } else { 0.0 }).sum::<f64>()
    }

    /// How many units begin to change the forward pass in each stage.
    pub fn beginning(&self, units: &UnitMap) -> Vec<f64> {
        let heads = &self.model.heads;
        let mut count = vec![0.0; self.stages.len()];
        for unit in (0..units.len() as u32).map(UnitIx) {
            let stages =
                units.heads_of(unit).iter().filter_map(|&h| heads.head(h)).map(|h| heads.stage_of(h));
            if let Some(n) = stages.min().and_then(|s| count.get_mut(s)) {
                *n += 1.0;
            }
        }
        count
    }

    /// Every unit alone, of which `units` begin in each stage.
    pub fn single(&self, units: &[f64]) -> f64 {
        units.iter().enumerate().map(|(s, n)| n * (self.after(s) + self.logits)).sum()
    }

    /// The direct effects of `units` units: one head's part of the output, and the logits.
    pub fn direct(&self, units: u32) -> f64 {
        let head = self.stages.iter().map(|s| s.head).sum::<f64>() / self.stages.len().max(1) as f64;
        f64::from(units) * (head + self.logits)
    }

    /// Every pair, the part below the second unit's stage once per first unit.
    pub fn pairs(&self, units: &[f64]) -> f64 {
        let mut before = 0.0;
        let mut sum = 0.0;
        for (s, &n) in units.iter().enumerate() {
            let second = n * before + n * (n - 1.0) / 2.0;
            sum += n * self.after(s) + second * (self.after(s) + self.logits);
            before += n;
        }
        sum
    }

    /// The constants of heads, of which `units` begin in each stage: every step is the forward pass behind a head, each stage
    /// again for its graph, and the way back, which takes two products for one. The last is looked at without its gradient.
    pub fn fit(&self, units: &[f64], steps: u32) -> f64 {
        self.single(units) * (4.0 * f64::from(steps) + 1.0)
    }
}
