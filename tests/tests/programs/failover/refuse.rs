//! What `ablate serve` and `ablate doctor` say of a database that isn't as it should be; no word shows a password.

use ablate_test_postgres::{PASSWORD, shared};
use ablate_tests::program::{ablate, finish};
use std::process::Output;

fn words(out: &Output) -> String {
    let all = [&out.stdout[..], &out.stderr[..]].concat();
    let text = String::from_utf8_lossy(&all).into_owned();
    assert!(!text.contains(PASSWORD), "the password shows: {text}");
    text
}

fn serve(store: &str, folder: &std::path::Path) -> (Option<i32>, String) {
    let mut command = ablate();
    command.args(["serve", "--listen", "127.0.0.1:0", "--store", store]).current_dir(folder);
    let out = finish(command.env("ABLATE_LOG", "trace"));
    (out.status.code(), words(&out))
}

#[test]
fn a_store_that_cannot_be_used_is_told_with_what_to_do_and_without_its_password() {
    let server = shared();
    let folder = tempfile::tempdir().unwrap();
    let database = server.database();
    let expect = |store: &str, code: i32, parts: &[&str]| {
        let (got, text) = serve(store, folder.path());
        assert_eq!(got, Some(code), "{text}");
        assert!(text.contains("help:"), "{text}");
        for part in parts {
            assert!(text.contains(part), "{part:?} isn't in: {text}");
        }
    };
    let other = server.url_as("nobody-there", PASSWORD, &database);
    expect(&other, 2, &["password authentication failed", "nobody-there:***@", "~/.pgpass"]);
    expect(&server.url("nowhere"), 2, &["does not exist", "createdb"]);
    expect(
        &format!("postgres://a:{PASSWORD}@127.0.0.1:9/x"),
        1,
        &["can't be reached", "a:***@127.0.0.1:9/x"],
    );
    expect(&format!("postgres://a:{PASSWORD}#@127.0.0.1/x"), 2, &["--store", "%XX"]);
    expect(&format!("postgres://127.0.0.1/x?pasword={PASSWORD}"), 2, &["unknown key", "sslmode"]);
    expect(&format!("mysql://a:{PASSWORD}@127.0.0.1/x"), 2, &["not the URL of a store", "postgres://"]);

    // A config file with a slip in the line of the password.
    let config = folder.path().join("serve.toml");
    std::fs::write(&config, format!("listen = \"127.0.0.1:0\"\nstore = \"postgres://a:{PASSWORD}@db/x\n"))
        .unwrap();
    let out = finish(ablate().args(["serve", "--config"]).arg(&config));
    assert_eq!(out.status.code(), Some(2));
    assert!(words(&out).contains("serve.toml:2"), "{}", words(&out));
    // Help shows that there is an environment variable, not what is in it.
    let out = finish(ablate().args(["serve", "--help"]).env("ABLATE_STORE", server.url(&database)));
    assert!(words(&out).contains("ABLATE_STORE"));
}

#[test]
fn doctor_looks_at_the_store_and_changes_nothing() {
    let server = shared();
    let database = server.database();
    let doctor = |store: &str| {
        let out = finish(ablate().args(["doctor", "--json"]).env("ABLATE_STORE", store));
        let text = words(&out);
        let all: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        let checks = all["checks"].as_array().unwrap().clone();
        checks.into_iter().find(|c| c["check"] == "store that was named").unwrap()
    };
    let check = doctor(&server.url(&database));
    // This server runs without fsync.
    assert_eq!(check["ok"], false);
    assert!(check["found"].as_str().unwrap().contains("no tables yet"), "{check}");
    assert!(check["fix"].as_str().unwrap().contains("fsync = on"), "{check}");
    assert!(server.rows(&database, "SELECT 1 FROM pg_tables WHERE schemaname = 'public'").is_empty());
    let check = doctor(&server.url("nowhere"));
    assert!(check["found"].as_str().unwrap().contains("does not exist"), "{check}");
}
