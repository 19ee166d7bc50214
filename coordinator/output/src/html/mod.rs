//! `report.html`: one file that needs nothing else. The numbers are embedded as JSON and drawn by the
//! script in the page.

mod words;

use crate::analyse::{Analysis, Group, Relation, analyse};
use crate::facts;
use crate::results::Results;
use crate::write::atomically;
use ablate_common::metric::Metric;
use ablate_common::units::Place;
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::Path;

/// Most pairs that a page embeds; above it only the strongest resolved ones.
const MOST_PAIRS: usize = 250_000;

/// Writes the report: findings in words, head map, pair matrix, pruning curves, provenance.
///
/// # Errors
/// Where the file can't be written.
pub fn report(results: &Results, path: &Path) -> anyhow::Result<()> {
    report_analysed(results, &analyse(results), path)
}

/// [`report`] with an analysis made before.
///
/// # Errors
/// As [`report`].
pub fn report_analysed(results: &Results, analysis: &Analysis, path: &Path) -> anyhow::Result<()> {
    let page = page(results, analysis)?;
    atomically(path, |file| Ok(file.write_all(page.as_bytes())?))
}

fn page(results: &Results, analysis: &Analysis) -> anyhow::Result<String> {
    // "<" can't end the script element or open a comment where it is written as an escape.
    let data = serde_json::to_string(&payload(results, analysis))?.replace('<', "\\u003c");
    let title = escape(&results.plan.spec.name);
    let (style, script) = (include_str!("style.css"), include_str!("app.js"));
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
         script-src 'unsafe-inline'; img-src data:\">\n\
         <title>{title} · Ablate</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main id=\"app\">\
         <noscript>The figures of this report are drawn by a script in this file; please allow it to run.</noscript>\
         </main>\n<div id=\"tip\" role=\"status\" hidden></div>\n\
         <script type=\"application/json\" id=\"data\">{data}</script>\n<script>\n{script}</script>\n</body>\n</html>\n"
    ))
}

/// Text as HTML.
fn escape(s: &str) -> String {
    s.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

/// A number with `digits` significant digits; null where it isn't one.
fn number(v: f64, digits: usize) -> Value {
    if v.is_finite() {
        format!("{v:.*e}", digits.saturating_sub(1)).parse::<f64>().map_or(Value::Null, Value::from)
    } else {
        Value::Null
    }
}

fn payload(results: &Results, analysis: &Analysis) -> Value {
    let plan = &results.plan;
    let data: Vec<Value> =
        plan.tasks.iter().map(|t| json!([t.name, t.kind.name(), t.examples, t.prepared])).collect();
    json!({
        "name": plan.spec.name,
        "id": results.id,
        "model": plan.model.title,
        "arch": plan.model.arch,
        "weights": plan.model.weights_sha256,
        "dtype": plan.spec.model.dtype,
        "seed": plan.spec.seed,
        "engine": plan.engine,
        "data": data,
        "heads": plan.heads().len(),
        "versions": results.run.versions,
        "devices": results.run.device_classes,
        "chunks": {"planned": results.run.planned, "computed": results.run.computed,
                   "accepted": results.run.accepted, "duplicate": results.run.duplicate},
        "quarantined": results.run.quarantined.len(),
        "partial": facts::partial(results),
        "warnings": facts::run_warnings(results),
        "groups": analysis.groups.iter().map(|g| group(results, g)).collect::<Vec<_>>(),
        "agreement": analysis.agreement.iter().map(|a| json!([a.score_a, a.score_b, a.scope,
            number(a.spearman, 4), number(a.kendall, 4), number(a.ci.0, 4), number(a.ci.1, 4)])).collect::<Vec<_>>(),
    })
}

fn group(results: &Results, g: &Group) -> Value {
    let heads: Vec<Value> = g
        .heads
        .iter()
        .map(|h| {
            let d = &h.delta;
            json!([
                h.ix.0,
                number(h.value, 5),
                number(d.value, 5),
                number(d.low, 4),
                number(d.high, 4),
                number(h.q, 3)
            ])
        })
        .collect();
    let mut rows: Vec<&crate::analyse::PairRow> = g.pairs.iter().collect();
    let cut = rows.len() > MOST_PAIRS;
    if cut {
        rows.retain(|p| p.relation != Relation::Unresolved);
        rows.sort_by(|a, b| b.interaction.value.abs().total_cmp(&a.interaction.value.abs()));
        rows.truncate(MOST_PAIRS);
    }
    // A flat list of five numbers a pair: a, b, interaction, half the interval's width, q.
    let mut pairs = Vec::with_capacity(rows.len() * 5);
    for p in rows {
        let i = &p.interaction;
        pairs.extend([
            json!(p.a.0),
            json!(p.b.0),
            number(i.value, 3),
            number((i.high - i.low) / 2.0, 2),
            number(p.q, 2),
        ]);
    }
    let curves: Vec<Value> = facts::families(g)
        .into_iter()
        .map(|(_, orders, random)| {
            let all: Vec<Value> = orders
                .iter()
                .chain(&random)
                .map(|c| {
                    let points: Vec<Value> = c
                        .points
                        .iter()
                        .map(|p| {
                            json!([
                                p.removed,
                                number(p.value, 5),
                                p.retained.map(|r| number(r, 4)),
                                p.unit.map(|u| g.name_of(u))
                            ])
                        })
                        .collect();
                    json!({"order": c.order, "points": points})
                })
                .collect();
            let first = orders.first().or(random.first());
            let facts: Vec<Value> = orders
                .iter()
                .map(|c| {
                    json!([
                        c.order,
                        c.retained_at(0.79).map(|r| r.1),
                        c.largest(0.99),
                        c.largest(0.95),
                        c.largest(0.9),
                        c.area(|r| r)
                    ])
                })
                .collect();
            json!({
                "objective": first.map(|c| c.objective.clone()), "half": first.and_then(|c| c.half),
                "start": first.map(|c| number(c.start, 5)), "floor": first.map(|c| number(c.floor, 5)),
                "flagged": first.is_some_and(|c| c.flagged), "curves": all, "facts": facts,
            })
        })
        .collect();
    json!({
        "task": g.name,
        "kind": results.plan.tasks.get(g.task as usize).map(|t| t.kind.name()),
        "metric": g.metric.name(),
        "lower": g.metric.lower_is_better(),
        "method": g.method,
        "unit": g.unit.name(),
        "units": units(g),
        "examples": g.examples,
        "clusters": g.clusters,
        "baseline": number(g.baseline, 6),
        "floor": g.floor.map(|f| number(f.0, 6)),
        "bootstrap": resampled(g.metric),
        "findings": words::findings(g),
        "warnings": facts::warnings(results, g),
        "heads": heads,
        "pairs": pairs,
        "pairs_cut": cut,
        "pair_counts": [g.pairs.len(), facts::count(g, Relation::Redundant), facts::count(g, Relation::Overlapping)],
        "top_pairs": facts::top_pairs(g, 10).into_iter().map(|p| json!([p.a.0, p.b.0,
            number(p.interaction.value, 4), number(p.interaction.low, 3), number(p.interaction.high, 3), number(p.q, 2),
            p.relation.name()])).collect::<Vec<_>>(),
        "families": curves,
    })
}

/// What a metric's bootstrap draws; none for means.
fn resampled(metric: Metric) -> Option<&'static str> {
    match metric {
        Metric::Pearson | Metric::Spearman => Some("texts"),
        m if m.is_mean() || m == Metric::Perplexity => None,
        _ => Some("documents"),
    }
}

/// Name, stream, layer and row within the layer of each unit; only the name of a set.
fn units(g: &Group) -> Vec<Value> {
    let mut rows = std::collections::HashMap::new();
    let one = |p: &Place| {
        let (Some(stream), Some(layer)) = (p.stream, p.layer) else { return json!([p.name]) };
        let row = rows.entry((stream, layer)).or_insert(0u32);
        let value = json!([p.name, stream.name(), layer, *row]);
        *row += 1;
        value
    };
    g.places.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_numbers_are_short() {
        assert_eq!(escape("<a href='x'>&"), "&lt;a href=&#39;x&#39;&gt;&amp;");
        assert_eq!(number(0.123_456_7, 3), json!(0.123));
        assert_eq!(number(-1.5e-9, 2), json!(-1.5e-9));
        assert_eq!(number(f64::NAN, 3), Value::Null);
    }
}
