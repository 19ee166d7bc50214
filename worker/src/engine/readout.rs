//! From final states to numbers of the distribution over tokens. Logits exist only for scored positions,
//! and only for a block of positions and of the vocabulary at once: small enough on a CPU to be read again
//! from its cache, because several readings of all logits from memory take longer than their product.

use super::base::DeviceBatch;
use super::model::Model;
use tch::{Device, Kind, Tensor};

/// Logits held at once, in bytes.
pub(super) const LOGIT_BYTES: i64 = 96 << 20;

/// On a CPU: positions and tokens of a block.
const CPU_BLOCK: (i64, i64) = (512, 1024);

/// What is summed over an item's scored tokens, per row and scored position (`rows · scored`).
#[derive(Debug, Default)]
pub struct Tokens {
    /// Negative log-likelihood of the target.
    pub nll: Vec<f64>,
    /// 1 where the target has the highest logit.
    pub correct: Vec<f64>,
    /// KL of the distribution from the unablated one; empty unless asked for.
    pub kl: Vec<f64>,
}

/// Logits `[n, vocab]` of states `x [n, width]` before the unembedding, in f32 at least.
pub(super) fn logits(model: &Model, (weight, bias): (&Tensor, Option<&Tensor>), x: &Tensor) -> Tensor {
    let wide = if model.kind == Kind::Double { Kind::Double } else { Kind::Float };
    model.cap_logits(x.linear(weight, bias).to_kind(wide))
}

/// The unembedding and its bias: of the next token, or for encoders of masked tokens.
pub(super) fn unembedding(model: &Model) -> Option<(&Tensor, Option<&Tensor>)> {
    match &model.masked {
        Some(head) => Some((&head.decoder, Some(&head.bias))),
        None => model.unembed.as_ref().map(|weight| (weight, model.unembed_bias())),
    }
}

/// What a reading of all logits gives for each of n positions, in f32 at least.
struct Reading {
    /// Logits of the tokens asked for: `[n, asked]`.
    asked: Tensor,
    /// Highest logit: `[n, 1]`.
    max: Tensor,
    /// log Σ exp of the logits: `[n, 1]`.
    total: Tensor,
}

/// Reads the logits of states `x [n, width]` block by block; `asked [n, k]` are token ids.
fn read(model: &Model, (weight, bias): (&Tensor, Option<&Tensor>), x: &Tensor, asked: &Tensor) -> Reading {
    let (n, vocab) = (x.size()[0], weight.size()[0]);
    let (rows, columns) = match model.device {
        Device::Cpu => CPU_BLOCK,
        _ => ((LOGIT_BYTES / (vocab * 4)).max(1), vocab),
    };
    let mut parts = [Vec::new(), Vec::new(), Vec::new()];
    let mut at = 0;
    while at < n {
        let m = rows.min(n - at);
        let (x, asked) = (x.narrow(0, at, m), asked.narrow(0, at, m));
        // Of the blocks read: the logits asked for, the highest, and Σ exp of the logits less the highest.
        let mut so_far: Option<(Tensor, Tensor, Tensor)> = None;
        let mut from = 0;
        while from < vocab {
            let wide = columns.min(vocab - from);
            let bias = bias.map(|b| b.narrow(0, from, wide));
            let logits = logits(model, (&weight.narrow(0, from, wide), bias.as_ref()), &x);
            let local = &asked - from;
            let hit = logits.gather(1, &local.clamp(0, wide - 1), false);
            let highest = logits.amax([1i64].as_slice(), true);
            let max = match &so_far {
                Some((_, max, _)) => max.maximum(&highest),
                None => highest,
            };
            let sum = (logits - &max).exp_().sum_dim_intlist([1i64].as_slice(), true, None::<Kind>);
            let (asked, sum) = match so_far {
                Some((earlier, lower, part)) => {
                    let here = local.ge(0).logical_and(&local.lt(wide));
                    (hit.where_self(&here, &earlier), part * (lower - &max).exp_() + sum)
                }
                None => (hit, sum),
            };
            so_far = Some((asked, max, sum));
            from += wide;
        }
        if let Some((asked, max, sum)) = so_far {
            let total = sum.log() + &max;
            parts.iter_mut().zip([asked, total, max]).for_each(|(part, t)| part.push(t));
        }
        at += m;
    }
    let [asked, total, max] = parts.map(|p| Tensor::cat(&p, 0));
    Reading { asked, max, total }
}

/// Negative log-likelihood of the targets, and whether they have the highest logit, for
/// `x [rows, scored, width]`.
pub fn cross_entropy(model: &Model, batch: &DeviceBatch, x: &Tensor) -> Tokens {
    let Some(unembed) = unembedding(model) else { return Tokens::default() };
    let (rows, scored) = (x.size()[0], x.size()[1]);
    let targets = batch.targets.unsqueeze(0).expand([rows, scored], false).reshape([-1, 1]);
    let read = read(model, unembed, &x.flatten(0, 1), &targets);
    Tokens {
        nll: host(&(&read.total - &read.asked)),
        correct: host(&read.asked.ge_tensor(&read.max)),
        kl: Vec::new(),
    }
}

/// Weighted sum of the probabilities of [`DeviceBatch::weighed`], per row and scored position.
pub fn probabilities(model: &Model, batch: &DeviceBatch, x: &Tensor) -> Vec<f64> {
    let (Some(unembed), Some((tokens, weights))) = (unembedding(model), &batch.weighed) else {
        return Vec::new();
    };
    let (rows, most) = (x.size()[0], tokens.size()[1]);
    let each = |t: &Tensor| t.unsqueeze(0).expand([rows, -1, -1], false).reshape([-1, most]);
    let read = read(model, unembed, &x.flatten(0, 1), &each(tokens));
    let p = (read.asked - read.total).to_kind(Kind::Double).exp();
    host(&(p * each(weights)).sum_dim_intlist([1i64].as_slice(), false, None::<Kind>))
}

/// [`cross_entropy`] with the divergence from the unablated states `unablated [scored, width]`.
///
/// Both distributions come from products of the same shape over freshly laid out rows, so that equal states
/// give equal bits and a divergence of exactly 0. They are normalised and summed in f64: a small divergence is
/// the difference of large logarithms.
pub fn divergence(model: &Model, batch: &DeviceBatch, x: &Tensor, unablated: &Tensor) -> Tokens {
    let Some(unembed) = unembedding(model) else { return Tokens::default() };
    let (rows, scored) = (x.size()[0], x.size()[1]);
    // Two f64 distributions and their temporaries.
    let step = (LOGIT_BYTES / (unembed.0.size()[0] * 16)).max(1);
    let slice = |x: &Tensor, at, m| logits(model, unembed, &x.narrow(0, at, m).copy()).to_kind(Kind::Double);
    let mut out = Tokens::default();
    for column in [&mut out.nll, &mut out.correct, &mut out.kl] {
        column.resize((rows * scored) as usize, 0.0);
    }
    let mut at = 0;
    while at < scored {
        let m = step.min(scored - at);
        let target = batch.targets.narrow(0, at, m).unsqueeze(1);
        let first = slice(unablated, at, m).log_softmax(-1, None::<Kind>);
        let weight = first.exp();
        for row in 0..rows {
            let logits = slice(&x.get(row), at, m);
            let hit = logits.gather(1, &target, false).squeeze_dim(1);
            let correct = hit.ge_tensor(&logits.amax([1i64].as_slice(), false));
            let other = logits.log_softmax(-1, None::<Kind>);
            let nll = -other.gather(1, &target, false).squeeze_dim(1);
            let kl = ((&first - other) * &weight).sum_dim_intlist([1i64].as_slice(), false, None::<Kind>);
            let to = (row * scored + at) as usize..(row * scored + at + m) as usize;
            out.nll[to.clone()].copy_from_slice(&host(&nll));
            out.correct[to.clone()].copy_from_slice(&host(&correct));
            out.kl[to].copy_from_slice(&host(&kl));
        }
        at += m;
    }
    out
}

/// Values on the host, in f64, row-major.
#[must_use]
pub fn host(t: &Tensor) -> Vec<f64> {
    let t = t.to_kind(Kind::Double).to_device(Device::Cpu).contiguous().view(-1);
    let mut values = vec![0.0; t.numel()];
    let n = values.len();
    t.copy_data(&mut values, n);
    values
}
