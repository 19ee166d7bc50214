//! Whole runs on image files by the built programs: the tables against transformers, and what is refused.

use super::{Answer, LIMIT, ask, image, made, records};
use ablate_tests::program::{ablate, differing, export_json, json as read_json, refused, run, said, tables};
use serde_json::{Value, json};
use std::path::Path;

const IMAGES: [&str; 12] = [
    "rgb0.png",
    "gray1.png",
    "alpha.png",
    "rgb1.png",
    "palette.png",
    "gray2.png",
    "rgb2.png",
    "two-tone.png",
    "rgb3.png",
    "rgb4.png",
    "gray-alpha.png",
    "rgb5.png",
];
const METRICS: [&str; 4] = ["loss", "accuracy", "f1", "matthews"];
const LAYERS: u64 = 3;
const HEADS: u64 = 6;

fn spec_of(data: &Path) -> String {
    let task = |metric| {
        format!(
            "[[task]]\nname = \"{metric}\"\nkind = \"classification\"\ndata = {data:?}\nmetric = \"{metric}\"\n"
        )
    };
    format!(
        "name = \"images\"\nseed = 2\n[model]\nsource = {:?}\ndtype = \"f64\"\n{}[ablation]\nmethod = \"mean\"\npool = \"position\"\n\
         [[sweep]]\nkind = \"single\"\n[[sweep]]\nkind = \"pairs\"\ntasks = [\"loss\"]\n[[sweep]]\nkind = \"greedy\"\nfraction = 0.2\n",
        made().join("plain"),
        METRICS.map(task).concat()
    )
}

fn rows(folder: &Path, table: &str) -> Vec<Value> {
    read_json(&folder.join(format!("json/{table}.json"))).as_array().unwrap().clone()
}

fn close(got: &Value, want: f64, what: &str) {
    let off = (got.as_f64().unwrap() - want).abs() / want.abs().max(1.0);
    assert!(off <= LIMIT, "{what}: {got} instead of {want}");
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The reference: nothing, each head, each pair that follows its number.
fn reference() -> Answer {
    let n = LAYERS * HEADS;
    let head = |h: u64| [h / HEADS, h % HEADS];
    let mut subsets: Vec<Vec<[u64; 2]>> = vec![Vec::new()];
    subsets.extend((0..n).map(|h| vec![head(h)]));
    subsets.extend((0..n - 1).map(|h| vec![head(h), head(h + 1)]));
    let labels: Vec<f64> = (0..IMAGES.len()).map(|k| (k % 3) as f64).collect();
    let files: Vec<_> = IMAGES.iter().map(|name| image(name)).collect();
    let case = json!({"path": made().join("plain"), "images": files, "counterfactuals": [], "labels": labels,
        "subsets": subsets, "methods": {"position": {"pool": "position"}}});
    ask(&[case]).remove(0)
}

#[test]
fn a_run_on_images_gives_the_tables_of_transformers() {
    let folder = tempfile::tempdir().unwrap();
    let data = records(folder.path(), &IMAGES, |k| json!(["cat", "dog", "owl"][k % 3]));
    let path = folder.path().join("spec.toml");
    std::fs::write(&path, spec_of(&data)).unwrap();
    let mut plan = ablate();
    plan.arg("plan").arg(&path);
    let planned = said(plan);
    for words in [
        "vit, 3 layers of 6 heads",
        "3 labels by the model's own head",
        "loss 0: label \"cat\": image of 18 x 18 pixels (height x width), 9 patches, mean level ",
    ] {
        assert!(planned.contains(words), "{planned}");
    }
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    said(run(&path, &one, &[]));
    said(run(&path, &two, &["--workers", "2"]));
    assert_eq!(differing(&tables(&one), &tables(&two)), [""; 0]);
    export_json(&one, &one.join("json"));
    let answer = reference();
    let scores = &answer.methods["position"];
    let value = |metric: &str, subset: usize| match metric {
        "loss" => mean(&scores.nll[subset]),
        other => scores.metrics[other][subset],
    };

    let heads = rows(&one, "heads");
    assert_eq!(heads.len() as u64, METRICS.len() as u64 * LAYERS * HEADS);
    for row in &heads {
        let metric = row["metric"].as_str().unwrap();
        let h = row["layer"].as_u64().unwrap() * HEADS + row["head"].as_u64().unwrap();
        let (none, gone) = (value(metric, 0), value(metric, 1 + h as usize));
        let sign = if metric == "loss" { 1.0 } else { -1.0 };
        close(&row["baseline"], none, metric);
        close(&row["value"], gone, metric);
        close(&row["delta"], sign * (gone - none), metric);
    }
    let mut compared = 0;
    for row in rows(&one, "pairs") {
        let at = |side: &str| {
            let of = |what: &str| row[format!("{side}_{what}")].as_u64().unwrap();
            of("layer") * HEADS + of("head")
        };
        let (a, b) = (at("a"), at("b"));
        if b != a + 1 {
            continue;
        }
        compared += 1;
        let [none, first, second] = [0, 1 + a, 1 + b].map(|s| value("loss", s as usize));
        let both = value("loss", (1 + LAYERS * HEADS + a) as usize);
        close(&row["delta_ab"], both - none, "delta_ab");
        close(&row["interaction"], both - first - second + none, "interaction");
    }
    assert_eq!(compared, LAYERS * HEADS - 1);

    // Greedy's first choice: the least loss on the selecting half.
    let examples = rows(&one, "examples");
    let selecting: Vec<usize> = examples
        .iter()
        .filter(|e| e["task"] == "loss" && e["half"] == 0)
        .map(|e| e["index"].as_u64().unwrap() as usize)
        .collect();
    assert_eq!(selecting.len(), 6);
    let loss = |h: u64| mean(&selecting.iter().map(|&i| scores.nll[1 + h as usize][i]).collect::<Vec<_>>());
    let best = (0..LAYERS * HEADS).min_by(|a, b| loss(*a).total_cmp(&loss(*b))).unwrap();
    let curve = rows(&one, "curve");
    let first = curve.iter().find(|r| r["order"] == "greedy" && r["step"] == 1).unwrap();
    assert_eq!(first["layer"].as_u64().unwrap() * HEADS + first["head"].as_u64().unwrap(), best);
}

#[test]
fn a_run_without_its_images_or_of_a_task_on_text_is_refused_with_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let data = records(folder.path(), &IMAGES[..4], |_| json!("cat"));
    let path = folder.path().join("spec.toml");
    let wrong = |words: &[&str]| {
        refused(&run(&path, &folder.path().join("wrong"), &[]).output().unwrap(), words);
    };
    std::fs::write(&path, spec_of(&data)).unwrap();
    std::fs::remove_file(folder.path().join("pictures/alpha.png")).unwrap();
    wrong(&["data.jsonl:3: image ", "alpha.png: No such file"]);
    let outside = std::fs::read_to_string(&data).unwrap().replace("pictures/gray1.png", "../gray1.png");
    std::fs::write(&data, outside).unwrap();
    wrong(&["data.jsonl:2: image \"../gray1.png\" should be a path relative to the data file's folder"]);
    std::fs::write(
        &path,
        format!(
            "name = \"t\"\n[model]\nsource = {:?}\n[[task]]\nname = \"t\"\nkind = \"similarity\"\ndata = {data:?}\n\
             [ablation]\nmethod = \"zero\"\n[[sweep]]\nkind = \"single\"\n",
            made().join("plain")
        ),
    )
    .unwrap();
    wrong(&["a similarity task needs a model that reads text", "vit, which looks at images"]);
}
