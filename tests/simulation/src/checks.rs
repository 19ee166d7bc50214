//! The invariants of ARCHITECTURE.md, watched from outside: on the wire, at the disk, at the lanes.

use crate::disk::Disk;
use crate::trace::Sim;
use ablate_common::scores::ChunkScores;
use ablate_proto::v1::{self, coordinator_message::Body as Told, worker_message::Body as Said};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// (sweep, round, chunk).
pub type At = (u32, u32, u32);

#[derive(Debug)]
struct Run {
    at: At,
    lease: Option<u64>,
    stop: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Grant {
    conn: u64,
    worker: usize,
    sweep: u32,
    round: u32,
    chunks: std::ops::Range<u32>,
    granted: u64,
    heard: Option<u64>,
}

/// What must hold, and what is known for it.
#[derive(Debug, Default)]
pub struct Checks {
    /// Lease that workers are told, in ms.
    pub lease: u64,
    /// Whether all clocks run nearly alike, so that both sides of a lease can be compared.
    pub comparable: bool,
    /// Whether nothing but a takeover happens, so that leases that workers bring must be taken over.
    pub takeover: bool,
    /// Bytes of results that a worker may keep.
    pub limit: usize,
    /// Whether the experiment has ended, for now.
    pub over: bool,
    /// Chunks begun by lanes.
    pub computed: u64,
    running: BTreeMap<(usize, u32), Run>,
    kept: BTreeMap<usize, BTreeMap<At, usize>>,
    grants: BTreeMap<u64, Grant>,
    brought: BTreeMap<At, (u64, u64)>,
    /// Results that a worker had when it was welcomed and hasn't sent since, and when that was.
    owed: BTreeMap<usize, (u64, BTreeSet<At>)>,
    garbled: BTreeSet<(u64, At)>,
    tainted: BTreeSet<u64>,
}

/// How long a message may have been on its way out of a process.
const UNDER_WAY: u64 = 500;

/// What is set aside isn't leased until a user wants it again. An old leader may not know it yet.
fn not_set_aside(sim: &Sim, disk: &Disk, from: usize, s: &v1::Shard) {
    for chunk in s.first_chunk..s.first_chunk + s.chunks {
        let at = (s.sweep, s.round, chunk);
        if let Some(since) = disk.aside(at, s.lease >> 32)
            && sim.now() > since + UNDER_WAY
        {
            sim.violated(
                "one bad thing stops only itself",
                format_args!("node {from} leases {at:?}, which is set aside since {since} ms"),
            );
        }
    }
}

fn at(id: &v1::ChunkId) -> At {
    (id.sweep, id.round, id.chunk)
}

impl Checks {
    /// A stream isn't what a transport makes of it any more.
    pub fn taint(&mut self, conn: u64) {
        self.tainted.insert(conn);
    }

    /// A worker's process is gone, with all that it had.
    pub fn crashed(&mut self, node: usize) {
        self.running.retain(|k, _| k.0 != node);
        self.kept.remove(&node);
        self.owed.remove(&node);
    }

    /// A lane begins a chunk.
    pub fn begun(&mut self, sim: &Sim, node: usize, lane: u32, at: At, stop: &Arc<AtomicBool>) {
        let fits = |g: &&Grant| {
            g.worker == node
                && g.heard.is_some()
                && (g.sweep, g.round) == (at.0, at.1)
                && g.chunks.contains(&at.2)
        };
        let lease = self.grants.iter().rev().find(|(_, g)| fits(g)).map(|(&id, _)| id);
        sim.say(format_args!("lane {node}.{lane} begins {at:?} under {lease:?}"));
        self.computed += 1;
        self.running.insert((node, lane), Run { at, lease, stop: stop.clone() });
    }

    /// A lane has ended a chunk, with so many bytes of scores.
    pub fn ended(&mut self, sim: &Sim, node: usize, lane: u32, bytes: Option<usize>) {
        let Some(run) = self.running.remove(&(node, lane)) else { return };
        sim.say(format_args!("lane {node}.{lane} ends {:?}: {bytes:?} bytes", run.at));
        let Some(bytes) = bytes else { return };
        let kept = self.kept.entry(node).or_default();
        kept.insert(run.at, bytes);
        let all: usize = kept.values().sum();
        if all > self.limit {
            let limit = self.limit;
            sim.violated(
                "limits on everything",
                format_args!("node {node} keeps {all} bytes of results, over {limit}"),
            );
        }
    }

    /// A worker sends.
    pub fn worker_says(&mut self, sim: &Sim, conn: u64, nodes: [usize; 2], message: v1::WorkerMessage) {
        let Some(body) = message.body else { return };
        let [from, to] = nodes;
        match body {
            Said::Result(r) => {
                let Some(id) = &r.id else { return };
                sim.say(format_args!("{from}→{to} result {:?} lease {}", at(id), r.lease));
                if let Some((_, owed)) = self.owed.get_mut(&from) {
                    owed.remove(&at(id));
                }
                if ChunkScores::decode(&r.scores).is_err() {
                    self.garbled.insert((conn, at(id)));
                }
            }
            Said::Failed(f) => sim.say(format_args!("{from}→{to} failed {:?} lease {}", f.id, f.lease)),
            other => sim.say(format_args!("{from}→{to} {other:?}")),
        }
    }

    /// A worker's message has come.
    pub fn coordinator_hears(&mut self, sim: &Sim, conn: u64, nodes: [usize; 2], message: v1::WorkerMessage) {
        sim.say(format_args!("{}→{} arrived on {conn}", nodes[0], nodes[1]));
        let Some(Said::Renew(r)) = message.body else { return };
        for held in r.held {
            for chunk in held.chunks {
                self.brought.insert((held.sweep, held.round, chunk), (conn, sim.now()));
            }
        }
    }

    /// A coordinator sends.
    pub fn coordinator_says(
        &mut self,
        sim: &Sim,
        disk: &Disk,
        conn: u64,
        nodes: [usize; 2],
        message: v1::CoordinatorMessage,
    ) {
        let Some(body) = message.body else { return };
        let [worker, from] = nodes;
        match &body {
            Told::Open(o) => return sim.say(format_args!("{from}→{worker} open {}", o.experiment)),
            Told::Ack(v1::Ack { id: Some(id), .. }) => {
                let at = at(id);
                if !disk.has(at) && !self.garbled.contains(&(conn, at)) {
                    sim.violated(
                        "durable before acknowledged",
                        format_args!(
                            "node {from} acknowledges {at:?} to node {worker}, and the disk doesn't have it"
                        ),
                    );
                }
            }
            Told::Shard(s) => {
                not_set_aside(sim, disk, from, s);
                self.granted(sim, conn, worker, s);
            }
            Told::Revoke(r) => self.revoked(sim, r.lease),
            _ => {}
        }
        sim.say(format_args!("{from}→{worker} {body:?}"));
    }

    fn granted(&mut self, sim: &Sim, conn: u64, worker: usize, s: &v1::Shard) {
        let chunks = s.first_chunk..s.first_chunk + s.chunks;
        if self.takeover {
            for chunk in chunks.clone() {
                let at = (s.sweep, s.round, chunk);
                // A copy for a slow worker comes later than this.
                if let Some(&(by, when)) = self.brought.get(&at)
                    && by != conn
                    && sim.now() < when + 2_500
                {
                    sim.violated(
                        "two-sided leases",
                        format_args!("chunk {at:?} was brought on connection {by}, and is leased to node {worker} all the same"),
                    );
                }
                if let Some((has, _)) =
                    self.owed.iter().find(|(_, (when, owed))| sim.now() > when + 1_000 && owed.contains(&at))
                {
                    sim.violated(
                        "durable before acknowledged",
                        format_args!("node {has} had {at:?} unacknowledged and never sent it again: it is computed anew"),
                    );
                }
            }
        }
        let grant =
            Grant { conn, worker, sweep: s.sweep, round: s.round, chunks, granted: sim.now(), heard: None };
        self.grants.insert(s.lease, grant);
    }

    /// A lease that isn't over is taken back: it ran out.
    fn revoked(&mut self, sim: &Sim, lease: u64) {
        let Some(grant) = self.grants.get(&lease) else { return };
        // A worker counts a lease from when it hears of it: one that came late is no fault of either.
        let late = grant.heard.is_some_and(|h| h - grant.granted > self.lease * 3 / 10);
        if self.over || !self.comparable || late || self.tainted.contains(&grant.conn) {
            return;
        }
        for (&(node, lane), run) in &self.running {
            if node == grant.worker && run.lease == Some(lease) && !run.stop.load(Ordering::Relaxed) {
                sim.violated(
                    "two-sided leases",
                    format_args!(
                        "lease {lease} is given away while lane {node}.{lane} works on {:?} under it",
                        run.at
                    ),
                );
            }
        }
    }

    /// A coordinator's message has come.
    pub fn worker_hears(&mut self, sim: &Sim, node: usize, message: v1::CoordinatorMessage) {
        match message.body {
            Some(Told::Shard(s)) => {
                sim.say(format_args!("node {node} has lease {}", s.lease));
                if let Some(g) = self.grants.get_mut(&s.lease) {
                    g.heard.get_or_insert(sim.now());
                }
            }
            Some(Told::Ack(v1::Ack { id: Some(id), .. })) => {
                if let Some(kept) = self.kept.get_mut(&node) {
                    kept.remove(&at(&id));
                }
            }
            Some(Told::Welcome(_)) => {
                let kept = self.kept.get(&node).into_iter().flat_map(|k| k.keys().copied()).collect();
                self.owed.insert(node, (sim.now(), kept));
            }
            Some(Told::Close(_)) => {
                self.kept.remove(&node);
                self.owed.remove(&node);
            }
            _ => {}
        }
    }
}
