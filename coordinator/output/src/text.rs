//! The headline: the findings as aligned text for a terminal.

use crate::analyse::{Analysis, Group, Relation, analyse};
use crate::facts;
use crate::results::Results;
use ablate_common::units::UnitKind;
use std::fmt::Write as _;

/// The ten most important heads, the ten most redundant pairs and what is retained at 79 %, per task.
#[must_use]
pub fn headline(results: &Results) -> String {
    headline_analysed(results, &analyse(results))
}

/// [`headline`] with an analysis made before.
#[must_use]
pub fn headline_analysed(results: &Results, analysis: &Analysis) -> String {
    let mut out = String::new();
    for g in &analysis.groups {
        if !out.is_empty() {
            out.push('\n');
        }
        // Writing to a String can't fail.
        let _ = group(&mut out, results, g);
    }
    out
}

/// Four significant digits, or a short exponent.
pub fn short(v: f64) -> String {
    let a = v.abs();
    if !v.is_finite() {
        "n/a".into()
    } else if a == 0.0 {
        "0".into()
    } else if (1e-3..1e5).contains(&a) {
        let digits = (3 - a.log10().floor() as i32).clamp(0, 6) as usize;
        format!("{v:.digits$}")
    } else {
        format!("{v:.2e}")
    }
}

/// [`short`] with its sign.
pub fn signed(v: f64) -> String {
    if v > 0.0 { format!("+{}", short(v)) } else { short(v) }
}

fn interval(low: f64, high: f64) -> String {
    format!("[{}, {}]", signed(low), signed(high))
}

fn group(out: &mut String, results: &Results, g: &Group) -> std::fmt::Result {
    let metric = g.metric.name();
    let unit = match g.unit {
        UnitKind::Head => String::new(),
        unit => format!(" of {}", unit.plural()),
    };
    write!(out, "{} ({metric}, {} ablation{unit}): {} with every head", g.name, g.method, short(g.baseline))?;
    match g.floor {
        Some((floor, _)) => writeln!(out, ", {} with none; {} examples", short(floor), g.examples)?,
        None => writeln!(out, "; {} examples", g.examples)?,
    }
    let heads = facts::top_heads(g, 10);
    if !heads.is_empty() {
        let title = format!("Most important {}", g.unit.plural());
        writeln!(out, "  {title:<26} Δ {metric:<12} 95 % interval           q")?;
        for (k, h) in heads.iter().enumerate() {
            let ci = interval(h.delta.low, h.delta.high);
            let (name, q) = (g.name_of(h.ix).to_owned(), short(h.q));
            writeln!(out, "  {:>3}. {name:<20} {:>10}   {ci:<24}  {q}", k + 1, signed(h.delta.value))?;
        }
    }
    if !g.pairs.is_empty() {
        let pairs = facts::top_pairs(g, 10);
        writeln!(
            out,
            "  {} of {} pairs redundant, {} overlapping (q ≤ 0.05)",
            facts::count(g, Relation::Redundant),
            g.pairs.len(),
            facts::count(g, Relation::Overlapping)
        )?;
        if !pairs.is_empty() {
            writeln!(
                out,
                "  Most redundant pairs       interaction      95 % interval           q         relation"
            )?;
        }
        for (k, p) in pairs.iter().enumerate() {
            let ci = interval(p.interaction.low, p.interaction.high);
            let (name, q) = (format!("{} + {}", g.name_of(p.a), g.name_of(p.b)), short(p.q));
            writeln!(
                out,
                "  {:>3}. {name:<20} {:>10}   {ci:<24}  {q:<8}  {}",
                k + 1,
                signed(p.interaction.value),
                p.relation.name()
            )?;
        }
    }
    for c in g.conditional.iter().filter(|c| !c.pairs.is_empty()) {
        writeln!(
            out,
            "  With {} removed (Δ {}): {} of {} pairs redundant, {} overlapping (q ≤ 0.05)",
            c.short,
            signed(c.delta.value),
            c.count(Relation::Redundant),
            c.pairs.len(),
            c.count(Relation::Overlapping)
        )?;
    }
    for family in facts::families(g) {
        for c in &family.named {
            match (c.at(0.79), c.retained_at(0.79)) {
                (_, Some((removed, r))) => {
                    write!(
                        out,
                        "  Retained without {removed} of {} heads (79 %), {}: {:.1} %",
                        c.heads,
                        c.order,
                        100.0 * r
                    )?;
                    for (kind, orders) in family.shuffles() {
                        let Some((m, low, high)) = facts::random_retained(orders, 0.79) else { continue };
                        write!(
                            out,
                            " ({}: median {:.1} %, {:.1} to {:.1} %)",
                            kind.plural(),
                            100.0 * m,
                            100.0 * low,
                            100.0 * high
                        )?;
                    }
                    writeln!(out)?;
                }
                (Some(p), None) => {
                    let ratio = p.ratio.map_or_else(String::new, |r| format!(", {:.1} % of it", 100.0 * r));
                    writeln!(
                        out,
                        "  Retained without {} of {} heads (79 %), {}: {metric} {} of {}{ratio}; no share above the floor, as removing every head ({}) isn't measurably worse",
                        p.removed,
                        c.heads,
                        c.order,
                        short(p.value),
                        short(c.start),
                        short(c.floor)
                    )?;
                }
                (None, None) => writeln!(out, "  Retained at 79 %, {}: the curve doesn't reach it", c.order)?,
            }
        }
    }
    for w in facts::warnings(results, g) {
        writeln!(out, "  Note: {w}")?;
    }
    Ok(())
}
