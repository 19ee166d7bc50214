//! One connection to the coordinator: connect, say hello, be welcomed or rejected.

use ablate_common::{ENGINE_VERSION, OLDEST_PROTOCOL, PROTOCOL_VERSION};
use ablate_net::{Access, Bearer, Trouble};
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
use tonic::service::interceptor::InterceptedService;
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
/// A connection that shows who this worker is in each call.
pub type Caller = InterceptedService<Wire, Bearer>;
/// Makes connections: over the network, or over what a simulation has instead.
pub type Dial = Arc<dyn Fn(Endpoint) -> BoxFuture<'static, Result<Wire, BoxError>> + Send + Sync>;

/// Connections over the network.
#[must_use]
pub fn network() -> Dial {
    Arc::new(|endpoint| {
        Box::pin(async move {
            let channel = endpoint.connect().await?;
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
    pub client: ClusterClient<Caller>,
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
    /// It speaks this older protocol only, which is spoken here too.
    Older(u32, Box<Place>),
    /// Trying again cannot help: what differs and what to do.
    Refused(String),
    /// The two ends don't trust or understand each other. For a worker that was never connected that is as good as refused.
    Untrusted(String),
}

/// Where a coordinator is, and what this worker shows there.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its URL, for people.
    pub url: String,
    /// How to connect.
    pub endpoint: Endpoint,
    /// What goes with each call.
    pub bearer: Bearer,
}

/// Reads a coordinator's URL.
///
/// # Errors
/// Says what is wrong with it.
pub fn place(url: &str, access: &Access) -> Result<Place, String> {
    let bad =
        || format!("--coordinator `{url}` is not a URL of the form http://HOST:PORT or https://HOST:PORT");
    // Without a scheme only the port tells an address from any other word.
    if !url.contains("://") && (!url.contains(':') || url.starts_with(':')) {
        return Err(bad());
    }
    let full = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let endpoint = access.endpoint(&full).map_err(|why| format!("--coordinator {url}: {why}"))?;
    let endpoint = endpoint
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        // A coordinator whose process is stopped keeps its connections: this is how it is noticed.
        .http2_keep_alive_interval(Duration::from_secs(4))
        .keep_alive_timeout(Duration::from_secs(6))
        .keep_alive_while_idle(true);
    Ok(Place { url: full, endpoint, bearer: access.bearer() })
}

/// Waits `after`, connects and shakes hands.
///
/// # Errors
/// As [`LinkError`] says.
pub async fn connect(dial: Dial, place: Place, hello: pb::Hello, after: Duration) -> Result<Link, LinkError> {
    tokio::time::sleep(after).await;
    tokio::time::timeout(HANDSHAKE, handshake(dial, place, hello))
        .await
        .unwrap_or_else(|_| Err(LinkError::Again("no answer".to_owned())))
}

/// Why a call to a coordinator failed. Waits where it asks for that.
async fn refused(url: &str, status: tonic::Status) -> LinkError {
    use tonic::Code;
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => LinkError::Refused(format!(
            "{url} refuses this worker: {}; give it a token of `ablate token create --role worker` in $ABLATE_TOKEN or \
             --token-file, or a certificate with the role worker (--cert and --key)",
            status.message()
        )),
        _ => {
            if let Some(after) = ablate_proto::retry_after(&status) {
                tokio::time::sleep(after.min(HANDSHAKE / 2)).await;
            }
            untrusted(url, &status)
        }
    }
}

fn untrusted(url: &str, error: &(dyn std::error::Error + 'static)) -> LinkError {
    let trouble = Trouble::of(url, error);
    let said = trouble.to_string();
    if trouble.settled { LinkError::Untrusted(said) } else { LinkError::Again(said) }
}

async fn handshake(dial: Dial, place: Place, hello: pb::Hello) -> Result<Link, LinkError> {
    let (Place { url, endpoint, bearer }, asked) = (place.clone(), hello.protocol);
    let channel = dial(endpoint).await.map_err(|e| untrusted(&url, e.as_ref()))?;
    let client = ClusterClient::with_interceptor(channel, bearer)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let (to, outbound) = mpsc::unbounded_channel();
    let first = pb::WorkerMessage { body: Some(worker_message::Body::Hello(hello)) };
    to.send(first).map_err(|e| LinkError::Again(e.to_string()))?;
    let mut work = client.clone();
    let mut from = match work.work(UnboundedReceiverStream::new(outbound)).await {
        Ok(reply) => reply.into_inner(),
        Err(status) => return Err(refused(&url, status).await),
    };
    let message = match from.message().await {
        Ok(message) => message,
        Err(status) => return Err(refused(&url, status).await),
    };
    match message.and_then(|m| m.body) {
        Some(coordinator_message::Body::Welcome(welcome))
            if (OLDEST_PROTOCOL..=asked).contains(&welcome.protocol) =>
        {
            Ok(Link { to, from, client, welcome })
        }
        Some(coordinator_message::Body::Welcome(w)) => Err(LinkError::Refused(format!(
            "the coordinator speaks protocol {}, this worker {PROTOCOL_VERSION}; install the same release of both",
            w.protocol
        ))),
        Some(coordinator_message::Body::Reject(r)) => match &r.kind {
            Some(reject::Kind::VersionDiffers(theirs))
                if theirs.engine == ENGINE_VERSION && (OLDEST_PROTOCOL..asked).contains(&theirs.protocol) =>
            {
                Err(LinkError::Older(theirs.protocol, Box::new(place)))
            }
            _ => Err(rejected(r)),
        },
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

/// How long to wait before attempt `n` (from 0): 0.1 s doubling up to 5 s, with jitter.
#[must_use]
pub fn backoff(n: u32) -> Duration {
    let full = (0.1 * f64::from(1u32 << n.min(10))).min(5.0);
    Duration::from_secs_f64(full * (0.5 + 0.5 * fastrand::f64()))
}
