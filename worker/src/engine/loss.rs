//! ℓ as a function of the final states, and its gradient there: what a backward pass begins with.
//! [`ablate_common::gradient::loss`] says what ℓ is.

use super::base::DeviceBatch;
use super::classify::{self, FittedProbe};
use super::model::Model;
use super::readout::{LOGIT_BYTES, host, logits, unembedding};
use ablate_common::task::{Prepared, TaskKind};
use tch::{Kind, Tensor};

/// Where a backward pass begins.
#[derive(Debug)]
pub struct Top {
    /// ∂ℓ/∂x of the residual stream after the last stage, summed over the items of the batch, which don't touch each
    /// other: `[batch · len, d_model]`.
    pub gradient: Tensor,
    /// Of each item the sum of what was differentiated: ℓ; of choices, whose ℓ is that of several items, the negative
    /// log-likelihood; nothing of use for similarity, whose ℓ is that of all.
    pub losses: Vec<f64>,
}

/// What ℓ needs beside the final states.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// The task.
    pub prepared: &'a Prepared,
    /// Its probe, where it has one.
    pub probe: Option<&'a FittedProbe>,
    /// Similarity: ∂ℓ/∂e of each item's embedding, f64 `[items, d_model]`.
    pub toward: Option<&'a Tensor>,
}

/// Begins a backward pass at the unablated residual stream `x [batch · len, d_model]` after the last stage.
#[must_use]
pub fn top(model: &Model, batch: &DeviceBatch, given: Given<'_>, x: &Tensor) -> Top {
    let x = match &batch.scored {
        Some(rows) => x.index_select(0, rows),
        None => x.shallow_clone(),
    };
    let n = x.size()[0];
    // Logits at once, their f64 softmax and its gradient; a text's embedding is of all its tokens.
    let step = match unembedding(model).filter(|_| by_position(given.prepared.kind)) {
        Some((weight, _)) => (LOGIT_BYTES / (weight.size()[0] * 16)).max(1),
        None => n,
    };
    let (mut parts, mut nll) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < n {
        let m = step.min(n - at);
        let (values, gradient) = tch::with_grad(|| {
            let x = x.narrow(0, at, m).detach().set_requires_grad(true);
            let values = losses(model, batch, given, &x.unsqueeze(0), at);
            let sum = values.sum(Kind::Double);
            (values.detach(), Tensor::run_backward(&[sum], &[&x], false, false).swap_remove(0))
        });
        parts.push(gradient);
        nll.push(values);
        at += m;
    }
    let gradient = Tensor::cat(&parts, 0);
    let losses = match given.prepared.kind {
        TaskKind::Similarity => vec![0.0; batch.items.len()],
        TaskKind::Classification => host(&Tensor::cat(&nll, 0)),
        _ => by_item(batch, &host(&Tensor::cat(&nll, 0))),
    };
    let gradient = match &batch.scored {
        Some(rows) => {
            let all = Tensor::zeros([batch.final_tokens(), model.d_model()], (model.kind, model.device));
            all.index_copy(0, rows, &gradient)
        }
        None => gradient,
    };
    Top { gradient, losses }
}

/// Whether ℓ is a sum over scored positions that each need logits of the vocabulary.
fn by_position(kind: TaskKind) -> bool {
    !matches!(kind, TaskKind::Similarity | TaskKind::Classification)
}

/// ℓ of each scored position (from `at` on) or item, from residual streams `x [1, n, d_model]`.
fn losses(model: &Model, batch: &DeviceBatch, given: Given<'_>, x: &Tensor, at: i64) -> Tensor {
    let x = model.finish(x);
    let (n, kind) = (x.size()[1], given.prepared.kind);
    match kind {
        TaskKind::Similarity => {
            let embedded = classify::embeddings(model, batch, &x).squeeze_dim(0);
            match given.toward {
                Some(toward) => embedded * toward.index_select(0, &items(model, batch)),
                None => embedded * 0.0,
            }
        }
        TaskKind::Classification => {
            // Example k is item k.
            let gold = |&item: &u32| given.prepared.examples.get(item as usize).map_or(0, |e| e.gold as i64);
            let gold = model.indices(&batch.items.iter().map(gold).collect::<Vec<_>>());
            match classify::logits(model, batch, &x, given.probe) {
                Some(all) => nll(&all.squeeze_dim(0), &gold),
                None => x * 0.0,
            }
        }
        TaskKind::Ioi | TaskKind::LogitDifference => {
            let Some(weight) = &model.unembed else { return x * 0.0 };
            let rows = |t: &Tensor| weight.index_select(0, &t.narrow(0, at, n)).to_kind(Kind::Double);
            let x = x.squeeze_dim(0).to_kind(Kind::Double);
            let logit = |t: &Tensor| {
                let product = (&x * rows(t)).sum_dim_intlist([1i64].as_slice(), false, None::<Kind>);
                model.cap_logits(product)
            };
            logit(&batch.foils) - logit(&batch.targets)
        }
        _ => {
            let x = match &model.masked {
                Some(head) if kind == TaskKind::MaskedLm => head.transform(model, &x),
                _ => x,
            };
            let Some(unembed) = unembedding(model) else { return x * 0.0 };
            let all = logits(model, unembed, &x.squeeze_dim(0)).to_kind(Kind::Double);
            match &batch.weighed {
                Some((tokens, weights)) => {
                    let p = all.softmax(-1, Kind::Double).gather(1, &tokens.narrow(0, at, n), false);
                    -(p * weights.narrow(0, at, n)).sum_dim_intlist([1i64].as_slice(), false, None::<Kind>)
                }
                None => nll(&all, &batch.targets.narrow(0, at, n)),
            }
        }
    }
}

/// Negative log-likelihood of `right [n]` by logits `[n, ..]`.
fn nll(logits: &Tensor, right: &Tensor) -> Tensor {
    -logits.log_softmax(-1, Kind::Double).gather(1, &right.unsqueeze(1), false).squeeze_dim(1)
}

/// Place of the batch's items among all.
fn items(model: &Model, batch: &DeviceBatch) -> Tensor {
    model.indices(&batch.items.iter().map(|&i| i64::from(i)).collect::<Vec<_>>())
}

/// Sums of the scored positions' values by item of the batch.
fn by_item(batch: &DeviceBatch, values: &[f64]) -> Vec<f64> {
    let mut sums = vec![0.0; batch.items.len()];
    batch.owner.iter().zip(values).for_each(|(&owner, value)| sums[owner] += value);
    sums
}

/// ∂ℓ/∂e, ℓ = −Pearson's correlation of the pairs' cosines with their scores, for embeddings `e [items, d_model]` in f64
/// and the examples `keep`: ℓ, and `[items, d_model]`.
pub fn toward_pearson(model: &Model, prepared: &Prepared, keep: &[u32], embedded: &Tensor) -> (f64, Tensor) {
    let of = |pick: fn(&ablate_common::task::Example) -> u32| {
        let at = keep.iter().map(|&e| i64::from(pick(&prepared.examples[e as usize])));
        model.indices(&at.collect::<Vec<_>>())
    };
    let gold: Vec<f64> = keep.iter().map(|&e| prepared.examples[e as usize].gold).collect();
    let gold = Tensor::from_slice(&gold).to_device(model.device);
    tch::with_grad(|| {
        let e = embedded.detach().set_requires_grad(true);
        // Texts of other halves have no embedding, and none of the pairs.
        let (a, b) = (e.index_select(0, &of(|e| e.a)), e.index_select(0, &of(|e| e.b)));
        let dot = |x: &Tensor, y: &Tensor| (x * y).sum_dim_intlist([-1i64].as_slice(), false, None::<Kind>);
        let cosine = dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt();
        let centred = |t: &Tensor| t - t.mean(Kind::Double);
        let (c, g) = (centred(&cosine), centred(&gold));
        let loss = -dot(&c, &g) / (dot(&c, &c) * dot(&g, &g)).sqrt();
        let value = loss.double_value(&[]);
        (value, Tensor::run_backward(&[loss], &[&e], false, false).swap_remove(0))
    })
}
