//! What heads look at: scores of their attention patterns, see [`ablate_common::attention`], and whole patterns of chosen examples.

use crate::reliability::Halves;
use crate::results::Results;
use crate::tables::{Columns, batch, floats, ints, texts};
use crate::view;
use ablate_common::attention::{COLUMNS, ROLLOUT, documents, queries};
use ablate_common::head::{Head, Stream};
use ablate_common::plan::{PlannedTask, SweepKind};
use ablate_common::stats::Estimate;
use ablate_common::stats::paired::{Link, Weighted};
use ablate_common::task::Scope;
use ablate_common::units::{Place, UnitIx};
use arrow_array::{Float64Array, RecordBatch};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What one head of the unablated model looks at, over all items of a task. Means are over queries (of rollout over items); a score that no
/// query has is none.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionRow {
    /// Stream of attention.
    pub stream: Stream,
    /// Layer, from 0.
    pub layer: u32,
    /// Head within the layer, from 0.
    pub head: u32,
    /// The head's name.
    pub name: String,
    /// Mean of the largest weight.
    pub confidence: f64,
    /// Mean of −Σ A ln A, in nats.
    pub entropy: f64,
    /// Mean weight on position 0, of later queries.
    pub first_token: Option<f64>,
    /// Mean weight on the position before the query.
    pub previous_token: Option<f64>,
    /// Mean weight on the earlier positions of the query's own token, of queries that have such.
    pub duplicate_token: Option<f64>,
    /// Mean weight on the positions behind those.
    pub induction: Option<f64>,
    /// Mean flow of attention rollout that the head moves between tokens.
    pub rollout: f64,
    /// Standard errors of these seven, clustered by document, in this order; NaN where unknown.
    pub errors: [f64; 7],
    /// Items.
    pub n: u32,
}

/// The heads that the spec's attention sweeps look at on a task, in forward order.
pub fn rows(results: &Results, task: u32) -> Vec<AttentionRow> {
    let prepared = &results.prepared[task as usize];
    let items = prepared.items_in(Scope::All);
    let of_items = documents(prepared);
    let clusters: Vec<u32> = items.iter().filter_map(|&i| of_items.get(i as usize).copied()).collect();
    // Numbers of queries, and so the weights of items, are those of a stream.
    let mut measures: BTreeMap<Stream, Vec<Weighted>> = BTreeMap::new();
    let mut out = Vec::new();
    for sweep in sweeps(results, task, |k| *k == SweepKind::Attention { greedy: None }) {
        let chunk = u64::from(results.plan.sweeps[sweep as usize].chunk.max(1));
        for (rank, head) in (0u64..).zip(heads(results, sweep)) {
            let (Some(block), Some(head)) =
                (view::block(results, sweep, 0, (rank / chunk) as u32, task), head)
            else {
                continue;
            };
            let measure = measures.entry(head.stream).or_insert_with(|| {
                let counts: Vec<[u32; 7]> =
                    items.iter().map(|&i| queries(&prepared.items[i as usize], head.stream)).collect();
                let of = |c: usize| counts.iter().map(|n| f64::from(n[c])).collect();
                (0..COLUMNS.len()).map(|c| Weighted::new(of(c), &clusters)).collect()
            });
            let unit = (rank % chunk) as usize;
            let mean = |c: usize| -> Estimate {
                measure
                    .get(c)
                    .map_or(Estimate::NAN, |m| m.contrast(&[(1.0, block.column(unit, c))], Link::Identity))
            };
            let all: [Estimate; 7] = std::array::from_fn(mean);
            let known = |c: usize| Some(all[c].value).filter(|v| !v.is_nan());
            out.push(AttentionRow {
                stream: head.stream,
                layer: head.layer,
                head: head.head,
                name: head.to_string(),
                confidence: all[0].value,
                entropy: all[1].value,
                first_token: known(2),
                previous_token: known(3),
                duplicate_token: known(4),
                induction: known(5),
                rollout: all[6].value,
                errors: all.map(|e| e.se),
                n: items.len() as u32,
            });
        }
    }
    out.sort_by_key(|r| (r.stream, r.layer, r.head));
    out
}

/// The place of a head among units that are heads.
pub fn place(of: &[Place], stream: Stream, layer: u32, head: u32) -> Option<UnitIx> {
    let here = |p: &Place| (p.stream, p.layer, p.head) == (Some(stream), Some(layer), Some(head));
    of.iter().position(here).map(|at| UnitIx(at as u32))
}

/// Rollout, confidence and entropy of every head on each half of the documents, by the head's place in `of`.
pub fn halves(results: &Results, task: u32, of: &[Place]) -> [Halves; 3] {
    let prepared = &results.prepared[task as usize];
    let items = prepared.items_in(Scope::All);
    let of_items: Vec<Option<u8>> =
        items.iter().map(|&i| prepared.item_half.get(i as usize).copied()).collect();
    let mut weights: BTreeMap<Stream, Vec<[u32; 7]>> = BTreeMap::new();
    let mut out: [Halves; 3] = Default::default();
    for sweep in sweeps(results, task, |k| *k == SweepKind::Attention { greedy: None }) {
        let chunk = u64::from(results.plan.sweeps[sweep as usize].chunk.max(1));
        for (rank, head) in (0u64..).zip(heads(results, sweep)) {
            let (Some(block), Some(head)) =
                (view::block(results, sweep, 0, (rank / chunk) as u32, task), head)
            else {
                continue;
            };
            let Some(ix) = place(of, head.stream, head.layer, head.head) else { continue };
            let counts = &*weights.entry(head.stream).or_insert_with(|| {
                items.iter().map(|&i| queries(&prepared.items[i as usize], head.stream)).collect()
            });
            let unit = (rank % chunk) as usize;
            for (halves, column) in out.iter_mut().zip([ROLLOUT, 0, 1]) {
                for half in [0u8, 1] {
                    let rows = block.column(unit, column).iter().zip(counts).zip(&of_items);
                    let own = rows.filter(|r| *r.1 == Some(half)).map(|r| r.0);
                    let (sum, all) = own.fold((0.0, 0.0), |s, (x, n)| (s.0 + *x, s.1 + f64::from(n[column])));
                    halves[usize::from(half)].insert(ix, sum / all);
                }
            }
        }
    }
    out
}

/// The whole pattern of one head on one item.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern {
    /// The example.
    pub example: u32,
    /// Which of the example's sequences it is, from 0.
    pub sequence: u32,
    /// The head.
    pub head: Head,
    /// Tokens of the queries.
    pub queries: Arc<[String]>,
    /// Tokens of the keys.
    pub keys: Arc<[String]>,
    /// Weights, query by query: `[queries · keys]`.
    pub attention: Vec<f64>,
}

/// The patterns of a task's chosen examples, by example, sequence and head.
#[must_use]
pub fn patterns(results: &Results, task: u32) -> Vec<Pattern> {
    let mut out = Vec::new();
    for sweep in sweeps(results, task, |k| matches!(k, SweepKind::Patterns { .. })) {
        let planned = &results.plan.sweeps[sweep as usize];
        let SweepKind::Patterns { items } = &planned.kind else { continue };
        let chunk = u64::from(planned.chunk.max(1));
        let heads = heads(results, sweep);
        let mut from = 0;
        for (at, shown) in items.iter().enumerate() {
            let (queries, keys): (Arc<[String]>, Arc<[String]>) =
                (shown.queries.as_slice().into(), shown.keys().into());
            let cells = from..from + queries.len() * keys.len();
            from = cells.end;
            let before = items[..at].iter().filter(|i| i.example == shown.example).count();
            for (rank, head) in (0u64..).zip(&heads) {
                let block = view::block(results, sweep, 0, (rank / chunk) as u32, task);
                let (Some(block), Some(head)) = (block, head) else { continue };
                let Some(own) = block.column((rank % chunk) as usize, 0).get(cells.clone()) else { continue };
                out.push(Pattern {
                    example: shown.example,
                    sequence: before as u32,
                    head: *head,
                    queries: Arc::clone(&queries),
                    keys: Arc::clone(&keys),
                    attention: own.to_vec(),
                });
            }
        }
    }
    out.sort_by_key(|p| (p.example, p.sequence, p.head));
    out
}

/// Whether the spec asks for patterns.
pub fn asked(results: &Results) -> bool {
    results.plan.sweeps.iter().any(|s| matches!(s.kind, SweepKind::Attention { greedy: None }))
}

/// Sweeps of a kind on a task, of whichever ablation they are planned with.
fn sweeps(results: &Results, task: u32, kind: impl Fn(&SweepKind) -> bool) -> impl Iterator<Item = u32> {
    (0u32..)
        .zip(&results.plan.sweeps)
        .filter(move |(_, s)| s.tasks.contains(&task) && kind(&s.kind))
        .map(|s| s.0)
}

/// The head of each of a sweep's units.
fn heads(results: &Results, sweep: u32) -> Vec<Option<Head>> {
    let units = results.plan.units(sweep);
    let all = (0..units.len() as u32).map(UnitIx);
    all.map(|u| results.plan.heads().head(*units.heads_of(u).first()?)).collect()
}

/// Task, metric, method and unit of rows that no ablation has.
fn common(task: &PlannedTask, rows: usize) -> Columns {
    let same = |s: &'static str| texts(std::iter::repeat_n(s, rows));
    vec![
        ("task", texts(std::iter::repeat_n(task.name.as_str(), rows)), false),
        ("metric", same(task.metric.name()), false),
        ("method", same("none"), false),
        ("unit", same("head"), false),
    ]
}

/// `attention`: every head's scores; no table where no sweep asks for them.
pub fn table(results: &Results, all: &[(u32, &[AttentionRow])]) -> anyhow::Result<Vec<RecordBatch>> {
    if !asked(results) {
        return Ok(Vec::new());
    }
    let one = |(task, rows): &(u32, &[AttentionRow])| {
        let f = |f: fn(&AttentionRow) -> f64| floats(rows.iter().map(f));
        let maybe = |f: fn(&AttentionRow) -> Option<f64>| -> arrow_array::ArrayRef {
            Arc::new(rows.iter().map(f).collect::<Float64Array>())
        };
        let mut c = common(&results.plan.tasks[*task as usize], rows.len());
        c.push(("stream", texts(rows.iter().map(|r| r.stream.name())), false));
        c.push(("layer", ints(rows.iter().map(|r| r.layer)), false));
        c.push(("head", ints(rows.iter().map(|r| r.head)), false));
        c.push(("name", texts(rows.iter().map(|r| r.name.as_str())), false));
        c.push(("confidence", f(|r| r.confidence), false));
        c.push(("entropy", f(|r| r.entropy), false));
        c.push(("first_token", maybe(|r| r.first_token), true));
        c.push(("previous_token", maybe(|r| r.previous_token), true));
        c.push(("duplicate_token", maybe(|r| r.duplicate_token), true));
        c.push(("induction", maybe(|r| r.induction), true));
        c.push(("rollout", f(|r| r.rollout), false));
        c.push(("n", ints(rows.iter().map(|r| r.n)), false));
        let names = [
            "confidence_se",
            "entropy_se",
            "first_token_se",
            "previous_token_se",
            "duplicate_token_se",
            "induction_se",
            "rollout_se",
        ];
        for (at, name) in names.into_iter().enumerate() {
            let se = rows.iter().map(|r| Some(r.errors[at]).filter(|e| !e.is_nan()));
            c.push((name, Arc::new(se.collect::<Float64Array>()), true));
        }
        batch(c)
    };
    all.iter().map(one).collect()
}

/// `patterns`: a batch for each head and sequence; no table where no sweep asks for them. Gives every batch to `write`, the patterns of
/// one task in memory at a time.
pub fn stream(
    results: &Results,
    mut write: impl FnMut(&RecordBatch) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for (at, task) in (0u32..).zip(&results.plan.tasks) {
        for pattern in patterns(results, at) {
            write(&cells(task, &pattern)?)?;
        }
    }
    Ok(())
}

/// The columns of `patterns`.
pub fn schema(results: &Results) -> anyhow::Result<Option<arrow_schema::SchemaRef>> {
    let kept = results.plan.sweeps.iter().any(|s| matches!(s.kind, SweepKind::Patterns { .. }));
    let Some(task) = results.plan.tasks.first().filter(|_| kept) else { return Ok(None) };
    let none = Pattern {
        example: 0,
        sequence: 0,
        head: Head { stream: Stream::SelfAttention, layer: 0, head: 0 },
        queries: Arc::new([]),
        keys: Arc::new([]),
        attention: Vec::new(),
    };
    Ok(Some(cells(task, &none)?.schema()))
}

/// One pattern's rows, a cell each.
fn cells(task: &PlannedTask, p: &Pattern) -> anyhow::Result<RecordBatch> {
    let (n, keys) = (p.attention.len(), p.keys.len().max(1));
    let number = |v: u32| ints(std::iter::repeat_n(v, n));
    let query = |cell: usize| cell / keys;
    let key = |cell: usize| cell % keys;
    let name = p.head.to_string();
    let mut c = common(task, n);
    c.push(("example", number(p.example), false));
    c.push(("sequence", number(p.sequence), false));
    c.push(("stream", texts(std::iter::repeat_n(p.head.stream.name(), n)), false));
    c.push(("layer", number(p.head.layer), false));
    c.push(("head", number(p.head.head), false));
    c.push(("name", texts(std::iter::repeat_n(name.as_str(), n)), false));
    c.push(("query", ints((0..n).map(|i| query(i) as u32)), false));
    c.push(("key", ints((0..n).map(|i| key(i) as u32)), false));
    let text = |of: &Arc<[String]>, at: usize| of.get(at).cloned().unwrap_or_default();
    let all: Vec<String> = (0..n).map(|i| text(&p.queries, query(i))).collect();
    c.push(("query_token", texts(all.iter().map(String::as_str)), false));
    let all: Vec<String> = (0..n).map(|i| text(&p.keys, key(i))).collect();
    c.push(("key_token", texts(all.iter().map(String::as_str)), false));
    c.push(("attention", floats(p.attention.iter().copied()), false));
    batch(c)
}
