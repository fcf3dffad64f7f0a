//! The threads that carry events and notices from the shards to the tasks that wait for them.

use crate::push::{Control, Notices};
use crate::shard::command::{Event, Notice};
use crossbeam_channel::Receiver;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::watch;

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

/// Starts the thread that carries what is watched to those who watch. It has a queue of its own, so that watching never
/// holds up an answer. It ends when all shards have dropped their side of `from`.
pub(super) fn spawn_notices(notices: Notices, from: Receiver<Notice>) -> io::Result<JoinHandle<()>> {
    let carry = move || from.iter().for_each(|notice| notices.take(notice));
    std::thread::Builder::new().name("kittiwake-notices".to_owned()).spawn(carry)
}
