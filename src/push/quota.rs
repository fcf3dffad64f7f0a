//! How many messages each app may push: a bucket an app, of what its pushes name as receivers.

use super::problem::Problem;
use crate::base::bucket::{Bucket, Rate};
use crate::base::clock::Now;
use crate::base::ids::AppId;
use crate::limits::RATE_BURST_SECONDS;
use std::sync::{Mutex, PoisonError};
use tokio::time::Instant;

/// See the module.
pub(super) struct PushRates {
    /// Of apps that have none of their own.
    rate: Option<Rate>,
    /// By app.
    own: Vec<Option<Rate>>,
    begun: Instant,
    /// By app.
    buckets: Mutex<Vec<Bucket>>,
}

impl PushRates {
    /// So many a second and app, ten times as many at once; none: any. Apps by their number may have a rate of their own.
    pub(super) fn new(per_second: Option<u32>, own: &[Option<u32>]) -> Self {
        let rate = |per_second| Rate { per_second, burst_seconds: RATE_BURST_SECONDS };
        let own = own.iter().map(|own| own.map(rate)).collect();
        Self { rate: per_second.map(rate), own, begun: Instant::now(), buckets: Mutex::default() }
    }

    /// A push to so many receivers. One that is larger than what is left is taken, and the next ones wait for it: a list
    /// is one push or none.
    pub(super) fn take(&self, app: AppId, receivers: usize) -> Result<(), Problem> {
        let index = usize::from(app.0);
        let Some(rate) = self.own.get(index).copied().flatten().or(self.rate) else { return Ok(()) };
        let monotonic_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let now = Now { monotonic_ms, wall_ms: 0 };
        // A panic elsewhere cannot leave a bucket half changed: it is one number.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() <= index {
            buckets.resize(index + 1, Bucket::default());
        }
        buckets[index].borrow(rate, receivers as u64, now).map_err(|_| Problem::over_rate())
    }
}
