//! Pushes that are answered once devices have them, at the home of their users.
//!
//! ```text
//!  committed, counted ──► who is connected, meant, subscribed, and not done with it? ──nobody──► answer
//!                                        │
//!                       acknowledged, handed over (QoS 0) or skipped, by each ──► answer
//!                       the deadline, or a drain                              ──► answer with those that have it
//! ```
//! A wait begins when the log's answer is here; the entry may have been offered, and even acknowledged, before. So a
//! session is asked where the entry stands for it, and what it was skipped for in the last moments is remembered.

use super::command::{CommandToken, Event, Pushed, Receipt};
use super::gateway::{Core, Gateway};
use super::letter::Counted;
use crate::base::ids::{Offset, SessionId, ShardId};
use crate::base::message::Message;
use crate::io::Driver;
use crate::limits::{DELIVERY_SKIPS_MAX, DELIVERY_WAITS_MAX, TURN_EXPIRIES_MAX};
use crate::session::{LoggedAt, Session};
use crate::store::Position;
use slab::Slab;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// Whom to tell, and what was found so far.
#[derive(Debug)]
pub(crate) enum Held {
    /// The control plane.
    Push { token: CommandToken, pushed: Pushed },
    /// The coordinator of a list.
    Part { to: ShardId, ticket: u32, counts: Vec<Counted> },
}

impl Held {
    /// The devices that have it, of the user at this index.
    fn delivered(&mut self, index: usize) -> &mut Vec<Arc<str>> {
        match self {
            Self::Push { pushed, .. } => &mut pushed.results[index].delivered,
            Self::Part { counts, .. } => &mut counts[index].delivered,
        }
    }
}

/// One answer that is held back.
#[derive(Debug)]
struct Wait {
    answer: Held,
    deadline_ms: u64,
    /// Sessions that were waited for at first.
    sessions: Vec<SessionId>,
    /// Those that still are.
    left: usize,
}

/// One session that a wait waits for.
#[derive(Debug)]
struct Expected {
    session: SessionId,
    offset: Offset,
    wait: usize,
    /// Of the user in the answer.
    user: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    open: Slab<Wait>,
    /// Deadline and wait.
    due: BTreeSet<(u64, usize)>,
    /// By the session's index.
    expected: HashMap<u32, Vec<Expected>>,
    count: usize,
    skipped: VecDeque<(SessionId, Offset)>,
    /// Devices that were not waited for, since too many are.
    pub(crate) refused: u64,
}

impl Waits {
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.count >= DELIVERY_WAITS_MAX
    }

    /// Devices that are waited for.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// The earliest deadline, monotonic milliseconds.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.due.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    fn skip(&mut self, session: SessionId, offset: Offset) {
        if self.skipped.len() >= DELIVERY_SKIPS_MAX {
            self.skipped.pop_front();
        }
        self.skipped.push_back((session, offset));
    }

    fn has_skipped(&self, session: SessionId, offset: Offset) -> bool {
        self.skipped.contains(&(session, offset))
    }

    fn expect(&mut self, expected: Expected) {
        self.count += 1;
        self.open[expected.wait].left += 1;
        self.open[expected.wait].sessions.push(expected.session);
        self.expected.entry(expected.session.index).or_default().push(expected);
    }

    /// Waits no longer for this session's entry. The wait that is over by it comes back.
    fn settle(&mut self, session: SessionId, offset: Offset, device: Option<&str>) -> Vec<usize> {
        let mut over = Vec::new();
        let Some(list) = self.expected.get_mut(&session.index) else { return over };
        let open = &mut self.open;
        let before = list.len();
        list.retain(|expected| {
            if expected.session != session || expected.offset != offset {
                return true;
            }
            let wait = &mut open[expected.wait];
            wait.left -= 1;
            wait.answer.delivered(expected.user).extend(device.map(Arc::from));
            if wait.left == 0 {
                over.push(expected.wait);
            }
            false
        });
        self.count -= before - list.len();
        if list.is_empty() {
            self.expected.remove(&session.index);
        }
        over
    }

    /// Takes a wait out, with everything that is still expected for it.
    fn take(&mut self, at: usize) -> Held {
        let Wait { answer, deadline_ms, sessions, left } = self.open.remove(at);
        self.due.remove(&(deadline_ms, at));
        if left > 0 {
            for session in sessions {
                let Some(list) = self.expected.get_mut(&session.index) else { continue };
                let before = list.len();
                list.retain(|expected| expected.wait != at);
                self.count -= before - list.len();
                if list.is_empty() {
                    self.expected.remove(&session.index);
                }
            }
        }
        answer
    }
}

impl Gateway {
    /// Holds an answer back. Its maker says with [`Gateway::begin_wait`] when all that is waited for is named.
    pub(super) fn hold_answer(&mut self, answer: Held, deadline_ms: u64) -> usize {
        // Its maker counts as one that is waited for.
        self.waits.open.insert(Wait { answer, deadline_ms, sessions: Vec::new(), left: 1 })
    }

    /// All that a wait waits for is named.
    pub(super) fn begin_wait<D: Driver>(&mut self, core: &mut Core<D>, at: usize) {
        let wait = &mut self.waits.open[at];
        wait.left -= 1;
        if wait.left == 0 || wait.deadline_ms <= core.now().monotonic_ms {
            return self.finish_wait(core, at);
        }
        self.waits.due.insert((wait.deadline_ms, at));
    }

    /// Waits for the connected devices of a user, whose place in the answer is `user`.
    pub(super) fn wait_for_devices<D: Driver>(
        &mut self,
        core: &Core<D>,
        wait: usize,
        message: &Message,
        (user, name): (usize, &str),
        at: &Position,
    ) {
        let is_expired = message.expires_ms.is_some_and(|expires| expires <= core.now().wall_ms);
        for id in self.directory.sessions_of(message.app, name) {
            let session = self.directory.get(id).expect("the user's list holds live sessions");
            if !is_wanted(session, message) {
                continue;
            }
            if !session.is_done_with(at.epoch, at.offset) {
                if self.waits.is_full() {
                    self.waits.refused += 1;
                } else {
                    self.waits.expect(Expected { session: id, offset: at.offset, wait, user });
                }
            } else if !is_expired && !self.waits.has_skipped(id, at.offset) {
                self.waits.open[wait].answer.delivered(user).push(session.device().into());
            }
        }
    }

    /// Names the next user of a part that is held back; its place in the answer.
    pub(super) fn count_into(&mut self, wait: usize, counted: Counted) -> usize {
        let Held::Part { counts, .. } = &mut self.waits.open[wait].answer else {
            unreachable!("only parts are counted")
        };
        counts.push(counted);
        counts.len() - 1
    }

    /// A session is done with a logged message: it has it (`is_handed`), or will not get it.
    pub(super) fn settled_for<D: Driver>(&mut self, core: &mut Core<D>, id: SessionId, at: LoggedAt, is_handed: bool) {
        let LoggedAt::Inbox(offset) = at else { return };
        if !is_handed {
            self.waits.skip(id, offset);
        }
        if self.waits.is_empty() {
            return;
        }
        let device = self.directory.get(id).map(Session::device).filter(|_| is_handed);
        for wait in self.waits.settle(id, offset, device) {
            self.finish_wait(core, wait);
        }
    }

    /// A device has acknowledged a message, or refused it.
    pub(super) fn on_received<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: SessionId,
        at: Option<LoggedAt>,
        topic: Arc<str>,
        refused: bool,
    ) {
        let receipt = if refused { Receipt::Refused } else { Receipt::Delivered };
        self.notice_receipt(id, at, &topic, (receipt, 1), core.now());
        if let Some(at) = at {
            self.settled_for(core, id, at, !refused);
        }
    }

    /// Answers what has waited long enough, or all of it when the shard is closing; true: there is more.
    pub(super) fn expire_waits<D: Driver>(&mut self, core: &mut Core<D>) -> bool {
        let until = if self.draining { u64::MAX } else { core.now().monotonic_ms };
        for _ in 0..TURN_EXPIRIES_MAX {
            match self.waits.due.first() {
                Some(&(deadline_ms, wait)) if deadline_ms <= until => self.finish_wait(core, wait),
                _ => return false,
            }
        }
        true
    }

    fn finish_wait<D: Driver>(&mut self, core: &mut Core<D>, wait: usize) {
        let answer = self.waits.take(wait);
        self.answer_wait(core, answer);
    }

    /// Gives an answer.
    pub(super) fn answer_wait<D: Driver>(&mut self, core: &mut Core<D>, answer: Held) {
        match answer {
            Held::Push { token, pushed } => self.tell(Event::Pushed { token, result: Ok(pushed) }),
            Held::Part { to, ticket, counts } => self.send_counts(core, to, ticket, counts),
        }
    }
}

/// Whether a session is connected and the message is for it.
fn is_wanted(session: &Session, message: &Message) -> bool {
    session.connection().is_some()
        && message.only_device.as_deref().is_none_or(|device| device == session.device())
        && session.effective(&message.topic, None).is_some()
}
