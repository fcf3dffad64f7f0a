//! Serves the API's port: HTTP/1 and HTTP/2 with prior knowledge on one listener, told apart by their first bytes.

use super::http2;
use super::listener::{Bounded, Connection};
use crate::limits;
use crate::push::Peer;
use crate::wire::http2::PREFACE;
use axum::Router;
use axum::extract::Request;
use axum::serve::Listener;
use core::convert::Infallible;
use core::time::Duration;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

/// A connection whose first bytes are the beginning of the preface is looked at again after this long.
const PREFACE_RETRY: Duration = Duration::from_millis(20);

/// Serves until `stopped`; then the requests that are under way get their answers.
pub(super) async fn serve(
    mut listener: Bounded,
    router: Router,
    tls: watch::Receiver<Option<Arc<ServerConfig>>>,
    mut stopped: oneshot::Receiver<()>,
) {
    let ending = Ending::new();
    loop {
        let (connection, peer) = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stopped => break,
        };
        let serving = Serving { peer: peer.ip(), router: router.clone(), ended: ending.ended() };
        let secure = tls.borrow().clone();
        match secure {
            None => tokio::spawn(serving.plain(connection)),
            Some(secure) => tokio::spawn(serving.secured(connection, secure)),
        };
    }
    drop(listener);
    ending.end().await;
}

/// Ends connections when their requests are answered.
struct Ending {
    http1: GracefulShutdown,
    begun: watch::Sender<bool>,
    /// Those that serve hold its other end.
    served: mpsc::Receiver<Infallible>,
    serves: mpsc::Sender<Infallible>,
}

impl Ending {
    fn new() -> Self {
        let (serves, served) = mpsc::channel(1);
        Self { http1: GracefulShutdown::new(), begun: watch::Sender::new(false), served, serves }
    }

    fn ended(&self) -> Ended {
        Ended { http1: self.http1.watcher(), begun: self.begun.subscribe(), _serves: self.serves.clone() }
    }

    async fn end(self) {
        let Self { http1, begun, mut served, serves } = self;
        drop(serves);
        begun.send_replace(true);
        http1.shutdown().await;
        // Nobody says anything here: it closes when the last of them is gone.
        let None = served.recv().await;
    }
}

/// What tells a connection that it is to end.
struct Ended {
    http1: Watcher,
    begun: watch::Receiver<bool>,
    _serves: mpsc::Sender<Infallible>,
}

/// A connection's part of the API.
struct Serving {
    peer: IpAddr,
    router: Router,
    ended: Ended,
}

impl Serving {
    async fn plain(self, connection: Connection) {
        // Small answers must not wait for more; a socket that is gone says so when it is read.
        let _gone = connection.stream().set_nodelay(true);
        match tokio::time::timeout(limits::API_HEAD_TIMEOUT, is_http2(&connection)).await {
            Ok(Ok(Some(true))) => self.http2(connection).await,
            Ok(Ok(Some(false))) => self.http1(connection).await,
            // It said nothing in time, or hung up.
            Ok(Ok(None) | Err(_)) | Err(_) => {}
        }
    }

    /// Within TLS the protocol is agreed on with it.
    async fn secured(self, connection: Connection, secure: Arc<ServerConfig>) {
        let _gone = connection.stream().set_nodelay(true);
        let handshake = TlsAcceptor::from(secure).accept(connection);
        // Who does not finish in time, or breaks the rules, has nothing to be told over HTTP.
        let Ok(Ok(stream)) = tokio::time::timeout(limits::API_HEAD_TIMEOUT, handshake).await else { return };
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            self.http2(stream).await
        } else {
            self.http1(stream).await
        }
    }

    async fn http2(self, io: impl AsyncRead + AsyncWrite + Unpin) {
        let Self { peer, router, ended: Ended { mut begun, _serves, .. } } = self;
        let stopping = async move {
            // Its sender is gone: so is the server.
            let _begun = begun.wait_for(|&begun| begun).await;
        };
        http2::serve(io, peer, router, stopping).await;
    }

    async fn http1(self, io: impl AsyncRead + AsyncWrite + Unpin + 'static) {
        let mut builder = Builder::new(TokioExecutor::new()).http1_only();
        builder.http1().timer(TokioTimer::new()).header_read_timeout(limits::API_HEAD_TIMEOUT);
        let service = TowerToHyperService::new(self.router.map_request(coming_from(self.peer)));
        let served = builder.serve_connection(TokioIo::new(io), service);
        // How a connection ends is its peer's affair; each request was answered or cut with it.
        let _ended = self.ended.http1.watch(served).await;
    }
}

/// Has requests say from where they come.
fn coming_from<B>(peer: IpAddr) -> impl Fn(Request<B>) -> Request<B> + Clone {
    move |mut request| {
        request.extensions_mut().insert(Peer(peer));
        request
    }
}

/// Whether it begins as HTTP/2 does; none: the peer has hung up.
async fn is_http2(connection: &Connection) -> io::Result<Option<bool>> {
    let mut first = [0; PREFACE.len()];
    loop {
        let count = connection.stream().peek(&mut first).await?;
        if count == 0 {
            return Ok(None);
        }
        if !PREFACE.starts_with(&first[..count]) {
            return Ok(Some(false));
        }
        if count == PREFACE.len() {
            return Ok(Some(true));
        }
        tokio::time::sleep(PREFACE_RETRY).await;
    }
}
