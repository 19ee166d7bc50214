//! What stands before every request: that it is meant for this address, comes from this site's own pages, and not too often.
//!
//! Without TLS a page of another site could have its name point here (DNS rebinding) and then read as if it were ours: in clear text, which
//! is spoken on loopback only, `Host` must be a loopback address or `localhost`. With TLS the certificate's name settles that. Requests that a
//! browser sends from pages of other sites are refused, whatever they ask for but whole pages; what changes something must be JSON, which
//! other sites can't send without being allowed to, and nobody is.

use super::Site;
use super::reply::{self, Reply};
use crate::security::Peer;
use axum::body::Body;
use axum::extract::State;
use axum::middleware::Next;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use std::net::IpAddr;
use std::sync::Arc;

/// Nothing but what this server gives may run or be loaded, and nobody may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Checks a request, and says of every answer what it may do.
pub async fn guard(State(site): State<Arc<Site>>, request: Request<Body>, next: Next) -> Reply {
    let api = request.uri().path().starts_with("/api/");
    let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
    let mut answer = match site.security.visit(&peer) {
        Err(over) => reply::refused(&over),
        Ok(_pass) => match check(&request, site.security.encrypted()) {
            Err((status, why)) => {
                tracing::warn!(from = ?peer.address, path = request.uri().path(), why, "refused");
                reply::refuse(status, why)
            }
            Ok(()) => next.run(request).await,
        },
    };
    let headers = answer.headers_mut();
    let mut set = |name: &'static str, value: &'static str| {
        if !headers.contains_key(name) {
            headers.insert(name, HeaderValue::from_static(value));
        }
    };
    set("content-security-policy", POLICY);
    set("x-content-type-options", "nosniff");
    set("x-frame-options", "DENY");
    set("referrer-policy", "no-referrer");
    set("cross-origin-resource-policy", "same-origin");
    set("cross-origin-opener-policy", "same-origin");
    set("permissions-policy", "camera=(), microphone=(), geolocation=()");
    if api {
        set("cache-control", "no-store");
    }
    answer
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn check(request: &Request<Body>, encrypted: bool) -> Result<(), (StatusCode, &'static str)> {
    let headers = request.headers();
    let host = request.uri().authority().map(|a| a.as_str()).or_else(|| text(headers, "host"));
    let host = host.ok_or((StatusCode::BAD_REQUEST, "the request names no host"))?;
    if !encrypted && !local(host) {
        return Err((
            StatusCode::MISDIRECTED_REQUEST,
            "this address is served to this machine only; open it as http://127.0.0.1:PORT or http://localhost:PORT",
        ));
    }
    // Pages may be opened by a link from anywhere; what they load and do may not.
    let page = request.method() == Method::GET && !request.uri().path().starts_with("/api/");
    let site = text(headers, "sec-fetch-site").unwrap_or("none");
    let elsewhere = (StatusCode::FORBIDDEN, "the request comes from a page of another site");
    if !page && !matches!(site, "same-origin" | "none") {
        return Err(elsewhere);
    }
    match *request.method() {
        Method::GET | Method::HEAD => Ok(()),
        Method::POST => {
            let scheme = if encrypted { "https" } else { "http" };
            let own = |origin: &str| {
                origin.split_once("://").is_some_and(|(s, h)| s == scheme && h.eq_ignore_ascii_case(host))
            };
            if headers.contains_key(header::ORIGIN) && !text(headers, "origin").is_some_and(own) {
                return Err(elsewhere);
            }
            let kind = text(headers, "content-type").unwrap_or_default();
            if kind.split(';').next().is_none_or(|k| !k.trim().eq_ignore_ascii_case("application/json")) {
                return Err((
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    "send JSON, with Content-Type: application/json",
                ));
            }
            Ok(())
        }
        _ => Err((StatusCode::METHOD_NOT_ALLOWED, "only GET and POST are answered")),
    }
}

/// Whether a host (with or without a port) is this machine by its own name for itself.
fn local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, path: &str, headers: &[(&'static str, &str)]) -> Request<Body> {
        let mut r = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            r = r.header(*name, *value);
        }
        r.body(Body::empty()).unwrap()
    }

    fn verdict(method: &str, path: &str, headers: &[(&'static str, &str)], encrypted: bool) -> u16 {
        check(&request(method, path, headers), encrypted).map_or_else(|e| e.0.as_u16(), |()| 200)
    }

    #[test]
    fn in_clear_text_only_this_machines_own_names_are_answered() {
        for host in
            ["localhost", "LOCALHOST:7651", "127.0.0.1:80", "127.9.9.9", "[::1]:7651", "[::ffff:127.0.0.1]"]
        {
            assert_eq!(verdict("GET", "/", &[("host", host)], false), 200, "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:7651",
            "localhost.evil.example",
            "10.0.0.1:7651",
            "[::2]:1",
            "",
            "127.0.0.1.evil.example:1",
        ] {
            assert_eq!(verdict("GET", "/", &[("host", host)], false), 421, "{host}");
            assert_eq!(verdict("GET", "/", &[("host", host)], true), 200, "a certificate names it: {host}");
        }
        assert_eq!(verdict("GET", "/", &[], false), 400);
    }

    #[test]
    fn other_sites_can_open_pages_and_nothing_else() {
        let host = ("host", "127.0.0.1:7651");
        for site in ["cross-site", "same-site"] {
            assert_eq!(verdict("GET", "/", &[host, ("sec-fetch-site", site)], false), 200);
            assert_eq!(verdict("GET", "/api/v1/experiments", &[host, ("sec-fetch-site", site)], false), 403);
        }
        assert_eq!(
            verdict("GET", "/api/v1/experiments", &[host, ("sec-fetch-site", "same-origin")], false),
            200
        );
        let path = "/api/v1/experiments/a/control";
        let json = ("content-type", "application/json; charset=utf-8");
        assert_eq!(verdict("POST", path, &[host, json], false), 200, "curl");
        assert_eq!(verdict("POST", path, &[host, json, ("origin", "http://127.0.0.1:7651")], false), 200);
        for origin in [
            "http://127.0.0.1:3000",
            "https://127.0.0.1:7651",
            "http://localhost:7651",
            "null",
            "http://evil.example",
        ] {
            assert_eq!(verdict("POST", path, &[host, json, ("origin", origin)], false), 403, "{origin}");
        }
        assert_eq!(verdict("POST", path, &[host, json, ("sec-fetch-site", "cross-site")], false), 403);
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""] {
            assert_eq!(verdict("POST", path, &[host, ("content-type", kind)], false), 415, "{kind}");
        }
        assert_eq!(verdict("DELETE", path, &[host], false), 405);
        assert_eq!(verdict("OPTIONS", path, &[host, ("origin", "http://evil.example")], false), 405);
    }
}
