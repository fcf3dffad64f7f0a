//! Reads: pages that are bounded in entries and in bytes. Each begins where something may be, not among what was
//! removed, so its cost follows from what it returns.

use super::layout::{self, Body, FORGOTTEN, GAP, INBOX_ENTRY, RECORD, SHARED, TOPIC_ENTRY, TOPIC_OFFSET};
use super::{DurableStore, fault, parse_message, unreadable};
use crate::base::ids::{AppId, Epoch, Offset, Seq};
use crate::base::message::{Entry, Message, StreamKey};
use crate::limits::{READ_BYTES_MAX, STORE_SHARED_MESSAGES_MAX};
use crate::store::{Record, StoreFault, StreamGap};
use fjall::Guard;
use std::collections::VecDeque;
use std::sync::Arc;

/// Messages of lists that were read lately: the users of a list read one allocation.
#[derive(Default)]
pub(super) struct SharedMessages(VecDeque<(u64, Arc<Message>)>);

impl SharedMessages {
    fn find(&self, id: u64) -> Option<Arc<Message>> {
        self.0.iter().find(|(known, _)| *known == id).map(|(_, message)| Arc::clone(message))
    }

    fn insert(&mut self, id: u64, message: &Arc<Message>) {
        if self.0.len() == STORE_SHARED_MESSAGES_MAX {
            self.0.pop_front();
        }
        self.0.push_back((id, Arc::clone(message)));
    }
}

type Pair = (fjall::UserKey, fjall::UserValue);

fn pair(found: Guard) -> Result<Pair, StoreFault> {
    found.into_inner().map_err(fault("read the store"))
}

/// Takes entries up to `limit`, and up to the one that reaches `READ_BYTES_MAX`.
fn page(limit: usize, entries: impl Iterator<Item = Result<Entry, StoreFault>>) -> Result<Vec<Entry>, StoreFault> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    for entry in entries.take(limit) {
        let entry = entry?;
        bytes += entry.message.payload.len();
        found.push(entry);
        if bytes >= READ_BYTES_MAX {
            break;
        }
    }
    Ok(found)
}

impl DurableStore {
    pub(super) fn entries_of(&self, stream: &StreamKey, after: Offset, limit: usize) -> Result<Vec<Entry>, StoreFault> {
        let Some(head) = self.head_of(stream)? else { return Ok(Vec::new()) };
        let from = after.0.saturating_add(1).max(head.first);
        if from > head.last {
            return Ok(Vec::new());
        }
        let topics = stream.topics_of();
        let kind = if topics.is_some() { TOPIC_OFFSET } else { INBOX_ENTRY };
        let range = layout::placed(kind, head.id, Offset(from))..=layout::placed(kind, head.id, Offset(head.last));
        let epoch = Epoch(self.state.epoch(head.made_epoch));
        let mut expected = from;
        let entries = self.space.range(range).map(|found| {
            let (key, value) = pair(found)?;
            let offset = Offset(expected);
            expected += 1;
            if layout::offset_of(&key) != Some(offset) {
                return Err(unreadable("a stream without a hole"));
            }
            match topics {
                None => self.inbox_entry(stream, epoch, offset, &value),
                Some(app) => self.topic_entry(app, &value),
            }
        });
        let found = page(limit, entries)?;
        if found.is_empty() && limit > 0 {
            return Err(unreadable("a stream's end"));
        }
        Ok(found)
    }

    fn inbox_entry(&self, stream: &StreamKey, epoch: Epoch, offset: Offset, value: &[u8]) -> Result<Entry, StoreFault> {
        let (seq, body) = layout::parse_inbox_entry(value).ok_or_else(|| unreadable("an inbox entry"))?;
        let message = match body {
            Body::Own(message) => Arc::new(message),
            Body::Shared(id) => self.shared_message(id)?,
        };
        Ok(Entry { stream: stream.clone(), epoch, offset, seq, message })
    }

    fn shared_message(&self, id: u64) -> Result<Arc<Message>, StoreFault> {
        if let Some(message) = self.shared.borrow().find(id) {
            return Ok(message);
        }
        let message = self.get(&layout::numbered(SHARED, id), parse_message)?;
        let message = Arc::new(message.ok_or_else(|| unreadable("a list's message"))?);
        self.shared.borrow_mut().insert(id, &message);
        Ok(message)
    }

    /// The entry to which a place in a topic's stream points.
    fn topic_entry(&self, app: AppId, place: &[u8]) -> Result<Entry, StoreFault> {
        let front = layout::parse_topic_offset(place).ok_or_else(|| unreadable("a topic's entry"))?;
        let key = layout::sequenced(TOPIC_ENTRY, app, front.seq);
        let entry = self.get(&key, |value| self.parse_topic(&key, value))?;
        entry.ok_or_else(|| unreadable("a topic's entry"))
    }

    fn parse_topic(&self, key: &[u8], value: &[u8]) -> Result<Entry, StoreFault> {
        let parsed = layout::parse_topic_entry(key, value);
        let (made_epoch, mut entry) = parsed.ok_or_else(|| unreadable("a topic's entry"))?;
        entry.epoch = Epoch(self.state.epoch(made_epoch));
        Ok(entry)
    }

    pub(super) fn topic_entries(&self, app: AppId, after: Seq, limit: usize) -> Result<Vec<Entry>, StoreFault> {
        let gone = self.topics_gone.borrow().get(&app).copied().unwrap_or_default();
        let from = after.0.max(gone.0).saturating_add(1);
        if from > self.state.seq.0 {
            return Ok(Vec::new());
        }
        let range =
            layout::sequenced(TOPIC_ENTRY, app, Seq(from))..=layout::sequenced(TOPIC_ENTRY, app, self.state.seq);
        let entries = self.space.range(range).map(|found| {
            let (key, value) = pair(found)?;
            self.parse_topic(&key, &value)
        });
        let found = page(limit, entries)?;
        if after <= gone && limit > 0 {
            // All behind what is known to be gone was looked at up to here.
            let first = found.first().map_or(self.state.seq, |entry| Seq(entry.seq.0 - 1));
            self.topics_gone.borrow_mut().insert(app, first);
        }
        Ok(found)
    }

    pub(super) fn gaps(&self, app: AppId, after: Seq, limit: usize) -> Result<Vec<StreamGap>, StoreFault> {
        if after >= self.state.seq {
            return Ok(Vec::new());
        }
        let range = |kind| {
            let from = layout::sequenced(kind, app, Seq(after.0 + 1));
            self.space.range(from..=layout::sequenced(kind, app, Seq(u64::MAX))).take(limit)
        };
        let mut gaps = Vec::new();
        for (kind, found) in
            range(GAP).map(|found| (GAP, found)).chain(range(FORGOTTEN).map(|found| (FORGOTTEN, found)))
        {
            let (key, value) = pair(found)?;
            let stream = layout::parse_gap_value(&value).ok_or_else(|| unreadable("a gap"))?;
            let trimmed = layout::last_number(&key).map(Seq).ok_or_else(|| unreadable("a gap"))?;
            let kept_from = match kind {
                GAP => self.head_of(&stream)?.map_or(1, |head| head.first),
                // Its next life counts from 1 again.
                _ => 1,
            };
            gaps.push(StreamGap { stream, kept_from: Offset(kept_from), trimmed });
        }
        gaps.sort_unstable_by_key(|gap| gap.trimmed);
        gaps.truncate(limit);
        Ok(gaps)
    }

    pub(super) fn records(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Vec<Record>, StoreFault> {
        // `after` may lie before the prefix (it is empty for the first page) or behind it; the later bound decides.
        let from = if after < prefix { prefix } else { after };
        let range = layout::prefixed(RECORD, from)..vec![RECORD + 1];
        let mut found = Vec::new();
        for record in self.space.range(range) {
            if found.len() >= limit {
                break;
            }
            let (key, value) = pair(record)?;
            let key = &key[1..];
            if !key.starts_with(prefix) {
                break;
            }
            if key != after {
                found.push((key.into(), (&*value).into()));
            }
        }
        Ok(found)
    }
}
