//! The threads that carry events and notices from the shards to the tasks that wait for them.

use crate::push::{Control, Notices};
use crate::shard::command::{Event, Notice, Story};
use core::fmt::Write;
use crossbeam_channel::Receiver;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::watch;
use tracing::{info, warn};

/// How far the data plane has come to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Shards that have closed their last connection.
    pub(super) drained: usize,
    /// Connections that were left then.
    pub(super) cut: u64,
    /// All shards are gone.
    pub(super) ended: bool,
}

/// Starts it. It ends when all shards have dropped their side of `events`.
pub(super) fn spawn(
    control: Arc<Control>,
    events: Receiver<Event>,
) -> io::Result<(JoinHandle<()>, watch::Receiver<Progress>)> {
    let (tell, progress) = watch::channel(Progress::default());
    let thread = std::thread::Builder::new().name("kittiwake-events".to_owned()).spawn(move || {
        for event in events.iter() {
            if let Some(cut) = control.dispatch(event) {
                tell.send_modify(|progress| {
                    progress.drained += 1;
                    progress.cut += cut;
                });
            }
        }
        control.close();
        tell.send_modify(|progress| progress.ended = true);
    })?;
    Ok((thread, progress))
}

/// Starts the thread that carries what the log tells to those who wait for it. It has a queue of its own, so that neither
/// holds up the other. It ends when the log has dropped its side of `from`.
pub(super) fn spawn_notices(notices: Notices, from: Receiver<Notice>) -> io::Result<JoinHandle<()>> {
    let carry = move || from.iter().for_each(|notice| notices.take(notice));
    std::thread::Builder::new().name("kittiwake-notices".to_owned()).spawn(carry)
}

/// Writes what happened to connections to the log, until the shards end.
///
/// # Errors
/// The system has no room for a thread.
pub(super) fn spawn_stories(from: Receiver<Story>) -> io::Result<JoinHandle<()>> {
    let write = move || from.iter().for_each(|story| tell(&story));
    std::thread::Builder::new().name("kittiwake-stories".to_owned()).spawn(write)
}

/// A connection's story, in one line of the log.
fn tell(story: &Story) {
    let Story { name, peer, app, user, device, why, events } = story;
    let peer = peer.map_or_else(String::new, |peer| peer.to_string());
    let (user, device) = (user.as_deref().unwrap_or_default(), device.as_deref().unwrap_or_default());
    let app = app.map_or(-1, |app| i64::from(app.0));
    let first_ms = events.first().map_or(0, |first| first.at_ms);
    let mut text = String::new();
    for (number, event) in events.iter().enumerate() {
        let after_ms = event.at_ms.saturating_sub(first_ms);
        let between = if number == 0 { "" } else { ", " };
        write!(text, "{between}+{after_ms} ms {}", event.what).expect("writing to a string does not fail");
    }
    match why {
        Some(why) => warn!(connection = %name, peer, app, user, device, why, "connection failed: {text}"),
        None => info!(connection = %name, peer, app, user, device, "{text}"),
    }
}
