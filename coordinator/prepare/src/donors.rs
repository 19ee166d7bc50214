//! Which item's state replaces which: seeded donors of a resample ablation.

use ablate_common::task::{Item, Prepared, TaskKind};
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// Keeps the draws apart from others of the same seed.
const DONORS: u64 = 0xd0_0d5;

/// For each item its donor among the items themselves. An example's items get theirs from one other example, so
/// that no continuation is a donor of its own prompt. Within each class of equal lengths that has two or more
/// examples the donors are a seeded derangement; an example with lengths of its own gets a seeded donor of the
/// next greater length, or of the next smaller one where there is none.
///
/// # Errors
/// Where there is only one example.
pub fn within(prepared: &Prepared, seed: u64) -> Result<Vec<u32>, String> {
    let groups = groups(prepared);
    if groups.len() < 2 {
        return Err("a donor must be another example, but there is only one".into());
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ DONORS);
    let classes = classes(prepared, &groups);
    let mut out = vec![0; prepared.items.len()];
    for (lengths, members) in &classes {
        let donors = if members.len() > 1 { derangement(members, &mut rng) } else { Vec::new() };
        for (at, &member) in members.iter().enumerate() {
            let donor = match donors.get(at) {
                Some(&donor) => donor,
                None => {
                    near(&classes, lengths, |m| m != member, &mut rng).ok_or("there is no other example")?
                }
            };
            give(&groups[member], &groups[donor], &mut out);
        }
    }
    Ok(out)
}

/// For each item of `prepared` its donor among the items of `reference`: a seeded one of the same length, or else
/// of the next greater length, or else of the next smaller one. Never one that is the item itself, where there is another;
/// of a reference that is the task's own data they are as [`within`] gives them.
///
/// # Errors
/// Where the reference has no item, or is the task's own data and has only one example.
pub fn from(prepared: &Prepared, reference: &Prepared, seed: u64) -> Result<Vec<u32>, String> {
    if prepared.items.len() == reference.items.len()
        && prepared.items.iter().zip(&reference.items).all(|(a, b)| same(a, b))
    {
        return within(prepared, seed);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ DONORS);
    let singles: Vec<Vec<u32>> = (0..reference.items.len() as u32).map(|i| vec![i]).collect();
    let classes = classes(reference, &singles);
    let one = |item: &Item| {
        let length = [item.tokens.len()];
        let other = |donor: usize| !same(item, &reference.items[donor]);
        let donor =
            near(&classes, &length, other, &mut rng).or_else(|| near(&classes, &length, |_| true, &mut rng));
        donor.map(|d| d as u32).ok_or_else(|| "the reference set has no item".to_owned())
    };
    prepared.items.iter().map(one).collect()
}

/// Whether the model sees the same in both: its z would be no other.
fn same(a: &Item, b: &Item) -> bool {
    a.tokens == b.tokens && a.image == b.image
}

/// The items that get their donors together: those of a choice, otherwise each alone.
fn groups(prepared: &Prepared) -> Vec<Vec<u32>> {
    match prepared.kind {
        TaskKind::NextTokenChoice => prepared.examples.iter().map(|e| (e.a..=e.b).collect()).collect(),
        _ => (0..prepared.items.len() as u32).map(|i| vec![i]).collect(),
    }
}

/// Lengths of a group's items → the groups that have them.
type Classes = BTreeMap<Vec<usize>, Vec<usize>>;

fn classes(prepared: &Prepared, groups: &[Vec<u32>]) -> Classes {
    let mut out = Classes::new();
    for (at, group) in groups.iter().enumerate() {
        let lengths = group.iter().map(|&i| prepared.items[i as usize].tokens.len()).collect();
        out.entry(lengths).or_default().push(at);
    }
    out
}

/// A seeded order of `members` that leaves none in its place: shuffled until that is so.
fn derangement(members: &[usize], rng: &mut impl Rng) -> Vec<usize> {
    let mut out = members.to_vec();
    loop {
        out.shuffle(rng);
        if out.iter().zip(members).all(|(a, b)| a != b) {
            return out;
        }
    }
}

/// A seeded member of the class of `lengths`, or of the next class after it, or of the last before it, that `fits`.
fn near(
    classes: &Classes,
    lengths: &[usize],
    fits: impl Fn(usize) -> bool,
    rng: &mut impl Rng,
) -> Option<usize> {
    let others = |class: &Vec<usize>| class.iter().copied().filter(|&m| fits(m)).collect::<Vec<_>>();
    let after = classes.range::<[usize], _>((std::ops::Bound::Included(lengths), std::ops::Bound::Unbounded));
    let before =
        classes.range::<[usize], _>((std::ops::Bound::Unbounded, std::ops::Bound::Excluded(lengths)));
    let class = after.chain(before.rev()).map(|c| others(c.1)).find(|c| !c.is_empty())?;
    class.choose(rng).copied()
}

/// Item k of a group gets item k of the donor, or its last where it has fewer.
fn give(group: &[u32], donor: &[u32], out: &mut [u32]) {
    for (k, &item) in group.iter().enumerate() {
        out[item as usize] = donor[k.min(donor.len() - 1)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ablate_common::task::Example;
    use proptest::prelude::*;

    fn of(lengths: &[usize]) -> Prepared {
        let items = lengths.iter().map(|&n| Item { tokens: vec![0; n], ..Item::default() }).collect();
        Prepared {
            kind: TaskKind::LanguageModeling,
            items,
            item_half: vec![0; lengths.len()],
            examples: Vec::new(),
            probe: None,
        }
    }

    proptest! {
        #[test]
        fn donors_are_others_and_of_the_same_length_where_there_is_one(lengths in prop::collection::vec(1usize..6, 2..30), seed: u64) {
            let p = of(&lengths);
            let donors = within(&p, seed).unwrap();
            prop_assert_eq!(&donors, &within(&p, seed).unwrap());
            for n in 1..6 {
                let class: Vec<usize> = (0..lengths.len()).filter(|&i| lengths[i] == n).collect();
                let mut given: Vec<usize> = class.iter().map(|&i| donors[i] as usize).collect();
                prop_assert!(class.iter().zip(&given).all(|(a, b)| a != b));
                given.sort_unstable();
                match class.as_slice() {
                    [] => {}
                    [_] => {
                        let above = lengths.iter().filter(|&&l| l > n).min();
                        let below = lengths.iter().filter(|&&l| l < n).max();
                        prop_assert_eq!(Some(&lengths[given[0]]), above.or(below));
                    }
                    _ => prop_assert_eq!(given, class),
                }
            }
            let mut elsewhere = of(&[2, 4, 4]);
            elsewhere.items.iter_mut().for_each(|i| i.tokens.fill(1));
            for (n, d) in lengths.iter().zip(from(&p, &elsewhere, seed).unwrap()) {
                let wanted = if *n <= 2 { 2 } else { 4 };
                prop_assert_eq!(elsewhere.items[d as usize].tokens.len(), wanted);
            }
        }
    }

    #[test]
    fn no_item_of_a_reference_is_its_own_donor_where_there_is_another() {
        let numbered = |lengths: &[usize]| {
            let mut p = of(lengths);
            (0u32..).zip(&mut p.items).for_each(|(i, item)| item.tokens.fill(i));
            p
        };
        let (own, longer) = (numbered(&[3, 3, 3, 5]), numbered(&[3, 3, 3, 5, 3]));
        for seed in 0..20 {
            assert_eq!(from(&own, &own, seed), within(&own, seed));
            let donors = from(&own, &longer, seed).unwrap();
            assert!((0u32..).zip(&donors).all(|(i, d)| i != *d), "{donors:?}");
        }
        assert!(from(&of(&[3]), &of(&[3, 3]), 0).unwrap()[0] < 2, "there is nothing else");
    }

    #[test]
    fn a_choice_takes_its_donors_from_one_other_choice() {
        let mut p = of(&[3, 4, 3, 4, 5, 3, 4]);
        p.kind = TaskKind::NextTokenChoice;
        let example = |a, b| Example { a, b, gold: 0.0, cluster: a, half: None };
        p.examples = vec![example(0, 1), example(2, 4), example(5, 6)];
        let donors = within(&p, 3).unwrap();
        // The two with lengths 3 and 4 swap; the third has the next greater lengths or the next smaller.
        assert_eq!((&donors[..2], &donors[5..]), (&[5, 6][..], &[0, 1][..]));
        assert!([[0, 1, 1], [5, 6, 6]].contains(&[donors[2], donors[3], donors[4]]), "{donors:?}");
        assert!(within(&of(&[3]), 0).is_err());
    }
}
