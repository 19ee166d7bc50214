//! Starts the built programs, and what several tests do with them.

use crate::{minilm, root};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

fn program(name: &str) -> Command {
    let path = root().join("target/release").join(name);
    assert!(path.exists(), "{} is missing: run `make build`", path.display());
    Command::new(path)
}

/// `ablate`.
#[must_use]
pub fn ablate() -> Command {
    program("ablate")
}

/// `ablate-worker` of one lane of one thread.
#[must_use]
pub fn worker(coordinator: &str) -> Command {
    let mut command = program("ablate-worker");
    command.args(["--coordinator", coordinator, "--device", "cpu", "--threads", "1"]);
    command
}

/// `ablate run` of one worker with one thread; its output is kept.
#[must_use]
pub fn run(spec: &Path, out: &Path, more: &[&str]) -> Command {
    let mut command = ablate();
    command.arg("run").arg(spec).arg("--out").arg(out).args(["--device", "cpu", "--threads", "1"]).args(more);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a command that succeeds says.
///
/// # Panics
/// Where it fails, with what it said.
pub fn said(mut command: Command) -> String {
    let out = finish(&mut command);
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Runs a command to its end.
///
/// # Panics
/// Where it can't be started.
pub fn finish(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

/// Exports a run's tables as JSON into a folder.
///
/// # Panics
/// Where that fails.
pub fn export_json(out: &Path, into: &Path) {
    let mut export = ablate();
    export.arg("export").arg(out).args(["--format", "json", "--out"]).arg(into);
    drop(said(export));
}

/// Runs a spec with two workers, killed so many times, each time as soon as it has got further, and then to its end.
///
/// # Panics
/// Where it ends before it is killed, or fails.
pub fn run_shaken(spec: &Path, out: &Path, kills: u32) {
    let logs = [0, 1].map(|worker| out.join(format!("worker-{worker}.log")));
    let heard = |log: &PathBuf| {
        let text = std::fs::read(log).unwrap_or_default();
        String::from_utf8_lossy(&text).contains("acknowledged")
    };
    for kill in 1..=kills {
        // What the one before it said isn't this one's. The first has none.
        logs.iter().for_each(|log| drop(std::fs::remove_file(log)));
        let mut command = run(spec, out, &["--workers", "2"]);
        command.env("ABLATE_LOG", "ablate_worker_client=debug").stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the program starts");
        wait_until("a chunk is acknowledged", || {
            let ended = child.try_wait().expect("a child");
            assert!(ended.is_none(), "{}: it was over before kill {kill}", spec.display());
            logs.iter().any(heard)
        });
        signal(child.id(), "KILL");
        let ended = child.wait().expect("the program ends");
        assert_eq!(ended.code(), None, "{}: it was over before kill {kill}", spec.display());
    }
    drop(said(run(spec, out, &[])));
}

/// Asserts that a command ended as wrong usage, and said all `words`.
///
/// # Panics
/// Where it didn't.
pub fn refused(out: &Output, words: &[&str]) {
    let text = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} isn't in: {text}");
    }
}

/// The first `texts` of Lee's 50 news texts, as pairs, in `folder`: pairs.jsonl.
///
/// # Panics
/// Where set-up hasn't been run.
pub fn lee(folder: &Path, texts: usize) -> PathBuf {
    let all = std::fs::read_to_string(root().join("models/data/lee-pairs.jsonl")).expect("run `make setup`");
    // Pairs are in the order (0,1), (0,2), …, (0,49), (1,2), …
    let pairs = (0..50usize).flat_map(|i| (i + 1..50).map(move |j| (i, j)));
    let rows: String =
        pairs.zip(all.lines()).filter(|(p, _)| p.1 < texts).map(|(_, r)| format!("{r}\n")).collect();
    let path = folder.join("pairs.jsonl");
    std::fs::write(&path, rows).expect("the folder can be written");
    path
}

/// Writes records to a file, one a line.
///
/// # Panics
/// Where it can't be written.
#[must_use]
pub fn jsonl(file: PathBuf, records: &[serde_json::Value]) -> PathBuf {
    let lines: String = records.iter().map(|r| format!("{r}\n")).collect();
    std::fs::write(&file, lines).expect("the file can be written");
    file
}

/// A spec of MiniLM on 12 texts of 8 tokens: all sweeps in seconds.
///
/// # Panics
/// Where set-up hasn't been run.
#[must_use]
pub fn small_spec(folder: &Path) -> PathBuf {
    lee(folder, 12);
    let path = folder.join("spec.toml");
    let text = format!(
        "name = \"small\"\n[model]\nsource = {:?}\n[[task]]\nname = \"lee\"\nkind = \"similarity\"\n\
         data = \"pairs.jsonl\"\nmax_tokens = 8\n[ablation]\nmethod = \"mean\"\n[[sweep]]\nkind = \"single\"\n\
         [[sweep]]\nkind = \"pairs\"\n[[sweep]]\nkind = \"greedy\"\nfraction = 0.2\n",
        minilm()
    );
    std::fs::write(&path, text).expect("the folder can be written");
    path
}

/// The output folder of a run of [`small_spec`] in which nothing happened: made once for all tests of a program that compare with it.
///
/// # Panics
/// Where it fails.
#[must_use]
pub fn calm() -> &'static Path {
    static CALM: OnceLock<PathBuf> = OnceLock::new();
    CALM.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder").keep();
        let (spec, out) = (small_spec(&folder), folder.join("calm"));
        drop(said(run(&spec, &out, &[])));
        out
    })
}

/// A spec of MiniLM on so many texts of so many tokens: every head, every pair, and greedy to a fraction.
///
/// # Panics
/// Where set-up hasn't been run.
#[must_use]
pub fn minilm_spec(folder: &Path, name: &str, texts: usize, tokens: u32, fraction: f64) -> PathBuf {
    lee(folder, texts);
    let path = folder.join(format!("{name}.toml"));
    let text = format!(
        "name = {name:?}\n[model]\nsource = {:?}\n[[task]]\nname = \"lee\"\nkind = \"similarity\"\n\
         data = \"pairs.jsonl\"\nmax_tokens = {tokens}\n[ablation]\nmethod = \"mean\"\n[[sweep]]\nkind = \"single\"\n\
         [[sweep]]\nkind = \"pairs\"\n[[sweep]]\nkind = \"greedy\"\nfraction = {fraction:?}\n",
        minilm()
    );
    std::fs::write(&path, text).expect("the folder can be written");
    path
}

/// Every Parquet table of a folder, by name.
///
/// # Panics
/// Where the folder can't be read.
#[must_use]
pub fn tables(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(out).expect("a folder of tables");
    entries
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "parquet"))
        .map(|p| {
            let name = p.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name, std::fs::read(&p).expect("a table"))
        })
        .collect()
}

/// Names of the tables that differ between two sets.
#[must_use]
pub fn differing(a: &BTreeMap<String, Vec<u8>>, b: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    names.into_iter().filter(|n| a.get(*n) != b.get(*n)).cloned().collect()
}

/// A JSON file of a folder.
///
/// # Panics
/// Where it isn't there or isn't JSON.
#[must_use]
pub fn json(file: &Path) -> serde_json::Value {
    let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// Sends a signal: "KILL", "INT", "STOP" …
///
/// # Panics
/// Where there is no such process.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(sent.is_ok_and(|s| s.success()), "no process {pid}");
}

/// Waits until `done`, 4 minutes at most.
///
/// # Panics
/// Where that isn't enough.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(240), "it took too long: {what}");
        std::thread::sleep(Duration::from_millis(30));
    }
}

/// A coordinator of its own with workers; all are killed when it goes.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    port: u16,
    more: Vec<String>,
    coordinator: Option<Child>,
    workers: Vec<Child>,
}

impl Cluster {
    /// A coordinator with its state and outputs in `folder`.
    ///
    /// # Panics
    /// Where it can't be started.
    #[must_use]
    pub fn start(folder: &Path) -> Self {
        Self::start_with(folder, &[])
    }

    /// A coordinator with `more` options.
    ///
    /// # Panics
    /// Where it can't be started.
    #[must_use]
    pub fn start_with(folder: &Path, more: &[&str]) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
        let mut cluster = Self {
            folder: folder.to_path_buf(),
            port: free.port(),
            more: more.iter().map(|&word| word.to_owned()).collect(),
            coordinator: None,
            workers: Vec::new(),
        };
        cluster.serve();
        cluster
    }

    /// The coordinator's address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts the coordinator and waits until it serves.
    ///
    /// # Panics
    /// Where it can't be started.
    pub fn serve(&mut self) {
        let mut command = ablate();
        command
            .arg("serve")
            .args(["--listen", &format!("127.0.0.1:{}", self.port)])
            .args(["--store", &format!("sqlite://{}", self.folder.join("serve.db").display())])
            .arg("--output")
            .arg(self.folder.join("served"))
            .args(&self.more);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("ablate serve starts");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let first = lines.next().and_then(Result::ok).unwrap_or_default();
        assert!(first.contains("serving on"), "{first}");
        // Read on, so that the pipe never fills.
        std::thread::spawn(move || lines.for_each(drop));
        self.coordinator = Some(child);
    }

    /// kill −9 of the coordinator.
    ///
    /// # Panics
    /// Where none runs.
    pub fn kill_coordinator(&mut self) {
        let mut child = self.coordinator.take().expect("a coordinator runs");
        signal(child.id(), "KILL");
        let _ = child.wait();
    }

    /// Starts one more worker.
    ///
    /// # Panics
    /// Where it can't be started.
    pub fn add_worker(&mut self) {
        self.add_worker_with(&[]);
    }

    /// Starts one more worker, with `more` options.
    ///
    /// # Panics
    /// Where it can't be started.
    pub fn add_worker_with(&mut self, more: &[&str]) {
        let child =
            worker(&self.url()).args(more).stderr(Stdio::null()).spawn().expect("ablate-worker starts");
        self.workers.push(child);
    }

    /// kill −9 of the worker that was started first.
    ///
    /// # Panics
    /// Where none runs.
    pub fn kill_worker(&mut self) {
        let mut child = self.workers.remove(0);
        signal(child.id(), "KILL");
        let _ = child.wait();
    }

    /// A client's command.
    #[must_use]
    pub fn client(&self, args: &[&str]) -> Command {
        let mut command = ablate();
        command.args(args).args(["--coordinator", &self.url()]).current_dir(&self.folder);
        command
    }

    /// Status of an experiment.
    ///
    /// # Panics
    /// Where the coordinator doesn't answer.
    #[must_use]
    pub fn status(&self, id: &str) -> serde_json::Value {
        let text = said(self.client(&["status", id, "--json"]));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.coordinator.iter_mut().chain(&mut self.workers) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
