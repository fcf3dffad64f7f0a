//! Problems as gRPC statuses.

use super::super::problem::Problem;
use super::generated::PushError;
use crate::limits::RETRY_AFTER_SECONDS;
use core::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The code that says what an HTTP status says. The table stands in the .proto as well.
pub(super) fn code(http: u16) -> Code {
    match http {
        400 | 405 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        408 | 504 => Code::DeadlineExceeded,
        409 => Code::AlreadyExists,
        413 => Code::OutOfRange,
        429 => Code::ResourceExhausted,
        501 => Code::Unimplemented,
        503 => Code::Unavailable,
        _ => Code::Internal,
    }
}

/// A problem as the status of a call: with the field, and with when to try again.
pub(super) fn of(problem: Problem) -> Status {
    let code = code(problem.status);
    let mut details = ErrorDetails::new();
    if let Some(field) = &problem.field {
        details.add_bad_request_violation(field, &problem.detail);
    }
    if let Some(after) = retry_after(code) {
        details.set_retry_info(Some(after));
    }
    let message = text(&problem);
    if details.has_bad_request_violations() || details.retry_info().is_some() {
        Status::with_error_details(code, message, details)
    } else {
        Status::new(code, message)
    }
}

/// A problem as the error of one push of a stream.
pub(super) fn push_error(problem: Problem) -> PushError {
    let code = code(problem.status);
    let retry_after_ms = retry_after(code).map_or(0, |after| after.as_secs() as u32 * 1_000);
    PushError {
        code: code as i32 as u32,
        message: text(&problem),
        field: problem.field.unwrap_or_default(),
        retry_after_ms,
    }
}

fn text(problem: &Problem) -> String {
    match &problem.field {
        Some(field) => format!("{field}: {}", problem.detail),
        None => problem.detail.clone(),
    }
}

fn retry_after(code: Code) -> Option<Duration> {
    (code == Code::ResourceExhausted).then(|| Duration::from_secs(u64::from(RETRY_AFTER_SECONDS)))
}
