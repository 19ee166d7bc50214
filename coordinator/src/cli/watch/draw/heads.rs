//! The heat map of effects, a row for each layer, and the largest effects with their intervals.

use super::text::{cut, number, signed};
use super::{no_effects, panel, say};
use crate::cli::watch::look::Look;
use crate::cli::watch::state::State;
use ablate_proto::v1;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::Span;

/// Columns from which the largest effects stand beside the map.
const WIDE: u16 = 84;

/// Draws the view.
pub fn draw(area: Rect, buf: &mut Buffer, state: &mut State, look: Look) {
    let (first, second) = if area.width >= WIDE {
        let [left, right] = Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]).areas(area);
        (left, Some(right))
    } else if area.height >= 20 {
        let [top, bottom] = Layout::vertical([Constraint::Fill(3), Constraint::Fill(2)]).areas(area);
        (top, Some(bottom))
    } else {
        (area, None)
    };
    let mut last = map(first, buf, state, look, state.scroll);
    if let Some(second) = second {
        last = last.max(largest(second, buf, state, look, state.scroll));
    }
    state.scroll = state.scroll.min(last);
}

/// What a panel is about.
pub fn title(state: &State, what: &str) -> String {
    let Some(g) = state.shown() else { return what.to_owned() };
    let of = if state.groups() > 1 {
        format!(" ({}/{})", state.group % state.groups() + 1, state.groups())
    } else {
        String::new()
    };
    format!("{what}: {}, Δ {}, {}{of}", g.task, g.metric, g.method)
}

/// Units of one layer of a stream, or one set.
struct Band<'a> {
    label: String,
    units: Vec<&'a v1::LiveUnit>,
}

/// The units in rows: those of a layer side by side.
fn bands(group: &v1::LiveGroup) -> Vec<Band<'_>> {
    let several = group.units.iter().any(|u| u.stream != group.units[0].stream);
    let mut out: Vec<(Option<(&str, u32)>, Band<'_>)> = Vec::new();
    for unit in &group.units {
        let key = unit.layer.map(|layer| (unit.stream.as_str(), layer));
        match out.last_mut().filter(|(last, _)| key.is_some() && *last == key) {
            Some((_, band)) => band.units.push(unit),
            None => {
                let label = match key {
                    Some((stream, layer)) if several => format!("{stream} {layer}"),
                    Some((_, layer)) => layer.to_string(),
                    None => unit.name.clone(),
                };
                out.push((key, Band { label, units: vec![unit] }));
            }
        }
    }
    out.into_iter().map(|(_, band)| band).collect()
}

/// The largest size of an effect; 0 where there is none.
fn extent(group: &v1::LiveGroup) -> f64 {
    group.units.iter().filter_map(|u| u.delta).filter(|d| d.is_finite()).fold(0.0, |m, d| m.max(d.abs()))
}

/// From −1 to 1, by the square root, so that small effects are seen beside large ones.
fn share(delta: f64, extent: f64) -> f64 {
    if delta.is_nan() || extent == 0.0 {
        delta
    } else {
        delta.signum() * (delta.abs() / extent).min(1.0).sqrt()
    }
}

/// What a unit's cell says in `width` columns. Without a coloured ground: the sign, and the size in ninths.
fn cell(u: &v1::LiveUnit, extent: f64, width: usize, look: Look) -> (String, Style) {
    let Some(delta) = u.delta else { return (format!("{:>width$}", "·"), look.dim()) };
    let share = share(delta, extent);
    let style = look.effect(share);
    if delta.is_nan() {
        return (format!("{:>width$}", "?"), style);
    }
    let sign = if delta < 0.0 { "−" } else { "+" };
    if look.fills() {
        let mark = if u.resolved { sign } else { "" };
        return (format!("{mark:^width$}"), style);
    }
    let ninths = (9.0 * share.abs()).round() as u32;
    let text = if ninths == 0 { "0".to_owned() } else { format!("{sign}{ninths}") };
    let style = if u.resolved { style.bold() } else { style };
    (format!("{text:>width$}"), style)
}

/// Draws the map from row `scroll` on; gives the largest that makes sense.
pub fn map(area: Rect, buf: &mut Buffer, state: &State, look: Look, scroll: u16) -> u16 {
    let inner = panel(area, buf, &title(state, "Effects"), look);
    let Some(group) = state.shown().filter(|g| !g.units.is_empty()) else {
        say(inner, buf, &no_effects(state), look);
        return 0;
    };
    if inner.height < 3 {
        return 0;
    }
    let bands = bands(group);
    let extent = extent(group);
    let columns = bands.iter().map(|b| b.units.len()).max().unwrap_or(1);
    let label = bands.iter().map(|b| Span::raw(&b.label).width()).max().unwrap_or(1);
    let label = label.min(usize::from(inner.width) / 3);
    let room = usize::from(inner.width).saturating_sub(label + 1);
    let least = if look.fills() { 1 } else { 2 };
    let width = (room / columns).clamp(least, 3);
    let shown = columns.min(room / width);
    let body = Rect { y: inner.y + 1, height: inner.height - 2, ..inner };
    let last = (bands.len() as u16).saturating_sub(body.height);
    let from = scroll.min(last);
    let x = inner.x + label as u16 + 1;
    if columns > 1 {
        axis(Rect { x, ..inner }, buf, shown, width, look);
    }
    for (y, band) in (body.y..body.bottom()).zip(bands.iter().skip(from.into())) {
        let text = cut(&band.label, label);
        let shift = label - Span::raw(text.as_str()).width();
        buf.set_string(inner.x + shift as u16, y, text, look.dim());
        for (n, unit) in band.units.iter().take(shown).enumerate() {
            let (text, style) = cell(unit, extent, width, look);
            buf.set_string(x + (n * width) as u16, y, text, style);
        }
        // Where there is one unit in a row, there is room for its number.
        if let ([one], Some(delta)) = (band.units.as_slice(), band.units[0].delta) {
            let at = x + width as u16 + 1;
            let left = usize::from(inner.right().saturating_sub(at));
            buf.set_stringn(at, y, described(one, delta), left, Style::new());
        }
    }
    let hidden = match (from < last, shown < columns) {
        (false, false) => String::new(),
        (true, false) => format!("{} rows more", last - from),
        (_, true) => format!("{} columns more", columns - shown),
    };
    legend(Rect { y: inner.bottom() - 1, height: 1, ..inner }, buf, group, extent, &hidden, look);
    last
}

/// Numbers of the columns, as many as fit.
fn axis(area: Rect, buf: &mut Buffer, columns: usize, width: usize, look: Look) {
    let longest = columns.saturating_sub(1).to_string().len() + 1;
    let every = longest.div_ceil(width).max(1);
    let every = if every == 1 { 1 } else { every.next_power_of_two() };
    for n in (0..columns).step_by(every) {
        let text = n.to_string();
        let at = area.x + (n * width) as u16;
        let shift = width.saturating_sub(text.len()) as u16;
        let left = usize::from(area.right().saturating_sub(at + shift));
        buf.set_stringn(at + shift, area.y, &text, left, look.dim());
    }
}

/// What the cells mean.
fn legend(area: Rect, buf: &mut Buffer, group: &v1::LiveGroup, extent: f64, hidden: &str, look: Look) {
    let known = group.units.iter().filter(|u| u.delta.is_some()).count();
    let count = format!("{known}/{} {}", group.units.len(), plural(&group.unit));
    let mut x = area.x;
    let mut put = |text: &str, style: Style| {
        let left = usize::from(area.right().saturating_sub(x));
        if Span::raw(text).width() <= left {
            x = buf.set_stringn(x, area.y, text, left, style).0;
        }
    };
    put(&format!("{count}  "), Style::new());
    if !hidden.is_empty() {
        put(&format!("{hidden}  "), look.alarm());
    }
    if extent > 0.0 {
        if look.fills() {
            put(&format!("{} ", signed(-extent)), look.dim());
            for step in -4..=4 {
                put(" ", look.effect(f64::from(step) / 4.0));
            }
            put(&format!(" {} hurts", signed(extent)), look.dim());
            put("  +− q ≤ 0.05", look.dim());
        } else {
            put(&format!("9 = ±{}, + hurts, bold: q ≤ 0.05", number(extent)), look.dim());
        }
    }
}

fn plural(unit: &str) -> &str {
    match unit {
        "head" => "heads",
        "kv_group" => "KV groups",
        "layer" => "layers",
        "set" => "sets",
        other => other,
    }
}

/// An effect with its interval.
fn described(u: &v1::LiveUnit, delta: f64) -> String {
    match (u.low, u.high) {
        (Some(low), Some(high)) if !low.is_nan() && !high.is_nan() => {
            format!("{:>8}  [{}, {}]", signed(delta), signed(low), signed(high))
        }
        _ => format!("{:>8}", signed(delta)),
    }
}

/// The largest effects from row `scroll` on; gives the largest scroll that makes sense.
pub fn largest(area: Rect, buf: &mut Buffer, state: &State, look: Look, scroll: u16) -> u16 {
    let inner = panel(area, buf, "Largest effects, with 95 % intervals", look);
    let Some(group) = state.shown() else {
        say(inner, buf, &no_effects(state), look);
        return 0;
    };
    let mut known: Vec<(&v1::LiveUnit, f64)> =
        group.units.iter().filter_map(|u| u.delta.filter(|d| !d.is_nan()).map(|d| (u, d))).collect();
    known.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    let rows = u16::try_from(known.len()).unwrap_or(u16::MAX);
    let last = rows.saturating_sub(inner.height);
    let from = usize::from(scroll.min(last));
    let name = known.iter().map(|k| Span::raw(&k.0.name).width()).max().unwrap_or(0).min(24);
    for (y, (unit, delta)) in (inner.y..inner.bottom()).zip(known.iter().skip(from)) {
        let width = usize::from(inner.width);
        let text = format!("{:<name$}  {}", cut(&unit.name, name), described(unit, *delta));
        let style = if unit.resolved { Style::new().bold() } else { Style::new() };
        buf.set_stringn(inner.x, y, cut(&text, width), width, style);
    }
    if known.is_empty() {
        say(inner, buf, &no_effects(state), look);
    }
    last
}
