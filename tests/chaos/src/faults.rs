//! What befalls the cluster, and how it is undone.

use crate::cluster::{COORDINATOR, Cluster, LEASE_OVER, LINK_DEAD, WORKERS};
use fastrand::Rng;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often what ended by itself is looked for.
const LOOK: Duration = Duration::from_millis(200);

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// kill −9 of a worker; started again after a while.
    KillWorker,
    /// kill −9 of the coordinator; likewise.
    KillCoordinator,
    /// kill −9 of everything at once.
    KillAll,
    /// SIGSTOP of a worker, then SIGCONT: it wakes up late.
    StopWorker,
    /// SIGSTOP of the coordinator, then SIGCONT.
    StopCoordinator,
    /// A worker's link is down for a while.
    CutWorker,
    /// The coordinator's link is down for a while.
    CutCoordinator,
    /// A worker's link carries 64 kbit/s for a while.
    SlowWorker,
    /// SIGTERM of a worker, as a machine that is taken away sends; another comes.
    DrainWorker,
    /// SIGTERM of the coordinator, as an upgrade does; it is started again.
    RestartCoordinator,
    /// The disk of the store has no room for a while. SQLite only.
    FillDisk,
}

/// How long a fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// 0.2 to 2.8 s: over before a lease is.
    Short,
    /// At least half a second longer than it takes the coordinator to give a lease away.
    PastLease,
    /// At least a second longer than it takes a worker to find its connection dead.
    PastLink,
}

impl Length {
    /// Of a round's faults, one after another: its own kind, which is the 1st, 2nd, 4th and 5th, gets each.
    const TURNS: [Self; 6] =
        [Self::Short, Self::PastLease, Self::Short, Self::PastLink, Self::PastLease, Self::Short];

    /// Of a round's fault with this number.
    #[must_use]
    pub fn of(number: u32) -> Self {
        Self::TURNS[number as usize % Self::TURNS.len()]
    }

    fn draw(self, random: &mut Rng) -> Duration {
        match self {
            Self::Short => Duration::from_millis(random.u64(200..2800)),
            Self::PastLease => LEASE_OVER + Duration::from_millis(random.u64(500..2000)),
            Self::PastLink => LINK_DEAD + Duration::from_millis(random.u64(1000..3000)),
        }
    }
}

impl Fault {
    /// Whether it keeps a lease's two sides apart while both live: those may last long.
    #[must_use]
    pub fn parts(self) -> bool {
        matches!(self, Self::StopWorker | Self::StopCoordinator | Self::CutWorker | Self::CutCoordinator)
    }

    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::KillWorker,
        Self::CutWorker,
        Self::KillCoordinator,
        Self::StopWorker,
        Self::KillAll,
        Self::CutCoordinator,
        Self::StopCoordinator,
        Self::SlowWorker,
        Self::DrainWorker,
        Self::RestartCoordinator,
        Self::FillDisk,
    ];

    /// Its name in the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::KillWorker => "kill_worker",
            Self::KillCoordinator => "kill_coordinator",
            Self::KillAll => "kill_all",
            Self::StopWorker => "stop_worker",
            Self::StopCoordinator => "stop_coordinator",
            Self::CutWorker => "cut_worker",
            Self::CutCoordinator => "cut_coordinator",
            Self::SlowWorker => "slow_worker",
            Self::DrainWorker => "drain_worker",
            Self::RestartCoordinator => "restart_coordinator",
            Self::FillDisk => "fill_disk",
        }
    }

    /// Inflicts it and undoes it after its time. Kinds that don't part a lease's two sides last short.
    ///
    /// # Errors
    /// Where the tools fail: never because the cluster suffers.
    pub fn befall(
        self,
        cluster: &mut Cluster,
        disk: &Path,
        length: Length,
        random: &mut Rng,
    ) -> anyhow::Result<()> {
        let worker = random.usize(1..=WORKERS);
        let while_it_lasts = || std::thread::sleep(LOOK);
        let time = if self.parts() { length } else { Length::Short }.draw(random);
        let last = |cluster: &mut Cluster, down: Option<usize>| {
            let began = Instant::now();
            while began.elapsed() < time {
                while_it_lasts();
                // What falls by itself is started again, as it would be.
                cluster.supervise(down)?;
            }
            anyhow::Ok(())
        };
        match self {
            Self::KillWorker => {
                cluster.kill(worker)?;
                last(cluster, Some(worker))?;
            }
            Self::KillCoordinator => {
                cluster.kill(COORDINATOR)?;
                last(cluster, Some(COORDINATOR))?;
            }
            Self::KillAll => {
                (0..=WORKERS).try_for_each(|h| cluster.kill(h))?;
                while_it_lasts();
            }
            Self::StopWorker | Self::StopCoordinator => {
                let host = if self == Self::StopWorker { worker } else { COORDINATOR };
                cluster.signal(host, "STOP")?;
                last(cluster, Some(host))?;
                cluster.signal(host, "CONT")?;
            }
            Self::CutWorker | Self::CutCoordinator => {
                let host = if self == Self::CutWorker { worker } else { COORDINATOR };
                cluster.net.cut(host)?;
                last(cluster, None)?;
                cluster.net.mend(host)?;
            }
            Self::SlowWorker => {
                cluster.net.slow(worker, 64)?;
                last(cluster, None)?;
                cluster.net.speed_up(worker)?;
            }
            Self::DrainWorker => cluster.end(worker)?,
            Self::RestartCoordinator => cluster.end(COORDINATOR)?,
            Self::FillDisk => {
                fill(disk);
                last(cluster, None)?;
                std::fs::remove_file(disk.join("ballast"))?;
            }
        }
        cluster.supervise(None)
    }
}

/// Writes until there is no room.
fn fill(disk: &Path) {
    use std::io::Write;
    let Ok(mut file) = std::fs::File::create(disk.join("ballast")) else { return };
    for size in [1 << 16, 1 << 12, 1] {
        let block = vec![7u8; size];
        while file.write_all(&block).is_ok() {}
    }
}
