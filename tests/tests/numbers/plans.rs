//! Plans over tiny models, and the models themselves: what tests against transformers share. Those of attention, repair, shift and
//! gradient sweeps also share a plan over the tasks of [`ablate_tests::tiny`] with every way to replace z, and the reference that
//! answers for it.
#![allow(clippy::unwrap_used, reason = "tests")]

use ablate_common::metric::Metric;
use ablate_common::model::{ModelInfo, inspect};
use ablate_common::plan::{
    Ablation, Batch, Donors, Plan, PlannedAblation, PlannedSweep, PlannedTask, Pool, Source, SweepKind,
};
use ablate_common::spec::{Dtype, ModelSpec, Spec};
use ablate_common::task::{Prepared, Scope};
use ablate_common::units::{UnitKind, UnitMap};
use ablate_tests::reference;
use ablate_worker::engine::model::Model;
use ablate_worker::engine::{Engine, SharedModel, arch};
use ablate_worker::load::Weights;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tch::{Device, Kind};

/// Shorter, longer and equally long donors.
const DONORS: [u32; 5] = [1, 3, 4, 0, 2];

/// Every ablation of a plan, in its order.
pub fn methods() -> [(&'static str, Ablation); 5] {
    [
        ("zero", Ablation::Zero),
        ("half", Ablation::Scale { scale: 0.5 }),
        ("mean", Ablation::Mean { pool: Pool::Tokens }),
        ("mean-position", Ablation::Mean { pool: Pool::Position }),
        ("resample", Ablation::Resample { donors: Donors::Seeded }),
    ]
}

/// A plan over heads in f64, as yet of nothing.
pub fn of_heads(info: &ModelInfo) -> Plan {
    Plan {
        engine: ablate_common::ENGINE_VERSION,
        spec: Spec {
            name: "tiny".into(),
            seed: 0,
            model: ModelSpec { source: String::new(), dtype: Dtype::F64, sha256: None },
            tasks: Vec::new(),
            ablations: Vec::new(),
            sweeps: Vec::new(),
        },
        model: info.clone(),
        tasks: Vec::new(),
        ablations: Vec::new(),
        units: vec![UnitMap::heads(&info.heads)],
        references: Vec::new(),
        sweeps: Vec::new(),
    }
}

/// Items that go through the model together.
pub fn batch(p: &Prepared, items: &[u32]) -> Batch {
    let len = items.iter().map(|&i| p.items[i as usize].tokens.len() as u32).max().unwrap();
    Batch { items: items.to_vec(), len }
}

/// A task in these batches, by the first metric of its kind; nothing selects on it.
pub fn task(p: &Prepared, all: Vec<Batch>) -> PlannedTask {
    PlannedTask {
        name: p.kind.name().into(),
        kind: p.kind,
        metric: Metric::of(p.kind)[0],
        prepared: String::new(),
        items: p.items.len() as u32,
        examples: p.examples.len() as u32,
        all,
        select: Vec::new(),
    }
}

/// A sweep over the first units of a plan, for the first `tasks` tasks.
pub fn sweep(kind: SweepKind, ablation: u32, tasks: usize, chunk: u32) -> PlannedSweep {
    let tasks = (0..tasks as u32).collect();
    PlannedSweep { kind, ablation, tasks, units: 0, scope: Scope::All, chunk }
}

/// A plan of these sweeps, which run over each task's items in two batches.
pub fn plan(
    info: &ModelInfo,
    prepared: &[&Prepared],
    units: Vec<UnitMap>,
    sweeps: Vec<PlannedSweep>,
) -> Plan {
    let planned = |p: &&Prepared| PlannedTask {
        select: vec![batch(p, &p.items_in(Scope::Select))],
        ..task(p, vec![batch(p, &[0, 2, 4]), batch(p, &[1, 3])])
    };
    let source =
        |donors: bool| Source { reference: None, donors: if donors { DONORS.to_vec() } else { Vec::new() } };
    let ablation = |(name, method): (&str, Ablation)| PlannedAblation {
        method,
        unit: UnitKind::Head,
        sources: vec![source(name == "resample"); prepared.len()],
    };
    Plan {
        tasks: prepared.iter().map(planned).collect(),
        ablations: methods().map(ablation).to_vec(),
        units,
        sweeps,
        ..of_heads(info)
    }
}

/// A model on the CPU.
pub fn load(path: &Path, kind: Kind) -> (ModelInfo, Model) {
    let inspected = inspect(path).unwrap();
    let weights = Weights::open(&inspected.weights, Device::Cpu, kind).unwrap();
    let model =
        tch::no_grad(|| arch::load(&inspected.info, &weights, Device::Cpu, kind, &|_, _, _| {}).unwrap());
    (inspected.info, model)
}

/// What runs a plan over copies of its tasks.
pub fn engine(model: Model, plan: Plan, prepared: &[&Prepared]) -> (Engine, Arc<Plan>) {
    let plan = Arc::new(plan);
    let data = prepared.iter().map(|&p| p.clone()).collect();
    (Engine::new(Arc::new(SharedModel::new(model)), Arc::clone(&plan), Arc::new(data)), plan)
}

/// Has a script of tests/reference make the models of `cases` in a folder, each with its answers beside it.
pub fn ask(script: &str, cases: &[(&str, &[&str])], tasks: &BTreeMap<&str, Prepared>, folder: &Path) {
    let cases: BTreeMap<&str, &[&str]> = cases.iter().copied().collect();
    let donors: BTreeMap<&str, _> = tasks.keys().map(|&t| (t, DONORS)).collect();
    let job = json!({"cases": cases, "tasks": tasks, "donors": donors});
    let question = folder.join("job.json");
    std::fs::write(&question, job.to_string()).unwrap();
    reference::script(script, &[&question, folder]).unwrap();
}
