//! The whole cluster in one process, under simulated time, network and disk.
//!
//! Nodes run the real programs' parts: the service (actor, committer, keeper, standby) with its gRPC code, and the
//! worker's client with its desk, spool and route. Each node has a runtime with a clock of its own; one thread steps
//! them in order. Between them lie a network of gRPC messages (`net`) and one disk (`disk`). What happens follows
//! from the seed alone: [`run`] of one seed gives one trace.

mod checks;
mod disk;
mod experiment;
mod faults;
mod lane;
#[cfg(feature = "mutations")]
pub mod mutations;
mod net;
mod node;
mod trace;
mod wire;
mod world;

pub use faults::{Bug, Profile};
pub use world::{Options, Outcome, run};
