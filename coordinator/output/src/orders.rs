//! `orders`: each order of removal in a few numbers, and the random ones of each kind together.

use crate::analyse::{Analysis, Group};
use crate::curve::Curve;
use crate::facts;
use crate::tables::{Columns, batch, common, texts};
use ablate_common::stats::bootstrap::quantile;
use arrow_array::{ArrayRef, Float64Array, RecordBatch, UInt32Array};
use std::sync::Arc;

/// One order of removal in a few numbers.
#[derive(Clone, Debug)]
pub struct OrderRow {
    /// As in [`Curve::order`]; "random" is the random orders together, and "matched" those that are matched per layer: medians, and in
    /// place of intervals the 2.5 % and 97.5 % quantiles over them.
    pub order: String,
    /// Task that the greedy sweep minimised.
    pub objective: String,
    /// Index of the greedy sweep it belongs to.
    pub greedy: Option<u32>,
    /// The half it is reported on.
    pub half: Option<u8>,
    /// κ of the last point.
    pub fraction: f64,
    /// How many orders that is.
    pub orders: u32,
    /// r once 79 % of the heads are gone.
    pub r_079: Option<f64>,
    /// Lower end of its 95 % interval.
    pub r_079_low: Option<f64>,
    /// Upper end.
    pub r_079_high: Option<f64>,
    /// Largest κ up to which r ≥ 0.99.
    pub largest_99: Option<f64>,
    /// The same for 0.95.
    pub largest_95: Option<f64>,
    /// The same for 0.90.
    pub largest_90: Option<f64>,
    /// Area under r by the κ of the last point.
    pub area: Option<f64>,
    /// Lower end of its 95 % interval.
    pub area_low: Option<f64>,
    /// Upper end.
    pub area_high: Option<f64>,
    /// CPR of MIB, where all heads go.
    pub cpr: Option<f64>,
    /// CMD of MIB, where all heads go.
    pub cmd: Option<f64>,
}

/// Every order of a group, and behind the random ones of each kind those together, sweep by sweep.
#[must_use]
pub fn orders(g: &Group) -> Vec<OrderRow> {
    let mut out = Vec::new();
    for family in facts::families(g) {
        out.extend(family.named.iter().map(|c| one(c)));
        for (kind, orders) in family.shuffles() {
            let rows: Vec<OrderRow> = orders.iter().map(|c| one(c)).collect();
            let all = together(kind.name(), &rows);
            out.extend(rows);
            out.extend(all);
        }
    }
    out
}

fn one(c: &Curve) -> OrderRow {
    let at = c.at(0.79);
    OrderRow {
        order: c.order.clone(),
        objective: c.objective.clone(),
        greedy: c.greedy,
        half: c.half,
        fraction: c.fraction(c.last),
        orders: 1,
        r_079: at.and_then(|p| p.retained),
        r_079_low: at.and_then(|p| p.retained_low),
        r_079_high: at.and_then(|p| p.retained_high),
        largest_99: c.largest(0.99),
        largest_95: c.largest(0.95),
        largest_90: c.largest(0.90),
        area: c.area(|r| r),
        area_low: c.area_ci.map(|a| a.0),
        area_high: c.area_ci.map(|a| a.1),
        cpr: c.cpr(),
        cmd: c.cmd(),
    }
}

/// The random orders of a kind as one row; none where there are none.
fn together(kind: &str, rows: &[OrderRow]) -> Option<OrderRow> {
    let first = rows.first()?;
    let at = |q: f64, f: fn(&OrderRow) -> Option<f64>| -> Option<f64> {
        let mut v: Vec<f64> = rows.iter().filter_map(f).collect();
        v.sort_by(f64::total_cmp);
        (!v.is_empty()).then(|| quantile(&v, q))
    };
    Some(OrderRow {
        order: kind.to_owned(),
        orders: rows.len() as u32,
        r_079: at(0.5, |r| r.r_079),
        r_079_low: at(0.025, |r| r.r_079),
        r_079_high: at(0.975, |r| r.r_079),
        largest_99: at(0.5, |r| r.largest_99),
        largest_95: at(0.5, |r| r.largest_95),
        largest_90: at(0.5, |r| r.largest_90),
        area: at(0.5, |r| r.area),
        area_low: at(0.025, |r| r.area),
        area_high: at(0.975, |r| r.area),
        cpr: at(0.5, |r| r.cpr),
        cmd: at(0.5, |r| r.cmd),
        ..first.clone()
    })
}

/// The table, a batch per group.
pub fn table(analysis: &Analysis) -> anyhow::Result<Vec<RecordBatch>> {
    analysis.groups.iter().map(|g| batch(columns(g, &orders(g)))).collect()
}

fn columns(g: &Group, rows: &[OrderRow]) -> Columns {
    let f = |f: fn(&OrderRow) -> Option<f64>| -> ArrayRef {
        Arc::new(rows.iter().map(f).collect::<Float64Array>())
    };
    let ints = |f: fn(&OrderRow) -> Option<u32>| -> ArrayRef {
        Arc::new(rows.iter().map(f).collect::<UInt32Array>())
    };
    let mut c = common(g, rows.len());
    c.push(("order", texts(rows.iter().map(|r| r.order.as_str())), false));
    c.push(("objective", texts(rows.iter().map(|r| r.objective.as_str())), false));
    c.push(("greedy_sweep", ints(|r| r.greedy), true));
    c.push(("half", ints(|r| r.half.map(u32::from)), true));
    c.push(("fraction", f(|r| Some(r.fraction)), false));
    c.push(("orders", ints(|r| Some(r.orders)), false));
    c.push(("r_079", f(|r| r.r_079), true));
    c.push(("r_079_low", f(|r| r.r_079_low), true));
    c.push(("r_079_high", f(|r| r.r_079_high), true));
    c.push(("largest_99", f(|r| r.largest_99), true));
    c.push(("largest_95", f(|r| r.largest_95), true));
    c.push(("largest_90", f(|r| r.largest_90), true));
    c.push(("area", f(|r| r.area), true));
    c.push(("area_low", f(|r| r.area_low), true));
    c.push(("area_high", f(|r| r.area_high), true));
    c.push(("cpr", f(|r| r.cpr), true));
    c.push(("cmd", f(|r| r.cmd), true));
    c
}
