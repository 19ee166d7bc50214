//! Rounds: each runs the sweep anew under faults and compares its tables with those of an undisturbed run.

use crate::cluster::Cluster;
use crate::faults::{Fault, Length};
use ablate_load::service::{ablate, said};
use ablate_test_postgres::Server;
use anyhow::{Context, bail, ensure};
use fastrand::Rng;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a sweep may take once nothing befalls it any more.
const PATIENCE: Duration = Duration::from_mins(4);
/// Faults of a round, at most.
const FAULTS: u32 = 6;
/// Room on the disk of a round's SQLite store, in MB.
const DISK_MB: u32 = 48;

/// Where the state is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// A file on a small disk of its own.
    Sqlite,
    /// A server beside the cluster, reached over a socket.
    Postgres,
}

impl Store {
    /// Its name in the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        if self == Self::Sqlite { "sqlite" } else { "postgres" }
    }
}

/// The experiment and what it gives undisturbed.
#[derive(Debug)]
pub struct Truth {
    folder: PathBuf,
    spec: PathBuf,
    bin: PathBuf,
    tables: BTreeMap<String, Vec<u8>>,
}

impl Truth {
    /// Runs MiniLM's single and pairs sweeps and a small greedy one on `texts` texts of 8 tokens, undisturbed.
    ///
    /// # Errors
    /// Where the programs or the model aren't there.
    pub fn of_minilm(folder: &Path, texts: usize) -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("the checkout")?;
        let all = std::fs::read_to_string(root.join("models/data/lee-pairs.jsonl"))
            .context("the model and data aren't there: run `make setup`")?;
        // Pairs of the 50 texts are in the order (0,1), (0,2), …, (0,49), (1,2), …
        let pairs = (0..50usize).flat_map(|i| i + 1..50);
        let rows: String =
            pairs.zip(all.lines()).filter(|(j, _)| *j < texts).map(|(_, row)| format!("{row}\n")).collect();
        std::fs::write(folder.join("pairs.jsonl"), rows)?;
        let spec = folder.join("spec.toml");
        let model = root.join("models/minilm");
        let text = format!(
            "name = \"chaos\"\n[model]\nsource = {model:?}\n[[task]]\nname = \"lee\"\nkind = \"similarity\"\ndata = \"pairs.jsonl\"\n\
             max_tokens = 8\n[ablation]\nmethod = \"mean\"\n[[sweep]]\nkind = \"single\"\n[[sweep]]\nkind = \"pairs\"\n\
             [[sweep]]\nkind = \"greedy\"\nfraction = 0.05\n"
        );
        std::fs::write(&spec, text)?;
        let ablate = ablate()?;
        let bin = ablate.parent().context("a folder of programs")?.to_path_buf();
        let out = folder.join("undisturbed");
        let mut run = Command::new(&ablate);
        run.arg("run").arg(&spec).arg("--out").arg(&out).args([
            "--device",
            "cpu",
            "--threads",
            "1",
            "--workers",
            "1",
        ]);
        said(run)?;
        Ok(Self { folder: folder.to_path_buf(), spec, bin, tables: tables(&out)? })
    }

    /// One round; its row of the table.
    ///
    /// # Errors
    /// Where the sweep doesn't end, or the tools fail. Tables that differ are no error but `"identical": false`.
    pub fn round(
        &self,
        round: u32,
        fault: Fault,
        store: Store,
        server: Option<&Server>,
    ) -> anyhow::Result<Value> {
        let folder = self.folder.join(format!("{}-{round}", store.name()));
        let disk = folder.join("disk");
        std::fs::create_dir_all(&disk)?;
        let (mounted, url) = match (store, server) {
            (Store::Postgres, Some(server)) => (None, server.socket_url(&server.database())),
            _ => (Some(Disk::mount(&disk)?), format!("sqlite://{}/ablate.db", disk.display())),
        };
        let mut random = Rng::with_seed(u64::from(round));
        let began = Instant::now();
        let mut cluster = Cluster::start(&folder, &self.bin, &url)?;
        cluster.client(&["submit", self.spec.to_str().context("a path that isn't UTF-8")?])?;
        let (mut faults, mut kinds, mut past) = (0, BTreeMap::new(), [0, 0]);
        let mut now = fault;
        while faults < FAULTS && !done(&cluster) {
            std::thread::sleep(Duration::from_millis(random.u64(300..2500)));
            cluster.supervise(None)?;
            let length = Length::of(faults);
            now.befall(&mut cluster, &disk, length, &mut random)?;
            if now.parts() {
                past[0] += u32::from(length != Length::Short);
                past[1] += u32::from(length == Length::PastLink);
            }
            *kinds.entry(now.name()).or_insert(0) += 1;
            faults += 1;
            // The round's own kind again and again, and others between.
            now = if faults % 3 == 2 { Fault::ALL[random.usize(..Fault::ALL.len())] } else { fault };
            if store == Store::Postgres && now == Fault::FillDisk {
                now = Fault::KillCoordinator;
            }
        }
        let end = Instant::now() + PATIENCE;
        while !done(&cluster) {
            if Instant::now() > end {
                bail!("round {round} ({}) doesn't end: see {}", fault.name(), folder.display());
            }
            cluster.supervise(None)?;
            std::thread::sleep(Duration::from_millis(200));
        }
        let status = cluster.status()?;
        let heard = Heard::of(&cluster)?;
        let out = folder.join("tables");
        let id = status["id"].as_str().context("a status without id")?.to_owned();
        cluster.client(&["export", &id, "--out", out.to_str().context("a path that isn't UTF-8")?])?;
        drop(cluster);
        let differing = differing(&self.tables, &tables(&out)?);
        let chunks = &status["chunks"];
        let row = json!({"round": round, "fault": fault.name(), "store": store.name(),
            "identical": differing.is_empty() && chunks["accepted"] == chunks["planned"], "differing": differing,
            "faults": faults, "befell": kinds, "planned": chunks["planned"], "accepted": chunks["accepted"],
            "computed": chunks["computed"], "duplicate": chunks["duplicate"], "past_lease": past[0], "past_link": past[1],
            "leases_expired": heard.expired, "leases_dropped": heard.dropped, "late_results": heard.late,
            "links_dead": heard.dead, "seconds": began.elapsed().as_secs_f64()});
        drop(mounted);
        if row["identical"] == true {
            std::fs::remove_dir_all(&folder)?;
        }
        Ok(row)
    }
}

/// What the programs' logs tell of a round.
struct Heard {
    /// Leases that ran out at the coordinator and were given away.
    expired: usize,
    /// Leases that ran out at a worker, which dropped their chunks.
    dropped: usize,
    /// Results that came when their lease wasn't held any more.
    late: usize,
    /// Connections that a worker found dead by its pings.
    dead: usize,
}

impl Heard {
    fn of(cluster: &Cluster) -> anyhow::Result<Self> {
        Ok(Self {
            expired: cluster.logged("a lease ran out")?,
            dropped: cluster.logged("lease ran out without a renewal")?,
            late: cluster.logged("a result came after its lease")?,
            // What is told where this side gives a connection up; of a peer that is killed other words come.
            dead: cluster.logged("stream closed because of a broken pipe")?,
        })
    }
}

/// Whether rounds saw what only faults that outlast a lease bring.
///
/// # Errors
/// Says what was missing, where enough of them did.
pub fn outlasted(rows: &[Value]) -> anyhow::Result<()> {
    let sum = |key: &str| rows.iter().filter_map(|r| r[key].as_u64()).sum::<u64>();
    if sum("past_lease") >= 10 {
        for key in ["leases_expired", "leases_dropped", "late_results", "duplicate", "links_dead"] {
            ensure!(
                sum(key) > 0,
                "{} faults outlasted a lease, and {key} is 0: see the logs",
                sum("past_lease")
            );
        }
    }
    Ok(())
}

fn done(cluster: &Cluster) -> bool {
    cluster.status().is_ok_and(|s| s["state"] == "done")
}

/// A disk of its own in memory, so that it can be filled without harm.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> anyhow::Result<Self> {
        let size = format!("size={DISK_MB}m");
        let out =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "ablate-chaos"]).arg(at).output()?;
        ensure!(out.status.success(), "mount: {}", String::from_utf8_lossy(&out.stderr).trim());
        Ok(Self(at.to_path_buf()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Every Parquet table of a folder, by name.
fn tables(folder: &Path) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "parquet") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            all.insert(name, std::fs::read(&path)?);
        }
    }
    ensure!(!all.is_empty(), "no tables in {}", folder.display());
    Ok(all)
}

fn differing(a: &BTreeMap<String, Vec<u8>>, b: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    a.keys().chain(b.keys()).filter(|k| a.get(*k) != b.get(*k)).cloned().collect()
}
