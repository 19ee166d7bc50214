use super::*;
use proptest::prelude::*;

const GOOD: &str = r#"
name = "demo"
seed = 7

[model]
source = "m.gguf"
dtype = "f64"

[[task]]
name = "ioi"
kind = "ioi"

[[task]]
name = "wiki"
kind = "language_modeling"
data = "wiki.jsonl"
examples = 4
max_tokens = 16
metric = "perplexity"

[ablation]
method = "mean"

[[sweep]]
kind = "single"
tasks = ["wiki"]

[[sweep]]
kind = "greedy"
"#;

#[test]
fn a_good_spec_gets_its_defaults() {
    let s = parse(GOOD, "demo.toml").unwrap();
    assert_eq!(
        (s.seed, s.model.dtype, s.tasks[0].examples, s.tasks[0].max_tokens),
        (7, Dtype::F64, Some(64), 128)
    );
    assert_eq!((s.tasks[0].metric, s.tasks[1].metric), (Metric::LogitDiff, Metric::Perplexity));
    assert_eq!(s.ablations, [Ablation::Mean { pool: crate::plan::Pool::Tokens }.into()]);
    let greedy = SweepKindSpec::Greedy {
        fraction: 0.79,
        objective: "ioi".into(),
        halves: true,
        orders: vec![Order::Greedy, Order::Importance],
        random: 20,
        matched: 0,
    };
    assert_eq!(s.sweeps[1].kind, greedy);
    let json = serde_json::to_string(&s).unwrap();
    assert_eq!(serde_json::from_str::<Spec>(&json).unwrap(), s);
    // Identities of specs without matched orders stay what they were.
    assert!(!json.contains("matched"));
    let sets = "[ablation]\nunit = \"set\"\nsets = { z = [\"L1.H2\", \"L0.H3\"], a = [\"cross L0.H0\"] }";
    let s = parse(&GOOD.replace("[ablation]", sets), "x").unwrap();
    let names: Vec<&str> = s.ablations[0].sets.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["z", "a"]);
    assert_eq!(serde_json::from_str::<Spec>(&serde_json::to_string(&s).unwrap()).unwrap(), s);
    let two = GOOD.replace(
        "tasks = [\"wiki\"]",
        "streams = [\"encoder\"]\n[[sweep]]\nkind = \"single\"\nstreams = [\"cross\"]",
    );
    assert_eq!(parse(&two, "x").unwrap().sweeps.len(), 3);
    let units = GOOD.replace("[ablation]", "[[ablation]]\nmethod = \"mean\"\nunit = \"layer\"\n[[ablation]]");
    assert_eq!(parse(&units, "x").unwrap().ablations.len(), 2);
    let several = GOOD.replace("[ablation]", "[[ablation]]\nmethod = \"zero\"\n[[ablation]]");
    assert_eq!(parse(&several, "x").unwrap().ablations.len(), 2);
}

#[test]
fn gradients_are_a_sweep_and_an_order() {
    let text = GOOD.replace("kind = \"single\"", "kind = \"gradient\"");
    let text = format!("{text}orders = [\"gradient\", \"random\"]\n");
    let s = parse(&text, "x").unwrap();
    assert_eq!(
        (&s.sweeps[0].kind, s.sweeps[0].tasks.as_deref().map(<[_]>::len)),
        (&SweepKindSpec::Gradient, Some(1))
    );
    let SweepKindSpec::Greedy { orders, random, .. } = &s.sweeps[1].kind else { panic!() };
    assert_eq!((orders.as_slice(), *random), (&[Order::Gradient][..], 20));
    let wrong = |from: &str, to: &str| parse(&text.replace(from, to), "x").unwrap_err().to_string();
    assert!(wrong("tasks =", "strategy = \"exhaustive\"\ntasks =").contains("unknown key"));
}

#[test]
fn random_orders_are_plain_or_matched_or_both_and_matched_ones_need_layers_of_several_units() {
    let drawn = |more: &str| {
        let s = parse(&format!("{GOOD}{more}\n"), "x").unwrap();
        assert_eq!(serde_json::from_str::<Spec>(&serde_json::to_string(&s).unwrap()).unwrap(), s);
        let SweepKindSpec::Greedy { random, matched, .. } = s.sweeps[1].kind else { panic!() };
        (random, matched)
    };
    assert_eq!(drawn("orders = [\"greedy\", \"matched\"]"), (0, 20));
    assert_eq!(drawn("orders = [\"greedy\", \"matched\", \"random\"]\nrandom_orders = 3"), (3, 3));
    assert_eq!(drawn("orders = [\"greedy\"]"), (0, 0));
    let wrong = |text: &str| parse(text, "x").unwrap_err().to_string();
    let twice = wrong(&format!("{GOOD}orders = [\"matched\", \"matched\"]\n"));
    assert!(twice.starts_with("x:30: ") && twice.contains("an order is there twice"), "{twice}");
    let none = wrong(&format!("{GOOD}orders = [\"greedy\"]\nrandom_orders = 3\n"));
    assert!(none.starts_with("x:31: ") && none.contains("\"random\" or \"matched\" among orders"), "{none}");
    let matched = format!("{GOOD}orders = [\"matched\"]\n");
    for (unit, why) in [
        ("\"layer\"", "unit = \"layer\", as a layer has no second unit"),
        ("\"set\"\nsets = { a = [\"L0.H1\"] }", "unit = \"set\", as the heads of a set"),
    ] {
        let e = wrong(&matched.replace("[ablation]", &format!("[ablation]\nunit = {unit}")));
        assert!(e.contains(why), "{e}");
    }
    let groups = matched.replace("[ablation]", "[ablation]\nunit = \"kv_group\"");
    assert!(parse(&groups, "x").is_ok());
}

#[test]
fn attention_repair_and_shift_are_sweeps_and_rollout_an_order() {
    let of = |sweep: &str| {
        let text = GOOD.replace("kind = \"single\"\n", &format!("{sweep}\n"));
        parse(&format!("{text}orders = [\"rollout\"]\n"), "x")
    };
    for (text, patterns) in [("", &[0][..]), ("\npatterns = [3, 0]", &[0, 3]), ("\npatterns = []", &[])] {
        let s = of(&format!("kind = \"attention\"{text}")).unwrap();
        assert_eq!(s.sweeps[0].kind, SweepKindSpec::Attention { patterns: patterns.to_vec() });
        let SweepKindSpec::Greedy { orders, .. } = &s.sweeps[1].kind else { panic!() };
        assert_eq!(orders, &[Order::Rollout]);
        assert_eq!(serde_json::from_str::<Spec>(&serde_json::to_string(&s).unwrap()).unwrap(), s);
    }
    assert_eq!(of("kind = \"repair\"").unwrap().sweeps[0].kind, SweepKindSpec::Repair);
    assert_eq!(of("kind = \"shift\"").unwrap().sweeps[0].kind, SweepKindSpec::Shift);
    for (sweep, what) in [
        ("kind = \"attention\"\npatterns = [1, 1]", "example 1 is there twice"),
        ("kind = \"attention\"\npatterns = [-1]", "-1"),
        ("kind = \"shift\"\npatterns = [1]", "unknown key"),
    ] {
        let e = of(sweep).unwrap_err();
        assert!(e.what.contains(what), "{e}");
    }
}

#[test]
fn pairs_may_have_a_base_and_one_sweep_for_each() {
    let of = |sweep: &str| parse(&GOOD.replace("kind = \"single\"\n", &format!("{sweep}\n")), "x");
    let base =
        |names: &[&str]| SweepKindSpec::Conditional { base: names.iter().map(|n| (*n).to_owned()).collect() };
    let s = of("kind = \"pairs\"\nbase = [\"L1.H2\", \"cross L0.H1\"]").unwrap();
    assert_eq!(s.sweeps[0].kind, base(&["L1.H2", "cross L0.H1"]));
    assert_eq!(serde_json::from_str::<Spec>(&serde_json::to_string(&s).unwrap()).unwrap(), s);
    // Identities of specs without a base stay what they were.
    let plain = of("kind = \"pairs\"").unwrap();
    let kind = SweepKindSpec::Pairs { groups: true, third_order: 0 };
    assert_eq!(plain.sweeps[0].kind, kind);
    assert_eq!(serde_json::to_string(&kind).unwrap(), "{\"kind\":\"pairs\",\"groups\":true}");
    let several = "kind = \"pairs\"\n[[sweep]]\nkind = \"pairs\"\nbase = [\"a\"]\n[[sweep]]\nkind = \"pairs\"\nbase = [\"b\", \"a\"]";
    let kinds: Vec<SweepKindSpec> = of(several).unwrap().sweeps.into_iter().map(|s| s.kind).collect();
    assert_eq!(kinds[..3], [kind, base(&["a"]), base(&["b", "a"])]);
    for (sweep, line, what) in [
        ("base = []", 26, "base names no unit"),
        ("base = \"L0.H1\"", 26, "base should be a list"),
        ("base = [3]", 26, "base should be a string"),
        ("base = [\n\"L0.H1\",\n\"L0.H1\"]", 28, "\"L0.H1\" is there twice in base"),
        ("base = [\"L0.H1\"]\ngroups = true", 27, "groups follows pairs of the whole model"),
        ("third_order = 3\nbase = [\"L0.H1\"]", 26, "third_order follows pairs of the whole model"),
        (
            "base = [\"a\", \"b\"]\n[[sweep]]\nkind = \"pairs\"\nbase = [\"b\", \"a\"]",
            27,
            "a sweep of kind \"pairs\" with this base already runs on task",
        ),
        // However its heads are written.
        (
            "base = [\"L0.H3\", \"cross L1.H0\"]\n[[sweep]]\nkind = \"pairs\"\nbase = [\"cross L01.H0\", \"self L0.H03\"]",
            27,
            "with this base already runs on task",
        ),
    ] {
        let e = of(&format!("kind = \"pairs\"\n{sweep}")).unwrap_err();
        assert!(e.line == line && e.what.contains(what), "{sweep}: {e}");
    }
    let e = of("kind = \"single\"\nbase = [\"L0.H1\"]").unwrap_err();
    assert!(e.what.contains("unknown key \"base\""), "{e}");
}

#[test]
fn classification_takes_a_probe_and_its_share() {
    let of = |more: &str| {
        let task = format!("kind = \"classification\"\ndata = \"wiki.jsonl\"\n{more}");
        let text = GOOD.replace("kind = \"language_modeling\"\ndata = \"wiki.jsonl\"", &task);
        parse(&text.replace("metric = \"perplexity\"", "metric = \"f1_binary\""), "x")
    };
    let s = of("").unwrap();
    assert_eq!((s.tasks[1].probe, s.tasks[1].train, s.tasks[1].metric), (None, None, Metric::F1Binary));
    // Identities of specs without these keys stay what they were.
    assert!(!serde_json::to_string(&s).unwrap().contains("\"train\""));
    let s = of("probe = true\ntrain = 0.25").unwrap();
    assert_eq!((s.tasks[1].probe, s.tasks[1].train), (Some(true), Some(0.25)));
    assert_eq!(serde_json::from_str::<Spec>(&serde_json::to_string(&s).unwrap()).unwrap(), s);
    let wrong = |more: &str, what: &str| {
        let e = of(more).unwrap_err();
        assert!(e.line > 12 && e.what.contains(what), "{e}");
    };
    wrong("probe = 1", "probe should be true or false");
    wrong("train = 1.0", "train = 1 isn't a share");
    wrong("train = 0", "train = 0 isn't a share");
    wrong("probe = false\ntrain = 0.5", "but probe = false");
    let e = parse(&GOOD.replace("kind = \"ioi\"", "kind = \"ioi\"\nprobe = true"), "x").unwrap_err();
    assert!(e.what.contains("probe is for kind = \"classification\" only"), "{e}");
}

#[test]
fn everything_wrong_is_said_with_its_line() {
    // (what is replaced, by what, line, message)
    let table: &[(&str, &str, usize, &str)] = &[
        (
            "seed = 7",
            "sead = 7",
            3,
            "unknown key \"sead\" in the spec; did you mean \"seed\"? (known: name, seed",
        ),
        ("seed = 7", "seed = -7", 3, "outside 0"),
        ("seed = 7", "seed = ", 3, "isn't TOML"),
        ("\"demo\"", "\"a/b\"", 2, "can't name a folder"),
        ("\"demo\"", "\"..\"", 2, "can't name a folder"),
        ("name = \"demo\"", "", 1, "needs name"),
        ("source = \"m.gguf\"", "", 5, "[model] needs source"),
        ("\"m.gguf\"", "\"hf://a/b@c\"", 6, "is in the contract but isn't built yet"),
        ("\"m.gguf\"", "3", 6, "source should be a string"),
        ("\"f64\"", "\"fp32\"", 7, "unknown dtype \"fp32\"; did you mean \"f32\"?"),
        ("kind = \"ioi\"", "kind = \"generation\"", 11, "isn't built yet"),
        ("kind = \"ioi\"", "kind = \"ioy\"", 11, "did you mean \"ioi\""),
        ("kind = \"ioi\"", "kind = \"ioi\"\ndata = \"x.jsonl\"", 12, "makes its own data"),
        ("kind = \"ioi\"", "kind = \"induction\"\nmax_tokens = 3", 12, "outside 5"),
        ("name = \"wiki\"", "name = \"ioi\"", 13, "two tasks are called \"ioi\""),
        ("data = \"wiki.jsonl\"", "", 13, "needs data"),
        ("wiki.jsonl", "wiki.csv", 16, "its data ends in .jsonl or .parquet or .txt"),
        ("examples = 4", "examples = 0", 17, "outside 1"),
        ("examples = 4", "examples = 4.5", 17, "whole number"),
        (
            "\"perplexity\"",
            "\"pearson\"",
            19,
            "doesn't fit a task of kind language_modeling (that has: loss, perplexity, accuracy, kl; pearson is a metric of: similarity)",
        ),
        (
            "kind = \"ioi\"",
            "kind = \"greater_than\"\nmetric = \"kl\"",
            12,
            "(that has: prob_diff, accuracy; kl is a metric of: language_modeling, masked_lm, induction, ioi, logit_difference, seq2seq)",
        ),
        ("\"perplexity\"", "\"bleu\"", 19, "doesn't fit a task"),
        ("[ablation]\nmethod = \"mean\"", "", 1, "[ablation] is missing"),
        ("method = \"mean\"", "method = \"optimal\"\nsteps = 0", 23, "outside 1"),
        ("method = \"mean\"", "method = \"optimal\"\nrate = 0.0", 23, "rate should be above 0"),
        ("method = \"mean\"", "method = \"mean\"\nsteps = 5", 23, "optimal"),
        ("method = \"mean\"", "method = \"mean\"\nunit = \"layers\"", 23, "did you mean \"layer\""),
        ("method = \"mean\"", "method = \"mean\"\nunit = \"set\"", 21, "needs sets"),
        ("method = \"mean\"", "method = \"mean\"\nsets = { a = [\"L0.H1\"] }", 23, "for unit = \"set\" only"),
        (
            "method = \"mean\"",
            "method = \"mean\"\nunit = \"set\"\n[ablation.sets]\nb = [\"L0.H1\"]\na = []",
            26,
            "set \"a\" selects no head",
        ),
        (
            "method = \"mean\"",
            "method = \"mean\"\nunit = \"set\"\n[ablation.sets]\nb = [\"L0.H1\",\n\"L0H1\"]",
            26,
            "isn't a head",
        ),
        (
            "method = \"mean\"",
            "method = \"mean\"\nunit = \"set\"\nsets = { a = [\"L0.H1\", \"L0.H1\"] }",
            24,
            "twice",
        ),
        ("method = \"mean\"", "method = \"mean\"\nunit = \"set\"\nsets = {}", 24, "names no set"),
        (
            "method = \"mean\"",
            "method = \"mean\"\nreference = \"r.csv\"",
            23,
            "its name ends in .jsonl, .parquet or .txt",
        ),
        ("method = \"mean\"", "method = \"zero\"\nreference = \"r.jsonl\"", 23, "leave it out"),
        (
            "method = \"mean\"",
            "method = \"resample\"\ndonors = \"paired\"\nreference = \"r.jsonl\"",
            24,
            "leave it out",
        ),
        ("method = \"mean\"", "method = \"mean\"\ndonors = \"paired\"", 23, "for method = \"resample\" only"),
        ("method = \"mean\"", "method = \"resample\"\ndonors = \"next\"", 23, "unknown donors"),
        ("method = \"mean\"", "method = \"zero\"\npool = \"tokens\"", 23, "for method = \"mean\" only"),
        ("method = \"mean\"", "method = \"scale\"", 21, "needs scale"),
        ("[ablation]", "[[ablation]]\nmethod = \"mean\"\n[[ablation]]", 23, "is there twice"),
        ("tasks = [\"wiki\"]", "tasks = [\"wikki\"]", 26, "did you mean \"wiki\""),
        ("tasks = [\"wiki\"]", "tasks = []", 26, "selects no task"),
        ("tasks = [\"wiki\"]", "streams = []", 26, "selects no head"),
        ("tasks = [\"wiki\"]", "streams = [\"self\", \"self\"]", 26, "is there twice"),
        ("tasks = [\"wiki\"]", "fraction = 0.5", 26, "unknown key \"fraction\""),
        ("kind = \"greedy\"", "kind = \"greedy\"\nfraction = 0", 30, "outside (0, 1]"),
        ("kind = \"greedy\"", "kind = \"greedy\"\nfraction = 1.01", 30, "outside (0, 1]"),
        ("kind = \"greedy\"", "kind = \"greedy\"\nfraction = nan", 30, "finite"),
        ("kind = \"greedy\"", "kind = \"greedy\"\nstrategy = \"racing\"", 30, "isn't built yet"),
        ("kind = \"greedy\"", "kind = \"greedy\"\nobjective = \"x\"", 30, "unknown objective"),
        (
            "kind = \"greedy\"",
            "kind = \"greedy\"\ntasks = [\"ioi\"]\nobjective = \"wiki\"",
            31,
            "isn't one of the sweep's tasks",
        ),
        ("kind = \"greedy\"", "kind = \"single\"", 28, "already runs on task \"wiki\""),
        ("kind = \"greedy\"", "", 28, "[[sweep]] needs kind"),
    ];
    for (old, new, line, what) in table {
        assert!(GOOD.contains(old), "{old}");
        let e = parse(&GOOD.replacen(old, new, 1), "demo.toml").expect_err(new);
        let text = e.to_string();
        assert!(text.starts_with(&format!("demo.toml:{line}: ")) && text.contains(what), "{new}: {text}");
    }
    assert!(parse("", "x").is_err());
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,60}", at in 0usize..400) {
        let _ = parse(&text, "x");
        let mut damaged = GOOD.to_owned();
        let at = (0..=at % GOOD.len()).rev().find(|&i| GOOD.is_char_boundary(i)).unwrap_or(0);
        damaged.insert_str(at, &text);
        let _ = parse(&damaged, "x");
    }
}

#[test]
fn the_documented_spec_is_one_and_its_defaults_are_as_it_says() {
    let page = include_str!("../../../docs/spec.md");
    let text = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let spec = parse(text, "spec.md").unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((spec.tasks.len(), spec.ablations.len(), spec.sweeps.len()), (1, 1, 8));
    // Without the lines that only repeat a default it is the same experiment.
    let defaults = [
        "seed = 0",
        "dtype =",
        "max_tokens =",
        "pool =",
        "unit =",
        "strategy =",
        "fraction =",
        "objective =",
        "split =",
        "orders =",
        "random_orders =",
        "patterns =",
    ];
    let kept: String = text
        .lines()
        .filter(|l| !defaults.iter().any(|d| l.starts_with(d)))
        .map(|l| format!("{l}\n"))
        .collect();
    assert_eq!(parse(&kept, "spec.md").unwrap_or_else(|e| panic!("{e}")), spec);
}

#[test]
fn a_key_of_another_table_is_sent_there() {
    let spec = |extra: &str| {
        format!(
            "name = \"a\"\n[model]\nsource = \"m.gguf\"\n[[task]]\nname = \"t\"\nkind = \"ioi\"\n{extra}\n\
             [ablation]\nmethod = \"zero\"\n[[sweep]]\nkind = \"single\"\n"
        )
    };
    let said = |extra: &str| parse(&spec(extra), "s.toml").map(|_| ()).map_err(|e| (e.line, e.what));
    let (line, what) = said("split = \"halves\"").expect_err("refused");
    assert!(line == 7 && what.contains("\"split\" in [[task]]; it is a key of [[sweep]]"), "{line} {what}");
    let (_, what) = said("exmples = 3").expect_err("refused");
    assert!(what.contains("did you mean \"examples\"?"), "{what}");
}
