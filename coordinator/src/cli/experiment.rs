//! From a spec file to an experiment, and `ablate plan`.

use super::args::PlanArgs;
use super::fail::Fail;
use super::progress::Steps;
use ablate_coordinator::store::NewExperiment;
use ablate_prepare::PreparedExperiment;
use std::path::{Path, PathBuf};

/// A spec, read and prepared.
pub struct Made {
    /// The experiment.
    pub prepared: PreparedExperiment,
    /// The spec as written.
    pub text: String,
}

impl Made {
    /// As the store takes it.
    pub fn into_new(self, output: PathBuf) -> NewExperiment {
        let PreparedExperiment { plan, prepared, model_path } = self.prepared;
        NewExperiment { plan, prepared, model_path, spec_text: self.text, output }
    }
}

/// Reads and prepares a spec file.
pub fn read(path: &Path, steps: &Steps) -> Result<Made, Fail> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        Fail::wrong(format!("{}: {e}", path.display())).help("give the path of a spec; see README.md for one")
    })?;
    let base = path.parent().unwrap_or(Path::new("."));
    prepare(text, &path.display().to_string(), base, steps)
}

/// Prepares a spec's text.
pub fn prepare(text: String, origin: &str, base: &Path, steps: &Steps) -> Result<Made, Fail> {
    let spec = ablate_common::spec::parse(&text, origin).map_err(|e| Fail::wrong(e.to_string()))?;
    let prepared = ablate_prepare::prepare(&spec, base, &|step, done, total| steps.at(step, done, total))
        .map_err(
            |e| if e.exit_code() == 2 { Fail::wrong(e.to_string()) } else { Fail::failed(e.to_string()) },
        )?;
    steps.clear();
    Ok(Made { prepared, text })
}

/// `ablate plan`.
pub fn plan(args: &PlanArgs) -> Result<u8, Fail> {
    let steps = Steps::new(args.json);
    let made = read(&args.spec, &steps)?;
    let plan = &made.prepared.plan;
    let costs = ablate_prepare::cost(plan, &made.prepared.prepared);
    let shown =
        ablate_prepare::preview(&made.prepared, args.show).map_err(|e| Fail::failed(e.to_string()))?;
    let flops: f64 = costs.iter().map(|c| c.flops).sum();
    if args.json {
        let sweeps: Vec<serde_json::Value> = costs
            .iter()
            .map(|c| {
                serde_json::json!({"sweep": c.name, "subsets": c.subsets, "chunks": c.chunks, "rounds": c.rounds,
                    "flops": c.flops, "bytes": c.bytes})
            })
            .collect();
        let all = serde_json::json!({"id": plan.identity(), "name": plan.spec.name, "model": plan.model, "heads": plan.heads().len(),
            "subsets": plan.total_subsets(), "chunks": plan.total_chunks(), "flops": flops, "sweeps": sweeps, "examples": shown});
        println!("{all}");
        return Ok(0);
    }
    println!("{} ({})", plan.spec.name, &plan.identity()[..16]);
    let model = &plan.model;
    println!(
        "model    {}: {}, {} layers of {} heads ({} K/V), width {}, weights {}",
        model.title,
        model.arch,
        model.layers,
        model.n_heads,
        model.n_kv_heads,
        model.d_model,
        &model.weights_sha256[..16]
    );
    for t in &plan.tasks {
        println!(
            "task     {}: {} examples in {} sequences, {} batches, {}",
            t.name,
            t.examples,
            t.items,
            t.all.len(),
            t.metric.name()
        );
    }
    println!(
        "\n{:<18} {:>10} {:>8} {:>8} {:>12} {:>10}",
        "sweep", "subsets", "chunks", "rounds", "TFLOP", "memory"
    );
    for c in &costs {
        println!(
            "{:<18} {:>10} {:>8} {:>8} {:>12.3} {:>7.0} MB",
            c.name,
            c.subsets,
            c.chunks,
            c.rounds,
            c.flops / 1e12,
            c.bytes as f64 / 1e6
        );
    }
    println!(
        "{:<18} {:>10} {:>8} {:>8} {:>12.3}",
        "all",
        plan.total_subsets(),
        plan.total_chunks(),
        "",
        flops / 1e12
    );
    println!(
        "time     about {} per 100 GFLOP/s of matrix products",
        indicatif::HumanDuration(std::time::Duration::from_secs_f64(flops / 1e11))
    );
    println!("\nAs the model will see it (scored positions marked):");
    for line in shown {
        println!("  {line}");
    }
    Ok(0)
}
