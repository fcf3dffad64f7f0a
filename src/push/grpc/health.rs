//! `grpc.health.v1.Health`: what `/readyz` says, for the node and for the gateway's service alike.

use super::super::Control;
use crate::limits::HEALTH_WATCH_INTERVAL;
use core::pin::Pin;
use std::sync::Arc;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health as Service;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// See the module.
pub(super) struct Health {
    control: Arc<Control>,
}

impl Health {
    pub(super) fn new(control: Arc<Control>) -> Self {
        Self { control }
    }
}

async fn status(control: &Control) -> ServingStatus {
    if !control.draining() && control.check_flow().await.is_ok() {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    }
}

fn is_known(service: &str) -> bool {
    service.is_empty() || service == super::SERVICE
}

#[tonic::async_trait]
impl Service for Health {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if !is_known(&request.get_ref().service) {
            return Err(Status::not_found("there is no such service"));
        }
        Ok(Response::new(HealthCheckResponse { status: status(&self.control).await.into() }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// Says how it is, and again when that changes. It ends behind a drain's beginning.
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let known = is_known(&request.get_ref().service);
        let start = (Arc::clone(&self.control), None::<ServingStatus>);
        let answers = futures_util::stream::unfold(start, move |(control, said)| async move {
            loop {
                if said.is_some() && control.draining() {
                    return None;
                }
                let now = if known { status(&control).await } else { ServingStatus::ServiceUnknown };
                if said != Some(now) {
                    return Some((Ok(HealthCheckResponse { status: now.into() }), (control, Some(now))));
                }
                tokio::select! {
                    () = tokio::time::sleep(HEALTH_WATCH_INTERVAL) => {}
                    () = control.drain_begun() => {
                        let last = Ok(HealthCheckResponse { status: ServingStatus::NotServing.into() });
                        return Some((last, (control, Some(ServingStatus::NotServing))));
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
