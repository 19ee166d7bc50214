//! Activation shift: how removing units changes the size of the residual stream, see [`ablate_common::shift`].

use crate::analyse::{Group, places};
use crate::results::Results;
use crate::tables::{batch, common, floats, ints, place, texts};
use crate::view;
use ablate_common::head::Stream;
use ablate_common::plan::SweepKind;
use ablate_common::shift::{flagged, points};
use ablate_common::units::UnitIx;
use arrow_array::{BooleanArray, Float64Array, RecordBatch};
use std::sync::Arc;

/// The residual stream at one point without one unit, or without all heads.
#[derive(Clone, Copy, Debug)]
pub struct ShiftRow {
    /// The unit's place in [`crate::Group::places`]; none: every head of the model.
    pub ix: Option<UnitIx>,
    /// Which residual stream; `cross`: a decoder's, before its attention to the encoder.
    pub at_stream: Stream,
    /// Layers of it that are done: 0 is the embeddings.
    pub at_layer: u32,
    /// Mean norm of the unablated model.
    pub unablated: f64,
    /// Mean norm.
    pub norm: f64,
    /// `norm` by `unablated`.
    pub ratio: f64,
    /// The largest ratio of one item.
    pub largest: f64,
    /// Mean norm of the unablated model on the set that b comes from; none where that is the task's own data.
    pub reference: Option<f64>,
    /// `unablated` by `reference`; none without that.
    pub reference_ratio: Option<f64>,
    /// Whether `ratio` or `reference_ratio` is 2 or more, ½ or less, or not a number.
    pub flagged: bool,
}

impl ShiftRow {
    /// Whether it is the removal that shifts the stream, and not the data.
    #[must_use]
    pub fn moved(&self) -> bool {
        flagged(self.ratio)
    }
}

/// Every unit and all heads at every point of the residual stream, as far as shift sweeps measure them: all heads first, then in the
/// order of the units.
pub fn rows(results: &Results, ablation: u32, task: u32) -> Vec<ShiftRow> {
    let plan = &results.plan;
    let points = points(plan.heads());
    let source = plan.ablations.get(ablation as usize).and_then(|a| a.sources.get(task as usize));
    let own_reference = source.is_some_and(|s| s.reference.is_some());
    let mut out: Vec<ShiftRow> = Vec::new();
    for sweep in view::sweeps_of(results, ablation, task, |k| *k == SweepKind::Shift) {
        let units: Vec<Option<Option<UnitIx>>> = std::iter::once(Some(None))
            .chain(places(results, sweep).into_iter().map(|p| p.map(Some)))
            .collect();
        // Several sweeps have each measured all heads.
        let again = out.iter().any(|r| r.ix.is_none());
        for (rank, ix) in (1u64..).zip(units) {
            let Some(ix) = ix.filter(|ix| !(again && ix.is_none())) else { continue };
            let Some(columns) = view::columns(results, sweep, 0, task, rank) else { continue };
            let [norm, unablated, largest, reference] = columns[..] else { continue };
            for (at, &(at_stream, at_layer)) in points.iter().enumerate() {
                let ratio = norm[at] / unablated[at];
                let reference = own_reference.then_some(reference[at]);
                let reference_ratio = reference.map(|r| unablated[at] / r);
                out.push(ShiftRow {
                    ix,
                    at_stream,
                    at_layer,
                    unablated: unablated[at],
                    norm: norm[at],
                    ratio,
                    largest: largest[at],
                    reference,
                    reference_ratio,
                    flagged: flagged(ratio) || reference_ratio.is_some_and(flagged),
                });
            }
        }
    }
    // Stable: the points keep their order.
    out.sort_by_key(|r| r.ix);
    out
}

/// Names of units whose removal shifts the stream somewhere, "all heads" among them, each once with its ratio furthest from 1.
fn shifted(g: &Group) -> Vec<(String, f64)> {
    let mut out: Vec<(Option<UnitIx>, f64)> = Vec::new();
    let far = |ratio: f64| if ratio.is_nan() { f64::INFINITY } else { ratio.ln().abs() };
    for row in g.shift.iter().filter(|r| r.moved()) {
        match out.last_mut().filter(|o| o.0 == row.ix) {
            Some(known) if far(row.ratio) > far(known.1) => known.1 = row.ratio,
            Some(_) => {}
            None => out.push((row.ix, row.ratio)),
        }
    }
    let name = |ix: Option<UnitIx>| ix.map_or_else(|| "all heads".to_owned(), |u| g.name_of(u).to_owned());
    out.into_iter().map(|(ix, ratio)| (name(ix), ratio)).collect()
}

/// Units that a warning names, at most.
const NAMED: usize = 5;

/// What a reader should know of a residual stream whose size is another twofold: without units, or than on the set that b comes from.
pub fn warnings(g: &Group) -> Vec<String> {
    removals(g).into_iter().chain(reference(g)).collect()
}

/// That b comes from states of another size than those that it replaces.
fn reference(g: &Group) -> Option<String> {
    let known = g.shift.iter().filter_map(|r| Some((r, r.reference_ratio?)));
    let far = |r: &f64| if r.is_nan() { f64::INFINITY } else { r.ln().abs() };
    let (row, ratio) = known.filter(|k| flagged(k.1)).max_by(|a, b| far(&a.1).total_cmp(&far(&b.1)))?;
    Some(format!(
        "After {} layers the unablated residual stream's mean norm is {ratio:.2}× that on the set which b comes from: what replaces z is of another size, and \
         the deltas may be artefacts of that.",
        row.at_layer
    ))
}

/// That removals change the size of the residual stream; none where none does.
fn removals(g: &Group) -> Option<String> {
    let mut all = shifted(g);
    let more = all.len().saturating_sub(NAMED);
    all.truncate(NAMED);
    let named: Vec<String> = all.iter().map(|(name, ratio)| format!("{name} ({ratio:.2}×)")).collect();
    let last = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!named.is_empty()).then(|| {
        format!(
            "Removing {}{last} changes the mean norm of the residual stream to twice its size or more, or to half or less: the model is far from what \
             it was trained on, and the deltas may be artefacts of that.",
            named.join(", ")
        )
    })
}

/// `shift`: every unit and point; no table where no sweep asks for it.
pub fn table(results: &Results, groups: &[Group]) -> anyhow::Result<Vec<RecordBatch>> {
    if !results.plan.sweeps.iter().any(|s| s.kind == SweepKind::Shift) {
        return Ok(Vec::new());
    }
    let one = |g: &Group| {
        let rows = &g.shift;
        let f = |f: fn(&ShiftRow) -> f64| floats(rows.iter().map(f));
        let mut c = common(g, rows.len());
        let units: Vec<_> = rows.iter().map(|r| r.ix).collect();
        c.extend(place(["stream", "layer", "head"], g, &units));
        let name = |u: &Option<UnitIx>| u.map_or("all", |u| g.name_of(u));
        c.push(("name", texts(units.iter().map(name)), false));
        c.push(("at_stream", texts(rows.iter().map(|r| r.at_stream.name())), false));
        c.push(("at_layer", ints(rows.iter().map(|r| r.at_layer)), false));
        c.push(("unablated", f(|r| r.unablated), false));
        c.push(("norm", f(|r| r.norm), false));
        c.push(("ratio", f(|r| r.ratio), false));
        c.push(("largest", f(|r| r.largest), false));
        c.push(("reference", Arc::new(rows.iter().map(|r| r.reference).collect::<Float64Array>()), true));
        let ratio = rows.iter().map(|r| r.reference_ratio);
        c.push(("reference_ratio", Arc::new(ratio.collect::<Float64Array>()), true));
        c.push(("flagged", Arc::new(rows.iter().map(|r| Some(r.flagged)).collect::<BooleanArray>()), false));
        batch(c)
    };
    groups.iter().map(one).collect()
}
