//! The findings as sentences. Plain text: the page escapes it.

use super::conditional;
use crate::analyse::{Group, Relation};
use crate::facts;
use crate::figure::draw::{count, interval, number, percent, percent_within, signed};
use crate::figure::{Figure, of_group};
use ablate_common::units::UnitKind;

/// One finding.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What was found, short.
    pub lead: String,
    /// The numbers.
    pub text: String,
    /// What shows it.
    pub shown: Shown,
}

/// What shows a finding.
#[derive(Clone, Copy, Debug)]
pub enum Shown {
    /// A kind of figure, as in the beginning of its name.
    Figure(&'static str),
    /// The table of the pairs of a base, by its place in the group.
    Given(usize),
}

fn finding(figure: &'static str, lead: String, text: String) -> Finding {
    Finding { lead, text, shown: Shown::Figure(figure) }
}

/// The figure of a kind in a group.
pub fn shown_by<'a>(figures: &'a [Figure], group: usize, kind: &str) -> Option<&'a Figure> {
    figures
        .iter()
        .find(|f| f.group == Some(group) && (f.name == kind || f.name.starts_with(&format!("{kind}-"))))
}

/// What the numbers of a group say, most important first.
pub fn findings(g: &Group) -> Vec<Finding> {
    let mut out = Vec::new();
    out.extend(most_important(g));
    out.extend(resolved(g));
    out.extend(pairs(g));
    for (k, c) in g.conditional.iter().enumerate() {
        let said = conditional::words(g, c);
        out.extend(said.map(|(lead, text)| Finding { lead, text, shown: Shown::Given(k) }));
    }
    out.extend(curves(g));
    out.extend(whole(g));
    out
}

fn most_important(g: &Group) -> Option<Finding> {
    let top = facts::top_heads(g, 3);
    let first = top.first()?;
    let d = &first.delta;
    let sure = first.q <= crate::analyse::RESOLVED;
    let lead = if sure {
        format!("{} matters most.", g.name_of(first.ix))
    } else if facts::resolved_heads(g) != (0, 0) {
        format!("{} costs most, though that isn't resolved.", g.name_of(first.ix))
    } else {
        format!("No {} matters measurably; {} comes first.", of_group::one(g.unit), g.name_of(first.ix))
    };
    let mut text = format!(
        "Without it the {} goes from {} to {}: Δ {}, 95 % interval {} to {}.",
        of_group::metric(g),
        number(g.baseline),
        number(first.value),
        signed(d.value),
        signed(d.low),
        signed(d.high)
    );
    let next: Vec<String> =
        top[1..].iter().map(|h| format!("{} ({})", g.name_of(h.ix), signed(h.delta.value))).collect();
    if !next.is_empty() {
        text.push_str(&format!(" Next come {}.", next.join(" and ")));
    }
    let figure = if matches!(g.unit, UnitKind::Head | UnitKind::KvGroup) { "heads" } else { "top" };
    Some(finding(figure, lead, text))
}

fn resolved(g: &Group) -> Option<Finding> {
    if g.heads.is_empty() {
        return None;
    }
    let (hurts, helps) = facts::resolved_heads(g);
    let n = g.heads.len();
    if hurts + helps == 0 {
        return None;
    }
    let lead = format!(
        "{} of {} {} {} a measurable effect alone.",
        count(hurts + helps),
        count(n),
        g.unit.plural(),
        if hurts + helps == 1 { "has" } else { "have" }
    );
    let text = format!(
        "Removing one hurts for {hurts} and helps for {helps}, at a false discovery rate of 5 %; for the other {} nothing is resolved with {} examples.",
        count(n - hurts - helps),
        count(g.examples)
    );
    let figure = if matches!(g.unit, UnitKind::Head | UnitKind::KvGroup) { "heads" } else { "top" };
    Some(finding(figure, lead, text))
}

fn pairs(g: &Group) -> Option<Finding> {
    if g.pairs.is_empty() {
        return None;
    }
    let (redundant, overlapping) =
        (facts::count(g, Relation::Redundant), facts::count(g, Relation::Overlapping));
    let of = if g.unit == UnitKind::Head { String::new() } else { format!(" of {}", g.unit.plural()) };
    if redundant + overlapping == 0 {
        let text = format!(
            "None of {} pairs{of} costs measurably more or less than the sum of its two, at q ≤ 0.05 with {} examples.",
            count(g.pairs.len()),
            count(g.examples)
        );
        return Some(finding("pairs", "No two stand in for each other measurably.".into(), text));
    }
    let all = format!(
        "Of {} pairs{of}, {} are redundant (losing both costs more than the sum) and {} overlap (it costs less), at q ≤ 0.05.",
        count(g.pairs.len()),
        count(redundant),
        count(overlapping)
    );
    Some(match facts::redundant_pairs(g, 1).first() {
        Some(p) => finding(
            "pairs",
            format!("{} and {} stand in for each other.", g.name_of(p.a), g.name_of(p.b)),
            format!(
                "Together they cost {}, alone {} and {}: interaction {} {}. {all}",
                signed(p.delta_ab),
                signed(p.delta_a),
                signed(p.delta_b),
                signed(p.interaction.value),
                interval(p.interaction.low, p.interaction.high)
            ),
        ),
        None => finding("pairs", "No pair is measurably redundant.".into(), all),
    })
}

fn curves(g: &Group) -> Vec<Finding> {
    let mut out = Vec::new();
    for family in facts::families(g) {
        let Some(c) = family.named.iter().find(|c| c.order == "greedy") else { continue };
        let aim = if c.objective == g.name { String::new() } else { format!(" for {}", c.objective) };
        let Some(p) = c.at(0.79) else { continue };
        let Some(r) = p.retained else {
            out.push(finding(
                "curve",
                format!("What pruning{aim} retains can't be told."),
                format!(
                    "Greedy pruning takes out {} of {} heads (79 %): {} goes from {} to {}. With no head at all it is {}, which isn't measurably worse.",
                    p.removed, c.heads, of_group::metric(g), number(c.start), number(p.value), number(c.floor)
                ),
            ));
            continue;
        };
        let on = if c.half.is_some() { ", on examples that it didn't select on" } else { "" };
        // How much is left is for the reader to judge: it may be next to nothing, or below the floor.
        let lead = format!(
            "Without 79 % of the heads, {} is retained.",
            percent_within(r, p.retained_low.zip(p.retained_high))
        );
        let mut text = format!("Greedy pruning{aim} takes out {} of {} heads{on}.", p.removed, c.heads);
        for (kind, orders) in family.shuffles() {
            let Some((median, low, high)) = facts::random_retained(orders, 0.79) else { continue };
            text.push_str(&format!(
                " {} {} retain {} (median; {} to {}).",
                orders.len(),
                kind.plural(),
                percent(median),
                percent(low),
                percent(high)
            ));
        }
        if let Some(k) = c.largest(0.95) {
            text.push_str(&format!(
                " At least 95 % is retained up to {:.0} % of the heads removed.",
                100.0 * k
            ));
        }
        out.push(finding("curve", lead, text));
    }
    out
}

fn whole(g: &Group) -> Option<Finding> {
    let (floor, delta) = g.floor.as_ref()?;
    let lead = if delta.low > 0.0 {
        format!("All heads together are worth {} of {}.", signed(delta.value), of_group::metric(g))
    } else {
        "All heads together add nothing measurable.".to_owned()
    };
    let text = format!(
        "With every head in place it is {}; with all replaced ({} ablation) {}: Δ {}, 95 % interval {} to {}.",
        number(g.baseline),
        g.method,
        number(*floor),
        signed(delta.value),
        signed(delta.low),
        signed(delta.high)
    );
    Some(finding("heads", lead, text))
}
