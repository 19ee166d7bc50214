//! Fits of MiniLM in a cluster: programs killed in the middle, and constants that workers are given.

use ablate_tests::program::{
    Cluster, differing, finish, json, refused, run, said, small_spec, tables, wait_until,
};
use std::path::Path;

fn spec(folder: &Path, ablation: &str) -> std::path::PathBuf {
    let path = small_spec(folder);
    let text = std::fs::read_to_string(&path).unwrap();
    let text = text.replace("method = \"mean\"", ablation);
    std::fs::write(&path, text.replace("max_tokens = 8", "max_tokens = 8\nmetric = \"pearson\"")).unwrap();
    path
}

/// Rows of a table of JSON.
fn rows(out: &Path, table: &str) -> Vec<serde_json::Value> {
    json(&out.join(format!("{table}.json"))).as_array().unwrap().clone()
}

#[test]
fn programs_killed_in_a_fit_and_behind_it_change_no_byte_and_deltas_are_the_losses_of_the_fit() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec(folder.path(), "method = \"optimal\"\nsteps = 4");
    let calm = folder.path().join("calm");
    drop(said(run(&spec, &calm, &[])));
    let expected = tables(&calm);
    assert!(expected.contains_key("constants.parquet"), "{:?}", expected.keys());

    let mut cluster = Cluster::start(folder.path());
    cluster.add_worker();
    cluster.add_worker();
    let id = said(cluster.client(&["submit", spec.to_str().unwrap()])).trim().to_owned();
    let done = |cluster: &Cluster| -> u64 {
        let status = cluster.status(&id);
        status["sweeps"].as_array().unwrap().iter().filter_map(|s| s["subsets_done"].as_u64()).sum()
    };
    // 72 heads are fitted, then 2,556 pairs run.
    for (what, some) in [("the fit", 9), ("pairs", 400)] {
        wait_until(what, || done(&cluster) >= some);
        cluster.kill_coordinator();
        cluster.serve();
        wait_until(what, || done(&cluster) >= some);
        cluster.kill_worker();
        cluster.add_worker();
    }
    drop(said(cluster.client(&["watch", &id])));
    let out = folder.path().join("out");
    drop(said(cluster.client(&["export", &id, "--out", out.to_str().unwrap()])));
    assert_eq!(differing(&expected, &tables(&out)), [""; 0]);

    let told = folder.path().join("told");
    drop(said(cluster.client(&["export", &id, "--format", "json", "--out", told.to_str().unwrap()])));
    let (heads, constants) = (rows(&told, "heads"), rows(&told, "constants"));
    assert_eq!((heads.len(), constants.len()), (72, 72));
    let mut gained = 0;
    for c in &constants {
        let number = |key: &str| c[key].as_f64().unwrap();
        let (mean, fitted) = (number("loss_mean"), number("loss"));
        assert!(fitted <= mean, "{c}");
        gained += u32::from(fitted < mean);
        assert_eq!(c["constant"].as_array().unwrap().len(), 32);
        let head = heads.iter().find(|h| h["layer"] == c["layer"] && h["head"] == c["head"]).unwrap();
        assert_eq!(c["name"], head["name"]);
        // In f32 the fit's own pass and the sweep's aren't the same products.
        let delta = head["delta"].as_f64().unwrap();
        assert!((delta - fitted).abs() < 2e-5, "{c} and {head}");
    }
    assert!(gained > 60, "{gained} of 72 heads have a better constant than their mean");
    let summary = json(&out.join("summary.json")).to_string();
    assert!(summary.contains("fitted on the examples that they are evaluated on"), "{summary}");
}

#[test]
fn a_fit_on_a_reference_set_uses_its_records_and_what_has_none_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = folder.path().join("other.jsonl");
    let spec = spec(folder.path(), "method = \"optimal\"\nsteps = 1\nreference = \"other.jsonl\"");
    let text = std::fs::read_to_string(folder.path().join("pairs.jsonl")).unwrap();
    let text = text.lines().take(30).fold(String::new(), |all, line| all + line + "\n");
    std::fs::write(&pairs, &text).unwrap();
    let single = std::fs::read_to_string(&spec).unwrap();
    let single = single.split("[[sweep]]\nkind = \"pairs\"").next().unwrap().to_owned();
    std::fs::write(&spec, &single).unwrap();
    let out = folder.path().join("out");
    drop(said(run(&spec, &out, &[])));
    let summary = json(&out.join("summary.json")).to_string();
    assert!(!summary.contains("fitted on the examples that they are evaluated on"), "{summary}");

    std::fs::write(&pairs, "{\"text\": \"no pair\"}\n").unwrap();
    refused(
        &finish(&mut run(&spec, &folder.path().join("refused"), &[])),
        &["other.jsonl:1", "missing field"],
    );
    assert!(!folder.path().join("refused").join("run.json").exists());
}
