//! Numbers against references that Ablate's authors didn't write, and against planted truth. One program, because
//! tests of one program run side by side, while programs wait for each other; `cargo test --test numbers parity::`
//! chooses a module.

mod architectures;
mod gradients;
mod images;
mod kinds;
mod language;
mod observed;
mod optimal;
mod parity;
mod plans;
mod planted;
mod probe;
mod reactions;
mod real_gradients;
mod real_observed;
mod seq2seq;
mod sharing;
mod statistics;
mod tasks;
mod units;
