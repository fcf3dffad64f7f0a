//! Unlogged QoS ≥ 1 messages for sessions that cannot take them now: kept once per shard as references, with a list per
//! session of those that wait for it, in the order of their numbers. Bounded; when it overruns, the oldest are
//! dropped for those who had not taken them, and counted one by one.
//!
//! A list, and not a place from which to read on: passes of several topics take turns, so what reaches a session is
//! not in the order of the numbers. It goes out in that order all the same, which is also that of the logged messages it
//! stands between: what reached the session late would else find those behind it gone.

use crate::base::ids::Seq;
use crate::base::message::Message;
use crate::limits::{LAGGING_BYTES_MAX, LAGGING_MESSAGES_MAX, LAGGING_RANGES_MAX};
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

/// A message that waits.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) message: Arc<Message>,
    /// Logged messages up to this seq were on their way before it, later ones come behind it.
    pub(crate) behind: Seq,
}

/// See the module. Messages are numbered from 1 by this shard.
#[derive(Debug, Default)]
pub(crate) struct Lagging {
    ring: VecDeque<Kept>,
    bytes: usize,
    /// Number of the newest message.
    newest: u64,
    /// Session index → the numbers of what waits for it.
    sessions: HashMap<u32, VecDeque<Range<u64>>>,
    /// Ranges in all lists.
    ranges: usize,
    /// Dropped and not yet counted elsewhere.
    lost: u64,
}

impl Lagging {
    /// Keeps a message and gives its number; the oldest go for it.
    pub(crate) fn push(&mut self, message: Arc<Message>, behind: Seq) -> u64 {
        self.newest += 1;
        self.bytes += message.payload.len();
        self.ring.push_back(Kept { message, behind });
        while self.ring.len() > 1 && (self.ring.len() > LAGGING_MESSAGES_MAX || self.bytes > LAGGING_BYTES_MAX) {
            let gone = self.ring.pop_front().expect("there is more than one");
            self.bytes -= gone.message.payload.len();
        }
        self.newest
    }

    /// The session cannot take this message now.
    pub(crate) fn wait(&mut self, session: u32, number: u64) {
        let oldest = self.oldest();
        let list = self.sessions.entry(session).or_default();
        // Mostly behind all others.
        let at = list.partition_point(|range| range.start <= number);
        match at.checked_sub(1).map(|before| &mut list[before]).filter(|before| before.end == number) {
            Some(before) => before.end += 1,
            None => {
                list.insert(at, number..number + 1);
                self.ranges += 1;
            }
        }
        // What is gone is let go of here, so that a list is not longer than the ring. A list of one range takes no
        // more than the session's entry in the map, so it is not cut.
        while list.len() > 1 && (self.ranges > LAGGING_RANGES_MAX || list[0].end <= oldest) {
            let dropped = list.pop_front().expect("there is more than one");
            self.ranges -= 1;
            self.lost += dropped.end - dropped.start;
        }
        let first = list.front_mut().expect("one was added");
        let start = first.start.max(oldest.min(first.end));
        self.lost += start - first.start;
        first.start = start;
    }

    /// Whether the session has messages waiting here, so that later ones must wait as well.
    #[inline]
    pub(crate) fn is_behind(&self, session: u32) -> bool {
        !self.sessions.is_empty() && self.sessions.contains_key(&session)
    }

    /// The session's next message; none: it is no longer behind.
    pub(crate) fn next(&mut self, session: u32) -> Option<Kept> {
        let oldest = self.oldest();
        let list = self.sessions.get_mut(&session)?;
        while let Some(first) = list.front_mut() {
            let start = first.start.max(oldest.min(first.end));
            self.lost += start - first.start;
            first.start = start;
            if !first.is_empty() {
                let index = usize::try_from(start - oldest).expect("the ring is bounded");
                return Some(self.ring[index].clone());
            }
            list.pop_front();
            self.ranges -= 1;
        }
        self.sessions.remove(&session);
        None
    }

    /// The session has been offered what [`Self::next`] said.
    pub(crate) fn advance(&mut self, session: u32) {
        if let Some(first) = self.sessions.get_mut(&session).and_then(VecDeque::front_mut) {
            first.start += 1;
        }
    }

    /// The session is gone, or its connection.
    pub(crate) fn forget(&mut self, session: u32) {
        let list = self.sessions.remove(&session).unwrap_or_default();
        self.ranges -= list.len();
        let oldest = self.oldest();
        self.lost += list.iter().map(|range| oldest.min(range.end).saturating_sub(range.start)).sum::<u64>();
    }

    /// How many were dropped for a session since the last call.
    pub(crate) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// Sessions that are behind.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Bytes of the payloads that are kept.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn oldest(&self) -> u64 {
        self.newest + 1 - self.ring.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{AppId, Qos};

    fn message(n: usize) -> Arc<Message> {
        Arc::new(Message {
            app: AppId(0),
            topic: format!("t/{n}").into(),
            only_device: None,
            payload: bytes::Bytes::from_static(b"x"),
            qos: Qos::AtLeastOnce,
            retain: false,
            created_ms: 0,
            expires_ms: None,
            publisher: None,
            properties: None,
        })
    }

    fn taken(lagging: &mut Lagging, session: u32) -> Vec<String> {
        let mut topics = Vec::new();
        while let Some(kept) = lagging.next(session) {
            topics.push(kept.message.topic.to_string());
            lagging.advance(session);
        }
        topics
    }

    #[test]
    fn a_session_takes_what_waits_for_it_in_the_order_of_the_numbers_however_it_came() {
        let mut lagging = Lagging::default();
        for n in 1..=7 {
            assert_eq!(lagging.push(message(n), Seq(0)), n as u64);
        }
        for number in [3, 4, 1, 5, 7] {
            lagging.wait(7, number);
        }
        assert_eq!(lagging.next(7).map(|kept| kept.message.topic.to_string()).as_deref(), Some("t/1"));
        lagging.advance(7);
        // Behind what was taken, and in a gap.
        lagging.wait(7, 2);
        lagging.wait(7, 6);
        assert_eq!(taken(&mut lagging, 7), ["t/2", "t/3", "t/4", "t/5", "t/6", "t/7"]);
        assert!(!lagging.is_behind(7));
        assert_eq!((lagging.ranges, lagging.take_lost()), (0, 0));
    }

    #[test]
    fn what_overruns_is_counted_once_for_each_session_that_waits_for_it() {
        let mut lagging = Lagging::default();
        for n in 1..=2 {
            lagging.push(message(n), Seq(0));
        }
        lagging.wait(1, 1);
        lagging.wait(2, 2);
        lagging.wait(3, 1);
        for n in 3..=LAGGING_MESSAGES_MAX + 1 {
            let number = lagging.push(message(n), Seq(0));
            lagging.wait(1, number);
        }
        assert_eq!(lagging.take_lost(), 1);
        assert_eq!(&*lagging.next(1).expect("it is behind").message.topic, "t/3");
        assert_eq!(&*lagging.next(2).expect("it is behind").message.topic, "t/2");
        lagging.forget(3);
        assert_eq!(lagging.take_lost(), 1, "it left after the message had gone");
        assert_eq!((lagging.next(3).is_none(), lagging.ranges), (true, 2));
    }

    #[test]
    fn lists_of_many_ranges_are_cut_at_their_bound() {
        let mut lagging = Lagging::default();
        for n in 1..=3 {
            lagging.push(message(n), Seq(0));
        }
        lagging.ranges = LAGGING_RANGES_MAX - 1;
        lagging.wait(1, 1);
        assert_eq!(lagging.take_lost(), 0);
        lagging.wait(1, 3);
        assert_eq!((lagging.take_lost(), lagging.ranges), (1, LAGGING_RANGES_MAX));
        assert_eq!(taken(&mut lagging, 1), ["t/3"]);
    }
}
