//! Puts what a store has recorded of an experiment together: the same for every store.

use super::{ChunkAt, Error, Quarantined, StoredRound};
use ablate_common::plan::Plan;
use ablate_common::scores::ChunkScores;
use ablate_common::task::Prepared;
use ablate_output::results::{Results, RoundResult, RunInfo};
use std::collections::BTreeMap;

/// A chunk whose second result differs from the stored one: whose that is, and who sent the second.
pub(super) type Differing = (ChunkAt, String, String);

/// Everything but the chunks.
pub(super) struct Frame {
    pub id: String,
    pub plan: Plan,
    pub prepared: Vec<Prepared>,
    pub computed: u64,
    pub duplicate: u64,
    /// Results that were compared with the stored one, and those that differ.
    pub compared: (u64, Vec<Differing>),
    pub rounds: Vec<StoredRound>,
    pub quarantined: Vec<Quarantined>,
    pub seconds: BTreeMap<String, f64>,
    /// Sweep → lanes' working time, in microseconds.
    pub busy_us: BTreeMap<u32, u64>,
}

impl Frame {
    /// Results without chunks.
    pub fn results(self) -> Results {
        let mut run = RunInfo {
            planned: self.plan.total_chunks(),
            computed: self.computed,
            duplicate: self.duplicate,
            compared: self.compared.0,
            differing: self
                .compared
                .1
                .into_iter()
                .map(|(at, stored, other)| (at.0, at.1, at.2, stored, other))
                .collect(),
            seconds: self.seconds,
            quarantined: self.quarantined.into_iter().map(|(s, r, c, e)| (s, r, c, 1, e)).collect(),
            ..RunInfo::default()
        };
        for (i, sweep) in (0u32..).zip(&self.plan.sweeps) {
            if let Some(&us) = self.busy_us.get(&i) {
                let step = format!("lanes busy, {}{}", sweep.kind.name(), self.plan.given(i));
                *run.seconds.entry(step).or_default() += us as f64 / 1e6;
            }
        }
        let rounds = self
            .rounds
            .into_iter()
            .map(|r| {
                let round = RoundResult { list: r.list, decision: r.decision, chunks: BTreeMap::new() };
                ((r.sweep, r.round), round)
            })
            .collect();
        Results { id: self.id, plan: self.plan, prepared: self.prepared, rounds, run }
    }
}

/// Adds one accepted chunk.
pub(super) fn add(
    results: &mut Results,
    (sweep, round, chunk): ChunkAt,
    scores: &[u8],
    device_class: &str,
    version: &str,
) -> Result<(), Error> {
    let scores = ChunkScores::decode(scores).map_err(|e| Error::Damaged(e.to_string()))?;
    results.rounds.entry((sweep, round)).or_default().chunks.insert(chunk, scores);
    let run = &mut results.run;
    run.accepted += 1;
    match run.device_classes.get_mut(device_class) {
        Some(n) => *n += 1,
        None => {
            run.device_classes.insert(device_class.to_owned(), 1);
        }
    }
    if !version.is_empty() {
        let all = run.versions.entry("ablate-worker".to_owned()).or_default();
        if !all.split(", ").any(|v| v == version) {
            *all = if all.is_empty() { version.to_owned() } else { format!("{all}, {version}") };
        }
    }
    Ok(())
}
