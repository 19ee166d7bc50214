//! kill −9 of the leader while chunks arrive, again and again; a leader that says goodbye; a database that crashes.

use super::{assert_same, calm, count, lead, spec, stored, takeover, wait_into};
use ablate_test_postgres::{Server, shared};
use ablate_tests::coordinators::Coordinators;
use ablate_tests::program::{ablate, said, wait_until};
use ablate_tests::root;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Longest that a takeover may take.
const LIMIT: Duration = Duration::from_secs(10);

fn rounds() -> usize {
    std::env::var("ABLATE_FAILOVER_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3)
}

/// One experiment from beginning to end, in which up to `most` leaders are killed.
fn experiment(server: &Server, first: usize, most: usize) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let database = server.database();
    let mut cluster = Coordinators::start(folder.path(), &server.url(&database), 2);
    cluster.add_worker();
    let id = said(cluster.client(&["submit", &calm().spec()])).trim().to_owned();
    let watcher =
        cluster.client(&["watch", &id]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut rows = Vec::new();
    let mut kept = std::collections::BTreeMap::new();
    for (sweep, share) in [("pairs", 0.1), ("greedy", 0.1), ("greedy", 0.5)].into_iter().take(most) {
        wait_into(&cluster, &id, sweep, share);
        let (epoch, url) = lead(server, &database).unwrap();
        let seat = cluster.seat(&url);
        // Committed, and so at least what was acknowledged.
        kept.extend(stored(server, &database));
        let killed = Instant::now();
        cluster.kill(seat);
        let acknowledged = cluster.acknowledged().len();
        let (took, new, url) = takeover(server, &database, epoch, killed);
        assert!(took < LIMIT, "{took:?}");
        assert_eq!((new, cluster.seat(&url)), (epoch + 1, 1 - seat));
        let had = count(server, &database);
        wait_until("work goes on", || count(server, &database) > had);
        rows.push(json!({"round": first + rows.len(), "fault": "kill -9 of the leader", "store": "postgres",
            "sweep": sweep, "takeover_s": took.as_secs_f64(), "next_chunk_s": killed.elapsed().as_secs_f64(),
            "acknowledged": acknowledged}));
        cluster.serve(seat);
    }
    let watched = watcher.wait_with_output().unwrap();
    assert!(watched.status.success(), "{}", String::from_utf8_lossy(&watched.stderr));
    assert_same(&cluster, &id, &folder.path().join("out"));
    // What a worker was told to be safe is there, and what was there is as it was written the first time.
    let (end, told) = (stored(server, &database), cluster.acknowledged());
    let told: BTreeSet<_> = told.into_iter().collect();
    let lost = told.iter().filter(|k| !end.contains_key(k)).count();
    let rewritten = kept.iter().filter(|(k, row)| end.get(k) != Some(row)).count();
    assert_eq!((lost, rewritten), (0, 0));
    assert!(!told.is_empty() && told.len() <= end.len());
    for row in &mut rows {
        row["lost"] = lost.into();
        row["rewritten"] = rewritten.into();
        row["identical"] = true.into();
    }
    rows
}

#[test]
fn a_leader_killed_while_chunks_arrive_is_replaced_and_no_byte_changes() {
    let server = Server::start(true);
    let mut rows: Vec<Value> = Vec::new();
    while rows.len() < rounds() {
        let more = experiment(&server, rows.len() + 1, rounds() - rows.len());
        for row in &more {
            println!(
                "round {:>3}  {:<7} took over in {:.2} s, next chunk after {:.2} s, {} acknowledged, {} lost, tables identical",
                row["round"],
                row["sweep"].as_str().unwrap_or_default(),
                row["takeover_s"].as_f64().unwrap_or_default(),
                row["next_chunk_s"].as_f64().unwrap_or_default(),
                row["acknowledged"],
                row["lost"]
            );
        }
        rows.extend(more);
    }
    // The few rounds of `make test` are no proof, and leave that of `make failover` as it is.
    if std::env::var_os("ABLATE_FAILOVER_ROUNDS").is_some() {
        let proof = root().join("target/proof");
        std::fs::create_dir_all(&proof).unwrap();
        std::fs::write(proof.join("failover.json"), serde_json::to_vec_pretty(&rows).unwrap()).unwrap();
    }
}

#[test]
fn a_leader_that_says_goodbye_is_replaced_at_once_and_clients_find_the_next() {
    let server = shared();
    let folder = tempfile::tempdir().unwrap();
    let database = server.database();
    let mut cluster = Coordinators::start(folder.path(), &server.url(&database), 2);
    let spec = spec(folder.path()).display().to_string();
    // Any of them may be asked: the one that stands by names the other.
    let ask = |urls: &str, args: &[&str]| {
        let mut command = ablate();
        command.args(args).args(["--coordinator", urls]).current_dir(folder.path());
        said(command)
    };
    let id = ask(&cluster.url(1), &["submit", &spec]).trim().to_owned();
    assert!(ask(&cluster.url(0), &["list"]).contains("small"));
    assert!(ask(&format!("http://127.0.0.1:9,{}", cluster.url(1)), &["status", &id]).contains("small"));
    drop(ask(&cluster.url(1), &["cancel", &id]));

    let (epoch, _) = lead(server, &database).unwrap();
    let ended = Instant::now();
    assert_eq!(cluster.end(0, "TERM"), Some(0));
    let (took, _, url) = takeover(server, &database, epoch, ended);
    assert_eq!(cluster.seat(&url), 1);
    // It needn't wait for the lead to run out.
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert!(ask(&cluster.urls(), &["list"]).contains("cancelled"));

    // Alone, one that starts anew waits for the lead of the dead to run out, and clients wait with it.
    cluster.kill(1);
    cluster.serve(0);
    cluster.wait_for(0, "standing by");
    assert!(ask(&cluster.urls(), &["list"]).contains("cancelled"));
    let log = cluster.log(0);
    assert!(log.contains(&cluster.url(1)), "{log}");
}

#[test]
fn a_database_that_crashes_and_comes_back_costs_nothing() {
    let mut server = Server::start(true);
    let folder = tempfile::tempdir().unwrap();
    let database = server.database();
    let mut cluster = Coordinators::start(folder.path(), &server.url(&database), 2);
    cluster.add_worker();
    let id = said(cluster.client(&["submit", &calm().spec()])).trim().to_owned();
    wait_into(&cluster, &id, "pairs", 0.1);
    let had = stored(&server, &database);
    server.crash();
    let told: BTreeSet<_> = cluster.acknowledged().into_iter().collect();
    cluster.wait_for(0, "can't be");
    server.up();
    let there = stored(&server, &database);
    assert!(told.iter().all(|k| there.contains_key(k)), "acknowledged and lost");
    assert!(had.iter().all(|(k, row)| there.get(k) == Some(row)));
    drop(said(cluster.client(&["watch", &id])));
    assert_same(&cluster, &id, &folder.path().join("out"));
}
