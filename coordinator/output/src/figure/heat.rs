//! Every unit alone: layers across, heads down, coloured by Δ; what isn't resolved is drawn small.

use super::draw::{Svg, Type, number, q_value, signed, tip};
use super::ink;
use crate::analyse::{Group, HeadRow, RESOLVED};
use ablate_common::head::Stream;
use std::collections::BTreeMap;

/// Where units of a group stand on a grid: a panel for each stream, layers across, units of a layer down.
#[derive(Debug)]
pub struct Grid {
    /// Panels: stream, layers, rows.
    pub panels: Vec<(Stream, u32, u32)>,
    /// For each unit (panel, layer, row).
    pub cells: Vec<Option<(usize, u32, u32)>>,
}

impl Grid {
    /// The grid of a group; none for sets and whole layers.
    pub fn of(g: &Group) -> Option<Self> {
        let place = |p: &ablate_common::units::Place| p.head.and(p.stream.zip(p.layer));
        let places: Vec<(Stream, u32)> = g.places.iter().map(place).collect::<Option<_>>()?;
        (!places.is_empty()).then(|| Self::of_heads(places.into_iter()))
    }

    /// The grid of units of these streams and layers, those of a layer one below the other.
    pub fn of_heads(places: impl Iterator<Item = (Stream, u32)>) -> Self {
        let mut panels: Vec<(Stream, u32, u32)> = Vec::new();
        let mut rows = BTreeMap::<(Stream, u32), u32>::new();
        let mut cells = Vec::new();
        for (stream, layer) in places {
            let row = rows.entry((stream, layer)).or_insert(0);
            let panel = panels.iter().position(|q| q.0 == stream).unwrap_or_else(|| {
                panels.push((stream, 0, 0));
                panels.len() - 1
            });
            panels[panel].1 = panels[panel].1.max(layer + 1);
            panels[panel].2 = panels[panel].2.max(*row + 1);
            cells.push(Some((panel, layer, *row)));
            *row += 1;
        }
        Self { panels, cells }
    }

    /// The side of a cell, so that the widest panel takes about `width`.
    pub fn side(&self, width: f64, most: f64) -> f64 {
        let layers = self.panels.iter().map(|p| p.1).max().unwrap_or(1);
        (width / f64::from(layers.max(1))).clamp(9.0, most).floor()
    }
}

/// What a head's mark tells.
pub fn told(g: &Group, h: &HeadRow, rank: Option<usize>) -> String {
    let d = &h.delta;
    let name = g.name_of(h.ix);
    let metric = super::of_group::metric(g);
    let mut s = format!(
        "{name}\nΔ {} [{}, {}] 95 %\n{metric} {} → {}\nq {}",
        signed(d.value),
        signed(d.low),
        signed(d.high),
        number(g.baseline),
        number(h.value),
        q_value(h.q)
    );
    if let Some(rank) = rank {
        s.push_str(&format!(", {rank} of {}", g.heads.len()));
    }
    s
}

/// Places of the units by falling Δ, from 1.
pub fn ranks(g: &Group) -> BTreeMap<u32, usize> {
    let mut order: Vec<&HeadRow> = g.heads.iter().filter(|h| !h.delta.value.is_nan()).collect();
    order.sort_by(|a, b| b.delta.value.total_cmp(&a.delta.value).then(a.ix.cmp(&b.ix)));
    order.iter().zip(1..).map(|(h, rank)| (h.ix.0, rank)).collect()
}

const LEFT: f64 = 46.0;
const TOP: f64 = 8.0;

/// Draws the map; none for units that have no grid.
pub fn heat(g: &Group, label: &str) -> Option<String> {
    let grid = Grid::of(g)?;
    let side = grid.side(930.0, 34.0);
    let most = g.heads.iter().map(|h| h.delta.value.abs()).filter(|v| v.is_finite()).fold(0.0, f64::max);
    let layers = grid.panels.iter().map(|p| p.1).max().unwrap_or(1);
    let width = (LEFT + side * f64::from(layers) + 12.0).max(430.0);
    let named = grid.panels.len() > 1;
    let mut tops = Vec::new();
    let mut y = TOP;
    for panel in &grid.panels {
        if named {
            y += 20.0;
        }
        tops.push(y);
        y += side * f64::from(panel.2) + 24.0;
    }
    let mut svg = Svg::new(width, y + 66.0);
    for (panel, top) in grid.panels.iter().zip(&tops) {
        axes(&mut svg, panel, *top, side, named);
    }
    let ranks = ranks(g);
    for h in &g.heads {
        let Some((panel, layer, row)) = grid.cells.get(h.ix.at()).copied().flatten() else { continue };
        let (x, y) = (LEFT + side * f64::from(layer), tops[panel] + side * f64::from(row));
        cell(&mut svg, g, h, [x, y, side], most, ranks.get(&h.ix.0).copied());
    }
    svg.text(LEFT + side * f64::from(layers) / 2.0, y + 7.0, "layer", Type::SMALL.middle());
    legend(&mut svg, [LEFT, y + 24.0], most, &["removal helps", "removal hurts"], "Δ");
    let x = LEFT + 262.0;
    svg.rect([x, y + 24.0, 13.0, 13.0], "var(--hp7)", "rx=\"2\"");
    svg.text(x + 19.0, y + 35.0, "q ≤ 0.05", Type::SMALL);
    svg.rect([x + 84.0, y + 27.0, 7.0, 7.0], "var(--hp7)", "rx=\"1.5\"");
    svg.text(x + 97.0, y + 35.0, "not", Type::SMALL);
    Some(svg.finish(label))
}

fn axes(svg: &mut Svg, panel: &(Stream, u32, u32), top: f64, side: f64, named: bool) {
    let (stream, layers, rows) = *panel;
    if named {
        let title = match stream {
            Stream::SelfAttention => "self-attention",
            Stream::Encoder => "encoder self-attention",
            Stream::Decoder => "decoder self-attention",
            Stream::Cross => "cross-attention",
        };
        svg.text(LEFT, top - 7.0, title, Type::NAME.bold());
    }
    let every = |n: u32| if side * f64::from(n) < 15.0 * f64::from(n) { 5 } else { 1 };
    for layer in (0..layers).filter(|l| l % if side < 22.0 { every(layers) } else { 1 } == 0) {
        let x = LEFT + side * (f64::from(layer) + 0.5);
        svg.text(x, top + side * f64::from(rows) + 14.0, &layer.to_string(), Type::SMALL.middle());
    }
    for row in (0..rows).filter(|r| r % every(rows) == 0) {
        let label = if row == 0 { "H0".to_owned() } else { row.to_string() };
        svg.text(LEFT - 8.0, top + side * (f64::from(row) + 0.5) + 4.0, &label, Type::SMALL.end());
    }
}

fn cell(svg: &mut Svg, g: &Group, h: &HeadRow, [x, y, side]: [f64; 3], most: f64, rank: Option<usize>) {
    let gap = (side * 0.06).clamp(0.5, 1.5);
    let full = side - 2.0 * gap;
    let Some(step) = ink::step(h.delta.value, most) else {
        let tell = tip(&told(g, h, None));
        svg.rect(
            [x + gap, y + gap, full, full],
            "none",
            &format!("class=\"m\" stroke=\"var(--line)\" {tell}"),
        );
        return;
    };
    let resolved = h.q <= RESOLVED;
    svg.open(&format!("class=\"m\" {}", tip(&told(g, h, rank))));
    svg.rect([x + gap, y + gap, full, full], "var(--panel)", "rx=\"2\"");
    let size = if resolved { full } else { full * 0.52 };
    let at = (side - size) / 2.0;
    svg.rect([x + at, y + at, size, size], &ink::diverging(step), "rx=\"2\"");
    if let Some(rank) = rank.filter(|&r| r <= 5 && resolved && side >= 18.0) {
        let set = Type::NAME.bold().middle().size((side * 0.46).min(13.0)).fill(ink::text_on(step));
        svg.text(x + side / 2.0, y + side / 2.0 + side * 0.165, &rank.to_string(), set);
    }
    svg.close();
}

/// The bar of a diverging scale with its ends said in words: 240 wide, 34 high.
pub fn legend(svg: &mut Svg, [x, y]: [f64; 2], most: f64, ends: &[&str; 2], what: &str) {
    let (steps, wide) = (2 * ink::STEPS + 1, 230.0);
    for k in 0..steps {
        let step = k as i32 - ink::STEPS as i32;
        let w = wide / steps as f64;
        svg.rect([x + w * k as f64, y, w + 0.4, 9.0], &ink::diverging(step), "");
    }
    let places = [(0.0, -most), (0.5, 0.0), (1.0, most)];
    for (share, value) in places {
        let set = match share {
            0.0 => Type::SMALL.size(10.0),
            1.0 => Type::SMALL.size(10.0).end(),
            _ => Type::SMALL.size(10.0).middle(),
        };
        let text = if share == 0.5 { format!("{what} 0") } else { signed(value) };
        svg.text(x + wide * share, y + 21.0, &text, set);
    }
    svg.text(x, y + 35.0, &format!("← {}", ends[0]), Type::SMALL.size(10.5).fill("var(--down)"));
    svg.text(x + wide, y + 35.0, &format!("{} →", ends[1]), Type::SMALL.size(10.5).end().fill("var(--up)"));
}
