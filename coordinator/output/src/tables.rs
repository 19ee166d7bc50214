//! The tables as Arrow batches. Rows are in the plan's order, so equal scores give equal bytes.

use crate::analyse::{Analysis, Group, PairRow};
use crate::curve::Point;
use crate::gradients::GradientRow;
use crate::results::Results;
use ablate_common::gradient;
use ablate_common::plan::{PlannedSweep, SweepKind};
use ablate_common::task::Scope;
use ablate_common::units::{Place, UnitIx, UnitKind};
use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt32Array};
use arrow_schema::{Field, Schema};
use std::collections::HashSet;
use std::sync::Arc;

/// Rows per batch.
pub(crate) const BATCH: usize = 1 << 16;

/// Columns of a batch: name, values, whether null may occur.
pub(crate) type Columns = Vec<(&'static str, ArrayRef, bool)>;

pub(crate) fn batch(columns: Columns) -> anyhow::Result<RecordBatch> {
    let fields: Vec<Field> =
        columns.iter().map(|(n, a, null)| Field::new(*n, a.data_type().clone(), *null)).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|c| c.1).collect())?)
}

pub(crate) fn texts<'a>(v: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(v))
}

pub(crate) fn floats(v: impl Iterator<Item = f64>) -> ArrayRef {
    Arc::new(Float64Array::from_iter_values(v))
}

pub(crate) fn ints(v: impl Iterator<Item = u32>) -> ArrayRef {
    Arc::new(UInt32Array::from_iter_values(v))
}

/// Task, metric, method and unit of a group's rows.
pub(crate) fn common(g: &Group, rows: usize) -> Columns {
    let same = |s: &'static str| texts(std::iter::repeat_n(s, rows));
    vec![
        ("task", texts(std::iter::repeat_n(g.name.as_str(), rows)), false),
        ("metric", same(g.metric.name()), false),
        ("method", same(g.method), false),
        ("unit", same(g.unit.name()), false),
    ]
}

/// Stream, layer and head of units, under these names: null where a unit has none (see [`Place`]).
pub(crate) fn place(names: [&'static str; 3], g: &Group, units: &[Option<UnitIx>]) -> Columns {
    let place = |u: &Option<UnitIx>| -> Option<&Place> { g.places.get((*u)?.at()) };
    let stream: StringArray = units.iter().map(|u| Some(place(u)?.stream?.name())).collect();
    let of = |f: fn(&Place) -> Option<u32>| -> ArrayRef {
        Arc::new(units.iter().map(|u| f(place(u)?)).collect::<UInt32Array>())
    };
    vec![
        (names[0], Arc::new(stream), true),
        (names[1], of(|p| p.layer), true),
        (names[2], of(|p| p.head), true),
    ]
}

/// Names of units.
pub(crate) fn unit_names(g: &Group, units: &[Option<UnitIx>]) -> ArrayRef {
    Arc::new(units.iter().map(|u| u.map(|u| g.name_of(u))).collect::<StringArray>())
}

/// `heads`: every head alone.
pub fn heads(analysis: &Analysis) -> anyhow::Result<Vec<RecordBatch>> {
    let one = |g: &Group| {
        let rows = &g.heads;
        let mut c = common(g, rows.len());
        let units: Vec<_> = rows.iter().map(|r| Some(r.ix)).collect();
        c.extend(place(["stream", "layer", "head"], g, &units));
        c.push(("baseline", floats(rows.iter().map(|_| g.baseline)), false));
        c.push(("value", floats(rows.iter().map(|r| r.value)), false));
        c.push(("delta", floats(rows.iter().map(|r| r.delta.value)), false));
        c.push(("se", floats(rows.iter().map(|r| r.delta.se)), false));
        c.push(("ci_low", floats(rows.iter().map(|r| r.delta.low)), false));
        c.push(("ci_high", floats(rows.iter().map(|r| r.delta.high)), false));
        c.push(("p_value", floats(rows.iter().map(|r| r.delta.p)), false));
        c.push(("q_value", floats(rows.iter().map(|r| r.q)), false));
        c.push(("n", ints(rows.iter().map(|_| g.examples as u32)), false));
        c.push(("clusters", ints(rows.iter().map(|_| g.clusters as u32)), false));
        c.push(("name", unit_names(g, &units), true));
        let sizes = rows.iter().map(|r| g.sizes.get(r.ix.at()).copied().unwrap_or(0));
        c.push(("unit_heads", ints(sizes), false));
        batch(c)
    };
    analysis.groups.iter().map(one).collect()
}

/// `gradients`: every unit's scores by gradient; no table where no sweep asks for them.
pub fn gradients(results: &Results, analysis: &Analysis) -> anyhow::Result<Vec<RecordBatch>> {
    let asked = |s: &PlannedSweep| s.kind == SweepKind::Gradient { greedy: None };
    if !results.plan.sweeps.iter().any(asked) {
        return Ok(Vec::new());
    }
    let one = |g: &Group| {
        let rows = &g.gradients;
        let f = |f: fn(&GradientRow) -> f64| floats(rows.iter().map(f));
        let mut c = common(g, rows.len());
        let units: Vec<_> = rows.iter().map(|r| Some(r.ix)).collect();
        c.extend(place(["stream", "layer", "head"], g, &units));
        let loss = results.plan.tasks.get(g.task as usize).map_or("", |t| gradient::loss(t.kind));
        c.push(("loss", texts(rows.iter().map(|_| loss)), false));
        c.push(("importance", f(|r| r.importance), false));
        let normalised: Float64Array = rows.iter().map(|r| r.normalised).collect();
        c.push(("importance_normalised", Arc::new(normalised), true));
        c.push(("attribution", f(|r| r.attribution.value), false));
        c.push(("se", f(|r| r.attribution.se), false));
        c.push(("ci_low", f(|r| r.attribution.low), false));
        c.push(("ci_high", f(|r| r.attribution.high), false));
        c.push(("n", ints(rows.iter().map(|r| r.n)), false));
        c.push(("clusters", ints(rows.iter().map(|r| r.clusters)), false));
        c.push(("name", unit_names(g, &units), true));
        let sizes = rows.iter().map(|r| g.sizes.get(r.ix.at()).copied().unwrap_or(0));
        c.push(("unit_heads", ints(sizes), false));
        batch(c)
    };
    analysis.groups.iter().map(one).collect()
}

/// `pairs`: every pair, in batches made one after another; an empty one where there is none.
pub fn pairs(analysis: &Analysis) -> impl Iterator<Item = anyhow::Result<RecordBatch>> {
    let chunks = analysis.groups.iter().flat_map(|g| g.pairs.chunks(BATCH).map(move |rows| (g, rows)));
    let none = analysis.groups.iter().all(|g| g.pairs.is_empty()).then(empty_pairs);
    chunks.map(|(g, rows)| pairs_of(g, rows)).chain(none)
}

fn pairs_of(g: &Group, rows: &[PairRow]) -> anyhow::Result<RecordBatch> {
    batch(pair_columns(g, rows))
}

/// The columns of pairs.
pub(crate) fn pair_columns(g: &Group, rows: &[PairRow]) -> Columns {
    let f = |f: fn(&PairRow) -> f64| floats(rows.iter().map(f));
    let mut c = common(g, rows.len());
    let a: Vec<_> = rows.iter().map(|r| Some(r.a)).collect();
    let b: Vec<_> = rows.iter().map(|r| Some(r.b)).collect();
    c.extend(place(["a_stream", "a_layer", "a_head"], g, &a));
    c.extend(place(["b_stream", "b_layer", "b_head"], g, &b));
    c.push(("delta_a", f(|r| r.delta_a), false));
    c.push(("delta_b", f(|r| r.delta_b), false));
    c.push(("delta_ab", f(|r| r.delta_ab), false));
    c.push(("interaction", f(|r| r.interaction.value), false));
    c.push(("se", f(|r| r.interaction.se), false));
    c.push(("ci_low", f(|r| r.interaction.low), false));
    c.push(("ci_high", f(|r| r.interaction.high), false));
    c.push(("p_value", f(|r| r.interaction.p), false));
    c.push(("q_value", f(|r| r.q), false));
    c.push(("relation", texts(rows.iter().map(|r| r.relation.name())), false));
    let normalised: Float64Array = rows.iter().map(PairRow::normalised).collect();
    c.push(("normalised", Arc::new(normalised), true));
    c.push(("a_name", unit_names(g, &a), true));
    c.push(("b_name", unit_names(g, &b), true));
    c
}

fn empty_pairs() -> anyhow::Result<RecordBatch> {
    let mut c: Columns = Vec::new();
    for n in ["task", "metric", "method", "unit"] {
        c.push((n, texts(std::iter::empty()), false));
    }
    for side in [["a_stream", "a_layer", "a_head"], ["b_stream", "b_layer", "b_head"]] {
        c.push((side[0], texts(std::iter::empty()), true));
        c.push((side[1], ints(std::iter::empty()), true));
        c.push((side[2], ints(std::iter::empty()), true));
    }
    for n in
        ["delta_a", "delta_b", "delta_ab", "interaction", "se", "ci_low", "ci_high", "p_value", "q_value"]
    {
        c.push((n, floats(std::iter::empty()), false));
    }
    c.push(("relation", texts(std::iter::empty()), false));
    c.push(("normalised", floats(std::iter::empty()), true));
    for n in ["a_name", "b_name"] {
        c.push((n, texts(std::iter::empty()), true));
    }
    batch(c)
}

/// `curve`: every order, from nothing removed on.
pub fn curve(analysis: &Analysis) -> anyhow::Result<Vec<RecordBatch>> {
    let one = |g: &Group| {
        let rows: Vec<_> = g.curves.iter().flat_map(|c| c.points.iter().map(move |p| (c, p))).collect();
        let mut c = common(g, rows.len());
        c.push(("order", texts(rows.iter().map(|r| r.0.order.as_str())), false));
        c.push(("objective", texts(rows.iter().map(|r| r.0.objective.as_str())), false));
        let sweep: UInt32Array = rows.iter().map(|r| r.0.greedy).collect();
        c.push(("greedy_sweep", Arc::new(sweep), true));
        c.push((
            "half",
            Arc::new(rows.iter().map(|r| r.0.half.map(u32::from)).collect::<UInt32Array>()),
            true,
        ));
        c.push(("step", ints(rows.iter().map(|r| r.1.step)), false));
        let units: Vec<_> = rows.iter().map(|r| r.1.unit).collect();
        c.extend(place(["stream", "layer", "head"], g, &units));
        c.push(("removed", ints(rows.iter().map(|r| r.1.removed)), false));
        c.push(("fraction", floats(rows.iter().map(|r| r.0.fraction(r.1.removed))), false));
        c.push(("value", floats(rows.iter().map(|r| r.1.value)), false));
        let retained: Float64Array = rows.iter().map(|r| r.1.retained).collect();
        c.push(("retained", Arc::new(retained), true));
        let f = |f: fn(&Point) -> Option<f64>| -> ArrayRef {
            Arc::new(rows.iter().map(|r| f(r.1)).collect::<Float64Array>())
        };
        c.push(("ratio", f(|p| p.ratio), true));
        c.push(("value_low", f(|p| p.value_low), true));
        c.push(("value_high", f(|p| p.value_high), true));
        c.push(("retained_low", f(|p| p.retained_low), true));
        c.push(("retained_high", f(|p| p.retained_high), true));
        c.push(("name", unit_names(g, &units), true));
        batch(c)
    };
    analysis.groups.iter().map(one).collect()
}

/// `examples`: every example of every task, with the methods and units it is used under (comma-separated).
pub fn examples(results: &Results) -> anyhow::Result<Vec<RecordBatch>> {
    let mut seen = HashSet::new();
    let ablations = &results.plan.ablations;
    let methods: Vec<&str> = ablations.iter().map(|a| a.method.name()).filter(|m| seen.insert(*m)).collect();
    let units: Vec<&str> =
        ablations.iter().map(|a| a.unit).map(UnitKind::name).filter(|u| seen.insert(*u)).collect();
    let (methods, units) = (methods.join(","), units.join(","));
    let one = |(task, prepared): (&ablate_common::plan::PlannedTask, &ablate_common::task::Prepared)| {
        let rows: Vec<_> = prepared
            .examples_in(Scope::All)
            .into_iter()
            .filter_map(|i| prepared.examples.get(i as usize).map(|e| (i, e)))
            .collect();
        let tokens = |e: &ablate_common::task::Example| -> u32 {
            let of = |i: u32| prepared.items.get(i as usize).map_or(0, |x| x.tokens.len() as u32);
            prepared.items_of(e).into_iter().map(of).sum()
        };
        batch(vec![
            ("task", texts(rows.iter().map(|_| task.name.as_str())), false),
            ("method", texts(rows.iter().map(|_| methods.as_str())), false),
            ("unit", texts(rows.iter().map(|_| units.as_str())), false),
            ("index", ints(rows.iter().map(|r| r.0)), false),
            ("cluster", ints(rows.iter().map(|r| r.1.cluster)), false),
            ("half", Arc::new(rows.iter().map(|r| r.1.half.map(u32::from)).collect::<UInt32Array>()), true),
            ("tokens", ints(rows.iter().map(|r| tokens(r.1))), false),
            ("scored", ints(rows.iter().map(|r| prepared.scored_tokens(r.1))), false),
        ])
    };
    results.plan.tasks.iter().zip(&results.prepared).map(one).collect()
}
