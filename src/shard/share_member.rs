//! Share groups, as the shards of their members see them: sessions' memberships told to the groups' homes, and what
//! they assign handed to sessions.

use super::gateway::{Core, Gateway};
use super::letter::Letter;
use super::log_port::Waiting;
use super::share::{Change, HOME_SHIFT, Outcome, ShareLetter};
use crate::base::ids::{AppId, Qos, SessionId, ShardId};
use crate::base::log::RecordChange;
use crate::io::Driver;
use crate::router::share::{Member, MemberId};
use crate::session::core::record;
use crate::session::{Counter, Fate, Offer, Session, Text, share_of};
use crate::store::Request;
use std::sync::Arc;

impl Gateway {
    /// Tells a group's home of a member that lives here.
    pub(super) fn tell_share<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        app: AppId,
        share: &Arc<str>,
        session: SessionId,
        change: Change,
    ) {
        let Some((group, filter)) = share_of(share) else { unreachable!("it was granted as a shared subscription") };
        let home = self.homes.share(app, group, filter);
        let id = MemberId { shard: self.shard, session };
        let letter = ShareLetter::Member { app, share: Arc::clone(share), id, change };
        core.send_control(home, Letter::Share(Box::new(letter)));
    }

    /// A session has unsubscribed, or ended.
    pub(super) fn leave_share<D: Driver>(&mut self, core: &mut Core<D>, share: &(AppId, Text), session: SessionId) {
        self.tell_share(core, share.0, share.1.shared(), session, Change::Leave);
    }

    /// A session has a connection with room, or none: all its groups are told.
    pub(super) fn open_shares<D: Driver>(&mut self, core: &mut Core<D>, id: SessionId, window: u16) {
        let Some(session) = self.directory.get(id) else { return };
        let app = session.app();
        let shares = session.subscriptions().iter().filter(|subscription| subscription.is_shared());
        let shares: Vec<Arc<str>> = shares.map(|subscription| Arc::clone(subscription.text.shared())).collect();
        for share in &shares {
            self.tell_share(core, app, share, id, Change::Open(window));
        }
    }

    pub(super) fn on_share_delivery<D: Driver>(&mut self, core: &mut Core<D>, letter: ShareLetter) {
        let ShareLetter::Deliver { session: id, message, qos, number, mark, claim } = letter else {
            unreachable!("the caller looked")
        };
        let is_there = self.directory.get(id).is_some_and(Session::is_open);
        if qos == Qos::AtMostOnce {
            if is_there {
                self.deliver_shared_once(core, id, &message, mark);
            } else {
                self.counters.session(Counter::DroppedOffline);
            }
            return;
        }
        let mut offer = Offer::Full;
        self.tell_session(core, id, |session, effects| {
            offer = session.offer_shared(&message, qos, (number, mark), claim, effects);
        });
        match offer {
            Offer::Send(delivery) => self.deliver_in_flight(core, id, delivery, false),
            Offer::AfterCommit => {}
            _ => self.tell_outcome(core, number, Outcome::Refused),
        }
    }

    /// A session says what becomes of a message.
    pub(super) fn tell_fate<D: Driver>(&mut self, core: &mut Core<D>, number: u64, fate: Fate) {
        match fate {
            Fate::Taken => self.tell_outcome(core, number, Outcome::Taken),
            Fate::Settled => self.tell_outcome(core, number, Outcome::Done),
            Fate::Returned(claim) => {
                let key = claim.map(|(app, claim)| record::share_taken_key(app, &claim.share, claim.seq));
                self.shares.returned.push((number, key.map(|key| RecordChange { key, value: None })));
            }
        }
    }

    /// A member is done with a message, has it for good, or cannot take it.
    fn tell_outcome<D: Driver>(&mut self, core: &mut Core<D>, number: u64, outcome: Outcome) {
        let home = ShardId(u16::try_from(number >> HOME_SHIFT).expect("16 bits are left"));
        core.send_control(home, Letter::Share(Box::new(ShareLetter::Said { number, outcome })));
    }

    /// Takes back what sessions that ended had begun to record. It comes behind the removal of their records, so that no
    /// crash leaves a message to the session and the group at once.
    pub(super) fn give_back(&mut self) {
        for (number, record) in core::mem::take(&mut self.shares.returned) {
            let request = Request::Append { key: None, entries: Vec::new(), records: record.into_iter().collect() };
            self.log.submit(request, Waiting::ShareReturned { number });
        }
    }

    /// A message is the group's again. If that could not be committed, only a restart can tell whose it is, and this
    /// group may not assign it any more.
    pub(super) fn on_share_returned<D: Driver>(&mut self, core: &mut Core<D>, number: u64, is_committed: bool) {
        self.counters.share_returned += u64::from(is_committed);
        self.tell_outcome(core, number, if is_committed { Outcome::Refused } else { Outcome::Done });
    }

    /// How a granted shared subscription is told to its group.
    pub(super) fn member_of(&self, session: SessionId, qos: Qos, mark: u32, ticket: u32) -> Option<Change> {
        let state = self.directory.get(session)?;
        let window = if state.is_open() { state.share_window() } else { 0 };
        let id = MemberId { shard: self.shard, session };
        let member = Member { id, qos, mark, durable: state.is_durable(), window, is_full: false };
        Some(Change::Join { member, ticket })
    }
}
