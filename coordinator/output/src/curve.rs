//! Pruning curves: what is left of the metric as heads go.

use crate::analyse::{places, references};
use crate::measure::{Measure, Sample};
use crate::results::Results;
use crate::view;
use ablate_common::metric::Metric;
use ablate_common::plan::{Shuffle, SweepKind};
use ablate_common::space::SubsetSpace;
use ablate_common::stats::Estimate;
use ablate_common::task::Scope;
use ablate_common::units::UnitIx;
use rayon::prelude::*;

/// One order of removal, evaluated along the way.
#[derive(Clone, Debug)]
pub struct Curve {
    /// "greedy", "importance", "gradient", "rollout", "random-NN" or "matched-NN".
    pub order: String,
    /// Index of the greedy sweep it belongs to, if any.
    pub greedy: Option<u32>,
    /// Name of the task that sweep minimised.
    pub objective: String,
    /// The half it is reported on; `None`: all examples.
    pub half: Option<u8>,
    /// Examples that it is measured on.
    pub examples: usize,
    /// Their documents (for correlations: texts).
    pub clusters: usize,
    /// P(0) on these examples.
    pub start: f64,
    /// P_floor on these examples; NaN where it isn't known.
    pub floor: f64,
    /// Δ of removing everything on these examples.
    pub floor_delta: Estimate,
    /// Whether `retained` is withheld: the floor isn't worse than P(0) beyond its interval.
    pub flagged: bool,
    /// Heads of the model.
    pub heads: u32,
    /// Largest number of removed heads that was planned.
    pub last: u32,
    /// From nothing removed on, ascending; missing points are left out.
    pub points: Vec<Point>,
    /// 95 % interval of [`Self::area`] under r; none where that isn't known, and for random orders.
    pub area_ci: Option<(f64, f64)>,
}

/// One point of a curve.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Number of the point along the order, from 0.
    pub step: u32,
    /// Heads removed.
    pub removed: u32,
    /// Heads that were gone before the last unit was removed.
    pub before: u32,
    /// The unit that this step removed, by its place in [`crate::Group::places`]; `None` at step 0 and where a
    /// step removes several.
    pub unit: Option<UnitIx>,
    /// The metric.
    pub value: f64,
    /// Lower end of its 95 % interval; none for random orders.
    pub value_low: Option<f64>,
    /// Upper end.
    pub value_high: Option<f64>,
    /// r = (P − P_floor) / (P(0) − P_floor).
    pub retained: Option<f64>,
    /// Lower end of its 95 % interval, in which P, P(0) and P_floor vary together; none for random orders.
    pub retained_low: Option<f64>,
    /// Upper end.
    pub retained_high: Option<f64>,
    /// P/P(0), or P(0)/P for perplexity; for loss that of the perplexities.
    pub ratio: Option<f64>,
}

impl Curve {
    /// Its kind of random orders; none where it isn't one.
    #[must_use]
    pub fn shuffle(&self) -> Option<Shuffle> {
        Shuffle::of(&self.order)
    }

    /// κ of a number of removed heads.
    #[must_use]
    pub fn fraction(&self, removed: u32) -> f64 {
        f64::from(removed) / f64::from(self.heads.max(1))
    }

    /// The point at which ⌈`kappa` · N⌉ heads are gone, and weren't before its last unit was removed.
    #[must_use]
    pub fn at(&self, kappa: f64) -> Option<&Point> {
        let removed = (kappa * f64::from(self.heads) - 1e-9).ceil().max(0.0) as u32;
        self.points.iter().find(|p| p.removed == removed || (p.before < removed && removed < p.removed))
    }

    /// r once ⌈`kappa` · N⌉ heads are gone, and that number of heads.
    #[must_use]
    pub fn retained_at(&self, kappa: f64) -> Option<(u32, f64)> {
        self.at(kappa).and_then(|p| Some((p.removed, p.retained?)))
    }

    /// Circuit performance ratio of MIB: the area under r over all κ from 0 to 1 [Mueller et al. 2025]; none where the order
    /// doesn't remove every head.
    #[must_use]
    pub fn cpr(&self) -> Option<f64> {
        if self.last == self.heads { self.area(|r| r) } else { None }
    }

    /// Circuit-model distance of MIB: the area between r and 1, likewise.
    #[must_use]
    pub fn cmd(&self) -> Option<f64> {
        if self.last == self.heads { self.area(|r| (1.0 - r).abs()) } else { None }
    }

    /// Largest κ up to which every point has r ≥ `level`; points in between that are missing end it.
    #[must_use]
    pub fn largest(&self, level: f64) -> Option<f64> {
        let (mut best, mut step) = (None, 0);
        for p in &self.points {
            if p.step != step || p.retained.is_none_or(|r| r < level) {
                break;
            }
            best = Some(self.fraction(p.removed));
            step += 1;
        }
        best
    }

    /// Area under `f(r)` over [0, κ of the last point] by trapezoids, divided by that κ; `None` where the
    /// curve is incomplete.
    #[must_use]
    pub fn area(&self, f: impl Fn(f64) -> f64) -> Option<f64> {
        let last = self.points.last().filter(|p| p.removed == self.last && p.removed > 0)?;
        if self.points.len() as u32 != last.step + 1 {
            return None;
        }
        let mut sum = 0.0;
        for w in self.points.windows(2) {
            sum += (f(w[0].retained?) + f(w[1].retained?)) / 2.0 * f64::from(w[1].removed - w[0].removed);
        }
        Some(sum / f64::from(last.removed))
    }
}

/// Every curve of a task under an ablation.
pub fn curves(results: &Results, ablation: u32, task: u32) -> Vec<Curve> {
    let plan = &results.plan;
    let mut out = Vec::new();
    for (sweep, planned) in (0u32..).zip(&plan.sweeps) {
        if planned.ablation != ablation || !planned.tasks.contains(&task) {
            continue;
        }
        let greedy = match planned.kind {
            SweepKind::Path { greedy, .. } | SweepKind::Matched { greedy, .. } => Some(greedy),
            // Random orders follow their greedy sweep in the plan.
            SweepKind::Random { .. } => (0..sweep)
                .rev()
                .find(|&s| plan.sweeps[s as usize].ablation == ablation && is_greedy(results, s).is_some()),
            _ => continue,
        };
        let prepared = &results.prepared[task as usize];
        let split =
            greedy.and_then(|g| plan.sweeps.get(g as usize)).is_some_and(|g| g.scope == Scope::Select);
        let all = prepared.examples_in(Scope::All);
        let keep = if split {
            all.into_iter().filter(|&e| prepared.examples[e as usize].half == Some(1)).collect()
        } else {
            all
        };
        let metric = plan.tasks[task as usize].metric;
        let measure = Measure::new(prepared, metric, keep, plan.spec.seed);
        let [Some(none), floor] = references(results, ablation, task, &measure) else { continue };
        let ends = Ends { measure: &measure, none: &none, floor: floor.as_ref() };
        let objective = greedy.and_then(|g| is_greedy(results, g)).and_then(|t| plan.tasks.get(t as usize));
        let floor_delta =
            floor.as_ref().map_or(Estimate::NAN, |f| measure.contrast(&[(1.0, f), (-1.0, &none)]));
        let curve = Curve {
            order: planned.kind.name().trim_start_matches("path-").to_owned(),
            greedy,
            objective: objective.map_or_else(String::new, |t| t.name.clone()),
            half: split.then_some(1),
            examples: measure.examples(),
            clusters: measure.clusters(),
            start: none.value,
            floor: floor.as_ref().map_or(f64::NAN, |f| f.value),
            floor_delta,
            // Not "low ≤ 0": an unknown interval is flagged too.
            flagged: floor_delta.low.is_nan() || floor_delta.low <= 0.0,
            heads: plan.heads().len() as u32,
            last: 0,
            points: Vec::new(),
            area_ci: None,
        };
        fill(results, sweep, task, metric, &ends, &curve, &mut out);
    }
    out
}

fn is_greedy(results: &Results, sweep: u32) -> Option<u32> {
    match results.plan.sweeps.get(sweep as usize)?.kind {
        SweepKind::Greedy { objective, .. } => Some(objective),
        _ => None,
    }
}

/// Both ends of a curve, which its intervals need.
struct Ends<'a> {
    measure: &'a Measure<'a>,
    none: &'a Sample,
    floor: Option<&'a Sample>,
}

impl Ends<'_> {
    /// The 95 % interval of Σ cₖ rₖ, Σ c = 1, whose value is `r`: to first order it is as uncertain as
    /// (Σ cₖ Pₖ − r P(0) − (1 − r) P_floor) / (P(0) − P_floor), whose three parts vary together.
    fn retained(&self, r: f64, points: &[(f64, &Sample)]) -> Option<(f64, f64)> {
        let floor = self.floor?;
        let range = self.none.value - floor.value;
        let mut terms: Vec<(f64, &Sample)> = points.iter().map(|p| (p.0 / range, p.1)).collect();
        terms.extend([(-r / range, self.none), (-(1.0 - r) / range, floor)]);
        let around = self.measure.combination(&terms);
        (!around.low.is_nan()).then_some((r + around.low - around.value, r + around.high - around.value))
    }

    /// Gives a point its intervals.
    fn bound(&self, point: &mut Point, sample: &Sample) {
        let value = self.measure.combination(&[(1.0, sample)]);
        let known = |v: f64| (!v.is_nan()).then_some(v);
        (point.value_low, point.value_high) = (known(value.low), known(value.high));
        if let Some((low, high)) = point.retained.and_then(|r| self.retained(r, &[(1.0, sample)])) {
            (point.retained_low, point.retained_high) = (Some(low), Some(high));
        }
    }

    /// The interval of the area under r; `samples` are those of the points from the second on.
    fn area(&self, curve: &Curve, samples: &[Sample]) -> Option<(f64, f64)> {
        let area = curve.area(|r| r)?;
        let all: Vec<&Sample> = std::iter::once(self.none).chain(samples).collect();
        let width = f64::from(curve.points.last()?.removed);
        // A trapezoid gives each of its ends half of its width.
        let mut weights = vec![0.0; all.len()];
        for (k, pair) in curve.points.windows(2).enumerate() {
            let half = f64::from(pair[1].removed - pair[0].removed) / width / 2.0;
            weights[k] += half;
            *weights.get_mut(k + 1)? += half;
        }
        self.retained(area, &weights.into_iter().zip(all).collect::<Vec<_>>())
    }
}

fn fill(
    results: &Results,
    sweep: u32,
    task: u32,
    metric: Metric,
    ends: &Ends<'_>,
    blank: &Curve,
    out: &mut Vec<Curve>,
) {
    let planned = &results.plan.sweeps[sweep as usize];
    let measure = ends.measure;
    let columns = |rank: u64| view::columns(results, sweep, 0, task, rank);
    let point = |step, [before, removed]: [u32; 2], unit, value: f64| {
        let retained = (value - blank.floor) / (blank.start - blank.floor);
        let retained = if blank.flagged || retained.is_nan() { None } else { Some(retained) };
        let ratio = ratio(metric, blank.start, value);
        let [value_low, value_high, retained_low, retained_high] = [None; 4];
        Point {
            step,
            removed,
            before,
            unit,
            value,
            value_low,
            value_high,
            retained,
            retained_low,
            retained_high,
            ratio,
        }
    };
    let start = point(0, [0, 0], None, blank.start);
    let units = results.plan.units(sweep);
    let gone = |order: &[UnitIx]| units.union(order).len() as u32;
    match &planned.kind {
        SweepKind::Path { .. } => {
            let Some(round) = results.rounds.get(&(sweep, 0)) else { return };
            let steps = (results.plan.round_subsets(sweep, 0) as usize).min(round.list.len());
            let places = places(results, sweep);
            let last = gone(&round.list[..steps]);
            let mut curve = Curve { points: vec![start], last, ..blank.clone() };
            ends.bound(&mut curve.points[0], ends.none);
            let samples: Vec<Option<Sample>> = (0..steps as u64)
                .into_par_iter()
                .map(|k| measure.sample(&columns(k)?, planned.scope))
                .collect();
            let (mut before, mut kept) = (0, Vec::new());
            for (k, (unit, sample)) in round.list.iter().zip(samples).enumerate() {
                let removed = gone(&round.list[..=k]);
                if let Some(s) = sample {
                    let place = places.get(unit.at()).copied().flatten();
                    curve.points.push(point(k as u32 + 1, [before, removed], place, s.value));
                    kept.push(s);
                }
                before = removed;
            }
            curve.points[1..].par_iter_mut().zip(&kept).for_each(|(point, s)| ends.bound(point, s));
            curve.area_ci = ends.area(&curve, &kept);
            out.push(curve);
        }
        SweepKind::Random { orders, points, .. } | SweepKind::Matched { orders, points, .. } => {
            // What matched orders are matched to; of plain ones nothing.
            let list = results.rounds.get(&(sweep, 0)).map_or(&[][..], |round| round.list.as_slice());
            let SubsetSpace::Random(drawn) = results.plan.space(sweep, list) else { return };
            for (order, list) in (0..*orders).zip(drawn.orders()) {
                let cut = |n: u32| gone(&list[..(n as usize).min(list.len())]);
                let last = cut(points.last().copied().unwrap_or(0));
                let name = format!("{}-{order:02}", blank.order);
                let mut curve = Curve { order: name, points: vec![start], last, ..blank.clone() };
                for (k, &units) in (0u32..).zip(points) {
                    let rank = u64::from(order) * points.len() as u64 + u64::from(k);
                    if let Some(s) = columns(rank).and_then(|c| measure.sample_value(&c, planned.scope)) {
                        let removed = [cut(units.saturating_sub(1)), cut(units)];
                        curve.points.push(point(k + 1, removed, None, s.value));
                    }
                }
                if curve.points.len() > 1 {
                    out.push(curve);
                }
            }
        }
        _ => {}
    }
}

/// P/P(0), or P(0)/P where lower is better; log losses have no meaningful ratio, so theirs is that of the
/// perplexities, exp(P(0) − P). `None` at a zero denominator.
fn ratio(metric: Metric, start: f64, value: f64) -> Option<f64> {
    let r = match metric {
        Metric::Loss => (start - value).exp(),
        m if m.lower_is_better() => start / value,
        _ => value / start,
    };
    r.is_finite().then_some(r)
}
