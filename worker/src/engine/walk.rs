//! The unablated model over a task's batches, one after the other, and what an ablation puts in place of z there: what attention, shift
//! and gradient sweeps begin with, and what is measured of a task once.

use super::base::{BaseSet, BaseState, DeviceBatch};
use super::classify::FittedProbe;
use super::model::{AttnView, Model};
use super::replace::{DonorStates, Replacement};
use super::{Engine, SharedModel, donor_bytes, room, state_bytes};
use ablate_common::plan::Ablation;
use ablate_common::task::{Prepared, Scope};
use std::iter::Enumerate;
use std::slice::Iter;
use std::sync::Arc;

/// Goes over a task's batches. What was computed stays in memory as far as there is room, for whoever goes over them next.
pub(super) struct Walk<'a> {
    pub model: &'a Model,
    pub batches: &'a [DeviceBatch],
    /// The task's probe, where it was fitted.
    pub probe: Option<&'a FittedProbe>,
    set: &'a mut BaseSet,
    /// b where it is the same for every batch.
    fixed: Option<&'a Replacement>,
    donors: Option<Donors<'a>>,
    passes: &'a mut u64,
    ahead: Enumerate<Iter<'a, DeviceBatch>>,
    /// The batch that was shown last.
    last: Option<(usize, &'a DeviceBatch)>,
    room: Room,
}

/// Where z of donors comes from, and where it is kept.
pub(super) struct Donors<'a> {
    pub shared: &'a SharedModel,
    pub items: &'a Prepared,
    /// For each item of the task its donor among `items`.
    pub of: Vec<u32>,
    pub states: &'a mut DonorStates,
}

/// How many bytes of what was computed of batches may stay in memory, and do.
pub(super) struct Room {
    bytes: u64,
    held: u64,
}

/// A batch as the unablated model runs over it.
pub(super) struct Unablated<'a> {
    pub batch: &'a DeviceBatch,
    pub base: &'a BaseState,
    pub views: &'a [AttnView],
    /// b of every head under the walk's ablation; none: 0.
    pub replacement: Option<&'a Replacement>,
    /// The engine's count: whoever runs a pass over the batch adds it.
    pub passes: &'a mut u64,
}

impl Engine {
    /// A walk over a task's batches, with what an ablation puts in place of z where there is one.
    pub(super) fn walk(&mut self, task: u32, scope: Scope, ablation: Option<u32>) -> Walk<'_> {
        self.prepare_batches(task, scope);
        // (first task, ablation), which b is kept under.
        let key = ablation.map(|a| (self.sharing.first_under(&self.plan, a, task), a));
        if let Some((first, ablation)) = key {
            self.prepare_replacement(first, ablation);
        }
        let donated = ablation.and_then(|a| self.donors_of(task, a));
        let donors = key.zip(donated).map(|((first, ablation), (items, of))| Donors {
            shared: &self.model,
            items: &self.prepared[items],
            of,
            states: self.donors.entry((first, scope, ablation)).or_default(),
        });
        let model = &self.model.0;
        let batches = &self.batches[&(task, scope)];
        let set = self
            .bases
            .entry((self.sharing.first(task), scope, None))
            .or_insert_with(|| BaseSet::empty(model, batches.len()));
        Walk {
            model,
            batches,
            probe: self.probes.get(&task),
            set,
            fixed: key.and_then(|k| self.replacements.get(&k)).map(Arc::as_ref),
            room: Room::of(self.room, model, batches, donors.is_some()),
            donors,
            passes: &mut self.passes,
            ahead: batches.iter().enumerate(),
            last: None,
        }
    }

    /// Where an ablation takes z of a task's donors from, if it does: the number of what was prepared, and for each item its
    /// donor there.
    pub(super) fn donors_of(&self, task: u32, ablation: u32) -> Option<(usize, Vec<u32>)> {
        let source = match self.plan.ablations[ablation as usize].method {
            Ablation::Resample { .. } => self.source(task, ablation),
            _ => return None,
        };
        let items = source.reference.map_or(task as usize, |r| self.plan.tasks.len() + r as usize);
        Some((items, source.donors))
    }
}

impl Walk<'_> {
    /// The next batch. The one before isn't needed any more.
    pub fn next_batch(&mut self) -> Option<Unablated<'_>> {
        if let Some((at, batch)) = self.last.take() {
            self.room.leave(self.model, at, batch, self.set, self.donors.as_mut());
        }
        let (at, batch) = self.ahead.next()?;
        self.last = Some((at, batch));
        let tokens = self.donors.as_mut().map(|d| d.get(at, batch));
        let (base, views) = self.set.state(self.model, at, batch);
        let replacement = tokens.or(self.fixed);
        Some(Unablated { batch, base, views, replacement, passes: &mut *self.passes })
    }
}

impl Room {
    pub fn of(given: (u64, u64), model: &Model, batches: &[DeviceBatch], resampled: bool) -> Self {
        Self { bytes: room(given, model, batches, resampled), held: 0 }
    }

    /// Gives back a batch's memory where there is no room for more.
    pub fn leave(
        &mut self,
        model: &Model,
        at: usize,
        batch: &DeviceBatch,
        set: &mut BaseSet,
        donors: Option<&mut Donors<'_>>,
    ) {
        self.held += state_bytes(model, batch);
        if donors.is_some() {
            self.held += donor_bytes(model, batch);
        }
        if self.held > self.bytes {
            set.forget(at);
            if let Some(donors) = donors {
                donors.states.forget(at);
            }
        }
    }
}

impl Donors<'_> {
    pub fn get(&mut self, at: usize, batch: &DeviceBatch) -> &Replacement {
        self.states.get(at, || self.shared.donated(self.items, &self.of, batch))
    }
}
