//! Gaps: what retention removed before the session read it is never passed over silently.

use super::super::{Effect, Effects, Gap};
use super::state::{InFlight, LoggedAt, Session};
use super::subscriptions::is_inbox;
use crate::base::ids::{Offset, Seq};
use crate::base::log::StreamGap;
use crate::base::message::StreamKey;

impl Session {
    /// Passes over what retention has removed of the inbox: what of it is in the table is sent or was, the rest is told.
    /// False: there is no room for all that is held of it.
    pub(in crate::session) fn pass_inbox_gap(&mut self, first_kept: Offset, effects: &mut Effects) -> bool {
        while self.positions.inbox_delivered.0 + 1 < first_kept.0 {
            let from = self.positions.inbox_delivered.0 + 1;
            let held = self.next_held(LoggedAt::Inbox(Offset(first_kept.0 - 1)));
            let end = match held {
                Some((_, LoggedAt::Inbox(at))) => at.0.max(from),
                _ => first_kept.0,
            };
            let is_between =
                |flight: &&InFlight| matches!(flight.at, Some(LoggedAt::Inbox(at)) if (from..end).contains(&at.0));
            let entries = end - from - self.flights().filter(is_between).count() as u64;
            if entries > 0 {
                effects.push(Effect::Gap(Gap::Inbox { first: Offset(from), entries }));
            }
            self.positions.inbox_delivered = Offset(end - 1);
            if held.is_some() && !self.send_held(LoggedAt::Inbox(Offset(end)), effects) {
                return false;
            }
        }
        true
    }

    /// Passes over the gaps of topics up to `to`, in their order, and tells those that concern this session. False: there
    /// is no room for what is held before one of them.
    pub(in crate::session) fn pass_topics_gaps(
        &mut self,
        gaps: &mut &[StreamGap],
        to: Seq,
        effects: &mut Effects,
    ) -> bool {
        while let Some((gap, rest)) = gaps.split_first().filter(|(gap, _)| gap.trimmed <= to) {
            if gap.trimmed > self.positions.topics_delivered {
                if !self.send_held(LoggedAt::Topics(gap.trimmed), effects) {
                    return false;
                }
                if self.is_missing(gap) {
                    effects.push(Effect::Gap(Gap::Topics(gap.clone())));
                }
                self.positions.topics_delivered = gap.trimmed;
            }
            *gaps = rest;
        }
        true
    }

    /// Whether the newest entry that is gone was for a subscription of this session.
    fn is_missing(&self, gap: &StreamGap) -> bool {
        match &gap.stream {
            StreamKey::Topic(_, topic) => self.effective_from(topic, None, gap.trimmed).is_some(),
            StreamKey::Everyone(_) => {
                let mut inbox = self.subscriptions.iter().filter(|subscription| is_inbox(&subscription.text));
                inbox.any(|subscription| subscription.since < gap.trimmed)
            }
            StreamKey::Inbox(..) | StreamKey::Upstream(_) => false,
        }
    }
}
