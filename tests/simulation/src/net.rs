//! A network of connections, each two lines of gRPC messages in order, with what may happen to them on the way.
//!
//! What is lost, doubled or put out of order here is a whole message within a stream: more than any real transport
//! does, which loses the end of a stream only. So a stream that lost or reordered something breaks a little later.

use crate::disk::Disk;
use crate::trace::{Sim, lock};
use ablate_proto::v1;
use bytes::Bytes;
use http_body::Frame;
use prost::Message;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tonic::Status;
use tonic::service::Routes;

/// After so long without an answer to its pings a worker gives a connection up, in ms (`link::endpoint`).
const WORKER_PATIENCE: u64 = 10_000;
/// The same for a coordinator (`rpc::serve`, with hyper's timeout).
const COORDINATOR_PATIENCE: u64 = 30_000;
/// Messages on one line: far more than the protocol sends unanswered.
const LINE: usize = 10_000;

/// Where a line goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the coordinator.
    Up = 0,
    /// To the worker.
    Down = 1,
}

/// A body's end of a channel.
pub type Frames = mpsc::UnboundedSender<Result<Frame<Bytes>, Status>>;
/// A call's answer: its head, then its body.
pub type Answer =
    (oneshot::Receiver<http::response::Parts>, mpsc::UnboundedReceiver<Result<Frame<Bytes>, Status>>);

/// What travels.
pub enum Parcel {
    /// A call begins.
    Request(Box<http::request::Parts>),
    /// Its answer begins.
    Head(Box<http::response::Parts>),
    /// One gRPC message.
    Data(Bytes),
    /// The body ends, perhaps with trailers.
    End(Option<http::HeaderMap>),
    /// The connection is gone.
    Reset,
}

struct Call {
    work: bool,
    to_server: Option<Frames>,
    head: Option<oneshot::Sender<http::response::Parts>>,
    to_client: Option<Frames>,
}

struct Conn {
    /// Client and server.
    nodes: [usize; 2],
    era: u64,
    open: [bool; 2],
    /// A side whose machine is gone without a word.
    dead: [bool; 2],
    lines: [VecDeque<(u64, u64, Parcel)>; 2],
    calls: BTreeMap<u64, Call>,
    tasks: [Vec<AbortHandle>; 2],
    breaks_at: Option<u64>,
    cut_since: Option<u64>,
}

struct Dial {
    client: usize,
    server: usize,
    due: u64,
    reply: oneshot::Sender<Result<u64, String>>,
}

/// What a node answers with.
#[derive(Default)]
pub struct Place {
    /// Rises with each change of what is served.
    pub era: u64,
    /// The services, where there are any.
    pub routes: Option<Routes>,
}

/// A node as the network sees it.
#[derive(Default)]
pub struct Host {
    /// Its runtime, while it is up.
    pub handle: Option<Handle>,
    /// Whether it is stopped.
    pub paused: bool,
    /// What it serves.
    pub place: Place,
}

/// What is wrong with the network now: of a thousand messages, how many.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Are lost.
    pub lost: u32,
    /// Come twice.
    pub twice: u32,
    /// Overtake the one before.
    pub overtake: u32,
    /// Milliseconds that a message takes longer, at most.
    pub late: u64,
}

/// See the module.
pub struct Net {
    sim: Arc<Sim>,
    disk: Arc<Disk>,
    rng: ChaCha8Rng,
    /// Nodes.
    pub hosts: Vec<Host>,
    /// Pairs (from, to) between which nothing goes.
    pub blocked: BTreeSet<(usize, usize)>,
    /// Faults.
    pub weather: Weather,
    conns: BTreeMap<u64, Conn>,
    dials: Vec<Dial>,
    next: u64,
}

/// The network, shared by the nodes.
pub type Shared = Arc<Mutex<Net>>;

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Net").field("conns", &self.conns.len()).finish_non_exhaustive()
    }
}

impl Net {
    /// A network of nodes that are down.
    #[must_use]
    pub fn new(sim: Arc<Sim>, disk: Arc<Disk>, rng: ChaCha8Rng, nodes: usize) -> Self {
        Self {
            sim,
            disk,
            rng,
            hosts: (0..nodes).map(|_| Host::default()).collect(),
            blocked: BTreeSet::new(),
            weather: Weather::default(),
            conns: BTreeMap::new(),
            dials: Vec::new(),
            next: 1,
        }
    }

    fn travel(&mut self) -> u64 {
        let late = if self.weather.late > 0 { self.rng.random_range(0..self.weather.late) } else { 0 };
        self.rng.random_range(5..40) + late
    }

    /// Begins to connect.
    pub fn dial(&mut self, client: usize, server: usize) -> oneshot::Receiver<Result<u64, String>> {
        let (reply, answer) = oneshot::channel();
        let due = self.sim.now() + 2 * self.travel();
        self.dials.push(Dial { client, server, due, reply });
        answer
    }

    /// Begins a call: its number, and what its answer comes by.
    pub fn call(&mut self, conn: u64, parts: http::request::Parts) -> Option<(u64, Answer)> {
        let call = self.next;
        let (head, head_rx) = oneshot::channel();
        let (to_client, body) = mpsc::unbounded_channel();
        let work = parts.uri.path().ends_with("/Work");
        let c = self.conns.get_mut(&conn).filter(|c| c.open[0])?;
        c.calls.insert(call, Call { work, to_server: None, head: Some(head), to_client: Some(to_client) });
        self.next += 1;
        self.push(conn, Way::Up, call, Parcel::Request(Box::new(parts)));
        Some((call, (head_rx, body)))
    }

    /// A task that carries a body: it ends with its side of the connection.
    pub fn carries(&mut self, conn: u64, side: usize, task: AbortHandle) {
        match self.conns.get_mut(&conn).filter(|c| c.open[side]) {
            Some(c) => c.tasks[side].push(task),
            None => task.abort(),
        }
    }

    /// Puts a parcel on its way.
    pub fn push(&mut self, conn: u64, way: Way, call: u64, parcel: Parcel) {
        let now = self.sim.now();
        let mut due = now + self.travel();
        let weather = self.weather;
        let draw = self.rng.random_range(0..1000);
        let wait = self.rng.random_range(300..3000);
        let Some(c) = self.conns.get_mut(&conn).filter(|c| c.open[way as usize]) else { return };
        let line = &mut c.lines[way as usize];
        due = due.max(line.back().map_or(0, |b| b.0));
        if line.len() >= LINE {
            self.sim
                .violated("limits on everything", format_args!("{LINE} messages wait on connection {conn}"));
        }
        if let Parcel::Data(bytes) = &parcel {
            if c.calls.get(&call).is_some_and(|c| c.work) {
                let (sim, disk) = (&self.sim, &self.disk);
                let mut checks = lock(&sim.checks);
                match way {
                    Way::Up => {
                        if let Ok(m) = v1::WorkerMessage::decode(&bytes[5..]) {
                            checks.worker_says(sim, conn, c.nodes, m);
                        }
                    }
                    Way::Down => {
                        if let Ok(m) = v1::CoordinatorMessage::decode(&bytes[5..]) {
                            checks.coordinator_says(sim, disk, conn, c.nodes, m);
                        }
                    }
                }
            }
            let end = now + wait;
            if draw < weather.lost {
                self.sim.fault("messages lost");
                self.sim.say(format_args!("net: lost on {conn} {way:?}"));
                c.breaks_at = Some(c.breaks_at.unwrap_or(end));
                lock(&self.sim.checks).taint(conn);
                return;
            }
            if draw < weather.lost + weather.twice {
                self.sim.fault("messages doubled");
                self.sim.say(format_args!("net: twice on {conn} {way:?}"));
                lock(&self.sim.checks).taint(conn);
                line.push_back((due, call, Parcel::Data(bytes.clone())));
            } else if draw < weather.lost + weather.twice + weather.overtake
                && line.back().is_some_and(|b| matches!(b.2, Parcel::Data(_)) && b.1 == call)
            {
                self.sim.fault("messages reordered");
                self.sim.say(format_args!("net: overtaking on {conn} {way:?}"));
                c.breaks_at = Some(c.breaks_at.unwrap_or(end));
                lock(&self.sim.checks).taint(conn);
                let before = line.len() - 1;
                line.insert(before, (due, call, parcel));
                return;
            }
        }
        line.push_back((due, call, parcel));
    }

    /// Ends one side of a connection; `tell`: the other side hears of it.
    fn end_side(&mut self, conn: u64, side: usize, tell: bool) {
        let Some(c) = self.conns.get_mut(&conn) else { return };
        if !c.open[side] {
            return;
        }
        self.sim.say(format_args!("net: connection {conn} ends at node {}", c.nodes[side]));
        let gone = || Err(Status::unavailable("simulated: the connection is gone"));
        for call in c.calls.values_mut() {
            let to = if side == 0 {
                call.head = None;
                call.to_client.take()
            } else {
                call.to_server.take()
            };
            if let Some(to) = to {
                // Nobody reads any more where this fails.
                let _ = to.send(gone());
            }
        }
        c.tasks[side].drain(..).for_each(|t| t.abort());
        if tell {
            let way = if side == 0 { Way::Up } else { Way::Down };
            self.push(conn, way, 0, Parcel::Reset);
        }
        if let Some(c) = self.conns.get_mut(&conn) {
            c.open[side] = false;
            c.dead[side] = !tell;
        }
    }

    /// A node's process is gone. `silent`: its machine too, so that nobody tells the others.
    pub fn crash(&mut self, node: usize, silent: bool) {
        self.hosts[node].handle = None;
        self.hosts[node].place.routes = None;
        self.hosts[node].place.era += 1;
        self.end_all(node, silent, |_| true);
    }

    fn end_all(&mut self, node: usize, silent: bool, which: impl Fn(u64) -> bool) {
        let of: Vec<(u64, usize)> = self
            .conns
            .iter()
            .flat_map(|(&id, c)| [(id, 0, c), (id, 1, c)])
            .filter(|&(_, side, c)| c.nodes[side] == node && c.open[side] && (side == 0 || which(c.era)))
            .map(|(id, side, _)| (id, side))
            .collect();
        for (id, side) in of {
            self.end_side(id, side, !silent);
        }
    }

    /// Changes what a coordinator serves; connections to what it served before end.
    pub fn serve(&mut self, node: usize, routes: Option<Routes>) {
        let place = &mut self.hosts[node].place;
        place.era += 1;
        place.routes = routes;
        let era = place.era;
        self.end_all(node, false, |e| e < era);
    }

    fn cut(&self, from: usize, to: usize) -> bool {
        self.blocked.contains(&(from, to)) || self.hosts[to].paused
    }

    /// Brings what is due.
    pub fn step(&mut self, shared: &Shared) {
        let now = self.sim.now();
        self.answer_dials(now);
        let ids: Vec<u64> = self.conns.keys().copied().collect();
        for id in ids {
            self.step_conn(id, now, shared);
        }
        self.conns.retain(|_, c| c.open[0] || c.open[1]);
    }

    fn answer_dials(&mut self, now: u64) {
        let mut left = Vec::new();
        for dial in std::mem::take(&mut self.dials) {
            let Dial { client, server, due, reply } = dial;
            if reply.is_closed() {
                continue;
            }
            if due > now || self.cut(client, server) || self.cut(server, client) {
                left.push(Dial { client, server, due, reply });
                continue;
            }
            let place = &self.hosts[server].place;
            if self.hosts[server].handle.is_none() || place.routes.is_none() {
                // The dialler may be gone.
                let _ = reply.send(Err("connection refused".to_owned()));
                continue;
            }
            let id = self.next;
            self.next += 1;
            let conn = Conn {
                nodes: [client, server],
                era: place.era,
                open: [true, true],
                dead: [false, false],
                lines: [VecDeque::new(), VecDeque::new()],
                calls: BTreeMap::new(),
                tasks: [Vec::new(), Vec::new()],
                breaks_at: None,
                cut_since: None,
            };
            self.sim.say(format_args!("net: connection {id} from node {client} to node {server}"));
            self.conns.insert(id, conn);
            if reply.send(Ok(id)).is_err() {
                self.end_side(id, 0, true);
            }
        }
        self.dials = left;
    }

    fn step_conn(&mut self, id: u64, now: u64, shared: &Shared) {
        let Some(c) = self.conns.get(&id) else { return };
        let (nodes, dead) = (c.nodes, c.dead);
        if c.breaks_at.is_some_and(|at| at <= now) {
            self.end_side(id, 0, true);
            self.end_side(id, 1, true);
        }
        // A machine that is up again knows nothing of the connection, and says so.
        for side in [0, 1] {
            if dead[side]
                && self.hosts[nodes[side]].handle.is_some()
                && !self.cut(nodes[side], nodes[1 - side])
            {
                self.end_side(id, 1 - side, false);
            }
        }
        let cut = self.cut(nodes[0], nodes[1]) || self.cut(nodes[1], nodes[0]) || dead[0] || dead[1];
        let Some(c) = self.conns.get_mut(&id) else { return };
        c.cut_since = cut.then(|| c.cut_since.unwrap_or(now));
        let patience = [WORKER_PATIENCE, COORDINATOR_PATIENCE];
        let tired = c.cut_since.map(|since| patience.map(|p| now - since > p));
        for side in [0, 1] {
            if tired.is_some_and(|t| t[side]) && !self.hosts[nodes[side]].paused {
                self.end_side(id, side, true);
            }
        }
        for way in [Way::Up, Way::Down] {
            let (from, to) = if way == Way::Up { (0, 1) } else { (1, 0) };
            while !self.cut(nodes[from], nodes[to]) {
                let Some(c) = self.conns.get_mut(&id) else { return };
                if c.lines[way as usize].front().is_none_or(|p| p.0 > now) {
                    break;
                }
                let Some((_, call, parcel)) = c.lines[way as usize].pop_front() else { break };
                if c.open[to] {
                    self.deliver(id, way, call, parcel, shared);
                }
            }
        }
    }

    fn deliver(&mut self, id: u64, way: Way, call: u64, parcel: Parcel, shared: &Shared) {
        let Some(c) = self.conns.get_mut(&id) else { return };
        let nodes = c.nodes;
        if matches!(parcel, Parcel::Reset) {
            return self.end_side(id, if way == Way::Up { 1 } else { 0 }, false);
        }
        let Some(state) = c.calls.get_mut(&call) else { return };
        let frame = match parcel {
            Parcel::Request(parts) => {
                let (to, body) = mpsc::unbounded_channel();
                state.to_server = Some(to);
                let host = &self.hosts[nodes[1]];
                if let (Some(handle), Some(routes)) = (&host.handle, &host.place.routes) {
                    let task = handle.spawn(crate::wire::answer(
                        shared.clone(),
                        id,
                        call,
                        routes.clone(),
                        *parts,
                        body,
                    ));
                    self.carries(id, 1, task.abort_handle());
                }
                return;
            }
            Parcel::Head(parts) => {
                if let Some(head) = state.head.take() {
                    // Whoever called may have given up.
                    let _ = head.send(*parts);
                }
                return;
            }
            Parcel::Data(bytes) => {
                if state.work && way == Way::Down {
                    if let Ok(m) = v1::CoordinatorMessage::decode(&bytes[5..]) {
                        lock(&self.sim.checks).worker_hears(&self.sim, nodes[0], m);
                    }
                } else if state.work
                    && let Ok(m) = v1::WorkerMessage::decode(&bytes[5..])
                {
                    lock(&self.sim.checks).coordinator_hears(&self.sim, id, nodes, m);
                }
                Some(Frame::data(bytes))
            }
            Parcel::End(trailers) => trailers.map(Frame::trailers),
            Parcel::Reset => None,
        };
        let to = if way == Way::Up { &mut state.to_server } else { &mut state.to_client };
        match frame {
            Some(frame) => {
                let end = frame.is_trailers();
                if let Some(open) = to.as_ref() {
                    let _ = open.send(Ok(frame));
                }
                if end {
                    *to = None;
                }
            }
            None => *to = None,
        }
    }
}
