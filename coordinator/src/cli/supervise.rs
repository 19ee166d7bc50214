//! Worker processes of `ablate run`: started on a leash (they end when this process does, however it
//! ends), restarted when they die, given up on when they keep dying.

use super::fail::Fail;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// What a worker is started with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The program.
    pub program: PathBuf,
    /// The coordinator's address.
    pub coordinator: SocketAddr,
    /// Devices.
    pub device: String,
    /// Threads per lane.
    pub threads: u32,
    /// Folder for logs.
    pub folder: PathBuf,
}

/// Deaths within [`WINDOW`] after which a worker isn't started again.
const DEATHS: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);

/// Where `ablate-worker` is: $ABLATE_WORKER, beside this program, or on the path.
pub fn find_worker() -> Result<PathBuf, Fail> {
    if let Some(path) = std::env::var_os("ABLATE_WORKER") {
        return Ok(path.into());
    }
    if let Ok(me) = std::env::current_exe()
        && let Some(beside) = me.parent().map(|d| d.join("ablate-worker")).filter(|p| p.exists())
    {
        return Ok(beside);
    }
    std::env::var_os("PATH")
        .and_then(|paths| std::env::split_paths(&paths).map(|p| p.join("ablate-worker")).find(|p| p.exists()))
        .ok_or_else(|| {
            Fail::failed("there is no ablate-worker beside this program or on the path")
                .help("build it (`make build`), or name it in $ABLATE_WORKER")
        })
}

fn spawn(setup: &Setup, slot: u32) -> Result<Child, Fail> {
    let log = setup.folder.join(format!("worker-{slot}.log"));
    let file = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
    Command::new(&setup.program)
        .arg("--coordinator")
        .arg(format!("http://{}", setup.coordinator))
        .args(["--device", &setup.device, "--threads", &setup.threads.to_string(), "--stdin-leash"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(file)
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| Fail::failed(format!("{} can't be started: {e}", setup.program.display())))
}

/// The last lines of a worker's log.
fn tail(folder: &Path, slot: u32) -> String {
    let text = std::fs::read_to_string(folder.join(format!("worker-{slot}.log"))).unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(4)..].join("\n")
}

/// Keeps `count` workers alive until dropped. A worker that can't be kept is reported once.
pub fn start(setup: &Setup, count: u32) -> (Vec<tokio::task::JoinHandle<()>>, mpsc::Receiver<Fail>) {
    let (to, failures) = mpsc::channel(count as usize);
    let tasks = (0..count)
        .map(|slot| {
            let (setup, to) = (setup.clone(), to.clone());
            tokio::spawn(async move {
                if let Err(fail) = keep(&setup, slot).await {
                    // The run may have ended meanwhile.
                    let _ = to.send(fail).await;
                }
            })
        })
        .collect();
    (tasks, failures)
}

async fn keep(setup: &Setup, slot: u32) -> Result<(), Fail> {
    let mut deaths: VecDeque<Instant> = VecDeque::new();
    loop {
        let mut child = spawn(setup, slot)?;
        // The leash: `wait` would close it, and the worker would end.
        let leash = child.stdin.take();
        let status = child.wait().await?;
        drop(leash);
        if status.success() {
            return Ok(());
        }
        if status.code() == Some(2) {
            return Err(Fail::wrong(format!(
                "worker {slot} refused to start:\n{}",
                tail(&setup.folder, slot)
            )));
        }
        deaths.push_back(Instant::now());
        while deaths.front().is_some_and(|t| t.elapsed() > WINDOW) {
            deaths.pop_front();
        }
        if deaths.len() >= DEATHS {
            return Err(Fail::failed(format!(
                "worker {slot} died {DEATHS} times within a minute ({status}); its last words:\n{}",
                tail(&setup.folder, slot)
            ))
            .help("run `ablate doctor`; what was computed is safe, and the same command resumes"));
        }
        tokio::time::sleep(Duration::from_millis(200 << deaths.len())).await;
    }
}
