//! The recorded plan of an experiment: everything that decides which numbers come out, chosen once
//! and stored, so that every replay computes the same batches. Chunks are derived from it by
//! arithmetic.

mod base;
mod sweep;

pub use sweep::{Order, PlannedSweep, Shown, Shuffle, SweepKind};

use crate::attention;
use crate::fit;
use crate::gradient;
use crate::head::{HeadIx, HeadMap};
use crate::joint;
use crate::metric::Metric;
use crate::model::ModelInfo;
use crate::shift;
use crate::space::{RandomOrders, SubsetSpace};
use crate::spec::Spec;
use crate::task::{Prepared, Scope, TaskKind};
use crate::units::{UnitIx, UnitKind, UnitMap};
use serde::{Deserialize, Serialize};

/// What replaces a removed head's z.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case")]
pub enum Ablation {
    /// ẑ = 0.
    Zero,
    /// ẑ = the mean of z over a reference set: the task's own items unless told.
    Mean {
        /// What the mean runs over.
        pool: Pool,
    },
    /// ẑ = z of the unablated model on another item, the donor, at the same position.
    Resample {
        /// Where donors come from.
        donors: Donors,
    },
    /// ẑ = the constant that minimises the loss with the head gone: see [`crate::fit`].
    Optimal {
        /// Steps of the fit.
        steps: u32,
        /// Its learning rate, in units of the root mean square of the head's z.
        rate: f64,
    },
    /// ẑ = `scale` · z.
    Scale {
        /// The factor ξ; 1 leaves the head as it is, −1 flips it.
        scale: f64,
    },
}

impl Ablation {
    /// The name in specs and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Zero => "zero",
            Self::Mean { .. } => "mean",
            Self::Resample { .. } => "resample",
            Self::Optimal { .. } => "optimal",
            Self::Scale { .. } => "scale",
        }
    }
}

/// Where the donors of a resample ablation come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Donors {
    /// Drawn by the seed from the reference set: another item for each.
    Seeded,
    /// The counterfactual that each record carries or its generator makes.
    Paired,
}

/// What a mean of z runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    /// All tokens of all items (padding excluded): one vector per head.
    Tokens,
    /// All items at one position: one vector per head and position.
    Position,
}

/// An ablation with what it needs besides the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedAblation {
    /// What replaces z.
    #[serde(flatten)]
    pub method: Ablation,
    /// What is removed as a whole.
    pub unit: UnitKind,
    /// Where b comes from, task by task; empty where every task's b comes from its own items or from none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
}

impl PlannedAblation {
    /// The method, and behind it the unit where that isn't the head: for progress lines and headings.
    #[must_use]
    pub fn title(&self) -> String {
        match self.unit {
            UnitKind::Head => self.method.name().to_owned(),
            unit => format!("{}, {}", self.method.name(), unit.plural()),
        }
    }
}

/// Of heads, from each task's own items.
impl From<Ablation> for PlannedAblation {
    fn from(method: Ablation) -> Self {
        Self { method, unit: UnitKind::Head, sources: Vec::new() }
    }
}

/// Where a task's b comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Index into [`Plan::references`]; none: the task's own items.
    pub reference: Option<u32>,
    /// Resample: for each item of the task its donor among the source's items; otherwise empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub donors: Vec<u32>,
}

/// Items that b is measured on and nothing is scored on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedReference {
    /// blake3 of the prepared items' JSON, hex: their name in the store.
    pub prepared: String,
    /// Number of items.
    pub items: u32,
    /// Number of examples: 0 where nothing but states is read of it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub examples: u32,
    /// Batches that cover them.
    pub batches: Vec<Batch>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// Items that go through the model together, padded on the right to `len` tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Item indices.
    pub items: Vec<u32>,
    /// Padded length.
    pub len: u32,
}

/// A task with its recorded batches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedTask {
    /// Name from the spec.
    pub name: String,
    /// Kind.
    pub kind: TaskKind,
    /// Metric that tables report.
    pub metric: Metric,
    /// blake3 of the prepared task's JSON, hex: its name in the store.
    pub prepared: String,
    /// Number of items.
    pub items: u32,
    /// Number of examples.
    pub examples: u32,
    /// Batches that cover all items.
    pub all: Vec<Batch>,
    /// Batches that cover the items of the selecting half.
    pub select: Vec<Batch>,
}

impl PlannedTask {
    /// The scores kept per example, in the order in which a chunk stores them.
    #[must_use]
    pub fn columns(&self) -> &'static [&'static str] {
        self.metric.columns(self.kind)
    }

    /// The batches of a scope.
    #[must_use]
    pub fn batches(&self, scope: Scope) -> &[Batch] {
        match scope {
            Scope::All => &self.all,
            Scope::Select => &self.select,
        }
    }
}

/// The recorded plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// [`crate::ENGINE_VERSION`] that it was made for.
    pub engine: u32,
    /// The spec, with every default filled in.
    pub spec: Spec,
    /// The model's shape and the hash of its bytes.
    pub model: ModelInfo,
    /// Tasks, in the spec's order.
    pub tasks: Vec<PlannedTask>,
    /// Ablations, in the spec's order.
    pub ablations: Vec<PlannedAblation>,
    /// Units that sweeps choose from: those of each ablation, and narrowed to the streams of a sweep.
    pub units: Vec<UnitMap>,
    /// Reference sets of the ablations, in the order of their first use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<PlannedReference>,
    /// Sweeps, in the order in which they are worked off.
    pub sweeps: Vec<PlannedSweep>,
}

impl Plan {
    /// All heads of the model.
    #[must_use]
    pub fn heads(&self) -> &HeadMap {
        &self.model.heads
    }

    /// The units that a sweep removes.
    ///
    /// # Panics
    /// Where the plan has no such sweep.
    #[must_use]
    pub fn units(&self, sweep: u32) -> &UnitMap {
        &self.units[self.sweeps[sweep as usize].units as usize]
    }

    /// The heads that the subset at `rank` of a sweep's `space` removes, ascending; `None` past the end.
    ///
    /// # Panics
    /// Where the plan has no such sweep.
    #[must_use]
    pub fn removed(&self, sweep: u32, space: &SubsetSpace, rank: u64) -> Option<Vec<HeadIx>> {
        let units = space.subset(rank)?;
        // The floor is every head of the model, whatever the units leave out.
        let whole = matches!(space, SubsetSpace::Reference { .. } | SubsetSpace::Survey { .. });
        if whole && rank < 2 {
            let n = if rank == 0 { 0 } else { self.heads().len() as u32 };
            return Some((0..n).map(HeadIx).collect());
        }
        Some(self.units(sweep).union(&units))
    }

    /// The scores that a sweep keeps of a task per row, in the order in which a chunk stores them.
    ///
    /// # Panics
    /// Where the plan has no such sweep or task.
    #[must_use]
    pub fn columns(&self, sweep: u32, task: u32) -> &'static [&'static str] {
        match self.sweeps[sweep as usize].kind {
            SweepKind::Gradient { .. } => &gradient::COLUMNS,
            SweepKind::Attention { .. } => &attention::COLUMNS,
            SweepKind::Patterns { .. } => &attention::PATTERN,
            SweepKind::Shift => &shift::COLUMNS,
            SweepKind::Fit => &fit::COLUMNS,
            _ => self.tasks[task as usize].columns(),
        }
    }

    /// What a sweep's scores of a task stand for: the indices of the examples of its scope, ascending, or of the items
    /// where a gradient or attention sweep gives each of them scores of its own. Of a fit, the places of what [`crate::fit`]
    /// stores; of patterns the cells; of a shift the points of the residual stream.
    ///
    /// # Panics
    /// Where the plan has no such sweep.
    #[must_use]
    pub fn rows(&self, sweep: u32, prepared: &Prepared) -> Vec<u32> {
        let planned = &self.sweeps[sweep as usize];
        match &planned.kind {
            SweepKind::Gradient { .. } if gradient::by_item(prepared.kind) => {
                prepared.items_in(planned.scope)
            }
            SweepKind::Attention { .. } => prepared.items_in(planned.scope),
            kind => match self.own_rows(kind) {
                Some(rows) => (0..rows).collect(),
                None => prepared.examples_in(planned.scope),
            },
        }
    }

    /// How many rows a sweep's scores of a task may have: as many where its scope is everything, and as many at most where it is a
    /// half.
    ///
    /// # Panics
    /// Where the plan has no such sweep or task.
    #[must_use]
    pub fn most_rows(&self, sweep: u32, task: u32) -> u32 {
        let (kind, task) = (&self.sweeps[sweep as usize].kind, &self.tasks[task as usize]);
        match kind {
            SweepKind::Gradient { .. } if gradient::by_item(task.kind) => task.items,
            SweepKind::Attention { .. } => task.items,
            kind => self.own_rows(kind).unwrap_or(task.examples),
        }
    }

    /// Rows of a kind of sweep whose rows are neither examples nor items.
    fn own_rows(&self, kind: &SweepKind) -> Option<u32> {
        match kind {
            SweepKind::Fit => Some(fit::rows(self.model.head_dim)),
            SweepKind::Patterns { items } => Some(u32::try_from(attention::cells(items)).unwrap_or(u32::MAX)),
            SweepKind::Shift => Some(shift::points(self.heads()).len() as u32),
            _ => None,
        }
    }

    /// Whether the scores of a sweep's rounds decide what follows.
    ///
    /// # Panics
    /// Where the plan has no such sweep.
    #[must_use]
    pub fn decides(&self, sweep: u32) -> bool {
        match self.sweeps[sweep as usize].kind {
            SweepKind::Fit
            | SweepKind::Greedy { .. }
            | SweepKind::Gradient { greedy: Some(_) }
            | SweepKind::Attention { greedy: Some(_) } => true,
            SweepKind::Pairs => joint::follower(self, sweep).is_some(),
            _ => false,
        }
    }

    /// The subset space of a round. `list` is the round's input: for a greedy round the units removed so
    /// far, in order; for a path the whole order; for matched orders that to which they are matched; for follow-ups what
    /// [`joint::encode`] makes; otherwise empty.
    ///
    /// # Panics
    /// Where the plan has no such sweep.
    #[must_use]
    pub fn space(&self, sweep: u32, list: &[UnitIx]) -> SubsetSpace {
        let n = self.units(sweep).len() as u32;
        match &self.sweeps[sweep as usize].kind {
            SweepKind::Reference => SubsetSpace::Reference { n },
            SweepKind::Single
            | SweepKind::Gradient { .. }
            | SweepKind::Attention { .. }
            | SweepKind::Patterns { .. }
            | SweepKind::Repair
            | SweepKind::Fit => SubsetSpace::Single { n },
            SweepKind::Shift => SubsetSpace::Survey { n },
            SweepKind::Pairs => SubsetSpace::Pairs { n },
            SweepKind::Conditional { base } => SubsetSpace::Given { n, base: base.clone() },
            SweepKind::Greedy { .. } => {
                let mut base = list.to_vec();
                base.sort_unstable();
                SubsetSpace::Candidates { n, base }
            }
            SweepKind::Path { .. } => SubsetSpace::Prefixes { order: list.to_vec() },
            SweepKind::Joint { .. } => {
                let slots = joint::slots(&self.sweeps[sweep as usize]) as usize;
                let mut sets = joint::decode(list, n).unwrap_or_default();
                sets.resize(slots, Vec::new());
                SubsetSpace::Listed { sets }
            }
            SweepKind::Random { orders, seed, points } => {
                SubsetSpace::Random(RandomOrders::new(n, *seed, *orders, points.clone()))
            }
            SweepKind::Matched { orders, seed, points, .. } => {
                let layers = self.units(sweep).layers(self.heads());
                SubsetSpace::Random(RandomOrders::matched(
                    layers,
                    list.to_vec(),
                    *seed,
                    *orders,
                    points.clone(),
                ))
            }
        }
    }

    /// Number of subsets in a round, known before the round's input is.
    #[must_use]
    pub fn round_subsets(&self, sweep: u32, round: u32) -> u64 {
        let n = self.units(sweep).len() as u64;
        match &self.sweeps[sweep as usize].kind {
            SweepKind::Greedy { .. } => n.saturating_sub(u64::from(round)),
            SweepKind::Path { greedy, .. } => u64::from(self.sweeps[*greedy as usize].rounds()),
            SweepKind::Joint { .. } => joint::slots(&self.sweeps[sweep as usize]),
            SweepKind::Matched { orders, points, .. } => u64::from(*orders) * points.len() as u64,
            _ => self.space(sweep, &[]).len(),
        }
    }

    /// Number of chunks in a round.
    #[must_use]
    pub fn round_chunks(&self, sweep: u32, round: u32) -> u32 {
        self.round_subsets(sweep, round).div_ceil(u64::from(self.sweeps[sweep as usize].chunk)) as u32
    }

    /// Ranks of a chunk within its round.
    #[must_use]
    pub fn chunk_ranks(&self, sweep: u32, round: u32, chunk: u32) -> std::ops::Range<u64> {
        let size = u64::from(self.sweeps[sweep as usize].chunk);
        let start = u64::from(chunk) * size;
        start..(start + size).min(self.round_subsets(sweep, round))
    }

    /// Chunks of all rounds of all sweeps.
    #[must_use]
    pub fn total_chunks(&self) -> u64 {
        (0..self.sweeps.len() as u32)
            .map(|s| {
                (0..self.sweeps[s as usize].rounds()).map(|r| u64::from(self.round_chunks(s, r))).sum::<u64>()
            })
            .sum()
    }

    /// Subsets of all rounds of all sweeps.
    #[must_use]
    pub fn total_subsets(&self) -> u64 {
        (0..self.sweeps.len() as u32)
            .map(|s| (0..self.sweeps[s as usize].rounds()).map(|r| self.round_subsets(s, r)).sum::<u64>())
            .sum()
    }

    /// Least version of the protocol that its workers must speak.
    #[must_use]
    pub fn protocol(&self) -> u32 {
        self.sweeps.iter().map(|s| s.kind.protocol()).max().unwrap_or(crate::OLDEST_PROTOCOL)
    }

    /// Names and contents' sizes of what workers need besides the model: (hash, items, examples) of each task's
    /// data, then of each reference set.
    pub fn blobs(&self) -> impl Iterator<Item = (&str, u32, u32)> {
        let tasks = self.tasks.iter().map(|t| (t.prepared.as_str(), t.items, t.examples));
        tasks.chain(self.references.iter().map(|r| (r.prepared.as_str(), r.items, r.examples)))
    }

    /// The plan without what doesn't decide its numbers: where files lie, and what things are called.
    #[must_use]
    pub fn without_places(&self) -> Self {
        let mut plan = self.clone();
        plan.spec.name.clear();
        plan.spec.model.source.clear();
        plan.model.title.clear();
        plan.spec.tasks.iter_mut().for_each(|t| t.data = None);
        plan.spec.ablations.iter_mut().for_each(|a| a.reference = None);
        plan
    }

    /// The experiment's identity: blake3 over everything that decides its numbers (see
    /// [`Self::without_places`]), hex.
    ///
    /// # Panics
    /// Never: a plan always serialises.
    #[must_use]
    pub fn identity(&self) -> String {
        let bytes = serde_json::to_vec(&self.without_places()).expect("a plan serialises");
        blake3::hash(&bytes).to_hex().to_string()
    }
}

/// What an accepted round leads to: stored with the round, a pure function of its scores.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Greedy: the unit that this round removes. Other kinds: none.
    pub remove: Option<UnitIx>,
    /// Rounds that can start now: (sweep, round, input list).
    pub opens: Vec<(u32, u32, Vec<UnitIx>)>,
    /// A fit: blake3 of the constants that it gave, hex, their name in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constants: Option<String>,
}
