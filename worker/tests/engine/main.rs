//! The engine against a plain loop of whole forward passes with masked z, on random small models of
//! odd sizes, in f64.
#![allow(clippy::unwrap_used, reason = "tests")]

mod made;
mod plain;

use ablate_common::head::{Head, Stream};
use ablate_common::memory;
use ablate_common::metric::Metric;
use ablate_common::plan::{Ablation, Donors, Pool};
use ablate_common::scores::TaskScores;
use ablate_common::task::{Item, Prepared, Scope, TaskKind};
use ablate_common::units::{HeadSet, UnitIx, UnitKind, UnitMap};
use ablate_worker::engine::trie::{Cut, Intervention};
use ablate_worker::engine::{Engine, SharedModel, TorchOpener};
use ablate_worker::lane::{ExecError, Experiment, LaneDevice, Named, OpenExperiment};
use ablate_worker::memory::Free;
use made::{Case, VOCAB, info, model, plan, prepared};
use plain::Loop;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tch::{Device, Kind};

fn assert_close(block: &TaskScores, at: usize, expected: &[Vec<f64>], what: &str) {
    for (c, column) in expected.iter().enumerate() {
        for (k, (&want, &got)) in column.iter().zip(block.column(at, c)).enumerate() {
            assert!(
                (want - got).abs() <= 1e-10 * want.abs().max(1.0),
                "{what}: column {c} example {k}: {got} instead of {want}"
            );
        }
    }
}

fn check(arch: &str, kind: TaskKind, ablation: Ablation) {
    check_case(arch, kind, &Case::heads(ablation));
}

fn check_case(arch: &str, kind: TaskKind, case: &Case) {
    let prepared = prepared(kind);
    let plan = Arc::new(plan(arch, kind, &prepared, case));
    let reference = model(arch, Kind::Double, 7);
    let plain = Loop { model: &reference, prepared: &prepared, case };
    let b = plain.replacements();
    let shared = Arc::new(SharedModel::new(model(arch, Kind::Double, 7)));
    let data = std::iter::once(&prepared).chain(&case.reference).cloned().collect();
    let mut engine = Engine::new(shared, Arc::clone(&plan), Arc::new(data));
    let stop = AtomicBool::new(false);
    let steps = plan.sweeps[3].rounds();
    let random: Vec<UnitIx> = [14, 3, 8, 0, 17, 6, 2, 9, 11, 16, 5, 1, 13, 10, 4].map(UnitIx).to_vec();
    let n = case.units.len() as u32;
    let random: Vec<UnitIx> = random.into_iter().filter(|u| u.0 < n).take(steps as usize).collect();
    for sweep in 0..plan.sweeps.len() as u32 {
        let scope = plan.sweeps[sweep as usize].scope;
        // A greedy sweep goes back and forth between rounds: after a resume a base set may also shrink.
        for round in
            if sweep == 3 { vec![0, 1, 2.min(steps - 1), steps - 1, 3.min(steps - 1)] } else { vec![0] }
        {
            let list = match sweep {
                3 => random[..round as usize].to_vec(),
                4 | 6 => random.clone(),
                _ => Vec::new(),
            };
            let space = plan.space(sweep, &list);
            for chunk in 0..plan.round_chunks(sweep, round) {
                let scores = engine.run(sweep, round, &list, chunk, &stop).unwrap();
                for (i, rank) in plan.chunk_ranks(sweep, round, chunk).enumerate() {
                    let subset = plan.removed(sweep, &space, rank).unwrap();
                    let expected = plain.scores(&subset, scope, b.as_deref());
                    assert_close(
                        &scores.tasks[0],
                        i,
                        &expected,
                        &format!("{arch} {kind:?} sweep {sweep} {subset:?}"),
                    );
                }
            }
        }
    }
}

#[test]
fn every_sweep_equals_the_plain_loop_on_a_grouped_query_decoder() {
    check("llama", TaskKind::LanguageModeling, Ablation::Zero);
    check("llama", TaskKind::Ioi, Ablation::Mean { pool: Pool::Tokens });
}

#[test]
fn every_sweep_equals_the_plain_loop_on_a_padded_encoder() {
    check("bert", TaskKind::Similarity, Ablation::Zero);
    check("bert", TaskKind::Similarity, Ablation::Mean { pool: Pool::Tokens });
}

#[test]
fn means_by_position_and_sign_flips_equal_the_plain_loop() {
    check("llama", TaskKind::Induction, Ablation::Mean { pool: Pool::Position });
    check("bert", TaskKind::Similarity, Ablation::Mean { pool: Pool::Position });
    check("llama", TaskKind::Ioi, Ablation::Scale { scale: -1.0 });
    check("llama", TaskKind::LanguageModeling, Ablation::Scale { scale: 0.5 });
    check("bert", TaskKind::Similarity, Ablation::Scale { scale: -1.0 });
}

/// A donor of the same length, shorter ones and longer ones.
fn donated(reference: Option<Prepared>) -> Case {
    let ablation = Ablation::Resample { donors: Donors::Seeded };
    let donors = if reference.is_some() { vec![1, 0, 1, 1, 0, 1] } else { vec![1, 2, 3, 0, 5, 4] };
    Case { reference, donors, ..Case::heads(ablation) }
}

/// Two items that aren't the task's, one longer than all of those.
fn elsewhere() -> Prepared {
    let item = |n: u32| Item { tokens: (0..n).map(|t| (t * 11 + n) % VOCAB).collect(), ..Item::default() };
    Prepared {
        kind: TaskKind::LanguageModeling,
        items: vec![item(3), item(13)],
        item_half: vec![0, 0],
        examples: Vec::new(),
        probe: None,
    }
}

#[test]
fn donors_states_equal_the_plain_loop() {
    check_case("llama", TaskKind::LanguageModeling, &donated(None));
    check_case("bert", TaskKind::Similarity, &donated(None));
    check_case("llama", TaskKind::Ioi, &donated(Some(elsewhere())));
    check_case("bert", TaskKind::Similarity, &donated(Some(elsewhere())));
}

#[test]
fn means_over_a_reference_set_equal_the_plain_loop() {
    for pool in [Pool::Tokens, Pool::Position] {
        let case = Case { reference: Some(elsewhere()), ..Case::heads(Ablation::Mean { pool }) };
        check_case("llama", TaskKind::LanguageModeling, &case);
        check_case("bert", TaskKind::Similarity, &case);
    }
}

/// Sets that cross layers, overlap, and leave heads out.
fn sets() -> Vec<HeadSet> {
    let set = |name: &str, heads: &[(u32, u32)]| HeadSet {
        name: name.into(),
        heads: heads
            .iter()
            .map(|&(layer, head)| Head { stream: Stream::SelfAttention, layer, head })
            .collect(),
    };
    vec![
        set("across", &[(2, 1), (0, 3)]),
        set("within", &[(1, 0), (1, 4)]),
        set("again", &[(0, 3), (1, 0), (1, 4)]),
        set("one", &[(2, 5)]),
    ]
}

#[test]
fn every_kind_of_unit_equals_the_plain_loop() {
    let mean = Ablation::Mean { pool: Pool::Tokens };
    for (arch, kind, unit, ablation) in [
        ("llama", TaskKind::LanguageModeling, UnitKind::KvGroup, mean),
        ("llama", TaskKind::Ioi, UnitKind::Layer, Ablation::Zero),
        ("llama", TaskKind::Ioi, UnitKind::Set, mean),
        ("bert", TaskKind::Similarity, UnitKind::Layer, mean),
        ("bert", TaskKind::Similarity, UnitKind::Set, Ablation::Scale { scale: -1.0 }),
    ] {
        let units = UnitMap::of(unit, &info(arch), &sets()).unwrap();
        check_case(arch, kind, &Case { units, ..Case::heads(ablation) });
    }
    let units = UnitMap::of(UnitKind::Set, &info("llama"), &sets()).unwrap();
    check_case("llama", TaskKind::LanguageModeling, &Case { units, ..donated(None) });
}

fn engine(kind: Kind, ablation: Ablation) -> Engine {
    greedy_on(Scope::Select, kind, ablation)
}

/// An engine whose greedy sweep is evaluated on these examples: on all of them it shares its base state with pairs given a base.
fn greedy_on(scope: Scope, kind: Kind, ablation: Ablation) -> Engine {
    let prepared = prepared(TaskKind::LanguageModeling);
    let mut plan = plan("llama", TaskKind::LanguageModeling, &prepared, &Case::heads(ablation));
    plan.sweeps[3].scope = scope;
    Engine::new(Arc::new(SharedModel::new(model("llama", kind, 3))), Arc::new(plan), Arc::new(vec![prepared]))
}

fn at(layer: usize, heads: &[(u32, f64)]) -> Intervention {
    Intervention { stages: vec![(layer, heads.iter().map(|&(head, keep)| Cut { head, keep }).collect())] }
}

#[test]
fn a_head_left_as_it_is_changes_nothing() {
    let stop = AtomicBool::new(false);
    // In f64 within 1e-12 of the unablated run, mixed into a batch of real removals.
    let mut wide = engine(Kind::Double, Ablation::Zero);
    let mixed = [
        Intervention::default(),
        at(0, &[(2, 1.0)]),
        at(1, &[(0, 0.0)]),
        at(1, &[(4, 1.0), (5, 1.0)]),
        at(2, &[(1, 0.0)]),
    ];
    let scores = wide.run_interventions(0, &[], &mixed, &[0], Scope::All, &stop).unwrap();
    for subset in [1, 3] {
        for (a, b) in scores.tasks[0].column(0, 0).iter().zip(scores.tasks[0].column(subset, 0)) {
            assert!((a - b).abs() <= 1e-12 * a.abs().max(1.0), "{a} {b}");
        }
    }
    // Bit for bit against a row of the same batch that leaves the prefix at the same layer untouched.
    for kind in [Kind::Float, Kind::Double] {
        let mut engine = engine(kind, Ablation::Zero);
        let rows = [at(1, &[]), at(1, &[(3, 1.0)]), at(1, &[(0, 0.0)]), at(2, &[(1, 0.0)])];
        let scores = engine.run_interventions(0, &[], &rows, &[0], Scope::All, &stop).unwrap();
        let bits = |s: usize| scores.tasks[0].column(s, 0).iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(0), bits(1));
        assert_ne!(bits(0), bits(2));
    }
}

#[test]
fn of_tokens_that_are_equally_likely_only_the_first_is_predicted() {
    let stop = AtomicBool::new(false);
    // Read in one pass of the project's own, and by libtorch; alone, and beside the unablated distribution.
    for kind in [Kind::Float, Kind::BFloat16, Kind::Double] {
        for metric in [Metric::Accuracy, Metric::Kl] {
            let mut prepared = prepared(TaskKind::LanguageModeling);
            prepared.items[1].scored[2].target = 0;
            let mut plan = plan("llama", TaskKind::LanguageModeling, &prepared, &Case::heads(Ablation::Zero));
            plan.tasks[0].metric = metric;
            let mut flat = model("llama", kind, 3);
            flat.unembed = flat.unembed.map(|w| w.zeros_like());
            let shared = Arc::new(SharedModel::new(flat));
            let mut engine = Engine::new(shared, Arc::new(plan), Arc::new(vec![prepared]));
            let scores = engine.run(1, 0, &[], 0, &stop).unwrap();
            assert_eq!(scores.subsets, 7);
            for subset in 0..7 {
                let correct = scores.tasks[0].column(subset, 1);
                assert_eq!(correct, [0.0, 1.0, 0.0, 0.0, 0.0, 0.0], "{kind:?} {metric:?}");
            }
        }
    }
}

#[test]
fn a_resumed_engine_gives_the_same_bits() {
    let stop = AtomicBool::new(false);
    let list: Vec<UnitIx> = [14, 3, 8, 0, 17].map(UnitIx).to_vec();
    for (kind, scope) in [
        (Kind::Float, Scope::Select),
        (Kind::Float, Scope::All),
        (Kind::BFloat16, Scope::Select),
        (Kind::BFloat16, Scope::All),
    ] {
        let fresh = || greedy_on(scope, kind, Ablation::Mean { pool: Pool::Tokens });
        let mut steady = fresh();
        for round in 0..5 {
            steady.run(3, round, &list[..round as usize], 0, &stop).unwrap();
            // Pairs given a base come in between.
            if round % 2 == 1 {
                let here = steady.run(7, 0, &[], round, &stop).unwrap().encode();
                assert_eq!(
                    here,
                    fresh().run(7, 0, &[], round, &stop).unwrap().encode(),
                    "{kind:?} {scope:?}"
                );
            }
        }
        let here = steady.run(3, 5, &list, 1, &stop).unwrap().encode();
        assert_eq!(here, fresh().run(3, 5, &list, 1, &stop).unwrap().encode(), "{kind:?} {scope:?}");
    }
}

#[test]
fn a_stopped_pass_says_so() {
    let stop = AtomicBool::new(true);
    let mut engine = engine(Kind::Float, Ablation::Zero);
    assert_eq!(engine.run(1, 0, &[], 0, &stop), Err(ablate_worker::engine::Error::Stopped));
    assert!(matches!(engine.run(1, 0, &[], 99, &stop), Err(ablate_worker::engine::Error::Failed(_))));
}

#[test]
fn memory_for_base_states_changes_no_bit() {
    let stop = AtomicBool::new(false);
    let list: Vec<UnitIx> = [14, 3, 8].map(UnitIx).to_vec();
    for scope in [Scope::Select, Scope::All] {
        let all = |room: u64| {
            let engine = greedy_on(scope, Kind::Float, Ablation::Mean { pool: Pool::Tokens });
            let mut engine = engine.keeping(room);
            let mut bytes = Vec::new();
            let runs = [(1, 0, &[][..]), (3, 0, &[]), (7, 0, &[]), (3, 3, &list), (7, 0, &[]), (1, 0, &[])];
            for (sweep, round, list) in runs {
                bytes.push(engine.run(sweep, round, list, 0, &stop).unwrap().encode());
            }
            bytes
        };
        let roomy = all(u64::MAX);
        assert_eq!(roomy, all(0), "{scope:?}");
        assert_eq!(roomy, all(20_000), "{scope:?}");
    }
}

#[test]
fn a_plan_with_a_chunk_that_does_not_fit_is_refused_before_its_model_is_looked_for() {
    let data = vec![prepared(TaskKind::LanguageModeling)];
    let plan = plan("llama", TaskKind::LanguageModeling, &data[0], &Case::heads(Ablation::Zero));
    let needed = memory::of_plan(&plan, &data, memory::CPU_SLICE_TOKENS).passes();
    let lane =
        LaneDevice { lane: 0, device: Named::Cpu, name: "cpu".into(), class: String::new(), threads: 1 };
    let experiment = Experiment {
        id: "t".into(),
        plan: Arc::new(plan),
        prepared: Arc::new(data),
        constants: Arc::default(),
        model: "/nowhere".into(),
    };
    let open = |limit: u64| {
        let opener = TorchOpener::with_memory(Free::new(Some(limit), [Device::Cpu]));
        opener.open(&lane, &experiment, &|_, _, _| ()).map(drop)
    };
    let refused = ExecError::DoesNotFit { device: "cpu".into(), needed, free: needed - 1 };
    assert_eq!(open(needed - 1), Err(refused));
    assert!(matches!(open(needed), Err(ExecError::ModelMissing { .. })));
}
