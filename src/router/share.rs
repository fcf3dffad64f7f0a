//! Share groups: messages of one filter, each for one of the group's members. Kept at the group's home, which is one
//! subscriber to the filter whatever number of members there is.
//!
//! ```text
//!   offered ──► queue ──a member with an open window──► assigned ──acknowledged, or refused by the client──► done
//!                 ▲                                        │
//!                 └───────── its connection ended ◄────────┘
//! ```
//! The queue is short: of what is logged the group is behind instead, and reads on when a member has room.

use crate::base::ids::{AppId, Qos, Seq, SessionId, ShardId};
use crate::base::message::Message;
use crate::limits::SHARE_QUEUE_MAX;
use std::collections::{BTreeMap, VecDeque};
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
    /// Granted QoS, 0 or 1.
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
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Queued {
    message: Arc<Message>,
    /// Where it is logged; none: it is not.
    seq: Option<Seq>,
}

#[derive(Debug)]
struct Assigned {
    to: MemberId,
    queued: Queued,
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
}

impl Group {
    /// Without members; what is logged after `read` is its.
    pub fn new(app: AppId, filter: Arc<str>, read: Seq) -> Self {
        let (members, queue, assigned) = (Vec::new(), VecDeque::new(), BTreeMap::new());
        Self { app, filter, members, next: 0, queue, assigned, read, told: read }
    }

    /// Takes a member in, or changes it.
    pub fn join(&mut self, member: Member) {
        match self.member(member.id) {
            Some((known, _)) => *known = member,
            None => self.members.push((member, 0)),
        }
    }

    /// Takes a member out. What it has not acknowledged is another's: the numbers that are not assigned any more.
    pub fn leave(&mut self, id: MemberId) -> Vec<u64> {
        let gone = self.take_back(id);
        self.members.retain(|(member, _)| member.id != id);
        gone
    }

    /// A member is connected and has room, or is not connected (a window of 0): what it had not acknowledged is
    /// another's then, as with [`Group::leave`].
    pub fn open(&mut self, id: MemberId, window: u16) -> Vec<u64> {
        let gone = if window == 0 { self.take_back(id) } else { Vec::new() };
        if let Some((member, _)) = self.member(id) {
            (member.window, member.is_full) = (window, false);
        }
        gone
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
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
            self.queue.push_back(Queued { message, seq: Some(seq) });
        }
        self.read = self.read.max(through);
    }

    /// Up to where the log was read.
    pub fn read(&self) -> Seq {
        self.read
    }

    /// Members that are connected.
    pub fn connected(&self) -> impl Iterator<Item = MemberId> {
        self.members.iter().filter(|(member, _)| member.window > 0).map(|(member, _)| member.id)
    }

    /// Begins where the group was when the process ended; what is logged up to `told` may be its.
    pub fn resume(&mut self, read: Seq, told: Seq) {
        (self.read, self.told) = (read, told);
    }

    /// Up to where all that is logged is acknowledged.
    pub fn settled(&self) -> Seq {
        let queued = self.queue.iter().filter_map(|queued| queued.seq);
        let assigned = self.assigned.values().filter_map(|assigned| assigned.queued.seq);
        queued.chain(assigned).map(|seq| Seq(seq.0 - 1)).min().unwrap_or(self.read).min(self.read)
    }

    /// Assigns the next message under `number`, if there is one and a member that may have it. One over its time is
    /// not for anybody: the second value counts such.
    pub fn assign(&mut self, number: u64, wall_ms: u64) -> (Option<Assignment>, usize) {
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
        let assignment =
            Assignment { to: id, mark, message: Arc::clone(&queued.message), qos: qos.min(queued.message.qos) };
        if assignment.qos > Qos::AtMostOnce {
            *has += 1;
            self.assigned.insert(number, Assigned { to: id, queued });
        }
        (Some(assignment), expired)
    }

    /// A member has acknowledged what it got under this number; false: it is not assigned any more.
    pub fn settle(&mut self, number: u64) -> bool {
        self.unassign(number).is_some()
    }

    /// A member's window was full, or it is gone: another one's turn.
    pub fn refuse(&mut self, number: u64) {
        let Some(Assigned { to, queued }) = self.unassign(number) else { return };
        if let Some((member, _)) = self.member(to) {
            member.is_full = true;
        }
        self.requeue(queued);
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
        let gone: Vec<u64> =
            self.assigned.iter().rev().filter(|(_, assigned)| assigned.to == id).map(|(number, _)| *number).collect();
        for &number in &gone {
            let assigned = self.unassign(number).expect("it was just found");
            self.requeue(assigned.queued);
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
        group.assign(number, 0).0.map(|assignment| assignment.to.session.index)
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
        assert_eq!(group.settled(), Seq(1));
        group.open(id(0), 0);
        assert_eq!(group.settled(), Seq(1));
        assert_eq!(assigned(&mut group, 5), None, "the other's window is full");
        assert!(group.settle(2) && group.settle(4));
        assert_eq!(group.settled(), Seq(2));
        assert_eq!(assigned(&mut group, 6), Some(1));
        assert!(group.settle(6));
        assert_eq!(group.settled(), Seq(4));
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
        assert_eq!(group.assign(1, 5), (None, 1));
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
        assert_eq!((group.wants_read(), group.settled()), (None, Seq(3)));
    }
}
