//! Chunks of shift sweeps: norms of the residual stream at every point of the forward pass, see [`ablate_common::shift`].

use super::base::{BaseSet, BaseState, DeviceBatch};
use super::model::Model;
use super::pass::Pass;
use super::score::host;
use super::trie::{Intervention, Trie};
use super::walk::Unablated;
use super::{Engine, Error};
use ablate_common::head::{HeadMap, Stream};
use ablate_common::scores::{ChunkScores, TaskScores};
use ablate_common::shift::{COLUMNS, behind, points};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use tch::{Kind, Tensor};

/// Sums of norms by subset and point, with the largest ratio of an item.
struct Norms {
    points: Vec<(Stream, u32)>,
    /// Σ ‖x‖₂ by subset and point, then Σ of the unablated model by point.
    sums: Vec<f64>,
    unablated: Vec<f64>,
    largest: Vec<f64>,
    tokens: Vec<f64>,
}

impl Norms {
    fn new(heads: &HeadMap, subsets: usize) -> Self {
        let points = points(heads);
        let n = points.len();
        Self {
            sums: vec![0.0; subsets * n],
            unablated: vec![0.0; n],
            largest: vec![f64::NEG_INFINITY; subsets * n],
            tokens: vec![0.0; n],
            points,
        }
    }

    /// Adds a batch: `own` has for subsets that differ at a point each item's Σ ‖x‖₂, all others have the unablated one's.
    fn add(&mut self, batch: &DeviceBatch, unablated: &[Vec<f64>], own: &BTreeMap<(usize, usize), Vec<f64>>) {
        let n = self.points.len();
        for (point, base) in unablated.iter().enumerate() {
            let (stream, _) = self.points[point];
            self.tokens[point] += f64::try_from(batch.real_at(stream).sum(Kind::Double)).unwrap_or(f64::NAN);
            self.unablated[point] += base.iter().sum::<f64>();
            for subset in 0..self.sums.len() / n {
                let norms = own.get(&(subset, point)).unwrap_or(base);
                let at = subset * n + point;
                self.sums[at] += norms.iter().sum::<f64>();
                // Both of as many tokens; what isn't a number stays one.
                for ratio in norms.iter().zip(base).map(|(own, base)| own / base) {
                    if ratio.is_nan() || ratio > self.largest[at] {
                        self.largest[at] = ratio;
                    }
                }
            }
        }
    }
}

impl Engine {
    /// The norms under some interventions.
    pub(super) fn run_shift(
        &mut self,
        sweep: u32,
        interventions: &[Intervention],
        stop: &AtomicBool,
    ) -> Result<ChunkScores, Error> {
        let planned = &self.plan.sweeps[sweep as usize];
        let (ablation, tasks) = (planned.ablation, planned.tasks.clone());
        let mut known: BTreeMap<u32, TaskScores> = BTreeMap::new();
        let mut blocks = Vec::with_capacity(tasks.len());
        for task in tasks {
            // Tasks that show the model the same have the same norms.
            let first = self.sharing.first_under(&self.plan, ablation, task);
            let block = match known.get(&first) {
                Some(block) => TaskScores { task, ..block.clone() },
                None => self.shift_task(sweep, task, interventions, stop)?,
            };
            known.entry(first).or_insert_with(|| block.clone());
            blocks.push(block);
        }
        Ok(ChunkScores { subsets: interventions.len() as u32, tasks: blocks })
    }

    fn shift_task(
        &mut self,
        sweep: u32,
        task: u32,
        interventions: &[Intervention],
        stop: &AtomicBool,
    ) -> Result<TaskScores, Error> {
        let (ablation, scope) = {
            let planned = &self.plan.sweeps[sweep as usize];
            (planned.ablation, planned.scope)
        };
        let reference = self.source(task, ablation).reference.map(|r| self.reference_norms(r));
        let mut walk = self.walk(task, scope, Some(ablation));
        let model = walk.model;
        let trie = Trie::new(interventions);
        let through = through(&trie, interventions.len());
        let mut norms = Norms::new(&model.info.heads, interventions.len());
        while let Some(Unablated { batch, base, views, replacement, passes }) = walk.next_batch() {
            // All positions, whichever are scored.
            let batch = &batch.unscored();
            let unablated = of_base(model, batch, base);
            let mut own = BTreeMap::new();
            let pass = Pass { model, batch, base, views, replacement };
            *passes += 1;
            let see = |stage: usize, nodes: &[usize], x: &Tensor| {
                let point = behind(&model.info.heads, stage);
                for (row, node) in nodes.iter().enumerate() {
                    let sums = by_item(batch, model.info.heads.stage(stage).stream, &x.get(row as i64));
                    for &subset in through[*node].iter().filter(|t| t.1 > stage).map(|t| &t.0) {
                        own.insert((subset, point), sums.clone());
                    }
                }
            };
            pass.run_seen(&trie, stop, see).map_err(|_| Error::Stopped)?;
            norms.add(batch, &unablated, &own);
        }
        Ok(block(task, interventions.len(), &norms, reference.as_deref()))
    }

    /// Mean norms of the unablated model over a reference set, by point: once per experiment.
    fn reference_norms(&mut self, reference: u32) -> Vec<f64> {
        if let Some(known) = self.reference_norms.get(&reference) {
            return known.clone();
        }
        let model = &self.model.0;
        let items = &self.prepared[self.plan.tasks.len() + reference as usize];
        let mut norms = Norms::new(&model.info.heads, 0);
        for planned in &self.plan.references[reference as usize].batches {
            let batch = DeviceBatch::new(model, items, planned);
            let mut set = BaseSet::empty(model, 1);
            let (base, _) = set.state(model, 0, &batch);
            norms.add(&batch, &of_base(model, &batch, base), &BTreeMap::new());
        }
        let means: Vec<f64> = norms.unablated.iter().zip(&norms.tokens).map(|(sum, n)| sum / n).collect();
        self.reference_norms.insert(reference, means.clone());
        means
    }
}

/// Σ ‖x‖₂ of each item's tokens, for a residual stream `x [batch · len, d_model]`.
fn by_item(batch: &DeviceBatch, stream: Stream, x: &Tensor) -> Vec<f64> {
    let norms = x.linalg_norm(2.0, [-1i64].as_slice(), false, Kind::Double);
    let real = batch.real_at(stream);
    host(&(norms.view([-1, batch.len_at(stream)]) * real).sum_dim_intlist(
        [1i64].as_slice(),
        false,
        None::<Kind>,
    ))
}

/// The same at every point of the unablated model.
fn of_base(model: &Model, batch: &DeviceBatch, base: &BaseState) -> Vec<Vec<f64>> {
    let heads = &model.info.heads;
    let stages = model.blocks.len();
    let mut out = Vec::new();
    for stage in 0..stages {
        out.push(by_item(batch, heads.stage(stage).stream, &base.x[stage]));
        if heads.decoder_stage() == Some(stage + 1) {
            // The encoder's end: the next stream that is kept is the decoder's.
            let end = model.after_attention(stage, &base.x[stage], &base.out[stage]);
            out.push(by_item(batch, heads.stage(stage).stream, &end));
        }
    }
    let last = stages.checked_sub(1).map_or(Stream::SelfAttention, |s| heads.stage(s).stream);
    out.push(by_item(batch, last, &base.x[stages]));
    out
}

/// For each node the subsets that go through its rows, each with the stage at which it leaves them for a child's.
fn through(trie: &Trie, subsets: usize) -> Vec<Vec<(usize, usize)>> {
    let mut out = vec![Vec::new(); trie.nodes.len()];
    for (at, node) in trie.nodes.iter().enumerate() {
        for &subset in node.ends.iter().filter(|&&s| s < subsets) {
            let (mut next, mut until) = (Some(at), usize::MAX);
            while let Some(own) = next {
                out[own].push((subset, until));
                until = trie.nodes[own].stage;
                next = trie.nodes[own].parent;
            }
        }
    }
    out
}

/// From sums to the means that are stored.
fn block(task: u32, subsets: usize, norms: &Norms, reference: Option<&[f64]>) -> TaskScores {
    let n = norms.points.len();
    let mean =
        |sums: &[f64]| -> Vec<f64> { sums.iter().zip(&norms.tokens).map(|(sum, n)| sum / n).collect() };
    let unablated = mean(&norms.unablated);
    let mut values = Vec::with_capacity(subsets * COLUMNS.len() * n);
    for subset in 0..subsets {
        let own = subset * n..(subset + 1) * n;
        values.extend(mean(&norms.sums[own.clone()]));
        values.extend(&unablated);
        values.extend(&norms.largest[own]);
        values.extend(reference.unwrap_or(&unablated));
    }
    TaskScores { task, examples: n as u32, columns: COLUMNS.len() as u32, values }
}
