//! A message and its topic's home.
//!
//! ```text
//!  origin ──Publish──► home ──owed? key? record?──► log ──batch──► every shard's fan-out
//!                       │                            └──Done──► home ──Published──► origin
//!                       └──else: Deliver──► every interested shard
//! ```
//! The home sends an unlogged QoS ≥ 1 message of a topic that has a commit under way through the log as well, with no
//! entry: its answer comes after theirs, so it does not overtake.

use super::command::{CommandError, PushResult, Pushed};
use super::gateway::{Core, Gateway};
use super::letter::{Letter, Origin, Publish, PublishOutcome};
use super::log_port::Waiting;
use crate::base::ids::{PushId, Qos};
use crate::base::message::StreamKey;
use crate::io::Driver;
use crate::store::{Answer, IdempotencyKey, NewEntry, Position, Request, StoreError};
use smallvec::smallvec;
use std::sync::Arc;

impl Gateway {
    /// Sends a message to its topic's home.
    pub(super) fn publish<D: Driver>(&mut self, core: &mut Core<D>, publish: Publish) {
        let home = self.homes.topic(publish.message.app, &publish.message.topic);
        if home == self.shard {
            self.on_publish_at_home(core, publish);
        } else {
            core.send_control(home, Letter::Publish(Box::new(publish)));
        }
    }

    /// This shard is the topic's home: log it or hand it over.
    pub(super) fn on_publish_at_home<D: Driver>(&mut self, core: &mut Core<D>, mut publish: Publish) {
        if !self.topic_takes(core, &publish) {
            return;
        }
        if publish.message.retain && !self.retain(core, &mut publish) {
            return;
        }
        let message = &publish.message;
        let waits_for_acknowledgement = message.qos >= Qos::AtLeastOnce;
        let owed = waits_for_acknowledgement && self.interest.lookup(message.app, &message.topic).owed;
        // What a rule keeps is owed whoever asks for it later, whatever its QoS.
        let owed = owed || self.settings.topics.keep(&message.topic);
        if waits_for_acknowledgement && self.turning.holds(owed) {
            self.counters.held += 1;
            return self.turning.hold(publish, owed);
        }
        self.log_or_hand_over(core, publish, owed);
    }

    /// Its turn has come. What backends are told of it is in its commit, and so before the publisher's acknowledgement; at
    /// QoS 0, where that is none and nobody is owed anything, in a commit of its own.
    pub(super) fn log_or_hand_over<D: Driver>(&mut self, core: &mut Core<D>, mut publish: Publish, owed: bool) {
        let waits_for_acknowledgement = publish.message.qos >= Qos::AtLeastOnce;
        if !owed
            && !waits_for_acknowledgement
            && let Some(entry) = publish.upstream.take()
        {
            self.log.submit(Request::Append { key: None, entries: vec![*entry], records: Vec::new() }, Waiting::Nobody);
        }
        let message = &publish.message;
        let must_not_overtake = waits_for_acknowledgement && self.committing.is_under_way(message);
        let needs_commit = owed || !publish.records.is_empty() || publish.key.is_some() || publish.upstream.is_some();
        if !needs_commit && !must_not_overtake {
            return self.hand_over(core, &publish);
        }
        self.committing.begin(message);
        if waits_for_acknowledgement && !owed {
            self.turning.submit();
        }
        let stream = StreamKey::Topic(message.app, message.topic.clone());
        let entry = owed.then(|| NewEntry { stream, message: message.clone() });
        let upstream = publish.upstream.take();
        publish.is_told = upstream.is_some();
        let entries = entry.into_iter().chain(upstream.map(|entry| *entry)).collect();
        let (app, id) = (publish.message.app, publish.origin.push());
        let key = publish.key.take().map(|(key, body_hash)| IdempotencyKey { app, key, body_hash, id });
        if publish.message.retain {
            self.retained.submit();
        }
        let records = std::mem::take(&mut publish.records);
        let waiting = Waiting::Publish { publish: Box::new(publish), owed };
        self.log.submit(Request::Append { key, entries, records }, waiting);
    }

    /// The log has answered: tell the origin, and hand over what was not logged.
    pub(super) fn on_publish_committed<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        publish: &Publish,
        owed: bool,
        result: Result<Answer, StoreError>,
    ) {
        self.committing.end(&publish.message);
        if publish.message.retain {
            let committed = matches!(result, Ok(Answer::Appended { duplicate: None, .. }));
            self.retained.settle(&publish.message, committed);
        }
        if publish.message.qos >= Qos::AtLeastOnce && !owed {
            self.turning.answer();
        }
        match result {
            Ok(Answer::Appended { positions, duplicate, .. }) if owed || duplicate.is_some() => {
                // A duplicate may have been logged when it was new although nobody is owed it now.
                self.answer(core, publish.origin, Ok((positions.first().copied(), true)), duplicate);
            }
            Ok(_) => self.hand_over(core, publish),
            Err(error) => {
                let error = self.refused_by_log(error);
                self.answer(core, publish.origin, Err(error), None);
            }
        }
    }

    /// Sends an unlogged message to every interested shard and tells the origin.
    fn hand_over<D: Driver>(&mut self, core: &mut Core<D>, publish: &Publish) {
        let message = &publish.message;
        let interested = self.interest.lookup(message.app, &message.topic);
        for shard in interested.shards.iter() {
            if shard == self.shard {
                self.incoming.deliver(Arc::clone(message));
            } else {
                core.send_control(shard, Letter::Deliver(Arc::clone(message)));
                if message.qos >= Qos::AtLeastOnce {
                    self.turning.mailed(shard, core.written(shard));
                }
            }
        }
        // A consumer group is somebody who listens.
        let reached = publish.is_told || !interested.shards.is_empty();
        self.answer(core, publish.origin, Ok((None, reached)), None);
    }

    pub(super) fn answer<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        origin: Origin,
        result: Result<(Option<Position>, bool), CommandError>,
        first: Option<PushId>,
    ) {
        match origin {
            Origin::Nobody => {}
            Origin::Control(token, id) => {
                let (id, duplicate) = (first.unwrap_or(id), first.is_some());
                let result = result.map(|(position, _)| {
                    let position = position.map(|at| (at.epoch, at.offset));
                    let result = PushResult { user: None, position, online: None, delivered: Vec::new() };
                    Pushed { results: smallvec![result], duplicate, id }
                });
                self.tell_pushed(token, result);
            }
            Origin::Client { shard, session, receipt } => {
                let outcome = match result {
                    Ok((_, true)) => PublishOutcome::Reached,
                    Ok((_, false)) => PublishOutcome::NobodyListens,
                    Err(error) => PublishOutcome::Failed(error),
                };
                if shard == self.shard {
                    self.on_published(core, session, receipt, outcome);
                } else {
                    core.send_control(shard, Letter::Published { session, receipt, outcome });
                }
            }
        }
    }
}

impl Gateway {
    /// Logged messages find no room at the moment: their publishers are not to be read.
    pub(super) fn is_log_congested(&self) -> bool {
        self.log.congested() || self.turning.is_full()
    }

    /// A message was not written; what its sender is told.
    pub(super) fn refused_by_log(&mut self, error: StoreError) -> CommandError {
        self.counters.refused_stored += u64::from(error == StoreError::OverQuota);
        command_error(error)
    }
}

/// What a store's refusal means to who gave the command.
pub(super) fn command_error(error: StoreError) -> CommandError {
    match error {
        StoreError::KeyConflict => CommandError::KeyConflict,
        StoreError::Busy => CommandError::Busy,
        StoreError::OverQuota => CommandError::OverQuota,
        StoreError::Failed => CommandError::StoreFailed,
    }
}
