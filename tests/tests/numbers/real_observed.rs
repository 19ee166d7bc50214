//! Attention, repair and shift sweeps of real models by the built programs, two workers each, against transformers in f64
//! (tests/reference/real_observed.py): a decoder from a quantised file and an encoder; killed in the middle; with the curve along rollout.
#![allow(clippy::unwrap_used, reason = "tests")]

use ablate_common::spec;
use ablate_common::task::Prepared;
use ablate_tests::program::{
    ablate, differing, export_json, json as read_json, jsonl, refused, run, run_shaken, said, tables,
};
use ablate_tests::proof::{Worst, proved};
use ablate_tests::{minilm, root, smollm2};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Of every number, relative to the largest of its kind.
const LIMIT: f64 = 1e-9;

/// What the reference says of a model.
#[derive(Deserialize)]
struct Answer {
    /// Column → head → item.
    attention: BTreeMap<String, Vec<Vec<f64>>>,
    /// Head → item → query → key.
    patterns: Vec<Vec<Vec<Vec<f64>>>>,
    /// Mean norms on the reference set, by point.
    reference: Vec<f64>,
    /// Method → chosen head → example.
    direct: BTreeMap<String, Vec<Vec<f64>>>,
    shift: BTreeMap<String, Norms>,
}

/// Of nothing, all and each chosen head removed: by point.
#[derive(Deserialize)]
struct Norms {
    norm: Vec<Vec<f64>>,
    largest: Vec<Vec<f64>>,
}

struct Case {
    name: &'static str,
    family: &'static str,
    model: PathBuf,
    task: String,
    reference: PathBuf,
    /// Heads whose removal the reference runs.
    heads: Vec<[usize; 2]>,
    column: &'static str,
}

fn cases(folder: &Path) -> Vec<Case> {
    let text = [
        "The kettle was broken on arrival.",
        "Our hotel was quick.",
        "This book is a joy, a joy.",
        "Nobody.",
    ];
    let pair = |(a, b): (usize, usize)| json!({"a": text[a], "b": text[b], "score": a + 2 * b});
    let pairs = jsonl(folder.join("pairs.jsonl"), &[(0, 1), (1, 2), (2, 3), (0, 3)].map(pair));
    let texts = jsonl(folder.join("texts.jsonl"), &text.map(|t| json!({"text": t})));
    let other = jsonl(folder.join("other.jsonl"), &[(1, 0), (3, 2), (2, 0)].map(pair));
    vec![
        Case {
            name: "smollm2",
            family: "llama",
            model: smollm2(),
            task: "kind = \"ioi\"\nexamples = 3\nmax_tokens = 32".into(),
            reference: texts,
            heads: vec![[0, 3], [14, 8], [29, 0]],
            column: "logit_diff",
        },
        Case {
            name: "minilm",
            family: "encoder",
            model: minilm(),
            task: format!("kind = \"similarity\"\ndata = {pairs:?}\nmax_tokens = 32"),
            reference: other,
            heads: vec![[0, 1], [3, 11], [5, 6]],
            column: "cosine",
        },
    ]
}

fn spec_of(case: &Case) -> String {
    format!(
        "name = \"o\"\n[model]\nsource = {:?}\ndtype = \"f64\"\n[[task]]\nname = \"t\"\n{}\n[[ablation]]\nmethod = \"zero\"\n[[ablation]]\nmethod = \
         \"mean\"\nreference = {:?}\nunit = \"layer\"\n[[sweep]]\nkind = \"attention\"\npatterns = [1]\n[[sweep]]\nkind = \"repair\"\n[[sweep]]\n\
         kind = \"shift\"\n",
        case.model, case.task, case.reference
    )
}

/// The rows of an exported table.
fn rows(out: &Path, name: &str) -> Vec<Value> {
    let json = out.join("json");
    if !json.exists() {
        export_json(out, &json);
    }
    read_json(&json.join(format!("{name}.json"))).as_array().unwrap().clone()
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or_else(|| panic!("{key} of {row}"))
}

/// Sees a number beside the reference's.
fn near(seen: &mut Worst, what: &str, got: f64, want: f64, scale: f64) {
    let mut own = Worst { cases: 1, ..Worst::default() };
    own.see_off(got - want, scale.max(1.0));
    assert!(own.within(LIMIT), "{what}: {got} and {want}");
    seen.join(own);
}

/// Means over the items' queries, head by head.
fn attention(seen: &mut Worst, case: &Case, out: &Path, prepared: &Prepared, want: &Answer) {
    let table = rows(out, "attention");
    let counts: Vec<[u32; 7]> = prepared
        .items
        .iter()
        .map(|i| ablate_common::attention::queries(i, ablate_common::head::Stream::SelfAttention))
        .collect();
    assert_eq!(table.len(), want.patterns.len(), "of heads, once, for all ablations");
    for (h, row) in table.iter().enumerate() {
        assert_eq!((row["method"].as_str(), row["unit"].as_str()), (Some("none"), Some("head")));
        for (c, column) in ablate_common::attention::COLUMNS.into_iter().enumerate() {
            let n: u32 = counts.iter().map(|n| n[c]).sum();
            let sum: f64 = want.attention[column][h].iter().sum();
            if n == 0 {
                assert!(row[column].is_null());
            } else {
                near(
                    seen,
                    &format!("{}, {column} of {}", case.name, row["name"]),
                    number(row, column),
                    sum / f64::from(n),
                    1.0,
                );
            }
        }
    }
    // The second example's sequences, by sequence and head.
    let items = prepared.items_of(&prepared.examples[1]);
    let mut cells = rows(out, "patterns").into_iter();
    for &item in &items {
        for head in &want.patterns {
            for (q, query) in head[item as usize].iter().enumerate() {
                for (k, &weight) in query.iter().enumerate() {
                    let row = cells.next().unwrap();
                    assert_eq!((number(&row, "query"), number(&row, "key")), (q as f64, k as f64));
                    near(
                        seen,
                        &format!("{}, a cell of {}", case.name, row["name"]),
                        number(&row, "attention"),
                        weight,
                        1.0,
                    );
                }
            }
        }
    }
    assert!(cells.next().is_none());
}

/// Direct effects of the chosen heads, and what the table makes of them.
fn repair(seen: &mut Worst, case: &Case, out: &Path, want: &Answer, n_heads: usize) {
    let scores = rows(out, "scores");
    let of = |sweep: &str, head: usize| -> Vec<f64> {
        let mut own = scores.iter().filter(|r| r["sweep"] == sweep && r["method"] == "zero");
        let list = own.nth(head).unwrap()[case.column].as_array().unwrap();
        list.iter().map(|v| v.as_f64().unwrap()).collect()
    };
    let table = rows(out, "repair");
    // What the table makes of its own numbers isn't beside the reference.
    let own = &mut Worst::default();
    for (at, &[layer, head]) in case.heads.iter().enumerate() {
        let ix = layer * n_heads + head;
        let direct = of("repair", ix);
        let scale = want.direct["zero"].iter().flatten().fold(0.0, |a: f64, x| a.max(x.abs()));
        for (got, want) in direct.iter().zip(&want.direct["zero"][at]) {
            near(seen, &format!("{}, direct effect of {layer}.{head}", case.name), *got, *want, scale);
        }
        let row = &table[ix];
        assert_eq!((number(row, "layer"), number(row, "head")), (layer as f64, head as f64));
        near(own, "repair", number(row, "repair"), number(row, "direct") - number(row, "total"), 1.0);
        if case.column == "logit_diff" {
            let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
            near(own, "repair", number(row, "repair"), mean(&of("single", ix)) - mean(&direct), scale);
        }
    }
    let layers = table.iter().filter(|r| r["method"] == "mean" && r["unit"] == "layer").count();
    assert_eq!(table.len(), want.patterns.len() + layers);
}

/// Norms without all heads and without the chosen ones, and on the reference set.
fn shift(seen: &mut Worst, case: &Case, out: &Path, want: &Answer, n_heads: usize) {
    let table = rows(out, "shift");
    let (norms, points) = (&want.shift["zero"], want.reference.len());
    let zero: Vec<&Value> = table.iter().filter(|r| r["method"] == "zero").collect();
    let chosen = case.heads.iter().map(|[layer, head]| layer * n_heads + head + 1);
    for (at, place) in std::iter::once(0).chain(chosen).enumerate() {
        for (p, row) in zero[place * points..][..points].iter().enumerate() {
            let what = format!("{}, shift of {} at {p}", case.name, row["name"]);
            assert_eq!(number(row, "at_layer"), p as f64);
            let base = norms.norm[0][p];
            near(seen, &what, number(row, "unablated"), base, base);
            near(seen, &what, number(row, "norm"), norms.norm[at + 1][p], base);
            near(seen, &what, number(row, "ratio"), norms.norm[at + 1][p] / base, 1.0);
            near(seen, &what, number(row, "largest"), norms.largest[at + 1][p], 1.0);
            let ratio = number(row, "ratio");
            assert_eq!(row["flagged"].as_bool().unwrap(), !(0.5..2.0).contains(&ratio) || ratio == 0.5);
            assert!(row["reference"].is_null());
        }
    }
    assert_eq!(zero[0]["name"], "all");
    for (row, p) in table.iter().filter(|r| r["method"] == "mean").zip((0..points).cycle()) {
        near(
            seen,
            &format!("{}, reference at {p}", case.name),
            number(row, "reference"),
            want.reference[p],
            want.reference[p],
        );
        let ratio = number(row, "unablated") / number(row, "reference");
        assert!((number(row, "reference_ratio") - ratio).abs() < 1e-12 * ratio);
    }
}

#[test]
fn patterns_direct_effects_and_norms_of_real_models_are_those_of_transformers() {
    let folder = tempfile::tempdir().unwrap();
    let cases = cases(folder.path());
    let mut job = Map::new();
    let mut all = Vec::new();
    for case in &cases {
        let parsed = spec::parse(&spec_of(case), "spec.toml").unwrap();
        let made = ablate_prepare::prepare(&parsed, Path::new("."), &|_, _, _| {}).unwrap();
        job.insert(
            case.name.into(),
            json!({"path": case.model, "family": case.family, "prepared": made.prepared[0], "heads": case.heads,
                "reference": made.prepared[1].items}),
        );
        all.push(made);
    }
    let [question, answer] = ["job.json", "answer.json"].map(|f| folder.path().join(f));
    std::fs::write(&question, Value::Object(job).to_string()).unwrap();
    let out = Command::new(root().join(".deps/ref/bin/python"))
        .arg(root().join("tests/reference/real_observed.py"))
        .args([&question, &answer])
        .env("OMP_NUM_THREADS", "2")
        .output()
        .unwrap();
    assert!(out.status.success(), "the reference failed:\n{}", String::from_utf8_lossy(&out.stderr));
    let answers: BTreeMap<String, Answer> = serde_json::from_slice(&std::fs::read(&answer).unwrap()).unwrap();

    for (case, made) in cases.iter().zip(&all) {
        let path = folder.path().join(format!("{}.toml", case.name));
        std::fs::write(&path, spec_of(case)).unwrap();
        let mut plan = ablate();
        plan.arg("plan").arg(&path);
        let text = said(plan);
        assert!(
            ["attention", "patterns", "repair (zero)", "shift (mean, layers)"]
                .iter()
                .all(|k| text.contains(k)),
            "{text}"
        );
        let out = folder.path().join(case.name);
        said(run(&path, &out, &["--workers", "2"]));
        let (want, heads) = (&answers[case.name], made.plan.model.n_heads as usize);
        let mut seen = Worst::default();
        attention(&mut seen, case, &out, &made.prepared[0], want);
        repair(&mut seen, case, &out, want, heads);
        shift(&mut seen, case, &out, want, heads);
        let check = "attention, patterns, direct effects, norms of the stream, by the programs, f64";
        assert!(proved(case.name, check, seen, LIMIT), "{}: {seen:?}", case.name);
        assert!(out.join("report.html").exists());
        if case.name != "minilm" {
            continue;
        }
        let shaken = folder.path().join("shaken");
        run_shaken(&path, &shaken, 2);
        assert_eq!(differing(&tables(&out), &tables(&shaken)), [""; 0]);
    }
}

#[test]
fn rollout_is_an_order_and_patterns_past_the_end_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let case = &cases(folder.path())[1];
    let spec = |sweep: &str| {
        let path = folder.path().join("r.toml");
        let text = format!(
            "name = \"r\"\n[model]\nsource = {:?}\n[[task]]\nname = \"t\"\n{}\n[ablation]\nmethod = \"zero\"\n[[sweep]]\n{sweep}",
            case.model, case.task
        );
        std::fs::write(&path, text).unwrap();
        path
    };
    let greedy = "kind = \"greedy\"\nfraction = 0.05\nsplit = \"none\"\norders = [\"rollout\"]\n[[sweep]]\nkind = \"attention\"\n";
    let out = folder.path().join("out");
    said(run(&spec(greedy), &out, &[]));
    let mut flow: Vec<(f64, String)> = rows(&out, "attention")
        .iter()
        .map(|r| (number(r, "rollout"), r["name"].as_str().unwrap().to_owned()))
        .collect();
    flow.sort_by(|a, b| a.0.total_cmp(&b.0));
    let curve = rows(&out, "curve");
    let order: Vec<&str> =
        curve.iter().filter(|r| r["order"] == "rollout").filter_map(|r| r["name"].as_str()).collect();
    assert_eq!(order, flow[..4].iter().map(|f| f.1.as_str()).collect::<Vec<_>>());
    let mut wrong = ablate();
    wrong.arg("plan").arg(spec("kind = \"attention\"\npatterns = [0, 4]"));
    let answer = wrong.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    refused(&answer, &["[[sweep]] 1", "patterns names example 4", "there are 4"]);
}
