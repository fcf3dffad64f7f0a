//! Idempotency keys: found by app and key, and in the order of arrival, which is the order in which they go.

use super::layout::{self, KEY_NUMBER};
use super::{DurableStore, unreadable};
use crate::base::clock::Now;
use crate::base::ids::AppId;
use crate::limits::{KEY_AGE_MAX, STORE_KEYS_SWEPT_MAX};
use crate::store::{KeyOutcome, KnownKey, StoreFault};

fn is_over(at_ms: u64, now: Now) -> bool {
    now.wall_ms.saturating_sub(at_ms) >= KEY_AGE_MAX.as_millis() as u64
}

impl DurableStore {
    pub(super) fn find_key(&self, app: AppId, key: &str, now: Now) -> Result<Option<KnownKey>, StoreFault> {
        let parse = |value: &[u8]| layout::parse_key(value).ok_or_else(|| unreadable("an idempotency key"));
        let kept = self.get(&layout::idempotency_key(app, key), parse)?;
        Ok(kept.filter(|kept| !is_over(kept.at_ms, now)).map(|kept| kept.known))
    }

    pub(super) fn remember(&mut self, outcome: &KeyOutcome, now: Now) -> Result<(), StoreFault> {
        self.sweep_keys(now)?;
        if self.state.keys_next - self.state.keys_first >= self.retentions.keys as u64 {
            self.pop_key()?;
            self.keys_dropped += 1;
        }
        let KeyOutcome { key, positions } = outcome;
        let stored = layout::idempotency_key(key.app, &key.key);
        let number = self.state.keys_next;
        self.state.keys_next += 1;
        // One that is over but has not gone yet (the wall clock went back) leaves its place to this one.
        let is_new = self.get(&stored, |_| Ok(()))?.is_none();
        self.state.keys += u64::from(is_new);
        self.scratch.clear();
        layout::write_key(key, positions, number, now.wall_ms, &mut self.scratch);
        self.draft.put(&stored, &self.scratch);
        self.scratch.clear();
        layout::write_key_number(now.wall_ms, &stored, &mut self.scratch);
        self.draft.put(&layout::numbered(KEY_NUMBER, number), &self.scratch);
        Ok(())
    }

    /// Removes some of what is over, the oldest first.
    pub(super) fn sweep_keys(&mut self, now: Now) -> Result<(), StoreFault> {
        for _ in 0..STORE_KEYS_SWEPT_MAX {
            if !self.oldest_key_is_over(now)? {
                break;
            }
            self.pop_key()?;
        }
        Ok(())
    }

    fn oldest_key_is_over(&mut self, now: Now) -> Result<bool, StoreFault> {
        if self.state.keys_first == self.state.keys_next {
            return Ok(false);
        }
        if let Some(at_ms) = self.oldest_key_ms {
            return Ok(is_over(at_ms, now));
        }
        let oldest = layout::numbered(KEY_NUMBER, self.state.keys_first);
        let at_ms = self.get(&oldest, |value| {
            layout::parse_key_number(value).map(|(at_ms, _)| at_ms).ok_or_else(|| unreadable("an idempotency key"))
        })?;
        let at_ms = at_ms.ok_or_else(|| unreadable("an idempotency key"))?;
        self.oldest_key_ms = Some(at_ms);
        Ok(is_over(at_ms, now))
    }

    fn pop_key(&mut self) -> Result<(), StoreFault> {
        let number = self.state.keys_first;
        let oldest = layout::numbered(KEY_NUMBER, number);
        let parse = |value: &[u8]| layout::parse_key_number(value).map(|(_, key)| key.to_vec());
        let stored = self.get(&oldest, |value| parse(value).ok_or_else(|| unreadable("an idempotency key")))?;
        let stored = stored.ok_or_else(|| unreadable("an idempotency key"))?;
        let kept = self.get(&stored, |value| {
            layout::parse_key(value).map(|kept| kept.number).ok_or_else(|| unreadable("an idempotency key"))
        })?;
        if kept == Some(number) {
            self.draft.remove(&stored);
            self.state.keys -= 1;
        }
        self.draft.remove(&oldest);
        self.state.keys_first += 1;
        self.oldest_key_ms = None;
        Ok(())
    }
}
