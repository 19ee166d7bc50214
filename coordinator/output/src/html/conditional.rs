//! Interactions given a base, beside those of the whole model.

use crate::analyse::{Group, PairRow, Relation};
use crate::conditional::{Conditional, without};
use crate::figure::draw::{count, escape, interval, q_value, signed};
use std::fmt::Write as _;

/// Pairs that the page lists of each base.
const LISTED: usize = 12;

/// What the table of a base is linked to by: that of the base at `k` in the group at `group`.
pub fn id(group: usize, k: usize) -> String {
    format!("g{group}-given-{k}")
}

/// A table of the strongest pairs for each base; nothing where no sweep asks for them. `at` is the group's place.
pub fn tables(out: &mut String, at: usize, g: &Group) -> anyhow::Result<()> {
    for (k, c) in g.conditional.iter().enumerate().filter(|(_, c)| !c.pairs.is_empty()) {
        table(out, &id(at, k), g, c)?;
    }
    Ok(())
}

fn table(out: &mut String, id: &str, g: &Group, c: &Conditional) -> anyhow::Result<()> {
    let rows = c.strongest(LISTED);
    let both = rows.iter().any(|p| without(g, p).is_some());
    let beside = if both { "<th class=\"r\">I of the whole model</th><th>relation there</th>" } else { "" };
    write!(
        out,
        "<div class=\"wide\" id=\"{id}\"><table><caption title=\"{}\">Strongest interactions with {} already removed (Δ {} alone, 95 % interval {}); Δ of one is what it costs beyond that. {}</caption>\
         <thead><tr><th>pair</th><th class=\"r\">Δ of the first</th><th class=\"r\">Δ of the second</th><th class=\"r\">I, given {}</th><th class=\"r\">95 % interval</th><th class=\"r\">q</th><th>relation</th>{beside}</tr></thead><tbody>",
        escape(&c.base),
        escape(&c.short),
        signed(c.delta.value),
        interval(c.delta.low, c.delta.high),
        escape(&counted(c)),
        escape(&c.short)
    )?;
    for p in rows {
        let i = &p.interaction;
        write!(
            out,
            "<tr><td>{} + {}</td><td class=\"r\">{}</td><td class=\"r\">{}</td><td class=\"r\">{}</td><td class=\"r\">{}</td><td class=\"r\">{}</td><td>{}</td>",
            escape(g.name_of(p.a)),
            escape(g.name_of(p.b)),
            signed(p.delta_a),
            signed(p.delta_b),
            signed(i.value),
            interval(i.low, i.high),
            q_value(p.q),
            p.relation.name()
        )?;
        match without(g, p) {
            Some(w) => write!(
                out,
                "<td class=\"r\">{}</td><td>{}</td>",
                signed(w.interaction.value),
                w.relation.name()
            )?,
            None if both => write!(out, "<td class=\"r\">n/a</td><td>n/a</td>")?,
            None => {}
        }
        write!(out, "</tr>")?;
    }
    writeln!(out, "</tbody></table></div>")?;
    Ok(())
}

/// How many pairs are what.
pub fn counted(c: &Conditional) -> String {
    format!(
        "Of {} pairs, {} are redundant and {} overlap (q ≤ 0.05).",
        count(c.pairs.len()),
        count(c.count(Relation::Redundant)),
        count(c.count(Relation::Overlapping))
    )
}

/// What the strongest pair of a base is, in words: a lead and its numbers.
pub fn words(g: &Group, c: &Conditional) -> Option<(String, String)> {
    let first = *c.strongest(1).first()?;
    let (a, b, base) = (g.name_of(first.a), g.name_of(first.b), &c.short);
    let lead = match first.relation {
        Relation::Redundant => format!("With {base} gone, {a} and {b} stand in for each other."),
        Relation::Overlapping => format!("With {base} gone, {a} and {b} overlap."),
        Relation::Unresolved => format!("With {base} gone, no two interact measurably."),
    };
    let mut text = format!("Removing {base} alone costs {}. {}", signed(c.delta.value), counted(c));
    if first.relation != Relation::Unresolved {
        text.push_str(&strongest(g, base, first));
    }
    Some((lead, text))
}

/// The numbers of the strongest pair, beside those that it has in the whole model.
fn strongest(g: &Group, base: &str, p: &PairRow) -> String {
    let i = &p.interaction;
    let given = format!(" Interaction {} {}", signed(i.value), interval(i.low, i.high));
    match without(g, p) {
        Some(w) => {
            format!("{given}; with {base} in place {}, {}.", signed(w.interaction.value), w.relation.name())
        }
        None => format!("{given}."),
    }
}
