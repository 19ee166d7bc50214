//! SIGTERM of a worker, as a machine that is taken away sends it.
#![allow(clippy::unwrap_used, reason = "tests")]

use ablate_tests::program::{
    Cluster, calm, differing, json, said, signal, small_spec, tables, wait_until, worker,
};
use std::process::Stdio;

#[test]
fn a_worker_told_to_end_finishes_its_chunk_hands_back_the_rest_and_nothing_is_computed_twice() {
    let folder = tempfile::tempdir().unwrap();
    let spec = small_spec(folder.path());
    // What isn't handed back would be missing for longer than any test waits.
    let mut cluster = Cluster::start_with(folder.path(), &["--lease", "3600"]);
    let log = folder.path().join("worker.log");
    let mut drained = worker(&cluster.url())
        .env("ABLATE_LOG", "info,ablate_worker_client=debug")
        .stderr(Stdio::from(std::fs::File::create(&log).unwrap()))
        .spawn()
        .unwrap();
    let id = said(cluster.client(&["submit", spec.to_str().unwrap()])).trim().to_owned();
    let accepted = |c: &Cluster| c.status(&id)["chunks"]["accepted"].as_u64().unwrap();
    wait_until("chunks come", || accepted(&cluster) >= 3);
    signal(drained.id(), "TERM");
    let status = drained.wait().unwrap();
    let told = std::fs::read_to_string(&log).unwrap();
    assert_eq!(status.code(), Some(0), "{told}");
    // The chunk that it worked on was finished and acknowledged after it was told.
    let (_, after) = told.split_once("draining").unwrap_or_else(|| panic!("{told}"));
    assert!(after.contains("acknowledged") && !after.contains("without an acknowledgement"), "{told}");
    wait_until("it is gone", || said(cluster.client(&["workers", "--json"])).is_empty());
    let before = cluster.status(&id)["chunks"].clone();
    assert!(before["accepted"].as_u64() < before["planned"].as_u64(), "it was over before it was disturbed");
    assert_eq!(before["computed"], before["accepted"], "{before}");

    cluster.add_worker();
    drop(said(cluster.client(&["watch", &id])));
    let out = folder.path().join("out");
    drop(said(cluster.client(&["export", &id, "--out", out.to_str().unwrap()])));
    assert_eq!(differing(&tables(calm()), &tables(&out)), [""; 0]);
    let chunks = json(&out.join("run.json"))["chunks"].clone();
    assert_eq!((&chunks["computed"], &chunks["duplicate"]), (&chunks["planned"], &0.into()), "{chunks}");
}
