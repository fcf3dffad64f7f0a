//! Subscriptions: into this shard's lists, and as interest to the filter's home, or for a wildcard to every home.
//!
//! A session's SUBACK waits until every home concerned has answered. Somebody who joins a filter whose interest is
//! still on its way sends the same level once more and waits for that answer: it comes after the first one's.
//! Filters below `$inbox` need no home: the user's is this shard. They stand on the app's list of everyone.

use super::gateway::{Core, Gateway};
use super::letter::{InterestLetter, Letter};
use crate::base::ids::{AppId, SessionId, ShardId};
use crate::io::Driver;
use crate::router::interest::Level;
use crate::router::subscribers::{Options, Subscriber};
use crate::router::{EVERYONE, FilterId, filter};
use crate::session::{GrantedFilter, Ticket};
use std::sync::Arc;

/// A SUBSCRIBE (or the filters of a session found at start) whose interest is on its way.
#[derive(Debug)]
pub(crate) struct Installing {
    session: SessionId,
    ticket: Option<Ticket>,
    filters: Vec<FilterId>,
    /// Homes that have not answered.
    answers: u32,
    /// It is a share group's interest, and nobody's session.
    share: Option<usize>,
}

impl Installing {
    /// The interest of a share group.
    pub(crate) fn of_share(index: usize) -> Self {
        let session = SessionId { index: u32::MAX, generation: 0 };
        Self { session, ticket: None, filters: Vec::new(), answers: 0, share: Some(index) }
    }
}

/// The place in the router of a shared subscription, which has none: its group has.
const NO_PLACE: (u32, u32) = (u32::MAX, u32::MAX);

impl Gateway {
    /// Registers a session's filters. Returns their places, and what [`Gateway::subscribed`] wants once the session
    /// knows them.
    pub(super) fn subscribe<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        session: SessionId,
        ticket: Option<Ticket>,
        granted: &[GrantedFilter],
    ) -> (usize, Vec<(u32, u32)>) {
        let (app, durable) = {
            let session = self.directory.get(session).expect("who asks is there");
            (session.app(), session.is_durable())
        };
        let slot = self.installing.insert(Installing { session, ticket, filters: Vec::new(), answers: 0, share: None });
        let mut places = Vec::with_capacity(granted.len());
        // The places in a record are those of an earlier process.
        let mut inbox_place = ticket.and_then(|_| self.inbox_place(session));
        for filter in granted {
            if filter.is_shared() {
                self.installing[slot].answers += 1;
                if filter.replaces.is_none() {
                    self.subscription_begins(app);
                }
                places.push(NO_PLACE);
                let ticket = u32::try_from(slot).expect("fewer than 2^32 subscribes are under way");
                let change = self.member_of(session, filter.qos, filter.mark(), ticket).expect("who asks is there");
                self.tell_share(core, app, filter.filter.shared(), session, change);
                continue;
            }
            let options = Options::new(filter.qos)
                .with_no_local(filter.no_local)
                .with_retain_as_published(filter.retain_as_published)
                .with_durable(durable);
            let name = if is_inbox(&filter.filter) { EVERYONE } else { &*filter.filter };
            let (id, position, change) = match filter.replaces {
                Some((id, position)) => {
                    let id = FilterId(id);
                    (id, position, self.subscribers.update(id, position, options))
                }
                None if inbox_place.is_some() && name == EVERYONE => {
                    self.subscription_begins(app);
                    places.extend(inbox_place);
                    continue;
                }
                None => {
                    self.subscription_begins(app);
                    let subscriber = Subscriber { session: session.index, options };
                    let subscribed = self.subscribers.subscribe(app, name, subscriber);
                    (subscribed.filter, subscribed.position, subscribed.interest)
                }
            };
            places.push((id.0, position));
            if name == EVERYONE {
                inbox_place = Some((id.0, position));
            }
            // A session found at start answers nobody: what it needs is on its way, and its shard waits for all of it.
            let awaits = ticket.is_some() && self.on_the_way.contains_key(&id.0);
            if name != EVERYONE && (change.changed() || awaits) {
                self.install(core, slot, app, id, filter.filter.shared(), change.after);
            }
        }
        (slot, places)
    }

    /// Tells a filter's homes, who answer.
    pub(super) fn install<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        slot: usize,
        app: AppId,
        id: FilterId,
        filter: &Arc<str>,
        level: Level,
    ) {
        *self.on_the_way.entry(id.0).or_insert(0) += 1;
        self.installing[slot].filters.push(id);
        self.tell_homes(core, app, filter, level, Some(slot));
    }

    /// The session knows the places: goes on at once when no home has to be asked.
    pub(super) fn subscribed<D: Driver>(&mut self, core: &mut Core<D>, slot: usize) {
        if self.installing[slot].answers == 0 {
            self.installed(core, slot);
        }
    }

    /// One home has answered.
    pub(super) fn on_interest_set<D: Driver>(&mut self, core: &mut Core<D>, ticket: u32) {
        let slot = ticket as usize;
        self.installing[slot].answers -= 1;
        if self.installing[slot].answers == 0 {
            self.installed(core, slot);
        }
    }

    fn installed<D: Driver>(&mut self, core: &mut Core<D>, slot: usize) {
        let Installing { session, ticket, filters, share, .. } = self.installing.remove(slot);
        for filter in filters {
            let left = self.on_the_way.get_mut(&filter.0).expect("it was counted when it was sent");
            *left -= 1;
            if *left == 0 {
                self.on_the_way.remove(&filter.0);
            }
        }
        if let Some(index) = share {
            self.on_share_installed(core, index);
        }
        if let Some(ticket) = ticket {
            self.on_interest_installed(core, session, ticket);
        }
    }

    fn subscription_begins(&mut self, app: AppId) {
        self.subscription_count += 1;
        self.quotas.subscribed(app);
    }

    /// Of whoever it was.
    pub(super) fn subscription_ends(&mut self, app: AppId) {
        self.subscription_count -= 1;
        self.quotas.unsubscribed(app);
    }

    /// Where a session's inbox filters stand: all of them share one place on the list of everyone. Who has ended, or
    /// was found at start and is not in the list yet, stands nowhere.
    fn inbox_place(&self, session: SessionId) -> Option<(u32, u32)> {
        let subscriptions = self.directory.get(session).filter(|session| !session.is_over())?.subscriptions();
        let inbox = subscriptions.iter().find(|subscription| is_inbox(&subscription.text))?;
        Some((inbox.filter, inbox.position))
    }

    /// Takes a subscription out; its place is as the session knew it.
    pub(super) fn unsubscribe<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        session: Option<SessionId>,
        filter: u32,
        position: u32,
        everyone_left: &mut Option<(u32, AppId)>,
    ) {
        let id = FilterId(filter);
        if let Some((_, app)) = everyone_left.filter(|(left, _)| *left == filter) {
            return self.subscription_ends(app);
        }
        let (app, name) = {
            let (app, name) = self.subscribers.filter(id);
            (app, Arc::clone(name))
        };
        self.subscription_ends(app);
        let still = session.and_then(|session| self.inbox_place(session));
        if still.is_some_and(|(list, _)| list == filter) {
            return;
        }
        if &*name == EVERYONE {
            *everyone_left = Some((filter, app));
        }
        let gone = self.subscribers.unsubscribe(id, position);
        if let Some(moved) = gone.moved {
            self.relocate(moved);
        }
        if &*name != EVERYONE && gone.interest.changed() {
            self.tell_homes(core, app, &name, gone.interest.after, None);
        }
    }

    /// Another shard's interest in a filter that this one is (a) home of.
    pub(super) fn on_interest<D: Driver>(&mut self, core: &mut Core<D>, letter: &InterestLetter) {
        self.set_interest(core, letter.app, &letter.filter, letter.shard, letter.level);
        if let Some(ticket) = letter.ticket {
            core.send_control(letter.shard, Letter::InterestSet { ticket });
        }
    }

    fn set_interest<D: Driver>(&mut self, core: &Core<D>, app: AppId, filter: &str, shard: ShardId, level: Level) {
        self.interest.set(app, filter, shard, level);
        if level == Level::Owed {
            self.turning.begin(core);
        }
    }

    pub(super) fn tell_homes<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        app: AppId,
        name: &Arc<str>,
        level: Level,
        slot: Option<usize>,
    ) {
        if filter::is_wildcard(name) {
            for home in self.homes.all() {
                self.tell_home(core, home, app, name, level, slot);
            }
        } else {
            self.tell_home(core, self.homes.topic(app, name), app, name, level, slot);
        }
    }

    fn tell_home<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        home: ShardId,
        app: AppId,
        name: &Arc<str>,
        level: Level,
        slot: Option<usize>,
    ) {
        if home == self.shard {
            return self.set_interest(core, app, name, self.shard, level);
        }
        let ticket = slot.map(|slot| {
            self.installing[slot].answers += 1;
            u32::try_from(slot).expect("fewer than 2^32 subscribes are under way")
        });
        let letter = InterestLetter { app, filter: Arc::clone(name), shard: self.shard, level, ticket };
        core.send_control(home, Letter::Interest(Box::new(letter)));
    }
}

/// Whether a filter is about the user's own inbox.
pub(super) fn is_inbox(filter: &str) -> bool {
    filter == "$inbox" || filter.starts_with("$inbox/")
}
