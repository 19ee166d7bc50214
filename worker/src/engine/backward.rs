//! The way back: from the gradient at the final states to that at every head's z, stage by stage. Each stage is computed once
//! more from its residual stream, which the base state has, so that only one stage's graph is in memory, and of a long batch only
//! some items of it. Neither depends on the machine.

use super::base::{BaseState, DeviceBatch};
use super::model::{AttnView, Model};
use super::pass::Stopped;
use ablate_common::head::Stream;
use std::sync::atomic::{AtomicBool, Ordering};
use tch::{Kind, Tensor};

/// Bytes of one attention's scores in a graph: decides how many items go back together.
const SCORE_BYTES: i64 = ablate_common::memory::GRAPH_SCORE_BYTES as i64;

/// What goes back.
#[derive(Debug)]
pub struct Backward<'a> {
    /// The model.
    pub model: &'a Model,
    /// The batch.
    pub batch: &'a DeviceBatch,
    /// Its unablated state.
    pub base: &'a BaseState,
    /// All heads of every stage.
    pub views: &'a [AttnView],
}

/// Gradients at a stage's inputs, and at its z.
struct Stage {
    x: Tensor,
    z: Tensor,
    memory: Option<Tensor>,
}

impl Backward<'_> {
    /// Goes back from `gradient`, at the residual stream after the last stage `[batch · len, d_model]`, and shows `see` every
    /// stage with ∂ℓ/∂z there, `[batch · len, heads · head_dim]`, the last first.
    ///
    /// # Errors
    /// Where `stop` was set meanwhile.
    pub fn run(
        &self,
        gradient: Tensor,
        see: impl FnMut(usize, &Tensor),
        stop: &AtomicBool,
    ) -> Result<(), Stopped> {
        self.run_to(0, gradient, see, stop).map(drop)
    }

    /// ∂ℓ/∂out of a stage's attention at `out`, `[batch · len, d_model]`, with what comes behind it as in the base state.
    ///
    /// # Errors
    /// Where `stop` was set meanwhile.
    pub fn to_output(
        &self,
        gradient: Tensor,
        stage: usize,
        out: &Tensor,
        stop: &AtomicBool,
    ) -> Result<Tensor, Stopped> {
        let model = self.model;
        let last = model.info.heads.decoder_stage() == Some(stage + 1);
        let (behind, memory) = self.run_to(stage + 1, gradient, |_, _| {}, stop)?;
        let upstream = if last { memory.unwrap_or(behind) } else { behind };
        let x = &self.base.x[stage];
        let (rows, step) = (x.size()[0], model.slice().max(1));
        let mut parts = Vec::new();
        let mut at = 0;
        while at < rows {
            let some = step.min(rows - at);
            let part = |t: &Tensor| t.narrow(0, at, some);
            parts.push(tch::with_grad(|| {
                let out = part(out).detach().set_requires_grad(true);
                let next = model.after_attention(stage, &part(x), &out);
                let next = if last { model.memory(&next) } else { next };
                let wide = if model.kind == Kind::Double { Kind::Double } else { Kind::Float };
                let sum = (next * part(&upstream)).sum(wide);
                Tensor::run_backward(&[sum], &[&out], false, false).swap_remove(0)
            }));
            at += some;
        }
        Ok(Tensor::cat(&parts, 0))
    }

    /// Back through the stages from the last to `first`; gives the gradient at the residual stream before it, and what has come
    /// together at the encoder's memory where that is still to be used.
    fn run_to(
        &self,
        first: usize,
        gradient: Tensor,
        mut see: impl FnMut(usize, &Tensor),
        stop: &AtomicBool,
    ) -> Result<(Tensor, Option<Tensor>), Stopped> {
        let decoder = self.model.info.heads.decoder_stage();
        let (mut upstream, mut memory) = (gradient, None::<Tensor>);
        for stage in (first..self.model.blocks.len()).rev() {
            if stop.load(Ordering::Relaxed) {
                return Err(Stopped);
            }
            if decoder == Some(stage + 1)
                && let Some(memory) = memory.take()
            {
                // What the decoder begins with are embeddings; the encoder is behind its memory.
                upstream = memory;
            }
            let back = self.stage(stage, &upstream, decoder == Some(stage + 1));
            see(stage, &back.z);
            upstream = back.x;
            memory = match (memory, back.memory) {
                (Some(so_far), Some(more)) => Some(so_far + more),
                (so_far, more) => so_far.or(more),
            };
        }
        Ok((upstream, memory))
    }

    /// Back through one stage; `last` of the encoder, whose end is the memory.
    fn stage(&self, stage: usize, upstream: &Tensor, last: bool) -> Stage {
        let (model, batch) = (self.model, self.batch);
        let stream = model.info.heads.stage(stage).stream;
        let (items, len) = (batch.items.len() as i64, batch.len_at(stream));
        let keys = if stream == Stream::Cross { batch.len } else { len };
        let each = i64::from(model.info.n_heads) * len * keys * model.kind.elt_size_in_bytes() as i64;
        // No more than attention takes in one slice: of several, z wouldn't be what the output was made of.
        let most = (self.model.slice() / len.max(1)).min(items);
        let group = (SCORE_BYTES / each.max(1)).clamp(1, most.max(1));
        let (mut x, mut z, mut memory) = (Vec::new(), Vec::new(), Vec::new());
        let mut from = 0;
        while from < items {
            let some = group.min(items - from);
            let mut back = self.group(stage, upstream, last, [from, some]);
            memory.extend((back.len() > 2).then(|| back.remove(2)));
            z.push(back.remove(1));
            x.push(back.remove(0));
            from += some;
        }
        let all = |parts: &[Tensor]| Tensor::cat(parts, 0);
        Stage { x: all(&x), z: all(&z), memory: (!memory.is_empty()).then(|| all(&memory)) }
    }

    /// Gradients at x, z and, where the stage reads it, the memory, of `some` items `from` one on.
    fn group(&self, stage: usize, upstream: &Tensor, last: bool, [from, some]: [i64; 2]) -> Vec<Tensor> {
        let (model, batch, view) = (self.model, self.batch, &self.views[stage]);
        let stream = model.info.heads.stage(stage).stream;
        let len = batch.len_at(stream);
        let part = |t: &Tensor, len: i64| t.narrow(0, from * len, some * len);
        let leaf = |t: &Tensor, len: i64| part(t, len).detach().set_requires_grad(true);
        let mask = batch.mask.as_ref().filter(|_| stream != Stream::Decoder);
        let mask = mask.map(|m| m.narrow(0, from, some));
        tch::with_grad(|| {
            let x = leaf(&self.base.x[stage], len);
            let memory = self.base.memory.as_ref().filter(|_| stream == Stream::Cross);
            let memory = memory.map(|m| leaf(m, batch.len));
            let (z, out) = match &memory {
                Some(memory) => {
                    let keys = model.keys(view, memory, batch.len);
                    model.cross_attention(stage, view, &x, len, &keys, mask.as_ref())
                }
                None => model.attention(stage, view, &x, len, mask.as_ref()),
            };
            let next = model.after_attention(stage, &x, &out);
            let next = if last { model.memory(&next) } else { next };
            let wide = if model.kind == Kind::Double { Kind::Double } else { Kind::Float };
            let sum = (next * part(upstream, len)).sum(wide);
            let inputs: Vec<&Tensor> = [&x, &z].into_iter().chain(&memory).collect();
            Tensor::run_backward(&[sum], &inputs, false, false)
        })
    }
}
