//! The data plane as the node holds it.

use super::capacity::Machine;
use crate::config::Config;
use crate::push::Gateway;
use crate::shard::command::Event;
use crossbeam_channel::Receiver;
use std::net::SocketAddr;

/// A running data plane.
pub(super) struct Plane {
    pub(super) gateway: Box<dyn Gateway>,
    /// Ends when all shards have ended.
    pub(super) events: Receiver<Event>,
    /// Where devices connect, with the ports that were chosen for port 0.
    pub(super) listening: Vec<SocketAddr>,
    pub(super) driver: &'static str,
    /// Why it is not the preferred driver.
    pub(super) notice: Option<String>,
    /// Ends and joins the threads, after a drain.
    pub(super) join: Box<dyn FnOnce()>,
}

/// Starts it.
pub(super) fn start(_config: &Config, _machine: Machine) -> Result<Plane, String> {
    Err("this build has no data plane".to_owned())
}
