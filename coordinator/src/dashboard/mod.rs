//! The web dashboard: what a coordinator knows, live, for people with a browser. It reads what is committed in tasks of its own, and
//! only while somebody looks; nothing that leads, leases or commits waits for it. Users' side: docs/dashboard.md.

mod api;
mod assets;
mod events;
mod follow;
mod guard;
mod hub;
mod meter;
mod reply;
#[cfg(test)]
mod tests;

use crate::security::{Connection, Security};
use crate::server::{Error, Handle};
use axum::Router;
use axum::body::Body;
pub(crate) use follow::Follows;
use futures::StreamExt;
use http::Request;
use hub::Hub;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tonic::transport::server::Connected;
use tower::ServiceExt;

/// How long the head of a request may take to come.
const HEAD: Duration = Duration::from_secs(15);

/// What a coordinator is just now.
#[derive(Clone, Default)]
enum Role {
    /// Neither yet.
    #[default]
    Starting,
    /// Another leads, at this URL where it is known.
    Standby(String),
    /// This one leads.
    Leading(Leading),
}

/// What is asked of a coordinator that leads.
#[derive(Clone)]
struct Leading {
    handle: Handle,
    hub: Arc<Hub>,
    follows: Arc<Follows>,
}

/// What all requests share.
struct Site {
    role: watch::Receiver<Role>,
    security: Arc<Security>,
    streams: Arc<Semaphore>,
}

/// A dashboard that is served until this is dropped.
pub struct Dashboard {
    address: SocketAddr,
    role: watch::Sender<Role>,
    /// What of this leadership runs beside it.
    _serving: JoinSet<()>,
}

impl std::fmt::Debug for Dashboard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dashboard").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Dashboard {
    /// Serves on a listener. `security` says whether it speaks TLS and who may act; everybody may look.
    ///
    /// # Errors
    /// Where the listener can't be used.
    pub fn start(listener: std::net::TcpListener, security: Arc<Security>) -> Result<Self, Error> {
        let address = listener.local_addr();
        let unusable = |e| Error::Listen(SocketAddr::from(([0, 0, 0, 0], 0)), e);
        let address = address.map_err(unusable)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(unusable)?;
        let role = watch::Sender::new(Role::Starting);
        let streams =
            Arc::new(Semaphore::new(security.limits().dashboard_streams.min(Semaphore::MAX_PERMITS)));
        let site = Arc::new(Site { role: role.subscribe(), security: Arc::clone(&security), streams });
        let mut serving = JoinSet::new();
        serving.spawn(serve(api::router(site), security, listener));
        Ok(Self { address, role, _serving: serving })
    }

    /// Its address.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// From now on this coordinator leads.
    pub fn lead(&self, handle: &Handle) {
        let hub = Hub::start(handle.clone());
        let follows = handle.follows();
        self.role.send_replace(Role::Leading(Leading { handle: handle.clone(), hub, follows }));
    }

    /// From now on another leads, where it is known which.
    pub fn stand_by(&self, leader: &str) {
        self.role.send_if_modified(|role| {
            let same = matches!(role, Role::Standby(l) if l == leader);
            if !same {
                *role = Role::Standby(leader.to_owned());
            }
            !same
        });
    }
}

async fn serve(router: Router, security: Arc<Security>, listener: tokio::net::TcpListener) {
    let mut arriving = std::pin::pin!(security.connections(listener));
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            Some(connection) = arriving.next() => if let Ok(connection) = connection {
                open.spawn(converse(connection, router.clone()));
            },
            Some(_) = open.join_next() => {}
        }
    }
}

/// Answers what comes over a connection.
async fn converse(connection: Connection, router: Router) {
    let peer = connection.connect_info();
    let answer = tower::service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone());
        router.clone().oneshot(request)
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(HEAD).max_concurrent_streams(64);
    let done = builder.serve_connection(TokioIo::new(connection), TowerToHyperService::new(answer)).await;
    if let Err(e) = done {
        tracing::debug!(error = %e, "a browser's connection ended");
    }
}
