//! Subset spaces: the ordered families of subsets of units that sweeps run over. A space is a few
//! numbers; subsets are computed from ranks and never stored as a list. What a unit is (a head, a
//! layer, …) is the [`crate::units::UnitMap`]'s business.

use crate::units::UnitIx;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// An ordered family of subsets of `n` units. Ranks are lexicographic in forward order wherever the
/// family has such an order, so that neighbours share prefixes of the forward pass.
#[derive(Clone, Debug)]
pub enum SubsetSpace {
    /// Two subsets: none (rank 0) and every unit (rank 1).
    Reference {
        /// Units in all.
        n: u32,
    },
    /// None (rank 0), every unit (rank 1), then every unit alone.
    Survey {
        /// Units in all.
        n: u32,
    },
    /// Every unit alone.
    Single {
        /// Units in all.
        n: u32,
    },
    /// Every pair i < j, lexicographically.
    Pairs {
        /// Units in all.
        n: u32,
    },
    /// `base` plus one further unit, for each unit not in it: a round of a greedy sweep.
    Candidates {
        /// Units in all.
        n: u32,
        /// Units already removed, ascending.
        base: Vec<UnitIx>,
    },
    /// `base` alone, then with each unit not in it, then with every two of those: what interactions given that `base` is
    /// removed are made from.
    Given {
        /// Units in all.
        n: u32,
        /// Units removed in every subset, ascending.
        base: Vec<UnitIx>,
    },
    /// The first 1, 2, … units of an order.
    Prefixes {
        /// Units in order of removal.
        order: Vec<UnitIx>,
    },
    /// Seeded random orders, each cut at the same points.
    Random(RandomOrders),
    /// Sets as they are listed, each ascending; some may be empty.
    Listed {
        /// The sets.
        sets: Vec<Vec<UnitIx>>,
    },
}

/// Streams of the generator from this one on are those of matched orders, which have nothing in common with plain ones of the same seed.
const MATCHED: u64 = 1 << 32;

/// How random orders are drawn.
#[derive(Clone, Debug)]
enum Draw {
    /// Shuffles of so many units.
    Plain(u32),
    /// Shuffles within the layers.
    Matched {
        /// The layer of every unit.
        layers: Vec<usize>,
        /// The order whose sequence of layers they follow.
        like: Vec<UnitIx>,
    },
}

/// Seeded random removal orders, each evaluated where `points[k]` units are gone.
#[derive(Clone, Debug)]
pub struct RandomOrders {
    draw: Draw,
    seed: u64,
    orders: u32,
    points: Vec<u32>,
    made: OnceLock<Vec<Vec<UnitIx>>>,
}

impl RandomOrders {
    /// `orders` permutations of `n` units from `seed`, cut at `points` (each at most `n`).
    #[must_use]
    pub fn new(n: u32, seed: u64, orders: u32, points: Vec<u32>) -> Self {
        Self { draw: Draw::Plain(n), seed, orders, points, made: OnceLock::new() }
    }

    /// `orders` orders from `seed`, each as long as `like`, which names no unit twice, and cut at `points`. Where `like` removes a unit of
    /// a layer, they remove the next of that layer's own shuffle, so that at each point as many units of each layer are gone.
    /// `layers` says the layer of every unit.
    #[must_use]
    pub fn matched(layers: Vec<usize>, like: Vec<UnitIx>, seed: u64, orders: u32, points: Vec<u32>) -> Self {
        Self { draw: Draw::Matched { layers, like }, seed, orders, points, made: OnceLock::new() }
    }

    /// The orders. Order `k` depends on the seed, `k`, and, where it is matched, on the order that it is like.
    pub fn orders(&self) -> &[Vec<UnitIx>] {
        self.made.get_or_init(|| {
            let rng = |stream| {
                let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
                rng.set_stream(stream);
                rng
            };
            (0..u64::from(self.orders))
                .map(|k| match &self.draw {
                    Draw::Plain(n) => {
                        let mut units: Vec<UnitIx> = (0..*n).map(UnitIx).collect();
                        units.shuffle(&mut rng(k + 1));
                        units
                    }
                    Draw::Matched { layers, like } => matched(layers, like, &mut rng(MATCHED + k)),
                })
                .collect()
        })
    }

    /// Numbers of removed units at which each order is evaluated.
    #[must_use]
    pub fn points(&self) -> &[u32] {
        &self.points
    }

    /// The units that are gone at a point of an order; fewer where the order ends before, as a matched one does while the order that it is
    /// like isn't known.
    fn gone(&self, order: usize, point: usize) -> &[UnitIx] {
        let units = &self.orders()[order];
        &units[..(self.points[point] as usize).min(units.len())]
    }
}

/// An order like `like`, with each unit replaced by the next of the shuffle of its layer.
fn matched(layers: &[usize], like: &[UnitIx], rng: &mut ChaCha8Rng) -> Vec<UnitIx> {
    let mut left: BTreeMap<usize, Vec<UnitIx>> = BTreeMap::new();
    for (&layer, unit) in layers.iter().zip((0..).map(UnitIx)) {
        left.entry(layer).or_default().push(unit);
    }
    for units in left.values_mut() {
        units.shuffle(rng);
    }
    // A layer has a unit left for each that `like` names, as that names none twice.
    like.iter().filter_map(|unit| left.get_mut(layers.get(unit.at())?)?.pop()).collect()
}

impl SubsetSpace {
    /// Number of subsets.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Reference { .. } => 2,
            Self::Survey { n } => 2 + u64::from(*n),
            Self::Single { n } => u64::from(*n),
            Self::Pairs { n } => u64::from(*n) * u64::from(n.saturating_sub(1)) / 2,
            Self::Candidates { n, base } => u64::from(*n) - base.len() as u64,
            Self::Given { n, base } => {
                let others = u64::from(others(*n, base));
                1 + others + others * others.saturating_sub(1) / 2
            }
            Self::Prefixes { order } => order.len() as u64,
            Self::Random(r) => u64::from(r.orders) * r.points.len() as u64,
            Self::Listed { sets } => sets.len() as u64,
        }
    }

    /// Whether the space has no subset.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The units that every subset of the space holds: the state a sweep starts from.
    #[must_use]
    pub fn base(&self) -> &[UnitIx] {
        match self {
            Self::Candidates { base, .. } | Self::Given { base, .. } => base,
            _ => &[],
        }
    }

    /// The subset at `rank`, ascending; `None` past the end.
    #[must_use]
    pub fn subset(&self, rank: u64) -> Option<Vec<UnitIx>> {
        if rank >= self.len() {
            return None;
        }
        Some(match self {
            Self::Reference { n } => (0..if rank == 0 { 0 } else { *n }).map(UnitIx).collect(),
            Self::Survey { n } if rank < 2 => (0..if rank == 0 { 0 } else { *n }).map(UnitIx).collect(),
            Self::Survey { .. } => vec![UnitIx(rank as u32 - 2)],
            Self::Single { .. } => vec![UnitIx(rank as u32)],
            Self::Pairs { n } => {
                let (i, j) = pair_of_rank(*n, rank);
                vec![UnitIx(i), UnitIx(j)]
            }
            Self::Candidates { base, .. } => with(base, &[rank as u32]),
            Self::Given { n, base } => match others(*n, base) {
                _ if rank == 0 => base.clone(),
                m if rank <= u64::from(m) => with(base, &[rank as u32 - 1]),
                m => {
                    let (i, j) = pair_of_rank(m, rank - 1 - u64::from(m));
                    with(base, &[i, j])
                }
            },
            Self::Prefixes { order } => sorted(&order[..=rank as usize]),
            Self::Random(r) => {
                let (order, point) = (rank as usize / r.points.len(), rank as usize % r.points.len());
                sorted(r.gone(order, point))
            }
            Self::Listed { sets } => sets[rank as usize].clone(),
        })
    }

    /// The rank of an ascending `subset`; `None` where the space does not hold it. Where a space holds a
    /// subset more than once (random orders that meet, a survey of one unit), the lowest rank.
    #[must_use]
    pub fn rank(&self, subset: &[UnitIx]) -> Option<u64> {
        if !subset.windows(2).all(|w| w[0] < w[1]) {
            return None;
        }
        match (self, subset) {
            (Self::Reference { .. } | Self::Survey { .. }, []) => Some(0),
            (Self::Reference { n } | Self::Survey { n }, s)
                if s.len() == *n as usize && s.last()?.0 + 1 == *n =>
            {
                Some(1)
            }
            (Self::Survey { n }, [h]) => (h.0 < *n).then(|| u64::from(h.0) + 2),
            (Self::Single { n }, [h]) => (h.0 < *n).then_some(u64::from(h.0)),
            (Self::Pairs { n }, [i, j]) => (j.0 < *n).then(|| rank_of_pair(*n, i.0, j.0)),
            (Self::Candidates { n, base }, s) if s.len() == base.len() + 1 => {
                let mut extra = s.iter().filter(|h| base.binary_search(h).is_err());
                let unit = *extra.next()?;
                (extra.next().is_none() && unit.0 < *n)
                    .then(|| u64::from(unit.0) - base.partition_point(|&b| b < unit) as u64)
            }
            (Self::Given { n, base }, s) => {
                let m = others(*n, base);
                let extra: Vec<UnitIx> =
                    s.iter().copied().filter(|u| base.binary_search(u).is_err()).collect();
                if extra.len() + base.len() != s.len() || s.last().is_some_and(|u| u.0 >= *n) {
                    return None;
                }
                let at = |u: UnitIx| u.0 - base.partition_point(|&b| b < u) as u32;
                match *extra.as_slice() {
                    [] => Some(0),
                    [i] => Some(1 + u64::from(at(i))),
                    [i, j] => Some(1 + u64::from(m) + rank_of_pair(m, at(i), at(j))),
                    _ => None,
                }
            }
            (Self::Prefixes { order }, s) => {
                let k = s.len().checked_sub(1).filter(|&k| k < order.len())?;
                (sorted(&order[..=k]) == s).then_some(k as u64)
            }
            (Self::Random(_) | Self::Listed { .. }, s) => {
                (0..self.len()).find(|&r| self.subset(r).as_deref() == Some(s))
            }
            _ => None,
        }
    }
}

fn sorted(units: &[UnitIx]) -> Vec<UnitIx> {
    let mut v = units.to_vec();
    v.sort_unstable();
    v
}

/// Rank of the first pair that begins with `i`.
fn row_start(n: u32, i: u32) -> u64 {
    let (n, i) = (u64::from(n), u64::from(i));
    i * (2 * n - i - 1) / 2
}

fn rank_of_pair(n: u32, i: u32, j: u32) -> u64 {
    row_start(n, i) + u64::from(j - i - 1)
}

fn pair_of_rank(n: u32, rank: u64) -> (u32, u32) {
    // Binary search over rows: exact for every n, where a square root in floating point is not.
    let (mut low, mut high) = (0, n - 1);
    while high - low > 1 {
        let mid = low + (high - low) / 2;
        if row_start(n, mid) <= rank { low = mid } else { high = mid }
    }
    (low, low + 1 + (rank - row_start(n, low)) as u32)
}

/// How many of `n` units `base` doesn't hold.
fn others(n: u32, base: &[UnitIx]) -> u32 {
    n.saturating_sub(base.len() as u32)
}

/// Ascending `base` with the `k`-th units (from 0) that it doesn't hold.
fn with(base: &[UnitIx], more: &[u32]) -> Vec<UnitIx> {
    let mut set = base.to_vec();
    set.extend(more.iter().map(|&k| nth_outside(base, k)));
    set.sort_unstable();
    set
}

/// The `k`-th unit (from 0) that ascending `base` doesn't hold.
fn nth_outside(base: &[UnitIx], k: u32) -> UnitIx {
    let mut unit = k;
    for b in base {
        if b.0 <= unit { unit += 1 } else { break }
    }
    UnitIx(unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::btree_set;
    use proptest::prelude::*;

    fn round_trip(space: &SubsetSpace) {
        let mut last: Option<Vec<UnitIx>> = None;
        for rank in 0..space.len() {
            let subset = space.subset(rank).unwrap();
            assert_eq!(space.rank(&subset), Some(rank), "{space:?} {subset:?}");
            if matches!(space, SubsetSpace::Single { .. } | SubsetSpace::Pairs { .. }) {
                assert!(last < Some(subset.clone()));
            }
            last = Some(subset);
        }
        assert_eq!(space.subset(space.len()), None);
    }

    proptest! {
        #[test]
        fn ranks_and_subsets_are_inverse_for_every_sweep(n in 1u32..40, picks in btree_set(0u32..40, 0..20), seed: u64) {
            round_trip(&SubsetSpace::Reference { n });
            round_trip(&SubsetSpace::Survey { n: n + 1 });
            round_trip(&SubsetSpace::Single { n });
            round_trip(&SubsetSpace::Pairs { n });
            let base: Vec<UnitIx> = picks.into_iter().filter(|&h| h < n).map(UnitIx).collect();
            round_trip(&SubsetSpace::Given { n, base: base.clone() });
            round_trip(&SubsetSpace::Candidates { n, base });
            let orders = RandomOrders::new(n, seed, 3, vec![1, n.div_ceil(2), n]);
            round_trip(&SubsetSpace::Prefixes { order: orders.orders()[0].clone() });
            let random = SubsetSpace::Random(orders);
            for rank in 0..random.len() {
                let subset = random.subset(rank).unwrap();
                let first = random.rank(&subset).unwrap();
                prop_assert!(first <= rank);
                prop_assert_eq!(random.subset(first), Some(subset));
            }
        }

        /// Random orders that are matched to another: at every length as many units of each layer, none twice, by the seed and the
        /// order's number.
        #[test]
        fn matched_orders_follow_the_layers_of_another(
            layers in proptest::collection::vec(0usize..5, 1..40), share in 0.0f64..1.0, seed: u64,
        ) {
            let n = layers.len() as u32;
            let length = ((f64::from(n) * share) as u32).max(1);
            let like = RandomOrders::new(n, seed ^ 1, 1, vec![n]).orders()[0][..length as usize].to_vec();
            let draw = |seed, like: &[UnitIx]| {
                RandomOrders::matched(layers.clone(), like.to_vec(), seed, 3, vec![1, length.div_ceil(2), length])
            };
            let drawn = draw(seed, &like);
            let of = |units: &[UnitIx]| {
                let mut of: Vec<usize> = units.iter().map(|u| layers[u.at()]).collect();
                of.sort_unstable();
                of
            };
            prop_assert_eq!(drawn.orders().len(), 3);
            for order in drawn.orders() {
                prop_assert_eq!(order.len(), like.len());
                prop_assert!(sorted(order).windows(2).all(|w| w[0] < w[1]), "{order:?}");
                for k in 1..=order.len() {
                    prop_assert_eq!(of(&order[..k]), of(&like[..k]));
                }
            }
            let again = draw(seed, &like);
            prop_assert_eq!(drawn.orders(), again.orders());
            // What is cut shorter begins alike: an order doesn't depend on how far it goes.
            let half = &like[..like.len().div_ceil(2)];
            let shorter = draw(seed, half);
            for (long, short) in drawn.orders().iter().zip(shorter.orders()) {
                prop_assert_eq!(&long[..half.len()], short.as_slice());
            }
            let space = SubsetSpace::Random(drawn);
            prop_assert_eq!(space.len(), 9);
            for rank in 0..space.len() {
                let subset = space.subset(rank).unwrap();
                prop_assert!(space.rank(&subset).unwrap() <= rank);
            }
            // Before the order is known the ranks are, and no subset is anything.
            let unknown = SubsetSpace::Random(draw(seed, &[]));
            prop_assert_eq!((unknown.len(), unknown.subset(8)), (9, Some(vec![])));
        }

        /// Given a base: it alone, each other unit with it in order, then every two others as the pairs of these.
        #[test]
        fn a_base_is_in_every_subset_and_all_else_is_as_without_it(n in 1u32..30, picks in btree_set(0u32..30, 0..9)) {
            let base: Vec<UnitIx> = picks.into_iter().filter(|&h| h < n).map(UnitIx).collect();
            let others: Vec<UnitIx> = (0..n).map(UnitIx).filter(|u| !base.contains(u)).collect();
            let mut expected = vec![base.clone()];
            expected.extend(others.iter().map(|&i| vec![i]));
            let pairs = SubsetSpace::Pairs { n: others.len() as u32 };
            let of = |r| pairs.subset(r).unwrap().iter().map(|k| others[k.at()]).collect::<Vec<_>>();
            expected.extend((0..pairs.len()).map(of));
            let space = SubsetSpace::Given { n, base: base.clone() };
            prop_assert_eq!(space.len(), expected.len() as u64);
            prop_assert_eq!(space.base(), base.as_slice());
            for (rank, extra) in (0..).zip(expected) {
                let mut subset = if rank == 0 { extra } else { [base.clone(), extra].concat() };
                subset.sort_unstable();
                prop_assert_eq!(space.subset(rank), Some(subset));
            }
            // Without one of the base, with three others, or with a unit that isn't there it is no subset of the space.
            if let Some(first) = base.first() {
                let rest: Vec<UnitIx> = base[1..].to_vec();
                prop_assert_eq!(space.rank(&rest), None, "without {:?}", first);
            }
            prop_assert_eq!(space.rank(&[base.clone(), vec![UnitIx(n)]].concat()), None);
            if others.len() >= 3 {
                let mut four = [base, others[..3].to_vec()].concat();
                four.sort_unstable();
                prop_assert_eq!(space.rank(&four), None);
            }
        }

        #[test]
        fn pair_ranks_hold_at_thousands_of_heads(n in 2u32..6000, at in 0.0f64..1.0) {
            let space = SubsetSpace::Pairs { n };
            let rank = ((space.len() - 1) as f64 * at) as u64;
            prop_assert_eq!(space.rank(&space.subset(rank).unwrap()), Some(rank));
        }
    }

    #[test]
    fn matched_orders_differ_from_one_another_and_with_the_seed() {
        let layers: Vec<usize> = (0..72).map(|u| u / 12).collect();
        let like: Vec<UnitIx> = (0..72).rev().map(UnitIx).collect();
        let of =
            |seed| RandomOrders::matched(layers.clone(), like.clone(), seed, 3, vec![72]).orders().to_vec();
        let (first, second) = (of(7), of(8));
        assert!(first[0] != first[1] && first[1] != first[2] && first[0] != first[2]);
        assert!(first[0] != second[0] && first[0] != like);
        let (less, more) = (of(7), RandomOrders::matched(layers.clone(), like.clone(), 7, 9, vec![72]));
        assert_eq!(less, more.orders()[..3], "an order depends on its number, and not on how many there are");
    }
}
