//! Two rounds of `make chaos`: real programs on hosts of their own, cut off and killed, on SQLite and PostgreSQL.
#![allow(clippy::unwrap_used, reason = "tests")]

use ablate_chaos::faults::Fault;
use ablate_chaos::rounds::{Store, Truth};
use ablate_test_postgres::Server;
use std::io::Write;
use std::process::Command;

/// Hosts are network namespaces, which only root can make.
fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    String::from_utf8_lossy(&id.stdout).trim() == "0"
}

#[test]
fn workers_cut_off_and_coordinators_killed_change_no_byte() {
    if !is_root() {
        assert!(std::env::var_os("CI").is_none(), "run as root: hosts are network namespaces");
        // Past the harness, which shows what a test prints only where it fails.
        let said = "\nNOT RUN: chaos needs hosts of its own, network namespaces, which take root; run it as root (sudo make test)\n";
        std::io::stderr().write_all(said.as_bytes()).unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let truth = Truth::of_minilm(folder.path(), 16).unwrap();
    let server = Server::start(true);
    for (round, fault, store) in
        [(1000, Fault::CutWorker, Store::Sqlite), (1001, Fault::KillCoordinator, Store::Postgres)]
    {
        let row = truth.round(round, fault, store, Some(&server)).unwrap();
        assert_eq!(row["identical"], true, "{row}");
        assert!(row["faults"].as_u64().unwrap() > 0, "{row}");
    }
}
