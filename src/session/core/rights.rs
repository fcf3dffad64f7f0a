//! What a session's client may do, and what is taken from it when that becomes less.

use super::super::{Counter, Effect, Effects};
use super::state::Session;
use crate::auth::{Rights, Who};

impl Session {
    /// As whom its rights are judged.
    pub fn who(&self) -> Who<'_> {
        Who { user: self.user(), device: self.device() }
    }

    /// Whether its client may publish to a topic, as far as its rights go.
    pub(in crate::session) fn may_publish(&self, topic: &str) -> bool {
        self.rights().is_none_or(|rights| rights.may_publish(topic, self.who()))
    }

    /// Whether its client may have a subscription, as far as its rights go.
    pub(in crate::session) fn may_subscribe(&self, filter: &str) -> bool {
        self.rights().is_none_or(|rights| rights.may_subscribe(filter, self.who()))
    }

    fn rights(&self) -> Option<&Rights> {
        self.extra.as_ref()?.rights.as_deref()
    }

    /// Ends the subscriptions that its rights do not contain any more; whether there were any.
    pub(in crate::session) fn withdraw_subscriptions(&mut self, effects: &mut Effects) -> bool {
        if self.subscriptions.iter().all(|subscription| self.may_subscribe(&subscription.text)) {
            return false;
        }
        let served = self.served();
        let all = core::mem::take(&mut self.subscriptions).into_vec();
        let (kept, gone): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|subscription| self.may_subscribe(&subscription.text));
        for subscription in gone {
            let effect = subscription.leave(self);
            effects.push(effect);
            effects.count(Counter::SubscriptionWithdrawn);
        }
        self.replace_subscriptions(kept);
        self.narrow_replay(effects);
        if let Some(served) = served.filter(|_| !self.covers_inbox()) {
            effects.push(Effect::InboxLeft { served });
        }
        true
    }
}
