//! The engine: turns chunks of subsets into per-example scores without ever running a subset as a
//! forward pass of its own. See ARCHITECTURE.md, "The engine".
//!
//! libtorch calls go through tch's infallible methods, which panic where libtorch throws (out of
//! memory, a driver's fault). [`Engine::run`] catches that at its boundary and gives a typed error; the
//! engine's states are dropped then, so nothing half-computed is used again.

pub mod arch;
mod attend;
mod attention;
pub mod backward;
pub mod base;
mod block;
pub mod classify;
mod decode;
mod decoder;
mod direct;
mod feed;
mod fused;
mod gradient;
mod group;
mod images;
pub mod loss;
pub mod masked;
pub mod model;
mod opener;
mod optimal;
pub mod pass;
pub mod readout;
pub mod replace;
pub mod score;
mod shared;
mod shift;
pub mod trie;
mod walk;

pub use opener::TorchOpener;
pub use shared::SharedModel;

use ablate_common::fit::{self, Fitted};
use ablate_common::head::{Head, HeadIx};
use ablate_common::memory;
use ablate_common::metric::Metric;
use ablate_common::plan::{Ablation, Batch, Plan, Pool, Source, SweepKind};
use ablate_common::scores::ChunkScores;
use ablate_common::sharing::Sharing;
use ablate_common::task::{Prepared, Scope};
use ablate_common::units::UnitIx;
use base::{BaseSet, DeviceBatch};
use classify::{FittedProbe, NoProbe};
use group::{How, Joint, Work};
use model::Model;
use replace::{DonorStates, Means, Replacement};
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tch::Tensor;
use thiserror::Error;
use trie::{Cut, Intervention, Trie};
use walk::Unablated;

/// Why a chunk could not be computed.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// Told to stop.
    #[error("stopped")]
    Stopped,
    /// The device has not enough memory.
    #[error("the device has not enough memory: {0}")]
    OutOfMemory(String),
    /// Anything else libtorch threw, or a chunk that the plan doesn't hold.
    #[error("{0}")]
    Failed(String),
}

/// Runs chunks of one experiment on one device.
#[derive(Debug)]
pub struct Engine {
    model: Arc<SharedModel>,
    plan: Arc<Plan>,
    /// The tasks' data, then that of the plan's reference sets.
    prepared: Arc<Vec<Prepared>>,
    /// (task, scope) → batches on the device.
    batches: HashMap<(u32, Scope), Vec<DeviceBatch>>,
    /// Which tasks show the model the same. What follows from that alone is kept under the first of them.
    sharing: Sharing,
    /// (tasks that go together, scope) → their batches.
    joint: HashMap<(Vec<u32>, Scope), Joint>,
    /// (first task, scope, ablation; `None` for the empty base set) → states.
    bases: HashMap<(u32, Scope, Option<u32>), BaseSet>,
    /// (task, scope) → unablated final states of each batch's scored positions, for tasks that compare with them.
    finals: HashMap<(u32, Scope), Vec<Tensor>>,
    /// (first task, ablation) → b of every head, where it is the same for every batch.
    replacements: HashMap<(u32, u32), Arc<Replacement>>,
    /// Task → its probe, where it has one.
    probes: HashMap<u32, FittedProbe>,
    /// (first task, scope, ablation) → b of every batch, where it is z of donors.
    donors: HashMap<(u32, Scope, u32), DonorStates>,
    /// Reference set → mean norms of the unablated residual stream.
    reference_norms: HashMap<u32, Vec<f64>>,
    /// Fitted constants, by ablation.
    constants: Arc<BTreeMap<u32, ChunkScores>>,
    /// Passes over a batch so far.
    passes: u64,
    /// Bytes of base states that may stay in memory, and of those that the plan would keep.
    room: (u64, u64),
}

/// Base states kept at most, in bytes, where free memory isn't known.
pub const CACHE_BYTES: u64 = 4 << 30;

impl Engine {
    /// An engine over a loaded model. Nothing is computed yet.
    #[must_use]
    pub fn new(model: Arc<SharedModel>, plan: Arc<Plan>, prepared: Arc<Vec<Prepared>>) -> Self {
        let sharing = Sharing::of(&plan.tasks, &prepared);
        let states = memory::of_plan(&plan, &prepared, memory::SLICE_TOKENS).states;
        Self {
            model,
            plan,
            prepared,
            batches: HashMap::new(),
            sharing,
            joint: HashMap::new(),
            bases: HashMap::new(),
            finals: HashMap::new(),
            replacements: HashMap::new(),
            probes: HashMap::new(),
            donors: HashMap::new(),
            reference_norms: HashMap::new(),
            constants: Arc::default(),
            passes: 0,
            room: (CACHE_BYTES, states),
        }
    }

    /// The same engine with `bytes` for base states that stay in memory between chunks. No number depends on it:
    /// what doesn't stay is computed anew.
    #[must_use]
    pub fn keeping(mut self, bytes: u64) -> Self {
        self.room.0 = bytes;
        self
    }

    /// The same engine with the constants that were fitted, by ablation: what the fits stored of all heads.
    #[must_use]
    pub fn with_constants(mut self, constants: Arc<BTreeMap<u32, ChunkScores>>) -> Self {
        self.constants = constants;
        self
    }

    /// Passes over a batch that it has run, each of all subsets of a chunk and of all tasks that share it.
    #[must_use]
    pub fn passes(&self) -> u64 {
        self.passes
    }

    /// The scores of one chunk of a round (see [`Plan::space`] for `list`).
    ///
    /// # Errors
    /// See [`Error`].
    pub fn run(
        &mut self,
        sweep: u32,
        round: u32,
        list: &[UnitIx],
        chunk: u32,
        stop: &AtomicBool,
    ) -> Result<ChunkScores, Error> {
        let planned = self
            .plan
            .sweeps
            .get(sweep as usize)
            .ok_or_else(|| Error::Failed(format!("the plan has no sweep {sweep}")))?;
        let (ablation, scope) = (planned.ablation, planned.scope);
        let tasks = planned.tasks.clone();
        let space = self.plan.space(sweep, list);
        let base = self.plan.units(sweep).union(space.base());
        let ranks = self.plan.chunk_ranks(sweep, round, chunk);
        let units = || -> Vec<UnitIx> { ranks.clone().map(|rank| UnitIx(rank as u32)).collect() };
        match &planned.kind {
            SweepKind::Gradient { .. } => {
                return self.guarded(|engine| engine.run_gradient(sweep, &units(), stop));
            }
            SweepKind::Attention { .. } => {
                return self.guarded(|engine| engine.run_attention(sweep, &units(), stop));
            }
            SweepKind::Patterns { items } => {
                let items = items.clone();
                return self.guarded(|engine| engine.run_patterns(sweep, &items, &units(), stop));
            }
            _ => {}
        }
        if planned.kind == SweepKind::Fit {
            let heads: Vec<HeadIx> = ranks.map(|rank| HeadIx(rank as u32)).collect();
            return self.guarded(|engine| engine.run_fit(sweep, &heads, stop));
        }
        if fit::waits(&self.plan, sweep) && !self.constants.contains_key(&ablation) {
            return Err(Error::Failed(format!("the constants of ablation {ablation} aren't there yet")));
        }
        let subsets: Vec<Vec<HeadIx>> =
            ranks.map_while(|rank| self.plan.removed(sweep, &space, rank)).collect();
        if subsets.is_empty() {
            return Err(Error::Failed(format!("round {round} of sweep {sweep} has no chunk {chunk}")));
        }
        let interventions: Vec<Intervention> =
            subsets.iter().map(|s| self.intervention(ablation, &base, s)).collect();
        match self.plan.sweeps[sweep as usize].kind {
            SweepKind::Shift => self.guarded(|engine| engine.run_shift(sweep, &interventions, stop)),
            SweepKind::Repair => self.guarded(|engine| {
                let (trie, subsets) = (&Trie::new(&interventions), interventions.len());
                let how = How::Frozen;
                engine.run_tasks(&tasks, Work { ablation, base: &base, trie, subsets, scope, how, stop })
            }),
            _ => self.run_interventions(ablation, &base, &interventions, &tasks, scope, stop),
        }
    }

    /// The scores of any interventions on top of a base set, on the given tasks: what [`Self::run`] does
    /// with a chunk's subsets.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn run_interventions(
        &mut self,
        ablation: u32,
        base: &[HeadIx],
        interventions: &[Intervention],
        tasks: &[u32],
        scope: Scope,
        stop: &AtomicBool,
    ) -> Result<ChunkScores, Error> {
        self.guarded(|engine| {
            let (trie, subsets) = (&Trie::new(interventions), interventions.len());
            let how = How::Running;
            engine.run_tasks(tasks, Work { ablation, base, trie, subsets, scope, how, stop })
        })
    }

    /// Does some work without graphs, but where it asks for them; what libtorch throws meanwhile becomes an error, and no state
    /// outlives it.
    fn guarded<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        // A guard, because a closure that panics within `with_grad` would leave graphs on for what follows.
        let result = catch_unwind(AssertUnwindSafe(|| {
            let _off = tch::no_grad_guard();
            work(self)
        }));
        match result {
            Ok(done) => done,
            Err(panic) => {
                self.bases.clear();
                self.finals.clear();
                self.replacements.clear();
                self.probes.clear();
                self.donors.clear();
                Err(typed(panic.downcast_ref::<String>().cloned().unwrap_or_else(|| {
                    panic
                        .downcast_ref::<&str>()
                        .map_or_else(|| "the engine panicked".to_owned(), |s| (*s).to_owned())
                })))
            }
        }
    }

    /// What a subset does beyond the base set.
    fn intervention(&self, ablation: u32, base: &[HeadIx], subset: &[HeadIx]) -> Intervention {
        let keep = self.keep(ablation);
        let mut stages: BTreeMap<usize, Vec<Cut>> = BTreeMap::new();
        for ix in subset.iter().filter(|h| base.binary_search(h).is_err()) {
            if let Some(head) = self.plan.heads().head(*ix) {
                stages
                    .entry(self.plan.heads().stage_of(head))
                    .or_default()
                    .push(Cut { head: head.head, keep });
            }
        }
        Intervention { stages: stages.into_iter().collect() }
    }

    /// ξ of an ablation.
    fn keep(&self, ablation: u32) -> f64 {
        match self.plan.ablations[ablation as usize].method {
            Ablation::Scale { scale } => scale,
            Ablation::Zero | Ablation::Mean { .. } | Ablation::Resample { .. } | Ablation::Optimal { .. } => {
                0.0
            }
        }
    }

    fn prepare_batches(&mut self, task: u32, scope: Scope) {
        let (model, plan, prepared) = (&self.model.0, &self.plan, &self.prepared);
        self.batches.entry((task, scope)).or_insert_with(|| {
            plan.tasks[task as usize]
                .batches(scope)
                .iter()
                .map(|b| DeviceBatch::new(model, &prepared[task as usize], b))
                .collect()
        });
    }

    /// Unablated final states, where the task's metric compares with them: once per experiment and scope.
    fn prepare_finals(&mut self, task: u32, scope: Scope) {
        if self.plan.tasks[task as usize].metric != Metric::Kl || self.finals.contains_key(&(task, scope)) {
            return;
        }
        let mut walk = self.walk(task, scope, None);
        let model = walk.model;
        let mut finals = Vec::with_capacity(walk.batches.len());
        while let Some(Unablated { batch, base, .. }) = walk.next_batch() {
            let last = base.x[model.blocks.len()].view([1, batch.final_tokens(), model.d_model()]);
            finals.push(model.finish(&batch.at_scored(last)).squeeze_dim(0));
        }
        self.finals.insert((task, scope), finals);
    }

    /// The probe of a task that has one: once per experiment.
    fn prepare_probe(&mut self, task: u32, stop: &AtomicBool) -> Result<(), Error> {
        let prepared = &self.prepared[task as usize];
        if let (Some(probe), false) = (&prepared.probe, self.probes.contains_key(&task)) {
            let fitted = FittedProbe::fit(&self.model.0, prepared, probe, stop).map_err(|e| match e {
                NoProbe::Stopped => Error::Stopped,
                NoProbe::Failed(why) => Error::Failed(why),
            })?;
            self.probes.insert(task, fitted);
        }
        Ok(())
    }

    /// b where it is the same for every batch. Means of z over the reference set, by default all items of the task: once for all
    /// lanes of the device. Fitted constants as they were handed in.
    fn prepare_replacement(&mut self, task: u32, ablation: u32) {
        if self.replacements.contains_key(&(task, ablation)) {
            return;
        }
        let pool = match self.plan.ablations[ablation as usize].method {
            Ablation::Mean { pool } => pool,
            Ablation::Optimal { .. } => {
                if let Some(fitted) = self.fitted(task, ablation) {
                    self.replacements.insert((task, ablation), Arc::new(fitted));
                }
                return;
            }
            _ => return,
        };
        let (model, plan, prepared) =
            (Arc::clone(&self.model), Arc::clone(&self.plan), Arc::clone(&self.prepared));
        // Other lanes of the device, and other ablations of the same, have it from there.
        let means = match self.source(task, ablation).reference {
            Some(reference) => {
                let items = &prepared[plan.tasks.len() + reference as usize];
                let batches = &plan.references[reference as usize].batches;
                model.means(pool, items, batches, || self.reference_means(items, batches, pool))
            }
            None => {
                let batches = plan.tasks[task as usize].batches(Scope::All);
                model.means(pool, &prepared[task as usize], batches, || self.own_means(task, pool))
            }
        };
        self.replacements.insert((task, ablation), means);
    }

    /// The constants of a task, by stage.
    fn fitted(&self, task: u32, ablation: u32) -> Option<Replacement> {
        let block = self.constants.get(&ablation)?.tasks.iter().find(|b| b.task == task)?;
        let (model, heads) = (&self.model.0, self.plan.heads());
        let (h, dh) = (i64::from(model.info.n_heads), model.head_dim());
        let stage = |at: usize| {
            let place = heads.stage(at);
            let mut all = Vec::with_capacity((h * dh) as usize);
            for head in 0..model.info.n_heads {
                let ix = heads.index(Head { stream: place.stream, layer: place.layer, head })?;
                all.extend(Fitted::of(block, ix.at())?.constant);
            }
            Some(Tensor::from_slice(&all).view([h, dh]).to_kind(model.kind).to_device(model.device))
        };
        (0..model.blocks.len()).map(stage).collect::<Option<_>>().map(Replacement::Constant)
    }

    /// Where a task's b comes from.
    fn source(&self, task: u32, ablation: u32) -> Source {
        let sources = &self.plan.ablations[ablation as usize].sources;
        sources.get(task as usize).cloned().unwrap_or_default()
    }

    fn own_means(&mut self, task: u32, pool: Pool) -> Replacement {
        let mut walk = self.walk(task, Scope::All, None);
        let model = walk.model;
        let mut means = Means::new(model, pool, walk.batches);
        while let Some(Unablated { batch, base, .. }) = walk.next_batch() {
            means.add(base, batch);
        }
        means.finish(model)
    }

    fn reference_means(&self, items: &Prepared, batches: &[Batch], pool: Pool) -> Replacement {
        let model = &self.model.0;
        let batches: Vec<DeviceBatch> = batches.iter().map(|b| DeviceBatch::new(model, items, b)).collect();
        let mut means = Means::new(model, pool, &batches);
        for batch in &batches {
            means.add(BaseSet::empty(model, 1).state(model, 0, batch).0, batch);
        }
        means.finish(model)
    }
}

/// Bytes that the base states of `batches` may take: their part of the room, where not everything that the plan
/// would keep fits into it.
fn room((bytes, all): (u64, u64), model: &Model, batches: &[DeviceBatch], resampled: bool) -> u64 {
    if all <= bytes {
        return u64::MAX;
    }
    let own = |b: &DeviceBatch| state_bytes(model, b) + if resampled { donor_bytes(model, b) } else { 0 };
    let own: u64 = batches.iter().map(own).sum();
    u64::try_from(u128::from(bytes) * u128::from(own) / u128::from(all)).unwrap_or(u64::MAX)
}

/// Bytes that a batch's base state holds.
fn state_bytes(model: &Model, batch: &DeviceBatch) -> u64 {
    let width = 2 * model.d_model() + i64::from(model.info.n_heads) * model.head_dim();
    let element = model.kind.elt_size_in_bytes() as i64;
    ((stage_tokens(model, batch) + batch.final_tokens()) * width * element) as u64
}

/// Tokens of a batch that each stage runs over, together.
fn stage_tokens(model: &Model, batch: &DeviceBatch) -> i64 {
    (0..model.blocks.len()).map(|s| batch.tokens_at(model.info.heads.stage(s).stream)).sum()
}

/// Bytes of the donors' z of a batch.
fn donor_bytes(model: &Model, batch: &DeviceBatch) -> u64 {
    let width = i64::from(model.info.n_heads) * model.head_dim();
    (stage_tokens(model, batch) * width * model.kind.elt_size_in_bytes() as i64) as u64
}

fn typed(message: String) -> Error {
    let first = message.lines().find(|l| !l.trim().is_empty()).unwrap_or("").trim().to_owned();
    let lower = message.to_lowercase();
    if lower.contains("out of memory")
        || lower.contains("can't allocate memory")
        || lower.contains("not enough memory")
    {
        Error::OutOfMemory(first)
    } else {
        Error::Failed(first)
    }
}
