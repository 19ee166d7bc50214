//! The worker: runs tries of head subsets through libtorch.

pub mod client;
pub mod cuda_runtime;
pub mod device;
pub mod engine;
pub mod lane;
pub mod load;
pub mod memory;
