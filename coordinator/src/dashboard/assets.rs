//! The page itself: files that are part of the program. Nothing is built, and nothing comes from elsewhere.

use super::reply::{self, Reply};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use std::sync::OnceLock;

/// (path, type, content).
const FILES: [(&str, &str, &str); 9] = [
    ("/", "text/html; charset=utf-8", include_str!("web/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("web/style.css")),
    ("/app.js", JS, include_str!("web/app.js")),
    ("/dom.js", JS, include_str!("web/dom.js")),
    ("/server.js", JS, include_str!("web/server.js")),
    ("/list.js", JS, include_str!("web/list.js")),
    ("/experiment.js", JS, include_str!("web/experiment.js")),
    ("/figures.js", JS, include_str!("web/figures.js")),
    ("/icon.svg", "image/svg+xml", include_str!("web/icon.svg")),
];
const JS: &str = "text/javascript; charset=utf-8";

/// A file of the page; none where there is none of that name.
pub fn file(path: &str, headers: &HeaderMap) -> Option<Reply> {
    let at = FILES.iter().position(|f| f.0 == path)?;
    static TAGS: OnceLock<Vec<HeaderValue>> = OnceLock::new();
    let tags = TAGS.get_or_init(|| {
        let tag = |f: &(&str, &str, &str)| format!("\"{}\"", &blake3::hash(f.2.as_bytes()).to_hex()[..16]);
        FILES
            .iter()
            .map(|f| HeaderValue::from_str(&tag(f)).unwrap_or(HeaderValue::from_static("\"\"")))
            .collect()
    });
    let (_, kind, content) = FILES[at];
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|v| *v == tags[at]);
    let mut reply = if known {
        reply::bytes(StatusCode::NOT_MODIFIED, kind, "")
    } else {
        reply::bytes(StatusCode::OK, kind, content)
    };
    reply.headers_mut().insert(header::ETAG, tags[at].clone());
    reply.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Some(reply)
}
