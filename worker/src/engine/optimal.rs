//! Chunks of fits: the constant of each head that an optimal ablation puts in place of its z, see [`ablate_common::fit`].
//!
//! With one head gone and b in its place, everything before its stage is the unablated state, and of its own stage only what
//! follows the attention is computed again: out − (z − b) W_O. The way back ends at that stage's attention output g, and
//! ∂ℓ/∂b is the sum of g W_Oᵀ over the tokens.

use super::backward::Backward;
use super::base::{BaseSet, BaseState, DeviceBatch};
use super::classify;
use super::gradient::choice;
use super::loss::{Given, top, toward_pearson};
use super::model::{AttnView, Model};
use super::replace::{Means, Replacement};
use super::score::host;
use super::{Engine, Error, room, state_bytes};
use ablate_common::fit::{self, Adam, Fitted};
use ablate_common::gradient;
use ablate_common::head::{Head, HeadIx};
use ablate_common::plan::{Ablation, Batch, Pool};
use ablate_common::scores::{ChunkScores, TaskScores};
use ablate_common::task::{Prepared, Scope, TaskKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tch::{Kind, Tensor};

/// What constants of a task are fitted on.
struct Data<'a> {
    model: &'a Model,
    given: Given<'a>,
    batches: Vec<DeviceBatch>,
    /// Unablated states, as far as memory holds them.
    states: BaseSet,
    room: u64,
    stop: &'a AtomicBool,
}

/// One head and what is the same whatever its constant is.
struct Place<'a> {
    stage: usize,
    /// Its part of W_O: `[head_dim, d_model]`.
    wo: &'a Tensor,
    head: i64,
}

impl Engine {
    /// The constants of `heads`, of every task of a fit.
    pub(super) fn run_fit(
        &mut self,
        sweep: u32,
        heads: &[HeadIx],
        stop: &AtomicBool,
    ) -> Result<ChunkScores, Error> {
        let planned = &self.plan.sweeps[sweep as usize];
        let (ablation, tasks) = (planned.ablation, planned.tasks.clone());
        let Ablation::Optimal { steps, rate } = self.plan.ablations[ablation as usize].method else {
            return Err(Error::Failed("a fit of an ablation that has no constants".to_owned()));
        };
        let mut blocks = Vec::with_capacity(tasks.len());
        for task in tasks {
            self.prepare_probe(task, stop)?;
            let prepared = Arc::clone(&self.prepared);
            let (data, batches): (&Prepared, &[Batch]) = match self.source(task, ablation).reference {
                Some(r) => {
                    (&prepared[self.plan.tasks.len() + r as usize], &self.plan.references[r as usize].batches)
                }
                None => (&prepared[task as usize], self.plan.tasks[task as usize].batches(Scope::All)),
            };
            let shared = Arc::clone(&self.model);
            let model = &shared.0;
            let batches: Vec<DeviceBatch> =
                batches.iter().map(|b| DeviceBatch::new(model, data, b)).collect();
            let mut data = Data {
                model,
                given: Given { prepared: data, probe: self.probes.get(&task), toward: None },
                states: BaseSet::empty(model, batches.len()),
                room: room(self.room, model, &batches, false),
                batches,
                stop,
            };
            let mut values = Vec::new();
            let means = data.means()?;
            let nothing = data.seen(None)?.loss;
            for &ix in heads {
                let head = self.plan.heads().head(ix);
                let head = head.ok_or_else(|| Error::Failed(format!("the plan has no head {ix:?}")))?;
                values.extend(
                    data.fit(self.plan.heads().stage_of(head), head, &means, nothing, (steps, rate))?.rows(),
                );
            }
            let examples = fit::rows(model.info.head_dim);
            blocks.push(TaskScores { task, examples, columns: fit::COLUMNS.len() as u32, values });
        }
        Ok(ChunkScores { subsets: heads.len() as u32, tasks: blocks })
    }
}

/// Of one stage: means of z, `[heads, head_dim]`, and the root mean square of each head's, `[heads]`.
type Size = (Vec<f64>, Vec<f64>);

/// ℓ of some constant, with ∂ℓ/∂b where it was asked for.
struct Seen {
    loss: f64,
    gradient: Vec<f64>,
}

/// A constant, where it goes, and whether its gradient is wanted.
type Asked<'a> = (&'a Place<'a>, &'a [f64], bool);

impl Data<'_> {
    fn go_on(&self) -> Result<(), Error> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) }
    }

    /// Shows the unablated state of every batch.
    fn each(
        &mut self,
        mut see: impl FnMut(&DeviceBatch, &BaseState, &[AttnView]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut held = 0;
        for (at, batch) in self.batches.iter().enumerate() {
            let (state, views) = self.states.state(self.model, at, batch);
            see(batch, state, views)?;
            held += state_bytes(self.model, batch);
            if held > self.room {
                self.states.forget(at);
            }
        }
        Ok(())
    }

    /// Means of z over the tokens, in f64, and the root mean square of each head's z: by stage `[heads, head_dim]`, `[heads]`.
    fn means(&mut self) -> Result<Vec<Size>, Error> {
        let model = self.model;
        let (h, dh) = (i64::from(model.info.n_heads), model.head_dim());
        let mut means = Means::new(model, Pool::Tokens, &self.batches);
        let mut squares = vec![(vec![0.0; h as usize], 0.0); model.blocks.len()];
        self.each(|batch, state, _| {
            means.add(state, batch);
            for (stage, (z, (sums, tokens))) in state.z.iter().zip(&mut squares).enumerate() {
                let real = batch.real_at(model.info.heads.stage(stage).stream);
                let square = z.to_kind(Kind::Double).square() * real.reshape([-1, 1]);
                let by_head =
                    square.view([-1, h, dh]).sum_dim_intlist([0i64, 2].as_slice(), false, None::<Kind>);
                sums.iter_mut().zip(host(&by_head)).for_each(|(s, x)| *s += x);
                *tokens += real.sum(Kind::Double).double_value(&[]);
            }
            Ok(())
        })?;
        let Replacement::Constant(means) = means.finish(model) else {
            return Err(Error::Failed("means over tokens are constants".to_owned()));
        };
        let size = |(sums, tokens): (Vec<f64>, f64)| {
            let one = |s: f64| (s / (tokens.max(1.0) * dh as f64)).sqrt();
            sums.into_iter().map(one).collect()
        };
        Ok(means.iter().map(|m| host(&m.to_kind(Kind::Double))).zip(squares.into_iter().map(size)).collect())
    }

    fn fit(
        &mut self,
        stage: usize,
        head: Head,
        means: &[Size],
        nothing: f64,
        (steps, rate): (u32, f64),
    ) -> Result<Fitted, Error> {
        let (model, width, at) = (self.model, self.model.head_dim() as usize, head.head as usize);
        let wo = model.blocks[stage].wo_heads.get(i64::from(head.head));
        let place = Place { stage, wo: &wo, head: i64::from(head.head) };
        let (mean, size) = &means[stage];
        let mut constant = mean[at * width..(at + 1) * width].to_vec();
        // A head that says nothing has no size of its own.
        let unit = if size[at] > 0.0 { size[at] } else { 1.0 };
        let mut adam = Adam::new(width, rate * unit);
        let mut best =
            Fitted { nothing, mean: f64::NAN, fitted: f64::INFINITY, step: 0, constant: constant.clone() };
        for step in 0..=steps {
            let seen = self.seen(Some((&place, &constant, step < steps)))?;
            if step == 0 {
                (best.mean, best.fitted) = (seen.loss, seen.loss);
            }
            if seen.loss < best.fitted {
                best = Fitted { fitted: seen.loss, step, constant: constant.clone(), ..best };
            }
            if step < steps {
                adam.step(&mut constant, &seen.gradient);
            }
        }
        Ok(best)
    }

    /// ℓ over all examples, with a constant in place of a head's z or with nothing removed.
    fn seen(&mut self, asked: Option<Asked<'_>>) -> Result<Seen, Error> {
        self.go_on()?;
        let (model, given) = (self.model, self.given);
        let prepared = given.prepared;
        if prepared.kind == TaskKind::Similarity {
            return self.similarity(asked);
        }
        let mut losses = vec![0.0; prepared.items.len()];
        let mut parts = vec![Vec::new(); prepared.items.len()];
        let stop = self.stop;
        self.each(|batch, base, views| {
            let own = asked.map(|a| a.0.with(model, batch, base, views, a.1));
            let state = own.as_ref().map_or(base, |o| &o.0);
            let begins = top(model, batch, given, &state.x[model.blocks.len()]);
            batch.items.iter().zip(&begins.losses).for_each(|(&i, &l)| losses[i as usize] = l);
            if let (Some((place, _, true)), Some(own)) = (asked, &own) {
                let gradients = place.back(model, batch, own, views, begins.gradient, stop)?;
                for (&item, row) in batch.items.iter().zip(gradients.chunks_exact(model.head_dim() as usize))
                {
                    parts[item as usize] = row.to_vec();
                }
            }
            Ok(())
        })?;
        let (weights, _) = gradient::weights(prepared, Scope::All);
        let whole: f64 = weights.iter().sum();
        let (mut loss, mut sum) = (0.0, vec![0.0; model.head_dim() as usize]);
        for example in prepared.examples_in(Scope::All) {
            let example = &prepared.examples[example as usize];
            // What its loss is the sum of: (item, factor).
            let of = if prepared.kind == TaskKind::NextTokenChoice {
                let right = example.a + example.gold as u32;
                let log = |i: u32| -losses[i as usize];
                let max = (example.a..=example.b).map(log).fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = (example.a..=example.b).map(|i| (log(i) - max).exp()).sum();
                loss += max + total.ln() - log(right);
                choice(example.a..=example.b, example.gold as usize, &losses)
            } else {
                loss += losses[example.a as usize];
                vec![(example.a, 1.0)]
            };
            for (item, factor) in of {
                sum.iter_mut().zip(&parts[item as usize]).for_each(|(s, g)| *s += factor * g);
            }
        }
        sum.iter_mut().for_each(|s| *s /= whole);
        Ok(Seen { loss: loss / whole, gradient: sum })
    }

    /// −Pearson of all pairs: every text's embedding first, then the way back from them.
    fn similarity(&mut self, asked: Option<Asked<'_>>) -> Result<Seen, Error> {
        let (model, given, stop) = (self.model, self.given, self.stop);
        let prepared = given.prepared;
        let shape = [prepared.items.len() as i64, model.d_model()];
        let embedded = Tensor::zeros(shape, (Kind::Double, model.device));
        self.each(|batch, base, views| {
            let own = asked.map(|a| a.0.with(model, batch, base, views, a.1));
            let state = own.as_ref().map_or(base, |o| &o.0);
            let last = state.x[model.blocks.len()].view([1, batch.final_tokens(), model.d_model()]);
            let e = classify::embeddings(model, batch, &model.finish(&batch.at_scored(last)));
            let items = model.indices(&batch.items.iter().map(|&i| i64::from(i)).collect::<Vec<_>>());
            let _ = embedded.shallow_clone().index_copy_(0, &items, &e.squeeze_dim(0));
            Ok(())
        })?;
        let examples = prepared.examples_in(Scope::All);
        let (loss, toward) = toward_pearson(model, prepared, &examples, &embedded);
        let mut sum = vec![0.0; model.head_dim() as usize];
        if let Some((place, constant, true)) = asked {
            let given = Given { toward: Some(&toward), ..given };
            self.each(|batch, base, views| {
                let own = place.with(model, batch, base, views, constant);
                let begins = top(model, batch, given, &own.0.x[model.blocks.len()]);
                let all = place.back(model, batch, &own, views, begins.gradient, stop)?;
                for row in all.chunks_exact(sum.len().max(1)) {
                    sum.iter_mut().zip(row).for_each(|(s, g)| *s += g);
                }
                Ok(())
            })?;
        }
        Ok(Seen { loss, gradient: sum })
    }
}

impl Place<'_> {
    /// The state with `constant` in place of the head's z, and its attention's output.
    fn with(
        &self,
        model: &Model,
        batch: &DeviceBatch,
        base: &BaseState,
        views: &[AttnView],
        constant: &[f64],
    ) -> (BaseState, Tensor) {
        let dh = model.head_dim();
        let z = base.z[self.stage].narrow(1, self.head * dh, dh);
        let b = Tensor::from_slice(constant).to_kind(model.kind).to_device(model.device);
        let out = &base.out[self.stage] - (z - b).matmul(self.wo);
        (base.behind(model, views, batch, self.stage, &out), out)
    }

    /// ∂ℓ/∂b of each item, `[batch · head_dim]`, from that at the end of the last stage.
    fn back(
        &self,
        model: &Model,
        batch: &DeviceBatch,
        (state, out): &(BaseState, Tensor),
        views: &[AttnView],
        gradient: Tensor,
        stop: &AtomicBool,
    ) -> Result<Vec<f64>, Error> {
        let backward = Backward { model, batch, base: state, views };
        let g = backward.to_output(gradient, self.stage, out, stop).map_err(|_| Error::Stopped)?;
        let len = batch.len_at(model.info.heads.stage(self.stage).stream);
        let by_item = g.to_kind(Kind::Double).view([-1, len, model.d_model()]);
        let by_item = by_item.sum_dim_intlist([1i64].as_slice(), false, None::<Kind>);
        Ok(host(&by_item.matmul(&self.wo.to_kind(Kind::Double).transpose(0, 1))))
    }
}
