//! Asks tests/reference/seq2seq.py about encoder-decoders, and compares the engine with its answers.

use crate::plans::{batch, of_heads, sweep, task};
use ablate_common::head::{HeadIx, HeadMap};
use ablate_common::metric::Metric;
use ablate_common::model::ModelInfo;
use ablate_common::plan::{Ablation, Batch, Plan, PlannedAblation, PlannedReference, PlannedTask, SweepKind};
use ablate_common::scores::ChunkScores;
use ablate_common::stats::bleu;
use ablate_common::task::{Item, Prepared, Scope};
use ablate_common::units::UnitIx;
use ablate_tests::proof::Worst;
use ablate_tests::reference::script;
use ablate_worker::engine::Engine;
use ablate_worker::engine::base::{BaseSet, DeviceBatch};
use ablate_worker::engine::model::Model;
use ablate_worker::engine::score::host;
use ablate_worker::engine::trie::{Cut, Intervention};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Token that ends the targets of all models here.
const END: u32 = 2;

/// What is asked about one model.
#[derive(Debug)]
pub struct Question {
    /// Name of the case.
    pub name: String,
    /// The model's directory; none: the tiny one of that name is made.
    pub path: Option<PathBuf>,
    /// The task.
    pub prepared: Prepared,
    /// The model's heads.
    pub heads: HeadMap,
    /// What replaces removed heads.
    pub ablations: Vec<PlannedAblation>,
    /// Ascending subsets, the first of them empty.
    pub subsets: Vec<Vec<HeadIx>>,
    /// Numbers of the subsets that decode.
    pub decoded: Vec<usize>,
    /// The model's context.
    pub context: u32,
}

/// What the reference says of one model.
#[derive(Debug, Deserialize)]
pub struct Answer {
    /// Unablated logits by item and position.
    pub logits: Vec<Vec<Vec<f64>>>,
    /// Ablation → column → subset → item.
    pub scores: Vec<BTreeMap<String, Vec<Vec<f64>>>>,
    /// Ablation → subset that decodes → item → tokens.
    pub decoded: Vec<Vec<Vec<Vec<u32>>>>,
    /// Side → what a batch gives whose sequences are padded there; of tiny models.
    pub padded: BTreeMap<String, Padded>,
}

/// What one padded batch gives.
#[derive(Debug, Deserialize)]
pub struct Padded {
    /// Unablated logits by item and position.
    pub logits: Vec<Vec<Vec<f64>>>,
    /// By zero: column → subset of at most one head, in the order of the question → item.
    pub zero: BTreeMap<String, Vec<Vec<f64>>>,
}

/// Asks; tiny models are left in `folder`, under their names.
#[must_use]
pub fn ask(questions: &[Question], folder: &Path) -> Vec<Answer> {
    let each = |of: &dyn Fn(&Question) -> Value| -> Map<String, Value> {
        questions.iter().map(|q| (q.name.clone(), of(q))).collect()
    };
    let subsets = |q: &Question| -> Value {
        let head = |ix: &HeadIx| q.heads.head(*ix).map(|h| json!([h.stream.name(), h.layer, h.head]));
        q.subsets.iter().map(|s| s.iter().filter_map(head).collect::<Value>()).collect()
    };
    let limits = |q: &Question| -> Vec<usize> {
        q.prepared.items.iter().map(|i| i.decoded_at_most(q.context)).collect()
    };
    let job = json!({
        "models": each(&|q| json!(q.path)),
        "prepared": each(&|q| json!(q.prepared)),
        "ablations": each(&|q| json!(q.ablations)),
        "limits": each(&|q| json!(limits(q))),
        "decoded": each(&|q| json!(q.decoded)),
        "subsets": each(&subsets),
    });
    let question = folder.join("job.json");
    std::fs::write(&question, job.to_string()).expect("the job can be written");
    script("seq2seq.py", &[&question, folder]).expect("the reference runs");
    let read = |q: &Question| {
        let bytes = std::fs::read(folder.join(format!("{}.json", q.name))).expect("the reference answers");
        serde_json::from_slice(&bytes).expect("the answer has its form")
    };
    questions.iter().map(read).collect()
}

/// Items of a task as batches.
fn batches(prepared: &Prepared, items: &[Vec<u32>]) -> Vec<Batch> {
    items.iter().map(|b| batch(prepared, b)).collect()
}

/// A plan of single heads and pairs for each ablation, in f64.
#[must_use]
pub fn plan(
    info: &ModelInfo,
    prepared: &Prepared,
    metric: Metric,
    ablations: &[PlannedAblation],
    items: &[Vec<u32>],
) -> Plan {
    Plan {
        tasks: vec![PlannedTask { metric, ..task(prepared, batches(prepared, items)) }],
        ablations: ablations.to_vec(),
        references: vec![PlannedReference {
            prepared: String::new(),
            items: prepared.items.len() as u32,
            examples: 0,
            batches: batches(prepared, items),
        }],
        sweeps: (0..ablations.len() as u32)
            .flat_map(|a| [sweep(SweepKind::Single, a, 1, 7), sweep(SweepKind::Pairs, a, 1, 40)])
            .collect(),
        ..of_heads(info)
    }
}

/// What a lane is given: the items, and as their counterfactuals the same with each source backwards.
#[must_use]
pub fn given(prepared: &Prepared) -> Arc<Vec<Prepared>> {
    let backwards =
        |i: &Item| Item { tokens: i.tokens.iter().rev().copied().collect(), scored: Vec::new(), ..i.clone() };
    let reference = Prepared {
        items: prepared.items.iter().map(backwards).collect(),
        examples: Vec::new(),
        ..prepared.clone()
    };
    Arc::new(vec![prepared.clone(), reference])
}

/// Deviations of the unablated logits, number by number relative to max(1, |expected|), and of all together as one
/// vector, relative to its length.
///
/// # Panics
/// Where the model has no logits, or others than expected.
#[must_use]
pub fn logits(
    model: &Model,
    prepared: &Prepared,
    items: &[Vec<u32>],
    expected: &[Vec<Vec<f64>>],
) -> [Worst; 2] {
    let mut each = Worst::default();
    let (mut off, mut length) = (0.0, 0.0);
    for b in batches(prepared, items) {
        let device = DeviceBatch::new(model, prepared, &b);
        let len = device.final_tokens() as usize / b.items.len();
        let mut base = BaseSet::empty(model, 1);
        let x = model.finish(&base.state(model, 0, &device).0.x[model.blocks.len()]);
        let last = model.logits(&x).expect("an encoder-decoder has logits");
        for (row, &item) in b.items.iter().enumerate() {
            for (t, want) in expected[item as usize].iter().enumerate() {
                let got = host(&last.get((row * len + t) as i64));
                each.see_all(&got, want);
                off += got.iter().zip(want).map(|(g, w)| (g - w) * (g - w)).sum::<f64>();
                length += want.iter().map(|w| w * w).sum::<f64>();
            }
        }
    }
    let mut whole = Worst { cases: 1, ..Worst::default() };
    whole.see_off(off.sqrt(), length.sqrt());
    [each, whole]
}

/// The heads of units that are heads.
fn heads_of(units: &[UnitIx]) -> Vec<HeadIx> {
    units.iter().map(|u| HeadIx(u.0)).collect()
}

/// An engine beside the reference's answer.
#[derive(Debug)]
pub struct Compared<'a> {
    /// The engine, over the plan's only task.
    pub engine: Engine,
    /// The plan.
    pub plan: Arc<Plan>,
    /// What was asked.
    pub question: &'a Question,
    /// What was answered.
    pub answer: &'a Answer,
}

impl Compared<'_> {
    fn columns(&self) -> &'static [&'static str] {
        self.plan.tasks[0].columns()
    }

    /// |Δ − Δref| / max(1, |ℓ(∅)|) of every example for the subset at `at` of `got`, which is `asked`.
    fn deviation(
        &self,
        ablation: u32,
        asked: usize,
        got: &ChunkScores,
        at: usize,
        none: &ChunkScores,
    ) -> Worst {
        let reference = &self.answer.scores[ablation as usize];
        let mut worst = self.beside(reference, asked, got, at, none);
        worst.join(Worst { cases: 0, ..self.decoded(ablation, asked, got, at) });
        worst
    }

    /// [`Self::deviation`] from these scores, of which the first subset is the empty one.
    pub fn beside(
        &self,
        reference: &BTreeMap<String, Vec<Vec<f64>>>,
        asked: usize,
        got: &ChunkScores,
        at: usize,
        none: &ChunkScores,
    ) -> Worst {
        let mut worst = Worst { cases: 1, ..Worst::default() };
        for (c, name) in self.columns().iter().enumerate() {
            let Some(want) = reference.get(*name) else { continue };
            let (got, none) = (got.tasks[0].column(at, c), none.tasks[0].column(0, c));
            for e in 0..want[asked].len() {
                let scale = want[0][e].abs().max(1.0);
                worst.see_off((got[e] - none[e]) - (want[asked][e] - want[0][e]), scale);
                worst.see_off(none[e] - want[0][e], scale);
            }
        }
        worst
    }

    /// BLEU of what the reference decoded under a subset that decodes.
    pub fn bleu(&self, ablation: usize, place: usize) -> f64 {
        let each = self.answer.decoded[ablation][place].iter().enumerate();
        let counts: Vec<_> = each.map(|(e, tokens)| bleu::counts(tokens, &self.target(e))).collect();
        let columns: Vec<Vec<f64>> =
            (0..bleu::COUNTS).map(|c| counts.iter().map(|own| own[c]).collect()).collect();
        let columns: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
        bleu::weighted(&columns, counts.len(), |_| 1.0)
    }

    /// An item's target without the token that ends it.
    fn target(&self, item: usize) -> Vec<u32> {
        let item = &self.question.prepared.items[item];
        let mut target: Vec<u32> = item.scored.iter().map(|s| s.target).collect();
        target.pop_if(|last| *last == END);
        target
    }

    /// 0 where the n-gram counts of what the subset decodes are the reference's, or it wasn't asked to decode.
    fn decoded(&self, ablation: u32, asked: usize, got: &ChunkScores, at: usize) -> Worst {
        let mut worst = Worst::default();
        let Some(place) = self.question.decoded.iter().position(|&d| d == asked) else { return worst };
        for (e, hypothesis) in self.answer.decoded[ablation as usize][place].iter().enumerate() {
            for (c, want) in bleu::counts(hypothesis, &self.target(e)).into_iter().enumerate() {
                worst.see_off(got.tasks[0].column(at, c + 2)[e] - want, 1.0);
            }
        }
        worst
    }

    /// Scores of sets of heads on top of a base set.
    ///
    /// # Panics
    /// Where the engine fails.
    pub fn run(&mut self, ablation: u32, base: &[HeadIx], more: &[Vec<HeadIx>]) -> ChunkScores {
        let heads = &self.question.heads;
        let keep = match self.plan.ablations[ablation as usize].method {
            Ablation::Scale { scale } => scale,
            _ => 0.0,
        };
        let interventions: Vec<Intervention> = more
            .iter()
            .map(|set| {
                let mut stages: BTreeMap<usize, Vec<Cut>> = BTreeMap::new();
                for head in set.iter().filter_map(|&ix| heads.head(ix)) {
                    stages.entry(heads.stage_of(head)).or_default().push(Cut { head: head.head, keep });
                }
                Intervention { stages: stages.into_iter().collect() }
            })
            .collect();
        let stop = AtomicBool::new(false);
        self.engine
            .run_interventions(ablation, base, &interventions, &[0], Scope::All, &stop)
            .expect("the engine runs")
    }

    fn asked(&self, subset: &[HeadIx]) -> Option<usize> {
        self.question.subsets.iter().position(|s| s == subset)
    }

    /// Every single head and every pair that was asked, through the sweeps, chunk by chunk.
    ///
    /// # Panics
    /// Where the engine fails, or one that was asked isn't in any sweep.
    pub fn sweeps(&mut self) -> Worst {
        let stop = AtomicBool::new(false);
        let plan = Arc::clone(&self.plan);
        let (mut worst, mut seen) = (Worst::default(), BTreeSet::new());
        for sweep in 0..plan.sweeps.len() as u32 {
            let ablation = plan.sweeps[sweep as usize].ablation;
            let none = self.run(ablation, &[], &[Vec::new()]);
            let space = plan.space(sweep, &[]);
            for chunk in 0..plan.round_chunks(sweep, 0) {
                let ranks = plan.chunk_ranks(sweep, 0, chunk);
                let asked: Vec<Option<usize>> =
                    ranks.map(|r| space.subset(r).and_then(|s| self.asked(&heads_of(&s)))).collect();
                if asked.iter().all(Option::is_none) {
                    continue;
                }
                let scores = self.engine.run(sweep, 0, &[], chunk, &stop).expect("the engine runs");
                for (i, asked) in asked.into_iter().enumerate() {
                    let Some(asked) = asked else { continue };
                    seen.insert((ablation, asked));
                    worst.join(self.deviation(ablation, asked, &scores, i, &none));
                }
            }
        }
        let small = self.question.subsets.iter().filter(|s| matches!(s.len(), 1 | 2)).count();
        assert_eq!(seen.len(), plan.ablations.len() * small, "every single head and asked pair was compared");
        worst
    }

    /// Everything removed, and sets on top of base sets, for each ablation.
    ///
    /// # Panics
    /// Where the engine fails, or a union wasn't asked.
    pub fn based(&mut self, sets: &[(Vec<HeadIx>, Vec<Vec<HeadIx>>)]) -> Worst {
        let all: Vec<HeadIx> = (0..self.question.heads.len() as u32).map(HeadIx).collect();
        let mut worst = self.on_bases(&[(Vec::new(), vec![all])]);
        worst.join(self.on_bases(sets));
        worst
    }

    /// Every single head by zero beside what a batch padded on a side gives: `at` is zero's place among the ablations.
    ///
    /// # Panics
    /// Where the engine fails.
    pub fn padded(&mut self, at: u32, side: &str) -> Worst {
        let alone = self.question.subsets.iter().filter(|s| s.len() < 2).cloned().collect::<Vec<_>>();
        let (none, got) = (self.run(at, &[], &[Vec::new()]), self.run(at, &[], &alone));
        let reference = &self.answer.padded[side].zero;
        let mut worst = Worst::default();
        (0..alone.len()).for_each(|i| worst.join(self.beside(reference, i, &got, i, &none)));
        worst
    }

    /// Nothing removed, and sets on top of base sets, for each ablation.
    ///
    /// # Panics
    /// Where the engine fails, or a union wasn't asked.
    pub fn on_bases(&mut self, sets: &[(Vec<HeadIx>, Vec<Vec<HeadIx>>)]) -> Worst {
        let mut worst = Worst::default();
        for ablation in 0..self.plan.ablations.len() as u32 {
            let none = self.run(ablation, &[], &[Vec::new()]);
            worst.join(self.deviation(ablation, 0, &none, 0, &none));
            for (base, more) in sets {
                let got = self.run(ablation, base, more);
                for (i, set) in more.iter().enumerate() {
                    let mut union = [base.as_slice(), set].concat();
                    union.sort_unstable();
                    let asked = self.asked(&union).expect("the union was asked");
                    worst.join(self.deviation(ablation, asked, &got, i, &none));
                }
            }
        }
        worst
    }
}
