//! What is known chunk by chunk is in the end what the tables say.

use super::*;
use crate::analyse::analyse;
use crate::tests::experiment;
use crate::tests::matched::with_matched;

/// Every chunk but those of the greedy sweep, in a seeded order.
fn shuffled(results: &Results, seed: u64) -> Vec<At> {
    let mut all: Vec<(u64, At)> = results
        .rounds
        .iter()
        .filter(|(k, _)| k.0 != 3)
        .flat_map(|(k, r)| r.chunks.keys().map(move |&c| (k.0, k.1, c)))
        .map(|at| {
            let mix =
                (u64::from(at.0) * 977 + u64::from(at.2) * 131 + seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            (mix >> 20, at)
        })
        .collect();
    all.sort_unstable();
    all.into_iter().map(|a| a.1).collect()
}

fn scores(results: &Results, at: At) -> &ChunkScores {
    &results.rounds[&(at.0, at.1)].chunks[&at.2]
}

/// Takes chunks as they come, and those that must wait once they can be taken.
fn feed(live: &mut Live<'_>, results: &Results, order: &[At], settled: bool) -> usize {
    let (mut waiting, mut waited) = (order.to_vec(), 0);
    loop {
        let before = waiting.len();
        waiting.retain(|&at| {
            let ready = live.ready(at, settled);
            if ready == Ready::Now {
                live.take(at, scores(results, at));
            }
            waited += usize::from(ready == Ready::Later);
            ready == Ready::Later
        });
        if waiting.is_empty() || waiting.len() == before {
            return waited;
        }
    }
}

#[test]
fn in_whatever_order_chunks_come_the_numbers_are_those_of_the_tables() {
    let results = with_matched(experiment(2, 4, 14, true));
    let tables = analyse(&results);
    let frame = frame(results.id.clone(), results.plan.clone(), results.prepared.clone());
    for seed in 0..6 {
        let mut live = Live::new(&frame);
        for s in [4, 5, 7] {
            live.set_list(s, results.rounds[&(s, 0)].list.clone());
        }
        let waited = feed(&mut live, &results, &shuffled(&results, seed), false);
        assert!(waited > 0 || seed > 0, "pairs came before their units");
        for (i, (own, table)) in live.groups.iter().zip(&tables.groups).enumerate() {
            assert_eq!((own.ablation, own.task), (table.ablation, table.task));
            for row in &table.heads {
                let (value, delta, _) = own.heads[row.ix.at()].unwrap();
                assert_eq!((value, delta), (row.value, row.delta));
            }
            let view = live.heads(i, 0).unwrap();
            assert_eq!((view.known, view.baseline), (8, short(table.baseline)));
            assert_eq!(view.floor, short(table.floor.unwrap().0));
            let resolved: Vec<u32> = table.heads.iter().filter(|h| h.q <= RESOLVED).map(|h| h.ix.0).collect();
            assert_eq!(view.resolved, resolved);
            let pairs = live.pairs(i, 0).unwrap();
            assert_eq!((pairs.known, pairs.planned, pairs.skipped, pairs.cells.len()), (28, 28, 0, 28));
            for row in &table.pairs {
                let own = |c: &CellView| match *c {
                    CellView::One(a, b, value) => ((a, b) == (row.a.0, row.b.0)).then_some(value),
                    CellView::Several(..) => None,
                };
                let value = pairs.cells.iter().find_map(own).unwrap();
                assert!((value - row.interaction.value).abs() <= 1e-4 * row.interaction.value.abs() + 1e-12);
            }
            let mut strongest: Vec<_> = table.pairs.iter().filter(|p| p.interaction.value > 0.0).collect();
            strongest.sort_by(|a, b| b.interaction.value.total_cmp(&a.interaction.value));
            let best = own.redundant[0];
            assert_eq!(
                (best.a, best.b, best.se),
                (strongest[0].a, strongest[0].b, strongest[0].interaction.se)
            );
            let lines = live.curves(i, 0).unwrap().lines;
            assert_eq!(lines.len(), table.curves.len());
            for curve in &table.curves {
                let line = lines.iter().find(|l| l.order == curve.order).unwrap();
                assert_eq!((line.half, line.flagged), (curve.half, curve.flagged));
                let points: Vec<Mark> = curve
                    .points
                    .iter()
                    .map(|p| {
                        let name = p.unit.map_or_else(String::new, |u| table.name_of(u).to_owned());
                        (p.removed, short(p.value), p.retained.map(short), name)
                    })
                    .collect();
                assert_eq!(line.points, points, "{}", curve.order);
            }
        }
    }
}

#[test]
fn only_what_changed_is_said_again_and_greedy_is_followed_round_by_round() {
    let results = experiment(2, 4, 14, true);
    let frame = frame(results.id.clone(), results.plan.clone(), results.prepared.clone());
    let mut live = Live::new(&frame);
    let order: Vec<UnitIx> =
        (0..7).map(|r| results.rounds[&(3, r)].decision.clone().unwrap().remove.unwrap()).collect();
    live.take((0, 0, 0), scores(&results, (0, 0, 0)));
    live.take((1, 0, 0), scores(&results, (1, 0, 0)));
    let first = live.heads(0, 0).unwrap();
    assert_eq!((first.known, first.rows.len()), (7, 7));
    live.take((1, 0, 1), scores(&results, (1, 0, 1)));
    let then = live.heads(0, first.version).unwrap();
    assert_eq!((then.known, then.rows.len(), then.rows[0].0), (8, 1, 7));
    assert!(live.heads(0, then.version).unwrap().rows.is_empty());
    assert!(live.curves(0, then.version).unwrap().same && !live.curves(0, 0).unwrap().same);
    // Who knows a version of an earlier reading is told all.
    let mut next = Live::new(&frame).beginning_at(1000);
    next.take((0, 0, 0), scores(&results, (0, 0, 0)));
    next.take((1, 0, 0), scores(&results, (1, 0, 0)));
    let anew = next.heads(0, then.version).unwrap();
    assert_eq!((anew.version, anew.whole, anew.rows.len()), (1002, true, 7));
    assert!(next.pairs(0, then.version).unwrap().whole && !next.curves(0, then.version).unwrap().same);
    // Before anything is removed there is nothing to look for.
    assert_eq!(live.greedy_chunk(3, 0), None);
    for gone in 1..=order.len() {
        live.set_list(3, order[..gone].to_vec());
        let round = gone as u32 - 1;
        let chunk = live.greedy_chunk(3, round).unwrap();
        live.take_greedy((3, round, chunk), scores(&results, (3, round, chunk)));
        let walk = &live.curves(0, 0).unwrap().walks[0];
        assert_eq!((walk.round, walk.rounds, walk.half, walk.points.len()), (gone as u32, 7, true, gone + 1));
        assert_eq!(walk.points[gone].0, gone as u32);
    }
    // The last is the mean, over the selecting half, of what is stored for what it removed.
    let (place, rank) = (results.plan.space(3, &order[..6]), order[..7].to_vec());
    let mut subset = rank;
    subset.sort_unstable();
    let rank = place.rank(&subset).unwrap() as usize;
    let column = scores(&results, (3, 6, 0)).tasks[0].column(rank, 0);
    let mean = column.iter().sum::<f64>() / column.len() as f64;
    assert_eq!(live.curves(0, 0).unwrap().walks[0].points[7].1, short(mean));
}

#[test]
fn what_never_comes_leaves_its_pairs_out() {
    let mut results = experiment(2, 4, 14, true);
    results.rounds.get_mut(&(1, 0)).unwrap().chunks.remove(&1);
    let frame = frame(results.id.clone(), results.plan.clone(), results.prepared.clone());
    let mut live = Live::new(&frame);
    let order = shuffled(&results, 1);
    feed(&mut live, &results, &order, false);
    assert!(live.pairs(0, 0).unwrap().known < 21, "a chunk waits for a unit of any of its pairs");
    let mut live = Live::new(&frame);
    live.take((0, 0, 0), scores(&results, (0, 0, 0)));
    live.take((1, 0, 0), scores(&results, (1, 0, 0)));
    feed(&mut live, &results, &order.into_iter().filter(|a| a.0 == 2).collect::<Vec<_>>(), true);
    let pairs = live.pairs(0, 0).unwrap();
    assert_eq!((pairs.known, pairs.skipped), (21, 7));
    // Damaged chunks change nothing.
    let mut odd = scores(&results, (1, 0, 0)).clone();
    odd.tasks[0].values.pop();
    let mut live = Live::new(&frame);
    live.take((0, 0, 0), scores(&results, (0, 0, 0)));
    live.take((1, 0, 0), &odd);
    assert_eq!((live.heads(0, 0).unwrap().known, live.heads(1, 0).unwrap().known), (0, 7));
}

#[test]
fn a_group_warns_of_few_examples_as_the_tables_do() {
    let results = experiment(2, 4, 14, true);
    let told = |results: &Results| {
        let frame = frame(results.id.clone(), results.plan.clone(), results.prepared.clone());
        let live = Live::new(&frame);
        [0, 1].map(|group| live.group_view(group).unwrap().warnings)
    };
    let tables = analyse(&results);
    for (own, group) in told(&results).iter().zip(&tables.groups) {
        let wanted = crate::facts::warnings(&results, group);
        assert!(
            own.len() == 1 && own[0].contains("below 200 examples") && wanted.contains(&own[0]),
            "{own:?}"
        );
    }
    // With 1,225 pairs of 50 texts only the half that curves are reported on is small.
    let more = experiment(2, 4, 50, true);
    let [_, own] = told(&more);
    assert!(
        own.len() == 1 && own[0].contains("the half that reports, 300 examples in 25 clusters"),
        "{own:?}"
    );
    let mut none = more;
    none.plan.sweeps.truncate(3);
    assert!(told(&none)[1].is_empty());
}

#[test]
fn a_pair_without_a_number_is_none_of_the_strongest() {
    let mut results = experiment(2, 4, 14, true);
    let chunk = results.rounds.get_mut(&(2, 0)).and_then(|r| r.chunks.get_mut(&0)).unwrap();
    chunk.tasks[0].values[0] = f64::NAN;
    let frame = frame(results.id.clone(), results.plan.clone(), results.prepared.clone());
    let mut live = Live::new(&frame);
    feed(&mut live, &results, &shuffled(&results, 1), false);
    let pairs = live.pairs(0, 0).unwrap();
    assert_eq!(pairs.known, 28);
    assert!(pairs.redundant.iter().all(|p| p.2 > 0.0) && pairs.overlapping.iter().all(|p| p.2 < 0.0));
    assert!(pairs.redundant.len() + pairs.overlapping.len() <= 27);
}

#[test]
fn a_group_has_curves_whatever_runs_along_them() {
    let results = with_matched(experiment(2, 4, 14, true));
    let has = |keep: fn(&SweepKind) -> bool| {
        let mut plan = results.plan.clone();
        plan.sweeps.iter_mut().filter(|s| !keep(&s.kind)).for_each(|s| s.tasks.clear());
        let frame = frame(results.id.clone(), plan, results.prepared.clone());
        Live::new(&frame).group_view(0).unwrap().has
    };
    assert_eq!(has(|_| true), (true, true, true));
    assert_eq!(has(|k| matches!(k, SweepKind::Matched { .. })), (false, false, true));
    assert_eq!(has(|k| matches!(k, SweepKind::Random { .. })), (false, false, true));
    assert_eq!(has(|k| *k == SweepKind::Single), (true, false, false));
}
