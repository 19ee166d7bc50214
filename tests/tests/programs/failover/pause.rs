//! A leader that is stopped (SIGSTOP) while it writes, and goes on (SIGCONT) when another leads.

use super::{assert_same, calm, count, lead, takeover, wait_into};
use ablate_test_postgres::shared;
use ablate_tests::coordinators::Coordinators;
use ablate_tests::program::{said, signal, wait_until};
use sqlx::Row;
use std::time::{Duration, Instant};

/// Every write that became durable: by which session, when, where.
const AUDIT: &str = "
CREATE TABLE audit (who TEXT, at TIMESTAMPTZ, place TEXT);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit VALUES (current_setting('application_name'), clock_timestamp(), TG_TABLE_NAME);
    RETURN NULL;
END $$;
DO $$
DECLARE name TEXT;
BEGIN
    FOREACH name IN ARRAY ARRAY['leader', 'lead', 'blobs', 'experiments', 'rounds', 'chunks', 'quarantine', 'busy', 'timings']
    LOOP
        EXECUTE format('CREATE TRIGGER noted AFTER INSERT OR UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION note()', name);
    END LOOP;
END $$;";

#[test]
fn a_leader_that_is_stopped_and_wakes_up_late_writes_nothing() {
    let server = shared();
    let folder = tempfile::tempdir().unwrap();
    let database = server.database();
    let mut cluster = Coordinators::start(folder.path(), &server.url(&database), 2);
    server.sql(&database, AUDIT);
    cluster.add_worker();
    let id = said(cluster.client(&["submit", &calm().spec()])).trim().to_owned();
    wait_into(&cluster, &id, "pairs", 0.1);
    let (epoch, url) = lead(server, &database).unwrap();
    let (seat, pid) = (cluster.seat(&url), cluster.pid(cluster.seat(&url)));
    let stopped = Instant::now();
    signal(pid, "STOP");
    let (took, new, url) = takeover(server, &database, epoch, stopped);
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!((new, cluster.seat(&url)), (epoch + 1, 1 - seat));
    let had = count(server, &database);
    wait_until("the worker finds the new leader", || count(server, &database) > had);

    signal(pid, "CONT");
    for words in ["passed over", "lost the lead", "standing by"] {
        cluster.wait_for(seat, words);
    }
    drop(said(cluster.client(&["watch", &id])));
    assert_same(&cluster, &id, &folder.path().join("out"));
    assert_eq!(lead(server, &database).unwrap().0, new, "it took nothing back");

    let writes = |when: &str| -> i64 {
        let query = format!(
            "SELECT count(*) FROM audit WHERE who LIKE '%:{pid}:%' AND place <> 'lead' AND at {when}
                 (SELECT max(at) FROM audit WHERE place = 'leader')"
        );
        server.rows(&database, &query)[0].get(0)
    };
    assert!(writes("<") > 0, "it wrote while it led");
    assert_eq!(writes(">="), 0, "it wrote after it was passed over");
    let renewals = format!(
        "SELECT count(*) FROM audit WHERE who LIKE '%:{pid}:%' AND place = 'lead' AND at >=
             (SELECT max(at) FROM audit WHERE place = 'leader')"
    );
    assert_eq!(
        server.rows(&database, &renewals)[0].get::<i64, _>(0),
        0,
        "it renewed a lead that wasn't its own"
    );

    // It stands by as any other, and leads again when its turn comes.
    cluster.kill(1 - seat);
    let (_, _, url) = takeover(server, &database, new, Instant::now());
    assert_eq!(cluster.seat(&url), seat);
    assert!(said(cluster.client(&["list"])).contains("done"));
}
