//! The calls of `kittiwake.v1.Gateway`. Each says who calls and until when, and leaves the rest to the operations.

use super::super::Api;
use super::super::keys::Caller;
use super::deadline::Deadline;
use super::generated as pb;
use super::generated::gateway_server::Gateway;
use super::{events, status, translate};
use crate::shard::command::Present;
use axum::http::{Extensions, HeaderMap};
use bytes::Bytes;
use core::pin::Pin;
use std::sync::Arc;
use tokio::time::Instant;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

/// Answers of a call that has many.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// See the module.
pub(super) struct Service {
    api: Arc<Api>,
}

/// What every call brings besides its message.
pub(super) struct Call {
    pub(super) caller: Caller,
    pub(super) deadline: Deadline,
    /// `x-kittiwake-app`.
    pub(super) app: Option<String>,
}

impl Call {
    pub(super) fn of(extensions: &Extensions, headers: &HeaderMap) -> Result<Self, Status> {
        let caller = extensions.get::<Caller>().cloned();
        let caller = caller.expect("the guard has found out who calls, or refused");
        let deadline = Deadline::of(headers)?;
        let app = headers.get("x-kittiwake-app").map(|value| value.to_str().map(str::to_owned));
        let app = app.transpose();
        let app = app.map_err(|_| Status::invalid_argument("x-kittiwake-app has characters outside ASCII"))?;
        Ok(Self { caller, deadline, app })
    }

    fn of_request<T>(request: &Request<T>) -> Result<Self, Status> {
        Self::of(request.extensions(), request.metadata().as_ref())
    }
}

impl Service {
    pub(super) fn new(api: Arc<Api>) -> Self {
        Self { api }
    }
}

#[tonic::async_trait]
impl Gateway for Service {
    async fn push(&self, request: Request<pb::PushRequest>) -> Result<Response<pb::PushReply>, Status> {
        let call = Call::of_request(&request)?;
        let begun = Instant::now();
        let asking = self.api.asking(&call.caller, call.app.as_deref());
        let mut request = request.into_inner();
        // It lies in a buffer of the call's, which is larger and would be kept as long.
        request.payload = Bytes::copy_from_slice(&request.payload);
        let started = translate::draft(request, |draft| self.api.start_push(draft, &asking));
        let started = started.map_err(status::of)?;
        self.api.control.ring();
        let finished = async { started.finish_since(begun).await.map_err(status::of) };
        Ok(Response::new(translate::reply(call.deadline.bound(finished).await?)))
    }

    type PushStreamStream = Answers<pb::PushResults>;

    /// Has a route of its own: see [`super::push_stream`].
    async fn push_stream(
        &self,
        _request: Request<Streaming<pb::PushBatch>>,
    ) -> Result<Response<Self::PushStreamStream>, Status> {
        Err(Status::internal("a push stream went astray"))
    }

    async fn get_user(&self, request: Request<pb::GetUserRequest>) -> Result<Response<pb::User>, Status> {
        let call = Call::of_request(&request)?;
        let asking = self.api.asking(&call.caller, call.app.as_deref());
        let pb::GetUserRequest { app, user } = request.into_inner();
        let found = async { self.api.user(&user, translate::given(&app), &asking).await.map_err(status::of) };
        let state = call.deadline.bound(found).await?;
        Ok(Response::new(translate::user(user, state)))
    }

    async fn disconnect(
        &self,
        request: Request<pb::DisconnectRequest>,
    ) -> Result<Response<pb::DisconnectReply>, Status> {
        let call = Call::of_request(&request)?;
        let asking = self.api.asking(&call.caller, call.app.as_deref());
        let pb::DisconnectRequest { app, user, device } = request.into_inner();
        let (app, device) = (translate::given(&app), translate::given(&device));
        let closed = async { self.api.disconnect(&user, device, app, &asking).await.map_err(status::of) };
        let disconnected = call.deadline.bound(closed).await?;
        Ok(Response::new(pb::DisconnectReply { disconnected }))
    }

    type EventsStream = Answers<pb::EventsReply>;

    async fn events(&self, request: Request<pb::EventsRequest>) -> Result<Response<Self::EventsStream>, Status> {
        let call = Call::of_request(&request)?;
        let deadline = call.deadline;
        let begun = events::begin(Arc::clone(&self.api), call, request.into_inner());
        Ok(Response::new(deadline.bound(begun).await?))
    }

    async fn ack_events(&self, request: Request<pb::AckEventsRequest>) -> Result<Response<pb::AckEventsReply>, Status> {
        let call = Call::of_request(&request)?;
        events::acknowledge(&self.api, &call, &request.into_inner()).await.map(Response::new)
    }

    async fn get_history(&self, request: Request<pb::GetHistoryRequest>) -> Result<Response<pb::History>, Status> {
        let call = Call::of_request(&request)?;
        let asking = self.api.asking(&call.caller, call.app.as_deref());
        let request = request.into_inner();
        let (stream, page) = translate::history_request(&request).map_err(status::of)?;
        let app = translate::given(&request.app);
        let read = async { self.api.history(stream, page, app, &asking).await.map_err(status::of) };
        Ok(Response::new(translate::history(call.deadline.bound(read).await?)))
    }

    async fn get_presence(&self, request: Request<pb::GetPresenceRequest>) -> Result<Response<pb::Presence>, Status> {
        let call = Call::of_request(&request)?;
        let asking = self.api.asking(&call.caller, call.app.as_deref());
        let pb::GetPresenceRequest { app, topic } = request.into_inner();
        let found = async { self.api.presence(&topic, translate::given(&app), &asking).await.map_err(status::of) };
        let Present { users, count } = call.deadline.bound(found).await?;
        let users = users.iter().map(|user| user.to_string()).collect();
        Ok(Response::new(pb::Presence { users, count: count as u64 }))
    }
}
