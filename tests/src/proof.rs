//! What was compared with a reference, as rows for target/proof/parity.json. Tests say what they compared; where
//! `ABLATE_PROOF` names a folder, as in `make parity`, each row is appended to parity.jsonl there, by whichever process.
//! `examples/parity.rs` makes a table of them.

use serde_json::json;
use std::io::Write;
use std::path::PathBuf;

/// Name of the file that rows are appended to.
pub const ROWS: &str = "parity.jsonl";

/// Largest deviations from a reference.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Worst {
    /// How many things were compared: subsets, positions, heads; what they are is said by the name of the check.
    pub cases: usize,
    /// Largest |got − wanted|.
    pub abs: f64,
    /// Largest |got − wanted| relative to its scale.
    pub rel: f64,
}

/// The larger one; not a number, where either isn't.
fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

impl Worst {
    /// Sees one number whose deviation counts relative to max(1, |wanted|). It is no case of its own.
    pub fn see(&mut self, got: f64, wanted: f64) {
        self.see_off(got - wanted, wanted.abs().max(1.0));
    }

    /// Sees a deviation that counts relative to `scale`.
    pub fn see_off(&mut self, off: f64, scale: f64) {
        self.abs = larger(self.abs, off.abs());
        self.rel = larger(self.rel, off.abs() / scale);
    }

    /// Sees as many numbers as there are in both, relative to max(1, |wanted|): one case.
    ///
    /// # Panics
    /// Where one has more numbers than the other.
    pub fn see_all(&mut self, got: &[f64], wanted: &[f64]) {
        assert_eq!(got.len(), wanted.len(), "as many numbers as are wanted");
        self.cases += 1;
        got.iter().zip(wanted).for_each(|(g, w)| self.see(*g, *w));
    }

    /// This and another.
    pub fn join(&mut self, other: Self) {
        self.cases += other.cases;
        self.abs = larger(self.abs, other.abs);
        self.rel = larger(self.rel, other.rel);
    }

    /// This, of so many cases.
    #[must_use]
    pub fn of(self, cases: usize) -> Self {
        Self { cases, ..self }
    }

    /// Whether nothing is further off than `limit`, relative to its scale. What isn't a number isn't.
    #[must_use]
    pub fn within(&self, limit: f64) -> bool {
        self.rel <= limit
    }
}

/// Records that a model was compared with a reference, and says whether it is within the relative `limit`.
///
/// # Panics
/// Where the folder can't be written.
#[must_use]
pub fn proved(model: &str, check: &str, worst: Worst, limit: f64) -> bool {
    let ok = worst.within(limit);
    if let Some(folder) = std::env::var_os("ABLATE_PROOF").map(PathBuf::from) {
        let row = json!({"model": model, "check": check, "cases": worst.cases, "max_abs_diff": worst.abs,
            "max_rel_diff": worst.rel, "limit": limit, "ok": ok});
        let write = || {
            std::fs::create_dir_all(&folder)?;
            let mut file = std::fs::OpenOptions::new().append(true).create(true).open(folder.join(ROWS))?;
            // One write a row: processes append side by side.
            file.write_all(format!("{row}\n").as_bytes())
        };
        write().unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    }
    ok
}
