//! What each app has of a store: payload bytes of its inboxes, its topics' streams and that of everyone, against its quota.

use crate::base::ids::AppId;
use crate::base::message::StreamKey;

/// Counts by app. Empty where no app has a quota: then nothing is counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Shares(Vec<Share>);

#[derive(Clone, Copy, Debug, Default)]
struct Share {
    most: Option<u64>,
    bytes: u64,
}

impl Shares {
    /// By app; those beyond the list may store what they like.
    pub(super) fn new(quotas: &[Option<u64>]) -> Self {
        if quotas.iter().all(Option::is_none) {
            return Self::default();
        }
        Self(quotas.iter().map(|&most| Share { most, bytes: 0 }).collect())
    }

    /// Whether anybody asks.
    pub(super) fn counts(&self) -> bool {
        !self.0.is_empty()
    }

    pub(super) fn add(&mut self, stream: &StreamKey, bytes: u64) {
        if let Some(share) = self.of(stream) {
            share.bytes += bytes;
        }
    }

    /// After a damage that was accepted there may be less than was counted.
    pub(super) fn remove(&mut self, stream: &StreamKey, bytes: u64) {
        if let Some(share) = self.of(stream) {
            share.bytes = share.bytes.saturating_sub(bytes);
        }
    }

    pub(super) fn room(&self, app: AppId) -> Option<u64> {
        let share = self.0.get(usize::from(app.0))?;
        Some(share.most?.saturating_sub(share.bytes))
    }

    fn of(&mut self, stream: &StreamKey) -> Option<&mut Share> {
        self.0.get_mut(usize::from(app_of(stream)?.0))
    }
}

/// Whose quota a stream counts against: what backends are told has a bound of its own.
pub(super) fn app_of(stream: &StreamKey) -> Option<AppId> {
    match stream {
        StreamKey::Inbox(app, _) | StreamKey::Topic(app, _) | StreamKey::Everyone(app) => Some(*app),
        StreamKey::Upstream(_) => None,
    }
}
