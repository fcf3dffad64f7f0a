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
use core::future::Future;
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
    async fn plain(mut self, connection: Connection) {
        // Small answers must not wait for more; a socket that is gone says so when it is read.
        let _gone = connection.stream().set_nodelay(true);
        match self.first(is_http2(&connection)).await {
            Some(Ok(Some(true))) => self.http2(connection).await,
            Some(Ok(Some(false))) => self.http1(connection).await,
            // It said nothing, or hung up.
            Some(Ok(None) | Err(_)) | None => {}
        }
    }

    /// Within TLS the protocol is agreed on with it.
    async fn secured(mut self, connection: Connection, secure: Arc<ServerConfig>) {
        let _gone = connection.stream().set_nodelay(true);
        let handshake = TlsAcceptor::from(secure).accept(connection);
        // Who does not finish in time, or breaks the rules, has nothing to be told over HTTP.
        let Some(Ok(stream)) = self.first(handshake).await else { return };
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            self.http2(stream).await
        } else {
            self.http1(stream).await
        }
    }

    /// What a connection begins with; none: it did not in time, or the server stops and nothing was asked.
    async fn first<T>(&mut self, said: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            said = tokio::time::timeout(limits::API_HEAD_TIMEOUT, said) => said.ok(),
            () = stopping(&mut self.ended.begun) => None,
        }
    }

    async fn http2(self, io: impl AsyncRead + AsyncWrite + Unpin) {
        let Self { peer, router, ended: Ended { mut begun, _serves, .. } } = self;
        http2::serve(io, peer, router, async move { stopping(&mut begun).await }).await;
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

async fn stopping(begun: &mut watch::Receiver<bool>) {
    // Its sender is gone: so is the server.
    let _begun = begun.wait_for(|&begun| begun).await;
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

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use rustls::pki_types::PrivateKeyDer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::Instant;

    fn tls() -> Arc<ServerConfig> {
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
        let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
        Arc::new(builder.with_single_cert(vec![own.cert.der().clone()], key).expect("it fits its key"))
    }

    /// Says something to a new server, or nothing, and stops it: how long it took, and what was said to that.
    async fn stopped_after(said: &[u8], tls: Option<Arc<ServerConfig>>) -> (Duration, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (stop, stopped) = oneshot::channel();
        let (_secure, secure) = watch::channel(tls);
        let router = Router::new().route("/", get(|| async { "here" }));
        let served = tokio::spawn(serve(Bounded::new(listener, 10), router, secure, stopped));
        let mut peer = TcpStream::connect(address).await.expect("it listens");
        peer.write_all(said).await.expect("it takes that");
        // Time to be accepted and read.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let begun = Instant::now();
        drop(stop);
        served.await.expect("it does not panic");
        let (took, mut answer) = (begun.elapsed(), Vec::new());
        // Reset, where it was closed with bytes that nobody took.
        let _reset = peer.read_to_end(&mut answer).await;
        (took, answer)
    }

    #[tokio::test]
    async fn a_server_that_stops_does_not_wait_for_those_who_have_asked_nothing() {
        let soon = limits::API_DRAIN_TIMEOUT / 2;
        for said in [&b""[..], &PREFACE[..7], PREFACE, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"] {
            let (took, answer) = stopped_after(said, None).await;
            assert!(took < soon, "{took:?} after {said:?}");
            assert_eq!(answer.ends_with(b"here"), said.starts_with(b"GET / HTTP/1.1"), "after {said:?}");
        }
        // The head of a record that does not come.
        for said in [&b""[..], &[22, 3, 1, 1, 0]] {
            let (took, answer) = stopped_after(said, Some(tls())).await;
            assert!(took < soon && answer.is_empty(), "{took:?} after {said:?}: {answer:?}");
        }
    }
}
