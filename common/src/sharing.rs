//! Which tasks of a plan run the same forward passes: those that show the model the same sequences in the same batches.
//! What they score there may differ.

use crate::plan::{Ablation, Plan, PlannedTask, Source};
use crate::task::{Item, Prepared};

/// For each task the first that shows the model the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    first: Vec<u32>,
}

impl Sharing {
    /// That of a plan's tasks; `prepared` are their data, in the same order.
    #[must_use]
    pub fn of(tasks: &[PlannedTask], prepared: &[Prepared]) -> Self {
        let mut first: Vec<u32> = Vec::with_capacity(tasks.len());
        for (at, (task, data)) in (0u32..).zip(tasks.iter().zip(prepared)) {
            let same = |&t: &u32| {
                let (other, shown) = (&tasks[t as usize], &prepared[t as usize]);
                other.all == task.all
                    && other.select == task.select
                    && shows_the_same(&shown.items, &data.items)
            };
            // Only first ones are compared with: being equal is transitive.
            let firsts = (0..at).filter(|&t| first[t as usize] == t);
            first.push(firsts.into_iter().find(same).unwrap_or(at));
        }
        Self { first }
    }

    /// The first task that shows the model what `task` does: the unablated model's states are the same.
    #[must_use]
    pub fn first(&self, task: u32) -> u32 {
        self.first.get(task as usize).copied().unwrap_or(task)
    }

    /// The first task that shows the model what `task` does, and under an ablation replaces z by the same: all states
    /// are.
    #[must_use]
    pub fn first_under(&self, plan: &Plan, ablation: u32, task: u32) -> u32 {
        let sources = plan.ablations.get(ablation as usize).map_or(&[][..], |a| a.sources.as_slice());
        let none = Source::default();
        let source = |t: u32| sources.get(t as usize).unwrap_or(&none);
        if plan.ablations.get(ablation as usize).is_some_and(|a| matches!(a.method, Ablation::Optimal { .. }))
        {
            // Every task has constants of its own.
            return task;
        }
        (0..task).find(|&t| self.first(t) == self.first(task) && source(t) == source(task)).unwrap_or(task)
    }
}

/// Whether the model reads the same in both.
fn shows_the_same(a: &[Item], b: &[Item]) -> bool {
    let same = |(a, b): (&Item, &Item)| a.tokens == b.tokens && a.decoder == b.decoder && a.image == b.image;
    a.len() == b.len() && a.iter().zip(b).all(same)
}
