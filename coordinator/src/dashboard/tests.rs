//! The API over real HTTP, of a service with played workers.

use super::*;
use crate::security::Limits;
use crate::server::tests::{Habit, until, work};
use crate::server::{Control, Options, Service, Status, listen};
use crate::store::conformance::experiment;
use crate::store::{MemoryStore, NewExperiment, SqliteStore, Store};
use crate::token::{Role as May, Token};
use ablate_output::live::short;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

const ONE: &str = "/api/v1/experiments/test-1";

/// An answer: its status, its headers in lower case, its body.
type Answer = (u16, String, String);

/// Sends a request and reads all of the answer.
async fn send(to: SocketAddr, head: &str, body: &str) -> Answer {
    let text = if body.is_empty() {
        format!("{head}\r\nhost: {to}\r\nconnection: close\r\n\r\n")
    } else {
        format!("{head}\r\nhost: {to}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        let all = String::from_utf8_lossy(&all).into_owned();
        let (head, body) = all.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
        (status, head.to_lowercase(), if chunked { joined(body) } else { body.to_owned() })
    })
    .await
    .unwrap()
}

/// A body that came in parts.
fn joined(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        out.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
        if size == 0 {
            break;
        }
    }
    out
}

async fn get(to: SocketAddr, path: &str) -> (u16, Value) {
    let (status, _, body) = send(to, &format!("GET {path} HTTP/1.1"), "").await;
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

async fn post(to: SocketAddr, path: &str, token: Option<&str>, body: &str) -> (u16, Value) {
    let bearer = token.map_or_else(String::new, |t| format!("\r\nauthorization: Bearer {t}"));
    let head = format!("POST {path} HTTP/1.1\r\ncontent-type: application/json{bearer}");
    let (status, _, body) = send(to, &head, body).await;
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

/// Opens the stream of events, and gives what comes as (event, data), until it ends or as many came as are wanted.
async fn events(
    to: SocketAddr,
    more: &str,
    want: impl Fn(&[(String, Value)]) -> bool + Send + 'static,
) -> Vec<(String, Value)> {
    let head = format!("GET /api/v1/events{more}\r\nhost: {to}\r\n\r\n");
    let read = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let (mut out, mut name) = (Vec::new(), String::new());
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { break };
            if let Some(n) = line.strip_prefix("event: ") {
                n.clone_into(&mut name);
            } else if let Some(id) = line.strip_prefix("id: ") {
                out.push(("id".to_owned(), json!(id)));
            } else if let Some(data) = line.strip_prefix("data: ") {
                out.push((name.clone(), serde_json::from_str(data).unwrap()));
                if want(&out) {
                    break;
                }
            }
        }
        out
    });
    read.await.unwrap()
}

fn security(required: bool, limits: Limits) -> Arc<Security> {
    Security::new(None, required, limits)
}

fn dashboard(security: Arc<Security>) -> (Dashboard, SocketAddr) {
    let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let dashboard = Dashboard::start(listener, security).unwrap();
    let at = dashboard.local_addr();
    (dashboard, at)
}

async fn service(store: Arc<dyn Store>) -> (Handle, NewExperiment, String) {
    let new = experiment(1);
    let service = Service::start(Options::default(), store).await.unwrap();
    let (id, _) = service.submit(new.clone()).await.unwrap();
    (service, new, id)
}

/// Asks until an answer is as it is wanted.
async fn settle(to: SocketAddr, path: &str, want: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..400 {
        let (status, value) = get(to, path).await;
        if status == 200 && want(&value) {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{path} didn't come to that: {}", get(to, path).await.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shown_in_the_end_is_what_the_tables_say() {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = SqliteStore::open(&folder.path().join("a.db")).await.unwrap();
    for store in [Arc::new(MemoryStore::default()) as Arc<dyn Store>, Arc::new(sqlite)] {
        let (service, new, id) = service(Arc::clone(&store)).await;
        let (dashboard, at) = dashboard(Security::open());
        dashboard.lead(&service);
        // One who looks from the start, while it is worked on.
        let (_, first) = get(at, &format!("{ONE}/heads")).await;
        assert_eq!(first["data"]["known"], 0);
        // Held until its pages have heard of both workers, however slow this machine is.
        service.control(&id, Control::Pause).await.unwrap();
        for _ in 0..2 {
            tokio::spawn(work(service.local_addr(), new.clone(), Habit::Good, Duration::ZERO));
        }
        let both = |seen: &[(String, Value)]| seen.iter().any(|(n, v)| n == "workers" && v["connected"] == 2);
        let seen = events(at, "?id=test-1 HTTP/1.1", both).await;
        assert!(both(&seen), "{seen:?}");
        let watching = tokio::spawn(events(at, "?id=test-1 HTTP/1.1", |seen| {
            seen.iter().any(|(n, v)| n == "experiments" && v["items"][0]["state"] == "done")
        }));
        service.control(&id, Control::Resume).await.unwrap();
        until(&service, &id, Status::ended).await;
        let seen = watching.await.unwrap();
        assert_eq!((seen[0].0.as_str(), &seen[0].1["fresh"]), ("role", &json!(true)));
        let table = ablate_output::analyse(&store.results(&id).await.unwrap()).groups.remove(0);
        let heads = settle(at, &format!("{ONE}/heads"), |v| v["data"]["known"] == 6).await;
        for (row, own) in heads["data"]["rows"].as_array().unwrap().iter().zip(&table.heads) {
            let d = own.delta;
            let wanted =
                json!([own.ix, short(own.value), short(d.value), short(d.se), short(d.low), short(d.high)]);
            assert_eq!(*row, wanted);
        }
        let pairs = settle(at, &format!("{ONE}/pairs"), |v| v["data"]["known"] == 15).await;
        assert_eq!(pairs["data"]["cells"].as_array().unwrap().len(), 15);
        for pair in &table.pairs {
            let cells = pairs["data"]["cells"].as_array().unwrap();
            let cell = cells.iter().find(|c| c[0] == pair.a.0 && c[1] == pair.b.0).unwrap();
            let off = cell[2].as_f64().unwrap() - pair.interaction.value;
            assert!(off.abs() <= 1e-4 * pair.interaction.value.abs() + 1e-12, "{cell} {pair:?}");
        }
        let path = format!("{ONE}/curve");
        let whole = |v: &Value| {
            v["data"]["walks"][0]["points"].as_array().is_some_and(|p| p.len() == 5)
                && v["data"]["lines"].as_array().is_some_and(|l| l.len() == table.curves.len())
        };
        let curve = settle(at, &path, whole).await;
        for own in &table.curves {
            let lines = curve["data"]["lines"].as_array().unwrap();
            let line = lines.iter().find(|l| l["order"] == own.order).unwrap();
            let values: Vec<Value> = own.points.iter().map(|p| json!(short(p.value))).collect();
            let shown: Vec<Value> = line["points"].as_array().unwrap().iter().map(|p| p[1].clone()).collect();
            assert_eq!(shown, values, "{}", own.order);
        }
        // What didn't change isn't sent again.
        let version = pairs["data"]["version"].as_u64().unwrap();
        let (_, later) = get(at, &format!("{ONE}/pairs?since={version}")).await;
        assert_eq!((&later["data"]["whole"], later["data"]["known"].as_u64()), (&json!(false), Some(15)));
        let (_, one) = get(at, ONE).await;
        assert_eq!((&one["brief"]["state"], &one["brief"]["share"]), (&json!("done"), &json!(1.0)));
        assert_eq!(one["groups"][0]["units"][3][0], "L1.H0");
        let warned = one["groups"][0]["warnings"][0].as_str().unwrap();
        assert!(warned.starts_with("4 examples in 4 clusters: below 200 examples"), "{warned}");
        assert_eq!(get(at, "/api/v1/experiments/none").await.0, 404);
        assert_eq!(get(at, &format!("{ONE}/heads?group=7")).await.0, 404);
        // Where the service has ended, what is known is shown on.
        service.shutdown();
        service.closed().await;
        assert_eq!(get(at, "/api/v1/experiments").await.1["items"][0]["state"], "done");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_to_the_stream_goes_on_where_it_was() {
    let (service, ..) = service(Arc::new(MemoryStore::default())).await;
    let (dashboard, at) = dashboard(Security::open());
    dashboard.lead(&service);
    let (_, list) = get(at, "/api/v1/experiments").await;
    let last = format!("{}.{}", list["boot"].as_str().unwrap(), list["seq"]);
    assert_eq!(service.control("test-1", crate::server::Control::Pause).await.unwrap().state, "paused");
    let resumed = format!(" HTTP/1.1\r\nlast-event-id: {last}");
    let seen = events(at, &resumed, |seen| seen.iter().any(|e| e.0 == "experiments")).await;
    assert_eq!(seen[0].1["fresh"], false);
    let (_, change) = seen.iter().find(|e| e.0 == "experiments").unwrap();
    assert_eq!(change["items"][0]["state"], "paused");
    assert!(
        seen.iter()
            .any(|(n, id)| n == "id" && id.as_str().unwrap().starts_with(list["boot"].as_str().unwrap()))
    );
    // What nobody has asked for isn't followed, which a page is told, so that it asks.
    let live = |seen: &[(String, Value)]| seen.iter().any(|e| e.0 == "live");
    let seen = events(at, "?id=test-1 HTTP/1.1", live).await;
    assert_eq!(seen.last().unwrap().1, Value::Null);
    assert_eq!(get(at, &format!("{ONE}/heads")).await.0, 200);
    let seen = events(at, "?id=test-1 HTTP/1.1", live).await;
    assert_eq!(seen.last().unwrap().1["error"], "");
    // A number of another leadership means nothing: the page asks anew.
    let seen = events(at, " HTTP/1.1\r\nlast-event-id: 1-0.5", |seen| !seen.is_empty()).await;
    assert_eq!(seen[0].1["fresh"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_may_look_and_only_the_bearer_of_a_fitting_token_acts() {
    let (service, ..) = service(Arc::new(MemoryStore::default())).await;
    let path = format!("{ONE}/control");
    let (open, at) = dashboard(Security::open());
    open.lead(&service);
    assert_eq!(get(at, "/api/v1/about").await.1["token"], false);
    assert_eq!(post(at, &path, None, r#"{"action":"pause"}"#).await.1["state"], "paused");
    assert_eq!(post(at, &path, None, r#"{"action":"pause"}"#).await.0, 409);
    for bad in [r#"{"action":"stop"}"#, "{", r#"{"action":"pause","also":1}"#] {
        assert_eq!(post(at, &path, None, bad).await.0, 400, "{bad}");
    }
    let long = format!(r#"{{"action":"{}"}}"#, "x".repeat(5000));
    assert_eq!(post(at, &path, None, &long).await.0, 413);
    assert_eq!(post(at, "/api/v1/experiments/none/control", None, r#"{"action":"pause"}"#).await.0, 404);

    let (may, word) = Token::issue(May::Submit, None, None).unwrap();
    let (_, other) = Token::issue(May::Submit, None, None).unwrap();
    let (guarded, at) = dashboard(Security::private(may));
    guarded.lead(&service);
    assert_eq!(get(at, "/api/v1/about").await.1["token"], true);
    assert_eq!(get(at, "/api/v1/experiments").await.1["items"][0]["state"], "paused");
    let resume = r#"{"action":"resume"}"#;
    assert_eq!(post(at, &path, None, resume).await.0, 401);
    assert_eq!(post(at, &path, Some(&other), resume).await.0, 401);
    assert_eq!(post(at, &path, Some(&word), resume).await.1["state"], "running");
    let asked = send(at, &format!("GET /api/v1/whoami HTTP/1.1\r\nauthorization: Bearer {word}"), "").await;
    assert!(asked.0 == 200 && asked.2.contains("\"acts\":true") && !asked.2.contains(&word), "{asked:?}");
    for role in [May::Read, May::Worker] {
        let (lesser, word) = Token::issue(role, None, None).unwrap();
        let (reading, at) = dashboard(Security::private(lesser));
        reading.lead(&service);
        assert_eq!(post(at, &path, Some(&word), r#"{"action":"pause"}"#).await.0, 403, "{role:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_sites_names_and_floods_are_refused() {
    let (service, ..) = service(Arc::new(MemoryStore::default())).await;
    let limits = Limits { dashboard_streams: 1, calls_per_second: 20, ..Limits::default() };
    let (dashboard, at) = dashboard(security(false, limits));
    dashboard.lead(&service);
    let page = send(at, "GET / HTTP/1.1", "").await;
    assert!(page.0 == 200 && page.2.contains("<title>Ablate</title>"), "{}", page.1);
    for word in [
        "content-security-policy: default-src 'none'; script-src 'self'",
        "nosniff",
        "frame-ancestors 'none'",
        "etag: ",
    ] {
        assert!(page.1.contains(word), "{word} isn't in {}", page.1);
    }
    assert!(!page.1.contains("access-control"), "{}", page.1);
    let tag = page.1.split("etag: ").nth(1).unwrap().split("\r\n").next().unwrap();
    assert_eq!(send(at, &format!("GET / HTTP/1.1\r\nif-none-match: {tag}"), "").await.0, 304);
    for name in [
        "/style.css",
        "/app.js",
        "/dom.js",
        "/server.js",
        "/list.js",
        "/experiment.js",
        "/figures.js",
        "/icon.svg",
    ] {
        let file = send(at, &format!("GET {name} HTTP/1.1"), "").await;
        assert!(file.0 == 200 && file.1.contains("content-type: "), "{name}");
        assert!(!file.2.contains("//cdn") && !file.2.contains("@import url"), "{name} asks others");
    }
    assert_eq!(get(at, "/../Cargo.toml").await.0, 404);
    let rebound = send(at, "GET /api/v1/experiments HTTP/1.1\r\nhost: evil.example", "").await;
    assert!(rebound.0 == 421 || rebound.0 == 400, "{}", rebound.0);
    let crossed = send(at, "GET /api/v1/experiments HTTP/1.1\r\nsec-fetch-site: cross-site", "").await;
    assert_eq!(crossed.0, 403);
    let form = "POST /api/v1/experiments/test-1/control HTTP/1.1\r\ncontent-type: text/plain";
    assert_eq!(send(at, form, r#"{"action":"pause"}"#).await.0, 415);
    let origin = "POST /api/v1/experiments/test-1/control HTTP/1.1\r\ncontent-type: application/json\r\norigin: http://evil.example";
    assert_eq!(send(at, origin, r#"{"action":"pause"}"#).await.0, 403);
    assert_eq!(service.statuses().values().next().unwrap().state, "running");
    // What was asked above is forgiven by now.
    tokio::time::sleep(Duration::from_secs(2)).await;
    // One page follows; a second is told to ask now and then.
    let (told, hears) = std::sync::mpsc::channel();
    let following = tokio::spawn(events(at, " HTTP/1.1", move |seen| {
        let _ = told.send(());
        seen.iter().any(|(n, v)| n == "role" && v["role"] == "standby")
    }));
    tokio::task::spawn_blocking(move || hears.recv().unwrap()).await.unwrap();
    assert_eq!(second_stream(at).await, "HTTP/1.1 503 Service Unavailable");
    dashboard.stand_by("http://other:7650");
    assert!(!following.await.unwrap().is_empty());
    let mut over = 0;
    for _ in 0..200 {
        over += u32::from(get(at, "/api/v1/about").await.0 == 429);
    }
    assert!(over > 0, "two hundred questions at once are over the limit");
}

/// The first line that one more stream is answered with.
async fn second_stream(at: SocketAddr) -> String {
    let head = format!("GET /api/v1/events HTTP/1.1\r\nhost: {at}\r\n\r\n");
    let status = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(at).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let mut first = String::new();
        BufReader::new(stream).read_line(&mut first).unwrap();
        first.trim_end().to_owned()
    });
    status.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_stands_by_says_who_leads_and_goes_on_once_it_does() {
    let (service, ..) = service(Arc::new(MemoryStore::default())).await;
    let (dashboard, at) = dashboard(Security::open());
    assert_eq!(get(at, "/api/v1/about").await.1["role"], "starting");
    dashboard.stand_by("http://first:7650");
    assert_eq!(get(at, "/api/v1/about").await.1["leader"], "http://first:7650");
    let (status, why) = get(at, "/api/v1/experiments").await;
    assert!(status == 503 && why["error"].as_str().unwrap().contains("http://first:7650 leads"), "{why}");
    assert_eq!(post(at, &format!("{ONE}/control"), None, r#"{"action":"pause"}"#).await.0, 503);
    let following =
        tokio::spawn(events(at, " HTTP/1.1", |seen| seen.iter().any(|(_, v)| v["role"] == "leading")));
    tokio::time::sleep(Duration::from_millis(100)).await;
    dashboard.lead(&service);
    let seen = following.await.unwrap();
    assert_eq!(seen[0].1["leader"], "http://first:7650");
    assert_eq!(get(at, "/api/v1/experiments").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_are_set_aside_show_their_errors_and_leave_their_pairs_out() {
    let (service, new, id) = service(Arc::new(MemoryStore::default())).await;
    let (dashboard, at) = dashboard(Security::open());
    dashboard.lead(&service);
    for habit in [Habit::FailsPairs, Habit::FailsPairs, Habit::Good] {
        tokio::spawn(work(service.local_addr(), new.clone(), habit, Duration::from_millis(5)));
    }
    let status = until(&service, &id, Status::ended).await;
    let (_, aside) = get(at, &format!("{ONE}/quarantine")).await;
    assert_eq!(aside["count"], status.quarantined);
    for item in aside["items"].as_array().unwrap() {
        assert_eq!((&item["kind"], &item["error"]), (&json!("pairs"), &json!("no")));
    }
    let workers = settle(at, "/api/v1/workers", |v| v["all"]["connected"] == 3).await;
    let failures = workers["items"].as_array().unwrap().iter().map(|w| w["failures"].as_u64().unwrap());
    assert_eq!(workers["all"]["failures"].as_u64().unwrap(), failures.sum::<u64>());
    assert_eq!(workers["items"][0]["lanes"], json!([["cpu", "played"]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_shown_as_it_lies_there_and_can_do_nothing_here() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(Options::default(), Arc::new(MemoryStore::default())).await.unwrap();
    let new = NewExperiment { output: folder.path().to_path_buf(), ..experiment(1) };
    let (id, _) = service.submit(new.clone()).await.unwrap();
    let (dashboard, at) = dashboard(Security::open());
    dashboard.lead(&service);
    let path = format!("GET /experiments/{id}/report.html HTTP/1.1");
    assert_eq!(send(at, &path, "").await.0, 404);
    let text = "<html>".repeat(50_000);
    std::fs::write(folder.path().join("report.html"), &text).unwrap();
    let (status, head, body) = send(at, &path, "").await;
    assert!(status == 200 && body == text, "{head}");
    assert!(head.contains("sandbox allow-scripts") && !head.contains("allow-same-origin"), "{head}");
    std::fs::write(folder.path().join("secret"), "s").unwrap();
    std::fs::remove_file(folder.path().join("report.html")).unwrap();
    std::os::unix::fs::symlink(folder.path().join("secret"), folder.path().join("report.html")).unwrap();
    assert_eq!(send(at, &path, "").await.0, 404);
    tokio::spawn(work(service.local_addr(), new, Habit::Good, Duration::ZERO));
    until(&service, &id, Status::ended).await;
}
