//! A message and its topic's home.
//!
//! ```text
//!  origin ──Publish──► home ──owed? key? record?──► log ──batch──► every shard's fan-out
//!                       │                            └──Done──► home ──Published──► origin
//!                       └──else: Deliver──► every interested shard
//! ```
//! The home sends an unlogged QoS ≥ 1 message of a topic that has a commit under way through the log as well, with no
//! entry: its answer comes after theirs, so it does not overtake.

use super::command::{CommandError, Event, PushResult, Pushed};
use super::gateway::{Core, Gateway};
use super::letter::{Letter, Origin, Publish, PublishOutcome};
use super::log_port::Waiting;
use crate::base::ids::Qos;
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
        if publish.message.retain && !self.retain(core, &mut publish) {
            return;
        }
        let message = &publish.message;
        let waits_for_acknowledgement = message.qos >= Qos::AtLeastOnce;
        let owed = waits_for_acknowledgement && self.interest.lookup(message.app, &message.topic).owed;
        let must_not_overtake = waits_for_acknowledgement && self.committing.is_under_way(message);
        if !owed && !must_not_overtake && publish.records.is_empty() && publish.key.is_none() {
            return self.hand_over(core, &publish);
        }
        self.committing.begin(message);
        let stream = StreamKey::Topic(message.app, message.topic.clone());
        let entries = if owed { vec![NewEntry { stream, message: message.clone() }] } else { Vec::new() };
        let key =
            publish.key.take().map(|(key, body_hash)| IdempotencyKey { app: publish.message.app, key, body_hash });
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
            let committed = matches!(result, Ok(Answer::Appended { duplicate: false, .. }));
            self.retained.settle(&publish.message, committed);
        }
        match result {
            Ok(Answer::Appended { positions, duplicate, .. }) if owed || duplicate => {
                // A duplicate may have been logged when it was new although nobody is owed it now.
                self.answer(core, publish.origin, Ok((positions.first().copied(), true)), duplicate);
            }
            Ok(_) => self.hand_over(core, publish),
            Err(error) => self.answer(core, publish.origin, Err(command_error(error)), false),
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
            }
        }
        self.answer(core, publish.origin, Ok((None, !interested.shards.is_empty())), false);
    }

    pub(super) fn answer<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        origin: Origin,
        result: Result<(Option<Position>, bool), CommandError>,
        duplicate: bool,
    ) {
        match origin {
            Origin::Nobody => {}
            Origin::Control(token) => {
                let result = result.map(|(position, _)| {
                    let position = position.map(|at| (at.epoch, at.offset));
                    Pushed { results: smallvec![PushResult { user: None, position, online: None }], duplicate }
                });
                self.tell(Event::Pushed { token, result });
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

/// What a store's refusal means to who gave the command.
pub(super) fn command_error(error: StoreError) -> CommandError {
    match error {
        StoreError::KeyConflict => CommandError::KeyConflict,
        StoreError::Busy => CommandError::Busy,
        StoreError::Failed => CommandError::StoreFailed,
    }
}
