//! The real programs under real faults: processes are killed and stopped, hosts cut off and slowed, the store's disk filled,
//! while a sweep of a real model runs. Its tables must come out as if nothing had been.

pub mod cluster;
pub mod faults;
pub mod net;
pub mod rounds;
