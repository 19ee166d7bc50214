//! Chunks of gradient sweeps: zᵀ ∂ℓ/∂z and (ẑ − z)ᵀ ∂ℓ/∂z of every unit and row, see [`ablate_common::gradient`]. One
//! forward and one backward pass over each batch give them for all heads.

use super::backward::Backward;
use super::base::DeviceBatch;
use super::classify;
use super::loss::{Given, top, toward_pearson};
use super::model::Model;
use super::replace::Replacement;
use super::score::host;
use super::walk::Unablated;
use super::{Engine, Error};
use ablate_common::gradient::{COLUMNS, by_item};
use ablate_common::head::{Head, HeadIx};
use ablate_common::scores::{ChunkScores, TaskScores};
use ablate_common::task::{Prepared, Scope, TaskKind};
use ablate_common::units::UnitIx;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tch::{Kind, Tensor};

/// Sums by unit, column and item.
struct Sums {
    /// For each head of the model the places of its units in the chunk.
    units: Vec<Vec<usize>>,
    items: usize,
    values: Vec<f64>,
    /// Choices: negative log-likelihood of each item.
    nll: Vec<f64>,
}

impl Sums {
    /// Adds a column of one stage's heads, `[batch, heads]`.
    fn add(&mut self, heads: &[HeadIx], batch: &DeviceBatch, column: usize, values: &[f64]) {
        for (row, &item) in values.chunks_exact(heads.len()).zip(&batch.items) {
            for (head, value) in heads.iter().zip(row) {
                for &unit in self.units.get(head.at()).into_iter().flatten() {
                    self.values[(unit * COLUMNS.len() + column) * self.items + item as usize] += value;
                }
            }
        }
    }
}

impl Engine {
    /// The scores of `units` of a gradient sweep.
    pub(super) fn run_gradient(
        &mut self,
        sweep: u32,
        units: &[UnitIx],
        stop: &AtomicBool,
    ) -> Result<ChunkScores, Error> {
        let tasks = self.plan.sweeps[sweep as usize].tasks.clone();
        let mut blocks = Vec::with_capacity(tasks.len());
        for task in tasks {
            blocks.push(self.gradient_task(sweep, task, units, stop)?);
        }
        Ok(ChunkScores { subsets: units.len() as u32, tasks: blocks })
    }

    fn gradient_task(
        &mut self,
        sweep: u32,
        task: u32,
        units: &[UnitIx],
        stop: &AtomicBool,
    ) -> Result<TaskScores, Error> {
        let (ablation, scope) = {
            let planned = &self.plan.sweeps[sweep as usize];
            (planned.ablation, planned.scope)
        };
        self.prepare_probe(task, stop)?;
        let prepared = Arc::clone(&self.prepared);
        let data = &prepared[task as usize];
        let toward = self.toward(task, scope, data);
        let keep = self.keep(ablation);
        let heads = self.plan.heads().clone();
        let mut sums = Sums {
            units: self.places(sweep, units),
            items: data.items.len(),
            values: vec![0.0; units.len() * COLUMNS.len() * data.items.len()],
            nll: vec![f64::NAN; data.items.len()],
        };
        let mut walk = self.walk(task, scope, Some(ablation));
        let model = walk.model;
        let given = Given { prepared: data, probe: walk.probe, toward: toward.as_ref() };
        while let Some(Unablated { batch, base, views, replacement, .. }) = walk.next_batch() {
            let begins = top(model, batch, given, &base.x[model.blocks.len()]);
            for (&item, nll) in batch.items.iter().zip(begins.losses) {
                sums.nll[item as usize] = nll;
            }
            let see = |stage: usize, gradient: &Tensor| {
                let place = heads.stage(stage);
                let own: Vec<HeadIx> = (0..model.info.n_heads)
                    .filter_map(|head| heads.index(Head { stream: place.stream, layer: place.layer, head }))
                    .collect();
                let columns = products(model, batch, stage, &base.z[stage], gradient, replacement, keep);
                for (column, values) in columns.into_iter().enumerate() {
                    sums.add(&own, batch, column, &values);
                }
            };
            let backward = Backward { model, batch, base, views };
            backward.run(begins.gradient, see, stop).map_err(|_| Error::Stopped)?;
        }
        Ok(block(task, data, scope, &self.plan.rows(sweep, data), &sums))
    }

    /// Similarity: ∂ℓ/∂e of every text's embedding.
    fn toward(&mut self, task: u32, scope: Scope, data: &Prepared) -> Option<Tensor> {
        if data.kind != TaskKind::Similarity {
            return None;
        }
        let mut walk = self.walk(task, scope, None);
        let model = walk.model;
        let shape = [data.items.len() as i64, model.d_model()];
        let embedded = Tensor::zeros(shape, (Kind::Double, model.device));
        while let Some(Unablated { batch, base, .. }) = walk.next_batch() {
            let last = base.x[model.blocks.len()].view([1, batch.final_tokens(), model.d_model()]);
            let own = classify::embeddings(model, batch, &model.finish(&batch.at_scored(last)));
            let items = model.indices(&batch.items.iter().map(|&i| i64::from(i)).collect::<Vec<_>>());
            let _ = embedded.shallow_clone().index_copy_(0, &items, &own.squeeze_dim(0));
        }
        Some(toward_pearson(model, data, &data.examples_in(scope), &embedded).1)
    }
}

/// zᵀ g and (ẑ − z)ᵀ g of each item and head of a stage, `[batch, heads]`, in f64; `z` and `gradient`
/// are `[batch · len, heads · head_dim]`.
fn products(
    model: &Model,
    batch: &DeviceBatch,
    stage: usize,
    z: &Tensor,
    gradient: &Tensor,
    replacement: Option<&Replacement>,
    keep: f64,
) -> [Vec<f64>; 2] {
    let (h, dh) = (i64::from(model.info.n_heads), model.head_dim());
    let len = batch.len_at(model.info.heads.stage(stage).stream);
    let wide = |t: &Tensor| t.to_kind(Kind::Double).view([-1, h, dh]);
    let (z, gradient) = (wide(z), wide(gradient));
    let by_item = |t: &Tensor| {
        let each = (t * &gradient).view([-1, len, h, dh]);
        host(&each.sum_dim_intlist([1i64, 3].as_slice(), false, None::<Kind>))
    };
    let whole = by_item(&z);
    let change: Vec<f64> = match replacement {
        // z − b, so far.
        Some(b) => {
            let heads = model.indices(&(0..h).collect::<Vec<_>>());
            by_item(&b.subtract(stage, z, &heads, len))
        }
        None => whole.clone(),
    };
    [whole, change.into_iter().map(|c| (keep - 1.0) * c).collect()]
}

/// From sums by item to scores by row.
fn block(task: u32, prepared: &Prepared, scope: Scope, rows: &[u32], sums: &Sums) -> TaskScores {
    let mut values = Vec::with_capacity(sums.values.len() / sums.items.max(1) * rows.len());
    // What each row is the sum of: (item, factor).
    let parts: Vec<Vec<(u32, f64)>> = if by_item(prepared.kind) {
        let texts = prepared.items_in(scope).len() as f64;
        rows.iter().map(|&item| vec![(item, texts)]).collect()
    } else {
        rows.iter()
            .map(|&e| {
                let example = &prepared.examples[e as usize];
                if prepared.kind == TaskKind::NextTokenChoice {
                    choice(example.a..=example.b, example.gold as usize, &sums.nll)
                } else {
                    vec![(example.a, 1.0)]
                }
            })
            .collect()
    };
    for column in sums.values.chunks_exact(sums.items.max(1)) {
        let row = |own: &Vec<(u32, f64)>| own.iter().map(|&(item, c)| c * column[item as usize]).sum::<f64>();
        values.extend(parts.iter().map(row));
    }
    TaskScores { task, examples: rows.len() as u32, columns: COLUMNS.len() as u32, values }
}

/// ∂ℓ/∂nll of each continuation, ℓ = −log of the right one's share.
pub(super) fn choice(items: std::ops::RangeInclusive<u32>, right: usize, nll: &[f64]) -> Vec<(u32, f64)> {
    let logs: Vec<f64> = items.clone().map(|i| -nll[i as usize]).collect();
    let max = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = logs.iter().map(|l| (l - max).exp()).sum();
    let share = |l: f64| (l - max).exp() / total;
    items.zip(logs).enumerate().map(|(k, (i, l))| (i, f64::from(u8::from(k == right)) - share(l))).collect()
}
