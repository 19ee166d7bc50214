//! Workers with their devices, rates, failures, and the share of their time that they waited.

use super::table::{self, Column, Row};
use super::text::{rate, time};
use crate::cli::watch::look::Look;
use crate::cli::watch::state::State;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

const COLUMNS: [Column; 9] = [
    Column { title: "worker", right: false, spare: 0 },
    Column { title: "devices", right: false, spare: 2 },
    Column { title: "chunks", right: true, spare: 1 },
    Column { title: "accepted", right: true, spare: 5 },
    Column { title: "leased", right: true, spare: 6 },
    Column { title: "idle", right: true, spare: 4 },
    Column { title: "failures", right: true, spare: 3 },
    Column { title: "connected", right: true, spare: 7 },
    Column { title: "version", right: false, spare: 8 },
];

/// How many there are.
pub fn count(state: &State) -> String {
    let workers = state.status.as_ref().map_or(state.workers.len(), |s| s.workers as usize);
    format!("{workers} {}", if workers == 1 { "worker" } else { "workers" })
}

/// Of the panel.
pub fn title(state: &State) -> String {
    let failures: u64 = state.workers.iter().map(|w| w.failures).sum();
    if failures > 0 { format!("Workers, {failures} failures") } else { "Workers".to_owned() }
}

/// Devices, those that are the same together: "2 × cpu".
fn devices(lanes: &[ablate_proto::v1::Lane]) -> String {
    let mut all: Vec<(&str, usize)> = Vec::new();
    for lane in lanes {
        match all.iter_mut().find(|a| a.0 == lane.device) {
            Some(same) => same.1 += 1,
            None => all.push((&lane.device, 1)),
        }
    }
    let name =
        |(device, n): &(&str, usize)| if *n > 1 { format!("{n} × {device}") } else { (*device).to_owned() };
    all.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// Draws from row `scroll` on; gives the largest that makes sense.
pub fn draw(area: Rect, buf: &mut Buffer, state: &State, look: Look, scroll: u16) -> u16 {
    if state.workers.is_empty() {
        super::say(area, buf, "No worker is connected.", look);
        return 0;
    }
    let row = |w: &ablate_proto::v1::WorkerStatus| {
        let all = w.busy_us + w.idle_us;
        let idle =
            if all > 0 { format!("{:.1} %", 100.0 * w.idle_us as f64 / all as f64) } else { String::new() };
        let fast = state.rates.of(&format!("worker {}", w.id), state.now);
        let cells = vec![
            w.name.clone(),
            devices(&w.lanes),
            fast.map_or_else(String::new, rate),
            w.accepted_chunks.to_string(),
            w.leased_chunks.to_string(),
            idle,
            w.failures.to_string(),
            time(w.connected_ms as f64 / 1000.0),
            w.version.clone(),
        ];
        Row { cells, style: if w.failures > 0 { look.alarm() } else { Style::new() } }
    };
    let rows: Vec<Row> = state.workers.iter().map(row).collect();
    table::draw(area, buf, &COLUMNS, &rows, scroll, look)
}
