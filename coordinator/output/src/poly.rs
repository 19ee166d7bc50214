//! `polysemanticity`: on how many tasks a unit matters.
//!
//! The participation ratio (Σ a)² / Σ a² of a_t = |Δ_t| / SE_t over tasks is 1 where one task has it all, and the number of tasks where
//! all have the same. A unit that does nothing has noise in every task, alike in all: its ratio is high too, so the number of tasks on
//! which its delta is resolved stands beside it.

use crate::analyse::{Group, RESOLVED};
use crate::tables::{batch, floats, ints, texts};
use ablate_common::head::Stream;
use ablate_common::units::{Place, UnitIx, UnitKind};
use arrow_array::builder::{Float64Builder, ListBuilder, StringBuilder};
use arrow_array::{ArrayRef, RecordBatch, StringArray, UInt32Array};
use std::sync::Arc;

/// One unit over the tasks of an ablation.
#[derive(Clone, Debug)]
pub struct PolyRow {
    /// The ablation.
    pub method: &'static str,
    /// What it removes as a whole.
    pub unit: UnitKind,
    /// The unit's place in [`crate::Group::places`] of the ablation's groups.
    pub ix: UnitIx,
    /// Where it stands.
    pub place: Place,
    /// Participation ratio: 1 to the number of tasks; none where every delta is 0.
    pub participation: Option<f64>,
    /// Tasks on which its delta is resolved (q ≤ 0.05).
    pub resolved: u32,
    /// Names of the tasks.
    pub tasks: Vec<String>,
    /// Δ on each.
    pub deltas: Vec<f64>,
    /// Its standard error on each.
    pub ses: Vec<f64>,
    /// The task with the largest |Δ| / SE.
    pub strongest: String,
}

/// Every unit that two tasks or more have a delta of, by ablation.
pub fn rows(groups: &[Group]) -> Vec<PolyRow> {
    let mut out = Vec::new();
    for of_ablation in groups.chunk_by(|a, b| a.ablation == b.ablation) {
        let Some(first) = of_ablation.first() else { continue };
        for (ix, place) in (0u32..).map(UnitIx).zip(&first.places) {
            let known: Vec<_> = of_ablation
                .iter()
                .filter_map(|g| {
                    let row = g.heads.binary_search_by_key(&ix, |h| h.ix).ok().and_then(|at| g.heads.get(at));
                    row.filter(|h| !h.delta.se.is_nan()).map(|h| (g, h))
                })
                .collect();
            if known.len() < 2 {
                continue;
            }
            let strength: Vec<f64> = known.iter().map(|(_, h)| strength(h.delta.value, h.delta.se)).collect();
            let strongest =
                (0..known.len()).max_by(|&a, &b| strength[a].total_cmp(&strength[b]).then(b.cmp(&a)));
            out.push(PolyRow {
                method: first.method,
                unit: first.unit,
                ix,
                place: place.clone(),
                participation: participation(&strength),
                resolved: known.iter().filter(|(_, h)| h.q <= RESOLVED).count() as u32,
                tasks: known.iter().map(|(g, _)| g.name.clone()).collect(),
                deltas: known.iter().map(|(_, h)| h.delta.value).collect(),
                ses: known.iter().map(|(_, h)| h.delta.se).collect(),
                strongest: strongest.map_or_else(String::new, |at| known[at].0.name.clone()),
            });
        }
    }
    out
}

/// |Δ| / SE; 0/0 is 0.
fn strength(delta: f64, se: f64) -> f64 {
    if delta == 0.0 { 0.0 } else { delta.abs() / se }
}

/// (Σ a)² / Σ a²; `None` where all are 0. Where one is without error it has all the weight, and several share it.
fn participation(a: &[f64]) -> Option<f64> {
    let sure = a.iter().filter(|v| v.is_infinite()).count();
    if sure > 0 {
        return Some(sure as f64);
    }
    let (sum, squares) = (a.iter().sum::<f64>(), a.iter().map(|v| v * v).sum::<f64>());
    (squares > 0.0).then(|| sum * sum / squares)
}

/// The table; no table where no unit has two tasks.
pub fn table(rows: &[PolyRow]) -> anyhow::Result<Vec<RecordBatch>> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let optional = |f: fn(&Place) -> Option<u32>| -> ArrayRef {
        Arc::new(rows.iter().map(|r| f(&r.place)).collect::<UInt32Array>())
    };
    let streams: StringArray = rows.iter().map(|r| r.place.stream.map(Stream::name)).collect();
    let participation: arrow_array::Float64Array = rows.iter().map(|r| r.participation).collect();
    let mut tasks = ListBuilder::new(StringBuilder::new());
    for r in rows {
        r.tasks.iter().for_each(|t| tasks.values().append_value(t));
        tasks.append(true);
    }
    let lists = |f: fn(&PolyRow) -> &[f64]| -> ArrayRef {
        let mut list = ListBuilder::new(Float64Builder::new());
        for r in rows {
            list.values().append_slice(f(r));
            list.append(true);
        }
        Arc::new(list.finish())
    };
    Ok(vec![batch(vec![
        ("method", texts(rows.iter().map(|r| r.method)), false),
        ("unit", texts(rows.iter().map(|r| r.unit.name())), false),
        ("stream", Arc::new(streams), true),
        ("layer", optional(|p| p.layer), true),
        ("head", optional(|p| p.head), true),
        ("name", texts(rows.iter().map(|r| r.place.name.as_str())), false),
        ("participation", Arc::new(participation), true),
        ("resolved", ints(rows.iter().map(|r| r.resolved)), false),
        ("tasks", Arc::new(tasks.finish()), false),
        ("deltas", lists(|r| &r.deltas), false),
        ("ses", lists(|r| &r.ses), false),
        ("strongest", texts(rows.iter().map(|r| r.strongest.as_str())), false),
        ("strongest_share", floats(rows.iter().map(share)), false),
    ])?])
}

/// The strongest task's share of Σ |Δ| / SE; NaN where all are 0 or one is without error.
fn share(r: &PolyRow) -> f64 {
    let a: Vec<f64> = r.deltas.iter().zip(&r.ses).map(|(&d, &s)| strength(d, s)).collect();
    a.iter().copied().fold(0.0, f64::max) / a.iter().sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn participation_counts_the_tasks_that_share_the_weight() {
        assert_eq!(participation(&[3.0, 0.0, 0.0]), Some(1.0));
        assert_eq!(participation(&[2.0, 2.0, 2.0, 2.0]), Some(4.0));
        assert_eq!(participation(&[3.0, 1.0]), Some(1.6));
        assert_eq!(participation(&[0.0, 0.0]), None);
        assert_eq!(participation(&[strength(1.0, 0.0), 4.0]), Some(1.0));
        assert_eq!(strength(0.0, 0.0), 0.0);
    }
}
