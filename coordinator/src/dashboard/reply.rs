//! Answers: JSON, and refusals that say what to do.

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use tonic::Code;

/// An answer.
pub type Reply = Response<Body>;

/// Bytes of a type.
pub fn bytes(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Reply {
    let mut reply = Response::new(body.into());
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}

/// A value as JSON.
pub fn json(value: &impl Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(text) => {
            let mut reply = bytes(StatusCode::OK, "application/json", text);
            reply.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            reply
        }
        Err(e) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()),
    }
}

/// A refusal.
pub fn refuse(status: StatusCode, why: &str) -> Reply {
    let text = serde_json::json!({ "error": why }).to_string();
    let mut reply = bytes(status, "application/json", text);
    reply.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    }
    reply
}

/// What the gate or the service says, as HTTP says it.
pub fn refused(status: &tonic::Status) -> Reply {
    let code = match status.code() {
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::FailedPrecondition => StatusCode::CONFLICT,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut reply = refuse(code, status.message());
    if code == StatusCode::UNAUTHORIZED {
        reply.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    reply
}

/// What the service's own errors are in HTTP.
pub fn failed(e: &crate::server::Error) -> Reply {
    use crate::server::Error;
    let code = match e {
        Error::NoExperiment(_) => StatusCode::NOT_FOUND,
        Error::State(_) => StatusCode::CONFLICT,
        Error::Closed => StatusCode::SERVICE_UNAVAILABLE,
        Error::Store(s) if s.loses_lead() => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    refuse(code, &e.to_string())
}
