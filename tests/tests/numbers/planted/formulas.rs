//! What each unit and pair of units costs where replaced heads carry something: classes that aren't equally frequent,
//! so that means aren't zero, donors of the other class, and scaled heads. Every number of the tables is compared
//! with what the weights give by hand.

use super::measure::{Tables, swept};
use super::near;
use super::signs::{backup, balanced, duplicates, prompts_of, series, sign, weight};
use ablate_tests::planted::Net;
use serde_json::Value;

/// What comes of a head's z: of its own, or of whatever its input gives.
type Put<'a> = &'a dyn Fn(f64) -> f64;

/// How a planted pair of heads works, for sign 1; what it does for −1 is the opposite.
struct Pair {
    net: Net,
    /// Names of the two heads, in forward order.
    heads: [(usize, usize); 2],
    /// OUT at the end, from the sign and from what stands in place of a head's z: that of its own, given as the argument,
    /// or another.
    out: fn(f64, Put<'_>, Put<'_>) -> f64,
    /// z of both at the places where it matters.
    z: [f64; 2],
    /// Mean of z of both over the five places of a prompt.
    pooled: [f64; 2],
}

fn duplicate_pair() -> Pair {
    Pair {
        net: duplicates(),
        heads: [(0, 0), (0, 2)],
        out: |s, a, b| (a(s) + b(s)).clamp(-1.0, 1.0),
        z: [1.0, 1.0],
        pooled: [1.0, 1.0],
    }
}

fn pair_in_series() -> Pair {
    // Where a head has no reason to look anywhere it sees all places so far: 1, 1/2, (at mid) 1, 1/4, 1/5.
    let carried = [1.0, 0.5, 1.0, 0.25, 0.2];
    let so_far = |n: usize| carried[..n].iter().sum::<f64>() / n as f64;
    Pair {
        net: series(),
        heads: [(0, 1), (1, 2)],
        out: |s, a, b| b(a(s)),
        z: [1.0, 1.0],
        pooled: [so_far(5), ((1..5).map(so_far).sum::<f64>() + 1.0) / 5.0],
    }
}

fn head_with_backup() -> Pair {
    Pair {
        net: backup(),
        heads: [(0, 0), (1, 3)],
        out: |s, a, b| {
            let first = a(s);
            first + b(if first.abs() < 0.5 { s } else { 0.0 })
        },
        // The backup rests at the end only: before it there is nothing else to look at.
        z: [1.0, 0.0],
        pooled: [1.0, (1.0 + 1.0 / 2.0 + 1.0 / 3.0 + 1.0 / 4.0) / 5.0],
    }
}

/// Where b comes from, or the scale.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Instead {
    Nothing,
    Pooled,
    Place,
    Flipped,
    Drawn,
    Scale(f64),
}

/// Lines of an ablation, the counterfactual's sign, and what stands in a removed head's place.
fn methods() -> Vec<(String, Instead)> {
    let of = |lines: &str, from| (lines.to_owned(), from);
    let scale = |x: f64| (format!("method = \"scale\"\nscale = {x:?}"), Instead::Scale(x));
    vec![
        of("method = \"zero\"", Instead::Nothing),
        of("method = \"mean\"", Instead::Pooled),
        of("method = \"mean\"\npool = \"position\"", Instead::Place),
        of("method = \"mean\"\nreference = \"unsigned.jsonl\"", Instead::Nothing),
        of("method = \"resample\"", Instead::Drawn),
        of("method = \"resample\"\nreference = \"unsigned.jsonl\"", Instead::Nothing),
        of("method = \"resample\"\ndonors = \"paired\"", Instead::Nothing),
        of("method = \"resample\"\ndonors = \"paired\"", Instead::Flipped),
        scale(-1.0),
        scale(0.25),
        // (Half of the first head leaves the backup between its two places: no answer is planted there.)
        scale(0.5),
    ]
}

/// Nine prompts mean yes and six no.
fn unbalanced() -> Vec<(usize, usize)> {
    balanced().into_iter().filter(|&(k, f)| sign(k) > 0.0 || f < 2).collect()
}

/// By prompt what it loses where those of the two heads are gone.
fn lost(pair: &Pair, from: Instead, donors: &[usize], gone: [bool; 2]) -> Vec<f64> {
    let all = unbalanced();
    let mean = all.iter().map(|p| sign(p.0)).sum::<f64>() / all.len() as f64;
    assert!(near(mean, 0.2));
    let one = |(i, &(k, _)): (usize, &(usize, usize))| {
        let (s, all) = (sign(k), &all);
        let put = |h: usize| {
            move |own: f64| match from {
                Instead::Nothing => 0.0,
                Instead::Pooled => mean * pair.pooled[h],
                Instead::Place => mean * pair.z[h],
                Instead::Flipped => -s * pair.z[h],
                Instead::Drawn => sign(all[donors[i]].0) * pair.z[h],
                Instead::Scale(x) => x * own,
            }
        };
        let (first, second) = (put(0), put(1));
        let a = |own: f64| if gone[0] { first(own) } else { own };
        let b = |own: f64| if gone[1] { second(own) } else { own };
        let whole = (pair.out)(s, &|own| own, &|own| own);
        2.0 * weight(k) * s * (whole - (pair.out)(s, &a, &b))
    };
    all.iter().enumerate().map(one).collect()
}

fn mean(all: &[f64]) -> f64 {
    all.iter().sum::<f64>() / all.len() as f64
}

/// Which of the two heads a unit has.
fn inside(pair: &Pair, unit: &str, name: &str) -> [bool; 2] {
    pair.heads.map(|(l, h)| match unit {
        "head" => name == format!("L{l}.H{h}"),
        "kv_group" => name == format!("L{l}.KV{h}"),
        "layer" => name == format!("L{l}"),
        _ => name == "both" || name == if (l, h) == pair.heads[0] { "first" } else { "second" },
    })
}

fn check(pair: &Pair, from: Instead, t: &Tables, what: &str) {
    let text = |r: &Value, key: &str| r[key].as_str().unwrap().to_owned();
    let mut seen = 0;
    for at in ["head", "kv_group", "layer", "set"] {
        let drawn: Vec<usize> = {
            let of = t.run["plan"]["ablations"].as_array().unwrap();
            let of = of.iter().find(|a| a["unit"] == at).unwrap();
            let donors = of["sources"][0]["donors"].as_array();
            donors.map(|d| d.iter().map(|d| d.as_u64().unwrap() as usize).collect()).unwrap_or_default()
        };
        let lost = |gone| lost(pair, from, &drawn, gone);
        for r in t.heads.iter().filter(|r| r["unit"] == at) {
            let name = text(r, "name");
            let want = mean(&lost(inside(pair, at, &name)));
            let got = r["delta"].as_f64().unwrap();
            assert!(near(got, want), "{what}, {name}: {got} isn't {want}");
            seen += 1;
        }
        for r in t.pairs.iter().filter(|r| r["unit"] == at) {
            let names = [text(r, "a_name"), text(r, "b_name")];
            let [a, b] = [&names[0], &names[1]].map(|n| inside(pair, at, n));
            let (one, two, both) = (lost(a), lost(b), lost([a[0] || b[0], a[1] || b[1]]));
            let each: Vec<f64> =
                both.iter().zip(one.iter().zip(&two)).map(|(both, (one, two))| both - one - two).collect();
            let (got, want) = (r["interaction"].as_f64().unwrap(), mean(&each));
            assert!(near(got, want), "{what}, {names:?}: {got} isn't {want}");
            let relation = if each.iter().all(|&x| x > 1e-9) {
                Some("redundant")
            } else if each.iter().all(|&x| x < -1e-9) {
                Some("overlapping")
            } else if each.iter().all(|x| x.abs() < 1e-9) {
                Some("unresolved")
            } else {
                None
            };
            if let Some(relation) = relation {
                assert_eq!(r["relation"], relation, "{what}, {names:?}: {r}");
            }
        }
    }
    assert_eq!(seen, 8 + 8 + 2 + 4, "{what}");
}

fn every_number_is_that_of_the_weights(pair: &Pair, halved: bool) {
    let name = |(l, h): (usize, usize)| format!("L{l}.H{h}");
    let [first, second] = pair.heads.map(name);
    // L0.H3 and L1.H0 do nothing in any of the models.
    let sets = format!(
        "[ablation.sets]\nfirst = [\"{first}\", \"L0.H3\"]\nsecond = [\"{second}\", \"L1.H0\"]\n\
         both = [\"{first}\", \"{second}\"]\nneither = [\"L0.H3\", \"L1.H0\"]\n"
    );
    for (lines, from) in methods() {
        if from == Instead::Scale(0.5) && !halved {
            continue;
        }
        let mut rest: String = ["head", "kv_group", "layer", "set"]
            .iter()
            .map(|unit| format!("[[ablation]]\n{lines}\nunit = \"{unit}\"\n"))
            .collect();
        rest += &sets;
        rest += "[[sweep]]\nkind = \"single\"\n[[sweep]]\nkind = \"pairs\"\n";
        let other =
            |k: usize| if from == Instead::Flipped { format!("s{}", k ^ 1) } else { "unsigned".to_owned() };
        let t = swept(&pair.net, |folder| prompts_of(folder, &unbalanced(), &other), &rest);
        check(pair, from, &t, &format!("{lines}, {from:?}"));
    }
}

#[test]
fn duplicates_on_unbalanced_data_have_the_numbers_of_their_weights_for_every_method_and_unit() {
    every_number_is_that_of_the_weights(&duplicate_pair(), true);
}

#[test]
fn heads_in_series_on_unbalanced_data_have_the_numbers_of_their_weights_for_every_method_and_unit() {
    every_number_is_that_of_the_weights(&pair_in_series(), true);
}

#[test]
fn an_optimal_constant_is_found_where_a_duplicate_costs_nothing_and_the_mean_of_unbalanced_data_costs_something()
 {
    // OUT = clip(sign + b): b = 0 loses nothing, and any other b loses on one of the classes. The mean is 0.2, and loses
    // 0.2 · 2 wₖ on each no.
    let pair = duplicate_pair();
    let delta = |lines: &str| {
        let rest = format!("[ablation]\n{lines}\n[[sweep]]\nkind = \"single\"\n");
        let other = |_: usize| "unsigned".to_owned();
        let t = swept(&pair.net, |folder| prompts_of(folder, &unbalanced(), &other), &rest);
        (t.delta((0, 0)), t)
    };
    let (mean, _) = delta("method = \"mean\"");
    assert!(near(mean, super::formulas::mean(&lost(&pair, Instead::Pooled, &[], [true, false]))));
    let (best, t) = delta("method = \"optimal\"");
    assert!((0.0..mean / 10.0).contains(&best), "{best}, with the mean {mean}");
    assert!(near(t.delta((0, 1)), 0.0));
    let row = t.constants.iter().find(|r| r["layer"] == 0 && r["head"] == 0).unwrap();
    let number = |key: &str| row[key].as_f64().unwrap();
    assert!(near(number("loss_mean"), mean) && near(number("loss"), best), "{row}");
    // The sign is in the head's second dimension; of the others nothing is read.
    let b = row["constant"][1].as_f64().unwrap();
    assert!(b.abs() < 0.02, "{b}");
}

#[test]
fn a_backup_on_unbalanced_data_has_the_numbers_of_its_weights_for_every_method_and_unit() {
    every_number_is_that_of_the_weights(&head_with_backup(), false);
}
