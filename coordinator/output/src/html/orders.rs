//! What the orders of pruning come to, in a few numbers.

use crate::analyse::Group;
use crate::facts;
use crate::figure::draw::{escape, number, percent, percent_within};
use crate::orders::{OrderRow, orders};
use ablate_common::plan::Shuffle;
use std::fmt::Write as _;

/// A table for each family of curves: a row for each order with a name, and one for the random orders of each kind, without which
/// no order can be judged. Nothing where what is retained isn't given.
pub fn tables(out: &mut String, g: &Group) -> anyhow::Result<()> {
    let rows = orders(g);
    for family in facts::families(g) {
        let listed: Vec<&OrderRow> =
            rows.iter().filter(|r| r.greedy == family.greedy && !is_one_of_many(r)).collect();
        if !listed.is_empty() && !family.flagged() {
            table(out, g, &listed)?;
        }
    }
    Ok(())
}

/// Whether it is one of the random orders: they have a row together.
fn is_one_of_many(r: &OrderRow) -> bool {
    Shuffle::of(&r.order).is_some_and(|kind| r.order != kind.name())
}

fn table(out: &mut String, g: &Group, rows: &[&OrderRow]) -> anyhow::Result<()> {
    let random = |r: &OrderRow| Shuffle::of(&r.order).is_some();
    let whole = rows.iter().any(|r| r.cpr.is_some());
    let aim = rows.iter().map(|r| r.objective.as_str()).find(|o| !o.is_empty() && *o != g.name);
    let mut caption = aim.map_or_else(String::new, |a| format!("Greedy for {a}. "));
    caption.push_str("In brackets 95 % intervals");
    if rows.iter().any(|r| random(r)) {
        caption.push_str("; of random orders, whose medians are given, the middle 95 % of them");
    }
    caption.push('.');
    if whole {
        caption.push_str(
            " CPR and CMD are those of MIB: the area under what is retained, and that between it and 1.",
        );
    }
    write!(
        out,
        "<div class=\"wide\"><table><caption>{}</caption><thead><tr><th>order</th>",
        escape(&caption)
    )?;
    let mut titles =
        vec!["retained at 79 %", "≥ 99 % up to", "≥ 95 % up to", "≥ 90 % up to", "mean retained"];
    if whole {
        titles.extend(["CPR", "CMD"]);
    }
    for title in titles {
        write!(out, "<th class=\"r\">{title}</th>")?;
    }
    write!(out, "</tr></thead><tbody>")?;
    for r in rows {
        let name = if random(r) { format!("{}, {} orders", r.order, r.orders) } else { r.order.clone() };
        write!(out, "<tr><td>{}</td>", escape(&name))?;
        for cell in cells(r, whole) {
            write!(out, "<td class=\"r\">{}</td>", cell.unwrap_or_else(|| "n/a".to_owned()))?;
        }
        write!(out, "</tr>")?;
    }
    writeln!(out, "</tbody></table></div>")?;
    Ok(())
}

/// The numbers of an order; none where one isn't known.
fn cells(r: &OrderRow, whole: bool) -> Vec<Option<String>> {
    let of_area = r.area_low.zip(r.area_high);
    let mut out = vec![
        r.r_079.map(|v| percent_within(v, r.r_079_low.zip(r.r_079_high))),
        r.largest_99.map(percent),
        r.largest_95.map(percent),
        r.largest_90.map(percent),
        r.area.map(|v| percent_within(v, of_area)),
    ];
    if whole {
        // Over all κ the area and CPR are one number, and so is their interval.
        let within =
            of_area.map_or_else(String::new, |(low, high)| format!(" [{}, {}]", number(low), number(high)));
        out.push(r.cpr.map(|v| format!("{}{within}", number(v))));
        out.push(r.cmd.map(number));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyse::analyse;
    use crate::tests::experiment;
    use crate::tests::matched::with_matched;

    fn said(g: &Group) -> String {
        let mut out = String::new();
        tables(&mut out, g).unwrap();
        out
    }

    #[test]
    fn orders_stand_beside_the_random_ones_of_each_kind_with_intervals() {
        let a = analyse(&with_matched(experiment(2, 4, 30, true)));
        for g in &a.groups {
            let text = said(g);
            let rows: Vec<&str> = text.split("<tr>").skip(2).collect();
            assert_eq!(rows.len(), 4, "{text}");
            for (row, name) in
                rows.iter().zip(["greedy", "importance", "random, 20 orders", "matched, 20 orders"])
            {
                assert!(row.starts_with(&format!("<td>{name}</td>")), "{row}");
                // What is retained at 79 %, and on the way there.
                assert_eq!(row.matches(" %]").count(), 2, "{row}");
            }
            let all = orders(g);
            let random = all.iter().find(|r| r.order == "random").unwrap();
            let within = random.r_079_low.zip(random.r_079_high);
            assert!(rows[2].contains(&percent_within(random.r_079.unwrap(), within)), "{text}");
            assert!(text.contains("the middle 95 % of them") && !text.contains("CPR"), "{text}");
            assert_eq!(text.contains("<caption>Greedy for ioi. In brackets"), g.name == "news");
        }
    }

    #[test]
    fn where_every_head_goes_there_are_cpr_and_cmd() {
        let mut g = analyse(&experiment(2, 4, 30, true)).groups[0].clone();
        // As if those that are left weren't there.
        g.curves.iter_mut().for_each(|c| c.heads = c.last);
        let text = said(&g);
        let greedy = &orders(&g)[0];
        let (cpr, cmd) = (number(greedy.cpr.unwrap()), number(greedy.cmd.unwrap()));
        assert!(text.contains("<th class=\"r\">CPR</th><th class=\"r\">CMD</th>"), "{text}");
        assert!(text.contains(&format!("<td class=\"r\">{cpr} [")), "{text}");
        assert!(text.contains(&format!("]</td><td class=\"r\">{cmd}</td></tr>")), "{text}");
        // Random orders alone have a row too, and of what isn't told there is no table.
        g.curves.retain(|c| c.order.starts_with("random"));
        assert_eq!(said(&g).matches("<tr>").count(), 2);
        g.curves.iter_mut().for_each(|c| c.flagged = true);
        assert!(said(&g).is_empty());
    }
}
