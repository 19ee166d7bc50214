//! Server-sent events: a stream for each page, of what changed since it last heard.

use super::reply::{self, Reply};
use super::{Leading, Role, Site};
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Least time between two groups of events.
const PACE: Duration = Duration::from_millis(350);
/// Time without events after which a beat is sent, so that both ends notice when the other is gone; the page waits for two.
const BEAT: Duration = Duration::from_secs(15);
/// Experiments in one event.
const MOST: usize = 100;
/// Time after which a browser connects anew.
const RETRY: u32 = 1500;

/// `GET /api/v1/events`, with `id`: also what is computed of that experiment.
pub fn stream(site: &Arc<Site>, headers: &HeaderMap, id: Option<String>) -> Reply {
    let Ok(counted) = Arc::clone(&site.streams).try_acquire_owned() else {
        return reply::refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many pages follow this dashboard; ask now and then instead",
        );
    };
    let mut role = site.role.clone();
    let last = headers.get("last-event-id").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let events = async_stream::stream! {
        let _counted = counted;
        let mut last = last;
        yield Ok::<Bytes, Infallible>(Bytes::from(format!("retry: {RETRY}\n\n")));
        loop {
            let now = role.borrow_and_update().clone();
            match now {
                Role::Leading(leading) => {
                    let mut following = std::pin::pin!(follow(leading, last.take(), id.clone()));
                    loop {
                        tokio::select! {
                            biased;
                            event = futures::StreamExt::next(&mut following) => match event {
                                Some(event) => yield Ok(event),
                                None => break,
                            },
                            changed = role.changed() => {
                                if changed.is_err() { return; }
                                break;
                            }
                        }
                    }
                    // The service ended: what comes next is said by the role.
                    if matches!(&*role.borrow(), Role::Leading(_)) && !role.has_changed().unwrap_or(true) {
                        let waited = tokio::time::timeout(BEAT, role.changed()).await;
                        if !matches!(waited, Ok(Ok(()))) { return; }
                    }
                }
                other => {
                    yield Ok(event("role", None, &about(&other)));
                    loop {
                        match tokio::time::timeout(BEAT, role.changed()).await {
                            Ok(Ok(())) => break,
                            Ok(Err(_)) => return,
                            Err(_) => yield Ok(event("beat", None, &Value::Null)),
                        }
                    }
                }
            }
        }
    };
    let mut reply = reply::bytes(StatusCode::OK, "text/event-stream", Body::from_stream(events));
    let headers = reply.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A proxy that gathers answers would hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    reply
}

/// What this coordinator is.
pub fn about(role: &Role) -> Value {
    let (role, leader) = match role {
        Role::Starting => ("starting", None),
        Role::Standby(leader) => ("standby", Some(leader.as_str()).filter(|l| !l.is_empty())),
        Role::Leading(_) => ("leading", None),
    };
    json!({ "role": role, "leader": leader, "version": env!("CARGO_PKG_VERSION") })
}

fn event(name: &str, id: Option<&str>, data: &Value) -> Bytes {
    let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
    // JSON has no line breaks of its own.
    Bytes::from(format!("event: {name}\n{id}data: {data}\n\n"))
}

/// Events of one leadership, until its service ends.
fn follow(leading: Leading, last: Option<String>, id: Option<String>) -> impl futures::Stream<Item = Bytes> {
    async_stream::stream! {
        let Leading { handle, hub, follows } = leading;
        let mut changed = hub.subscribe();
        let id = id.and_then(|id| handle.find(&id).ok());
        // A number of this leadership is gone on from; any other page asks for the list, and hears what changes from now on.
        let known = last.as_deref().and_then(|l| l.strip_prefix(hub.boot())?.strip_prefix('.')?.parse::<u64>().ok());
        let mut seq = known.unwrap_or_else(|| hub.now());
        // What was told last of the one that is looked at; null once it isn't followed any more, so that the page asks for it anew.
        let mut seen: Option<Value> = None;
        yield event("role", None, &json!({ "role": "leading", "boot": hub.boot(), "fresh": known.is_none(), "version": env!("CARGO_PKG_VERSION") }));
        if known.is_none() && let Some(crowd) = hub.crowd(0) {
            yield event("workers", None, &json!(crowd));
        }
        let mut spoke = Instant::now();
        loop {
            let began = Instant::now();
            changed.borrow_and_update();
            let mut sent = false;
            loop {
                let (upto, items) = hub.since(seq, MOST);
                let more = items.len() == MOST;
                let crowd = hub.crowd(seq);
                if items.is_empty() && crowd.is_none() { seq = upto; break; }
                let stamp = format!("{}.{upto}", hub.boot());
                if let Some(crowd) = crowd {
                    yield event("workers", None, &json!(crowd));
                }
                yield event("experiments", Some(&stamp), &json!({ "items": items }));
                (seq, sent) = (upto, true);
                if !more { break; }
            }
            if let Some(id) = &id {
                let part = json!(follows.look(id));
                if seen.as_ref() != Some(&part) {
                    yield event("live", None, &part);
                    (seen, sent) = (Some(part), true);
                }
            }
            // What is computed of an experiment has no part in the hub's numbers, so the wait is short where one is looked at.
            let wait = if id.is_some() { PACE } else { BEAT };
            if sent {
                spoke = began;
            }
            if sent || id.is_some() {
                tokio::time::sleep(PACE.saturating_sub(began.elapsed())).await;
            }
            tokio::select! {
                got = changed.changed() => if got.is_err() { return },
                () = handle.stopping() => return,
                () = tokio::time::sleep(wait) => {}
            }
            if spoke.elapsed() >= BEAT {
                yield event("beat", None, &Value::Null);
                spoke = Instant::now();
            }
        }
    }
}
