//! Attention, repair and shift sweeps against transformers in f64 (tests/reference/observed.py), on tiny random models of every
//! architecture, for every kind of task: scores of attention patterns and whole patterns, direct effects, and norms of the residual
//! stream.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::plans::{self, methods};
use ablate_common::attention::{COLUMNS, begins, queries};
use ablate_common::head::Stream;
use ablate_common::model::ModelInfo;
use ablate_common::plan::{Plan, PlannedSweep, Shown, SweepKind};
use ablate_common::scores::TaskScores;
use ablate_common::shift::points;
use ablate_common::task::{Prepared, Scope};
use ablate_common::units::{UnitIx, UnitKind, UnitMap};
use ablate_tests::proof::{Worst, proved};
use ablate_tests::tiny::tasks;
use ablate_worker::engine::Engine;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tch::Kind;

const LIMIT: f64 = 1e-9;

/// What the reference says of a task.
#[derive(Deserialize)]
struct Answer {
    /// Column → head → item.
    attention: BTreeMap<String, Vec<Vec<f64>>>,
    /// Head → item → query → key.
    patterns: Vec<Vec<Vec<Vec<f64>>>>,
    /// Method → head → example.
    direct: BTreeMap<String, Vec<Vec<f64>>>,
    shift: BTreeMap<String, Norms>,
}

/// Of nothing, all and each head removed: by point.
#[derive(Deserialize)]
struct Norms {
    norm: Vec<Vec<f64>>,
    largest: Vec<Vec<f64>>,
}

/// Models of tiny.py and seq2seq.py, and the tasks that each is asked.
const CASES: &[(&str, &[&str])] = &[
    ("llama", &["text", "end", "choice"]),
    ("gpt2", &["text"]),
    ("gpt2-relu", &["greater"]),
    ("gemma2", &["text", "end"]),
    ("qwen2-window", &["text"]),
    ("qwen3", &["text"]),
    ("mistral", &["end"]),
    ("gpt_neox", &["text"]),
    ("gpt_neox-serial", &["end"]),
    ("opt", &["text"]),
    ("opt-post", &["text"]),
    ("phi3", &["text"]),
    ("bert", &["similarity"]),
    ("roberta-padding", &["similarity"]),
    ("distilbert", &["similarity"]),
    ("albert", &["similarity"]),
    ("bert-masked", &["masked"]),
    ("bert-classes", &["first"]),
    ("llama-classes", &["last"]),
    ("marian", &["translated"]),
    ("t5", &["translated"]),
    ("t5-gated", &["translated"]),
];

/// Where the sweeps of a plan stand.
struct Sweeps {
    /// Attention of heads, of layers, and on the selecting half.
    attention: [u32; 3],
    /// Patterns of a task and stream.
    patterns: Vec<(usize, Stream, u32)>,
    /// Of each method: direct effects of heads and of layers, single removals of heads, and shifts.
    by_method: Vec<[u32; 4]>,
}

fn plan(info: &ModelInfo, prepared: &[&Prepared], chunk: u32) -> (Plan, Sweeps) {
    let mut units =
        [UnitKind::Head, UnitKind::Layer].map(|kind| UnitMap::of(kind, info, &[]).unwrap()).to_vec();
    let mut sweeps = Vec::new();
    let every: Vec<u32> = (0..prepared.len() as u32).collect();
    let mut add = |kind, ablation, tasks: &[u32], units, scope| {
        sweeps.push(PlannedSweep { kind, ablation, tasks: tasks.to_vec(), units, scope, chunk });
        sweeps.len() as u32 - 1
    };
    let attention = [(0, Scope::All), (1, Scope::All), (0, Scope::Select)]
        .map(|(units, scope)| add(SweepKind::Attention { greedy: None }, 0, &every, units, scope));
    let mut patterns = Vec::new();
    for (t, p) in prepared.iter().enumerate() {
        for &(stream, ..) in &info.heads.streams {
            let names = |tokens: &[u32]| tokens.iter().map(u32::to_string).collect::<Vec<_>>();
            let shown = |(i, item): (u32, &ablate_common::task::Item)| Shown {
                example: i,
                item: i,
                queries: names(match stream {
                    Stream::Decoder | Stream::Cross => &item.decoder,
                    _ => &item.tokens,
                }),
                keys: if stream == Stream::Cross { names(&item.tokens) } else { Vec::new() },
            };
            let items = (0..).zip(&p.items).map(shown).collect();
            let own = UnitMap::heads(&info.heads).narrowed(&info.heads, &[stream]);
            units.push(own);
            let at = add(SweepKind::Patterns { items }, 0, &[t as u32], units.len() as u32 - 1, Scope::All);
            patterns.push((t, stream, at));
        }
    }
    let of_method = |ablation| {
        [(SweepKind::Repair, 0), (SweepKind::Repair, 1), (SweepKind::Single, 0), (SweepKind::Shift, 0)]
            .map(|(kind, units)| add(kind, ablation, &every, units, Scope::All))
    };
    let by_method = (0..methods().len() as u32).map(of_method).collect();
    (plans::plan(info, prepared, units, sweeps), Sweeps { attention, patterns, by_method })
}

fn engine(path: &Path, prepared: &[&Prepared], chunk: u32, kind: Kind) -> (Engine, Arc<Plan>, Sweeps) {
    let (info, model) = plans::load(path, kind);
    let (plan, sweeps) = plan(&info, prepared, chunk);
    let (engine, plan) = plans::engine(model, plan, prepared);
    (engine, plan, sweeps)
}

/// By task and column the scores of a sweep by unit: [task][column][unit][row].
fn columns(engine: &mut Engine, plan: &Plan, sweep: u32) -> Vec<Vec<Vec<Vec<f64>>>> {
    let stop = AtomicBool::new(false);
    let tasks = plan.sweeps[sweep as usize].tasks.clone();
    let mut out: Vec<Vec<Vec<Vec<f64>>>> =
        tasks.iter().map(|&t| vec![Vec::new(); plan.columns(sweep, t).len()]).collect();
    for chunk in 0..plan.round_chunks(sweep, 0) {
        let scores = engine.run(sweep, 0, &[], chunk, &stop).unwrap();
        assert_eq!(scores.tasks.iter().map(|b| b.task).collect::<Vec<_>>(), tasks);
        for (task, block) in out.iter_mut().zip(&scores.tasks) {
            for unit in 0..scores.subsets as usize {
                let column = |b: &TaskScores, c| b.column(unit, c).to_vec();
                task.iter_mut().enumerate().for_each(|(c, all)| all.push(column(block, c)));
            }
        }
    }
    out
}

/// Asserts that two tables are equal, relative to the largest number wanted (or 1, if that is smaller).
fn assert_near(what: &str, got: &[Vec<f64>], want: &[Vec<f64>], limit: f64) -> Worst {
    let shape = |t: &[Vec<f64>]| t.iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(shape(got), shape(want), "{what}");
    let scale = want.iter().flatten().fold(1.0, |a: f64, b| a.max(b.abs()));
    let both = || got.iter().flatten().zip(want.iter().flatten());
    assert!(both().all(|(g, w)| g.is_finite() && w.is_finite()), "{what}: {got:?}");
    let mut worst = Worst { cases: got.len(), ..Worst::default() };
    both().for_each(|(g, w)| worst.see_off(g - w, scale));
    assert!(worst.within(limit), "{what}: {worst:?}");
    worst
}

/// The sums of heads' rows over the units of a map.
fn summed(map: &UnitMap, heads: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let of = |u: u32| {
        let own = map.heads_of(UnitIx(u));
        (0..heads[0].len()).map(|r| own.iter().map(|h| heads[h.at()][r]).sum()).collect()
    };
    (0..map.len() as u32).map(of).collect()
}

fn compare(case: &str, names: &[&str], all: &BTreeMap<&str, Prepared>, folder: &Path) -> Worst {
    let path = folder.join(case);
    let bytes = std::fs::read(path.with_extension("json")).unwrap();
    let answers: BTreeMap<String, Answer> = serde_json::from_slice(&bytes).unwrap();
    let prepared: Vec<&Prepared> = names.iter().map(|n| &all[n]).collect();
    let (mut wide, plan, sweeps) = engine(&path, &prepared, 1000, Kind::Double);
    let (mut split, parts, _) = engine(&path, &prepared, 7, Kind::Double);
    let (mut narrow, _, _) = engine(&path, &prepared, 1000, Kind::Float);
    let mut worst = Worst::default();
    let mut check = |what: String, got: &[Vec<f64>], want: &[Vec<f64>], limit: f64| {
        let off = assert_near(&format!("{case}, {what}"), got, want, limit);
        if limit == LIMIT {
            worst.join(off);
        }
    };

    let [heads, layers, half] = sweeps.attention.map(|s| columns(&mut wide, &plan, s));
    assert_eq!(heads, columns(&mut split, &parts, sweeps.attention[0]), "{case}: chunks are the same bits");
    let single = columns(&mut narrow, &plan, sweeps.attention[0]);
    for (t, name) in names.iter().enumerate() {
        for (c, column) in COLUMNS.iter().enumerate() {
            let want = &answers[*name].attention[*column];
            let what = |kind: &str| format!("{name}, {column} of {kind}");
            check(what("heads"), &heads[t][c], want, LIMIT);
            check(what("heads in f32"), &single[t][c], want, 2e-3);
            check(what("layers"), &layers[t][c], &summed(&plan.units[1], want), LIMIT);
            let keep = prepared[t].items_in(Scope::Select);
            let some: Vec<Vec<f64>> =
                want.iter().map(|r| keep.iter().map(|&i| r[i as usize]).collect()).collect();
            check(what("half"), &half[t][c], &some, LIMIT);
            // No score without a query, and none above their number but for the entropy.
            for (head, row) in plan.heads().iter().zip(&heads[t][c]) {
                for (item, &v) in prepared[t].items.iter().zip(row) {
                    let n = f64::from(queries(item, head.stream)[c]);
                    assert!(v >= 0.0 && (c == 1 || v <= n + 1e-9), "{case}, {name}, {column}: {v} of {n}");
                }
            }
        }
        // Half of all flow goes through the last layer's heads, as far as they look elsewhere.
        assert!(prepared[t].items.iter().all(|i| (begins(i).iter().sum::<f64>() - 1.0).abs() < 1e-12));
    }
    for &(t, stream, sweep) in &sweeps.patterns {
        let got = columns(&mut wide, &plan, sweep);
        assert_eq!(got, columns(&mut split, &parts, sweep));
        let flat = |items: &Vec<Vec<Vec<f64>>>| items.iter().flatten().flatten().copied().collect();
        let of_stream =
            plan.heads().iter().zip(&answers[names[t]].patterns).filter(|(h, _)| h.stream == stream);
        let want: Vec<Vec<f64>> = of_stream.map(|(_, items)| flat(items)).collect();
        check(format!("{}, patterns of {stream}", names[t]), &got[0][0], &want, LIMIT);
    }
    for ((method, _), [direct, layers, total, shift]) in methods().into_iter().zip(&sweeps.by_method) {
        if answers[names[0]].direct.contains_key(method) {
            let got = columns(&mut wide, &plan, *direct);
            let one = columns(&mut narrow, &plan, *direct);
            let split_got = columns(&mut split, &parts, *direct);
            for (t, name) in names.iter().enumerate() {
                let want = &answers[*name].direct[method];
                check(format!("{name}, direct, {method}"), &got[t][0], want, LIMIT);
                check(format!("{name}, direct in f32, {method}"), &one[t][0], want, 2e-3);
                check(format!("{name}, direct in chunks, {method}"), &split_got[t][0], want, LIMIT);
            }
            downstream(case, &plan, &got, &columns(&mut wide, &plan, *total));
            assert_eq!(columns(&mut wide, &plan, *layers)[0][0].len(), plan.units[1].len());
        }
        if answers[names[0]].shift.contains_key(method) {
            let got = columns(&mut wide, &plan, *shift);
            let split_got = columns(&mut split, &parts, *shift);
            for (t, name) in names.iter().enumerate() {
                let want = &answers[*name].shift[method];
                let unablated = vec![want.norm[0].clone(); want.norm.len()];
                assert_eq!(want.norm[0].len(), points(plan.heads()).len());
                for (c, want) in [&want.norm, &unablated, &want.largest, &unablated].into_iter().enumerate() {
                    check(format!("{name}, shift column {c}, {method}"), &got[t][c], want, LIMIT);
                    check(
                        format!("{name}, shift column {c} in chunks, {method}"),
                        &split_got[t][c],
                        want,
                        LIMIT,
                    );
                }
                // Nothing removed is nothing changed.
                assert_eq!(got[t][0][0], got[t][1][0]);
            }
        }
    }
    worst
}

/// A head of the last attention has nothing downstream but, in models whose layers aren't parallel, its own layer's feed-forward part; an
/// encoder's has no direct effect.
fn downstream(case: &str, plan: &Plan, direct: &[Vec<Vec<Vec<f64>>>], total: &[Vec<Vec<Vec<f64>>>]) {
    let heads: Vec<_> = plan.heads().iter().collect();
    let last = plan.model.layers - 1;
    for (direct, total) in direct.iter().zip(total) {
        for (h, head) in heads.iter().enumerate() {
            let apart =
                |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            let off = apart(&direct[0][h], &total[0][h]);
            match head.stream {
                Stream::SelfAttention if head.layer == last && case == "gpt_neox" => {
                    assert!(off < 1e-9, "{case}, {head}: {off:e}");
                }
                Stream::Encoder => {
                    let other = heads.iter().position(|o| o.stream == Stream::Encoder).unwrap();
                    assert_eq!(direct[0][h], direct[0][other], "{case}, {head} has no direct effect");
                }
                _ => {}
            }
        }
    }
}

#[test]
fn patterns_direct_effects_and_norms_are_those_of_transformers() {
    let folder = tempfile::tempdir().unwrap();
    let all = tasks();
    plans::ask("observed.py", CASES, &all, folder.path());
    for &(case, names) in CASES {
        let worst = compare(case, names, &all, folder.path());
        println!("{case:16} {:.1e} of the largest number of its table", worst.rel);
        let check = "attention, patterns, direct effects, norms of the stream, f64";
        assert!(proved(&format!("tiny {case}"), check, worst, LIMIT), "{case}: {worst:?}");
    }
}
