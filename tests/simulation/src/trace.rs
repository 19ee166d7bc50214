//! What happened in a run: a hash of everything, the lines for whoever reads it, and what was found wrong.

use crate::checks::Checks;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, whatever a panic left behind: a panic is a finding of its own.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What everything in a run shares.
#[derive(Debug, Default)]
pub struct Sim {
    now: AtomicU64,
    record: Mutex<Record>,
    /// The invariants' state.
    pub checks: Mutex<Checks>,
}

/// See the module.
#[derive(Debug)]
pub struct Record {
    hash: blake3::Hasher,
    line: String,
    keep: bool,
    lines: Vec<String>,
    violations: Vec<String>,
    faults: BTreeMap<&'static str, u64>,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            hash: blake3::Hasher::new(),
            line: String::new(),
            keep: false,
            lines: Vec::new(),
            violations: Vec::new(),
            faults: BTreeMap::new(),
        }
    }
}

impl Sim {
    /// A run; `keep`: with readable lines.
    #[must_use]
    pub fn new(keep: bool) -> Self {
        let sim = Self::default();
        lock(&sim.record).keep = keep;
        sim
    }

    /// Simulated milliseconds since the beginning.
    pub fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// Sets the time.
    pub fn set_now(&self, now: u64) {
        self.now.store(now, Ordering::Relaxed);
    }

    /// Adds a line.
    pub fn say(&self, what: std::fmt::Arguments<'_>) {
        let mut r = lock(&self.record);
        let mut line = std::mem::take(&mut r.line);
        line.clear();
        // Writing to a string can't fail.
        let _ = write!(line, "{:>7} {what}", self.now());
        r.hash.update(line.as_bytes());
        if r.keep {
            r.lines.push(line.clone());
        }
        r.line = line;
    }

    /// Counts a fault.
    pub fn fault(&self, kind: &'static str) {
        *lock(&self.record).faults.entry(kind).or_default() += 1;
    }

    /// An invariant doesn't hold.
    pub fn violated(&self, invariant: &str, what: std::fmt::Arguments<'_>) {
        self.say(format_args!("VIOLATED {invariant}: {what}"));
        lock(&self.record).violations.push(format!("at {} ms, {invariant}: {what}", self.now()));
    }

    /// Whether anything was found wrong.
    pub fn failed(&self) -> bool {
        !lock(&self.record).violations.is_empty()
    }

    /// (violations, faults by kind, hash of the trace, lines).
    pub fn end(&self) -> (Vec<String>, BTreeMap<&'static str, u64>, String, Vec<String>) {
        let r = lock(&self.record);
        (r.violations.clone(), r.faults.clone(), r.hash.finalize().to_hex()[..16].to_owned(), r.lines.clone())
    }
}
