//! SmolLM2 on texts by the built programs, from file to table, against transformers in f64: single heads, pairs, and a greedy
//! order against a brute-force one. The heads are sets of one each, so that all of their pairs can be measured here; tests/parity.rs
//! has all 270 heads. `make parity` runs more of them (ABLATE_PARITY_LONG=1).
#![allow(clippy::unwrap_used, reason = "tests")]

use ablate_common::spec;
use ablate_tests::program::{export_json, json, run as ablate_run, said};
use ablate_tests::proof::{Worst, proved};
use ablate_tests::reference::{Job, JobGreedy, JobModel, run};
use ablate_tests::{root, smollm2};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

const LIMIT: f64 = 1e-9;

/// Heads of many layers, of every place in a K/V group and of every group; the first and the last among them.
fn heads(n: u32) -> Vec<(u32, u32)> {
    let mut all: BTreeSet<(u32, u32)> = [(0, 0), (29, 8)].into();
    all.extend((0u32..).map(|k| (k * 11 % 30, k * 4 % 9)).take(n as usize));
    all.into_iter().collect()
}

fn name((layer, head): (u32, u32)) -> String {
    format!("L{layer}.H{head}")
}

#[test]
fn smollm2_on_texts_by_the_programs_equals_transformers() {
    let long = std::env::var_os("ABLATE_PARITY_LONG").is_some();
    let heads = heads(if long { 24 } else { 8 });
    let rounds = if long { 5u32 } else { 3 };
    let mut text = format!(
        "name = \"l\"\n[model]\nsource = {:?}\ndtype = \"f64\"\n[[task]]\nname = \"wiki\"\nkind = \"language_modeling\"\n\
         data = {:?}\nexamples = 2\nmax_tokens = 16\n[ablation]\nmethod = \"mean\"\nunit = \"set\"\n[ablation.sets]\n",
        smollm2(),
        root().join("models/data/wiki.jsonl")
    );
    for &head in &heads {
        writeln!(text, "\"{0}\" = [\"{0}\"]", name(head)).unwrap();
    }
    let fraction = f64::from(rounds) / heads.len() as f64;
    write!(
        text,
        "[[sweep]]\nkind = \"single\"\n[[sweep]]\nkind = \"pairs\"\n[[sweep]]\nkind = \"greedy\"\nfraction = {fraction}\n\
         split = \"none\"\norders = [\"greedy\"]\n"
    )
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("spec.toml");
    std::fs::write(&file, &text).unwrap();
    let (out, tables) = (folder.path().join("out"), folder.path().join("tables"));
    said(ablate_run(&file, &out, &[]));
    export_json(&out, &tables);
    let [singles, pairs, curve] = ["heads", "pairs", "curve"]
        .map(|t| json(&tables.join(format!("{t}.json"))).as_array().unwrap().clone());
    assert_eq!((singles.len(), pairs.len()), (heads.len(), heads.len() * (heads.len() - 1) / 2));

    let place = |row: &Value, key: &str| {
        let of = row[key].as_str().unwrap();
        *heads.iter().find(|&&h| name(h) == of).unwrap()
    };
    let greedy: Vec<&Value> = curve.iter().filter(|r| r["order"] == "greedy").collect();
    let removed: Vec<(u32, u32)> =
        greedy.iter().filter(|r| r["step"].as_u64() > Some(0)).map(|r| place(r, "name")).collect();
    assert_eq!(removed.len() as u32, rounds);
    let mut subsets = vec![Vec::new()];
    subsets.extend(singles.iter().map(|r| vec![place(r, "name")]));
    subsets.extend(pairs.iter().map(|r| vec![place(r, "a_name"), place(r, "b_name")]));
    subsets.extend((1..=removed.len()).map(|n| removed[..n].to_vec()));
    let parsed = spec::parse(&text, "spec.toml").unwrap();
    let prepared = ablate_prepare::prepare(&parsed, Path::new("."), &|_, _, _| {}).unwrap().prepared;
    let answer = run(&Job {
        model: JobModel { kind: "gguf", path: &smollm2() },
        dtype: "f64",
        ablation: "mean",
        donors: None,
        prepared: &prepared[0],
        subsets,
        greedy: Some(JobGreedy { rounds, half: None, among: Some(heads.clone()) }),
    })
    .unwrap();
    let tokens: usize = prepared[0].items.iter().map(|i| i.scored.len()).sum();
    let losses: Vec<f64> =
        answer.columns["nll"].iter().map(|each| each.iter().sum::<f64>() / tokens as f64).collect();
    let number = |row: &Value, key: &str| row[key].as_f64().unwrap();
    let scale = losses[0].abs().max(1.0);
    let (mut one, mut two, mut order) = (Worst::default(), Worst::default(), Worst::default());
    for (row, loss) in singles.iter().zip(&losses[1..]) {
        one.see_off(number(row, "baseline") - losses[0], scale);
        one.see_off(number(row, "delta") - (loss - losses[0]), scale);
    }
    let of = |h: (u32, u32)| losses[1 + singles.iter().position(|r| place(r, "name") == h).unwrap()];
    for (row, loss) in pairs.iter().zip(&losses[1 + singles.len()..]) {
        two.see_off(number(row, "delta_ab") - (loss - losses[0]), scale);
        let (a, b) = (of(place(row, "a_name")), of(place(row, "b_name")));
        two.see_off(number(row, "interaction") - (loss - a - b + losses[0]), scale);
    }
    for (row, loss) in greedy[1..].iter().zip(&losses[1 + singles.len() + pairs.len()..]) {
        order.see_off(number(row, "value") - loss, scale);
    }
    if removed != answer.removed {
        order.see_off(f64::NAN, 1.0);
    }
    println!("{} heads: {one:?}, pairs {two:?}, greedy {removed:?} {order:?}", heads.len());
    let by = |what: &str| format!("language_modeling, mean, by the programs: {what}");
    let ok = [
        proved("SmolLM2", &by("deltas"), one.of(singles.len()), LIMIT),
        proved("SmolLM2", &by("pairs"), two.of(pairs.len()), LIMIT),
        proved("SmolLM2", &by("greedy's values"), order.of(removed.len()), LIMIT),
    ];
    assert_eq!(removed, answer.removed, "the order of a brute-force greedy");
    assert_eq!(ok, [true; 3]);
}
