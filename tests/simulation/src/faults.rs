//! What goes wrong in a run, and when: all from the seed.

use crate::disk::Sick;
use crate::net::Weather;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// A known bug, put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A second result for a chunk is accepted too.
    AcceptsTwice,
    /// Writes don't check the epoch.
    WritesWithoutEpoch,
    /// A standby leads without raising the epoch.
    LeadsWithoutEpoch,
    /// In the coordinator.
    #[cfg(feature = "mutations")]
    Coordinator(ablate_coordinator::mutation::Mutation),
    /// At the worker's desk.
    #[cfg(feature = "mutations")]
    Worker(ablate_worker_client::mutation::Mutation),
}

/// What kind of run a seed gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Nothing goes wrong.
    Undisturbed,
    /// Everything that can.
    Storm,
    /// Slow lanes, clocks that drift and one-way partitions: leases run out while their work goes on.
    Leases,
    /// A leader dies, and nothing else happens.
    Takeover,
}

impl Profile {
    /// A seed's.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        match seed % 8 {
            0 => Self::Takeover,
            1 | 2 => Self::Leases,
            _ => Self::Storm,
        }
    }
}

/// Sizes of a run.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Coordinators.
    pub coordinators: usize,
    /// Workers, by their lanes.
    pub lanes: Vec<u32>,
    /// Milliseconds of a chunk.
    pub chunk: u64,
    /// Lease in ms.
    pub lease: u64,
    /// How long a coordinator leads without renewing, in ms.
    pub lead: u64,
    /// How fast each node's clock goes.
    pub rates: Vec<f64>,
    /// Bytes of results that workers keep in memory and in files.
    pub limits: (usize, usize),
    /// When faults stop, in ms.
    pub calm: u64,
    /// Share of the chunks that are audited, in millionths.
    pub audit: u32,
    /// A worker of another release, whose engine computes slightly other numbers.
    pub stranger: Option<usize>,
    /// A chunk (its sweep, and its number in the first round) that fails on every worker until faults stop.
    pub poisoned: Option<(u32, u32)>,
}

/// One thing that goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// A process ends at once, for so many ms; `silent`: with its machine.
    Crash { node: usize, silent: bool, down: u64 },
    /// A process stands still for so many ms, while its clock goes on.
    Pause { node: usize, ms: u64 },
    /// A node's clock jumps ahead. It is monotonic, as all clocks that the programs read: it never goes back.
    Jump { node: usize, ms: u64 },
    /// The database's clock is set: ahead or back. It is the only wall clock that anything depends on.
    Clock { ms: i64 },
    /// Nothing goes from one node to another.
    Block { from: usize, to: usize },
    /// It goes again.
    Unblock { from: usize, to: usize },
    /// The network's state.
    Weather(Weather),
    /// The disk's state.
    Disk(Sick),
    /// A worker's lanes take so many times as long.
    Slow { worker: usize, times: u64 },
    /// Of a thousand chunks so many fail, and so many come out garbled.
    Engine { worker: usize, fails: u64, garbled: u64 },
    /// A worker is told to finish and leave.
    Drain { worker: usize },
}

/// The sizes that a seed gives.
pub fn setup(profile: Profile, rng: &mut ChaCha8Rng) -> Setup {
    let several = [1, 2, 2, 2, 3][rng.random_range(0..5)];
    let workers = rng.random_range(1..=4);
    let lanes: Vec<u32> = (0..workers).map(|_| rng.random_range(1..=2)).collect();
    let mut setup = Setup {
        coordinators: several,
        chunk: rng.random_range(200..900),
        lease: rng.random_range(6..12) * 1000,
        lead: rng.random_range(2..6) * 1000,
        rates: Vec::new(),
        limits: if rng.random_range(0..4) == 0 { (60, 100) } else { (1 << 20, 1 << 20) },
        calm: rng.random_range(15_000..40_000),
        lanes,
        audit: 0,
        stranger: None,
        poisoned: None,
    };
    match profile {
        Profile::Undisturbed => {
            setup = Setup { coordinators: 1, lanes: vec![1], calm: 0, limits: (1 << 20, 1 << 20), ..setup };
        }
        Profile::Takeover => {
            setup.coordinators = setup.coordinators.max(2);
            setup.lanes = (0..rng.random_range(2..4)).map(|_| rng.random_range(1..=2)).collect();
            setup.chunk = rng.random_range(1500..2500);
            setup.lease = 30_000;
            setup.limits = (1 << 20, 1 << 20);
            setup.calm = 20_000;
        }
        Profile::Leases => {
            setup.chunk = rng.random_range(1500..4000);
            setup.lease = 6_000;
            setup.calm = 40_000;
        }
        Profile::Storm => {}
    }
    let drift = if profile == Profile::Undisturbed { 0.0 } else { 0.05 };
    let nodes = setup.coordinators + setup.lanes.len();
    setup.rates = (0..nodes).map(|_| 1.0 + drift * rng.random_range(-1.0..1.0)).collect();
    if profile == Profile::Storm && rng.random_range(0..4) == 0 {
        setup.audit = 300_000;
    }
    if profile == Profile::Storm && rng.random_range(0..6) == 0 {
        setup.poisoned = Some((rng.random_range(1..3), rng.random_range(0..2)));
    }
    if profile == Profile::Storm && rng.random_range(0..6) == 0 {
        setup.stranger = Some(setup.lanes.len());
        setup.lanes.push(1);
        setup.rates.push(1.0);
    }
    setup
}

/// What goes wrong, in order: (ms, fault).
pub fn schedule(profile: Profile, setup: &Setup, rng: &mut ChaCha8Rng) -> Vec<(u64, Fault)> {
    let mut all = Vec::new();
    let nodes = setup.coordinators + setup.lanes.len();
    match profile {
        Profile::Undisturbed => {}
        Profile::Takeover => {
            // The first coordinator leads: it began first.
            let at = rng.random_range(3_000..10_000);
            all.push((at, Fault::Crash { node: 0, silent: false, down: 60_000 }));
        }
        Profile::Leases => {
            for _ in 0..rng.random_range(2..6) {
                let (worker, coordinator) = pair(setup, rng);
                let (from, to) =
                    if rng.random_bool(0.7) { (worker, coordinator) } else { (coordinator, worker) };
                let at = rng.random_range(1_000..setup.calm - 12_000);
                let until = at + rng.random_range(4_000..12_000);
                all.push((at, Fault::Block { from, to }));
                all.push((until, Fault::Unblock { from, to }));
            }
        }
        Profile::Storm => {
            for _ in 0..rng.random_range(3..14) {
                let at = rng.random_range(0..setup.calm - 1_000);
                let ms = rng.random_range(200..10_000);
                one(setup, nodes, at, ms, rng, &mut all);
            }
            if setup.limits.0 < 1 << 10 {
                // Results that nobody can store pile up.
                let at = rng.random_range(1_000..6_000);
                let slow = rng.random_range(4_000..12_000);
                all.push((at, Fault::Disk(Sick { slow, ..Sick::default() })));
            }
        }
    }
    all.retain(|(at, _)| *at < setup.calm);
    all.sort_by_key(|(at, _)| *at);
    all
}

fn pair(setup: &Setup, rng: &mut ChaCha8Rng) -> (usize, usize) {
    let worker = setup.coordinators + rng.random_range(0..setup.lanes.len());
    (worker, rng.random_range(0..setup.coordinators))
}

fn one(setup: &Setup, nodes: usize, at: u64, ms: u64, rng: &mut ChaCha8Rng, all: &mut Vec<(u64, Fault)>) {
    let node = rng.random_range(0..nodes);
    let (worker, coordinator) = pair(setup, rng);
    match rng.random_range(0..16) {
        0 | 1 => all.push((at, Fault::Crash { node, silent: rng.random_bool(0.3), down: ms })),
        2 => {
            let node = rng.random_range(0..setup.coordinators);
            all.push((at, Fault::Crash { node, silent: rng.random_bool(0.3), down: ms }));
        }
        3 | 4 => all.push((at, Fault::Pause { node, ms })),
        5 => all.push((at, Fault::Jump { node, ms })),
        15 if setup.coordinators > 1 => {
            let ms = ms as i64;
            all.push((at, Fault::Clock { ms: if rng.random_bool(0.5) { ms } else { -ms } }));
        }
        6 | 7 => {
            let both = rng.random_bool(0.5);
            let (from, to) = if rng.random_bool(0.5) { (worker, coordinator) } else { (coordinator, worker) };
            all.push((at, Fault::Block { from, to }));
            all.push((at + ms, Fault::Unblock { from, to }));
            if both {
                all.push((at, Fault::Block { from: to, to: from }));
                all.push((at + ms, Fault::Unblock { from: to, to: from }));
            }
        }
        8..=10 => {
            let weather = Weather {
                lost: rng.random_range(0..40),
                twice: rng.random_range(0..80),
                overtake: rng.random_range(0..60),
                late: rng.random_range(1..1500),
            };
            all.push((at, Fault::Weather(weather)));
            all.push((at + ms, Fault::Weather(Weather::default())));
        }
        11 => {
            let sick = Sick {
                fails: rng.random_range(50..600),
                unanswered: rng.random_range(0..300),
                full: false,
                slow: rng.random_range(0..400),
            };
            all.push((at, Fault::Disk(sick)));
            all.push((at + ms, Fault::Disk(Sick::default())));
        }
        12 => {
            let sick = if rng.random_bool(0.5) {
                Sick { full: true, ..Sick::default() }
            } else {
                Sick { slow: rng.random_range(500..5_000), ..Sick::default() }
            };
            all.push((at, Fault::Disk(sick)));
            all.push((at + ms, Fault::Disk(Sick::default())));
        }
        13 => {
            let worker = worker - setup.coordinators;
            all.push((at, Fault::Slow { worker, times: rng.random_range(3..30) }));
            all.push((at + ms, Fault::Slow { worker, times: 1 }));
        }
        _ => {
            let worker = worker - setup.coordinators;
            if rng.random_bool(0.2) {
                all.push((at, Fault::Drain { worker }));
            } else {
                let (fails, garbled) = (rng.random_range(50..500), rng.random_range(0..200));
                all.push((at, Fault::Engine { worker, fails, garbled }));
                all.push((at + ms, Fault::Engine { worker, fails: 0, garbled: 0 }));
            }
        }
    }
}
