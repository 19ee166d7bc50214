//! How a program reaches a coordinator, and what both ends need for it: URLs, certificates in PEM files, the token that
//! goes with each call, and why a connection failed in words.

mod access;
mod args;
pub mod pem;
mod trouble;

pub use access::{Access, Bearer, Line};
pub use args::{AccessArgs, Secret};
pub use trouble::Trouble;
