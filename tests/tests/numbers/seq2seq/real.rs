//! anarcii, a real encoder-decoder that numbers the residues of antibodies, from tokenizer file to table: every head
//! of its three streams alone, pairs across them, and a greedy order, against transformers.

use super::compare::{Compared, Question, ask, given, plan};
use crate::plans::load;
use ablate_common::head::{Head, HeadIx, Stream};
use ablate_common::metric::Metric;
use ablate_common::plan::{Ablation, Pool};
use ablate_common::spec;
use ablate_tests::program::{export_json, json, run, said};
use ablate_tests::proof::{Worst, proved};
use ablate_tests::root;
use ablate_worker::engine::{Engine, SharedModel};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use tch::Kind;

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
    said(run(&spec_file, &out, &[]));
    export_json(&out, &tables);
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
        ablations: vec![Ablation::Mean { pool: Pool::Tokens }.into()],
        subsets,
        decoded: Vec::new(),
        context: made.plan.model.context,
    };
    let answer = &ask(std::slice::from_ref(&question), folder.path())[0];
    let tokens: usize = question.prepared.items.iter().map(|i| i.scored.len()).sum();
    let losses: Vec<f64> =
        answer.scores[0]["nll"].iter().map(|each| each.iter().sum::<f64>() / tokens as f64).collect();
    let scale = losses[0].abs().max(1.0);
    let deviation = |row: &Value, key: &str, wanted: f64| row[key].as_f64().unwrap() - wanted;
    let (mut one, mut two, mut both) = (Worst::default(), Worst::default(), Worst::default());
    for (row, loss) in heads.iter().zip(&losses[1..]) {
        one.see_off(deviation(row, "baseline", losses[0]), scale);
        one.see_off(deviation(row, "delta", loss - losses[0]), scale);
    }
    for (row, loss) in sampled.iter().zip(&losses[1 + heads.len()..]) {
        two.see_off(deviation(row, "delta_ab", loss - losses[0]), scale);
    }
    let last = curve.iter().rfind(|r| r["order"] == "greedy").unwrap();
    both.see_off(deviation(last, "value", losses[losses.len() - 1]), scale);
    println!("anarcii: 24 heads {one:?}, {} pairs {two:?}, the greedy set {both:?}", sampled.len());
    let ok = [
        proved("anarcii", "seq2seq, mean, by the programs: deltas", one.of(heads.len()), LIMIT),
        proved("anarcii", "seq2seq, mean, by the programs: pairs", two.of(sampled.len()), LIMIT),
        proved("anarcii", "seq2seq, mean, by the programs: greedy set", both.of(1), LIMIT),
    ];
    assert_eq!(ok, [true; 3]);
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

/// The engine over anarcii in f64, for a question about it.
fn compared<'a>(
    question: &'a Question,
    answer: &'a super::compare::Answer,
    model: &Path,
    batches: &[Vec<u32>],
) -> Compared<'a> {
    let (info, loaded) = load(model, Kind::Double);
    let plan = Arc::new(plan(&info, &question.prepared, Metric::Bleu, &question.ablations, batches));
    let tasks = given(&question.prepared);
    let engine = Engine::new(Arc::new(SharedModel::new(loaded)), Arc::clone(&plan), tasks);
    Compared { engine, plan, question, answer }
}

#[test]
fn anarcii_decodes_as_transformers_does() {
    let model = root().join("models/anarcii");
    let folder = tempfile::tempdir().unwrap();
    let data = root().join("models/data/antibodies.jsonl");
    let text = format!(
        "name = \"a\"\n[model]\nsource = {model:?}\n[[task]]\nname = \"numbering\"\nkind = \"seq2seq\"\nmetric = \"bleu\"\n\
         data = {data:?}\nexamples = 2\nmax_tokens = 200\n[ablation]\nmethod = \"mean\"\n[[sweep]]\nkind = \"single\"\n"
    );
    let parsed = spec::parse(&text, "spec.toml").unwrap();
    let made = ablate_prepare::prepare(&parsed, Path::new("."), &|_, _, _| {}).unwrap();
    let map = &made.plan.model.heads;
    // All heads of a layer but the given one: a few aren't missed.
    let but = |stream, layer, kept| -> Vec<HeadIx> {
        let head = |head| map.index(Head { stream, layer, head }).unwrap();
        (0..4).filter(|h| *h != kept).map(head).collect()
    };
    let both = |a: &[HeadIx], b: &[HeadIx]| {
        let mut all = [a, b].concat();
        all.sort_unstable();
        all
    };
    let (encoder, decoder) = (but(Stream::Encoder, 1, 0), but(Stream::Decoder, 0, 1));
    let (cross, other) = (but(Stream::Cross, 0, 3), but(Stream::Cross, 1, 0));
    let (base, more) = (both(&encoder, &other), both(&decoder, &cross));
    let subsets = vec![vec![], both(&encoder, &cross), both(&decoder, &other), both(&base, &more)];
    let question = Question {
        name: "anarcii".into(),
        path: Some(model.clone()),
        prepared: made.prepared[0].clone(),
        heads: map.clone(),
        ablations: vec![Ablation::Mean { pool: Pool::Tokens }.into()],
        decoded: (0..subsets.len()).collect(),
        context: made.plan.model.context,
        subsets,
    };
    let answer = &ask(std::slice::from_ref(&question), folder.path())[0];
    let mut compared = compared(&question, answer, &model, &[vec![0, 1]]);
    let sets = [(vec![], question.subsets[1..3].to_vec()), (base, vec![more])];
    let worst = compared.on_bases(&sets);
    let bleu: Vec<f64> = (0..question.subsets.len()).map(|s| compared.bleu(0, s)).collect();
    println!("anarcii: {worst:?}, BLEU {bleu:.2?}");
    assert!(proved("anarcii", "seq2seq, mean: scores and what is decoded", worst, LIMIT), "{worst:?}");
    // The data is what the unablated model says itself; these sets garble it.
    assert!((bleu[0] - 100.0).abs() < 1e-9 && bleu[1..].iter().any(|b| *b > 1.0 && *b < 99.0), "{bleu:?}");
}

#[test]
fn what_does_not_fit_is_said_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("records.jsonl");
    let prepare = |model: &str, kind: &str, ablation: &str, record: &str| {
        let good = r#"{"source": "EVQL", "target_tokens": [4, 5, 6], "counterfactual": "QVLE"}"#;
        std::fs::write(&data, format!("{good}\n{record}\n{good}\n")).unwrap();
        let text = format!(
            "name = \"a\"\n[model]\nsource = {:?}\n[[task]]\nname = \"t\"\nkind = \"{kind}\"\ndata = {data:?}\n\
             max_tokens = 20\n[ablation]\n{ablation}\n[[sweep]]\nkind = \"single\"\n",
            root().join("models").join(model)
        );
        ablate_prepare::prepare(&spec::parse(&text, "spec.toml").unwrap(), Path::new("."), &|_, _, _| {})
    };
    let zero = "method = \"zero\"";
    let made =
        prepare("anarcii", "seq2seq", zero, r#"{"source_tokens": [1, 7, 2], "target_tokens": [133, 2]}"#);
    let items = &made.unwrap().prepared[0].items;
    assert_eq!(
        (items[0].tokens.as_slice(), items[0].decoder.as_slice()),
        (&[1, 7, 21, 17, 13, 2][..], &[1, 4, 5, 6][..])
    );
    assert_eq!((items[1].tokens.as_slice(), items[1].decoder.as_slice()), (&[1, 7, 2][..], &[1, 133][..]));
    let paired = "method = \"resample\"\ndonors = \"paired\"";
    let other =
        r#"{"source_tokens": [1, 7, 2], "target_tokens": [133, 2], "counterfactual_tokens": [1, 8, 2]}"#;
    let made = prepare("anarcii", "seq2seq", paired, other).unwrap();
    let (items, others) = (&made.prepared[0].items, &made.prepared[1].items);
    assert_eq!(others[0].tokens, [1, 17, 21, 13, 7, 2]);
    assert_eq!(others[1].tokens, [1, 8, 2]);
    assert!(items.iter().zip(others).all(|(i, o)| i.decoder == o.decoder && o.scored.is_empty()));
    let fine = r#"{"source": "EVQL", "target_tokens": [4]}"#;
    for (model, kind, ablation, record, words) in [
        (
            "anarcii",
            "seq2seq",
            zero,
            r#"{"source": "EVQL", "target": "1 2"}"#,
            "records.jsonl:2: the model's target has a vocabulary",
        ),
        ("anarcii", "seq2seq", zero, r#"{"source": "EVQL"}"#, "records.jsonl:2: there must be one target"),
        (
            "anarcii",
            "seq2seq",
            zero,
            r#"{"source": "", "target_tokens": [4]}"#,
            "records.jsonl:2: source has no token",
        ),
        (
            "anarcii",
            "seq2seq",
            zero,
            r#"{"target_tokens": [4]}"#,
            "records.jsonl:2: there must be one source",
        ),
        (
            "anarcii",
            "seq2seq",
            zero,
            r#"{"source": "EVQL", "target_tokens": [136]}"#,
            "the model knows 136 tokens",
        ),
        (
            "anarcii",
            "seq2seq",
            zero,
            r#"{"source_tokens": [25], "target_tokens": [4]}"#,
            "the model knows 25 tokens",
        ),
        (
            "anarcii",
            "seq2seq",
            paired,
            fine,
            "records.jsonl:2: the record has no counterfactual, which donors = \"paired\" needs",
        ),
        (
            "anarcii",
            "seq2seq",
            paired,
            r#"{"source": "EVQL", "target_tokens": [4], "counterfactual": "EVQ"}"#,
            "records.jsonl:2: counterfactual has 3 tokens, but source has 4",
        ),
        (
            "anarcii",
            "seq2seq",
            paired,
            r#"{"source_tokens": [4, 5], "target_tokens": [4], "counterfactual_tokens": [5]}"#,
            "records.jsonl:2: counterfactual_tokens has 1 tokens, but source_tokens has 2",
        ),
        ("anarcii", "language_modeling", zero, fine, "needs a model that predicts the next token"),
        ("anarcii", "similarity", zero, fine, "needs an encoder"),
        ("anarcii", "classification", zero, fine, "needs an encoder or a decoder alone"),
        ("minilm", "seq2seq", zero, fine, "needs an encoder-decoder (marian, t5)"),
    ] {
        let said = prepare(model, kind, ablation, record).unwrap_err().to_string();
        assert!(said.contains(words), "{words:?} isn't in: {said}");
    }
}
