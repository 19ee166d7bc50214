//! The coordinator: plans are stored, cut into shards, leased, accepted and decided.

pub mod dashboard;
#[cfg(feature = "mutations")]
pub mod mutation;
pub mod scheduler;
pub mod security;
pub mod server;
pub mod store;
pub mod token;
