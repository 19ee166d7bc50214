//! Self-repair and activation shift of one task under one ablation, and units removed in groups.

use super::draw::{Scale, Svg, Type, interval, number, signed, tick_labels, tip};
use super::forest::{Forest, Row, forest};
use super::scatter::{Dot, Plot, scatter};
use super::{Table, rounded};
use crate::analyse::{Group, RESOLVED};
use crate::repair::RepairRow;
use crate::shift::ShiftRow;
use ablate_common::head::Stream;
use ablate_common::units::UnitIx;
use serde_json::json;
use std::collections::BTreeMap;

/// A drawing with what it finds.
pub type Drawn = (String, String);
/// A drawing with what it finds and its numbers.
pub type Counted = (String, String, Table);

/// What comes of a unit's direct effect behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    MadeUpFor,
    Amplified,
    Turned,
}

impl Behind {
    /// By size, not by the sign of the difference: where removing a unit helps, that too can be made up for.
    fn of(r: &RepairRow) -> Self {
        if r.direct * r.total < 0.0 {
            Self::Turned
        } else if r.total.abs() < r.direct.abs() {
            Self::MadeUpFor
        } else {
            Self::Amplified
        }
    }

    fn said(self) -> &'static str {
        match self {
            Self::MadeUpFor => "made up for in part",
            Self::Amplified => "amplified",
            Self::Turned => "its sign turned",
        }
    }
}

/// Direct effect against the whole one.
pub fn repair(g: &Group, metric: &str, title: &str) -> Option<Drawn> {
    let dots: Vec<Dot> = g
        .repair
        .iter()
        .map(|r| Dot {
            name: g.name_of(r.ix).to_owned(),
            x: [r.direct, f64::NAN, f64::NAN],
            // The interval is that of the difference, drawn around the whole effect.
            y: [r.total, r.direct - r.repair.high, r.direct - r.repair.low],
            strong: r.q <= RESOLVED,
            tip: format!(
                "{}\ndirect {}, whole {}: {}\ndifference {} {} 95 %",
                g.name_of(r.ix),
                signed(r.direct),
                signed(r.total),
                if r.q <= RESOLVED { Behind::of(r).said() } else { "unresolved" },
                signed(r.repair.value),
                interval(r.repair.low, r.repair.high)
            ),
        })
        .collect();
    let resolved = |kind: Behind| g.repair.iter().filter(move |r| r.q <= RESOLVED && Behind::of(r) == kind);
    let mut finding = format!(
        "What comes behind makes up for the effect of {} of {} {}, amplifies that of {} and turns the sign of {} (q ≤ 0.05).",
        resolved(Behind::MadeUpFor).count(),
        g.repair.len(),
        g.unit.plural(),
        resolved(Behind::Amplified).count(),
        resolved(Behind::Turned).count()
    );
    let gone = |r: &RepairRow| r.direct.abs() - r.total.abs();
    if let Some(most) = resolved(Behind::MadeUpFor).max_by(|a, b| gone(a).total_cmp(&gone(b))) {
        finding.push_str(&format!(
            " Most is made up for {}: directly {}, in the end {}, difference {} {}.",
            g.name_of(most.ix),
            signed(most.direct),
            signed(most.total),
            signed(most.repair.value),
            interval(most.repair.low, most.repair.high)
        ));
    }
    let (x, y) = (format!("direct Δ {metric}, downstream frozen"), format!("whole Δ {metric}"));
    let label = format!("{title}: self-repair. {finding}");
    let plot =
        Plot { x: &x, y: &y, equal: true, note: String::new(), colour: "var(--c4)", names: 6, label: &label };
    Some((scatter(&plot, &dots)?, finding))
}

/// Most groups or triples that are drawn.
const MOST: usize = 16;

/// Joint deltas of groups beside the sums of their units' own.
pub fn groups(g: &Group, metric: &str, title: &str) -> Option<Counted> {
    let names = |units: &[UnitIx]| units.iter().map(|u| g.name_of(*u)).collect::<Vec<_>>().join(" ");
    let mut listed: Vec<_> = g.groups.iter().collect();
    listed.sort_by(|a, b| b.interaction.value.total_cmp(&a.interaction.value).then(a.units.cmp(&b.units)));
    let first = listed.first()?;
    let super_additive =
        listed.iter().filter(|r| r.interaction_q <= RESOLVED && r.interaction.value > 0.0).count();
    let finding = format!(
        "{} together cost {}, alone they add up to {}; {super_additive} of {} groups cost measurably more than their sum.",
        names(&first.units),
        signed(first.delta.value),
        signed(first.sum_alone),
        listed.len()
    );
    listed.truncate(MOST);
    let rows: Vec<Row> = listed
        .iter()
        .map(|r| Row {
            name: names(&r.units),
            value: [r.delta.value, r.delta.low, r.delta.high],
            colour: if r.delta.value < 0.0 { "var(--down)" } else { "var(--up)" },
            filled: r.interaction_q <= RESOLVED,
            beside: Some(r.sum_alone),
            tip: format!(
                "{}\ntogether {} {} 95 %\nalone, added up {}\npairs predict {}\ninteraction {} {}",
                names(&r.units),
                signed(r.delta.value),
                interval(r.delta.low, r.delta.high),
                signed(r.sum_alone),
                signed(r.sum_pairs),
                signed(r.interaction.value),
                interval(r.interaction.low, r.interaction.high)
            ),
        })
        .collect();
    let mut table = Table::new(&[
        "units",
        "delta",
        "ci_low",
        "ci_high",
        "sum_alone",
        "sum_pairs",
        "interaction",
        "interaction_low",
        "interaction_high",
        "interaction_q",
    ]);
    for r in &listed {
        let (d, i) = (&r.delta, &r.interaction);
        let numbers = [d.value, d.low, d.high, r.sum_alone, r.sum_pairs, i.value, i.low, i.high];
        let mut row = vec![json!(names(&r.units))];
        row.extend(numbers.map(|v| rounded(v, 6)));
        row.push(rounded(r.interaction_q, 4));
        table.rows.push(row);
    }
    let axis = format!("Δ {metric} of the whole group");
    let label = format!("{title}: redundancy groups. {finding}");
    let beside = Some("sum of Δ alone");
    let set = Forest {
        axis: &axis,
        beside,
        span: (0.0, 0.0),
        within: super::forest::ALL,
        width: 980.0,
        label: &label,
    };
    Some((forest(&set, &rows), finding, table))
}

/// Third-order interactions.
pub fn triples(g: &Group, metric: &str, title: &str) -> Option<Counted> {
    let mut listed: Vec<_> = g.triples.iter().filter(|r| r.interaction.value.is_finite()).collect();
    listed.sort_by(|a, b| {
        b.interaction.value.abs().total_cmp(&a.interaction.value.abs()).then(a.units.cmp(&b.units))
    });
    let first = *listed.first()?;
    let resolved = listed.iter().filter(|r| r.q <= RESOLVED).count();
    let names = |units: &[UnitIx]| units.iter().map(|u| g.name_of(*u)).collect::<Vec<_>>().join(" ");
    let finding = format!(
        "{resolved} of {} triples have an interaction of their own (q ≤ 0.05); the largest is {}: {}.",
        listed.len(),
        names(&first.units),
        signed(first.interaction.value)
    );
    listed.truncate(MOST);
    let rows: Vec<Row> = listed
        .iter()
        .map(|r| Row {
            name: names(&r.units),
            value: [r.interaction.value, r.interaction.low, r.interaction.high],
            colour: if r.interaction.value < 0.0 { "var(--down)" } else { "var(--up)" },
            filled: r.q <= RESOLVED,
            beside: None,
            tip: format!(
                "{}\nthird-order interaction {} {} 95 %\nΔ together {}",
                names(&r.units),
                signed(r.interaction.value),
                interval(r.interaction.low, r.interaction.high),
                signed(r.delta)
            ),
        })
        .collect();
    let mut table = Table::new(&["units", "delta", "interaction", "ci_low", "ci_high", "q_value"]);
    for r in &listed {
        let i = &r.interaction;
        let mut row = vec![json!(names(&r.units))];
        row.extend([r.delta, i.value, i.low, i.high].map(|v| rounded(v, 6)));
        row.push(rounded(r.q, 4));
        table.rows.push(row);
    }
    let axis = format!("third-order interaction ({metric})");
    let label = format!("{title}: triples. {finding}");
    let set = Forest {
        axis: &axis,
        beside: None,
        span: (0.0, 0.0),
        within: super::forest::ALL,
        width: 500.0,
        label: &label,
    };
    Some((forest(&set, &rows), finding, table))
}

/// The largest effects of one half of the documents, on the other half.
pub fn selected(g: &Group, metric: &str, title: &str) -> Option<Counted> {
    let units: Vec<_> = g.selected.iter().filter(|r| r.b.is_none() && r.effect.value.is_finite()).collect();
    if units.len() < 2 {
        return None;
    }
    let sum = |f: &dyn Fn(&crate::selected::SelectedRow) -> f64| units.iter().map(|r| f(r)).sum::<f64>();
    let (chosen, left) = (sum(&|r| r.effect_select), sum(&|r| r.effect.value));
    let sure = units.iter().filter(|r| r.effect.low > 0.0).count();
    let finding = format!(
        "On documents that had no part in their choice, the first {} keep {:.0} % of their effect; {sure} of them are above 0 beyond their intervals.",
        units.len(),
        100.0 * left / chosen
    );
    let rows: Vec<Row> = units
        .iter()
        .map(|r| Row {
            name: g.name_of(r.a).to_owned(),
            value: [r.effect.value, r.effect.low, r.effect.high],
            colour: if r.effect.value < 0.0 { "var(--down)" } else { "var(--up)" },
            filled: r.effect.low > 0.0,
            beside: Some(r.effect_select),
            tip: format!(
                "{}, chosen as number {}\non the half that chose {}\non the other {} {} 95 %",
                g.name_of(r.a),
                r.rank,
                signed(r.effect_select),
                signed(r.effect.value),
                interval(r.effect.low, r.effect.high)
            ),
        })
        .collect();
    let mut table = Table::new(&["rank", "name", "effect_select", "effect", "ci_low", "ci_high"]);
    for r in &units {
        let mut row = vec![json!(r.rank), json!(g.name_of(r.a))];
        row.extend([r.effect_select, r.effect.value, r.effect.low, r.effect.high].map(|v| rounded(v, 6)));
        table.rows.push(row);
    }
    let axis = format!("Δ {metric}");
    let label = format!("{title}: the largest effects measured again. {finding}");
    let beside = Some("on the half of the documents that chose");
    let set = Forest {
        axis: &axis,
        beside,
        span: (0.0, 0.0),
        within: super::forest::ALL,
        width: 500.0,
        label: &label,
    };
    Some((forest(&set, &rows), finding, table))
}

const LEFT: f64 = 58.0;
const RIGHT: f64 = 96.0;
const TOP: f64 = 24.0;
const WIDTH: f64 = 980.0;
const DEEP: f64 = 230.0;

/// Norms of the residual stream without units by those of the whole model, a panel for each stream.
pub fn shift(g: &Group, title: &str) -> Option<Drawn> {
    let mut panels: BTreeMap<Stream, BTreeMap<Option<UnitIx>, Vec<&ShiftRow>>> = BTreeMap::new();
    for r in g.shift.iter().filter(|r| r.ratio.is_finite()) {
        panels.entry(r.at_stream).or_default().entry(r.ix).or_default().push(r);
    }
    if panels.is_empty() {
        return None;
    }
    let far = |r: &ShiftRow| r.ratio.max(1e-9).log2().abs();
    let single = g.shift.iter().filter(|r| r.ix.is_some() && r.ratio.is_finite());
    let worst = single.max_by(|a, b| far(a).total_cmp(&far(b)));
    let mut flagged: Vec<UnitIx> = g.shift.iter().filter(|r| r.moved()).filter_map(|r| r.ix).collect();
    flagged.sort_unstable();
    flagged.dedup();
    let mut finding = if flagged.is_empty() {
        format!(
            "Removing one of the {} leaves the residual stream's size within a factor of 2 everywhere.",
            g.unit.plural()
        )
    } else {
        format!(
            "Removing one of {} {} changes the residual stream's size by a factor of 2 or more somewhere: their deltas may show a model off its distribution.",
            flagged.len(),
            g.unit.plural()
        )
    };
    if let Some(r) = worst.and_then(|r| Some((g.name_of(r.ix?), r))) {
        finding.push_str(&format!(
            " Furthest goes {} (× {} after {} layers).",
            r.0,
            number(r.1.ratio),
            r.1.at_layer
        ));
    }
    let mut svg = Svg::new(WIDTH, panels.len() as f64 * (DEEP + 62.0) + 4.0);
    let several = panels.len() > 1;
    for (k, (stream, lines)) in panels.iter().enumerate() {
        panel(&mut svg, g, TOP + k as f64 * (DEEP + 62.0), several.then_some(*stream), lines);
    }
    Some((svg.finish(&format!("{title}: activation shift. {finding}")), finding))
}

fn panel(
    svg: &mut Svg,
    g: &Group,
    top: f64,
    stream: Option<Stream>,
    lines: &BTreeMap<Option<UnitIx>, Vec<&ShiftRow>>,
) {
    let log = |r: &ShiftRow| r.ratio.max(1e-6).log2();
    let all = || lines.values().flatten().map(|r| log(r));
    let (low, high) = (all().fold(-1.1, f64::min).max(-6.0), all().fold(1.1, f64::max).min(6.0));
    let last = lines.values().flatten().map(|r| r.at_layer).max().unwrap_or(1);
    let x = Scale::new((0.0, f64::from(last.max(1))), (LEFT, WIDTH - RIGHT));
    let y = Scale::new((low, high), (top + DEEP, top));
    for k in low.ceil() as i32..=high.floor() as i32 {
        let at = y.at(f64::from(k));
        let limit = k.abs() == 1;
        let more = if limit { "stroke-dasharray=\"3 3\"" } else { "" };
        svg.line([LEFT, at, WIDTH - RIGHT, at], if limit { "var(--c5)" } else { "var(--grid)" }, 1.0, more);
        let label = if k < 0 { format!("× 1/{}", 1 << -k) } else { format!("× {}", 1 << k) };
        svg.text(LEFT - 8.0, at + 4.0, &label, Type::SMALL.end());
    }
    let ticks: Vec<f64> = x.ticks(10).into_iter().filter(|t| t.fract() == 0.0).collect();
    for (t, label) in ticks.iter().zip(tick_labels(&ticks)) {
        svg.text(x.at(*t), top + DEEP + 17.0, &label, Type::SMALL.middle());
    }
    svg.text((LEFT + WIDTH - RIGHT) / 2.0, top + DEEP + 34.0, "layers done", Type::SMALL.middle());
    let name = stream.map_or_else(String::new, |s| format!(" ({})", s.name()));
    svg.text(LEFT - 50.0, top - 10.0, &format!("size of the residual stream{name}"), Type::SMALL);
    let far = |rows: &[&ShiftRow]| rows.iter().map(|r| log(r).abs()).fold(0.0, f64::max);
    let mut units: Vec<(UnitIx, &Vec<&ShiftRow>)> =
        lines.iter().filter_map(|(ix, rows)| Some(((*ix)?, rows))).collect();
    units.sort_by(|a, b| far(b.1).total_cmp(&far(a.1)).then(a.0.cmp(&b.0)));
    let points = |rows: &[&ShiftRow]| -> Vec<(f64, f64)> {
        rows.iter().map(|r| (x.at(f64::from(r.at_layer)), y.within(log(r)))).collect()
    };
    let told = |name: &str, rows: &[&ShiftRow]| {
        let worst = rows.iter().max_by(|a, b| log(a).abs().total_cmp(&log(b).abs()));
        worst.map_or_else(String::new, |r| {
            format!(
                "{name} removed\nfurthest after {} layers: × {}\nmean norm {} → {}, of one sequence up to × {}",
                r.at_layer,
                number(r.ratio),
                number(r.unablated),
                number(r.norm),
                number(r.largest)
            )
        })
    };
    let put = |svg: &mut Svg, name: &str, rows: &[&ShiftRow], colour: &str, wide: f64| {
        svg.open(&format!("class=\"m\" {}", tip(&told(name, rows))));
        svg.polyline(&points(rows), "transparent", 9.0, "");
        svg.polyline(&points(rows), colour, wide, "class=\"edge\"");
        svg.close();
    };
    // The units that hardly change anything are one faint line each, without words.
    for (_, rows) in units.iter().skip(24) {
        svg.polyline(&points(rows), "var(--c0)", 0.5, "stroke-opacity=\"0.35\"");
    }
    for (ix, rows) in units.iter().take(24).rev() {
        let strong = rows.iter().any(|r| r.moved());
        put(
            svg,
            g.name_of(*ix),
            rows,
            if strong { "var(--c2)" } else { "var(--c0)" },
            if strong { 1.8 } else { 1.0 },
        );
    }
    if let Some(rows) = lines.get(&None) {
        put(svg, "every head", rows, "var(--ink)", 2.4);
    }
    let mut ends: Vec<(f64, String, &'static str)> = Vec::new();
    if let Some(r) = lines.get(&None).and_then(|rows| rows.last()) {
        ends.push((y.within(log(r)), "every head".into(), "var(--ink)"));
    }
    for (ix, rows) in units.iter().take(3) {
        if let Some(r) = rows.last() {
            let strong = rows.iter().any(|r| r.moved());
            ends.push((
                y.within(log(r)),
                g.name_of(*ix).into(),
                if strong { "var(--c2)" } else { "var(--soft)" },
            ));
        }
    }
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut free = f64::NEG_INFINITY;
    for (at, name, colour) in ends {
        let place = at.max(free + 15.0);
        free = place;
        svg.text(WIDTH - RIGHT + 8.0, place + 4.0, &name, Type::SMALL.bold().fill(colour));
    }
}
