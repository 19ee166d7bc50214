//! What is told of a group.

use super::matrix::{Bins, CellView};
use serde::Serialize;

/// Name, stream, layer and head of a unit; null where it has none.
pub type UnitPlace = (String, Option<&'static str>, Option<u32>, Option<u32>);

/// What a group is about.
#[derive(Clone, Debug, Serialize)]
pub struct GroupView {
    /// Task.
    pub task: String,
    /// Metric.
    pub metric: &'static str,
    /// Whether a lower value is better.
    pub lower_is_better: bool,
    /// Ablation's method.
    pub method: &'static str,
    /// What is removed as a whole, and several of it.
    pub unit: (&'static str, &'static str),
    /// Units: (name, stream, layer, head), nulls where they have none.
    pub units: Vec<UnitPlace>,
    /// Whether sweeps of single units, of pairs, and along orders belong to it.
    pub has: (bool, bool, bool),
    /// Why its 95 % intervals may be too narrow.
    pub warnings: Vec<String>,
}

/// Units alone.
#[derive(Clone, Debug, Serialize)]
pub struct HeadsView {
    /// Version; the next look may ask for what changed since.
    pub version: u64,
    /// Whether this is all there is, and what was known before is void.
    pub whole: bool,
    /// The metric with nothing removed, and with everything removed; null where it isn't known.
    pub baseline: f64,
    /// See `baseline`.
    pub floor: f64,
    /// Units that are known.
    pub known: usize,
    /// (unit, value, Δ, SE, ends of the 95 % interval) of those that changed.
    pub rows: Vec<(u32, f64, f64, f64, f64, f64)>,
    /// Units with q ≤ 0.05 among those known so far.
    pub resolved: Vec<u32>,
}

/// Pairs.
#[derive(Clone, Debug, Serialize)]
pub struct PairsView {
    /// Version; the next look may ask for what changed since.
    pub version: u64,
    /// Whether this is all there is, and what was known before is void.
    pub whole: bool,
    /// Pairs that are known, planned, and left out as a unit alone has no scores.
    pub known: u64,
    /// See `known`.
    pub planned: u64,
    /// See `known`.
    pub skipped: u64,
    /// How units fall into rows and columns.
    pub bins: Bins,
    /// Cells that changed.
    pub cells: Vec<CellView>,
    /// Strongest pairs above 0: (unit, unit, interaction, SE).
    pub redundant: Vec<(u32, u32, f64, f64)>,
    /// Strongest pairs below 0.
    pub overlapping: Vec<(u32, u32, f64, f64)>,
}

/// Rounded to what a picture shows: five digits.
#[must_use]
pub fn short(v: f64) -> f64 {
    if v == 0.0 || !v.is_finite() {
        return v;
    }
    let scale = 10f64.powi(4 - v.abs().log10().floor() as i32);
    if scale.is_finite() && scale > 0.0 { (v * scale).round() / scale } else { v }
}
