//! One run: nodes with runtimes and clocks of their own, stepped in order by one thread, so that a seed says everything.

mod nodes;

use crate::checks::At;
use crate::disk::{Disk, Sick};
use crate::experiment;
use crate::faults::{self, Bug, Fault, Profile, Setup};
use crate::lane::Pace;
use crate::net::{Net, Shared, Weather};
use crate::trace::{Sim, lock};
use ablate_coordinator::store::{NewExperiment, State, Store};
use futures::FutureExt;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Milliseconds of a step.
const STEP: u64 = 20;
/// Milliseconds after the last fault in which a run must end: the longest silence that anyone waits out, several times.
const PROGRESS: u64 = 240_000;
/// Milliseconds that a run goes on after its end, for what comes late.
const LATE: u64 = 1_000;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// Its kind.
    pub profile: Profile,
    /// What didn't hold.
    pub violations: Vec<String>,
    /// Faults that happened, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Hash of everything that happened.
    pub trace: String,
    /// What happened, where it was asked for.
    pub lines: Vec<String>,
    /// Simulated milliseconds.
    pub ms: u64,
    /// Chunks that lanes began.
    pub computed: u64,
    /// Chunks of the experiment.
    pub planned: u64,
    /// All bytes that tables are made from.
    pub tables: String,
}

/// How to run a seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Keep readable lines.
    pub lines: bool,
    /// A bug to put back.
    pub bug: Option<Bug>,
    /// Another profile than the seed's.
    pub profile: Option<Profile>,
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Panics in tasks are findings, not noise.
fn catch_panics() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let inside = tokio::runtime::Handle::try_current().is_ok();
            if inside {
                PANIC.with_borrow_mut(|p| *p = Some(info.to_string()));
            } else {
                before(info);
            }
        }));
    });
}

struct Node {
    rt: Option<Runtime>,
    main: Option<JoinHandle<String>>,
    life: u64,
    /// Milliseconds of its clock that a step left over.
    carry: f64,
    /// Since when, until when.
    paused: Option<(u64, u64)>,
    up_at: Option<u64>,
    drain: Option<watch::Sender<bool>>,
}

struct World {
    sim: Arc<Sim>,
    disk: Arc<Disk>,
    net: Shared,
    nodes: Vec<Node>,
    setup: Setup,
    paces: Vec<Arc<Pace>>,
    new: Arc<NewExperiment>,
    id: String,
    retry: Arc<AtomicBool>,
    rng: ChaCha8Rng,
    lane_rng: Arc<Mutex<ChaCha8Rng>>,
}

/// Runs a seed.
#[must_use]
pub fn run(seed: u64, options: Options) -> Outcome {
    catch_panics();
    fastrand::seed(seed);
    put_back(options.bug);
    let profile = options.profile.unwrap_or_else(|| Profile::of(seed));
    let outcome = World::new(seed, profile, options).run(seed, profile);
    put_back(None);
    outcome
}

#[cfg(feature = "mutations")]
fn put_back(bug: Option<Bug>) {
    ablate_coordinator::mutation::set(if let Some(Bug::Coordinator(m)) = bug { Some(m) } else { None });
    ablate_worker_client::mutation::set(if let Some(Bug::Worker(m)) = bug { Some(m) } else { None });
}

#[cfg(not(feature = "mutations"))]
fn put_back(_: Option<Bug>) {}

/// The tables of a run in which nothing goes wrong.
fn undisturbed() -> &'static str {
    static TABLES: OnceLock<String> = OnceLock::new();
    TABLES.get_or_init(|| {
        // On a thread of its own: the run that asks has state on its own.
        let calm = || run(0, Options { profile: Some(Profile::Undisturbed), ..Options::default() }).tables;
        std::thread::spawn(calm).join().unwrap_or_default()
    })
}

impl World {
    fn new(seed: u64, profile: Profile, options: Options) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut part = || ChaCha8Rng::seed_from_u64(rng.random());
        let (mut sizes, disk_rng, net_rng, lane_rng, own) = (part(), part(), part(), part(), part());
        let setup = faults::setup(profile, &mut sizes);
        let sim = Arc::new(Sim::new(options.lines));
        let disk = Arc::new(Disk::new(sim.clone(), disk_rng, options.bug));
        let count = setup.coordinators + setup.lanes.len();
        let net = Net::new(sim.clone(), disk.clone(), net_rng, count);
        let new = Arc::new(experiment::experiment(1));
        let most = setup.lanes.iter().max().copied().unwrap_or(1) as usize;
        {
            let mut checks = lock(&sim.checks);
            checks.lease = setup.lease;
            checks.comparable = matches!(profile, Profile::Leases | Profile::Takeover);
            checks.takeover = profile == Profile::Takeover;
            checks.limit = setup.limits.0 + setup.limits.1 + (most + 1) * experiment::largest(&new);
        }
        let pace = |n: usize| {
            Arc::new(Pace {
                chunk: setup.chunk,
                strange: setup.stranger == Some(n),
                poisoned: Mutex::new(setup.poisoned),
                slow: AtomicU64::new(1),
                fails: AtomicU64::new(0),
                garbled: AtomicU64::new(0),
            })
        };
        let node =
            |_| Node { rt: None, main: None, life: 0, carry: 0.0, paused: None, up_at: None, drain: None };
        Self {
            disk,
            net: Arc::new(Mutex::new(net)),
            nodes: (0..count).map(node).collect(),
            paces: (0..setup.lanes.len()).map(pace).collect(),
            id: new.plan.identity(),
            new,
            retry: Arc::default(),
            rng: own,
            lane_rng: Arc::new(Mutex::new(lane_rng)),
            setup,
            sim,
        }
    }

    fn run(mut self, seed: u64, profile: Profile) -> Outcome {
        let mut schedule_rng = ChaCha8Rng::seed_from_u64(self.rng.random());
        let schedule = faults::schedule(profile, &self.setup, &mut schedule_rng);
        self.sim.say(format_args!("seed {seed} {profile:?} {:?}", self.setup));
        for node in 0..self.nodes.len() {
            self.boot(node);
        }
        let mut schedule = schedule.into_iter().peekable();
        let (mut now, mut calm, mut done_at) = (0, false, None);
        loop {
            now += STEP;
            self.sim.set_now(now);
            while let Some((_, fault)) = schedule.next_if(|(at, _)| *at <= now) {
                self.apply(fault, now);
            }
            if !calm && now >= self.setup.calm {
                calm = true;
                self.heal(profile);
            }
            self.wake(now);
            lock(&self.net).step(&self.net);
            self.step_nodes();
            if let Some(what) = PANIC.take() {
                self.sim.violated("no panic", format_args!("{what}"));
            }
            if self.sim.failed() {
                break;
            }
            if now % 500 == 0 && done_at.is_none() && calm && self.done() {
                done_at = Some(now);
            }
            if done_at.is_some_and(|at| now >= at + LATE) {
                self.compare(profile);
                break;
            }
            if now > self.setup.calm + PROGRESS {
                let state = self.state();
                let left = self.sim.now() - self.setup.calm;
                self.sim.violated("progress", format_args!("{left} ms after the last fault it is {state:?}"));
                break;
            }
        }
        let tables = self.tables();
        for node in 0..self.nodes.len() {
            self.stop(node, true);
        }
        let (violations, faults, trace, lines) = self.sim.end();
        let computed = lock(&self.sim.checks).computed;
        let planned = self.new.plan.total_chunks();
        Outcome { seed, profile, violations, faults, trace, lines, ms: now, computed, planned, tables }
    }

    fn apply(&mut self, fault: Fault, now: u64) {
        self.sim.say(format_args!("fault: {fault:?}"));
        match fault {
            Fault::Crash { node, silent, down } => {
                if self.nodes[node].rt.is_some() {
                    self.sim.fault(if silent { "machines lost" } else { "crashes" });
                    self.stop(node, silent);
                    self.nodes[node].up_at = Some(now + down);
                }
            }
            Fault::Pause { node, ms } => {
                let at = &mut self.nodes[node];
                if at.rt.is_some() && at.paused.is_none() {
                    self.sim.fault("pauses");
                    at.paused = Some((now, now + ms));
                    lock(&self.net).hosts[node].paused = true;
                }
            }
            Fault::Jump { node, ms } => {
                let at = &mut self.nodes[node];
                if at.rt.is_some() {
                    self.sim.fault("clock jumps");
                    at.carry += ms as f64;
                }
            }
            Fault::Clock { ms } => {
                self.sim.fault(if ms < 0 { "wall clock steps back" } else { "wall clock steps ahead" });
                self.disk.step_clock(ms);
            }
            Fault::Block { from, to } => {
                let mut net = lock(&self.net);
                net.blocked.insert((from, to));
                let both = net.blocked.contains(&(to, from));
                self.sim.fault(if both { "partitions both ways" } else { "partitions one way" });
            }
            Fault::Unblock { from, to } => {
                lock(&self.net).blocked.remove(&(from, to));
            }
            Fault::Weather(weather) => {
                if weather.late > 0 {
                    self.sim.fault("delays");
                }
                lock(&self.net).weather = weather;
            }
            Fault::Disk(sick) => {
                if sick.slow > 0 {
                    self.sim.fault("slow disks");
                }
                self.disk.set(sick);
            }
            Fault::Slow { worker, times } => {
                if times > 1 {
                    self.sim.fault("slow nodes");
                }
                self.paces[worker].slow.store(times, Ordering::Relaxed);
            }
            Fault::Engine { worker, fails, garbled } => {
                self.paces[worker].fails.store(fails, Ordering::Relaxed);
                self.paces[worker].garbled.store(garbled, Ordering::Relaxed);
            }
            Fault::Drain { worker } => {
                if let Some(drain) = &self.nodes[self.setup.coordinators + worker].drain {
                    self.sim.fault("drains");
                    // A worker that has ended listens no more.
                    let _ = drain.send(true);
                }
            }
        }
    }

    /// Faults stop.
    fn heal(&mut self, profile: Profile) {
        self.sim.say(format_args!("faults stop"));
        {
            let mut net = lock(&self.net);
            net.blocked.clear();
            net.weather = Weather::default();
        }
        self.disk.set(Sick::default());
        for pace in &self.paces {
            pace.slow.store(1, Ordering::Relaxed);
            *lock(&pace.poisoned) = None;
            pace.fails.store(0, Ordering::Relaxed);
            pace.garbled.store(0, Ordering::Relaxed);
        }
        for (n, node) in self.nodes.iter_mut().enumerate() {
            // In a takeover the old leader stays away.
            if profile != Profile::Takeover {
                node.up_at = node.up_at.map(|_| 0);
            }
            if let Some((since, _)) = node.paused {
                node.paused = Some((since, 0));
                self.sim.say(format_args!("node {n} goes on"));
            }
        }
        self.retry.store(true, Ordering::Relaxed);
    }

    fn state(&self) -> Option<State> {
        let all = self.disk.store.experiments().now_or_never()?.ok()?;
        all.into_iter().find(|s| s.id == self.id).map(|s| s.state)
    }

    fn done(&self) -> bool {
        self.state() == Some(State::Done) && self.disk.accepted().len() as u64 == self.new.plan.total_chunks()
    }

    fn tables(&self) -> String {
        let results = self.disk.store.results(&self.id).now_or_never();
        results.and_then(Result::ok).map(|r| experiment::tables(&r)).unwrap_or_default()
    }

    /// What must hold at the end.
    fn compare(&self, profile: Profile) {
        let planned = self.new.plan.total_chunks();
        let accepted: BTreeMap<At, usize> = self.disk.accepted();
        if accepted.len() as u64 != planned || accepted.values().any(|&n| n != 1) {
            let n = accepted.len();
            self.sim.violated(
                "accepted once",
                format_args!("{n} of {planned} chunks are accepted: {accepted:?}"),
            );
        }
        let aside = self.disk.store.quarantined(&self.id).now_or_never().and_then(Result::ok);
        if aside.is_none_or(|all| all.iter().any(|q| accepted.contains_key(&(q.0, q.1, q.2)))) {
            self.sim.violated(
                "one bad thing stops only itself",
                format_args!("a chunk is set aside, and its result is there"),
            );
        }
        match self.disk.store.results(&self.id).now_or_never() {
            Some(Ok(r))
                if r.run.computed == r.run.accepted + r.run.duplicate
                    && r.run.accepted == planned
                    && r.run.differing.is_empty() => {}
            Some(Ok(r)) => self.sim.violated("accepted once", format_args!("it is counted as {:?}", r.run)),
            _ => self.sim.violated("nothing lives only in memory", format_args!("there are no results")),
        }
        if profile != Profile::Undisturbed && self.tables() != undisturbed() {
            self.sim.violated(
                "same identity, same numbers",
                format_args!("the tables aren't the undisturbed run's"),
            );
        }
    }
}
