//! From TOML to a checked [`Spec`].

use super::ablations::ablations;
use super::table::{Source, Table, Value};
use super::{AblationSpec, Dtype, Error, ModelSpec, Spec, SweepKindSpec, SweepSpec, TaskSpec};
use crate::head::{Head, Stream};
use crate::metric::Metric;
use crate::plan::{Order, Shuffle};
use crate::task::TaskKind;
use crate::units::UnitKind;
use std::collections::BTreeSet;
use toml::de::DeTable;

/// Kinds of task that are built.
const KINDS: [(&str, TaskKind); 10] = [
    ("language_modeling", TaskKind::LanguageModeling),
    ("masked_lm", TaskKind::MaskedLm),
    ("induction", TaskKind::Induction),
    ("ioi", TaskKind::Ioi),
    ("greater_than", TaskKind::GreaterThan),
    ("logit_difference", TaskKind::LogitDifference),
    ("next_token_choice", TaskKind::NextTokenChoice),
    ("classification", TaskKind::Classification),
    ("seq2seq", TaskKind::Seq2seq),
    ("similarity", TaskKind::Similarity),
];
const KINDS_LATER: [&str; 1] = ["generation"];
const METRICS: [Metric; 12] = [
    Metric::Loss,
    Metric::Perplexity,
    Metric::Accuracy,
    Metric::F1,
    Metric::F1Binary,
    Metric::Matthews,
    Metric::LogitDiff,
    Metric::ProbDiff,
    Metric::Kl,
    Metric::Bleu,
    Metric::Pearson,
    Metric::Spearman,
];

/// Parses the text of a spec; `origin` is its name in messages.
///
/// # Errors
/// With the line of the first thing that is wrong.
pub fn parse(text: &str, origin: &str) -> Result<Spec, Error> {
    let source = Source { text, origin };
    let root = DeTable::parse(text).map_err(|e| {
        source.error(e.span().map_or(0, |s| s.start), format!("this isn't TOML: {}", e.message()))
    })?;
    let top = Table::new(source, "the spec", 0, root.get_ref());
    top.only(&["name", "seed", "model", "task", "ablation", "sweep"], &[])?;
    let name = top.need("name", "\"my-experiment\"")?;
    let seed = top.get("seed").map_or(Ok(0), |v| v.whole(0, i64::MAX as u64))?;
    let models = top.tables("model", "[model]")?;
    let model = match models.as_slice() {
        [m] => model(m)?,
        [] => return Err(top.error("[model] is missing; add it with source = \"PATH\"")),
        [_, m, ..] => return Err(m.error("there can be only one [model]")),
    };
    let tasks = tasks(&top)?;
    let ablations = ablations(&top)?;
    let sweeps = sweeps(&top, &tasks, &ablations)?;
    Ok(Spec { name: folder_name(name)?, seed, model, tasks, ablations, sweeps })
}

/// A name that is safe as the name of a folder.
fn folder_name(v: Value<'_>) -> Result<String, Error> {
    let name = v.text()?;
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > 100 || !name.chars().all(fine) || name.starts_with(['.', '-']) {
        return Err(v.error(format!(
            "name = {name:?} can't name a folder: use up to 100 letters, digits, '.', '_' and '-', beginning with a letter or digit"
        )));
    }
    Ok(name.to_owned())
}

fn sha256(t: &Table<'_>) -> Result<Option<String>, Error> {
    let Some(v) = t.get("sha256") else { return Ok(None) };
    let hash = v.text()?.to_ascii_lowercase();
    if !(8..=64).contains(&hash.len()) || !hash.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(v.error("sha256 should be 8 to 64 hexadecimal digits: the hash or the beginning of it"));
    }
    Ok(Some(hash))
}

fn model(t: &Table<'_>) -> Result<ModelSpec, Error> {
    t.only(&["source", "dtype", "sha256"], &[])?;
    let v = t.need("source", "\"models/model.gguf\"")?;
    let source = v.text()?;
    if source.is_empty() {
        return Err(v.error("source is empty; give the path of a Hugging Face directory or of a .gguf file"));
    }
    if let Some((scheme, _)) = source.split_once("://") {
        if ["hf", "s3"].contains(&scheme) {
            return Err(v.error(format!(
                "source = \"{scheme}://…\" is in the contract but isn't built yet (built: the path of a Hugging Face directory or of a .gguf file)"
            )));
        }
        return Err(v.error(format!(
            "unknown source \"{scheme}://\"; give the path of a Hugging Face directory or of a .gguf file"
        )));
    }
    let dtypes = [("f64", Dtype::F64), ("f32", Dtype::F32), ("bf16", Dtype::Bf16), ("f16", Dtype::F16)];
    let dtype = t.get("dtype").map_or(Ok(Dtype::F32), |v| v.choice(&dtypes, &[]))?;
    Ok(ModelSpec { source: source.to_owned(), dtype, sha256: sha256(t)? })
}

fn tasks(top: &Table<'_>) -> Result<Vec<TaskSpec>, Error> {
    let mut out: Vec<TaskSpec> = Vec::new();
    for t in top.tables("task", "[[task]]")? {
        let task = task(&t)?;
        if out.iter().any(|o| o.name == task.name) {
            return Err(t.error(format!("two tasks are called {:?}; give each its own name", task.name)));
        }
        out.push(task);
    }
    if out.is_empty() {
        return Err(top.error("there is no [[task]]; add one with name and kind"));
    }
    Ok(out)
}

fn task(t: &Table<'_>) -> Result<TaskSpec, Error> {
    t.only(&["name", "kind", "data", "examples", "max_tokens", "metric", "sha256", "probe", "train"], &[])?;
    let v = t.need("name", "\"wiki\"")?;
    let name = v.text()?;
    if name.trim().is_empty() || name.len() > 100 || name.chars().any(char::is_control) {
        return Err(v.error("the name of a task should have 1 to 100 printable characters"));
    }
    let kind = t.need("kind", "\"ioi\"")?.choice(&KINDS, &KINDS_LATER)?;
    let generated = matches!(kind, TaskKind::Induction | TaskKind::Ioi | TaskKind::GreaterThan);
    let data = match t.get("data") {
        None if generated => None,
        None => {
            return Err(t.error(format!(
                "a {} task needs data, for example data = \"data/file.jsonl\"",
                kind.name()
            )));
        }
        Some(v) if generated => {
            return Err(v.error(format!("a {} task makes its own data; leave data out", kind.name())));
        }
        Some(v) => Some(data(v, kind)?),
    };
    if let (Some(v), true) = (t.get("sha256"), generated) {
        return Err(v.error(format!("a {} task has no data file, so no sha256; leave it out", kind.name())));
    }
    for key in ["probe", "train"] {
        if let (Some(v), true) = (t.get(key), kind != TaskKind::Classification) {
            return Err(v.error(format!("{key} is for kind = \"classification\" only; leave it out")));
        }
    }
    let probe = t.get("probe").map(Value::truth).transpose()?;
    let examples = t.get("examples").map(|v| v.small(1, 10_000_000)).transpose()?;
    let least = if kind == TaskKind::Induction { 5 } else { 2 };
    Ok(TaskSpec {
        name: name.to_owned(),
        kind,
        data,
        examples: examples.or(if generated { Some(64) } else { None }),
        max_tokens: t.get("max_tokens").map_or(Ok(128), |v| v.small(least, 1 << 24))?,
        metric: metric(t, kind)?,
        sha256: sha256(t)?,
        probe,
        train: t.get("train").map(|v| train(v, probe)).transpose()?,
    })
}

/// Share of the documents that a probe is fitted on.
fn train(v: Value<'_>, probe: Option<bool>) -> Result<f64, Error> {
    let share = v.number()?;
    if probe == Some(false) {
        return Err(v.error("train is the share that a probe is fitted on, but probe = false; leave one out"));
    }
    if share > 0.0 && share < 1.0 {
        Ok(share)
    } else {
        Err(v.error(format!("train = {share} isn't a share of the documents: give a number between 0 and 1")))
    }
}

fn data(v: Value<'_>, kind: TaskKind) -> Result<String, Error> {
    let path = v.text()?;
    let text = matches!(kind, TaskKind::LanguageModeling | TaskKind::MaskedLm);
    let fine: &[&str] = if text { &["jsonl", "parquet", "txt"] } else { &["jsonl", "parquet"] };
    let ending = path.rsplit_once('.').map_or("", |p| p.1).to_ascii_lowercase();
    if !fine.contains(&ending.as_str()) {
        return Err(v.error(format!(
            "a {} task can't read {path:?}: its data ends in .{}",
            kind.name(),
            fine.join(" or .")
        )));
    }
    Ok(path.to_owned())
}

fn metric(t: &Table<'_>, kind: TaskKind) -> Result<Metric, Error> {
    let of = Metric::of(kind);
    let Some(v) = t.get("metric") else { return Ok(of[0]) };
    let metric = v.choice(&METRICS.map(|m| (m.name(), m)), &[])?;
    if !of.contains(&metric) {
        let names: Vec<&str> = of.iter().map(|m| m.name()).collect();
        let kinds: Vec<&str> =
            KINDS.iter().filter(|k| Metric::of(k.1).contains(&metric)).map(|k| k.0).collect();
        return Err(v.error(format!(
            "metric \"{}\" doesn't fit a task of kind {} (that has: {}; {} is a metric of: {})",
            metric.name(),
            kind.name(),
            names.join(", "),
            metric.name(),
            kinds.join(", ")
        )));
    }
    Ok(metric)
}

fn sweeps(top: &Table<'_>, tasks: &[TaskSpec], ablations: &[AblationSpec]) -> Result<Vec<SweepSpec>, Error> {
    let mut out: Vec<SweepSpec> = Vec::new();
    for t in top.tables("sweep", "[[sweep]]")? {
        let sweep = sweep(&t, tasks, ablations)?;
        let runs = |s: &SweepSpec, name: &String| s.tasks.as_ref().is_none_or(|list| list.contains(name));
        // Sweeps of different streams have no unit in common.
        let meet = |o: &SweepSpec| match (&o.streams, &sweep.streams) {
            (Some(a), Some(b)) => a.iter().any(|s| b.contains(s)),
            _ => true,
        };
        let same = |o: &&SweepSpec| same_kind(&o.kind, &sweep.kind);
        for other in out.iter().filter(same).filter(|o| meet(o)) {
            if let Some(task) = tasks.iter().find(|t| runs(other, &t.name) && runs(&sweep, &t.name)) {
                let kind = t.need("kind", "\"single\"")?.text()?;
                let given = if matches!(sweep.kind, SweepKindSpec::Conditional { .. }) {
                    " with this base"
                } else {
                    ""
                };
                return Err(t.error(format!(
                    "a sweep of kind \"{kind}\"{given} already runs on task {:?}; narrow one of them with tasks or streams, or leave it out",
                    task.name
                )));
            }
        }
        out.push(sweep);
    }
    if out.is_empty() {
        return Err(top.error(
            "there is no [[sweep]]; add one with kind = \"single\" (or \"pairs\", \"gradient\", \"attention\", \"repair\", \"shift\", \"greedy\")",
        ));
    }
    Ok(out)
}

/// Whether two sweeps measure the same where they meet; pairs given other bases don't. A head may be written in several ways.
fn same_kind(a: &SweepKindSpec, b: &SweepKindSpec) -> bool {
    let plain = |base: &[String]| -> BTreeSet<String> {
        base.iter()
            .map(|name| name.parse::<Head>().map_or_else(|_| name.clone(), |h| h.to_string()))
            .collect()
    };
    match (a, b) {
        (SweepKindSpec::Conditional { base: a }, SweepKindSpec::Conditional { base: b }) => {
            plain(a) == plain(b)
        }
        _ => std::mem::discriminant(a) == std::mem::discriminant(b),
    }
}

fn task_name(v: &Value<'_>, tasks: &[TaskSpec]) -> Result<String, Error> {
    let names: Vec<(&str, &str)> = tasks.iter().map(|t| (t.name.as_str(), t.name.as_str())).collect();
    Ok(v.choice(&names, &[])?.to_owned())
}

fn sweep(t: &Table<'_>, tasks: &[TaskSpec], ablations: &[AblationSpec]) -> Result<SweepSpec, Error> {
    let kinds = [
        ("single", 0),
        ("pairs", 1),
        ("gradient", 2),
        ("greedy", 3),
        ("attention", 4),
        ("repair", 5),
        ("shift", 6),
    ];
    let kind = t.need("kind", "\"single\"")?.choice(&kinds, &[])?;
    let mut keys = vec!["kind", "tasks", "streams"];
    match kind {
        1 => keys.extend(["strategy", "groups", "third_order", "base"]),
        4 => keys.push("patterns"),
        0 | 2 | 5 | 6 => {}
        _ => keys.extend(["fraction", "strategy", "objective", "split", "orders", "random_orders"]),
    }
    t.only(&keys, &[])?;
    let narrowed = t.get("tasks").map(|v| narrowed(v, tasks)).transpose()?;
    let streams = t.get("streams").map(streams).transpose()?;
    if let Some(v) = t.get("strategy") {
        let later: &[&str] = if kind == 1 { &["screened"] } else { &["screened", "racing"] };
        v.choice(&[("exhaustive", ())], later)?;
    }
    let kind = match kind {
        0 => SweepKindSpec::Single,
        1 if let Some(v) = t.get("base") => SweepKindSpec::Conditional { base: base(t, v)? },
        1 => SweepKindSpec::Pairs {
            groups: t.get("groups").map_or(Ok(true), Value::truth)?,
            third_order: t.get("third_order").map_or(Ok(0), |v| v.small(0, 10_000))?,
        },
        2 => SweepKindSpec::Gradient,
        4 => SweepKindSpec::Attention { patterns: patterns(t)? },
        5 => SweepKindSpec::Repair,
        6 => SweepKindSpec::Shift,
        _ => greedy(t, tasks, narrowed.as_deref(), ablations)?,
    };
    Ok(SweepSpec { kind, tasks: narrowed, streams })
}

fn narrowed(v: Value<'_>, tasks: &[TaskSpec]) -> Result<Vec<String>, Error> {
    let mut out = Vec::new();
    for item in v.list()? {
        let name = task_name(&item, tasks)?;
        if out.contains(&name) {
            return Err(item.error(format!("task {name:?} is there twice")));
        }
        out.push(name);
    }
    if out.is_empty() {
        return Err(v.error("tasks selects no task; name one, or leave it out for all"));
    }
    Ok(out)
}

/// Names of the units that are already removed. Whether they are units is only known with the model.
fn base(t: &Table<'_>, v: Value<'_>) -> Result<Vec<String>, Error> {
    for key in ["groups", "third_order"] {
        if let Some(v) = t.get(key) {
            return Err(v.error(format!(
                "{key} follows pairs of the whole model, and isn't for those with a base; leave it out"
            )));
        }
    }
    let mut out: Vec<String> = Vec::new();
    for item in v.list()? {
        let name = item.text()?;
        if out.iter().any(|o| o == name) {
            return Err(item.error(format!("{name:?} is there twice in base")));
        }
        out.push(name.to_owned());
    }
    if out.is_empty() {
        return Err(v.error(
            "base names no unit; name those that are already removed, for example [\"L0.H3\", \"L1.H2\"], or leave it out",
        ));
    }
    Ok(out)
}

/// Examples whose patterns are kept, ascending.
fn patterns(t: &Table<'_>) -> Result<Vec<u32>, Error> {
    let Some(v) = t.get("patterns") else { return Ok(vec![0]) };
    let mut out = Vec::new();
    for item in v.list()? {
        let example = item.small(0, 10_000_000)?;
        if out.contains(&example) {
            return Err(item.error(format!("example {example} is there twice")));
        }
        out.push(example);
    }
    out.sort_unstable();
    Ok(out)
}

fn streams(v: Value<'_>) -> Result<Vec<Stream>, Error> {
    let all = [Stream::SelfAttention, Stream::Encoder, Stream::Decoder, Stream::Cross].map(|s| (s.name(), s));
    let mut out = Vec::new();
    for item in v.list()? {
        let stream = item.choice(&all, &[])?;
        if out.contains(&stream) {
            return Err(item.error(format!("stream \"{stream}\" is there twice")));
        }
        out.push(stream);
    }
    if out.is_empty() {
        return Err(v.error("streams selects no head; name one, or leave it out for all"));
    }
    Ok(out)
}

/// A name among `orders`.
#[derive(Clone, Copy, PartialEq)]
enum Named {
    /// One order.
    By(Order),
    /// Random ones of a kind.
    Drawn(Shuffle),
}

/// Names among `orders`, in the order in which they are told.
const ORDERS: [(&str, Named); 6] = [
    ("greedy", Named::By(Order::Greedy)),
    ("importance", Named::By(Order::Importance)),
    ("gradient", Named::By(Order::Gradient)),
    ("rollout", Named::By(Order::Rollout)),
    ("random", Named::Drawn(Shuffle::Plain)),
    ("matched", Named::Drawn(Shuffle::Matched)),
];

/// The orders of a greedy sweep, each once.
fn orders(t: &Table<'_>, ablations: &[AblationSpec]) -> Result<Vec<Named>, Error> {
    let Some(v) = t.get("orders") else {
        let plain = Named::Drawn(Shuffle::Plain);
        return Ok(vec![Named::By(Order::Greedy), Named::By(Order::Importance), plain]);
    };
    let mut out = Vec::new();
    for item in v.list()? {
        let order = item.choice(&ORDERS, &[])?;
        if out.contains(&order) {
            return Err(item.error("an order is there twice"));
        }
        let why = |unit: UnitKind| match unit {
            UnitKind::Set => Some("the heads of a set may lie in several layers"),
            UnitKind::Layer => Some("a layer has no second unit that could go in its place"),
            UnitKind::Head | UnitKind::KvGroup => None,
        };
        let unfit = ablations.iter().find_map(|a| Some((a.unit, why(a.unit)?)));
        if let (Named::Drawn(Shuffle::Matched), Some((unit, why))) = (order, unfit) {
            return Err(item.error(format!(
                "orders = \"matched\" doesn't go with unit = \"{}\", as {why}; leave it out, or give that unit a spec of its own",
                unit.name()
            )));
        }
        out.push(order);
    }
    Ok(out)
}

fn greedy(
    t: &Table<'_>,
    tasks: &[TaskSpec],
    narrowed: Option<&[String]>,
    ablations: &[AblationSpec],
) -> Result<SweepKindSpec, Error> {
    let fraction = t.get("fraction").map_or(Ok(0.79), |v| {
        let f = v.number()?;
        if f > 0.0 && f <= 1.0 { Ok(f) } else { Err(v.error(format!("fraction = {f} is outside (0, 1]"))) }
    })?;
    let first =
        || narrowed.and_then(<[String]>::first).cloned().or_else(|| tasks.first().map(|t| t.name.clone()));
    let objective = match t.get("objective") {
        None => first().unwrap_or_default(),
        Some(v) => {
            let name = task_name(&v, tasks)?;
            if narrowed.is_some_and(|list| !list.contains(&name)) {
                return Err(
                    v.error(format!("objective {name:?} isn't one of the sweep's tasks; add it there"))
                );
            }
            name
        }
    };
    let halves = t.get("split").map_or(Ok(true), |v| v.choice(&[("halves", true), ("none", false)], &[]))?;
    let orders = orders(t, ablations)?;
    let drawn = Shuffle::ALL.map(|kind| orders.contains(&Named::Drawn(kind)));
    let each = match t.get("random_orders") {
        Some(v) if drawn == [false; 2] => {
            return Err(v.error("random_orders needs \"random\" or \"matched\" among orders"));
        }
        Some(v) => v.small(1, 10_000)?,
        None => 20,
    };
    let [random, matched] = drawn.map(|asked| if asked { each } else { 0 });
    let by = |order: Named| match order {
        Named::By(order) => Some(order),
        Named::Drawn(_) => None,
    };
    Ok(SweepKindSpec::Greedy {
        fraction,
        objective,
        halves,
        orders: orders.into_iter().filter_map(by).collect(),
        random,
        matched,
    })
}
