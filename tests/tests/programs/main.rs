//! The built programs as people use them: real processes, real sockets, real databases. One program, because tests
//! of one program run side by side, while programs wait for each other; `cargo test --test programs failover::`
//! chooses a module.

mod cluster;
mod compare;
mod dashboard;
mod dashboard_live;
mod drain;
mod failover;
mod readme;
mod refusals;
mod report;
mod run;
mod secure;
mod watch;
