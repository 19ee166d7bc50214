//! The operations themselves, row by row, in f32. Each is compiled for several instruction sets, and gives the
//! same bits with all of them: sums run in 16 parts, and products are added without rounding between.

use super::cells::{Bf16, Cell};
use multiversion::multiversion;

pub const LANES: usize = 16;

#[inline(always)]
pub fn sum(lanes: [f32; LANES]) -> f32 {
    let mut lanes = lanes;
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// eˣ, to about one unit in the last place; 1e-38 for less than −87, and NaN for NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.3, 88.7);
    // Adding and taking away 1.5 · 2²³ rounds to a whole number, which is then in the lowest bits.
    let shifted = x.mul_add(std::f32::consts::LOG2_E, 12_582_912.0);
    let n = shifted - 12_582_912.0;
    // ln 2 in two parts, the first of few bits.
    let r = n.mul_add(-355.0 / 512.0, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    // Taylor: at |r| ≤ ln 2 / 2 the next term is below 6e-9.
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = r.mul_add(p, c);
    }
    p * f32::from_bits(shifted.to_bits().wrapping_sub(0x4b40_0000 - 127) << 23)
}

/// Where a row of angles and of heads is.
#[derive(Clone, Copy)]
pub struct Turn {
    /// First token, counted over all rows.
    pub first: usize,
    /// Tokens of a sequence.
    pub len: usize,
    /// Values between two tokens.
    pub between: usize,
    /// Heads of a token.
    pub heads: usize,
    /// Values of a head.
    pub width: usize,
    /// How many of them turn.
    pub turned: usize,
}

#[inline(always)]
fn rotate_body<T: Cell>(x: &mut [T], cos: &[T], sin: &[T], at: Turn) {
    let half = at.turned / 2;
    for (i, token) in x.chunks_mut(at.between).enumerate() {
        let from = (at.first + i) % at.len * at.turned;
        let (cos, sin) = (&cos[from..from + at.turned], &sin[from..from + at.turned]);
        for head in token[..at.heads * at.width].chunks_exact_mut(at.width) {
            let (a, b) = head[..at.turned].split_at_mut(half);
            let (b, cos_b, sin_b) = (&mut b[..half], &cos[half..][..half], &sin[half..][..half]);
            let (a, cos_a, sin_a) = (&mut a[..half], &cos[..half], &sin[..half]);
            for d in 0..half {
                let (u, v) = (a[d].get(), b[d].get());
                a[d] = T::put(v.mul_add(-sin_a[d].get(), T::put(u * cos_a[d].get()).get()));
                b[d] = T::put(u.mul_add(sin_b[d].get(), T::put(v * cos_b[d].get()).get()));
            }
        }
    }
}

/// What has been read of a position's logits: the highest, whose it is, and Σ exp of all less the highest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Read {
    /// The highest.
    pub max: f32,
    /// The first token that has it.
    pub first: i64,
    /// The sum.
    pub sum: f32,
}

impl Read {
    /// Before any.
    pub const NONE: Self = Self { max: f32::NEG_INFINITY, first: 0, sum: 0.0 };
}

/// Place of the first that is `value`; 0 where none is.
#[inline(always)]
fn place<T: Cell>(row: &[T], value: f32) -> usize {
    let (whole, _) = row.as_chunks::<LANES>();
    // All lanes at once, and one by one only where it is.
    let here = |values: &[T; LANES]| values.iter().fold(false, |any, v| any | (v.get() == value));
    let from = LANES * whole.iter().position(here).unwrap_or(whole.len());
    row[from..].iter().position(|v| v.get() == value).map_or(0, |at| from + at)
}

#[inline(always)]
fn read_body<T: Cell>(logits: &[T], width: usize, from: i64, read: &mut [Read]) {
    for (row, read) in logits.chunks_exact(width).zip(read) {
        let mut highest = [f32::NEG_INFINITY; LANES];
        let (whole, rest) = row.as_chunks::<LANES>();
        for values in whole {
            for i in 0..LANES {
                let v = values[i].get();
                highest[i] = if v > highest[i] { v } else { highest[i] };
            }
        }
        for (h, v) in highest.iter_mut().zip(rest) {
            *h = if v.get() > *h { v.get() } else { *h };
        }
        let max = highest.iter().fold(read.max, |m, &h| if h > m { h } else { m });
        // Of equal ones the first counts, so that only a block with a higher one is looked through.
        let first = if max > read.max { from + place(row, max) as i64 } else { read.first };
        let mut lanes = [0f32; LANES];
        for values in whole {
            for i in 0..LANES {
                lanes[i] += exp(values[i].get() - max);
            }
        }
        for (lane, v) in lanes.iter_mut().zip(rest) {
            *lane += exp(v.get() - max);
        }
        let before = if read.sum == 0.0 { 0.0 } else { read.sum * exp(read.max - max) };
        let sum = before + sum(lanes);
        // A NaN among them is in the sum, but has passed the comparisons by.
        *read = Read { max: if sum.is_nan() { f32::NAN } else { max }, first, sum };
    }
}

macro_rules! compiled {
    ($($name:ident, $t:ty: fn $body:ident($($arg:ident: $type:ty),*);)*) => {$(
        #[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+avx2+fma+bmi2", "x86_64+avx2+fma+bmi2"))]
        fn $name($($arg: $type),*) {
            $body::<$t>($($arg),*);
        }
    )*};
}

compiled! {
    rotate_f32, f32: fn rotate_body(x: &mut [f32], cos: &[f32], sin: &[f32], at: Turn);
    rotate_bf16, Bf16: fn rotate_body(x: &mut [Bf16], cos: &[Bf16], sin: &[Bf16], at: Turn);
    read_f32, f32: fn read_body(logits: &[f32], width: usize, from: i64, read: &mut [Read]);
    read_bf16, Bf16: fn read_body(logits: &[Bf16], width: usize, from: i64, read: &mut [Read]);
}

/// A format with compiled operations.
pub trait Ops: Cell {
    /// Turns the halves of each head by its token's angles.
    fn rotate(x: &mut [Self], cos: &[Self], sin: &[Self], at: Turn);
    /// Reads `width` more logits of each position, of the tokens from `from` on.
    fn logits(logits: &[Self], width: usize, from: i64, read: &mut [Read]);
}

macro_rules! ops {
    ($t:ty, $rotate:ident, $read:ident) => {
        impl Ops for $t {
            fn rotate(x: &mut [Self], cos: &[Self], sin: &[Self], at: Turn) {
                $rotate(x, cos, sin, at);
            }
            fn logits(logits: &[Self], width: usize, from: i64, read: &mut [Read]) {
                $read(logits, width, from, read);
            }
        }
    };
}

ops!(f32, rotate_f32, read_f32);
ops!(Bf16, rotate_bf16, read_bf16);
