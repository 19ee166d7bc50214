//! What libtorch does on a CPU in several passes over memory, in one: norms, gates, rotations, and the reading of
//! logits. In f32 and bf16; everything else, and everything that needs a gradient, is left to libtorch: each
//! function gives none then. Same formulas, rounded at the same places.

mod cells;
mod rows;
mod team;
#[cfg(test)]
mod tests;

use cells::{Bf16, plain, read, write, write_tokens};
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

/// RMS norm of the last dimension of `x`, with `gain` as long as that; `plus_one` adds 1 to the gain.
pub fn rms(x: &Tensor, gain: &Tensor, eps: f64, plus_one: bool) -> Option<Tensor> {
    by_kind!(x, rms_of(x, gain, eps, plus_one))
}

fn rms_of<T: Ops>(x: &Tensor, gain: &Tensor, eps: f64, plus_one: bool) -> Option<Tensor> {
    let width = gain.numel();
    let fits =
        plain::<T>(x) && plain::<T>(gain) && gain.dim() == 1 && x.size().last() == Some(&(width as i64));
    if !fits || x.numel() == 0 {
        return None;
    }
    let mut out = x.empty_like();
    let (x, gain) = (read::<T>(x), read::<T>(gain));
    team::split(write::<T>(&mut out), width, |row, out| {
        T::rms(&x[row * width..][..out.len()], gain, eps as f32, plus_one, out);
    });
    Some(out)
}

/// silu(gate) · up for `up [n, 2 · width]`, gates first: `[n, width]`.
pub fn silu_gate(up: &Tensor) -> Option<Tensor> {
    by_kind!(up, gate_of(up))
}

fn gate_of<T: Ops>(up: &Tensor) -> Option<Tensor> {
    let (n, both) = up.size2().ok()?;
    if !plain::<T>(up) || up.numel() == 0 || both % 2 != 0 {
        return None;
    }
    let width = both as usize / 2;
    let mut out = Tensor::empty([n, both / 2], (T::KIND, up.device()));
    let up = read::<T>(up);
    team::split(write::<T>(&mut out), width, |row, out| {
        T::gate(&up[row * 2 * width..][..2 * out.len()], width, out);
    });
    Some(out)
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

/// Reads `logits [n, width]`: the next `width` of each of the n positions of `so_far`.
pub fn logits(logits: &Tensor, so_far: &mut [Read]) -> Option<()> {
    by_kind!(logits, logits_of(logits, so_far))
}

fn logits_of<T: Ops>(logits: &Tensor, so_far: &mut [Read]) -> Option<()> {
    let (n, width) = logits.size2().ok()?;
    if !plain::<T>(logits) || logits.numel() == 0 || n as usize != so_far.len() {
        return None;
    }
    let (width, values) = (width as usize, logits.numel());
    let logits = read::<T>(logits);
    team::split_weighed(so_far, 1, values, |row, part| {
        T::logits(&logits[row * width..][..part.len() * width], width, part);
    });
    Some(())
}
