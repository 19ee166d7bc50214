//! What `summary.json` and `run.json` say, and what a reader should be warned of.

use crate::analyse::{Analysis, Group, HeadRow, PairRow, RESOLVED, Relation};
use crate::conditional::{Conditional, without};
use crate::constants;
use crate::curve::Curve;
use crate::gradients::GradientRow;
use crate::joint::GroupRow;
use crate::results::Results;
use crate::shift;
use crate::view;
use ablate_common::gradient;
use ablate_common::head::Stream;
use ablate_common::metric::Metric;
use ablate_common::plan::Shuffle;
use ablate_common::stats::bootstrap::quantile;
use ablate_common::stats::paired::Weighted;
use ablate_common::task::Prepared;
use ablate_common::units::UnitIx;
use serde_json::{Value, json};

/// Fewest plain random orders that say what chance does.
const ENOUGH_ORDERS: usize = 20;

/// Whether chunks of the plan are missing.
pub fn partial(results: &Results) -> bool {
    (0..results.plan.sweeps.len() as u32).any(|s| !view::missing(results, s).is_empty())
}

/// The units whose removal hurts most, unknown ones left out.
pub fn top_heads(g: &Group, k: usize) -> Vec<&HeadRow> {
    let mut v: Vec<&HeadRow> = g.heads.iter().filter(|h| !h.delta.value.is_nan()).collect();
    v.sort_by(|a, b| b.delta.value.total_cmp(&a.delta.value).then(a.ix.cmp(&b.ix)));
    v.truncate(k);
    v
}

/// The pairs with the largest positive interaction: redundant ones first, then those that aren't resolved.
pub fn top_pairs(g: &Group, k: usize) -> Vec<&PairRow> {
    let mut v: Vec<&PairRow> = g.pairs.iter().filter(|p| p.interaction.value > 0.0).collect();
    v.sort_by(|a, b| {
        let resolved = |p: &PairRow| p.relation == Relation::Redundant;
        resolved(b)
            .cmp(&resolved(a))
            .then(b.interaction.value.total_cmp(&a.interaction.value))
            .then((a.a, a.b).cmp(&(b.a, b.b)))
    });
    v.truncate(k);
    v
}

/// [`top_pairs`] that are redundant at q ≤ 0.05.
pub fn redundant_pairs(g: &Group, k: usize) -> Vec<&PairRow> {
    top_pairs(g, k).into_iter().filter(|p| p.relation == Relation::Redundant).collect()
}

/// Number of pairs of a relation.
pub fn count(g: &Group, relation: Relation) -> usize {
    g.pairs.iter().filter(|p| p.relation == relation).count()
}

/// Number of units with a resolved delta of either sign: (hurts, helps).
pub fn resolved_heads(g: &Group) -> (usize, usize) {
    let with = |up: bool| g.heads.iter().filter(|h| h.q <= RESOLVED && (h.delta.value > 0.0) == up).count();
    (with(true), with(false))
}

/// Curves that belong together, as they belong to one greedy sweep.
#[derive(Debug)]
pub struct Family<'a> {
    /// The sweep.
    pub greedy: Option<u32>,
    /// Orders with a name.
    pub named: Vec<&'a Curve>,
    /// Random orders that are plain shuffles.
    pub random: Vec<&'a Curve>,
    /// Random orders that are matched per layer to greedy.
    pub matched: Vec<&'a Curve>,
}

impl<'a> Family<'a> {
    /// The kinds of random orders that there are, with their orders.
    pub fn shuffles(&self) -> Vec<(Shuffle, &[&'a Curve])> {
        let of = |kind| match kind {
            Shuffle::Plain => self.random.as_slice(),
            Shuffle::Matched => self.matched.as_slice(),
        };
        Shuffle::ALL.into_iter().map(|kind| (kind, of(kind))).filter(|kind| !kind.1.is_empty()).collect()
    }

    /// All curves, the named ones first.
    pub fn all(&self) -> impl Iterator<Item = &'a Curve> {
        self.named.iter().chain(&self.random).chain(&self.matched).copied()
    }
}

/// The curves of a group, family by family.
pub fn families(g: &Group) -> Vec<Family<'_>> {
    let mut out: Vec<Family<'_>> = Vec::new();
    for c in &g.curves {
        if !out.iter().any(|f| f.greedy == c.greedy) {
            let (named, random, matched) = (Vec::new(), Vec::new(), Vec::new());
            out.push(Family { greedy: c.greedy, named, random, matched });
        }
        for f in out.iter_mut().filter(|f| f.greedy == c.greedy) {
            match c.shuffle() {
                None => f.named.push(c),
                Some(Shuffle::Plain) => f.random.push(c),
                Some(Shuffle::Matched) => f.matched.push(c),
            }
        }
    }
    out
}

/// (median, lowest, highest) of r at κ over random orders.
pub fn random_retained(random: &[&Curve], kappa: f64) -> Option<(f64, f64, f64)> {
    let mut v: Vec<f64> = random.iter().filter_map(|c| c.retained_at(kappa)).map(|r| r.1).collect();
    v.sort_by(f64::total_cmp);
    Some((quantile(&v, 0.5), *v.first()?, *v.last()?))
}

/// What should make a reader careful.
pub fn warnings(results: &Results, g: &Group) -> Vec<String> {
    let mut out = Vec::new();
    if g.baseline.is_nan() {
        out.push("The unablated score is missing or not a number: nothing can be compared with it.".into());
    }
    let nan = g.heads.iter().filter(|h| h.delta.value.is_nan()).count();
    if nan > 0 {
        out.push(format!(
            "{nan} {} have scores that are not numbers; they are kept as such.",
            g.unit.plural()
        ));
    }
    let half = g.curves.iter().find(|c| c.half.is_some()).map(|c| (c.examples, c.clusters));
    let prepared = results.prepared.get(g.task as usize);
    out.extend(prepared.into_iter().flat_map(|p| narrow(p, g.metric, (g.examples, g.clusters), half)));
    if g.curves.iter().any(|c| c.flagged) {
        out.push(
            "Removing every head isn't worse than removing none beyond the interval, so what is retained is not given."
                .into(),
        );
    }
    out.extend(beside_chance(g));
    out.extend(shift::warnings(g));
    if constants::on_own_data(results, g.ablation, g.task) {
        out.push(constants::OWN_DATA.into());
    }
    let sweeps = (0u32..)
        .zip(&results.plan.sweeps)
        .filter(|s| s.1.ablation == g.ablation && s.1.tasks.contains(&g.task));
    if sweeps.into_iter().any(|(s, _)| !view::missing(results, s).is_empty()) {
        out.push("Chunks are missing: tables and figures lack the rows that need them.".into());
    }
    out
}

/// Why 95 % intervals may be too narrow: of a task of so many (examples, clusters), whose curves are reported on a half of so many.
pub fn narrow(
    prepared: &Prepared,
    metric: Metric,
    all: (usize, usize),
    half: Option<(usize, usize)>,
) -> Vec<String> {
    let mut out = Vec::new();
    let few = |(examples, clusters): (usize, usize)| examples < 200 || clusters < 50;
    if few(all) {
        out.push(format!(
            "{} examples in {} clusters: below 200 examples or 50 clusters, 95 % intervals may be too narrow.",
            all.0, all.1
        ));
    } else if let Some(half) = half.filter(|h| few(*h)) {
        out.push(format!(
            "Curves are measured on the half that reports, {} examples in {} clusters: below 200 examples or 50 clusters, their 95 % intervals may be too narrow.",
            half.0, half.1
        ));
    }
    let effective = effective_clusters(prepared, metric);
    if all.1 >= 50 && effective < 40.0 {
        out.push(format!(
            "A few {} hold most of what is scored: {} of them count as {effective:.0} that weigh alike, so that 95 % intervals may be too narrow.",
            if of_texts(metric) { "texts" } else { "documents" },
            all.1
        ));
    }
    out
}

/// Whether too few plain random orders stand beside the curves of a greedy sweep: chance is hard to beat, and has to be known.
fn beside_chance(g: &Group) -> Option<String> {
    let swept = families(g).into_iter().filter(|f| f.greedy.is_some());
    let fewest = swept.map(|f| f.random.len()).min().filter(|&n| n < ENOUGH_ORDERS)?;
    let orders = match fewest {
        0 => "No plain random order stands".to_owned(),
        1 => "One plain random order stands".to_owned(),
        n => format!("{n} plain random orders stand"),
    };
    Some(format!(
        "{orders} beside the pruning curves: with fewer than {ENOUGH_ORDERS} it isn't known well what chance alone retains."
    ))
}

/// Whether errors are clustered by text: those of correlations.
fn of_texts(metric: Metric) -> bool {
    matches!(metric, Metric::Pearson | Metric::Spearman)
}

/// Documents (for correlations: texts) of a task that weigh alike and would give as much.
fn effective_clusters(prepared: &Prepared, metric: Metric) -> f64 {
    if of_texts(metric) {
        // A pair counts for both of its texts.
        let texts: Vec<u32> = prepared.examples.iter().flat_map(|e| [e.a, e.b]).collect();
        return Weighted::new(vec![1.0; texts.len()], &texts).effective();
    }
    let weights = prepared.examples.iter().map(|e| f64::from(prepared.scored_tokens(e))).collect();
    let clusters: Vec<u32> = prepared.examples.iter().map(|e| e.cluster).collect();
    Weighted::new(weights, &clusters).effective()
}

/// What should make a reader careful about the whole run.
pub fn run_warnings(results: &Results) -> Vec<String> {
    let mut out = Vec::new();
    if results.run.device_classes.len() > 1 {
        out.push(format!(
            "Computed on {} device classes: the numbers are not those of any one of them, bit for bit.",
            results.run.device_classes.len()
        ));
    }
    let ablations = 0..results.plan.ablations.len() as u32;
    let tasks = || 0..results.plan.tasks.len() as u32;
    if ablations.into_iter().any(|a| tasks().any(|t| constants::on_own_data(results, a, t))) {
        out.push(constants::OWN_DATA.into());
    }
    if !results.run.differing.is_empty() {
        out.push(format!(
            "{} of {} chunks that two workers of one device class computed have other bytes: a device may be faulty (run.json names them).",
            results.run.differing.len(),
            results.run.compared
        ));
    }
    if !results.run.quarantined.is_empty() {
        out.push(format!(
            "{} shards failed on several workers and were set aside.",
            results.run.quarantined.len()
        ));
    }
    out
}

/// `summary.json`: the headline numbers. NaN is null.
pub fn summary(results: &Results, analysis: &Analysis) -> Value {
    let groups: Vec<Value> = analysis.groups.iter().map(|g| group(results, g)).collect();
    json!({
        "name": results.plan.spec.name,
        "id": results.id,
        "model": results.plan.model.title,
        "heads": results.plan.heads().len(),
        "tasks": groups,
    })
}

fn group(results: &Results, g: &Group) -> Value {
    let (hurts, helps) = resolved_heads(g);
    let stream = |u: UnitIx| g.places.get(u.at()).and_then(|p| p.stream).map(Stream::name);
    let layer = |u: UnitIx| g.places.get(u.at()).and_then(|p| p.layer);
    let first = |u: UnitIx| g.places.get(u.at()).and_then(|p| p.head);
    let head = |h: &HeadRow| {
        json!({
            "name": g.name_of(h.ix), "stream": stream(h.ix), "layer": layer(h.ix), "head": first(h.ix),
            "delta": h.delta.value, "se": h.delta.se, "ci_low": h.delta.low, "ci_high": h.delta.high, "q_value": h.q,
        })
    };
    let pair = |p: &PairRow| {
        json!({
            "a": g.name_of(p.a), "b": g.name_of(p.b),
            "a_stream": stream(p.a), "a_layer": layer(p.a), "a_head": first(p.a),
            "b_stream": stream(p.b), "b_layer": layer(p.b), "b_head": first(p.b),
            "interaction": p.interaction.value, "se": p.interaction.se, "ci_low": p.interaction.low,
            "ci_high": p.interaction.high, "q_value": p.q, "relation": p.relation.name(), "normalised": p.normalised(),
        })
    };
    let given = |c: &Conditional| {
        let row = |p: &PairRow| {
            let mut out = pair(p);
            out["delta_a"] = json!(p.delta_a);
            out["delta_b"] = json!(p.delta_b);
            out["whole_model"] = match without(g, p) {
                Some(w) => {
                    json!({"interaction": w.interaction.value, "q_value": w.q, "relation": w.relation.name()})
                }
                None => Value::Null,
            };
            out
        };
        json!({
            "base": c.base, "delta": c.delta.value, "se": c.delta.se, "ci_low": c.delta.low, "ci_high": c.delta.high,
            "tested": c.pairs.len(),
            "redundant": c.count(Relation::Redundant),
            "overlapping": c.count(Relation::Overlapping),
            "unresolved": c.count(Relation::Unresolved),
            "strongest": c.strongest(10).into_iter().map(row).collect::<Vec<_>>(),
        })
    };
    let joint = |j: &GroupRow| {
        json!({
            "units": j.units.iter().map(|&u| g.name_of(u)).collect::<Vec<_>>(),
            "delta": j.delta.value, "se": j.delta.se, "ci_low": j.delta.low, "ci_high": j.delta.high, "q_value": j.q,
            "sum_alone": j.sum_alone, "sum_pairs": j.sum_pairs, "interaction": j.interaction.value,
            "interaction_low": j.interaction.low, "interaction_high": j.interaction.high,
            "interaction_q": j.interaction_q,
        })
    };
    let curves: Vec<Value> = families(g)
        .into_iter()
        .map(|f| {
            let together = |orders: &[&Curve]| {
                let at79 = random_retained(orders, 0.79);
                json!({
                    "orders": orders.len(),
                    "retained_079_median": at79.map(|r| r.0),
                    "retained_079_lowest": at79.map(|r| r.1),
                    "retained_079_highest": at79.map(|r| r.2),
                })
            };
            let mut family = json!({
                "greedy_sweep": f.greedy,
                "orders": f.named.iter().map(|c| curve(c)).collect::<Vec<_>>(),
                "random": together(&f.random),
            });
            if !f.matched.is_empty() {
                family["matched"] = together(&f.matched);
            }
            family
        })
        .collect();
    let mut out = json!({
        "task": g.name,
        "metric": g.metric.name(),
        "method": g.method,
        "unit": g.unit.name(),
        "examples": g.examples,
        "clusters": g.clusters,
        "baseline": g.baseline,
        "floor": g.floor.map(|f| f.0),
        "floor_delta": g.floor.map(|f| json!({"delta": f.1.value, "ci_low": f.1.low, "ci_high": f.1.high})),
        "heads": {"tested": g.heads.len(), "hurts": hurts, "helps": helps},
        "top_heads": top_heads(g, 10).into_iter().map(head).collect::<Vec<_>>(),
        "pairs": {
            "tested": g.pairs.len(),
            "redundant": count(g, Relation::Redundant),
            "overlapping": count(g, Relation::Overlapping),
            "unresolved": count(g, Relation::Unresolved),
        },
        "redundant_pairs": redundant_pairs(g, 10).into_iter().map(pair).collect::<Vec<_>>(),
        "top_pairs": top_pairs(g, 10).into_iter().map(pair).collect::<Vec<_>>(),
        "groups": g.groups.iter().take(10).map(joint).collect::<Vec<_>>(),
        "triples": {
            "tested": g.triples.len(),
            "resolved": g.triples.iter().filter(|t| t.q <= RESOLVED).count(),
        },
        "curves": curves,
        "flags": warnings(results, g),
    });
    if !g.conditional.is_empty() {
        out["conditional"] = Value::Array(g.conditional.iter().map(given).collect());
    }
    if !g.gradients.is_empty() {
        let row = |r: &GradientRow| {
            let a = &r.attribution;
            json!({
                "name": g.name_of(r.ix), "stream": stream(r.ix), "layer": layer(r.ix), "head": first(r.ix),
                "importance": r.importance, "importance_normalised": r.normalised,
                "attribution": a.value, "se": a.se, "ci_low": a.low, "ci_high": a.high,
            })
        };
        let mut rows: Vec<&GradientRow> = g.gradients.iter().filter(|r| !r.importance.is_nan()).collect();
        rows.sort_by(|a, b| b.importance.total_cmp(&a.importance).then(a.ix.cmp(&b.ix)));
        let loss = results.plan.tasks.get(g.task as usize).map_or("", |t| gradient::loss(t.kind));
        out["gradients"] = json!({
            "loss": loss,
            "scored": g.gradients.len(),
            "top_heads": rows.into_iter().take(10).map(row).collect::<Vec<_>>(),
        });
    }
    out
}

fn curve(c: &Curve) -> Value {
    json!({
        "order": c.order,
        "objective": c.objective,
        "half": c.half,
        "start": c.start,
        "floor": c.floor,
        "flagged": c.flagged,
        "fraction": c.fraction(c.last),
        "removed_079": c.at(0.79).map(|p| p.removed),
        "value_079": c.at(0.79).map(|p| p.value),
        "ratio_079": c.at(0.79).and_then(|p| p.ratio),
        "retained_079": c.retained_at(0.79).map(|r| r.1),
        "retained_079_ci_low": c.at(0.79).and_then(|p| p.retained_low),
        "retained_079_ci_high": c.at(0.79).and_then(|p| p.retained_high),
        "largest_kappa": {"0.99": c.largest(0.99), "0.95": c.largest(0.95), "0.90": c.largest(0.90)},
        "area": c.area(|r| r),
        "area_ci_low": c.area_ci.map(|a| a.0),
        "area_ci_high": c.area_ci.map(|a| a.1),
        "cpr": c.cpr(),
        "cmd": c.cmd(),
    })
}

/// `run.json`: how the numbers came about.
pub fn run(results: &Results) -> Value {
    let plan = &results.plan;
    let missing: Vec<Value> = (0..plan.sweeps.len() as u32)
        .flat_map(|s| {
            let (kind, base) = (plan.sweeps[s as usize].kind.name(), plan.base_short(s));
            view::missing(results, s).into_iter().map(move |(round, have, of)| {
                let mut out =
                    json!({"sweep": s, "kind": kind, "round": round, "chunks": have, "planned": of});
                if let Some(base) = &base {
                    out["base"] = json!(base);
                }
                out
            })
        })
        .collect();
    let r = &results.run;
    let quarantined: Vec<Value> = r
        .quarantined
        .iter()
        .map(|q| json!({"sweep": q.0, "round": q.1, "first_chunk": q.2, "chunks": q.3, "error": q.4}))
        .collect();
    let differing: Vec<Value> = r
        .differing
        .iter()
        .map(|d| json!({"sweep": d.0, "round": d.1, "chunk": d.2, "stored": d.3, "other": d.4}))
        .collect();
    json!({
        "id": results.id,
        "partial": !missing.is_empty(),
        "missing": missing,
        "spec": plan.spec,
        "plan": plan,
        "model": {"title": plan.model.title, "weights_sha256": plan.model.weights_sha256},
        "data": plan.tasks.iter().map(|t| json!({"task": t.name, "prepared_blake3": t.prepared})).collect::<Vec<_>>(),
        "versions": r.versions,
        "engine": plan.engine,
        "device_classes": r.device_classes,
        "several_device_classes": r.device_classes.len() > 1,
        "warnings": run_warnings(results),
        "seconds": r.seconds,
        "chunks": {"planned": r.planned, "computed": r.computed, "accepted": r.accepted, "duplicate": r.duplicate,
            "compared": r.compared},
        "differing": differing,
        "quarantined": quarantined,
    })
}
