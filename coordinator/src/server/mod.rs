//! The coordinator as a service: one actor owns the scheduler, one committer makes results durable in
//! groups, and gRPC streams carry both ends. Start with [`Service::start`], keep the [`Handle`].

mod actor;
mod commit;
mod compute;
mod decide;
mod effects;
#[cfg(test)]
mod faults_tests;
pub mod heard;
mod inlet;
mod known;
mod lead;
#[cfg(test)]
mod migrated_tests;
mod patience;
mod rpc;
mod standby;
#[cfg(test)]
mod standby_tests;
mod status;
mod stop;
mod stream;
#[cfg(test)]
pub(crate) mod tests;

pub use compute::Compute;
pub use lead::Fatal;
pub use standby::{Standing, stand_by, stand_by_as};
pub use status::{Status, SweepStatus, WorkerStatus};

use crate::dashboard::Follows;
use crate::scheduler::Config;
use crate::security::Security;
use crate::store::{self, ChunkKey, NewExperiment, State, Store};
use ablate_common::plan::Plan;
use ablate_output::results::Results;
use actor::Command;
use commit::Committer;
use inlet::Inlet;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use stop::Stopper;
use thiserror::Error;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;

/// Turns a submitted spec (its text, its name for complaints, the folder its paths lie in) into an experiment;
/// wrong input is told from failure.
pub type Submitter = Arc<dyn Fn(&str, &str, &Path) -> Result<NewExperiment, SubmitError> + Send + Sync>;
/// Writes the tables of an experiment into a folder. It has the results to itself: they may fill much of the memory.
pub type Exporter = Arc<dyn Fn(Results, &str, &Path) -> Result<(), String> + Send + Sync>;

/// Why a submitted spec was not taken.
#[derive(Debug)]
pub struct SubmitError {
    /// Whether the spec, rather than the coordinator, is at fault.
    pub wrong_input: bool,
    /// What, where, and what to do.
    pub message: String,
}

/// Settings of a service.
#[derive(Clone)]
pub struct Options {
    /// Address to listen on; port 0 picks a free one.
    pub listen: SocketAddr,
    /// The scheduler's settings.
    pub scheduler: Config,
    /// Serves `Submit`; none: refused.
    pub submitter: Option<Submitter>,
    /// Writes tables when an experiment ends, and serves `Export`; none: neither.
    pub exporter: Option<Exporter>,
    /// Where results are checked and rounds decided.
    pub compute: Compute,
    /// Who may connect and call.
    pub security: Arc<Security>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("listen", &self.listen)
            .field("scheduler", &self.scheduler)
            .field("security", &self.security)
            .finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            scheduler: Config::default(),
            submitter: None,
            exporter: None,
            compute: Compute::Pool,
            security: Security::open(),
        }
    }
}

/// Why a service did not start, or refused.
#[derive(Debug, Error)]
pub enum Error {
    /// Something else listens there.
    #[error("{0} is in use by another program; choose another address with --listen")]
    AddressInUse(SocketAddr),
    /// The address can't be used.
    #[error("can't listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// No such experiment.
    #[error("no experiment is called {0}; see `ablate list`")]
    NoExperiment(String),
    /// The state doesn't allow it.
    #[error("{0}")]
    State(String),
    /// The store holds as many experiments as it may.
    #[error(
        "the coordinator keeps {0} experiments, its limit; raise `experiments` under [limits] in its config file"
    )]
    Full(usize),
    /// The service is shutting down.
    #[error("the coordinator is shutting down")]
    Closed,
}

/// What a user does to an experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Lease nothing more.
    Pause,
    /// Lease again.
    Resume,
    /// End it.
    Cancel,
    /// Try quarantined chunks again.
    Retry,
}

/// Groups of accepted chunks that whoever watches may fall behind.
const FEED: usize = 256;

/// How long a coordinator that took over leases nothing, in ms.
const QUIET: u64 = 2000;

/// A coordinator.
#[derive(Debug)]
pub struct Service;

/// A cheap handle on a running service.
#[derive(Clone)]
pub struct Handle {
    address: SocketAddr,
    epoch: u64,
    commands: mpsc::Sender<Command>,
    commits: Inlet,
    statuses: watch::Receiver<BTreeMap<String, Status>>,
    fatal: watch::Receiver<Option<Fatal>>,
    stop: Arc<Stopper>,
    /// Every task of the service holds a receiver while it runs.
    alive: watch::Sender<()>,
    store: Arc<dyn Store>,
    options: Arc<Options>,
    plans: commit::Plans,
    feed: commit::Feed,
    /// Weak: those who look hold it.
    follows: Arc<Mutex<Weak<Follows>>>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Service {
    /// Listens, takes the lead of `store`, resumes what is unfinished in it, and serves.
    ///
    /// # Errors
    /// Where the address is taken, another leads, or the store can't be read.
    pub async fn start(options: Options, store: Arc<dyn Store>) -> Result<Handle, Error> {
        let listener = listen(options.listen)?;
        let asked = Instant::now();
        let epoch = store.acquire_epoch().await?;
        Self::lead(options, listener, store, Lead { epoch, asked }).await
    }

    /// Serves with a lead that was taken, until it is lost.
    ///
    /// # Errors
    /// Where the store can't be read.
    pub async fn lead(
        mut options: Options,
        listener: std::net::TcpListener,
        store: Arc<dyn Store>,
        lead: Lead,
    ) -> Result<Handle, Error> {
        let unusable = |e| Error::Listen(options.listen, e);
        let listener = tokio::net::TcpListener::from_std(listener).map_err(unusable)?;
        options.listen = listener.local_addr().map_err(unusable)?;
        let handle = Self::begin(options, store, lead).await?;
        rpc::serve(handle.clone(), listener, handle.stop.subscribe());
        Ok(handle)
    }

    /// Leads without listening: whoever started it carries calls to [`Handle::routes`].
    ///
    /// # Errors
    /// Where the store can't be read.
    pub async fn begin(
        mut options: Options,
        store: Arc<dyn Store>,
        Lead { epoch, asked }: Lead,
    ) -> Result<Handle, Error> {
        let address = options.listen;
        if epoch > 1 && store.lead_time().is_some() {
            // Workers reach a coordinator that takes over within this time, and bring their leases.
            options.scheduler.quiet = QUIET;
        }
        let options = Arc::new(options);
        let (commands, inbox) = mpsc::channel(1024);
        let (status_tx, statuses) = watch::channel(BTreeMap::new());
        let (fatal_tx, fatal) = watch::channel(None);
        let stop = Arc::new(Stopper::default());
        let stopped = stop.subscribe();
        let alive = watch::Sender::new(());
        let (commits, results) = Inlet::new();
        let plans = commit::Plans::default();
        let feed = commit::Feed::new(FEED);
        let committer = Committer {
            store: Arc::clone(&store),
            epoch,
            actor: commands.downgrade(),
            fatal: fatal_tx.clone(),
            stopped: stopped.clone(),
            plans: Arc::clone(&plans),
            compute: options.compute,
            feed: feed.clone(),
        };
        let committer = tokio::spawn(committer.run(results, alive.subscribe()));
        lead::watch_over("what stores results", committer, fatal_tx.clone());
        if let Some(time) = store.lead_time() {
            let keeper = lead::Keeper {
                store: Arc::clone(&store),
                epoch,
                time,
                fatal: fatal_tx.clone(),
                stopped: stopped.clone(),
            };
            tokio::spawn(keeper.run(asked, alive.subscribe()));
        }
        let actor = actor::Actor::new(
            Arc::clone(&store),
            epoch,
            &options,
            commands.downgrade(),
            Arc::clone(&plans),
            status_tx,
            fatal_tx.clone(),
        );
        let actor = tokio::spawn(actor.run(inbox, stopped.clone(), alive.subscribe()));
        lead::watch_over("what schedules", actor, fatal_tx);
        let handle = Handle {
            address,
            epoch,
            commands,
            commits,
            statuses,
            fatal,
            stop,
            alive,
            store,
            options,
            plans,
            feed,
            follows: Arc::default(),
        };
        known::hand_over(&handle).await?;
        Ok(handle)
    }
}

/// Listens on an address.
///
/// # Errors
/// Where it is taken or can't be used.
pub fn listen(address: SocketAddr) -> Result<std::net::TcpListener, Error> {
    let listener = std::net::TcpListener::bind(address).map_err(|e| {
        if e.kind() == std::io::ErrorKind::AddrInUse {
            Error::AddressInUse(address)
        } else {
            Error::Listen(address, e)
        }
    })?;
    listener.set_nonblocking(true).map_err(|e| Error::Listen(address, e))?;
    Ok(listener)
}

/// A lead that was taken.
#[derive(Clone, Copy, Debug)]
pub struct Lead {
    /// Its epoch.
    pub epoch: u64,
    /// Before the store was asked for it: it holds from then, at least.
    pub asked: Instant,
}

impl Handle {
    /// Address it listens on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The gRPC services.
    #[must_use]
    pub fn routes(&self) -> tonic::service::Routes {
        rpc::routes(self.clone())
    }

    async fn send(&self, command: Command) -> Result<(), Error> {
        self.commands.send(command).await.map_err(|_| Error::Closed)
    }

    /// Stores and starts an experiment. Gives its identity, and whether it was there already.
    ///
    /// # Errors
    /// Where the store refuses.
    pub async fn submit(&self, new: NewExperiment) -> Result<(String, bool), Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Submit(Box::new(new), reply)).await?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Pauses, resumes, cancels or retries. `id` may be any unique beginning of an identity, or a name.
    ///
    /// # Errors
    /// Where there is no such experiment or its state doesn't allow it.
    pub async fn control(&self, id: &str, control: Control) -> Result<Status, Error> {
        let id = self.find(id)?;
        let (reply, answer) = oneshot::channel();
        self.send(Command::Control(id, control, reply)).await?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// The identity that `id` (a unique beginning of it, or a name) stands for.
    ///
    /// # Errors
    /// Where none or several fit.
    pub fn find(&self, id: &str) -> Result<String, Error> {
        let all = self.statuses.borrow();
        let fits: Vec<&String> = all
            .iter()
            .filter(|(k, s)| (!id.is_empty() && k.starts_with(id)) || s.name == id)
            .map(|(k, _)| k)
            .collect();
        match fits.as_slice() {
            [one] => Ok((*one).clone()),
            [] => Err(Error::NoExperiment(id.to_owned())),
            several => {
                let each: Vec<String> = several
                    .iter()
                    .map(|k| format!("{} ({})", &k[..k.len().min(16)], all.get(*k).map_or("", |s| &s.state)))
                    .collect();
                let n = several.len();
                Err(Error::State(format!(
                    "{id} fits {n} experiments: {}; give an id instead",
                    each.join(", ")
                )))
            }
        }
    }

    /// Status of all experiments, by identity.
    #[must_use]
    pub fn statuses(&self) -> BTreeMap<String, Status> {
        self.statuses.borrow().clone()
    }

    /// Follows the status of all experiments.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<BTreeMap<String, Status>> {
        self.statuses.clone()
    }

    /// Set once the service can't go on (disk full, another leader).
    #[must_use]
    pub fn fatal(&self) -> watch::Receiver<Option<Fatal>> {
        self.fatal.clone()
    }

    /// Connected workers.
    ///
    /// # Errors
    /// Where the service is shutting down.
    pub async fn workers(&self) -> Result<Vec<WorkerStatus>, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Workers(reply)).await?;
        answer.await.map_err(|_| Error::Closed)
    }

    /// Adds to the recorded seconds of an experiment's steps.
    ///
    /// # Errors
    /// Where the store refuses.
    pub async fn add_seconds(&self, id: &str, seconds: &BTreeMap<String, f64>) -> Result<(), Error> {
        Ok(self.store.add_seconds(self.epoch, id, seconds).await?)
    }

    /// The recorded plan of an experiment.
    #[must_use]
    pub fn plan(&self, id: &str) -> Option<Arc<Plan>> {
        self.plans.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Names of chunks as they become durable. Who falls behind is told so, and asks the store.
    #[must_use]
    pub fn accepted(&self) -> broadcast::Receiver<Arc<[ChunkKey]>> {
        self.feed.subscribe()
    }

    /// Experiments that are followed for those who look: one reading for all of them.
    pub(crate) fn follows(&self) -> Arc<Follows> {
        let mut known = self.follows.lock().unwrap_or_else(PoisonError::into_inner);
        known.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Follows::new(self.clone()));
            *known = Arc::downgrade(&new);
            new
        })
    }

    /// Ends when the service is told to stop.
    pub async fn stopping(&self) {
        self.stop.subscribe().wait().await;
    }

    /// The epoch of this leadership.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    /// Gives the lead up, once [`Self::closed`] has ended, so that another coordinator needn't wait.
    pub async fn resign(&self) {
        if let Err(e) = self.store.resign(self.epoch).await {
            tracing::warn!(error = %e, "the lead can't be given up; it runs out by itself");
        }
    }

    /// Stops serving. What is unacknowledged is computed again next time. [`Self::closed`] waits for it.
    pub fn shutdown(&self) {
        self.stop.stop();
    }

    /// Waits until every task of the service has ended, after [`Self::shutdown`]: nothing writes to the
    /// store any more.
    pub async fn closed(&self) {
        self.alive.closed().await;
    }
}

/// Whether an experiment can still change by itself.
#[must_use]
pub fn ended(state: &State) -> bool {
    matches!(state, State::Done | State::Cancelled | State::Failed(_))
}

/// Folder of an experiment that was submitted to a service and names none.
#[must_use]
pub fn default_output(root: &Path, name: &str, id: &str) -> PathBuf {
    root.join(format!("{name}-{}", &id[..id.len().min(8)]))
}
