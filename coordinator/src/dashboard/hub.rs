//! What is shown of experiments and workers, worked out a few times a second in one place, however many look. Each change gets a number,
//! so that whoever comes back is told only what it missed.

use super::meter::{Meter, work};
use crate::server::{Handle, Status, WorkerStatus};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Time between two looks while somebody watches.
const LOOK: Duration = Duration::from_millis(350);
/// The same while nobody does: rates stay known.
const IDLE: Duration = Duration::from_secs(2);
/// Time between two looks at workers.
const WORKERS: Duration = Duration::from_secs(1);
/// How long, and how many, workers are shown that have gone.
const GONE: Duration = Duration::from_secs(600);
const MOST_GONE: usize = 64;

/// An experiment as it is listed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Brief {
    pub id: String,
    pub name: String,
    pub state: String,
    pub error: String,
    pub planned: u64,
    pub accepted: u64,
    pub duplicate: u64,
    pub quarantined: u64,
    /// Share of the work that is done.
    pub share: f64,
    /// Subsets a second.
    pub rate: Option<f64>,
    /// Seconds that are left.
    pub eta_s: Option<f64>,
    pub sweeps: Vec<SweepBrief>,
    /// Folder of the tables.
    pub output: String,
    /// Whether a report lies there.
    pub report: bool,
}

/// A sweep as it is listed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SweepBrief {
    pub name: String,
    pub done: u64,
    pub total: u64,
    pub round: u32,
    pub rounds: u32,
    /// Lanes' working time, in seconds.
    pub busy_s: f64,
}

/// A worker as it is listed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkerRow {
    pub id: u64,
    pub name: String,
    pub version: String,
    /// (device, device class) of each lane.
    pub lanes: Vec<(String, String)>,
    pub leased: u32,
    pub accepted: u64,
    pub failures: u64,
    pub connected_s: u64,
    /// Share of its time that it waited between one chunk and the next.
    pub idle: Option<f64>,
    /// Chunks a second.
    pub rate: Option<f64>,
    /// Seconds since it vanished; none while it is connected.
    pub gone_s: Option<u64>,
}

/// All workers in a few numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Crowd {
    pub connected: usize,
    pub lanes: usize,
    pub leased: u64,
    pub failures: u64,
    pub gone: usize,
    pub rate: f64,
    pub idle: Option<f64>,
}

#[derive(Default)]
struct Entry {
    seq: u64,
    brief: Option<Brief>,
    /// Subsets, and lanes' seconds.
    meter: Meter<2>,
    /// What was seen last: state, and counters.
    seen: (String, [u64; 5]),
    /// When rate and report were last worked out.
    at: Option<Instant>,
}

#[derive(Default)]
struct State {
    seq: u64,
    experiments: BTreeMap<String, Entry>,
    workers: Vec<WorkerRow>,
    meters: BTreeMap<u64, Meter<1>>,
    gone: VecDeque<(Instant, WorkerRow)>,
    crowd: Crowd,
    crowd_seq: u64,
}

/// See the module.
pub struct Hub {
    state: RwLock<State>,
    changed: watch::Sender<u64>,
    /// Names this leadership: numbers of another mean nothing here.
    boot: String,
}

impl Hub {
    /// Looks until the service ends.
    pub fn start(handle: Handle) -> Arc<Self> {
        let mut random = [0u8; 4];
        // Without random bytes the epoch alone names it.
        let _ = getrandom::fill(&mut random);
        let boot = format!("{}-{:08x}", handle.epoch(), u32::from_le_bytes(random));
        let hub = Arc::new(Self { state: RwLock::default(), changed: watch::Sender::new(0), boot });
        hub.experiments(&handle.subscribe().borrow(), Instant::now());
        let me = Arc::downgrade(&hub);
        tokio::spawn(async move {
            let statuses = handle.subscribe();
            let mut workers_at: Option<Instant> = None;
            loop {
                let Some(hub) = me.upgrade() else { return };
                let now = Instant::now();
                hub.experiments(&statuses.borrow(), now);
                if workers_at.is_none_or(|t| now.saturating_duration_since(t) >= WORKERS) {
                    workers_at = Some(now);
                    // At the end of the service those known stay shown.
                    if let Ok(all) = handle.workers().await {
                        hub.workers(&all, now);
                    }
                }
                let pause = if hub.changed.receiver_count() > 0 { LOOK } else { IDLE };
                drop(hub);
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = handle.stopping() => return,
                }
            }
        });
        hub
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What names this leadership's numbers.
    pub fn boot(&self) -> &str {
        &self.boot
    }

    /// The number of the latest change.
    pub fn now(&self) -> u64 {
        self.read().seq
    }

    /// Says the number of the latest change.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Takes the statuses of all experiments.
    fn experiments(&self, all: &BTreeMap<String, Status>, now: Instant) {
        let mut state = self.write();
        let State { seq, experiments, .. } = &mut *state;
        let before = *seq;
        for (id, status) in all {
            let busy: f64 = status.sweeps.iter().map(|s| s.busy_seconds).sum();
            let subsets: u64 = status.sweeps.iter().map(|s| s.subsets_done).sum();
            let counts =
                [status.accepted, status.computed, status.quarantined, subsets, status.error.len() as u64];
            let entry = experiments.entry(id.clone()).or_default();
            let moved = entry.seen.0 != status.state || entry.seen.1 != counts || entry.brief.is_none();
            let running = status.state == "running";
            if running {
                entry.meter.see(now, [subsets as f64, busy]);
            } else {
                entry.meter.clear();
            }
            // A rate that falls while nothing comes is a change too, and so is a report that is written.
            let stale = entry.at.is_none_or(|t| now.saturating_duration_since(t) >= WORKERS);
            let restless = running || (status.ended() && entry.brief.as_ref().is_none_or(|b| !b.report));
            if !(moved || stale && restless) {
                continue;
            }
            entry.seen = (status.state.clone(), counts);
            entry.at = Some(now);
            let brief = brief(status, &entry.meter);
            if entry.brief.as_ref() != Some(&brief) {
                *seq += 1;
                entry.seq = *seq;
                entry.brief = Some(brief);
            }
        }
        if *seq > before {
            self.changed.send_replace(*seq);
        }
    }

    /// Takes all connected workers.
    fn workers(&self, all: &[WorkerStatus], now: Instant) {
        let mut state = self.write();
        let state = &mut *state;
        state.meters.retain(|id, _| all.iter().any(|w| w.id == *id));
        let mut rows = Vec::with_capacity(all.len());
        for w in all {
            let meter = state.meters.entry(w.id).or_default();
            meter.see(now, [w.accepted as f64]);
            rows.push(row(w, meter.rates().map(|r| r[0])));
        }
        let left = std::mem::take(&mut state.workers);
        for mut row in left.into_iter().filter(|r| !all.iter().any(|w| w.id == r.id)) {
            (row.rate, row.leased) = (None, 0);
            state.gone.push_front((now, row));
        }
        // One that came back under its name hasn't gone.
        state.gone.retain(|(t, r)| {
            now.saturating_duration_since(*t) < GONE && !rows.iter().any(|w| w.name == r.name)
        });
        state.gone.truncate(MOST_GONE);
        let (busy, idle): (u64, u64) = all.iter().fold((0, 0), |s, w| (s.0 + w.busy_us, s.1 + w.idle_us));
        let crowd = Crowd {
            connected: rows.len(),
            lanes: rows.iter().map(|r| r.lanes.len()).sum(),
            leased: rows.iter().map(|r| u64::from(r.leased)).sum(),
            failures: rows.iter().map(|r| r.failures).sum(),
            gone: state.gone.len(),
            rate: tidy(rows.iter().filter_map(|r| r.rate).sum()),
            idle: share(busy, idle),
        };
        // Ages alone are no change.
        let same = |a: &WorkerRow, b: &WorkerRow| *a == WorkerRow { connected_s: a.connected_s, ..b.clone() };
        let changed = crowd != state.crowd
            || rows.len() != state.crowd.connected
            || !rows.iter().zip(&state.workers).all(|(a, b)| same(a, b));
        (state.workers, state.crowd) = (rows, crowd);
        if changed {
            state.seq += 1;
            state.crowd_seq = state.seq;
            self.changed.send_replace(state.seq);
        }
    }

    /// Experiments that changed after `since`, oldest change first, `most` at most; with the number up to which that is all.
    pub fn since(&self, since: u64, most: usize) -> (u64, Vec<Brief>) {
        let state = self.read();
        let mut changed: Vec<&Entry> = state.experiments.values().filter(|e| e.seq > since).collect();
        changed.sort_by_key(|e| e.seq);
        let upto = if changed.len() > most { changed[most - 1].seq } else { state.seq };
        changed.truncate(most);
        (upto, changed.into_iter().filter_map(|e| e.brief.clone()).collect())
    }

    /// All workers in numbers, where that changed after `since`.
    pub fn crowd(&self, since: u64) -> Option<Crowd> {
        let state = self.read();
        (state.crowd_seq > since).then(|| state.crowd.clone())
    }

    /// Some of the experiments whose name or id has `wanted` in it, those at work first; and how many there are.
    pub fn list(&self, wanted: &str, from: usize, most: usize) -> (u64, usize, Vec<Brief>) {
        let state = self.read();
        let wanted = wanted.to_lowercase();
        let fits = |b: &&Brief| {
            wanted.is_empty() || b.name.to_lowercase().contains(&wanted) || b.id.starts_with(&wanted)
        };
        let mut all: Vec<&Brief> =
            state.experiments.values().filter_map(|e| e.brief.as_ref()).filter(fits).collect();
        let rank = |b: &Brief| match b.state.as_str() {
            "running" => 0,
            "paused" => 1,
            "failed" => 2,
            _ => 3,
        };
        all.sort_by(|a, b| rank(a).cmp(&rank(b)).then(a.name.cmp(&b.name)).then(a.id.cmp(&b.id)));
        (state.seq, all.len(), all.into_iter().skip(from).take(most).cloned().collect())
    }

    /// One of the experiments.
    pub fn one(&self, id: &str) -> Option<Brief> {
        self.read().experiments.get(id)?.brief.clone()
    }

    /// Some of the workers, and those that have gone lately.
    pub fn some_workers(&self, from: usize, most: usize) -> (Crowd, Vec<WorkerRow>, Vec<WorkerRow>) {
        let (state, now) = (self.read(), Instant::now());
        let gone = state.gone.iter().map(|(t, r)| WorkerRow {
            gone_s: Some(now.saturating_duration_since(*t).as_secs()),
            ..r.clone()
        });
        let some = state.workers.iter().skip(from).take(most).cloned().collect();
        (state.crowd.clone(), some, gone.collect())
    }
}

/// Three digits are enough to look at, and fewer changes to send.
fn tidy(v: f64) -> f64 {
    if v >= 100.0 { v.round() } else { (v * 100.0).round() / 100.0 }
}

fn share(busy: u64, idle: u64) -> Option<f64> {
    (busy + idle > 0).then(|| (idle as f64 / (busy + idle) as f64 * 1000.0).round() / 1000.0)
}

fn row(w: &WorkerStatus, rate: Option<f64>) -> WorkerRow {
    WorkerRow {
        id: w.id,
        name: w.name.clone(),
        version: w.version.clone(),
        lanes: w.lanes.clone(),
        leased: w.leased,
        accepted: w.accepted,
        failures: w.failures,
        connected_s: w.connected_ms / 1000,
        idle: share(w.busy_us, w.idle_us),
        rate: rate.map(tidy),
        gone_s: None,
    }
}

fn brief(status: &Status, meter: &Meter<2>) -> Brief {
    let work = work(status);
    let rates = meter.rates();
    let eta = rates.filter(|r| r[1] > 0.0).map(|r| work.left / r[1]).filter(|s| s.is_finite());
    Brief {
        id: status.id.clone(),
        name: status.name.clone(),
        state: status.state.clone(),
        error: status.error.clone(),
        planned: status.planned,
        accepted: status.accepted,
        duplicate: status.duplicate,
        quarantined: status.quarantined,
        share: if status.accepted == status.planned { 1.0 } else { (work.share * 1e4).floor() / 1e4 },
        rate: rates.map(|r| tidy(r[0])),
        eta_s: eta.map(|s| if s > 600.0 { (s / 10.0).round() * 10.0 } else { s.round() }),
        sweeps: status
            .sweeps
            .iter()
            .map(|s| SweepBrief {
                name: s.name.clone(),
                done: s.subsets_done,
                total: s.subsets_total,
                round: s.round,
                rounds: s.rounds,
                busy_s: tidy(s.busy_seconds),
            })
            .collect(),
        output: status.output.clone(),
        report: status.ended() && Path::new(&status.output).join("report.html").is_file(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub() -> Hub {
        Hub { state: RwLock::default(), changed: watch::Sender::new(0), boot: "1-x".into() }
    }

    fn status(id: &str, state: &str, accepted: u64) -> Status {
        Status {
            id: id.into(),
            name: format!("name {id}"),
            state: state.into(),
            error: String::new(),
            sweeps: vec![],
            planned: 10,
            computed: accepted,
            accepted,
            duplicate: 0,
            quarantined: 0,
            output: "/nowhere".into(),
            workers: 1,
        }
    }

    fn worker(id: u64, name: &str) -> WorkerStatus {
        WorkerStatus {
            id,
            protocol: 4,
            name: name.into(),
            version: "1".into(),
            lanes: vec![("cpu".into(), "class".into())],
            leased: 2,
            accepted: 3,
            failures: 1,
            connected_ms: 5000,
            busy_us: 900,
            idle_us: 100,
        }
    }

    #[test]
    fn who_comes_back_is_told_only_what_it_missed() {
        let (hub, now) = (hub(), Instant::now());
        let all = |n: u64| -> BTreeMap<String, Status> {
            [("a", "done", 10), ("b", "running", n), ("c", "paused", 1)]
                .into_iter()
                .map(|(id, s, n)| (id.to_owned(), status(id, s, n)))
                .collect()
        };
        hub.experiments(&all(1), now);
        let (seq, first) = hub.since(0, 100);
        assert_eq!(first.len(), 3);
        hub.experiments(&all(1), now + Duration::from_millis(100));
        assert_eq!(hub.since(seq, 100), (seq, vec![]));
        hub.experiments(&all(2), now + Duration::from_millis(400));
        let (then, changed) = hub.since(seq, 100);
        assert_eq!((changed.len(), changed[0].id.as_str(), changed[0].accepted), (1, "b", 2));
        assert!(then > seq && *hub.subscribe().borrow() == then);
        // Portions lose nothing.
        let (part, one) = hub.since(0, 1);
        assert_eq!(one.len() + hub.since(part, 100).1.len(), 3);
        let names: Vec<String> = hub.list("", 0, 10).2.into_iter().map(|b| b.id).collect();
        assert_eq!(names, ["b", "c", "a"]);
        assert_eq!((hub.list("NAME c", 0, 10).1, hub.list("", 1, 1).2[0].id.as_str()), (1, "c"));
    }

    #[test]
    fn a_worker_that_vanishes_stays_in_sight_until_it_is_back() {
        let (hub, now) = (hub(), Instant::now());
        hub.workers(&[worker(1, "one"), worker(2, "two")], now);
        assert_eq!(
            hub.crowd(0).map(|c| (c.connected, c.lanes, c.failures, c.idle)),
            Some((2, 2, 2, Some(0.1)))
        );
        hub.workers(&[worker(2, "two")], now + Duration::from_secs(1));
        let (crowd, rows, gone) = hub.some_workers(0, 10);
        assert_eq!((crowd.connected, crowd.gone, rows.len()), (1, 1, 1));
        assert_eq!((gone[0].name.as_str(), gone[0].gone_s.is_some(), gone[0].leased), ("one", true, 0));
        hub.workers(&[worker(2, "two"), worker(3, "one")], now + Duration::from_secs(2));
        assert!(hub.some_workers(0, 10).2.is_empty());
        hub.workers(&[worker(2, "two")], now + Duration::from_secs(3));
        hub.workers(&[worker(2, "two")], now + Duration::from_secs(1000));
        assert!(hub.some_workers(0, 10).2.is_empty(), "after ten minutes nobody asks");
    }
}
