//! What the nodes' processes do: the programs' main loops over the simulated network and disk.

use crate::disk::Connection;
use crate::net::Shared;
use crate::trace::lock;
use ablate_coordinator::scheduler;
use ablate_coordinator::server::{
    Compute, Control, Error, Fatal, Handle, Options, Service, Standing, stand_by_as,
};
use ablate_coordinator::store::{NewExperiment, Store};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tonic::service::Routes;

/// How long the parts of a service get to end, as in `ablate serve`.
const GRACE: Duration = Duration::from_secs(2);
/// How often a user looks.
const LOOK: Duration = Duration::from_millis(250);

/// A coordinator's process.
pub struct Coordinator {
    /// Network.
    pub net: Shared,
    /// Its number.
    pub node: usize,
    /// Its store.
    pub store: Connection,
    /// The scheduler's settings.
    pub scheduler: scheduler::Config,
    /// The experiment that its user submits.
    pub new: Arc<NewExperiment>,
    /// Whether the user has chunks tried again that were set aside.
    pub retry: Arc<AtomicBool>,
}

/// Ends answering when it is dropped.
struct Guard(Shared, usize);

impl Drop for Guard {
    fn drop(&mut self) {
        lock(&self.0).serve(self.1, None);
    }
}

impl Coordinator {
    fn serve(&self, routes: Routes) -> Guard {
        lock(&self.net).serve(self.node, Some(routes));
        Guard(self.net.clone(), self.node)
    }

    /// As `ablate serve`: leads and stands by in turns. Why it ended.
    pub async fn run(self) -> String {
        let store: Arc<dyn Store> = Arc::new(self.store.clone());
        let options = Options { scheduler: self.scheduler, compute: Compute::Here, ..Options::default() };
        let several = store.lead_time().is_some();
        let mut led = false;
        loop {
            let answer = |routes: Routes| Ok(Box::new(self.serve(routes)) as Standing);
            let lead = match stand_by_as(answer, store.as_ref(), led).await {
                Ok(lead) => lead,
                Err(e) => return e.to_string(),
            };
            led = true;
            let service = match Service::begin(options.clone(), Arc::clone(&store), lead).await {
                Ok(service) => service,
                Err(Error::Store(e)) if several && e.loses_lead() => continue,
                Err(e) => return e.to_string(),
            };
            let guard = self.serve(service.routes());
            let why = self.attend(&service).await;
            service.shutdown();
            // What still writes is refused by its epoch once another leads.
            let _ = tokio::time::timeout(GRACE, service.closed()).await;
            drop(guard);
            match why {
                Some(Fatal::LostLead(_)) if several => {}
                why => {
                    let _ = tokio::time::timeout(GRACE, service.resign()).await;
                    return why.as_ref().map_or("it ended", Fatal::what).to_owned();
                }
            }
        }
    }

    /// What a user does while a service leads. Why it can't go on.
    async fn attend(&self, service: &Handle) -> Option<Fatal> {
        let mut fatal = service.fatal();
        let mut id = None;
        loop {
            tokio::select! {
                biased;
                why = fatal.wait_for(Option::is_some) => return why.ok().and_then(|w| w.clone()),
                () = tokio::time::sleep(LOOK) => {}
            }
            match &id {
                // A user who got an error submits again.
                None => id = service.submit((*self.new).clone()).await.ok().map(|made| made.0),
                Some(id) if self.retry.load(Ordering::Relaxed) => {
                    // Something was set aside, or was and came late: what hung on it waits for the user.
                    let short = service
                        .statuses()
                        .get(id)
                        .is_some_and(|s| s.state == "done" && s.accepted < s.planned);
                    if short {
                        // The same; the next look is soon.
                        let _ = service.control(id, Control::Retry).await;
                    }
                }
                Some(_) => {}
            }
        }
    }
}
