//! Share groups: messages of one filter, each for one of the group's members. Kept at the group's home, which is one
//! subscriber to the filter whatever number of members there is.
//!
//! ```text
//!                                                     at QoS 1
//!   offered ──► queue ──a member with an open window──► lent ──acknowledged, or refused by the client──► done
//!                ▲ ▲  │                                  │
//!                │ └──│──── its connection ended ◄───────┘
//!                │    │ at QoS 2
//!                │    └──► given ──its session has it, on record──► taken, and nobody else's ──completed──► done
//!                └──────────┘ no room, or the session ended before
//! ```
//! The queue is short: of what is logged the group is behind instead, and reads on when a member has room.

use crate::base::ids::{AppId, Qos, Seq, SessionId, ShardId};
use crate::base::message::Message;
use crate::limits::SHARE_QUEUE_MAX;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Whose share it is: a session of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberId {
    /// Where the session lives.
    pub shard: ShardId,
    /// Which.
    pub session: SessionId,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub id: MemberId,
    /// Granted QoS.
    pub qos: Qos,
    /// What its deliveries say of the subscription; opaque here.
    pub mark: u32,
    /// Its session outlives its connection, so the group's messages are logged.
    pub durable: bool,
    /// Messages it takes at a time; 0: it is not connected.
    pub window: u16,
    /// It has refused one for want of room and not said since that it has some.
    pub is_full: bool,
}

/// A message for one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// For whom.
    pub to: MemberId,
    /// Its member's.
    pub mark: u32,
    /// What.
    pub message: Arc<Message>,
    /// Of the delivery. At QoS 0 it is done with being handed over.
    pub qos: Qos,
    /// Where it is logged, if it must be on record as taken before the member's client sees it.
    pub claim: Option<Seq>,
}

/// How far a group is, for its record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// All that is logged up to here is done with, but for what is open.
    pub through: Seq,
    /// Ascending.
    pub open: Vec<Seq>,
}

impl Mark {
    /// Up to where nothing is open.
    pub fn settled(&self) -> Seq {
        self.open.first().map_or(self.through, |first| Seq(first.0 - 1))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Queued {
    message: Arc<Message>,
    /// Where it is logged; none: it is not.
    seq: Option<Seq>,
}

/// How a member has a message.
#[derive(Debug)]
enum Hold {
    /// At QoS 1: another's when the member goes.
    Lent(Queued),
    /// At QoS 2, and its session has not said yet what becomes of it: nobody's until then, also when the member goes.
    Given {
        queued: Queued,
        /// It is being recorded as taken.
        is_claimed: bool,
    },
    /// At QoS 2: the session's own, and here for the sake of the member's window [MQTT-4.8.2-4], [MQTT-4.8.2-5].
    Taken,
}

#[derive(Debug)]
struct Assigned {
    to: MemberId,
    hold: Hold,
}

impl Assigned {
    /// Where it is logged, if it is to be assigned again after a crash. What nobody records is over with being given.
    fn open(&self) -> Option<Seq> {
        match &self.hold {
            Hold::Lent(queued) | Hold::Given { queued, is_claimed: true } => queued.seq,
            Hold::Given { is_claimed: false, .. } | Hold::Taken => None,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Group {
    /// Tenant.
    pub app: AppId,
    /// What topics are matched with.
    pub filter: Arc<str>,
    /// Each with the number of messages it has.
    members: Vec<(Member, usize)>,
    /// Whose turn it is.
    next: usize,
    queue: VecDeque<Queued>,
    /// By number, which grows.
    assigned: BTreeMap<u64, Assigned>,
    /// All that is logged up to here was queued or is not the group's.
    read: Seq,
    /// The newest logged one that it was told of.
    told: Seq,
    /// Of what is logged, what has a record of being taken.
    taken: BTreeSet<Seq>,
    /// How far it was when the process ended, until it has read beyond that.
    resumed: Mark,
}

impl Group {
    /// Without members; what is logged after `read` is its.
    pub fn new(app: AppId, filter: Arc<str>, read: Seq) -> Self {
        let (members, queue, assigned) = (Vec::new(), VecDeque::new(), BTreeMap::new());
        let (taken, resumed) = (BTreeSet::new(), Mark::default());
        Self { app, filter, members, next: 0, queue, assigned, read, told: read, taken, resumed }
    }

    /// Takes a member in, or changes it.
    pub fn join(&mut self, member: Member) {
        match self.member(member.id) {
            Some((known, _)) => *known = member,
            None => {
                // It may have left a moment ago, with messages of which its session has not said yet what they become.
                let has = self.assigned.values().filter(|assigned| assigned.to == member.id).count();
                self.members.push((member, has));
            }
        }
    }

    /// Takes a member out. What it has not acknowledged at QoS 1 is another's, what its session has taken at QoS 2 is
    /// nobody's: the numbers that are not assigned any more.
    pub fn leave(&mut self, id: MemberId) -> Vec<u64> {
        let gone = self.take_back(id);
        self.members.retain(|(member, _)| member.id != id);
        gone
    }

    /// A member is connected and has room, or is not connected (a window of 0): what it had is dealt with as in
    /// [`Group::leave`] then.
    pub fn open(&mut self, id: MemberId, window: u16) -> Vec<u64> {
        let gone = if window == 0 { self.take_back(id) } else { Vec::new() };
        if let Some((member, _)) = self.member(id) {
            (member.window, member.is_full) = (window, false);
        }
        gone
    }

    /// Whether nobody is in it, and no session has still to say what becomes of a message.
    pub fn is_over(&self) -> bool {
        self.members.is_empty() && !self.assigned.values().any(|assigned| matches!(assigned.hold, Hold::Given { .. }))
    }

    /// The highest granted QoS, and whether a member is owed messages while all are away.
    pub fn wants(&self) -> (Qos, bool) {
        let qos = self.members.iter().map(|(member, _)| member.qos).max().unwrap_or_default();
        let durable = self.members.iter().any(|(member, _)| member.durable && member.qos > Qos::AtMostOnce);
        (qos, durable)
    }

    /// Offers a message that is not logged; true: one was dropped for it, because nobody has room.
    pub fn offer(&mut self, message: &Arc<Message>) -> bool {
        if message.qos == Qos::AtMostOnce && self.members.iter().all(|(member, _)| member.window == 0) {
            return true;
        }
        self.queue.push_back(Queued { message: Arc::clone(message), seq: None });
        if self.queue.len() <= SHARE_QUEUE_MAX {
            return false;
        }
        let unlogged = self.queue.iter().position(|queued| queued.seq.is_none());
        self.queue.remove(unlogged.expect("one was just added"));
        true
    }

    /// Tells of a logged message, which is to be read.
    pub fn tell(&mut self, seq: Seq) {
        self.told = self.told.max(seq);
    }

    /// Where to read on, if there is anything to read and somebody for it.
    pub fn wants_read(&self) -> Option<Seq> {
        (self.read < self.told && self.queue.is_empty() && self.has_room()).then_some(self.read)
    }

    /// Logged messages that match were read, all there are up to `through`.
    pub fn take_read(&mut self, messages: impl Iterator<Item = (Seq, Arc<Message>)>, through: Seq) {
        for (seq, message) in messages.filter(|(seq, _)| *seq > self.read) {
            if !self.was_done(seq) {
                self.queue.push_back(Queued { message, seq: Some(seq) });
            }
        }
        self.read = self.read.max(through);
        if self.read >= self.resumed.through {
            self.resumed = Mark::default();
        }
    }

    /// Members that are connected.
    pub fn connected(&self) -> impl Iterator<Item = MemberId> {
        self.members.iter().filter(|(member, _)| member.window > 0).map(|(member, _)| member.id)
    }

    /// Begins where the group was when the process ended; what is logged up to `told` may be its.
    pub fn resume(&mut self, mark: Mark, told: Seq) {
        (self.read, self.told) = (mark.settled(), told.max(mark.through));
        self.resumed = mark;
    }

    /// There is a record that this one is taken.
    pub fn resume_taken(&mut self, seq: Seq) {
        self.taken.insert(seq);
    }

    /// Whether somebody had it before the process ended.
    fn was_done(&self, seq: Seq) -> bool {
        self.taken.contains(&seq) || seq <= self.resumed.through && self.resumed.open.binary_search(&seq).is_err()
    }

    /// How far it is. As long as it reads again what was open, that is open still.
    pub fn mark(&self) -> Mark {
        let unread = self.resumed.open.iter().copied().filter(|seq| *seq > self.read && !self.taken.contains(seq));
        let queued = self.queue.iter().filter_map(|queued| queued.seq);
        let assigned = self.assigned.values().filter_map(Assigned::open);
        let mut open: Vec<Seq> = queued.chain(assigned).chain(unread).collect();
        open.sort_unstable();
        Mark { through: self.read.max(self.resumed.through), open }
    }

    /// Up to where it has read the log.
    pub fn read(&self) -> Seq {
        self.read
    }

    /// All that is on record as taken.
    pub fn all_taken(&self) -> impl Iterator<Item = Seq> {
        self.taken.iter().copied()
    }

    /// What is on record as taken, and need not be any more once [`Group::mark`] is.
    pub fn forget_taken(&mut self) -> BTreeSet<Seq> {
        let kept = self.taken.split_off(&Seq(self.read.0 + 1));
        core::mem::replace(&mut self.taken, kept)
    }

    /// Assigns the next message under `number`, if there is one and a member that may have it. One over its time is
    /// not for anybody: the second value counts such. `is_recorded`: the group has a record, so what is taken of the log
    /// has to have one, too.
    pub fn assign(&mut self, number: u64, wall_ms: u64, is_recorded: bool) -> (Option<Assignment>, usize) {
        let mut expired = 0;
        while self.queue.front().is_some_and(|queued| queued.message.expires_ms.is_some_and(|at| at <= wall_ms)) {
            self.queue.pop_front();
            expired += 1;
        }
        let Some(at) = self.queue.front().and_then(|queued| self.pick(queued.message.qos)) else {
            return (None, expired);
        };
        let queued = self.queue.pop_front().expect("it was looked at");
        self.next = at + 1;
        let (Member { id, qos, mark, .. }, ref mut has) = self.members[at];
        let (message, qos) = (Arc::clone(&queued.message), qos.min(queued.message.qos));
        let claim = queued.seq.filter(|_| is_recorded && qos == Qos::ExactlyOnce);
        if qos > Qos::AtMostOnce {
            *has += 1;
            let hold = match qos {
                Qos::ExactlyOnce => Hold::Given { queued, is_claimed: claim.is_some() },
                _ => Hold::Lent(queued),
            };
            self.assigned.insert(number, Assigned { to: id, hold });
        }
        (Some(Assignment { to: id, mark, message, qos, claim }), expired)
    }

    /// A member's session has a QoS 2 message, and it is on record if it has to be: it is nobody else's from now on.
    /// False: the member has gone, and the number with it.
    pub fn take(&mut self, number: u64) -> bool {
        let Some(assigned) = self.assigned.get_mut(&number) else { return false };
        let to = assigned.to;
        if let Hold::Given { queued, is_claimed: true } = core::mem::replace(&mut assigned.hold, Hold::Taken) {
            self.taken.extend(queued.seq);
        }
        let is_there = self.member(to).is_some_and(|(member, _)| member.window > 0);
        if !is_there {
            self.unassign(number);
        }
        is_there
    }

    /// A member is done with what it got under this number; false: it is not assigned any more.
    pub fn settle(&mut self, number: u64) -> bool {
        self.unassign(number).is_some()
    }

    /// A member's window was full, or it is gone, or its session ended before it had the message: another one's turn.
    pub fn refuse(&mut self, number: u64) {
        let Some(Assigned { to, hold }) = self.unassign(number) else { return };
        if let Some((member, _)) = self.member(to) {
            member.is_full = true;
        }
        if let Hold::Lent(queued) | Hold::Given { queued, .. } = hold {
            self.requeue(queued);
        }
    }

    /// Messages that wait for a member, and that members have.
    pub fn held(&self) -> usize {
        self.queue.len() + self.assigned.len()
    }

    fn member(&mut self, id: MemberId) -> Option<&mut (Member, usize)> {
        self.members.iter_mut().find(|(member, _)| member.id == id)
    }

    fn unassign(&mut self, number: u64) -> Option<Assigned> {
        let assigned = self.assigned.remove(&number)?;
        if let Some((_, has)) = self.member(assigned.to) {
            *has -= 1;
        }
        Some(assigned)
    }

    fn has_room(&self) -> bool {
        (0..self.members.len()).any(|at| self.may_have(at, Qos::AtLeastOnce))
    }

    /// The next member in turn that may have a message of this QoS.
    fn pick(&self, qos: Qos) -> Option<usize> {
        let count = self.members.len();
        (0..count).map(|step| (self.next + step) % count).find(|&at| self.may_have(at, qos))
    }

    fn may_have(&self, at: usize, qos: Qos) -> bool {
        let (member, has) = &self.members[at];
        if member.window == 0 || qos.min(member.qos) == Qos::AtMostOnce {
            return member.window > 0;
        }
        !member.is_full && *has < usize::from(member.window)
    }

    fn take_back(&mut self, id: MemberId) -> Vec<u64> {
        let is_its = |assigned: &Assigned| assigned.to == id && !matches!(assigned.hold, Hold::Given { .. });
        let gone: Vec<u64> =
            self.assigned.iter().rev().filter(|(_, assigned)| is_its(assigned)).map(|(number, _)| *number).collect();
        for &number in &gone {
            let assigned = self.unassign(number).expect("it was just found");
            if let Hold::Lent(queued) = assigned.hold {
                self.requeue(queued);
            }
        }
        gone
    }

    /// In the order of the log; what is not logged goes first.
    fn requeue(&mut self, queued: Queued) {
        let at = self.queue.partition_point(|other| other.seq < queued.seq);
        self.queue.insert(at, queued);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> MemberId {
        MemberId { shard: ShardId(0), session: SessionId { index: n, generation: 0 } }
    }

    fn member(n: u32, window: u16) -> Member {
        Member { id: id(n), qos: Qos::AtLeastOnce, mark: n, durable: true, window, is_full: false }
    }

    fn message(qos: Qos, expires_ms: Option<u64>) -> Arc<Message> {
        Arc::new(Message {
            app: AppId(0),
            topic: "t".into(),
            only_device: None,
            payload: bytes::Bytes::new(),
            qos,
            retain: false,
            created_ms: 0,
            expires_ms,
            publisher: None,
            properties: None,
        })
    }

    fn group(windows: &[u16]) -> Group {
        let mut group = Group::new(AppId(0), "t".into(), Seq(0));
        (0..).zip(windows).for_each(|(n, &window)| group.join(member(n, window)));
        group
    }

    fn logged(group: &mut Group, seqs: core::ops::RangeInclusive<u64>) {
        let last = Seq(*seqs.end());
        group.tell(last);
        group.take_read(seqs.map(|seq| (Seq(seq), message(Qos::AtLeastOnce, None))), last);
    }

    fn assigned(group: &mut Group, number: u64) -> Option<u32> {
        group.assign(number, 0, true).0.map(|assignment| assignment.to.session.index)
    }

    #[test]
    fn members_take_turns_while_their_windows_are_open() {
        let mut group = group(&[2, 0, 1]);
        logged(&mut group, 1..=4);
        let to: Vec<_> = (1..=4).map(|number| assigned(&mut group, number)).collect();
        assert_eq!(to, [Some(0), Some(2), Some(0), None]);
        assert!(group.settle(2) && !group.settle(2));
        assert_eq!(assigned(&mut group, 4), Some(2));
    }

    #[test]
    fn what_a_member_that_leaves_has_not_acknowledged_is_another_s_in_order() {
        let mut group = group(&[2, 2]);
        logged(&mut group, 1..=4);
        assert!((1..=4).all(|number| assigned(&mut group, number).is_some()));
        assert!(group.settle(1));
        assert_eq!(group.mark().settled(), Seq(1));
        group.open(id(0), 0);
        assert_eq!(group.mark().settled(), Seq(1));
        assert_eq!(assigned(&mut group, 5), None, "the other's window is full");
        assert!(group.settle(2) && group.settle(4));
        assert_eq!(group.mark(), Mark { through: Seq(4), open: vec![Seq(3)] });
        assert_eq!(assigned(&mut group, 6), Some(1));
        assert!(group.settle(6));
        assert_eq!(group.mark().settled(), Seq(4));
    }

    fn group_of_two(windows: &[u16]) -> Group {
        let mut group = group(&[]);
        (0..).zip(windows).for_each(|(n, &window)| {
            group.join(Member { qos: Qos::ExactlyOnce, ..member(n, window) });
        });
        group
    }

    fn logged_twice(group: &mut Group, seqs: core::ops::RangeInclusive<u64>) {
        let last = Seq(*seqs.end());
        group.tell(last);
        group.take_read(seqs.map(|seq| (Seq(seq), message(Qos::ExactlyOnce, None))), last);
    }

    fn mark(through: u64, open: &[u64]) -> Mark {
        Mark { through: Seq(through), open: open.iter().copied().map(Seq).collect() }
    }

    #[test]
    fn what_a_session_has_taken_at_qos2_is_nobody_else_s() {
        let mut group = group_of_two(&[1, 1]);
        logged_twice(&mut group, 1..=3);
        let (first, _) = group.assign(1, 0, true);
        assert_eq!(first.map(|first| (first.qos, first.claim)), Some((Qos::ExactlyOnce, Some(Seq(1)))));
        assert_eq!(group.mark(), mark(3, &[1, 2, 3]));
        assert!(group.take(1));
        assert_eq!(group.mark(), mark(3, &[2, 3]));
        assert_eq!((assigned(&mut group, 2), assigned(&mut group, 3)), (Some(1), None), "it fills its window");
        assert_eq!(group.open(id(0), 0), [1], "its connection ends");
        assert!(group.open(id(0), 1).is_empty());
        assert_eq!(assigned(&mut group, 3), Some(0));
        assert_eq!(group.forget_taken().into_iter().collect::<Vec<_>>(), [Seq(1)]);
    }

    #[test]
    fn what_a_session_has_not_answered_at_qos2_waits_for_its_answer() {
        for is_taken in [false, true] {
            let mut group = group_of_two(&[2, 2]);
            logged_twice(&mut group, 1..=2);
            assert_eq!(assigned(&mut group, 1), Some(0));
            assert_eq!((group.open(id(0), 0), group.leave(id(0)), group.leave(id(1))), (vec![], vec![], vec![]));
            assert!(!group.is_over() && group.mark() == mark(2, &[1, 2]));
            // Who comes back has what it had.
            group.join(Member { qos: Qos::ExactlyOnce, ..member(0, 1) });
            assert_eq!(assigned(&mut group, 2), None);
            group.leave(id(0));
            if is_taken {
                assert!(!group.take(1), "the member has gone");
                assert_eq!(group.mark(), mark(2, &[2]));
            } else {
                group.refuse(1);
                assert_eq!(group.mark(), mark(2, &[1, 2]));
            }
            assert!(group.is_over());
        }
    }

    #[test]
    fn a_group_reads_again_what_was_open_and_not_what_was_done_with_or_taken() {
        let mut group = group_of_two(&[9]);
        group.resume(mark(6, &[2, 4]), Seq(9));
        group.resume_taken(Seq(4));
        group.resume_taken(Seq(8));
        assert_eq!(group.wants_read(), Some(Seq(1)));
        assert_eq!(group.mark(), mark(6, &[2]), "a crash now loses nothing of it");
        let all = |seqs: core::ops::RangeInclusive<u64>| seqs.map(|seq| (Seq(seq), message(Qos::ExactlyOnce, None)));
        group.take_read(all(2..=3), Seq(3));
        assert_eq!(group.mark(), mark(6, &[2]));
        assert!(group.forget_taken().is_empty(), "it has not read so far");
        group.take_read(all(4..=9), Seq(9));
        assert_eq!(group.mark(), mark(9, &[2, 7, 9]));
        assert_eq!(group.forget_taken().into_iter().collect::<Vec<_>>(), [Seq(4), Seq(8)]);
    }

    #[test]
    fn without_a_record_of_the_group_nothing_has_to_be_claimed() {
        let mut group = group_of_two(&[2]);
        logged_twice(&mut group, 1..=1);
        let (first, _) = group.assign(1, 0, false);
        assert_eq!(first.map(|first| first.claim), Some(None));
        assert_eq!(group.mark(), mark(1, &[]), "whoever has it has it at most once");
        assert!(!group.offer(&message(Qos::ExactlyOnce, None)));
        let (second, _) = group.assign(2, 0, true);
        assert_eq!(second.map(|second| second.claim), Some(None), "it is not logged");
        assert!(group.take(1) && group.take(2));
        assert_eq!(group.all_taken().count(), 0);
    }

    #[test]
    fn who_has_refused_is_not_asked_until_it_has_room() {
        let mut group = group(&[2, 2]);
        logged(&mut group, 1..=1);
        assert_eq!(assigned(&mut group, 1), Some(0));
        group.refuse(1);
        assert_eq!(assigned(&mut group, 2), Some(1));
        group.refuse(2);
        assert_eq!((assigned(&mut group, 3), group.wants_read()), (None, None));
        group.open(id(0), 2);
        assert_eq!(assigned(&mut group, 4), Some(0));
    }

    #[test]
    fn unlogged_messages_are_bounded_at_n_and_the_oldest_goes_at_n_plus_one() {
        let mut group = group(&[0]);
        let dropped = (0..SHARE_QUEUE_MAX).filter(|_| group.offer(&message(Qos::AtLeastOnce, None))).count();
        assert_eq!((dropped, group.held()), (0, SHARE_QUEUE_MAX));
        assert!(group.offer(&message(Qos::AtLeastOnce, None)));
        assert_eq!(group.held(), SHARE_QUEUE_MAX);
        assert!(group.offer(&message(Qos::AtMostOnce, None)), "nobody is there for it");
    }

    #[test]
    fn what_is_over_its_time_is_nobody_s() {
        let mut group = group(&[1]);
        assert!(!group.offer(&message(Qos::AtLeastOnce, Some(5))));
        assert_eq!(group.assign(1, 5, true), (None, 1));
        assert_eq!(group.held(), 0);
    }

    #[test]
    fn it_reads_only_when_it_is_behind_and_somebody_has_room() {
        let mut group = group(&[0]);
        group.tell(Seq(3));
        assert_eq!(group.wants_read(), None);
        group.open(id(0), 1);
        assert_eq!(group.wants_read(), Some(Seq(0)));
        group.take_read(std::iter::empty(), Seq(3));
        assert_eq!((group.wants_read(), group.mark().settled()), (None, Seq(3)));
    }
}
