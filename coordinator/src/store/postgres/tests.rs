//! What only this store does: several coordinators, a database that refuses, and text that it can't hold. The suite that
//! every store passes is `store::conformance`.

#![expect(clippy::disallowed_methods, reason = "a real server, in real time")]

use super::*;
use crate::store::ChunkKey;
use crate::store::conformance::{apart, everything, experiment, incoming};
use ablate_test_postgres::{PASSWORD, shared};
use std::sync::Arc;
use std::time::Instant;

const LEAD: Duration = Duration::from_millis(1000);

fn member(name: &str) -> Member {
    Member { name: name.to_owned(), url: format!("http://{name}"), lead: LEAD }
}

async fn open(database: &str, name: &str) -> PostgresStore {
    let address = Address::parse(&shared().url(database)).unwrap();
    PostgresStore::open(&address, member(name)).await.unwrap()
}

/// Stands by until it leads.
async fn taken_by(store: &PostgresStore) -> u64 {
    let began = Instant::now();
    loop {
        match store.acquire_epoch().await {
            Ok(epoch) => return epoch,
            Err(Error::Led(_) | Error::Unavailable(_)) if began.elapsed() < 20 * LEAD => {
                tokio::time::sleep(LEAD / 20).await;
            }
            Err(e) => panic!("{e}"),
        }
    }
}

async fn refused(url: &str) -> String {
    let said = match Address::parse(url) {
        Err(e) => e.to_string(),
        Ok(address) => match PostgresStore::open(&address, member("a")).await {
            Ok(_) => panic!("{address} was let in"),
            Err(e) => format!("{address}: {e}\n{e:?}"),
        },
    };
    assert!(!said.contains(PASSWORD) && !said.contains("wrong-one"), "{said}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_conforms_and_keeps() {
    let database = shared().database();
    let store = open(&database, "a").await;
    everything(Arc::new(store.clone())).await;
    let before = store.results(&experiment(1).plan.identity()).await.unwrap();
    let second = open(&database, "b").await;
    assert!(matches!(second.acquire_epoch().await, Err(Error::Led(url)) if url == "http://a"));
    store.resign(2).await.unwrap();
    store.closed().await;
    assert_eq!(second.acquire_epoch().await.unwrap(), 3);
    let after = second.results(&experiment(1).plan.identity()).await.unwrap();
    assert_eq!((after.plan, after.run.computed), (before.plan, before.run.computed));
    assert_eq!(after.rounds.len(), before.rounds.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_is_not_readable_hides_no_other() {
    let database = shared().database();
    let store = open(&database, "a").await;
    let epoch = store.acquire_epoch().await.unwrap();
    for seed in [1, 2] {
        store.put_experiment(epoch, experiment(seed)).await.unwrap();
    }
    shared().sql(&database, "UPDATE experiments SET plan = '{' WHERE name = 'test-1'");
    apart(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_whose_result_is_being_stored_is_not_set_aside() {
    // What is begun here may take as long as it likes.
    let patient = Member { lead: Duration::from_secs(600), ..member("a") };
    let address = Address::parse(&shared().url(&shared().database())).unwrap();
    let store = PostgresStore::open(&address, patient).await.unwrap();
    let epoch = store.acquire_epoch().await.unwrap();
    let (new, id) = (experiment(1), experiment(1).plan.identity());
    store.put_experiment(epoch, new.clone()).await.unwrap();
    // A result's transaction that isn't through.
    let mut write = store.write(epoch).await.unwrap();
    sqlx::query("INSERT INTO chunks VALUES ($1, 1, 0, 0, $2, 'cpu', 'w', '1', 0)")
        .bind(&id)
        .bind(incoming(&new, 1, 0).scores)
        .execute(&mut *write)
        .await
        .unwrap();
    let failed = (1, 0, 0, "bad".to_owned());
    let mut aside = store.quarantine(epoch, &id, &failed);
    // As far as it comes beside that.
    let early = loop {
        tokio::select! {
            done = &mut aside => break Some(done),
            () = tokio::time::sleep(Duration::from_millis(10)) => {}
        }
        let waits: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock')",
        )
        .fetch_one(&store.readers)
        .await
        .unwrap();
        if waits {
            break None;
        }
    };
    write.commit().await.unwrap();
    match early {
        Some(done) => done.unwrap(),
        None => aside.await.unwrap(),
    }
    assert!(store.quarantined(&id).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_that_is_not_renewed_passes_on_and_its_holder_writes_nothing_more() {
    let database = shared().database();
    let (a, b) = (open(&database, "a").await, open(&database, "b").await);
    let old = a.acquire_epoch().await.unwrap();
    a.put_experiment(old, experiment(1)).await.unwrap();
    let began = Instant::now();
    // Renewed, it holds longer than its time.
    while began.elapsed() < 2 * LEAD {
        a.renew_lead(old).await.unwrap();
        assert!(matches!(b.acquire_epoch().await, Err(Error::Led(_))));
        tokio::time::sleep(LEAD / 5).await;
    }
    a.renew_lead(old).await.unwrap();
    let last = Instant::now();
    let new = taken_by(&b).await;
    assert!(new > old && last.elapsed() > LEAD.mul_f64(0.9), "{:?}", last.elapsed());
    let (id, one) = (experiment(1).plan.identity(), incoming(&experiment(1), 1, 0));
    let stale =
        |e: Error| assert!(matches!(e, Error::StaleEpoch { ours, newer } if (ours, newer) == (old, new)));
    stale(a.renew_lead(old).await.unwrap_err());
    stale(a.accept(old, std::slice::from_ref(&one)).await.unwrap_err());
    stale(a.put_experiment(old, experiment(2)).await.unwrap_err());
    stale(a.set_state(old, &id, State::Paused).await.unwrap_err());
    stale(a.decide(old, &id, 3, 0, &Decision::default(), None).await.unwrap_err());
    stale(a.quarantine(old, &id, &(1, 0, 0, "x".into())).await.unwrap_err());
    stale(a.release(old, &id).await.unwrap_err());
    stale(a.add_seconds(old, &id, &BTreeMap::new()).await.unwrap_err());
    // Nor does its goodbye end the other's lead.
    a.resign(old).await.unwrap();
    assert!(matches!(a.acquire_epoch().await, Err(Error::Led(url)) if url == "http://b"));
    assert_eq!(b.accept(new, &[one]).await.unwrap(), [Outcome::Accepted]);
    assert_eq!(b.experiments().await.unwrap()[0].state, State::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_stopped_in_the_middle_of_a_write_is_cut_off() {
    let database = shared().database();
    let (a, b) = (open(&database, "a").await, open(&database, "b").await);
    let old = a.acquire_epoch().await.unwrap();
    a.put_experiment(old, experiment(1)).await.unwrap();
    // It has checked its epoch and written, and now does nothing.
    let mut write = a.write(old).await.unwrap();
    sqlx::query("UPDATE experiments SET state = 'done'").execute(&mut *write).await.unwrap();
    let began = Instant::now();
    let new = taken_by(&b).await;
    assert!(new > old && began.elapsed() < 4 * LEAD, "{:?}", began.elapsed());
    let late = sqlx::query("UPDATE experiments SET state = 'failed'").execute(&mut *write).await;
    let late = match late {
        Ok(_) => write.commit().await.map_err(Error::from),
        Err(e) => Err(Error::from(e)),
    };
    assert!(matches!(late, Err(Error::Unavailable(_))), "{late:?}");
    assert_eq!(b.experiments().await.unwrap()[0].state, State::Running);
    // What comes from it later is refused by its epoch.
    assert!(matches!(
        a.set_state(old, &experiment(1).plan.identity(), State::Done).await,
        Err(Error::StaleEpoch { .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_stand_by_one_takes_over() {
    let database = shared().database();
    let mut all = Vec::new();
    for n in 0..6 {
        all.push(open(&database, &format!("m{n}")).await);
    }
    for round in 1..=5 {
        let won = futures::future::join_all(all.iter().map(Store::acquire_epoch)).await;
        let leads: Vec<(usize, u64)> =
            won.iter().enumerate().filter_map(|(i, r)| r.as_ref().ok().map(|&e| (i, e))).collect();
        let [(winner, epoch)] = leads[..] else { panic!("{won:?}") };
        assert_eq!(epoch, round, "each takeover raises the epoch by one");
        all[winner].resign(epoch).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_message_carries_cannot_stop_the_group_it_is_in() {
    let store = open(&shared().database(), "a").await;
    let epoch = store.acquire_epoch().await.unwrap();
    let new = experiment(1);
    store.put_experiment(epoch, new.clone()).await.unwrap();
    let odd = Incoming { worker: "w\0".into(), version: "\0".into(), ..incoming(&new, 1, 0) };
    let key = ChunkKey { experiment: "a\0b".into(), ..odd.key.clone() };
    let stray = Incoming { key, ..odd.clone() };
    let huge = ChunkKey { sweep: u32::MAX, round: u32::MAX, chunk: u32::MAX, ..odd.key.clone() };
    let outcomes = store.accept(epoch, &[stray, Incoming { key: huge, ..odd.clone() }, odd]).await.unwrap();
    assert_eq!(outcomes, [Outcome::Unknown, Outcome::Unknown, Outcome::Accepted]);
    let id = new.plan.identity();
    store.quarantine(epoch, &id, &(1, 0, 1, "no\0pe".into())).await.unwrap();
    assert_eq!(store.quarantined(&id).await.unwrap()[0].3, "no\u{fffd}pe");
    store.set_state(epoch, &id, State::Failed("a\0".into())).await.unwrap();
    assert!(matches!(store.blob("\0").await, Err(Error::NotFound(_))));
    assert!(matches!(store.results("\0").await, Err(Error::NotFound(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_refuses_is_told_by_its_reason() {
    let server = shared();
    let database = server.database();
    let said = refused(&server.url_as("postgres", "wrong-one", &database)).await;
    assert!(said.contains("password authentication failed") && said.contains("***@"), "{said}");
    let said = refused(&server.url("nowhere")).await;
    assert!(said.contains("\"nowhere\" does not exist") && said.contains("createdb"), "{said}");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let said = refused(&format!("postgres://a:{PASSWORD}@{free}/x")).await;
    assert!(said.contains("can't be reached") && said.contains("refused"), "{said}");
    let said = refused(&format!("{}?sslmode=require", server.url(&database))).await;
    assert!(said.contains("sslmode"), "{said}");

    // A user that may enter but not make tables.
    server.sql(&database, "REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    server.sql("postgres", &format!("CREATE ROLE guest_{database} LOGIN PASSWORD '{PASSWORD}'"));
    let guest = server.url_as(&format!("guest_{database}"), PASSWORD, &database);
    let said = refused(&guest).await;
    assert!(said.contains("permission denied") && said.contains("grant it CREATE"), "{said}");

    // One that may read what another made, but not write it.
    let owner = open(&database, "owner").await;
    owner.closed().await;
    server.sql(&database, &format!("GRANT SELECT ON ALL TABLES IN SCHEMA public TO guest_{database}"));
    let look = look(&Address::parse(&guest).unwrap()).await.unwrap();
    assert_eq!((look.migration, look.later, look.leader.as_deref()), (Some(3), false, None));
    assert!(look.problem().is_some_and(|p| p.0.contains("fsync")), "{look:?}");

    // A replica, as far as a session can tell.
    server.sql("postgres", &format!("ALTER DATABASE {database} SET default_transaction_read_only = on"));
    let said = refused(&server.url(&database)).await;
    assert!(said.contains("read-only"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_run_once_and_a_later_version_is_refused() {
    let server = shared();
    let database = server.database();
    // Several coordinators start at once on an empty database.
    let address = Address::parse(&server.url(&database)).unwrap();
    let names = ["a", "b", "c", "d"].map(member);
    let all = futures::future::join_all(names.map(|m| PostgresStore::open(&address, m))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    let applied = server.rows(&database, "SELECT version FROM _sqlx_migrations");
    assert_eq!(applied.len(), 3);
    server.sql(
        &database,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (9999, 'later', TRUE, ''::bytea, 0)",
    );
    let said = refused(&server.url(&database)).await;
    assert!(said.contains("later version of ablate"), "{said}");
    let look = look(&address).await.unwrap();
    assert!(look.later && look.problem().is_some_and(|p| p.0.contains("later version")), "{look:?}");
    server.sql(&database, "DELETE FROM _sqlx_migrations WHERE version = 9999");
    server.sql(&database, "UPDATE _sqlx_migrations SET checksum = '\\x00'");
    assert!(refused(&server.url(&database)).await.contains("migration 1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_commit_durably_whatever_the_database_defaults_to() {
    let server = shared();
    let database = server.database();
    for setting in ["synchronous_commit = off", "default_transaction_isolation = 'serializable'"] {
        server.sql("postgres", &format!("ALTER DATABASE {database} SET {setting}"));
    }
    let store = open(&database, "a").await;
    for (setting, value) in [
        ("synchronous_commit", "on"),
        ("default_transaction_isolation", "read committed"),
        ("idle_in_transaction_session_timeout", "1s"),
    ] {
        let found: String = sqlx::query_scalar("SELECT current_setting($1)")
            .bind(setting)
            .fetch_one(&store.writers)
            .await
            .unwrap();
        assert_eq!(found, value, "{setting}");
    }
}
