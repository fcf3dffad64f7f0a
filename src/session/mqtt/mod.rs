//! Owns: MQTT 3.1.1 and 5 over the neutral session, a file per event.
//! In: whole frames, store and router answers. Out: [`super::Effects`], control frames encoded.
//! Must not: know a socket, a clock, the engine or the router.
//! Invariants: acknowledgements to a publisher leave in the order of its publishes, per QoS.

mod frame;
mod greeting;
mod on_ack;
mod on_auth;
mod on_committed;
mod on_connect;
mod on_disconnect;
mod on_publish;
mod on_pubrel;
mod on_question;
mod on_subscribe;
mod on_unsubscribe;
#[cfg(test)]
mod tests;

use super::core::state::State;
use super::{CloseReason, Effects, Session};
use crate::auth::Rights;
use crate::base::clock::Now;
use crate::base::ids::Qos;
use crate::base::message::Properties;
use crate::base::secret::Secret;
use crate::wire::mqtt::{self as wire, AckKind, DecodeError, Packet, Reason};
use bytes::Bytes;
use std::sync::Arc;

pub use greeting::{greet, refuse};
pub use on_auth::on_reauthenticated;
pub use on_committed::on_committed;
pub use on_connect::{OpenAt, open};
pub use on_disconnect::disconnect;
pub use on_publish::on_published;
pub use on_subscribe::{on_inbox_known, on_interest_installed, on_subscribed};

/// A will as CONNECT gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WillRequest {
    /// Topic.
    pub topic: Box<str>,
    /// Payload.
    pub payload: Bytes,
    /// QoS.
    pub qos: Qos,
    /// Retain.
    pub retain: bool,
    /// Seconds.
    pub delay: u32,
    /// Seconds after publication.
    pub message_expiry: Option<u32>,
    /// Passed on.
    pub properties: Option<Box<Properties>>,
}

/// A CONNECT, owned, so that it can move to the user's home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectRequest {
    /// Else 3.1.1.
    pub mqtt5: bool,
    /// Empty: the shard draws a unique one, puts it here and leaves `assigned` set.
    pub client_id: Box<str>,
    /// It came empty.
    pub assigned: bool,
    /// User name.
    pub username: Option<Box<str>>,
    /// Password, or the data of its authentication method.
    pub password: Option<Secret>,
    /// It names an authentication method, ours, and so may show another token later.
    pub by_method: bool,
    /// What its client may do; the shard puts it here. None: everything that clients may at all.
    pub rights: Option<Arc<Rights>>,
    /// Clean Start, or clean session of 3.1.1.
    pub clean_start: bool,
    /// Seconds; 0: off.
    pub keep_alive: u16,
    /// Seconds, as asked for; 0 for 3.1.1 with clean session and where nobody could come back.
    pub session_expiry: u32,
    /// It asked for more than that.
    pub expiry_lowered: bool,
    /// Messages in flight the client takes.
    pub receive_maximum: u16,
    /// Bytes of a packet the client takes; `u32::MAX` when it did not say.
    pub packet_bytes_max: u32,
    /// Topic aliases the client takes.
    pub topic_alias_max: u16,
    /// It wants Response Information.
    pub request_response_information: bool,
    /// It takes reason strings and user properties everywhere.
    pub request_problem_information: bool,
    /// Its will.
    pub will: Option<Box<WillRequest>>,
}

/// What a guest's first bytes are.
#[derive(Clone, Debug)]
pub enum Greeting {
    /// Not whole yet.
    NeedMore,
    /// A CONNECT, and the bytes it took.
    Connect(Box<ConnectRequest>, usize),
    /// Send these (they may be none), then close.
    Refuse {
        /// An encoded CONNACK.
        frames: Vec<u8>,
        /// For the counter.
        reason: CloseReason,
    },
}

/// Why a readable CONNECT is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 0x86 / 0x04.
    BadCredentials,
    /// 0x87 / 0x05.
    NotAuthorized,
    /// 0x8C: it names an authentication method, and none is spoken.
    AuthenticationMethod,
    /// 0x97 / 0x03.
    QuotaExceeded,
    /// The app's quota: 0x97 / 0x03.
    AppFull,
    /// 0x88 / 0x03.
    Unavailable,
    /// 0x9F / 0x03.
    RateExceeded,
    /// 0x89 / 0x03.
    Busy,
    /// 0x8A / 0x05.
    Banned,
    /// 0x85 / 0x02.
    ClientIdentifier,
}

/// What came is no frame, or a longer one than is taken: MQTT 5 is told which, and the connection closes.
pub fn reject(session: &mut Session, error: DecodeError, effects: &mut Effects) {
    match error {
        // Only a CONNECT has these, and this is not the first one: no DISCONNECT has their codes [MQTT-3.1.0-2].
        DecodeError::UnsupportedVersion { .. } | DecodeError::ClientIdentifier(_) => out_of_place(session, effects),
        error => frame::fail(session, error.reason(), error.text(), effects),
    }
}

fn out_of_place(session: &mut Session, effects: &mut Effects) {
    frame::fail(session, Reason::ProtocolError, "this packet has no place here", effects);
}

/// Handles one whole frame. Frames after a close was asked for are ignored.
pub fn handle(session: &mut Session, frame: &[u8], now: Now, effects: &mut Effects) {
    if session.state == State::Closing {
        return;
    }
    assert!(session.state == State::Open, "frames stay unread until the session is open");
    if let Some(packet_id) = wire::plain_puback(frame) {
        return on_ack::on_puback(session, packet_id, Reason::Success, effects);
    }
    let packet = match wire::decode(frame::version(session), frame) {
        Ok(packet) => packet,
        Err(error) => return reject(session, error, effects),
    };
    match packet {
        Packet::Publish(publish) => on_publish::handle(session, &publish, now, effects),
        Packet::Ack(ack) => match ack.kind {
            AckKind::PubAck => on_ack::on_puback(session, ack.packet_id, ack.reason, effects),
            AckKind::PubRec => on_ack::on_pubrec(session, &ack, effects),
            AckKind::PubRel => on_pubrel::handle(session, &ack, effects),
            AckKind::PubComp => on_ack::on_pubcomp(session, &ack, effects),
        },
        Packet::PingReq => frame::send(session, &wire::PingResp, effects),
        Packet::Subscribe(subscribe) => on_subscribe::handle(session, &subscribe, effects),
        Packet::Unsubscribe(unsubscribe) => on_unsubscribe::handle(session, &unsubscribe, effects),
        Packet::Disconnect(goodbye) => on_disconnect::handle(session, &goodbye, effects),
        Packet::Auth(auth) => on_auth::handle(session, &auth, effects),
        // A second CONNECT [MQTT-3.1.0-2], and what only servers send.
        Packet::Connect(_) | Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
            out_of_place(session, effects)
        }
    }
}
