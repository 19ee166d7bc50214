//! `scores`: the stored per-example scores of every subset, a batch per chunk and task.

use crate::results::Results;
use crate::view;
use ablate_common::gradient;
use ablate_common::plan::{PlannedSweep, PlannedTask, SweepKind};
use arrow_array::builder::{Float64Builder, ListBuilder, StringBuilder, StructBuilder, UInt32Builder};
use arrow_array::{ArrayRef, RecordBatch, StringArray, UInt32Array, UInt64Array};
use arrow_schema::{DataType, Field, Fields, Schema};
use std::sync::Arc;

/// The score columns of all tasks and sweeps: a list<f64> column each, null in rows of other kinds.
pub fn score_columns(results: &Results) -> Vec<&'static str> {
    let mut names = Vec::new();
    let graded = |s: &PlannedSweep| matches!(s.kind, SweepKind::Gradient { .. });
    let graded = results.plan.sweeps.iter().any(graded).then_some(&gradient::COLUMNS);
    let of_tasks = results.plan.tasks.iter().flat_map(PlannedTask::columns);
    for &c in of_tasks.chain(graded.into_iter().flatten()) {
        if !names.contains(&c) {
            names.push(c);
        }
    }
    names
}

fn head_fields() -> Fields {
    Fields::from(vec![
        Field::new("stream", DataType::Utf8, true),
        Field::new("layer", DataType::UInt32, true),
        Field::new("head", DataType::UInt32, true),
    ])
}

/// The table's columns.
pub fn schema(results: &Results) -> Arc<Schema> {
    let text = |n| Field::new(n, DataType::Utf8, false);
    let int = |n| Field::new(n, DataType::UInt32, false);
    let list =
        |n: &str, of, null| Field::new(n, DataType::List(Arc::new(Field::new("item", of, true))), null);
    let mut fields = vec![
        text("task"),
        text("metric"),
        text("method"),
        text("unit"),
        int("sweep_index"),
        text("sweep"),
        int("round"),
        Field::new("rank", DataType::UInt64, false),
        text("scope"),
        list("subset", DataType::Struct(head_fields()), false),
    ];
    fields.extend(score_columns(results).into_iter().map(|c| list(c, DataType::Float64, true)));
    Arc::new(Schema::new(fields))
}

/// Gives every batch to `write`, by sweep, round, chunk and task; one chunk is in memory at a time.
pub fn stream(
    results: &Results,
    mut write: impl FnMut(&RecordBatch) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let schema = schema(results);
    for (&(sweep, round), recorded) in &results.rounds {
        let Some(planned) = results.plan.sweeps.get(sweep as usize) else { continue };
        // Tables of their own have the others' numbers.
        if !planned.kind.scores() {
            continue;
        }
        for &chunk in recorded.chunks.keys() {
            for &task in &planned.tasks {
                if let Some(batch) = batch(results, &schema, sweep, round, chunk, task)? {
                    write(&batch)?;
                }
            }
        }
    }
    Ok(())
}

fn batch(
    results: &Results,
    schema: &Arc<Schema>,
    sweep: u32,
    round: u32,
    chunk: u32,
    task: u32,
) -> anyhow::Result<Option<RecordBatch>> {
    let (Some(block), Some(recorded)) =
        (view::block(results, sweep, round, chunk, task), results.rounds.get(&(sweep, round)))
    else {
        return Ok(None);
    };
    let planned = &results.plan.sweeps[sweep as usize];
    let info = &results.plan.tasks[task as usize];
    let space = results.plan.space(sweep, &recorded.list);
    let range = results.plan.chunk_ranks(sweep, round, chunk);
    let first = range.start;
    // A slot of a follow-up that nothing needed is no subset.
    let spare = |rank: &u64| {
        matches!(planned.kind, SweepKind::Joint { .. }) && space.subset(*rank).is_none_or(|s| s.is_empty())
    };
    let ranks: Vec<u64> = range.filter(|r| !spare(r)).collect();
    let n = ranks.len();
    let (heads, ablation) = (results.plan.heads(), &results.plan.ablations[planned.ablation as usize]);
    let mut subsets = ListBuilder::new(StructBuilder::from_fields(head_fields(), 0));
    for &rank in &ranks {
        let Some(subset) = results.plan.removed(sweep, &space, rank) else { return Ok(None) };
        for head in subset.into_iter().filter_map(|ix| heads.head(ix)) {
            let s = subsets.values();
            if let Some(b) = s.field_builder::<StringBuilder>(0) {
                b.append_value(head.stream.name());
            }
            for (field, v) in [(1, head.layer), (2, head.head)] {
                if let Some(b) = s.field_builder::<UInt32Builder>(field) {
                    b.append_value(v);
                }
            }
            s.append(true);
        }
        subsets.append(true);
    }
    let same = |s: &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(std::iter::repeat_n(s, n))) };
    let scope = match planned.scope {
        ablate_common::task::Scope::All => "all",
        ablate_common::task::Scope::Select => "select",
    };
    let mut columns: Vec<ArrayRef> = vec![
        same(&info.name),
        same(info.metric.name()),
        same(ablation.method.name()),
        same(ablation.unit.name()),
        Arc::new(UInt32Array::from_iter_values(std::iter::repeat_n(sweep, n))),
        same(planned.kind.name()),
        Arc::new(UInt32Array::from_iter_values(std::iter::repeat_n(round, n))),
        Arc::new(UInt64Array::from_iter_values(ranks.iter().copied())),
        same(scope),
        Arc::new(subsets.finish()),
    ];
    for name in score_columns(results) {
        let at = results.plan.columns(sweep, task).iter().position(|&c| c == name);
        let mut list = ListBuilder::new(Float64Builder::new());
        for rank in &ranks {
            match at {
                Some(c) => {
                    list.values().append_slice(block.column((rank - first) as usize, c));
                    list.append(true);
                }
                None => list.append(false),
            }
        }
        columns.push(Arc::new(list.finish()));
    }
    Ok(Some(RecordBatch::try_new(Arc::clone(schema), columns)?))
}
