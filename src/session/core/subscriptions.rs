//! A session's subscriptions: matching, options, changes.

use super::super::GrantedFilter;
use super::state::{Effective, Session, Subscription, flag};
pub use crate::base::filter::matches;
use crate::base::ids::Seq;
use smallvec::SmallVec;

/// Whether a filter is one of inbox topics.
pub fn is_inbox(filter: &str) -> bool {
    filter == "$inbox" || filter.starts_with("$inbox/")
}

impl Session {
    /// Options of a live message over all matching subscriptions; none: it is not for this session (No Local, too).
    pub fn effective(&self, topic: &str, publisher: Option<u64>) -> Option<Effective> {
        self.effective_from(topic, publisher, Seq(0))
    }

    /// As [`Session::effective`], over the subscriptions that began before `seq`; 0: over all.
    pub(in crate::session) fn effective_from(
        &self,
        topic: &str,
        publisher: Option<u64>,
        seq: Seq,
    ) -> Option<Effective> {
        let own = publisher.is_some() && publisher == Some(self.publisher());
        let mut found: Option<Effective> = None;
        for subscription in self.subscriptions.iter() {
            let too_young = seq > Seq(0) && subscription.since >= seq;
            if too_young || (own && subscription.no_local) || !matches(&subscription.text, topic) {
                continue;
            }
            let effective = found.get_or_insert_with(|| Effective {
                qos: subscription.qos,
                retain_as_published: false,
                identifiers: SmallVec::new(),
            });
            effective.qos = effective.qos.max(subscription.qos);
            effective.retain_as_published |= subscription.retain_as_published;
            if subscription.identifier > 0 {
                effective.identifiers.push(subscription.identifier);
            }
        }
        found
    }

    /// Of the router's filters `among` (all matching a topic), the first this session has: a fan-out that visits it
    /// by several filters serves it by that one only.
    pub fn first_match(&self, among: &[u32]) -> Option<u32> {
        among
            .iter()
            .copied()
            .find(|&filter| self.subscriptions.iter().any(|subscription| subscription.filter == filter))
    }

    /// The router moved the subscription with this filter.
    pub fn relocate(&mut self, filter: u32, new_position: u32) {
        for subscription in self.subscriptions.iter_mut().filter(|subscription| subscription.filter == filter) {
            subscription.position = new_position;
        }
    }

    /// Tells the places of all subscriptions, in their order, after the router was rebuilt from records.
    pub fn relocate_all(&mut self, places: &[(u32, u32)]) {
        assert_eq!(places.len(), self.subscriptions.len(), "one place for each subscription");
        for (subscription, &(filter, position)) in self.subscriptions.iter_mut().zip(places) {
            (subscription.filter, subscription.position) = (filter, position);
        }
    }

    /// Takes granted filters in, not yet begun: entries that are read from the log are not for them until
    /// [`Session::begin`].
    pub(in crate::session) fn install(&mut self, granted: &[GrantedFilter], places: &[(u32, u32)]) {
        assert_eq!(granted.len(), places.len(), "one place for each filter");
        let mut all = core::mem::take(&mut self.subscriptions).into_vec();
        all.reserve_exact(granted.len());
        for (wanted, &(filter, position)) in granted.iter().zip(places) {
            let known = all.iter().position(|known| known.text == wanted.filter);
            let made = Subscription {
                text: wanted.filter.clone(),
                since: known.map_or(Subscription::NOT_BEGUN, |at| all[at].since),
                filter,
                position,
                identifier: wanted.identifier,
                qos: wanted.qos,
                no_local: wanted.no_local,
                retain_as_published: wanted.retain_as_published,
            };
            match known {
                Some(at) => all[at] = made,
                None => all.push(made),
            }
        }
        self.replace_subscriptions(all);
    }

    /// Interest is everywhere: what is logged after `seq` is theirs.
    pub(in crate::session) fn begin(&mut self, seq: Seq) {
        for subscription in self.subscriptions.iter_mut().filter(|subscription| !subscription.has_begun()) {
            subscription.since = seq;
        }
        self.positions.stand_at(seq);
    }

    pub(in crate::session) fn replace_subscriptions(&mut self, all: Vec<Subscription>) {
        self.set(flag::HAS_INBOX, all.iter().any(|subscription| is_inbox(&subscription.text)));
        self.subscriptions = all.into();
    }
}
