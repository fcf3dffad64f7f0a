//! Refusals as RFC 9457 `application/problem+json`.

use super::control::Failure;
use crate::limits;
use crate::shard::command::CommandError;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// A refusal. `field` says where in the request, as far as it is in the body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Always `about:blank`: the status says what kind it is (RFC 9457 §4.2.1).
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong, for people.
    pub detail: String,
    /// Where: `to.users[3]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

impl Problem {
    /// A problem with the request as a whole.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            field: None,
        }
    }

    /// 400 about a field of the body.
    pub fn field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        let mut problem = Self::new(StatusCode::BAD_REQUEST, detail);
        problem.field = Some(field.into());
        problem
    }

    /// 413 about a field of the body.
    pub fn too_large(field: impl Into<String>, detail: impl Into<String>) -> Self {
        let mut problem = Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail);
        problem.field = Some(field.into());
        problem
    }

    /// 429: a bounded queue is full.
    pub fn busy() -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "the node is busy, try again later")
    }
}

impl Problem {
    /// 429: the app pushes more than it may.
    pub fn over_rate() -> Self {
        let status = StatusCode::TOO_MANY_REQUESTS;
        Self::new(status, "the app pushes more than api.push_rate or its quota allows, try again later")
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(CommandError::Busy) => Self::busy(),
            Failure::Refused(CommandError::RetainedFull) => {
                let mut problem =
                    Self::new(StatusCode::TOO_MANY_REQUESTS, "there is no room for another retained message");
                problem.field = Some("retain".to_owned());
                problem
            }
            Failure::Refused(CommandError::OverQuota) => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "the app has stored as much as its quota of stored_bytes allows",
            ),
            Failure::Refused(CommandError::TopicRate) => {
                let detail = "the topic takes no more messages a second, see topics.rate";
                let mut problem = Self::new(StatusCode::TOO_MANY_REQUESTS, detail);
                problem.field = Some("to.topic".to_owned());
                problem
            }
            Failure::Refused(CommandError::KeyConflict) => {
                let mut problem = Self::new(StatusCode::CONFLICT, "this key was used for another push");
                problem.field = Some("key".to_owned());
                problem
            }
            Failure::Refused(CommandError::StoreFailed) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the store cannot write; whether this was stored is not known",
            ),
            Failure::Refused(CommandError::Draining) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "the node is shutting down")
            }
            Failure::TimedOut => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "no answer in time; it may still be carried out (repeat it with the same `key` to be sure)",
            ),
            Failure::Gone => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the node stopped before it answered; it may have been carried out",
            ),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).expect("a struct of texts and numbers becomes JSON");
        let mut response = (status, Body::from(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(limits::RETRY_AFTER_SECONDS));
        }
        response
    }
}
