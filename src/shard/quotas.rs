//! What each app may have at most, whichever shards it is on.
//!
//! Connections and subscriptions are counted for the whole node, in one number an app and kind that shards share: they
//! change where a connection or a subscription begins or ends, and no message asks for them. Connections are exact. A
//! SUBSCRIBE is judged by the count of that moment and counted when its filters stand in the lists, so an app may have too
//! many by the filters of one SUBSCRIBE for each shard but one. Stored bytes are the log's to judge, pushes the API's.

use crate::base::ids::{AppId, ConnectionId};
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// What one app may have; none: any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Connections that have said who they are.
    pub connections: Option<u64>,
    /// Subscriptions, also of sessions that are away.
    pub subscriptions: Option<u64>,
    /// Messages a second that it may push.
    pub push_rate: Option<u32>,
    /// Payload bytes in its inboxes, its topics' streams and that of everyone.
    pub stored_bytes: Option<u64>,
}

/// What one app may have and has.
#[derive(Debug, Default)]
struct Held {
    quota: Quota,
    connections: AtomicU64,
    subscriptions: AtomicU64,
}

/// What apps have, shared by all shards. Empty: no app has a quota of these.
#[derive(Clone, Debug, Default)]
pub(crate) struct Apps(Arc<[Held]>);

impl Apps {
    pub(crate) fn new(quotas: &[Quota]) -> Self {
        if quotas.iter().all(|quota| quota.connections.is_none() && quota.subscriptions.is_none()) {
            return Self::default();
        }
        Self(quotas.iter().map(|&quota| Held { quota, ..Held::default() }).collect())
    }
}

/// A shard's view of it.
#[derive(Debug)]
pub(crate) struct Quotas {
    apps: Apps,
    /// By the index of a connection, the app for which it is counted, plus one; 0: for none. Empty: no app has a quota of
    /// connections. Zeroes cost no memory.
    counted: Vec<u16>,
    pub(super) refused_connections: u64,
}

impl Quotas {
    pub(super) fn new(apps: Apps, connections_max: usize) -> Self {
        let counts = apps.0.iter().any(|held| held.quota.connections.is_some());
        let counted = if counts { vec![0; connections_max] } else { Vec::new() };
        Self { apps, counted, refused_connections: 0 }
    }

    /// A connection has said that it is of an app, perhaps in the place of another one of its device; false: the app has
    /// as many as it may, and nothing has changed.
    pub(super) fn connect(&mut self, app: AppId, id: ConnectionId, replaced: Option<ConnectionId>) -> bool {
        let Some(held) = self.apps.0.get(usize::from(app.0)) else { return true };
        let Some(most) = held.quota.connections else { return true };
        let own = replaced.and_then(|old| self.counted.get_mut(old.index as usize)).filter(|counted| **counted != 0);
        let has_room = match own {
            // It takes the old one's place, which may take a while to be gone.
            Some(counted) => {
                *counted = 0;
                true
            }
            None => held
                .connections
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < most).then_some(count + 1))
                .is_ok(),
        };
        if has_room {
            let counted = self.counted.get_mut(id.index as usize).expect("there is a place for each connection");
            *counted = app.0 + 1;
        } else {
            self.refused_connections += 1;
        }
        has_room
    }

    /// A connection has ended, whether it is counted or not.
    pub(super) fn disconnect(&mut self, id: ConnectionId) {
        let counted = self.counted.get_mut(id.index as usize).map_or(0, core::mem::take);
        if counted != 0 {
            let before = self.apps.0[usize::from(counted - 1)].connections.fetch_sub(1, Ordering::Relaxed);
            assert!(before > 0, "each connection is counted once");
        }
    }

    /// How many more subscriptions an app may have; none: any.
    pub(super) fn subscriptions_left(&self, app: AppId) -> Option<u64> {
        let held = self.apps.0.get(usize::from(app.0))?;
        let most = held.quota.subscriptions?;
        Some(most.saturating_sub(held.subscriptions.load(Ordering::Relaxed)))
    }

    /// An app has one subscription more. Those that were there before a restart are not refused.
    pub(super) fn subscribed(&self, app: AppId) {
        if let Some(held) = self.apps.0.get(usize::from(app.0)) {
            held.subscriptions.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// An app has one subscription less.
    pub(super) fn unsubscribed(&self, app: AppId) {
        if let Some(held) = self.apps.0.get(usize::from(app.0)) {
            let before = held.subscriptions.fetch_sub(1, Ordering::Relaxed);
            assert!(before > 0, "each subscription is counted once");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: AppId = AppId(1);

    fn id(index: u32) -> ConnectionId {
        ConnectionId { index, generation: 0 }
    }

    fn two_shards(quota: Quota) -> [Quotas; 2] {
        let apps = Apps::new(&[Quota::default(), quota]);
        [Quotas::new(apps.clone(), 8), Quotas::new(apps, 8)]
    }

    #[test]
    fn connections_of_an_app_are_counted_over_all_shards_exactly() {
        let [mut one, mut other] = two_shards(Quota { connections: Some(3), ..Quota::default() });
        assert!(one.connect(APP, id(0), None) && other.connect(APP, id(0), None) && one.connect(APP, id(1), None));
        assert!(!one.connect(APP, id(2), None) && !other.connect(APP, id(1), None), "three are the most");
        assert!(one.connect(AppId(0), id(3), None), "another app is not concerned");
        other.disconnect(id(0));
        other.disconnect(id(0));
        other.disconnect(id(1));
        assert!(one.connect(APP, id(2), None), "one has left, once");
        assert!(!other.connect(APP, id(0), None));
        assert_eq!((one.refused_connections, other.refused_connections), (1, 2));
    }

    #[test]
    fn who_takes_over_needs_no_room_and_leaves_none_behind() {
        let [mut shard, _] = two_shards(Quota { connections: Some(1), ..Quota::default() });
        assert!(shard.connect(APP, id(0), None) && shard.connect(APP, id(1), Some(id(0))));
        shard.disconnect(id(0));
        assert!(!shard.connect(APP, id(2), None), "the device is still there");
        shard.disconnect(id(1));
        assert!(shard.connect(APP, id(2), None));
    }

    #[test]
    fn subscriptions_that_are_left_are_those_of_all_shards() {
        let [one, other] = two_shards(Quota { subscriptions: Some(2), ..Quota::default() });
        assert_eq!((one.subscriptions_left(APP), one.subscriptions_left(AppId(0))), (Some(2), None));
        for _ in 0..3 {
            other.subscribed(APP);
        }
        assert_eq!(one.subscriptions_left(APP), Some(0), "more than may be were there before");
        other.unsubscribed(APP);
        one.unsubscribed(APP);
        assert_eq!(one.subscriptions_left(APP), Some(1));
    }

    #[test]
    fn without_quotas_nothing_is_counted() {
        let mut shard = Quotas::new(Apps::new(&[Quota { stored_bytes: Some(1), ..Quota::default() }]), 1 << 20);
        assert!(shard.counted.is_empty() && shard.connect(AppId(0), id(0), None));
        shard.subscribed(AppId(0));
        shard.disconnect(id(0));
        assert_eq!(shard.subscriptions_left(AppId(0)), None);
    }
}
