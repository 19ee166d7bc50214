//! The experiment spec (TOML): an immutable description of what to remove, from what, measured how.

mod ablations;
mod parse;
mod table;
#[cfg(test)]
mod tests;

pub use parse::parse;

use crate::head::Stream;
use crate::metric::Metric;
use crate::plan::{Ablation, Order};
use crate::task::TaskKind;
use crate::units::{HeadSet, UnitKind};
use serde::{Deserialize, Serialize};

/// What is wrong with a spec: one line with the place, the problem and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin}:{line}: {what}")]
pub struct Error {
    /// Name of the file.
    pub origin: String,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong and what to do.
    pub what: String,
}

/// A checked spec with every default filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Name of the experiment: its default folder is `runs/NAME`.
    pub name: String,
    /// Seed of everything random: halves, generated tasks, random orders, bootstrap.
    pub seed: u64,
    /// The model.
    pub model: ModelSpec,
    /// Tasks; the first is the default objective.
    pub tasks: Vec<TaskSpec>,
    /// Ablations; sweeps run for each.
    pub ablations: Vec<AblationSpec>,
    /// Sweeps.
    pub sweeps: Vec<SweepSpec>,
}

/// `[model]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelSpec {
    /// Path of a Hugging Face directory or of a .gguf file, as written in the spec.
    pub source: String,
    /// Number format of the computation.
    pub dtype: Dtype,
    /// Expected sha256 of the weights file (hex, a prefix will do), checked where given.
    pub sha256: Option<String>,
}

/// Number format of the computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 64-bit float.
    F64,
    /// 32-bit float.
    F32,
    /// bfloat16; norms, softmax and losses in f32.
    Bf16,
    /// 16-bit IEEE float, with the same parts in f32. Residual streams over 65,504 become infinite, and scores
    /// say so.
    F16,
}

/// `[[task]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Name in tables; unique.
    pub name: String,
    /// Kind.
    pub kind: TaskKind,
    /// Data file as written in the spec; none for generated tasks.
    pub data: Option<String>,
    /// Most examples to use; none: all.
    pub examples: Option<u32>,
    /// Longest sequence in tokens.
    pub max_tokens: u32,
    /// Metric of the tables.
    pub metric: Metric,
    /// Expected sha256 of the data file (hex, a prefix will do), checked where given.
    pub sha256: Option<String>,
    /// Classification: whether by a probe (or else the model's own head); none: where the model has no head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<bool>,
    /// Classification: share of the documents that a probe is fitted on; none: half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<f64>,
}

/// `[[ablation]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AblationSpec {
    /// What replaces z.
    #[serde(flatten)]
    pub method: Ablation,
    /// What is removed as a whole.
    pub unit: UnitKind,
    /// The named sets of [`UnitKind::Set`], in the file's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<HeadSet>,
    /// File of the reference set that means and donors come from, as written; none: the evaluation set.
    pub reference: Option<String>,
}

/// Of heads, over the evaluation set.
impl From<Ablation> for AblationSpec {
    fn from(method: Ablation) -> Self {
        Self { method, unit: UnitKind::Head, sets: Vec::new(), reference: None }
    }
}

/// `[[sweep]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepSpec {
    /// What is removed.
    pub kind: SweepKindSpec,
    /// Names of the tasks it is narrowed to; none: all.
    pub tasks: Option<Vec<String>>,
    /// Streams it is narrowed to; none: all.
    pub streams: Option<Vec<Stream>>,
}

/// Kinds of sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SweepKindSpec {
    /// Every unit alone.
    Single,
    /// Every pair of units.
    Pairs {
        /// Whether the joint delta of redundancy groups is measured.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        groups: bool,
        /// Triples of each task that are measured, for interactions of the third order.
        #[serde(default, skip_serializing_if = "is_zero")]
        third_order: u32,
    },
    /// Every pair of units with other units already removed: pairs with a `base`.
    Conditional {
        /// Names of the units that are removed throughout, as written; none twice.
        base: Vec<String>,
    },
    /// Every unit by the gradient of the loss.
    Gradient,
    /// Every head's attention patterns, with nothing removed.
    Attention {
        /// Examples whose whole patterns are kept.
        patterns: Vec<u32>,
    },
    /// Every unit with everything downstream frozen.
    Repair,
    /// Norms of the residual stream without units.
    Shift,
    /// Greedy pruning.
    Greedy {
        /// Share of the units to remove, in (0, 1]: ⌈fraction · N⌉ of the sweep's N units.
        fraction: f64,
        /// Name of the task it minimises.
        objective: String,
        /// Whether it selects on one half of the documents and reports on the other.
        halves: bool,
        /// Orders of the curve beside `random` and `matched`.
        orders: Vec<Order>,
        /// Number of random orders that are plain shuffles (0: none).
        random: u32,
        /// Number of random orders that remove as many units of each layer as greedy does (0: none).
        #[serde(default, skip_serializing_if = "is_zero")]
        matched: u32,
    },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}
