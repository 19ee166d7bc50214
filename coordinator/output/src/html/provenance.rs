//! What was computed, what it was computed from, and by what.

use crate::facts;
use crate::figure::draw::{count, escape};
use crate::results::Results;
use ablate_common::plan::SweepKind;
use ablate_common::task::Scope;
use std::fmt::Write as _;

/// What was exact and what was screened.
pub fn exact(out: &mut String, results: &Results) -> anyhow::Result<()> {
    let plan = &results.plan;
    let graded = plan.sweeps.iter().any(|s| matches!(s.kind, SweepKind::Gradient { .. }));
    let partial = facts::partial(results);
    let mut words = String::from(
        "Everything in this report was measured exactly: for every subset of heads that a sweep names, the model was run with these heads removed, on every example. Nothing was screened, sampled or extrapolated.",
    );
    if plan.sweeps.iter().any(|s| s.scope == Scope::Select) {
        words.push_str(" Rounds of greedy sweeps ran on the half of the documents that they select on.");
    }
    if plan.sweeps.iter().any(|s| s.kind == SweepKind::Repair) {
        words.push_str(
            " For direct effects everything downstream was frozen to what it was in the unablated run.",
        );
    }
    if graded {
        words.push_str(
            " Scores by gradient and attribution patching are first-order estimates and are called so wherever they stand.",
        );
    }
    if partial {
        words.push_str(" Some chunks are still missing; their rows are left out, not guessed.");
    }
    writeln!(out, "<section id=\"exact\"><h2>Exact and screened</h2><p class=\"lede\">{words}</p>")?;
    write!(
        out,
        "<div class=\"wide\"><table><thead><tr><th>sweep</th><th>ablation</th><th>tasks</th><th class=\"r\">subsets computed</th><th class=\"r\">screened</th></tr></thead><tbody>"
    )?;
    for (sweep, planned) in (0u32..).zip(&plan.sweeps) {
        let rounds = results.rounds.range((sweep, 0)..=(sweep, u32::MAX));
        let computed: u64 = rounds.flat_map(|r| r.1.chunks.values()).map(|c| u64::from(c.subsets)).sum();
        let ablation = plan.ablations.get(planned.ablation as usize).map_or_else(String::new, |a| a.title());
        let tasks: Vec<&str> = planned
            .tasks
            .iter()
            .filter_map(|&t| plan.tasks.get(t as usize))
            .map(|t| t.name.as_str())
            .collect();
        write!(
            out,
            "<tr><td>{}{}</td><td>{}</td><td>{}</td><td class=\"r\">{}</td><td class=\"r\">none</td></tr>",
            escape(planned.kind.name()),
            escape(&plan.given(sweep)),
            escape(&ablation),
            escape(&tasks.join(", ")),
            count(computed as usize)
        )?;
    }
    writeln!(out, "</tbody></table></div></section>")?;
    Ok(())
}

/// Hashes, versions, devices, and how numbers were made.
pub fn provenance(out: &mut String, results: &Results) -> anyhow::Result<()> {
    let (plan, run) = (&results.plan, &results.run);
    let mut rows: Vec<(String, String)> = Vec::new();
    let code = |s: &str| format!("<code>{}</code>", escape(s));
    let dtype = format!("{:?}", plan.spec.model.dtype).to_lowercase();
    rows.push(("Model".into(), escape(&format!("{} ({}, {})", plan.model.title, plan.model.arch, dtype))));
    rows.push(("Weights".into(), code(&format!("sha256 {}", plan.model.weights_sha256))));
    rows.push(("Experiment".into(), code(&results.id)));
    for t in &plan.tasks {
        let text = format!("{}, {} examples, ", t.kind.name().replace('_', " "), count(t.examples as usize));
        rows.push((format!("Data: {}", t.name), escape(&text) + &code(&format!("blake3 {}", t.prepared))));
    }
    let devices: Vec<String> = run
        .device_classes
        .iter()
        .map(|(d, n)| escape(&format!("{d} ({} chunks)", count(*n as usize))))
        .collect();
    rows.push(("Devices".into(), devices.join("<br>")));
    let mut versions: Vec<String> = run.versions.iter().map(|(k, v)| format!("{k} {v}")).collect();
    versions.push(format!("numerics {}", plan.engine));
    rows.push(("Versions".into(), escape(&versions.join(", "))));
    rows.push(("Seed".into(), plan.spec.seed.to_string()));
    let set_aside = if run.quarantined.is_empty() {
        String::new()
    } else {
        format!(", {} shards quarantined", run.quarantined.len())
    };
    rows.push((
        "Chunks".into(),
        escape(&format!(
            "{} planned, {} computed, {} accepted, {} duplicate{set_aside}",
            count(run.planned as usize),
            count(run.computed as usize),
            count(run.accepted as usize),
            count(run.duplicate as usize)
        )),
    ));
    let complete = if facts::partial(results) { "no: chunks are missing" } else { "yes" };
    rows.push(("Complete".into(), complete.into()));
    write!(out, "<section id=\"provenance\"><h2>Provenance</h2><dl class=\"facts\">")?;
    for (k, v) in rows {
        write!(out, "<dt>{}</dt><dd>{v}</dd>", escape(&k))?;
    }
    writeln!(
        out,
        "</dl></section>\n<footer><p>Δ is oriented so that more is worse, whatever the metric. Intervals are 95 %: paired by example and clustered by document for means and perplexity; for correlations by resampled texts, scaled to a jackknife; for F1, Matthews and BLEU by paired bootstrap with 1,000 resamples. q is Benjamini–Hochberg's over all heads (or other units), or all pairs, of a task. Retained shares are measured on documents that greedy pruning did not select on, unless the figure says otherwise.</p>\
         <p>Beside this file lie its tables as Parquet, and its figures as SVG and PNG in <code>figures/</code>. Links under the figures save what they show; <code>ablate export FOLDER --format csv</code> writes every table whole as CSV.</p></footer>"
    )?;
    Ok(())
}
