//! Optimal ablation: the constants that replace z, how they are fitted, and what a fit stores.
//!
//! b of a head is one vector of `head_dim`, the same at every position of every item, that minimises ℓ
//! ([`crate::gradient::loss`], over all examples of the data it is fitted on) with this head alone ablated
//! [optimal ablation, arXiv 2409.09951]. It begins at the mean of z over the data's tokens and takes [`Adam`]'s steps along the
//! whole gradient. What is kept is the best of all that were seen, so that ℓ is never above that of the mean.

use crate::decide::Round;
use crate::plan::{Plan, SweepKind};
use crate::scores::{ChunkScores, TaskScores};

/// The one column of a fit: its rows are the [`FACTS`], then the constant's numbers.
pub const COLUMNS: [&str; 1] = ["fit"];

/// Numbers before the constant's: ℓ with nothing removed, with the mean, and with the constant; and the step that gave it.
const FACTS: u32 = 4;

/// Rows that a fit stores of a head.
#[must_use]
pub fn rows(head_dim: u32) -> u32 {
    FACTS + head_dim
}

/// What a fit found for one head and task.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// ℓ with nothing removed.
    pub nothing: f64,
    /// ℓ with the mean in place of z.
    pub mean: f64,
    /// ℓ with the constant in place of z: at most `mean`.
    pub fitted: f64,
    /// The step after which the constant was seen; 0: it is the mean.
    pub step: u32,
    /// b, `[head_dim]`.
    pub constant: Vec<f64>,
}

impl Fitted {
    /// As stored.
    #[must_use]
    pub fn rows(&self) -> Vec<f64> {
        let mut out = vec![self.nothing, self.mean, self.fitted, f64::from(self.step)];
        out.extend(&self.constant);
        out
    }

    /// That of the head at `unit` of a block; none where the block has another shape.
    #[must_use]
    pub fn of(block: &TaskScores, unit: usize) -> Option<Self> {
        let n = block.examples as usize;
        let [nothing, mean, fitted, step, constant @ ..] = block.values.get(unit * n..(unit + 1) * n)? else {
            return None;
        };
        let (nothing, mean, fitted, step) = (*nothing, *mean, *fitted, *step as u32);
        Some(Self { nothing, mean, fitted, step, constant: constant.to_vec() })
    }
}

/// The sweep that fits the constants of an ablation; none where it has none.
#[must_use]
pub fn sweep_of(plan: &Plan, ablation: u32) -> Option<u32> {
    let fits = |s: &crate::plan::PlannedSweep| s.ablation == ablation && s.kind == SweepKind::Fit;
    plan.sweeps.iter().position(fits).map(|at| at as u32)
}

/// Whether a sweep can only run once the constants of its ablation are known.
#[must_use]
pub fn waits(plan: &Plan, sweep: u32) -> bool {
    plan.sweeps
        .get(sweep as usize)
        .is_some_and(|s| s.kind != SweepKind::Fit && sweep_of(plan, s.ablation).is_some())
}

/// All constants of a fit whose chunks are complete: what a worker is given, as one chunk of all heads.
///
/// # Errors
/// Where a chunk is missing or doesn't have the plan's shape (a damaged store).
pub fn whole(plan: &Plan, sweep: u32, scores: &Round) -> Result<ChunkScores, String> {
    let tasks = &plan.sweeps[sweep as usize].tasks;
    let empty =
        |&task| TaskScores { task, examples: rows(plan.model.head_dim), columns: 1, values: Vec::new() };
    let mut out = ChunkScores { subsets: 0, tasks: tasks.iter().map(empty).collect() };
    for chunk in 0..plan.round_chunks(sweep, 0) {
        let part = scores.get(&chunk).ok_or_else(|| format!("chunk {chunk} is missing"))?;
        out.subsets += part.subsets;
        for (at, all) in out.tasks.iter_mut().enumerate() {
            let block = part.tasks.get(at).filter(|b| b.task == all.task && b.examples == all.examples);
            let block = block.ok_or_else(|| format!("chunk {chunk} doesn't have the plan's shape"))?;
            all.values.extend(&block.values);
        }
    }
    check(plan, sweep, &out).map(|()| out)
}

/// Whether constants are those of every head and task of a fit.
///
/// # Errors
/// Says that they aren't.
pub fn check(plan: &Plan, sweep: u32, constants: &ChunkScores) -> Result<(), String> {
    let (heads, width) = (plan.heads().len() as u32, rows(plan.model.head_dim));
    let tasks = &plan.sweeps[sweep as usize].tasks;
    let whole = |b: &TaskScores| {
        b.examples == width && b.columns == 1 && b.values.len() == (heads as usize) * (width as usize)
    };
    let same = constants.tasks.iter().map(|b| b.task).eq(tasks.iter().copied());
    if constants.subsets != heads || !same || !constants.tasks.iter().all(whole) {
        return Err("the fitted constants aren't those of the plan's heads and tasks".to_owned());
    }
    Ok(())
}

/// Adam [Kingma & Ba 2015], without weight decay, β = (0.9, 0.999) and ε = 1e-8 as in PyTorch.
#[derive(Clone, Debug)]
pub struct Adam {
    rate: f64,
    step: i32,
    first: Vec<f64>,
    second: Vec<f64>,
}

const BETAS: (f64, f64) = (0.9, 0.999);
const EPSILON: f64 = 1e-8;

impl Adam {
    /// For `width` numbers, with a learning rate in their own unit.
    #[must_use]
    pub fn new(width: usize, rate: f64) -> Self {
        Self { rate, step: 0, first: vec![0.0; width], second: vec![0.0; width] }
    }

    /// Moves `x` along its gradient.
    pub fn step(&mut self, x: &mut [f64], gradient: &[f64]) {
        self.step += 1;
        let (b1, b2) = BETAS;
        let rate = self.rate / (1.0 - b1.powi(self.step));
        let root = (1.0 - b2.powi(self.step)).sqrt();
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((x, g), (m, v)) in x.iter_mut().zip(gradient).zip(moments) {
            *m = b1 * *m + (1.0 - b1) * g;
            *v = b2 * *v + (1.0 - b2) * g * g;
            *x -= rate * *m / (v.sqrt() / root + EPSILON);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adam_finds_the_bottom_of_a_bowl() {
        let (mut x, mut adam) = ([3.0, -2.0], Adam::new(2, 0.1));
        for _ in 0..500 {
            let gradient = [2.0 * (x[0] - 1.0), 20.0 * (x[1] - 0.5)];
            adam.step(&mut x, &gradient);
        }
        assert!((x[0] - 1.0).abs() < 1e-3 && (x[1] - 0.5).abs() < 1e-3, "{x:?}");
    }

    #[test]
    fn what_a_fit_stores_is_read_back() {
        let one = Fitted { nothing: 1.0, mean: 3.0, fitted: 2.0, step: 7, constant: vec![0.5, -0.5] };
        let other = Fitted { step: 0, ..one.clone() };
        let values = [one.rows(), other.rows()].concat();
        let block = TaskScores { task: 0, examples: rows(2), columns: 1, values };
        assert_eq!([Fitted::of(&block, 0), Fitted::of(&block, 1)], [Some(one), Some(other)]);
        assert_eq!(Fitted::of(&block, 2), None);
    }
}
