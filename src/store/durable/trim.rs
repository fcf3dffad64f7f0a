//! Retention: what is too many or too old goes, from the old end of each stream, and streams that were empty for long go
//! whole. The work of one call is bounded; what is left is over the next time, too.

use super::heads::Open;
use super::layout::{self, FORGOTTEN, Front, GAP, Head, INBOX_ENTRY, STREAM, TOPIC_ENTRY, TOPIC_OFFSET};
use super::{DurableStore, fault, unreadable};
use crate::base::clock::Now;
use crate::base::ids::{AppId, Offset, Seq};
use crate::base::message::StreamKey;
use crate::limits::{
    FORGOTTEN_GAPS_MAX, STORE_FRONTS_MAX, STORE_SWEEP_ENTRIES_MAX, STORE_SWEEP_STREAMS_MAX, STORE_TRIM_ENTRIES_MAX,
};
use crate::store::StoreFault;
use crate::store::memory::{Retention, is_over};

/// Whether retention has anything to take of a stream now.
pub(super) fn has_excess(head: &Head, retention: Retention, now: Now) -> bool {
    let is_long = head.len() > 1 && head.bytes > retention.bytes;
    is_long || head.len() > retention.entries as u64 || head.len() > 0 && is_over(head.first_ms, retention.age, now)
}

/// From when on time alone gives retention something to take of a stream, or ends its life.
fn due_ms(head: &Head, retention: Retention) -> u64 {
    let (from_ms, after) = match head.len() {
        0 => (head.touched_ms, retention.forget_after),
        _ => (head.first_ms, retention.age),
    };
    from_ms.saturating_add(u64::try_from(after.as_millis()).unwrap_or(u64::MAX))
}

/// Where the visits to all streams are.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// The next visit is to the streams from this key on; empty: a round begins.
    from: Vec<u8>,
    /// The earliest time at which anything that this round has seen is due.
    due_ms: u64,
    /// Nothing is due before, so the next round waits for it.
    rests_until_ms: u64,
}

impl DurableStore {
    /// Applies retention to a stream whose head is at hand. At most `most` entries go, and never more than
    /// `STORE_TRIM_ENTRIES_MAX`. How many went.
    pub(super) fn trim(&mut self, stream: &StreamKey, most: usize, now: Now) -> Result<usize, StoreFault> {
        let retention = self.retentions.of(stream);
        let topics = stream.topics_of();
        let mut head = self.heads.get_mut().find(stream).expect("it is at hand").head;
        let before = head.trimmed;
        let mut gone = 0;
        while gone < most.min(STORE_TRIM_ENTRIES_MAX) && has_excess(&head, retention, now) {
            let front = self.pop_front(stream, &head)?;
            self.drop_entry(topics, &head, front)?;
            self.shares.remove(stream, front.payload_bytes);
            head.first += 1;
            head.bytes = head.bytes.saturating_sub(front.payload_bytes);
            head.trimmed = front.seq;
            self.heads.get_mut().find(stream).expect("it is at hand").head = head;
            if head.len() > 0 {
                head.first_ms = self.front(stream, &head)?.at_ms;
            }
            gone += 1;
        }
        self.heads.get_mut().find(stream).expect("it is at hand").head = head;
        if let Some(app) = topics.filter(|_| head.trimmed != before) {
            if before != Seq(0) {
                self.draft.remove(&layout::sequenced(GAP, app, before));
            }
            self.draft.put(&layout::sequenced(GAP, app, head.trimmed), &layout::gap_value(stream));
        }
        Ok(gone)
    }

    fn drop_entry(&mut self, topics: Option<AppId>, head: &Head, front: Front) -> Result<(), StoreFault> {
        match topics {
            None => self.draft.remove(&layout::placed(INBOX_ENTRY, head.id, Offset(head.first))),
            Some(app) => {
                self.draft.remove(&layout::placed(TOPIC_OFFSET, head.id, Offset(head.first)));
                self.draft.remove(&layout::sequenced(TOPIC_ENTRY, app, front.seq));
            }
        }
        self.state.entries -= 1;
        self.state.bytes -= front.payload_bytes;
        self.trimmed += 1;
        if let Some(id) = front.shared {
            let parse = |value: &[u8]| layout::last_number(value).ok_or_else(|| unreadable("a list's message"));
            let count = self.get(&layout::numbered(layout::SHARED_COUNT, id), parse)?;
            let count = count.filter(|count| *count > 0).ok_or_else(|| unreadable("a list's message"))?;
            self.put_shared_count(id, count - 1);
        }
        Ok(())
    }

    fn pop_front(&mut self, stream: &StreamKey, head: &Head) -> Result<Front, StoreFault> {
        let front = self.front(stream, head)?;
        self.heads.get_mut().find(stream).expect("it is at hand").fronts.pop_front();
        Ok(front)
    }

    /// The oldest entry; there is one.
    fn front(&mut self, stream: &StreamKey, head: &Head) -> Result<Front, StoreFault> {
        let open = self.heads.get_mut().find(stream).expect("it is at hand");
        if let Some(front) = open.fronts.front() {
            return Ok(*front);
        }
        let fronts = self.read_fronts(stream, head)?;
        let front = *fronts.front().ok_or_else(|| unreadable("a stream's oldest entry"))?;
        let open: &mut Open = self.heads.get_mut().find(stream).expect("it is at hand");
        open.fronts = fronts;
        Ok(front)
    }

    /// Some of the oldest entries: those of earlier commits, then those of this one.
    fn read_fronts(&self, stream: &StreamKey, head: &Head) -> Result<std::collections::VecDeque<Front>, StoreFault> {
        let is_inbox = stream.topics_of().is_none();
        let kind = if is_inbox { INBOX_ENTRY } else { TOPIC_OFFSET };
        let parse = |value: &[u8]| {
            let parsed = if is_inbox { layout::parse_inbox_front(value) } else { layout::parse_topic_offset(value) };
            parsed.ok_or_else(|| unreadable("an entry"))
        };
        let mut fronts = std::collections::VecDeque::new();
        let mut next = head.first;
        let range = layout::placed(kind, head.id, Offset(next))..=layout::placed(kind, head.id, Offset(head.last));
        for found in self.space.range(range).take(STORE_FRONTS_MAX) {
            let (key, value) = found.into_inner().map_err(fault("read the store"))?;
            if layout::offset_of(&key) != Some(Offset(next)) {
                return Err(unreadable("a stream without a hole"));
            }
            fronts.push_back(parse(&value)?);
            next += 1;
        }
        while next <= head.last && fronts.len() < STORE_FRONTS_MAX {
            let found = self.draft.get(&layout::placed(kind, head.id, Offset(next))).flatten();
            fronts.push_back(parse(found.ok_or_else(|| unreadable("an entry"))?)?);
            next += 1;
        }
        Ok(fronts)
    }

    /// Visits some streams in the order of their keys, and goes on from there the next time.
    pub(super) fn sweep_streams(&mut self, now: Now) -> Result<(), StoreFault> {
        if self.round.from.is_empty() {
            if now.wall_ms < self.round.rests_until_ms {
                return Ok(());
            }
            // What is appended during the round is not older than the round.
            let new = Head { first: 1, last: 1, first_ms: now.wall_ms, ..Head::default() };
            self.round.due_ms =
                self.retentions.iter().map(|retention| due_ms(&new, retention)).min().unwrap_or_default();
        }
        let mut excess = Vec::new();
        let (mut visited, mut last) = (0, None);
        let from = layout::prefixed(STREAM, &self.round.from);
        for found in self.space.range(from..vec![STREAM + 1]).take(STORE_SWEEP_STREAMS_MAX) {
            let (key, value) = found.into_inner().map_err(fault("read the store"))?;
            let head = Head::parse(&value).ok_or_else(|| unreadable("a stream"))?;
            let stream = layout::parse_stream_key(&key).ok_or_else(|| unreadable("a stream's name"))?;
            let retention = self.retentions.of(&stream);
            let is_over = head.len() == 0 && is_over(head.touched_ms, retention.forget_after, now);
            if is_over || has_excess(&head, retention, now) {
                excess.push(stream);
            }
            self.round.due_ms = self.round.due_ms.min(due_ms(&head, retention));
            visited += 1;
            last = Some(key);
        }
        let mut room = STORE_SWEEP_ENTRIES_MAX;
        for stream in excess {
            self.load(&stream)?;
            room -= self.trim(&stream, room, now)?;
            self.put_changed_head(&stream);
            let head = self.heads.get_mut().find(&stream).expect("it was just loaded").head;
            if head.len() == 0 && is_over(head.touched_ms, self.retentions.of(&stream).forget_after, now) {
                self.forget(&stream, &head)?;
            }
            if room == 0 {
                // The next sweep takes up the rest of this stream.
                self.round.from = layout::stream_key(&stream).split_off(1);
                return Ok(());
            }
        }
        match last.filter(|_| visited == STORE_SWEEP_STREAMS_MAX) {
            Some(key) => {
                self.round.from = key[1..].to_vec();
                self.round.from.push(0);
            }
            None => {
                self.round.from.clear();
                self.round.rests_until_ms = self.round.due_ms;
            }
        }
        Ok(())
    }

    /// Ends a stream's life; what has gone with it is known a while longer.
    fn forget(&mut self, stream: &StreamKey, head: &Head) -> Result<(), StoreFault> {
        self.draft.remove(&layout::stream_key(stream));
        self.heads.get_mut().remove(stream);
        self.state.streams -= 1;
        let Some(app) = stream.topics_of().filter(|_| head.trimmed != Seq(0)) else { return Ok(()) };
        self.draft.remove(&layout::sequenced(GAP, app, head.trimmed));
        self.draft.put(&layout::sequenced(FORGOTTEN, app, head.trimmed), &layout::gap_value(stream));
        let forgotten = self.forgotten.entry(app).or_default();
        *forgotten += 1;
        if *forgotten > FORGOTTEN_GAPS_MAX {
            let range = layout::sequenced(FORGOTTEN, app, Seq(0))..=layout::sequenced(FORGOTTEN, app, Seq(u64::MAX));
            // One that this very sweep has removed is still found here; then the next one goes.
            for found in self.space.range(range) {
                let key = found.key().map_err(fault("read the store"))?;
                if self.draft.get(&key).is_none() {
                    self.draft.remove(&key);
                    *forgotten -= 1;
                    break;
                }
            }
        }
        Ok(())
    }
}
