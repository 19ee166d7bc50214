//! Where each ablation's b comes from: reference sets, and which item is whose donor.

use crate::data::{self, Data};
use crate::folders::Base;
use crate::reader::Reader;
use crate::{Error, batches, donors, tasks};
use ablate_common::model::ModelInfo;
use ablate_common::plan::{Ablation, Donors, PlannedAblation, PlannedReference, Pool, Source};
use ablate_common::spec::{AblationSpec, Spec, TaskSpec};
use ablate_common::task::{Item, Prepared, Scope, TaskKind};

/// Ablations with their sources, and the reference sets that these name.
#[derive(Default)]
pub struct Sources {
    pub ablations: Vec<PlannedAblation>,
    pub references: Vec<PlannedReference>,
    pub prepared: Vec<Prepared>,
}

/// What sources are made from.
pub struct Given<'a> {
    pub spec: &'a Spec,
    pub base: Base<'a>,
    pub model: &'a ModelInfo,
    pub reader: &'a Reader,
    /// The tasks, prepared, and their data files.
    pub tasks: &'a [(Prepared, Option<Data>)],
}

impl Sources {
    /// The sources of every ablation of the spec.
    pub fn of(given: &Given<'_>) -> Result<Self, Error> {
        let mut out = Self::default();
        for (at, ablation) in given.spec.ablations.iter().enumerate() {
            let wrong = |e: String| Error::Input(format!("[[ablation]] {}: {e}", at + 1));
            let file = ablation.reference.as_ref().map(|path| {
                let path =
                    given.base.resolve(path).map_err(|why| wrong(format!("{why}; correct reference")))?;
                data::read(&path, None)
            });
            let file = file.transpose()?;
            let mut sources = Vec::new();
            for (task, (prepared, data)) in given.spec.tasks.iter().zip(given.tasks) {
                let name = |e: String| wrong(format!("task {:?}: {e}", task.name));
                let seed = given.spec.seed;
                let source = out.source(given, ablation, task, prepared, data.as_ref(), file.as_ref(), seed);
                sources.push(source.map_err(name)?);
            }
            if sources.iter().all(|s| *s == Source::default()) {
                sources.clear();
            }
            out.ablations.push(PlannedAblation { method: ablation.method, unit: ablation.unit, sources });
        }
        Ok(out)
    }

    #[expect(clippy::too_many_arguments, reason = "one call site; a struct would only rename them")]
    fn source(
        &mut self,
        given: &Given<'_>,
        ablation: &AblationSpec,
        task: &TaskSpec,
        prepared: &Prepared,
        data: Option<&Data>,
        file: Option<&Data>,
        seed: u64,
    ) -> Result<Source, String> {
        if let Ablation::Resample { donors: Donors::Paired } = ablation.method {
            let items = tasks::counterfactuals(task, data, given.reader, prepared, seed)?;
            let donors = (0..items.len() as u32).collect();
            let reference = Some(self.put(given, items)?);
            return Ok(Source { reference, donors });
        }
        let reference = match file {
            Some(file) if matches!(ablation.method, Ablation::Optimal { .. }) => {
                Some(self.put_scored(given, scored(task, prepared, file, given)?)?)
            }
            Some(file) => Some(self.put(given, shown(task, file, given, seed)?)?),
            None => None,
        };
        let from = reference.and_then(|r| self.prepared.get(r as usize));
        let donors = match (ablation.method, from) {
            (Ablation::Resample { .. }, Some(from)) => donors::from(prepared, from, seed)?,
            (Ablation::Resample { .. }, None) => donors::within(prepared, seed)?,
            (Ablation::Mean { pool: Pool::Position }, Some(from)) => {
                for (what, of) in
                    [("example", source_tokens as fn(&Item) -> usize), ("target", target_tokens)]
                {
                    let longest = |p: &Prepared| p.items.iter().map(of).max().unwrap_or(0);
                    let (wanted, have) = (longest(prepared), longest(from));
                    if wanted > have {
                        return Err(format!(
                            "the longest {what} has {wanted} tokens, but the longest of the reference set {have}, so that \
                             later positions have no mean; lower max_tokens, use pool = \"tokens\", or give a longer text in reference"
                        ));
                    }
                }
                Vec::new()
            }
            _ => Vec::new(),
        };
        Ok(Source { reference, donors })
    }

    /// The place of a reference set of these sequences.
    fn put(&mut self, given: &Given<'_>, items: Vec<Item>) -> Result<u32, String> {
        let set = Prepared {
            kind: TaskKind::LanguageModeling,
            item_half: vec![0; items.len()],
            items,
            examples: Vec::new(),
            probe: None,
        };
        self.put_scored(given, set)
    }

    /// The place of a reference set.
    fn put_scored(&mut self, given: &Given<'_>, set: Prepared) -> Result<u32, String> {
        crate::vocabulary(&set, given.model)?;
        let bytes = serde_json::to_vec(&set).map_err(|e| e.to_string())?;
        let planned = PlannedReference {
            prepared: blake3::hash(&bytes).to_hex().to_string(),
            items: set.items.len() as u32,
            examples: set.examples.len() as u32,
            batches: batches::batches(&set, Scope::All),
        };
        let at = self.references.iter().position(|r| *r == planned).unwrap_or_else(|| {
            self.references.push(planned);
            self.prepared.push(set);
            self.references.len() - 1
        });
        Ok(at as u32)
    }
}

/// What the model is shown of a reference file: as the task shows its own data; for a task that makes its own,
/// the texts.
fn shown(task: &TaskSpec, file: &Data, given: &Given<'_>, seed: u64) -> Result<Vec<Item>, String> {
    let generated = task.data.is_none();
    let kind = if generated { TaskKind::LanguageModeling } else { task.kind };
    if file.is_text() && !matches!(kind, TaskKind::LanguageModeling | TaskKind::MaskedLm) {
        return Err(format!(
            "a {} task reads records, so that its reference can't be the text file {}; use .jsonl",
            task.kind.name(),
            file.path.display()
        ));
    }
    let all = TaskSpec { kind, examples: None, ..task.clone() };
    let prepared = tasks::prepare(&all, Some(file), given.reader, given.model, seed)?;
    Ok(prepared.items.into_iter().map(|i| Item { scored: Vec::new(), ..i }).collect())
}

/// The examples of a reference file that constants are fitted on: as the task makes its own.
fn scored(task: &TaskSpec, own: &Prepared, file: &Data, given: &Given<'_>) -> Result<Prepared, String> {
    let kind = task.kind.name();
    if task.data.is_none() {
        return Err(format!(
            "a {kind} task makes its own examples, so that constants can't be fitted to it on the file {}; leave reference out",
            file.path.display()
        ));
    }
    let all = TaskSpec { examples: None, ..task.clone() };
    if task.kind == TaskKind::Classification {
        // A probe is the task's own: it isn't fitted to the reference set.
        return tasks::classes::judged(
            &all,
            file,
            given.reader,
            given.model,
            given.spec.seed,
            own.probe.as_ref(),
        );
    }
    tasks::prepare(&all, Some(file), given.reader, given.model, given.spec.seed)
}

fn source_tokens(item: &Item) -> usize {
    item.tokens.len()
}

fn target_tokens(item: &Item) -> usize {
    item.decoder.len()
}
