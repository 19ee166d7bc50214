//! The coordinator's experiments, one of them under the cursor.

use super::table::{self, Column, Row};
use super::text::percent;
use crate::cli::watch::look::Look;
use crate::cli::watch::state::State;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

const COLUMNS: [Column; 6] = [
    Column { title: "", right: false, spare: 0 },
    Column { title: "experiment", right: false, spare: 0 },
    Column { title: "state", right: false, spare: 1 },
    Column { title: "done", right: true, spare: 2 },
    Column { title: "chunks", right: true, spare: 4 },
    Column { title: "id", right: false, spare: 5 },
];

/// Draws so many around the cursor as fit.
pub fn draw(area: Rect, buf: &mut Buffer, state: &State, look: Look) {
    let inner = super::panel(area, buf, "Experiments", look);
    if state.experiments.is_empty() {
        let text = if state.listed {
            "There are no experiments. `ablate submit SPEC` hands one in."
        } else {
            "Connecting."
        };
        return super::say(inner, buf, text, look);
    }
    let rows: Vec<Row> = state
        .experiments
        .iter()
        .enumerate()
        .map(|(i, e)| {
            let here = i == state.cursor;
            let aside =
                if e.quarantined > 0 { format!("  {} quarantined", e.quarantined) } else { String::new() };
            let cells = vec![
                (if here { ">" } else { " " }).to_owned(),
                e.name.clone(),
                format!("{}{aside}", e.state),
                percent(e.chunks_accepted, e.chunks_planned),
                format!("{}/{}", e.chunks_accepted, e.chunks_planned),
                e.id.chars().take(16).collect(),
            ];
            Row { cells, style: if here { look.cursor() } else { look.of_row(&e.state) } }
        })
        .collect();
    // The cursor is kept a third from the top.
    let above = usize::from(inner.height) / 3;
    let scroll = state.cursor.saturating_sub(above).min(usize::from(u16::MAX)) as u16;
    table::draw(inner, buf, &COLUMNS, &rows, scroll, look);
}
