//! The gRPC services over a [`Handle`].

#[cfg(test)]
mod tests;

use super::actor::Command;
use super::effects;
use super::status::described;
use super::stop::Stopped;
use super::stream::{self, PATIENCE as READING};
use super::{Control, Error, Handle, Status, heard};
use crate::dashboard::Follows;
use crate::security::{Caller, GateLayer};
use crate::store;
use ablate_proto::v1::{self, cluster_server, coordinator_message::Body, experiments_server};
use ablate_proto::{MAX_MESSAGE, over_limit};
use futures::Stream;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status as Refusal, Streaming};

type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Refusal>> + Send>>;

/// Bytes of a blob or file in one message.
const PART: usize = 1 << 20;
/// Blobs that are sent at once, each of them whole in memory: when many workers start at once, others wait.
const BLOBS: usize = 16;
/// Window of a stream, in bytes; the connection's is larger, so that no stream can starve another.
const STREAM_WINDOW: u32 = 16 << 20;

/// Messages that wait for a worker to read them: more than one commit's acknowledgements.
const TO_WORKER: usize = 8192;
/// How long a connection may take to say Hello, and to end once the service does.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a client's message beside a spec.
const FROM_CLIENT: usize = 1 << 20;
/// How long connections get to end by themselves.
const GRACE: Duration = Duration::from_secs(1);

/// The services over a handle.
pub fn routes(handle: Handle) -> Routes {
    // What clients send is small but for a spec; its own limit says more.
    let most = 2 * handle.options.security.limits().spec_bytes + FROM_CLIENT;
    let rpc = Rpc::new(handle);
    let cluster = cluster_server::ClusterServer::new(rpc.clone())
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let experiments = experiments_server::ExperimentsServer::new(rpc).max_decoding_message_size(most);
    Routes::new(cluster).add_service(experiments)
}

/// Serves until `stopped` says true.
pub fn serve(handle: Handle, listener: TcpListener, stopped: Stopped) {
    let alive = handle.alive.subscribe();
    let late = stopped.clone();
    let security = Arc::clone(&handle.options.security);
    let connections = security.connections(listener);
    let routes = routes(handle);
    tokio::spawn(async move {
        let _alive = alive;
        let end = async move {
            // An error means that the last handle is gone: as good as being told.
            stopped.wait().await;
        };
        let served = tonic::transport::Server::builder()
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(STREAM_WINDOW * 8)
            .http2_keepalive_interval(Some(Duration::from_secs(10)))
            .layer(GateLayer(security))
            .add_routes(routes)
            .serve_with_incoming_shutdown(connections, end);
        let cut = async move {
            late.wait().await;
            tokio::time::sleep(GRACE).await;
        };
        let served = tokio::select! {
            served = served => served,
            () = cut => Ok(()),
        };
        if let Err(e) = served {
            tracing::error!(error = %e, "the server stopped");
        }
    });
}

/// A handle, what is followed, and where those queue up who want a blob.
#[derive(Clone)]
struct Rpc(Handle, Arc<Follows>, Arc<Semaphore>);

impl Rpc {
    fn new(handle: Handle) -> Self {
        let follows = handle.follows();
        Self(handle, follows, Arc::new(Semaphore::new(BLOBS)))
    }
}

/// Numbers the folders of exports.
static EXPORTS: AtomicU64 = AtomicU64::new(0);

fn refusal(e: Error) -> Refusal {
    match e {
        Error::NoExperiment(_) => Refusal::not_found(e.to_string()),
        Error::State(_) => Refusal::failed_precondition(e.to_string()),
        Error::Full(limit) => over_limit("experiments", limit as u64, None),
        Error::Closed => Refusal::unavailable(e.to_string()),
        Error::Store(e) if e.loses_lead() => ablate_proto::not_leader(""),
        _ => Refusal::internal(e.to_string()),
    }
}

/// Whose a call is; behind no gate, nobody's that could end.
fn caller<T>(request: &Request<T>) -> Caller {
    request.extensions().get().cloned().unwrap_or_else(Caller::anyone)
}

/// Names and contents of a folder's files, those of folders below it as "folder/file".
fn files_of(folder: &std::path::Path, below: &str) -> Result<Vec<(String, Vec<u8>)>, String> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| e.to_string())?.flatten() {
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            files.extend(files_of(&entry.path(), &format!("{name}/"))?);
        } else {
            files.push((name, std::fs::read(entry.path()).map_err(|e| e.to_string())?));
        }
    }
    Ok(files)
}

fn parts(data: Vec<u8>) -> impl Iterator<Item = bytes::Bytes> {
    let data = bytes::Bytes::from(data);
    (0..data.len().div_ceil(PART).max(1)).map(move |i| data.slice(i * PART..((i + 1) * PART).min(data.len())))
}

#[tonic::async_trait]
impl cluster_server::Cluster for Rpc {
    type WorkStream = Out<v1::CoordinatorMessage>;
    type BlobStream = Out<v1::BlobPart>;

    async fn work(
        &self,
        request: Request<Streaming<v1::WorkerMessage>>,
    ) -> Result<Response<Self::WorkStream>, Refusal> {
        let caller = caller(&request);
        let mut from = request.into_inner();
        let first = tokio::time::timeout(PATIENCE, from.message())
            .await
            .map_err(|_| Refusal::deadline_exceeded("no Hello came"))??;
        let Some(v1::worker_message::Body::Hello(mut hello)) = first.and_then(|m| m.body) else {
            return Err(Refusal::invalid_argument("the first message must be a Hello"));
        };
        heard::fits(&hello).map_err(Refusal::invalid_argument)?;
        hello.lanes.truncate(heard::MAX_LANES);
        let (to, out) = mpsc::channel(TO_WORKER);
        let joining = match heard::hello(&hello) {
            Ok(joining) => joining,
            Err(reject) => {
                tracing::warn!(worker = hello.name, detail = reject.detail, "worker rejected");
                // The receiver is right here.
                let _ = to.send(Ok(v1::CoordinatorMessage { body: Some(Body::Reject(reject)) })).await;
                return Ok(Response::new(Box::pin(ReceiverStream::new(out))));
            }
        };
        let (reply, id) = oneshot::channel();
        let (name, version) = (hello.name.clone(), hello.version.clone());
        // Weak: the stream ends when the actor lets go of the worker.
        let last = to.downgrade();
        let (commands, commits) = (self.0.commands.clone(), self.0.commits.clone());
        commands.send(Command::Join(hello, joining, to, reply)).await.map_err(|_| refusal(Error::Closed))?;
        let Some(id) = id.await.map_err(|_| refusal(Error::Closed))? else {
            return Ok(Response::new(Box::pin(ReceiverStream::new(out))));
        };
        let (stopped, alive) = (self.0.stop.subscribe(), self.0.alive.subscribe());
        tokio::spawn(async move {
            let _alive = alive;
            let mut ended = std::pin::pin!(caller.ended());
            loop {
                let message = tokio::select! {
                    biased;
                    why = &mut ended => {
                        if let Some(to) = last.upgrade() {
                            // A worker that doesn't read finds its stream ended.
                            let _ = to.try_send(Err(why));
                        }
                        break;
                    }
                    m = from.message() => m,
                    () = stopped.wait() => break,
                };
                match message {
                    Ok(Some(v1::WorkerMessage { body: Some(v1::worker_message::Body::Result(r)) })) => {
                        let Some(arrived) = heard::arrived(r, id, &name, &version) else { continue };
                        // Waits while the store is behind: the worker's stream then waits too.
                        let sent = tokio::select! {
                            biased;
                            sent = commits.send(arrived) => sent,
                            () = stopped.wait() => false,
                        };
                        if !sent {
                            break;
                        }
                    }
                    Ok(Some(v1::WorkerMessage { body: Some(body) })) => {
                        if commands.send(Command::Message(id, body)).await.is_err() {
                            return;
                        }
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => break,
                }
            }
            // The actor is gone where this fails, and with it all workers.
            let _ = commands.send(Command::Gone(id)).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(out))))
    }

    async fn blob(&self, request: Request<v1::BlobRequest>) -> Result<Response<Self::BlobStream>, Refusal> {
        let hash = request.into_inner().hash;
        // An error means that it was closed, which nobody does.
        let place = Arc::clone(&self.2).acquire_owned().await.map_err(|_| refusal(Error::Closed))?;
        let data = self.0.store.blob(&hash).await.map_err(|e| match e {
            store::Error::NotFound(_) => Refusal::not_found(e.to_string()),
            // It may be there all the same: the worker asks again.
            _ => Refusal::unavailable(e.to_string()),
        })?;
        let parts = parts(data).map(move |data| {
            // Kept until the last part is on its way.
            let _place = &place;
            Ok(v1::BlobPart { data })
        });
        Ok(Response::new(Box::pin(tokio_stream::iter(parts))))
    }
}

#[tonic::async_trait]
impl experiments_server::Experiments for Rpc {
    type WatchStream = Out<v1::ExperimentStatus>;
    type ExportStream = Out<v1::FilePart>;

    async fn leader(&self, _: Request<v1::LeaderRequest>) -> Result<Response<v1::LeaderReply>, Refusal> {
        Ok(Response::new(v1::LeaderReply { leading: true, epoch: self.0.epoch, url: String::new() }))
    }

    async fn submit(
        &self,
        request: Request<v1::SubmitRequest>,
    ) -> Result<Response<v1::SubmitReply>, Refusal> {
        let Some(submitter) = self.0.options.submitter.clone() else {
            return Err(Refusal::unimplemented("this coordinator takes no submissions"));
        };
        let security = &self.0.options.security;
        let v1::SubmitRequest { spec_toml, base_dir, origin } = request.into_inner();
        if spec_toml.len() > security.limits().spec_bytes {
            return Err(over_limit("bytes of a spec", security.limits().spec_bytes as u64, None));
        }
        // An error means that it was closed, which nobody does.
        let _prepares = security.preparing().acquire_owned().await.map_err(|_| refusal(Error::Closed))?;
        let made =
            tokio::task::spawn_blocking(move || submitter(&spec_toml, &origin, &PathBuf::from(base_dir)))
                .await
                .map_err(|e| Refusal::internal(e.to_string()))?;
        let new = made.map_err(|e| {
            if e.wrong_input { Refusal::invalid_argument(e.message) } else { Refusal::internal(e.message) }
        })?;
        let (id, existed) = self.0.submit(new).await.map_err(refusal)?;
        Ok(Response::new(v1::SubmitReply { id, existed }))
    }

    async fn list(&self, _: Request<v1::ListRequest>) -> Result<Response<v1::ListReply>, Refusal> {
        let experiments = self.0.statuses().values().map(Into::into).collect();
        Ok(Response::new(v1::ListReply { experiments }))
    }

    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::ExperimentStatus>, Refusal> {
        let id = self.0.find(&request.into_inner().id).map_err(refusal)?;
        let all = self.0.statuses();
        let status = all.get(&id).ok_or_else(|| refusal(Error::NoExperiment(id.clone())))?;
        Ok(Response::new(described(self.0.store.as_ref(), status).await))
    }

    async fn watch(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<Self::WatchStream>, Refusal> {
        let caller = caller(&request);
        let id = self.0.find(&request.into_inner().id).map_err(refusal)?;
        let mut statuses = self.0.subscribe();
        let stopped = self.0.stop.subscribe();
        let store = self.0.store();
        let (to, out) = mpsc::channel(8);
        tokio::spawn(async move {
            let mut ended = std::pin::pin!(caller.ended());
            loop {
                let status: Option<Status> = statuses.borrow_and_update().get(&id).cloned();
                let Some(status) = status else { return };
                let described = described(store.as_ref(), &status).await;
                if to.send(Ok(described)).await.is_err() || status.ended() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
                let end = tokio::select! {
                    changed = statuses.changed() => if changed.is_ok() { continue } else { None },
                    () = stopped.wait() => None,
                    why = &mut ended => Some(why),
                };
                if let Some(why) = end {
                    // Whoever watched may have gone.
                    let _ = to.send(Err(why)).await;
                }
                return;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(out))))
    }

    async fn control(
        &self,
        request: Request<v1::ControlRequest>,
    ) -> Result<Response<v1::ExperimentStatus>, Refusal> {
        use v1::control_request::Action;
        let request = request.into_inner();
        let control = match request.action() {
            Action::Pause => Control::Pause,
            Action::Resume => Control::Resume,
            Action::Cancel => Control::Cancel,
            Action::Retry => Control::Retry,
            Action::Unspecified => return Err(Refusal::invalid_argument("no action given")),
        };
        let status = self.0.control(&request.id, control).await.map_err(refusal)?;
        Ok(Response::new((&status).into()))
    }

    async fn workers(&self, _: Request<v1::WorkersRequest>) -> Result<Response<v1::WorkersReply>, Refusal> {
        let workers = self.0.workers().await.map_err(refusal)?;
        Ok(Response::new(v1::WorkersReply { workers: workers.iter().map(Into::into).collect() }))
    }

    async fn live(&self, request: Request<v1::LiveRequest>) -> Result<Response<v1::LiveReply>, Refusal> {
        let v1::LiveRequest { id, seen } = request.into_inner();
        let id = self.0.find(&id).map_err(refusal)?;
        Ok(Response::new(effects::of(&self.1, &id, seen).await.map_err(refusal)?))
    }

    async fn export(
        &self,
        request: Request<v1::ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Refusal> {
        let v1::ExportRequest { id, format } = request.into_inner();
        let id = self.0.find(&id).map_err(refusal)?;
        let Some(exporter): Option<Arc<_>> = self.0.options.exporter.clone() else {
            return Err(Refusal::unimplemented("this coordinator exports nothing"));
        };
        if !["", "parquet", "csv", "json"].contains(&format.as_str()) {
            return Err(Refusal::invalid_argument(format!(
                "{format:?} is no format; one of parquet, csv, json is"
            )));
        }
        // As above.
        let exporting = self.0.options.security.exporting();
        let permit = exporting.acquire_owned().await.map_err(|_| refusal(Error::Closed))?;
        let results = self.0.store.results(&id).await.map_err(|e| refusal(e.into()))?;
        // The permit goes along: the work goes on where its caller has gone.
        let (files, permit) = tokio::task::spawn_blocking(move || {
            let unique = EXPORTS.fetch_add(1, Ordering::Relaxed);
            let folder = std::env::temp_dir().join(format!("ablate-export-{}-{unique}", std::process::id()));
            let read = || -> Result<Vec<(String, Vec<u8>)>, String> {
                std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
                exporter(results, &format, &folder)?;
                files_of(&folder, "")
            };
            let files = read();
            // A left-over folder in the system's temporary one does no harm.
            let _ = std::fs::remove_dir_all(&folder);
            (files, permit)
        })
        .await
        .map_err(|e| Refusal::internal(e.to_string()))?;
        let all = files
            .map_err(Refusal::internal)?
            .into_iter()
            .flat_map(|(name, data)| parts(data).map(move |data| v1::FilePart { name: name.clone(), data }));
        Ok(Response::new(Box::pin(stream::holding(permit, all, READING))))
    }
}
