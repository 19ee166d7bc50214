//! Scores by gradient: what of a task is differentiated, what a gradient sweep stores, and how heads are ranked by it.
//!
//! For each unit and row (an example, or for similarity a text) there are two numbers, both sums over the unit's heads and the
//! positions of the row's items: `gradient`, zᵀ ∂ℓ/∂z, the derivative of ℓ by a factor of z at 1 [Michel 2019]; and `attribution`,
//! (ẑ − z)ᵀ ∂ℓ/∂z, where ẑ = ξ z + (1 − ξ) b is what the ablation puts in place of z: the first-order estimate of what it does to ℓ
//! (attribution patching). ℓ is oriented as a loss, and the row's own: a sum over tokens where tables weigh by token.

use crate::scores::TaskScores;
use crate::task::{Prepared, Scope, TaskKind};

/// The scores that are kept per unit and row.
pub const COLUMNS: [&str; 2] = ["gradient", "attribution"];

/// What is differentiated in a task of a kind, whatever its metric: the metric oriented as a loss where it is a mean of something
/// smooth, and otherwise the kind's own loss, which the metric follows.
#[must_use]
pub fn loss(kind: TaskKind) -> &'static str {
    match kind {
        TaskKind::LanguageModeling
        | TaskKind::MaskedLm
        | TaskKind::Induction
        | TaskKind::Seq2seq
        | TaskKind::NextTokenChoice
        | TaskKind::Classification => "loss",
        TaskKind::Ioi | TaskKind::LogitDifference => "-logit_diff",
        TaskKind::GreaterThan => "-prob_diff",
        TaskKind::Similarity => "-pearson",
    }
}

/// Whether rows are items: −Pearson isn't a mean over pairs, but its gradient is a sum over texts. A text's scores are its
/// part times the number of texts, so that their mean is the whole.
#[must_use]
pub fn by_item(kind: TaskKind) -> bool {
    kind == TaskKind::Similarity
}

/// Weight and document of each row of a scope, in their order.
#[must_use]
pub fn weights(prepared: &Prepared, scope: Scope) -> (Vec<f64>, Vec<u32>) {
    if by_item(prepared.kind) {
        let items = prepared.items_in(scope);
        return (vec![1.0; items.len()], items);
    }
    let rows = prepared.examples_in(scope).into_iter().map(|e| &prepared.examples[e as usize]);
    rows.map(|e| (f64::from(prepared.scored_tokens(e)), e.cluster)).unzip()
}

/// I_h of the unit at `unit` of a block: Σ |zᵀ ∂ℓ/∂z| over the rows by their weights.
#[must_use]
pub fn importance(block: &TaskScores, unit: usize, weights: &[f64]) -> f64 {
    let sum: f64 = block.column(unit, 0).iter().map(|g| g.abs()).sum();
    sum / weights.iter().sum::<f64>()
}
