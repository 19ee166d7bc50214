//! Norms of sums: the residual stream plus what a part of the layer adds, its bias, and the norm behind the sum, in one
//! pass over memory. Compiled for several instruction sets, with the same bits in all, as [`super::rows`] is.

use super::cells::{Bf16, Cell};
use super::rows::{LANES, sum};
use multiversion::multiversion;

/// Which norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Form {
    /// Less its mean first.
    pub centred: bool,
    /// 1 is added to the gain.
    pub plus_one: bool,
    /// Added to the variance.
    pub eps: f32,
}

/// What is normed, row by row: `x`, plus `more` and `bias`, each where it isn't empty.
#[derive(Clone, Copy)]
pub struct Sum<'a, T> {
    /// The first part.
    pub x: &'a [T],
    /// The second.
    pub more: &'a [T],
    /// As long as a row.
    pub bias: &'a [T],
}

impl<'a, T> Sum<'a, T> {
    /// The parts of `len` values from row `row` on, of rows of `width`.
    pub fn part(self, row: usize, width: usize, len: usize) -> Self {
        let of = |all: &'a [T]| if all.is_empty() { all } else { &all[row * width..][..len] };
        Self { x: of(self.x), more: of(self.more), bias: self.bias }
    }
}

/// Σ f(v) of a row.
#[inline(always)]
fn total<T: Cell>(row: &[T], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (whole, rest) = row.as_chunks::<LANES>();
    for values in whole {
        for i in 0..LANES {
            lanes[i] = f(values[i].get(), lanes[i]);
        }
    }
    for (lane, v) in lanes.iter_mut().zip(rest) {
        *lane = f(v.get(), *lane);
    }
    sum(lanes)
}

#[inline(always)]
fn add<T: Cell>(sum: Sum<'_, T>, at: usize, width: usize, out: &mut [T]) {
    let row = at * width..(at + 1) * width;
    if sum.more.is_empty() {
        out.copy_from_slice(&sum.x[row]);
    } else if sum.bias.is_empty() {
        for ((o, x), m) in out.iter_mut().zip(&sum.x[row.clone()]).zip(&sum.more[row]) {
            *o = T::put(x.get() + m.get());
        }
    } else {
        for (((o, x), m), b) in out.iter_mut().zip(&sum.x[row.clone()]).zip(&sum.more[row]).zip(sum.bias) {
            *o = T::put(x.get() + (m.get() + b.get()));
        }
    }
}

#[inline(always)]
fn norm_body<T: Cell>(from: Sum<'_, T>, gain: &[T], shift: &[T], form: Form, sums: &mut [T], out: &mut [T]) {
    let width = gain.len();
    for (at, out) in out.chunks_exact_mut(width).enumerate() {
        add(from, at, width, out);
        if let Some(kept) = sums.get_mut(at * width..(at + 1) * width) {
            kept.copy_from_slice(out);
        }
        let n = width as f32;
        if form.centred {
            let mean = total(out, |v, sum| sum + v) / n;
            let square = |v: f32, sum: f32| (v - mean).mul_add(v - mean, sum);
            let scale = 1.0 / (total(out, square) / n + form.eps).sqrt();
            if shift.is_empty() {
                for (o, g) in out.iter_mut().zip(gain) {
                    *o = T::put((o.get() - mean) * scale * g.get());
                }
            } else {
                for ((o, g), s) in out.iter_mut().zip(gain).zip(shift) {
                    *o = T::put(((o.get() - mean) * scale).mul_add(g.get(), s.get()));
                }
            }
            continue;
        }
        let scale = 1.0 / (total(out, |v, sum| v.mul_add(v, sum)) / n + form.eps).sqrt();
        if form.plus_one {
            for (o, g) in out.iter_mut().zip(gain) {
                *o = T::put(o.get() * scale * (g.get() + 1.0));
            }
        } else {
            for (o, g) in out.iter_mut().zip(gain) {
                *o = T::put(T::put(o.get() * scale).get() * g.get());
            }
        }
    }
}

macro_rules! compiled {
    ($($name:ident: $t:ty;)*) => {$(
        #[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+avx2+fma+bmi2", "x86_64+avx2+fma+bmi2"))]
        fn $name(from: Sum<'_, $t>, gain: &[$t], shift: &[$t], form: Form, sums: &mut [$t], out: &mut [$t]) {
            norm_body::<$t>(from, gain, shift, form, sums, out);
        }
    )*};
}

compiled! {
    norm_f32: f32;
    norm_bf16: Bf16;
}

/// A format with compiled norms.
pub trait Norms: Cell {
    /// The sum's norm, row by row, into `out`, and the sum into `sums` where that isn't empty. Layer norm: (v − mean) / √(var
    /// + eps) · gain + shift; RMS norm: v / √(mean v² + eps) · gain, rounded before the gain, or · (gain + 1), rounded once.
    fn norm(
        from: Sum<'_, Self>,
        gain: &[Self],
        shift: &[Self],
        form: Form,
        sums: &mut [Self],
        out: &mut [Self],
    );
}

impl Norms for f32 {
    fn norm(
        from: Sum<'_, Self>,
        gain: &[Self],
        shift: &[Self],
        form: Form,
        sums: &mut [Self],
        out: &mut [Self],
    ) {
        norm_f32(from, gain, shift, form, sums, out);
    }
}

impl Norms for Bf16 {
    fn norm(
        from: Sum<'_, Self>,
        gain: &[Self],
        shift: &[Self],
        form: Form,
        sums: &mut [Self],
        out: &mut [Self],
    ) {
        norm_bf16(from, gain, shift, form, sums, out);
    }
}
