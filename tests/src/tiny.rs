//! Small tasks of every kind over a vocabulary of 61 tokens: what the tiny models of tests/reference are asked.

use ablate_common::task::{Example, Item, Prepared, Scored, TaskKind};
use std::collections::BTreeMap;

const VOCAB: u32 = 61;

fn tokens(seed: u32, n: u32) -> Vec<u32> {
    (0..n).map(|t| (seed * 23 + t * 7 + t * t * 3) % VOCAB).collect()
}

fn at(position: u32, target: u32, foil: u32) -> Scored {
    Scored { position, target: target % VOCAB, foil: foil % VOCAB }
}

/// Five items of mixed lengths, scored as `scored` says of (item, length).
fn items(scored: impl Fn(u32, u32) -> Vec<Scored>) -> Vec<Item> {
    [1u32, 9, 6, 2, 7]
        .iter()
        .zip(0..)
        .map(|(&n, i)| Item { tokens: tokens(i, n), scored: scored(i, n), ..Item::default() })
        .collect()
}

fn plain(kind: TaskKind, items: Vec<Item>) -> Prepared {
    let n = items.len() as u32;
    let half = |a: u32| (a % 2) as u8;
    let example =
        |a| Example { a, b: a, gold: f64::from(u8::from(a % 3 == 1)), cluster: a, half: Some(half(a)) };
    Prepared {
        kind,
        item_half: (0..n).map(half).collect(),
        examples: (0..n).map(example).collect(),
        items,
        probe: None,
    }
}

/// Five continuations of two prompts, whose batches differ.
fn choices() -> Prepared {
    let (mut items, mut examples) = (Vec::new(), Vec::new());
    for (k, (prompt, lengths)) in (0u32..).zip([(5, &[2, 1, 3][..]), (2, &[1, 2])]) {
        let a = items.len() as u32;
        for (c, &n) in (0u32..).zip(lengths) {
            let all = [tokens(k, prompt), tokens(100 + 10 * k + c, n)].concat();
            let scored = (prompt - 1..prompt + n - 1).map(|p| at(p, all[p as usize + 1], 0)).collect();
            items.push(Item { tokens: all, scored, ..Item::default() });
        }
        let b = items.len() as u32 - 1;
        examples.push(Example { a, b, gold: f64::from(k), cluster: k, half: Some((k % 2) as u8) });
    }
    Prepared { item_half: vec![0, 0, 0, 1, 1], kind: TaskKind::NextTokenChoice, items, examples, probe: None }
}

fn similarity() -> Prepared {
    let mut task = plain(TaskKind::Similarity, items(|_, _| Vec::new()));
    let pair = |(a, b): (u32, u32)| Example {
        a,
        b,
        gold: f64::from((a * 3 + b * 5) % 7),
        cluster: a,
        half: (a % 2 == b % 2).then_some((a % 2) as u8),
    };
    task.examples = (0..5).flat_map(|a| (a + 1..5).map(move |b| (a, b))).map(pair).collect();
    task
}

fn translated() -> Prepared {
    let targets = [3u32, 1, 6, 4, 2];
    let item = |(i, &n): (u32, &u32)| {
        let target = tokens(40 + i, n);
        // Marian's smaller target vocabulary has 47 tokens.
        let scored = (0..n).map(|p| Scored { position: p, target: target[p as usize] % 46, foil: 0 });
        Item {
            tokens: tokens(i, [1, 9, 6, 2, 7][i as usize]),
            decoder: (0..n).map(|p| if p == 0 { 0 } else { target[p as usize - 1] % 46 }).collect(),
            scored: scored.collect(),
            ..Item::default()
        }
    };
    plain(TaskKind::Seq2seq, (0u32..).zip(&targets).map(item).collect())
}

/// Of every kind of task one, by name; each has five items of mixed lengths.
#[must_use]
pub fn tasks() -> BTreeMap<&'static str, Prepared> {
    let every = |i: u32, n: u32| (0..n).map(|p| at(p, i * 17 + p * 5 + 2, 0)).collect::<Vec<_>>();
    let some =
        |i: u32, n: u32| (i % 2..n).step_by(2).map(|p| at(p, i * 17 + p * 5 + 2, 0)).collect::<Vec<_>>();
    let last = |i: u32, n: u32| vec![at(n - 1, i * 13 + 4, i * 11 + 9)];
    let weighed = |i: u32, n: u32| (0..i + 3).map(|k| at(n - 1, i * 5 + k * 2, (k + i) % 2)).collect();
    let label = |place: fn(u32) -> u32| {
        let scored = move |_, n| vec![Scored { position: place(n), target: 0, foil: 0 }];
        plain(TaskKind::Classification, items(scored))
    };
    BTreeMap::from([
        ("text", plain(TaskKind::LanguageModeling, items(every))),
        ("masked", plain(TaskKind::MaskedLm, items(some))),
        ("end", plain(TaskKind::LogitDifference, items(last))),
        ("greater", plain(TaskKind::GreaterThan, items(weighed))),
        ("choice", choices()),
        ("first", label(|_| 0)),
        ("last", label(|n| n - 1)),
        ("similarity", similarity()),
        ("translated", translated()),
    ])
}
