//! Progress of each sweep, with as much of the other views as there is room for.

use super::text::{cut, percent, rate, time};
use super::{curve, heads, panel, say, workers};
use crate::cli::watch::ended;
use crate::cli::watch::look::Look;
use crate::cli::watch::state::State;
use ablate_proto::v1;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::Span;

/// Rows that another panel needs.
const PANEL: u16 = 8;
/// Columns from which there are panels beside each other.
const WIDE: u16 = 84;

/// Draws the view.
pub fn draw(area: Rect, buf: &mut Buffer, state: &mut State, look: Look) {
    let Some(status) = state.status.clone() else {
        let inner = panel(area, buf, "Overview", look);
        return say(inner, buf, "No experiment is open yet.", look);
    };
    let lines = rows(state, &status);
    let wanted = lines.len() as u16 + 2 + u16::from(!status.error.is_empty());
    let more = area.height.saturating_sub(wanted) >= PANEL;
    let top = if more { wanted } else { area.height };
    let [first, rest] = Layout::vertical([Constraint::Length(top), Constraint::Min(0)]).areas(area);
    let inner = panel(first, buf, "Progress", look);
    let last = (lines.len() as u16).saturating_sub(inner.height);
    state.scroll = state.scroll.min(last);
    let mut y = inner.y;
    if !status.error.is_empty() && y < inner.bottom() {
        let width = usize::from(inner.width);
        buf.set_stringn(inner.x, y, cut(&status.error, width), width, look.alarm());
        y += 1;
    }
    let name = lines.iter().map(|l| Span::raw(&l.name).width()).max().unwrap_or(0);
    for (y, line) in (y..inner.bottom()).zip(lines.iter().skip(state.scroll.into())) {
        bar(Rect { y, height: 1, ..inner }, buf, name, line, look);
    }
    if more {
        panels(rest, buf, state, look);
    }
}

fn panels(area: Rect, buf: &mut Buffer, state: &State, look: Look) {
    let two = area.height >= 2 * PANEL + 4;
    let rows = if two {
        [Constraint::Fill(3), Constraint::Fill(2)]
    } else {
        [Constraint::Fill(1), Constraint::Length(0)]
    };
    let [top, bottom] = Layout::vertical(rows).areas(area);
    let beside = |area| Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]).areas::<2>(area);
    if area.width < WIDE {
        heads::map(top, buf, state, look, 0);
        if two {
            let inner = panel(bottom, buf, &workers::title(state), look);
            workers::draw(inner, buf, state, look, 0);
        }
        return;
    }
    let [left, right] = beside(top);
    heads::map(left, buf, state, look, 0);
    heads::largest(right, buf, state, look, 0);
    if two {
        let [left, right] = beside(bottom);
        curve::panelled(left, buf, state, look);
        let inner = panel(right, buf, &workers::title(state), look);
        workers::draw(inner, buf, state, look, 0);
    }
}

/// What one bar says.
struct Bar {
    name: String,
    done: u64,
    of: u64,
    unit: &'static str,
    round: Option<(u32, u32)>,
    rate: Option<f64>,
    eta: Option<f64>,
}

/// Seconds until all chunks are there.
pub fn total_eta(state: &State, s: &v1::ExperimentStatus) -> Option<f64> {
    let left = s.chunks_planned.saturating_sub(s.chunks_accepted + s.quarantined);
    state.rates.eta("all", state.now, left)
}

fn rows(state: &State, s: &v1::ExperimentStatus) -> Vec<Bar> {
    let moves = s.state == "running";
    let all = Bar {
        name: "all".to_owned(),
        done: s.chunks_accepted,
        of: s.chunks_planned,
        unit: "chunks",
        round: None,
        rate: state.rates.of("all", state.now).filter(|_| !ended(s)),
        eta: total_eta(state, s).filter(|_| moves),
    };
    let sweep = |(i, w): (usize, &v1::SweepStatus)| {
        let what = format!("sweep {i}");
        let left = w.subsets_total.saturating_sub(w.subsets_done);
        let fast = state.rates.of(&what, state.now);
        Bar {
            name: w.name.clone(),
            done: w.subsets_done,
            of: w.subsets_total,
            unit: "subsets",
            round: (w.rounds > 1).then(|| ((w.round + 1).min(w.rounds), w.rounds)),
            rate: fast.filter(|&r| left > 0 && r > 0.0),
            eta: state.rates.eta(&what, state.now, left).filter(|_| moves),
        }
    };
    std::iter::once(all).chain(s.sweeps.iter().enumerate().map(sweep)).collect()
}

/// Name, bar, share, count, rate and time left: from the right, what doesn't fit goes.
fn bar(area: Rect, buf: &mut Buffer, name: usize, line: &Bar, look: Look) {
    let width = usize::from(area.width);
    let name = name.min(width / 3).max(6);
    buf.set_stringn(area.x, area.y, cut(&line.name, name), name, Style::new());
    let mut parts = vec![(percent(line.done, line.of), 5)];
    let count = format!("{}/{} {}", line.done, line.of, line.unit);
    if width >= 64 {
        parts.push((count, 26));
    }
    if width >= 84 {
        let round = line.round.map_or_else(String::new, |(r, of)| format!("round {r}/{of}"));
        parts.push((line.rate.map_or(round, rate), 12));
    }
    if width >= 44 {
        let left = line.eta.map_or_else(String::new, |t| format!("ETA {}", time(t)));
        let left = if line.done >= line.of && line.of > 0 { "done".to_owned() } else { left };
        parts.push((left, 16));
    }
    let right: usize = parts.iter().map(|p| p.1 + 2).sum();
    let length = width.saturating_sub(name + 1 + right);
    let mut x = area.x + name as u16 + 1;
    if length >= 4 {
        let share = if line.of > 0 { line.done as f64 / line.of as f64 } else { 1.0 };
        filled(Rect { x, width: length as u16, ..area }, buf, share, look);
        x += length as u16;
    }
    for (text, room) in parts {
        let text = cut(&text, room);
        let shift = 2 + room - Span::raw(text.as_str()).width();
        let left = usize::from(area.right().saturating_sub(x));
        buf.set_stringn(x + shift as u16, area.y, &text, left.saturating_sub(shift), Style::new());
        x = (x + (2 + room) as u16).min(area.right());
    }
}

/// A bar in eighths of a cell.
fn filled(area: Rect, buf: &mut Buffer, share: f64, look: Look) {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share.clamp(0.0, 1.0) * f64::from(area.width) * 8.0).floor() as usize;
    let (whole, part) = (eighths / 8, eighths % 8);
    let empty = usize::from(area.width) - whole - usize::from(part > 0);
    let text = format!("{}{}", "█".repeat(whole), EIGHTHS[part]);
    let (x, _) = buf.set_stringn(area.x, area.y, &text, usize::MAX, look.bar());
    buf.set_string(x, area.y, "·".repeat(empty), look.dim());
}
