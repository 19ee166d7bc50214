//! What the dashboard refuses. `dashboard_live` watches it in a browser.
#![allow(clippy::unwrap_used, reason = "tests")]

use ablate_tests::program::{ablate, finish, refused};
use std::path::Path;

#[test]
fn an_address_that_others_reach_needs_tls_and_a_run_is_for_this_machine_only() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite://{}", folder.path().join("s.db").display());
    let serve = |http: &str, more: &[&str]| {
        let mut command = ablate();
        command.args(["serve", "--listen", "127.0.0.1:0", "--store", &store, "--http", http]).args(more);
        finish(command.current_dir(folder.path()))
    };
    refused(&serve("0.0.0.0:0", &[]), &["--http 0.0.0.0:0", "TLS", "--tls-cert"]);
    refused(&serve("[::]:0", &[]), &["TLS"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    refused(&serve(&taken.local_addr().unwrap().to_string(), &[]), &["--http", "in use"]);
    let spec = ablate_tests::program::small_spec(folder.path());
    let mut run = ablate();
    run.arg("run").arg(&spec).arg("--out").arg(folder.path().join("out")).args(["--http", "0.0.0.0:0"]);
    refused(&finish(&mut run), &["this machine only"]);
    assert!(!Path::new(&folder.path().join("out/state.db")).exists(), "work was started");
}
