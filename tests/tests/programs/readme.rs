//! Every command of the README, as a new user types it. `make test` is what runs this; `make demo` runs whole,
//! on smaller specs.
#![allow(clippy::unwrap_used, reason = "tests")]

use ablate_tests::program::{finish, json, lee, said};
use ablate_tests::root;
use std::path::Path;
use std::process::Command;

fn readme() -> String {
    std::fs::read_to_string(root().join("README.md")).unwrap()
}

/// Fenced blocks of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let open = format!("```{language}\n");
    text.split(&open).skip(1).filter_map(|rest| rest.split("```").next().map(str::to_owned)).collect()
}

/// A folder that looks like a built checkout from inside.
fn checkout(folder: &Path) {
    for name in ["models", "target"] {
        std::os::unix::fs::symlink(root().join(name), folder.join(name)).unwrap();
    }
}

fn bash(folder: &Path, script: &str) -> String {
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", script]).current_dir(folder);
    said(command)
}

#[test]
fn every_command_of_the_tour_and_of_the_cluster_works_as_written() {
    let text = readme();
    let folder = tempfile::tempdir().unwrap();
    checkout(folder.path());
    let spec = &blocks(&text, "toml")[0];
    // The same spec on fewer examples: the tour's is for a laptop, this is for every change.
    assert!(spec.contains("examples = 8\n") && spec.contains("max_tokens = 64\n"));
    let small =
        spec.replace("examples = 8\n", "examples = 2\n").replace("max_tokens = 64\n", "max_tokens = 10\n");
    std::fs::write(folder.path().join("my-sweep.toml"), small).unwrap();

    let shell = blocks(&text, "sh");
    let [two, tour, cluster] = shell.as_slice() else { panic!("{} shell blocks", shell.len()) };
    assert!(two.lines().all(|l| l.starts_with("make demo ") || l.starts_with("make test ")), "{two}");
    bash(folder.path(), tour);
    for name in ["report.html", "heads.parquet", "pairs.parquet", "curve.parquet", "agreement.parquet"] {
        assert!(folder.path().join("runs/my-sweep").join(name).exists(), "{name}");
    }

    // Inline commands: those of `ablate` run, those of make are at least known to make.
    let path = format!("export PATH=$PWD/target/release:{}; ", std::env::var("PATH").unwrap());
    let prose: String = text.split("```").step_by(2).collect();
    let inline: Vec<&str> = prose.split('`').skip(1).step_by(2).collect();
    let mut ran = 0;
    for command in inline {
        if command.starts_with("ablate export ") || command.starts_with("ablate token create ") {
            bash(folder.path(), &format!("{path}{command}"));
            ran += 1;
        } else if let Some(target) = command.strip_prefix("make ") {
            let mut make = Command::new("make");
            make.args(["-n", target]).current_dir(root());
            assert!(finish(&mut make).status.success(), "{command}");
            ran += 1;
        } else {
            // Names of programs and of the run that the tour made stand alone.
            assert!(
                !command.starts_with("ablate ") || command == "ablate run",
                "{command} is run by no test"
            );
        }
    }
    assert!(ran >= 3, "{ran}");
    assert!(folder.path().join("runs/my-sweep/heads.csv").exists());

    // Services of the cluster run beside the commands, and end with them.
    bash(folder.path(), &format!("{path}trap 'kill $(jobs -p) || true; wait' EXIT\n{cluster}"));
    assert_eq!(json(&folder.path().join("my-sweep/summary.json"))["heads"], 270);
}

#[test]
fn make_demo_ends_with_heads_pairs_retained_and_reports() {
    let folder = tempfile::tempdir().unwrap();
    lee(folder.path(), 8);
    for name in ["minilm", "smollm2"] {
        let text = std::fs::read_to_string(root().join(format!("deploy/demo/{name}.toml"))).unwrap();
        let models = format!("{:?}", root().join("models")).trim_matches('"').to_owned();
        let small: String = text
            .lines()
            .map(|line| match line.split(" = ").next() {
                Some("max_tokens") => "max_tokens = 8\n".to_owned(),
                Some("examples") => "examples = 2\n".to_owned(),
                Some("data") => "data = \"pairs.jsonl\"\n".to_owned(),
                _ => format!("{}\n", line.replace("../../models", &models)),
            })
            .collect();
        std::fs::write(folder.path().join(format!("{name}.toml")), small).unwrap();
    }
    let mut make = Command::new("make");
    make.arg("demo").current_dir(root());
    // What cargo says of this test to it isn't for the cargo below, which would build again whatever reads it.
    for (name, _) in std::env::vars().filter(|(name, _)| {
        name.starts_with("CARGO_MANIFEST") || name.starts_with("CARGO_PKG") || name.starts_with("CARGO_BIN")
    }) {
        make.env_remove(name);
    }
    make.env("ABLATE_DEMO_SPECS", folder.path()).env("ABLATE_DEMO_RUNS", folder.path().join("runs"));
    let text = said(make);
    for words in [
        "Most important heads",
        " 10. L",
        "Most redundant pairs",
        "57 of 72 heads (79 %), greedy",
        "report.html",
    ] {
        assert!(text.contains(words), "{words:?} isn't in:\n{text}");
    }
}
