//! Owns: the API as gRPC: `kittiwake.v1.Gateway`, health and reflection, on the port of HTTP/JSON.
//! In: gRPC requests that the guard let through. Out: the operations of [`super::Api`], as messages and statuses.
//! Must not: decide anything that HTTP would decide otherwise.
//! Invariants: a call ends at its caller's deadline; what a stream holds is bounded; a full node says
//! RESOURCE_EXHAUSTED where HTTP says 429 and nowhere else.
//!
//! `service` the calls · `push_stream` pushes in bulk, `batches` as they come · `events` what happens to devices · `translate` messages ↔ what
//! the operations take and give · `status`, `deadline`, `calls` · `health`.

mod batches;
mod calls;
mod deadline;
mod events;
mod health;
mod push_stream;
mod service;
mod status;
#[cfg(test)]
mod stream_tests;
#[cfg(test)]
mod tests;
mod translate;

/// Made from `proto/kittiwake/v1/gateway.proto`; `tests/proto.rs` holds it to that.
#[allow(missing_docs, clippy::all, reason = "the generator writes it, from a .proto that is documented")]
pub mod generated {
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/proto/generated/kittiwake.v1.rs"));
}

pub(super) use calls::Calls;

use super::keys::Scope;
use super::problem::Problem;
use super::{Api, Control};
use crate::limits::API_BODY_BYTES_MAX;
use axum::Router;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use generated::gateway_server::GatewayServer;
use service::Service;
use std::sync::Arc;
use tonic_health::pb::health_server::HealthServer;

/// The service's full name.
const SERVICE: &str = "kittiwake.v1.Gateway";
/// Where health is asked for.
pub(super) const HEALTH_PATH: &str = "/grpc.health.v1.Health/";
const DESCRIPTION: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/proto/generated/kittiwake.v1.bin"));

/// All gRPC services.
pub(super) fn router(api: &Arc<Api>, control: &Arc<Control>) -> Router {
    let gateway = GatewayServer::new(Service::new(Arc::clone(api))).max_decoding_message_size(API_BODY_BYTES_MAX);
    let health = HealthServer::new(health::Health::new(Arc::clone(control)));
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTION)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let is_ours = "the descriptions were generated with the code";
    Router::new()
        .route("/kittiwake.v1.Gateway/PushStream", any(push_stream::call).with_state(Arc::clone(api)))
        .route_service("/kittiwake.v1.Gateway/{*method}", gateway)
        .route_service("/grpc.health.v1.Health/{*method}", health)
        .route_service("/grpc.reflection.v1.ServerReflection/{*method}", reflection().build_v1().expect(is_ours))
        .route_service(
            "/grpc.reflection.v1alpha.ServerReflection/{*method}",
            reflection().build_v1alpha().expect(is_ours),
        )
}

/// Whether a request is a gRPC call.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map_or(&[][..], |value| value.as_bytes());
    let rest = kind.strip_prefix(b"application/grpc");
    // Not `application/grpc-web`, which nobody here speaks.
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Whether a path is about an app, or tells nothing about any.
pub(super) fn is_of_an_app(path: &str) -> bool {
    let service = path.strip_prefix('/').and_then(|path| path.split('/').next()).unwrap_or_default();
    service == SERVICE || service.starts_with("grpc.reflection.")
}

/// What a key has to be good for to call this; none: any key is, as for reflection.
pub(super) fn scope_of(path: &str) -> Option<Scope> {
    let (service, method) = path.strip_prefix('/').and_then(|path| path.split_once('/')).unwrap_or_default();
    if service != SERVICE {
        return None;
    }
    Some(match method {
        "Push" | "PushStream" => Scope::Push,
        "Events" | "AckEvents" => Scope::Events,
        "GetUser" | "GetHistory" | "GetPresence" => Scope::Read,
        _ => Scope::Admin,
    })
}

/// Whether a call's messages come one after the other, so that nobody knows them all when it begins.
pub(super) fn is_client_stream(path: &str) -> bool {
    path.ends_with("/PushStream") || path.starts_with("/grpc.reflection.")
}

/// A refusal of a call before it reached its service.
pub(super) fn refusal(problem: Problem) -> Response {
    status::of(problem).into_http::<axum::body::Body>().into_response()
}

/// A service that nobody here offers.
pub(super) fn unknown_service() -> Response {
    tonic::Status::unimplemented("there is no such service").into_http::<axum::body::Body>().into_response()
}
