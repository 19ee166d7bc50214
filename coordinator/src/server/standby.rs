//! A coordinator that waits for the lead: it says who leads, and takes over when that one's lead has run out.

use super::{Error, Lead};
use crate::security::{GateLayer, Security};
use crate::store::{self, Store};
use ablate_proto::v1::{self, cluster_server, coordinator_message::Body, experiments_server};
use futures::Stream;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::service::Routes;
use tonic::{Request, Response, Status as Refusal, Streaming};

/// Least time between two attempts to take the lead.
const POLL: Duration = Duration::from_millis(500);
/// How long answers under way get once the lead is taken.
const GRACE: Duration = Duration::from_secs(1);

/// Takes the lead of `store`, at once or when whoever leads has lost it. Meanwhile `listener` answers that this
/// coordinator doesn't lead, and `tell` is told who does. `away`: whether to wait too while the store can't be reached.
///
/// # Errors
/// Where the store refuses, or can't tell when its leader is gone.
pub async fn stand_by(
    listener: &TcpListener,
    security: &Arc<Security>,
    store: &dyn Store,
    away: bool,
    tell: impl Fn(&str),
) -> Result<Lead, Error> {
    wait(|leader| answer(listener, security, leader), store, away, tell).await
}

/// What answers while a coordinator stands by; it ends when this is dropped.
pub type Standing = Box<dyn std::any::Any + Send>;

/// As [`stand_by`]; `answer` begins to answer with services.
///
/// # Errors
/// As [`stand_by`].
pub async fn stand_by_as(
    answer: impl Fn(Routes) -> Result<Standing, Error>,
    store: &dyn Store,
    away: bool,
) -> Result<Lead, Error> {
    wait(answer, store, away, |_| {}).await
}

async fn wait(
    answer: impl Fn(Routes) -> Result<Standing, Error>,
    store: &dyn Store,
    away: bool,
    tell: impl Fn(&str),
) -> Result<Lead, Error> {
    let leader = watch::Sender::new(String::new());
    let mut answering = None;
    let mut said = None;
    loop {
        let asked = Instant::now();
        let why = match store.acquire_epoch().await {
            Ok(epoch) => {
                if answering.is_some() {
                    tracing::info!(epoch, "took over");
                }
                return Ok(Lead { epoch, asked });
            }
            Err(store::Error::Led(url)) => {
                tell(&url);
                leader.send_replace(url.clone());
                format!("{url} leads")
            }
            Err(e @ store::Error::Unavailable(_)) if away || answering.is_some() => {
                tell("");
                leader.send_replace(String::new());
                e.to_string()
            }
            Err(e) => return Err(e.into()),
        };
        if said.as_ref() != Some(&why) {
            tracing::info!(why, "standing by");
            said = Some(why);
        }
        if answering.is_none() {
            answering = Some(answer(routes(leader.subscribe()))?);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The services of one that stands by.
fn routes(leader: watch::Receiver<String>) -> Routes {
    Routes::new(cluster_server::ClusterServer::new(Standby(leader.clone())))
        .add_service(experiments_server::ExperimentsServer::new(Standby(leader)))
}

/// Answers until what it gives is dropped.
fn answer(listener: &TcpListener, security: &Arc<Security>, routes: Routes) -> Result<Standing, Error> {
    let address = listener.local_addr();
    let again = listener.try_clone().and_then(tokio::net::TcpListener::from_std);
    let listener = again
        .map_err(|e| Error::Listen(address.unwrap_or(std::net::SocketAddr::from(([0, 0, 0, 0], 0))), e))?;
    let stop = watch::Sender::new(());
    let (mut end, mut cut) = (stop.subscribe(), stop.subscribe());
    let (connections, gate) = (security.connections(listener), GateLayer(Arc::clone(security)));
    tokio::spawn(async move {
        let served = tonic::transport::Server::builder()
            .layer(gate)
            .add_routes(routes)
            .serve_with_incoming_shutdown(connections, async move {
                // An error is what it waits for: the sender is gone.
                let _ = end.changed().await;
            });
        let cut = async move {
            let _ = cut.changed().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            served = served => if let Err(e) = served {
                tracing::error!(error = %e, "the standby's server stopped");
            },
            () = cut => {}
        }
    });
    Ok(Box::new(stop))
}

#[derive(Clone)]
struct Standby(watch::Receiver<String>);

impl Standby {
    fn url(&self) -> String {
        self.0.borrow().clone()
    }

    fn refusal(&self) -> Refusal {
        ablate_proto::not_leader(&self.url())
    }
}

type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Refusal>> + Send>>;

#[tonic::async_trait]
impl cluster_server::Cluster for Standby {
    type WorkStream = Out<v1::CoordinatorMessage>;
    type BlobStream = Out<v1::BlobPart>;

    async fn work(
        &self,
        _: Request<Streaming<v1::WorkerMessage>>,
    ) -> Result<Response<Self::WorkStream>, Refusal> {
        let refusal = self.refusal();
        let kind = v1::reject::Kind::NotLeader(v1::NotLeader { url: self.url() });
        let reject = v1::Reject { detail: refusal.message().to_owned(), kind: Some(kind) };
        let message = v1::CoordinatorMessage { body: Some(Body::Reject(reject)) };
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(message)))))
    }

    async fn blob(&self, _: Request<v1::BlobRequest>) -> Result<Response<Self::BlobStream>, Refusal> {
        Err(self.refusal())
    }
}

#[tonic::async_trait]
impl experiments_server::Experiments for Standby {
    type WatchStream = Out<v1::ExperimentStatus>;
    type ExportStream = Out<v1::FilePart>;

    async fn leader(&self, _: Request<v1::LeaderRequest>) -> Result<Response<v1::LeaderReply>, Refusal> {
        Ok(Response::new(v1::LeaderReply { leading: false, epoch: 0, url: self.url() }))
    }

    async fn submit(&self, _: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitReply>, Refusal> {
        Err(self.refusal())
    }

    async fn list(&self, _: Request<v1::ListRequest>) -> Result<Response<v1::ListReply>, Refusal> {
        Err(self.refusal())
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::ExperimentStatus>, Refusal> {
        Err(self.refusal())
    }

    async fn watch(&self, _: Request<v1::StatusRequest>) -> Result<Response<Self::WatchStream>, Refusal> {
        Err(self.refusal())
    }

    async fn control(
        &self,
        _: Request<v1::ControlRequest>,
    ) -> Result<Response<v1::ExperimentStatus>, Refusal> {
        Err(self.refusal())
    }

    async fn workers(&self, _: Request<v1::WorkersRequest>) -> Result<Response<v1::WorkersReply>, Refusal> {
        Err(self.refusal())
    }

    async fn live(&self, _: Request<v1::LiveRequest>) -> Result<Response<v1::LiveReply>, Refusal> {
        Err(self.refusal())
    }

    async fn export(&self, _: Request<v1::ExportRequest>) -> Result<Response<Self::ExportStream>, Refusal> {
        Err(self.refusal())
    }
}
