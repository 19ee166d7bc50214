//! Small models of prompts `s0 filler mid filler end`: the even signs mean yes (+1), the odd ones no (−1), and a word
//! `unsigned` in their place means neither. Answer k reads OUT with weight wₖ, so that the examples differ: the
//! logit difference of a prompt is 2 wₖ · sign · OUT.

use ablate_tests::planted::{Feature, HeadSpec, Layer, Net, Neuron};
use std::fmt::Write as _;
use std::path::Path;

/// Score of attention between what belongs together; e⁻²⁰⁰ is nothing.
pub const LOOK: f64 = 200.0;

/// Signs, with an answer each.
pub const SIGNS: usize = 6;
const SIGN: Feature = 1;
const IS_SIGN: Feature = 2;
/// What duplicates add up to.
pub const SUM: Feature = 3;
/// What the answers read.
pub const OUT: Feature = 4;
const IS_END: Feature = 5;
const IS_MID: Feature = 6;
const CARRIED: Feature = 7;
const PRESENT: Feature = 8;

/// How strongly answer k reads; those of a yes and of a no are alike, so that their mean is 0.
pub fn weight(k: usize) -> f64 {
    1.0 + 0.1 * (k / 2) as f64
}

/// What sign k means.
pub fn sign(k: usize) -> f64 {
    if k.is_multiple_of(2) { 1.0 } else { -1.0 }
}

/// Mean of the logit difference, 2 wₖ, where OUT is what the sign says.
pub const WHOLE: f64 = 2.2;

/// A model of these prompts.
pub fn signs(layers: Vec<Layer>) -> Net {
    let mut words = vec!["<unk>".to_owned()];
    words.extend((0..SIGNS).map(|k| format!("s{k}")));
    words.extend(["f0", "f1", "f2", "mid", "end", "unsigned"].map(str::to_owned));
    let first_answer = words.len();
    words.extend((0..SIGNS).flat_map(|k| [format!("yes{k}"), format!("no{k}")]));
    let place = |w: &str| words.iter().position(|x| x == w).unwrap();
    let mut embed: Vec<(usize, Feature, f64)> =
        (0..SIGNS).flat_map(|k| [(1 + k, SIGN, sign(k)), (1 + k, IS_SIGN, 1.0)]).collect();
    embed.push((place("unsigned"), IS_SIGN, 1.0));
    embed.push((place("end"), IS_END, 1.0));
    embed.push((place("mid"), IS_MID, 1.0));
    let logits = (0..SIGNS)
        .flat_map(|k| [(first_answer + 2 * k, OUT, weight(k)), (first_answer + 2 * k + 1, OUT, -weight(k))])
        .collect();
    Net { words, embed, positions: Vec::new(), layers, logits }
}

/// Every sign with every filler, three each.
pub fn balanced() -> Vec<(usize, usize)> {
    (0..SIGNS).flat_map(|k| (0..3).map(move |f| (k, f))).collect()
}

/// A task of all prompts, each with a counterfactual without a sign.
pub fn prompts(folder: &Path) -> String {
    prompts_of(folder, &balanced(), &|_| "unsigned".to_owned())
}

/// A task of the prompts (sign, filler), and the word that stands in a sign's place in its counterfactual; and
/// unsigned.jsonl, prompts without a sign.
pub fn prompts_of(folder: &Path, all: &[(usize, usize)], other: &dyn Fn(usize) -> String) -> String {
    let (mut lines, mut unsigned) = (String::new(), String::new());
    for &(k, f) in all {
        let (target, foil) = if sign(k) > 0.0 { ("yes", "no") } else { ("no", "yes") };
        let (counterfactual, g) = (other(k), (f + k) % 3);
        let put = |to: &mut String, first: &str| {
            writeln!(
                to,
                r#"{{"prompt": "{first} f{f} mid f{g} end", "target": " {target}{k}", "foil": " {foil}{k}", "counterfactual": "{counterfactual} f{f} mid f{g} end"}}"#
            )
            .unwrap();
        };
        put(&mut lines, &format!("s{k}"));
        put(&mut unsigned, "unsigned");
    }
    let path = folder.join("prompts.jsonl");
    std::fs::write(&path, lines).unwrap();
    std::fs::write(folder.join("unsigned.jsonl"), unsigned).unwrap();
    format!("kind = \"logit_difference\"\ndata = {path:?}\nmax_tokens = 16")
}

/// Looks at the sign from everywhere and adds it to `to`.
pub fn sees_sign(to: Feature) -> HeadSpec {
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

/// L0.H0 and L0.H2 write the sign to SUM, L0.H1 sees it and writes nothing; OUT is SUM within −1 and 1.
pub fn duplicates() -> Net {
    let nothing = HeadSpec { o: Vec::new(), ..sees_sign(SUM) };
    let layer = Layer { heads: vec![sees_sign(SUM), nothing, sees_sign(SUM)], neurons: clipped() };
    signs(vec![layer, Layer::default()])
}

/// L0.H1 carries the sign to `mid`, L1.H2 from there to `end`. Elsewhere both look at all places before alike.
pub fn series() -> Net {
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
    signs(vec![
        Layer { heads: vec![HeadSpec::default(), first], neurons: Vec::new() },
        Layer { heads: vec![HeadSpec::default(), HeadSpec::default(), second], neurons: Vec::new() },
    ])
}

/// L0.H0 writes OUT = sign, and PRESENT = |OUT|. L1.H3, the backup, looks at `end`, which has no sign; where
/// PRESENT is below a half it looks at the sign.
pub fn backup() -> Net {
    let present = |sign: f64| Neuron { reads: vec![(OUT, sign)], bias: 0.0, writes: vec![(PRESENT, 1.0)] };
    let backup = HeadSpec {
        q: vec![(PRESENT, 0, -LOOK)],
        q_bias: vec![(0, LOOK), (1, LOOK / 2.0)],
        k: vec![(IS_SIGN, 0, 1.0), (IS_END, 1, 1.0)],
        v: vec![(SIGN, 2, 1.0)],
        o: vec![(2, OUT, 1.0)],
    };
    signs(vec![
        Layer { heads: vec![sees_sign(OUT)], neurons: vec![present(1.0), present(-1.0)] },
        Layer {
            heads: vec![HeadSpec::default(), HeadSpec::default(), HeadSpec::default(), backup],
            neurons: Vec::new(),
        },
    ])
}
