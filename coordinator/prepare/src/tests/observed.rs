//! Sweeps of attention, repair and shift as they are planned.

use super::*;
use ablate_common::plan::Shown;
use ablate_common::units::UnitKind;

const TASK: &str = "kind = \"next_token_choice\"\ndata = \"c.jsonl\"\nmax_tokens = 8";

fn choices() -> tempfile::TempDir {
    let dir = folder("llama");
    let row = |q: &str, k: usize| json!({"prompt": q, "choices": [" one", " two three"], "answer": k});
    let rows = [row("Mary went to", 0), row("John had", 1), row("Dan gave it to", 1)];
    fs::write(dir.path().join("c.jsonl"), rows.map(|r| format!("{r}\n")).concat()).unwrap();
    dir
}

fn two(dir: &Path, sweeps: &str) -> Result<PreparedExperiment, Error> {
    let text = format!(
        "name = \"t\"\n[model]\nsource = \".\"\n[[task]]\nname = \"t\"\n{TASK}\n[[ablation]]\nmethod = \"mean\"\nunit = \"layer\"\n\
         [[ablation]]\nmethod = \"zero\"\n{sweeps}"
    );
    prepare(&spec::parse(&text, "t.toml").unwrap(), dir, &|_, _, _| ())
}

fn kinds(p: &PreparedExperiment) -> Vec<(&'static str, u32)> {
    p.plan.sweeps.iter().map(|s| (s.kind.name(), s.ablation)).collect()
}

#[test]
fn attention_is_planned_once_and_of_heads() {
    let dir = choices();
    let p = two(dir.path(), "[[sweep]]\nkind = \"attention\"\npatterns = [2]").unwrap();
    assert_eq!(kinds(&p), [("reference", 0), ("attention", 0), ("patterns", 0), ("reference", 1)]);
    for s in [1, 2] {
        assert_eq!((p.plan.units(s).kind, p.plan.units(s).len()), (UnitKind::Head, 4));
        assert_eq!(p.plan.round_chunks(s, 0), 1);
    }
    let data = &p.prepared[0];
    assert_eq!(p.plan.rows(1, data).len(), data.items.len());
    assert_eq!(p.plan.most_rows(1, 0), data.items.len() as u32);
    assert_eq!((p.plan.columns(1, 0).len(), p.plan.columns(2, 0).len()), (7, 1));
    let SweepKind::Patterns { items } = &p.plan.sweeps[2].kind else { panic!() };
    let each: Vec<(u32, u32)> = items.iter().map(|i| (i.example, i.item)).collect();
    assert_eq!(each, [(2, data.examples[2].a), (2, data.examples[2].b)]);
    let Shown { queries, .. } = &items[1];
    assert_eq!(queries, &["Dan", "gave", "it", "to", "two", "three"]);
    assert_eq!(p.plan.rows(2, data).len(), 5 * 5 + 6 * 6);
    let costs = cost(&p.plan, &p.prepared);
    assert_eq!((costs[1].name.as_str(), costs[2].name.as_str()), ("attention", "patterns"));
    assert!(costs[1..3].iter().all(|c| c.flops > 0.0 && c.flops.is_finite() && c.bytes > 0), "{costs:?}");
    assert_eq!(p.plan.protocol(), 4);
    let back: Plan = serde_json::from_slice(&serde_json::to_vec(&p.plan).unwrap()).unwrap();
    assert_eq!((back.identity(), &back), (p.plan.identity(), &p.plan));
    let none = two(dir.path(), "[[sweep]]\nkind = \"attention\"\npatterns = []").unwrap();
    assert_eq!(kinds(&none).len(), 3);
}

#[test]
fn patterns_past_the_examples_or_too_large_are_refused() {
    let dir = choices();
    let says = |e: Error, what: &str| assert!(e.exit_code() == 2 && e.to_string().contains(what), "{e}");
    let e = two(dir.path(), "[[sweep]]\nkind = \"attention\"\npatterns = [0, 3]").unwrap_err();
    says(e, "[[sweep]] 1: task \"t\": patterns names example 3, but there are 3");
    // 32 tokens squared and 4 heads, 32 KB an example.
    let text = "one two three ".repeat(11);
    let rows: String = (0..2100).map(|_| format!("{}\n", json!({"text": text}))).collect();
    fs::write(dir.path().join("a.jsonl"), rows).unwrap();
    let all: Vec<String> = (0..2100).map(|i: u32| i.to_string()).collect();
    let lm = "kind = \"language_modeling\"\ndata = \"a.jsonl\"\nmax_tokens = 32";
    let sweep = |n: usize| format!("[[sweep]]\nkind = \"attention\"\npatterns = [{}]", all[..n].join(","));
    says(
        run(dir.path(), lm, &sweep(2100)).unwrap_err(),
        "2100 examples (sequences of up to 32 tokens) take 66 MB",
    );
    assert!(run(dir.path(), lm, &sweep(2048)).is_ok());
}

#[test]
fn repair_brings_singles_where_nothing_else_does_and_shift_everything_and_nothing() {
    let dir = choices();
    let of = |sweeps: &str| {
        let p = run(dir.path(), TASK, sweeps).unwrap();
        p.plan.sweeps.iter().map(|s| s.kind.name()).collect::<Vec<_>>()
    };
    let repair = "[[sweep]]\nkind = \"repair\"\n";
    let pairs = "[[sweep]]\nkind = \"pairs\"\n";
    assert_eq!(of(repair), ["reference", "repair", "single"]);
    assert_eq!(of(&format!("{SINGLE}\n{repair}")), ["reference", "single", "repair"]);
    assert_eq!(of(&format!("{repair}{pairs}")), ["reference", "repair", "single", "pairs", "joint"]);
    assert_eq!(of(&format!("{pairs}{repair}")), ["reference", "pairs", "single", "joint", "repair"]);
    let p = run(dir.path(), TASK, "[[sweep]]\nkind = \"shift\"").unwrap();
    assert_eq!((p.plan.round_subsets(1, 0), p.plan.columns(1, 0).len()), (6, 4));
    assert_eq!((p.plan.rows(1, &p.prepared[0]).len(), p.plan.most_rows(1, 0)), (3, 3));
    let space = p.plan.space(1, &[]);
    let removed: Vec<usize> = (0..6).map(|r| p.plan.removed(1, &space, r).unwrap().len()).collect();
    assert_eq!(removed, [0, 4, 1, 1, 1, 1]);
    let costs = cost(&p.plan, &p.prepared);
    assert!(costs[1].flops > costs[0].flops, "{costs:?}");
}

#[test]
fn an_order_by_rollout_brings_its_sweep_on_the_selecting_half() {
    let dir = choices();
    let sweep = "[[sweep]]\nkind = \"greedy\"\nsplit = \"none\"\norders = [\"rollout\", \"gradient\"]";
    let p = run(dir.path(), TASK, sweep).unwrap();
    let kinds: Vec<&str> = p.plan.sweeps.iter().map(|s| s.kind.name()).collect();
    assert_eq!(kinds, ["reference", "greedy", "gradient", "path-gradient", "attention", "path-rollout"]);
    assert_eq!(p.plan.sweeps[4].kind, SweepKind::Attention { greedy: Some(1) });
    assert!(p.plan.decides(4));
    // Units 1, 3, 0, 2 move ascending flow, whatever else they do.
    let rows = p.plan.rows(4, &p.prepared[0]).len();
    let values =
        [3.0, 1.0, 4.0, 2.0].map(|flow| [vec![9.0 - flow; 6 * rows], vec![flow; rows]].concat()).concat();
    let block = ablate_common::scores::TaskScores { task: 0, examples: rows as u32, columns: 7, values };
    let chunk = ablate_common::scores::ChunkScores { subsets: 4, tasks: vec![block] };
    let scores = std::collections::HashMap::from([(0, chunk)]);
    let decided =
        ablate_common::decide::decide(&p.plan, 4, 0, &[], &scores, &Default::default(), None, &p.prepared[0]);
    let opens = decided.unwrap().opens;
    let list: Vec<u32> = opens[0].2.iter().map(|u| u.0).collect();
    assert_eq!((opens.len(), opens[0].0, list), (1, 5, vec![1, 3, 0, 2]));
}
