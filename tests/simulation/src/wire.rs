//! gRPC calls over the simulated network: bodies are cut into messages, and everything above (client, codec, server)
//! is the real code.

use crate::net::{Parcel, Shared, Way};
use crate::trace::lock;
use ablate_worker_client::link::{Broken, Dial, Wire};
use bytes::{Buf, Bytes, BytesMut};
use futures::future::BoxFuture;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::{Service, ServiceExt};

/// How a worker on `node` reaches coordinators, whose hosts are `nN`.
pub fn dial(net: Shared, node: usize) -> Dial {
    std::sync::Arc::new(move |endpoint: tonic::transport::Endpoint| {
        let net = net.clone();
        Box::pin(async move {
            let host = endpoint.uri().host().unwrap_or_default().to_owned();
            let server = host.strip_prefix('n').and_then(|n| n.parse().ok()).ok_or("no such host")?;
            let answer = lock(&net).dial(node, server);
            let conn = answer.await.map_err(|_| "the network is gone")??;
            Ok(Wire::new(Caller { net, conn }))
        })
    })
}

#[derive(Clone)]
struct Caller {
    net: Shared,
    conn: u64,
}

impl Service<http::Request<Body>> for Caller {
    type Response = http::Response<Body>;
    type Error = Broken;
    type Future = BoxFuture<'static, Result<Self::Response, Broken>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (net, conn) = (self.net.clone(), self.conn);
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let gone = || Broken("simulated: the connection is gone".into());
            let (call, (head, answer)) = lock(&net).call(conn, parts).ok_or_else(gone)?;
            let task = tokio::spawn(carry(net.clone(), conn, Way::Up, call, body));
            lock(&net).carries(conn, 0, task.abort_handle());
            let parts = head.await.map_err(|_| gone())?;
            let body = Body::new(StreamBody::new(UnboundedReceiverStream::new(answer)));
            Ok(http::Response::from_parts(parts, body))
        })
    }
}

/// Answers a call on the coordinator's side.
pub async fn answer(
    net: Shared,
    conn: u64,
    call: u64,
    routes: Routes,
    parts: http::request::Parts,
    body: mpsc::UnboundedReceiver<Result<Frame<Bytes>, Status>>,
) {
    let body = Body::new(StreamBody::new(UnboundedReceiverStream::new(body)));
    let Ok(response) = routes.oneshot(http::Request::from_parts(parts, body)).await;
    let (parts, body) = response.into_parts();
    lock(&net).push(conn, Way::Down, call, Parcel::Head(Box::new(parts)));
    carry(net, conn, Way::Down, call, body).await;
}

/// Carries a body to the network, message by message.
async fn carry(net: Shared, conn: u64, way: Way, call: u64, mut body: Body) {
    let mut bytes = BytesMut::new();
    while let Some(Ok(frame)) = body.frame().await {
        match frame.into_data() {
            Ok(data) => {
                bytes.extend_from_slice(&data);
                // A message: a flag, four bytes of length, and so many bytes.
                while bytes.len() >= 5 {
                    let len = 5 + (&bytes[1..5]).get_u32() as usize;
                    if bytes.len() < len {
                        break;
                    }
                    let message = bytes.split_to(len).freeze();
                    lock(&net).push(conn, way, call, Parcel::Data(message));
                }
            }
            Err(frame) => {
                let trailers = frame.into_trailers().ok();
                return lock(&net).push(conn, way, call, Parcel::End(trailers));
            }
        }
    }
    lock(&net).push(conn, way, call, Parcel::End(None));
}
