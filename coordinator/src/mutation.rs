//! Known bugs, put back one at a time, so that the simulation can show that it finds them. Compiled with the
//! feature `mutations` only.

use std::cell::Cell;

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Results are acknowledged before their commit.
    AcknowledgesFirst,
    /// Leases are given away after the time that workers were told, without a quarter more.
    NoQuarter,
    /// Leases that workers bring to a new leader are not taken over.
    NotTakenOver,
    /// A chunk that failed is never tried again.
    NeverRetried,
    /// A round is decided with one chunk missing.
    DecidesEarly,
    /// What a vanished worker held never goes back.
    KeepsGone,
    /// A round with a chunk that is set aside never ends.
    AsideBlocks,
    /// A chunk that is set aside is leased again all the same.
    AsideLeased,
    /// A worker whose engine computes other numbers is let in.
    AnyEngine,
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
