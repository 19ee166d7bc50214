//! The strongest resolved pairs as a graph; heads stand where they do in the model, so that nothing moves between runs.

use super::draw::{Svg, Type, interval, number, px, q_value, signed, tip};
use super::heat::Grid;
use crate::analyse::{Group, PairRow, Relation};
use ablate_common::head::Stream;
use std::collections::BTreeSet;

/// Most edges that are drawn.
pub const EDGES: usize = 60;

/// The edges: the strongest resolved interactions of either sign.
pub fn edges(g: &Group) -> Vec<&PairRow> {
    let mut v: Vec<&PairRow> = g.pairs.iter().filter(|p| p.relation != Relation::Unresolved).collect();
    v.sort_by(|a, b| {
        b.interaction.value.abs().total_cmp(&a.interaction.value.abs()).then((a.a, a.b).cmp(&(b.a, b.b)))
    });
    v.truncate(EDGES);
    v
}

/// What a pair's mark tells.
pub fn told(g: &Group, p: &PairRow) -> String {
    let i = &p.interaction;
    format!(
        "{} + {}\ninteraction {} {} 95 %\nalone {} and {}, together {}\nq {}: {}",
        g.name_of(p.a),
        g.name_of(p.b),
        signed(i.value),
        interval(i.low, i.high),
        signed(p.delta_a),
        signed(p.delta_b),
        signed(p.delta_ab),
        q_value(p.q),
        p.relation.name()
    )
}

const LEFT: f64 = 46.0;

/// Draws the graph; none where no pair is resolved.
pub fn graph(g: &Group, label: &str) -> Option<String> {
    let edges = edges(g);
    if edges.is_empty() {
        return None;
    }
    let grid = Grid::of(g);
    let layers =
        grid.as_ref().map_or(g.places.len() as u32, |g| g.panels.iter().map(|p| p.1).max().unwrap_or(1));
    let step = (920.0 / f64::from(layers.max(1))).clamp(16.0, 120.0);
    let rows = grid.as_ref().map_or(1, |g| g.panels.iter().map(|p| p.2).max().unwrap_or(1));
    let rise = if grid.is_some() { (430.0 / f64::from(rows)).clamp(15.0, 48.0) } else { 0.0 };
    let top = if grid.is_some() { 26.0 } else { 210.0 };
    let mut tops = vec![top];
    if let Some(grid) = &grid {
        tops.clear();
        let mut y = top;
        for p in &grid.panels {
            tops.push(y);
            y += rise * f64::from(p.2) + 34.0;
        }
        tops.push(y - 34.0);
    }
    let bottom = if grid.is_some() { tops.last().copied().unwrap_or(top) } else { top + 24.0 };
    let width = (LEFT + step * f64::from(layers) + 12.0).max(460.0);
    let mut svg = Svg::new(width, bottom + 66.0);
    let place = |unit: usize| -> (f64, f64) {
        match grid.as_ref().map(|g| g.cells.get(unit).copied().flatten()) {
            Some(Some((panel, layer, row))) => {
                (LEFT + step * (f64::from(layer) + 0.5), tops[panel] + rise * (f64::from(row) + 0.5))
            }
            _ => (LEFT + step * (unit as f64 + 0.5), top),
        }
    };
    if let Some(grid) = &grid {
        scaffold(&mut svg, grid, &tops, step, rise);
    }
    svg.text(LEFT + step * f64::from(layers) / 2.0, bottom + 32.0, "layer", Type::SMALL.middle());
    let strongest = edges.first().map_or(1.0, |p| p.interaction.value.abs());
    // The weakest first, so that the strong ones lie on top.
    for p in edges.iter().rev() {
        let (from, to) = (place(p.a.at()), place(p.b.at()));
        let share = (p.interaction.value.abs() / strongest).sqrt();
        let colour = if p.relation == Relation::Redundant { "var(--up)" } else { "var(--down)" };
        let d = arc(from, to, if grid.is_some() { 0.16 } else { 0.45 });
        svg.open(&format!("class=\"m\" {}", tip(&told(g, p))));
        svg.path(&d, "fill=\"none\" stroke=\"transparent\" stroke-width=\"12\"");
        svg.path(
            &d,
            &format!(
                "class=\"edge\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{}\" stroke-opacity=\"{}\" stroke-linecap=\"round\"",
                px(0.8 + 5.2 * share),
                px(0.35 + 0.5 * share)
            ),
        );
        svg.close();
    }
    nodes(&mut svg, g, &edges, &place, grid.is_some());
    key(&mut svg, [LEFT, bottom + 52.0]);
    Some(svg.finish(label))
}

fn key(svg: &mut Svg, [x, y]: [f64; 2]) {
    for (k, (colour, text)) in [("var(--up)", "redundant"), ("var(--down)", "overlapping")].iter().enumerate()
    {
        let x = x + 110.0 * k as f64;
        svg.line([x, y, x + 22.0, y], colour, 3.5, "stroke-linecap=\"round\"");
        svg.text(x + 30.0, y + 4.0, text, Type::SMALL);
    }
    svg.circle([x + 236.0, y, 3.0], "var(--ink)", "");
    svg.circle([x + 248.0, y, 6.0], "var(--ink)", "");
    svg.text(x + 260.0, y + 4.0, "size: |Δ| alone", Type::SMALL);
}

fn scaffold(svg: &mut Svg, grid: &Grid, tops: &[f64], step: f64, rise: f64) {
    for (panel, top) in grid.panels.iter().zip(tops) {
        let (stream, layers, rows) = *panel;
        if grid.panels.len() > 1 {
            let name = if stream == Stream::Cross { "cross-attention" } else { stream.name() };
            svg.text(LEFT, top - 8.0, name, Type::NAME.bold());
        }
        let every = if step < 20.0 { 5 } else { 1 };
        for layer in 0..layers {
            let x = LEFT + step * (f64::from(layer) + 0.5);
            svg.line([x, *top, x, top + rise * f64::from(rows)], "var(--grid)", 1.0, "");
            if layer % every == 0 {
                let y = top + rise * f64::from(rows) + 15.0;
                svg.text(x, y, &layer.to_string(), Type::SMALL.middle());
            }
        }
        for row in (0..rows).step_by(if rows > 16 { 4 } else { 1 }) {
            let label = if row == 0 { "H0".to_owned() } else { row.to_string() };
            svg.text(LEFT - 6.0, top + rise * (f64::from(row) + 0.5) + 4.0, &label, Type::SMALL.end());
        }
    }
}

fn arc((x1, y1): (f64, f64), (x2, y2): (f64, f64), bend: f64) -> String {
    let (dx, dy) = (x2 - x1, y2 - y1);
    // Always to the same side, so that two edges over one line don't cover each other.
    let (cx, cy) = ((x1 + x2) / 2.0 + dy * bend, (y1 + y2) / 2.0 - dx.abs() * bend);
    format!("M{} {}Q{} {} {} {}", px(x1), px(y1), px(cx), px(cy), px(x2), px(y2))
}

fn nodes(svg: &mut Svg, g: &Group, edges: &[&PairRow], place: &dyn Fn(usize) -> (f64, f64), grid: bool) {
    let linked: BTreeSet<usize> = edges.iter().flat_map(|p| [p.a.at(), p.b.at()]).collect();
    let most = g.heads.iter().map(|h| h.delta.value.abs()).filter(|v| v.is_finite()).fold(0.0, f64::max);
    let delta = |unit: usize| g.heads.iter().find(|h| h.ix.at() == unit).map(|h| h.delta.value);
    for unit in 0..g.places.len() {
        let (x, y) = place(unit);
        if !linked.contains(&unit) {
            svg.circle([x, y, 1.6], "var(--line)", "");
        }
    }
    for &unit in &linked {
        let ((x, y), d) = (place(unit), delta(unit).unwrap_or(f64::NAN));
        let share = if most > 0.0 && d.is_finite() { (d.abs() / most).sqrt() } else { 0.0 };
        let of = edges.iter().filter(|p| p.a.at() == unit || p.b.at() == unit).count();
        let name = g.places.get(unit).map_or("", |p| p.name.as_str());
        let told = format!(
            "{name}\nΔ alone {}\n{of} of the drawn pairs",
            if d.is_finite() { signed(d) } else { number(d) }
        );
        svg.open(&format!("class=\"m\" {}", tip(&told)));
        svg.circle([x, y, 2.6 + 5.4 * share], "var(--ink)", "stroke=\"var(--paper)\" stroke-width=\"1.2\"");
        svg.close();
    }
    // The most linked have their names written, where there is room.
    let mut order: Vec<(usize, f64)> = linked
        .iter()
        .map(|&u| {
            let of = edges.iter().filter(|p| p.a.at() == u || p.b.at() == u);
            (u, of.map(|p| p.interaction.value.abs()).sum())
        })
        .collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let mut taken: Vec<(f64, f64)> = Vec::new();
    for (unit, _) in order {
        let (x, y) = place(unit);
        let name = g.places.get(unit).map_or("", |p| p.name.as_str());
        if taken.len() < 24 && taken.iter().all(|t| (t.0 - x).abs() > 44.0 || (t.1 - y).abs() > 12.0) {
            taken.push((x, y));
            svg.halo(
                x,
                if grid { y - 9.0 } else { y + 18.0 },
                name,
                Type::SMALL.bold().middle().fill("var(--ink)"),
            );
        }
    }
}
