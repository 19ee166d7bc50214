//! `ablate compare` on folders of real runs, by the built programs.
#![allow(clippy::unwrap_used, reason = "tests")]

use ablate_tests::minilm;
use ablate_tests::program::{ablate, finish, lee, refused, run, said};
use std::path::Path;

/// A run of MiniLM's single heads on the first `texts` news texts.
fn made(folder: &Path, name: &str, texts: usize) {
    let own = folder.join(format!("{name}-data"));
    std::fs::create_dir(&own).unwrap();
    lee(&own, texts);
    let spec = own.join("spec.toml");
    let text = format!(
        "name = {name:?}\n[model]\nsource = {:?}\n[[task]]\nname = \"lee\"\nkind = \"similarity\"\ndata = \"pairs.jsonl\"\n\
         max_tokens = 8\n[ablation]\nmethod = \"mean\"\n[[sweep]]\nkind = \"single\"\n",
        minilm()
    );
    std::fs::write(&spec, text).unwrap();
    said(run(&spec, &folder.join(name), &[]));
}

#[test]
fn runs_of_two_data_sets_are_compared_from_their_state_or_their_tables() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path(), "small", 10);
    made(folder.path(), "large", 14);
    let compare = |args: &[&str]| {
        let mut command = ablate();
        command.arg("compare").args(args).current_dir(folder.path());
        command
    };
    let text = said(compare(&["small", "large", "--show", "3"]));
    assert!(text.contains("run 2: large") && text.contains("lee (mean ablation, 72 heads)"), "{text}");
    assert!(text.contains("within_layer") && text.contains("in all 2 runs"), "{text}");

    let json: serde_json::Value =
        serde_json::from_str(&said(compare(&["small", "large", "--json", "--out", "heads.csv"]))).unwrap();
    let units = json["units"].as_array().unwrap();
    assert_eq!((units.len(), json["agreement"].as_array().unwrap().len()), (72, 2));
    let spearman = json["agreement"][0]["spearman"].as_f64().unwrap();
    assert!(spearman > 0.3 && spearman < 1.0, "{spearman}");
    let csv = std::fs::read_to_string(folder.path().join("heads.csv")).unwrap();
    assert_eq!(csv.lines().count(), 73);
    assert!(csv.starts_with("task,method,unit,stream,layer,head,name,runs,mean_rank"), "{csv}");

    // Tables in any format, without the state, say the same.
    for format in ["parquet", "csv", "json"] {
        said({
            let mut command = ablate();
            command.args(["export", "large", "--format", format, "--out", format]).current_dir(folder.path());
            command
        });
        let other: serde_json::Value =
            serde_json::from_str(&said(compare(&["small", format, "--json"]))).unwrap();
        assert_eq!(other["units"].as_array().unwrap().len(), 72, "{format}");
        let apart = (other["agreement"][0]["spearman"].as_f64().unwrap() - spearman).abs();
        assert!(apart < 1e-12, "{format}: {apart}");
    }
    refused(&finish(&mut compare(&["small"])), &["2 values"]);
    refused(&finish(&mut compare(&["small", "nowhere"])), &["there is no folder nowhere", "ablate run"]);
    refused(&finish(&mut compare(&["small", "small-data"])), &["state.db", "heads.parquet"]);
    refused(&finish(&mut compare(&["small", "large", "--out", "x.txt"])), &[".parquet, .csv or .json"]);
}
