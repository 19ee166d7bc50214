//! Effects so far, on the wire: units alone, the largest interactions, curves, and greedy sweeps round by round. They are read chunk by chunk, once for all who look,
//! by what the dashboard shows too.

use super::Error;
use crate::dashboard::Follows;
use ablate_output::live::{GroupView, Live, Mark};
use ablate_proto::v1;

/// What is known of an experiment, where it isn't what the caller has `seen`.
///
/// # Errors
/// Where there is no such experiment, or it can't be followed.
pub async fn of(follows: &Follows, id: &str, seen: u64) -> Result<v1::LiveReply, Error> {
    let follow = follows.get(id).ok_or_else(|| Error::NoExperiment(id.to_owned()))?;
    let told = follow.ask(move |live| {
        // 0 is what those have seen who have seen nothing.
        let revision = live.version() + 1;
        let groups = 0..if revision == seen { 0 } else { live.groups() };
        v1::LiveReply { revision, groups: groups.filter_map(|g| group(live, g)).collect() }
    });
    match told.await {
        Some(reply) => Ok(reply),
        None if !follow.look().error.is_empty() => Err(Error::State(follow.look().error)),
        // It is busy: nothing newer yet.
        None => Ok(v1::LiveReply { revision: seen, groups: Vec::new() }),
    }
}

fn known(v: f64) -> Option<f64> {
    (!v.is_nan()).then_some(v)
}

fn group(live: &Live<'_>, at: usize) -> Option<v1::LiveGroup> {
    let about = live.group_view(at)?;
    let heads = live.heads(at, 0)?;
    let mut units: Vec<v1::LiveUnit> = about
        .units
        .iter()
        .map(|(name, stream, layer, head)| v1::LiveUnit {
            name: name.clone(),
            stream: stream.unwrap_or_default().to_owned(),
            layer: *layer,
            head: *head,
            ..v1::LiveUnit::default()
        })
        .collect();
    for &(unit, _, delta, _, low, high) in &heads.rows {
        if let Some(u) = units.get_mut(unit as usize) {
            (u.delta, u.low, u.high) = (Some(delta), known(low), known(high));
        }
    }
    for &unit in &heads.resolved {
        if let Some(u) = units.get_mut(unit as usize) {
            u.resolved = true;
        }
    }
    Some(v1::LiveGroup {
        curves: curves(live, at, &about).unwrap_or_default(),
        pairs: pairs(live, at),
        task: about.task,
        metric: about.metric.to_owned(),
        method: about.method.to_owned(),
        unit: about.unit.0.to_owned(),
        baseline: known(heads.baseline),
        units,
    })
}

/// The largest interactions so far.
fn pairs(live: &Live<'_>, at: usize) -> Option<v1::LivePairs> {
    // Who knows this version is told no cell of the matrix: there may be tens of thousands, and nobody draws them here.
    let view = live.pairs(at, live.version())?;
    let told =
        |(a, b, interaction, se): (u32, u32, f64, f64)| v1::LivePair { a, b, interaction, se: known(se) };
    Some(v1::LivePairs {
        known: view.known,
        planned: view.planned,
        skipped: view.skipped,
        above: view.redundant.into_iter().map(told).collect(),
        below: view.overlapping.into_iter().map(told).collect(),
    })
}

/// Orders with more than where they begin.
fn curves(live: &Live<'_>, at: usize, about: &GroupView) -> Option<Vec<v1::LiveCurve>> {
    let view = live.curves(at, 0)?;
    let walks = view.walks.into_iter().map(|w| {
        let own = w.objective == about.task;
        let order = if own { "greedy".to_owned() } else { format!("greedy for {}", w.objective) };
        // Rounds remove units; only of heads it is known how many heads that makes.
        let last = if about.unit.0 == "head" { w.rounds } else { 0 };
        v1::LiveCurve { order, selecting: true, last, points: points(w.points) }
    });
    let lines = view.lines.into_iter().map(|l| v1::LiveCurve {
        order: l.order,
        selecting: false,
        last: 0,
        points: points(l.points),
    });
    Some(lines.chain(walks).filter(|c| c.points.len() > 1).collect())
}

fn points(marks: Vec<Mark>) -> Vec<v1::LivePoint> {
    let point = |(removed, value, retained, unit)| v1::LivePoint { removed, value, retained, unit };
    marks.into_iter().map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::{experiment, scores};
    use ablate_common::scores::ChunkScores;
    use ablate_output::live::frame;

    #[test]
    fn the_largest_interactions_are_told_with_their_errors() {
        let new = experiment(1);
        let frame = frame("e".into(), new.plan.clone(), new.prepared.clone());
        let mut live = Live::new(&frame);
        let before = pairs(&live, 0).unwrap();
        assert_eq!((before.known, before.planned, before.above.len() + before.below.len()), (0, 15, 0));
        let chunk = |sweep, chunk| ChunkScores::decode(&scores(&new, sweep, 0, &[], chunk)).unwrap();
        live.take((0, 0, 0), &chunk(0, 0));
        (0..3).for_each(|c| live.take((1, 0, c), &chunk(1, c)));
        // Effects add up, but for the first two pairs: together the one costs 1.5 more, and the other half of one less.
        let mut planted = chunk(2, 0);
        let [task] = &mut planted.tasks[..] else { panic!("one task") };
        for (v, more) in task.values.iter_mut().zip([1.0, 2.0, 1.0, 2.0, -0.5, -0.5, -0.5, -0.5]) {
            *v -= more;
        }
        live.take((2, 0, 0), &planted);
        let told = pairs(&live, 0).unwrap();
        assert_eq!((told.known, told.planned, told.skipped), (4, 15, 0));
        let (first, last) = (&told.above[0], &told.below[0]);
        assert_eq!((first.a, first.b, last.a, last.b), (0, 1, 0, 2));
        assert!((first.interaction - 1.5).abs() < 1e-9 && (last.interaction + 0.5).abs() < 1e-9, "{told:?}");
        // Of four examples that differ by a half from their mean.
        assert!((first.se.unwrap() - (1.0f64 / 12.0).sqrt()).abs() < 1e-5, "{told:?}");
        assert_eq!(group(&live, 0).unwrap().pairs, Some(told));
    }
}
