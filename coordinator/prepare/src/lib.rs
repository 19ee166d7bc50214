//! Turns a spec into a recorded plan: tokenizers, datasets, generated tasks, batches, chunk sizes.

mod batches;
mod cost;
mod data;
mod donors;
mod folders;
pub mod images;
mod parquet;
mod patterns;
mod planned;
mod preview;
mod reader;
mod sources;
mod tasks;
mod tokenizer;
mod units;

pub use batches::{BATCH_TOKENS, batches};
pub use cost::{SweepCost, cost};
pub use folders::{Base, Folders};
pub use preview::preview;
pub use tokenizer::Text;

use reader::Reader;
use sources::{Given, Sources};

use ablate_common::memory;
use ablate_common::metric::Metric;
use ablate_common::model::{self, Inspected, MaskedNames, ModelInfo};
use ablate_common::plan::{Plan, PlannedTask};
use ablate_common::spec::{Spec, SweepKindSpec, TaskSpec};
use ablate_common::task::{Prepared, Scope, TaskKind};
use std::path::{Path, PathBuf};

/// Why a spec could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The spec, the model or the data is wrong: the user can put it right (exit code 2).
    #[error("{0}")]
    Input(String),
    /// Something else failed (exit code 1).
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// Exit code of a program that ends with this error.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Input(_) => 2,
            Self::Failed(_) => 1,
        }
    }

    pub(crate) fn input(what: impl Into<String>) -> Self {
        Self::Input(what.into())
    }
}

impl From<model::Error> for Error {
    fn from(e: model::Error) -> Self {
        Self::Input(format!("model: {e}"))
    }
}

/// A spec ready to run.
#[derive(Clone, Debug)]
pub struct PreparedExperiment {
    /// The recorded plan.
    pub plan: Plan,
    /// Prepared tasks, in the plan's order, then reference sets. Their names in the store are in the plan.
    pub prepared: Vec<Prepared>,
    /// Where the model was found.
    pub model_path: PathBuf,
}

/// Reads the model's headers and the data, and makes the plan. Relative paths are looked for in
/// `base_dir` (the spec's folder), then in the current folder. `progress` gets a step's name and how
/// much of how much of it is done.
///
/// # Errors
/// [`Error::Input`] where the spec, the model or the data is wrong.
pub fn prepare(
    spec: &Spec,
    base_dir: &Path,
    progress: &dyn Fn(&str, u64, u64),
) -> Result<PreparedExperiment, Error> {
    prepare_within(spec, Base { dir: base_dir, folders: &Folders::any() }, progress)
}

/// As [`prepare`], for somebody whose paths may lead below some folders only.
///
/// # Errors
/// [`Error::Input`] where the spec, the model or the data is wrong, or lies elsewhere.
pub fn prepare_within(
    spec: &Spec,
    base: Base<'_>,
    progress: &dyn Fn(&str, u64, u64),
) -> Result<PreparedExperiment, Error> {
    let model_path = base
        .resolve(&spec.model.source)
        .and_then(|path| base.folders.allow_all(&path).map(|()| path))
        .map_err(|why| Error::input(format!("model: {why}; correct source in [model]")))?;
    let model = model::inspect_headers(&model_path)?;
    fits(spec, &model, &model_path)?;
    units::check(spec, &model.info)?;
    let reader = Reader::of(&model, &model_path)?;
    let mut read = Vec::new();
    for task in &spec.tasks {
        let step = format!("prepare {}", task.name);
        progress(&step, 0, 1);
        let data = match &task.data {
            None => None,
            Some(path) => {
                let path = base
                    .resolve(path)
                    .map_err(|why| Error::input(format!("task {:?}: {why}; correct data", task.name)))?;
                Some(data::read(&path, task.sha256.as_deref())?)
            }
        };
        let one = match (task.kind, &data) {
            (TaskKind::Classification, Some(data)) => {
                tasks::classes::classification(task, data, &reader, &model.info, spec.seed)
            }
            _ => tasks::prepare(task, data.as_ref(), &reader, &model.info, spec.seed),
        };
        let one = one.map_err(|e| Error::Input(format!("task {:?}: {e}", task.name)))?;
        binary(task, &one, &model.info)?;
        vocabulary(&one, &model.info).map_err(|e| Error::Input(format!("task {:?}: {e}", task.name)))?;
        halves(spec, &task.name, &one)?;
        read.push((one, data));
        progress(&step, 1, 1);
    }
    let given = Given { spec, base, model: &model.info, reader: &reader, tasks: &read };
    let mut sources = Sources::of(&given)?;
    let mut prepared: Vec<Prepared> = read.into_iter().map(|(task, _)| task).collect();
    let references = std::mem::take(&mut sources.prepared);
    let mut info = model.info;
    info.weights_sha256 =
        model::weights_sha256_with(&model_path, &|done, total| progress("hash weights", done, total))?;
    if let Some(wanted) = &spec.model.sha256
        && !info.weights_sha256.starts_with(wanted.as_str())
    {
        return Err(Error::input(format!(
            "model: {} has sha256 {}, but the spec says {wanted}; fetch the right file or correct sha256 in [model]",
            model_path.display(),
            info.weights_sha256
        )));
    }
    let plan = plan(spec, info, &prepared, sources, &reader)?;
    prepared.extend(references);
    Ok(PreparedExperiment { plan, prepared, model_path })
}

/// Whether the model can do the spec's tasks at all.
fn fits(spec: &Spec, model: &Inspected, path: &Path) -> Result<(), Error> {
    let info = &model.info;
    for task in &spec.tasks {
        let name = &task.name;
        // An image has as many places as the model says, and no tokens.
        if task.max_tokens > info.context && info.details.image.is_none() {
            return Err(Error::input(format!(
                "task {name:?}: max_tokens = {} is above the model's context of {}; set max_tokens to at most that",
                task.max_tokens, info.context
            )));
        }
        let kind = task.kind.name();
        if task.kind == TaskKind::Classification {
            labelled(task, info)?;
            continue;
        }
        if info.details.image.is_some() {
            return Err(Error::input(format!(
                "task {name:?}: a {kind} task needs a model that reads text, but {} is a {}, which looks at images: its \
                 tasks are of kind classification",
                info.title, info.arch
            )));
        }
        if matches!(task.kind, TaskKind::Similarity | TaskKind::MaskedLm) {
            if !model::ENCODERS.contains(&info.arch.as_str()) {
                return Err(Error::input(format!(
                    "task {name:?}: a {kind} task needs an encoder ({}), but {} is a {}",
                    model::ENCODERS.join(", "),
                    info.title,
                    info.arch
                )));
            }
            if task.kind == TaskKind::Similarity {
                data::mean_pooled(path)?;
                continue;
            }
            let has = |name: &str| model.weights.tensors.contains_key(name);
            if !MaskedNames::of(&info.arch).is_some_and(|names| names.present(has)) {
                return Err(Error::input(format!(
                    "task {name:?}: {} has no masked-LM head; use a checkpoint that was saved with it (ForMaskedLM)",
                    info.title
                )));
            }
        } else if task.kind == TaskKind::Seq2seq {
            if info.details.seq2seq.is_none() {
                return Err(Error::input(format!(
                    "task {name:?}: a {kind} task needs an encoder-decoder ({}), but {} is a {}",
                    model::ENCODER_DECODERS.join(", "),
                    info.title,
                    info.arch
                )));
            }
        } else if !info.causal() {
            return Err(Error::input(format!(
                "task {name:?}: a {kind} task needs a model that predicts the next token ({}), but {} is a {}",
                model::DECODERS.join(", "),
                info.title,
                info.arch
            )));
        } else if !model::has_unembedding(info, &model.weights) {
            return Err(Error::input(format!(
                "task {name:?}: a {kind} task needs logits over tokens, but {} was saved with a classification head instead (ForSequenceClassification)",
                info.title
            )));
        }
    }
    Ok(())
}

/// Whether a classification task has a head, or a probe in its place.
fn labelled(task: &TaskSpec, info: &ModelInfo) -> Result<(), Error> {
    let (name, labels) = (&task.name, info.details.labels.len());
    let wrong = |what: String| Err(Error::input(format!("task {name:?}: {what}")));
    if info.details.seq2seq.is_some() {
        return wrong(format!(
            "a classification task needs an encoder or a decoder alone, but {} is a {}",
            info.title, info.arch
        ));
    }
    if !tasks::classes::probed(task, info) && labels < 2 {
        return wrong(match labels {
            0 => format!(
                "probe = false, but {} has no classification head of its own; leave probe out, or use a checkpoint that was saved with it ({})",
                info.title,
                if info.details.image.is_some() {
                    "ForImageClassification"
                } else {
                    "ForSequenceClassification"
                }
            ),
            _ => {
                format!("{}'s head has one output, which tells no labels apart; set probe = true", info.title)
            }
        });
    }
    Ok(())
}

/// Whether a metric of two labels has two.
fn binary(task: &TaskSpec, prepared: &Prepared, info: &ModelInfo) -> Result<(), Error> {
    let labels = prepared.probe.as_ref().map_or(info.details.labels.len(), |p| p.classes.len());
    if task.metric == Metric::F1Binary && labels != 2 {
        return Err(Error::input(format!(
            "task {:?}: metric = \"f1_binary\" is of two labels, but there are {labels}; use \"f1\"",
            task.name
        )));
    }
    Ok(())
}

/// Whether every token is one of the model's.
fn vocabulary(prepared: &Prepared, info: &ModelInfo) -> Result<(), String> {
    let items = || prepared.items.iter().chain(prepared.probe.iter().flat_map(|p| &p.items));
    let scored = items().flat_map(|i| &i.scored).flat_map(|s| [s.target, s.foil]);
    let read = items().flat_map(|i| i.tokens.iter().copied());
    let decoded = items().flat_map(|i| i.decoder.iter().copied()).chain(scored);
    let above =
        |mut tokens: Box<dyn Iterator<Item = u32> + '_>, most| tokens.find(|&t| t >= most).map(|t| (t, most));
    match above(Box::new(read), info.vocab).or_else(|| above(Box::new(decoded), info.target_vocab())) {
        Some((t, most)) => Err(format!(
            "the data has token {t}, but the model knows {most} tokens: tokenizer (or token numbers) and model don't belong together"
        )),
        None => Ok(()),
    }
}

/// Whether the task can be split, where a greedy sweep selects on one half of it.
fn halves(spec: &Spec, name: &str, prepared: &Prepared) -> Result<(), Error> {
    let split = spec.sweeps.iter().any(|s| match &s.kind {
        SweepKindSpec::Greedy { objective, halves, .. } => *halves && objective == name,
        _ => false,
    });
    if !split {
        return Ok(());
    }
    let least = if prepared.kind == TaskKind::Similarity { 3 } else { 1 };
    let unit = if prepared.kind == TaskKind::Similarity { "pairs" } else { "examples" };
    for half in [0, 1] {
        let count = prepared.examples.iter().filter(|e| e.half == Some(half)).count();
        if count < least {
            return Err(Error::input(format!(
                "task {name:?}: split = \"halves\" leaves {count} {unit} on one half, and {least} are needed; \
                 give more documents, or set split = \"none\" in the greedy [[sweep]]"
            )));
        }
    }
    Ok(())
}

fn plan(
    spec: &Spec,
    model: ModelInfo,
    prepared: &[Prepared],
    sources: Sources,
    reader: &Reader,
) -> Result<Plan, Error> {
    let mut tasks = Vec::new();
    for (task, p) in spec.tasks.iter().zip(prepared) {
        let bytes = serde_json::to_vec(p).map_err(|e| Error::Failed(format!("task {:?}: {e}", task.name)))?;
        tasks.push(PlannedTask {
            name: task.name.clone(),
            kind: task.kind,
            metric: task.metric,
            prepared: blake3::hash(&bytes).to_hex().to_string(),
            items: p.items.len() as u32,
            examples: p.examples.len() as u32,
            all: batches::batches(p, Scope::All),
            select: batches::batches(p, Scope::Select),
        });
    }
    let (sweeps, units) = planned::sweeps(spec, &model, &tasks, prepared, reader)?;
    let mut plan = Plan {
        engine: ablate_common::ENGINE_VERSION,
        spec: spec.clone(),
        model,
        tasks,
        ablations: sources.ablations,
        units,
        references: sources.references,
        sweeps,
    };
    // Planned by what a chunk computes, and not above what it may take.
    let chunk = |sweep| memory::chunk_within(&plan, prepared, sweep);
    let chunks: Vec<u32> = (0..plan.sweeps.len()).map(chunk).collect();
    plan.sweeps.iter_mut().zip(chunks).for_each(|(sweep, chunk)| sweep.chunk = chunk);
    Ok(plan)
}

#[cfg(test)]
mod tests;
