//! Units, donors and reference sets through the built programs, on MiniLM.
#![allow(clippy::unwrap_used, reason = "tests")]

use ablate_tests::minilm;
use ablate_tests::program::{export_json, finish, json, lee, refused, run, said};
use serde_json::Value;
use std::path::{Path, PathBuf};

const SWEEPS: &str = "[[sweep]]\nkind = \"single\"\n[[sweep]]\nkind = \"pairs\"\n[[sweep]]\nkind = \"greedy\"\nsplit = \"none\"\nrandom_orders = 2\n";

fn spec(folder: &Path, name: &str, ablations: &str, sweeps: &str) -> PathBuf {
    let path = folder.join(format!("{name}.toml"));
    let text = format!(
        "name = \"{name}\"\n[model]\nsource = {:?}\n[[task]]\nname = \"lee\"\nkind = \"similarity\"\n\
         data = \"pairs.jsonl\"\nmax_tokens = 8\n{ablations}\n{sweeps}",
        minilm()
    );
    std::fs::write(&path, text).unwrap();
    path
}

/// Runs a spec, and gives its folder and its tables as JSON rows.
fn tables(spec: &Path) -> (PathBuf, impl Fn(&str) -> Vec<Value> + use<>) {
    let out = spec.with_extension("out");
    drop(said(run(spec, &out, &[])));
    let exported = spec.with_extension("json");
    export_json(&out, &exported);
    (out, move |name| json(&exported.join(name)).as_array().unwrap().clone())
}

#[test]
fn layers_and_sets_are_removed_whole_and_named_in_every_table() {
    let folder = tempfile::tempdir().unwrap();
    lee(folder.path(), 6);
    let third: Vec<String> = (0..12).map(|h| format!("\"L2.H{h}\"")).collect();
    let ablations = format!(
        "[[ablation]]\nmethod = \"mean\"\nunit = \"layer\"\n[[ablation]]\nmethod = \"mean\"\nunit = \"set\"\n\
         [ablation.sets]\n\"third layer\" = [{}]\nfew = [\"L4.H1\", \"L0.H3\"]\nmore = [\"L0.H3\", \"L5.H0\", \"L5.H1\"]",
        third.join(", ")
    );
    let (out, rows) = tables(&spec(folder.path(), "units", &ablations, SWEEPS));
    let heads = rows("heads.json");
    let layers: Vec<&Value> = heads.iter().filter(|r| r["unit"] == "layer").collect();
    let sets: Vec<&Value> = heads.iter().filter(|r| r["unit"] == "set").collect();
    assert_eq!((layers.len(), sets.len()), (6, 3));
    assert!(layers.iter().enumerate().all(|(l, r)| {
        r["layer"] == l
            && r["stream"] == "self"
            && r["head"].is_null()
            && r["unit_heads"] == 12
            && r["name"] == format!("L{l}")
    }));
    let names: Vec<&Value> = sets.iter().map(|r| &r["name"]).collect();
    assert_eq!(names, ["third layer", "few", "more"]);
    assert!(sets.iter().all(|r| r["stream"].is_null() && r["layer"].is_null() && r["head"].is_null()));
    // The same heads under another name have the same effect.
    let delta = |r: &Value| r["delta"].as_f64().unwrap();
    assert!((delta(layers[2]) - delta(sets[0])).abs() <= 1e-5, "{} {}", layers[2], sets[0]);
    assert!(delta(layers[2]) != 0.0);
    let pairs = rows("pairs.json");
    assert_eq!(pairs.iter().filter(|r| r["unit"] == "layer").count(), 15);
    let of_sets: Vec<[&Value; 2]> =
        pairs.iter().filter(|r| r["unit"] == "set").map(|r| [&r["a_name"], &r["b_name"]]).collect();
    assert_eq!(of_sets, [["third layer", "few"], ["third layer", "more"], ["few", "more"]]);
    // κ counts heads: layers go by twelves; of sets that overlap the union goes.
    let curve = rows("curve.json");
    let greedy = |unit: &str| -> Vec<(u64, f64)> {
        let of = curve.iter().filter(|r| r["unit"] == unit && r["order"] == "greedy");
        of.map(|r| (r["removed"].as_u64().unwrap(), r["fraction"].as_f64().unwrap())).collect()
    };
    assert_eq!(greedy("layer"), [0, 12, 24, 36, 48, 60].map(|n| (n, n as f64 / 72.0)));
    let last = *greedy("set").last().unwrap();
    assert_eq!((greedy("set").len(), last), (4, (16, 16.0 / 72.0)));
    let scores = rows("scores.json");
    let both = |r: &&Value| r["unit"] == "set" && r["sweep"] == "pairs" && r["rank"] == 2;
    let subset = scores.iter().find(both).unwrap()["subset"].to_string();
    assert_eq!(subset.matches("layer").count(), 4, "few and more have a head in common: {subset}");
    let floor = |r: &&Value| r["unit"] == "set" && r["sweep"] == "reference" && r["rank"] == 1;
    assert_eq!(scores.iter().find(floor).unwrap()["subset"].to_string().matches("layer").count(), 72);
    let summary = json(&out.join("summary.json"));
    assert_eq!(summary["tasks"][1]["unit"], "set");
}

#[test]
fn matched_orders_remove_as_many_heads_of_each_layer_as_greedy() {
    let folder = tempfile::tempdir().unwrap();
    lee(folder.path(), 6);
    let sweep = "[[sweep]]\nkind = \"greedy\"\nfraction = 1.0\nsplit = \"none\"\n\
                 orders = [\"greedy\", \"matched\", \"random\"]\nrandom_orders = 2\n";
    let (out, rows) = tables(&spec(folder.path(), "matched", "[ablation]\nmethod = \"mean\"", sweep));
    let curve = rows("curve.json");
    let along = |order: &str| -> Vec<(u64, f64)> {
        let of = curve.iter().filter(|r| r["order"] == order);
        of.map(|r| (r["removed"].as_u64().unwrap(), r["value"].as_f64().unwrap())).collect()
    };
    let removed = |order: &str| -> Vec<u64> { along(order).into_iter().map(|p| p.0).collect() };
    assert_eq!(removed("matched-00"), [0, 8, 15, 22, 29, 36, 44, 51, 57, 58, 65, 72]);
    assert_eq!((removed("matched-01"), along("matched-02").len()), (removed("random-00"), 0));
    let scores = rows("scores.json");
    // How many heads of each layer a subset has.
    let layers = |sweep: &str, rank: u64| -> [u64; 6] {
        let row = scores.iter().find(|r| r["sweep"] == sweep && r["rank"] == rank).unwrap();
        let mut of = [0; 6];
        for head in row["subset"].as_array().unwrap() {
            of[head["layer"].as_u64().unwrap() as usize] += 1;
        }
        of
    };
    let (greedy, points) = (along("greedy"), removed("matched-00"));
    let (mut whole, mut differ) = (0, 0);
    for (k, &gone) in points[1..].iter().enumerate() {
        let expected = layers("path-greedy", gone - 1);
        for order in 0..2 {
            assert_eq!(layers("matched", order * 11 + k as u64), expected);
            let (own, of_greedy) = (along(&format!("matched-{order:02}"))[k + 1].1, greedy[gone as usize].1);
            // Where only whole layers are gone, nothing is left to chance.
            if expected.iter().all(|n| [0, 12].contains(n)) {
                assert!((own - of_greedy).abs() <= 1e-5, "{gone}: {own} {of_greedy}");
                whole += 1;
            }
            differ += u32::from((own - of_greedy).abs() > 1e-5);
        }
    }
    assert!(whole >= 2 && differ > 0, "{whole} {differ}");
    let orders: Vec<Value> = rows("orders.json").into_iter().map(|r| r["order"].clone()).collect();
    assert_eq!(orders, ["greedy", "random-00", "random-01", "random", "matched-00", "matched-01", "matched"]);
    let summary = json(&out.join("summary.json"));
    assert_eq!(summary["tasks"][0]["curves"][0]["matched"]["orders"], 2);
}

#[test]
fn a_reference_set_of_the_evaluation_sets_own_texts_changes_no_bit() {
    let folder = tempfile::tempdir().unwrap();
    lee(folder.path(), 6);
    std::fs::copy(folder.path().join("pairs.jsonl"), folder.path().join("again.jsonl")).unwrap();
    let single = "[[sweep]]\nkind = \"single\"\n";
    let mean = "[ablation]\nmethod = \"mean\"\nunit = \"layer\"";
    let (own, _) = tables(&spec(folder.path(), "own", mean, single));
    let other = format!("{mean}\nreference = \"again.jsonl\"");
    let (other, _) = tables(&spec(folder.path(), "other", &other, single));
    let read = |out: &Path| std::fs::read(out.join("scores.parquet")).unwrap();
    assert!(read(&own) == read(&other));
    assert_eq!(json(&other.join("run.json"))["plan"]["references"].as_array().unwrap().len(), 1);
}

#[test]
fn donors_are_drawn_by_the_seed_and_whatever_selects_nothing_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    lee(folder.path(), 6);
    let seeded = "[ablation]\nmethod = \"resample\"\nunit = \"layer\"";
    let single = "[[sweep]]\nkind = \"single\"\n";
    let first = spec(folder.path(), "first", seeded, single);
    let (out, rows) = tables(&first);
    assert!(
        rows("heads.json").iter().all(|r| r["method"] == "resample" && r["delta"].as_f64().unwrap() != 0.0)
    );
    let donors =
        |out: &Path| json(&out.join("run.json"))["plan"]["ablations"][0]["sources"][0]["donors"].clone();
    let again = spec(folder.path(), "again", seeded, single);
    let (same, _) = tables(&again);
    assert_eq!(donors(&out), donors(&same));
    let bytes = |out: &Path| std::fs::read(out.join("heads.parquet")).unwrap();
    assert!(bytes(&out) == bytes(&same));
    let text = std::fs::read_to_string(&first).unwrap();
    let other = folder.path().join("other.toml");
    std::fs::write(&other, format!("seed = 1\n{text}")).unwrap();
    assert_ne!(donors(&out), donors(&tables(&other).0));

    let refuse = |name: &str, ablations: &str, sweeps: &str, words: &[&str]| {
        let path = spec(folder.path(), name, ablations, sweeps);
        refused(&finish(&mut run(&path, &folder.path().join("none"), &[])), words);
        assert!(!folder.path().join("none").exists());
    };
    let cross = "[[sweep]]\nkind = \"single\"\nstreams = [\"cross\"]\n";
    refuse(
        "cross",
        "[ablation]\nmethod = \"zero\"",
        cross,
        &["cross.toml:13", "selects no head", "stream self"],
    );
    let base = "[[sweep]]\nkind = \"pairs\"\nbase = [\"L0.H1\", \"L6.H0\"]\n";
    refuse(
        "base",
        "[ablation]\nmethod = \"zero\"",
        base,
        &["base.toml:13", "\"L6.H0\" is none of the heads", "L5.H11"],
    );
    let set =
        "[ablation]\nmethod = \"zero\"\nunit = \"set\"\n[ablation.sets]\na = [\"L0.H0\"]\nb = [\"L6.H0\"]";
    refuse("set", set, single, &["set.toml:14", "set \"b\" selects no head with L6.H0", "L5.H11"]);
    let paired = "[ablation]\nmethod = \"resample\"\ndonors = \"paired\"";
    refuse("paired", paired, single, &["paired.toml:11", "pairs.jsonl:1", "a_counterfactual"]);
}
