//! Refusals of callers: typed in a status's details, with a text for people.

use crate::v1::{NotPermitted, OverLimit, Unidentified, unidentified::Reason};
use prost::Message;
use std::time::Duration;
use tonic::{Code, Status};

/// The status of a call by nobody known.
#[must_use]
pub fn unidentified(reason: Reason) -> Status {
    let words = match reason {
        Reason::Expired => "the token or certificate has expired",
        Reason::Unknown => "the token isn't known here, or was revoked",
        _ => "the call carries neither a token nor a certificate",
    };
    let details = Unidentified { reason: reason.into() }.encode_to_vec();
    Status::with_details(Code::Unauthenticated, words, details.into())
}

/// The status of a call by somebody whose roles don't allow it.
#[must_use]
pub fn not_permitted(roles: &[&str], needed: &[&str]) -> Status {
    let has = if roles.is_empty() {
        "the certificate names no role".to_owned()
    } else {
        format!("the token or certificate has the role {}", roles.join(" and "))
    };
    let words = format!("{has}; this call needs the role {}", needed.join(" or "));
    let own = |all: &[&str]| all.iter().map(|&s| s.to_owned()).collect();
    let details = NotPermitted { roles: own(roles), needed: own(needed) }.encode_to_vec();
    Status::with_details(Code::PermissionDenied, words, details.into())
}

/// The status of a call over a limit; `after` says when it may be made again, where it ever may.
#[must_use]
pub fn over_limit(what: &str, limit: u64, after: Option<Duration>) -> Status {
    let ms = after.map_or(0, |a| u64::try_from(a.as_millis()).unwrap_or(u64::MAX).max(1));
    let again = if ms == 0 { String::new() } else { format!("; try again in {ms} ms") };
    let words = format!("over the limit of {limit} {what}{again}");
    let details = OverLimit { what: what.to_owned(), limit, retry_after_ms: ms }.encode_to_vec();
    Status::with_details(Code::ResourceExhausted, words, details.into())
}

/// How long to wait before the call is made again, where a limit was reached and waiting helps.
#[must_use]
pub fn retry_after(status: &Status) -> Option<Duration> {
    if status.code() != Code::ResourceExhausted {
        return None;
    }
    let details = OverLimit::decode(status.details()).ok()?;
    (details.retry_after_ms > 0).then(|| Duration::from_millis(details.retry_after_ms.min(60_000)))
}
