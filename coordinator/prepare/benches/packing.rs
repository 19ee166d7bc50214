//! The row packer: which items of mixed lengths go through the model together.
#![allow(missing_docs, reason = "criterion's macros make public items")]

use ablate_common::task::{Item, Prepared, Scope, TaskKind};
use ablate_prepare::batches;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

fn prepared(items: u32) -> Prepared {
    let item = |i: u32| Item { tokens: vec![1; 8 + (i * 7919 % 249) as usize], ..Item::default() };
    Prepared {
        kind: TaskKind::LanguageModeling,
        items: (0..items).map(item).collect(),
        item_half: (0..items).map(|i| (i % 2) as u8).collect(),
        examples: Vec::new(),
        probe: None,
    }
}

fn packing(c: &mut Criterion) {
    let mut group = c.benchmark_group("row packer");
    for n in [100, 10_000, 100_000] {
        let prepared = prepared(n);
        group.throughput(Throughput::Elements(n.into()));
        group.bench_function(format!("{n} items"), |b| b.iter(|| batches(black_box(&prepared), Scope::All)));
    }
    group.finish();
}

criterion_group!(benches, packing);
criterion_main!(benches);
