//! The worker: runs tries of head subsets through libtorch.

pub mod cuda_runtime;
pub mod device;
pub mod engine;
pub mod load;
pub mod memory;

pub use ablate_worker_client as client;
pub use ablate_worker_client::lane;
