//! Encoder-decoders against Hugging Face transformers in f64.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod compare;
mod real;
mod tiny;
mod units;
