//! Follow-ups of a pairs sweep: sets of units that its scores call for, removed together. Redundancy groups, whose joint delta is
//! measured instead of inferred, and triples, for interactions of the third order.
//!
//! How many there can be is planned, so that chunks are known beforehand: each task has so many slots for groups, then so many for
//! triples. Which sets they are follows from the pairs' scores; a slot that nothing needs is the empty set, which costs nothing.

use crate::plan::{Plan, PlannedSweep, SweepKind};
use crate::units::UnitIx;
use std::collections::{BTreeMap, BTreeSet};

/// Redundancy groups that are measured per task: those with the most interaction.
pub const GROUPS: u32 = 8;

/// Two units that interact: (earlier, later, I).
pub type Edge = (UnitIx, UnitIx, f64);

/// The slots of a sweep, of one task after another.
#[must_use]
pub fn slots(sweep: &PlannedSweep) -> u64 {
    let SweepKind::Joint { groups, triples, .. } = sweep.kind else { return 0 };
    sweep.tasks.len() as u64 * (u64::from(groups) + u64::from(triples))
}

/// Ranks of a task's groups, and of its triples; `at` is the task's place among the sweep's.
#[must_use]
pub fn ranks(groups: u32, triples: u32, at: usize) -> [std::ops::Range<u64>; 2] {
    let (g, t) = (u64::from(groups), u64::from(triples));
    let start = at as u64 * (g + t);
    [start..start + g, start + g..start + g + t]
}

/// The sweep that follows a pairs sweep; none where it has none.
#[must_use]
pub fn follower(plan: &Plan, pairs: u32) -> Option<u32> {
    let follows = |s: &PlannedSweep| matches!(s.kind, SweepKind::Joint { pairs: p, .. } if p == pairs);
    plan.sweeps.iter().position(follows).map(|at| at as u32)
}

/// The sweeps whose scores a follow-up is decided from, beside the pairs': the reference, and all single units on one of its tasks.
#[must_use]
pub fn needs(plan: &Plan, pairs: u32) -> Vec<u32> {
    let Some(own) = plan.sweeps.get(pairs as usize) else { return Vec::new() };
    let serves = |s: &PlannedSweep| {
        s.ablation == own.ablation
            && (s.kind == SweepKind::Reference
                || s.kind == SweepKind::Single && s.tasks.iter().any(|t| own.tasks.contains(t)))
    };
    (0u32..).zip(&plan.sweeps).filter(|(_, s)| serves(s)).map(|(i, _)| i).collect()
}

/// Sets of units as the input of a round: each set's size, then its units.
#[must_use]
pub fn encode(sets: &[Vec<UnitIx>]) -> Vec<UnitIx> {
    sets.iter().flat_map(|s| std::iter::once(UnitIx(s.len() as u32)).chain(s.iter().copied())).collect()
}

/// What [`encode`] made, each set ascending. Without an input (the round isn't open yet) there are no sets.
///
/// # Errors
/// Where it isn't of sets of units below `n`, each ascending.
pub fn decode(list: &[UnitIx], n: u32) -> Result<Vec<Vec<UnitIx>>, String> {
    let (mut sets, mut rest) = (Vec::new(), list);
    while let [size, tail @ ..] = rest {
        let Some((set, after)) = tail.split_at_checked(size.at()) else {
            return Err("a set ends past the end of the round's input".to_owned());
        };
        if set.iter().any(|u| u.0 >= n) || set.windows(2).any(|w| w[0] >= w[1]) {
            return Err("a set names a unit that the sweep does not have, or one twice".to_owned());
        }
        sets.push(set.to_vec());
        rest = after;
    }
    Ok(sets)
}

/// Disjoint groups of two units or more in which every two are redundant: agglomerative clustering with complete linkage on I, which
/// merges the two clusters whose weakest link is strongest, as long as all links are among `redundant` (I > 0, resolved). At
/// most `most`, those with the largest sum of I; ties go to the earlier units. Each ascending.
#[must_use]
pub fn groups(redundant: &[Edge], most: usize) -> Vec<Vec<UnitIx>> {
    let mut clusters = Clusters::new(redundant);
    while clusters.merge() {}
    let strength: BTreeMap<(UnitIx, UnitIx), f64> = redundant.iter().map(|e| ((e.0, e.1), e.2)).collect();
    let sum = |set: &Vec<UnitIx>| -> f64 {
        let pairs = set.iter().enumerate().flat_map(|(k, &a)| set[k + 1..].iter().map(move |&b| (a, b)));
        pairs.filter_map(|p| strength.get(&p)).sum()
    };
    let mut found: Vec<(f64, Vec<UnitIx>)> =
        clusters.members.into_values().filter(|s| s.len() > 1).map(|s| (sum(&s), s)).collect();
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    found.into_iter().take(most).map(|f| f.1).collect()
}

/// The state of [`groups`]: clusters are named by their first unit.
struct Clusters {
    members: BTreeMap<UnitIx, Vec<UnitIx>>,
    /// By cluster the clusters with which all links are there, and the weakest of these.
    links: BTreeMap<UnitIx, BTreeMap<UnitIx, f64>>,
    /// All links, strongest last: (order-preserving bits of I, reversed names).
    queue: BTreeSet<(u64, std::cmp::Reverse<(UnitIx, UnitIx)>)>,
}

/// Bits that order like the numbers, which are positive.
fn bits(link: f64) -> u64 {
    link.max(0.0).to_bits()
}

impl Clusters {
    fn new(edges: &[Edge]) -> Self {
        let mut new = Self { members: BTreeMap::new(), links: BTreeMap::new(), queue: BTreeSet::new() };
        for &(a, b, link) in edges.iter().filter(|e| e.2 > 0.0) {
            for unit in [a, b] {
                new.members.entry(unit).or_insert_with(|| vec![unit]);
            }
            new.link(a, b, link);
        }
        new
    }

    fn link(&mut self, a: UnitIx, b: UnitIx, link: f64) {
        self.links.entry(a).or_default().insert(b, link);
        self.links.entry(b).or_default().insert(a, link);
        self.queue.insert((bits(link), std::cmp::Reverse((a.min(b), a.max(b)))));
    }

    /// Takes a cluster's links out, and out of its neighbours'.
    fn unlink(&mut self, a: UnitIx) -> BTreeMap<UnitIx, f64> {
        let own = self.links.remove(&a).unwrap_or_default();
        for (&b, &link) in &own {
            self.queue.remove(&(bits(link), std::cmp::Reverse((a.min(b), a.max(b)))));
            if let Some(other) = self.links.get_mut(&b) {
                other.remove(&a);
            }
        }
        own
    }

    /// Merges the two clusters whose weakest link is strongest; false where no two can be merged.
    fn merge(&mut self) -> bool {
        let Some(&(_, std::cmp::Reverse((a, b)))) = self.queue.last() else { return false };
        let (of_a, of_b) = (self.unlink(a), self.unlink(b));
        let other = self.members.remove(&b).unwrap_or_default();
        if let Some(set) = self.members.get_mut(&a) {
            set.extend(other);
            set.sort_unstable();
        }
        for (c, link) in of_a {
            if let Some(&second) = of_b.get(&c) {
                self.link(a, c, link.min(second));
            }
        }
        true
    }
}

/// Pairs that triples are made of at most, unless more triples than that are asked for.
pub const STRONGEST: usize = 512;

/// Triples of units of which at least two pairs are among `resolved`, with the largest sum of |I| over those; at most `most`, ties by
/// the earlier units. Only the strongest pairs are looked at. Each ascending.
#[must_use]
pub fn triples(resolved: &[Edge], most: usize) -> Vec<Vec<UnitIx>> {
    if most == 0 {
        return Vec::new();
    }
    let mut strongest: Vec<&Edge> = resolved.iter().collect();
    strongest.sort_by(|a, b| b.2.abs().total_cmp(&a.2.abs()).then_with(|| (a.0, a.1).cmp(&(b.0, b.1))));
    let strength: BTreeMap<(UnitIx, UnitIx), f64> =
        resolved.iter().map(|e| ((e.0, e.1), e.2.abs())).collect();
    strongest.truncate(STRONGEST.max(most));
    let mut found = BTreeMap::new();
    for (k, x) in strongest.iter().enumerate() {
        for y in &strongest[k + 1..] {
            let mut set = vec![x.0, x.1, y.0, y.1];
            set.sort_unstable();
            set.dedup();
            if let [a, b, c] = *set.as_slice() {
                let sum: f64 = [(a, b), (a, c), (b, c)].iter().filter_map(|p| strength.get(p)).sum();
                found.insert(set, sum);
            }
        }
    }
    let mut found: Vec<(Vec<UnitIx>, f64)> = found.into_iter().collect();
    found.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    found.into_iter().take(most).map(|f| f.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::seq::SliceRandom;

    fn edge(a: u32, b: u32, i: f64) -> Edge {
        (UnitIx(a), UnitIx(b), i)
    }

    fn set(units: &[u32]) -> Vec<UnitIx> {
        units.iter().copied().map(UnitIx).collect()
    }

    #[test]
    fn a_chain_is_no_group_but_a_clique_is() {
        // 0-1-2 with all links; 2-3 alone; 4-5 weak.
        let edges = [edge(0, 1, 3.0), edge(0, 2, 2.0), edge(1, 2, 2.5), edge(2, 3, 1.0), edge(4, 5, 0.1)];
        assert_eq!(groups(&edges, 8), [set(&[0, 1, 2]), set(&[4, 5])]);
        assert_eq!(groups(&edges, 1), [set(&[0, 1, 2])]);
        // Without 0-2 the strongest link decides, and 2 goes with 3.
        let edges = [edge(0, 1, 3.0), edge(1, 2, 2.5), edge(2, 3, 1.0)];
        assert_eq!(groups(&edges, 8), [set(&[0, 1]), set(&[2, 3])]);
        assert!(groups(&[], 8).is_empty());
    }

    #[test]
    fn triples_share_a_unit_and_the_strongest_come_first() {
        let edges = [edge(0, 1, 3.0), edge(1, 2, -2.5), edge(0, 2, 0.5), edge(3, 4, 9.0), edge(2, 5, 0.1)];
        assert_eq!(triples(&edges, 9), [set(&[0, 1, 2]), set(&[1, 2, 5]), set(&[0, 2, 5])]);
        assert_eq!(triples(&edges, 1), [set(&[0, 1, 2])]);
        assert!(triples(&edges, 0).is_empty());
    }

    proptest! {
        #[test]
        fn sets_come_back_from_a_rounds_input(sets in prop::collection::vec(prop::collection::btree_set(0u32..20, 0..6), 0..9)) {
            let sets: Vec<Vec<UnitIx>> = sets.into_iter().map(|s| s.into_iter().map(UnitIx).collect()).collect();
            prop_assert_eq!(decode(&encode(&sets), 20).unwrap(), sets);
        }

        #[test]
        fn any_input_is_decoded_or_refused(list in prop::collection::vec(0u32..8, 0..20)) {
            let list: Vec<UnitIx> = list.into_iter().map(UnitIx).collect();
            if let Ok(sets) = decode(&list, 6) {
                prop_assert_eq!(encode(&sets), list);
            }
        }

        /// Groups are disjoint, every two of a group are linked, no two groups of all could be one, and the order of the
        /// edges doesn't matter.
        #[test]
        fn groups_are_cliques_that_nothing_can_join(
            links in prop::collection::btree_map((0u32..9, 0u32..9), 1u32..50, 0..36),
            seed in any::<u64>(),
        ) {
            let mut edges: Vec<Edge> =
                links.into_iter().filter(|((a, b), _)| a < b).map(|((a, b), i)| edge(a, b, f64::from(i))).collect();
            let found = groups(&edges, usize::MAX);
            let linked = |a: UnitIx, b: UnitIx| edges.iter().any(|e| (e.0, e.1) == (a.min(b), a.max(b)));
            let clique = |s: &[UnitIx]| s.iter().all(|&a| s.iter().all(|&b| a == b || linked(a, b)));
            let mut all: Vec<UnitIx> = found.concat();
            all.sort_unstable();
            prop_assert!(all.windows(2).all(|w| w[0] < w[1]));
            for (k, x) in found.iter().enumerate() {
                prop_assert!(x.len() > 1 && clique(x));
                for y in &found[k + 1..] {
                    prop_assert!(!clique(&[x.as_slice(), y].concat()));
                }
            }
            edges.shuffle(&mut rand_chacha::ChaCha8Rng::seed_from_u64(seed));
            prop_assert_eq!(groups(&edges, usize::MAX), found);
        }
    }
}
