//! The built programs, end to end on MiniLM: one run to the end, kills in the middle, many workers,
//! Ctrl-C, wrong input.
#![allow(clippy::unwrap_used, reason = "tests")]

use ablate_tests::{minilm, root};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn ablate() -> Command {
    let program = root().join("target/release/ablate");
    assert!(program.exists(), "{} is missing: run `make build`", program.display());
    Command::new(program)
}

/// 12 texts of 8 tokens: all sweeps in seconds.
fn spec(folder: &Path, extra: &str) -> PathBuf {
    let all = std::fs::read_to_string(root().join("models/data/lee-pairs.jsonl")).unwrap();
    let rows: Vec<&str> = all.lines().collect();
    let mut at = 0;
    let mut data = String::new();
    for i in 0..50 {
        for j in i + 1..50 {
            if j < 12 {
                data += rows[at];
                data.push('\n');
            }
            at += 1;
        }
    }
    std::fs::write(folder.join("pairs.jsonl"), data).unwrap();
    let path = folder.join("spec.toml");
    let text = format!(
        "name = \"small\"\n{extra}\n[model]\nsource = {:?}\n[[task]]\nname = \"lee\"\nkind = \"similarity\"\ndata = \"pairs.jsonl\"\nmax_tokens = 8\n[ablation]\nmethod = \"mean\"\n[[sweep]]\nkind = \"single\"\n[[sweep]]\nkind = \"pairs\"\n[[sweep]]\nkind = \"greedy\"\nfraction = 0.2\n",
        minilm()
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn run(spec: &Path, out: &Path, more: &[&str]) -> Command {
    let mut command = ablate();
    command.arg("run").arg(spec).arg("--out").arg(out).args(["--device", "cpu", "--threads", "1"]).args(more);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn succeed(mut command: Command) -> String {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Every Parquet table, by name.
fn tables(out: &Path) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(out)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "parquet"))
        .map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&p).unwrap()))
        .collect()
}

fn chunks(out: &Path) -> serde_json::Value {
    let text = std::fs::read_to_string(out.join("run.json")).unwrap();
    serde_json::from_str::<serde_json::Value>(&text).unwrap()["chunks"].clone()
}

/// Bytes of the write-ahead log grow with every accepted chunk: waits until enough were.
fn wait_for_chunks(child: &mut Child, out: &Path, bytes: u64) {
    let began = Instant::now();
    let size = |name: &str| std::fs::metadata(out.join(name)).map_or(0, |m| m.len());
    while size("state.db") + size("state.db-wal") < bytes {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it could be disturbed");
        assert!(began.elapsed() < Duration::from_secs(240), "no chunk was accepted in time");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success());
}

fn worker_of(run: u32) -> Option<u32> {
    let out = Command::new("ps").args(["-o", "pid=", "--ppid", &run.to_string()]).output().unwrap();
    String::from_utf8_lossy(&out.stdout).split_whitespace().next().and_then(|p| p.parse().ok())
}

#[test]
fn kills_in_the_middle_change_no_byte_and_repeat_no_acknowledged_chunk() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec(folder.path(), "");
    let calm = folder.path().join("calm");
    let said = succeed(run(&spec, &calm, &[]));
    assert!(said.contains("report.html"), "{said}");
    let expected = tables(&calm);
    for name in ["heads", "pairs", "curve", "examples", "scores"] {
        assert!(expected.contains_key(&format!("{name}.parquet")), "{name} is missing");
    }
    assert!(std::fs::read_to_string(calm.join("report.html")).unwrap().contains("<html"));
    let planned = chunks(&calm);
    assert_eq!(planned["planned"], planned["accepted"]);
    assert_eq!(planned["computed"], planned["accepted"]);
    let full: u64 = std::fs::metadata(calm.join("state.db")).unwrap().len();

    // kill −9 of the whole run (twice), of the worker, and Ctrl-C, at growing places.
    let shaken = folder.path().join("shaken");
    for (share, who) in [(0.35, "run"), (0.6, "worker"), (0.75, "ctrl-c"), (0.85, "run")] {
        let mut child = run(&spec, &shaken, &[]).spawn().unwrap();
        wait_for_chunks(&mut child, &shaken, (full as f64 * share) as u64);
        match who {
            "worker" => {
                if let Some(worker) = worker_of(child.id()) {
                    signal(worker, "KILL");
                }
                std::thread::sleep(Duration::from_millis(1500));
                signal(child.id(), "KILL");
                child.wait().unwrap();
            }
            "ctrl-c" => {
                let began = Instant::now();
                signal(child.id(), "INT");
                let out = child.wait_with_output().unwrap();
                assert!(began.elapsed() < Duration::from_secs(5));
                assert_eq!(out.status.code(), Some(130));
                assert!(String::from_utf8_lossy(&out.stderr).contains("ablate run"));
            }
            _ => {
                signal(child.id(), "KILL");
                child.wait().unwrap();
            }
        }
    }
    succeed(run(&spec, &shaken, &["--resume"]));
    assert!(expected == tables(&shaken), "a disturbed run's tables differ");
    let counted = chunks(&shaken);
    assert_eq!(counted["accepted"], planned["accepted"]);
    assert_eq!(counted["duplicate"], 0, "{counted}");

    // Two workers, and two lanes of one worker.
    for (name, more) in [("workers", ["--workers", "2"]), ("lanes", ["--device", "cpu,cpu"])] {
        let out = folder.path().join(name);
        let mut command = ablate();
        command.arg("run").arg(&spec).arg("--out").arg(&out).args(["--threads", "1"]).args(more);
        if name == "workers" {
            command.args(["--device", "cpu"]);
        }
        succeed(command);
        assert!(expected == tables(&out), "{name}: tables differ");
    }
}

fn refused(out: &Output, words: &[&str]) {
    let text = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} isn't in: {text}");
    }
}

#[test]
fn wrong_input_is_refused_with_what_where_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let good = std::fs::read_to_string(spec(folder.path(), "")).unwrap();
    let out = folder.path().join("out");
    let attempt = |text: &str, words: &[&str]| {
        let path = folder.path().join("bad.toml");
        std::fs::write(&path, text).unwrap();
        refused(&run(&path, &out, &[]).output().unwrap(), words);
        assert!(!out.join("state.db").exists(), "work was started");
    };
    attempt(&good.replace("max_tokens", "max_token"), &["bad.toml:", "max_tokens"]);
    attempt(&good.replace("\"similarity\"", "\"similarty\""), &["bad.toml:", "similarity"]);
    attempt(&good.replace("\"mean\"", "\"resample\""), &["bad.toml:", "built yet"]);
    attempt(&good.replace("fraction = 0.2", "fraction = 1.5"), &["bad.toml:", "fraction"]);
    attempt(&good.replace("max_tokens = 8", "max_tokens = 4000"), &["512"]);
    attempt(&good.replace("pairs.jsonl", "none.jsonl"), &["none.jsonl"]);
    attempt(&good.replace("[model]", "[model]\nsha256 = \"00ff\""), &["sha256"]);
    std::fs::write(folder.path().join("empty.jsonl"), "").unwrap();
    attempt(&good.replace("pairs.jsonl", "empty.jsonl"), &["empty.jsonl"]);
    std::fs::write(
        folder.path().join("odd.jsonl"),
        "{\"a\": \"x\", \"b\": \"y\", \"score\": 1}\n{\"a\": 3}\n",
    )
    .unwrap();
    attempt(&good.replace("pairs.jsonl", "odd.jsonl"), &["odd.jsonl:2"]);
    // A truncated and an unknown model.
    let model = folder.path().join("model");
    std::fs::create_dir(&model).unwrap();
    for name in ["config.json", "tokenizer.json"] {
        std::fs::copy(minilm().join(name), model.join(name)).unwrap();
    }
    let weights = std::fs::read(minilm().join("model.safetensors")).unwrap();
    let other = good.replace(&format!("{:?}", minilm()), &format!("{model:?}"));
    attempt(&other, &["model.safetensors"]);
    std::fs::write(model.join("model.safetensors"), &weights[..weights.len() / 2]).unwrap();
    attempt(&other, &["model.safetensors"]);
    std::fs::write(model.join("model.safetensors"), &weights).unwrap();
    let config = std::fs::read_to_string(model.join("config.json")).unwrap();
    std::fs::write(model.join("config.json"), config.replace("\"bert\"", "\"mamba\"")).unwrap();
    attempt(&other, &["mamba", "llama"]);
    refused(&run(&folder.path().join("nowhere.toml"), &out, &[]).output().unwrap(), &["nowhere.toml"]);
    refused(&run(&folder.path().join("spec.toml"), &out, &["--resume"]).output().unwrap(), &["resume"]);

    // The folder of something else, and of a different experiment.
    let foreign = folder.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("thesis.tex"), "").unwrap();
    let single = good.split("[[sweep]]\nkind = \"pairs\"").next().unwrap();
    let path = folder.path().join("single.toml");
    std::fs::write(&path, single).unwrap();
    refused(&run(&path, &foreign, &[]).output().unwrap(), &["foreign"]);
    succeed(run(&path, &out, &[]));
    std::fs::write(&path, single.replace("max_tokens = 8", "max_tokens = 7")).unwrap();
    refused(&run(&path, &out, &[]).output().unwrap(), &["max_tokens", "8", "7"]);
}

#[test]
fn a_port_in_use_and_an_open_address_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let serve = |listen: &str| {
        let store = format!("sqlite://{}", folder.path().join("s.db").display());
        ablate().args(["serve", "--listen", listen, "--store", &store]).output().unwrap()
    };
    refused(&serve(&taken.local_addr().unwrap().to_string()), &["in use"]);
    refused(&serve("0.0.0.0:0"), &["TLS"]);
}
