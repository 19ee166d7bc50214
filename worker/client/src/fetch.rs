//! Opening an experiment: its plan is parsed and checked, its tasks are fetched by hash.

use crate::compute::Compute;
use crate::lane::{Constants, Experiment};
use crate::link::Caller;
use ablate_common::fit;
use ablate_common::joint;
use ablate_common::plan::{Ablation, Plan, PlannedSweep, SweepKind};
use ablate_common::scores::ChunkScores;
use ablate_common::task::Prepared;
use ablate_common::units::{UnitIx, UnitMap};
use ablate_proto::v1::{self as pb, cluster_client::ClusterClient};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest prepared task.
const MAX_BLOB: usize = 4 << 30;

/// Why an experiment could not be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The connection failed: try again on the next one.
    Connection(String),
    /// The experiment cannot be worked on here.
    Failure(pb::Failure),
}

fn failure(kind: pb::failure::Kind, detail: String) -> OpenError {
    OpenError::Failure(pb::Failure { detail, kind: Some(kind) })
}

/// What there is of the experiment can't be worked with here: no chunk's fault, and no other chunk fares better.
fn unusable(detail: impl Into<String>) -> OpenError {
    let hash = String::new();
    failure(pb::failure::Kind::DataMissing(pb::DataMissing { hash }), detail.into())
}

/// Fetches what an [`pb::Open`] announces.
///
/// # Errors
/// As [`OpenError`] says.
pub async fn open(
    mut client: ClusterClient<Caller>,
    open: pb::Open,
    model_root: Option<PathBuf>,
    compute: Compute,
) -> Result<Experiment, OpenError> {
    let bytes = open.plan;
    let plan = blocking(compute, move || plan_from(&bytes)).await?.map_err(unusable)?;
    let mut prepared = Vec::with_capacity(plan.tasks.len() + plan.references.len());
    for (at, (hash, items, examples)) in plan.blobs().enumerate() {
        let bytes = blob(&mut client, hash).await?;
        let (named, items, examples) = (hash.to_owned(), items as usize, examples as usize);
        let read = move || same(&bytes, &named).map(|()| prepared_of(&bytes, items, examples));
        // Other bytes than those that were asked for may be others again the next time.
        let data = blocking(compute, read).await?.map_err(OpenError::Connection)?;
        let missing = |detail| {
            failure(pb::failure::Kind::DataMissing(pb::DataMissing { hash: hash.to_owned() }), detail)
        };
        let name = plan.tasks.get(at).map_or("reference set", |t| t.name.as_str());
        let data = data.and_then(|data| data.readable_by(&plan.model).map(|()| data));
        prepared.push(data.map_err(|e| missing(format!("{name}: {e}")))?);
    }
    let mut constants = Constants::new();
    for (ablation, hash) in (0u32..).zip(&open.constants).filter(|c| !c.1.is_empty()) {
        let bytes = blob(&mut client, hash).await?;
        same(&bytes, hash).map_err(OpenError::Connection)?;
        constants.insert(ablation, constants_of(&bytes, &plan, ablation).map_err(unusable)?);
    }
    let model = model_path(&open.model_source, model_root.as_deref());
    Ok(Experiment {
        id: open.experiment,
        plan: Arc::new(plan),
        prepared: Arc::new(prepared),
        constants: Arc::new(constants),
        model,
    })
}

async fn blocking<T: Send + 'static>(
    compute: Compute,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, OpenError> {
    compute.run(work).await.map_err(unusable)
}

async fn blob(client: &mut ClusterClient<Caller>, hash: &str) -> Result<Vec<u8>, OpenError> {
    let sort = |status: tonic::Status| match status.code() {
        tonic::Code::NotFound | tonic::Code::InvalidArgument => failure(
            pb::failure::Kind::DataMissing(pb::DataMissing { hash: hash.to_owned() }),
            format!("the coordinator has no data {hash}: {}", status.message()),
        ),
        _ => OpenError::Connection(status.to_string()),
    };
    let mut parts = client.blob(pb::BlobRequest { hash: hash.to_owned() }).await.map_err(sort)?.into_inner();
    let mut bytes = Vec::new();
    while let Some(part) = parts.message().await.map_err(sort)? {
        if bytes.len() + part.data.len() > MAX_BLOB {
            return Err(unusable(format!("data {hash} is over the limit of {MAX_BLOB} bytes")));
        }
        bytes.extend_from_slice(&part.data);
    }
    Ok(bytes)
}

/// Whether bytes are those that go by a hash.
fn same(bytes: &[u8], hash: &str) -> Result<(), String> {
    let found = blake3::hash(bytes).to_hex();
    if found.as_str() == hash {
        return Ok(());
    }
    Err(format!("the data's hash is {found} instead of {hash}"))
}

/// A plan from its bytes, with everything in it that is used as an index later checked.
///
/// # Errors
/// Says what is wrong with it.
pub fn plan_from(bytes: &[u8]) -> Result<Plan, String> {
    let plan: Plan = serde_json::from_slice(bytes).map_err(|e| format!("the plan is not readable: {e}"))?;
    check_plan(&plan)?;
    Ok(plan)
}

/// The fitted constants of an ablation from the bytes that go by a hash.
///
/// # Errors
/// Says what is wrong with them.
pub fn constants_from(bytes: &[u8], hash: &str, plan: &Plan, ablation: u32) -> Result<ChunkScores, String> {
    same(bytes, hash)?;
    constants_of(bytes, plan, ablation)
}

fn constants_of(bytes: &[u8], plan: &Plan, ablation: u32) -> Result<ChunkScores, String> {
    let fitted = ChunkScores::decode(bytes).map_err(|e| e.to_string())?;
    let sweep = fit::sweep_of(plan, ablation)
        .ok_or_else(|| format!("ablation {ablation} has constants and no fit"))?;
    fit::check(plan, sweep, &fitted)?;
    Ok(fitted)
}

/// A prepared task or reference set from the bytes that go by a hash.
///
/// # Errors
/// Says what is wrong with it.
pub fn prepared_from(bytes: &[u8], hash: &str, items: usize, examples: usize) -> Result<Prepared, String> {
    same(bytes, hash)?;
    prepared_of(bytes, items, examples)
}

fn prepared_of(bytes: &[u8], items: usize, examples: usize) -> Result<Prepared, String> {
    let data: Prepared =
        serde_json::from_slice(bytes).map_err(|e| format!("the data is not readable: {e}"))?;
    if data.items.len() != items || data.item_half.len() != items || data.examples.len() != examples {
        return Err(format!(
            "the data has {} items and {} examples; the plan says {items} and {examples}",
            data.items.len(),
            data.examples.len()
        ));
    }
    // An encoder-decoder's are positions of what its decoder reads.
    let scored = |i: &ablate_common::task::Item| {
        let read = if i.decoder.is_empty() { &i.tokens } else { &i.decoder };
        i.scored.iter().all(|s| (s.position as usize) < read.len())
    };
    if !data.items.iter().all(|i| !i.tokens.is_empty() && scored(i)) {
        return Err("the data has an empty item or scores a position past an item's end".to_owned());
    }
    if data.examples.iter().any(|e| e.a as usize >= items || e.b as usize >= items) {
        return Err("the data has an example without its item".to_owned());
    }
    Ok(data)
}

/// Checks everything that is used as an index later.
fn check_plan(plan: &Plan) -> Result<(), String> {
    if plan.engine != ablate_common::ENGINE_VERSION {
        return Err(format!(
            "the plan is for engine {}, this worker has {}",
            plan.engine,
            ablate_common::ENGINE_VERSION
        ));
    }
    let sweep_ok = |s: &PlannedSweep| {
        let kind = match s.kind {
            SweepKind::Greedy { objective, .. } => (objective as usize) < plan.tasks.len(),
            SweepKind::Path { greedy, .. }
            | SweepKind::Matched { greedy, .. }
            | SweepKind::Gradient { greedy: Some(greedy) }
            | SweepKind::Attention { greedy: Some(greedy) } => (greedy as usize) < plan.sweeps.len(),
            SweepKind::Patterns { ref items } => {
                let of = s.tasks.first().and_then(|&t| plan.tasks.get(t as usize));
                s.tasks.len() == 1 && items.iter().all(|i| of.is_some_and(|t| i.item < t.items))
            }
            SweepKind::Joint { pairs, .. } => (pairs as usize) < plan.sweeps.len(),
            SweepKind::Conditional { ref base } => {
                let units = plan.units.get(s.units as usize).map_or(0, UnitMap::len);
                base.last().is_none_or(|u| u.at() < units) && base.windows(2).all(|w| w[0] < w[1])
            }
            _ => true,
        };
        kind && s.chunk > 0
            && (s.ablation as usize) < plan.ablations.len()
            && (s.units as usize) < plan.units.len()
            && s.tasks.iter().all(|&t| (t as usize) < plan.tasks.len())
    };
    if let Some(at) = plan.sweeps.iter().position(|s| !sweep_ok(s)) {
        return Err(format!("sweep {at} of the plan refers to something the plan does not have"));
    }
    if let Some(at) = plan.units.iter().position(|u| !u.fits(plan.heads())) {
        return Err(format!("unit map {at} of the plan does not fit the model's heads"));
    }
    for (at, ablation) in plan.ablations.iter().enumerate() {
        let resampled = matches!(ablation.method, Ablation::Resample { .. });
        for (t, task) in plan.tasks.iter().enumerate() {
            let source = ablation.sources.get(t).cloned().unwrap_or_default();
            let own = Some(task.items);
            let items = source.reference.map_or(own, |r| plan.references.get(r as usize).map(|r| r.items));
            let donors = if resampled { task.items as usize } else { 0 };
            let fits = items.is_some_and(|n| source.donors.iter().all(|&d| d < n));
            if source.donors.len() != donors || !fits {
                return Err(format!(
                    "ablation {at} of the plan has no source of task {} that fits",
                    task.name
                ));
            }
        }
    }
    if plan.references.iter().any(|r| r.batches.iter().flat_map(|b| &b.items).any(|&i| i >= r.items)) {
        return Err("a batch of a reference set has an item past the end".to_owned());
    }
    for task in &plan.tasks {
        if task.all.iter().chain(&task.select).flat_map(|b| &b.items).any(|&i| i >= task.items) {
            return Err(format!("a batch of task {} has an item past the end", task.name));
        }
    }
    Ok(())
}

/// Why a shard cannot be a part of the plan; `None` where it can.
#[must_use]
pub fn bad_shard(plan: &Plan, shard: &pb::Shard) -> Option<String> {
    let Some(sweep) = plan.sweeps.get(shard.sweep as usize) else {
        return Some(format!("the plan has no sweep {}", shard.sweep));
    };
    if shard.round >= sweep.rounds() {
        return Some(format!("sweep {} has no round {}", shard.sweep, shard.round));
    }
    let units = plan.units(shard.sweep).len();
    let bad_list = match sweep.kind {
        SweepKind::Joint { .. } => bad_sets(sweep, units, &shard.list),
        _ => bad_list(plan, sweep, units, shard),
    };
    if bad_list.is_some() {
        return bad_list;
    }
    let chunks = plan.round_chunks(shard.sweep, shard.round);
    match shard.first_chunk.checked_add(shard.chunks) {
        Some(end) if end <= chunks => None,
        _ => Some(format!(
            "the round has {chunks} chunks; the shard is {} from {}",
            shard.chunks, shard.first_chunk
        )),
    }
}

/// Why sets cannot be the input of a follow-up's round.
fn bad_sets(sweep: &PlannedSweep, units: usize, list: &[u32]) -> Option<String> {
    let list: Vec<UnitIx> = list.iter().copied().map(UnitIx).collect();
    match joint::decode(&list, units as u32) {
        Err(e) => Some(e),
        Ok(sets) if sets.len() as u64 > joint::slots(sweep) => {
            Some(format!("the round's input has {} sets, more than its slots", sets.len()))
        }
        Ok(_) => None,
    }
}

/// Why units cannot be the input of a round of any other sweep.
fn bad_list(plan: &Plan, sweep: &PlannedSweep, units: usize, shard: &pb::Shard) -> Option<String> {
    if shard.list.len() > units || shard.list.iter().any(|&u| u as usize >= units) {
        return Some("the round's input names a unit that the sweep does not have".to_owned());
    }
    let mut list = shard.list.clone();
    list.sort_unstable();
    if list.windows(2).any(|w| w[0] == w[1]) {
        return Some("the round's input names a unit twice".to_owned());
    }
    let expected = match sweep.kind {
        SweepKind::Greedy { .. } => shard.round as usize,
        SweepKind::Path { greedy, .. } | SweepKind::Matched { greedy, .. } => {
            plan.sweeps.get(greedy as usize).map_or(0, |s| s.rounds() as usize)
        }
        _ => 0,
    };
    (list.len() != expected)
        .then(|| format!("the round's input has {} units instead of {expected}", list.len()))
}

/// Where the model lies here: the coordinator's path, or its last part below the worker's model root.
fn model_path(source: &str, root: Option<&Path>) -> PathBuf {
    let given = PathBuf::from(source);
    if given.exists() {
        return given;
    }
    let below = root.zip(given.file_name()).map(|(root, name)| root.join(name));
    below.filter(|p| p.exists()).unwrap_or(given)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::plan;

    /// A plan of sweeps of these kinds over 12 heads.
    fn of(kinds: Vec<SweepKind>) -> Plan {
        let mut plan = plan();
        let blank = plan.sweeps[0].clone();
        plan.sweeps = kinds.into_iter().map(|kind| PlannedSweep { kind, ..blank.clone() }).collect();
        plan
    }

    #[test]
    fn a_base_is_ascending_and_of_the_sweeps_units() {
        let checked = |base: &[u32]| {
            let base = base.iter().copied().map(UnitIx).collect();
            check_plan(&of(vec![SweepKind::Conditional { base }]))
        };
        for fine in [&[0][..], &[3, 11], &[0, 1, 2]] {
            assert_eq!(checked(fine), Ok(()), "{fine:?}");
        }
        for bad in [&[2, 1][..], &[1, 1], &[12], &[0, 99]] {
            assert!(checked(bad).is_err_and(|e| e.contains("sweep 0 of the plan")), "{bad:?}");
        }
    }

    #[test]
    fn matched_orders_come_with_all_that_their_own_greedy_removed() {
        let greedy = |steps| SweepKind::Greedy { steps, objective: 0 };
        let matched = |greedy| SweepKind::Matched { greedy, orders: 2, seed: 1, points: vec![1, 3] };
        let plan = of(vec![greedy(3), greedy(5), matched(0), matched(1)]);
        assert_eq!(check_plan(&plan), Ok(()));
        assert!(check_plan(&of(vec![matched(1)])).is_err(), "there is no such greedy");
        for (sweep, list, what) in [
            (2, &[4, 0, 7][..], ""),
            (3, &[4, 0, 7, 1, 2], ""),
            (2, &[], "0 units instead of 3"),
            (2, &[4, 0], "2 units instead of 3"),
            (2, &[4, 0, 4], "names a unit twice"),
            (2, &[4, 0, 12], "does not have"),
            // The order of the other greedy.
            (2, &[4, 0, 7, 1, 2], "5 units instead of 3"),
            (3, &[4, 0, 7], "3 units instead of 5"),
        ] {
            let shard = pb::Shard { sweep, chunks: 4, list: list.to_vec(), ..pb::Shard::default() };
            let why = bad_shard(&plan, &shard).unwrap_or_default();
            assert!(why.contains(what) && why.is_empty() == what.is_empty(), "{sweep} {list:?}: {why}");
        }
    }
}
