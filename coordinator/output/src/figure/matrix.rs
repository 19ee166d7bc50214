//! Every pair: a matrix of interactions in forward order, or by clusters with their tree.

use super::cluster::{Tree, average};
use super::draw::{Svg, Type, px};
use super::heat::legend;
use super::{ink, raster};
use crate::analyse::{Group, Relation};
use std::fmt::Write as _;

/// Most units whose pairs are drawn one by one; above it a pixel stands for several.
const MOST: usize = 1200;
/// Most units that are clustered.
const MOST_CLUSTERED: usize = 3000;

/// A drawn matrix.
#[derive(Debug)]
pub struct Matrix {
    /// The drawing.
    pub svg: String,
    /// Units along both sides, in the order drawn.
    pub order: Vec<usize>,
}

/// The units that have pairs, the interactions among them (row-major, NaN on the diagonal and where unknown),
/// and the same only where resolved.
#[derive(Debug)]
pub struct Square {
    /// Units, ascending.
    pub units: Vec<usize>,
    all: Vec<f64>,
    resolved: Vec<f64>,
    most: f64,
}

impl Square {
    /// The pairs of a group; none where it has no pairs.
    pub fn of(g: &Group) -> Option<Self> {
        let mut units: Vec<usize> = g.pairs.iter().flat_map(|p| [p.a.at(), p.b.at()]).collect();
        units.sort_unstable();
        units.dedup();
        if units.is_empty() || units.len() > 20_000 {
            return None;
        }
        let n = units.len();
        let at = |u: usize| units.binary_search(&u).unwrap_or(0);
        let (mut all, mut resolved) = (vec![f64::NAN; n * n], vec![f64::NAN; n * n]);
        let mut most = 0.0f64;
        for p in &g.pairs {
            let (a, b, v) = (at(p.a.at()), at(p.b.at()), p.interaction.value);
            for place in [a * n + b, b * n + a] {
                all[place] = v;
                if p.relation != Relation::Unresolved {
                    resolved[place] = v;
                }
            }
            if v.is_finite() {
                most = most.max(v.abs());
            }
        }
        Some(Self { units, all, resolved, most })
    }

    /// The tree of its units by average linkage on the interaction; none where they are too many.
    pub fn tree(&self) -> Option<Tree> {
        let n = self.units.len();
        (2..=MOST_CLUSTERED).contains(&n).then(|| average(n, &self.all))
    }
}

const SIDE: f64 = 640.0;
const LEFT: f64 = 104.0;
const TOP: f64 = 22.0;
/// Most units whose names stand beside the matrix.
const NAMED: usize = 44;

/// Draws the matrix: by `tree` where there is one, else in forward order.
///
/// # Errors
/// Where the image can't be encoded.
pub fn matrix(g: &Group, square: &Square, tree: Option<&Tree>, label: &str) -> anyhow::Result<Matrix> {
    let n = square.units.len();
    let order: Vec<usize> = tree.map_or_else(|| (0..n).collect(), |t| t.order.clone());
    let (image, pixels) = image(square, &order)?;
    let cell = SIDE / n as f64;
    // Forward order has the names on the left, where the tree is otherwise.
    let names = if tree.is_some() && n <= NAMED { 118.0 } else { 16.0 };
    let mut svg = Svg::new(LEFT + SIDE + names, TOP + SIDE + 84.0);
    svg.raw(&format!(
        "<image x=\"{}\" y=\"{}\" width=\"{SIDE}\" height=\"{SIDE}\" preserveAspectRatio=\"none\" image-rendering=\"{}\" style=\"image-rendering:{}\" href=\"{}\" data-plte=\"{}\"/>",
        px(LEFT),
        px(TOP),
        "optimizeSpeed",
        if pixels < n { "auto" } else { "pixelated" },
        image.light,
        image.dark
    ));
    svg.rect([LEFT, TOP, SIDE, SIDE], "none", "stroke=\"var(--line)\"");
    strips(&mut svg, g, square, &order, cell);
    match tree {
        Some(tree) => {
            dendrogram(&mut svg, tree, n, cell, square.most);
            for (k, &unit) in order.iter().enumerate().filter(|_| n <= NAMED) {
                svg.text(LEFT + SIDE + 10.0, middle(cell, k), &name(g, square, unit), Type::SMALL);
            }
        }
        None => layers(&mut svg, g, square, cell),
    }
    svg.text(LEFT + SIDE, TOP - 9.0, "above the diagonal: every pair", Type::SMALL.end());
    svg.text(LEFT, TOP + SIDE + 24.0, "below it: those resolved at q ≤ 0.05", Type::SMALL);
    legend(
        &mut svg,
        [LEFT + SIDE - 232.0, TOP + SIDE + 20.0],
        square.most,
        &["overlapping", "redundant"],
        "I",
    );
    layer_key(&mut svg, g, [LEFT, TOP + SIDE + 42.0]);
    svg.rect(
        [LEFT, TOP, SIDE, SIDE],
        "transparent",
        &format!("class=\"pane\" data-box=\"{} {} {SIDE} {n}\"", px(LEFT), px(TOP)),
    );
    let order = order.iter().map(|&k| square.units[k]).collect();
    Ok(Matrix { svg: svg.finish(label), order })
}

/// The pixels, above the diagonal every pair, below it the resolved; the side in pixels.
fn image(square: &Square, order: &[usize]) -> anyhow::Result<(raster::Steps, usize)> {
    let n = order.len();
    let side = n.min(MOST);
    let mut strongest = vec![f64::NAN; side * side];
    for (row, &a) in order.iter().enumerate() {
        for (column, &b) in order.iter().enumerate() {
            let from = if column > row { &square.all } else { &square.resolved };
            let v = from[a * n + b];
            let place = &mut strongest[row * side / n * side + column * side / n];
            if place.is_nan() || v.abs() > place.abs() {
                *place = v;
            }
        }
    }
    let steps: Vec<Option<i32>> = strongest.iter().map(|&v| ink::step(v, square.most)).collect();
    Ok((raster::steps(side as u32, side as u32, &steps)?, side))
}

fn share(g: &Group, unit: usize) -> Option<f64> {
    let last = g.places.iter().filter_map(|p| p.layer).max()?.max(1);
    Some(f64::from(g.places.get(unit)?.layer?) / f64::from(last))
}

/// A strip along the upper and the left side that shows each unit's layer.
fn strips(svg: &mut Svg, g: &Group, square: &Square, order: &[usize], cell: f64) {
    let colour = |k: usize| share(g, square.units[order[k]]).map(ink::sequential);
    let mut from = 0;
    while from < order.len() {
        let own = colour(from);
        let to = (from..order.len()).find(|&k| colour(k) != own).unwrap_or(order.len());
        if let Some(own) = own {
            let (at, long) = (cell * from as f64, cell * (to - from) as f64 + 0.2);
            svg.rect([LEFT + at, TOP - 5.0, long, 4.0], &own, "");
            svg.rect([LEFT - 5.0, TOP + at, 4.0, long], &own, "");
        }
        from = to;
    }
}

fn layer_key(svg: &mut Svg, g: &Group, [x, y]: [f64; 2]) {
    let Some(last) = g.places.iter().filter_map(|p| p.layer).max().filter(|l| *l > 0) else { return };
    svg.text(x, y + 9.0, "layer 0", Type::SMALL);
    for k in 0..=ink::STEPS {
        svg.rect([x + 46.0 + 7.0 * k as f64, y, 7.4, 9.0], &format!("var(--s{k})"), "");
    }
    svg.text(x + 46.0 + 7.0 * (ink::STEPS + 1) as f64 + 6.0, y + 9.0, &last.to_string(), Type::SMALL);
}

/// Where the words of a row stand.
fn middle(cell: f64, row: usize) -> f64 {
    TOP + cell * (row as f64 + 0.5) + 4.0
}

fn name(g: &Group, square: &Square, unit: usize) -> String {
    let place = square.units.get(unit).and_then(|&u| g.places.get(u));
    super::draw::cut(place.map_or("", |p| p.name.as_str()), 16)
}

/// Labels and lines between layers.
fn layers(svg: &mut Svg, g: &Group, square: &Square, cell: f64) {
    let place = |k: usize| g.places.get(square.units[k]);
    let key = |k: usize| place(k).map(|p| (p.stream, p.layer));
    let n = square.units.len();
    if n <= NAMED {
        for k in 0..n {
            svg.text(LEFT - 10.0, middle(cell, k), &name(g, square, k), Type::SMALL.end());
        }
        return;
    }
    let starts: Vec<usize> = (0..n).filter(|&k| k == 0 || key(k) != key(k - 1)).collect();
    let mut free = f64::NEG_INFINITY;
    for (at, &k) in starts.iter().enumerate() {
        let end = starts.get(at + 1).copied().unwrap_or(n);
        let (y, middle) = (TOP + cell * k as f64, TOP + cell * (k + end) as f64 / 2.0);
        if k > 0 {
            svg.line([LEFT - 9.0, y, LEFT - 6.0, y], "var(--line)", 1.0, "");
        }
        if middle - free >= 13.0 {
            let Some(p) = place(k) else { continue };
            let stream = p.stream.filter(|s| s.name() != "self").map_or("", |s| s.name());
            let label = format!("{stream} L{}", p.layer.unwrap_or(0));
            svg.text(LEFT - 11.0, middle + 4.0, label.trim(), Type::SMALL.end());
            free = middle;
        }
    }
}

/// The tree on the left, its joins the further out the weaker they are.
fn dendrogram(svg: &mut Svg, tree: &Tree, n: usize, cell: f64, most: f64) {
    let mut place = vec![(0.0, 0.0); n + tree.joins.len()];
    for (k, &leaf) in tree.order.iter().enumerate() {
        place[leaf] = (LEFT - 7.0, TOP + cell * (k as f64 + 0.5));
    }
    // Signed square roots, as the colours are: from the strongest interaction to the weakest join.
    let root = |v: f64| if most > 0.0 { (v.abs() / most).min(1.0).sqrt() * v.signum() } else { 0.0 };
    let weakest = tree.joins.iter().map(|j| root(j.2)).fold(0.0, f64::min);
    let out = |v: f64| LEFT - 10.0 - (LEFT - 22.0) * (1.0 - root(v)) / (1.0 - weakest).max(1e-9);
    let mut d = String::new();
    for (k, (a, b, v)) in tree.joins.iter().enumerate() {
        let ((ax, ay), (bx, by), x) = (place[*a], place[*b], out(*v));
        let _ = write!(d, "M{} {}H{}V{}H{}", px(ax), px(ay), px(x), px(by), px(bx));
        place[n + k] = (x, (ay + by) / 2.0);
    }
    svg.path(&d, "fill=\"none\" stroke=\"var(--faint)\" stroke-width=\"0.7\"");
}
