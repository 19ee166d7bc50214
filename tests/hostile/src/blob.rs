//! What a worker fetches by hash, as from a coordinator that gives it a hash for whatever bytes it has. The first byte says what it is.

use crate::experiment;
use ablate_common::plan::{PlannedSweep, SweepKind};
use ablate_common::scores::{ChunkScores, TaskScores};
use ablate_common::task::Scope;
use ablate_worker_client::fetch;

/// Reads a task's data, or an ablation's constants.
///
/// # Panics
/// Where data that was taken refers to what isn't there.
#[must_use]
pub fn run(bytes: &[u8]) -> bool {
    let Some((kind, rest)) = bytes.split_first() else { return false };
    let hash = blake3::hash(rest).to_hex().to_string();
    let mut plan = experiment::plan();
    if kind % 2 == 0 {
        let Ok(data) = fetch::prepared_from(rest, &hash, 4, 4) else { return false };
        if data.readable_by(&plan.model).is_err() {
            return false;
        }
        for item in &data.items {
            let read = if item.decoder.is_empty() { &item.tokens } else { &item.decoder };
            assert!(
                item.scored.iter().all(|s| (s.position as usize) < read.len()),
                "a position past an item's end"
            );
            assert!(item.tokens.iter().all(|&t| t < plan.model.vocab), "no such token");
        }
        return true;
    }
    plan.sweeps.push(fit());
    fetch::constants_from(rest, &hash, &plan, 0).is_ok()
}

fn fit() -> PlannedSweep {
    PlannedSweep { kind: SweepKind::Fit, ablation: 0, tasks: vec![0], units: 0, scope: Scope::All, chunk: 2 }
}

/// One of each.
///
/// # Panics
/// Never.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let plan = experiment::plan();
    let (heads, rows) = (plan.heads().len() as u32, ablate_common::fit::rows(plan.model.head_dim));
    let values = (0..heads * rows).map(|i| f64::from(i) / 3.0).collect();
    let block = TaskScores { task: 0, examples: rows, columns: 1, values };
    let constants = ChunkScores { subsets: heads, tasks: vec![block] }.encode();
    let data = serde_json::to_vec(&experiment::prepared()).expect("JSON");
    [(0, data), (1, constants)].map(|(kind, bytes)| [vec![kind], bytes].concat()).to_vec()
}
