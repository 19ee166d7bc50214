//! A coordinator of its own with workers: kill −9 of either in the pairs and in the greedy sweep, and every
//! command that a user gives it.
#![allow(clippy::unwrap_used, reason = "tests")]

use ablate_tests::program::{
    Cluster, calm, differing, finish, json, refused, run, said, small_spec, tables, wait_until,
};
use serde_json::Value;
use std::process::Stdio;

/// Subsets done of a sweep of an experiment, and of how many.
fn done(status: &Value, sweep: &str) -> (u64, u64) {
    let all = status["sweeps"].as_array().unwrap();
    let of = |key: &str| {
        let named = all.iter().filter(|s| s["name"].as_str().unwrap().contains(sweep));
        named.map(|s| s[key].as_u64().unwrap()).sum()
    };
    (of("subsets_done"), of("subsets_total"))
}

/// Waits until at least `share` of a sweep is done; asserts that it isn't done yet.
fn wait_into(cluster: &Cluster, id: &str, sweep: &str, share: f64) {
    wait_until(sweep, || {
        let (have, of) = done(&cluster.status(id), sweep);
        have as f64 >= share * of as f64
    });
    let (have, of) = done(&cluster.status(id), sweep);
    assert!(have < of, "{sweep} was over before it could be disturbed: {have} of {of}");
}

#[test]
fn a_coordinator_and_workers_killed_in_pairs_and_greedy_change_no_byte() {
    let folder = tempfile::tempdir().unwrap();
    let spec = small_spec(folder.path());
    // Matched orders are known once greedy has ended, whoever leads then.
    let orders =
        "fraction = 0.2\norders = [\"greedy\", \"importance\", \"random\", \"matched\"]\nrandom_orders = 5\n";
    let text = std::fs::read_to_string(&spec).unwrap().replace("fraction = 0.2\n", orders);
    std::fs::write(&spec, text).unwrap();
    let calm = folder.path().join("calm");
    drop(said(run(&spec, &calm, &[])));
    let expected = tables(&calm);
    let planned = json(&calm.join("run.json"))["chunks"].clone();

    let mut cluster = Cluster::start(folder.path());
    cluster.add_worker();
    let id = said(cluster.client(&["submit", spec.to_str().unwrap()])).trim().to_owned();
    assert_eq!(id, json(&calm.join("run.json"))["id"], "one experiment, one identity");
    let watcher =
        cluster.client(&["watch", &id]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    for sweep in ["pairs", "greedy"] {
        for share in [0.1, 0.4] {
            wait_into(&cluster, &id, sweep, share);
            cluster.kill_coordinator();
            cluster.serve();
        }
        wait_into(&cluster, &id, sweep, 0.5);
        cluster.add_worker();
        cluster.kill_worker();
    }
    // It has followed through every death of the coordinator.
    let watched = watcher.wait_with_output().unwrap();
    assert!(watched.status.success(), "{}", String::from_utf8_lossy(&watched.stderr));
    assert!(String::from_utf8_lossy(&watched.stdout).contains("done"));
    let out = folder.path().join("out");
    drop(said(cluster.client(&["export", &id, "--out", out.to_str().unwrap()])));
    assert_eq!(differing(&expected, &tables(&out)), [""; 0]);
    let counted = json(&out.join("run.json"))["chunks"].clone();
    assert_eq!(counted["accepted"], planned["accepted"]);
    // A result that was committed but whose acknowledgement died with the coordinator is sent again, and
    // counted as a duplicate: one lane, four kills.
    let (computed, duplicate) =
        (counted["computed"].as_u64().unwrap(), counted["duplicate"].as_u64().unwrap());
    assert_eq!(computed, planned["accepted"].as_u64().unwrap() + duplicate, "{counted}");
    assert!(duplicate <= 8, "{counted}");
}

#[test]
fn every_command_does_what_it_says_on_a_live_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let spec = small_spec(folder.path());
    let mut cluster = Cluster::start(folder.path());
    let path = spec.to_str().unwrap();
    let parse = |text: String| serde_json::from_str::<Value>(&text).unwrap();

    let id = parse(said(cluster.client(&["submit", path, "--json"])))["id"].as_str().unwrap().to_owned();
    assert!(said(cluster.client(&["submit", path])).contains("was there already"));
    assert!(said(cluster.client(&["list"])).contains("small"));
    assert_eq!(said(cluster.client(&["workers", "--json"])), "");

    // Paused, nothing is leased; resumed, it goes on.
    assert!(said(cluster.client(&["pause", "small"])).contains("paused"));
    cluster.add_worker();
    wait_until("the worker is there", || !said(cluster.client(&["workers", "--json"])).is_empty());
    assert_eq!(cluster.status(&id)["chunks"]["accepted"], 0);
    assert!(said(cluster.client(&["status", &id[..8]])).contains("pairs"));
    refused(&finish(&mut cluster.client(&["pause", &id])), &["paused"]);
    refused(&finish(&mut cluster.client(&["pause", "nothing"])), &["nothing"]);
    assert!(said(cluster.client(&["resume", &id])).contains("running"));
    let lines = said(cluster.client(&["watch", "small", "--json"]));
    assert_eq!(parse(lines.lines().last().unwrap().to_owned())["state"], "done");
    let worker = parse(said(cluster.client(&["workers", "--json"])));
    assert!(worker["accepted_chunks"].as_u64().unwrap() > 0, "{worker}");

    // Nothing is quarantined: a retry is done at once.
    drop(said(cluster.client(&["retry", &id])));
    drop(said(cluster.client(&["watch", &id])));

    // Tables in every format, from the service and from a folder.
    for (format, file) in [("parquet", "heads.parquet"), ("csv", "heads.csv"), ("json", "heads.json")] {
        let out = folder.path().join(format);
        let args = ["export", "small", "--format", format, "--out", out.to_str().unwrap()];
        drop(said(cluster.client(&args)));
        for file in [file, "report.html", "figures/heads-lee-mean.svg", "figures/heads-lee-mean.png"] {
            assert!(out.join(file).exists(), "{file}");
        }
        assert_eq!(json(&out.join("summary.json"))["tasks"][0]["task"], "lee");
    }
    let page = folder.path().join("page.html");
    drop(said(cluster.client(&["report", "small", "--out", page.to_str().unwrap()])));
    assert!(std::fs::read_to_string(page).unwrap().contains("<html"));

    // Another seed is another experiment; cancelled, it ends and keeps nothing running.
    let text = std::fs::read_to_string(&spec).unwrap();
    let other = folder.path().join("other.toml");
    std::fs::write(&other, text.replace("name = \"small\"", "name = \"other\"\nseed = 7")).unwrap();
    drop(said(cluster.client(&["submit", other.to_str().unwrap()])));
    assert!(said(cluster.client(&["cancel", "other"])).contains("cancelled"));
    refused(&finish(&mut cluster.client(&["resume", "other"])), &["cancelled", "ablate retry"]);
    assert_eq!(finish(&mut cluster.client(&["watch", "other"])).status.code(), Some(1));
    let part = folder.path().join("part");
    let exported = finish(&mut cluster.client(&["export", "other", "--out", part.to_str().unwrap()]));
    assert!(String::from_utf8_lossy(&exported.stderr).contains("isn't complete"));
    assert!(said(cluster.client(&["retry", "other"])).contains("running"));
    assert!(said(cluster.client(&["cancel", "other"])).contains("cancelled"));

    // A spec that is wrong is refused with its own name and line, here as by `ablate run`.
    std::fs::write(&other, text.replace("max_tokens", "max_token")).unwrap();
    refused(
        &finish(&mut cluster.client(&["submit", other.to_str().unwrap()])),
        &["other.toml:", "max_tokens"],
    );

    cluster.kill_coordinator();
    let out = finish(&mut cluster.client(&["list"]));
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("ablate serve"));
}

#[test]
fn a_worker_that_missed_the_model_says_so_and_serves_it_after_a_retry() {
    let folder = tempfile::tempdir().unwrap();
    let spec = small_spec(folder.path());
    let (place, away) = (folder.path().join("model"), folder.path().join("away"));
    std::os::unix::fs::symlink(ablate_tests::minilm(), &place).unwrap();
    let text = std::fs::read_to_string(&spec).unwrap();
    let only = text.split("[[sweep]]").next().unwrap().to_owned() + "[[sweep]]\nkind = \"single\"\n";
    let found = format!("{:?}", ablate_tests::minilm());
    std::fs::write(&spec, only.replace(&found, "\"model\"")).unwrap();
    let mut cluster = Cluster::start(folder.path());
    let id = said(cluster.client(&["submit", spec.to_str().unwrap()])).trim().to_owned();
    std::fs::rename(&place, &away).unwrap();
    cluster.add_worker();
    wait_until("the worker complains", || cluster.status(&id)["error"] != "");
    let status = cluster.status(&id);
    assert_eq!((&status["state"], &status["chunks"]["accepted"]), (&"running".into(), &0.into()));
    let error = status["error"].as_str().unwrap();
    assert!(error.contains("missing") && error.contains("ablate retry"), "{error}");
    std::fs::rename(&away, &place).unwrap();
    drop(said(cluster.client(&["retry", &id])));
    drop(said(cluster.client(&["watch", &id])));
    assert_eq!(cluster.status(&id)["state"], "done");
}

#[test]
fn audited_chunks_are_computed_by_both_workers_are_equal_and_change_no_table() {
    let folder = tempfile::tempdir().unwrap();
    let spec = small_spec(folder.path());
    let audited = folder.path().join("audited");
    drop(said(run(&spec, &audited, &["--workers", "2", "--audit", "1"])));
    assert_eq!(differing(&tables(calm()), &tables(&audited)), [""; 0]);
    let told = json(&audited.join("run.json"));
    let count = |key: &str| told["chunks"][key].as_u64().unwrap();
    assert!(count("compared") > count("accepted") / 2, "{}", told["chunks"]);
    assert_eq!(count("computed"), count("accepted") + count("duplicate"));
    assert_eq!(told["differing"], serde_json::json!([]));
    assert_eq!(json(&calm().join("run.json"))["chunks"]["compared"], 0);
}

#[test]
fn a_coordinator_is_upgraded_in_the_middle_while_a_worker_of_the_previous_protocol_stays() {
    let folder = tempfile::tempdir().unwrap();
    let spec = small_spec(folder.path());
    // Follow-ups of pairs need the new protocol.
    let text = std::fs::read_to_string(&spec).unwrap().replace("\"pairs\"", "\"pairs\"\ngroups = false");
    std::fs::write(&spec, text).unwrap();
    let calm = folder.path().join("calm");
    drop(said(run(&spec, &calm, &[])));
    let mut cluster = Cluster::start(folder.path());
    cluster.add_worker_with(&["--protocol", "2"]);
    let id = said(cluster.client(&["submit", spec.to_str().unwrap()])).trim().to_owned();
    wait_into(&cluster, &id, "pairs", 0.1);
    // One worker, who speaks protocol 2 before and after; it says nothing of what came later, as how long it waited.
    let spoken =
        |c: &Cluster| serde_json::from_str::<Value>(said(c.client(&["workers", "--json"])).trim()).unwrap();
    let before = spoken(&cluster);
    assert_eq!(before["protocol"], 2, "{before}");
    cluster.kill_coordinator();
    cluster.serve();
    drop(said(cluster.client(&["watch", &id])));
    let after = spoken(&cluster);
    assert_eq!((&after["protocol"], &after["name"]), (&2.into(), &before["name"]), "{after}");
    assert!(after["busy_s"].as_f64().unwrap() > 0.0 && after["idle_s"] == 0.0, "{after}");
    let out = folder.path().join("out");
    drop(said(cluster.client(&["export", &id, "--out", out.to_str().unwrap()])));
    assert_eq!(differing(&tables(&calm), &tables(&out)), [""; 0]);

    // What needs the new protocol waits for a worker that speaks it, and says so.
    let text = std::fs::read_to_string(&spec).unwrap().replace("\"mean\"", "\"optimal\"\nsteps = 1");
    let text = text.split("[[sweep]]\nkind = \"pairs\"").next().unwrap().replace("\"small\"", "\"fits\"");
    let fits = folder.path().join("fits.toml");
    std::fs::write(&fits, text).unwrap();
    let id = said(cluster.client(&["submit", fits.to_str().unwrap()])).trim().to_owned();
    wait_until("the worker is refused", || cluster.status(&id)["error"].to_string().contains("protocol 2"));
    assert_eq!(cluster.status(&id)["chunks"]["accepted"], 0);
    cluster.add_worker();
    drop(said(cluster.client(&["watch", &id])));
    assert_eq!(cluster.status(&id)["state"], "done");
}
