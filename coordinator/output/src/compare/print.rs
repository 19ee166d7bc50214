//! A comparison as a table, and as text for a terminal.

use super::{ComparedRuns, ComparedUnit, Comparison};
use crate::tables::{batch, floats, ints, texts};
use crate::write::{self, Format};
use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt32Array};
use std::path::Path;
use std::sync::Arc;

impl Comparison {
    /// The units as a table.
    fn table(&self) -> anyhow::Result<RecordBatch> {
        let rows = &self.units;
        let f = |f: fn(&ComparedUnit) -> f64| floats(rows.iter().map(f));
        let optional = |f: fn(&ComparedUnit) -> Option<u32>| -> ArrayRef {
            Arc::new(rows.iter().map(f).collect::<UInt32Array>())
        };
        let streams: StringArray = rows.iter().map(|r| r.stream.as_deref()).collect();
        let i2: Float64Array = rows.iter().map(|r| (!r.i2.is_nan()).then_some(r.i2)).collect();
        batch(vec![
            ("task", texts(rows.iter().map(|r| r.task.as_str())), false),
            ("method", texts(rows.iter().map(|r| r.method.as_str())), false),
            ("unit", texts(rows.iter().map(|r| r.unit.as_str())), false),
            ("stream", Arc::new(streams), true),
            ("layer", optional(|r| r.layer), true),
            ("head", optional(|r| r.head), true),
            ("name", texts(rows.iter().map(|r| r.name.as_str())), false),
            ("runs", ints(rows.iter().map(|r| r.runs)), false),
            ("mean_rank", f(|r| r.mean_rank), false),
            ("best_rank", f(|r| r.best_rank), false),
            ("worst_rank", f(|r| r.worst_rank), false),
            ("sign_agreement", f(|r| r.sign_agreement), false),
            ("in_top", ints(rows.iter().map(|r| r.in_top)), false),
            ("pooled", f(|r| r.pooled), false),
            ("pooled_se", f(|r| r.pooled_se), false),
            ("pooled_low", f(|r| r.pooled_low), false),
            ("pooled_high", f(|r| r.pooled_high), false),
            ("i2", Arc::new(i2), true),
        ])
    }

    /// Writes the units to a file.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn write(&self, path: &Path, format: Format) -> anyhow::Result<()> {
        write::one(path, format, &self.table()?)
    }

    /// As text for a terminal: how the runs agree, and the `top` units by mean rank.
    #[must_use]
    pub fn text(&self, top: usize) -> String {
        let mut out = String::new();
        // Writing to a String can't fail.
        let _ = self.lines(&mut out, top);
        out
    }

    fn lines(&self, out: &mut String, top: usize) -> std::fmt::Result {
        use crate::text::{short, signed};
        use std::fmt::Write as _;
        for (k, run) in self.runs.iter().enumerate() {
            writeln!(out, "run {}: {run}", k + 1)?;
        }
        let number = |name: &str| self.runs.iter().position(|r| r == name).map_or(0, |k| k + 1);
        for units in
            self.units.chunk_by(|a, b| (&a.task, &a.method, &a.unit) == (&b.task, &b.method, &b.unit))
        {
            let Some(first) = units.first() else { continue };
            writeln!(out, "\n{} ({} ablation, {} {}s)", first.task, first.method, units.len(), first.unit)?;
            writeln!(
                out,
                "  runs    scope          Spearman               Kendall                first tenth alike"
            )?;
            let same = |a: &&ComparedRuns| {
                (&a.task, &a.method, &a.unit) == (&first.task, &first.method, &first.unit)
            };
            for a in self.agreement.iter().filter(same) {
                let value = |v: f64, ci: (f64, f64)| format!("{v:.3} [{:.3}, {:.3}]", ci.0, ci.1);
                writeln!(
                    out,
                    "  {:<7} {:<14} {:<22} {:<22} {}",
                    format!("{}, {}", number(&a.run_a), number(&a.run_b)),
                    a.scope,
                    value(a.spearman, a.spearman_ci),
                    value(a.kendall, a.kendall_ci),
                    value(a.jaccard, a.jaccard_ci)
                )?;
            }
            writeln!(
                out,
                "  {:<16} mean rank   ranks        sign   pooled Δ     95 % interval            I²",
                first.unit
            )?;
            for u in units.iter().take(top) {
                writeln!(
                    out,
                    "  {:<16} {:>9.1}   {:<11}  {:>3.0} %  {:>9}    {:<23}  {}",
                    u.name,
                    u.mean_rank,
                    format!("{} to {}", short(u.best_rank), short(u.worst_rank)),
                    100.0 * u.sign_agreement,
                    signed(u.pooled),
                    format!("[{}, {}]", signed(u.pooled_low), signed(u.pooled_high)),
                    if u.i2.is_nan() { "n/a".to_owned() } else { format!("{:.0} %", 100.0 * u.i2) }
                )?;
            }
            let runs = self.runs.len() as u32;
            let stable = units.iter().filter(|u| u.in_top == runs).count();
            let ever = units.iter().filter(|u| u.in_top > 0).count();
            writeln!(
                out,
                "  {stable} of {ever} that are ever in the first tenth are there in all {runs} runs"
            )?;
        }
        Ok(())
    }
}
