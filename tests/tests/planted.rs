//! Planted truth: models with hand-set weights (see `ablate_tests::planted`) in which it is known what each
//! head does, run by the built programs, for every method of ablation. What must come out is worked out here
//! from the plant alone: exactly, where it is known what a head is replaced by, and its order of size otherwise.
#![allow(clippy::unwrap_used, reason = "tests")]

use ablate_tests::planted::{LARGE, Part, Planted};
use ablate_tests::program::{ablate, run, said};
use serde_json::Value;
use std::path::Path;

/// A method of ablation.
struct Method {
    /// Its settings in the spec.
    settings: &'static str,
    /// What stands in a head's place, of its z there and of its mean over all tokens without ablation; `None`
    /// where that isn't known beforehand.
    instead: Option<fn(f64, f64) -> f64>,
}

const METHODS: [Method; 3] = [
    Method { settings: "method = \"zero\"", instead: Some(|_, _| 0.0) },
    Method { settings: "method = \"mean\"", instead: Some(|_, mean| mean) },
    Method { settings: "method = \"scale\"\nscale = -1.0", instead: Some(|z, _| -z) },
];

/// How two planted heads are related.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    /// Either can do the job.
    Redundant,
    /// Both are needed.
    Overlapping,
}

type Head = (usize, usize);

/// What is planted in a model.
struct Plant<'a> {
    name: &'a str,
    model: Planted,
    /// (layers, heads per layer).
    shape: (usize, usize),
    /// The two heads; all others do nothing.
    pair: [Head; 2],
    relation: Relation,
    /// `[[task]]` but its name.
    task: String,
    /// Loss with either gone (or not), where it is known what stands in their place.
    loss: &'a dyn Fn([bool; 2], fn(f64, f64) -> f64) -> f64,
}

/// Rounding and the norms' share: see [`LARGE`].
const CLOSE: f64 = 1e-7;

fn close(got: &Value, want: f64, what: &str) {
    let got = got.as_f64().unwrap_or(f64::NAN);
    assert!((got - want).abs() <= CLOSE, "{what}: {got} instead of {want}");
}

fn rows(folder: &Path, table: &str) -> Vec<Value> {
    let text = std::fs::read(folder.join(format!("{table}.json"))).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn head(row: &Value, prefix: &str) -> Head {
    let number = |name: &str| row[format!("{prefix}{name}")].as_u64().unwrap() as usize;
    (number("layer"), number("head"))
}

/// Runs all sweeps with a method and compares the tables with what was planted.
fn check(plant: &Plant<'_>, method: &Method, folder: &Path) {
    let what = format!("{} ({})", plant.name, method.settings.replace('\n', ", "));
    plant.model.save(&folder.join("model"));
    let spec = format!(
        "name = \"planted\"\n[model]\nsource = \"model\"\ndtype = \"f64\"\n[[task]]\nname = \"t\"\n{}\n[ablation]\n{}\n\
         [[sweep]]\nkind = \"single\"\n[[sweep]]\nkind = \"pairs\"\n[[sweep]]\nkind = \"greedy\"\nfraction = 1.0\n\
         split = \"none\"\norders = [\"greedy\"]\n",
        plant.task, method.settings
    );
    let (path, out, json) = (folder.join("spec.toml"), folder.join("out"), folder.join("json"));
    std::fs::write(&path, spec).unwrap();
    said(run(&path, &out, &[]));
    let mut export = ablate();
    export.arg("export").arg(&out).args(["--format", "json", "--out"]).arg(&json);
    said(export);
    let loss = |gone| method.instead.map(|instead| (plant.loss)(gone, instead));
    singles(plant, &what, &rows(&json, "heads"), &loss);
    pairs(plant, &what, &rows(&json, "pairs"), &loss);
    greedy(plant, &what, &rows(&json, "curve"), &loss);
}

/// Δ of each head: that of the planted ones as derived, that of all others exactly 0.
fn singles(plant: &Plant<'_>, what: &str, rows: &[Value], loss: &dyn Fn([bool; 2]) -> Option<f64>) {
    assert_eq!(rows.len(), plant.shape.0 * plant.shape.1);
    for row in rows {
        let at = head(row, "");
        let Some(which) = plant.pair.iter().position(|p| *p == at) else {
            assert_eq!(
                (row["delta"].as_f64(), row["p_value"].as_f64()),
                (Some(0.0), Some(1.0)),
                "{what} {at:?}"
            );
            continue;
        };
        if let (Some(none), Some(gone)) = (loss([false; 2]), loss([which == 0, which == 1])) {
            close(&row["baseline"], none, what);
            close(&row["delta"], gone - none, &format!("{what}: Δ of {at:?}"));
        }
    }
}

/// I and relation of the planted pair as derived; no other pair is related.
fn pairs(plant: &Plant<'_>, what: &str, rows: &[Value], loss: &dyn Fn([bool; 2]) -> Option<f64>) {
    let n = plant.shape.0 * plant.shape.1;
    assert_eq!(rows.len(), n * (n - 1) / 2);
    for row in rows {
        if [head(row, "a_"), head(row, "b_")] != plant.pair {
            assert_eq!(row["relation"], "unresolved", "{what}: {row}");
            close(&row["interaction"], 0.0, what);
            continue;
        }
        let name = if plant.relation == Relation::Redundant { "redundant" } else { "overlapping" };
        assert_eq!(row["relation"], name, "{what}: {row}");
        if let [Some(none), Some(a), Some(b), Some(both)] =
            [[false, false], [true, false], [false, true], [true, true]].map(loss)
        {
            close(&row["delta_ab"], both - none, &format!("{what}: Δ of both"));
            close(&row["interaction"], both - a - b + none, &format!("{what}: interaction"));
        }
        let number = |name: &str| row[name].as_f64().unwrap();
        let (a, b, both) = (number("delta_a"), number("delta_b"), number("delta_ab"));
        match plant.relation {
            Relation::Redundant => assert!(both > 0.3 && a < both / 2.0 && b < both / 2.0, "{what}: {row}"),
            Relation::Overlapping => assert!(a > 0.3 && b > 0.3 && both < a + b - 0.3, "{what}: {row}"),
        }
    }
}

/// Greedy lets those go first that do nothing; of two that can stand in for each other one stays to the end,
/// and of two that are needed both.
fn greedy(plant: &Plant<'_>, what: &str, rows: &[Value], loss: &dyn Fn([bool; 2]) -> Option<f64>) {
    let mut steps: Vec<&Value> = rows.iter().filter(|r| r["order"] == "greedy").collect();
    steps.sort_by_key(|r| r["step"].as_u64());
    let n = plant.shape.0 * plant.shape.1;
    assert_eq!(steps.len(), n + 1, "{what}");
    let mut gone = [false; 2];
    for (k, row) in steps.iter().enumerate() {
        if k > 0 {
            let removed = head(row, "");
            for (gone, planted) in gone.iter_mut().zip(plant.pair) {
                *gone |= planted == removed;
            }
        }
        let idle = k - gone.iter().filter(|g| **g).count();
        let last = if plant.relation == Relation::Redundant { [true, true] } else { gone };
        if gone == last && gone.contains(&true) {
            assert_eq!(idle, n - 2, "{what}: {removed:?} went too early", removed = head(row, ""));
        }
        if let Some(value) = loss(gone) {
            close(&row["value"], value, &format!("{what}: step {k}"));
        }
    }
    assert_eq!(gone, [true; 2], "{what}");
}

fn check_all(plant: &Plant<'_>) {
    for method in &METHODS {
        let folder = tempfile::tempdir().unwrap();
        check(plant, method, folder.path());
    }
}

// The choice of " yes" or " no" after "the SIGNAL x x …": a signal is worth s = ±0.9, ±1 or ±1.1, and " yes" is
// right where s > 0. Features: 1 where the token is a signal; its s; what heads write for other heads; and
// `OUT`, from which " yes" gets the logit +L/2 · OUT and " no" −L/2 · OUT. With D = ±L · OUT, positive for the
// right one, the loss is log(1 + exp −D): 0.69 where nothing is known, 0.002 for D = L, and in the wrong way D.

const SIGNAL: usize = 1;
const S: usize = 2;
const SLOT: usize = 3;
const OUT: usize = 4;
const L: f64 = 6.0;
/// Attention scores are 0 or at least a tenth of this apart.
const SHARP: f64 = 400.0;
const SIGNALS: [(&str, f64); 6] =
    [("p9", 0.9), ("p10", 1.0), ("p11", 1.1), ("m9", -0.9), ("m10", -1.0), ("m11", -1.1)];

/// Examples: (signal, tokens of prompt and choice). More are for yes, so that means aren't 0.
fn examples() -> Vec<(&'static str, f64, usize)> {
    (0..24)
        .map(|k| (SIGNALS[if k < 14 { k % 3 } else { 3 + k % 3 }], 4 + k % 4))
        .map(|((w, s), n)| (w, s, n))
        .collect()
}

fn choice_task(folder: &Path) -> String {
    let lines: String = examples()
        .iter()
        .map(|&(word, s, n)| {
            let prompt = format!("the {word}{}", " x".repeat(n - 3));
            let answer = usize::from(s < 0.0);
            format!(
                "{}\n",
                serde_json::json!({"prompt": prompt, "choices": [" yes", " no"], "answer": answer})
            )
        })
        .collect();
    let path = folder.join("choices.jsonl");
    std::fs::write(&path, lines).unwrap();
    format!("kind = \"next_token_choice\"\nmetric = \"loss\"\ndata = {path:?}\nmax_tokens = 8")
}

/// Two layers of three heads, all of which look at the signal and read its s. None writes anything yet.
fn choice_model() -> Planted {
    let words = ["the", "x", "yes", "no"].into_iter().chain(SIGNALS.iter().map(|s| s.0)).collect();
    let mut model = Planted::new(words, false, 8, 2, (3, 4));
    for (token, (_, s)) in (4..).zip(SIGNALS) {
        model.embed(token, SIGNAL, 1.0);
        model.embed(token, S, s);
    }
    model.unembed(2, OUT, L / 2.0);
    model.unembed(3, OUT, -L / 2.0);
    for layer in 0..2 {
        for head in 0..3 {
            // Score SHARP at the signal. The first token, which sees only itself, finds s = 0.
            model.read((layer, head), Part::Query, 0, 0, SHARP / LARGE);
            model.read((layer, head), Part::Key, 0, SIGNAL, 1.0);
            model.read((layer, head), Part::Value, 0, S, 1.0);
        }
    }
    model
}

/// Mean over all tokens of a head's z that is s at every token but the first.
fn mean_s() -> f64 {
    let all = examples();
    let sum: f64 = all.iter().map(|&(_, s, n)| s * (n as f64 - 1.0)).sum();
    sum / all.iter().map(|e| e.2 as f64).sum::<f64>()
}

/// Loss where `out` gives OUT at the end of an example, of its s.
fn choice_loss(out: impl Fn(f64) -> f64) -> f64 {
    let all = examples();
    let sum: f64 = all.iter().map(|&(_, s, _)| (-L * out(s) * s.signum()).exp().ln_1p()).sum();
    sum / all.len() as f64
}

/// z of a head, or what stands in its place.
fn held(gone: bool, instead: fn(f64, f64) -> f64, z: f64, mean: f64) -> f64 {
    if gone { instead(z, mean) } else { z }
}

#[test]
fn duplicate_heads_are_redundant() {
    // OUT = s + s. With one gone to zero D = L instead of 2 L: Δ ≈ 0.002. With both gone D = 0: Δ ≈ 0.69.
    let folder = tempfile::tempdir().unwrap();
    let mut model = choice_model();
    let pair = [(0, 0), (0, 2)];
    pair.iter().for_each(|&h| model.write(h, 0, OUT, 1.0));
    let loss = |gone: [bool; 2], instead: fn(f64, f64) -> f64| {
        choice_loss(|s| gone.iter().map(|&g| held(g, instead, s, mean_s())).sum())
    };
    check_all(&Plant {
        name: "duplicates",
        model,
        shape: (2, 3),
        pair,
        relation: Relation::Redundant,
        task: choice_task(folder.path()),
        loss: &loss,
    });
}

#[test]
fn heads_in_series_overlap() {
    // The first writes s to SLOT at every token; the second takes SLOT from the signal's to OUT. Whichever is
    // gone, or both, nothing of s arrives: Δ ≈ 0.69 each, together no more, I ≈ −0.69. Flipped twice, it is right
    // again.
    let folder = tempfile::tempdir().unwrap();
    let mut model = choice_model();
    let pair = [(0, 1), (1, 1)];
    model.write(pair[0], 0, SLOT, 1.0);
    model.read(pair[1], Part::Value, 1, SLOT, 1.0);
    model.write(pair[1], 1, OUT, 1.0);
    let loss = |gone: [bool; 2], instead: fn(f64, f64) -> f64| {
        choice_loss(|s| {
            let slot = held(gone[0], instead, s, mean_s());
            held(gone[1], instead, slot, mean_s())
        })
    };
    check_all(&Plant {
        name: "series",
        model,
        shape: (2, 3),
        pair,
        relation: Relation::Overlapping,
        task: choice_task(folder.path()),
        loss: &loss,
    });
}

#[test]
fn a_backup_head_that_wakes_makes_the_first_look_needless() {
    // The first writes s to SLOT. The backup's score at the signal is SHARP (1/2 − SLOT · s), and elsewhere 0: while
    // SLOT holds s (s² ≥ 0.8) it looks away and finds 0; where SLOT holds 0, a mean (|mean · s| < 1/2) or −s it
    // wakes and writes 2 s. OUT = SLOT + what the backup writes. Alone, neither costs anything: without the first
    // OUT is still at least s, and the backup sleeps. Without both nothing of s is left: Δ ≈ 0.69 or more.
    let folder = tempfile::tempdir().unwrap();
    let mut model = choice_model();
    let pair = [(0, 0), (1, 2)];
    model.write(pair[0], 0, SLOT, 1.0);
    model.unembed(2, SLOT, L / 2.0);
    model.unembed(3, SLOT, -L / 2.0);
    model.read(pair[1], Part::Query, 0, 0, -SHARP / 2.0 / LARGE);
    model.read(pair[1], Part::Query, 1, SLOT, -SHARP);
    model.read(pair[1], Part::Key, 1, S, 1.0);
    model.write(pair[1], 0, OUT, 2.0);
    assert!(mean_s() > 0.05 && mean_s() * 1.1 < 0.4);
    let loss = |gone: [bool; 2], instead: fn(f64, f64) -> f64| {
        choice_loss(|s| {
            let slot = held(gone[0], instead, s, mean_s());
            let z = if slot * s < 0.5 { s } else { 0.0 };
            slot + 2.0 * held(gone[1], instead, z, 0.0)
        })
    };
    check_all(&Plant {
        name: "backup",
        model,
        shape: (2, 3),
        pair,
        relation: Relation::Redundant,
        task: choice_task(folder.path()),
        loss: &loss,
    });
}

// Induction: <s> and eight words w, of which four come twice. Features: position (from 0), own word, the word
// before (PREVIOUS, written by the first head), and the word that is to come (NEXT, written by the second).

const WORDS: usize = 8;
const TOKENS: usize = 9;
const POSITION: usize = 1;
const OWN: usize = POSITION + TOKENS;
const PREVIOUS: usize = OWN + WORDS;
const NEXT: usize = PREVIOUS + WORDS;

/// Two layers of four heads; head 1 of the first looks one token back, head 3 of the second looks for a token
/// whose word before is its own, and tells that token's word.
fn induction_model(pair: [Head; 2]) -> Planted {
    let words = vec!["<s>", "w1", "w2", "w3", "w4", "w5", "w6", "w7", "w8"];
    let mut model = Planted::new(words, true, TOKENS, 2, (4, 18));
    for p in 0..TOKENS {
        model.place(p, POSITION + p, 1.0);
    }
    for w in 0..WORDS {
        model.embed(w + 1, OWN + w, 1.0);
        model.unembed(w + 1, NEXT + w, L);
        for head in [(0, 0), (0, 2), (1, 0)] {
            // These read what they see, and write nothing.
            model.read(head, Part::Value, w, OWN + w, 1.0);
            model.read(head, Part::Query, w, OWN + (w + 1) % WORDS, 0.5);
            model.read(head, Part::Key, w, OWN + w, 0.5);
        }
        let [previous, induction] = pair;
        model.read(previous, Part::Value, w, OWN + w, 1.0);
        model.write(previous, w, PREVIOUS + w, 1.0);
        model.read(induction, Part::Query, w, OWN + w, SHARP);
        model.read(induction, Part::Key, w, PREVIOUS + w, 1.0);
        model.read(induction, Part::Value, w, OWN + w, 1.0);
        model.write(induction, w, NEXT + w, 1.0);
    }
    for p in 1..TOKENS {
        model.read(pair[0], Part::Query, p, POSITION + p, SHARP);
        model.read(pair[0], Part::Key, p, POSITION + p - 1, 1.0);
    }
    model
}

type Word = [f64; WORDS];

/// What the induction task's items are: words, none for `<s>`.
fn induction_items(spec: &str, folder: &Path) -> Vec<Vec<Option<usize>>> {
    let spec = ablate_common::spec::parse(spec, "planted.toml").unwrap();
    let made = ablate_prepare::prepare(&spec, folder, &|_, _, _| {}).unwrap();
    let words = |tokens: &[u32]| tokens.iter().map(|&t| (t as usize).checked_sub(1)).collect();
    made.prepared[0].items.iter().map(|i| words(&i.tokens)).collect()
}

fn one_hot(word: Option<usize>) -> Word {
    std::array::from_fn(|w| f64::from(u8::from(word == Some(w))))
}

/// What both heads hold at every token of an item: (the word before, the word to come).
fn induction_run(
    item: &[Option<usize>],
    mut previous: impl FnMut(Word) -> Word,
    mut next: impl FnMut(Word) -> Word,
) -> Vec<(Word, Word)> {
    // <s> looks back at itself.
    let before: Vec<Word> = (0..item.len()).map(|i| previous(one_hot(item[i.saturating_sub(1)]))).collect();
    let told = (0..item.len()).map(|i| {
        let score = |j: usize| item[i].map_or(0.0, |w| SHARP * before[j][w]);
        let most = (0..=i).map(score).fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = (0..=i).map(|j| (score(j) - most).exp()).collect();
        let total: f64 = weights.iter().sum();
        let z = std::array::from_fn(|w| {
            weights.iter().zip(item).map(|(a, word)| a / total * one_hot(*word)[w]).sum()
        });
        next(z)
    });
    let told: Vec<Word> = told.collect();
    before.into_iter().zip(told).collect()
}

fn mean(words: impl Iterator<Item = Word>) -> Word {
    let (mut sum, mut n) = ([0.0; WORDS], 0.0);
    for word in words {
        sum.iter_mut().zip(word).for_each(|(s, w)| *s += w);
        n += 1.0;
    }
    sum.map(|s| s / n)
}

#[test]
fn an_induction_pair_is_needed_as_a_whole() {
    // Whole, NEXT is the right word, and its logit L above 8 others. Without the second NEXT is the same at every
    // token (0, the mean), or wrong: the loss is log 9 or so. Without the first all keys are equal, so that the second
    // tells all words seen, each with its share of them. Removing the first as well as the second changes nothing
    // more (to zero or mean).
    let folder = tempfile::tempdir().unwrap();
    let pair = [(0, 1), (1, 3)];
    let model = induction_model(pair);
    let task = "kind = \"induction\"\nexamples = 24\nmax_tokens = 9".to_owned();
    model.save(&folder.path().join("model"));
    let items = induction_items(
        &format!(
            "name = \"p\"\n[model]\nsource = \"model\"\n[[task]]\nname = \"t\"\n{task}\n[ablation]\nmethod = \"zero\"\n[[sweep]]\nkind = \"single\"\n"
        ),
        folder.path(),
    );
    let whole: Vec<(Word, Word)> = items.iter().flat_map(|item| induction_run(item, |p| p, |n| n)).collect();
    let means = [mean(whole.iter().map(|h| h.0)), mean(whole.iter().map(|h| h.1))];
    let loss = |gone: [bool; 2], instead: fn(f64, f64) -> f64| {
        let held = |which: usize| {
            move |z: Word| -> Word {
                std::array::from_fn(|w| held(gone[which], instead, z[w], means[which][w]))
            }
        };
        let (mut sum, mut n) = (0.0, 0.0);
        for item in &items {
            let told = induction_run(item, held(0), held(1));
            // The repeat's words but the first; <s> has logit 0.
            for i in 5..8 {
                let next = told[i].1;
                let all = next.iter().map(|x| (L * x).exp()).sum::<f64>() + 1.0;
                sum += all.ln() - L * next[item[i + 1].unwrap()];
                n += 1.0;
            }
        }
        sum / n
    };
    assert!((loss([false, true], |_, _| 0.0) - 9f64.ln()).abs() < 1e-12);
    check_all(&Plant {
        name: "induction",
        model,
        shape: (2, 4),
        pair,
        relation: Relation::Overlapping,
        task,
        loss: &loss,
    });
}
