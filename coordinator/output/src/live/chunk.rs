//! What a group takes of a chunk.

use super::At;
use crate::results::Results;
use ablate_common::scores::{ChunkScores, TaskScores};
use ablate_common::task::Scope;

/// A task's part of a chunk, whose shape was checked.
pub(super) struct Chunk<'c> {
    block: &'c TaskScores,
    pub scope: Scope,
    /// Rank of its first subset.
    first: u64,
    subsets: usize,
}

impl<'c> Chunk<'c> {
    pub fn of(
        frame: &Results,
        (sweep, round, chunk): At,
        scores: &ChunkScores,
        block: &'c TaskScores,
        task: u32,
    ) -> Option<Self> {
        let planned = frame.plan.sweeps.get(sweep as usize)?;
        let prepared = frame.prepared.get(task as usize)?;
        let ranks = frame.plan.chunk_ranks(sweep, round, chunk);
        let subsets = scores.subsets as usize;
        let fits = block.task == task
            && u64::from(scores.subsets) == ranks.end.saturating_sub(ranks.start)
            && block.columns as usize == frame.plan.columns(sweep, task).len()
            && block.examples as usize == frame.plan.rows(sweep, prepared).len()
            && block.values.len() == subsets * block.columns as usize * block.examples as usize;
        fits.then_some(Self { block, scope: planned.scope, first: ranks.start, subsets })
    }

    pub fn columns(&self, subset: usize) -> Vec<&'c [f64]> {
        (0..self.block.columns as usize).map(|c| self.block.column(subset, c)).collect()
    }

    /// The subset at a rank, where it is in here.
    pub fn at(&self, rank: u64) -> Option<usize> {
        usize::try_from(rank.checked_sub(self.first)?).ok().filter(|&i| i < self.subsets)
    }

    pub fn each(&self) -> impl Iterator<Item = (u64, Vec<&'c [f64]>)> + '_ {
        (0..self.subsets).map(|i| (self.first + i as u64, self.columns(i)))
    }
}
