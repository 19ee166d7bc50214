//! Follow-ups of pairs: which sets of units the scores of a pairs sweep call for ([`Picker`]), and what removing them together
//! did. See [`ablate_common::joint`].

use crate::analyse::{PairRow, Relation, interactions, places, references, relation, singles};
use crate::measure::{Measure, Sample};
use crate::results::Results;
use crate::view;
use ablate_common::joint::{self, Edge};
use ablate_common::plan::SweepKind;
use ablate_common::scores::ChunkScores;
use ablate_common::stats::Estimate;
use ablate_common::stats::fdr::benjamini_hochberg;
use ablate_common::task::Scope;
use ablate_common::units::UnitIx;
use rayon::prelude::*;
use std::collections::{BTreeMap, HashMap};

/// Units every two of which are redundant, removed together.
#[derive(Clone, Debug)]
pub struct GroupRow {
    /// The units, ascending, by their place in [`crate::Group::places`].
    pub units: Vec<UnitIx>,
    /// Δ of removing them all, measured.
    pub delta: Estimate,
    /// Benjamini–Hochberg q of `delta` over the groups of the task.
    pub q: f64,
    /// Σ Δ(i): what it would be if the units didn't interact.
    pub sum_alone: f64,
    /// Σ Δ(i) + Σ I(ij): what pairs predict.
    pub sum_pairs: f64,
    /// Δ − Σ Δ(i).
    pub interaction: Estimate,
    /// Benjamini–Hochberg q of `interaction` over the groups of the task.
    pub interaction_q: f64,
}

/// Three units removed together.
#[derive(Clone, Copy, Debug)]
pub struct TripleRow {
    /// The units, ascending, by their place in [`crate::Group::places`].
    pub units: [UnitIx; 3],
    /// Δ of removing all three.
    pub delta: f64,
    /// Δ(ijk) − ΣΔ(pairs) + ΣΔ(alone): what pairs leave unexplained.
    pub interaction: Estimate,
    /// Benjamini–Hochberg q over the triples of the task.
    pub q: f64,
}

/// Finds the sets that follow a pairs sweep, while its chunks go by a few at a time: of a pair only its interaction and p are kept.
#[derive(Debug)]
pub struct Picker {
    /// The plan and the tasks, with the sweeps that [`joint::needs`] names.
    known: Results,
    sweep: u32,
    /// By place of a task among the sweep's: (rank, I, p) of each pair so far.
    found: Vec<Vec<(u64, f64, f64)>>,
}

impl Picker {
    /// `known` has the plan, the prepared tasks, and the rounds of the sweeps that [`joint::needs`] names.
    #[must_use]
    pub fn new(known: Results, sweep: u32) -> Self {
        let tasks = known.plan.sweeps[sweep as usize].tasks.len();
        Self { known, sweep, found: vec![Vec::new(); tasks] }
    }

    /// Takes the next chunks of the sweep, in their order.
    pub fn add(&mut self, chunks: BTreeMap<u32, ChunkScores>) {
        let (Some(first), Some(last)) = (chunks.keys().next().copied(), chunks.keys().last().copied()) else {
            return;
        };
        let (plan, sweep) = (&self.known.plan, self.sweep);
        let ranks = plan.chunk_ranks(sweep, 0, first).start..plan.chunk_ranks(sweep, 0, last).end;
        self.known.rounds.entry((sweep, 0)).or_default().chunks = chunks;
        let (known, planned) = (&self.known, &self.known.plan.sweeps[sweep as usize]);
        for (&task, found) in planned.tasks.iter().zip(&mut self.found) {
            let prepared = &known.prepared[task as usize];
            let metric = known.plan.tasks[task as usize].metric;
            let keep = prepared.examples_in(Scope::All);
            let measure = Measure::new(prepared, metric, keep, known.plan.spec.seed);
            let [Some(none), _] = references(known, planned.ablation, task, &measure) else { continue };
            let alone = singles(known, planned.ablation, task, &measure);
            let of = interactions(known, sweep, task, &measure, &none, &alone, ranks.clone());
            found.par_extend(of.map(|(rank, row)| (rank, row.interaction.value, row.interaction.p)));
        }
        self.known.rounds.remove(&(sweep, 0));
    }

    /// The sets for the slots of the sweep's follow-up, in their order; units are the sweep's.
    #[must_use]
    pub fn finish(self) -> Vec<Vec<UnitIx>> {
        let plan = &self.known.plan;
        let follower = joint::follower(plan, self.sweep).and_then(|f| plan.sweeps.get(f as usize));
        let Some(SweepKind::Joint { groups, triples, .. }) = follower.map(|f| f.kind.clone()) else {
            return Vec::new();
        };
        let space = plan.space(self.sweep, &[]);
        let mut out = Vec::new();
        for found in self.found {
            let q = benjamini_hochberg(&found.iter().map(|f| f.2).collect::<Vec<_>>());
            let mut resolved: Vec<Edge> = Vec::new();
            for (&(rank, value, _), q) in found.iter().zip(q) {
                let pair = space.subset(rank).filter(|_| relation(value, q) != Relation::Unresolved);
                if let Some(&[a, b]) = pair.as_deref() {
                    resolved.push((a, b, value));
                }
            }
            let redundant: Vec<Edge> = resolved.iter().copied().filter(|e| e.2 > 0.0).collect();
            let slots = [
                (joint::groups(&redundant, groups as usize), groups),
                (joint::triples(&resolved, triples as usize), triples),
            ];
            for (mut sets, n) in slots {
                sets.resize(n as usize, Vec::new());
                out.append(&mut sets);
            }
        }
        out
    }
}

/// What the follow-ups of a task's pairs gave.
pub fn rows(
    results: &Results,
    ablation: u32,
    task: u32,
    measure: &Measure<'_>,
    none: &Sample,
    alone: &[Option<Sample>],
    pairs: &[PairRow],
) -> (Vec<GroupRow>, Vec<TripleRow>) {
    let by_pair: HashMap<(UnitIx, UnitIx), f64> =
        pairs.iter().map(|p| ((p.a, p.b), p.interaction.value)).collect();
    let mut of = Of { results, task, measure, none, alone, by_pair, groups: Vec::new(), triples: Vec::new() };
    for sweep in view::sweeps_of(results, ablation, task, |k| matches!(k, SweepKind::Joint { .. })) {
        of.read(sweep);
    }
    let q = |p: Vec<f64>| benjamini_hochberg(&p);
    let (mut groups, mut triples) = (of.groups, of.triples);
    let all = q(groups.iter().map(|g| g.delta.p).collect());
    let joint = q(groups.iter().map(|g| g.interaction.p).collect());
    for ((g, all), joint) in groups.iter_mut().zip(all).zip(joint) {
        (g.q, g.interaction_q) = (all, joint);
    }
    let third = q(triples.iter().map(|t| t.interaction.p).collect());
    for (t, q) in triples.iter_mut().zip(third) {
        t.q = q;
    }
    (groups, triples)
}

/// What rows are made from.
struct Of<'a> {
    results: &'a Results,
    task: u32,
    measure: &'a Measure<'a>,
    none: &'a Sample,
    alone: &'a [Option<Sample>],
    by_pair: HashMap<(UnitIx, UnitIx), f64>,
    groups: Vec<GroupRow>,
    triples: Vec<TripleRow>,
}

impl Of<'_> {
    /// The task's own groups and triples of a follow-up.
    fn read(&mut self, sweep: u32) {
        let planned = &self.results.plan.sweeps[sweep as usize];
        let (SweepKind::Joint { pairs, groups, triples }, Some(round)) =
            (planned.kind.clone(), self.results.rounds.get(&(sweep, 0)))
        else {
            return;
        };
        let Some(at) = planned.tasks.iter().position(|&t| t == self.task) else { return };
        let space = self.results.plan.space(sweep, &round.list);
        let places = places(self.results, sweep);
        let [of_groups, of_triples] = joint::ranks(groups, triples, at);
        let set = |rank: u64| -> Option<(Vec<UnitIx>, Vec<UnitIx>)> {
            let own = space.subset(rank).filter(|s| !s.is_empty())?;
            let placed = own.iter().map(|u| places.get(u.at()).copied().flatten()).collect::<Option<_>>()?;
            Some((own, placed))
        };
        for rank in of_groups {
            if let Some((_, units)) = set(rank) {
                let row = self.group(sweep, rank, units);
                self.groups.extend(row);
            }
        }
        for rank in of_triples {
            if let Some((own, units)) = set(rank) {
                let row = self.triple(sweep, pairs, rank, &own, &units);
                self.triples.extend(row);
            }
        }
    }

    fn sample(&self, sweep: u32, rank: u64) -> Option<Sample> {
        let scope = self.results.plan.sweeps[sweep as usize].scope;
        self.measure.sample(&view::columns(self.results, sweep, 0, self.task, rank)?, scope)
    }

    fn singles(&self, units: &[UnitIx]) -> Option<Vec<&Sample>> {
        units.iter().map(|u| self.alone.get(u.at())?.as_ref()).collect()
    }

    fn group(&self, sweep: u32, rank: u64, units: Vec<UnitIx>) -> Option<GroupRow> {
        let all = self.sample(sweep, rank)?;
        let alone = self.singles(&units)?;
        let value = |s: &Sample| self.measure.contrast_value(&[(1.0, s), (-1.0, self.none)]);
        let sum_alone: f64 = alone.iter().map(|s| value(s)).sum();
        let links = units.iter().enumerate().flat_map(|(k, &a)| units[k + 1..].iter().map(move |&b| (a, b)));
        let sum_pairs =
            sum_alone + links.map(|p| self.by_pair.get(&p).copied().unwrap_or(f64::NAN)).sum::<f64>();
        // ℓ(G) − Σ ℓ(i) + (n − 1) ℓ(∅); in this order, so that a group of two has its pair's bits.
        let mut terms = vec![(1.0, &all)];
        terms.extend(alone.iter().map(|s| (-1.0, *s)));
        terms.push((units.len() as f64 - 1.0, self.none));
        Some(GroupRow {
            delta: self.measure.contrast(&[(1.0, &all), (-1.0, self.none)]),
            q: f64::NAN,
            sum_alone,
            sum_pairs,
            interaction: self.measure.contrast(&terms),
            interaction_q: f64::NAN,
            units,
        })
    }

    /// `own` are the units by their place in the sweep, which shares its units with the pairs'.
    fn triple(
        &self,
        sweep: u32,
        pairs: u32,
        rank: u64,
        own: &[UnitIx],
        units: &[UnitIx],
    ) -> Option<TripleRow> {
        let (&[a, b, c], &[i, j, k]) = (own, units) else { return None };
        let all = self.sample(sweep, rank)?;
        let alone = self.singles(units)?;
        let space = self.results.plan.space(pairs, &[]);
        let pair = |p: [UnitIx; 2]| self.sample(pairs, space.rank(&p)?);
        let two = [pair([a, b])?, pair([a, c])?, pair([b, c])?];
        // ℓ(ijk) − Σ ℓ(pairs) + Σ ℓ(alone) − ℓ(∅).
        let mut terms = vec![(1.0, &all), (-1.0, self.none)];
        terms.extend(two.iter().map(|s| (-1.0, s)));
        terms.extend(alone.iter().map(|s| (1.0, *s)));
        Some(TripleRow {
            units: [i, j, k],
            delta: self.measure.contrast_value(&[(1.0, &all), (-1.0, self.none)]),
            interaction: self.measure.contrast(&terms),
            q: f64::NAN,
        })
    }
}
