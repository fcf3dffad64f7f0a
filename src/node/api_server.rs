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
use std::io;
use std::net::IpAddr;
use tokio::sync::oneshot;
use tower::ServiceExt;

/// What an HTTP/2 connection begins with (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A connection whose first bytes are the beginning of the preface is looked at again after this long.
const PREFACE_RETRY: Duration = Duration::from_millis(20);

/// Serves until `stopped`; then the requests that are under way get their answers.
pub(super) async fn serve(mut listener: Bounded, router: Router, mut stopped: oneshot::Receiver<()>) {
    let graceful = GracefulShutdown::new();
    loop {
        let (connection, peer) = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stopped => break,
        };
        tokio::spawn(serve_one(connection, peer.ip(), router.clone(), graceful.watcher()));
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
    let router = router.map_request(move |mut request: Request<_>| {
        request.extensions_mut().insert(Peer(peer));
        request
    });
    let served = builder.serve_connection(TokioIo::new(connection), TowerToHyperService::new(router));
    // How a connection ends is its peer's affair; each request was answered or cut with it.
    let _ended = watcher.watch(served).await;
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
