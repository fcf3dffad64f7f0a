//! What a session owes an answer: publishes, a SUBSCRIBE or UNSUBSCRIBE, and its greeting.

use super::super::{GrantedFilter, Ticket};
use crate::base::ids::Qos;

/// A client's publish that has no answer yet, or may not be answered yet because an earlier one has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) struct PendingPublish {
    pub id: u16,
    pub qos: Qos,
    /// The adapter's code for the answer.
    pub answer: Option<u8>,
}

/// A QoS 2 identifier that a client holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) struct Received {
    pub id: u16,
    /// Its message is committed or handed on.
    pub routed: bool,
}

/// A SUBSCRIBE or UNSUBSCRIBE under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::session) struct PendingFilters {
    pub ticket: Ticket,
    /// The connection it came on.
    pub attachment: u16,
    pub id: u16,
    pub is_subscribe: bool,
    /// Interest is installed; what is left is where the inbox begins, and the commit.
    pub is_installed: bool,
    pub codes: Vec<u8>,
    pub granted: Vec<GrantedFilter>,
}

/// What CONNACK will say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::session) struct Welcome {
    pub session_present: bool,
    pub assigned: bool,
    pub expiry_lowered: bool,
    pub packet_bytes: u32,
    pub server_keep_alive: Option<u16>,
    pub response_information: bool,
}
