//! Real encoders of chemical reactions, from tokenizer file to table, against transformers in f64: rxnfp (BERT) and
//! rxnmapper (ALBERT, whose layers share their weights, so that a head is one application of it).
#![allow(clippy::unwrap_used, reason = "tests")]

use ablate_common::spec;
use ablate_tests::program::{export_json, json, run, said};
use ablate_tests::proof::{Worst, proved};
use ablate_tests::root;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// Esterifications, amide couplings, a Suzuki coupling, reductions: textbook reactions, written for this test.
const REACTIONS: [&str; 8] = [
    "CC(=O)O.CCO>>CC(=O)OCC",
    "O=C(O)c1ccccc1.CO>>COC(=O)c1ccccc1",
    "CCCC(=O)Cl.CN>>CCCC(=O)NC",
    "Brc1ccccc1.OB(O)c1ccccc1>>c1ccc(-c2ccccc2)cc1",
    "CC(=O)c1ccccc1.[BH4-].[Na+]>>CC(O)c1ccccc1",
    "O=[N+]([O-])c1ccccc1>>Nc1ccccc1",
    "C=CC=C.C=C>>C1=CCCCC1",
    "C[C@H](N)C(=O)O.CO>>COC(=O)[C@H](C)N",
];

fn reference(job: &Value) -> Vec<f64> {
    let folder = tempfile::tempdir().unwrap();
    let (question, answer) = (folder.path().join("job.json"), folder.path().join("answer.json"));
    std::fs::write(&question, job.to_string()).unwrap();
    let out = Command::new(root().join(".deps/ref/bin/python"))
        .arg(root().join("tests/reference/reactions.py"))
        .args([&question, &answer])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_value(json(&answer)["losses"].clone()).unwrap()
}

/// Runs the built programs on a task and compares ℓ(∅) and Δ of every head with transformers.
fn every_head_equals_transformers(model: &str, heads: usize, ablation: &str, task: &str, data: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let path = root().join("models").join(model);
    let text = format!(
        "name = \"r\"\n[model]\nsource = {path:?}\ndtype = \"f64\"\n[[task]]\nname = \"t\"\ndata = {data:?}\n{task}\n\
         [ablation]\nmethod = \"{ablation}\"\n[[sweep]]\nkind = \"single\"\n"
    );
    let spec_file = folder.path().join("spec.toml");
    std::fs::write(&spec_file, &text).unwrap();
    let (out, tables) = (folder.path().join("out"), folder.path().join("tables"));
    said(run(&spec_file, &out, &[]));
    export_json(&out, &tables);
    let rows = json(&tables.join("heads.json"));
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), heads);

    let parsed = spec::parse(&text, "spec.toml").unwrap();
    let prepared = ablate_prepare::prepare(&parsed, Path::new("."), &|_, _, _| {}).unwrap().prepared;
    let losses =
        reference(&json!({"path": path, "ablation": ablation, "texts": REACTIONS, "prepared": prepared[0]}));
    let scale = losses[0].abs().max(1.0);
    let baseline = rows[0]["baseline"].as_f64().unwrap();
    let mut worst = Worst { cases: heads, ..Worst::default() };
    worst.see_off(baseline - losses[0], scale);
    for (row, loss) in rows.iter().zip(&losses[1..]) {
        worst.see_off(row["delta"].as_f64().unwrap() - (loss - losses[0]), scale);
    }
    println!("{model} {ablation} ({heads} heads, ℓ(∅) {baseline:.3}): largest deviation {:.1e}", worst.abs);
    let kind = prepared[0].kind.name();
    let ok = proved(model, &format!("{kind}, {ablation}, by the programs: deltas"), worst, 1e-9);
    assert!(ok, "{model} {ablation}: {worst:?}");
}

fn written(folder: &Path, record: impl Fn(usize, &str) -> Value) -> std::path::PathBuf {
    let path = folder.join("reactions.jsonl");
    let lines: String = REACTIONS.iter().enumerate().map(|(i, r)| format!("{}\n", record(i, r))).collect();
    std::fs::write(&path, lines).unwrap();
    path
}

#[test]
fn every_head_of_two_masked_language_models_of_reactions_equals_transformers() {
    let folder = tempfile::tempdir().unwrap();
    let data = written(folder.path(), |_, text| json!({"text": text}));
    let task = "kind = \"masked_lm\"\nmax_tokens = 64";
    every_head_equals_transformers("rxnfp", 48, "mean", task, &data);
    every_head_equals_transformers("rxnmapper", 96, "zero", task, &data);
}

#[test]
fn every_head_of_a_classifier_of_reactions_equals_transformers() {
    let folder = tempfile::tempdir().unwrap();
    // Labels by name and by number; right or wrong doesn't matter here.
    let label = |i: usize| if i.is_multiple_of(2) { json!(format!("class {}", 4 * i)) } else { json!(4 * i) };
    let data = written(folder.path(), |i, text| json!({"text": text, "label": label(i)}));
    let task = "kind = \"classification\"\nmetric = \"loss\"\nmax_tokens = 64";
    every_head_equals_transformers("rxnclass", 48, "mean", task, &data);
}
