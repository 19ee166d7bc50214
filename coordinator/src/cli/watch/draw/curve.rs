//! The metric as heads go: greedy while it goes on, and the other orders.

use super::text::number;
use super::{no_effects, panel, say};
use crate::cli::watch::look::Look;
use crate::cli::watch::state::State;
use ablate_common::plan::Shuffle;
use ablate_proto::v1;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Chart, Dataset, GraphType, Widget};

/// Draws the view.
pub fn draw(area: Rect, buf: &mut Buffer, state: &State, look: Look) {
    panelled(area, buf, state, look);
}

/// Draws the curves in a frame.
pub fn panelled(area: Rect, buf: &mut Buffer, state: &State, look: Look) {
    let title = state.shown().map_or_else(
        || "Pruning curve".to_owned(),
        |g| format!("Pruning curve: {}, {}, {}", g.task, g.metric, g.method),
    );
    let inner = panel(area, buf, &title, look);
    let known: Vec<&v1::LiveCurve> =
        state.shown().into_iter().flat_map(|g| &g.curves).filter(|c| !c.points.is_empty()).collect();
    if known.is_empty() {
        let text = if state.shown().is_some() {
            "No step of a pruning curve is known yet.".to_owned()
        } else {
            no_effects(state)
        };
        return say(inner, buf, &text, look);
    }
    let curves = drawn(&known);
    let words = (curves.len() as u16).min(inner.height.saturating_sub(6));
    let [chart, below] = Layout::vertical([Constraint::Min(1), Constraint::Length(words)]).areas(inner);
    plot(chart, buf, &curves, look);
    for (y, curve) in (below.y..below.bottom()).zip(&curves) {
        let line = Line::from_iter([
            Span::styled(format!("{} {}", curve.mark, curve.name), curve.style(look)),
            Span::raw(format!("  {}", curve.last)),
        ]);
        buf.set_line(below.x, y, &line, below.width);
    }
}

/// A curve as it is drawn.
struct Drawn {
    name: String,
    mark: char,
    /// Its place among the colours; none for random orders.
    color: Option<usize>,
    points: Vec<(f64, f64)>,
    /// Where it ends.
    to: f64,
    /// Its last point in words.
    last: String,
}

impl Drawn {
    fn style(&self, look: Look) -> Style {
        self.color.map_or_else(|| look.dim(), |n| look.curve(n))
    }
}

/// The mark of a kind of random orders.
fn mark_of(kind: Shuffle) -> char {
    match kind {
        Shuffle::Plain => '·',
        Shuffle::Matched => '×',
    }
}

/// Named orders on their own; random ones of each kind as their mean where several are there.
fn drawn(curves: &[&v1::LiveCurve]) -> Vec<Drawn> {
    const MARKS: [char; 5] = ['●', '■', '▲', '◆', '○'];
    let kind_of = |c: &v1::LiveCurve| Shuffle::of(&c.order);
    let mut out = Vec::new();
    for (n, curve) in curves.iter().filter(|c| kind_of(c).is_none()).enumerate() {
        let finite = curve.points.iter().filter(|p| p.value.is_finite());
        let points: Vec<(f64, f64)> = finite.map(|p| (f64::from(p.removed), p.value)).collect();
        let last = curve.points.last().map_or_else(String::new, |p| {
            let unit = if p.unit.is_empty() { String::new() } else { format!(", last {}", p.unit) };
            let kept = p.retained.map_or_else(String::new, |r| format!(", {:.0} % retained", 100.0 * r));
            format!("{} gone: {}{kept}{unit}", p.removed, number(p.value))
        });
        let selecting = if curve.selecting { " (selecting)" } else { "" };
        let (name, mark) = (format!("{}{selecting}", curve.order), MARKS[n % MARKS.len()]);
        out.push(Drawn { name, mark, color: Some(n), points, to: curve.last.into(), last });
    }
    for kind in Shuffle::ALL {
        let random: Vec<&v1::LiveCurve> =
            curves.iter().copied().filter(|c| kind_of(c) == Some(kind)).collect();
        if random.is_empty() {
            continue;
        }
        let mut sums = std::collections::BTreeMap::<u32, (f64, u32)>::new();
        for p in random.iter().flat_map(|c| &c.points).filter(|p| p.value.is_finite()) {
            let slot = sums.entry(p.removed).or_default();
            (slot.0, slot.1) = (slot.0 + p.value, slot.1 + 1);
        }
        let mean = |(&at, &(sum, n)): (&u32, &(f64, u32))| (f64::from(at), sum / f64::from(n));
        let points: Vec<(f64, f64)> = sums.iter().map(mean).collect();
        let to = random.iter().map(|c| c.last).max().unwrap_or(0).into();
        let last = format!("mean of {}", random.len());
        out.push(Drawn { name: kind.name().to_owned(), mark: mark_of(kind), color: None, points, to, last });
    }
    out
}

fn plot(area: Rect, buf: &mut Buffer, curves: &[Drawn], look: Look) {
    let all = || curves.iter().flat_map(|c| &c.points);
    let (low, high) = all().fold((f64::MAX, f64::MIN), |(l, h), p| (l.min(p.1), h.max(p.1)));
    if low > high {
        return;
    }
    let (low, high) = if low < high { (low, high) } else { (low - 0.5, high + 0.5) };
    let to = curves.iter().map(|c| c.to).chain(all().map(|p| p.0)).fold(1.0, f64::max);
    let marker = if look.braille { Marker::Braille } else { Marker::Dot };
    let sets = curves.iter().map(|c| {
        Dataset::default().marker(marker).graph_type(GraphType::Line).style(c.style(look)).data(&c.points)
    });
    let x = Axis::default().style(look.dim()).bounds([0.0, to]).labels([
        "0".to_owned(),
        format!("{:.0}", to / 2.0),
        format!("{to:.0} gone"),
    ]);
    let y = Axis::default().style(look.dim()).bounds([low, high]).labels([number(low), number(high)]);
    Chart::new(sets.collect()).x_axis(x).y_axis(y).legend_position(None).render(area, buf);
    // A curve's last point has its mark, which tells curves apart without colours.
    mark(area, buf, curves, [low, high], to, look);
}

/// Puts marks on the curves' last points. The chart keeps to itself where its axes are, so marks stand at the right end of
/// their row's share of the height.
fn mark(area: Rect, buf: &mut Buffer, curves: &[Drawn], [low, high]: [f64; 2], to: f64, look: Look) {
    // Labels of y, its line, then the graph; labels of x and its line are below.
    let label = [number(low), number(high)].iter().map(|t| t.chars().count()).max().unwrap_or(0) as u16;
    let left = area.x + label.min(area.width / 3) + 1;
    let (width, height) = (area.right().saturating_sub(left), area.height.saturating_sub(2));
    if width < 2 || height < 2 {
        return;
    }
    for c in curves {
        let Some(&(x, y)) = c.points.last() else { continue };
        let across = (x / to * f64::from(width - 1)).round() as u16;
        let down = ((high - y) / (high - low) * f64::from(height - 1)).round() as u16;
        buf.set_string(
            left + across.min(width - 1),
            area.y + down.min(height - 1),
            c.mark.to_string(),
            c.style(look),
        );
    }
}
