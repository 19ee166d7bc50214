//! Telling everything of a service to end. Those who wait are woken in the order in which they began to: a watch channel wakes
//! them in an order that differs from run to run, and a simulation couldn't be replayed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

#[derive(Debug, Default)]
struct Inner {
    stopped: AtomicBool,
    told: Notify,
}

/// Says when; dropping it says so too.
#[derive(Debug, Default)]
pub struct Stopper(Arc<Inner>);

impl Stopper {
    /// Ends everything that listens, now or later.
    pub fn stop(&self) {
        self.0.stopped.store(true, Ordering::SeqCst);
        self.0.told.notify_waiters();
    }

    /// Who listens.
    #[must_use]
    pub fn subscribe(&self) -> Stopped {
        Stopped(Arc::clone(&self.0))
    }
}

impl Drop for Stopper {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Hears when to end.
#[derive(Clone, Debug)]
pub struct Stopped(Arc<Inner>);

impl Stopped {
    /// Ends once it is time.
    pub async fn wait(&self) {
        let mut told = std::pin::pin!(self.0.told.notified());
        // First it listens, then it looks: nothing can be said between.
        told.as_mut().enable();
        if !self.0.stopped.load(Ordering::SeqCst) {
            told.await;
        }
    }
}
