//! The sweeps of a plan.

use crate::task::Scope;
use crate::units::UnitIx;
use serde::{Deserialize, Serialize};

/// Which order a path of prefixes follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// As the greedy sweep removed.
    Greedy,
    /// By single-head delta on the selecting examples (round 0 of the greedy sweep), ascending.
    Importance,
    /// By gradient importance on the selecting examples (a gradient sweep of their own), ascending.
    Gradient,
    /// By attention rollout on the selecting examples (an attention sweep of their own), ascending.
    Rollout,
}

impl Order {
    /// The name in `curve.parquet`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Greedy => "greedy",
            Self::Importance => "importance",
            Self::Gradient => "gradient",
            Self::Rollout => "rollout",
        }
    }
}

/// How random orders are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shuffle {
    /// As plain shuffles.
    Plain,
    /// As shuffles within layers, which remove as many units of each as greedy does.
    Matched,
}

impl Shuffle {
    /// Every kind, in the order in which they are told.
    pub const ALL: [Self; 2] = [Self::Plain, Self::Matched];

    /// The name in specs and of the sweep; names of single orders begin with it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "random",
            Self::Matched => "matched",
        }
    }

    /// What several such orders are called in sentences.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::Plain => "random orders",
            Self::Matched => "random orders matched per layer",
        }
    }

    /// The kind of an order by its name, as "random-07"; none where it isn't a random one.
    #[must_use]
    pub fn of(order: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| order.starts_with(kind.name()))
    }
}

/// An item whose attention patterns are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// The example that it is a part of.
    pub example: u32,
    /// The item.
    pub item: u32,
    /// Its tokens as people read them: of the queries.
    pub queries: Vec<String>,
    /// Those of the keys; empty where they are the queries'.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
}

impl Shown {
    /// The keys' tokens.
    #[must_use]
    pub fn keys(&self) -> &[String] {
        if self.keys.is_empty() { &self.queries } else { &self.keys }
    }
}

/// What a planned sweep runs over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SweepKind {
    /// The constants of an optimal ablation, head by head; all other sweeps of the ablation wait for them.
    Fit,
    /// Nothing removed, and every head removed: P(0) and the floor.
    Reference,
    /// Every unit.
    Single,
    /// Every pair of units.
    Pairs,
    /// Units that are removed throughout, alone, with every other unit and with every two others: what interactions given these
    /// units are made from.
    Conditional {
        /// Those units, ascending, by their place among the sweep's.
        base: Vec<UnitIx>,
    },
    /// Every unit by the gradient of the loss, with nothing removed: see [`crate::gradient`].
    Gradient {
        /// Index of the greedy sweep whose order of gradient importance it gives; none: a sweep of the spec.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        greedy: Option<u32>,
    },
    /// Every unit's attention patterns, with nothing removed: see [`crate::attention`].
    Attention {
        /// Index of the greedy sweep whose order of rollout it gives; none: a sweep of the spec.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        greedy: Option<u32>,
    },
    /// The whole attention patterns of some items, with nothing removed. The sweep has one task, and its units are heads of
    /// one stream.
    Patterns {
        /// The items, by example. Rows are the cells of each, query by query.
        items: Vec<Shown>,
    },
    /// Every unit with everything downstream frozen: its direct effect.
    Repair,
    /// Norms of the residual stream with nothing, everything, and every unit removed: see [`crate::shift`].
    Shift,
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
        /// Numbers of removed units at which each order is evaluated.
        points: Vec<u32>,
    },
    /// Seeded random orders that remove as many units of each layer as a greedy sweep did, once that has ended.
    Matched {
        /// Index of the greedy sweep in the plan.
        greedy: u32,
        /// Number of orders.
        orders: u32,
        /// Seed.
        seed: u64,
        /// Numbers of removed units at which each order is evaluated.
        points: Vec<u32>,
    },
    /// Sets of units that a pairs sweep calls for, once that has ended: see [`crate::joint`].
    Joint {
        /// Index of the pairs sweep in the plan.
        pairs: u32,
        /// Redundancy groups of each task, at most.
        groups: u32,
        /// Triples of each task, at most.
        triples: u32,
    },
}

impl SweepKind {
    /// The name in tables and progress lines.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Fit => "fit",
            Self::Reference => "reference",
            Self::Single => "single",
            Self::Pairs => "pairs",
            Self::Conditional { .. } => "conditional",
            Self::Gradient { .. } => "gradient",
            Self::Attention { .. } => "attention",
            Self::Patterns { .. } => "patterns",
            Self::Repair => "repair",
            Self::Shift => "shift",
            Self::Greedy { .. } => "greedy",
            Self::Path { order: Order::Greedy, .. } => "path-greedy",
            Self::Path { order: Order::Importance, .. } => "path-importance",
            Self::Path { order: Order::Gradient, .. } => "path-gradient",
            Self::Path { order: Order::Rollout, .. } => "path-rollout",
            Self::Random { .. } => Shuffle::Plain.name(),
            Self::Matched { .. } => Shuffle::Matched.name(),
            Self::Joint { .. } => "joint",
        }
    }

    /// Least version of the protocol that its workers must speak: constants of fits came with version 3; attention, repair,
    /// shift and follow-ups of pairs with 4; matched orders and pairs given a base with 5.
    #[must_use]
    pub fn protocol(&self) -> u32 {
        match self {
            Self::Matched { .. } | Self::Conditional { .. } => 5,
            Self::Attention { .. }
            | Self::Patterns { .. }
            | Self::Repair
            | Self::Shift
            | Self::Joint { .. } => 4,
            Self::Fit => 3,
            _ => crate::OLDEST_PROTOCOL,
        }
    }

    /// Whether it is the same whatever is removed how.
    #[must_use]
    pub fn unablated(&self) -> bool {
        matches!(self, Self::Attention { greedy: None } | Self::Patterns { .. })
    }

    /// Whether pruning curves are made from it: greedy, and what runs along an order of removal.
    #[must_use]
    pub fn prunes(&self) -> bool {
        matches!(self, Self::Greedy { .. } | Self::Path { .. } | Self::Random { .. } | Self::Matched { .. })
    }

    /// Whether its rows are scores of a task, and not numbers of another sort that have a table of their own.
    #[must_use]
    pub fn scores(&self) -> bool {
        !matches!(self, Self::Fit | Self::Attention { .. } | Self::Patterns { .. } | Self::Shift)
    }
}

/// One sweep of a plan. Its id is its index in [`Plan::sweeps`](super::Plan::sweeps).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedSweep {
    /// What it runs over.
    pub kind: SweepKind,
    /// Index of the ablation in the plan.
    pub ablation: u32,
    /// Indices of the tasks that are evaluated.
    pub tasks: Vec<u32>,
    /// Index into [`Plan::units`](super::Plan::units) of the units that it removes.
    pub units: u32,
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
