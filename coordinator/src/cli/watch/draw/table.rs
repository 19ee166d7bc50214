//! Tables whose least important columns go first where there is no room.

use super::text::cut;
use crate::cli::watch::look::Look;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Span;

/// A column.
pub struct Column {
    /// Its head.
    pub title: &'static str,
    /// Numbers stand at the right.
    pub right: bool,
    /// Those with the largest go first.
    pub spare: u8,
}

/// A row.
pub struct Row {
    /// One text for each column.
    pub cells: Vec<String>,
    /// Of the whole row.
    pub style: Style,
}

const GAP: usize = 2;

/// Draws rows from `scroll` on, under their titles; gives the largest scroll that makes sense.
pub fn draw(area: Rect, buf: &mut Buffer, columns: &[Column], rows: &[Row], scroll: u16, look: Look) -> u16 {
    let width = |i: usize| {
        let cells = rows.iter().filter_map(|r| r.cells.get(i)).map(String::as_str);
        cells.chain([columns[i].title]).map(|t| Span::raw(t).width()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let room = usize::from(area.width);
    while shown.len() > 1 && shown.iter().map(|&i| widths[i] + GAP).sum::<usize>() > room + GAP {
        let Some(&spare) = shown.iter().max_by_key(|&&i| columns[i].spare) else { break };
        shown.retain(|&i| i != spare);
    }
    let mut line = |y: u16, cells: &dyn Fn(usize) -> String, style: Style| {
        buf.set_style(Rect { y, height: 1, ..area }, style);
        let mut x = area.x;
        for &i in &shown {
            let left = usize::from(area.right().saturating_sub(x));
            let text = cut(&cells(i), left.min(widths[i]));
            let used = Span::raw(text.as_str()).width();
            let shift = if columns[i].right { widths[i].min(left).saturating_sub(used) } else { 0 };
            buf.set_stringn(x + shift as u16, y, &text, left.saturating_sub(shift), style);
            x = x.saturating_add((widths[i] + GAP) as u16).min(area.right());
        }
    };
    if area.height == 0 {
        return 0;
    }
    line(area.y, &|i| columns[i].title.to_owned(), look.dim());
    let below = usize::from(area.height - 1);
    let last = rows.len().saturating_sub(below) as u16;
    let from = usize::from(scroll.min(last));
    for (y, row) in (area.y + 1..area.bottom()).zip(rows.iter().skip(from)) {
        line(y, &|i| row.cells.get(i).cloned().unwrap_or_default(), row.style);
    }
    last
}
