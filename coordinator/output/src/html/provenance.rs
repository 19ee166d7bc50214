//! What was computed, what it was computed from, and by what.

use crate::facts;
use crate::figure::draw::{count, escape};
use crate::results::Results;
use ablate_common::joint::STRONGEST;
use ablate_common::plan::{Ablation, Donors, Order, Plan, SweepKind};
use ablate_common::task::Scope;
use std::fmt::Write as _;

/// What was exact, and what of all that there is was chosen or sampled.
pub fn exact(out: &mut String, results: &Results) -> anyhow::Result<()> {
    let plan = &results.plan;
    let graded = plan.sweeps.iter().any(|s| matches!(s.kind, SweepKind::Gradient { .. }));
    let partial = facts::partial(results);
    let mut words = String::from(
        "Everything in this report was measured exactly: for every subset of heads that a sweep names, the model was run with these heads removed, on every example.",
    );
    words.push_str(&chosen(plan));
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
    writeln!(out, "<section id=\"exact\"><h2>Exact, screened and sampled</h2><p class=\"lede\">{words}</p>")?;
    write!(
        out,
        "<div class=\"wide\"><table><thead><tr><th>sweep</th><th>ablation</th><th>tasks</th><th class=\"r\">subsets computed</th><th>which</th></tr></thead><tbody>"
    )?;
    for (sweep, planned) in (0u32..).zip(&plan.sweeps) {
        let (computed, which) = (computed(results, sweep), which(results, sweep));
        let ablation = plan.ablations.get(planned.ablation as usize).map_or_else(String::new, |a| a.title());
        let tasks: Vec<&str> = planned
            .tasks
            .iter()
            .filter_map(|&t| plan.tasks.get(t as usize))
            .map(|t| t.name.as_str())
            .collect();
        write!(
            out,
            "<tr><td>{}{}</td><td>{}</td><td>{}</td><td class=\"r\">{}</td><td>{}</td></tr>",
            escape(planned.kind.name()),
            escape(&plan.given(sweep)),
            escape(&ablation),
            escape(&tasks.join(", ")),
            count(computed as usize),
            escape(&which)
        )?;
    }
    writeln!(out, "</tbody></table></div></section>")?;
    Ok(())
}

/// What decided which subsets were measured, where that weren't all.
fn chosen(plan: &Plan) -> String {
    let any = |f: fn(&SweepKind) -> bool| plan.sweeps.iter().any(|s| f(&s.kind));
    let scored = |k: &SweepKind| matches!(k, SweepKind::Path { order: Order::Gradient | Order::Rollout, .. });
    let mut out = String::from(if any(scored) {
        " Nothing was extrapolated. Orders by gradient and by rollout follow these scores; what they leave of the model was measured."
    } else {
        " Nothing was screened or extrapolated: no model and no gradient decided what was measured."
    });
    if any(|k| matches!(k, SweepKind::Joint { .. })) {
        out.push_str(
            " Groups and triples are not all that there are: they were chosen from the pairs that are resolved on the same examples.",
        );
    }
    if any(|k| matches!(k, SweepKind::Random { .. } | SweepKind::Matched { .. })) {
        out.push_str(" Random orders are a sample of all orders.");
    }
    if plan.ablations.iter().any(|a| a.method == Ablation::Resample { donors: Donors::Seeded }) {
        out.push_str(" Donors of resample ablation are a sample: one that the seed draws for each text.");
    }
    out
}

/// Subsets of a sweep whose scores are there. Slots of a follow-up that nothing needed are none.
fn computed(results: &Results, sweep: u32) -> u64 {
    match results.plan.sweeps.get(sweep as usize).map(|s| &s.kind) {
        Some(&SweepKind::Joint { groups, triples, .. }) => {
            followed(results, sweep, [groups, triples]).iter().sum()
        }
        _ => {
            let rounds = results.rounds.range((sweep, 0)..=(sweep, u32::MAX));
            rounds.flat_map(|r| r.1.chunks.values()).map(|c| u64::from(c.subsets)).sum()
        }
    }
}

/// The groups and triples of a follow-up whose scores are there; each task has so many slots for them.
fn followed(results: &Results, sweep: u32, [groups, triples]: [u32; 2]) -> [u64; 2] {
    let Some(round) = results.rounds.get(&(sweep, 0)) else { return [0, 0] };
    let space = results.plan.space(sweep, &round.list);
    let slots = (u64::from(groups) + u64::from(triples)).max(1);
    let mut found = [0, 0];
    for &chunk in round.chunks.keys() {
        for rank in results.plan.chunk_ranks(sweep, 0, chunk) {
            if space.subset(rank).is_some_and(|set| !set.is_empty()) {
                found[usize::from(rank % slots >= u64::from(groups))] += 1;
            }
        }
    }
    found
}

/// Which of all subsets a sweep measures.
fn which(results: &Results, sweep: u32) -> String {
    let many = |n: u32| if n == 1 { "1 random order".to_owned() } else { format!("{n} random orders") };
    match results.plan.sweeps.get(sweep as usize).map(|s| &s.kind) {
        Some(SweepKind::Greedy { .. }) => "in each round all that are left".to_owned(),
        Some(SweepKind::Path { order, .. }) => match order {
            Order::Greedy => "greedy's order",
            Order::Importance => "one order, by Δ alone",
            Order::Gradient => "one order, by gradient importance",
            Order::Rollout => "one order, by attention rollout",
        }
        .to_owned(),
        Some(SweepKind::Random { orders, .. }) => format!("a sample of {}", many(*orders)),
        Some(SweepKind::Matched { orders, .. }) => {
            format!("a sample of {}, matched per layer to greedy", many(*orders))
        }
        Some(SweepKind::Patterns { .. }) => "examples that the spec names".to_owned(),
        Some(&SweepKind::Joint { groups, triples, .. }) => {
            let [some, more] = followed(results, sweep, [groups, triples]).map(|n| count(n as usize));
            let mut parts = Vec::new();
            if groups > 0 {
                parts.push(format!("{some} groups (at most {groups} a task)"));
            }
            if triples > 0 {
                let from = STRONGEST.max(triples as usize);
                parts.push(format!(
                    "{more} triples (at most {triples} a task, made of its {from} strongest pairs)"
                ));
            }
            format!("chosen from resolved pairs: {}", parts.join(", "))
        }
        _ => "all".to_owned(),
    }
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
