//! What stands before every handler: who may ask at all, and how many bytes of bodies are at hand at a time.

use super::Api;
use super::problem::Problem;
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

/// Without keys the API trusts whoever can reach it. A browser on this machine can, on behalf of any web page, so on
/// loopback the `Host` must be a loopback name (against DNS rebinding), and a POST must be JSON, which a page of
/// another origin cannot send without a preflight request that nobody answers.
pub(super) async fn check(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    match admit(&api, &request) {
        Err(problem) => problem.into_response(),
        // The permit lives until the response is made: the body and what came of it are then released.
        Ok(_permit) => next.run(request).await,
    }
}

fn admit<'api>(api: &'api Api, request: &Request) -> Result<tokio::sync::SemaphorePermit<'api>, Problem> {
    if api.loopback_only && !is_loopback_host(request) {
        return Err(Problem::new(StatusCode::FORBIDDEN, "the Host header must name a loopback address"));
    }
    if request.method() == Method::POST && !is_json(request.headers()) {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "the Content-Type header must be application/json"));
    }
    api.bodies.admit(request.body())
}

fn is_loopback_host(request: &Request) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    let Some(host) = first.and_then(|host| host.to_str().ok()).filter(|_| second.is_none()) else {
        return false;
    };
    let Ok(authority) = host.parse::<axum::http::uri::Authority>() else {
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
    room: Semaphore,
}

impl Bodies {
    pub(super) fn new(bytes: usize) -> Self {
        Self { room: Semaphore::new(bytes / 1_024) }
    }

    /// Reserves what the body may become: its length where it says so, else the most that is read.
    fn admit(&self, body: &Body) -> Result<tokio::sync::SemaphorePermit<'_>, Problem> {
        let bytes = HttpBody::size_hint(body).upper().unwrap_or(limits::API_BODY_BYTES_MAX as u64);
        if bytes > limits::API_BODY_BYTES_MAX as u64 {
            return Err(too_large());
        }
        let units = u32::try_from(bytes.div_ceil(1_024)).expect("the limit on one body has fewer than 2^32 KiB");
        self.room.try_acquire_many(units).map_err(|error| match error {
            TryAcquireError::NoPermits => Problem::busy(),
            TryAcquireError::Closed => unreachable!("nobody closes this semaphore"),
        })
    }
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
