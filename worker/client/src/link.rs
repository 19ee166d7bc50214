//! One connection to the coordinator: connect, say hello, be welcomed or rejected.

use ablate_common::{ENGINE_VERSION, PROTOCOL_VERSION};
use ablate_proto::MAX_MESSAGE;
use ablate_proto::v1::{
    self as pb, cluster_client::ClusterClient, coordinator_message, reject, worker_message,
};
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;
use tonic::body::Body;
use tonic::transport::Endpoint;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceExt};

/// Window of one HTTP/2 stream. A worker has at most two: its work, and a blob that it fetches.
const STREAM_WINDOW: u32 = 4 << 20;
/// Window of the connection: above the sum of its streams', so that none starves another.
const CONNECTION_WINDOW: u32 = 16 << 20;
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A connection that can't carry a call, with why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Broken(#[source] pub BoxError);

/// A connection: carries calls.
pub type Wire = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Broken>;
/// Makes connections: over the network, or over what a simulation has instead.
pub type Dial = Arc<dyn Fn(Endpoint) -> BoxFuture<'static, Result<Wire, String>> + Send + Sync>;

/// Connections over the network.
#[must_use]
pub fn network() -> Dial {
    Arc::new(|endpoint| {
        Box::pin(async move {
            let channel = endpoint.connect().await.map_err(|e| chain(&e))?;
            Ok(BoxCloneSyncService::new(channel.map_err(|e| Broken(e.into()))))
        })
    })
}

/// A welcomed stream.
pub struct Link {
    /// Messages to the coordinator. Dropping it ends the stream.
    pub to: mpsc::UnboundedSender<pb::WorkerMessage>,
    /// Messages from it.
    pub from: Streaming<pb::CoordinatorMessage>,
    /// For blobs.
    pub client: ClusterClient<Wire>,
    /// What the coordinator said first.
    pub welcome: pb::Welcome,
}

/// Why there is no link.
#[derive(Debug)]
pub enum LinkError {
    /// Try again.
    Again(String),
    /// It stands by; the URL of the one that leads, or nothing.
    StandsBy(String),
    /// Trying again cannot help: what differs and what to do.
    Refused(String),
}

/// Reads a coordinator's URL.
///
/// # Errors
/// Says what is wrong with it.
pub fn endpoint(url: &str) -> Result<Endpoint, String> {
    if url.starts_with("https://") {
        return Err(format!(
            "--coordinator {url}: TLS isn't built yet; use http:// over loopback or a private network"
        ));
    }
    let full = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let bad = || format!("--coordinator `{url}` is not a URL of the form http://HOST:PORT");
    let rest = full.strip_prefix("http://").ok_or_else(bad)?;
    // Without a scheme only the port tells an address from any other word.
    if rest.is_empty() || rest.starts_with(':') || (!url.contains("://") && !rest.contains(':')) {
        return Err(bad());
    }
    let endpoint = Endpoint::from_shared(full.clone()).map_err(|_| bad())?;
    Ok(endpoint
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        // A coordinator whose process is stopped keeps its connections: this is how it is noticed.
        .http2_keep_alive_interval(Duration::from_secs(4))
        .keep_alive_timeout(Duration::from_secs(6))
        .keep_alive_while_idle(true))
}

/// Waits `after`, connects and shakes hands.
///
/// # Errors
/// As [`LinkError`] says.
pub async fn connect(
    dial: Dial,
    endpoint: Endpoint,
    hello: pb::Hello,
    after: Duration,
) -> Result<Link, LinkError> {
    tokio::time::sleep(after).await;
    tokio::time::timeout(HANDSHAKE, handshake(dial, endpoint, hello))
        .await
        .unwrap_or_else(|_| Err(LinkError::Again("no answer".to_owned())))
}

async fn handshake(dial: Dial, endpoint: Endpoint, hello: pb::Hello) -> Result<Link, LinkError> {
    let again = |e: &dyn std::error::Error| LinkError::Again(chain(e));
    let channel = dial(endpoint).await.map_err(LinkError::Again)?;
    let client = ClusterClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let (to, outbound) = mpsc::unbounded_channel();
    let first = pb::WorkerMessage { body: Some(worker_message::Body::Hello(hello)) };
    to.send(first).map_err(|e| again(&e))?;
    let mut work = client.clone();
    let mut from =
        work.work(UnboundedReceiverStream::new(outbound)).await.map_err(|e| again(&e))?.into_inner();
    let message = from.message().await.map_err(|e| again(&e))?;
    match message.and_then(|m| m.body) {
        Some(coordinator_message::Body::Welcome(welcome)) if welcome.protocol == PROTOCOL_VERSION => {
            Ok(Link { to, from, client, welcome })
        }
        Some(coordinator_message::Body::Welcome(w)) => Err(LinkError::Refused(format!(
            "the coordinator speaks protocol {}, this worker {PROTOCOL_VERSION}; install the same release of both",
            w.protocol
        ))),
        Some(coordinator_message::Body::Reject(r)) => Err(rejected(r)),
        Some(_) => Err(LinkError::Again("the coordinator did not begin with a welcome".to_owned())),
        None => Err(LinkError::Again("the coordinator ended the stream".to_owned())),
    }
}

fn rejected(reject: pb::Reject) -> LinkError {
    match reject.kind {
        Some(reject::Kind::VersionDiffers(theirs)) => LinkError::Refused(format!(
            "the coordinator refused this worker because versions differ: protocol {} there and {PROTOCOL_VERSION} here, engine {} there and {ENGINE_VERSION} here (this is ablate-worker {}); install the coordinator's release of ablate-worker. {}",
            theirs.protocol,
            theirs.engine,
            env!("CARGO_PKG_VERSION"),
            reject.detail
        )),
        Some(reject::Kind::NotLeader(leader)) => LinkError::StandsBy(leader.url),
        Some(reject::Kind::LimitReached(l)) => {
            LinkError::Again(format!("the coordinator has reached its limit of {} workers", l.limit))
        }
        None => LinkError::Again(format!("rejected: {}", reject.detail)),
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// How long to wait before attempt `n` (from 0): 0.1 s doubling up to 5 s, with jitter.
#[must_use]
pub fn backoff(n: u32) -> Duration {
    let full = (0.1 * f64::from(1u32 << n.min(10))).min(5.0);
    Duration::from_secs_f64(full * (0.5 + 0.5 * fastrand::f64()))
}
