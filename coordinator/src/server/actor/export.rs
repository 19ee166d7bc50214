//! The tables of experiments that are through. Exports of one experiment go into one folder: they are written one after another, and
//! one that its user has overtaken with a cancel or a retry ends nothing.

use super::{Actor, Command};
use crate::server::patience::pause;
use crate::store::{Error, State};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Numbered exports.
#[derive(Debug, Default)]
pub struct Exports {
    last: u64,
    /// By experiment the one that ends it.
    wanted: BTreeMap<String, u64>,
    /// Experiments of which one is under way, this one or an earlier one.
    under_way: BTreeSet<String>,
}

impl Exports {
    /// What is under way ends the experiment no more.
    pub fn overtake(&mut self, id: &str) {
        self.wanted.remove(id);
    }
}

impl Actor {
    /// Writes the tables, where that is this coordinator's to do; the experiment is done after that, so
    /// that a crash in between writes them again.
    pub(super) async fn finished(&mut self, id: String) {
        if self.exporter.is_none() {
            return self.end(&id, State::Done).await;
        }
        self.exports.last += 1;
        self.exports.wanted.insert(id.clone(), self.exports.last);
        self.export(id);
    }

    /// Begins the export that is wanted, if one is, unless an earlier one still writes.
    fn export(&mut self, id: String) {
        let Some(&number) = self.exports.wanted.get(&id) else { return };
        let (Some(export), Some(me)) = (self.exporter.clone(), self.me.upgrade()) else { return };
        let Some(output) = self.experiments.get(&id).map(|s| s.output.clone()) else { return };
        if !self.exports.under_way.insert(id.clone()) {
            return;
        }
        let (store, compute) = (Arc::clone(&self.store), self.compute);
        tokio::spawn(async move {
            let written = loop {
                match store.results(&id).await {
                    Ok(results) => {
                        let write = move || export(results, "parquet", &output);
                        break compute.run(write).await.unwrap_or_else(Err);
                    }
                    // Whoever keeps the lead knows when that lasts too long.
                    Err(e @ Error::Unavailable(_)) => {
                        tracing::warn!(experiment = id, error = %e, "no tables yet; trying again");
                    }
                    Err(e) => break Err(e.to_string()),
                }
                if !pause(&me).await {
                    return;
                }
            };
            // At shutdown nobody listens; the next start writes the tables again.
            let _ = me.send(Command::Exported(id, number, written)).await;
        });
    }

    /// An export has ended.
    pub(super) async fn exported(&mut self, id: String, number: u64, written: Result<(), String>) {
        self.exports.under_way.remove(&id);
        if self.exports.wanted.get(&id) != Some(&number) {
            tracing::info!(experiment = id, number, "these tables were overtaken");
            return self.export(id);
        }
        self.exports.wanted.remove(&id);
        if !self.goes_on(&id) {
            return;
        }
        let state = match written {
            Ok(()) => State::Done,
            Err(e) => State::Failed(format!("the tables can't be written: {e}; `ablate retry` tries again")),
        };
        self.end(&id, state).await;
    }
}
