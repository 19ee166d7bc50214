//! Ablate's side: loads a case, and times parts of its sweeps.

use crate::cases::{Case, Source};
use crate::least::{Least, Peaks, least};
use crate::shape;
use ablate_common::head::HeadIx;
use ablate_common::model::inspect;
use ablate_common::plan::{Plan, SweepKind};
use ablate_common::spec::{self, Dtype};
use ablate_common::task::{Prepared, Scope};
use ablate_common::units::UnitIx;
use ablate_worker::engine::trie::{Cut, Intervention};
use ablate_worker::engine::{Engine, SharedModel, arch};
use ablate_worker::load::Weights;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;
use tch::{Device, Kind};

/// Chunks of a sweep too long to be run whole.
const CHUNKS: u32 = 8;

/// Part of a sweep that was run: its subsets with the first column of their scores.
pub struct Ran {
    pub sweep: &'static str,
    pub subsets: Vec<Vec<HeadIx>>,
    pub scores: Vec<Vec<f64>>,
    pub seconds: f64,
    /// Least operations that give these scores.
    pub least: Least,
    /// Subsets of the whole sweep, or greedy round.
    pub of: u64,
}

impl Ran {
    /// Subsets a second.
    pub fn rate(&self) -> f64 {
        self.subsets.len() as f64 / self.seconds
    }
}

pub struct Loaded {
    pub plan: Arc<Plan>,
    pub prepared: Prepared,
    engine: Engine,
    model: Arc<SharedModel>,
}

fn kind_of(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::Bf16 => Kind::BFloat16,
        Dtype::F16 => Kind::Half,
    }
}

/// A format's name in specs.
pub fn name_of(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F64 => "f64",
        Dtype::F32 => "f32",
        Dtype::Bf16 => "bf16",
        Dtype::F16 => "f16",
    }
}

/// Loads a case's model and prepares its task.
pub fn load(case: &Case, dtype: Dtype, device: Device) -> Loaded {
    let kind = kind_of(dtype);
    let (plan, prepared, model) = match &case.source {
        Source::File { path, task, .. } => {
            let text = format!(
                "name = \"bench\"\n[model]\nsource = {path:?}\ndtype = \"{}\"\n[[task]]\nname = \"t\"\n{task}[ablation]\nmethod = \"mean\"\n\
                 [[sweep]]\nkind = \"single\"\n[[sweep]]\nkind = \"pairs\"\n[[sweep]]\nkind = \"greedy\"\nfraction = 0.79\nsplit = \"none\"\n",
                name_of(dtype),
            );
            let spec = spec::parse(&text, "bench.toml").unwrap();
            let made = ablate_prepare::prepare(&spec, Path::new("."), &|_, _, _| {}).unwrap();
            let inspected = inspect(path).unwrap();
            let weights = Weights::open(&inspected.weights, device, kind).unwrap();
            let model = arch::load(&inspected.info, &weights, device, kind, &|_, _, _| {}).unwrap();
            (made.plan, made.prepared, model)
        }
        &Source::Shape { shape, sequences, tokens } => (
            shape::plan(shape, sequences, tokens, dtype),
            vec![shape::task(shape, sequences, tokens)],
            shape::model(shape, tokens, kind, device),
        ),
    };
    let (plan, model) = (Arc::new(plan), Arc::new(SharedModel::new(model)));
    let task = prepared[0].clone();
    let engine = Engine::new(Arc::clone(&model), Arc::clone(&plan), Arc::new(prepared));
    Loaded { plan, prepared: task, engine, model }
}

impl Loaded {
    /// The machine's peak for the model's products.
    pub fn peaks(&self) -> Peaks {
        Peaks::of(self.model.model())
    }

    fn run(&mut self, sweep: u32, round: u32, list: &[UnitIx], chunks: &[u32], name: &'static str) -> Ran {
        let stop = AtomicBool::new(false);
        let plan = Arc::clone(&self.plan);
        let space = plan.space(sweep, list);
        let (of, size) = (plan.round_subsets(sweep, round), u64::from(plan.sweeps[sweep as usize].chunk));
        let (mut subsets, mut scores) = (Vec::new(), Vec::new());
        let began = Instant::now();
        for &chunk in chunks {
            let ran = self.engine.run(sweep, round, list, chunk, &stop).unwrap();
            let block = &ran.tasks[0];
            let first = u64::from(chunk) * size;
            for at in 0..size.min(of - first) {
                subsets.push(plan.removed(sweep, &space, first + at).unwrap());
                scores.push(block.column(at as usize, 0).to_vec());
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        let base = plan.units(sweep).union(space.base());
        let least = least(&plan, &self.prepared, &base, &subsets);
        Ran { sweep: name, subsets, scores, seconds, least, of }
    }

    /// Single whole (of a shape: eight chunks), eight chunks of the pairs, and one whole round of greedy in the middle of its
    /// way, where the plan has one.
    pub fn sweeps(&mut self, whole: bool) -> Vec<Ran> {
        let plan = Arc::clone(&self.plan);
        let find = |wanted: fn(&SweepKind) -> bool| {
            plan.sweeps.iter().position(|s| wanted(&s.kind)).map(|at| at as u32)
        };
        let single = find(|k| matches!(k, SweepKind::Single)).unwrap();
        let pairs = find(|k| matches!(k, SweepKind::Pairs)).unwrap();
        // Warms up, and computes what every sweep shares.
        drop(self.engine.run(0, 0, &[], 0, &AtomicBool::new(false)).unwrap());
        drop(self.engine.run(single, 0, &[], 0, &AtomicBool::new(false)).unwrap());
        let every = |sweep: u32, round: u32| (0..plan.round_chunks(sweep, round)).collect::<Vec<u32>>();
        let some = |sweep: u32| -> Vec<u32> {
            let chunks = plan.round_chunks(sweep, 0);
            let mut spread: Vec<u32> = (0..CHUNKS).map(|k| (2 * k + 1) * chunks / (2 * CHUNKS)).collect();
            spread.dedup();
            spread
        };
        let first = if whole { every(single, 0) } else { some(single) };
        let mut ran =
            vec![self.run(single, 0, &[], &first, "single"), self.run(pairs, 0, &[], &some(pairs), "pairs")];
        if let Some(greedy) = find(|k| matches!(k, SweepKind::Greedy { .. })) {
            // A plausible order of removal: a third of the heads, the later layers' first.
            let heads: Vec<UnitIx> = (0..plan.heads().len() as u32).rev().step_by(3).map(UnitIx).collect();
            let round = heads.len() as u32;
            ran.push(self.run(greedy, round, &heads, &every(greedy, round), "greedy"));
        }
        ran
    }

    /// The first column of the scores of some subsets.
    pub fn scores(&mut self, subsets: &[Vec<HeadIx>]) -> Vec<Vec<f64>> {
        let heads = self.plan.heads().clone();
        let intervention = |subset: &Vec<HeadIx>| {
            let mut stages = BTreeMap::<usize, Vec<Cut>>::new();
            for head in subset.iter().filter_map(|&ix| heads.head(ix)) {
                stages.entry(heads.stage_of(head)).or_default().push(Cut { head: head.head, keep: 0.0 });
            }
            Intervention { stages: stages.into_iter().collect() }
        };
        let all: Vec<Intervention> = subsets.iter().map(intervention).collect();
        let stop = AtomicBool::new(false);
        let scores = self.engine.run_interventions(0, &[], &all, &[0], Scope::All, &stop).unwrap();
        (0..subsets.len()).map(|at| scores.tasks[0].column(at, 0).to_vec()).collect()
    }
}
