//! From a spec file to an experiment, and `ablate plan`.

use super::args::PlanArgs;
use super::fail::Fail;
use super::locate;
use super::progress::Steps;
use super::say;
use ablate_common::head::{HeadMap, Stream};
use ablate_common::memory;
use ablate_common::spec::{Dtype, Spec};
use ablate_common::task::{Prepared, TaskKind};
use ablate_coordinator::store::NewExperiment;
use ablate_prepare::{Base, Folders, PreparedExperiment};
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

/// A spec, read and checked.
pub struct Read {
    /// The spec.
    pub spec: Spec,
    text: String,
    origin: String,
    base: PathBuf,
}

/// Reads a spec file.
pub fn read(path: &Path) -> Result<Read, Fail> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        Fail::wrong(format!("the spec can't be read: {e}"))
            .at(path.display().to_string())
            .help("give the path of a spec (TOML); `ablate --help` shows one")
    })?;
    parse(text, &path.display().to_string(), path.parent().unwrap_or(Path::new(".")))
}

/// Reads a spec's text; its paths lie in `base`.
pub fn parse(text: String, origin: &str, base: &Path) -> Result<Read, Fail> {
    let spec = ablate_common::spec::parse(&text, origin)
        .map_err(|e| Fail::with_advice(2, &e.what).at(format!("{}:{}", e.origin, e.line)))?;
    Ok(Read { spec, text, origin: origin.to_owned(), base: base.to_path_buf() })
}

impl Read {
    /// Reads model and data, and makes the plan.
    pub fn prepare(self, steps: &Steps) -> Result<Made, Fail> {
        self.prepare_within(&Folders::any(), steps)
    }

    /// The same, for somebody whose files may lie below some folders only.
    pub fn prepare_within(self, folders: &Folders, steps: &Steps) -> Result<Made, Fail> {
        let base = Base { dir: &self.base, folders };
        let prepared = ablate_prepare::prepare_within(&self.spec, base, &|step, done, total| {
            steps.at(step, done, total);
        });
        steps.clear();
        let prepared = prepared.map_err(|e| {
            let message = e.to_string();
            let code = if e.exit_code() == 2 { 2 } else { 1 };
            let line = locate::line_of(&self.text, &message).map(|l| format!(":{l}")).unwrap_or_default();
            Fail::with_advice(code, &message).at(format!("{}{line}", self.origin))
        })?;
        Ok(Made { prepared, text: self.text })
    }
}

/// Floating-point operations in a second and CPU core that a sweep is taken to reach (measured on a
/// server core with AVX-512; an estimate for people, nothing depends on it).
const CORE_FLOPS: f64 = 60e9;

fn seconds_here(flops: f64, dtype: Dtype) -> (usize, f64) {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let factor = if dtype == Dtype::F64 { 2.0 } else { 1.0 };
    (cores, flops * factor / (CORE_FLOPS * cores as f64))
}

fn duration(seconds: f64) -> String {
    indicatif::HumanDuration(std::time::Duration::from_secs_f64(seconds.clamp(0.0, 1e12))).to_string()
}

/// A model's layers, in words.
fn layers(heads: &HeadMap) -> String {
    match heads.decoder_stage() {
        None => format!("{} layers", heads.stages()),
        Some(encoder) => {
            format!("{encoder} encoder layers and {} decoder layers", heads.layers(Stream::Decoder))
        }
    }
}

/// `ablate plan`.
pub fn plan(args: &PlanArgs) -> Result<u8, Fail> {
    let steps = Steps::new(args.json);
    let made = read(&args.spec)?.prepare(&steps)?;
    let plan = &made.prepared.plan;
    let costs = ablate_prepare::cost(plan, &made.prepared.prepared);
    let shown =
        ablate_prepare::preview(&made.prepared, args.show).map_err(|e| Fail::failed(e.to_string()))?;
    let flops: f64 = costs.iter().map(|c| c.flops).sum();
    let need = memory::of_plan(plan, &made.prepared.prepared, memory::SLICE_TOKENS);
    let on_cpu = memory::of_plan(plan, &made.prepared.prepared, memory::CPU_SLICE_TOKENS).passes();
    let bytes = need.most();
    let (cores, seconds) = seconds_here(flops, plan.spec.model.dtype);
    if args.json {
        let sweeps: Vec<serde_json::Value> = costs
            .iter()
            .map(|c| {
                serde_json::json!({"sweep": c.name, "subsets": c.subsets, "chunks": c.chunks, "rounds": c.rounds,
                    "flops": c.flops, "bytes": c.bytes})
            })
            .collect();
        let all = serde_json::json!({"id": plan.identity(), "name": plan.spec.name, "model": plan.model, "heads": plan.heads().len(),
            "subsets": plan.total_subsets(), "chunks": plan.total_chunks(), "flops": flops, "bytes": bytes, "bytes_least": on_cpu, "bytes_passes": need.passes(),
            "seconds_on_these_cores": seconds, "cores": cores, "sweeps": sweeps, "examples": shown});
        say::out(all);
        return Ok(0);
    }
    say::out(format_args!("{} ({})", plan.spec.name, short(&plan.identity())));
    let model = &plan.model;
    say::out(format_args!(
        "model    {}: {}, {} of {} heads ({} K/V), width {}, weights {}",
        model.title,
        model.arch,
        layers(&model.heads),
        model.n_heads,
        model.n_kv_heads,
        model.d_model,
        short(&model.weights_sha256)
    ));
    for (t, p) in plan.tasks.iter().zip(&made.prepared.prepared) {
        say::out(format_args!(
            "task     {}: {} examples in {} sequences, {} batches, {}{}",
            t.name,
            t.examples,
            t.items,
            t.all.len(),
            t.metric.name(),
            decided_by(t.kind, p, &model.details.labels)
        ));
    }
    let wide = costs.iter().map(|c| c.name.chars().count()).max().unwrap_or(0).max(18);
    say::out(format_args!(
        "\n{:<wide$} {:>10} {:>8} {:>8} {:>12} {:>10}",
        "sweep", "subsets", "chunks", "rounds", "TFLOP", "memory"
    ));
    for c in &costs {
        say::out(format_args!(
            "{:<wide$} {:>10} {:>8} {:>8} {:>12.3} {:>7.0} MB",
            c.name,
            c.subsets,
            c.chunks,
            c.rounds,
            c.flops / 1e12,
            c.bytes as f64 / 1e6
        ));
    }
    say::out(format_args!(
        "{:<wide$} {:>10} {:>8} {:>8} {:>12.3}",
        "all",
        plan.total_subsets(),
        plan.total_chunks(),
        "",
        flops / 1e12
    ));
    say::out(format_args!(
        "\nmemory   about {} a lane; not less than {} (on a CPU {}), with base states computed anew for every chunk\ntime     about {} on this machine's {cores} cores (at {:.0} GFLOP/s a core); about {} on a GPU that reaches 20 TFLOP/s",
        indicatif::HumanBytes(bytes),
        indicatif::HumanBytes(need.passes()),
        indicatif::HumanBytes(on_cpu),
        duration(seconds),
        CORE_FLOPS / 1e9,
        duration(flops / 2e13)
    ));
    say::out(format_args!("\nAs the model will see it (scored positions marked):"));
    for line in shown {
        say::out(format_args!("  {line}"));
    }
    Ok(0)
}

/// What tells a classification's labels apart.
fn decided_by(kind: TaskKind, prepared: &Prepared, own: &[String]) -> String {
    match &prepared.probe {
        Some(p) => format!(
            "; {} labels by a linear probe of the unablated embedding, fitted on {} other examples",
            p.classes.len(),
            p.items.len()
        ),
        None if kind == TaskKind::Classification => {
            format!("; {} labels by the model's own head", own.len())
        }
        None => String::new(),
    }
}

fn short(hash: &str) -> &str {
    hash.get(..16).unwrap_or(hash)
}
