//! What `make load` must show of a coordinator.

use serde_json::Value;
use std::fmt;

/// How a figure must stand to a number.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// No smaller.
    AtLeast(f64),
    /// Smaller.
    Below(f64),
}

/// A figure and its bound.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The figure's name in the row.
    pub figure: &'static str,
    /// Its bound.
    pub bound: Bound,
}

/// For the load that `make load` has when it isn't told otherwise.
pub const TARGETS: [Target; 6] = [
    Target { figure: "chunks_per_s", bound: Bound::AtLeast(5000.0) },
    Target { figure: "lease_p99_ms", bound: Bound::Below(20.0) },
    Target { figure: "rss_mb", bound: Bound::Below(300.0) },
    Target { figure: "plan_s", bound: Bound::Below(1.0) },
    Target { figure: "recover_s", bound: Bound::Below(2.0) },
    Target { figure: "lone_cpu_us_per_chunk", bound: Bound::Below(100.0) },
];

impl Target {
    /// Whether a row keeps it. What isn't there, or is no number, doesn't.
    #[must_use]
    pub fn met(&self, row: &Value) -> bool {
        row[self.figure].as_f64().is_some_and(|got| match self.bound {
            Bound::AtLeast(least) => got >= least,
            Bound::Below(limit) => got < limit,
        })
    }

    /// What it is, and what became of it.
    #[must_use]
    pub fn told(&self, row: &Value) -> String {
        let word = if self.met(row) { "met" } else { "missed" };
        let got = row[self.figure].as_f64().map_or("none".to_owned(), |got| format!("{got:.3}"));
        format!("{word:<8} {:<24} {got:>14}   {}", self.figure, self.bound)
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, "at least {least}"),
            Self::Below(limit) => write!(f, "below {limit}"),
        }
    }
}
