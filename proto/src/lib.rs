//! The wire format: generated code and its conversions to domain types.

/// Messages and services of `ablate.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated; documented in the .proto file")]
pub mod v1 {
    tonic::include_proto!("ablate.v1");
}

pub mod older;
mod refusal;

pub use refusal::{not_permitted, over_limit, retry_after, unidentified};

/// Largest message either side takes: a chunk's scores, a plan.
pub const MAX_MESSAGE: usize = 256 << 20;

/// The status of a call to a coordinator that doesn't lead; `url` does, where it isn't empty.
#[must_use]
pub fn not_leader(url: &str) -> tonic::Status {
    let words = if url.is_empty() {
        "this coordinator stands by, and none leads now".to_owned()
    } else {
        format!("this coordinator stands by; {url} leads")
    };
    let details = prost::Message::encode_to_vec(&v1::NotLeader { url: url.to_owned() });
    tonic::Status::with_details(tonic::Code::Unavailable, words, details.into())
}
