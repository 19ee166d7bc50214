//! Two scores of every unit against each other, with the intervals of both.

use super::draw::{Scale, Svg, Type, tick_labels, tip};

/// One unit.
#[derive(Clone, Debug)]
pub struct Dot {
    /// Its name.
    pub name: String,
    /// Across: value, low, high; the interval may be NaN.
    pub x: [f64; 3],
    /// Up: the same.
    pub y: [f64; 3],
    /// Whether it is drawn in colour.
    pub strong: bool,
    /// What it tells.
    pub tip: String,
}

/// How a chart is set.
#[derive(Clone, Debug)]
pub struct Plot<'a> {
    /// What goes across.
    pub x: &'a str,
    /// What goes up.
    pub y: &'a str,
    /// Whether the line of equal values is drawn.
    pub equal: bool,
    /// A remark in the upper left corner.
    pub note: String,
    /// Colour of the strong.
    pub colour: &'static str,
    /// Most names that are written.
    pub names: usize,
    /// In words.
    pub label: &'a str,
}

const WIDTH: f64 = 464.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 66.0;
const FOOT: f64 = 50.0;
const TOP: f64 = 24.0;

/// Draws the dots; none where fewer than three are known.
pub fn scatter(set: &Plot<'_>, dots: &[Dot]) -> Option<String> {
    let known: Vec<&Dot> = dots.iter().filter(|d| d.x[0].is_finite() && d.y[0].is_finite()).collect();
    if known.len() < 3 {
        return None;
    }
    let span = |of: fn(&Dot) -> f64| {
        let low = known.iter().map(|d| of(d)).fold(0.0, f64::min);
        let high = known.iter().map(|d| of(d)).fold(0.0, f64::max);
        let pad = (high - low).max(1e-12) * 0.06;
        (low - pad, high + pad)
    };
    let x = Scale::new(span(|d| d.x[0]), (LEFT, WIDTH - 16.0));
    let y = Scale::new(span(|d| d.y[0]), (HEIGHT - FOOT, TOP));
    let mut svg = Svg::new(WIDTH, HEIGHT);
    let ticks = x.ticks(5);
    for (t, label) in ticks.iter().zip(tick_labels(&ticks)) {
        let zero = t.abs() < 1e-12;
        let at = x.at(*t);
        svg.line([at, TOP, at, HEIGHT - FOOT], if zero { "var(--line)" } else { "var(--grid)" }, 1.0, "");
        svg.text(at, HEIGHT - FOOT + 16.0, &label, Type::SMALL.middle());
    }
    let ticks = y.ticks(5);
    for (t, label) in ticks.iter().zip(tick_labels(&ticks)) {
        let zero = t.abs() < 1e-12;
        let at = y.at(*t);
        svg.line([LEFT, at, WIDTH - 16.0, at], if zero { "var(--line)" } else { "var(--grid)" }, 1.0, "");
        svg.text(LEFT - 8.0, at + 4.0, &label, Type::SMALL.end());
    }
    svg.text((LEFT + WIDTH) / 2.0, HEIGHT - 12.0, set.x, Type::SMALL.middle());
    svg.text(8.0, TOP - 10.0, set.y, Type::SMALL);
    if set.equal {
        let low = span(|d| d.x[0]).0.max(span(|d| d.y[0]).0);
        let high = span(|d| d.x[0]).1.min(span(|d| d.y[0]).1);
        svg.line(
            [x.at(low), y.at(low), x.at(high), y.at(high)],
            "var(--faint)",
            1.0,
            "stroke-dasharray=\"4 4\"",
        );
    }
    // Intervals of all would hide the points: those of the strong ones, or of the furthest where none is.
    let none = !known.iter().any(|d| d.strong);
    let far = |d: &Dot| (x.at(d.x[0]) - x.at(0.0)).hypot(y.at(d.y[0]) - y.at(0.0));
    let mut furthest: Vec<f64> = known.iter().map(|d| far(d)).collect();
    furthest.sort_by(|a, b| b.total_cmp(a));
    let limit = furthest.get(set.names.min(furthest.len() - 1)).copied().unwrap_or(0.0);
    // Strong ones last, so that they lie on top.
    let mut order = known.clone();
    order.sort_by_key(|d| d.strong);
    for d in order {
        let (cx, cy) = (x.at(d.x[0]), y.at(d.y[0]));
        let colour = if d.strong { set.colour } else { "var(--c0)" };
        svg.open(&format!("class=\"m\" {}", tip(&d.tip)));
        let faint = if d.strong { "stroke-opacity=\"0.55\"" } else { "stroke-opacity=\"0.3\"" };
        let barred = d.strong || (none && far(d) > limit);
        if barred && d.x[1].is_finite() && d.x[2].is_finite() {
            svg.line([x.within(d.x[1]), cy, x.within(d.x[2]), cy], colour, 1.0, faint);
        }
        if barred && d.y[1].is_finite() && d.y[2].is_finite() {
            svg.line([cx, y.within(d.y[1]), cx, y.within(d.y[2])], colour, 1.0, faint);
        }
        let fade = if d.strong { "" } else { "fill-opacity=\"0.55\"" };
        svg.circle([cx, cy, if d.strong { 4.2 } else { 2.8 }], colour, fade);
        svg.close();
    }
    let mut named: Vec<&&Dot> = known.iter().filter(|d| d.strong || (none && far(d) > limit)).collect();
    named.sort_by(|a, b| far(b).total_cmp(&far(a)));
    let mut taken: Vec<(f64, f64)> = Vec::new();
    for d in named {
        let (cx, cy) = (x.at(d.x[0]), y.at(d.y[0]));
        if taken.len() < set.names && taken.iter().all(|t| (t.0 - cx).abs() > 46.0 || (t.1 - cy).abs() > 13.0)
        {
            taken.push((cx, cy));
            let left = cx > WIDTH - 70.0;
            let place = Type::SMALL.bold().fill("var(--ink)");
            svg.halo(
                if left { cx - 8.0 } else { cx + 8.0 },
                cy - 5.0,
                &d.name,
                if left { place.end() } else { place },
            );
        }
    }
    if !set.note.is_empty() {
        svg.halo(LEFT + 10.0, TOP + 16.0, &set.note, Type::NAME.bold());
    }
    Some(svg.finish(set.label))
}
