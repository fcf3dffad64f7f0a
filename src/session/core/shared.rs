//! Shared subscriptions, as a member sees them: the group at its home decides who gets what, a session takes it into its
//! window or says that there is no room. What is not acknowledged when the connection ends is another member's, so it is
//! not kept, and not recorded.

use super::super::{Effect, Effects, GrantedFilter};
use super::state::{Flight, InFlight, LoggedAt, Offer, Session, State, Subscription};
use crate::base::ids::Qos;
use crate::base::message::Message;
use std::sync::Arc;

/// In a mark: the subscription asks for Retain As Published. The other bits are its identifier, which has 28.
pub const RETAIN_AS_PUBLISHED: u32 = 1 << 31;

/// The group and the filter of a shared subscription; none: it is a plain filter.
pub fn share_of(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix("$share/")?.split_once('/')
}

fn mark(identifier: u32, retain_as_published: bool) -> u32 {
    identifier | if retain_as_published { RETAIN_AS_PUBLISHED } else { 0 }
}

impl GrantedFilter {
    /// Whether it is a shared subscription.
    pub fn is_shared(&self) -> bool {
        share_of(&self.filter).is_some()
    }

    /// What deliveries have to say of it.
    pub fn mark(&self) -> u32 {
        mark(self.identifier, self.retain_as_published)
    }
}

impl Subscription {
    /// Whether it is a shared subscription.
    pub fn is_shared(&self) -> bool {
        share_of(&self.text).is_some()
    }

    /// What takes it out of the router or its group.
    pub(in crate::session) fn leave(self, session: &Session) -> Effect {
        if self.is_shared() {
            Effect::LeaveShare { share: (session.app, self.text), member: None }
        } else {
            Effect::Unsubscribe { filter: self.filter, position: self.position }
        }
    }
}

impl Session {
    /// Messages of QoS 1 it takes at a time.
    pub fn share_window(&self) -> u16 {
        u16::from(self.window)
    }

    fn has_shares(&self) -> bool {
        self.subscriptions.iter().any(Subscription::is_shared)
    }

    /// Offers a message that its group has assigned to it under a number, at QoS 1. When there is no room the group is
    /// told once there is.
    pub fn offer_shared(&mut self, message: &Arc<Message>, number: u64, mark: u32, effects: &mut Effects) -> Offer {
        if self.state != State::Open || !self.has_room() {
            self.extra().awaits_share = self.state == State::Open;
            return Offer::Full;
        }
        Offer::Send(self.launch(message, Qos::AtLeastOnce, Some(LoggedAt::Shared { number, mark }), effects))
    }

    /// Its groups may assign to it from now on.
    pub(in crate::session) fn open_shares(&mut self, effects: &mut Effects) {
        if self.has_shares() {
            effects.push(Effect::ShareOpen { window: self.share_window() });
        }
    }

    /// There may be room again for what was refused.
    pub(in crate::session) fn ask_for_shares(&mut self, effects: &mut Effects) {
        let awaits = self.extra.as_ref().is_some_and(|extra| extra.awaits_share);
        if awaits && self.has_room() {
            self.extra().awaits_share = false;
            self.open_shares(effects);
        }
    }

    /// The connection has ended: what it has not acknowledged is for others.
    pub(in crate::session) fn close_shares(&mut self, effects: &mut Effects) {
        if let Some(extra) = self.extra.as_mut() {
            extra.awaits_share = false;
        }
        if let Some(work) = self.work.as_mut() {
            let is_kept = |flight: &InFlight| !matches!(flight.at, Some(LoggedAt::Shared { .. }));
            let before =
                work.window.iter().filter(|flight| !is_kept(flight) && flight.state != Flight::Settled).count();
            work.window.retain(is_kept);
            work.sent -= before;
        }
        if self.has_shares() {
            effects.push(Effect::ShareOpen { window: 0 });
        }
    }
}
