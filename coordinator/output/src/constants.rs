//! `constants`: what an optimal ablation puts in place of each head's z, task by task.

use crate::results::Results;
use crate::tables::{batch, floats, ints, texts};
use crate::view;
use ablate_common::fit::{self, Fitted};
use ablate_common::gradient;
use ablate_common::head::{Head, HeadIx};
use ablate_common::plan::Ablation;
use arrow_array::RecordBatch;
use arrow_array::builder::{Float64Builder, ListBuilder};
use std::sync::Arc;

/// What a reader should know where constants were fitted on the examples that they are then judged by.
pub const OWN_DATA: &str = "The constants of the optimal ablation were fitted on the examples that they are evaluated on, so that its deltas are too \
                            small where the fit follows single examples; name other data in reference.";

/// Whether an ablation's constants for a task were fitted on the task's own examples.
pub fn on_own_data(results: &Results, ablation: u32, task: u32) -> bool {
    let planned = results.plan.ablations.get(ablation as usize);
    planned.is_some_and(|a| {
        let source = a.sources.get(task as usize);
        matches!(a.method, Ablation::Optimal { .. }) && source.is_none_or(|s| s.reference.is_none())
    })
}

/// Every head's constants, by ablation, task and head; no table where nothing was fitted. Heads whose chunk is missing are
/// left out.
pub fn table(results: &Results) -> anyhow::Result<Vec<RecordBatch>> {
    let mut out = Vec::new();
    for (at, ablation) in (0u32..).zip(&results.plan.ablations) {
        let Some(sweep) = fit::sweep_of(&results.plan, at) else { continue };
        let Ablation::Optimal { steps, .. } = ablation.method else { continue };
        for &task in &results.plan.sweeps[sweep as usize].tasks {
            let planned = &results.plan.tasks[task as usize];
            let rows: Vec<(Head, Fitted)> = (0u32..)
                .zip(results.plan.heads().iter())
                .filter_map(|(ix, head)| Some((head, fitted(results, sweep, task, HeadIx(ix))?)))
                .collect();
            let mut constants = ListBuilder::new(Float64Builder::new());
            for (_, row) in &rows {
                constants.values().append_slice(&row.constant);
                constants.append(true);
            }
            let names: Vec<String> = rows.iter().map(|r| r.0.to_string()).collect();
            let same = |s: &'static str| texts(std::iter::repeat_n(s, rows.len()));
            out.push(batch(vec![
                ("task", texts(rows.iter().map(|_| planned.name.as_str())), false),
                ("metric", same(planned.metric.name()), false),
                ("method", same(ablation.method.name()), false),
                ("unit", same(ablation.unit.name()), false),
                ("stream", texts(rows.iter().map(|r| r.0.stream.name())), false),
                ("layer", ints(rows.iter().map(|r| r.0.layer)), false),
                ("head", ints(rows.iter().map(|r| r.0.head)), false),
                ("name", texts(names.iter().map(String::as_str)), false),
                ("objective", same(gradient::loss(planned.kind)), false),
                ("loss_mean", floats(rows.iter().map(|r| r.1.mean - r.1.nothing)), false),
                ("loss", floats(rows.iter().map(|r| r.1.fitted - r.1.nothing)), false),
                ("steps", ints(rows.iter().map(|_| steps)), false),
                ("step", ints(rows.iter().map(|r| r.1.step)), false),
                ("constant", Arc::new(constants.finish()), false),
            ])?);
        }
    }
    Ok(out)
}

fn fitted(results: &Results, sweep: u32, task: u32, head: HeadIx) -> Option<Fitted> {
    let chunk = results.plan.sweeps.get(sweep as usize)?.chunk.max(1);
    let block = view::block(results, sweep, 0, head.0 / chunk, task)?;
    Fitted::of(block, (head.0 % chunk) as usize)
}
