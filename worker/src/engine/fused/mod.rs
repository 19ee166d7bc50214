//! What libtorch does on a CPU in several passes over memory, in one: norms, activations, gates, rotations, and the reading of
//! logits. In f32 and bf16; everything else, and everything that needs a gradient, is left to libtorch: each
//! function gives none then. Same formulas, rounded at the same places.

mod activation;
mod cells;
mod norm;
mod rows;
mod team;
#[cfg(test)]
mod tests;

use ablate_common::model::Activation;
use activation::Act;
use cells::{Bf16, Cell, plain, read, write, write_tokens};
pub use norm::Form;
use norm::{Norms, Sum};
pub use rows::Read;
use rows::{Ops, Turn};
use tch::{Kind, Tensor};

/// Calls a generic function with the tensor's format.
macro_rules! by_kind {
    ($t:expr, $f:ident($($arg:expr),*)) => {
        match $t.kind() {
            Kind::Float => $f::<f32>($($arg),*),
            Kind::BFloat16 => $f::<Bf16>($($arg),*),
            _ => None,
        }
    };
}

/// The norm of `x [n, width]` plus, where there is `more`, that and its bias. `shift` is a layer norm's. With `keep` the sum
/// comes along.
pub fn norm(
    x: &Tensor,
    more: Option<(&Tensor, Option<&Tensor>)>,
    (gain, shift): (&Tensor, Option<&Tensor>),
    form: Form,
    keep: bool,
) -> Option<(Tensor, Option<Tensor>)> {
    by_kind!(x, norm_of(x, more, (gain, shift), form, keep))
}

fn norm_of<T: Norms>(
    x: &Tensor,
    more: Option<(&Tensor, Option<&Tensor>)>,
    (gain, shift): (&Tensor, Option<&Tensor>),
    form: Form,
    keep: bool,
) -> Option<(Tensor, Option<Tensor>)> {
    let width = gain.numel();
    let vector = |t: &Tensor| plain::<T>(t) && t.dim() == 1 && t.numel() == width;
    let fits = plain::<T>(x) && x.numel() > 0 && x.size().last() == Some(&(width as i64)) && vector(gain);
    let added = more.is_none_or(|(m, b)| plain::<T>(m) && m.size() == x.size() && b.is_none_or(vector));
    if !fits || !added || !shift.is_none_or(vector) {
        return None;
    }
    let mut out = x.empty_like();
    let mut sums = keep.then(|| x.empty_like());
    fn values<T: Cell>(t: Option<&Tensor>) -> &[T] {
        t.map_or(&[], read::<T>)
    }
    let from = Sum { x: read::<T>(x), more: values(more.map(|m| m.0)), bias: values(more.and_then(|m| m.1)) };
    let (gain, shift) = (read::<T>(gain), values(shift));
    let kept = sums.as_mut().map_or(&mut [][..], write::<T>);
    team::split_both(write::<T>(&mut out), kept, width, |row, out, sums| {
        T::norm(from.part(row, width, out.len()), gain, shift, form, sums, out);
    });
    Some((out, sums))
}

/// f(gate) · up for `up [n, 2 · width]`, gates first: `[n, width]`.
pub fn gate(up: &Tensor, activation: Activation) -> Option<Tensor> {
    by_kind!(up, gate_of(up, activation))
}

fn gate_of<T: Act>(up: &Tensor, activation: Activation) -> Option<Tensor> {
    let (n, both) = up.size2().ok()?;
    if !plain::<T>(up) || up.numel() == 0 || both % 2 != 0 {
        return None;
    }
    let width = both as usize / 2;
    let mut out = Tensor::empty([n, both / 2], (T::KIND, up.device()));
    let up = read::<T>(up);
    team::split(write::<T>(&mut out), width, |row, out| {
        T::gate(&up[row * 2 * width..][..2 * out.len()], width, out, activation);
    });
    Some(out)
}

/// f(x + bias) for `x [n, width]`, written over x. Whoever calls it must have made x, and hold it alone.
pub fn activate(x: &mut Tensor, bias: Option<&Tensor>, activation: Activation) -> Option<()> {
    by_kind!(x, activate_of(x, bias, activation))
}

fn activate_of<T: Act>(x: &mut Tensor, bias: Option<&Tensor>, activation: Activation) -> Option<()> {
    let width = x.size2().ok()?.1 as usize;
    let fits = bias.is_none_or(|b| plain::<T>(b) && b.numel() == width);
    if !plain::<T>(x) || x.numel() == 0 || !fits {
        return None;
    }
    let bias = bias.map_or(&[][..], read::<T>);
    team::split(write::<T>(x), width, |_, x| T::activate(x, bias, width, activation));
    Some(())
}

/// Turns `x [rows, len, heads, head_dim]` in place by tables of `[len, 1, turned]`. Whoever calls it must have made
/// x, and hold it alone.
pub fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Option<()> {
    by_kind!(x, rotate_of(x, cos, sin))
}

fn rotate_of<T: Ops>(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Option<()> {
    let (size, stride) = (x.size(), x.stride());
    let [rows, len, heads, width] = *size.as_slice() else { return None };
    let turned = cos.size().last().copied()?;
    let whole = rows == 1 || stride[0] == len * stride[1];
    if !whole || !plain::<T>(cos) || !plain::<T>(sin) || turned > width || turned % 2 != 0 {
        return None;
    }
    let mut tokens = x.as_strided([rows * len, heads, width], &stride[1..], None);
    let (cos, sin) = (read::<T>(cos), read::<T>(sin));
    let [len, heads, width, turned] = [len, heads, width, turned].map(|v| v as usize);
    let (values, between) = write_tokens::<T>(&mut tokens)?;
    team::split(values, between, |first, part| {
        T::rotate(part, cos, sin, Turn { first, len, between, heads, width, turned });
    });
    Some(())
}

/// Tokens whose logits are wanted by themselves: as many of each position, position by position.
pub struct Wanted<'a> {
    /// Token ids.
    pub tokens: &'a [i64],
    /// Token of the first logit that is being read.
    pub from: i64,
    /// Their logits, as far as they have been read.
    pub found: &'a mut [f32],
}

/// Reads `logits [n, width]`: the next `width` of each of the n positions of `so_far`.
pub fn logits(logits: &Tensor, so_far: &mut [Read], wanted: &mut Wanted<'_>) -> Option<()> {
    by_kind!(logits, logits_of(logits, so_far, wanted))
}

fn logits_of<T: Ops>(logits: &Tensor, so_far: &mut [Read], wanted: &mut Wanted<'_>) -> Option<()> {
    let (n, width) = logits.size2().ok()?;
    if !plain::<T>(logits) || logits.numel() == 0 || n as usize != so_far.len() {
        return None;
    }
    let (width, values) = (width as usize, logits.numel());
    let (logits, from) = (read::<T>(logits), wanted.from);
    let each = (wanted.tokens.len() / so_far.len()).max(1);
    for (k, (&token, found)) in wanted.tokens.iter().zip(wanted.found.iter_mut()).enumerate() {
        if let Some(at) = usize::try_from(token - from).ok().filter(|&at| at < width) {
            *found = logits[k / each * width + at].get();
        }
    }
    team::split_weighed(so_far, 1, values, |row, part| {
        T::logits(&logits[row * width..][..part.len() * width], width, from, part);
    });
    Some(())
}
