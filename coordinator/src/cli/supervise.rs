//! Worker processes of `ablate run`: started on a leash (they end when this process does, however it
//! ends), restarted when they die or leave, given up on when they keep dying.

use super::fail::{Fail, on};
use ablate_net::Secret;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// What a worker is started with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The program.
    pub program: PathBuf,
    /// The coordinator's address.
    pub coordinator: SocketAddr,
    /// What it shows there. Handed over in the environment, which other users can't read.
    pub token: Secret,
    /// Devices.
    pub device: String,
    /// Threads per lane; none: the worker shares the cores out.
    pub threads: Option<u32>,
    /// Bytes of memory that each lane may use; none: its share of what is free.
    pub memory: Option<u64>,
    /// Folder for logs.
    pub folder: PathBuf,
}

/// Restarts within [`WINDOW`] after which a worker isn't started again.
const RESTARTS: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);

/// Where `ablate-worker` is: $ABLATE_WORKER, beside this program, or on the path.
pub fn find_worker() -> Result<PathBuf, Fail> {
    if let Some(path) = std::env::var_os("ABLATE_WORKER").map(PathBuf::from) {
        return if path.is_file() {
            Ok(path)
        } else {
            Err(Fail::failed(format!("$ABLATE_WORKER names {}, which isn't there", path.display()))
                .help("correct it, or unset it to use the ablate-worker beside ablate"))
        };
    }
    let beside = std::env::current_exe().ok().and_then(|me| me.parent().map(|d| d.join("ablate-worker")));
    let paths = std::env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain(std::env::split_paths(&paths).map(|p| p.join("ablate-worker")))
        .find(|p| p.is_file())
        .ok_or_else(|| {
            Fail::failed("there is no ablate-worker beside this program or on the path")
                .help("build it with `make build`, or name it in $ABLATE_WORKER")
        })
}

/// The log of a worker.
pub fn log(folder: &Path, slot: u32) -> PathBuf {
    folder.join(format!("worker-{slot}.log"))
}

fn spawn(setup: &Setup, slot: u32) -> Result<Child, Fail> {
    let path = log(&setup.folder, slot);
    let file = std::fs::OpenOptions::new().create(true).append(true).open(&path).map_err(on(&path))?;
    let mut command = Command::new(&setup.program);
    command.arg("--coordinator").arg(format!("http://{}", setup.coordinator)).args([
        "--device",
        &setup.device,
        "--stdin-leash",
    ]);
    // What the user set for other coordinators is not for this one.
    for name in ["ABLATE_CA", "ABLATE_CERT", "ABLATE_KEY", "ABLATE_TOKEN_FILE"] {
        command.env_remove(name);
    }
    command.env("ABLATE_TOKEN", setup.token.reveal());
    if let Some(threads) = setup.threads {
        command.args(["--threads", &threads.to_string()]);
    }
    if let Some(memory) = setup.memory {
        command.args(["--memory", &memory.to_string()]);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(file).kill_on_drop(true).spawn().map_err(|e| {
        Fail::failed(format!("{} can't be started: {e}", setup.program.display())).help("run `ablate doctor`")
    })
}

/// Bytes of a log's end that are looked at.
const TAIL: u64 = 16 << 10;

/// The last lines of a worker's log.
fn tail(folder: &Path, slot: u32) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let path = log(folder, slot);
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(&path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(4)..];
    if last.is_empty() { "(it said nothing)".to_owned() } else { last.join("\n  ") }
}

/// Workers that are kept alive; they end when this is dropped.
pub struct Workers {
    /// Why a worker can't be kept, once for each.
    pub failures: mpsc::Receiver<Fail>,
    _slots: JoinSet<()>,
}

/// Starts `count` workers and keeps them alive.
pub fn start(setup: &Setup, count: u32) -> Workers {
    let (to, failures) = mpsc::channel(count.max(1) as usize);
    let mut slots = JoinSet::new();
    for slot in 0..count {
        let (setup, to) = (setup.clone(), to.clone());
        slots.spawn(async move {
            let fail = keep(&setup, slot).await;
            // The run may have ended meanwhile.
            let _ = to.send(fail).await;
        });
    }
    Workers { failures, _slots: slots }
}

/// Keeps a worker alive until it can't be kept, and gives the reason.
async fn keep(setup: &Setup, slot: u32) -> Fail {
    let mut ends: VecDeque<Instant> = VecDeque::new();
    loop {
        let mut child = match spawn(setup, slot) {
            Ok(child) => child,
            Err(fail) => return fail,
        };
        // The leash: `wait` would close it, and the worker would end.
        let leash = child.stdin.take();
        let status = match child.wait().await {
            Ok(status) => status,
            Err(e) => return Fail::failed(format!("worker {slot} can't be waited for: {e}")),
        };
        drop(leash);
        let place = log(&setup.folder, slot).display().to_string();
        if status.code() == Some(2) {
            return Fail::wrong(format!("worker {slot} refused:\n  {}", tail(&setup.folder, slot)))
                .at(place)
                .help("correct what it says and run the same command again: it resumes");
        }
        // One that left in peace (it was told to drain) is missed as much as one that died.
        ends.push_back(Instant::now());
        while ends.front().is_some_and(|t| t.elapsed() > WINDOW) {
            ends.pop_front();
        }
        if ends.len() > RESTARTS {
            return Fail::failed(format!(
                "worker {slot} ended {} times within a minute (last: {status}); its last words:\n  {}",
                ends.len(),
                tail(&setup.folder, slot)
            ))
            .at(place)
            .help("run `ablate doctor`; what was computed is safe, and the same command resumes");
        }
        tokio::time::sleep(Duration::from_millis(100 << ends.len())).await;
    }
}
