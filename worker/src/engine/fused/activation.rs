//! Activations of feed-forward parts, row by row in f32: with the bias that comes before them, and with what a gate
//! multiplies. Compiled for several instruction sets, with the same bits in all, as [`super::rows`] is.

use super::cells::{Bf16, Cell};
use super::rows::exp;
use ablate_common::model::Activation;
use multiversion::multiversion;

/// x Φ(x). Φ comes from erfc, so that it is exact to a few units in the last place on both sides.
#[inline(always)]
fn gelu(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    // erfc(z) exp(z²) = t P(t) with t = 1 / (1 + z / 2); P is fitted to scipy.special.erfcx on [0, 9.5], where it is
    // exact to 5e-8. Behind that the exponential is 0 in f32.
    let t = 1.0 / z.mul_add(0.5, 1.0);
    let mut p = -0.058_891_397f32;
    for c in [
        0.283_704_9,
        -0.485_389_56,
        0.275_984_53,
        -0.025_181_845,
        0.202_071_49,
        0.243_260_62,
        0.282_353_52,
        0.282_087_68,
    ] {
        p = t.mul_add(p, c);
    }
    let tail = 0.5 * t * p * exp(-0.5 * x * x);
    x * if x < 0.0 { tail } else { 1.0 - tail }
}

/// x σ(2 √(2/π) (x + 0.044715 x³)): [`gelu`]'s approximation by tanh, as tanh u = 2 σ(2u) − 1.
#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    let u = 1.595_769 * (0.044_715 * x * x).mul_add(x, x);
    x / (1.0 + exp(-u))
}

#[inline(always)]
fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// max(x, 0), NaN for NaN.
#[inline(always)]
fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

#[inline(always)]
fn rows_of<T: Cell>(x: &mut [T], bias: &[T], width: usize, f: impl Fn(f32) -> f32) {
    for row in x.chunks_exact_mut(width) {
        if bias.is_empty() {
            for v in row {
                *v = T::put(f(v.get()));
            }
        } else {
            for (v, b) in row.iter_mut().zip(bias) {
                *v = T::put(f(v.get() + b.get()));
            }
        }
    }
}

#[inline(always)]
fn gates_of<T: Cell>(up: &[T], width: usize, out: &mut [T], f: impl Fn(f32) -> f32) {
    for (row, out) in up.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)) {
        let (gate, up) = row.split_at(width);
        for ((o, a), b) in out.iter_mut().zip(gate).zip(up) {
            *o = T::put(T::put(f(a.get())).get() * b.get());
        }
    }
}

#[inline(always)]
fn activate_body<T: Cell>(x: &mut [T], bias: &[T], width: usize, activation: Activation) {
    match activation {
        Activation::Gelu => rows_of(x, bias, width, gelu),
        Activation::GeluTanh => rows_of(x, bias, width, gelu_tanh),
        Activation::Relu => rows_of(x, bias, width, relu),
        Activation::Silu => rows_of(x, bias, width, silu),
    }
}

#[inline(always)]
fn gate_body<T: Cell>(up: &[T], width: usize, out: &mut [T], activation: Activation) {
    match activation {
        Activation::Gelu => gates_of(up, width, out, gelu),
        Activation::GeluTanh => gates_of(up, width, out, gelu_tanh),
        Activation::Relu => gates_of(up, width, out, relu),
        Activation::Silu => gates_of(up, width, out, silu),
    }
}

macro_rules! compiled {
    ($($name:ident: fn $body:ident::<$t:ty>($($arg:ident: $type:ty),*);)*) => {$(
        #[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+avx2+fma+bmi2", "x86_64+avx2+fma+bmi2"))]
        fn $name($($arg: $type),*) {
            $body::<$t>($($arg),*);
        }
    )*};
}

compiled! {
    activate_f32: fn activate_body::<f32>(x: &mut [f32], bias: &[f32], width: usize, activation: Activation);
    activate_bf16: fn activate_body::<Bf16>(x: &mut [Bf16], bias: &[Bf16], width: usize, activation: Activation);
    gate_f32: fn gate_body::<f32>(up: &[f32], width: usize, out: &mut [f32], activation: Activation);
    gate_bf16: fn gate_body::<Bf16>(up: &[Bf16], width: usize, out: &mut [Bf16], activation: Activation);
}

/// A format with compiled activations.
pub trait Act: Cell {
    /// f(x + bias) in place, of rows of `width`; an empty bias is none.
    fn activate(x: &mut [Self], bias: &[Self], width: usize, activation: Activation);
    /// f(gate) · up, of rows `[gate, up]` of `2 · width`.
    fn gate(up: &[Self], width: usize, out: &mut [Self], activation: Activation);
}

macro_rules! act {
    ($t:ty, $activate:ident, $gate:ident) => {
        impl Act for $t {
            fn activate(x: &mut [Self], bias: &[Self], width: usize, activation: Activation) {
                $activate(x, bias, width, activation);
            }
            fn gate(up: &[Self], width: usize, out: &mut [Self], activation: Activation) {
                $gate(up, width, out, activation);
            }
        }
    };
}

act!(f32, activate_f32, gate_f32);
act!(Bf16, activate_bf16, gate_bf16);
