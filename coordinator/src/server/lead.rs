//! Keeping the lead: renewed at a third of its time, given up by this coordinator's own monotonic clock
//! before another can take it.

use super::stop::Stopped;
use crate::store::{Error, Store};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Why a service can't go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fatal {
    /// Another coordinator leads, or the store is away: this one may stand by.
    LostLead(String),
    /// Anything else, with what to do.
    Store(String),
}

impl Fatal {
    /// What to tell the user.
    #[must_use]
    pub fn what(&self) -> &str {
        match self {
            Self::LostLead(why) | Self::Store(why) => why,
        }
    }
}

/// Tells of a store's error.
pub fn report(fatal: &watch::Sender<Option<Fatal>>, e: &Error) {
    let what = if e.loses_lead() { Fatal::LostLead(e.to_string()) } else { Fatal::Store(e.to_string()) };
    tell(fatal, what);
}

/// Tells where a task panics that nothing goes on without: its service would lead, and do nothing.
pub fn watch_over(what: &'static str, task: JoinHandle<()>, fatal: watch::Sender<Option<Fatal>>) {
    tokio::spawn(async move {
        if let Err(e) = task.await
            && e.is_panic()
        {
            panicked(&fatal, what, &e.to_string());
        }
    });
}

/// Tells of a panic.
pub fn panicked(fatal: &watch::Sender<Option<Fatal>>, what: &str, why: &str) {
    tracing::error!(what, why, "the coordinator can't go on");
    let why =
        format!("{what} panicked ({why}): please report it; what was acknowledged is safe, start again");
    tell(fatal, Fatal::Store(why));
}

/// The first word stays: what follows from a lost lead says less.
fn tell(fatal: &watch::Sender<Option<Fatal>>, what: Fatal) {
    fatal.send_if_modified(|f| {
        let first = f.is_none();
        f.get_or_insert(what);
        first
    });
}

/// Renews a lead.
pub struct Keeper {
    /// Where it is held.
    pub store: Arc<dyn Store>,
    /// Its epoch.
    pub epoch: u64,
    /// How long it holds.
    pub time: Duration,
    /// Set where it is lost.
    pub fatal: watch::Sender<Option<Fatal>>,
    /// Says when to stop.
    pub stopped: Stopped,
}

impl Keeper {
    /// Renews the lead, taken or renewed at `asked` at the earliest, until it is lost or the service stops.
    /// `_alive` is let go of at the end.
    pub async fn run(self, mut asked: Instant, _alive: watch::Receiver<()>) {
        let mut next = asked + self.time / 3;
        loop {
            tokio::select! {
                biased;
                () = self.stopped.wait() => return,
                () = tokio::time::sleep_until(next) => {}
            }
            let (now, end) = (Instant::now(), asked + self.time);
            let renewed = match end.checked_duration_since(now) {
                // A process that was stopped wakes up here.
                None => break self.lost("its lead ran out while it was stopped or too busy to renew it"),
                Some(left) => tokio::time::timeout(left, self.store.renew_lead(self.epoch)).await,
            };
            match renewed {
                Ok(Ok(())) => {
                    asked = now;
                    next = now + self.time / 3;
                }
                Ok(Err(e @ Error::StaleEpoch { .. })) => break self.lost(&e.to_string()),
                Ok(Err(e)) => {
                    tracing::warn!(error = %e, "the lead can't be renewed; trying again until it runs out");
                    next = Instant::now() + self.time / 10;
                }
                Err(_) => break self.lost("the store didn't answer until its lead ran out"),
            }
        }
    }

    fn lost(&self, why: &str) {
        tracing::warn!(epoch = self.epoch, why, "passed over");
        tell(&self.fatal, Fatal::LostLead(why.to_owned()));
    }
}
