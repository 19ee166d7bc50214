//! What befalls the cluster, and how it is undone.

use crate::cluster::{COORDINATOR, Cluster, WORKERS};
use fastrand::Rng;
use std::path::Path;
use std::time::Duration;

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

impl Fault {
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

    /// Inflicts it and undoes it after 0.2 to 3 s.
    ///
    /// # Errors
    /// Where the tools fail: never because the cluster suffers.
    pub fn befall(self, cluster: &mut Cluster, disk: &Path, random: &mut Rng) -> anyhow::Result<()> {
        let worker = random.usize(1..=WORKERS);
        let while_it_lasts = || std::thread::sleep(Duration::from_millis(200));
        let ticks = random.u32(1..15);
        let last = |cluster: &mut Cluster, down: Option<usize>| {
            for _ in 0..ticks {
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
