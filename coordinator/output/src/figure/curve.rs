//! Pruning curves with their bands: what is retained as heads go, beside random orders.

use super::draw::{Scale, Svg, Type, count, number, percent, tick_labels, tip};
use super::ink;
use crate::analyse::Group;
use crate::curve::{Curve, Point};
use crate::facts::Family;
use ablate_common::plan::Shuffle;
use ablate_common::stats::bootstrap::quantile;
use std::collections::BTreeMap;

/// Colour of an order, the same in every figure.
pub fn colour(order: &str) -> &'static str {
    match order {
        "greedy" => "var(--c1)",
        "importance" => "var(--c2)",
        "gradient" => "var(--c3)",
        "rollout" => "var(--c4)",
        _ => "var(--c0)",
    }
}

/// Colour of a kind of random orders.
fn shade(kind: Shuffle) -> &'static str {
    match kind {
        Shuffle::Plain => "var(--c0)",
        Shuffle::Matched => "var(--c5)",
    }
}

/// One point to draw: removed, value, interval.
type Drawn = (u32, f64, Option<(f64, f64)>);

impl Family<'_> {
    /// Whether what is retained is withheld, so that the metric itself is drawn.
    pub fn flagged(&self) -> bool {
        self.all().any(|c| c.flagged)
    }

    fn points(&self, c: &Curve) -> Vec<Drawn> {
        let flagged = self.flagged();
        let of = |p: &Point| {
            let (v, ci) = if flagged {
                (p.value, p.value_low.zip(p.value_high))
            } else {
                (p.retained?, p.retained_low.zip(p.retained_high))
            };
            v.is_finite().then_some((p.removed, v, ci))
        };
        c.points.iter().filter_map(of).collect()
    }

    /// The spread of random orders of a kind: removed, 5 %, median, 95 %.
    fn spread(&self, orders: &[&Curve]) -> Vec<[f64; 4]> {
        let mut at = BTreeMap::<u32, Vec<f64>>::new();
        for c in orders {
            for (removed, v, _) in self.points(c) {
                at.entry(removed).or_default().push(v);
            }
        }
        let most = at.values().map(Vec::len).max().unwrap_or(0);
        at.into_iter()
            .filter(|(_, v)| v.len() == most)
            .map(|(removed, mut v)| {
                v.sort_by(f64::total_cmp);
                [f64::from(removed), quantile(&v, 0.05), quantile(&v, 0.5), quantile(&v, 0.95)]
            })
            .collect()
    }

    /// Those of each kind that there is.
    fn spreads(&self) -> Vec<Spread> {
        self.shuffles().into_iter().map(|(kind, orders)| Spread { kind, at: self.spread(orders) }).collect()
    }
}

/// How far the random orders of a kind lie apart, where all of them were evaluated.
struct Spread {
    kind: Shuffle,
    /// Removed, 5 %, median, 95 %.
    at: Vec<[f64; 4]>,
}

const LEFT: f64 = 62.0;
const RIGHT: f64 = 144.0;
const TOP: f64 = 18.0;
const WIDTH: f64 = 980.0;
const HEIGHT: f64 = 460.0;
const FOOT: f64 = 52.0;

/// Draws a family; none where nothing was evaluated.
pub fn curves(g: &Group, family: &Family<'_>, label: &str) -> Option<String> {
    let first = family.all().next()?;
    let named: Vec<(&str, Vec<Drawn>)> =
        family.named.iter().map(|c| (c.order.as_str(), family.points(c))).filter(|c| c.1.len() > 1).collect();
    let spreads = family.spreads();
    if named.is_empty() && spreads.iter().all(|s| s.at.len() < 2) {
        return None;
    }
    let flagged = family.flagged();
    let heads = f64::from(first.heads.max(1));
    let removed = |k: u32| f64::from(k) / heads;
    let last = named.iter().flat_map(|c| c.1.last()).map(|p| removed(p.0));
    let ends = spreads.iter().filter_map(|s| s.at.last()).map(|s| s[0] / heads);
    let last = last.chain(ends).fold(0.1, f64::max);
    let x = Scale::new((0.0, last), (LEFT, WIDTH - RIGHT));
    let y = Scale::new(range(&named, &spreads, flagged), (HEIGHT - FOOT, TOP));
    let mut svg = Svg::new(WIDTH, HEIGHT);
    axes(&mut svg, g, &x, &y, flagged);
    let at = |v: &Drawn| (x.at(removed(v.0)), y.within(v.1));
    for ((kind, orders), spread) in family.shuffles().into_iter().zip(&spreads) {
        let line = |k: usize| -> Vec<(f64, f64)> {
            spread.at.iter().map(|s| (x.at(s[0] / heads), y.within(s[k]))).collect()
        };
        svg.band(&line(3), &line(1), shade(kind), "fill-opacity=\"0.16\"");
        for c in orders {
            let points: Vec<(f64, f64)> = family.points(c).iter().map(at).collect();
            svg.polyline(&points, shade(kind), 0.6, "stroke-opacity=\"0.4\"");
        }
        svg.polyline(&line(2), shade(kind), 1.8, "stroke-dasharray=\"5 4\"");
    }
    for (order, points) in &named {
        let bound = |high: bool| -> Vec<(f64, f64)> {
            let of =
                |p: &Drawn| Some((x.at(removed(p.0)), y.within(p.2.map(|b| if high { b.1 } else { b.0 })?)));
            points.iter().filter_map(of).collect()
        };
        svg.band(&bound(true), &bound(false), colour(order), "fill-opacity=\"0.15\"");
    }
    for (order, points) in named.iter().rev() {
        svg.polyline(&points.iter().map(at).collect::<Vec<_>>(), colour(order), 2.4, "");
    }
    let mut ends: Vec<(f64, f64, String, &'static str)> = named
        .iter()
        .filter_map(|(order, points)| {
            let p = points.last()?;
            let (px, py) = at(p);
            Some((px, py, format!("{order} {}", shown(p.1, flagged)), colour(order)))
        })
        .collect();
    ends.extend(spreads.iter().filter_map(|spread| {
        let s = spread.at.last()?;
        let text = format!("{} {}", spread.kind.name(), shown(s[2], flagged));
        Some((x.at(s[0] / heads), y.within(s[2]), text, shade(spread.kind)))
    }));
    direct(&mut svg, ends, y.within(f64::NEG_INFINITY));
    slices(&mut svg, g, family, &x, &named, &spreads);
    Some(svg.finish(label))
}

fn shown(v: f64, flagged: bool) -> String {
    if flagged { number(v) } else { super::draw::percent(v) }
}

/// The axis: all named curves with their intervals, and random orders as far as they don't flatten those.
fn range(named: &[(&str, Vec<Drawn>)], spreads: &[Spread], flagged: bool) -> (f64, f64) {
    let mut low = if flagged { f64::INFINITY } else { 0.0 };
    let mut high = if flagged { f64::NEG_INFINITY } else { 1.0 };
    let points = named.iter().flat_map(|c| &c.1);
    for (_, v, ci) in points {
        for v in [Some(*v), ci.map(|c| c.0), ci.map(|c| c.1)].into_iter().flatten().filter(|v| v.is_finite())
        {
            (low, high) = (low.min(v), high.max(v));
        }
    }
    for s in spreads.iter().flat_map(|s| &s.at) {
        (low, high) = (low.min(s[1]), high.max(s[3]));
    }
    if !flagged {
        (low, high) = (low.max(-0.6), high.min(1.6));
    }
    let pad = (high - low).max(1e-9) * 0.04;
    (if low < 0.0 || flagged { low - pad } else { low }, high + pad)
}

fn axes(svg: &mut Svg, g: &Group, x: &Scale, y: &Scale, flagged: bool) {
    let ticks = y.ticks(5);
    let labels = if flagged {
        tick_labels(&ticks)
    } else {
        ticks.iter().map(|t| format!("{:.0} %", 100.0 * t).replace('-', "−")).collect()
    };
    for (t, label) in ticks.iter().zip(labels) {
        let at = y.at(*t);
        let strong = !flagged && (t.abs() < 1e-9 || (t - 1.0).abs() < 1e-9);
        svg.line([LEFT, at, WIDTH - RIGHT, at], if strong { "var(--line)" } else { "var(--grid)" }, 1.0, "");
        svg.text(LEFT - 10.0, at + 4.0, &label, Type::SMALL.end());
    }
    for t in x.ticks(8) {
        let at = x.at(t);
        svg.line([at, HEIGHT - FOOT, at, HEIGHT - FOOT + 4.0], "var(--line)", 1.0, "");
        svg.text(at, HEIGHT - FOOT + 18.0, &format!("{:.0} %", 100.0 * t), Type::SMALL.middle());
    }
    if x.at(0.79) <= WIDTH - RIGHT + 0.5 {
        let at = x.at(0.79);
        svg.line([at, TOP, at, HEIGHT - FOOT], "var(--faint)", 1.0, "stroke-dasharray=\"2 3\"");
        svg.text(at - 6.0, TOP + 8.0, "79 %", Type::SMALL.end());
    }
    svg.text((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 12.0, "heads removed", Type::SMALL.middle());
    let name = super::of_group::metric(g);
    let what = if flagged { name } else { format!("{name} retained") };
    svg.text(LEFT - 52.0, TOP - 5.0, &what, Type::SMALL);
}

/// Names at the ends of the lines, moved apart.
fn direct(svg: &mut Svg, mut ends: Vec<(f64, f64, String, &'static str)>, bottom: f64) {
    ends.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut at: Vec<f64> = Vec::new();
    for e in &ends {
        at.push(at.last().map_or(e.1, |l: &f64| e.1.max(l + 17.0)));
    }
    let over = at.last().map_or(0.0, |l| (l - bottom).max(0.0));
    for (e, y) in ends.iter().zip(at) {
        let y = y - over;
        svg.circle([e.0, e.1, 3.4], e.3, "");
        if (y - e.1).abs() > 5.0 {
            svg.line([e.0 + 5.0, e.1, e.0 + 10.0, y], e.3, 0.8, "stroke-opacity=\"0.6\"");
        }
        svg.text(e.0 + 13.0, y + 4.0, &e.2, Type::NAME.bold().fill(ink::text_in(e.3)));
    }
}

/// Upright strips that tell every order's value at that number of heads.
fn slices(
    svg: &mut Svg,
    g: &Group,
    family: &Family<'_>,
    x: &Scale,
    named: &[(&str, Vec<Drawn>)],
    spreads: &[Spread],
) {
    let Some(first) = family.all().next() else { return };
    let (heads, flagged) = (f64::from(first.heads.max(1)), family.flagged());
    let mut all: Vec<u32> = named.iter().flat_map(|c| c.1.iter().map(|p| p.0)).collect();
    all.extend(spreads.iter().flat_map(|s| &s.at).map(|s| s[0] as u32));
    all.sort_unstable();
    all.dedup();
    let step = all.len().div_ceil(100).max(1);
    let stops: Vec<u32> = all.into_iter().step_by(step).collect();
    let at = |removed: u32| x.at(f64::from(removed) / heads);
    for (k, &removed) in stops.iter().enumerate() {
        let edge = |other: Option<&u32>, side: f64| {
            other.map_or(at(removed) + side, |&o| (at(removed) + at(o)) / 2.0)
        };
        let left = edge(k.checked_sub(1).and_then(|k| stops.get(k)), -4.0);
        let right = edge(stops.get(k + 1), 4.0);
        let mut text = format!(
            "{} of {} heads removed ({})",
            count(removed as usize),
            count(first.heads as usize),
            percent(f64::from(removed) / heads)
        );
        for (order, points) in named {
            let Some(p) = points.iter().rev().find(|p| p.0 <= removed) else { continue };
            text.push_str(&format!("\n{order}: {}", shown(p.1, flagged)));
            if let Some((low, high)) = p.2 {
                text.push_str(&format!(" [{}, {}]", shown(low, flagged), shown(high, flagged)));
            }
        }
        for Spread { kind, at } in spreads {
            let Some(s) = at.iter().rev().find(|s| s[0] <= f64::from(removed)) else { continue };
            let [_, low, middle, high] = s.map(|v| shown(v, flagged));
            text.push_str(&format!("\n{}: {middle} ({low} to {high})", kind.name()));
        }
        let gone = family.named.first().and_then(|c| {
            let unit = c.points.iter().find(|p| p.removed == removed)?.unit?;
            Some(format!("\n{} removes {}", c.order, g.name_of(unit)))
        });
        text.push_str(&gone.unwrap_or_default());
        svg.open(&format!("class=\"m slice\" {}", tip(&text)));
        svg.rect([left, TOP, (right - left).max(0.5), HEIGHT - FOOT - TOP], "transparent", "");
        svg.line([at(removed), TOP, at(removed), HEIGHT - FOOT], "none", 1.0, "class=\"hair\"");
        svg.close();
    }
}
