//! Databases of every schema so far: made by its migrations alone, filled with what its version wrote of an experiment in the middle, then
//! opened by this version, which migrates them, reads what they hold, and goes on to the tables of a run that was never interrupted.

use super::tests::{Habit, tables, undisturbed, until, work};
use super::*;
use crate::store::conformance::{experiment, incoming};
use crate::store::postgres::{Address, Member};
use crate::store::{PostgresStore, SqliteStore, schema};
use crate::token::{Role, Token};
use ablate_common::decide;
use ablate_test_postgres::shared;
use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{PgPool, SqlitePool};
use std::time::Duration;

/// Chunks that were in: the reference, and two of the single sweep's.
const DONE: [(u32, u32); 3] = [(0, 0), (1, 0), (1, 1)];
/// A chunk of the pairs that was set aside.
const ASIDE: u32 = 2;

/// What a schema has beside the first one's.
#[derive(Clone, Copy)]
struct Has {
    /// Versions of workers, and working time by sweep.
    busy: bool,
    tokens: bool,
    compared: bool,
}

fn first(all: &Migrator, n: usize) -> Migrator {
    Migrator::with_migrations(all.iter().take(n).cloned().collect())
}

/// Both databases take the same statements: as each version of the store had them, with the columns of its time.
macro_rules! fill {
    ($pool:expr, $new:expr, $token:expr, $has:expr) => {{
        let (pool, new, token, has): (_, &NewExperiment, &Token, Has) = ($pool, $new, $token, $has);
        let id = new.plan.identity();
        let run = async |sql: &'static str| sqlx::query(sql).execute(pool).await.unwrap();
        run("UPDATE leader SET epoch = 7").await;
        sqlx::query("INSERT INTO blobs VALUES ($1, $2)")
            .bind(&new.plan.tasks[0].prepared)
            .bind(serde_json::to_vec(&new.prepared[0]).unwrap())
            .execute(pool)
            .await
            .unwrap();
        sqlx::query(
            "INSERT INTO experiments (id, name, plan, spec, model_path, output, state, computed, duplicate)
                 VALUES ($1, 'test-1', $2, 'spec', 'model', 'out', 'running', $3, 1)",
        )
        .bind(&id)
        .bind(serde_json::to_string(&new.plan).unwrap())
        .bind(DONE.len() as i64 + 1)
        .execute(pool)
        .await
        .unwrap();
        for (sweep, round, list) in decide::opening(&new.plan) {
            sqlx::query("INSERT INTO rounds (experiment, sweep, round, list) VALUES ($1, $2, $3, $4)")
                .bind(&id)
                .bind(i64::from(sweep))
                .bind(i64::from(round))
                .bind(serde_json::to_string(&list).unwrap())
                .execute(pool)
                .await
                .unwrap();
        }
        for (sweep, chunk) in DONE {
            let one = incoming(new, sweep, chunk);
            let sql = if has.busy {
                "INSERT INTO chunks (experiment, sweep, round, chunk, scores, device_class, worker, busy_us, version)
                     VALUES ($1, $2, 0, $3, $4, 'played', 'w', $5, '0.0.9')"
            } else {
                "INSERT INTO chunks (experiment, sweep, round, chunk, scores, device_class, worker, busy_us)
                     VALUES ($1, $2, 0, $3, $4, 'played', 'w', $5)"
            };
            sqlx::query(sql)
                .bind(&id)
                .bind(i64::from(sweep))
                .bind(i64::from(chunk))
                .bind(one.scores)
                .bind(one.busy_us as i64)
                .execute(pool)
                .await
                .unwrap();
        }
        if has.busy {
            run("INSERT INTO busy SELECT experiment, sweep, SUM(busy_us) FROM chunks GROUP BY experiment, sweep").await;
        }
        sqlx::query("INSERT INTO quarantine VALUES ($1, 2, 0, $2, 'bad')")
            .bind(&id)
            .bind(i64::from(ASIDE))
            .execute(pool)
            .await
            .unwrap();
        sqlx::query("INSERT INTO timings VALUES ($1, 'prepare', 1.5)").bind(&id).execute(pool).await.unwrap();
        if has.tokens {
            sqlx::query("INSERT INTO tokens VALUES ($1, $2, $3, $4, $5, $6)")
                .bind(&token.id)
                .bind(&token.name)
                .bind(token.role.name())
                .bind(&token.hash[..])
                .bind(token.created)
                .bind(token.expires)
                .execute(pool)
                .await
                .unwrap();
        }
        if has.compared {
            run("UPDATE experiments SET compared = 1").await;
            sqlx::query("INSERT INTO differing VALUES ($1, 1, 0, 0, 'v', 'w')").bind(&id).execute(pool).await.unwrap();
        }
    }};
}

/// What was stored is there.
async fn reads(store: &dyn Store, new: &NewExperiment, token: &Token, has: Has) {
    let id = new.plan.identity();
    let all = store.experiments().await.unwrap();
    let found: Vec<_> = all.iter().map(|s| (&s.id, &s.plan, &s.state, s.computed, s.duplicate)).collect();
    assert_eq!(found, [(&id, &new.plan, &State::Running, DONE.len() as u64 + 1, 1)]);
    assert_eq!(store.accepted(&id).await.unwrap(), DONE.map(|(sweep, chunk)| (sweep, 0, chunk)));
    assert_eq!(store.busy(&id).await.unwrap(), [(0, 1_500_000), (1, 3_000_000)].into());
    let opened: Vec<u32> = store.rounds(&id).await.unwrap().iter().map(|r| r.sweep).collect();
    assert_eq!(opened, decide::opening(&new.plan).iter().map(|r| r.0).collect::<Vec<_>>());
    assert_eq!(store.quarantined(&id).await.unwrap(), [(2, 0, ASIDE, "bad".to_owned())]);
    assert_eq!(store.tokens().await.unwrap(), if has.tokens { vec![token.clone()] } else { vec![] });
    let run = store.results(&id).await.unwrap().run;
    assert_eq!((run.accepted, run.seconds["prepare"]), (DONE.len() as u64, 1.5));
    let version = run.versions.get("ablate-worker").map(String::as_str);
    assert_eq!(version, has.busy.then_some("0.0.9"));
    assert_eq!((run.compared, run.differing.len()), if has.compared { (1, 1) } else { (0, 0) });
}

/// It goes on to the end, and nothing of it is lost, counted twice or other than in one go.
async fn resumes(store: Arc<dyn Store>, new: NewExperiment, has: Has) {
    let id = new.plan.identity();
    let service = Service::start(Options::default(), Arc::clone(&store)).await.unwrap();
    assert!(service.epoch > 7, "an epoch from before the upgrade is given again");
    tokio::spawn(work(service.local_addr(), new, Habit::Good, Duration::ZERO));
    let status = until(&service, &id, Status::ended).await;
    assert_eq!((status.state.as_str(), status.quarantined), ("done", 1));
    service.control(&id, Control::Retry).await.unwrap();
    let status = until(&service, &id, Status::ended).await;
    assert_eq!((status.state.as_str(), status.quarantined), ("done", 0));
    service.shutdown();
    service.closed().await;
    let results = store.results(&id).await.unwrap();
    let (_, whole) = undisturbed(&[Habit::Good]).await;
    assert_eq!(tables(&results), tables(&whole));
    let run = &results.run;
    assert_eq!((run.accepted, run.computed), (run.planned, run.accepted + run.duplicate));
    let versions = if has.busy { "0.0.9, 1" } else { "1" };
    assert_eq!(run.versions["ablate-worker"], versions);
}

fn issued() -> Token {
    Token::issue(Role::Worker, Some("nodes".to_owned()), None).unwrap().0
}

#[tokio::test]
async fn sqlite_files_of_every_schema_so_far_are_read_and_resumed() {
    let all = schema::sqlite();
    let (new, token) = (experiment(1), issued());
    for n in 1..=all.iter().count() {
        let has = Has { busy: n >= 2, tokens: n >= 3, compared: n >= 4 };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old.db");
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let pool = SqlitePool::connect_with(options).await.unwrap();
        first(&all, n).run(&pool).await.unwrap();
        fill!(&pool, &new, &token, has);
        pool.close().await;
        let store = SqliteStore::open(&path).await.unwrap();
        reads(&store, &new, &token, has).await;
        resumes(Arc::new(store), new.clone(), has).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_databases_of_every_schema_so_far_are_read_and_resumed() {
    let all = schema::postgres();
    let (new, token) = (experiment(1), issued());
    for n in 1..=all.iter().count() {
        // Its first schema had versions and working time.
        let has = Has { busy: true, tokens: n >= 2, compared: n >= 3 };
        let url = shared().url(&shared().database());
        let pool = PgPool::connect(&url).await.unwrap();
        first(&all, n).run(&pool).await.unwrap();
        fill!(&pool, &new, &token, has);
        pool.close().await;
        let member =
            Member { name: "new".to_owned(), url: "http://new".to_owned(), lead: Duration::from_secs(3) };
        let store = PostgresStore::open(&Address::parse(&url).unwrap(), member).await.unwrap();
        reads(&store, &new, &token, has).await;
        resumes(Arc::new(store), new.clone(), has).await;
    }
}
