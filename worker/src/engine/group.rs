//! Tasks that show the model the same (see [`ablate_common::sharing`]) go through it together: one pass over each batch,
//! which computes the logits' positions of all of them, and of which each task reads its own.

use super::base::{BaseSet, DeviceBatch};
use super::decode::Decoding;
use super::pass::{Finished, Pass};
use super::score::{Beside, Collector};
use super::trie::Trie;
use super::walk::{Donors, Room};
use super::{Engine, Error};
use ablate_common::head::HeadIx;
use ablate_common::metric::Metric;
use ablate_common::scores::{ChunkScores, TaskScores};
use ablate_common::task::Scope;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tch::Tensor;

/// What comes behind heads that are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// The model as it then runs.
    Running,
    /// What the unablated model had there: see [`Pass::direct`].
    Frozen,
}

/// What a chunk does to the model.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work<'a> {
    /// Which ablation.
    pub ablation: u32,
    /// Heads that every subset removes.
    pub base: &'a [HeadIx],
    /// What subsets do beyond that.
    pub trie: &'a Trie,
    /// Number of subsets.
    pub subsets: usize,
    /// Which examples.
    pub scope: Scope,
    /// What comes behind the heads that it removes.
    pub how: How,
    /// Set when it is to stop.
    pub stop: &'a AtomicBool,
}

/// Batches that several tasks share, with the places of each task's positions among those that are scored.
pub(super) type Joint = Vec<(DeviceBatch, Vec<Option<Tensor>>)>;

impl Engine {
    /// The scores of some tasks, in their order.
    pub(super) fn run_tasks(&mut self, tasks: &[u32], work: Work<'_>) -> Result<ChunkScores, Error> {
        let mut groups: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for &task in tasks {
            groups.entry(self.sharing.first_under(&self.plan, work.ablation, task)).or_default().push(task);
        }
        let mut blocks = BTreeMap::new();
        for (first, group) in groups {
            // Metrics of the same columns on the same data are one and the same block.
            let mut distinct: Vec<u32> = Vec::new();
            for &task in &group {
                if !distinct.iter().any(|&t| self.one_block(t, task)) {
                    distinct.push(task);
                }
            }
            let scores = self.run_group(first, &distinct, work)?;
            for task in group {
                let own = distinct.iter().position(|&t| self.one_block(t, task));
                let own = own.and_then(|at| scores.get(at));
                let own = own.ok_or_else(|| Error::Failed(format!("task {task} has no scores")))?;
                blocks.insert(task, TaskScores { task, ..own.clone() });
            }
        }
        let tasks = tasks.iter().filter_map(|t| blocks.get(t).cloned()).collect();
        Ok(ChunkScores { subsets: work.subsets as u32, tasks })
    }

    /// Whether two tasks store the same scores.
    fn one_block(&self, a: u32, b: u32) -> bool {
        let (a, b) = (&self.plan.tasks[a as usize], &self.plan.tasks[b as usize]);
        a.prepared == b.prepared && a.columns() == b.columns()
    }

    /// The scores of tasks that show the model the same and replace z by the same, of which `first` is the first of the
    /// plan.
    fn run_group(&mut self, first: u32, tasks: &[u32], work: Work<'_>) -> Result<Vec<TaskScores>, Error> {
        let Work { ablation, base, trie, subsets, scope, how, stop } = work;
        let Some(&task) = tasks.first() else { return Ok(Vec::new()) };
        for &task in tasks {
            self.prepare_batches(task, scope);
            self.prepare_finals(task, scope);
            self.prepare_probe(task, stop)?;
        }
        self.prepare_replacement(first, ablation);
        self.prepare_joint(tasks, scope);
        let shared = Arc::clone(&self.model);
        let model = &shared.0;
        let prepared = Arc::clone(&self.prepared);
        let joint = self.joint.get(&(tasks.to_vec(), scope));
        let batches = &self.batches[&(task, scope)];
        let replacement = self.replacements.get(&(first, ablation)).map(Arc::as_ref);
        let (keep, donated) = (self.keep(ablation), self.donors_of(task, ablation));
        let key = match base {
            [] => (self.sharing.first(task), scope, None),
            _ => (first, scope, Some(ablation)),
        };
        let set = self.bases.entry(key).or_insert_with(|| BaseSet::empty(model, batches.len()));
        let mut by_stage = vec![Vec::new(); model.blocks.len()];
        for head in base.iter().filter_map(|&ix| self.plan.heads().head(ix)) {
            by_stage[self.plan.heads().stage_of(head)].push(head.head);
        }
        set.move_to(model, &by_stage, keep, replacement);
        let metrics: Vec<Metric> = tasks.iter().map(|&t| self.plan.tasks[t as usize].metric).collect();
        let mut collectors: Vec<Collector<'_>> = tasks
            .iter()
            .zip(&metrics)
            .map(|(&t, &metric)| Collector::new(model, t, &prepared[t as usize], metric, scope, subsets))
            .collect();
        let mut donors = donated.map(|(items, of)| Donors {
            shared: &shared,
            items: &prepared[items],
            of,
            states: self.donors.entry((first, scope, ablation)).or_default(),
        });
        let mut room = Room::of(self.room, model, batches, donors.is_some());
        for (at, alone) in batches.iter().enumerate() {
            let (batch, picks) = match joint.and_then(|j| j.get(at)) {
                Some((batch, picks)) => (batch, picks.as_slice()),
                None => (alone, &[][..]),
            };
            let tokens = donors.as_mut().map(|d| d.get(at, batch));
            let replacement = tokens.or(replacement);
            let (state, views) = set.state_with(model, at, batch, tokens);
            self.passes += 1;
            let pass = Pass { model, batch, base: state, views, replacement };
            let done = match how {
                How::Running => pass.run(trie, stop),
                How::Frozen => pass.direct(trie, subsets, stop),
            };
            for done in done.map_err(|_| Error::Stopped)? {
                for (m, (&task, collector)) in tasks.iter().zip(&mut collectors).enumerate() {
                    let finals = self.finals.get(&(task, scope));
                    let beside =
                        Beside { unablated: finals.and_then(|f| f.get(at)), probe: self.probes.get(&task) };
                    let own = picks.get(m).and_then(Option::as_ref).map(|pick| Finished {
                        subsets: done.subsets.clone(),
                        x: done.x.index_select(1, pick),
                    });
                    let batch = &self.batches[&(task, scope)][at];
                    collector.take(model, batch, own.as_ref().unwrap_or(&done), beside);
                }
            }
            for ((&task, collector), _) in
                tasks.iter().zip(&mut collectors).zip(&metrics).filter(|(_, m)| **m == Metric::Bleu)
            {
                let items = &prepared[task as usize].items;
                let decoding = Decoding { pass: &pass, removed: &by_stage, keep, items };
                let decoded = decoding.run(trie, subsets, stop).map_err(|_| Error::Stopped)?;
                collector.take_decoded(&self.batches[&(task, scope)][at], &decoded);
            }
            room.leave(model, at, batch, set, donors.as_mut());
        }
        Ok(collectors.into_iter().map(|c| c.finish(model)).collect())
    }

    /// The batches that tasks share, where they score different positions.
    fn prepare_joint(&mut self, tasks: &[u32], scope: Scope) {
        let key = (tasks.to_vec(), scope);
        if tasks.len() < 2 || self.joint.contains_key(&key) {
            return;
        }
        let of = |task: &u32| &self.batches[&(*task, scope)];
        let batches = tasks.first().map_or(0, |t| of(t).len());
        let joint: Option<Joint> = (0..batches)
            .map(|at| {
                let members: Vec<&DeviceBatch> = tasks.iter().map(|t| &of(t)[at]).collect();
                DeviceBatch::joint(&self.model.0, &members)
            })
            .collect();
        self.joint.insert(key, joint.unwrap_or_default());
    }
}
