//! Models with hand-set weights in which the answer is known, through the built programs and out of their
//! tables, for every method of ablation.
#![allow(clippy::unwrap_used, reason = "tests")]

use ablate_tests::planted::{Feature, HeadSpec, Layer, Net, Neuron};
use ablate_tests::program::{ablate, differing, finish, json, run, tables};
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;

/// Methods, as the lines of `[ablation]`. The data are balanced, so that a mean of z carries nothing, pooled
/// or by position, and what is planted shows alike.
const METHODS: [(&str, &str); 4] = [
    ("zero", "method = \"zero\""),
    ("mean", "method = \"mean\""),
    ("mean by position", "method = \"mean\"\npool = \"position\""),
    // Of a counterfactual without a sign, or without a repeat.
    ("resample", "method = \"resample\"\ndonors = \"paired\""),
];

/// Score of attention between what belongs together; e⁻²⁰⁰ is nothing.
const LOOK: f64 = 200.0;

// Words: a sign and its strength, fillers, and answers.
const SIGNS: usize = 6;
const SIGN: Feature = 1;
const IS_SIGN: Feature = 2;
const SUM: Feature = 3;
const OUT: Feature = 4;
const IS_END: Feature = 5;
const IS_MID: Feature = 6;
const CARRIED: Feature = 7;
const PRESENT: Feature = 8;

/// A model whose prompts are `s0 filler mid filler end`: the even signs mean yes (+1), the odd ones no (−1).
/// Answer k reads OUT with weight wₖ, so that the examples differ.
fn signs(layers: Vec<Layer>) -> Net {
    let mut words = vec!["<unk>".to_owned()];
    words.extend((0..SIGNS).map(|k| format!("s{k}")));
    words.extend(["f0", "f1", "f2", "mid", "end", "unsigned"].map(str::to_owned));
    let first_answer = words.len();
    words.extend((0..SIGNS).flat_map(|k| [format!("yes{k}"), format!("no{k}")]));
    let place = |w: &str| words.iter().position(|x| x == w).unwrap();
    let mut embed: Vec<(usize, Feature, f64)> = (0..SIGNS)
        .flat_map(|k| [(1 + k, SIGN, if k % 2 == 0 { 1.0 } else { -1.0 }), (1 + k, IS_SIGN, 1.0)])
        .collect();
    embed.push((place("unsigned"), IS_SIGN, 1.0));
    embed.push((place("end"), IS_END, 1.0));
    embed.push((place("mid"), IS_MID, 1.0));
    let logits = (0..SIGNS)
        .flat_map(|k| [(first_answer + 2 * k, OUT, weight(k)), (first_answer + 2 * k + 1, OUT, -weight(k))])
        .collect();
    Net { words, embed, positions: Vec::new(), layers, logits }
}

/// How strongly answer k reads; those of a yes and of a no are alike, so that their mean is 0.
fn weight(k: usize) -> f64 {
    1.0 + 0.1 * (k / 2) as f64
}

/// Mean of the logit difference, 2 wₖ, where OUT is what the sign says.
const WHOLE: f64 = 2.2;

fn prompts(folder: &Path) -> String {
    let mut lines = String::new();
    for k in 0..SIGNS {
        for f in 0..3 {
            let (target, foil) = if k % 2 == 0 { ("yes", "no") } else { ("no", "yes") };
            let other = (f + k) % 3;
            writeln!(
                lines,
                r#"{{"prompt": "s{k} f{f} mid f{other} end", "target": " {target}{k}", "foil": " {foil}{k}", "counterfactual": "unsigned f{f} mid f{other} end"}}"#
            )
            .unwrap();
        }
    }
    let path = folder.join("prompts.jsonl");
    std::fs::write(&path, lines).unwrap();
    format!("kind = \"logit_difference\"\ndata = {path:?}\nmax_tokens = 16")
}

/// Looks at the sign from everywhere and adds it to `to`.
fn sees_sign(to: Feature) -> HeadSpec {
    HeadSpec {
        q_bias: vec![(0, LOOK)],
        k: vec![(IS_SIGN, 0, 1.0)],
        v: vec![(SIGN, 1, 1.0)],
        o: vec![(1, to, 1.0)],
        ..HeadSpec::default()
    }
}

/// OUT += min(max(SUM, −1), 1): more than one does no more than one.
fn clipped() -> Vec<Neuron> {
    let neuron =
        |sign: f64, bias: f64, add: f64| Neuron { reads: vec![(SUM, sign)], bias, writes: vec![(OUT, add)] };
    vec![neuron(1.0, 0.0, 1.0), neuron(1.0, -1.0, -1.0), neuron(-1.0, 0.0, -1.0), neuron(-1.0, -1.0, 1.0)]
}

/// The tables of a run with this method, as JSON rows: heads, pairs, curve.
struct Tables {
    heads: Vec<Value>,
    pairs: Vec<Value>,
    curve: Vec<Value>,
}

fn measured(net: &Net, task: impl Fn(&Path) -> String, method: &str) -> Tables {
    let folder = tempfile::tempdir().unwrap();
    net.save(&folder.path().join("model"));
    let spec = folder.path().join("spec.toml");
    let text = format!(
        "name = \"planted\"\n[model]\nsource = \"model\"\ndtype = \"f64\"\n[[task]]\nname = \"t\"\n{}\n[ablation]\n{method}\n\
         [[sweep]]\nkind = \"single\"\n[[sweep]]\nkind = \"pairs\"\n[[sweep]]\nkind = \"greedy\"\nfraction = 0.79\nsplit = \"none\"\n",
        task(folder.path())
    );
    std::fs::write(&spec, text).unwrap();
    let out = folder.path().join("out");
    let ran = finish(&mut run(&spec, &out, &[]));
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let tables = folder.path().join("json");
    let exported = finish(ablate().arg("export").arg(&out).args(["--format", "json", "--out"]).arg(&tables));
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    let rows = |name: &str| json(&tables.join(name)).as_array().unwrap().clone();
    Tables { heads: rows("heads.json"), pairs: rows("pairs.json"), curve: rows("curve.json") }
}

impl Tables {
    fn delta(&self, (layer, head): (u64, u64)) -> f64 {
        let row = self.heads.iter().find(|r| r["layer"] == layer && r["head"] == head).unwrap();
        row["delta"].as_f64().unwrap()
    }

    fn pair(&self, a: (u64, u64), b: (u64, u64)) -> (f64, String) {
        let row = self
            .pairs
            .iter()
            .find(|r| {
                (r["a_layer"] == a.0 && r["a_head"] == a.1) && (r["b_layer"] == b.0 && r["b_head"] == b.1)
            })
            .unwrap();
        (row["interaction"].as_f64().unwrap(), row["relation"].as_str().unwrap().to_owned())
    }

    /// The metric after the greedy order's last step.
    fn left(&self) -> f64 {
        let steps = self.curve.iter().filter(|r| r["order"] == "greedy");
        steps.max_by_key(|r| r["step"].as_u64()).unwrap()["value"].as_f64().unwrap()
    }
}

fn near(got: f64, want: f64) -> bool {
    (got - want).abs() < 1e-6
}

#[test]
fn two_duplicate_heads_are_redundant_and_a_head_without_output_does_nothing() {
    let nothing = HeadSpec { o: Vec::new(), ..sees_sign(SUM) };
    let layer = Layer { heads: vec![sees_sign(SUM), nothing, sees_sign(SUM)], neurons: clipped() };
    let net = signs(vec![layer, Layer::default()]);
    for (name, method) in METHODS {
        let t = measured(&net, prompts, method);
        // SUM is ±2 with both, ±1 with one, and 0 with none.
        assert!(near(t.delta((0, 0)), 0.0) && near(t.delta((0, 2)), 0.0), "{name}: {:?}", t.heads);
        let (interaction, relation) = t.pair((0, 0), (0, 2));
        assert!(near(interaction, WHOLE) && relation == "redundant", "{name}: {interaction} {relation}");
        assert_eq!(t.delta((0, 1)), 0.0, "{name}");
        // Seven of eight are gone, and one of the two is left.
        assert!(near(t.left(), WHOLE), "{name}: {}", t.left());
    }
}

#[test]
fn two_heads_in_series_overlap() {
    let first = HeadSpec {
        q: vec![(IS_MID, 0, LOOK)],
        k: vec![(IS_SIGN, 0, 1.0)],
        v: vec![(SIGN, 1, 1.0)],
        o: vec![(1, CARRIED, 1.0)],
        ..HeadSpec::default()
    };
    let second = HeadSpec {
        q: vec![(IS_END, 0, LOOK)],
        k: vec![(IS_MID, 0, 1.0)],
        v: vec![(CARRIED, 1, 1.0)],
        o: vec![(1, OUT, 1.0)],
        ..HeadSpec::default()
    };
    let net = signs(vec![
        Layer { heads: vec![HeadSpec::default(), first], neurons: Vec::new() },
        Layer { heads: vec![HeadSpec::default(), HeadSpec::default(), second], neurons: Vec::new() },
    ]);
    for (name, method) in METHODS {
        let t = measured(&net, prompts, method);
        // Nothing arrives where either is gone, and no less where both are.
        assert!(near(t.delta((0, 1)), WHOLE) && near(t.delta((1, 2)), WHOLE), "{name}: {:?}", t.heads);
        let (interaction, relation) = t.pair((0, 1), (1, 2));
        assert!(near(interaction, -WHOLE) && relation == "overlapping", "{name}: {interaction} {relation}");
        // Six heads go for nothing, the seventh is one of the two.
        assert!(near(t.left(), 0.0), "{name}: {}", t.left());
    }
}

#[test]
fn a_backup_head_wakes_only_when_the_first_is_gone() {
    // Layer 0: OUT = sign, and PRESENT = |OUT|. Layer 1: at rest the backup looks at `end`, which has no sign;
    // without PRESENT it looks at the sign.
    let present = |sign: f64| Neuron { reads: vec![(OUT, sign)], bias: 0.0, writes: vec![(PRESENT, 1.0)] };
    let backup = HeadSpec {
        q: vec![(PRESENT, 0, -LOOK)],
        q_bias: vec![(0, LOOK), (1, LOOK / 2.0)],
        k: vec![(IS_SIGN, 0, 1.0), (IS_END, 1, 1.0)],
        v: vec![(SIGN, 2, 1.0)],
        o: vec![(2, OUT, 1.0)],
    };
    let net = signs(vec![
        Layer { heads: vec![sees_sign(OUT)], neurons: vec![present(1.0), present(-1.0)] },
        Layer {
            heads: vec![HeadSpec::default(), HeadSpec::default(), HeadSpec::default(), backup],
            neurons: Vec::new(),
        },
    ]);
    for (name, method) in METHODS {
        let t = measured(&net, prompts, method);
        assert!(near(t.delta((0, 0)), 0.0) && near(t.delta((1, 3)), 0.0), "{name}: {:?}", t.heads);
        let (interaction, relation) = t.pair((0, 0), (1, 3));
        assert!(near(interaction, WHOLE) && relation == "redundant", "{name}: {interaction} {relation}");
        assert!(near(t.left(), WHOLE), "{name}: {}", t.left());
    }
}

#[test]
fn an_induction_pair_needs_both_of_its_heads() {
    const WORDS: usize = 13;
    const LENGTH: usize = 12;
    let (token, before, at, out) = (1, 1 + WORDS, 1 + 2 * WORDS, 1 + 2 * WORDS + LENGTH);
    let words: Vec<String> = (0..WORDS).map(|w| format!("w{w}")).collect();
    let each = |n: usize, f: &dyn Fn(usize) -> (usize, usize, f64)| (0..n).map(f).collect::<Vec<_>>();
    // Copies the token before into BEFORE; its first position sees itself.
    let previous = HeadSpec {
        q: (1..LENGTH).map(|p| (at + p, p - 1, LOOK)).collect(),
        k: each(LENGTH, &|p| (at + p, p, 1.0)),
        v: each(WORDS, &|w| (token + w, w, 1.0)),
        o: each(WORDS, &|w| (w, before + w, 1.0)),
        ..HeadSpec::default()
    };
    // Looks where the token before is this one, never at the first position, and says the token there.
    let mut induction = HeadSpec {
        q: each(WORDS, &|w| (token + w, w, LOOK)),
        q_bias: vec![(WORDS, -LOOK)],
        k: each(WORDS, &|w| (before + w, w, 1.0)),
        v: each(WORDS, &|w| (token + w, w, 1.0)),
        o: each(WORDS, &|w| (w, out + w, 1.0)),
    };
    induction.k.push((at, WORDS, 1.0));
    let net = Net {
        words,
        embed: each(WORDS, &|w| (w, token + w, 1.0)),
        positions: each(LENGTH, &|p| (p, at + p, 1.0)),
        layers: vec![
            Layer { heads: vec![HeadSpec::default(), HeadSpec::default(), previous], neurons: Vec::new() },
            Layer { heads: vec![HeadSpec::default(), induction], neurons: Vec::new() },
        ],
        logits: each(WORDS, &|w| (w, out + w, 12.0)),
    };
    for (name, method) in METHODS {
        let task = |_: &Path| format!("kind = \"induction\"\nexamples = 12\nmax_tokens = {LENGTH}");
        let t = measured(&net, task, method);
        let baseline = t.heads[0]["baseline"].as_f64().unwrap();
        assert!(baseline < 1e-3, "{name}: {baseline}");
        let (first, second) = (t.delta((0, 2)), t.delta((1, 1)));
        assert!(first > 1.0 && second > 1.0, "{name}: {first} {second}");
        let (interaction, relation) = t.pair((0, 2), (1, 1));
        assert!(interaction < -1.0 && relation == "overlapping", "{name}: {interaction} {relation}");
        // All others do nothing at all.
        for head in (0..8).map(|i| (i / 4, i % 4)).filter(|&h| h != (0, 2) && h != (1, 1)) {
            assert_eq!(t.delta(head), 0.0, "{name}: {head:?}");
        }
    }
}

#[test]
fn attribution_is_delta_where_the_loss_is_linear_and_the_order_of_gradients_keeps_the_heads_that_matter() {
    let nothing = HeadSpec { o: Vec::new(), ..sees_sign(OUT) };
    let weak = HeadSpec { o: vec![(1, OUT, 0.25)], ..sees_sign(OUT) };
    let net = signs(vec![
        Layer { heads: vec![nothing, sees_sign(OUT)], ..Layer::default() },
        Layer { heads: vec![weak], ..Layer::default() },
    ]);
    for (name, method) in METHODS {
        let folder = tempfile::tempdir().unwrap();
        net.save(&folder.path().join("model"));
        let text = format!(
            "name = \"planted\"\n[model]\nsource = \"model\"\ndtype = \"f64\"\n[[task]]\nname = \"t\"\n{}\n[ablation]\n{method}\n\
             [[sweep]]\nkind = \"single\"\n[[sweep]]\nkind = \"gradient\"\n\
             [[sweep]]\nkind = \"greedy\"\nfraction = 0.79\norders = [\"gradient\", \"importance\"]\n",
            prompts(folder.path())
        );
        let spec = folder.path().join("spec.toml");
        std::fs::write(&spec, text).unwrap();
        let run_into = |out: &Path, more: &[&str]| {
            let ran = finish(&mut run(&spec, out, more));
            assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        };
        let out = folder.path().join("out");
        run_into(&out, &[]);
        let exported = folder.path().join("json");
        let done =
            finish(ablate().arg("export").arg(&out).args(["--format", "json", "--out"]).arg(&exported));
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let rows = |name: &str| json(&exported.join(name)).as_array().unwrap().clone();
        let (heads, gradients) = (rows("heads.json"), rows("gradients.json"));
        assert_eq!((heads.len(), gradients.len()), (8, 8));
        for (head, gradient) in heads.iter().zip(&gradients) {
            let number = |row: &Value, key: &str| row[key].as_f64().unwrap();
            assert_eq!(head["name"], gradient["name"]);
            let (delta, estimate) = (number(head, "delta"), number(gradient, "attribution"));
            assert!(near(delta, estimate), "{name}, {}: {delta} and {estimate}", head["name"]);
            assert!(near(number(head, "ci_low"), number(gradient, "ci_low")), "{name}");
            assert!(near(number(gradient, "importance"), delta.abs()), "{name}: signs are all alike");
            assert_eq!(gradient["loss"], "-logit_diff");
            let alone = gradient["importance_normalised"].as_f64().unwrap_or(f64::NAN);
            let matters = near(delta, WHOLE) || near(delta, WHOLE / 4.0);
            assert!(near(alone, f64::from(u8::from(matters))), "{name}: {alone}");
        }
        let agreement = rows("agreement.json");
        let beside =
            |score: &str| agreement.iter().any(|r| r["score_b"].as_str().unwrap().starts_with(score));
        assert!(beside("gradient t") && beside("attribution t"), "{agreement:?}");
        let curve = rows("curve.json");
        let left = |order: &str, step: u64| {
            let row = curve.iter().find(|r| r["order"] == order && r["step"] == step).unwrap();
            row["value"].as_f64().unwrap()
        };
        // Six heads do nothing; of the two others the weaker one goes first.
        let start = left("gradient", 0);
        assert!(near(left("gradient", 6), start), "{name}: {curve:?}");
        assert!(
            near(left("gradient", 7), start / 1.25) && near(left("importance", 7), start / 1.25),
            "{name}"
        );
        // Any number of workers gives the same tables.
        if name == "mean" {
            let again = folder.path().join("again");
            run_into(&again, &["--workers", "2"]);
            assert_eq!(differing(&tables(&out), &tables(&again)), Vec::<String>::new());
        }
    }
}
