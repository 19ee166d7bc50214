//! anarcii, a real encoder-decoder that numbers the residues of antibodies, from tokenizer file to table: every head
//! of its three streams alone, pairs across them, and a greedy order, against transformers.

use crate::compare::{Question, ask};
use ablate_common::head::{Head, HeadIx, Stream};
use ablate_common::plan::Ablation;
use ablate_common::spec;
use ablate_tests::program::{ablate, finish, json, run};
use ablate_tests::root;
use serde_json::Value;
use std::path::Path;

const LIMIT: f64 = 1e-9;

fn head(row: &Value, prefix: &str) -> Head {
    let of = |key: &str| &row[format!("{prefix}{key}")];
    let streams = [Stream::Encoder, Stream::Decoder, Stream::Cross];
    Head {
        stream: streams.into_iter().find(|s| of("stream") == s.name()).unwrap(),
        layer: of("layer").as_u64().unwrap() as u32,
        head: of("head").as_u64().unwrap() as u32,
    }
}

#[test]
fn anarcii_equals_transformers_head_by_head() {
    let model = root().join("models/anarcii");
    assert!(model.join("config.json").exists(), "models/anarcii is missing: run make reference");
    let folder = tempfile::tempdir().unwrap();
    let data = root().join("models/data/antibodies.jsonl");
    let text = format!(
        "name = \"a\"\n[model]\nsource = {model:?}\ndtype = \"f64\"\n[[task]]\nname = \"numbering\"\nkind = \"seq2seq\"\n\
         data = {data:?}\nexamples = 4\nmax_tokens = 200\n[ablation]\nmethod = \"mean\"\n[[sweep]]\nkind = \"single\"\n\
         [[sweep]]\nkind = \"pairs\"\n[[sweep]]\nkind = \"greedy\"\nfraction = 0.08\nsplit = \"none\"\n\
         orders = [\"greedy\"]\n"
    );
    let spec_file = folder.path().join("spec.toml");
    std::fs::write(&spec_file, &text).unwrap();
    let (out, tables) = (folder.path().join("out"), folder.path().join("tables"));
    let ran = finish(&mut run(&spec_file, &out, &[]));
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let exported = finish(ablate().arg("export").arg(&out).args(["--format", "json", "--out"]).arg(&tables));
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    let [heads, pairs, curve] = ["heads", "pairs", "curve"]
        .map(|t| json(&tables.join(format!("{t}.json"))).as_array().unwrap().clone());
    assert_eq!((heads.len(), pairs.len()), (24, 276));

    let parsed = spec::parse(&text, "spec.toml").unwrap();
    let made = ablate_prepare::prepare(&parsed, Path::new("."), &|_, _, _| {}).unwrap();
    let map = &made.plan.model.heads;
    let place = |row: &Value, prefix: &str| map.index(head(row, prefix)).unwrap();
    let sampled: Vec<&Value> = pairs.iter().step_by(11).collect();
    let across = sampled.iter().filter(|p| p["a_stream"] != p["b_stream"]).count();
    assert!(across >= 12, "{across} pairs across streams");
    let removed: Vec<HeadIx> = curve
        .iter()
        .filter(|r| r["order"] == "greedy" && r["step"].as_u64() > Some(0))
        .map(|r| place(r, ""))
        .collect();
    assert_eq!(removed.len(), 2);
    let sorted = |mut set: Vec<HeadIx>| {
        set.sort_unstable();
        set
    };
    let mut subsets = vec![Vec::new()];
    subsets.extend(heads.iter().map(|r| vec![place(r, "")]));
    subsets.extend(sampled.iter().map(|r| sorted(vec![place(r, "a_"), place(r, "b_")])));
    subsets.push(sorted(removed.clone()));
    let question = Question {
        name: "anarcii".into(),
        path: Some(model),
        prepared: made.prepared[0].clone(),
        heads: map.clone(),
        ablations: vec![Ablation::Mean { pool: ablate_common::plan::Pool::Tokens }.into()],
        subsets,
        limits: None,
    };
    let answer = &ask(std::slice::from_ref(&question), folder.path())[0];
    let tokens: usize = question.prepared.items.iter().map(|i| i.scored.len()).sum();
    let losses: Vec<f64> =
        answer.scores[0]["nll"].iter().map(|each| each.iter().sum::<f64>() / tokens as f64).collect();
    let scale = losses[0].abs().max(1.0);
    let deviation = |row: &Value, key: &str, wanted: f64| (row[key].as_f64().unwrap() - wanted).abs() / scale;
    let mut worst: f64 = 0.0;
    for (row, loss) in heads.iter().zip(&losses[1..]) {
        worst =
            worst.max(deviation(row, "baseline", losses[0])).max(deviation(row, "delta", loss - losses[0]));
    }
    for (row, loss) in sampled.iter().zip(&losses[1 + heads.len()..]) {
        worst = worst.max(deviation(row, "delta_ab", loss - losses[0]));
    }
    let last = curve.iter().rfind(|r| r["order"] == "greedy").unwrap();
    worst = worst.max(deviation(last, "value", losses[losses.len() - 1]));
    println!("anarcii: {worst:.1e} over 24 heads, {} pairs and the greedy set", sampled.len());
    assert!(worst <= LIMIT, "{worst:e}");
    // Greedy took the head with the smallest delta, and then the best pair with it.
    let smallest = |rows: &[(HeadIx, f64)]| rows.iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap().0;
    let delta = |r: &Value, key: &str| r[key].as_f64().unwrap();
    let singles: Vec<_> = heads.iter().map(|r| (place(r, ""), delta(r, "delta"))).collect();
    let with: Vec<_> = pairs
        .iter()
        .map(|r| (place(r, "a_"), place(r, "b_"), delta(r, "delta_ab")))
        .filter(|(a, b, _)| [*a, *b].contains(&removed[0]))
        .map(|(a, b, d)| (if a == removed[0] { b } else { a }, d))
        .collect();
    assert_eq!(removed, [smallest(&singles), smallest(&with)]);
}
