//! Units of ablation: what a sweep removes as a whole. A unit is a set of heads; subset spaces order
//! units by their place, [`UnitIx`], and a [`UnitMap`] says which heads a unit has.

use crate::head::{Head, HeadIx, HeadMap, Stream};
use crate::model::ModelInfo;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// A unit's place in its [`UnitMap`], from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnitIx(pub u32);

impl UnitIx {
    /// As an index into a slice.
    #[must_use]
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

/// What is removed as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitKind {
    /// One query head.
    #[default]
    Head,
    /// All query heads of a layer that share a K/V head.
    KvGroup,
    /// All heads of one attention of a layer.
    Layer,
    /// A named set of heads; sets may overlap.
    Set,
}

impl UnitKind {
    /// The name in specs and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::KvGroup => "kv_group",
            Self::Layer => "layer",
            Self::Set => "set",
        }
    }

    /// What several of them are called in sentences.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::Head => "heads",
            Self::KvGroup => "KV groups",
            Self::Layer => "layers",
            Self::Set => "sets",
        }
    }
}

/// A named set of heads, as a spec lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadSet {
    /// Its name in tables; unique.
    pub name: String,
    /// Its heads, in the order of the spec; never empty, none twice.
    pub heads: Vec<Head>,
}

/// Where a unit stands in tables: what all its heads share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Stream; none for a set.
    pub stream: Option<Stream>,
    /// Layer; none for a set.
    pub layer: Option<u32>,
    /// The head, or the first query head of a KV group; none for a layer or a set.
    pub head: Option<u32>,
    /// Its name: "L3.H5", "L3.KV1", "L3" (behind the stream's name in encoder-decoder models), or a set's own.
    pub name: String,
}

/// The units that a sweep chooses from, in the order of their ranks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitMap {
    /// What they are.
    pub kind: UnitKind,
    /// Heads of each unit, ascending; none is empty.
    units: Vec<Vec<HeadIx>>,
    /// Names of the sets; empty for other kinds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    names: Vec<String>,
}

impl UnitMap {
    /// Every head on its own.
    #[must_use]
    pub fn heads(map: &HeadMap) -> Self {
        Self {
            kind: UnitKind::Head,
            units: (0..map.len() as u32).map(|h| vec![HeadIx(h)]).collect(),
            names: Vec::new(),
        }
    }

    /// The units of a kind in a model, in forward order of their first heads; `sets` are those of
    /// [`UnitKind::Set`], which keep their order.
    ///
    /// # Errors
    /// The name of a set and its head that the model doesn't have.
    pub fn of(kind: UnitKind, model: &ModelInfo, sets: &[HeadSet]) -> Result<Self, (String, Head)> {
        let map = &model.heads;
        let group = (model.n_heads / model.n_kv_heads.max(1)).max(1);
        Ok(match kind {
            UnitKind::Head => Self::heads(map),
            UnitKind::KvGroup => Self::grouped(kind, map, |h| (h.stream, h.layer, h.head / group)),
            UnitKind::Layer => Self::grouped(kind, map, |h| (h.stream, h.layer, 0)),
            UnitKind::Set => {
                let mut units = Vec::with_capacity(sets.len());
                for set in sets {
                    let mut heads = Vec::with_capacity(set.heads.len());
                    for &head in &set.heads {
                        heads.push(map.index(head).ok_or_else(|| (set.name.clone(), head))?);
                    }
                    heads.sort_unstable();
                    heads.dedup();
                    units.push(heads);
                }
                Self { kind, units, names: sets.iter().map(|s| s.name.clone()).collect() }
            }
        })
    }

    /// One unit for each key, in the order in which the keys are met.
    fn grouped(kind: UnitKind, map: &HeadMap, key: impl Fn(Head) -> (Stream, u32, u32)) -> Self {
        let (mut units, mut known) = (Vec::<Vec<HeadIx>>::new(), HashMap::new());
        for (head, ix) in map.iter().zip((0..).map(HeadIx)) {
            let at = *known.entry(key(head)).or_insert_with(|| {
                units.push(Vec::new());
                units.len() - 1
            });
            units[at].push(ix);
        }
        Self { kind, units, names: Vec::new() }
    }

    /// The units all of whose heads lie in one of `streams`.
    #[must_use]
    pub fn narrowed(&self, map: &HeadMap, streams: &[Stream]) -> Self {
        self.kept(|unit| self.lies_in(map, streams, unit))
    }

    /// Whether all heads of a unit lie in one of `streams`.
    #[must_use]
    pub fn lies_in(&self, map: &HeadMap, streams: &[Stream], unit: UnitIx) -> bool {
        self.heads_of(unit).iter().all(|&h| map.head(h).is_some_and(|h| streams.contains(&h.stream)))
    }

    /// The units that `keep` says, in their order.
    #[must_use]
    pub fn kept(&self, keep: impl Fn(UnitIx) -> bool) -> Self {
        let keep: Vec<usize> = (0..self.units.len()).filter(|&u| keep(UnitIx(u as u32))).collect();
        Self {
            kind: self.kind,
            units: keep.iter().map(|&u| self.units[u].clone()).collect(),
            names: keep.iter().filter_map(|&u| self.names.get(u).cloned()).collect(),
        }
    }

    /// Number of units.
    #[must_use]
    pub fn len(&self) -> usize {
        self.units.len()
    }

    /// Whether there is no unit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// The heads of a unit, ascending; none past the end.
    #[must_use]
    pub fn heads_of(&self, unit: UnitIx) -> &[HeadIx] {
        self.units.get(unit.at()).map_or(&[], Vec::as_slice)
    }

    /// The heads of several units, ascending, each once.
    #[must_use]
    pub fn union(&self, units: &[UnitIx]) -> Vec<HeadIx> {
        let mut all: Vec<HeadIx> = units.iter().flat_map(|&u| self.heads_of(u)).copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Where a unit stands; `None` past the end.
    #[must_use]
    pub fn place(&self, map: &HeadMap, unit: UnitIx) -> Option<Place> {
        let head = map.head(*self.heads_of(unit).first()?)?;
        let place =
            |first, name| Place { stream: Some(head.stream), layer: Some(head.layer), head: first, name };
        let stream = match head.stream {
            Stream::SelfAttention => String::new(),
            s => format!("{s} "),
        };
        Some(match self.kind {
            UnitKind::Head => place(Some(head.head), head.to_string()),
            UnitKind::KvGroup => {
                let group = head.head as usize / self.heads_of(unit).len();
                place(Some(head.head), format!("{stream}L{}.KV{group}", head.layer))
            }
            UnitKind::Layer => place(None, format!("{stream}L{}", head.layer)),
            UnitKind::Set => {
                Place { stream: None, layer: None, head: None, name: self.names.get(unit.at())?.clone() }
            }
        })
    }

    /// The layer of each unit, as the stage of its attention, which is one of one stream; of a set, whose heads may lie anywhere, that of its
    /// first head.
    #[must_use]
    pub fn layers(&self, map: &HeadMap) -> Vec<usize> {
        let layer =
            |unit: &Vec<HeadIx>| unit.first().and_then(|&h| map.head(h)).map_or(0, |head| map.stage_of(head));
        self.units.iter().map(layer).collect()
    }

    /// For each unit of `some`, a narrowed map of these units, its place here.
    #[must_use]
    pub fn places_of(&self, some: &Self) -> Vec<Option<UnitIx>> {
        let mut from = 0;
        (0..some.len())
            .map(|u| {
                let same =
                    |&at: &usize| self.units[at] == some.units[u] && self.names.get(at) == some.names.get(u);
                // Narrowing keeps the order.
                let at = (from..self.units.len()).find(same)?;
                from = at + 1;
                Some(UnitIx(at as u32))
            })
            .collect()
    }

    /// Whether every unit has heads of the model, ascending: what a plan from elsewhere must hold to.
    #[must_use]
    pub fn fits(&self, map: &HeadMap) -> bool {
        let whole = |u: &Vec<HeadIx>| {
            u.last().is_some_and(|h| h.at() < map.len()) && u.windows(2).all(|w| w[0] < w[1])
        };
        self.units.iter().all(whole) && (self.kind != UnitKind::Set || self.names.len() == self.units.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::SubsetSpace;
    use proptest::prelude::*;

    fn model(layers: u32, kv: u32, group: u32) -> ModelInfo {
        let heads = kv * group;
        ModelInfo {
            arch: "t5".into(),
            title: String::new(),
            weights_sha256: String::new(),
            heads: HeadMap {
                streams: vec![
                    (Stream::Encoder, layers, heads),
                    (Stream::Decoder, layers, heads),
                    (Stream::Cross, layers, heads),
                ],
            },
            layers,
            d_model: 8,
            n_heads: heads,
            n_kv_heads: kv,
            head_dim: 2,
            d_ff: 8,
            vocab: 9,
            context: 16,
            norm_eps: 1e-5,
            rope_theta: None,
            tied: true,
            details: crate::model::Details::default(),
        }
    }

    #[test]
    fn units_are_named_by_what_their_heads_share() {
        let model = model(2, 2, 3);
        let named = |kind, unit| {
            let units = UnitMap::of(kind, &model, &[]).unwrap();
            let p = units.place(&model.heads, UnitIx(unit)).unwrap();
            (p.name, p.stream.unwrap(), p.layer.unwrap(), p.head, units.heads_of(UnitIx(unit)).to_vec())
        };
        let ix = |v: &[u32]| v.iter().copied().map(HeadIx).collect::<Vec<_>>();
        assert_eq!(named(UnitKind::Head, 7), ("encoder L1.H1".into(), Stream::Encoder, 1, Some(1), ix(&[7])));
        assert_eq!(
            named(UnitKind::KvGroup, 7),
            ("decoder L1.KV1".into(), Stream::Decoder, 1, Some(3), ix(&[21, 22, 23]))
        );
        assert_eq!(
            named(UnitKind::Layer, 4),
            ("cross L0".into(), Stream::Cross, 0, None, ix(&[24, 25, 26, 27, 28, 29]))
        );
        let head = |stream, layer, head| Head { stream, layer, head };
        let sets = [
            HeadSet { name: "b".into(), heads: vec![head(Stream::Cross, 0, 0), head(Stream::Encoder, 0, 1)] },
            HeadSet { name: "a".into(), heads: vec![head(Stream::Encoder, 0, 1)] },
        ];
        let units = UnitMap::of(UnitKind::Set, &model, &sets).unwrap();
        assert_eq!(units.union(&[UnitIx(0), UnitIx(1)]), ix(&[1, 24]));
        let place = units.place(&model.heads, UnitIx(0)).unwrap();
        assert_eq!((place.name.as_str(), place.stream, place.head), ("b", None, None));
        let layers = |kind| UnitMap::of(kind, &model, &[]).unwrap().layers(&model.heads);
        assert_eq!(layers(UnitKind::Layer), [0, 1, 2, 4, 3, 5], "decoder and cross-attention take turns");
        assert_eq!(layers(UnitKind::KvGroup), [0, 0, 1, 1, 2, 2, 4, 4, 3, 3, 5, 5]);
        let only = units.narrowed(&model.heads, &[Stream::Encoder]);
        assert_eq!((only.len(), only.place(&model.heads, UnitIx(0)).unwrap().name.as_str()), (1, "a"));
        let wrong = [HeadSet { name: "c".into(), heads: vec![head(Stream::SelfAttention, 0, 0)] }];
        assert_eq!(UnitMap::of(UnitKind::Set, &model, &wrong).unwrap_err().0, "c");
    }

    proptest! {
        /// Every kind of unit splits the heads without rest, and ranks of units find their heads again.
        #[test]
        fn ranks_lead_to_units_and_units_to_heads(layers in 1u32..4, kv in 1u32..4, group in 1u32..4) {
            let model = model(layers, kv, group);
            for (kind, count) in [
                (UnitKind::Head, 3 * layers * kv * group),
                (UnitKind::KvGroup, 3 * layers * kv),
                (UnitKind::Layer, 3 * layers),
            ] {
                let units = UnitMap::of(kind, &model, &[]).unwrap();
                prop_assert!(units.fits(&model.heads));
                let n = units.len() as u32;
                prop_assert_eq!(n, count);
                let every: Vec<UnitIx> = (0..n).map(UnitIx).collect();
                prop_assert_eq!(units.union(&every), (0..model.heads.len() as u32).map(HeadIx).collect::<Vec<_>>());
                prop_assert_eq!(every.iter().map(|&u| units.heads_of(u).len()).sum::<usize>(), model.heads.len());
                let space = SubsetSpace::Pairs { n };
                for rank in 0..space.len() {
                    let pair = space.subset(rank).unwrap();
                    let heads = units.union(&pair);
                    prop_assert_eq!(heads.len(), pair.iter().map(|&u| units.heads_of(u).len()).sum::<usize>());
                    // The units of those heads are the pair.
                    let back: Vec<UnitIx> =
                        every.iter().copied().filter(|&u| units.heads_of(u).iter().any(|h| heads.contains(h))).collect();
                    prop_assert_eq!(space.rank(&back), Some(rank));
                }
                for streams in [&[Stream::Cross][..], &[Stream::Encoder, Stream::Cross]] {
                    let some = units.narrowed(&model.heads, streams);
                    prop_assert_eq!(some.len() * 3, units.len() * streams.len());
                    let places = units.places_of(&some);
                    for (u, at) in (0..).map(UnitIx).zip(&places) {
                        prop_assert_eq!(units.heads_of(at.unwrap()), some.heads_of(u));
                    }
                    for u in (0..some.len() as u32).map(UnitIx) {
                        prop_assert!(streams.contains(&some.place(&model.heads, u).unwrap().stream.unwrap()));
                    }
                }
            }
        }
    }
}
