//! TLS and certificates.

use super::Beside;
use ablate_tests::authority::{Authority, Pair};
use ablate_tests::program::{
    ablate, calm, differing, finish, refused, said, small_spec, tables, wait_until, worker,
};
use ablate_tests::service::{Service, serve, token};
use std::path::Path;
use std::process::Command;

fn s(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Options of a caller with a certificate.
fn shows<'a>(command: &'a mut Command, ca: &Authority, pair: &Pair) -> &'a mut Command {
    command.arg("--ca").arg(ca.ca()).arg("--cert").arg(&pair.cert).arg("--key").arg(&pair.key)
}

#[test]
fn a_worker_known_by_its_certificate_runs_a_sweep_to_its_end_with_the_tables_of_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let spec = small_spec(folder.path());
    let ca = Authority::new(folder.path(), "own");
    let own = ca.server("server", &["127.0.0.1", "localhost"]);
    let callers = Authority::new(folder.path(), "callers");
    let (gpu, ann) = (
        callers.caller("gpu", &["ablate://role/worker"]),
        callers.caller("ann", &["ablate://role/submit", "https://x"]),
    );
    let callers_ca = callers.ca();
    let options =
        ["--tls-cert", s(&own.cert), "--tls-key", s(&own.key), "--client-ca", s(&callers_ca), "--allow", "/"];
    let ca_file = callers.ca();
    assert!(ca_file.exists());
    let service = Service::start(folder.path(), "127.0.0.1", &options);

    // Nobody, somebody without a role, somebody with another, and somebody of another authority.
    refused(
        &finish(service.client(&["list"]).arg("--ca").arg(ca.ca())),
        &["neither a token nor a certificate"],
    );
    let guest = callers.caller("guest", &["ablate://role/admin"]);
    refused(&finish(shows(&mut service.client(&["list"]), &ca, &guest)), &["names no role"]);
    refused(&finish(shows(&mut service.client(&["list"]), &ca, &gpu)), &["role worker", "submit or read"]);
    let stranger = ca.caller("stranger", &["ablate://role/submit"]);
    refused(&finish(shows(&mut service.client(&["list"]), &ca, &stranger)), &["--cert", "--client-ca"]);

    drop(said({
        let mut command = service.client(&["submit", s(&spec)]);
        shows(&mut command, &ca, &ann);
        command
    }));
    let log = folder.path().join("worker.log");
    let _working = Beside::start(shows(&mut worker(&service.url()), &ca, &gpu), &log);
    let mut watch = service.client(&["watch", "small"]);
    let watched = finish(shows(&mut watch, &ca, &ann));
    assert!(watched.status.success(), "{}", std::fs::read_to_string(&log).unwrap());
    let out = folder.path().join("out");
    let mut export = service.client(&["export", "small", "--out", s(&out)]);
    drop(finish(shows(&mut export, &ca, &ann)));
    assert!(!tables(&out).is_empty());
    assert_eq!(differing(&tables(&out), &tables(calm())), [""; 0]);
}

#[test]
fn what_is_wrong_with_the_files_of_tls_is_said_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::new(folder.path(), "own");
    let (one, two) = (ca.server("one", &["127.0.0.1"]), ca.server("two", &["127.0.0.1"]));
    let junk = folder.path().join("junk.pem");
    std::fs::write(&junk, "no PEM here").unwrap();
    let none = folder.path().join("none.pem");
    let start = |more: &[&str]| finish(&mut serve(folder.path(), "127.0.0.1:0", more));
    let (cert, key) = (s(&one.cert), s(&one.key));
    for (more, words) in [
        (&["--tls-cert", cert][..], &["--tls-key"][..]),
        (&["--tls-cert", s(&none), "--tls-key", key], &["--tls-cert", "none.pem", "No such file"]),
        (&["--tls-cert", s(&junk), "--tls-key", key], &["junk.pem", "BEGIN CERTIFICATE"]),
        (&["--tls-cert", key, "--tls-key", key], &["one.key", "BEGIN CERTIFICATE"]),
        (&["--tls-cert", cert, "--tls-key", cert], &["one.pem", "BEGIN PRIVATE KEY"]),
        (&["--tls-cert", cert, "--tls-key", s(&two.key)], &["two.key", "doesn't belong", "one.pem"]),
        (&["--tls-cert", cert, "--tls-key", key, "--client-ca", s(&none)], &["--client-ca", "none.pem"]),
    ] {
        refused(&start(more), words);
    }
    let client = |more: &[&str]| {
        let mut command = ablate();
        finish(command.args(["list", "--coordinator", "https://127.0.0.1:1"]).args(more))
    };
    refused(&client(&["--ca", s(&none)]), &["--ca", "none.pem"]);
    refused(&client(&["--cert", cert, "--key", s(&two.key)]), &["two.key", "doesn't belong"]);
    refused(&client(&["--cert", cert]), &["--cert and --key belong together"]);
    let old = ca.expired("old");
    refused(&client(&["--cert", s(&old.cert), "--key", s(&old.key)]), &["old.pem", "expired", "2020"]);
}

#[test]
fn clear_text_beyond_loopback_is_refused_and_tls_there_wants_identities() {
    let folder = tempfile::tempdir().unwrap();
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let said = finish(&mut serve(folder.path(), listen, &[]));
        refused(&said, &["--listen", "without TLS", "--tls-cert", "SSH tunnel"]);
    }
    let ca = Authority::new(folder.path(), "own");
    let own = ca.server("server", &["127.0.0.1"]);
    let service =
        Service::start(folder.path(), "0.0.0.0", &["--tls-cert", s(&own.cert), "--tls-key", s(&own.key)]);
    refused(
        &finish(service.client(&["list"]).arg("--ca").arg(ca.ca())),
        &["neither a token nor a certificate"],
    );
    let submit = token(folder.path(), "submit", "ann");
    wait_until("the token is known", || {
        finish(service.with_token(&submit, &["list"]).arg("--ca").arg(ca.ca())).status.success()
    });
    // Nor does it read any file for them until the operator says which.
    let spec = small_spec(folder.path());
    let said = finish(service.with_token(&submit, &["submit", s(&spec)]).arg("--ca").arg(ca.ca()));
    refused(&said, &["spec.toml:3", "--allow"]);
    // A client doesn't show its token in clear text either.
    let mut clear = ablate();
    clear.args(["list", "--coordinator", "http://192.0.2.1:7650"]).env("ABLATE_TOKEN", &submit);
    refused(&finish(&mut clear), &["clear text", "https://"]);
    refused(
        &finish(worker("http://192.0.2.1:7650").env("ABLATE_TOKEN", &submit)),
        &["clear text", "https://"],
    );
}

#[test]
fn a_wrong_authority_a_wrong_name_and_a_wrong_scheme_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, other) = (Authority::new(folder.path(), "own"), Authority::new(folder.path(), "other"));
    let own = ca.server("server", &["coordinator.example"]);
    let old = ca.expired("old");
    let tls = |pair: &Pair, at: &str| {
        let place = folder.path().join(at);
        std::fs::create_dir_all(&place).unwrap();
        Service::start(&place, "127.0.0.1", &["--tls-cert", s(&pair.cert), "--tls-key", s(&pair.key)])
    };
    let (service, expired) = (tls(&own, "a"), tls(&old, "b"));
    assert!(expired.log().contains("expired"), "the operator is warned");
    let plain_folder = folder.path().join("c");
    std::fs::create_dir_all(&plain_folder).unwrap();
    let plain = Service::start(&plain_folder, "127.0.0.1", &[]);
    let http = service.url().replace("https", "http");
    let https = plain.url().replace("http", "https");
    for (url, ca, words) in [
        (service.url(), other.ca(), &["isn't signed by an authority known here", "--ca"][..]),
        (service.url(), ca.ca(), &["for other names"]),
        (expired.url(), ca.ca(), &["expired", "renew"]),
        (http, ca.ca(), &["https://"]),
        (https, ca.ca(), &["doesn't speak TLS", "http://"]),
    ] {
        let mut list = ablate();
        list.args(["list", "--coordinator", &url, "--ca", s(&ca)]);
        refused(&finish(&mut list), words);
        refused(&finish(worker(&url).arg("--ca").arg(&ca)), words);
    }
}

#[test]
fn a_renewed_certificate_is_used_without_a_restart_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (Authority::new(folder.path(), "first"), Authority::new(folder.path(), "second"));
    let (old, new) = (first.server("server", &["127.0.0.1"]), second.server("server", &["127.0.0.1"]));
    let service =
        Service::start(folder.path(), "127.0.0.1", &["--tls-cert", s(&old.cert), "--tls-key", s(&old.key)]);
    let takes = |ca: &Authority| finish(service.client(&["list"]).arg("--ca").arg(ca.ca())).status.success();
    assert!(takes(&first) && !takes(&second));
    // The key comes first: for a while the two don't fit.
    std::fs::copy(&new.key, &old.key).unwrap();
    service.wait_for("the old ones are used on");
    assert!(takes(&first));
    std::fs::copy(&new.cert, &old.cert).unwrap();
    wait_until("the new one is used", || takes(&second));
    assert!(!takes(&first));
}
