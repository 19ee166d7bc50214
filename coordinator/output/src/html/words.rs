//! The findings as sentences. Plain text: the page escapes it.

use crate::analyse::{Group, Relation};
use crate::facts;
use crate::text::{short, signed};
use ablate_common::units::UnitKind;

/// What the numbers of a group say, most important first.
pub fn findings(g: &Group) -> Vec<String> {
    let mut out = Vec::new();
    if let Some((floor, delta)) = g.floor {
        out.push(format!(
            "With every head in place, {} is {}; with all of them replaced ({} ablation) it is {} (Δ {}, 95 % interval {} to {}).",
            g.metric.name(), short(g.baseline), g.method, short(floor), signed(delta.value), signed(delta.low), signed(delta.high)
        ));
    }
    let top = facts::top_heads(g, 3);
    if let Some(first) = top.first() {
        let (hurts, helps) = facts::resolved_heads(g);
        let mut s = format!(
            "The most important {} is {}: without it {} gets worse by {} (95 % interval {} to {}).",
            singular(g.unit),
            g.name_of(first.ix),
            g.metric.name(),
            short(first.delta.value),
            signed(first.delta.low),
            signed(first.delta.high)
        );
        let next: Vec<String> =
            top[1..].iter().map(|h| format!("{} ({})", g.name_of(h.ix), signed(h.delta.value))).collect();
        if !next.is_empty() {
            s.push_str(&format!(" Next come {}.", next.join(" and ")));
        }
        out.push(s);
        out.push(format!(
            "Of {} {}, removing one alone measurably hurts for {hurts} and helps for {helps} (q ≤ 0.05); for the other {} no effect is resolved.",
            g.heads.len(), g.unit.plural(), g.heads.len() - hurts - helps
        ));
    }
    if !g.pairs.is_empty() {
        let (redundant, overlapping) =
            (facts::count(g, Relation::Redundant), facts::count(g, Relation::Overlapping));
        let mut s = format!(
            "Of {} pairs{}, {redundant} are redundant (losing both costs more than the sum) and {overlapping} overlap (losing both costs less), at q ≤ 0.05.",
            g.pairs.len(),
            if g.unit == UnitKind::Head { String::new() } else { format!(" of {}", g.unit.plural()) }
        );
        if let Some(p) = facts::redundant_pairs(g, 1).first() {
            s.push_str(&format!(
                " The most redundant is {} with {}: together {}, alone {} and {}.",
                g.name_of(p.a),
                g.name_of(p.b),
                signed(p.delta_ab),
                signed(p.delta_a),
                signed(p.delta_b)
            ));
        }
        out.push(s);
    }
    for (_, orders, random) in facts::families(g) {
        let Some(c) = orders.iter().find(|c| c.order == "greedy") else { continue };
        let Some((removed, r)) = c.retained_at(0.79) else {
            if let Some(p) = c.at(0.79) {
                out.push(format!(
                    "Greedy pruning for {} takes out {} of {} heads (79 %): {} goes from {} to {}. What is retained can't be told, as {} with no head at all isn't measurably worse.",
                    c.objective, p.removed, c.heads, g.metric.name(), short(c.start), short(p.value), short(c.floor)
                ));
            }
            continue;
        };
        let on = if c.half.is_some() { ", on examples that it didn't select on" } else { "" };
        let mut s = format!(
            "Greedy pruning for {} takes out {removed} of {} heads (79 %) and retains {:.1} % of what the heads add{on}.",
            c.objective,
            c.heads,
            100.0 * r
        );
        if let Some((median, low, high)) = facts::random_retained(&random, 0.79) {
            s.push_str(&format!(
                " {} random orders retain {:.1} % (median; {:.1} to {:.1} %).",
                random.len(),
                100.0 * median,
                100.0 * low,
                100.0 * high
            ));
        }
        if let Some(k) = c.largest(0.95) {
            s.push_str(&format!(" At least 95 % is retained up to {:.0} % of the heads removed.", 100.0 * k));
        }
        out.push(s);
    }
    out
}

fn singular(unit: UnitKind) -> &'static str {
    match unit {
        UnitKind::Head => "head",
        UnitKind::KvGroup => "KV group",
        UnitKind::Layer => "layer",
        UnitKind::Set => "set",
    }
}
