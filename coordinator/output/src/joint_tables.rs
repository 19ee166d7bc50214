//! The tables `groups` and `triples`: what removing sets of units together did.

use crate::analyse::{Analysis, Group};
use crate::joint::{GroupRow, TripleRow};
use crate::results::Results;
use crate::tables::{Columns, batch, common, floats, ints, place, unit_names};
use ablate_common::plan::SweepKind;
use ablate_common::stats::Estimate;
use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use std::sync::Arc;

/// Whether the plan follows pairs up with so many groups or triples of a task.
fn asked(results: &Results, of: fn(u32, u32) -> u32) -> bool {
    let follows = |kind: &SweepKind| match *kind {
        SweepKind::Joint { groups, triples, .. } => of(groups, triples) > 0,
        _ => false,
    };
    results.plan.sweeps.iter().any(|s| follows(&s.kind))
}

/// `groups`: redundancy groups with their joint delta; no table where nothing asks for them.
pub fn groups(results: &Results, analysis: &Analysis) -> anyhow::Result<Vec<RecordBatch>> {
    if !asked(results, |groups, _| groups) {
        return Ok(Vec::new());
    }
    let one = |g: &Group| {
        let rows = &g.groups;
        let f = |f: fn(&GroupRow) -> f64| floats(rows.iter().map(f));
        let mut c = common(g, rows.len());
        c.push(("group", ints(0..rows.len() as u32), false));
        c.push(("size", ints(rows.iter().map(|r| r.units.len() as u32)), false));
        c.push(("units", names(g, rows), false));
        estimate(&mut c, ["delta", "se", "ci_low", "ci_high", "p_value"], rows, |r| r.delta);
        c.push(("q_value", f(|r| r.q), false));
        c.push(("sum_alone", f(|r| r.sum_alone), false));
        c.push(("sum_pairs", f(|r| r.sum_pairs), false));
        let joint = ["interaction", "interaction_se", "interaction_low", "interaction_high", "interaction_p"];
        estimate(&mut c, joint, rows, |r| r.interaction);
        c.push(("interaction_q", f(|r| r.interaction_q), false));
        c.push(("n", ints(rows.iter().map(|_| g.examples as u32)), false));
        batch(c)
    };
    analysis.groups.iter().map(one).collect()
}

/// `triples`: interactions of the third order; no table where nothing asks for them.
pub fn triples(results: &Results, analysis: &Analysis) -> anyhow::Result<Vec<RecordBatch>> {
    if !asked(results, |_, triples| triples) {
        return Ok(Vec::new());
    }
    let one = |g: &Group| {
        let rows = &g.triples;
        let mut c = common(g, rows.len());
        let sides = [
            (["a_stream", "a_layer", "a_head"], "a_name"),
            (["b_stream", "b_layer", "b_head"], "b_name"),
            (["c_stream", "c_layer", "c_head"], "c_name"),
        ];
        for (k, (columns, name)) in sides.into_iter().enumerate() {
            let units: Vec<_> = rows.iter().map(|r| Some(r.units[k])).collect();
            c.extend(place(columns, g, &units));
            c.push((name, unit_names(g, &units), true));
        }
        c.push(("delta", floats(rows.iter().map(|r| r.delta)), false));
        estimate(&mut c, ["interaction", "se", "ci_low", "ci_high", "p_value"], rows, |r: &TripleRow| {
            r.interaction
        });
        c.push(("q_value", floats(rows.iter().map(|r| r.q)), false));
        c.push(("n", ints(rows.iter().map(|_| g.examples as u32)), false));
        batch(c)
    };
    analysis.groups.iter().map(one).collect()
}

/// An estimate's value, error, interval and p under these names.
fn estimate<R>(c: &mut Columns, names: [&'static str; 5], rows: &[R], of: fn(&R) -> Estimate) {
    let parts: [fn(Estimate) -> f64; 5] = [|e| e.value, |e| e.se, |e| e.low, |e| e.high, |e| e.p];
    for (name, part) in names.into_iter().zip(parts) {
        c.push((name, floats(rows.iter().map(|r| part(of(r)))), false));
    }
}

/// The names of each group's units, a list a row.
fn names(g: &Group, rows: &[GroupRow]) -> ArrayRef {
    let mut list = ListBuilder::new(StringBuilder::new());
    for row in rows {
        for &unit in &row.units {
            list.values().append_value(g.name_of(unit));
        }
        list.append(true);
    }
    Arc::new(list.finish())
}
