//! Units, donors, counterfactuals and reference sets.

use super::*;
use ablate_common::plan::{Pool, Source, SweepKind};
use ablate_common::task::Item;
use ablate_common::units::{UnitIx, UnitKind};

/// A spec with these tasks, ablations and sweeps.
fn made(dir: &Path, task: &str, ablation: &str, sweeps: &str) -> Result<PreparedExperiment, Error> {
    let text = format!(
        "name = \"t\"\n[model]\nsource = \".\"\n[[task]]\nname = \"t\"\n{task}\n[[ablation]]\n{ablation}\n{sweeps}"
    );
    prepare(&spec::parse(&text, "t.toml").unwrap_or_else(|e| panic!("{e}")), dir, &|_, _, _| ())
}

fn refused(dir: &Path, task: &str, ablation: &str, sweeps: &str, words: &[&str]) {
    let e = made(dir, task, ablation, sweeps).expect_err(ablation);
    let text = e.to_string();
    assert!(e.exit_code() == 2 && words.iter().all(|w| text.contains(w)), "{text}");
}

const LM: &str = "kind = \"language_modeling\"\ndata = \"a.jsonl\"\nmax_tokens = 4";
const PAIRED: &str = "method = \"resample\"\ndonors = \"paired\"";

fn write(dir: &Path, name: &str, lines: &[&str]) {
    fs::write(dir.join(name), lines.join("\n")).unwrap();
}

fn words(items: &[Item]) -> Vec<&[u32]> {
    items.iter().map(|i| i.tokens.as_slice()).collect()
}

#[test]
fn units_and_streams_become_unit_maps() {
    let dir = folder("llama");
    let task = "kind = \"induction\"\nexamples = 4\nmax_tokens = 8";
    let sets = "method = \"zero\"\nunit = \"set\"\nsets = { few = [\"L1.H0\", \"L0.H1\"], all = [\"L0.H0\", \"L0.H1\"] }";
    let p = made(
        dir.path(),
        task,
        sets,
        "[[sweep]]\nkind = \"pairs\"\ngroups = false\nstreams = [\"self\"]\n[[sweep]]\nkind = \"greedy\"\nfraction = 1.0",
    )
    .unwrap()
    .plan;
    assert_eq!((p.units.len(), p.units[0].kind, p.ablations[0].unit), (1, UnitKind::Set, UnitKind::Set));
    // Interactions need the single removals too, though the spec has no such sweep.
    assert_eq!(p.total_subsets(), 2 + 1 + 2 + 2 + 1 + 2 + 2 + 2 * 20);
    assert_eq!(p.sweeps.iter().filter(|s| s.kind == SweepKind::Single).count(), 1);
    let space = p.space(1, &[]);
    let heads = |v: Vec<ablate_common::head::HeadIx>| v.iter().map(|h| h.0).collect::<Vec<_>>();
    assert_eq!(heads(p.removed(1, &space, 0).unwrap()), [0, 1, 2], "the union of two sets that overlap");
    assert_eq!(heads(p.removed(0, &p.space(0, &[]), 1).unwrap()), [0, 1, 2, 3], "the floor is every head");
    assert_eq!(p.units(1).place(p.heads(), UnitIx(0)).unwrap().name, "few");
    let p = made(dir.path(), task, "method = \"zero\"\nunit = \"layer\"", SINGLE).unwrap().plan;
    assert_eq!(p.round_subsets(1, 0), 2);
    let wrong = sets.replace("L1.H0", "L2.H0");
    refused(
        dir.path(),
        task,
        &wrong,
        SINGLE,
        &["[[ablation]] 1: set \"few\" selects no head with L2.H0", "L1.H1"],
    );
    let wrong = sets.replace("L1.H0", "cross L0.H0");
    refused(dir.path(), task, &wrong, SINGLE, &["set \"few\" selects no head with cross L0.H0"]);
    let cross = "[[sweep]]\nkind = \"single\"\nstreams = [\"cross\"]";
    refused(
        dir.path(),
        task,
        "method = \"zero\"",
        cross,
        &["[[sweep]] 1: stream \"cross\" selects no head", "stream self"],
    );
    let one = "method = \"zero\"\nunit = \"set\"\nsets = { a = [\"L0.H0\"] }";
    refused(
        dir.path(),
        task,
        one,
        "[[sweep]]\nkind = \"pairs\"",
        &["[[sweep]] 1: there are no pairs of sets"],
    );
}

#[test]
fn counterfactuals_of_records_have_as_many_tokens() {
    let dir = folder("llama");
    write(
        dir.path(),
        "a.jsonl",
        &[
            r#"{"text": "one two three one two", "counterfactual": "three three three three three"}"#,
            r#"{"text": "one two", "counterfactual": "two two"}"#,
        ],
    );
    let p = made(dir.path(), LM, PAIRED, SINGLE).unwrap();
    assert_eq!(p.plan.ablations[0].sources, [Source { reference: Some(0), donors: vec![0, 1] }]);
    let (own, other) = (words(&p.prepared[0].items), words(&p.prepared[1].items));
    assert_eq!((own[0].len(), own[1].len(), own.len()), (4, 2, 2));
    assert!(other[0] == [own[0][2]; 4] && other[1] == [own[0][1]; 2], "{other:?}");
    assert_eq!(p.plan.blobs().map(|b| (b.1, b.2)).collect::<Vec<_>>(), [(2, 2), (2, 0)]);

    write(dir.path(), "a.jsonl", &[r#"{"text": "one two", "counterfactual": "two"}"#]);
    refused(
        dir.path(),
        LM,
        PAIRED,
        SINGLE,
        &["a.jsonl:1", "counterfactual has 1 tokens, but text has 2", "donors"],
    );
    write(
        dir.path(),
        "a.jsonl",
        &[r#"{"text": "one two", "counterfactual": "two one"}"#, "", r#"{"text": "one two"}"#],
    );
    refused(dir.path(), LM, PAIRED, SINGLE, &["a.jsonl:3", "no counterfactual"]);
    fs::write(dir.path().join("a.txt"), "one two three").unwrap();
    refused(
        dir.path(),
        &LM.replace(".jsonl", ".txt"),
        PAIRED,
        SINGLE,
        &["a.txt", "carries no counterfactuals"],
    );

    // A prompt that is too long keeps its end, and so does its counterfactual; choices stay.
    let record = r#"{"prompt": "one two three one", "counterfactual": "three one two three", "choices": [" one", " two one"], "answer": 0}"#;
    write(dir.path(), "c.jsonl", &[record]);
    let task = "kind = \"next_token_choice\"\ndata = \"c.jsonl\"\nmax_tokens = 4";
    let p = made(dir.path(), task, PAIRED, SINGLE).unwrap();
    let [one, two, three] = [0, 1, 2].map(|k| {
        let item = &p.prepared[0].items[1].tokens;
        [item[3], item[2], item[0]][k]
    });
    assert_eq!(words(&p.prepared[0].items), [&[three, one, one][..], &[three, one, two, one]]);
    assert_eq!(words(&p.prepared[1].items), [&[two, three, one][..], &[two, three, two, one]]);
}

#[test]
fn counterfactuals_of_encoders_hide_and_pair_the_same() {
    let dir = folder_with("bert", true);
    let record = r#"{"text": "one two three one two three one", "counterfactual": "store store store store store store store"}"#;
    write(dir.path(), "a.jsonl", &[record]);
    let task = "kind = \"masked_lm\"\ndata = \"a.jsonl\"\nmax_tokens = 8";
    let p = made(dir.path(), task, PAIRED, SINGLE).unwrap();
    let (own, other) = (&p.prepared[0].items[0], &p.prepared[1].items[0]);
    let hidden = own.scored[0].position as usize;
    assert_eq!((other.tokens.len(), other.tokens[hidden]), (8, own.tokens[hidden]));
    assert_eq!([other.tokens[0], other.tokens[7]], [0, 1], "special tokens stay");
    let rest: std::collections::BTreeSet<u32> =
        other.tokens[1..7].iter().copied().filter(|&t| t != own.tokens[hidden]).collect();
    assert_eq!(rest.len(), 1);

    let pairs = [
        r#"{"a": "one", "b": "two", "score": 1, "a_counterfactual": "store", "b_counterfactual": "three"}"#,
        r#"{"a": "one", "b": "two one", "score": 2, "a_counterfactual": "store", "b_counterfactual": "three three"}"#,
        r#"{"a": "two", "b": "two one", "score": 3, "a_counterfactual": "three", "b_counterfactual": "three three"}"#,
    ];
    write(dir.path(), "s.jsonl", &pairs);
    let task = "kind = \"similarity\"\ndata = \"s.jsonl\"\nmax_tokens = 8";
    let p = made(dir.path(), task, PAIRED, SINGLE).unwrap();
    assert_eq!(p.prepared[1].items.iter().map(|i| i.tokens.len()).collect::<Vec<_>>(), [3, 3, 4]);
    write(dir.path(), "s.jsonl", &[pairs[0], pairs[1], &pairs[2].replace("\"three\"", "\"store\"")]);
    refused(dir.path(), task, PAIRED, SINGLE, &["s.jsonl:3", "another counterfactual"]);
}

#[test]
fn induction_makes_counterfactuals_and_keeps_its_items() {
    let dir = folder("llama");
    let task = "kind = \"induction\"\nexamples = 6\nmax_tokens = 11";
    let p = made(dir.path(), task, PAIRED, SINGLE).unwrap();
    assert_eq!(p.prepared[0], run(dir.path(), task, SINGLE).unwrap().prepared[0]);
    for (own, other) in p.prepared[0].items.iter().zip(&p.prepared[1].items) {
        assert_eq!((own.tokens.len(), &own.tokens[5..]), (10, &other.tokens[5..]));
        assert!(other.tokens[..5].iter().all(|t| !own.tokens.contains(t)), "no token is repeated");
    }
}

#[test]
fn a_reference_file_is_prepared_as_the_tasks_own_data() {
    let dir = folder("llama");
    write(dir.path(), "a.jsonl", &[r#"{"text": "one two three"}"#, r#"{"text": "two one three"}"#]);
    write(dir.path(), "r.jsonl", &[r#"{"text": "one two three one two three"}"#, r#"{"text": "two one"}"#]);
    let mean = "method = \"mean\"\npool = \"position\"\nreference = \"r.jsonl\"";
    let p = made(dir.path(), LM, mean, SINGLE).unwrap();
    assert_eq!(p.prepared[1].items.iter().map(|i| i.tokens.len()).collect::<Vec<_>>(), [4, 2], "truncated");
    assert!(p.prepared[1].examples.is_empty() && p.prepared[1].items.iter().all(|i| i.scored.is_empty()));
    assert_eq!(p.plan.ablations[0].sources, [Source { reference: Some(0), donors: Vec::new() }]);
    assert!(matches!(
        p.plan.spec.ablations[0].method,
        ablate_common::plan::Ablation::Mean { pool: Pool::Position }
    ));
    // Where it lies is no part of the identity; what is in it is.
    fs::copy(dir.path().join("r.jsonl"), dir.path().join("s.jsonl")).unwrap();
    let moved = made(dir.path(), LM, &mean.replace("r.jsonl", "s.jsonl"), SINGLE).unwrap();
    assert_eq!(moved.plan.identity(), p.plan.identity());
    write(dir.path(), "s.jsonl", &[r#"{"text": "two one three"}"#]);
    let other = made(dir.path(), LM, &mean.replace("r.jsonl", "s.jsonl"), SINGLE).unwrap();
    assert_ne!(other.plan.identity(), p.plan.identity());
    // One set for two ablations.
    let two = format!("{mean}\n[[ablation]]\nmethod = \"resample\"\nreference = \"r.jsonl\"");
    let p = made(dir.path(), LM, &two, SINGLE).unwrap();
    assert_eq!((p.plan.references.len(), p.prepared.len()), (1, 2));
    assert_eq!(p.plan.ablations[1].sources[0].donors, [0, 0], "the next greater length");

    write(dir.path(), "s.jsonl", &[r#"{"text": "two one"}"#]);
    let short = mean.replace("r.jsonl", "s.jsonl");
    refused(
        dir.path(),
        LM,
        &short,
        SINGLE,
        &["[[ablation]] 1: task \"t\"", "3 tokens", "the reference set 2"],
    );
    refused(
        dir.path(),
        LM,
        &mean.replace("r.jsonl", "no.jsonl"),
        SINGLE,
        &["there is no", "correct reference"],
    );
    write(dir.path(), "s.jsonl", &[r#"{"words": "two one"}"#]);
    refused(dir.path(), LM, &short, SINGLE, &["s.jsonl:1", "missing field `text`"]);
    // A task that makes its own data takes texts.
    write(dir.path(), "s.jsonl", &[r#"{"text": "two one three two"}"#]);
    let made_up = "kind = \"induction\"\nexamples = 4\nmax_tokens = 8";
    let seeded = "method = \"resample\"\nreference = \"s.jsonl\"";
    assert_eq!(
        made(dir.path(), made_up, seeded, SINGLE).unwrap().plan.ablations[0].sources[0].donors,
        [0; 4]
    );
    refused(
        dir.path(),
        "kind = \"induction\"\nexamples = 1\nmax_tokens = 8",
        "method = \"resample\"",
        SINGLE,
        &["only one"],
    );
}
