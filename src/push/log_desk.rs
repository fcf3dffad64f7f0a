//! The control plane's requests to the log: a bounded table of who waits for which answer.

use super::control::Control;
use super::problem::Problem;
use crate::base::log::StoreError;
use crate::limits::{EVENTS_LOG_TIMEOUT, UPSTREAM_REQUESTS_MAX};
use crate::store::handle::{Answer, Done, Request, RequestToken};
use axum::http::StatusCode;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

type Result<T> = std::result::Result<T, StoreError>;

/// See the module.
pub(super) struct LogDesk {
    control: Arc<Control>,
    /// An entry stays until its answer comes, also when nobody waits for that any more: the answers' way has room for as
    /// many as there are entries.
    waiters: Mutex<HashMap<u64, oneshot::Sender<Result<Answer>>>>,
    next: AtomicU64,
}

/// An answer under way.
pub(super) struct Asked(oneshot::Receiver<Result<Answer>>);

impl LogDesk {
    pub(super) fn new(control: Arc<Control>) -> Self {
        Self { control, waiters: Mutex::default(), next: AtomicU64::new(1) }
    }

    /// A panic elsewhere while holding the lock cannot leave the table half changed: each change is one map call.
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Result<Answer>>>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks. Requests are committed in the order of these calls.
    ///
    /// # Errors
    /// `Busy`: as many wait as may, or the log's queue is full.
    pub(super) fn ask(&self, request: Request) -> Result<Asked> {
        let (to, from) = oneshot::channel();
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        let mut waiters = self.lock();
        if waiters.len() >= UPSTREAM_REQUESTS_MAX {
            return Err(StoreError::Busy);
        }
        // The answer may come before the call is back.
        waiters.insert(token, to);
        drop(waiters);
        self.control.ask_log(request, RequestToken(token)).inspect_err(|_| drop(self.lock().remove(&token)))?;
        Ok(Asked(from))
    }

    /// Asks and waits.
    pub(super) async fn answer(&self, request: Request) -> Result<Answer> {
        self.ask(request)?.answer().await
    }

    /// Takes an answer to whoever waits for it.
    pub(super) fn answered(&self, Done { token, result }: Done) {
        let waiter = self.lock().remove(&token.0);
        // Whoever asked may be gone; then there is nobody to tell.
        let _gone = waiter.map(|to| to.send(result));
    }
}

impl Asked {
    /// Waits for it.
    ///
    /// # Errors
    /// The log's, or `Failed` when it says nothing for too long: what was to be committed may be.
    pub(super) async fn answer(self) -> Result<Answer> {
        match tokio::time::timeout(EVENTS_LOG_TIMEOUT, self.0).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(StoreError::Failed),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Busy => Self::busy(),
            StoreError::Failed | StoreError::KeyConflict | StoreError::OverQuota => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "the store does not answer as it should")
            }
        }
    }
}
