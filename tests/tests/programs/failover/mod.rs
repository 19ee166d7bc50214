//! Coordinators that share a PostgreSQL database: kill −9, a stop, a goodbye, a database that crashes, and one that
//! refuses. Real processes and a real server. `ABLATE_FAILOVER_ROUNDS` sets how many leaders are killed; the
//! rounds go to target/proof/failover.json.
#![allow(clippy::unwrap_used, reason = "tests")]

mod kill;
mod pause;
mod refuse;

use ablate_test_postgres::Server;
use ablate_tests::coordinators::Coordinators;
use ablate_tests::minilm;
use ablate_tests::program::{json, lee, run, said, tables, wait_until};
use serde_json::Value;
use sqlx::Row;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The experiment of these tests, undisturbed: the spec, its tables, what `run.json` says of its chunks.
struct Calm {
    folder: tempfile::TempDir,
    tables: BTreeMap<String, Vec<u8>>,
    chunks: Value,
}

/// MiniLM on 6 texts of 6 tokens: pairs and a few greedy rounds, in seconds of one core.
fn spec(folder: &Path) -> PathBuf {
    drop(lee(folder, 6));
    let path = folder.join("spec.toml");
    let text = format!(
        "name = \"small\"\n[model]\nsource = {:?}\n[[task]]\nname = \"lee\"\nkind = \"similarity\"\n\
         data = \"pairs.jsonl\"\nmax_tokens = 6\n[ablation]\nmethod = \"mean\"\n[[sweep]]\nkind = \"pairs\"\n\
         [[sweep]]\nkind = \"greedy\"\nfraction = 0.15\n",
        minilm()
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn calm() -> &'static Calm {
    static CALM: OnceLock<Calm> = OnceLock::new();
    CALM.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let spec = spec(folder.path());
        let out = folder.path().join("calm");
        drop(said(run(&spec, &out, &[])));
        let chunks = json(&out.join("run.json"))["chunks"].clone();
        Calm { tables: tables(&out), chunks, folder }
    })
}

impl Calm {
    fn spec(&self) -> String {
        self.folder.path().join("spec.toml").display().to_string()
    }
}

/// Epoch and URL of who leads now; none where nobody does.
fn lead(server: &Server, database: &str) -> Option<(i64, String)> {
    let rows = server.rows(database, "SELECT epoch, url FROM lead WHERE expires > clock_timestamp()");
    rows.first().map(|r| (r.get(0), r.get(1)))
}

/// Waits for a lead above `epoch`; how long that took since `since`, and who leads.
fn takeover(server: &Server, database: &str, epoch: i64, since: Instant) -> (Duration, i64, String) {
    let mut found = None;
    wait_until("a takeover", || {
        found = lead(server, database).filter(|l| l.0 > epoch);
        found.is_some()
    });
    let (epoch, url) = found.unwrap();
    (since.elapsed(), epoch, url)
}

/// Rows of chunks: key, hash of the scores, and the transaction that wrote the row.
fn stored(server: &Server, database: &str) -> BTreeMap<(i64, i64, i64), (String, String)> {
    let rows = server
        .rows(database, "SELECT sweep, round, chunk, md5(scores), xmin::text FROM chunks ORDER BY 1, 2, 3");
    rows.iter().map(|r| ((r.get(0), r.get(1), r.get(2)), (r.get(3), r.get(4)))).collect()
}

fn count(server: &Server, database: &str) -> i64 {
    server.rows(database, "SELECT count(*) FROM chunks")[0].get(0)
}

/// Waits until at least `share` of a sweep is done; asserts that it isn't over.
fn wait_into(cluster: &Coordinators, id: &str, sweep: &str, share: f64) {
    let done = || {
        let text = said(cluster.client(&["status", id, "--json"]));
        let status: Value = serde_json::from_str(&text).unwrap();
        let of = |key: &str| {
            let all = status["sweeps"].as_array().unwrap().clone();
            let named = all.into_iter().filter(|s| s["name"].as_str().unwrap().contains(sweep));
            named.map(|s| s[key].as_u64().unwrap()).sum::<u64>()
        };
        (of("subsets_done"), of("subsets_total"))
    };
    wait_until(sweep, || {
        let (have, of) = done();
        assert!(have < of, "{sweep} was over before it could be disturbed: {have} of {of}");
        have as f64 >= share * of as f64
    });
}

/// Fetches the tables and asserts that they are the undisturbed ones.
fn assert_same(cluster: &Coordinators, id: &str, out: &Path) {
    let calm = calm();
    drop(said(cluster.client(&["export", id, "--out", out.to_str().unwrap()])));
    assert_eq!(ablate_tests::program::differing(&calm.tables, &tables(out)), [""; 0]);
    let counted = json(&out.join("run.json"))["chunks"].clone();
    assert_eq!(counted["accepted"], calm.chunks["accepted"]);
    let number = |key: &str| counted[key].as_u64().unwrap();
    assert_eq!(number("computed"), number("accepted") + number("duplicate"), "{counted}");
}
