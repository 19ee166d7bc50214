//! Interactions given a base on a small random model, through the built programs: against the deltas of all the sets of heads that
//! they are made from, each measured as a set of its own in another run.

use super::measure::swept;
use ablate_tests::planted::{HeadSpec, Layer, Net, Neuron};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

type At = (usize, usize);

/// What is already removed.
const BASE: [At; 2] = [(0, 1), (1, 2)];
const WORDS: usize = 13;
const LENGTH: usize = 12;

/// Two layers of four heads and four neurons with random weights, so that everything interacts.
fn random() -> Net {
    const FEATURES: usize = 8;
    const DIMENSIONS: usize = 4;
    let mut state = 7u64;
    // Uniform in [−1, 1).
    let mut draw = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    let mut each = |rows: usize, size: f64| -> Vec<(usize, usize, f64)> {
        let places = (0..rows).flat_map(|r| (1..=FEATURES).map(move |f| (r, f)));
        places.map(|(r, f)| (r, f, size * draw())).collect()
    };
    let turned = |v: Vec<(usize, usize, f64)>| v.into_iter().map(|(d, f, w)| (f, d, w)).collect::<Vec<_>>();
    let embed = each(WORDS, 1.0);
    let positions = each(LENGTH, 0.5);
    let mut layers = Vec::new();
    for _ in 0..2 {
        let heads = (0..4).map(|_| HeadSpec {
            q: turned(each(DIMENSIONS, 0.5)),
            q_bias: Vec::new(),
            k: turned(each(DIMENSIONS, 0.5)),
            v: turned(each(DIMENSIONS, 0.5)),
            o: each(DIMENSIONS, 0.5),
        });
        let heads = heads.collect();
        let weights = |v: Vec<(usize, usize, f64)>| v.into_iter().map(|(_, f, w)| (f, w)).collect::<Vec<_>>();
        let neurons =
            (0..4).map(|_| Neuron { reads: weights(each(1, 1.0)), bias: 0.1, writes: weights(each(1, 1.0)) });
        let neurons = neurons.collect();
        layers.push(Layer { heads, neurons });
    }
    let words = (0..WORDS).map(|w| format!("w{w}")).collect();
    Net { words, embed, positions, layers, logits: each(WORDS, 1.0) }
}

fn head((layer, head): At) -> String {
    format!("L{layer}.H{head}")
}

/// The name of the set of the base and some more heads.
fn set(more: &[At]) -> String {
    more.iter().fold("s".to_owned(), |name, &(l, h)| format!("{name}-{l}{h}"))
}

#[test]
fn interactions_given_a_base_are_sums_of_deltas_of_sets_measured_in_another_run() {
    let net = random();
    let task = |_: &Path| format!("kind = \"induction\"\nexamples = 24\nmax_tokens = {LENGTH}");
    let others: Vec<At> = (0..8).map(|i| (i / 4, i % 4)).filter(|h| !BASE.contains(h)).collect();
    let pairs: Vec<[At; 2]> =
        others.iter().enumerate().flat_map(|(k, &a)| others[k + 1..].iter().map(move |&b| [a, b])).collect();
    let mut all: Vec<Vec<At>> = vec![Vec::new()];
    all.extend(others.iter().map(|&h| vec![h]));
    all.extend(pairs.iter().map(|p| p.to_vec()));
    let mut sets = String::new();
    for more in &all {
        let heads: Vec<String> = BASE.iter().chain(more).map(|&h| format!("{:?}", head(h))).collect();
        writeln!(sets, "{} = [{}]", set(more), heads.join(", ")).unwrap();
    }
    for method in ["method = \"zero\"", "method = \"mean\"", "method = \"scale\"\nscale = -1.0"] {
        let base: Vec<String> = BASE.iter().map(|&h| format!("{:?}", head(h))).collect();
        // Named in another order than that of the model.
        let sweeps = format!(
            "[[sweep]]\nkind = \"pairs\"\ngroups = false\n[[sweep]]\nkind = \"pairs\"\nbase = [{}, {}]\n",
            base[1], base[0]
        );
        let given = swept(&net, task, &format!("[ablation]\n{method}\n{sweeps}"));
        let single = "[[sweep]]\nkind = \"single\"\n";
        let alone = swept(
            &net,
            task,
            &format!("[ablation]\n{method}\nunit = \"set\"\n[ablation.sets]\n{sets}{single}"),
        );
        let number = |row: &Value, key: &str| row[key].as_f64().unwrap();
        let deltas: BTreeMap<String, f64> = alone
            .heads
            .iter()
            .map(|r| (r["name"].as_str().unwrap().to_owned(), number(r, "delta")))
            .collect();
        let delta = |more: &[At]| deltas[&set(more)];

        assert_eq!((given.pairs.len(), given.conditional.len()), (28, pairs.len()), "{method}");
        let mut largest: f64 = 0.0;
        for (row, &[a, b]) in given.conditional.iter().zip(&pairs) {
            assert_eq!((&row["a_name"], &row["b_name"]), (&head(a).into(), &head(b).into()), "{method}");
            assert_eq!(row["base"], "L0.H1 + L1.H2", "{method}");
            let own = delta(&[]);
            for (key, want) in [
                ("delta_base", own),
                ("delta_a", delta(&[a]) - own),
                ("delta_b", delta(&[b]) - own),
                ("delta_ab", delta(&[a, b]) - own),
                ("interaction", delta(&[a, b]) - delta(&[a]) - delta(&[b]) + own),
            ] {
                let got = number(row, key);
                assert!((got - want).abs() < 1e-9, "{method}, {row}: {key} should be {want}");
            }
            assert!(number(row, "se") > 0.0 && number(row, "ci_low") <= number(row, "interaction"));
            largest = largest.max(number(row, "interaction").abs());
        }
        assert!(largest > 1e-3, "{method}: nothing interacts, {largest:e}");
        // It isn't what the same two do in the whole model.
        let plain = |row: &Value| {
            let same = |p: &&Value| p["a_name"] == row["a_name"] && p["b_name"] == row["b_name"];
            number(given.pairs.iter().find(same).unwrap(), "interaction")
        };
        let differ = |row: &Value| (plain(row) - number(row, "interaction")).abs() > 1e-6;
        assert!(given.conditional.iter().any(differ), "{method}");
    }
}
