//! What a shard says of one connection.

use super::ConnectionName;
use crate::base::ids::AppId;
use std::net::SocketAddr;

/// One connection at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionFigures {
    /// Its name.
    pub name: ConnectionName,
    /// Its session's tenant.
    pub app: AppId,
    /// Its session's user.
    pub user: Box<str>,
    /// Its session's device.
    pub device: Box<str>,
    /// The other end.
    pub peer: SocketAddr,
    /// What it speaks.
    pub protocol: &'static str,
    /// Messages wait in the log because its window is full.
    pub behind: bool,
    /// Bytes that its socket has not taken yet.
    pub outbox_bytes: usize,
    /// Messages sent and not acknowledged.
    pub in_flight: usize,
    /// How many those may be.
    pub window: usize,
    /// Its window is full, and more waits behind it.
    pub stalled: bool,
    /// Entries of its user's inbox that it has not been sent.
    pub lag: u64,
    /// Its session's subscriptions.
    pub subscriptions: usize,
    /// The session outlives the connection.
    pub durable: bool,
}

impl ConnectionFigures {
    /// The slowest has the greatest: what waits in the log weighs more than what waits in its outbox, and that more
    /// than what it has yet to acknowledge.
    pub fn slowness(&self) -> impl Ord + use<> {
        (self.behind, self.outbox_bytes, self.in_flight)
    }
}
