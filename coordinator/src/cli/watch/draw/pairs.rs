//! The largest interactions so far, above and below 0. They are chosen by sign and size: q is over all pairs, so what two units are
//! to each other is told by the tables and the report.

use super::table::{self, Column, Row};
use super::text::{cut, number, signed};
use super::{heads, no_effects, panel, say};
use crate::cli::watch::look::Look;
use crate::cli::watch::state::State;
use ablate_proto::v1;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::Span;

/// Columns of an interaction and of its error, with the gaps before them.
const NUMBERS: usize = 24;
/// Columns that the names of a pair have at least.
const NAMES: usize = 15;
/// Columns between the two lists.
const GAP: u16 = 2;

/// Draws the view.
pub fn draw(area: Rect, buf: &mut Buffer, state: &mut State, look: Look) {
    let inner = panel(area, buf, &heads::title(state, "Pairs"), look);
    let last = listed(inner, buf, state, look);
    state.scroll = state.scroll.min(last);
}

/// Why there is no pair to list.
fn none(state: &State) -> String {
    let words = match state.shown().map(|g| g.pairs.is_some()) {
        None => return no_effects(state),
        Some(true) => "No pairs of the whole model are planned for this task and method.",
        Some(false) => {
            "This coordinator tells no pairs while an experiment goes on: it is of an earlier release."
        }
    };
    words.to_owned()
}

/// Lists them from row `state.scroll` on, beside each other where there is room; gives the largest scroll that makes sense.
fn listed(area: Rect, buf: &mut Buffer, state: &State, look: Look) -> u16 {
    let told = state.shown().and_then(|g| Some((g, g.pairs.as_ref()?)));
    let Some((group, pairs)) = told.filter(|t| t.1.planned > 0) else {
        say(area, buf, &none(state), look);
        return 0;
    };
    if area.height == 0 {
        return 0;
    }
    let width = usize::from(area.width);
    let left_out = match pairs.skipped {
        0 => String::new(),
        n => format!(", {n} left out as a unit alone has no result"),
    };
    let known =
        format!("{}/{} pairs{left_out}, not tested here: the report tests them", pairs.known, pairs.planned);
    buf.set_stringn(area.x, area.y, cut(&known, width), width, look.dim());
    let name = |p: &v1::LivePair| {
        let unit = |at: u32| group.units.get(at as usize).map_or("?", |u| u.name.as_str());
        format!("{} + {}", unit(p.a), unit(p.b))
    };
    let names = pairs.above.iter().chain(&pairs.below).map(|p| Span::raw(name(p)).width());
    let names = names.max().unwrap_or(0).max(NAMES);
    let rest = Rect { y: area.y + 1, height: area.height - 1, ..area };
    let (first, second) = if width >= 2 * (names + NUMBERS) + usize::from(GAP) {
        let across = [Constraint::Fill(1), Constraint::Length(GAP), Constraint::Fill(1)];
        let [left, _, right] = Layout::horizontal(across).areas(rest);
        (left, right)
    } else {
        let [top, bottom] = Layout::vertical([Constraint::Fill(1), Constraint::Fill(1)]).areas(rest);
        (top, bottom)
    };
    let room = usize::from(first.width).saturating_sub(NUMBERS).max(NAMES);
    let row = |p: &v1::LivePair| {
        let error = p.se.map_or_else(String::new, number);
        Row { cells: vec![cut(&name(p), room), signed(p.interaction), error], style: Style::new() }
    };
    let mut list = |area: Rect, title: &'static str, of: &[v1::LivePair]| {
        let columns = [
            Column { title, right: false, spare: 0 },
            Column { title: "interaction", right: true, spare: 1 },
            Column { title: "± SE", right: true, spare: 2 },
        ];
        let rows: Vec<Row> = of.iter().map(row).collect();
        table::draw(area, buf, &columns, &rows, state.scroll, look)
    };
    let above = list(first, "largest above 0", &pairs.above);
    above.max(list(second, "largest below 0", &pairs.below))
}
