//! What happened to single connections, as the control plane tells it in the log.

use super::command::ConnectionName;
use crate::auth::Fault;
use crate::base::ids::AppId;
use crate::base::prefix::Prefix;
use crate::engine::CloseCause;
use crate::session::CloseReason;
use core::fmt;
use std::net::SocketAddr;

/// What happened to a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story {
    /// Its name.
    pub name: ConnectionName,
    /// The other end, while that is known.
    pub peer: Option<SocketAddr>,
    /// Its session's tenant; none: it has no session.
    pub app: Option<AppId>,
    /// Its session's user.
    pub user: Option<Box<str>>,
    /// Its session's device.
    pub device: Option<Box<str>>,
    /// How it ended badly; none: it is followed, and this happened.
    pub why: Option<&'static str>,
    /// Oldest first, as far as they are still known.
    pub events: Vec<Noted>,
}

/// Something, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted {
    /// Milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// What.
    pub what: What,
}

/// What can happen to a connection that is worth remembering for a while. Never one for each message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It came in.
    Accepted,
    /// It became a WebSocket.
    Upgraded,
    /// What it shows is being checked.
    Asked,
    /// It is not let in, for this.
    NotLetIn(Fault),
    /// It came to its user's home, speaking this.
    Arrived(&'static str),
    /// It asks for so many filters.
    Subscribed(u32),
    /// It is not read because the log or another shard is congested.
    Throttled,
    /// It is told to close.
    Closing(CloseReason),
    /// It has ended.
    Ended(CloseCause),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => f.write_str("accepted"),
            Self::Upgraded => f.write_str("websocket"),
            Self::Asked => f.write_str("asked"),
            Self::NotLetIn(fault) => write!(f, "not let in: {}", fault.name()),
            Self::Arrived(protocol) => write!(f, "arrived: {protocol}"),
            Self::Subscribed(filters) => write!(f, "subscribed: {filters}"),
            Self::Throttled => f.write_str("throttled"),
            Self::Closing(reason) => write!(f, "closing: {}", reason.name().trim_start_matches("closed_")),
            Self::Ended(cause) => write!(f, "ended: {cause:?}"),
        }
    }
}

/// Whose connections are followed: those that are all of it that is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follow {
    /// Of this tenant.
    pub app: Option<AppId>,
    /// Of this user.
    pub user: Option<Box<str>>,
    /// From there.
    pub address: Option<Prefix>,
    /// Until then, milliseconds since 1970-01-01 UTC.
    pub until_ms: u64,
}
