//! Serves the API's port: HTTP/1 and HTTP/2 with prior knowledge on one listener, told apart by their first bytes.

use super::listener::{Bounded, Connection};
use crate::limits;
use crate::push::Peer;
use axum::Router;
use axum::extract::Request;
use axum::serve::Listener;
use core::time::Duration;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::{oneshot, watch};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

/// What an HTTP/2 connection begins with (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A connection whose first bytes are the beginning of the preface is looked at again after this long.
const PREFACE_RETRY: Duration = Duration::from_millis(20);

/// Serves until `stopped`; then the requests that are under way get their answers.
pub(super) async fn serve(
    mut listener: Bounded,
    router: Router,
    tls: watch::Receiver<Option<Arc<ServerConfig>>>,
    mut stopped: oneshot::Receiver<()>,
) {
    let graceful = GracefulShutdown::new();
    loop {
        let (connection, peer) = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stopped => break,
        };
        let (router, watcher) = (router.clone(), graceful.watcher());
        let secure = tls.borrow().clone();
        match secure {
            None => tokio::spawn(serve_one(connection, peer.ip(), router, watcher)),
            Some(secure) => tokio::spawn(serve_secured(connection, peer.ip(), secure, router, watcher)),
        };
    }
    drop(listener);
    graceful.shutdown().await;
}

async fn serve_one(connection: Connection, peer: IpAddr, router: Router, watcher: Watcher) {
    // Small answers must not wait for more; a socket that is gone says so when it is read.
    let _gone = connection.stream().set_nodelay(true);
    match tokio::time::timeout(limits::API_HEAD_TIMEOUT, has_begun(&connection)).await {
        Ok(Ok(true)) => {}
        // It said nothing in time, or hung up.
        Ok(Ok(false) | Err(_)) | Err(_) => return,
    }
    let builder = builder();
    let service = TowerToHyperService::new(router.map_request(coming_from(peer)));
    let served = builder.serve_connection(TokioIo::new(connection), service);
    // How a connection ends is its peer's affair; each request was answered or cut with it.
    let _ended = watcher.watch(served).await;
}

/// Within TLS the protocol is agreed on with it.
async fn serve_secured(
    connection: Connection,
    peer: IpAddr,
    secure: Arc<ServerConfig>,
    router: Router,
    watcher: Watcher,
) {
    let _gone = connection.stream().set_nodelay(true);
    let handshake = TlsAcceptor::from(secure).accept(connection);
    // Who does not finish in time, or breaks the rules, has nothing to be told over HTTP.
    let Ok(Ok(stream)) = tokio::time::timeout(limits::API_HEAD_TIMEOUT, handshake).await else { return };
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let builder = if is_http2 { builder().http2_only() } else { builder().http1_only() };
    let service = TowerToHyperService::new(router.map_request(coming_from(peer)));
    let served = builder.serve_connection(TokioIo::new(stream), service);
    let _ended = watcher.watch(served).await;
}

/// Has requests say from where they come.
fn coming_from<B>(peer: IpAddr) -> impl Fn(Request<B>) -> Request<B> + Clone {
    move |mut request| {
        request.extensions_mut().insert(Peer(peer));
        request
    }
}

/// Whether enough bytes are there to tell the protocol; false: the peer has hung up.
async fn has_begun(connection: &Connection) -> io::Result<bool> {
    let mut first = [0; PREFACE.len()];
    loop {
        let count = connection.stream().peek(&mut first).await?;
        if count == 0 {
            return Ok(false);
        }
        if count == PREFACE.len() || !PREFACE.starts_with(&first[..count]) {
            return Ok(true);
        }
        tokio::time::sleep(PREFACE_RETRY).await;
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits::API_HEAD_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(limits::API_KEEP_ALIVE)
        .keep_alive_timeout(limits::API_KEEP_ALIVE_TIMEOUT)
        .max_concurrent_streams(limits::API_STREAMS_PER_CONNECTION_MAX)
        .max_header_list_size(limits::API_HEAD_BYTES_MAX)
        .initial_stream_window_size(limits::API_WINDOW_BYTES)
        .initial_connection_window_size(limits::API_WINDOW_BYTES);
    builder
}
