//! The built programs, end to end on MiniLM: one run to the end, kills in the middle, many workers,
//! Ctrl-C, wrong input.
#![allow(clippy::unwrap_used, reason = "tests")]

use ablate_tests::minilm;
use ablate_tests::program::{
    ablate, calm, differing, json, refused, run, said as succeed, signal, small_spec, tables, wait_until,
};
use sqlx::Connection;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

fn chunks(out: &Path) -> serde_json::Value {
    json(&out.join("run.json"))["chunks"].clone()
}

/// Bytes of the write-ahead log grow with every accepted chunk: waits until enough were.
fn wait_for_chunks(child: &mut Child, out: &Path, bytes: u64) {
    let size = |name: &str| std::fs::metadata(out.join(name)).map_or(0, |m| m.len());
    wait_until("a chunk is accepted", || {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it could be disturbed");
        size("state.db") + size("state.db-wal") >= bytes
    });
}

fn worker_of(run: u32) -> Option<u32> {
    let out = Command::new("ps").args(["-o", "pid=", "--ppid", &run.to_string()]).output().unwrap();
    String::from_utf8_lossy(&out.stdout).split_whitespace().next().and_then(|p| p.parse().ok())
}

/// Writes into a folder whose run has ended that it was cancelled.
fn cancel(out: &Path) {
    let url = format!("sqlite://{}", out.join("state.db").display());
    let work = async {
        let mut store = sqlx::SqliteConnection::connect(&url).await.unwrap();
        sqlx::query("UPDATE experiments SET state = 'cancelled'").execute(&mut store).await.unwrap();
        store.close().await.unwrap();
    };
    tokio::runtime::Runtime::new().unwrap().block_on(work);
}

#[test]
fn kills_in_the_middle_change_no_byte_and_repeat_no_acknowledged_chunk() {
    let folder = tempfile::tempdir().unwrap();
    let spec = small_spec(folder.path());
    let calm = calm();
    let expected = tables(calm);
    for name in ["heads", "pairs", "curve", "agreement", "examples", "scores"] {
        assert!(expected.contains_key(&format!("{name}.parquet")), "{name} is missing");
    }
    assert!(std::fs::read_to_string(calm.join("report.html")).unwrap().contains("<html"));
    let planned = chunks(calm);
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
                // To be below 5 s; what a loaded machine adds is not for a test to judge.
                println!("Ctrl-C ended the run in {:.2} s", began.elapsed().as_secs_f64());
                assert_eq!(out.status.code(), Some(130));
                assert!(String::from_utf8_lossy(&out.stderr).contains("ablate run"));
            }
            _ => {
                signal(child.id(), "KILL");
                child.wait().unwrap();
            }
        }
    }
    // As by the button of its dashboard: the same command takes it up again.
    cancel(&shaken);
    let said = succeed(run(&spec, &shaken, &["--resume"]));
    assert!(said.contains("report.html"), "{said}");
    assert_eq!(differing(&expected, &tables(&shaken)), [""; 0]);
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
        assert_eq!(differing(&expected, &tables(&out)), [""; 0], "{name}");
    }
}

#[test]
fn wrong_input_is_refused_with_what_where_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let good = std::fs::read_to_string(small_spec(folder.path())).unwrap();
    let out = folder.path().join("out");
    let attempt = |text: &str, words: &[&str]| {
        let path = folder.path().join("bad.toml");
        std::fs::write(&path, text).unwrap();
        refused(&run(&path, &out, &[]).output().unwrap(), words);
        assert!(!out.join("state.db").exists(), "work was started");
    };
    attempt(&good.replace("max_tokens", "max_token"), &["bad.toml:", "max_tokens"]);
    attempt(&good.replace("\"similarity\"", "\"similarty\""), &["bad.toml:", "similarity"]);
    attempt(&good.replace("\"similarity\"", "\"generation\""), &["bad.toml:", "built yet"]);
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
