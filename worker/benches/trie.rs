//! The trie of a chunk: which rows a pass has at which layer, for SmolLM2's 30 layers of 9 heads.
#![allow(missing_docs, reason = "criterion's macros make public items")]

use ablate_worker::engine::trie::{Cut, Intervention, Trie};
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;

const HEADS: u32 = 9;
const ALL: u32 = 30 * HEADS;

fn subset(heads: &[u32]) -> Intervention {
    let mut layers: Vec<(usize, Vec<Cut>)> = Vec::new();
    for h in heads {
        let (layer, cut) = ((h / HEADS) as usize, Cut { head: h % HEADS, keep: 0.0 });
        match layers.last_mut() {
            Some((l, cuts)) if *l == layer => cuts.push(cut),
            _ => layers.push((layer, vec![cut])),
        }
    }
    Intervention { stages: layers }
}

fn trie(c: &mut Criterion) {
    let pairs = |n: usize, from: usize| -> Vec<Intervention> {
        let all = (0..ALL).flat_map(|i| (i + 1..ALL).map(move |j| [i, j]));
        all.skip(from).take(n).map(|p| subset(&p)).collect()
    };
    let cases = [
        ("single, 64 subsets", (0..64).map(|h| subset(&[4 * h])).collect()),
        ("pairs, 64 subsets", pairs(64, 20_000)),
        ("pairs, 1024 subsets", pairs(1024, 20_000)),
        (
            "prefixes of an order, 64 subsets",
            (1..=64).map(|n| subset(&(0..n).map(|h| 4 * h).collect::<Vec<_>>())).collect(),
        ),
    ];
    let mut group = c.benchmark_group("trie");
    for (name, subsets) in &cases {
        let subsets: &Vec<Intervention> = subsets;
        group.bench_function(*name, |b| b.iter(|| Trie::new(black_box(subsets))));
    }
    group.finish();
}

criterion_group!(benches, trie);
criterion_main!(benches);
