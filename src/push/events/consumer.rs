//! One who reads an app's stream for a group.

use super::{Hub, Position};
use crate::base::ids::{AppId, Epoch, Offset};
use crate::base::log::{StoreError, StreamHead};
use crate::base::message::{Entry, Message, StreamKey};
use crate::limits::{EVENTS_LOOK_INTERVAL, EVENTS_READ_MAX, EVENTS_RETRY};
use crate::shard::command::{AppWatch, Happened, Told, is_wanted, upstream};
use crate::store::handle::{Answer, Request};
use std::sync::Arc;
use tokio::sync::watch;

/// What a consumer reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::push) enum Read {
    /// An event.
    Event(Position, Happened),
    /// Events it will not get, and behind what it reads on; 0: nobody knows how many.
    Gap(Position, u64),
}

/// Why a consumer reads no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::push) enum Ended {
    /// Another one reads for the group.
    Replaced,
    /// The group was forgotten.
    Forgotten,
    /// The store cannot be read.
    Failed,
}

/// Reads for a group until another one does.
pub(in crate::push) struct Consumer {
    hub: Arc<Hub>,
    app: AppId,
    group: Box<str>,
    number: u64,
    wants: AppWatch,
    epoch: Epoch,
    /// It has read up to here.
    cursor: u64,
    /// It asked for a position of another life of the stream.
    is_foreign: bool,
    changed: watch::Receiver<()>,
}

/// What is at hand for a consumer.
enum AtHand {
    /// These, and there may be more.
    Some(Vec<Read>),
    /// It has read all that is known of.
    Nothing,
    /// It has to be read from the store.
    Stored,
}

impl Consumer {
    pub(super) fn new(
        hub: Arc<Hub>,
        (app, group, number): (AppId, Box<str>, u64),
        wants: AppWatch,
        (epoch, cursor, is_foreign): (Epoch, u64, bool),
        changed: watch::Receiver<()>,
    ) -> Self {
        Self { hub, app, group, number, wants, epoch, cursor, is_foreign, changed }
    }

    /// Behind what it reads.
    pub(in crate::push) fn position(&self) -> Position {
        (self.epoch, Offset(self.cursor))
    }

    /// What comes next, once there is something: at least one.
    pub(in crate::push) async fn next(&mut self) -> Result<Vec<Read>, Ended> {
        // Only a hint can have been missed.
        let mut looks = false;
        loop {
            self.changed.mark_unchanged();
            let read = match self.at_hand()? {
                AtHand::Some(read) => read,
                AtHand::Stored => self.read_stored().await?,
                AtHand::Nothing if looks => self.read_stored().await?,
                AtHand::Nothing => Vec::new(),
            };
            if !read.is_empty() {
                return Ok(read);
            }
            if self.has_more()? {
                continue;
            }
            looks = tokio::time::timeout(EVENTS_LOOK_INTERVAL, self.changed.changed()).await.is_err();
        }
    }

    /// Whether more is known of than it has read.
    fn has_more(&self) -> Result<bool, Ended> {
        let state = self.hub.lock();
        let stream = state.streams.get(&self.app).ok_or(Ended::Forgotten)?;
        Ok(stream.epoch != self.epoch || self.cursor < stream.last)
    }

    fn at_hand(&mut self) -> Result<AtHand, Ended> {
        let mut read = self.told_of_another_life();
        let recent: Vec<Arc<Message>> = {
            let mut state = self.hub.lock();
            let stream = state.streams.get_mut(&self.app).ok_or(Ended::Forgotten)?;
            let reading = stream.groups.get_mut(&self.group).ok_or(Ended::Forgotten)?;
            if reading.consumer != self.number {
                return Err(Ended::Replaced);
            }
            reading.group.used_ms = (self.hub.wall_ms)();
            let first = stream.last + 1 - stream.recent.len() as u64;
            if self.epoch == Epoch(0) && first == 1 {
                // The stream has been made since, and all of it is at hand.
                self.epoch = stream.epoch;
            }
            if self.epoch == stream.epoch && self.cursor == stream.last {
                Vec::new()
            } else if self.epoch != stream.epoch || self.cursor + 1 < first {
                return Ok(if read.is_empty() { AtHand::Stored } else { AtHand::Some(read) });
            } else {
                let from = usize::try_from(self.cursor + 1 - first).expect("what is at hand is bounded");
                stream.recent.range(from..).take(EVENTS_READ_MAX).cloned().collect()
            }
        };
        let is_all = recent.is_empty();
        recent.iter().for_each(|message| self.take(message, &mut read));
        Ok(if is_all && read.is_empty() { AtHand::Nothing } else { AtHand::Some(read) })
    }

    fn told_of_another_life(&mut self) -> Vec<Read> {
        let is_foreign = std::mem::take(&mut self.is_foreign);
        is_foreign.then(|| Read::Gap(self.position(), 0)).into_iter().collect()
    }

    /// A page of the stream as it is stored, and what is missing before it. A store that is busy is asked again.
    async fn read_stored(&mut self) -> Result<Vec<Read>, Ended> {
        let stream = StreamKey::Upstream(self.app);
        let request = Request::ReadStream { stream, after: Offset(self.cursor), limit: EVENTS_READ_MAX };
        match self.hub.desk.answer(request).await {
            Ok(Answer::Stream { head, entries }) => Ok(self.take_page(&head, &entries)),
            Err(StoreError::Busy) => {
                tokio::time::sleep(EVENTS_RETRY).await;
                Ok(Vec::new())
            }
            Ok(_) | Err(_) => Err(Ended::Failed),
        }
    }

    fn take_page(&mut self, head: &StreamHead, entries: &[Entry]) -> Vec<Read> {
        let mut read = Vec::new();
        if let Some(stream) = self.hub.lock().streams.get_mut(&self.app) {
            stream.learn(head);
        }
        let is_new = head.epoch != self.epoch;
        let was_none = self.epoch == Epoch(0);
        self.epoch = head.epoch;
        if is_new && !was_none {
            // The position that it was read behind says nothing about this life; the next page is read from its beginning.
            self.cursor = head.first.0 - 1;
            read.push(Read::Gap(self.position(), 0));
            return read;
        }
        if self.cursor + 1 < head.first.0 {
            let lost = head.first.0 - 1 - self.cursor;
            self.cursor = head.first.0 - 1;
            read.push(Read::Gap(self.position(), lost));
        }
        for entry in entries {
            self.cursor = entry.offset.0 - 1;
            self.take(&entry.message, &mut read);
        }
        read
    }

    /// The entry behind the last one.
    fn take(&mut self, message: &Message, read: &mut Vec<Read>) {
        self.cursor += 1;
        match upstream::parse(message) {
            Some(Told::Missed(count)) => read.push(Read::Gap(self.position(), count)),
            Some(Told::Happened(happened)) if is_wanted(&self.wants, &happened.what) => {
                read.push(Read::Event(self.position(), happened));
            }
            Some(Told::Happened(_)) => {}
            // Written by another version, or damaged: it is not passed over in silence.
            None => read.push(Read::Gap(self.position(), 1)),
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let used_ms = (self.hub.wall_ms)();
        self.hub.lock().left(self.app, &self.group, self.number, Some(used_ms));
    }
}
