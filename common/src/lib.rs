//! What every part of Ablate agrees on: heads, subset spaces, specs, plans, prepared tasks, chunk
//! scores, model files and statistics. Nothing here is async and nothing knows libtorch.

pub mod attention;
pub mod decide;
pub mod fit;
pub mod gradient;
pub mod head;
pub mod joint;
pub mod logging;
pub mod memory;
pub mod metric;
pub mod model;
pub mod pixels;
pub mod plan;
pub mod scores;
pub mod sharing;
pub mod shift;
pub mod space;
pub mod spec;
pub mod stats;
pub mod task;
pub mod units;

/// Version of the engine's numerics. It is a part of an experiment's identity: raise it whenever a
/// change may alter a score by even one bit, so that old results are never mixed with new ones.
pub const ENGINE_VERSION: u32 = 5;

/// Version of the wire protocol between worker and coordinator.
pub const PROTOCOL_VERSION: u32 = 5;
/// The oldest version that is still spoken with the other end, so that coordinators and workers can be upgraded one after another.
pub const OLDEST_PROTOCOL: u32 = 2;
