//! Models of images, against Pillow and Hugging Face transformers in f64 (tests/reference/images.py).
#![allow(clippy::unwrap_used, reason = "tests")]

mod files;
mod run;
mod tiny;

use ablate_tests::reference::script;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Largest deviation from transformers, relative to max(1, |expected|).
const LIMIT: f64 = 1e-9;

/// The models and images of the reference, made once for all tests.
fn made() -> &'static Path {
    static MADE: OnceLock<tempfile::TempDir> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        script("images.py", &[Path::new("make"), folder.path()]).unwrap();
        folder
    })
    .path()
}

/// What the reference says of a case.
#[derive(Deserialize)]
struct Answer {
    /// Image → channel → sum of the values, and of their squares.
    pixels: Vec<Vec<[f64; 2]>>,
    /// Image → label → logit, or, where the model has no head, dimension → the CLS token's final state.
    #[serde(rename = "final")]
    last: Vec<Vec<f64>>,
    methods: BTreeMap<String, Scores>,
}

/// Subset → image.
#[derive(Deserialize)]
struct Scores {
    nll: Vec<Vec<f64>>,
    prediction: Vec<Vec<f64>>,
    /// Name → subset → value, by scikit-learn.
    metrics: BTreeMap<String, Vec<f64>>,
}

/// Asks the reference.
fn ask(cases: &[Value]) -> Vec<Answer> {
    let folder = tempfile::tempdir().unwrap();
    let [question, answer] = ["job.json", "result.json"].map(|name| folder.path().join(name));
    std::fs::write(&question, json!({"cases": cases}).to_string()).unwrap();
    script("images.py", &[Path::new("ask"), &question, &answer]).unwrap();
    serde_json::from_slice(&std::fs::read(&answer).unwrap()).unwrap()
}

fn image(name: &str) -> PathBuf {
    made().join("images").join(name)
}

/// Copies images into `folder` and writes records of them, the label of the k-th given by `label`; the counterfactual of
/// each is the next.
fn records(folder: &Path, names: &[&str], label: impl Fn(usize) -> Value) -> PathBuf {
    std::fs::create_dir_all(folder.join("pictures")).unwrap();
    let mut lines = String::new();
    for (k, name) in names.iter().enumerate() {
        std::fs::copy(image(name), folder.join("pictures").join(name)).unwrap();
        let other = names[(k + 1) % names.len()];
        let record = json!({"image": format!("pictures/{name}"), "label": label(k),
            "counterfactual": format!("./pictures/{other}")});
        lines += &format!("{record}\n");
    }
    let path = folder.join("data.jsonl");
    std::fs::write(&path, lines).unwrap();
    path
}
