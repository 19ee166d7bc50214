//! Puts the state on a screen of any size. What doesn't fit is left out, the least important first.

mod curve;
mod experiments;
mod heads;
mod overview;
mod pairs;
mod table;
mod text;
mod workers;

use super::look::Look;
use super::state::{Effects, Link, Over, State, View};
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Widget, Wrap};
use text::{cut, time};

/// Below it there is one line for each of a few things.
const SMALL: (u16, u16) = (40, 8);

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, state: &mut State, look: Look) {
    let area = frame.area();
    let buf = frame.buffer_mut();
    if area.width < SMALL.0 || area.height < SMALL.1 {
        small(area, buf, state, look);
    } else {
        let rows = [Constraint::Length(1), Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)];
        let [top, tabs, body, bottom] = Layout::vertical(rows).areas(area);
        header(top, buf, state, look);
        titles(tabs, buf, state, look);
        view(body, buf, state, look);
        footer(bottom, buf, state, look);
    }
    match &state.over {
        Some(Over::Help) => over(area, buf, look, "Keys", &help()),
        Some(Over::Cancel(_, name)) => {
            let text = vec![
                Line::from(format!("Cancel {name}?")),
                Line::from("What was computed stays."),
                Line::from("y: yes   any other key: no"),
            ];
            over(area, buf, look, "Cancel", &text);
        }
        None => {}
    }
}

fn view(area: Rect, buf: &mut Buffer, state: &mut State, look: Look) {
    match state.view {
        View::Overview => overview::draw(area, buf, state, look),
        View::Heads => heads::draw(area, buf, state, look),
        View::Pairs => pairs::draw(area, buf, state, look),
        View::Curve => curve::draw(area, buf, state, look),
        View::Workers => {
            let inner = panel(area, buf, &workers::title(state), look);
            let last = workers::draw(inner, buf, state, look, state.scroll);
            state.scroll = state.scroll.min(last);
        }
        View::Errors => errors(area, buf, state, look),
        View::Experiments => experiments::draw(area, buf, state, look),
    }
}

/// A frame with a title; gives what is inside.
fn panel(area: Rect, buf: &mut Buffer, title: &str, look: Look) -> Rect {
    let room = usize::from(area.width.saturating_sub(4));
    let title = Span::styled(format!(" {} ", cut(title, room)), look.accent());
    let block = Block::bordered().border_style(look.dim()).title(title);
    let inner = block.inner(area);
    block.render(area, buf);
    inner
}

/// A text in the middle of what is empty.
fn say(area: Rect, buf: &mut Buffer, text: &str, look: Look) {
    let line = Paragraph::new(text.to_owned()).style(look.dim()).wrap(Wrap { trim: true });
    line.render(area, buf);
}

/// Why there are no effects to show.
fn no_effects(state: &State) -> String {
    let words = match &state.effects {
        Effects::Untold => {
            "This coordinator tells no effects while an experiment goes on: it is of an earlier release."
        }
        Effects::Failed(why) => return format!("Results can't be followed: {why}"),
        Effects::Unknown if state.status.is_none() => "No experiment is open: choose one under Experiments.",
        _ => "No results yet.",
    };
    words.to_owned()
}

fn header(area: Rect, buf: &mut Buffer, state: &State, look: Look) {
    let mut line = match &state.status {
        Some(s) => Line::from_iter([
            Span::styled(s.name.clone(), Style::new().bold()),
            Span::raw("  "),
            Span::styled(s.state.clone(), look.of_state(&s.state)),
        ]),
        None => Line::from(Span::styled("ablate watch", Style::new().bold())),
    };
    if let Some(s) = state.status.as_ref().filter(|s| s.quarantined > 0) {
        line.push_span(Span::styled(format!("  {} quarantined", s.quarantined), look.alarm()));
    }
    let used = line.width();
    buf.set_line(area.x, area.y, &line, area.width);
    let right = format!("{}  {}", workers::count(state), state.coordinator);
    right_of(area, buf, used, &right, look.dim());
}

/// A text at the right end of a line, where it fits beside `used` columns.
fn right_of(area: Rect, buf: &mut Buffer, used: usize, text: &str, style: Style) {
    let width = Span::raw(text).width();
    if used + 2 + width <= usize::from(area.width) {
        buf.set_string(area.right() - width as u16, area.y, text, style);
    }
}

fn titles(area: Rect, buf: &mut Buffer, state: &State, look: Look) {
    let quarantined = state.status.as_ref().map_or(0, |s| s.quarantined);
    let name = |view: View| match view {
        View::Errors if quarantined > 0 => format!("{} {quarantined}", view.title()),
        _ => view.title().to_owned(),
    };
    let whole: usize = View::ALL.iter().map(|&v| name(v).len() + 4).sum();
    let mut x = area.x;
    for (n, view) in (1..).zip(View::ALL) {
        let here = view == state.view;
        // Where not all fit, numbers stand for those that aren't shown.
        let text = if whole <= usize::from(area.width) || here {
            format!(" {n} {} ", name(view))
        } else {
            format!(" {n} ")
        };
        let style = if here { look.accent().reversed() } else { look.dim() };
        let left = usize::from(area.right().saturating_sub(x));
        x = buf.set_stringn(x, area.y, &text, left, style).0;
    }
}

fn footer(area: Rect, buf: &mut Buffer, state: &State, look: Look) {
    let width = usize::from(area.width);
    let (text, style) = if let Link::Lost(since, why) = &state.link {
        let gone = time(state.now.saturating_sub(*since).as_secs_f64());
        (format!("the coordinator is gone for {gone}: waiting for it ({why})"), look.alarm())
    } else if let Some(note) = state.note() {
        (note.to_owned(), look.alarm())
    } else {
        (keys(state, width), look.dim())
    };
    buf.set_stringn(area.x, area.y, cut(&text, width), width, style);
}

/// What keys do here, as many as fit.
fn keys(state: &State, width: usize) -> String {
    let mut all = vec!["q quit", "? help"];
    if state.view == View::Experiments {
        all.push("↑↓ choose");
        all.push("Enter open");
    }
    let paused = state.status.as_ref().is_some_and(|s| s.state == "paused");
    all.extend([if paused { "p resume" } else { "p pause" }, "Tab next view", "c cancel", "r retry"]);
    if state.groups() > 1 && [View::Overview, View::Heads, View::Pairs, View::Curve].contains(&state.view) {
        all.push("←→ task");
    }
    if state.view != View::Experiments && state.view != View::Curve {
        all.push("↑↓ scroll");
    }
    let mut line = String::new();
    for key in all {
        if line.chars().count() + key.chars().count() + 3 > width {
            break;
        }
        line += if line.is_empty() { "" } else { "   " };
        line += key;
    }
    line
}

fn help() -> Vec<Line<'static>> {
    [
        ("Tab, 1–7", "views"),
        ("↑ ↓ PgUp PgDn", "scroll, choose"),
        ("Enter", "open the chosen experiment"),
        ("← →", "task and method shown"),
        ("p", "pause, resume"),
        ("c", "cancel (asks)"),
        ("r", "retry: what failed, what was cancelled"),
        ("Ctrl-Z", "stop for a while"),
        ("q, Ctrl-C", "leave; the experiment goes on"),
    ]
    .map(|(key, does)| Line::from(format!("{key:<14} {does}")))
    .into()
}

/// A window in the middle, over everything else.
fn over(area: Rect, buf: &mut Buffer, look: Look, title: &str, lines: &[Line<'_>]) {
    let widest = lines.iter().map(Line::width).max().unwrap_or(0) as u16;
    let (width, height) = ((widest + 4).min(area.width), (lines.len() as u16 + 2).min(area.height));
    let place =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    Clear.render(place, buf);
    let inner = if height > 3 { panel(place, buf, title, look) } else { place };
    Paragraph::new(lines.to_vec()).wrap(Wrap { trim: false }).render(inner, buf);
}

/// A screen of a few cells.
fn small(area: Rect, buf: &mut Buffer, state: &State, look: Look) {
    let mut lines: Vec<(String, Style)> = Vec::new();
    if let Link::Lost(..) = state.link {
        lines.push(("coordinator gone".to_owned(), look.alarm()));
    }
    match &state.status {
        Some(s) => {
            let share = text::percent(s.chunks_accepted, s.chunks_planned);
            lines.push((format!("{share} {} {}", s.state, s.name), look.of_state(&s.state)));
            let eta =
                overview::total_eta(state, s).map_or_else(String::new, |t| format!("ETA {}  ", time(t)));
            lines.push((format!("{eta}{}", workers::count(state)), Style::new()));
            if s.quarantined > 0 {
                lines.push((format!("{} quarantined", s.quarantined), look.alarm()));
            }
            lines.extend(s.sweeps.iter().map(|w| {
                (format!("{} {}", text::percent(w.subsets_done, w.subsets_total), w.name), Style::new())
            }));
        }
        None if state.listed => lines.extend(state.experiments.iter().enumerate().map(|(i, e)| {
            let style = if i == state.cursor { look.cursor() } else { Style::new() };
            (format!("{} {} {}", text::percent(e.chunks_accepted, e.chunks_planned), e.state, e.name), style)
        })),
        None => lines.push(("connecting".to_owned(), look.dim())),
    }
    for (y, (text, style)) in (area.y..area.bottom()).zip(&lines) {
        buf.set_stringn(area.x, y, text, area.width.into(), *style);
    }
}

/// What is wrong with the experiment, and the chunks that are set aside.
fn errors(area: Rect, buf: &mut Buffer, state: &mut State, look: Look) {
    let inner = panel(area, buf, "Errors", look);
    let Some(s) = &state.status else { return say(inner, buf, &no_effects(state), look) };
    let mut lines = Vec::new();
    if !s.error.is_empty() {
        lines.push(Line::styled(s.error.clone(), look.alarm()));
    }
    for q in &s.quarantined_chunks {
        let name = format!("{}, round {}, chunk {}", q.sweep_name, q.round, q.chunk);
        lines.push(Line::styled(name, look.alarm()));
        lines.extend(q.error.lines().map(|l| Line::from(format!("  {l}"))));
    }
    let untold = s.quarantined.saturating_sub(s.quarantined_chunks.len() as u64);
    if untold > 0 {
        lines.push(Line::styled(format!("{untold} quarantined chunks more"), look.alarm()));
    }
    let failures: u64 = state.workers.iter().map(|w| w.failures).sum();
    if lines.is_empty() {
        let others = format!("No chunk is quarantined. Failures that workers reported: {failures}.");
        return say(inner, buf, &others, look);
    }
    if s.quarantined > 0 {
        lines.push(Line::styled("r tries the quarantined ones again.", look.dim()));
    }
    // Each takes a row at least, and more where it is folded.
    let rows: usize = lines.iter().map(|l| l.width().max(1).div_ceil(usize::from(inner.width.max(1)))).sum();
    state.scroll = state.scroll.min(rows.saturating_sub(usize::from(inner.height)) as u16);
    Paragraph::new(lines).wrap(Wrap { trim: false }).scroll((state.scroll, 0)).render(inner, buf);
}
