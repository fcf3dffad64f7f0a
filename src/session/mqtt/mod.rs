//! Owns: MQTT 3.1.1 and 5 over the neutral session, a file per event.
//! In: whole frames, store and router answers. Out: [`super::Effects`], control frames encoded.
//! Must not: know a socket, a clock, the engine or the router.
//! Invariants: acknowledgements to a publisher leave in the order of its publishes, per QoS.

use super::directory::Directory;
use super::{CloseReason, Effects, Identity, Session, Ticket};
use crate::base::clock::Now;
use crate::base::ids::{ConnectionId, Offset, Qos, Seq, SessionId};
use crate::base::message::Properties;
use crate::store::{StoreError, StreamHead};
use bytes::Bytes;

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
    /// Password.
    pub password: Option<Box<[u8]>>,
    /// Clean Start, or clean session of 3.1.1.
    pub clean_start: bool,
    /// Seconds; 0: off.
    pub keep_alive: u16,
    /// Seconds, not above `SESSION_EXPIRY_MAX`; 0 for 3.1.1 with clean session.
    pub session_expiry: u32,
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

/// Reads a guest's first frame.
pub fn greet(bytes: &[u8], packet_bytes_max: usize) -> Greeting {
    let _ = (bytes, packet_bytes_max);
    unimplemented!()
}

/// Where things stand as a session opens.
#[derive(Clone, Copy, Debug)]
pub struct OpenAt {
    /// Now.
    pub now: Now,
    /// The last seq this shard has handled.
    pub shard_seq: Seq,
    /// The user's inbox and read mark if they are at hand, else [`Session::on_inbox_known`] follows.
    pub inbox: Option<(Offset, StreamHead)>,
}

/// The old connection's end when another one of the device comes: DISCONNECT 0x8E, close, will rule. The effects are
/// for the old connection; carry them out before [`open`].
pub fn take_over(session: &mut Session, by: &ConnectRequest, now: Now, shard_seq: Seq, effects: &mut Effects) {
    let _ = (session, by, now, shard_seq, effects);
    unimplemented!()
}

/// Opens or resumes the device's session on `connection`. Must not have a connection any more (see [`take_over`]). The
/// effects, if refused too, are for `connection`. With Clean Start an existing session is removed.
pub fn open(
    directory: &mut Directory,
    identity: Identity,
    request: Box<ConnectRequest>,
    connection: ConnectionId,
    at: OpenAt,
    effects: &mut Effects,
) -> Option<SessionId> {
    let _ = (directory, identity, request, connection, at, effects);
    unimplemented!()
}

/// Refuses a CONNECT that was read but is not authorized (or the server is busy): the CONNACK.
pub fn refuse(request: &ConnectRequest, why: Refusal, out: &mut Vec<u8>) {
    let _ = (request, why, out);
    unimplemented!()
}

/// Why a readable CONNECT is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 0x86 / 0x04.
    BadCredentials,
    /// 0x87 / 0x05.
    NotAuthorized,
    /// 0x97 / 0x03.
    QuotaExceeded,
    /// 0x88 / 0x03.
    Unavailable,
    /// 0x9F / 0x03.
    RateExceeded,
    /// 0x85 / 0x02.
    ClientIdentifier,
}

/// Handles one whole frame.
pub fn handle(session: &mut Session, frame: &[u8], now: Now, effects: &mut Effects) {
    let _ = (session, frame, now, effects);
    unimplemented!()
}

/// Answers [`super::Effect::Commit`].
pub fn on_committed(
    session: &mut Session,
    ticket: Ticket,
    result: Result<(), StoreError>,
    now: Now,
    effects: &mut Effects,
) {
    let _ = (session, ticket, result, now, effects);
    unimplemented!()
}

/// Answers [`super::Effect::Publish`] with a receipt: whether anybody was reached.
pub fn on_published(session: &mut Session, receipt: Ticket, result: Result<bool, StoreError>, effects: &mut Effects) {
    let _ = (session, receipt, result, effects);
    unimplemented!()
}

/// Answers [`super::Effect::Subscribe`]: the router's (filter, position) of each.
pub fn on_subscribed(session: &mut Session, ticket: Ticket, places: &[(u32, u32)], effects: &mut Effects) {
    let _ = (session, ticket, places, effects);
    unimplemented!()
}

/// Interest is installed at every home; `shard_seq` is the last seq that may have missed it.
pub fn on_interest_installed(session: &mut Session, ticket: Ticket, shard_seq: Seq, effects: &mut Effects) {
    let _ = (session, ticket, shard_seq, effects);
    unimplemented!()
}

/// Ends the connection from our side: MQTT 5 gets a DISCONNECT with the reason's code.
pub fn disconnect(session: &mut Session, reason: CloseReason, effects: &mut Effects) {
    let _ = (session, reason, effects);
    unimplemented!()
}
