//! A service behind its gate, called by everybody with everything.

use super::*;
use crate::server::{Options, Service};
use crate::store::MemoryStore;
use crate::token::{Role, now};
use ablate_proto::v1::{self, cluster_client::ClusterClient, experiments_client::ExperimentsClient};
use prost::Message;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};

fn with<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !token.is_empty() {
        let value: MetadataValue<_> = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    request
}

/// Codes of all calls, made with a token; `Ok` where the call came through the gate, whatever became of it then.
async fn codes(url: &str, token: &str) -> Vec<(&'static str, Code)> {
    let mut client = ExperimentsClient::connect(url.to_owned()).await.unwrap();
    let mut worker = ClusterClient::connect(url.to_owned()).await.unwrap();
    let id = || v1::StatusRequest { id: "none".into() };
    let code = |r: Result<(), tonic::Status>| match r {
        Err(s)
            if [Code::Unauthenticated, Code::PermissionDenied, Code::ResourceExhausted]
                .contains(&s.code()) =>
        {
            s.code()
        }
        _ => Code::Ok,
    };
    let hello = tokio_stream::empty::<v1::WorkerMessage>();
    let export = v1::ExportRequest { id: "none".into(), format: String::new() };
    vec![
        ("leader", code(client.leader(with(token, v1::LeaderRequest {})).await.map(drop))),
        ("list", code(client.list(with(token, v1::ListRequest {})).await.map(drop))),
        ("status", code(client.status(with(token, id())).await.map(drop))),
        ("watch", code(client.watch(with(token, id())).await.map(drop))),
        ("workers", code(client.workers(with(token, v1::WorkersRequest {})).await.map(drop))),
        ("export", code(client.export(with(token, export)).await.map(drop))),
        ("submit", code(client.submit(with(token, v1::SubmitRequest::default())).await.map(drop))),
        ("control", code(client.control(with(token, v1::ControlRequest::default())).await.map(drop))),
        ("work", code(worker.work(with(token, hello)).await.map(drop))),
        ("blob", code(worker.blob(with(token, v1::BlobRequest { hash: "none".into() })).await.map(drop))),
    ]
}

fn allowed(codes: &[(&'static str, Code)], otherwise: Code) -> Vec<&'static str> {
    assert!(codes.iter().all(|(_, c)| [Code::Ok, otherwise].contains(c)), "{codes:?}");
    codes.iter().filter(|(_, c)| *c == Code::Ok).map(|(call, _)| *call).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_is_for_the_roles_that_need_it_and_for_nobody_else() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let issue = |role, expires| Token::issue(role, None, expires).unwrap();
    let (work, work_word) = issue(Role::Worker, None);
    let (submit, submit_word) = issue(Role::Submit, Some(now() + 1000));
    let (read, read_word) = issue(Role::Read, None);
    let (old, old_word) = issue(Role::Submit, Some(now() - 1));
    for token in [work.clone(), submit, read, old] {
        store.put_token(token).await.unwrap();
    }
    let security = Security::new(None, true, Limits::default());
    let options = Options { security: Arc::clone(&security), ..Options::default() };
    let handle = Service::start(options, Arc::clone(&store)).await.unwrap();
    let url = format!("http://{}", handle.local_addr());
    let mut client = ExperimentsClient::connect(url.clone()).await.unwrap();
    let early = client.list(with(&read_word, v1::ListRequest {})).await.unwrap_err();
    assert_eq!(early.code(), Code::Unavailable, "nobody is refused by tokens that were not read yet");
    let fresh = tokio::spawn(Arc::clone(&security).keep_fresh(Arc::clone(&store)));
    security.tokens.subscribe().wait_for(Option::is_some).await.unwrap();

    let reads = ["leader", "list", "status", "watch", "workers", "export"];
    let denied = Code::PermissionDenied;
    assert_eq!(allowed(&codes(&url, &work_word).await, denied), ["leader", "work", "blob"]);
    assert_eq!(allowed(&codes(&url, &read_word).await, denied), reads);
    assert_eq!(
        allowed(&codes(&url, &submit_word).await, denied),
        [&reads[..], &["submit", "control"]].concat()
    );
    let swapped = format!("{}{}", &work_word[..16], &read_word[16..]);
    for nobody in ["", "x", &old_word, &swapped, &work_word[..work_word.len() - 1]] {
        assert!(allowed(&codes(&url, nobody).await, Code::Unauthenticated).is_empty(), "{nobody}");
    }
    let refused = client.list(with(&old_word, v1::ListRequest {})).await.unwrap_err();
    let why = v1::Unidentified::decode(refused.details()).unwrap();
    assert_eq!(why.reason(), v1::unidentified::Reason::Expired);
    let refused = client.list(with(&work_word, v1::ListRequest {})).await.unwrap_err();
    let why = v1::NotPermitted::decode(refused.details()).unwrap();
    assert_eq!(
        (why.roles, why.needed),
        (vec!["worker".to_owned()], vec!["submit".to_owned(), "read".to_owned()])
    );

    store.revoke_token(&work.id).await.unwrap();
    let mut table = security.tokens.subscribe();
    table.wait_for(|t| t.as_ref().is_some_and(|t| !t.contains_key(&work.id))).await.unwrap();
    assert!(allowed(&codes(&url, &work_word).await, Code::Unauthenticated).is_empty());
    fresh.abort();
    handle.shutdown();
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_guess_tokens_are_slowed_down_and_others_are_not() {
    let limits = Limits { calls_per_second: 2, ..Limits::default() };
    let (token, word) = Token::issue(Role::Read, None, None).unwrap();
    let security = Security::new(None, true, limits);
    security.know(vec![token]);
    let options = Options { security, ..Options::default() };
    let handle = Service::start(options, Arc::new(MemoryStore::default())).await.unwrap();
    let mut client = ExperimentsClient::connect(format!("http://{}", handle.local_addr())).await.unwrap();
    let mut codes = Vec::new();
    for _ in 0..40 {
        codes.push(client.list(with("ablate_guess", v1::ListRequest {})).await.unwrap_err().code());
    }
    assert_eq!(codes[0], Code::Unauthenticated);
    assert_eq!(codes[39], Code::ResourceExhausted);
    client.list(with(&word, v1::ListRequest {})).await.unwrap();
    handle.shutdown();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_mutated_messages_does_not_stop_the_service() {
    use v1::worker_message::Body;
    let handle = Service::start(Options::default(), Arc::new(MemoryStore::default())).await.unwrap();
    let new = crate::store::conformance::experiment(1);
    let (id, _) = handle.submit(new).await.unwrap();
    let url = format!("http://{}", handle.local_addr());
    let hello = || v1::WorkerMessage {
        body: Some(Body::Hello(v1::Hello {
            protocol: ablate_common::PROTOCOL_VERSION,
            engine: ablate_common::ENGINE_VERSION,
            lanes: vec![v1::Lane::default()],
            ..v1::Hello::default()
        })),
    };
    // Numbers that a coordinator must not index, allocate or shift by.
    let mut next = 7u64;
    let mut odd = move || {
        next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        [0, 1, 2, 3, 1 << 31, u64::from(u32::MAX), 1 << 63, u64::MAX, next >> 33][(next >> 60) as usize % 9]
    };
    let mut messages = Vec::new();
    for n in 0..600 {
        let chunk = v1::ChunkId {
            experiment: if n % 3 == 0 { "none".into() } else { id.clone() },
            sweep: odd() as u32,
            round: odd() as u32,
            chunk: odd() as u32,
        };
        let held = v1::Held {
            lease: odd(),
            experiment: id.clone(),
            sweep: odd() as u32,
            round: odd() as u32,
            chunks: vec![odd() as u32, odd() as u32],
        };
        messages.push(match n % 6 {
            0 => Body::Credit(v1::Credit { shards: odd() as u32 }),
            1 => Body::Result(v1::ChunkResult {
                id: Some(chunk),
                lease: odd(),
                lane: odd() as u32,
                busy_us: odd(),
                idle_us: 3,
                scores: vec![b'A'; odd() as usize % 99].into(),
                device_class: "x\0y".into(),
            }),
            2 => Body::Failed(v1::ChunkFailed { id: Some(chunk), lease: odd(), failure: None }),
            3 => Body::Renew(v1::Renew { leases: vec![odd(), odd()], held: vec![held] }),
            4 => Body::Result(v1::ChunkResult::default()),
            _ => Body::Failed(v1::ChunkFailed::default()),
        });
    }
    for part in messages.chunks(100) {
        let mut worker = ClusterClient::connect(url.clone()).await.unwrap();
        let mut all = vec![hello()];
        all.extend(part.iter().map(|b| v1::WorkerMessage { body: Some(b.clone()) }));
        let mut from = worker.work(tokio_stream::iter(all)).await.unwrap().into_inner();
        while let Ok(Some(_)) = from.message().await {}
    }
    let mut client = ExperimentsClient::connect(url).await.unwrap();
    let status = client.status(v1::StatusRequest { id }).await.unwrap().into_inner();
    assert_eq!(status.chunks_accepted, 0, "nothing of that is a result");
    assert!(handle.fatal().borrow().is_none());
    handle.shutdown();
}
