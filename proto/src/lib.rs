//! The wire format: generated code and its conversions to domain types.

/// Messages and services of `ablate.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated; documented in the .proto file")]
pub mod v1 {
    tonic::include_proto!("ablate.v1");
}

/// Largest message either side takes: a chunk's scores, a plan.
pub const MAX_MESSAGE: usize = 256 << 20;
