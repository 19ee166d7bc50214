//! Connections as they come in: counted, and with TLS where the coordinator speaks it.

use super::Security;
use super::certificate::Certified;
use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// How long TLS may take to begin.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long the other end of a failed handshake may take to read why.
const LINGER: Duration = Duration::from_millis(500);
/// Pause after the system refused a connection (no file descriptors left).
const BREATH: Duration = Duration::from_millis(50);

/// The other end of a connection.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Its address.
    pub address: Option<SocketAddr>,
    /// Who its certificate says that it is.
    pub(super) certified: Option<Arc<Certified>>,
}

#[derive(Debug)]
enum Wire {
    Clear(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    wire: Wire,
    peer: Peer,
    _counted: OwnedSemaphorePermit,
}

impl Security {
    /// Connections to a listener, for as long as they are asked for.
    pub fn connections(
        self: &Arc<Self>,
        listener: TcpListener,
    ) -> impl Stream<Item = io::Result<Connection>> + use<> {
        let me = Arc::clone(self);
        async_stream::stream! {
            let mut hands = FuturesUnordered::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok((stream, address)) => match Arc::clone(&me.connections).try_acquire_owned() {
                            Ok(counted) => hands.push(me.greet(stream, address, counted)),
                            // Closed at once: it comes again.
                            Err(_) => tracing::warn!(%address, limit = me.limits.connections, "over the limit of connections"),
                        },
                        Err(e) => {
                            tracing::warn!(error = %e, "a connection can't be taken");
                            tokio::time::sleep(BREATH).await;
                        }
                    },
                    Some(greeted) = hands.next() => if let Some(connection) = greeted {
                        yield Ok(connection);
                    },
                }
            }
        }
    }

    fn greet(
        self: &Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        counted: OwnedSemaphorePermit,
    ) -> impl Future<Output = Option<Connection>> + Send + use<> {
        let config = self.tls.as_ref().map(super::Tls::config);
        async move {
            // Small messages must not wait for one another; a socket that can't do that works as well.
            let _ = stream.set_nodelay(true);
            let peer = Peer { address: Some(address), certified: None };
            let Some(config) = config else {
                return Some(Connection { wire: Wire::Clear(stream), peer, _counted: counted });
            };
            let accepting = TlsAcceptor::from(config).accept(stream).into_fallible();
            match tokio::time::timeout(HANDSHAKE, accepting).await {
                Ok(Ok(tls)) => {
                    let shown = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
                    let certified = match shown.map(Certified::of).transpose() {
                        Ok(certified) => certified.map(Arc::new),
                        Err(e) => {
                            tracing::warn!(%address, "a client's certificate: {e}");
                            return None;
                        }
                    };
                    let peer = Peer { certified, ..peer };
                    Some(Connection { wire: Wire::Tls(Box::new(tls)), peer, _counted: counted })
                }
                Ok(Err((e, stream))) => {
                    tracing::info!(%address, "TLS could not begin: {e}");
                    linger(stream).await;
                    None
                }
                Err(_) => None,
            }
        }
    }
}

/// Closes a connection so that its other end still reads why: a close with unread bytes would throw that away.
async fn linger(mut stream: TcpStream) {
    let drain = async {
        let mut rest = [0u8; 4096];
        // Whatever goes wrong here, the connection is over.
        let _ = stream.shutdown().await;
        while stream.read(&mut rest).await.is_ok_and(|n| n > 0) {}
    };
    let _ = tokio::time::timeout(LINGER, drain).await;
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Clear(s) => Pin::new(s).poll_read(cx, buf),
            Wire::Tls(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.wire {
            Wire::Clear(s) => Pin::new(s).poll_write(cx, buf),
            Wire::Tls(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.wire {
            Wire::Clear(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            Wire::Tls(s) => Pin::new(s).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.wire {
            Wire::Clear(s) => s.is_write_vectored(),
            Wire::Tls(s) => s.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Clear(s) => Pin::new(s).poll_flush(cx),
            Wire::Tls(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Clear(s) => Pin::new(s).poll_shutdown(cx),
            Wire::Tls(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}
