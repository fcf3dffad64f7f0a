//! The deadline that a caller gives a call: `grpc-timeout`, a number of at most 8 digits and a unit.

use axum::http::HeaderMap;
use core::future::Future;
use core::pin::Pin;
use core::time::Duration;
use tokio::time::{Instant, Sleep};
use tonic::Status;

/// When a call is over at the latest; none: its caller does not say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(Option<Instant>);

impl Deadline {
    /// From now on.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Status> {
        let Some(value) = headers.get("grpc-timeout") else { return Ok(Self(None)) };
        let timeout = value.to_str().ok().and_then(parse);
        let timeout = timeout.ok_or_else(|| Status::invalid_argument("grpc-timeout is not a timeout"))?;
        // A deadline beyond what clocks can say is none.
        Ok(Self(Instant::now().checked_add(timeout)))
    }

    /// Waits for the work, or until the deadline.
    pub(super) async fn bound<T>(self, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        match self.0 {
            None => work.await,
            Some(at) => tokio::time::timeout_at(at, work).await.unwrap_or_else(|_| Err(exceeded())),
        }
    }

    /// The time until it, if there is one.
    pub(super) fn sleep(self) -> Option<Pin<Box<Sleep>>> {
        self.0.map(|at| Box::pin(tokio::time::sleep_until(at)))
    }

    /// Comes back at the deadline, if there is one.
    pub(super) async fn passed(self) -> Status {
        match self.0 {
            None => core::future::pending().await,
            Some(at) => {
                tokio::time::sleep_until(at).await;
                exceeded()
            }
        }
    }
}

pub(super) fn exceeded() -> Status {
    Status::deadline_exceeded("no answer before the caller's deadline; it may still be carried out")
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_protocol_writes_them() {
        assert_eq!(parse("2H"), Some(Duration::from_secs(7_200)));
        assert_eq!(parse("3M"), Some(Duration::from_secs(180)));
        assert_eq!(parse("99999999S"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(parse("20m"), Some(Duration::from_millis(20)));
        assert_eq!(parse("20u"), Some(Duration::from_micros(20)));
        assert_eq!(parse("20n"), Some(Duration::from_nanos(20)));
        for wrong in ["", "S", "1", "1s", "-1S", "1.5S", "999999999S", "1 S", "é"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
