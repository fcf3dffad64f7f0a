//! The one place where a session's protocol is asked for: each call goes to the adapter that its connection speaks.

use super::core::own_position::Missing;
use super::directory::Directory;
use super::mqtt::{self, ConnectRequest, OpenAt, Refusal};
use super::sse::{self, EventsRequest};
use super::{CloseReason, Counter, DeliveryId, Effects, Gap, Identity, LoggedAt, Protocol, Session, Ticket};
use crate::auth::{Rights, Who};
use crate::base::clock::Now;
use crate::base::ids::{ConnectionId, Offset, Seq, SessionId};
use crate::base::log::{StoreError, StreamHead};
use crate::base::message::Entry;
use crate::base::secret::Secret;
use std::sync::Arc;

/// How a connection asks for a session: owned, so that it can move to the user's home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A CONNECT.
    Mqtt(Box<ConnectRequest>),
    /// A request for an event stream, or for what it would bring until there is something.
    Sse(Box<EventsRequest>),
}

impl Request {
    /// The user name it gives.
    pub fn username(&self) -> Option<&str> {
        match self {
            Self::Mqtt(request) => request.username.as_deref(),
            Self::Sse(request) => request.user.as_deref(),
        }
    }

    /// The device it gives; empty: it wants one to be drawn.
    pub fn device(&self) -> &str {
        match self {
            Self::Mqtt(request) => &request.client_id,
            Self::Sse(request) => &request.device,
        }
    }

    /// What it speaks.
    pub fn protocol_name(&self) -> &'static str {
        match self {
            Self::Mqtt(request) if request.mqtt5 => Protocol::Mqtt5.name(),
            Self::Mqtt(_) => Protocol::Mqtt311.name(),
            Self::Sse(request) if request.poll.is_some() => Protocol::Poll.name(),
            Self::Sse(request) => Protocol::Sse { raw: request.raw }.name(),
        }
    }

    /// Gives it the device that was drawn.
    pub fn assign(&mut self, device: Box<str>) {
        match self {
            Self::Mqtt(request) => request.client_id = device,
            Self::Sse(request) => request.device = device,
        }
    }

    /// It names an authentication method, the one that is spoken.
    pub fn by_method(&self) -> bool {
        matches!(self, Self::Mqtt(request) if request.by_method)
    }

    /// The token it shows, which is needed once.
    pub fn take_token(&mut self) -> Option<Secret> {
        match self {
            Self::Mqtt(request) => request.password.take(),
            Self::Sse(request) => request.token.take(),
        }
    }

    /// Says what its client may do.
    pub fn grant(&mut self, rights: Arc<Rights>) {
        match self {
            Self::Mqtt(request) => request.rights = Some(rights),
            Self::Sse(request) => request.rights = Some(rights),
        }
    }

    /// The same, where nobody has said more.
    pub fn grant_if_none(&mut self, rights: Arc<Rights>) {
        if self.rights().is_none() {
            self.grant(rights);
        }
    }

    fn rights(&self) -> Option<&Rights> {
        match self {
            Self::Mqtt(request) => request.rights.as_deref(),
            Self::Sse(request) => request.rights.as_deref(),
        }
    }

    /// Whether what it asks for at once is inside its rights: a will's topic, an event stream's filters.
    pub fn is_within_rights(&self, identity: &Identity) -> bool {
        let who = Who { user: &identity.user, device: &identity.device };
        let Some(rights) = self.rights() else { return true };
        match self {
            Self::Mqtt(request) => request.will.as_ref().is_none_or(|will| rights.may_publish(&will.topic, who)),
            Self::Sse(request) => request.filters.iter().all(|filter| rights.may_subscribe(filter, who)),
        }
    }

    /// Seconds within which it promises to say something; 0: it promises nothing.
    pub fn keep_alive(&self) -> u16 {
        match self {
            Self::Mqtt(request) => request.keep_alive,
            Self::Sse(_) => 0,
        }
    }

    /// Filters that it subscribes to as it comes.
    pub fn subscriptions(&self) -> usize {
        match self {
            Self::Mqtt(_) => 0,
            Self::Sse(request) => request.filters.len(),
        }
    }

    /// Whether it goes on with a session that is there.
    pub fn continues(&self) -> bool {
        match self {
            Self::Mqtt(request) => !request.clean_start,
            Self::Sse(_) => false,
        }
    }

    /// Refuses it: appends what its client understands, with the server to go to where it can be told.
    pub fn refuse(&self, why: Refusal, server_reference: Option<&str>, out: &mut Vec<u8>) {
        match self {
            Self::Mqtt(request) => mqtt::refuse(request, why, server_reference, out),
            Self::Sse(_) => sse::refuse(why, out),
        }
    }
}

/// Ends the old connection of a device that another one takes over. Its effects are for the old one; see
/// [`mqtt::take_over`].
pub fn take_over(session: &mut Session, by: &Request, now: Now, shard_seq: Seq, effects: &mut Effects) {
    disconnect(session, CloseReason::TakenOver, None, effects);
    let how = super::Close::TakenOver { continues: by.continues() };
    session.on_connection_closed(how, now, shard_seq, effects);
}

/// Opens the device's session on `connection`. The effects are for it; none: refused, the effects say so.
pub fn open(
    directory: &mut Directory,
    identity: &Identity,
    request: Request,
    connection: ConnectionId,
    at: OpenAt,
    effects: &mut Effects,
) -> Option<SessionId> {
    match request {
        Request::Mqtt(request) => mqtt::open(directory, identity, &request, connection, at, effects),
        Request::Sse(request) => sse::open(directory, identity, *request, connection, at, effects),
    }
}

/// Ends the connection from our side, saying why, and which server to go to, if it can.
pub fn disconnect(session: &mut Session, reason: CloseReason, server_reference: Option<&str>, effects: &mut Effects) {
    match session.protocol {
        Protocol::Mqtt311 | Protocol::Mqtt5 => mqtt::disconnect(session, reason, server_reference, effects),
        Protocol::Sse { .. } | Protocol::Poll => sse::disconnect(session, reason, effects),
    }
}

/// Answers [`super::Effect::Commit`].
pub fn on_committed(session: &mut Session, ticket: Ticket, result: Result<(), StoreError>, effects: &mut Effects) {
    match session.protocol {
        Protocol::Mqtt311 | Protocol::Mqtt5 => mqtt::on_committed(session, ticket, result, effects),
        Protocol::Sse { .. } | Protocol::Poll => sse::on_committed(session, ticket, result, effects),
    }
}

/// Where the inbox begins, by the user's read mark, and where it stands.
pub fn on_inbox_known(session: &mut Session, start: Offset, head: StreamHead, effects: &mut Effects) {
    match session.protocol {
        Protocol::Mqtt311 | Protocol::Mqtt5 => {
            session.on_inbox_known(start, head, effects);
            mqtt::on_inbox_known(session, effects);
        }
        Protocol::Sse { .. } | Protocol::Poll => sse::on_inbox_known(session, start, head, effects),
    }
}

/// Interest in its filters is installed everywhere; `shard_seq` is the last seq that may have missed it.
pub fn on_interest_installed(session: &mut Session, ticket: Ticket, shard_seq: Seq, effects: &mut Effects) {
    match session.protocol {
        Protocol::Mqtt311 | Protocol::Mqtt5 => mqtt::on_interest_installed(session, ticket, shard_seq, effects),
        Protocol::Sse { .. } | Protocol::Poll => sse::on_interest_installed(session, ticket, shard_seq, effects),
    }
}

/// Answers [`super::Effect::Locate`].
pub fn on_located(session: &mut Session, head: StreamHead, entries: &[Entry], effects: &mut Effects) {
    match session.protocol {
        Protocol::Mqtt311 | Protocol::Mqtt5 => unreachable!("only clients with their own position ask for a place"),
        Protocol::Sse { .. } | Protocol::Poll => sse::on_located(session, head, entries, effects),
    }
}

/// Retention removed entries before it read them, and its client is told by its own protocol's means. MQTT's are messages,
/// which are the shard's to make.
pub fn on_gap(session: &mut Session, gap: &Gap, effects: &mut Effects) {
    match (session.protocol, gap) {
        (Protocol::Mqtt311 | Protocol::Mqtt5, _) => unreachable!("MQTT is told by messages"),
        (Protocol::Sse { .. } | Protocol::Poll, Gap::Inbox { first, entries }) => {
            let missing = Some(Missing::Trimmed(*first, *entries));
            sse::on_gap(session, LoggedAt::Inbox(*first), missing, effects);
        }
        (Protocol::Sse { .. } | Protocol::Poll, Gap::Topics(gap)) => sse::on_topics_gap(session, gap, effects),
    }
}

/// Settles what could not be sent.
pub fn settle_unsent(session: &mut Session, delivery: DeliveryId, why: Counter, effects: &mut Effects) {
    let at = session.in_flight(delivery).and_then(|flight| flight.at);
    session.settle_unsent(delivery, why, effects);
    if let (Protocol::Sse { .. } | Protocol::Poll, Some(at), Counter::DroppedTooLarge) = (session.protocol, at, why) {
        sse::on_too_large(session, at, effects);
    }
}
