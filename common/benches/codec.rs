//! The score codec: a chunk of 64 subsets on 64 examples with two columns.
#![allow(missing_docs, reason = "criterion's macros make public items")]

use ablate_common::scores::{ChunkScores, TaskScores};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::hint::black_box;

/// Losses as they come: an example's own level, a little changed by each subset, and counts.
fn chunk() -> ChunkScores {
    let (subsets, examples) = (64u32, 64u32);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let levels: Vec<f64> = (0..examples).map(|_| rng.random_range(150.0..250.0)).collect();
    let mut values = Vec::new();
    for _ in 0..subsets {
        values.extend(levels.iter().map(|l| l + rng.random_range(-0.5..0.5)));
        values.extend(levels.iter().map(|l| (l / 8.0).floor()));
    }
    ChunkScores { subsets, tasks: vec![TaskScores { task: 0, examples, columns: 2, values }] }
}

fn codec(c: &mut Criterion) {
    let scores = chunk();
    let bytes = scores.encode();
    let mut group = c.benchmark_group("score codec");
    group.throughput(Throughput::Bytes(8 * scores.tasks[0].values.len() as u64));
    group.bench_function("encode", |b| b.iter(|| black_box(&scores).encode()));
    group.bench_function("decode", |b| b.iter(|| ChunkScores::decode(black_box(&bytes))));
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
