//! How long real workers wait for their coordinator: a real sweep on loopback, by the workers' own counters.

use crate::service::{Service, ablate};
use anyhow::{Context, ensure};
use serde::Serialize;
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the sweep may take.
const PATIENCE: Duration = Duration::from_mins(20);

/// What is run.
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    /// Pairs of texts.
    pub pairs: usize,
    /// Tokens of a text, at most.
    pub tokens: usize,
    /// Workers, of one lane of one thread each.
    pub workers: usize,
}

/// What one worker's lane did.
#[derive(Clone, Debug, Serialize)]
pub struct Share {
    /// Its worker.
    pub worker: String,
    /// Chunks that were accepted from it.
    pub chunks: u64,
    /// Seconds that it worked.
    pub busy_s: f64,
    /// Seconds that it waited between one chunk and the next.
    pub idle_s: f64,
    /// Share of its time that it waited.
    pub idle_share: f64,
}

/// Workers that end when this is dropped.
struct Workers(Vec<Child>);

impl Drop for Workers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Writes the spec of MiniLM's single and pairs sweeps.
fn write(folder: &Path, sweep: Sweep) -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("the checkout")?;
    let all = std::fs::read_to_string(root.join("models/data/lee-pairs.jsonl"))
        .context("the model and data aren't there: run `make setup`")?;
    let rows: String = all.lines().take(sweep.pairs).map(|row| format!("{row}\n")).collect();
    std::fs::write(folder.join("pairs.jsonl"), rows)?;
    let (spec, model) = (folder.join("idle.toml"), root.join("models/minilm"));
    let text = format!(
        "name = \"idle\"\n[model]\nsource = {model:?}\n[[task]]\nname = \"lee\"\nkind = \"similarity\"\ndata = \"pairs.jsonl\"\n\
         max_tokens = {}\n[ablation]\nmethod = \"mean\"\n[[sweep]]\nkind = \"single\"\n[[sweep]]\nkind = \"pairs\"\n",
        sweep.tokens
    );
    std::fs::write(&spec, text)?;
    Ok(spec)
}

/// Runs a sweep to its end on a coordinator and workers of its own, in `folder`.
///
/// # Errors
/// Where the programs or the model aren't there, or the sweep doesn't end.
pub fn measure(folder: &Path, sweep: Sweep) -> anyhow::Result<Vec<Share>> {
    let spec = write(folder, sweep)?;
    let mut service = Service::new(folder, &format!("sqlite://{}/ablate.db", folder.display()))?;
    service.start()?;
    service.wait()?;
    service.client(&["submit", spec.to_str().context("a path that isn't UTF-8")?])?;
    let program = ablate()?.with_file_name("ablate-worker");
    let mut workers = Workers(Vec::new());
    for n in 0..sweep.workers {
        let log = File::create(folder.join(format!("worker-{n}.log")))?;
        let mut command = Command::new(&program);
        command.args(["--coordinator", &service.url(), "--device", "cpu", "--threads", "1"]);
        command.env("OMP_NUM_THREADS", "1").stdin(Stdio::null()).stderr(log);
        let child = command.spawn().with_context(|| program.display().to_string())?;
        workers.0.push(child);
    }
    let end = Instant::now() + PATIENCE;
    loop {
        let status: Value = serde_json::from_str(service.client(&["status", "--json"])?.trim())?;
        match status["state"].as_str() {
            Some("done") => break,
            Some("running") => {}
            _ => anyhow::bail!("it is {status}"),
        }
        ensure!(Instant::now() < end, "it doesn't end: {status}");
        std::thread::sleep(Duration::from_millis(200));
    }
    let told = service.client(&["workers", "--json"])?;
    told.lines().map(|line| share(&serde_json::from_str(line)?)).collect()
}

fn share(w: &Value) -> anyhow::Result<Share> {
    let number = |key: &str| w[key].as_f64().with_context(|| format!("no {key} in {w}"));
    Ok(Share {
        worker: w["name"].as_str().unwrap_or_default().to_owned(),
        chunks: w["accepted_chunks"].as_u64().unwrap_or(0),
        busy_s: number("busy_s")?,
        idle_s: number("idle_s")?,
        idle_share: number("idle_share")?,
    })
}
