//! Unlogged QoS ≥ 1 messages for sessions whose window is full: kept once per shard as references, read by each
//! session from where it stands when its window opens. Bounded; when it overruns, the oldest are dropped for those
//! who had not read them, and counted one by one.

use crate::base::message::Message;
use crate::limits::{LAGGING_BYTES_MAX, LAGGING_MESSAGES_MAX};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// See the module. Messages are numbered from 1 by this shard.
#[derive(Debug, Default)]
pub(crate) struct Lagging {
    ring: VecDeque<Arc<Message>>,
    bytes: usize,
    /// Number of the newest message.
    newest: u64,
    /// Session index → the number of the first message it has not been offered.
    sessions: HashMap<u32, u64>,
}

impl Lagging {
    /// Keeps a message and gives its number. What has to go for it is shown to `evict` first.
    pub(crate) fn push(
        &mut self,
        message: Arc<Message>,
        mut evict: impl FnMut(&Message, &mut dyn Iterator<Item = u32>),
    ) -> u64 {
        self.newest += 1;
        self.bytes += message.payload.len();
        self.ring.push_back(message);
        while self.ring.len() > 1 && (self.ring.len() > LAGGING_MESSAGES_MAX || self.bytes > LAGGING_BYTES_MAX) {
            let number = self.oldest();
            let gone = self.ring.pop_front().expect("there is more than one");
            self.bytes -= gone.payload.len();
            if !self.sessions.is_empty() {
                let mut behind = self.sessions.iter().filter(|(_, next)| **next <= number).map(|(session, _)| *session);
                evict(&gone, &mut behind);
            }
        }
        self.newest
    }

    /// The session's window was full at this message.
    pub(crate) fn stop_at(&mut self, session: u32, number: u64) {
        self.sessions.entry(session).or_insert(number);
    }

    /// Whether the session has messages waiting here, so that later ones must wait as well.
    #[inline]
    pub(crate) fn is_behind(&self, session: u32) -> bool {
        !self.sessions.is_empty() && self.sessions.contains_key(&session)
    }

    /// The session's next message and its number; none: it is no longer behind.
    pub(crate) fn next(&mut self, session: u32) -> Option<(u64, Arc<Message>)> {
        let number = (*self.sessions.get(&session)?).max(self.oldest());
        if number > self.newest {
            self.sessions.remove(&session);
            return None;
        }
        let index = usize::try_from(number - self.oldest()).expect("the ring is bounded");
        Some((number, Arc::clone(&self.ring[index])))
    }

    /// The session has been offered the message with this number.
    pub(crate) fn advance(&mut self, session: u32, number: u64) {
        self.sessions.insert(session, number + 1);
    }

    /// The session is gone.
    pub(crate) fn forget(&mut self, session: u32) {
        self.sessions.remove(&session);
    }

    /// Sessions that are behind.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.len()
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

    #[test]
    fn a_session_reads_on_where_it_stopped() {
        let mut lagging = Lagging::default();
        for n in 0..3 {
            let number = lagging.push(message(n), |_, _| panic!("nothing has to go"));
            if n >= 1 {
                lagging.stop_at(7, number);
            }
        }
        for n in 1..3 {
            let (number, message) = lagging.next(7).expect("it is behind");
            assert_eq!(&*message.topic, format!("t/{n}"));
            lagging.advance(7, number);
        }
        assert!(lagging.next(7).is_none());
        assert!(!lagging.is_behind(7));
    }

    #[test]
    fn what_overruns_is_shown_once_for_each_session_behind() {
        let mut lagging = Lagging::default();
        let first = lagging.push(message(0), |_, _| panic!("nothing has to go"));
        lagging.stop_at(1, first);
        lagging.stop_at(2, first + 1);
        let mut lost = Vec::new();
        for n in 1..=LAGGING_MESSAGES_MAX {
            lagging
                .push(message(n), |gone, behind| lost.extend(behind.map(|session| (session, gone.topic.to_string()))));
        }
        assert_eq!(lost, [(1, "t/0".to_owned())]);
        assert_eq!(lagging.next(1).expect("it is behind").0, 2);
    }
}
