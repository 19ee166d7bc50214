//! Plans over tiny models and the tasks of [`ablate_tests::tiny`], with every way to replace z, and the reference that answers for them:
//! what tests of attention, repair, shift and gradient sweeps share.
#![allow(clippy::unwrap_used, reason = "tests")]

use ablate_common::metric::Metric;
use ablate_common::model::{ModelInfo, inspect};
use ablate_common::plan::{
    Ablation, Batch, Donors, Plan, PlannedAblation, PlannedSweep, PlannedTask, Pool, Source,
};
use ablate_common::spec::{Dtype, ModelSpec, Spec};
use ablate_common::task::{Prepared, Scope};
use ablate_common::units::{UnitKind, UnitMap};
use ablate_tests::root;
use ablate_worker::engine::model::Model;
use ablate_worker::engine::{Engine, SharedModel, arch};
use ablate_worker::load::Weights;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
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

/// A plan of these sweeps, which run over each task's items in two batches.
pub fn plan(
    info: &ModelInfo,
    prepared: &[&Prepared],
    units: Vec<UnitMap>,
    sweeps: Vec<PlannedSweep>,
) -> Plan {
    let batch = |p: &Prepared, items: Vec<u32>| Batch {
        len: items.iter().map(|&i| p.items[i as usize].tokens.len() as u32).max().unwrap(),
        items,
    };
    let planned = |p: &&Prepared| PlannedTask {
        name: p.kind.name().into(),
        kind: p.kind,
        metric: Metric::of(p.kind)[0],
        prepared: String::new(),
        items: p.items.len() as u32,
        examples: p.examples.len() as u32,
        all: vec![batch(p, vec![0, 2, 4]), batch(p, vec![1, 3])],
        select: vec![batch(p, p.items_in(Scope::Select))],
    };
    let source =
        |donors: bool| Source { reference: None, donors: if donors { DONORS.to_vec() } else { Vec::new() } };
    let ablation = |(name, method): (&str, Ablation)| PlannedAblation {
        method,
        unit: UnitKind::Head,
        sources: vec![source(name == "resample"); prepared.len()],
    };
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
        tasks: prepared.iter().map(planned).collect(),
        ablations: methods().map(ablation).to_vec(),
        units,
        references: Vec::new(),
        sweeps,
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
    let python = root().join(".deps/ref/bin/python");
    assert!(python.exists(), "{} is missing: run deploy/setup/reference.sh", python.display());
    let out = Command::new(python)
        .arg(root().join("tests/reference").join(script))
        .args([question.as_path(), folder])
        .env("OMP_NUM_THREADS", "1")
        .output()
        .unwrap();
    assert!(out.status.success(), "the reference failed:\n{}", String::from_utf8_lossy(&out.stderr));
}
