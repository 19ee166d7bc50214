//! From final states to numbers of the distribution over tokens. Logits exist only for scored positions,
//! and only for a block of positions and of the vocabulary at once: small enough on a CPU to be read again
//! from its cache, because several readings of all logits from memory take longer than their product.

use super::base::DeviceBatch;
use super::fused;
use super::model::Model;
use tch::{Device, Kind, Tensor};

/// Logits held at once, in bytes.
pub(super) const LOGIT_BYTES: i64 = ablate_common::memory::LOGIT_BYTES as i64;

/// On a CPU: positions and tokens of a block.
const CPU_BLOCK: (i64, i64) = (512, 1024);

/// What is summed over an item's scored tokens, per row and scored position (`rows · scored`).
#[derive(Debug, Default)]
pub struct Tokens {
    /// Negative log-likelihood of the target.
    pub nll: Vec<f64>,
    /// 1 where the target is the likeliest token: the first of those with the highest logit.
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
    /// The first token that has it: `[n, 1]`.
    first: Tensor,
    /// log Σ exp of the logits: `[n, 1]`.
    total: Tensor,
}

/// Whether tokens with logits `asked` are the likeliest, where `max` is the highest and `first` the first that has it. Not where
/// one isn't a number.
fn likeliest(target: &Tensor, asked: &Tensor, max: &Tensor, first: &Tensor) -> Tensor {
    asked.ge_tensor(max).logical_and(&first.eq_tensor(target))
}

/// What has been read of the logits of some positions, block by block.
struct Part {
    /// See [`Reading`].
    asked: Tensor,
    max: Tensor,
    first: Tensor,
    /// Σ exp of the logits less the highest: `[m, 1]`.
    sum: Tensor,
}

impl Part {
    /// Reads the next `logits [m, wide]`, of the tokens from `from` on; `asked [m, k]` are token ids.
    fn read(so_far: Option<Self>, logits: Tensor, asked: &Tensor, from: i64) -> Self {
        let wide = logits.size()[1];
        let local = asked - from;
        let hit = logits.gather(1, &local.clamp(0, wide - 1), false);
        // Of equal ones libtorch gives the first.
        let (highest, place) = logits.max_dim(1, true);
        let place = place + from;
        let (max, first) = match &so_far {
            Some(before) => {
                let above = highest.gt_tensor(&before.max);
                (before.max.maximum(&highest), place.where_self(&above, &before.first))
            }
            None => (highest, place),
        };
        let sum = (logits - &max).exp_().sum_dim_intlist([1i64].as_slice(), true, None::<Kind>);
        match so_far {
            Some(before) => {
                let here = local.ge(0).logical_and(&local.lt(wide));
                Self {
                    asked: hit.where_self(&here, &before.asked),
                    sum: before.sum * (before.max - &max).exp_() + sum,
                    max,
                    first,
                }
            }
            None => Self { asked: hit, max, first, sum },
        }
    }
}

/// Reads the logits of states `x [n, width]` block by block; `asked [n, k]` are token ids.
fn read(model: &Model, (weight, bias): (&Tensor, Option<&Tensor>), x: &Tensor, asked: &Tensor) -> Reading {
    if let Some(read) = read_fused(model, (weight, bias), x, asked) {
        return read;
    }
    let (n, vocab) = (x.size()[0], weight.size()[0]);
    let (rows, columns) = match model.device {
        Device::Cpu => CPU_BLOCK,
        _ => ((LOGIT_BYTES / (vocab * 4)).max(1), vocab),
    };
    let mut parts = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    let mut at = 0;
    while at < n {
        let m = rows.min(n - at);
        let (x, asked) = (x.narrow(0, at, m), asked.narrow(0, at, m));
        let mut so_far: Option<Part> = None;
        let mut from = 0;
        while from < vocab {
            let wide = columns.min(vocab - from);
            let bias = bias.map(|b| b.narrow(0, from, wide));
            let logits = logits(model, (&weight.narrow(0, from, wide), bias.as_ref()), &x);
            so_far = Some(Part::read(so_far, logits, &asked, from));
            from += wide;
        }
        if let Some(Part { asked, max, first, sum }) = so_far {
            let total = sum.log() + &max;
            parts.iter_mut().zip([asked, max, first, total]).for_each(|(part, t)| part.push(t));
        }
        at += m;
    }
    let [asked, max, first, total] = parts.map(|p| Tensor::cat(&p, 0));
    Reading { asked, max, first, total }
}

/// [`read`] on a CPU in f32 or bf16, each logit read once: in the cache that its product left it in.
fn read_fused(
    model: &Model,
    (weight, bias): (&Tensor, Option<&Tensor>),
    x: &Tensor,
    asked: &Tensor,
) -> Option<Reading> {
    let half = model.kind == Kind::BFloat16;
    let ordinary = (model.kind == Kind::Float || half) && model.info.details.logit_softcap.is_none();
    if model.device != Device::Cpu || !ordinary || x.requires_grad() || x.numel() == 0 {
        return None;
    }
    let (n, vocab) = (x.size()[0], weight.size()[0]);
    let mut so_far = vec![fused::Read::NONE; n as usize];
    let tokens: Vec<i64> = Vec::try_from(&asked.reshape(-1)).ok()?;
    let mut found = vec![0f32; tokens.len()];
    let each = tokens.len() / n as usize;
    let (rows, columns) = CPU_BLOCK;
    let mut at = 0;
    while at < n {
        let m = rows.min(n - at);
        let x = x.narrow(0, at, m);
        let here = at as usize..(at + m) as usize;
        let own = here.start * each..here.end * each;
        let mut from = 0;
        while from < vocab {
            let wide = columns.min(vocab - from);
            let bias = bias.map(|b| b.narrow(0, from, wide));
            let logits = x.linear(&weight.narrow(0, from, wide), bias.as_ref());
            let (tokens, found) = (&tokens[own.clone()], &mut found[own.clone()]);
            fused::logits(&logits, &mut so_far[here.clone()], &mut fused::Wanted { tokens, from, found })?;
            from += wide;
        }
        at += m;
    }
    let column = |of: fn(&fused::Read) -> f32| {
        Tensor::from_slice(&so_far.iter().map(of).collect::<Vec<_>>()).unsqueeze(1)
    };
    let first: Vec<i64> = so_far.iter().map(|r| r.first).collect();
    Some(Reading {
        asked: Tensor::from_slice(&found).view(asked.size().as_slice()),
        max: column(|r| r.max),
        first: Tensor::from_slice(&first).unsqueeze(1),
        total: column(|r| r.max + r.sum.ln()),
    })
}

/// Negative log-likelihood of the targets, and whether they are the likeliest tokens, for
/// `x [rows, scored, width]`.
pub fn cross_entropy(model: &Model, batch: &DeviceBatch, x: &Tensor) -> Tokens {
    let Some(unembed) = unembedding(model) else { return Tokens::default() };
    let (rows, scored) = (x.size()[0], x.size()[1]);
    let targets = batch.targets.unsqueeze(0).expand([rows, scored], false).reshape([-1, 1]);
    let read = read(model, unembed, &x.flatten(0, 1), &targets);
    Tokens {
        nll: host(&(&read.total - &read.asked)),
        correct: host(&likeliest(&targets, &read.asked, &read.max, &read.first)),
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

/// [`cross_entropy`] with the divergence from the unablated states `unablated [scored, width]`, of final states that a
/// masked-LM head has yet to transform.
///
/// The unablated positions are rows of the same products. Both distributions are normalised and summed in f64: a
/// small divergence is the difference of large logarithms. States that are equal have a divergence of exactly 0.
pub fn divergence(model: &Model, batch: &DeviceBatch, x: &Tensor, unablated: &Tensor) -> Tokens {
    let Some((weight, bias)) = unembedding(model) else { return Tokens::default() };
    let (rows, scored, vocab) = (x.size()[0], x.size()[1], weight.size()[0]);
    if x.numel() == 0 {
        return Tokens::default();
    }
    let (block, columns) = match model.device {
        Device::Cpu => CPU_BLOCK,
        // Logits in f64, and their temporaries.
        _ => ((LOGIT_BYTES / (vocab * 32)).max(1), vocab),
    };
    let step = (block / (rows + 1)).max(1);
    let mut parts = [Vec::new(), Vec::new(), Vec::new()];
    let mut at = 0;
    while at < scored {
        let m = step.min(scored - at);
        let both = Tensor::cat(&[unablated.narrow(0, at, m).unsqueeze(0), x.narrow(1, at, m)], 0);
        // What is compared for equality is what comes before: a product may round equal rows differently.
        let states = match &model.masked {
            Some(head) => head.transform(model, &both),
            None => both.shallow_clone(),
        };
        let states = states.flatten(0, 1);
        let target = batch.targets.narrow(0, at, m).view([1, m, 1]).expand([rows, m, 1], false);
        let mut from = 0;
        let mut so_far: Option<Diverged> = None;
        while from < vocab {
            let wide = columns.min(vocab - from);
            let bias = bias.map(|b| b.narrow(0, from, wide));
            let logits = logits(model, (&weight.narrow(0, from, wide), bias.as_ref()), &states);
            let logits = logits.to_kind(Kind::Double).view([rows + 1, m, wide]);
            so_far = Some(Diverged::read(so_far, &logits, &target, from));
            from += wide;
        }
        if let Some(read) = so_far {
            let total = read.sum.log() + &read.max;
            let (first, others) = (total.narrow(0, 0, 1), total.narrow(0, 1, rows));
            let kl = read.apart / read.sum.narrow(0, 0, 1) - first + &others;
            let same = both.narrow(0, 1, rows).eq_tensor(&both.narrow(0, 0, 1)).all_dim(-1, true);
            let max = read.max.narrow(0, 1, rows);
            parts[0].push(&others - &read.asked);
            parts[1].push(likeliest(&target, &read.asked, &max, &read.first).to_kind(Kind::Double));
            parts[2].push(kl.masked_fill(&same, 0.0));
        }
        at += m;
    }
    let [nll, correct, kl] = parts.map(|p| host(&Tensor::cat(&p, 1)));
    Tokens { nll, correct, kl }
}

/// What has been read of the logits of unablated positions (row 0) and ablated ones (the others), in f64.
struct Diverged {
    /// Highest logit `[1 + rows, m, 1]`.
    max: Tensor,
    /// Σ exp of the logits less the highest `[1 + rows, m, 1]`.
    sum: Tensor,
    /// Σ exp(l₀ − max₀)(l₀ − l) of each row's logits l, l₀ unablated: `[rows, m, 1]`.
    apart: Tensor,
    /// Logits of the targets `[rows, m, 1]`.
    asked: Tensor,
    /// The first token with the highest logit `[rows, m, 1]`.
    first: Tensor,
}

impl Diverged {
    /// Reads the next `logits [1 + rows, m, wide]`, of the tokens from `from` on; `target [rows, m, 1]` are token ids.
    fn read(so_far: Option<Self>, logits: &Tensor, target: &Tensor, from: i64) -> Self {
        let (rows, wide) = (logits.size()[0] - 1, logits.size()[2]);
        let (unablated, others) = (logits.narrow(0, 0, 1), logits.narrow(0, 1, rows));
        let target = target - from;
        // As in `Part::read`.
        let (highest, place) = logits.max_dim(-1, true);
        let place = place.narrow(0, 1, rows) + from;
        let (max, first) = match &so_far {
            Some(before) => {
                let above = highest.gt_tensor(&before.max).narrow(0, 1, rows);
                (before.max.maximum(&highest), place.where_self(&above, &before.first))
            }
            None => (highest, place),
        };
        let each = (logits - &max).exp_();
        let sum = |t: &Tensor| t.sum_dim_intlist([-1i64].as_slice(), true, None::<Kind>);
        let apart = sum(&(unablated - &others).g_mul_(&each.narrow(0, 0, 1)));
        let (sum, hit) = (sum(&each), others.gather(2, &target.clamp(0, wide - 1), false));
        match so_far {
            None => Self { max, sum, apart, asked: hit, first },
            Some(before) => {
                let less = (before.max - &max).exp_();
                let here = target.ge(0).logical_and(&target.lt(wide));
                Self {
                    sum: before.sum * &less + sum,
                    apart: before.apart * less.narrow(0, 0, 1) + apart,
                    asked: hit.where_self(&here, &before.asked),
                    max,
                    first,
                }
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether each token is the likeliest of these logits, read in blocks of `columns`: alone, and beside unablated ones.
    fn likeliest_of(values: &[f64], columns: i64) -> [Vec<f64>; 2] {
        let n = values.len() as i64;
        let all = Tensor::from_slice(values).unsqueeze(0);
        let both = Tensor::stack(&[&all * 0.5, all.shallow_clone()], 0);
        let of = |token: i64| {
            let asked = Tensor::from_slice(&[token]).view([1, 1]);
            let (mut alone, mut beside) = (None, None);
            let mut from = 0;
            while from < n {
                let wide = columns.min(n - from);
                alone = Some(Part::read(alone, all.narrow(1, from, wide), &asked, from));
                let logits = both.narrow(2, from, wide);
                beside = Some(Diverged::read(beside, &logits, &asked.view([1, 1, 1]), from));
                from += wide;
            }
            let (alone, beside) = (alone.unwrap(), beside.unwrap());
            let alone = likeliest(&asked, &alone.asked, &alone.max, &alone.first);
            let max = beside.max.narrow(0, 1, 1);
            let beside = likeliest(&asked.view([1, 1, 1]), &beside.asked, &max, &beside.first);
            [host(&alone)[0], host(&beside)[0]]
        };
        let each: Vec<[f64; 2]> = (0..n).map(of).collect();
        [0, 1].map(|way| each.iter().map(|one| one[way]).collect())
    }

    #[test]
    fn of_equal_logits_only_the_first_is_the_likeliest_wherever_blocks_end() {
        for columns in [1, 2, 3, 6] {
            for (logits, first) in [
                ([1.0; 6], 0),
                ([1.0, 3.0, 0.0, 3.0, 3.0, 2.0], 1),
                ([-2.0, -2.0, -1.0, -1.0, -1.0, -2.0], 2),
                ([0.0, 1.0, 2.0, 3.0, 4.0, 4.0], 4),
            ] {
                let mut expected = vec![0.0; 6];
                expected[first] = 1.0;
                let read = likeliest_of(&logits, columns);
                assert_eq!(read, [expected.clone(), expected], "{logits:?} by {columns}");
            }
            // Where one isn't a number, none is.
            let read = likeliest_of(&[1.0, f64::NAN, 0.0, 1.0, 2.0, 2.0], columns);
            assert_eq!(read, [vec![0.0; 6], vec![0.0; 6]], "by {columns}");
        }
    }
}
