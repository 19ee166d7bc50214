//! Which lane works on which chunk next.

use super::{Desk, Lease, Opened, Running};
use crate::fetch;
use crate::lane::Job;
use ablate_proto::v1::{self as pb, failure::Kind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

impl Desk {
    /// Chunks for the idle lanes.
    pub fn dispatch(&mut self, now: Instant) -> Vec<(usize, Job)> {
        self.check_shards(now);
        let mut jobs = Vec::new();
        if self.draining || self.unacked.is_full() {
            return jobs;
        }
        for lane in 0..self.lanes.len() {
            if self.lanes[lane].running.is_none()
                && let Some(job) = self.job_for(lane)
            {
                jobs.push((lane, job));
            }
        }
        jobs
    }

    /// Fails the shards of experiments that cannot be opened, and those that are no part of their plan.
    fn check_shards(&mut self, now: Instant) {
        let mut bad = Vec::new();
        for (&id, lease) in self.leases.iter_mut().filter(|(_, l)| !l.todo.is_empty()) {
            match self.experiments.get(&lease.experiment).map(|e| &e.1) {
                Some(Opened::Failed(failure)) => bad.push((id, failure.clone())),
                Some(Opened::Ready(e)) if !lease.checked => {
                    lease.checked = true;
                    let shard = pb::Shard {
                        lease: id,
                        experiment: String::new(),
                        sweep: lease.sweep,
                        round: lease.round,
                        list: lease.list.iter().map(|h| h.0).collect(),
                        first_chunk: lease.todo.start,
                        chunks: lease.todo.len() as u32,
                    };
                    if let Some(detail) = fetch::bad_shard(&e.plan, &shard) {
                        bad.push((id, pb::Failure { detail, kind: Some(Kind::Execution(pb::Execution {})) }));
                    }
                }
                _ => {}
            }
        }
        for (id, failure) in bad {
            let Some(lease) = self.leases.get_mut(&id) else { continue };
            let todo = std::mem::replace(&mut lease.todo, 0..0);
            let (experiment, sweep, round) = (lease.experiment.clone(), lease.sweep, lease.round);
            for chunk in todo {
                self.fail(
                    pb::ChunkId { experiment: experiment.clone(), sweep, round, chunk },
                    id,
                    failure.clone(),
                );
            }
            self.settle(id, Some(now));
        }
    }

    /// The lane's own shard first, then the oldest without a lane, then the end of another lane's.
    fn job_for(&mut self, lane: usize) -> Option<Job> {
        let ready = |l: &Lease| match self.experiments.get(&l.experiment) {
            Some((_, Opened::Ready(e))) if !l.todo.is_empty() => Some(e.clone()),
            _ => None,
        };
        let find = |want: &dyn Fn(&Lease) -> bool| {
            self.leases.iter().find_map(|(&id, l)| ready(l).filter(|_| want(l)).map(|e| (id, e)))
        };
        let (id, experiment, own) = find(&|l| l.lane == Some(lane))
            .or_else(|| find(&|l| l.lane.is_none()))
            .map(|(id, e)| (id, e, true))
            .or_else(|| find(&|_| true).map(|(id, e)| (id, e, false)))?;
        let lease = self.leases.get_mut(&id)?;
        let chunk = if own {
            lease.lane = Some(lane);
            lease.todo.next()?
        } else {
            lease.todo.next_back()?
        };
        lease.running += 1;
        let stop = Arc::new(AtomicBool::new(false));
        let (sweep, round, list) = (lease.sweep, lease.round, lease.list.clone());
        let chunk_id = pb::ChunkId { experiment: lease.experiment.clone(), sweep, round, chunk };
        self.lanes[lane].running = Some(Running { lease: id, id: chunk_id, stop: stop.clone() });
        Some(Job { experiment, sweep, round, list, chunk, stop })
    }
}
