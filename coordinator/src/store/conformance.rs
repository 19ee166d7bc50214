//! One suite, run against every store; PostgreSQL's run is in `postgres::tests`.

use super::*;
use crate::token::{Role, Token, now};
use ablate_common::head::HeadMap;
use ablate_common::metric::Metric;
use ablate_common::model::ModelInfo;
use ablate_common::plan::{Ablation, Order, PlannedSweep, PlannedTask, SweepKind};
use ablate_common::scores::{ChunkScores, TaskScores};
use ablate_common::spec::{Dtype, ModelSpec, Spec};
use ablate_common::task::{Example, Item, Scope, TaskKind};
use ablate_common::units::{UnitIx, UnitMap};
use std::sync::Arc;

/// An experiment on a model of 2 layers of 3 heads: every kind of sweep.
pub(crate) fn experiment(seed: u64) -> NewExperiment {
    let item = Item { tokens: vec![1, 2, 3], ..Item::default() };
    let example = |i: u32| Example { a: i, b: i, gold: 0.0, cluster: i, half: Some((i % 2) as u8) };
    let prepared = Prepared {
        kind: TaskKind::Ioi,
        items: vec![item; 4],
        item_half: vec![0, 1, 0, 1],
        examples: (0..4).map(example).collect(),
        probe: None,
    };
    let task = PlannedTask {
        name: "t".into(),
        kind: TaskKind::Ioi,
        metric: Metric::LogitDiff,
        prepared: blake3::hash(&serde_json::to_vec(&prepared).unwrap()).to_hex().to_string(),
        items: 4,
        examples: 4,
        all: vec![],
        select: vec![],
    };
    let kinds = [
        (SweepKind::Reference, 2),
        (SweepKind::Single, 2),
        (SweepKind::Pairs, 4),
        (SweepKind::Greedy { steps: 4, objective: 0 }, 2),
        (SweepKind::Path { greedy: 3, order: Order::Greedy }, 3),
        (SweepKind::Path { greedy: 3, order: Order::Importance }, 3),
        (SweepKind::Random { orders: 2, seed, points: vec![1, 3, 5] }, 2),
    ];
    let sweeps = kinds
        .into_iter()
        .map(|(kind, chunk)| {
            let scope = if matches!(kind, SweepKind::Greedy { .. }) { Scope::Select } else { Scope::All };
            PlannedSweep { kind, ablation: 0, tasks: vec![0], units: 0, scope, chunk }
        })
        .collect();
    let model = ModelInfo {
        arch: "llama".into(),
        title: "m".into(),
        weights_sha256: "00".into(),
        heads: HeadMap::single_stream(2, 3),
        layers: 2,
        d_model: 12,
        n_heads: 3,
        n_kv_heads: 3,
        head_dim: 4,
        d_ff: 16,
        vocab: 8,
        context: 16,
        norm_eps: 1e-5,
        rope_theta: None,
        tied: true,
        details: ablate_common::model::Details::default(),
    };
    let plan = Plan {
        engine: ablate_common::ENGINE_VERSION,
        spec: Spec {
            name: format!("test-{seed}"),
            seed,
            model: ModelSpec { source: "m".into(), dtype: Dtype::F32, sha256: None },
            tasks: vec![],
            ablations: vec![Ablation::Zero.into()],
            sweeps: vec![],
        },
        model,
        tasks: vec![task],
        ablations: vec![Ablation::Zero.into()],
        units: vec![UnitMap::heads(&HeadMap::single_stream(2, 3))],
        references: vec![],
        sweeps,
    };
    NewExperiment {
        plan,
        prepared: vec![prepared],
        model_path: "model".into(),
        spec_text: "spec".into(),
        output: "out".into(),
    }
}

/// Scores of a chunk: a pure function of the subsets.
pub(crate) fn scores(new: &NewExperiment, sweep: u32, round: u32, list: &[UnitIx], chunk: u32) -> Vec<u8> {
    let (plan, prepared) = (&new.plan, &new.prepared[0]);
    let space = plan.space(sweep, list);
    let ranks = plan.chunk_ranks(sweep, round, chunk);
    let keep = prepared.examples_in(plan.sweeps[sweep as usize].scope);
    let mut values = Vec::new();
    for rank in ranks.clone() {
        let subset = space.subset(rank).unwrap();
        for &e in &keep {
            let hurt = |h: &UnitIx| f64::from((h.0 * 7 + 3) % 5) + f64::from(e) * 0.01;
            values.push(9.0 - subset.iter().map(hurt).sum::<f64>());
        }
    }
    let block = TaskScores { task: 0, examples: keep.len() as u32, columns: 1, values };
    ChunkScores { subsets: (ranks.end - ranks.start) as u32, tasks: vec![block] }.encode()
}

pub(crate) fn incoming(new: &NewExperiment, sweep: u32, chunk: u32) -> Incoming {
    Incoming {
        key: ChunkKey { experiment: new.plan.identity(), sweep, round: 0, chunk },
        scores: scores(new, sweep, 0, &[], chunk),
        device_class: "cpu".into(),
        worker: "w".into(),
        version: "1".into(),
        busy_us: 1_500_000,
    }
}

pub(crate) async fn everything(store: Arc<dyn Store>) {
    let new = experiment(1);
    let id = new.plan.identity();
    let old = store.acquire_epoch().await.unwrap();
    let epoch = store.acquire_epoch().await.unwrap();
    assert!(epoch > old);
    assert!(matches!(store.put_experiment(old, new.clone()).await, Err(Error::StaleEpoch { .. })));
    assert!(store.experiments().await.unwrap().is_empty());
    assert!(store.put_experiment(epoch, new.clone()).await.unwrap());
    assert!(!store.put_experiment(epoch, new.clone()).await.unwrap(), "put twice");
    assert!(store.put_experiment(epoch, experiment(2)).await.unwrap());
    assert_eq!(store.experiments().await.unwrap().len(), 2);
    let blob = store.blob(&new.plan.tasks[0].prepared).await.unwrap();
    assert_eq!(serde_json::from_slice::<Prepared>(&blob).unwrap(), new.prepared[0]);
    assert!(matches!(store.blob("none").await, Err(Error::NotFound(_))));

    // Opened rounds: all but the paths.
    let opened: Vec<u32> = store.rounds(&id).await.unwrap().iter().map(|r| r.sweep).collect();
    assert_eq!(opened, [0, 1, 2, 3, 6]);

    // Accepted once, whatever comes again, and in one batch too.
    let one = incoming(&new, 1, 0);
    let other = Incoming { scores: incoming(&new, 1, 1).scores, worker: "x\0y".into(), ..one.clone() };
    let right = Incoming { worker: "y".into(), ..one.clone() };
    let elsewhere = Incoming { device_class: "cuda".into(), ..other.clone() };
    let stray = Incoming { key: ChunkKey { experiment: "none".into(), ..one.key.clone() }, ..one.clone() };
    let unopened = Incoming { key: ChunkKey { sweep: 4, ..one.key.clone() }, ..one.clone() };
    assert!(matches!(store.accept(old, std::slice::from_ref(&one)).await, Err(Error::StaleEpoch { .. })));
    let batch = [one.clone(), one.clone(), other.clone(), stray, unopened, incoming(&new, 1, 1)];
    let equal = |equal| Outcome::Duplicate { equal };
    assert_eq!(
        store.accept(epoch, &batch).await.unwrap(),
        [
            Outcome::Accepted,
            equal(None),
            equal(Some(false)),
            Outcome::Unknown,
            Outcome::Unknown,
            Outcome::Accepted
        ]
    );
    assert_eq!(store.accepted(&id).await.unwrap(), [(1, 0, 0), (1, 0, 1)]);
    assert_eq!(store.busy(&id).await.unwrap(), [(1, 6_000_000)].into());
    // Compared is what another worker of the same device class computed, and what differs is recorded once.
    let again = [right, elsewhere, other];
    let verdicts = [equal(Some(true)), equal(None), equal(Some(false))];
    assert_eq!(store.accept(epoch, &again).await.unwrap(), verdicts);
    let run = store.results(&id).await.unwrap().run;
    assert_eq!(run.compared, 3);
    assert!(
        matches!(&run.differing[..], [(1, 0, 0, stored, other)] if stored == "w" && other.starts_with('x'))
    );
    let round = store.round(&id, 1, 0).await.unwrap();
    assert_eq!(round[&0].encode(), one.scores);
    for (of, there) in [(0..2, vec![0, 1]), (1..9, vec![1]), (2..9, vec![]), (1..1, vec![])] {
        let mut chunks: Vec<u32> = store.chunks(&id, 1, 0, of).await.unwrap().into_keys().collect();
        chunks.sort_unstable();
        assert_eq!(chunks, there);
    }
    let mut some = store.scores(&id, &[(1, 0, 1), (2, 0, 0), (1, 0, 0)]).await.unwrap();
    some.sort();
    assert_eq!(some, [((1, 0, 0), one.scores.clone()), ((1, 0, 1), incoming(&new, 1, 1).scores)]);
    assert!(store.scores("none", &[(1, 0, 0)]).await.unwrap().is_empty());

    // Quarantine ends with a result, or is let go of.
    for chunk in [1, 2] {
        store.quarantine(epoch, &id, &(2, 0, chunk, "bad".into())).await.unwrap();
    }
    assert_eq!(store.accept(epoch, &[incoming(&new, 2, 1)]).await.unwrap(), [Outcome::Accepted]);
    // A failure that comes after the result sets nothing aside.
    store.quarantine(epoch, &id, &(2, 0, 1, "late".into())).await.unwrap();
    assert_eq!(store.quarantined(&id).await.unwrap(), [(2, 0, 2, "bad".to_owned())]);
    assert_eq!(store.results(&id).await.unwrap().run.quarantined.len(), 1);
    store.set_state(epoch, &id, State::Done).await.unwrap();
    store.release(epoch, &id).await.unwrap();
    let all = store.experiments().await.unwrap();
    assert!(all.iter().any(|s| s.id == id && s.state == State::Running), "released and running are one step");
    assert!(store.quarantined(&id).await.unwrap().is_empty());

    // A decision opens rounds in the same step, and doing it again changes nothing.
    let decision =
        Decision { remove: Some(UnitIx(3)), opens: vec![(3, 1, vec![UnitIx(3)])], constants: None };
    assert!(matches!(store.decide(old, &id, 3, 0, &decision, None).await, Err(Error::StaleEpoch { .. })));
    for _ in 0..2 {
        store.decide(epoch, &id, 3, 0, &decision, None).await.unwrap();
    }
    let rounds = store.rounds(&id).await.unwrap();
    assert_eq!(rounds.iter().filter(|r| r.sweep == 3).count(), 2);
    let of = |round| rounds.iter().find(|r| (r.sweep, r.round) == (3, round)).unwrap();
    assert_eq!((of(0).decision.as_ref(), of(1).list.as_slice()), (Some(&decision), &[UnitIx(3)][..]));
    let opened = async |round| store.opened(&id, 3, round).await.unwrap();
    assert_eq!(opened(0).await.unwrap().decision.as_ref(), Some(&decision));
    assert_eq!((opened(1).await.unwrap().list, opened(2).await.is_none()), (vec![UnitIx(3)], true));

    store.add_seconds(epoch, &id, &[("prepare".to_owned(), 1.5)].into()).await.unwrap();
    store.add_seconds(epoch, &id, &[("prepare".to_owned(), 1.0)].into()).await.unwrap();
    for state in [State::Paused, State::Failed("why".into()), State::Done] {
        store.set_state(epoch, &id, state.clone()).await.unwrap();
        let all = store.experiments().await.unwrap();
        assert_eq!(all.iter().find(|s| s.id == id).unwrap().state, state);
    }
    let results = store.results(&id).await.unwrap();
    let run = &results.run;
    assert_eq!((run.computed, run.accepted, run.duplicate), (8, 3, 5));
    assert_eq!(run.planned, new.plan.total_chunks());
    assert_eq!((run.seconds["prepare"], run.seconds["lanes busy, single"]), (2.5, 10.5));
    assert_eq!((run.device_classes["cpu"], run.versions["ablate-worker"].as_str()), (3, "1"));
    assert_eq!(results.rounds[&(1, 0)].chunks.len(), 2);
    assert!(matches!(store.results("none").await, Err(Error::NotFound(_))));
    assert!(store.accepted("none").await.unwrap().is_empty());
    tokens(store.as_ref()).await;
}

/// Tokens are kept without an epoch; a name or id is one token's.
async fn tokens(store: &dyn Store) {
    assert!(store.tokens().await.unwrap().is_empty());
    let issue = |role, name: &str, expires| Token::issue(role, Some(name.to_owned()), expires).unwrap().0;
    let (a, b) = (issue(Role::Worker, "a", None), issue(Role::Read, "b", Some(now() + 60)));
    store.put_token(a.clone()).await.unwrap();
    store.put_token(b.clone()).await.unwrap();
    let taken = store.put_token(issue(Role::Submit, "a", None)).await.unwrap_err();
    assert!(matches!(&taken, Error::Refused(why) if why.contains("\"a\"")), "{taken}");
    let mut all = store.tokens().await.unwrap();
    all.sort_by(|x, y| x.name.cmp(&y.name));
    assert_eq!(all, [a.clone(), b.clone()]);
    assert_eq!(store.revoke_token("none").await.unwrap(), None);
    assert_eq!(store.revoke_token(&a.id).await.unwrap(), Some(a.clone()));
    assert_eq!(store.revoke_token("b").await.unwrap(), Some(b));
    assert_eq!(store.revoke_token("a").await.unwrap(), None);
    assert!(store.tokens().await.unwrap().is_empty());
    store.put_token(a).await.unwrap();
}

#[tokio::test]
async fn memory_conforms() {
    everything(Arc::new(MemoryStore::default())).await;
}

#[tokio::test]
async fn sqlite_conforms_and_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let store = SqliteStore::open(&path).await.unwrap();
    everything(Arc::new(store.clone())).await;
    let before = store.results(&experiment(1).plan.identity()).await.unwrap();
    let second = SqliteStore::open(&path).await.unwrap();
    assert!(matches!(second.acquire_epoch().await, Err(Error::Busy)), "two leaders");
    store.close().await;
    assert_eq!(second.acquire_epoch().await.unwrap(), 3);
    let after = second.results(&experiment(1).plan.identity()).await.unwrap();
    assert_eq!((after.plan, after.run.computed), (before.plan, before.run.computed));
    assert_eq!(after.rounds.len(), before.rounds.len());
}

#[tokio::test]
async fn a_plan_that_is_not_readable_hides_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let epoch = store.acquire_epoch().await.unwrap();
    for seed in [1, 2] {
        store.put_experiment(epoch, experiment(seed)).await.unwrap();
    }
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let beside = sqlx::SqlitePool::connect_with(options).await.unwrap();
    sqlx::query("UPDATE experiments SET plan = '{' WHERE name = 'test-1'").execute(&beside).await.unwrap();
    beside.close().await;
    apart(&store).await;
}

/// The first of two experiments has no readable plan.
pub(crate) async fn apart(store: &dyn Store) {
    let [bad, good] = [1, 2].map(|seed| experiment(seed).plan.identity());
    let Listing { experiments, unreadable } = store.listing().await.unwrap();
    assert!(matches!(&experiments[..], [one] if one.id == good), "{experiments:?}");
    assert!(matches!(&unreadable[..], [(id, Error::Damaged(why))] if *id == bad && why.contains(&bad)));
    assert!(matches!(store.experiments().await, Err(Error::Damaged(why)) if why.contains(&bad)));
}

#[tokio::test]
async fn a_full_disk_is_told_from_other_failures() {
    let full =
        sqlx::sqlite::SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await.unwrap();
    for sql in ["PRAGMA max_page_count = 4", "CREATE TABLE t (x)"] {
        sqlx::query(sql).execute(&full).await.unwrap();
    }
    let e = sqlx::query("INSERT INTO t VALUES (zeroblob(1000000))").execute(&full).await.unwrap_err();
    assert!(matches!(Error::from(e), Error::DiskFull));
}
