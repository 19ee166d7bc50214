//! Tokens and their roles.

use super::{Beside, files};
use ablate_tests::program::{ablate, finish, refused, run, said, small_spec, wait_until, worker};
use ablate_tests::service::{Service, serve, store, token};
use std::process::Stdio;

#[test]
fn a_caller_without_a_token_or_with_the_wrong_role_is_refused_and_told_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let spec = small_spec(folder.path());
    let (submit, read, work) = (
        token(folder.path(), "submit", "ann"),
        token(folder.path(), "read", "bob"),
        token(folder.path(), "worker", "gpu"),
    );
    let models = ablate_tests::root().join("models").canonicalize().unwrap();
    let allow = ["--allow", folder.path().to_str().unwrap(), "--allow", models.to_str().unwrap()];
    let service = Service::start(folder.path(), "127.0.0.1", &[&["--require-auth"][..], &allow].concat());

    refused(
        &finish(&mut service.client(&["list"])),
        &["neither a token nor a certificate", "ablate token create"],
    );
    refused(&finish(&mut service.with_token("ablate_1_2", &["list"])), &["isn't known here"]);
    refused(&finish(&mut service.with_token("not a token", &["list"])), &["--token", "ablate token create"]);
    refused(&finish(&mut worker(&service.url())), &["--role worker", "neither a token nor a certificate"]);
    refused(&finish(worker(&service.url()).env("ABLATE_TOKEN", &read)), &["role read", "role worker"]);

    let args = ["submit", spec.to_str().unwrap()];
    refused(&finish(&mut service.with_token(&read, &args)), &["role read", "needs the role submit"]);
    refused(&finish(&mut service.with_token(&work, &args)), &["role worker", "needs the role submit"]);
    let id = said(service.with_token(&submit, &args)).trim().to_owned();
    for args in [&["list"][..], &["status", "small"], &["workers"]] {
        drop(said(service.with_token(&read, args)));
        drop(said(service.with_token(&submit, args)));
        refused(&finish(&mut service.with_token(&work, args)), &["needs the role submit or read"]);
    }
    for control in ["pause", "resume", "cancel", "retry"] {
        refused(&finish(&mut service.with_token(&read, &[control, &id])), &["needs the role submit"]);
    }
    assert!(said(service.with_token(&submit, &["pause", &id])).contains("paused"));
    let out = folder.path().join("out");
    let export = ["export", &id, "--out", out.to_str().unwrap()];
    drop(finish(&mut service.with_token(&read, &export)));
    assert!(out.join("run.json").exists(), "a reader gets the tables");

    // In a file, with the end of line that an editor leaves.
    let file = folder.path().join("token");
    std::fs::write(&file, format!("{read}\n")).unwrap();
    drop(said(service.client(&["list", "--token-file", file.to_str().unwrap()])));
    assert!(service.log().contains("token") && service.log().contains("refused"));
}

#[test]
fn a_revoked_token_ends_its_streams_within_seconds_and_an_expired_one_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let spec = small_spec(folder.path());
    let submit = token(folder.path(), "submit", "ann");
    let any = ["--require-auth", "--allow", "/"];
    let service = Service::start(folder.path(), "127.0.0.1", &any);
    // Made while the service runs.
    let (work, read) = (token(folder.path(), "worker", "gpu"), token(folder.path(), "read", "bob"));
    let id = said(service.with_token(&submit, &["submit", spec.to_str().unwrap()])).trim().to_owned();
    drop(said(service.with_token(&submit, &["pause", &id])));
    wait_until("the new token is known", || {
        finish(&mut service.with_token(&read, &["list"])).status.success()
    });
    let (worker_log, watch_log) = (folder.path().join("worker.log"), folder.path().join("watch.log"));
    let mut working = Beside::start(worker(&service.url()).env("ABLATE_TOKEN", &work), &worker_log);
    let mut watching = Beside::start(&mut service.with_token(&read, &["watch", &id]), &watch_log);
    let says = |path: &std::path::Path, word: &str| std::fs::read_to_string(path).unwrap().contains(word);
    wait_until("the worker is connected", || says(&worker_log, "connected"));
    wait_until("the watcher sees it", || says(&watch_log, "small"));

    let revoke = |name: &str| {
        let mut command = ablate();
        command.args(["token", "revoke", name, "--store", &store(folder.path())]);
        command
    };
    for name in ["gpu", "bob"] {
        drop(said(revoke(name)));
    }
    assert_eq!((working.wait().code(), watching.wait().code()), (Some(2), Some(2)));
    assert!(says(&worker_log, "revoked") && says(&watch_log, "revoked"));
    refused(&finish(&mut service.with_token(&read, &["list"])), &["revoked"]);
    refused(&finish(&mut revoke("gpu")), &["no token is called gpu", "ablate token list"]);

    let mut short = ablate();
    short.args(["token", "create", "--role", "read", "--expires", "8s", "--store", &store(folder.path())]);
    let short = said(short).trim().to_owned();
    wait_until("the service knows the token", || {
        let out = finish(&mut service.with_token(&short, &["list"]));
        out.status.success() || String::from_utf8_lossy(&out.stderr).contains("expired")
    });
    let mut ended = Beside::start(&mut service.with_token(&short, &["watch", &id]), &watch_log);
    assert_eq!(ended.wait().code(), Some(2));
    assert!(says(&watch_log, "expired"));
}

#[test]
fn tokens_are_in_no_log_no_list_and_no_file_of_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let tokens: Vec<String> =
        ["worker", "submit", "read"].iter().map(|role| token(folder.path(), role, role)).collect();
    let service = Service::start(folder.path(), "127.0.0.1", &["--require-auth"]);
    let log = folder.path().join("worker.log");
    let mut command = worker(&service.url());
    let mut working = Beside::start(command.env("ABLATE_TOKEN", &tokens[0]).env("ABLATE_LOG", "trace"), &log);
    wait_until("the worker is connected", || std::fs::read_to_string(&log).unwrap().contains("connected"));
    for token in &tokens[1..] {
        drop(said({
            let mut command = service.with_token(token, &["list"]);
            command.env("ABLATE_LOG", "trace").stderr(Stdio::null());
            command
        }));
    }
    // Refused ones are logged, and they too without what they showed.
    let guess = format!("{}0", &tokens[1][..tokens[1].len() - 1]);
    refused(&finish(service.with_token(&guess, &["list"]).env("ABLATE_LOG", "trace")), &["isn't known"]);
    let said_by_client = finish(service.with_token(&guess, &["list"]).env("ABLATE_LOG", "trace"));
    let mut list = ablate();
    list.args(["token", "list", "--json", "--store", &store(folder.path())]);
    let listed = said(list);
    assert_eq!(listed.lines().count(), 3);
    let _ = working.0.kill();
    drop(working);
    service.end();
    let texts = [listed.into_bytes(), said_by_client.stderr, said_by_client.stdout];
    let all = files(folder.path()).into_iter().map(|(p, b)| (p.display().to_string(), b));
    for (place, bytes) in all.chain(texts.into_iter().map(|b| ("a program's words".to_owned(), b))) {
        for token in tokens.iter().chain([&guess]) {
            let secret = token.rsplit('_').next().unwrap().as_bytes();
            assert!(!bytes.windows(40).any(|w| w == &secret[..40]), "a token is in {place}");
        }
    }
}

#[test]
fn another_user_of_the_machine_cannot_speak_to_the_coordinator_of_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let spec = small_spec(folder.path());
    let out = folder.path().join("out");
    let mut running = Beside::start(&mut run(&spec, &out, &[]), &folder.path().join("run.log"));
    let line = |pid: &str| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut url = None;
    wait_until("its worker starts", || {
        // After the name in brackets: state, then the parent.
        let mine = |pid: &String| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let parent = stat.rsplit_once(") ").and_then(|r| r.1.split(' ').nth(1).map(str::to_owned));
            parent == Some(running.0.id().to_string())
        };
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = all.map(|e| e.file_name().to_string_lossy().into_owned()).filter(mine);
        url = pids.into_iter().find_map(|pid| {
            let words = line(&pid);
            let words: Vec<String> =
                words.split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
            assert!(!words.iter().any(|w| w.contains("ablate_")), "the token is on a command line");
            words.windows(2).find(|w| w[0] == "--coordinator").map(|w| w[1].clone())
        });
        url.is_some()
    });
    let mut list = ablate();
    list.args(["list", "--coordinator", &url.unwrap()]).env_remove("ABLATE_TOKEN");
    refused(&finish(&mut list), &["neither a token nor a certificate"]);
    // What the user has set for a service doesn't disturb a run.
    assert!(running.wait().success());
    let again = folder.path().join("again");
    let mut command = run(&spec, &again, &[]);
    command.env("ABLATE_TOKEN_FILE", "/nowhere").env("ABLATE_TOKEN", "other").env("ABLATE_CA", "/nowhere");
    drop(said(command));
}

#[test]
fn a_service_that_nobody_can_call_says_so_and_wrong_names_and_times_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), "127.0.0.1", &["--require-auth"]);
    assert!(service.log().contains("ablate token create"));
    for (args, words) in [
        (&["--role", "admin"][..], &["worker", "submit", "read"][..]),
        (&["--role", "read", "--expires", "soon"], &["30d"]),
        (&["--role", "read", "--name", "a b"], &["--name", "letters"]),
    ] {
        let mut command = ablate();
        command.args(["token", "create", "--store", &store(folder.path())]).args(args);
        refused(&finish(&mut command), words);
    }
    drop(token(folder.path(), "read", "twice"));
    let mut again = ablate();
    again.args(["token", "create", "--role", "read", "--name", "twice", "--store", &store(folder.path())]);
    refused(&finish(&mut again), &["\"twice\"", "revoke"]);
    // A config file may want identities too.
    drop(service);
    std::fs::write(folder.path().join("c.toml"), "require_auth = true\nclient_ca = \"ca.pem\"\n").unwrap();
    refused(
        &finish(&mut serve(folder.path(), "127.0.0.1:0", &["--config", "c.toml"])),
        &["--client-ca", "--tls-cert"],
    );
}
