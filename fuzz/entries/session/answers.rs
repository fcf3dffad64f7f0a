//! The store's and the router's part: answers, messages, time.

use super::super::draw::Draw;
use super::{DEVICES, EPOCH, World};
use kittiwake::base::ids::{AppId, Epoch, Offset, Qos, Seq, SessionId};
use kittiwake::base::log::{StoreError, StreamHead};
use kittiwake::base::message::{Entry, Message, StreamKey};
use kittiwake::session::{Effects, LoggedAt, Offer, Session, mqtt, protocol, sse};
use std::sync::Arc;

impl World {
    pub fn answer_commit(&mut self, works: bool) {
        if let Some((id, ticket)) = self.commits.pop_front() {
            let result = if works { Ok(()) } else { Err(StoreError::Failed) };
            self.call(id, |session, _, effects| protocol::on_committed(session, ticket, result, effects));
        }
    }

    pub fn answer_publish(&mut self, draw: &mut Draw<'_>) {
        if self.publishes.is_empty() {
            return;
        }
        let (id, receipt) = self.publishes.remove(draw.below(self.publishes.len()));
        let result =
            draw.pick(&[Ok(true), Ok(false), Ok(true), Ok(true), Err(StoreError::Busy), Err(StoreError::Failed)]);
        self.call(id, |session, _, effects| mqtt::on_published(session, receipt, result, effects));
    }

    pub fn answer_install(&mut self) {
        if let Some((id, ticket)) = self.installs.pop_front() {
            let seq = self.seq;
            self.call(id, |session, _, effects| protocol::on_interest_installed(session, ticket, seq, effects));
        }
    }

    pub fn message(&self, topic: &str, draw: &mut Draw<'_>, qos: Qos) -> Arc<Message> {
        Arc::new(Message {
            app: AppId(0),
            topic: topic.into(),
            only_device: None,
            payload: b"x".as_slice().into(),
            qos,
            retain: false,
            created_ms: self.now.wall_ms,
            expires_ms: (draw.below(4) == 0).then(|| self.now.wall_ms + 1_000),
            publisher: None,
            properties: None,
        })
    }

    /// A committed push to the user.
    pub fn push(&mut self, draw: &mut Draw<'_>) {
        let qos = draw.pick(&[Qos::AtLeastOnce, Qos::ExactlyOnce]);
        let mut message = self.message(draw.pick(&["$inbox/a", "$inbox/b"]), draw, qos);
        if draw.below(4) == 0 {
            message = Arc::new(Message { only_device: Some(draw.pick(&DEVICES).into()), ..(*message).clone() });
        }
        self.seq = Seq(self.seq.0 + 1);
        let offset = Offset(self.inbox.len() as u64 + 1);
        let stream = StreamKey::Inbox(AppId(0), "ann".into());
        self.inbox.push(Entry { stream, epoch: EPOCH, offset, seq: self.seq, message: Arc::clone(&message) });
        for id in [0, 1].into_iter().filter_map(|device| self.session_of(device)).collect::<Vec<_>>() {
            let session = self.directory.get(id).expect("it was just found");
            let is_meant = message.only_device.as_deref().is_none_or(|device| device == session.device());
            let effective = session.effective(&message.topic, None).filter(|_| is_meant);
            match effective.map(|effective| effective.qos.min(qos)) {
                Some(qos) => {
                    let at = LoggedAt::Inbox(offset);
                    self.owe(id, at, &message);
                    let offer = self.offer(id, |session, effects| {
                        session.offer_logged(at, (EPOCH, offset), &message, qos, effects)
                    });
                    self.note_live(id, &message, offer);
                    self.sent_once(id, at, offer);
                }
                None => drop(self.call(id, |session, _, effects| session.pass_inbox(offset, EPOCH, effects))),
            }
        }
    }

    /// A message of a topic, logged or not.
    pub fn topic(&mut self, draw: &mut Draw<'_>) {
        let qos = draw.pick(&[Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce]);
        let message = self.message(draw.pick(&["a", "a/b", "b"]), draw, qos);
        let is_logged = draw.flag();
        if is_logged {
            self.seq = Seq(self.seq.0 + 1);
            let stream = StreamKey::Topic(AppId(0), Arc::clone(&message.topic));
            let offset = Offset(self.stream_of(&message.topic).count() as u64 + 1);
            self.topics.push(Entry { stream, epoch: EPOCH, offset, seq: self.seq, message: Arc::clone(&message) });
        }
        let (seq, place) = (self.seq, (EPOCH, Offset(self.stream_of(&message.topic).count() as u64)));
        for id in [0, 1].into_iter().filter_map(|device| self.session_of(device)).collect::<Vec<_>>() {
            let session = self.directory.get(id).expect("it was just found");
            let Some(effective) = session.effective(&message.topic, None) else { continue };
            let qos = effective.qos.min(qos);
            let at = LoggedAt::Topics(seq);
            if is_logged {
                self.owe(id, at, &message);
            }
            let offer = if is_logged && draw.below(8) == 0 {
                self.call(id, |session, _, effects| session.notify_topics(seq, effects));
                Some(Offer::Behind)
            } else if is_logged {
                self.offer(id, |session, effects| session.offer_logged(at, place, &message, qos, effects))
            } else {
                self.offer(id, |session, effects| session.offer_volatile(&message, qos, effects))
            };
            self.note_live(id, &message, offer);
            self.sent_once(id, at, offer);
        }
    }

    fn sent_once(&mut self, id: SessionId, at: LoggedAt, offer: Option<Offer>) {
        if let (Some(Offer::SendOnce), Some(link)) = (offer, self.link_of(id)) {
            link.owed.settle(at);
        }
    }

    /// What was logged of a topic.
    fn stream_of<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.topics.iter().filter(move |entry| *entry.message.topic == *topic)
    }

    /// What comes over an event stream that is open reaches it, unless its time ends before.
    fn owe(&mut self, id: SessionId, at: LoggedAt, message: &Message) {
        let is_open = self.directory.get(id).is_some_and(Session::is_open);
        if let Some(link) = self.link_of(id)
            && link.is_events()
            && is_open
            && message.expires_ms.is_none()
        {
            link.owed.add(at);
        }
    }

    /// Offers a message and, if it is taken, sends it.
    pub fn offer(&mut self, id: SessionId, offer: impl FnOnce(&mut Session, &mut Effects) -> Offer) -> Option<Offer> {
        let offer = self.call(id, |session, _, effects| offer(session, effects));
        if let Some(Offer::Send(delivery)) = offer {
            let connection = self.directory.get(id).and_then(Session::connection);
            let link = self.links.iter().position(|link| link.as_ref().map(|link| link.connection) == connection);
            self.deliver(Some(id), link, delivery, false);
        }
        offer
    }

    /// Where a topic's stream stands, to those who look for their place in it.
    pub fn answer_locate(&mut self, works: bool) {
        let Some((id, topic, after)) = self.locates.pop() else { return };
        if !works {
            self.call(id, |session, _, effects| sse::locate_again(session, effects));
            return;
        }
        let last = Offset(self.stream_of(&topic).count() as u64);
        let epoch = if last == Offset(0) { Epoch(0) } else { EPOCH };
        let head = StreamHead { epoch, first: Offset(1), last, trimmed: Seq(0) };
        let entries: Vec<_> = self.stream_of(&topic).filter(|entry| entry.offset > after).take(1).cloned().collect();
        self.call(id, |session, _, effects| protocol::on_located(session, head, &entries, effects));
    }

    pub fn answer_pull(&mut self, works: bool) {
        if let Some((id, after, limit)) = self.inbox_pulls.pop() {
            let head = self.head();
            if !works {
                return self.fail_pull(id);
            }
            let is_wanted = |entry: &&Entry| entry.offset > after && entry.offset >= head.first;
            let entries: Vec<_> = self.inbox.iter().filter(is_wanted).take(limit).cloned().collect();
            self.call(id, |session, now, effects| session.on_inbox_pulled(head, &entries, now, effects));
        } else if let Some((id, after, limit)) = self.topic_pulls.pop() {
            if !works {
                return self.fail_pull(id);
            }
            let entries: Vec<_> = self.topics.iter().filter(|entry| entry.seq > after).take(limit).cloned().collect();
            let through = if entries.len() == limit { entries[limit - 1].seq } else { self.seq };
            self.call(id, |session, now, effects| session.on_topics_pulled(&entries, &[], through, now, effects));
        }
    }

    fn fail_pull(&mut self, id: SessionId) {
        self.call(id, |session, _, effects| {
            session.on_pull_failed();
            session.pull_again(effects);
        });
    }

    pub fn tell_inbox(&mut self, device: usize) {
        let Some(id) = self.session_of(device) else { return };
        let mark = self.directory.read_mark(AppId(0), "ann").map_or(Offset(0), |(_, mark)| mark);
        let head = self.head();
        let session = self.directory.get(id).expect("it was just found");
        if session.wants_inbox_start() || session.wants_inbox_end() {
            self.call(id, |session, _, effects| protocol::on_inbox_known(session, mark, head, effects));
        }
    }

    /// Lets time pass, with the timers of sessions without a connection.
    pub fn pass(&mut self, ms: u64) {
        self.now.monotonic_ms += ms;
        self.now.wall_ms += ms;
        for id in [0, 1].into_iter().filter_map(|device| self.session_of(device)).collect::<Vec<_>>() {
            let deadline = self.directory.get(id).and_then(Session::offline_deadline);
            if deadline.is_some_and(|at| at <= self.now.monotonic_ms) {
                self.call(id, |session, now, effects| session.handle_timer(now, effects));
            }
        }
    }
}
