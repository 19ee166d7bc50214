//! The other side: what tests/bench/peers.py answers.

use crate::cases::{Case, Source};
use crate::run::Loaded;
use ablate_common::head::HeadIx;
use ablate_tests::reference::pairs_of;
use ablate_tests::root;
use serde_json::{Value, json};
use std::process::Command;

/// What a peer answered.
pub struct Peer {
    pub columns: Vec<Vec<f64>>,
    pub seconds: Vec<f64>,
    pub peak_mb: f64,
}

/// Asks a peer for subsets of a case.
///
/// # Errors
/// What it said, where it failed.
pub fn ask(
    case: &Case,
    loaded: &Loaded,
    (peer, dtype): (&str, &str),
    (threads, device): (i32, &str),
    subsets: &[Vec<HeadIx>],
) -> Result<Peer, String> {
    let Source::File { path, format, .. } = &case.source else {
        return Err("a shape without a file has no peers".to_owned());
    };
    let heads = loaded.plan.model.n_heads;
    let asked: Vec<_> = subsets.iter().map(|s| pairs_of(s, heads)).collect();
    let job = json!({"model": {"kind": format, "path": path}, "dtype": dtype, "threads": threads, "heads": heads,
        "device": device, "ablation": "mean", "peer": peer, "prepared": loaded.prepared, "subsets": asked});
    let folder = tempfile::tempdir().unwrap();
    let (question, answer) = (folder.path().join("job.json"), folder.path().join("answer.json"));
    std::fs::write(&question, serde_json::to_vec(&job).unwrap()).unwrap();
    let script = root().join("tests/bench/peers.py");
    let out = Command::new(root().join(".deps/peers/bin/python"))
        .arg(script)
        .args([&question, &answer])
        .output()
        .map_err(|e| format!(".deps/peers/bin/python: {e}; run deploy/setup/peers.sh"))?;
    if !out.status.success() {
        return Err(String::from_utf8_lossy(&out.stderr).into_owned());
    }
    let v: Value = serde_json::from_slice(&std::fs::read(&answer).unwrap()).unwrap();
    let column = loaded.prepared.kind.columns()[0];
    Ok(Peer {
        columns: serde_json::from_value(v["columns"][column].clone()).unwrap(),
        seconds: serde_json::from_value(v["seconds"].clone()).unwrap(),
        peak_mb: v["peak_mb"].as_f64().unwrap(),
    })
}
