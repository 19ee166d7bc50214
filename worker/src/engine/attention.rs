//! Chunks of attention sweeps: what the heads of the unablated model look at, see [`ablate_common::attention`]. Weights are computed
//! once more from the base states, stage by stage, the last first, as rollout's flow goes.

use super::attend::{hidden, weights};
use super::base::{BaseSet, BaseState, DeviceBatch};
use super::model::{AttnView, Model};
use super::score::host;
use super::walk::Unablated;
use super::{Engine, Error};
use ablate_common::attention::{COLUMNS, ROLLOUT, begins};
use ablate_common::head::{Head, HeadIx, Stream};
use ablate_common::plan::{Batch, Shown};
use ablate_common::scores::{ChunkScores, TaskScores};
use ablate_common::task::Item;
use ablate_common::units::UnitIx;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tch::{Kind, Tensor};

/// Bytes of one stage's weights: decides how many items are looked at together, whatever the machine.
const SCORE_BYTES: i64 = ablate_common::memory::GRAPH_SCORE_BYTES as i64;

/// A batch of the unablated model.
struct Seen<'a> {
    model: &'a Model,
    batch: &'a DeviceBatch,
    base: &'a BaseState,
    views: &'a [AttnView],
}

/// Flow that is still on its way, `[batch, len]` of the last stream, and what attention to an encoder has sent there.
struct Flow {
    here: Tensor,
    encoder: Option<Tensor>,
}

impl Engine {
    /// The scores of `units` of an attention sweep.
    pub(super) fn run_attention(
        &mut self,
        sweep: u32,
        units: &[UnitIx],
        stop: &AtomicBool,
    ) -> Result<ChunkScores, Error> {
        let tasks = self.plan.sweeps[sweep as usize].tasks.clone();
        let mut blocks = Vec::with_capacity(tasks.len());
        for task in tasks {
            blocks.push(self.attention_task(sweep, task, units, stop)?);
        }
        Ok(ChunkScores { subsets: units.len() as u32, tasks: blocks })
    }

    fn attention_task(
        &mut self,
        sweep: u32,
        task: u32,
        units: &[UnitIx],
        stop: &AtomicBool,
    ) -> Result<TaskScores, Error> {
        let scope = self.plan.sweeps[sweep as usize].scope;
        let prepared = Arc::clone(&self.prepared);
        let data = &prepared[task as usize];
        let heads = self.plan.heads().clone();
        let places = self.places(sweep, units);
        let n = data.items.len();
        let mut sums = vec![0.0; units.len() * COLUMNS.len() * n];
        let mut walk = self.walk(task, scope, None);
        let model = walk.model;
        while let Some(Unablated { batch, base, views, .. }) = walk.next_batch() {
            let seen = Seen { model, batch, base, views };
            let mut flow = seen.begin(&data.items);
            for stage in (0..model.blocks.len()).rev() {
                if stop.load(Ordering::Relaxed) {
                    return Err(Error::Stopped);
                }
                let columns = seen.stage(stage, &mut flow);
                let place = heads.stage(stage);
                let own: Vec<Option<HeadIx>> = (0..model.info.n_heads)
                    .map(|head| heads.index(Head { stream: place.stream, layer: place.layer, head }))
                    .collect();
                for (column, values) in columns.iter().enumerate() {
                    for (row, &item) in values.chunks_exact(own.len()).zip(&batch.items) {
                        for (head, value) in own.iter().zip(row) {
                            let Some(head) = head else { continue };
                            for &unit in places.get(head.at()).into_iter().flatten() {
                                sums[(unit * COLUMNS.len() + column) * n + item as usize] += value;
                            }
                        }
                    }
                }
            }
        }
        let rows = self.plan.rows(sweep, data);
        let mut values = Vec::with_capacity(units.len() * COLUMNS.len() * rows.len());
        for column in sums.chunks_exact(n.max(1)) {
            values.extend(rows.iter().map(|&item| column[item as usize]));
        }
        Ok(TaskScores { task, examples: rows.len() as u32, columns: COLUMNS.len() as u32, values })
    }

    /// For each head of the model the places of its units among `units` of a sweep.
    pub(super) fn places(&self, sweep: u32, units: &[UnitIx]) -> Vec<Vec<usize>> {
        let mut out = vec![Vec::new(); self.plan.heads().len()];
        for (at, &unit) in units.iter().enumerate() {
            for head in self.plan.units(sweep).heads_of(unit) {
                out[head.at()].push(at);
            }
        }
        out
    }

    /// The patterns of `items` of a sweep's one task, of some of its heads. Each item goes through the model alone.
    pub(super) fn run_patterns(
        &mut self,
        sweep: u32,
        items: &[Shown],
        units: &[UnitIx],
        stop: &AtomicBool,
    ) -> Result<ChunkScores, Error> {
        let wrong = |what: &str| Error::Failed(format!("patterns of sweep {sweep}: {what}"));
        let task = self.plan.sweeps[sweep as usize].tasks.first().copied();
        let task = task.ok_or_else(|| wrong("it has no task"))?;
        let (model, data) = (&self.model.0, &self.prepared[task as usize]);
        let heads = self.plan.heads();
        // By unit, then by item.
        let mut parts: Vec<Vec<f64>> = vec![Vec::new(); units.len()];
        for shown in items {
            let item = data.items.get(shown.item as usize).ok_or_else(|| wrong("an item is missing"))?;
            let batch = Batch { items: vec![shown.item], len: item.tokens.len() as u32 };
            let batch = DeviceBatch::new(model, data, &batch);
            let mut set = BaseSet::empty(model, 1);
            let (base, views) = set.state(model, 0, &batch);
            let seen = Seen { model, batch: &batch, base, views };
            let mut last: Option<(usize, Tensor)> = None;
            for (part, &unit) in parts.iter_mut().zip(units) {
                if stop.load(Ordering::Relaxed) {
                    return Err(Error::Stopped);
                }
                let head = self.plan.units(sweep).heads_of(unit).first().and_then(|&h| heads.head(h));
                let head = head.ok_or_else(|| wrong("a unit has no head"))?;
                let stage = heads.stage_of(head);
                // Heads come layer by layer.
                let (_, all) = match last.take() {
                    Some(known) if known.0 == stage => last.insert(known),
                    _ => last.insert((stage, seen.weights(stage, 0, 1))),
                };
                let cells = host(&all.get(0).get(i64::from(head.head)));
                if cells.len() != shown.queries.len() * shown.keys().len() {
                    return Err(wrong("the plan has other tokens than the data"));
                }
                part.extend(cells);
            }
        }
        let values = parts.concat();
        let rows = (values.len() / units.len().max(1)) as u32;
        let block = TaskScores { task, examples: rows, columns: 1, values };
        Ok(ChunkScores { subsets: units.len() as u32, tasks: vec![block] })
    }
}

impl Seen<'_> {
    /// The flow before it has gone through any stage.
    fn begin(&self, items: &[Item]) -> Flow {
        let len = self.batch.final_tokens() as usize / self.batch.items.len().max(1);
        let mut shares = vec![0.0; self.batch.items.len() * len];
        for (own, &item) in shares.chunks_exact_mut(len.max(1)).zip(&self.batch.items) {
            for (slot, share) in own.iter_mut().zip(begins(&items[item as usize])) {
                *slot = share;
            }
        }
        let here = Tensor::from_slice(&shares).view([-1, len as i64]).to_device(self.model.device);
        Flow { here, encoder: None }
    }

    /// Weights of `some` items of the batch from `from` on, at a stage: `[some, heads, len, keys]`, f64.
    fn weights(&self, stage: usize, from: i64, some: i64) -> Tensor {
        let (model, view, batch) = (self.model, &self.views[stage], self.batch);
        let stream = model.info.heads.stage(stage).stream;
        let len = batch.len_at(stream);
        let x = self.base.x[stage].narrow(0, from * len, some * len);
        let mask = batch.mask.as_ref().map(|m| m.narrow(0, from, some));
        let all = match &self.base.keys[stage] {
            Some(keys) => {
                let (dh, n) = (model.head_dim(), view.kept.len() as i64);
                let weight = view.qkv.narrow(0, 0, n * dh);
                let bias = view.qkv_bias.as_ref().map(|b| b.narrow(0, 0, n * dh));
                let q = model.before_attention(stage, &x).linear(&weight, bias.as_ref());
                let q = q.view([some, len, n, dh]).transpose(1, 2);
                weights(model, &q, &keys.k.narrow(0, from, some), mask.as_ref(), None)
            }
            None => {
                let [q, k, _] = model.by_head(stage, view, &x, len);
                let mask = mask.filter(|_| stream != Stream::Decoder);
                match model.relative_mask(stage, &view.kept, len, mask.as_ref()) {
                    Some(bias) => weights(model, &q, &k, Some(&bias), None),
                    None => {
                        let window = model.info.details.window(stage).map(i64::from).filter(|&w| w < len);
                        let band = model.causal(stage).then(|| hidden(model, len, window));
                        weights(model, &q, &k, mask.as_ref(), band.as_ref())
                    }
                }
            }
        };
        all.to_kind(Kind::Double)
    }

    /// The [`COLUMNS`] of a stage, each `[batch, heads]`; sends the flow on to the stage before.
    fn stage(&self, stage: usize, flow: &mut Flow) -> Vec<Vec<f64>> {
        let heads = &self.model.info.heads;
        let stream = heads.stage(stage).stream;
        if heads.decoder_stage() == Some(stage + 1)
            && let Some(sent) = flow.encoder.take()
        {
            flow.here = sent;
        }
        let (items, len) = (self.batch.items.len() as i64, self.batch.len_at(stream));
        let keys = if stream == Stream::Cross { self.batch.len } else { len };
        let each =
            i64::from(self.model.info.n_heads) * len * keys * self.model.kind.elt_size_in_bytes() as i64;
        let group = (SCORE_BYTES / each.max(1)).clamp(1, items.max(1));
        let (mut columns, mut here, mut sent) = (vec![Vec::new(); COLUMNS.len()], Vec::new(), Vec::new());
        let mut from = 0;
        while from < items {
            let some = group.min(items - from);
            let weights = self.weights(stage, from, some);
            let flowing = flow.here.narrow(0, from, some);
            for (all, part) in columns.iter_mut().zip(self.columns(stream, &weights, &flowing, from)) {
                all.extend(host(&part));
            }
            let mean = weights.mean_dim([1i64].as_slice(), false, None::<Kind>);
            let moved = flowing.unsqueeze(1).matmul(&mean).squeeze_dim(1) * 0.5;
            let stays = flowing * 0.5;
            if stream == Stream::Cross {
                here.push(stays);
                sent.push(moved);
            } else {
                here.push(stays + moved);
            }
            from += some;
        }
        flow.here = Tensor::cat(&here, 0);
        if !sent.is_empty() {
            let sent = Tensor::cat(&sent, 0);
            flow.encoder = Some(match flow.encoder.take() {
                Some(before) => before + sent,
                None => sent,
            });
        }
        columns
    }

    /// The columns of some items from `from` on, each `[some, heads]`, from their `weights [some, heads, len, keys]` and the flow
    /// `[some, len]` behind the stage.
    fn columns(&self, stream: Stream, weights: &Tensor, flow: &Tensor, from: i64) -> [Tensor; 7] {
        let some = weights.size()[0];
        let cross = stream == Stream::Cross;
        let real = self.batch.real_at(stream).narrow(0, from, some);
        let sum = |t: Tensor, of: &Tensor| {
            (t * of.unsqueeze(1)).sum_dim_intlist([-1i64].as_slice(), false, None::<Kind>)
        };
        let over_keys = |t: &Tensor| t.sum_dim_intlist([-1i64].as_slice(), false, None::<Kind>);
        // A weight of 0 has no part in the entropy.
        let logs = weights * weights.clamp_min(f64::MIN_POSITIVE).log();
        let later = if cross {
            real.shallow_clone()
        } else {
            let first = Tensor::zeros([some, 1], (Kind::Double, real.device()));
            Tensor::cat(&[first, real.narrow(1, 1, real.size()[1] - 1)], 1)
        };
        let confidence = sum(weights.amax([-1i64].as_slice(), false), &real);
        let entropy = sum(-over_keys(&logs), &real);
        let first = sum(weights.select(-1, 0), &later);
        let none = confidence.zeros_like();
        if cross {
            let rollout = sum(over_keys(weights), flow);
            let [a, b, c] = [(); 3].map(|()| none.shallow_clone());
            return [confidence, entropy, first, a, b, c, rollout / (2.0 * self.heads())];
        }
        let previous = weights.diagonal(-1, 2, 3);
        let previous = sum(previous, &later.narrow(1, 1, later.size()[1] - 1));
        let tokens = match (stream, &self.batch.decoder) {
            (Stream::Decoder, Some(target)) => &target.tokens,
            _ => &self.batch.tokens,
        };
        let tokens = tokens.narrow(0, from, some);
        let same = tokens.unsqueeze(2).eq_tensor(&tokens.unsqueeze(1)).tril(-1).to_kind(Kind::Double);
        let same = same * real.unsqueeze(2);
        let on = |where_: &Tensor| {
            (weights * where_.unsqueeze(1)).sum_dim_intlist([-2i64, -1].as_slice(), false, None::<Kind>)
        };
        let behind = Tensor::cat(
            &[
                Tensor::zeros([some, same.size()[1], 1], (Kind::Double, same.device())),
                same.narrow(2, 0, same.size()[2] - 1),
            ],
            2,
        );
        let moved = over_keys(weights) - weights.diagonal(0, 2, 3);
        let rollout = sum(moved, flow) / (2.0 * self.heads());
        [confidence, entropy, first, previous, on(&same), on(&behind), rollout]
    }

    fn heads(&self) -> f64 {
        f64::from(self.model.info.n_heads)
    }
}

const _: () = assert!(ROLLOUT + 1 == COLUMNS.len(), "rollout is the last column");
