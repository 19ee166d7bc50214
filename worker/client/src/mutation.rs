//! Known bugs, put back one at a time, so that the simulation can show that it finds them. Compiled with the
//! feature `mutations` only.

use std::cell::Cell;

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Work goes on after the lease has run out.
    PastLease,
    /// Results that no one acknowledged are dropped when the stream breaks.
    DropsUnacked,
    /// Work goes on however many results wait.
    NoLimit,
}

thread_local! {
    static NOW: Cell<Option<Mutation>> = const { Cell::new(None) };
}

/// Puts a bug back, or none, on this thread.
pub fn set(mutation: Option<Mutation>) {
    NOW.set(mutation);
}

/// Whether this bug is there.
#[must_use]
pub fn is(mutation: Mutation) -> bool {
    NOW.get() == Some(mutation)
}
