//! Runs the Python references (tests/reference), of which reference.py is one, and compares chunks of the engine with that.

use crate::root;
use ablate_common::head::HeadIx;
use ablate_common::scores::TaskScores;
use ablate_common::task::Prepared;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// What the reference is asked.
#[derive(Debug, Serialize)]
pub struct Job<'a> {
    /// The model.
    pub model: JobModel<'a>,
    /// "f64" or "f32".
    pub dtype: &'a str,
    /// "zero", "mean" or "resample".
    pub ablation: &'a str,
    /// Resample: tokens of each item's donor, as many as its own.
    pub donors: Option<Vec<&'a [u32]>>,
    /// The task.
    pub prepared: &'a Prepared,
    /// Subsets as (layer, head).
    pub subsets: Vec<Vec<(u32, u32)>>,
    /// Brute-force greedy.
    pub greedy: Option<JobGreedy>,
}

/// The model of a job.
#[derive(Debug, Serialize)]
pub struct JobModel<'a> {
    /// "gguf" or "hf".
    pub kind: &'a str,
    /// File or directory.
    pub path: &'a Path,
}

/// A brute-force greedy sweep.
#[derive(Clone, Debug, Serialize)]
pub struct JobGreedy {
    /// Rounds.
    pub rounds: u32,
    /// Half of the items it selects on; none: all.
    pub half: Option<u8>,
    /// Heads that it may remove; none: any.
    pub among: Option<Vec<(u32, u32)>>,
}

/// What the reference answers.
#[derive(Debug, Deserialize)]
pub struct Answer {
    /// Column → subset → example.
    pub columns: BTreeMap<String, Vec<Vec<f64>>>,
    /// Heads that greedy removed, in order.
    pub removed: Vec<(u32, u32)>,
}

/// Runs the reference.
///
/// # Errors
/// Where its environment is missing (`make setup`) or it fails.
pub fn run(job: &Job<'_>) -> Result<Answer> {
    let folder = tempfile::tempdir()?;
    let (question, answer) = (folder.path().join("job.json"), folder.path().join("result.json"));
    std::fs::write(&question, serde_json::to_vec(job)?)?;
    finished(python("reference.py")?.args([&question, &answer]))?;
    serde_json::from_slice(&std::fs::read(&answer).context("the reference wrote no answer")?)
        .context("the answer isn't JSON")
}

/// Runs a script of tests/reference on one thread.
///
/// # Errors
/// Where its environment is missing (`make reference`) or it fails.
pub fn script(name: &str, arguments: &[&Path]) -> Result<()> {
    finished(python(name)?.args(arguments).env("OMP_NUM_THREADS", "1"))
}

fn python(script: &str) -> Result<Command> {
    let python = root().join(".deps/ref/bin/python");
    ensure!(python.exists(), "{} is missing: run deploy/setup/reference.sh", python.display());
    let mut command = Command::new(python);
    command.arg(root().join("tests/reference").join(script));
    Ok(command)
}

fn finished(command: &mut Command) -> Result<()> {
    let out = command.output()?;
    ensure!(out.status.success(), "the reference failed:\n{}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}

/// (layer, head) of every head of a subset of a model with `heads` heads a layer.
#[must_use]
pub fn pairs_of(subset: &[HeadIx], heads: u32) -> Vec<(u32, u32)> {
    subset.iter().map(|h| (h.0 / heads, h.0 % heads)).collect()
}

/// Largest |engine − reference| over a column of one subset.
#[must_use]
pub fn deviation(block: &TaskScores, at: usize, column: usize, expected: &[f64]) -> f64 {
    block.column(at, column).iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}
