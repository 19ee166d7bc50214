//! The dashboard, watched in a real browser while a real run goes on and loses a worker.
#![allow(clippy::unwrap_used, reason = "tests")]

use ablate_tests::browser::drive;
use ablate_tests::program::{minilm_spec, said, wait_until, worker};
use ablate_tests::service::{Service, token};
use std::process::{Child, Stdio};

/// A program that is killed when it goes.
struct Beside(Child);

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_worker(service: &Service, token: &str) -> Beside {
    let mut command = worker(&service.url());
    command.env("ABLATE_TOKEN", token).stdin(Stdio::null()).stderr(Stdio::null());
    Beside(command.spawn().unwrap())
}

/// Where a service says that its dashboard is.
fn address(log: &str) -> String {
    let at = log.split("dashboard on ").nth(1).expect("it says where");
    at.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn a_run_is_watched_in_a_browser_while_one_of_its_workers_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let spec = minilm_spec(folder.path(), "watched", 16, 12, 0.1);
    let tokens = ["worker", "submit"].map(|role| token(folder.path(), role, role));
    let models = ablate_tests::root().join("models").canonicalize().unwrap();
    let allow = ["--allow", models.to_str().unwrap(), "--allow", folder.path().to_str().unwrap()];
    let more = [&["--http", "127.0.0.1:0", "--require-auth"][..], &allow[..]].concat();
    let service = Service::start(folder.path(), "127.0.0.1", &more);
    let workers = [start_worker(&service, &tokens[0]), start_worker(&service, &tokens[0])];
    wait_until("both workers are there", || {
        said(service.with_token(&tokens[1], &["workers", "--json"])).matches("\"version\"").count() == 2
    });
    drop(said(service.with_token(&tokens[1], &["submit", spec.to_str().unwrap()])));
    // It waits for the browser, which takes its time to start.
    drop(said(service.with_token(&tokens[1], &["pause", "watched"])));
    let url = address(&service.log());
    let victim = workers[0].0.id().to_string();
    assert!(drive("dashboard.py", &[&url, &victim, &tokens[1]]).contains("watched"));
    // It acts by a token that it was shown, and keeps it to itself.
    assert!(!service.log().contains(tokens[1].rsplit('_').next().unwrap()));
}
