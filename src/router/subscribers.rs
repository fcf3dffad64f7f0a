//! One shard's own subscribers: per filter a dense list that a fan-out pass walks, with subscribe and unsubscribe in
//! constant time however long it is.
//!
//! The session keeps the position of each of its subscriptions. While no pass is on a list, a subscriber that leaves
//! is replaced by the list's last one, whose session is told its new position. While one is, positions must stand
//! still: the one who leaves becomes a tombstone, and [`Subscribers::compact`] removes it when the passes are over.

use super::filters::{FilterId, Filters};
use super::interest::{InterestChange, Level};
use crate::base::hash::KeyedHash;
use crate::base::ids::{AppId, Qos};
use crate::base::row::Row;
use crate::limits::FANOUT_TOMBSTONES_MIN;
use std::sync::Arc;

/// How one subscription wants its messages: a byte, because there is one per subscriber in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Options(u8);

impl Options {
    const QOS: u8 = 0b11;
    const NO_LOCAL: u8 = 1 << 2;
    const RETAIN_AS_PUBLISHED: u8 = 1 << 3;
    const DURABLE: u8 = 1 << 4;

    /// Granted QoS; all flags off.
    pub fn new(qos: Qos) -> Self {
        Self(qos as u8)
    }

    /// Its own publishes do not come back to the session.
    #[must_use]
    pub fn with_no_local(self, on: bool) -> Self {
        self.with(Self::NO_LOCAL, on)
    }

    /// The publisher's retain flag stays.
    #[must_use]
    pub fn with_retain_as_published(self, on: bool) -> Self {
        self.with(Self::RETAIN_AS_PUBLISHED, on)
    }

    /// The session outlives its connection.
    #[must_use]
    pub fn with_durable(self, on: bool) -> Self {
        self.with(Self::DURABLE, on)
    }

    /// Granted QoS.
    pub fn qos(self) -> Qos {
        Qos::from_bits(self.0 & Self::QOS).expect("options are made from a QoS")
    }

    /// See [`Self::with_no_local`].
    pub fn no_local(self) -> bool {
        self.0 & Self::NO_LOCAL != 0
    }

    /// See [`Self::with_retain_as_published`].
    pub fn retain_as_published(self) -> bool {
        self.0 & Self::RETAIN_AS_PUBLISHED != 0
    }

    /// See [`Self::with_durable`].
    pub fn durable(self) -> bool {
        self.0 & Self::DURABLE != 0
    }

    /// Whether such a subscription is owed messages while its session is away: durable and QoS ≥ 1.
    pub fn is_owed(self) -> bool {
        self.durable() && self.qos() != Qos::AtMostOnce
    }

    fn with(self, flag: u8, on: bool) -> Self {
        Self(if on { self.0 | flag } else { self.0 & !flag })
    }
}

/// One entry of a filter's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// Index into the shard's session slab; `u32::MAX` is nobody's.
    pub session: u32,
    /// How it wants its messages.
    pub options: Options,
}

/// The session index of an entry whose subscriber has left.
const TOMBSTONE: u32 = u32::MAX;
const _: () = assert!(size_of::<Subscriber>() == 8);

/// Where a new subscriber stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// The filter's number, valid until this subscriber leaves.
    pub filter: FilterId,
    /// Position in its list, until told otherwise.
    pub position: u32,
    /// What it means to the filter's home.
    pub interest: InterestChange,
}

/// A subscriber stands elsewhere now; its session must take note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Whose subscription.
    pub session: u32,
    /// Through which filter.
    pub filter: FilterId,
    /// The new position.
    pub position: u32,
}

/// What became of the list when a subscriber left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribed {
    /// The subscriber that took the position, if one did.
    pub moved: Option<Moved>,
    /// What it means to the filter's home.
    pub interest: InterestChange,
}

/// The list of one filter.
#[derive(Debug, Default)]
struct List {
    /// Most filters have one or two subscribers; the list of everyone has all sessions.
    entries: Row<Subscriber>,
    /// Positions of tombstones, each at least once. A position may be stale: there, or beyond the end, is no tombstone.
    dead: Vec<u32>,
    live: u32,
    owed: u32,
    /// Fan-out passes on this list.
    passes: u32,
    /// Whether it is in the compaction queue.
    queued: bool,
}

impl List {
    fn level(&self) -> Level {
        match (self.live, self.owed) {
            (0, _) => Level::None,
            (_, 0) => Level::Listening,
            _ => Level::Owed,
        }
    }

    fn count(&mut self, options: Options) {
        self.live += 1;
        self.owed += u32::from(options.is_owed());
    }

    fn discount(&mut self, options: Options) {
        self.live -= 1;
        self.owed -= u32::from(options.is_owed());
    }

    fn entry_mut(&mut self, position: u32) -> &mut Subscriber {
        let entry = self.entries.get_mut(position as usize).expect("a session knows its position in the list");
        assert!(entry.session != TOMBSTONE, "a subscriber is in the list until it leaves");
        entry
    }

    /// Fills the gap at `position` with the last entry, which must not be a tombstone if it is another one.
    fn swap_remove(&mut self, filter: FilterId, position: u32) -> Option<Moved> {
        self.entries.swap_remove(position as usize);
        self.entries.get(position as usize).map(|entry| Moved { session: entry.session, filter, position })
    }
}

/// All local subscribers of one shard.
#[derive(Debug)]
pub struct Subscribers {
    filters: Filters<List>,
    /// Filters with tombstones and no pass. It may name filters that are gone or whose tombstones are.
    to_compact: Vec<FilterId>,
    live: usize,
}

impl Subscribers {
    /// Nobody. `hash` is the process's.
    pub fn new(hash: KeyedHash) -> Self {
        Self { filters: Filters::new(hash), to_compact: Vec::new(), live: 0 }
    }

    /// Adds a subscriber under a checked filter, or one of the house's own lists. The caller sees to it that a session
    /// is under a filter at most once.
    pub fn subscribe(&mut self, app: AppId, filter: &str, subscriber: Subscriber) -> Subscribed {
        assert!(subscriber.session != TOMBSTONE, "a session slab has fewer than 2^32 - 1 entries");
        let id = match self.filters.find(app, filter) {
            Some(id) => id,
            None => self.filters.insert(app, filter, List::default()),
        };
        let list = self.filters.at_mut(id);
        let before = list.level();
        let position = u32::try_from(list.entries.len()).expect("a list is no longer than the session slab");
        list.entries.push(subscriber);
        list.count(subscriber.options);
        self.live += 1;
        Subscribed { filter: id, position, interest: InterestChange { before, after: list.level() } }
    }

    /// Changes the options of a subscriber in its place.
    pub fn update(&mut self, filter: FilterId, position: u32, options: Options) -> InterestChange {
        let list = self.filters.at_mut(filter);
        let before = list.level();
        let old = core::mem::replace(&mut list.entry_mut(position).options, options);
        list.discount(old);
        list.count(options);
        InterestChange { before, after: list.level() }
    }

    /// Removes a subscriber. From now on no pass visits it.
    pub fn unsubscribe(&mut self, filter: FilterId, position: u32) -> Unsubscribed {
        let list = self.filters.at_mut(filter);
        let before = list.level();
        let options = list.entry_mut(position).options;
        list.discount(options);
        let interest = InterestChange { before, after: list.level() };
        self.live -= 1;
        if list.passes == 0 && list.live == 0 {
            self.filters.remove(filter);
            return Unsubscribed { moved: None, interest };
        }
        if list.passes == 0 && list.dead.is_empty() {
            return Unsubscribed { moved: list.swap_remove(filter, position), interest };
        }
        list.entry_mut(position).session = TOMBSTONE;
        list.dead.push(position);
        Unsubscribed { moved: None, interest }
    }

    /// The number of a filter that has subscribers.
    pub fn find(&self, app: AppId, filter: &str) -> Option<FilterId> {
        self.filters.find(app, filter)
    }

    /// App and text of a filter; the text can be shared.
    pub fn filter(&self, filter: FilterId) -> (AppId, &Arc<str>) {
        self.filters.name(filter)
    }

    /// The subscriber at a position that the session was told.
    pub fn subscriber(&self, filter: FilterId, position: u32) -> Option<Subscriber> {
        self.filters.get(filter)?.entries.get(position as usize).copied().filter(|entry| entry.session != TOMBSTONE)
    }

    /// Appends the filters that match a topic, in an order that depends on the filters alone.
    pub fn matches(&self, app: AppId, topic: &str, into: &mut Vec<FilterId>) {
        self.filters.for_each_match(app, topic, |filter, _| into.push(filter));
    }

    /// Filters at the moment, those that only a pass still holds included; 0 when nobody subscribes.
    pub fn filters(&self) -> usize {
        self.filters.len()
    }

    /// Nodes of the wildcard trie at the moment; 0 when nobody subscribes.
    pub fn trie_nodes(&self) -> usize {
        self.filters.nodes()
    }

    /// Subscribers at the moment.
    pub fn live(&self) -> usize {
        self.live
    }

    /// Removes tombstones from lists that no pass is on, in at most `steps` steps, and tells who moved.
    /// [`super::fanout::Fanout::run`] calls it, so that no list stays crowded.
    pub(super) fn compact(&mut self, steps: usize, mut moved: impl FnMut(Moved)) {
        let mut steps = steps;
        while steps > 0 {
            let Some(&filter) = self.to_compact.last() else { return };
            steps -= 1;
            let Some(list) = self.filters.get_mut(filter).filter(|list| list.queued && list.passes == 0) else {
                self.leave_queue();
                continue;
            };
            let Some(&position) = list.dead.last() else {
                list.dead = Vec::new();
                self.leave_queue();
                continue;
            };
            let is_dead = |entry: Option<&Subscriber>| entry.is_some_and(|entry| entry.session == TOMBSTONE);
            if !is_dead(list.entries.get(position as usize)) {
                list.dead.pop();
            } else if is_dead(list.entries.last()) {
                list.entries.pop();
            } else {
                list.dead.pop();
                list.swap_remove(filter, position).into_iter().for_each(&mut moved);
            }
        }
    }

    /// Whether lists wait for [`Self::compact`].
    pub(super) fn has_uncompacted(&self) -> bool {
        !self.to_compact.is_empty()
    }

    /// Takes the last filter out of the compaction queue.
    fn leave_queue(&mut self) {
        let filter = self.to_compact.pop().expect("the queue was looked at just now");
        if let Some(list) = self.filters.get_mut(filter) {
            list.queued = false;
        }
    }

    /// Whether a further pass must wait until the list is compacted. Without this, passes that overlap for ever would
    /// let tombstones grow without bound.
    pub(super) fn is_crowded(&self, filter: FilterId) -> bool {
        let list = self.filters.at(filter);
        list.dead.len() > FANOUT_TOMBSTONES_MIN.max(list.live as usize)
    }

    /// Begins a pass: positions of this list stand still until [`Self::unpin`]. Returns the list's length; who is
    /// beyond it came later.
    pub(super) fn pin(&mut self, filter: FilterId) -> u32 {
        let list = self.filters.at_mut(filter);
        list.passes += 1;
        u32::try_from(list.entries.len()).expect("a list is no longer than the session slab")
    }

    /// Ends a pass. A filter that nobody subscribes to any more goes now.
    pub(super) fn unpin(&mut self, filter: FilterId) {
        let list = self.filters.at_mut(filter);
        assert!(list.passes > 0, "a pass ends once");
        list.passes -= 1;
        if list.passes > 0 {
            return;
        }
        if list.live == 0 {
            self.filters.remove(filter);
        } else if !list.dead.is_empty() && !list.queued {
            list.queued = true;
            self.to_compact.push(filter);
        }
    }

    /// The entries of a list, some of them tombstones.
    pub(super) fn entries(&self, filter: FilterId) -> &Row<Subscriber> {
        &self.filters.at(filter).entries
    }
}

impl Subscriber {
    pub(super) fn is_tombstone(self) -> bool {
        self.session == TOMBSTONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: AppId = AppId(0);

    fn subscribers() -> Subscribers {
        Subscribers::new(KeyedHash::new(1))
    }

    fn quiet(session: u32) -> Subscriber {
        Subscriber { session, options: Options::new(Qos::AtMostOnce) }
    }

    fn durable(session: u32, qos: Qos) -> Subscriber {
        Subscriber { session, options: Options::new(qos).with_durable(true) }
    }

    #[test]
    fn options_keep_every_flag_beside_the_qos() {
        let options = Options::new(Qos::ExactlyOnce).with_no_local(true).with_retain_as_published(true);
        assert!(options.no_local() && options.retain_as_published() && !options.durable() && !options.is_owed());
        assert_eq!(options.with_durable(true).qos(), Qos::ExactlyOnce);
        assert!(options.with_durable(true).is_owed());
        assert!(!Options::new(Qos::AtMostOnce).with_durable(true).is_owed());
        assert_eq!(options.with_no_local(false).with_retain_as_published(false), Options::new(Qos::ExactlyOnce));
    }

    #[test]
    fn interest_rises_and_falls_with_the_first_and_last_of_each_kind() {
        let mut all = subscribers();
        let change = |before, after| InterestChange { before, after };
        let first = all.subscribe(APP, "a", quiet(1));
        assert_eq!(first.interest, change(Level::None, Level::Listening));
        let second = all.subscribe(APP, "a", durable(2, Qos::AtLeastOnce));
        assert_eq!(second.interest, change(Level::Listening, Level::Owed));
        let to_quiet = all.update(second.filter, second.position, Options::new(Qos::AtMostOnce).with_durable(true));
        assert_eq!(to_quiet, change(Level::Owed, Level::Listening));
        let back = all.update(second.filter, second.position, Options::new(Qos::ExactlyOnce).with_durable(true));
        assert_eq!(back, change(Level::Listening, Level::Owed));
        let left = all.unsubscribe(first.filter, first.position);
        assert_eq!(left.interest, change(Level::Owed, Level::Owed));
        assert_eq!(left.moved, Some(Moved { session: 2, filter: first.filter, position: 0 }));
        assert_eq!(all.unsubscribe(first.filter, 0).interest, change(Level::Owed, Level::None));
        assert_eq!((all.filters(), all.trie_nodes(), all.live()), (0, 0, 0));
    }

    #[test]
    fn a_wildcard_filter_frees_its_trie_nodes_with_its_last_subscriber() {
        let mut all = subscribers();
        let a = all.subscribe(APP, "a/+/c/#", quiet(1));
        let b = all.subscribe(APP, "a/+", quiet(1));
        let c = all.subscribe(AppId(3), "#", quiet(2));
        let mut found = Vec::new();
        all.matches(APP, "a/b/c", &mut found);
        assert_eq!(found, [a.filter]);
        for place in [a, b, c] {
            all.unsubscribe(place.filter, place.position);
        }
        assert_eq!((all.filters(), all.trie_nodes(), all.live()), (0, 0, 0));
    }

    #[test]
    fn positions_stand_still_during_a_pass_and_the_list_is_dense_again_after_it() {
        let mut all = subscribers();
        let filter = all.subscribe(APP, "a", quiet(0)).filter;
        (1..10).for_each(|session| assert_eq!(all.subscribe(APP, "a", quiet(session)).position, session));
        assert_eq!(all.pin(filter), 10);
        for position in [9, 0, 5] {
            assert_eq!(all.unsubscribe(filter, position).moved, None);
        }
        assert_eq!(all.subscribe(APP, "a", quiet(10)).position, 10);
        all.unpin(filter);
        let mut position: Vec<Option<u32>> = (0..11).map(Some).collect();
        all.compact(100, |moved| position[moved.session as usize] = Some(moved.position));
        for left in [9, 0, 5] {
            position[left] = None;
        }
        assert_eq!(all.entries(filter).len(), 8);
        for (session, position) in (0_u32..).zip(position).filter_map(|(session, at)| Some((session, at?))) {
            assert_eq!(all.subscriber(filter, position), Some(quiet(session)));
        }
    }

    #[test]
    fn a_filter_left_by_all_during_a_pass_stays_until_the_pass_ends() {
        let mut all = subscribers();
        let place = all.subscribe(APP, "+", quiet(0));
        all.pin(place.filter);
        assert_eq!(all.unsubscribe(place.filter, place.position).interest.after, Level::None);
        let again = all.subscribe(APP, "+", quiet(1));
        assert_eq!((again.filter, again.position), (place.filter, 1));
        all.unsubscribe(again.filter, again.position);
        assert_eq!(all.filters(), 1);
        all.unpin(place.filter);
        assert_eq!((all.filters(), all.trie_nodes(), all.live()), (0, 0, 0));
        all.compact(10, |_| panic!("nobody is left to move"));
    }
}
