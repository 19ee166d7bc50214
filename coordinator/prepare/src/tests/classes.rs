//! Classification: what becomes of records, with and without a head of the model's own.

use super::{SINGLE, folder, run};
use crate::{PreparedExperiment, preview};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const TASK: &str = "kind = \"classification\"\ndata = \"c.jsonl\"\nmax_tokens = 6";

/// Writes c.jsonl.
fn records(dir: &Path, all: impl IntoIterator<Item = Value>) {
    fs::write(dir.join("c.jsonl"), all.into_iter().map(|r| format!("{r}\n")).collect::<String>()).unwrap();
}

/// Twelve records of six documents; a document has both labels.
fn twelve() -> Vec<Value> {
    let words = ["one", "two", "three", "ring", "letter", "book"];
    (0..12)
        .map(|k| json!({"text": format!("{} went", words[k / 2]), "label": (["up", "down"][k % 2]), "document": k / 2}))
        .collect()
}

fn refused(dir: &Path, task: &str, what: &str) {
    let e = run(dir, task, SINGLE).unwrap_err();
    assert!(e.exit_code() == 2 && e.to_string().contains(what), "{e}");
}

/// Makes the tiny BERT one with a classification head for these labels.
fn with_head(dir: &Path, names: &[&str]) {
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["architectures"] = json!(["BertForSequenceClassification"]);
    config["id2label"] = names.iter().enumerate().map(|(i, n)| (i.to_string(), json!(n))).collect();
    fs::write(&path, config.to_string()).unwrap();
    let file = dir.join("model.safetensors");
    let bytes = fs::read(&file).unwrap();
    let size = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Map<String, Value> = serde_json::from_slice(&bytes[8..8 + size]).unwrap();
    let mut renamed: serde_json::Map<String, Value> =
        header.into_iter().map(|(name, t)| (format!("bert.{name}"), t)).collect();
    let mut data = bytes[8 + size..].to_vec();
    for (name, shape) in [
        ("bert.pooler.dense.weight", vec![4, 4]),
        ("bert.pooler.dense.bias", vec![4]),
        ("classifier.weight", vec![names.len(), 4]),
        ("classifier.bias", vec![names.len()]),
    ] {
        let (from, n) = (data.len(), 4 * shape.iter().product::<usize>());
        data.resize(from + n, 0);
        renamed
            .insert(name.into(), json!({"dtype": "F32", "shape": shape, "data_offsets": [from, from + n]}));
    }
    let header = Value::Object(renamed).to_string().into_bytes();
    fs::write(&file, [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()).unwrap();
}

#[test]
fn a_probe_is_fitted_on_whole_documents_and_evaluated_on_the_others() {
    let dir = folder("bert");
    records(dir.path(), twelve());
    let made = |more: &str| -> PreparedExperiment {
        run(dir.path(), &format!("{TASK}{more}"), "[[sweep]]\nkind = \"greedy\"").unwrap()
    };
    let p = made("");
    let t = &p.prepared[0];
    let probe = t.probe.as_ref().unwrap();
    assert_eq!(probe.classes, ["down", "up"], "sorted");
    assert_eq!((probe.items.len(), t.items.len(), t.examples.len()), (6, 6, 6), "half the documents");
    let texts = |items: &[ablate_common::task::Item]| -> BTreeSet<Vec<u32>> {
        items.iter().map(|i| i.tokens.clone()).collect()
    };
    assert!(texts(&probe.items).is_disjoint(&texts(&t.items)));
    assert!(t.items.iter().chain(&probe.items).all(|i| i.scored.is_empty()), "pooled over all tokens");
    // "up" comes first in every document.
    assert_eq!(probe.labels, [1, 0, 1, 0, 1, 0]);
    let seen: Vec<_> = t.examples.iter().map(|e| (e.a, e.b, e.gold, e.cluster)).collect();
    assert_eq!(seen[..3], [(0, 0, 1.0, 0), (1, 1, 0.0, 0), (2, 2, 1.0, 1)]);
    let halves: BTreeSet<_> = t.examples.iter().map(|e| e.half).collect();
    assert_eq!(halves.len(), 2, "documents of the rest are in two halves");
    assert_eq!(probe.batches.iter().map(|b| b.items.len()).sum::<usize>(), 6);
    assert!(preview(&p, 1).unwrap()[0].starts_with("t 0: label \"up\": [CLS]|"));
    assert_eq!(t, &made("").prepared[0]);
    assert_eq!(made("\ntrain = 0.67").prepared[0].examples.len(), 4);
    let other = run(dir.path(), &format!("{TASK}\nprobe = true"), SINGLE).unwrap();
    assert_eq!(other.prepared, p.prepared, "said or not");
}

#[test]
fn a_decoder_is_probed_at_its_last_token() {
    let dir = folder("llama");
    records(dir.path(), twelve());
    let p = run(dir.path(), TASK, SINGLE).unwrap();
    for item in p.prepared[0].items.iter().chain(&p.prepared[0].probe.as_ref().unwrap().items) {
        assert_eq!(item.scored.len(), 1);
        assert_eq!(item.scored[0].position as usize, item.tokens.len() - 1);
    }
}

#[test]
fn the_models_own_head_decides_unless_a_probe_is_asked_for() {
    let dir = folder("bert");
    with_head(dir.path(), &["no", "yes", "perhaps"]);
    let labels = [json!("yes"), json!(2), json!("no")];
    records(
        dir.path(),
        labels.iter().map(|l| json!({"text": "one two three one two three one", "label": l})),
    );
    let p = run(dir.path(), TASK, SINGLE).unwrap();
    let t = &p.prepared[0];
    assert!(t.probe.is_none());
    assert_eq!(p.plan.model.details.labels, ["no", "yes", "perhaps"]);
    assert_eq!(t.examples.iter().map(|e| e.gold).collect::<Vec<_>>(), [1.0, 2.0, 0.0]);
    assert!(t.items.iter().all(|i| i.tokens.len() == 6 && i.scored.len() == 1 && i.scored[0].position == 0));
    assert!(preview(&p, 2).unwrap()[1].starts_with("t 1: label \"perhaps\": [[CLS]]|"));
    refused(dir.path(), &format!("{TASK}\nmetric = \"f1_binary\""), "there are 3; use \"f1\"");
    records(dir.path(), [json!({"text": "one", "label": "yes"}), json!({"text": "one", "label": 3})]);
    refused(dir.path(), TASK, "c.jsonl:2: label 3 is none of the model's: 0 to 2 or no, yes, perhaps");
    records(dir.path(), twelve());
    refused(dir.path(), TASK, "c.jsonl:1: label \"up\" is none of the model's");
    for more in ["probe = true", "train = 0.5"] {
        let p = run(dir.path(), &format!("{TASK}\n{more}\nmetric = \"f1_binary\""), SINGLE).unwrap();
        assert_eq!(p.prepared[0].probe.as_ref().unwrap().classes.len(), 2, "{more}");
    }
    let config = dir.path().join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("\"id2label\"", "\"problem_type\":\"regression\",\"id2label\"")).unwrap();
    refused(dir.path(), TASK, "problem_type = \"regression\" isn't supported");
    fs::write(&config, text.replace("\"2\":\"perhaps\"", "\"2\":\"perhaps\",\"3\":\"maybe\"")).unwrap();
    refused(dir.path(), TASK, "classifier.bias has shape [3]");
}

#[test]
fn records_that_cannot_be_classified_are_refused_with_file_and_line() {
    let dir = folder("bert");
    let path = dir.path();
    records(path, twelve());
    refused(path, &format!("{TASK}\nprobe = false"), "probe = false, but");
    refused(path, &format!("{TASK}\ntrain = 0.99"), "leaves no document of 6");
    refused(path, &format!("{TASK}\ntrain = 0.01"), "occurs in none of the 0 of 6 documents");
    let same = |label: Value| (0..8).map(move |_| json!({"text": "one", "label": label}));
    records(path, same(json!("up")));
    refused(path, TASK, "there are 1 labels");
    records(path, same(json!(1.5)));
    refused(path, TASK, "c.jsonl:1: label 1.5 is neither");
    records(path, [json!({"text": "", "label": 1})]);
    refused(path, TASK, "c.jsonl:1: text has no token");
    records(path, [json!({"text": "one", "text_b": "two", "label": 1})]);
    refused(path, TASK, "c.jsonl:1: text_b, a second text, isn't built yet");
    records(path, [json!({"text": "one"})]);
    refused(path, TASK, "c.jsonl:1: missing field `label`");
    // Numbers are sorted by size.
    records(path, (0..24).map(|k| json!({"text": "one two", "label": ([10, 9, -1][k % 3])})));
    let p = run(path, TASK, SINGLE).unwrap();
    assert_eq!(p.prepared[0].probe.as_ref().unwrap().classes, ["-1", "9", "10"]);
}

#[test]
fn a_reference_set_of_texts_needs_no_labels() {
    let dir = folder("bert");
    records(dir.path(), twelve());
    fs::write(dir.path().join("r.jsonl"), "{\"text\": \"one two\"}\n{\"text\": \"book\"}\n").unwrap();
    let sweep = "reference = \"r.jsonl\"\n[[sweep]]\nkind = \"single\"";
    let p = run(dir.path(), TASK, sweep).unwrap();
    assert_eq!(p.plan.references.len(), 1);
    assert_eq!(p.prepared[1].items.iter().map(|i| i.tokens.len()).collect::<Vec<_>>(), [4, 3]);
}

fn prepared(dir: &Path, more: &str) -> Result<PreparedExperiment, crate::Error> {
    let text = format!(
        "name = \"t\"\n[model]\nsource = \".\"\n[[task]]\nname = \"t\"\n{TASK}\n[[ablation]]\n{more}\n[[sweep]]\nkind = \"single\""
    );
    let spec = ablate_common::spec::parse(&text, "t.toml").unwrap();
    crate::prepare(&spec, dir, &|_, _, _| ())
}

#[test]
fn counterfactuals_belong_to_the_records_that_a_probe_is_evaluated_on() {
    let dir = folder("bert");
    let words = ["one", "two", "three", "ring", "letter", "book"];
    let other = |k: usize| words[(k + 1) % 6];
    let all = twelve().into_iter().enumerate().map(|(k, mut r)| {
        r["counterfactual"] = json!(format!("{} went", other(k / 2)));
        r
    });
    records(dir.path(), all);
    let p = prepared(dir.path(), "method = \"resample\"\ndonors = \"paired\"").unwrap();
    let (own, donors) = (&p.prepared[0], &p.prepared[1]);
    assert_eq!((own.items.len(), donors.items.len()), (6, 6));
    assert_eq!(p.plan.ablations[0].sources[0].donors, [0, 1, 2, 3, 4, 5]);
    // The tiny tokenizer numbers words, so that each word has one token and the counterfactual is that of the next word.
    let next: std::collections::HashMap<u32, u32> = {
        let text = crate::tokenizer::Text::new(&ablate_common::model::inspect(dir.path()).unwrap().tokenizer)
            .unwrap();
        let id = |w: &str| text.bare(w).unwrap()[0];
        words.iter().enumerate().map(|(k, w)| (id(w), id(other(k)))).collect()
    };
    for (item, donor) in own.items.iter().zip(&donors.items) {
        assert_eq!(donor.tokens[1], next[&item.tokens[1]]);
        assert_eq!((donor.tokens[0], &donor.tokens[2..]), (item.tokens[0], &item.tokens[2..]));
    }
}

#[test]
fn constants_are_fitted_on_a_reference_set_with_the_labels_of_the_probe() {
    let dir = folder("bert");
    records(dir.path(), twelve());
    let r = dir.path().join("r.jsonl");
    fs::write(&r, "{\"text\": \"one\", \"label\": \"up\"}\n{\"text\": \"book\", \"label\": \"down\"}\n")
        .unwrap();
    let p = prepared(dir.path(), "method = \"optimal\"\nreference = \"r.jsonl\"").unwrap();
    let set = &p.prepared[1];
    assert!(
        set.probe.is_none() && set.items.iter().all(|i| i.scored.is_empty()),
        "an encoder's probe sees the mean"
    );
    assert_eq!(set.examples.iter().map(|e| e.gold).collect::<Vec<_>>(), [1.0, 0.0], "down is 0");
    fs::write(&r, "{\"text\": \"one\", \"label\": \"sideways\"}\n").unwrap();
    let e = prepared(dir.path(), "method = \"optimal\"\nreference = \"r.jsonl\"").unwrap_err();
    assert!(
        e.to_string()
            .contains("r.jsonl:1: label sideways is none of those that the probe tells apart: down, up"),
        "{e}"
    );
}
