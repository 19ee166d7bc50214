//! What the bases of pairs are called.

use super::{Plan, SweepKind};
use crate::units::UnitIx;

/// Units that people are named one by one; of a larger base only the first two are.
const NAMED: usize = 4;

impl Plan {
    /// The names of what a sweep removes throughout, joined by " + ", as tables have them; `None` where there is no such base.
    #[must_use]
    pub fn base_name(&self, sweep: u32) -> Option<String> {
        Some(self.base_names(sweep)?.join(" + "))
    }

    /// [`Self::base_name`] for people, who want no line of fifty names: "57 heads (L0.H1, L0.H4, …)".
    #[must_use]
    pub fn base_short(&self, sweep: u32) -> Option<String> {
        let names = self.base_names(sweep)?;
        if names.len() <= NAMED {
            return Some(names.join(" + "));
        }
        let units = self.units(sweep).kind.plural();
        Some(format!("{} {units} ({}, …)", names.len(), names[..2].join(", ")))
    }

    /// What follows the name of a sweep that has a base: ", given L0.H3"; otherwise nothing.
    #[must_use]
    pub fn given(&self, sweep: u32) -> String {
        self.base_short(sweep).map_or_else(String::new, |base| format!(", given {base}"))
    }

    fn base_names(&self, sweep: u32) -> Option<Vec<String>> {
        let SweepKind::Conditional { base } = &self.sweeps.get(sweep as usize)?.kind else { return None };
        let name = |&u: &UnitIx| self.units(sweep).place(self.heads(), u).map(|p| p.name);
        Some(base.iter().filter_map(name).collect())
    }
}
