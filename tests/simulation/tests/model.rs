//! The lease and epoch protocol as a small model, checked exhaustively: two coordinators, two workers, one chunk (chunks
//! share nothing but leases), a store with an epoch, and everything that can be late, lost, or in between.
//!
//! Time goes in ticks. A lease is three for the worker, who may stop most of a tick late (clocks drift), and one more for
//! the coordinator. A grant is delivered within one tick or not at all; for that the worker takes a tick off.

use stateright::{Checker, HasDiscoveries, Model, Property};

const LEASE: u8 = 2;
const QUARTER: u8 = 1;
const LEAD: u8 = 2;

/// A rule left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Nothing,
    NoQuarter,
    NoEpochCheck,
    SameEpoch,
    AckFirst,
    AcceptsTwice,
    WorkerIgnoresDeadline,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, Default)]
struct Coordinator {
    /// The epoch with which it believes to lead.
    epoch: Option<u8>,
    /// Leases nothing before this.
    quiet: u8,
    /// Worker that has the chunk, until when.
    lease: Option<(u8, u8)>,
    /// A write under way, for whose result.
    writes: Option<u8>,
    /// Acknowledgements on their way, by worker.
    acks: [bool; 2],
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, Default)]
struct Worker {
    /// Coordinator of its stream.
    stream: Option<u8>,
    /// A grant on its way, since when.
    grant: Option<u8>,
    /// Computes under a lease until then.
    works: Option<u8>,
    /// A renewal: asked when, and whether the answer is on its way back.
    renewal: Option<(u8, bool)>,
    /// Keeps a result that isn't acknowledged.
    keeps: bool,
    /// Let go of an acknowledged result.
    acked: bool,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, Default)]
struct State {
    now: u8,
    epoch: u8,
    lead_until: u8,
    accepted: u8,
    coordinators: [Coordinator; 2],
    workers: [Worker; 2],
    /// Things that went wrong so far.
    faults: u8,
    taken_over: bool,
    refused: bool,
    stale_write: bool,
    two_with_one_epoch: bool,
    worked_past: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Tick,
    TakeLead(u8),
    RenewLead(u8),
    Connect(u8, u8),
    Cut(u8),
    Grant(u8, u8),
    GrantArrives(u8),
    GrantLost(u8),
    AskRenewal(u8),
    RenewalArrives(u8),
    RenewalAnswered(u8),
    RenewalLost(u8),
    Finish(u8),
    Stop(u8),
    Crash(u8),
    BeginWrite(u8, u8),
    Commit(u8),
    WriteLost(u8),
    AckArrives(u8, u8),
    Expire(u8),
}

/// A rule left out, the last tick, and cuts, crashes and losses of a run, at most: with more of them there are more states than
/// memory holds.
struct Protocol(Broken, u8, u8);

impl Protocol {
    fn until(&self, now: u8) -> u8 {
        now + LEASE + if self.0 == Broken::NoQuarter { 0 } else { QUARTER }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::default()]
    }

    fn actions(&self, s: &State, out: &mut Vec<Action>) {
        // A worker stops within a tick after its deadline, and grants don't travel longer than one.
        let may_tick = s.workers.iter().all(|w| {
            let stops = self.0 == Broken::WorkerIgnoresDeadline || w.works.is_none_or(|d| s.now < d);
            stops && w.grant.is_none_or(|at| s.now <= at)
        });
        if s.now < self.1 && may_tick {
            out.push(Action::Tick);
        }
        for c in 0..2u8 {
            let me = &s.coordinators[c as usize];
            if me.epoch.is_none() && s.lead_until <= s.now {
                out.push(Action::TakeLead(c));
            }
            if me.epoch == Some(s.epoch) && s.lead_until < s.now + LEAD {
                out.push(Action::RenewLead(c));
            }
            if me.writes.is_some() {
                out.extend([Action::Commit(c), Action::WriteLost(c)]);
            }
            if me.lease.is_some_and(|(_, until)| until <= s.now) {
                out.push(Action::Expire(c));
            }
            for w in 0..2u8 {
                let worker = &s.workers[w as usize];
                let here = worker.stream == Some(c) && me.epoch.is_some();
                if here
                    && me.lease.is_none()
                    && me.quiet <= s.now
                    && s.accepted == 0
                    && worker.grant.is_none()
                {
                    out.push(Action::Grant(c, w));
                }
                if here && worker.keeps && me.writes.is_none() && !me.acks[w as usize] {
                    out.push(Action::BeginWrite(c, w));
                }
                if me.acks[w as usize] {
                    out.push(Action::AckArrives(c, w));
                }
                if me.epoch.is_some() && worker.stream.is_none() {
                    out.push(Action::Connect(w, c));
                }
            }
        }
        for w in 0..2u8 {
            let worker = &s.workers[w as usize];
            if worker.stream.is_some() {
                out.push(Action::Cut(w));
            }
            if worker.grant.is_some() {
                out.extend([Action::GrantArrives(w), Action::GrantLost(w)]);
            }
            if let Some((_, answered)) = worker.renewal {
                out.push(if answered { Action::RenewalAnswered(w) } else { Action::RenewalArrives(w) });
                out.push(Action::RenewalLost(w));
            } else if worker.works.is_some() && worker.stream.is_some() {
                out.push(Action::AskRenewal(w));
            }
            if let Some(deadline) = worker.works {
                out.push(Action::Finish(w));
                if deadline <= s.now && self.0 != Broken::WorkerIgnoresDeadline {
                    out.push(Action::Stop(w));
                }
            }
            if worker.works.is_some() || worker.keeps {
                out.push(Action::Crash(w));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut s = last.clone();
        let now = s.now;
        let fault = matches!(
            action,
            Action::Cut(_)
                | Action::Crash(_)
                | Action::GrantLost(_)
                | Action::RenewalLost(_)
                | Action::WriteLost(_)
        );
        s.faults += u8::from(fault);
        match action {
            Action::Tick => s.now += 1,
            Action::TakeLead(c) => {
                let same = self.0 == Broken::SameEpoch && s.epoch > 0;
                s.epoch += u8::from(!same);
                s.two_with_one_epoch |= s.coordinators.iter().any(|o| o.epoch == Some(s.epoch));
                s.lead_until = now + LEAD;
                // Nothing lives only in memory: it begins with what the store has.
                let quiet = if s.epoch > 1 { now + 1 } else { now };
                s.coordinators[c as usize] =
                    Coordinator { epoch: Some(s.epoch), quiet, ..Coordinator::default() };
            }
            Action::RenewLead(_) => s.lead_until = now + LEAD,
            Action::Connect(w, c) => {
                let worker = &mut s.workers[w as usize];
                worker.stream = Some(c);
                let me = &mut s.coordinators[c as usize];
                // It brings the lease that it holds.
                if worker.works.is_some() && me.lease.is_none() && s.accepted == 0 {
                    me.lease = Some((w, self.until(now)));
                    // The answer to this first renewal counts from now.
                    worker.works = worker.works.map(|d| d.max(now + LEASE));
                    s.taken_over = true;
                }
            }
            Action::Cut(w) => {
                let worker = &mut s.workers[w as usize];
                let c = worker.stream.take()?;
                (worker.grant, worker.renewal) = (None, None);
                let me = &mut s.coordinators[c as usize];
                me.acks[w as usize] = false;
                // One way to vanish: what it held goes back at once.
                if me.lease.is_some_and(|(by, _)| by == w) {
                    me.lease = None;
                }
            }
            Action::Grant(c, w) => {
                s.coordinators[c as usize].lease = Some((w, self.until(now)));
                s.workers[w as usize].grant = Some(now);
            }
            Action::GrantArrives(w) => {
                let worker = &mut s.workers[w as usize];
                worker.grant = None;
                if worker.works.is_none() && !worker.keeps {
                    worker.works = Some(now + LEASE - 1);
                }
            }
            Action::GrantLost(w) => s.workers[w as usize].grant = None,
            Action::AskRenewal(w) => s.workers[w as usize].renewal = Some((now, false)),
            Action::RenewalArrives(w) => {
                let c = s.workers[w as usize].stream?;
                let until = self.until(now);
                let me = &mut s.coordinators[c as usize];
                let (asked, _) = s.workers[w as usize].renewal?;
                match &mut me.lease {
                    Some((by, till)) if *by == w => {
                        *till = until;
                        s.workers[w as usize].renewal = Some((asked, true));
                    }
                    // "Not held": the worker drops it.
                    _ => (s.workers[w as usize].renewal, s.workers[w as usize].works) = (None, None),
                }
            }
            Action::RenewalAnswered(w) => {
                let worker = &mut s.workers[w as usize];
                let (asked, _) = worker.renewal.take()?;
                worker.works = worker.works.map(|d| d.max(asked + LEASE));
            }
            Action::RenewalLost(w) => s.workers[w as usize].renewal = None,
            Action::Finish(w) => {
                let worker = &mut s.workers[w as usize];
                (worker.works, worker.keeps) = (None, true);
            }
            Action::Stop(w) => s.workers[w as usize].works = None,
            Action::Crash(w) => {
                s = self.next_state(last, Action::Cut(w)).unwrap_or(s);
                let acked = s.workers[w as usize].acked;
                s.workers[w as usize] = Worker { acked, ..Worker::default() };
            }
            Action::BeginWrite(c, w) => {
                let me = &mut s.coordinators[c as usize];
                me.writes = Some(w);
                if self.0 == Broken::AckFirst {
                    me.acks[w as usize] = true;
                }
            }
            Action::Commit(c) => {
                let epoch = s.epoch;
                let me = &mut s.coordinators[c as usize];
                let w = me.writes.take()?;
                let stale = me.epoch != Some(epoch);
                if stale && self.0 != Broken::NoEpochCheck {
                    *me = Coordinator::default();
                    s.refused = true;
                    return Some(s);
                }
                s.stale_write |= stale;
                me.acks[w as usize] = true;
                if me.lease.is_some_and(|(by, _)| by == w) {
                    me.lease = None;
                }
                if s.accepted == 0 || self.0 == Broken::AcceptsTwice {
                    s.accepted += 1;
                }
            }
            Action::WriteLost(c) => s.coordinators[c as usize].writes = None,
            Action::AckArrives(c, w) => {
                s.coordinators[c as usize].acks[w as usize] = false;
                let worker = &mut s.workers[w as usize];
                if worker.keeps {
                    (worker.keeps, worker.acked) = (false, true);
                }
            }
            Action::Expire(c) => {
                let (w, _) = s.coordinators[c as usize].lease.take()?;
                let worker = &s.workers[w as usize];
                s.worked_past |= worker.works.is_some() && worker.stream == Some(c);
            }
        }
        Some(s)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("accepted once", |_, s: &State| s.accepted <= 1),
            Property::always("durable before acknowledged", |_, s: &State| {
                s.accepted > 0 || s.workers.iter().all(|w| !w.acked)
            }),
            Property::always("epochs are hard", |_, s: &State| !s.stale_write && !s.two_with_one_epoch),
            Property::always("two-sided leases", |_, s: &State| !s.worked_past),
            // What the model must reach to say anything.
            Property::sometimes("done", |_, s: &State| s.accepted == 1 && s.workers.iter().any(|w| w.acked)),
            Property::sometimes("a lease is taken over", |_, s: &State| s.taken_over),
            Property::sometimes("an old leader's write is refused", |_, s: &State| s.refused),
        ]
    }

    fn within_boundary(&self, s: &State) -> bool {
        s.epoch <= 2 && s.faults <= self.2
    }
}

/// The last tick, and cuts, crashes and losses of a run. What is left out is searched for within the same as what holds: so a rule
/// that was broken would be found.
const BOUND: (u8, u8) = (4, 1);

fn found(broken: Broken, property: &'static str) {
    let first = HasDiscoveries::AnyOf([property].into());
    let checker =
        Protocol(broken, BOUND.0, BOUND.1).checker().threads(2).finish_when(first).spawn_bfs().join();
    assert!(checker.discovery(property).is_some(), "{broken:?} breaks nothing within {BOUND:?}");
}

fn holds(ticks: u8, faults: u8) {
    let checker = Protocol(Broken::Nothing, ticks, faults).checker().threads(2).spawn_bfs().join();
    eprintln!("{} states within {ticks} ticks and {faults} faults", checker.unique_state_count());
    checker.assert_properties();
}

#[test]
fn leases_and_epochs_hold_in_every_state_that_can_be_reached() {
    holds(BOUND.0, BOUND.1);
}

#[test]
fn each_rule_left_out_of_the_protocol_breaks_what_it_is_for_within_the_same_bound() {
    found(Broken::NoQuarter, "two-sided leases");
    found(Broken::WorkerIgnoresDeadline, "two-sided leases");
    found(Broken::NoEpochCheck, "epochs are hard");
    found(Broken::SameEpoch, "epochs are hard");
    found(Broken::AckFirst, "durable before acknowledged");
    found(Broken::AcceptsTwice, "accepted once");
}
