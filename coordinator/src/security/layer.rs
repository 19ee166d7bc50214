//! The gate as a layer of a gRPC server.

use super::Security;
use super::door::Peer;
use super::gate::Pass;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::body::Body;
use tower::{Layer, Service};

/// Puts the gate before services. Calls that are let in carry their [`super::Caller`] as an extension.
#[derive(Clone, Debug)]
pub struct GateLayer(pub Arc<Security>);

impl<S> Layer<S> for GateLayer {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { inner, security: Arc::clone(&self.0) }
    }
}

/// Services behind the gate.
#[derive(Clone, Debug)]
pub struct Gated<S> {
    inner: S,
    security: Arc<Security>,
}

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
        match self.security.admit(&peer, request.uri().path(), request.headers()) {
            Ok((caller, pass)) => {
                request.extensions_mut().insert(caller);
                let answer = self.inner.call(request);
                Box::pin(
                    async move { Ok(answer.await?.map(|body| Body::new(Counted { body, _pass: pass }))) },
                )
            }
            Err(status) => Box::pin(std::future::ready(Ok(status.into_http()))),
        }
    }
}

/// A call's answer: the call is under way until it has gone.
struct Counted {
    body: Body,
    _pass: Pass,
}

impl http_body::Body for Counted {
    type Data = bytes::Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, tonic::Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
