//! How an experiment ended: `ablate run` and `ablate watch` end with the same exit code, and say alike what is missing.

/// An experiment that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    /// Its state.
    pub state: &'a str,
    /// Chunks of the plan.
    pub planned: u64,
    /// Those that are stored.
    pub accepted: u64,
    /// Those that are set aside.
    pub quarantined: u64,
}

impl Outcome<'_> {
    /// Chunks that the tables lack.
    pub fn missing(self) -> u64 {
        self.planned.saturating_sub(self.accepted)
    }

    /// The exit code.
    pub fn code(self) -> u8 {
        match self.state {
            "done" if self.missing() == 0 => 0,
            // Even if nothing is set aside: what was may have come late, and what follows from it wasn't done.
            "done" => 3,
            _ => 1,
        }
    }

    /// What to tell of one that is done without some of its chunks: where it is said why, and the command that tries them again.
    pub fn warning(self, why: &str, again: &str) -> Option<String> {
        if self.code() != 3 {
            return None;
        }
        let (missing, planned) = (self.missing(), self.planned);
        let cause = match self.quarantined {
            0 => "what they follow from was set aside, and came late".to_owned(),
            n if n >= missing => format!("set aside after failures on workers; {why}"),
            n => format!("{n} set aside after failures on workers, and what follows from them; {why}"),
        };
        Some(format!(
            "warning: the tables lack {missing} of {planned} chunks: {cause}\nhelp: mend the cause, then `{again}` tries them again"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::Outcome;

    fn done(planned: u64, accepted: u64, quarantined: u64) -> Outcome<'static> {
        Outcome { state: "done", planned, accepted, quarantined }
    }

    #[test]
    fn done_is_0_with_all_chunks_and_3_without_whether_or_not_one_is_set_aside() {
        assert_eq!(done(9, 9, 0).code(), 0);
        assert_eq!(done(9, 8, 1).code(), 3);
        assert_eq!(done(9, 7, 0).code(), 3);
        for state in ["failed", "cancelled"] {
            assert_eq!(Outcome { state, ..done(9, 9, 0) }.code(), 1, "{state}");
        }
    }

    #[test]
    fn what_is_missing_is_told_by_number_with_what_tries_it_again() {
        let said = |o: Outcome<'_>| o.warning("run.json says why", "ablate run x.toml");
        assert_eq!(said(done(9, 9, 0)), None);
        assert_eq!(said(Outcome { state: "failed", ..done(9, 3, 2) }), None);
        let all = said(done(9, 7, 2)).unwrap();
        assert!(all.contains("lack 2 of 9 chunks: set aside") && all.contains("run.json says why"), "{all}");
        let some = said(done(9, 2, 1)).unwrap();
        assert!(some.contains("lack 7 of 9 chunks: 1 set aside") && some.contains("follows"), "{some}");
        let late = said(done(9, 6, 0)).unwrap();
        assert!(late.contains("lack 3 of 9 chunks") && late.contains("late"), "{late}");
        assert!([all, some, late].iter().all(|w| w.contains("`ablate run x.toml` tries them again")));
    }
}
