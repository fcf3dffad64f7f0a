//! The session and its waiting states.

use super::super::{Counter, DeliveryId, Effects};
use crate::base::clock::Now;
use crate::base::ids::{AppId, ConnectionId, Epoch, Offset, Qos, Seq};
use crate::base::message::{Entry, Message};
use crate::store::{RecordChange, StreamHead};
use smallvec::SmallVec;
use std::sync::Arc;

/// Where a committed message stands for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoggedAt {
    /// In the user's inbox.
    Inbox(Offset),
    /// In a topic or everyone.
    Topics(Seq),
}

/// What became of an offered message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// In flight: encode and send it now.
    Send(DeliveryId),
    /// Send it now at QoS 0; nothing is kept of it.
    SendOnce,
    /// In flight, but its identifier must be committed first (an [`super::super::Effect::Commit`] was emitted);
    /// [`super::super::Effect::Deliver`] follows.
    AfterCommit,
    /// Logged, and the session cannot take it now: it will pull it.
    Behind,
    /// Not logged, and the window is full: the topic's policy decides.
    Full,
    /// Logged, and not for this session (another device's, or delivered already).
    Passed,
    /// Not delivered, for this reason.
    Skipped(Counter),
}

/// How far an in-flight message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flight {
    /// QoS 2 of a durable session: its identifier is being committed; not sent yet.
    Committing,
    /// Sent, or handed to the shard for sending.
    Sent,
    /// QoS 2: PUBREC has come, that is being committed, PUBREL has not left.
    Releasing,
    /// QoS 2: PUBREL has left.
    Released,
    /// Settled, kept until the prefix passes it.
    Settled,
}

/// A message between its first sending and its settling.
#[derive(Clone, Debug)]
pub struct InFlight {
    /// Its name towards the client.
    pub delivery: DeliveryId,
    /// How far it is.
    pub state: Flight,
    /// QoS of the delivery, 1 or 2.
    pub qos: Qos,
    /// Where it is logged; none: it is not.
    pub at: Option<LoggedAt>,
    /// What; none once released.
    pub message: Option<Arc<Message>>,
}

/// The options of a topic over all of a session's matching subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The highest granted one.
    pub qos: Qos,
    /// Any of them asks for it.
    pub retain_as_published: bool,
    /// All of them.
    pub identifiers: SmallVec<[u32; 1]>,
}

/// One subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The filter.
    pub text: Arc<str>,
    /// The log's seq at which it began: older topic entries are not for it.
    pub since: Seq,
    /// The router's filter.
    pub filter: u32,
    /// Place in the filter's list.
    pub position: u32,
    /// MQTT 5 Subscription Identifier; 0: none.
    pub identifier: u32,
    /// Granted QoS.
    pub qos: Qos,
    /// MQTT 5 No Local.
    pub no_local: bool,
    /// MQTT 5 Retain As Published.
    pub retain_as_published: bool,
}

/// How a connection ended, for the will's sake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// The client said goodbye and wants no will (already noted by the adapter).
    Clean,
    /// Anything else.
    Unclean,
}

/// One device's conversation. 128 bytes; what most do not need is boxed.
#[derive(Debug)]
pub struct Session {
    pub(in crate::session) app: AppId,
}

impl Session {
    /// Tenant.
    pub fn app(&self) -> AppId {
        unimplemented!()
    }
    /// User within it.
    pub fn user(&self) -> &str {
        unimplemented!()
    }
    /// Device of the user.
    pub fn device(&self) -> &str {
        unimplemented!()
    }
    /// The hash messages carry as their publisher.
    pub fn publisher(&self) -> u64 {
        unimplemented!()
    }
    /// Its connection while it has one.
    pub fn connection(&self) -> Option<ConnectionId> {
        unimplemented!()
    }
    /// Whether it outlives its connection, so that its messages are logged.
    pub fn is_durable(&self) -> bool {
        unimplemented!()
    }
    /// The client's Maximum Packet Size; the shard settles what is larger with [`Session::settle_unsent`].
    pub fn packet_bytes_max(&self) -> u32 {
        unimplemented!()
    }
    /// Whether the connection speaks MQTT 5.
    pub fn is_mqtt5(&self) -> bool {
        unimplemented!()
    }
    /// All subscriptions.
    pub fn subscriptions(&self) -> &[Subscription] {
        unimplemented!()
    }
    /// Options of a live message over all matching subscriptions; none: it is not for this session (No Local).
    pub fn effective(&self, topic: &str, publisher: Option<u64>) -> Option<Effective> {
        let _ = (topic, publisher);
        unimplemented!()
    }
    /// Of the router's filters `among` (all matching a topic), the first this session has: a fan-out that visits it
    /// by several filters serves it by that one only.
    pub fn first_match(&self, topic: &str, among: &[u32]) -> Option<u32> {
        let _ = (topic, among);
        unimplemented!()
    }
    /// The router moved the subscription with this filter.
    pub fn relocate(&mut self, filter: u32, new_position: u32) {
        let _ = (filter, new_position);
        unimplemented!()
    }
    /// Offers a message that is in no log, at the effective QoS.
    pub fn offer_volatile(&mut self, message: &Arc<Message>, qos: Qos, effects: &mut Effects) -> Offer {
        let _ = (message, qos, effects);
        unimplemented!()
    }
    /// Offers a committed message, at the effective QoS. Each session gets each matching entry once, in order.
    pub fn offer_logged(
        &mut self,
        at: LoggedAt,
        epoch: Epoch,
        message: &Arc<Message>,
        qos: Qos,
        effects: &mut Effects,
    ) -> Offer {
        let _ = (at, epoch, message, qos, effects);
        unimplemented!()
    }
    /// Tells of a committed inbox entry that matches none of the session's filters.
    pub fn pass_inbox(&mut self, offset: Offset, epoch: Epoch) {
        let _ = (offset, epoch);
        unimplemented!()
    }
    /// An in-flight message, for encoding.
    pub fn in_flight(&self, delivery: DeliveryId) -> Option<&InFlight> {
        let _ = delivery;
        unimplemented!()
    }
    /// Settles what the shard could not send (too large for the client, expired before its first sending) and counts it.
    pub fn settle_unsent(&mut self, delivery: DeliveryId, why: Counter, effects: &mut Effects) {
        let _ = (delivery, why, effects);
        unimplemented!()
    }
    /// Tells where the inbox begins for a session opened without that knowledge: `start` is the user's read mark.
    pub fn on_inbox_known(&mut self, start: Offset, head: StreamHead, effects: &mut Effects) {
        let _ = (start, head, effects);
        unimplemented!()
    }
    /// Answers [`super::super::Effect::PullInbox`].
    pub fn on_inbox_pulled(&mut self, head: StreamHead, entries: &[Entry], now: Now, effects: &mut Effects) {
        let _ = (head, entries, now, effects);
        unimplemented!()
    }
    /// Answers [`super::super::Effect::PullTopics`].
    pub fn on_topics_pulled(&mut self, entries: &[Entry], through: Seq, now: Now, effects: &mut Effects) {
        let _ = (entries, through, now, effects);
        unimplemented!()
    }
    /// A pull failed: it is asked again.
    pub fn on_pull_failed(&mut self, effects: &mut Effects) {
        let _ = effects;
        unimplemented!()
    }
    /// Its connection is gone. Emits the will, `RecordDirty` or `End` as they are due; afterwards
    /// [`Session::offline_deadline`] says when to call [`Session::handle_timer`].
    pub fn on_connection_closed(&mut self, how: Close, now: Now, shard_seq: Seq, effects: &mut Effects) {
        let _ = (how, now, shard_seq, effects);
        unimplemented!()
    }
    /// Monotonic milliseconds of the earlier of will delay and expiry; none while connected.
    pub fn offline_deadline(&self) -> Option<u64> {
        unimplemented!()
    }
    /// Publishes the will and ends the session as far as they are due.
    pub fn handle_timer(&mut self, now: Now, effects: &mut Effects) {
        let _ = (now, effects);
        unimplemented!()
    }
    /// The lazily written part of the record, if it changed since the last call.
    pub fn record_lazy(&mut self, shard_seq: Seq, now: Now, records: &mut Vec<RecordChange>) {
        let _ = (shard_seq, now, records);
        unimplemented!()
    }
    /// Ends it now (an administrator's wish, or replaced by a clean start): will rule, `Unsubscribe`s, `End`.
    pub fn end(&mut self, now: Now, effects: &mut Effects) {
        let _ = (now, effects);
        unimplemented!()
    }
    /// Everything it is, as versioned bytes.
    pub fn freeze(&self, out: &mut Vec<u8>) {
        let _ = out;
        unimplemented!()
    }
}
