//! The recorded plan of an experiment: everything that decides which numbers come out, chosen once
//! and stored, so that every replay computes the same batches. Chunks are derived from it by
//! arithmetic.

use crate::head::{HeadIx, HeadMap};
use crate::metric::Metric;
use crate::model::ModelInfo;
use crate::space::{RandomOrders, SubsetSpace};
use crate::spec::Spec;
use crate::task::{Scope, TaskKind};
use serde::{Deserialize, Serialize};

/// What replaces a removed head's z.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case")]
pub enum Ablation {
    /// ẑ = 0.
    Zero,
    /// ẑ = the mean of z over the evaluation set of the same task.
    Mean {
        /// What the mean runs over.
        pool: Pool,
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
            Self::Scale { .. } => "scale",
        }
    }
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

/// Which order a path of prefixes follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// As the greedy sweep removed.
    Greedy,
    /// By single-head delta on the selecting examples (round 0 of the greedy sweep), ascending.
    Importance,
}

impl Order {
    /// The name in `curve.parquet`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Greedy => "greedy",
            Self::Importance => "importance",
        }
    }
}

/// What a planned sweep runs over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SweepKind {
    /// Nothing removed, and everything removed: P(0) and the floor.
    Reference,
    /// Every head.
    Single,
    /// Every pair.
    Pairs,
    /// Rounds of single removals on top of what is already gone.
    Greedy {
        /// Rounds.
        steps: u32,
        /// Index (in the plan's tasks) of the task it minimises.
        objective: u32,
    },
    /// The prefixes of an order that a greedy sweep gives, once that has ended.
    Path {
        /// Index of the greedy sweep in the plan.
        greedy: u32,
        /// Which order.
        order: Order,
    },
    /// Seeded random orders.
    Random {
        /// Number of orders.
        orders: u32,
        /// Seed.
        seed: u64,
        /// Numbers of removed heads at which each order is evaluated.
        points: Vec<u32>,
    },
}

impl SweepKind {
    /// The name in tables and progress lines.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Single => "single",
            Self::Pairs => "pairs",
            Self::Greedy { .. } => "greedy",
            Self::Path { order: Order::Greedy, .. } => "path-greedy",
            Self::Path { order: Order::Importance, .. } => "path-importance",
            Self::Random { .. } => "random",
        }
    }
}

/// One sweep of a plan. Its id is its index in [`Plan::sweeps`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedSweep {
    /// What it runs over.
    pub kind: SweepKind,
    /// Index of the ablation in the plan.
    pub ablation: u32,
    /// Indices of the tasks that are evaluated.
    pub tasks: Vec<u32>,
    /// Examples that are evaluated.
    pub scope: Scope,
    /// Subsets per chunk; the last chunk of a round may hold fewer.
    pub chunk: u32,
}

impl PlannedSweep {
    /// Rounds of the sweep: the steps of a greedy one, otherwise 1.
    #[must_use]
    pub fn rounds(&self) -> u32 {
        match self.kind {
            SweepKind::Greedy { steps, .. } => steps,
            _ => 1,
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
    pub ablations: Vec<Ablation>,
    /// Sweeps, in the order in which they are worked off.
    pub sweeps: Vec<PlannedSweep>,
}

impl Plan {
    /// All heads of the model.
    #[must_use]
    pub fn heads(&self) -> &HeadMap {
        &self.model.heads
    }

    /// The subset space of a round. `list` is the round's input: for a greedy round the heads removed so
    /// far, in order; for a path the whole order; otherwise empty.
    ///
    /// # Panics
    /// Where the plan has no such sweep.
    #[must_use]
    pub fn space(&self, sweep: u32, list: &[HeadIx]) -> SubsetSpace {
        let n = self.heads().len() as u32;
        match &self.sweeps[sweep as usize].kind {
            SweepKind::Reference => SubsetSpace::Reference { n },
            SweepKind::Single => SubsetSpace::Single { n },
            SweepKind::Pairs => SubsetSpace::Pairs { n },
            SweepKind::Greedy { .. } => {
                let mut base = list.to_vec();
                base.sort_unstable();
                SubsetSpace::Candidates { n, base }
            }
            SweepKind::Path { .. } => SubsetSpace::Prefixes { order: list.to_vec() },
            SweepKind::Random { orders, seed, points } => {
                SubsetSpace::Random(RandomOrders::new(n, *seed, *orders, points.clone()))
            }
        }
    }

    /// Number of subsets in a round, known before the round's input is.
    #[must_use]
    pub fn round_subsets(&self, sweep: u32, round: u32) -> u64 {
        let n = self.heads().len() as u64;
        match &self.sweeps[sweep as usize].kind {
            SweepKind::Greedy { .. } => n.saturating_sub(u64::from(round)),
            SweepKind::Path { greedy, .. } => u64::from(self.sweeps[*greedy as usize].rounds()),
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

    /// The experiment's identity: blake3 over everything that decides its numbers (where files lie and
    /// what the experiment is called are left out), hex.
    ///
    /// # Panics
    /// Never: a plan always serialises.
    #[must_use]
    pub fn identity(&self) -> String {
        let mut plan = self.clone();
        plan.spec.name.clear();
        plan.spec.model.source.clear();
        plan.model.title.clear();
        plan.spec.tasks.iter_mut().for_each(|t| t.data = None);
        let bytes = serde_json::to_vec(&plan).expect("a plan serialises");
        blake3::hash(&bytes).to_hex().to_string()
    }
}

/// What an accepted round leads to: stored with the round, a pure function of its scores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Greedy: the head that this round removes. Other kinds: none.
    pub remove: Option<HeadIx>,
    /// Rounds that can start now: (sweep, round, input list).
    pub opens: Vec<(u32, u32, Vec<HeadIx>)>,
}
