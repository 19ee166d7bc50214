mod classes;
mod conditional;
mod observed;
mod sources;

use super::*;
use ablate_common::plan::{Order, SweepKind};
use ablate_common::spec;
use serde_json::json;
use std::fs;

/// A folder with a tiny model: headers and zero weights only, a word-level tokenizer.
fn folder(arch: &str) -> tempfile::TempDir {
    folder_with(arch, false)
}

/// [`folder`], with a masked-LM head where `masked`.
fn folder_with(arch: &str, masked: bool) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let words = "[CLS] [SEP] When Then After While Friends Yesterday Mary John Tom Dan Amy and went to the store garden \
                 restaurant school hospital office house station gave a ring letter book basketball computer necklace \
                 drink snack left handed were working at found it had lunch Afterwards brought , . one two three [MASK]";
    let vocab: serde_json::Map<String, serde_json::Value> =
        words.split_whitespace().zip(0..).map(|(w, i)| (w.to_owned(), json!(i))).collect();
    let special = |id: u32, s: &str| json!({"id": id, "content": s, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    let post = json!({"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [0], "tokens": ["[CLS]"]}, "[SEP]": {"id": "[SEP]", "ids": [1], "tokens": ["[SEP]"]}}});
    let n = vocab.len();
    let tokenizer = json!({"version": "1.0",
        "truncation": {"max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "[CLS]"},
        "added_tokens": [special(0, "[CLS]"), special(1, "[SEP]"), special(n as u32 - 1, "[MASK]")], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": if arch == "bert" { post } else { json!(null) }, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "two"}});
    fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let config = json!({"model_type": arch, "hidden_act": if arch == "bert" { "gelu" } else { "silu" }, "hidden_size": 4,
        "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 8, "vocab_size": n, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 32, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "tie_word_embeddings": true});
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let mut tensors: Vec<(String, Vec<usize>)> = Vec::new();
    if arch == "llama" {
        tensors.extend([
            ("model.embed_tokens.weight".into(), vec![n, 4]),
            ("model.norm.weight".into(), vec![4]),
        ]);
        for l in 0..2 {
            let at = |s: &str| format!("model.layers.{l}.{s}.weight");
            for p in ["q", "k", "v", "o"] {
                tensors.push((at(&format!("self_attn.{p}_proj")), vec![4, 4]));
            }
            tensors.extend([
                (at("mlp.gate_proj"), vec![8, 4]),
                (at("mlp.up_proj"), vec![8, 4]),
                (at("mlp.down_proj"), vec![4, 8]),
            ]);
            tensors.extend([(at("input_layernorm"), vec![4]), (at("post_attention_layernorm"), vec![4])]);
        }
    } else {
        let mut pair = |name: String, rows: usize, cols: Option<usize>| {
            tensors.push((format!("{name}.weight"), std::iter::once(rows).chain(cols).collect()));
            tensors.push((format!("{name}.bias"), vec![rows]));
        };
        pair("embeddings.LayerNorm".into(), 4, None);
        for l in 0..2 {
            let at = |s: &str| format!("encoder.layer.{l}.{s}");
            for p in ["self.query", "self.key", "self.value", "output.dense"] {
                pair(at(&format!("attention.{p}")), 4, Some(4));
            }
            pair(at("attention.output.LayerNorm"), 4, None);
            pair(at("intermediate.dense"), 8, Some(4));
            pair(at("output.dense"), 4, Some(8));
            pair(at("output.LayerNorm"), 4, None);
        }
        if masked {
            pair("cls.predictions.transform.dense".into(), 4, Some(4));
            pair("cls.predictions.transform.LayerNorm".into(), 4, None);
            tensors.push(("cls.predictions.bias".into(), vec![n]));
        }
        for (p, rows) in [("word", n), ("position", 32), ("token_type", 2)] {
            tensors.push((format!("embeddings.{p}_embeddings.weight"), vec![rows, 4]));
        }
    }
    let (mut header, mut at) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        let len = 4 * shape.iter().product::<usize>();
        header.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": [at, at + len]}));
        at += len;
    }
    let header = serde_json::Value::Object(header).to_string().into_bytes();
    let file = [&(header.len() as u64).to_le_bytes()[..], &header, &vec![0; at]].concat();
    fs::write(dir.path().join("model.safetensors"), file).unwrap();
    dir
}

fn run(dir: &Path, task: &str, sweeps: &str) -> Result<PreparedExperiment, Error> {
    let text = format!(
        "name = \"t\"\n[model]\nsource = \".\"\n[[task]]\nname = \"t\"\n{task}\n[ablation]\nmethod = \"mean\"\n{sweeps}"
    );
    prepare(&spec::parse(&text, "t.toml").unwrap(), dir, &|_, _, _| ())
}

const SINGLE: &str = "[[sweep]]\nkind = \"single\"";
const GREEDY: &str = "[[sweep]]\nkind = \"greedy\"";

#[test]
fn text_is_cut_into_windows_and_records_are_truncated() {
    let dir = folder("llama");
    fs::write(dir.path().join("a.txt"), "one two three one two\nthree one\n\n\ntwo one\n\none\n").unwrap();
    let p =
        run(dir.path(), "kind = \"language_modeling\"\ndata = \"a.txt\"\nmax_tokens = 3", GREEDY).unwrap();
    let lens: Vec<usize> = p.prepared[0].items.iter().map(|i| i.tokens.len()).collect();
    assert_eq!(lens, [3, 3, 2], "a window of one token predicts nothing");
    assert_eq!(p.prepared[0].examples.iter().map(|e| e.cluster).collect::<Vec<_>>(), [0, 0, 1]);
    assert_eq!(p.prepared[0].items[0].scored.len(), 2);
    let item = &p.prepared[0].items[0];
    assert!(item.scored.iter().all(|s| s.target == item.tokens[s.position as usize + 1]));
    fs::write(
        dir.path().join("a.jsonl"),
        "{\"text\": \"one two three\", \"document\": 7}\n\n{\"text\": \"two one\", \"document\": 7}",
    )
    .unwrap();
    let lm = "kind = \"language_modeling\"\ndata = \"a.jsonl\"\nmax_tokens = 2";
    let p = run(dir.path(), lm, SINGLE).unwrap();
    assert_eq!(p.prepared[0].items[0].tokens.len(), 2);
    assert_eq!(p.prepared[0].examples[1].cluster, 0);
    let e = run(dir.path(), lm, GREEDY).unwrap_err();
    assert!(e.exit_code() == 2 && e.to_string().contains("split = \"halves\" leaves 0 examples"), "{e}");
}

#[test]
fn generated_tasks_are_seeded_and_scored_where_they_should_be() {
    let dir = folder("llama");
    let task = "kind = \"induction\"\nexamples = 6\nmax_tokens = 11";
    let p = run(dir.path(), task, SINGLE).unwrap();
    assert_eq!(p.prepared, run(dir.path(), task, SINGLE).unwrap().prepared);
    for item in &p.prepared[0].items {
        assert_eq!(item.tokens[..5], item.tokens[5..]);
        assert_eq!(item.scored.iter().map(|s| s.position).collect::<Vec<_>>(), [5, 6, 7, 8]);
        assert!(item.tokens.iter().all(|&t| t > 1), "no special tokens");
    }
    assert_eq!(p.prepared[0].item_half.iter().filter(|&&h| h == 0).count(), 3);
    let e = run(dir.path(), "kind = \"induction\"\nmax_tokens = 33", SINGLE).unwrap_err();
    assert!(e.to_string().contains("above the model's context of 32"), "{e}");
    let e = run(dir.path(), "kind = \"greater_than\"\nmax_tokens = 32", SINGLE).unwrap_err();
    assert!(e.exit_code() == 2 && e.to_string().contains("splits years neither"), "{e}");
    // A word-level tokenizer sees " Mary" as "Mary": enough for prompts.
    let e = run(dir.path(), "kind = \"ioi\"\nexamples = 4\nmax_tokens = 5", SINGLE).unwrap_err();
    assert!(e.to_string().contains("too short for the prompt"), "{e}");
}

#[test]
fn records_that_do_not_fit_are_refused_with_file_and_line() {
    let dir = folder("llama");
    let data = dir.path().join("d.jsonl");
    let refused = |kind: &str, text: &str, what: &str| {
        fs::write(&data, text).unwrap();
        let e = run(dir.path(), &format!("kind = \"{kind}\"\ndata = \"d.jsonl\"\nmax_tokens = 8"), SINGLE)
            .unwrap_err();
        assert!(e.exit_code() == 2 && e.to_string().contains(what), "{e}");
    };
    refused("language_modeling", "{\"text\": \"one two\"}\n{\"txt\": 1}", "d.jsonl:2: missing field `text`");
    refused("language_modeling", "{\"text\": \"one two\"}\n{\"text\": \"\"}", "d.jsonl:2: text has fewer");
    refused("language_modeling", "\n\n", "d.jsonl:1: there is no record");
    refused(
        "logit_difference",
        "{\"prompt\": \"one\", \"target\": \" two\", \"foil\": \" two\"}",
        "d.jsonl:1: target and foil",
    );
    refused(
        "logit_difference",
        "{\"prompt\": \"one\", \"target\": \" one two\", \"foil\": \" two\"}",
        "isn't a single token",
    );
    let choice = |rest: &str, what: &str| {
        let good = "{\"prompt\": \"one\", \"choices\": [\" two\", \" one\"], \"answer\": 1}";
        refused("next_token_choice", &format!("{good}\n{{\"prompt\": {rest}}}"), what);
    };
    choice("\"one\", \"choices\": [\" two\"], \"answer\": 0", "d.jsonl:2: there must be two choices or more");
    choice("\"one\", \"choices\": [\" two\", \" one\"], \"answer\": 2", "d.jsonl:2: answer = 2 is no choice");
    choice("\"one\", \"choices\": [\" two\", \" one\"]", "d.jsonl:2: missing field `answer`");
    choice(
        "\"one\", \"choices\": [\" two\", \" two\"], \"answer\": 1",
        "d.jsonl:2: choice \" two\" is there twice",
    );
    choice("\"one\", \"choices\": [\" two\", \"\"], \"answer\": 1", "d.jsonl:2: choice \"\" doesn't begin");
    choice("\"\", \"choices\": [\" two\", \" one\"], \"answer\": 1", "d.jsonl:2: prompt has no token");
    choice(
        "\"one\", \"choices\": [\" two\", \" one one one one one one one one\"], \"answer\": 1",
        "d.jsonl:2: max_tokens = 8 leaves no room",
    );
    fs::write(&data, "{\"prompt\": \"one and two\", \"target\": \" one\", \"foil\": \" two\"}").unwrap();
    let p =
        run(dir.path(), "kind = \"logit_difference\"\ndata = \"d.jsonl\"\nmax_tokens = 2", SINGLE).unwrap();
    assert_eq!((p.prepared[0].items[0].tokens.len(), p.prepared[0].items[0].scored[0].position), (2, 1));
    assert!(preview(&p, 3).unwrap()[0].contains("and|[two]  target \"one\" over foil \"two\""));
    let e = run(dir.path(), "kind = \"similarity\"\ndata = \"d.jsonl\"\nmax_tokens = 8", SINGLE).unwrap_err();
    assert!(e.to_string().contains("needs an encoder"), "{e}");
    let e = run(dir.path(), "kind = \"language_modeling\"\ndata = \"no.jsonl\"\nmax_tokens = 8", SINGLE)
        .unwrap_err();
    assert!(e.to_string().contains("no.jsonl; correct data"), "{e}");
    let e = run(
        dir.path(),
        "kind = \"language_modeling\"\ndata = \"d.jsonl\"\nsha256 = \"00000000\"\nmax_tokens = 8",
        SINGLE,
    )
    .unwrap_err();
    assert!(e.to_string().contains("the spec says 00000000"), "{e}");
}

#[test]
fn masked_tokens_are_seeded_ordinary_and_hidden() {
    let dir = folder_with("bert", true);
    let text = "one two three [SEP] Mary went to the store . ".repeat(3);
    let lines = [json!({"text": text}), json!({"text": "one"})].map(|r| r.to_string()).join("\n");
    fs::write(dir.path().join("m.jsonl"), lines).unwrap();
    let task = |seed: &str| format!("kind = \"masked_lm\"\ndata = \"m.jsonl\"\nmax_tokens = 32{seed}");
    let p = run(dir.path(), &task(""), SINGLE).unwrap();
    let (items, whole) =
        (&p.prepared[0].items, Text::new(&model::inspect(dir.path()).unwrap().tokenizer).unwrap());
    let mask = whole.mask().unwrap();
    let mut bare = whole.bare(&text).unwrap();
    bare.truncate(30);
    let ordinary = bare.iter().filter(|&&t| !whole.is_special(t)).count();
    assert_eq!(
        (ordinary, items[0].scored.len(), items[1].scored.len()),
        (27, 4, 1),
        "15 %, and at least one"
    );
    for (item, bare) in items.iter().zip([bare, whole.bare("one").unwrap()]) {
        let mut restored = item.tokens.clone();
        for s in &item.scored {
            assert!(restored[s.position as usize] == mask && !whole.is_special(s.target));
            restored[s.position as usize] = s.target;
        }
        assert_eq!(restored, whole.wrap(&bare));
        assert_eq!(item.tokens.iter().filter(|&&t| t == mask).count(), item.scored.len());
    }
    assert_eq!(p.prepared, run(dir.path(), &task(""), SINGLE).unwrap().prepared);
    assert!(
        preview(&p, 2).unwrap()[1].ends_with("[CLS]|[[MASK]]|[SEP]  masked: one"),
        "{:?}",
        preview(&p, 2)
    );
    fs::write(dir.path().join("m.txt"), "one two three one two\n\none\n").unwrap();
    let text = "kind = \"masked_lm\"\ndata = \"m.txt\"\nmax_tokens = 5";
    let p = run(dir.path(), text, SINGLE).unwrap();
    assert_eq!(p.prepared[0].examples.iter().map(|e| e.cluster).collect::<Vec<_>>(), [0, 0, 1]);
    let refused = |dir: &Path, what: &str| {
        let e = run(dir, &task(""), SINGLE).unwrap_err();
        assert!(e.exit_code() == 2 && e.to_string().contains(what), "{e}");
    };
    fs::write(dir.path().join("m.jsonl"), "{\"text\": \"one\"}\n{\"text\": \"[SEP]\"}").unwrap();
    refused(dir.path(), "m.jsonl:2: text has no ordinary token");
    let tokenizer = dir.path().join("tokenizer.json");
    fs::write(&tokenizer, fs::read_to_string(&tokenizer).unwrap().replace("[MASK]", "[HIDE]")).unwrap();
    refused(dir.path(), "no token [MASK] or <mask>");
    refused(folder("bert").path(), "has no masked-LM head");
    refused(folder("llama").path(), "needs an encoder");
}

#[test]
fn every_continuation_of_a_choice_is_an_item_after_the_same_prompt() {
    let dir = folder("llama");
    let records = [
        json!({"prompt": "Mary and John went", "choices": [" to", " to the store", " and"], "answer": 1}),
        json!({"prompt": "a", "choices": [" ring", " letter"], "answer": 0, "document": "d"}),
        json!({"prompt": "the", "choices": [" ring", " letter"], "answer": 1, "document": "d"}),
    ];
    fs::write(dir.path().join("c.jsonl"), records.map(|r| r.to_string()).join("\n")).unwrap();
    let task = "kind = \"next_token_choice\"\ndata = \"c.jsonl\"\nmax_tokens = 5";
    let p = run(dir.path(), task, &format!("{SINGLE}\n{GREEDY}")).unwrap();
    let t = &p.prepared[0];
    assert_eq!((t.items.len(), t.examples.len()), (7, 3));
    let spans: Vec<_> = t.examples.iter().map(|e| (e.a, e.b, e.gold, e.cluster)).collect();
    assert_eq!(spans, [(0, 2, 1.0, 0), (3, 4, 0.0, 1), (5, 6, 1.0, 1)]);
    // The longest continuation has three tokens: every prompt keeps its last two.
    let lens: Vec<usize> = t.items.iter().map(|i| i.tokens.len()).collect();
    assert_eq!(lens, [3, 5, 3, 2, 2, 2, 2]);
    for item in &t.items {
        assert!(item.scored.iter().all(|s| s.target == item.tokens[s.position as usize + 1]));
        assert_eq!(item.scored.last().unwrap().position as usize, item.tokens.len() - 2);
    }
    assert_eq!(t.items[1].scored.iter().map(|s| s.position).collect::<Vec<_>>(), [1, 2, 3]);
    for e in &t.examples {
        assert!(t.items_of(e).iter().all(|&i| Some(t.item_half[i as usize]) == e.half));
    }
    let shown = preview(&p, 1).unwrap();
    assert!(shown[0].contains("John|[went]|to  /  John|[went]|[to]|[the]|store (right)"), "{shown:?}");
    assert_eq!(p.plan.tasks[0].metric.name(), "accuracy");
}

#[test]
fn similarity_runs_each_text_once_and_drops_pairs_that_cross() {
    let dir = folder("bert");
    let texts = ["one", "two", "three", "one one", "two two", "one two three one two three"];
    let mut lines = String::new();
    for (i, a) in texts.iter().enumerate() {
        for b in &texts[..i] {
            lines += &format!("{}\n", json!({"a": a, "b": b, "score": i}));
        }
    }
    fs::write(dir.path().join("s.jsonl"), lines).unwrap();
    let task = "kind = \"similarity\"\ndata = \"s.jsonl\"\nmax_tokens = 6";
    let p =
        run(dir.path(), task, &format!("{SINGLE}\n[[sweep]]\nkind = \"pairs\"\ngroups = false\n{GREEDY}"))
            .unwrap();
    let t = &p.prepared[0];
    assert_eq!((t.items.len(), t.examples.len(), t.items[0].tokens.as_slice()), (6, 15, &[0, 49, 1][..]));
    assert!(t.items.iter().all(|i| i.tokens.len() <= 6 && i.tokens.ends_with(&[1])));
    assert_eq!(t.examples_in(Scope::Select).len(), 3);
    assert_eq!(p.plan.tasks[0].select.iter().map(|b| b.items.len()).sum::<usize>(), 3);
    let kinds: Vec<&str> = p.plan.sweeps.iter().map(|s| s.kind.name()).collect();
    assert_eq!(kinds, ["reference", "single", "pairs", "greedy", "path-greedy", "path-importance", "random"]);
    assert!(matches!(p.plan.sweeps[5].kind, SweepKind::Path { greedy: 3, order: Order::Importance }));
    assert!(matches!(p.plan.sweeps[3].kind, SweepKind::Greedy { steps: 4, objective: 0 }));
    let costs = cost(&p.plan, &p.prepared);
    assert_eq!(
        (costs[1].subsets, costs[2].subsets, costs[3].subsets, costs[3].rounds),
        (4, 6, 4 + 3 + 2 + 1, 4)
    );
    assert!(costs.iter().all(|c| c.flops > 0.0 && c.bytes > 0));
    // Of every task both the unablated states and those of the greedy sweep's selecting half are kept: each stage's
    // residual stream, attention output and z, and the final residual stream.
    let m = &p.plan.model;
    let state = |batches: &[ablate_common::plan::Batch]| -> u64 {
        let tokens: u64 = batches.iter().map(|b| b.items.len() as u64 * u64::from(b.len)).sum();
        tokens * u64::from(m.layers + 1) * u64::from(2 * m.d_model + m.n_heads * m.head_dim) * 4
    };
    let (all, select) = (state(&p.plan.tasks[0].all), state(&p.plan.tasks[0].select));
    let need = ablate_common::memory::of_plan(&p.plan, &p.prepared, 1024);
    assert_eq!(need.states, all + 2 * select);
    assert!(need.passes() <= need.most() && need.embeddings > 0, "{need:?}");
    let back: Plan = serde_json::from_slice(&serde_json::to_vec(&p.plan).unwrap()).unwrap();
    assert_eq!((back.identity(), &back), (p.plan.identity(), &p.plan));
    assert_eq!(preview(&p, 1).unwrap().len(), 1);
    // Matched orders come after the plain ones, at the same points, and cost as much.
    let matched = format!("{GREEDY}\norders = [\"greedy\", \"random\", \"matched\"]\nrandom_orders = 2\n");
    let p = run(dir.path(), task, &matched).unwrap();
    let [.., plain, matched] = p.plan.sweeps.as_slice() else { panic!() };
    let SweepKind::Random { orders: 2, seed, points } = plain.kind.clone() else { panic!() };
    assert_eq!(matched.kind, SweepKind::Matched { greedy: 1, orders: 2, seed, points: points.clone() });
    assert_eq!((matched.chunk, matched.scope), (plain.chunk, Scope::All));
    let costs = cost(&p.plan, &p.prepared);
    let [.., plain, matched] = costs.as_slice() else { panic!() };
    assert_eq!((matched.name.as_str(), matched.subsets), ("matched", plain.subsets));
    assert_eq!((plain.subsets, plain.flops), (2 * points.len() as u64, matched.flops));
    let back: Plan = serde_json::from_slice(&serde_json::to_vec(&p.plan).unwrap()).unwrap();
    assert_eq!((back.protocol(), back.total_subsets()), (5, p.plan.total_subsets()));
}

#[test]
fn an_order_by_gradient_brings_its_sweep_on_the_selecting_half() {
    let dir = folder("bert");
    let mut lines = String::new();
    for (a, b) in [
        ("one", "two"),
        ("two", "three"),
        ("one", "three"),
        ("one one", "two two"),
        ("one", "one one"),
        ("two two", "two"),
    ] {
        lines += &format!("{}\n", json!({"a": a, "b": b, "score": a.len() + b.len()}));
    }
    fs::write(dir.path().join("s.jsonl"), lines).unwrap();
    let task = "kind = \"similarity\"\ndata = \"s.jsonl\"\nmax_tokens = 6";
    let sweeps = "[[sweep]]\nkind = \"gradient\"\n[[sweep]]\nkind = \"greedy\"\nsplit = \"none\"\norders = [\"gradient\"]";
    let p = run(dir.path(), task, sweeps).unwrap();
    let kinds: Vec<&str> = p.plan.sweeps.iter().map(|s| s.kind.name()).collect();
    assert_eq!(kinds, ["reference", "gradient", "greedy", "gradient", "path-gradient"]);
    assert!(matches!(p.plan.sweeps[3].kind, SweepKind::Gradient { greedy: Some(2) }));
    assert!(!p.plan.decides(1) && p.plan.decides(3));
    assert_eq!((p.plan.round_chunks(1, 0), p.plan.round_subsets(1, 0)), (1, 4));
    let t = &p.prepared[0];
    // A row is a text here, an example elsewhere.
    assert_eq!((p.plan.rows(1, t).len(), p.plan.rows(0, t).len()), (t.items.len(), t.examples.len()));
    assert_eq!(
        (p.plan.columns(1, 0), p.plan.columns(0, 0)),
        (&["gradient", "attribution"][..], &["cosine"][..])
    );
    let costs = cost(&p.plan, &p.prepared);
    assert!(costs[1].flops > costs[0].flops && costs[1].flops.is_finite());
    let back: Plan = serde_json::from_slice(&serde_json::to_vec(&p.plan).unwrap()).unwrap();
    assert_eq!(back, p.plan);
}

/// Batches as they are made where there are only sources: only the last one ever has room.
fn of_sources(lens: &[usize]) -> Vec<ablate_common::plan::Batch> {
    let mut items: Vec<u32> = (0..lens.len() as u32).collect();
    items.sort_by_key(|&i| (lens[i as usize], i));
    let mut out: Vec<ablate_common::plan::Batch> = Vec::new();
    let mut tokens = 0;
    for i in items {
        let n = lens[i as usize];
        if let Some(last) = out.last_mut() {
            let padded = (last.items.len() + 1) * n;
            if padded <= BATCH_TOKENS && (padded - tokens - n) * 4 <= padded {
                last.items.push(i);
                last.len = n as u32;
                tokens += n;
                continue;
            }
        }
        out.push(ablate_common::plan::Batch { items: vec![i], len: n as u32 });
        tokens = n;
    }
    out
}

proptest::proptest! {
    #[test]
    fn batches_hold_every_item_once_within_their_limits(
        lens in proptest::collection::vec((1usize..700, 1usize..700), 1..60),
        targets in proptest::bool::ANY,
    ) {
        let sides: Vec<[usize; 2]> = lens.iter().map(|&(n, m)| [n, if targets { m } else { 0 }]).collect();
        let item = |side: &[usize; 2]| ablate_common::task::Item {
            tokens: vec![0; side[0]],
            decoder: vec![0; side[1]],
            ..Default::default()
        };
        let items: Vec<_> = sides.iter().map(item).collect();
        let kind = if targets { TaskKind::Seq2seq } else { TaskKind::Similarity };
        let p = Prepared { kind, item_half: vec![0; items.len()], items, examples: Vec::new(), probe: None };
        let made = batches::batches(&p, Scope::All);
        let mut seen: Vec<u32> = Vec::new();
        for b in &made {
            for target in [false, true] {
                let own = || b.items.iter().map(|&i| sides[i as usize][usize::from(target)]);
                let longest = own().max().unwrap();
                let padded = b.items.len() * longest;
                assert!(b.items.len() == 1 || padded <= BATCH_TOKENS);
                assert!((padded - own().sum::<usize>()) * 4 <= padded);
                assert!(target || b.len as usize == longest);
            }
            seen.extend(&b.items);
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..lens.len() as u32).collect::<Vec<_>>());
        if !targets {
            assert_eq!(made, of_sources(&lens.iter().map(|l| l.0).collect::<Vec<_>>()));
        }
    }
}

#[test]
fn targets_of_many_lengths_are_padded_no_further_than_sources() {
    let item = |i: usize| ablate_common::task::Item {
        tokens: vec![0; 8],
        decoder: vec![0; 2 + 2 * i],
        ..Default::default()
    };
    let items: Vec<_> = (0..64).map(item).collect();
    let target = |i: u32| 2 + 2 * i as usize;
    let made = batches::of_items(&items, (0..64).collect());
    let padded =
        |b: &ablate_common::plan::Batch| b.items.len() * b.items.iter().map(|&i| target(i)).max().unwrap();
    assert!(made.iter().all(|b| b.items.len() == 1 || padded(b) <= BATCH_TOKENS), "{made:?}");
    let real: usize = (0..64).map(target).sum();
    assert!(made.iter().map(padded).sum::<usize>() * 3 <= real * 4, "{made:?}");
}
