//! Models with hand-set weights in which the answer is known, through the built programs and out of their
//! tables, for every method of ablation.
#![allow(clippy::unwrap_used, reason = "tests")]

mod formulas;
mod given;
mod measure;
mod signs;

use ablate_tests::planted::{HeadSpec, Layer, Net};
use ablate_tests::program::{differing, export_json, json, run, said, tables};
use measure::measured;
use serde_json::Value;
use signs::{LOOK, OUT, WHOLE, backup, duplicates, prompts, sees_sign, series, signs};
use std::path::Path;

/// Methods, as the lines of `[ablation]`. The data are balanced, so that a mean of z carries nothing, pooled
/// or by position, and what is planted shows alike. (`formulas` has data and donors that carry something.)
const METHODS: [(&str, &str); 6] = [
    ("zero", "method = \"zero\""),
    ("mean", "method = \"mean\""),
    ("mean by position", "method = \"mean\"\npool = \"position\""),
    // Of a counterfactual without a sign, or without a repeat.
    ("resample paired", "method = \"resample\"\ndonors = \"paired\""),
    // Of prompts without a sign; where there is no such file, of the other examples.
    ("resample seeded", "method = \"resample\"\nreference = \"unsigned.jsonl\""),
    // No constant does better than nothing.
    ("optimal", "method = \"optimal\"\nsteps = 8"),
];

fn near(got: f64, want: f64) -> bool {
    (got - want).abs() < 1e-6
}

#[test]
fn two_duplicate_heads_are_redundant_and_a_head_without_output_does_nothing() {
    let net = duplicates();
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
    let net = series();
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
    let net = backup();
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
    // A head that does the opposite misleads: no less is lost than without it.
    let methods = METHODS.into_iter().chain([("scale −1", "method = \"scale\"\nscale = -1.0")]);
    for (name, method) in methods {
        let task = |_: &Path| format!("kind = \"induction\"\nexamples = 12\nmax_tokens = {LENGTH}");
        // Generated examples: seeded donors are the other ones.
        let method = method.replace("\nreference = \"unsigned.jsonl\"", "");
        let t = measured(&net, task, &method);
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
    // At a quarter the first still says where to look, and the second says the token with logit 3 instead of 12, whether the
    // first is whole or not: ℓ = ln(1 + 12 e⁻³).
    let task = |_: &Path| format!("kind = \"induction\"\nexamples = 12\nmax_tokens = {LENGTH}");
    let t = measured(&net, task, "method = \"scale\"\nscale = 0.25");
    let loss = |logit: f64| (1.0 + (WORDS as f64 - 1.0) * (-logit).exp()).ln();
    assert!(near(t.delta((0, 2)), 0.0), "{:?}", t.heads);
    assert!(near(t.delta((1, 1)), loss(3.0) - loss(12.0)), "{:?}", t.heads);
    assert!(near(t.pair((0, 2), (1, 1)).0, 0.0), "{:?}", t.pairs);
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
        let run_into = |out: &Path, more: &[&str]| drop(said(run(&spec, out, more)));
        let out = folder.path().join("out");
        run_into(&out, &[]);
        let exported = folder.path().join("json");
        export_json(&out, &exported);
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
