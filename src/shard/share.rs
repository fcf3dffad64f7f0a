//! Share groups: their home, and what passes between it and the members' shards.
//!
//! ```text
//!   member's shard                                  the group's home
//!   SUBSCRIBE, open, closed, leave ──Member──►      members; interest in the filter like any subscriber's
//!   session's window ◄──────────Deliver────────     a pass offers, the log is read, one member is picked
//!   PUBACK, no room, taken ─────Said─────────►      done, another member's turn, or that session's for good
//! ```
//! The members' side is in `share_member`, what is on record in `share_record`.

use super::gateway::{Core, Gateway};
use super::letter::Letter;
use super::log_port::Waiting;
use super::subscribe::Installing;
use crate::base::ids::{AppId, Qos, Seq, SessionId, ShardId};
use crate::base::log::{RecordChange, StreamGap};
use crate::base::message::{Entry, Message, StreamKey};
use crate::io::Driver;
use crate::limits::{CURSOR_WRITE_DELAY, READ_ENTRIES_MAX, SHARE_READ_MESSAGES_MAX, TURN_SHARE_ASSIGNMENTS_MAX};
use crate::router::FilterId;
use crate::router::filter::matches;
use crate::router::share::{Assignment, Group, Member, MemberId};
use crate::router::subscribers::{Moved, Options, Subscriber};
use crate::session::core::record;
use crate::session::{Claim, Counter, Gap, share_of};
use crate::store::{Answer, Request, StoreError};
use slab::Slab;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Set in a list's session index when the subscriber is a share group.
pub(super) const GROUP: u32 = 1 << 31;

/// A number of an assignment has its home above this bit; a home counts the rest.
pub(super) const HOME_SHIFT: u32 = 48;

/// Between a group's home and the shards of its members.
#[derive(Debug)]
pub(crate) enum ShareLetter {
    /// To the home.
    Member { app: AppId, share: Arc<str>, id: MemberId, change: Change },
    /// To a member.
    Deliver { session: SessionId, message: Arc<Message>, qos: Qos, number: u64, mark: u32, claim: Option<Claim> },
    /// To the home.
    Said { number: u64, outcome: Outcome },
    /// To a member that is connected: retention took something from the group before it was read.
    Gap { session: SessionId, gap: StreamGap },
}

/// What became of an assignment. At QoS 2 each is answered with one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Of QoS 2: it is the session's, and nobody else's.
    Taken,
    /// It is done with.
    Done,
    /// There was no room for it, or the session ended before it had it.
    Refused,
}

/// What a member has done.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Has subscribed; answer with [`Letter::InterestSet`] when what comes is the group's.
    Join { member: Member, ticket: u32 },
    /// Has a connection and room for so many; 0: it has none any more.
    Open(u16),
    /// Has unsubscribed, or ended.
    Leave,
}

/// A group at its home.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) share: Arc<str>,
    pub(super) group: Group,
    /// Its place in the list of its filter.
    filter: FilterId,
    position: u32,
    /// Members that wait for their answer.
    pub(super) joining: Vec<(ShardId, u32)>,
    /// Requests for interest under way.
    pub(super) installing: u32,
    pub(super) record: Recording,
    /// It was founded after the start. What is on record of its name is of a group whose members' sessions ended with the
    /// process, or were removed just before its end.
    pub(super) is_fresh: bool,
    /// Its record was among those that have been read.
    pub(super) has_mark: bool,
    /// A read of the log is under way.
    reading: bool,
    is_queued: bool,
    pub(super) is_unwritten: bool,
}

/// How far a group's record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recording {
    /// It is not known whether there is one.
    Unread,
    Reading,
    /// There is none.
    Absent,
    Writing,
    Present,
}

/// All groups at home at one shard.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    pub(super) homes: Slab<Home>,
    names: HashMap<(AppId, Arc<str>), usize>,
    /// The group of each number that is assigned.
    numbers: HashMap<u64, usize>,
    last_number: u64,
    /// Groups that may have something to assign or to read.
    queue: VecDeque<usize>,
    /// Groups whose record is behind.
    pub(super) unwritten: VecDeque<usize>,
    pub(super) unwritten_since_ms: u64,
    /// What members that ended give back, once that is on record.
    pub(super) returned: Vec<(u64, Option<RecordChange>)>,
}

impl Shares {
    pub(crate) fn groups(&self) -> usize {
        self.homes.len()
    }

    /// Messages that wait for a member, and that members have.
    pub(crate) fn held(&self) -> usize {
        self.homes.iter().map(|(_, home)| home.group.held()).sum()
    }

    /// Whether there is something to do now.
    pub(crate) fn has_work(&self) -> bool {
        !self.queue.is_empty() || !self.returned.is_empty()
    }

    /// When records are to be written.
    pub(crate) fn write_ms(&self) -> Option<u64> {
        (!self.unwritten.is_empty()).then(|| self.unwritten_since_ms + CURSOR_WRITE_DELAY.as_millis() as u64)
    }

    /// What was assigned under these numbers is not any more.
    fn forget(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.numbers.remove(number);
        }
    }

    pub(super) fn enqueue(&mut self, index: usize) {
        let Some(home) = self.homes.get_mut(index) else { return };
        if !core::mem::replace(&mut home.is_queued, true) {
            self.queue.push_back(index);
        }
    }
}

/// What a group's home does.
impl Gateway {
    pub(super) fn on_share<D: Driver>(&mut self, core: &mut Core<D>, letter: ShareLetter) {
        match letter {
            ShareLetter::Member { app, share, id, change } => self.on_member(core, app, &share, id, change),
            ShareLetter::Said { number, outcome } => self.on_said(core, number, outcome),
            ShareLetter::Gap { session, gap } => self.deliver_gap(core, session, &Gap::Topics(gap)),
            deliver @ ShareLetter::Deliver { .. } => self.on_share_delivery(core, deliver),
        }
    }

    fn on_said<D: Driver>(&mut self, core: &mut Core<D>, number: u64, outcome: Outcome) {
        let Some(&index) = self.shares.numbers.get(&number) else { return };
        let group = &mut self.shares.homes[index].group;
        let is_assigned = match outcome {
            Outcome::Taken => group.take(number),
            Outcome::Done => {
                group.settle(number);
                false
            }
            Outcome::Refused => {
                group.refuse(number);
                false
            }
        };
        if !is_assigned {
            self.shares.numbers.remove(&number);
        }
        if self.shares.homes[index].group.is_over() {
            return self.disband(core, index);
        }
        self.share_moved(core, index);
        self.shares.enqueue(index);
    }

    fn on_member<D: Driver>(&mut self, core: &mut Core<D>, app: AppId, share: &Arc<str>, id: MemberId, change: Change) {
        let known = self.shares.names.get(&(app, Arc::clone(share))).copied();
        match change {
            Change::Join { member, ticket } => {
                let index = known.unwrap_or_else(|| self.found_group(app, share));
                let home = &mut self.shares.homes[index];
                home.group.join(member);
                home.joining.push((id.shard, ticket));
                self.update_group(core, index, true);
                self.go_on_joining(core, index);
                self.shares.enqueue(index);
            }
            Change::Open(window) => {
                let Some(index) = known else { return };
                let gone = self.shares.homes[index].group.open(id, window);
                self.shares.forget(&gone);
                self.shares.enqueue(index);
            }
            Change::Leave => {
                let Some(index) = known else { return };
                let gone = self.shares.homes[index].group.leave(id);
                self.shares.forget(&gone);
                if self.shares.homes[index].group.is_over() {
                    return self.disband(core, index);
                }
                self.update_group(core, index, false);
                self.shares.enqueue(index);
            }
        }
    }

    fn found_group(&mut self, app: AppId, share: &Arc<str>) -> usize {
        let (_, filter) = share_of(share).expect("it was granted as a shared subscription");
        let group = Group::new(app, filter.into(), self.position());
        let index = self.shares.homes.vacant_key();
        let session = GROUP | u32::try_from(index).expect("groups are fewer than sessions");
        let subscriber = Subscriber { session, options: Options::default() };
        let subscribed = self.subscribers.subscribe(app, filter, subscriber);
        let home = Home {
            share: Arc::clone(share),
            group,
            filter: subscribed.filter,
            position: subscribed.position,
            joining: Vec::new(),
            installing: 0,
            record: Recording::Unread,
            is_fresh: self.is_serving(),
            has_mark: false,
            reading: false,
            is_queued: false,
            is_unwritten: false,
        };
        self.shares.homes.insert(home);
        self.shares.names.insert((app, Arc::clone(share)), index);
        // Interest of its own is told with the first member's options.
        index
    }

    /// The group's options follow its members'. `is_new`: homes are told even if nothing changes, and answer.
    fn update_group<D: Driver>(&mut self, core: &mut Core<D>, index: usize, is_new: bool) {
        let home = &mut self.shares.homes[index];
        let (qos, durable) = home.group.wants();
        let options = Options::new(qos).with_durable(durable);
        let change = self.subscribers.update(home.filter, home.position, options);
        let (app, filter, id) = (home.group.app, Arc::clone(&home.group.filter), home.filter);
        if !is_new {
            if change.changed() {
                self.tell_homes(core, app, &filter, change.after, None);
            }
            return;
        }
        home.installing += 1;
        let slot = self.installing.insert(Installing::of_share(index));
        self.install(core, slot, app, id, &filter, change.after);
        self.subscribed(core, slot);
    }

    /// Interest is installed at every home of the group's filter.
    pub(super) fn on_share_installed<D: Driver>(&mut self, core: &mut Core<D>, index: usize) {
        let Some(home) = self.shares.homes.get_mut(index).filter(|home| home.installing > 0) else { return };
        home.installing -= 1;
        self.go_on_joining(core, index);
    }

    fn disband<D: Driver>(&mut self, core: &mut Core<D>, index: usize) {
        let home = self.shares.homes.remove(index);
        let Home { share, group, filter, position, record, joining, .. } = home;
        // Who left before it was answered waits no longer.
        for (shard, ticket) in joining {
            core.send_control(shard, Letter::InterestSet { ticket });
        }
        self.shares.names.remove(&(group.app, Arc::clone(&share)));
        self.shares.numbers.retain(|_, other| *other != index);
        let gone = self.subscribers.unsubscribe(filter, position);
        if let Some(moved) = gone.moved {
            self.relocate(moved);
        }
        if gone.interest.changed() {
            self.tell_homes(core, group.app, &group.filter, gone.interest.after, None);
        }
        if matches!(record, Recording::Writing | Recording::Present) {
            let taken = group.all_taken().map(|seq| record::share_taken_key(group.app, &share, seq));
            let keys = core::iter::once(record::share_key(group.app, &share)).chain(taken);
            let records = keys.map(|key| RecordChange { key, value: None }).collect();
            self.log.submit(Request::Append { key: None, entries: Vec::new(), records }, Waiting::Nobody);
        }
    }

    /// A group's place in its list has changed.
    pub(super) fn relocate_group(&mut self, moved: Moved) {
        let home = self.shares.homes.get_mut((moved.session & !GROUP) as usize).expect("lists hold live groups");
        home.position = moved.position;
    }

    /// A pass comes to a group: what is logged is read in its order later, what is not is taken now.
    pub(super) fn visit_group(&mut self, session: u32, parcels: &[super::fanout::Parcel]) {
        let index = (session & !GROUP) as usize;
        let Some(home) = self.shares.homes.get_mut(index) else { return };
        for parcel in parcels {
            match parcel.at {
                Some((_, _, seq)) => home.group.tell(seq),
                None if home.group.offer(&parcel.message) => self.counters.share_dropped += 1,
                None => {}
            }
        }
        self.shares.enqueue(index);
    }

    /// Assigns and reads for a bounded number of groups.
    pub(super) fn run_shares<D: Driver>(&mut self, core: &mut Core<D>) {
        let mut budget = TURN_SHARE_ASSIGNMENTS_MAX;
        for _ in 0..self.shares.queue.len() {
            if budget == 0 {
                break;
            }
            let Some(index) = self.shares.queue.pop_front() else { break };
            let Some(home) = self.shares.homes.get_mut(index) else { continue };
            home.is_queued = false;
            budget -= 1;
            if self.assign_all(core, index, &mut budget) {
                self.shares.enqueue(index);
            } else {
                self.read_share(core, index);
            }
        }
        self.give_back();
        self.write_shares(core);
    }

    /// True: there is more, but not now.
    fn assign_all<D: Driver>(&mut self, core: &mut Core<D>, index: usize, budget: &mut usize) -> bool {
        let wall_ms = core.now().wall_ms;
        loop {
            let number = (u64::from(self.shard.0) << HOME_SHIFT) | (self.shares.last_number + 1);
            let home = &mut self.shares.homes[index];
            let (assignment, expired) = home.group.assign(number, wall_ms, home.record != Recording::Absent);
            (0..expired).for_each(|_| self.counters.session(Counter::DroppedExpired));
            let Some(Assignment { to, mark, message, qos, claim }) = assignment else { return false };
            let claim = claim.map(|seq| Claim { share: Arc::clone(&home.share), seq });
            self.shares.last_number += 1;
            if qos > Qos::AtMostOnce {
                self.shares.numbers.insert(number, index);
            } else {
                self.share_moved(core, index);
            }
            let letter = ShareLetter::Deliver { session: to.session, message, qos, number, mark, claim };
            core.send_control(to.shard, Letter::Share(Box::new(letter)));
            *budget = budget.saturating_sub(1);
            if *budget == 0 {
                return true;
            }
        }
    }

    /// The group reads on, if somebody has room: from the hot ring, else from the store. Not beyond what the passes of
    /// this shard have done with, for a later one may bring an earlier message.
    fn read_share<D: Driver>(&mut self, core: &mut Core<D>, index: usize) {
        let position = self.position();
        let home = &mut self.shares.homes[index];
        let is_ready = !home.reading && home.record != Recording::Reading && home.record != Recording::Unread;
        let Some(after) = home.group.wants_read().filter(|_| is_ready) else { return };
        if after >= position {
            return self.shares.enqueue(index);
        }
        let (app, share) = (home.group.app, Arc::clone(&home.share));
        let Some(batches) = self.hot.after(after) else {
            home.reading = true;
            let request = Request::ReadTopics { app, after, limit: READ_ENTRIES_MAX };
            return self.log.submit(request, Waiting::ShareTopics { index, share });
        };
        let entries = batches.flat_map(|batch| &batch.entries).filter(|entry| entry.seq > after);
        let entries: Vec<Entry> = entries.take(READ_ENTRIES_MAX).cloned().collect();
        let through = entries.last().map_or(position, |entry| entry.seq);
        let through = if entries.len() < READ_ENTRIES_MAX { position } else { through };
        // What the hot ring holds it has whole.
        self.take_share(core, index, &entries, &[], through);
    }

    /// The store's answer to a read.
    pub(super) fn on_share_topics<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        index: usize,
        share: &Arc<str>,
        result: Result<Answer, StoreError>,
    ) {
        let Some(home) = self.group_at(index, share) else { return };
        home.reading = false;
        match result {
            Ok(Answer::Topics { entries, through, gaps }) => self.take_share(core, index, &entries, &gaps, through),
            _ => self.counters.failed_reads += 1,
        }
        self.shares.enqueue(index);
    }

    fn take_share<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        index: usize,
        entries: &[Entry],
        gaps: &[StreamGap],
        through: Seq,
    ) {
        let through = through.min(self.position());
        let home = &mut self.shares.homes[index];
        let (app, filter) = (home.group.app, Arc::clone(&home.group.filter));
        let is_ours = |entry: &&Entry| {
            let of_topic =
                matches!(&entry.stream, StreamKey::Topic(other, topic) if *other == app && matches(&filter, topic));
            of_topic && entry.seq <= through
        };
        let ours: Vec<&Entry> = entries.iter().filter(is_ours).take(SHARE_READ_MESSAGES_MAX).collect();
        let cut = ours.last().filter(|_| ours.len() == SHARE_READ_MESSAGES_MAX).map(|entry| entry.seq);
        let messages = ours.iter().map(|entry| (entry.seq, Arc::clone(&entry.message)));
        let (before, through) = (home.group.read(), cut.unwrap_or(through));
        home.group.take_read(messages, through);
        self.share_moved(core, index);
        self.shares.enqueue(index);
        for gap in gaps.iter().filter(|gap| before < gap.trimmed && gap.trimmed <= through) {
            if matches!(&gap.stream, StreamKey::Topic(_, topic) if matches(&filter, topic)) {
                self.counters.share_gaps += 1;
                self.tell_share_gap(core, index, gap);
            }
        }
    }

    /// Any member might have been the one to get what is gone, so all that are connected are told.
    fn tell_share_gap<D: Driver>(&mut self, core: &mut Core<D>, index: usize, gap: &StreamGap) {
        let members: Vec<MemberId> = self.shares.homes[index].group.connected().collect();
        for MemberId { shard, session } in members {
            if shard == self.shard {
                self.deliver_gap(core, session, &Gap::Topics(gap.clone()));
            } else {
                let letter = ShareLetter::Gap { session, gap: gap.clone() };
                core.send_control(shard, Letter::Share(Box::new(letter)));
            }
        }
    }
}
