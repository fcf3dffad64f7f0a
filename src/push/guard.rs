//! What stands before every handler: who may ask at all, and how many bytes of requests are at hand at a time.

use super::Api;
use super::grpc;
use super::keys::{Admitted, Fault, Scope, Shown};
use super::problem::Problem;
use super::signature::{Expected, Remembered};
use crate::limits;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use core::net::IpAddr;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::sync::Arc;
use tokio::sync::{Semaphore, TryAcquireError};

/// What anybody may ask: those who look after the process have no key.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];
/// What is about an app, which the handlers compare with the caller's. All other paths are about the whole node.
const OF_AN_APP: [&str; 4] = ["/v1/push", "/v1/users/", "/v1/topics/", "/v1/bans"];

/// Without keys the API trusts whoever can reach it. A browser on this machine can, on behalf of any web page, so on
/// loopback the `Host` must be a loopback name (against DNS rebinding), and a POST must be JSON or gRPC, which a page of
/// another origin cannot send without a preflight request that nobody answers.
pub(super) async fn check(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let is_grpc = grpc::is_grpc(request.headers());
    let admitted = match admit(&api, request) {
        Ok((request, None)) => Ok(request),
        Ok((request, Some(expected))) => see_body(&api, request, expected).await,
        Err(problem) => Err(problem),
    };
    let request = match admitted {
        Ok(request) => request,
        Err(problem) => return if is_grpc { grpc::refusal(problem) } else { problem.into_response() },
    };
    if is_grpc {
        return api.calls.run(request, next).await;
    }
    match api.bodies.admit(request.body()) {
        Err(problem) => problem.into_response(),
        // The permit lives until the response is made: the body and what came of it are then released.
        Ok(_permit) => next.run(request).await,
    }
}

/// Who a request's connection is from, as the node has told.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// Lets a request in by its head. Of a signed one it is left to see whether its body is what was signed.
fn admit(api: &Api, request: Request) -> Result<(Request, Option<Expected>), Problem> {
    if api.loopback_only && !is_loopback_host(&request) {
        return Err(Problem::new(StatusCode::FORBIDDEN, "the Host header must name a loopback address"));
    }
    let is_known = is_json(request.headers()) || grpc::is_grpc(request.headers());
    if request.method() == Method::POST && !is_known {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "the Content-Type header must be application/json"));
    }
    let path = request.uri().path();
    if OPEN.contains(&path) || path.starts_with(grpc::HEALTH_PATH) {
        return Ok((request, None));
    }
    let refused = |fault: Fault| {
        api.control.count_refused(fault);
        fault.problem()
    };
    let (mut head, body) = request.into_parts();
    let peer = head.extensions.get::<Peer>().map(|Peer(address)| *address);
    let shown = Shown { head: &head, peer, now_ms: (api.sources.wall_ms)() };
    let Admitted { caller, claim } = api.keys.admit(&shown).map_err(refused)?;
    let path = head.uri.path();
    if scope_of(&head.method, path).is_some_and(|scope| !caller.may_do(scope)) {
        return Err(refused(Fault::Scope));
    }
    let is_of_an_app = OF_AN_APP.iter().any(|start| path.starts_with(start)) || grpc::is_of_an_app(path);
    if !is_of_an_app && !caller.may_see_all() {
        return Err(Problem::new(StatusCode::FORBIDDEN, "this is about the whole node: it needs a key to all apps"));
    }
    let expected = claim.map(|claim| claim.expected());
    head.extensions.insert(caller);
    Ok((Request::from_parts(head, body), expected))
}

/// What a key has to be good for; none: any key is.
fn scope_of(method: &Method, path: &str) -> Option<Scope> {
    if grpc::is_of_an_app(path) {
        return grpc::scope_of(path);
    }
    Some(match (method, path) {
        (_, path) if path.starts_with("/v1/push") => Scope::Push,
        (_, path) if path.starts_with("/v1/events") => Scope::Events,
        (&Method::GET | &Method::HEAD, _) => Scope::Read,
        _ => Scope::Admin,
    })
}

/// Reads a signed request's body, which is handed on when it is the one that was signed and has not come before.
async fn see_body(api: &Api, request: Request, expected: Expected) -> Result<Request, Problem> {
    let refused = |fault: Fault| {
        api.control.count_refused(fault);
        Err(fault.problem())
    };
    let (head, body) = request.into_parts();
    if grpc::is_client_stream(head.uri.path()) {
        let detail = "what a client streams is not known when the call begins: it needs a bearer key";
        return Err(Problem::new(StatusCode::UNAUTHORIZED, detail));
    }
    let permit = api.bodies.admit(&body)?;
    let body = read_body(body).await?;
    if !expected.is_body(&body) {
        return refused(Fault::Body);
    }
    match api.replays.remember(expected, (api.sources.wall_ms)()) {
        Remembered::First => {}
        Remembered::Again => return refused(Fault::Replayed),
        Remembered::Full => return Err(Problem::busy()),
    }
    // The handler reserves what it reads again.
    drop(permit);
    Ok(Request::from_parts(head, Body::from(body)))
}

/// The host of the request: HTTP/1 has it in a header, HTTP/2 in `:authority`, or in both.
fn is_loopback_host(request: &Request) -> bool {
    let authority = request.uri().authority().map(|authority| is_loopback(authority.as_str()));
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return false;
    }
    let host = first.map(|host| host.to_str().is_ok_and(is_loopback));
    match (authority, host) {
        (None, None) => false,
        (authority, host) => authority != Some(false) && host != Some(false),
    }
}

fn is_loopback(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<axum::http::uri::Authority>() else {
        return false;
    };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

/// Room for request bodies. Full: 429.
pub(super) struct Bodies {
    /// In KiB, since a semaphore counts in 32 bits at a time.
    room: Arc<Semaphore>,
}

impl Bodies {
    pub(super) fn new(bytes: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(bytes / 1_024)) }
    }

    /// The same room, for whoever reserves it otherwise.
    pub(super) fn room(&self) -> Arc<Semaphore> {
        Arc::clone(&self.room)
    }

    /// Reserves what the body may become: its length where it says so, else the most that is read.
    fn admit(&self, body: &Body) -> Result<tokio::sync::SemaphorePermit<'_>, Problem> {
        let bytes = HttpBody::size_hint(body).upper().unwrap_or(limits::API_BODY_BYTES_MAX as u64);
        if bytes > limits::API_BODY_BYTES_MAX as u64 {
            return Err(too_large());
        }
        self.room.try_acquire_many(kibibytes(bytes)).map_err(|error| match error {
            TryAcquireError::NoPermits => Problem::busy(),
            TryAcquireError::Closed => unreachable!("nobody closes this semaphore"),
        })
    }
}

/// Units of the semaphore. `bytes` is at most `API_BODY_BYTES_MAX`.
pub(super) fn kibibytes(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1_024)).expect("the limit on one body has fewer than 2^32 KiB")
}

fn too_large() -> Problem {
    let detail = format!("the body is too long; allowed: {} bytes", limits::API_BODY_BYTES_MAX);
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
}

/// Collects a body, bounded in bytes and time.
pub(super) async fn read_body(body: Body) -> Result<Bytes, Problem> {
    let collected = Limited::new(body, limits::API_BODY_BYTES_MAX).collect();
    match tokio::time::timeout(limits::API_BODY_TIMEOUT, collected).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(StatusCode::BAD_REQUEST, "the body ended early")),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")),
    }
}
