//! The paths that are answered: the page's files, and a JSON API below `/api/v1`, documented in docs/dashboard.md.

use super::follow::Follow;
use super::reply::{self, Reply};
use super::{Leading, Role, Site, assets, events, guard};
use crate::security::Peer;
use crate::server::Control;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::middleware;
use axum::routing::{get, post};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of what is sent to act.
const BODY: usize = 4096;
/// How long that may take to come.
const PATIENCE: Duration = Duration::from_secs(10);
/// Experiments or workers in one answer, at most.
const PAGE: usize = 200;
/// Quarantined chunks in one answer.
const ASIDE: usize = 200;
/// Bytes of a report that is served.
const REPORT: u64 = 512 << 20;

/// What a report may do: what is in it, and nothing with this site.
const REPORT_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; \
base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox allow-scripts allow-downloads allow-popups";

type At = State<Arc<Site>>;

/// All of it.
pub fn router(site: Arc<Site>) -> Router {
    let one = "/api/v1/experiments/{id}";
    Router::new()
        .route("/api/v1/about", get(about))
        .route("/api/v1/whoami", get(whoami))
        .route("/api/v1/experiments", get(experiments))
        .route(one, get(experiment))
        .route(&format!("{one}/heads"), get(heads))
        .route(&format!("{one}/pairs"), get(pairs))
        .route(&format!("{one}/curve"), get(curve))
        .route(&format!("{one}/quarantine"), get(quarantine))
        .route(&format!("{one}/control"), post(control))
        .route("/api/v1/workers", get(workers))
        .route("/api/v1/events", get(follow_events))
        .route("/experiments/{id}/report.html", get(report))
        .fallback(page)
        .layer(middleware::from_fn_with_state(Arc::clone(&site), guard::guard))
        .with_state(site)
}

/// What comes behind the question mark: names, and numbers or words without escapes but for the commonest.
struct Query(Vec<(String, String)>);

impl Query {
    fn of(request: &Request) -> Self {
        let all = request.uri().query().unwrap_or_default().split('&');
        Self(all.filter_map(|p| p.split_once('=')).map(|(k, v)| (k.to_owned(), unescape(v))).collect())
    }

    fn word(&self, name: &str) -> &str {
        self.0.iter().find(|p| p.0 == name).map_or("", |p| p.1.as_str())
    }

    fn number<T: std::str::FromStr + Default>(&self, name: &str) -> T {
        self.word(name).parse().unwrap_or_default()
    }
}

fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        out.push(match b {
            b'+' => b' ',
            b'%' => {
                let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
                match (digit(bytes.next()), digit(bytes.next())) {
                    (Some(h), Some(l)) => (h * 16 + l) as u8,
                    _ => b'?',
                }
            }
            b => b,
        });
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl Site {
    /// Who leads must answer.
    #[allow(clippy::result_large_err, reason = "an answer either way")]
    fn leading(&self) -> Result<Leading, Reply> {
        match &*self.role.borrow() {
            Role::Leading(leading) => Ok(leading.clone()),
            Role::Standby(url) if !url.is_empty() => Err(reply::refuse(
                StatusCode::SERVICE_UNAVAILABLE,
                &format!("this coordinator stands by; {url} leads"),
            )),
            _ => Err(reply::refuse(StatusCode::SERVICE_UNAVAILABLE, "this coordinator doesn't lead yet")),
        }
    }

    /// The leader, and the whole identity of an experiment.
    #[allow(clippy::result_large_err, reason = "an answer either way")]
    fn find(&self, id: &str) -> Result<(Leading, String), Reply> {
        let leading = self.leading()?;
        let id = leading.handle.find(id).map_err(|e| reply::failed(&e))?;
        Ok((leading, id))
    }

    /// What follows an experiment's chunks.
    #[allow(clippy::result_large_err, reason = "an answer either way")]
    fn follow(&self, id: &str) -> Result<(Leading, String, Arc<Follow>), Reply> {
        let (leading, id) = self.find(id)?;
        let none = || reply::refuse(StatusCode::NOT_FOUND, "there is no such experiment");
        let follow = leading.follows.get(&id).ok_or_else(none)?;
        Ok((leading, id, follow))
    }
}

async fn page(request: Request) -> Reply {
    assets::file(request.uri().path(), request.headers())
        .unwrap_or_else(|| reply::refuse(StatusCode::NOT_FOUND, "there is nothing at this address"))
}

async fn about(State(site): At) -> Reply {
    let mut about = events::about(&site.role.borrow());
    about["token"] = json!(site.security.required());
    reply::json(&about)
}

/// Says whether the bearer of a token may act.
async fn whoami(State(site): At, request: Request) -> Reply {
    let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
    match site.security.may(&peer, request.headers(), "Control") {
        Ok((caller, _pass)) => reply::json(&json!({ "name": caller.name, "acts": true })),
        Err(why) => reply::refused(&why),
    }
}

async fn experiments(State(site): At, request: Request) -> Reply {
    let query = Query::of(&request);
    let leading = match site.leading() {
        Ok(leading) => leading,
        Err(why) => return why,
    };
    let (seq, count, items) = leading.hub.list(query.word("find"), query.number("from"), PAGE);
    reply::json(&json!({ "boot": leading.hub.boot(), "seq": seq, "count": count, "items": items }))
}

async fn experiment(State(site): At, Path(id): Path<String>) -> Reply {
    let (leading, id, follow) = match site.follow(&id) {
        Ok(found) => found,
        Err(why) => return why,
    };
    let (Some(brief), Some(plan)) = (leading.hub.one(&id), leading.handle.plan(&id)) else {
        return reply::refuse(StatusCode::SERVICE_UNAVAILABLE, "the experiment has only just come");
    };
    let groups = follow.ask(|live| (0..live.groups()).filter_map(|g| live.group_view(g)).collect::<Vec<_>>());
    let Some(groups) = groups.await else { return not_yet(&follow) };
    let tasks: Vec<Value> = plan
        .tasks
        .iter()
        .map(|t| json!({ "name": t.name, "kind": t.kind.name(), "metric": t.metric.name(), "examples": t.examples }))
        .collect();
    reply::json(&json!({
        "brief": brief,
        "model": { "title": plan.model.title, "arch": plan.model.arch, "heads": plan.heads().len(), "layers": plan.model.layers,
            "dtype": plan.spec.model.dtype },
        "seed": plan.spec.seed,
        "tasks": tasks,
        "groups": groups,
        "live": follow.look(),
    }))
}

/// What is followed isn't read so far, or can't be.
fn not_yet(follow: &Follow) -> Reply {
    let why = follow.look().error;
    let why = if why.is_empty() { "its tasks are still being read" } else { &why };
    reply::refuse(StatusCode::SERVICE_UNAVAILABLE, why)
}

/// Asks what is computed of a group.
async fn computed<T: serde::Serialize + Send + 'static>(
    site: &Site,
    id: &str,
    question: impl for<'a> FnOnce(&mut ablate_output::live::Live<'a>) -> Option<T> + Send + 'static,
) -> Reply {
    let follow = match site.follow(id) {
        Ok((_, _, follow)) => follow,
        Err(why) => return why,
    };
    match follow.ask(question).await {
        None => not_yet(&follow),
        Some(None) => reply::refuse(StatusCode::NOT_FOUND, "the experiment has no such group"),
        Some(Some(view)) => reply::json(&json!({ "live": follow.look(), "data": view })),
    }
}

async fn heads(State(site): At, Path(id): Path<String>, request: Request) -> Reply {
    let query = Query::of(&request);
    let (group, since) = (query.number("group"), query.number("since"));
    computed(&site, &id, move |live| live.heads(group, since)).await
}

async fn pairs(State(site): At, Path(id): Path<String>, request: Request) -> Reply {
    let query = Query::of(&request);
    let (group, since) = (query.number("group"), query.number("since"));
    computed(&site, &id, move |live| live.pairs(group, since)).await
}

async fn curve(State(site): At, Path(id): Path<String>, request: Request) -> Reply {
    let query = Query::of(&request);
    let (group, since) = (query.number("group"), query.number("since"));
    computed(&site, &id, move |live| live.curves(group, since)).await
}

async fn quarantine(State(site): At, Path(id): Path<String>) -> Reply {
    let (leading, id) = match site.find(&id) {
        Ok(found) => found,
        Err(why) => return why,
    };
    let Some(plan) = leading.handle.plan(&id) else {
        return reply::refuse(StatusCode::NOT_FOUND, "there is no such experiment");
    };
    match leading.handle.store().quarantined(&id).await {
        Err(e) => reply::failed(&e.into()),
        Ok(all) => {
            let row = |(sweep, round, chunk, error): &(u32, u32, u32, String)| {
                let kind = plan.sweeps.get(*sweep as usize).map(|s| s.kind.name());
                let name = kind.map_or_else(String::new, |kind| format!("{kind}{}", plan.given(*sweep)));
                let ranks = kind.map(|_| plan.chunk_ranks(*sweep, *round, *chunk));
                json!({ "sweep": sweep, "kind": name, "round": round, "chunk": chunk,
                    "subsets": ranks.map(|r| [r.start, r.end]), "error": error })
            };
            let items: Vec<Value> = all.iter().take(ASIDE).map(row).collect();
            reply::json(&json!({ "count": all.len(), "items": items }))
        }
    }
}

async fn workers(State(site): At, request: Request) -> Reply {
    let query = Query::of(&request);
    let leading = match site.leading() {
        Ok(leading) => leading,
        Err(why) => return why,
    };
    let (crowd, items, gone) = leading.hub.some_workers(query.number("from"), PAGE);
    reply::json(&json!({ "all": crowd, "items": items, "gone": gone }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    action: String,
}

async fn control(State(site): At, Path(id): Path<String>, request: Request) -> Reply {
    let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
    let (caller, _pass) = match site.security.may(&peer, request.headers(), "Control") {
        Ok(let_in) => let_in,
        Err(why) => return reply::refused(&why),
    };
    let body = tokio::time::timeout(PATIENCE, axum::body::to_bytes(request.into_body(), BODY));
    let Ok(Ok(body)) = body.await else {
        return reply::refuse(StatusCode::PAYLOAD_TOO_LARGE, "send {\"action\": …} and nothing more");
    };
    let wish = serde_json::from_slice::<Wish>(&body);
    let control = match wish.as_ref().map(|w| w.action.as_str()) {
        Ok("pause") => Control::Pause,
        Ok("resume") => Control::Resume,
        Ok("cancel") => Control::Cancel,
        Ok("retry") => Control::Retry,
        _ => {
            let why = "send {\"action\": \"pause\"}, or resume, cancel or retry";
            return reply::refuse(StatusCode::BAD_REQUEST, why);
        }
    };
    let leading = match site.leading() {
        Ok(leading) => leading,
        Err(why) => return why,
    };
    match leading.handle.control(&id, control).await {
        Err(e) => reply::failed(&e),
        Ok(status) => {
            tracing::info!(caller = caller.name, experiment = status.id, ?control, "by the dashboard");
            reply::json(&status)
        }
    }
}

async fn follow_events(State(site): At, request: Request) -> Reply {
    let id = Some(Query::of(&request).word("id").to_owned()).filter(|id| !id.is_empty());
    let headers: &HeaderMap = request.headers();
    events::stream(&site, headers, id)
}

/// The report in an experiment's output folder, as it is, and kept from doing anything here.
async fn report(State(site): At, Path(id): Path<String>) -> Reply {
    let (leading, id) = match site.find(&id) {
        Ok(found) => found,
        Err(why) => return why,
    };
    let none =
        || reply::refuse(StatusCode::NOT_FOUND, "there is no report: it is written when the experiment ends");
    let Some(brief) = leading.hub.one(&id) else { return none() };
    let path = std::path::Path::new(&brief.output).join("report.html");
    let Ok(meta) = tokio::fs::symlink_metadata(&path).await else { return none() };
    // A link could lead anywhere.
    if !meta.is_file() || meta.len() > REPORT {
        return none();
    }
    let Ok(file) = tokio::fs::File::open(&path).await else { return none() };
    let parts = futures::stream::unfold(file, |mut file| async move {
        use tokio::io::AsyncReadExt;
        let mut part = vec![0; 64 << 10];
        match file.read(&mut part).await {
            Ok(0) => None,
            Ok(n) => {
                part.truncate(n);
                Some((Ok(bytes::Bytes::from(part)), file))
            }
            Err(e) => Some((Err(e), file)),
        }
    });
    let mut reply = reply::bytes(StatusCode::OK, "text/html; charset=utf-8", Body::from_stream(parts));
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(REPORT_POLICY));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // The sandbox keeps it apart already, and doesn't go with more.
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("unsafe-none"));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_behind_the_question_mark_is_read() {
        let request = |q: &str| Request::builder().uri(format!("/x?{q}")).body(Body::empty()).unwrap();
        let query = Query::of(&request("group=3&since=18446744073709551615&find=a%20b%C3%A9+c%zz&bad"));
        assert_eq!((query.number::<usize>("group"), query.number::<u64>("since")), (3, u64::MAX));
        assert_eq!((query.word("find"), query.word("none")), ("a bé c?", ""));
        assert_eq!(Query::of(&request("group=-1")).number::<usize>("group"), 0);
    }
}
