//! The sweeps of a plan and their chunk sizes.

use crate::Error;
use crate::cost::Work;
use crate::patterns;
use crate::reader::Reader;
use crate::units::{self, Maps};
use ablate_common::attention;
use ablate_common::gradient;
use ablate_common::joint;
use ablate_common::metric::Metric;
use ablate_common::model::ModelInfo;
use ablate_common::plan::{Ablation, Order, PlannedSweep, PlannedTask, SweepKind};
use ablate_common::spec::{Spec, SweepKindSpec, SweepSpec};
use ablate_common::task::{Prepared, Scope};
use ablate_common::units::UnitMap;

/// Floating-point operations that a chunk is to take.
const CHUNK_FLOPS: f64 = 2e12;
/// Bytes of a chunk's scores of a sweep that has those of all units at once.
const SCORE_BYTES: u64 = 64 << 20;
/// Numbers of removed units, evenly spread, at which a random order is evaluated.
const POINTS: u32 = 10;

/// Per ablation: its fit, where it has one, the reference, then the spec's sweeps in order. With the units that they remove.
pub fn sweeps(
    spec: &Spec,
    model: &ModelInfo,
    tasks: &[PlannedTask],
    prepared: &[Prepared],
    reader: &Reader,
) -> Result<(Vec<PlannedSweep>, Vec<UnitMap>), Error> {
    let all: Vec<u32> = (0..tasks.len() as u32).collect();
    let mut out: Vec<PlannedSweep> = Vec::new();
    let mut maps = Maps::default();
    for (ablation, a) in (0u32..).zip(&spec.ablations) {
        let scope = Scope::All;
        let whole = units::of(ablation as usize, a, model)?;
        if let Ablation::Optimal { steps, .. } = a.method {
            let heads = UnitMap::heads(&model.heads);
            let work = Work::new(model, tasks, prepared, &all, scope);
            let each = work.fit(&work.beginning(&heads), steps) / heads.len().max(1) as f64;
            let chunk = fitted(each, heads.len() as u32, model.n_heads);
            let (units, tasks) = (maps.put(heads), all.clone());
            out.push(PlannedSweep { kind: SweepKind::Fit, ablation, tasks, units, scope, chunk });
        }
        let units = maps.put(whole.clone());
        out.push(PlannedSweep {
            kind: SweepKind::Reference,
            ablation,
            tasks: all.clone(),
            units,
            scope,
            chunk: 2,
        });
        for (at, sweep) in spec.sweeps.iter().enumerate() {
            if let SweepKindSpec::Attention { patterns } = &sweep.kind {
                // It removes nothing, so that it is the same whatever is removed how.
                if ablation == 0 {
                    let heads = units::narrowed(at, sweep, &UnitMap::heads(&model.heads), model)?;
                    let given = patterns::Given { model, reader, heads: &heads, at, examples: patterns };
                    let tasks_of = narrowed(sweep, tasks)?;
                    attended(&given, &tasks_of, tasks, prepared, &mut maps, &mut out)?;
                }
                continue;
            }
            let (map, base) = match &sweep.kind {
                SweepKindSpec::Conditional { base } => {
                    units::given(at, spec, base, (ablation as usize, &whole), model)?
                }
                _ => (units::narrowed(at, sweep, &whole, model)?, Vec::new()),
            };
            let n = map.len() as u32;
            let tasks_of = narrowed(sweep, tasks)?;
            let work = Work::new(model, tasks, prepared, &tasks_of, scope);
            // Of those that change from subset to subset.
            let beginning = work.beginning(&map.kept(|u| !base.contains(&u)));
            let units = maps.put(map);
            let mut add = |kind, tasks: &[u32], scope, chunk| {
                out.push(PlannedSweep { kind, ablation, tasks: tasks.to_vec(), units, scope, chunk });
                (out.len() - 1) as u32
            };
            match &sweep.kind {
                SweepKindSpec::Single => {
                    let chunk = chunk(work.single(&beginning) / f64::from(n), u64::from(n), 4);
                    add(SweepKind::Single, &tasks_of, scope, chunk);
                }
                &SweepKindSpec::Pairs { groups, third_order } => {
                    if n < 2 {
                        return Err(Error::Input(format!(
                            "[[sweep]] {}: there are no pairs of {} where there is only one; leave the sweep out",
                            at + 1,
                            a.unit.plural()
                        )));
                    }
                    let pairs = u64::from(n) * u64::from(n - 1) / 2;
                    let size = chunk(work.pairs(&beginning) / pairs as f64, pairs, 8);
                    let pairs = add(SweepKind::Pairs, &tasks_of, scope, size);
                    // An interaction is Δ(ij) − Δ(i) − Δ(j): without a sweep of the same singles, one is added.
                    if !has_singles(spec, at) {
                        let size = chunk(work.single(&beginning) / f64::from(n), u64::from(n), 4);
                        add(SweepKind::Single, &tasks_of, scope, size);
                    }
                    let groups = if groups { joint::GROUPS } else { 0 };
                    if groups + third_order > 0 {
                        let kind = SweepKind::Joint { pairs, groups, triples: third_order };
                        add(kind, &tasks_of, scope, 8);
                    }
                }
                SweepKindSpec::Conditional { .. } => {
                    let others = u64::from(n) - base.len() as u64;
                    let subsets = 1 + others + others * (others - 1) / 2;
                    let flops = work.single(&beginning) + work.pairs(&beginning);
                    let size = chunk(flops / subsets as f64, subsets, 8);
                    add(SweepKind::Conditional { base }, &tasks_of, scope, size);
                }
                SweepKindSpec::Repair => {
                    if let Some(task) = tasks_of
                        .iter()
                        .filter_map(|&t| tasks.get(t as usize))
                        .find(|t| t.metric == Metric::Bleu)
                    {
                        return Err(Error::Input(format!(
                            "[[sweep]] {}: task {:?} reports bleu, and of a text that is decoded anew nothing downstream can be frozen; \
                             narrow the sweep with tasks, or report loss",
                            at + 1,
                            task.name
                        )));
                    }
                    let size = chunk(work.direct(n) / f64::from(n), u64::from(n), 4);
                    add(SweepKind::Repair, &tasks_of, scope, size);
                    // Repair is the direct effect less the whole one.
                    if !has_singles(spec, at) {
                        let size = chunk(work.single(&beginning) / f64::from(n), u64::from(n), 4);
                        add(SweepKind::Single, &tasks_of, scope, size);
                    }
                }
                SweepKindSpec::Shift => {
                    let subsets = u64::from(n) + 2;
                    let size = chunk(work.single(&beginning) / f64::from(n), subsets, 4);
                    add(SweepKind::Shift, &tasks_of, scope, size);
                }
                // Planned above, once for all ablations.
                SweepKindSpec::Attention { .. } => {}
                SweepKindSpec::Gradient => {
                    let chunk = all_units(n, &tasks_of, tasks, gradient::COLUMNS.len());
                    add(SweepKind::Gradient { greedy: None }, &tasks_of, scope, chunk);
                }
                SweepKindSpec::Greedy { fraction, objective, halves, orders, random, matched } => {
                    let objective = place(objective, tasks)?;
                    let steps = steps(*fraction, n);
                    let select = if *halves { Scope::Select } else { Scope::All };
                    let kind = SweepKind::Greedy { steps, objective };
                    let greedy = add(kind, &[objective], select, n.div_ceil(8).clamp(4, 32));
                    for order in [Order::Greedy, Order::Importance] {
                        if orders.contains(&order) {
                            add(SweepKind::Path { greedy, order }, &tasks_of, scope, 8);
                        }
                    }
                    let greedy_of = Some(greedy);
                    for (order, kind, columns) in [
                        (Order::Gradient, SweepKind::Gradient { greedy: greedy_of }, gradient::COLUMNS.len()),
                        (
                            Order::Rollout,
                            SweepKind::Attention { greedy: greedy_of },
                            attention::COLUMNS.len(),
                        ),
                    ] {
                        if orders.contains(&order) {
                            let chunk = all_units(n, &[objective], tasks, columns);
                            add(kind, &[objective], select, chunk);
                            add(SweepKind::Path { greedy, order }, &tasks_of, scope, 8);
                        }
                    }
                    let (seed, points) = (spec.seed, points(steps, n));
                    let chunk = (points.len() as u32).max(POINTS);
                    if *random > 0 {
                        let kind = SweepKind::Random { orders: *random, seed, points: points.clone() };
                        add(kind, &tasks_of, scope, chunk);
                    }
                    if *matched > 0 {
                        let kind = SweepKind::Matched { greedy, orders: *matched, seed, points };
                        add(kind, &tasks_of, scope, chunk);
                    }
                }
            }
        }
    }
    Ok((out, maps.0))
}

/// Adds an attention sweep of a spec, and the patterns of its examples.
fn attended(
    given: &patterns::Given<'_>,
    of: &[u32],
    tasks: &[PlannedTask],
    prepared: &[Prepared],
    maps: &mut Maps,
    out: &mut Vec<PlannedSweep>,
) -> Result<(), Error> {
    let n = given.heads.len() as u32;
    let (ablation, scope) = (0, Scope::All);
    let chunk = all_units(n, of, tasks, attention::COLUMNS.len());
    let (units, kind) = (maps.put(given.heads.clone()), SweepKind::Attention { greedy: None });
    out.push(PlannedSweep { kind, ablation, tasks: of.to_vec(), units, scope, chunk });
    for &task in of {
        let Some((planned, data)) = tasks.get(task as usize).zip(prepared.get(task as usize)) else {
            continue;
        };
        for (heads, items) in patterns::of(given, &planned.name, data)? {
            // All heads' patterns come out of one pass, and together they are small.
            let (chunk, units) = (heads.len() as u32, maps.put(heads));
            let (kind, tasks) = (SweepKind::Patterns { items }, vec![task]);
            out.push(PlannedSweep { kind, ablation, tasks, units, scope, chunk });
        }
    }
    Ok(())
}

/// Whether some sweep runs, or brings, the units of the sweep at `at` alone, on its tasks.
fn has_singles(spec: &Spec, at: usize) -> bool {
    let Some(sweep) = spec.sweeps.get(at) else { return false };
    let covers = |s: &SweepSpec| {
        [&sweep.tasks, &None].contains(&&s.tasks) && [&sweep.streams, &None].contains(&&s.streams)
    };
    spec.sweeps.iter().enumerate().any(|(i, s)| {
        // Of several that need it, the first brings it.
        let brings = matches!(s.kind, SweepKindSpec::Pairs { .. } | SweepKindSpec::Repair) && i < at;
        (s.kind == SweepKindSpec::Single || brings) && covers(s)
    })
}

/// Units of a chunk of a sweep that has all units' scores at once: all of them, but for what they may take.
fn all_units(n: u32, of: &[u32], tasks: &[PlannedTask], columns: usize) -> u32 {
    let rows: u64 =
        of.iter().map(|&t| u64::from(tasks[t as usize].items.max(tasks[t as usize].examples))).sum();
    let each = rows.max(1) * columns as u64 * 8;
    n.min(u32::try_from((SCORE_BYTES / each).max(1)).unwrap_or(u32::MAX)).max(1)
}

/// ⌈fraction · n⌉, where a product that is whole but for rounding counts as whole.
fn steps(fraction: f64, n: u32) -> u32 {
    ((fraction * f64::from(n) - 1e-9).ceil() as u32).clamp(1, n.max(1))
}

/// Up to 10 counts spread evenly over 1 to `most`, and 79 % of `n`, where all orders are compared, unless that is above.
fn points(most: u32, n: u32) -> Vec<u32> {
    let at = |k: u32| (u64::from(most) * u64::from(k)).div_ceil(u64::from(POINTS)) as u32;
    let compared = Some(steps(0.79, n)).filter(|&c| c <= most);
    let mut points: Vec<u32> = (1..=POINTS).map(at).chain(compared).collect();
    points.sort_unstable();
    points.dedup();
    points
}

/// Subsets per chunk: worth [`CHUNK_FLOPS`], a multiple of 8 from 8 to 64, but fewer where a sweep would
/// have less than 16 chunks (down to `least`).
fn chunk(flops_per_subset: f64, subsets: u64, least: u32) -> u32 {
    let wanted = CHUNK_FLOPS / flops_per_subset.max(1.0);
    let wanted = ((wanted / 8.0).round() * 8.0).clamp(8.0, 64.0) as u32;
    let most = u32::try_from(subsets / 16).unwrap_or(u32::MAX);
    wanted.min(most.max(least)).min(u32::try_from(subsets).unwrap_or(u32::MAX)).max(1)
}

/// Heads per chunk of a fit: worth [`CHUNK_FLOPS`], at most a layer's, and so few that there are 16 chunks where there are as
/// many heads.
fn fitted(flops_per_head: f64, heads: u32, layer: u32) -> u32 {
    let wanted = (CHUNK_FLOPS / flops_per_head.max(1.0)).clamp(1.0, f64::from(layer.max(1))) as u32;
    wanted.min((heads / 16).max(1))
}

fn place(name: &str, tasks: &[PlannedTask]) -> Result<u32, Error> {
    (0u32..)
        .zip(tasks)
        .find(|t| t.1.name == name)
        .map(|t| t.0)
        .ok_or_else(|| Error::Input(format!("[[sweep]]: there is no task {name:?}")))
}

fn narrowed(sweep: &SweepSpec, tasks: &[PlannedTask]) -> Result<Vec<u32>, Error> {
    let Some(names) = &sweep.tasks else { return Ok((0..tasks.len() as u32).collect()) };
    let mut out = names.iter().map(|n| place(n, tasks)).collect::<Result<Vec<u32>, _>>()?;
    out.sort_unstable();
    out.dedup();
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_points_are_as_defined() {
        assert_eq!(
            [steps(0.79, 72), steps(0.79, 270), steps(0.79, 100), steps(1.0, 7), steps(1e-9, 7)],
            [57, 214, 79, 7, 1]
        );
        assert_eq!(points(57, 72), [6, 12, 18, 23, 29, 35, 40, 46, 52, 57]);
        assert_eq!(points(72, 72), [8, 15, 22, 29, 36, 44, 51, 57, 58, 65, 72]);
        assert_eq!(points(3, 72), [1, 2, 3]);
        assert_eq!(points(8, 8), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(
            (chunk(1e9, 36_315, 8), chunk(1e12, 36_315, 8), chunk(1e9, 270, 4), chunk(1e9, 72, 4)),
            (64, 8, 16, 4)
        );
        assert_eq!(chunk(1e9, 3, 8), 3);
    }
}
