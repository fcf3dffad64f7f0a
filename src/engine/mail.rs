//! Mail between shards, and to shards from the log thread and the control plane.
//!
//! A mailbox is one bounded lock-free queue that everybody posts to; it keeps the order of each sender. A shard never
//! waits on mail: its [`Mailer`] keeps what a full mailbox did not take, in order, and says that the target is
//! congested; whoever feeds that target then stops reading. Letters of one turn go out together, with one wake.
//!
//! # Waking only sleepers
//! Waking costs as much as three messages, so a sender looks at `sleeping` first. The two sides are:
//! ```text
//!   receiver: sleeping = true   ; fence(SeqCst) ; if the queue is empty, sleep
//!   sender:   push              ; fence(SeqCst) ; if sleeping, wake
//! ```
//! The fences are in one total order. If the receiver's is first, the sender's load comes after the receiver's store
//! and sees `true`: it wakes. If the sender's is first, the receiver's look at the queue comes after the push: it does
//! not sleep. So no letter is left lying while its shard sleeps. The sender that turns `sleeping` back to `false` is
//! the only one to wake.

use crate::base::ids::ShardId;
use crate::io::Waker;
use crate::limits::{LETTERS_ENOUGH, MAIL_BACKLOG_CONTROL_MAX, MAIL_BACKLOG_LETTERS_MAX, MAILBOX_LETTERS_MAX};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};

/// Opens a mailbox for each shard. Their [`Post`]s may be handed out before any shard runs.
pub fn open<L>(shards: u16) -> Vec<Mailbox<L>> {
    (0..shards).map(|shard| Mailbox::new(ShardId(shard), MAILBOX_LETTERS_MAX)).collect()
}

/// What the receiver and its senders share besides the queue.
#[derive(Debug, Default)]
struct Doorbell {
    sleeping: AtomicBool,
    driver: OnceLock<Attached>,
}

/// What senders know of the receiver's driver.
#[derive(Debug)]
struct Attached {
    waker: Waker,
    gathers_sends: bool,
}

/// The receiving end: one per shard, used by its thread alone.
#[derive(Debug)]
pub struct Mailbox<L> {
    post: Post<L>,
    letters: Receiver<L>,
}

/// The address of a mailbox. Cloning it is cheap; any thread may hold one.
#[derive(Debug)]
pub struct Post<L> {
    shard: ShardId,
    letters: Sender<L>,
    doorbell: Arc<Doorbell>,
}

impl<L> Clone for Post<L> {
    fn clone(&self) -> Self {
        Self { shard: self.shard, letters: self.letters.clone(), doorbell: Arc::clone(&self.doorbell) }
    }
}

/// Why a letter was not taken; it comes back.
#[derive(Debug, PartialEq, Eq)]
pub enum Undelivered<L> {
    /// The mailbox, or the room kept for its target, is full: tell the caller to come again.
    Busy(L),
    /// The shard has ended.
    Gone(L),
}

impl<L> Mailbox<L> {
    /// A mailbox that holds at most `letters_max`.
    pub fn new(shard: ShardId, letters_max: usize) -> Self {
        let (sender, receiver) = bounded(letters_max);
        Self { post: Post { shard, letters: sender, doorbell: Arc::default() }, letters: receiver }
    }

    /// Whose it is.
    pub fn shard(&self) -> ShardId {
        self.post.shard
    }

    /// Its address.
    pub fn post(&self) -> Post<L> {
        self.post.clone()
    }

    /// Letters waiting.
    pub fn len(&self) -> usize {
        self.letters.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    /// The oldest letter.
    #[inline]
    pub fn take(&mut self) -> Option<L> {
        self.letters.try_recv().ok()
    }

    /// Names the driver that senders wake. Once, before the first [`Mailbox::may_sleep`].
    pub(super) fn attach(&mut self, waker: Waker, gathers_sends: bool) {
        let attached = self.post.doorbell.driver.set(Attached { waker, gathers_sends });
        assert!(attached.is_ok(), "a mailbox has one reader, for ever");
    }

    /// Tells senders that from now on they must wake; `false` when a letter is there already, so stay awake.
    pub(super) fn may_sleep(&mut self) -> bool {
        let sleeping = &self.post.doorbell.sleeping;
        sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.letters.is_empty() {
            return true;
        }
        sleeping.store(false, Ordering::Relaxed);
        false
    }

    /// Tells senders that they need not wake any more.
    pub(super) fn awake(&mut self) {
        self.post.doorbell.sleeping.store(false, Ordering::Relaxed);
    }
}

impl<L> Post<L> {
    /// Whose mailbox it is.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Letters it has room for at the moment.
    pub fn room(&self) -> usize {
        self.letters.capacity().map_or(usize::MAX, |capacity| capacity.saturating_sub(self.letters.len()))
    }

    /// Whether the shard has so many letters to read that it gains nothing by reading more of them in one turn.
    pub fn has_enough_letters(&self) -> bool {
        self.doorbell.driver.get().is_some_and(|attached| !attached.gathers_sends)
            && self.letters.len() >= LETTERS_ENOUGH
    }

    /// Whether the shard was awake a moment ago; one that has ended is, too.
    pub fn is_awake(&self) -> bool {
        !self.doorbell.sleeping.load(Ordering::Relaxed)
    }

    /// Posts and wakes the shard if it sleeps. Never waits: a full mailbox is `Busy`.
    #[inline]
    pub fn try_send(&self, letter: L) -> Result<(), Undelivered<L>> {
        self.push(letter)?;
        self.ring();
        Ok(())
    }

    /// Posts, waiting for room. For threads that may wait, the log thread above all, never for a shard.
    pub fn send_blocking(&self, letter: L) -> Result<(), Undelivered<L>> {
        self.letters.send(letter).map_err(|full| Undelivered::Gone(full.0))?;
        self.ring();
        Ok(())
    }

    /// Posts without waking; [`Post::ring`] must follow. Never waits, as [`Post::try_send`].
    #[inline]
    pub fn push(&self, letter: L) -> Result<(), Undelivered<L>> {
        self.letters.try_send(letter).map_err(|error| match error {
            TrySendError::Full(letter) => Undelivered::Busy(letter),
            TrySendError::Disconnected(letter) => Undelivered::Gone(letter),
        })
    }

    /// Wakes the shard if it sleeps; true: it did.
    #[inline]
    pub fn ring(&self) -> bool {
        fence(Ordering::SeqCst);
        let sleeping = &self.doorbell.sleeping;
        sleeping.load(Ordering::Relaxed)
            && sleeping.swap(false, Ordering::Relaxed)
            && self.doorbell.driver.get().expect("a shard attaches its waker before it sleeps").waker.wake()
    }
}

/// One shard's outgoing mail, by target.
#[derive(Debug)]
pub struct Mailer<L> {
    targets: Vec<Target<L>>,
    /// Letters waiting over all targets.
    waiting: usize,
    undeliverable: u64,
}

#[derive(Debug)]
struct Target<L> {
    post: Post<L>,
    backlog: VecDeque<L>,
    /// Letters written to it so far.
    written: u64,
    /// The last attempt found the mailbox full, and letters still wait.
    full: bool,
}

impl<L> Mailer<L> {
    /// A mailer to these shards, found by [`ShardId`]: `posts[i]` is shard `i`'s.
    pub fn new(posts: Vec<Post<L>>) -> Self {
        assert!(posts.iter().enumerate().all(|(i, post)| usize::from(post.shard.0) == i), "posts come by shard number");
        let targets =
            posts.into_iter().map(|post| Target { post, backlog: VecDeque::new(), written: 0, full: false }).collect();
        Self { targets, waiting: 0, undeliverable: 0 }
    }

    /// Shards this one can write to, itself included.
    pub fn shards(&self) -> usize {
        self.targets.len()
    }

    /// Queues a letter that carries data; it leaves at the end of the turn. `Busy` when the target's backlog is full:
    /// the caller keeps the data where it came from.
    pub fn send(&mut self, to: ShardId, letter: L) -> Result<(), Undelivered<L>> {
        let target = &mut self.targets[usize::from(to.0)];
        if target.backlog.len() >= MAIL_BACKLOG_LETTERS_MAX {
            return Err(Undelivered::Busy(letter));
        }
        target.backlog.push_back(letter);
        target.written += 1;
        self.waiting += 1;
        Ok(())
    }

    /// Queues a letter that must not be lost, behind those already queued. Its senders wait for an answer to each
    /// before they write the next, so their number is bounded by the shard's connections and sessions; the room for
    /// them is more than that, and running out of it is our own bug.
    pub fn send_control(&mut self, to: ShardId, letter: L) {
        let target = &mut self.targets[usize::from(to.0)];
        assert!(target.backlog.len() < MAIL_BACKLOG_CONTROL_MAX, "control letters are bounded by what awaits answers");
        target.backlog.push_back(letter);
        target.written += 1;
        self.waiting += 1;
    }

    /// The number of the last letter written to a shard; they count from 1.
    pub fn written(&self, to: ShardId) -> u64 {
        self.targets[usize::from(to.0)].written
    }

    /// Whether the letter with this number lies in its mailbox, so that whatever anybody posts there from now on comes
    /// behind it, or was taken out already.
    pub fn is_posted(&self, to: ShardId, letter: u64) -> bool {
        let target = &self.targets[usize::from(to.0)];
        letter + target.backlog.len() as u64 <= target.written
    }

    /// Whether the target's mailbox was full when last tried: stop reading what feeds it.
    pub fn congested(&self, to: ShardId) -> bool {
        self.targets[usize::from(to.0)].full
    }

    /// Letters waiting over all targets.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Letters whose shard had ended.
    pub fn undeliverable(&self) -> u64 {
        self.undeliverable
    }

    /// Posts what waits, in order, with at most one wake a target. What a full mailbox does not take stays.
    pub(super) fn post_all(&mut self) {
        if self.waiting == 0 {
            return;
        }
        for target in &mut self.targets {
            let before = target.backlog.len();
            target.full = false;
            while let Some(letter) = target.backlog.pop_front() {
                match target.post.push(letter) {
                    Ok(()) => {}
                    Err(Undelivered::Busy(letter)) => {
                        target.backlog.push_front(letter);
                        target.full = true;
                        break;
                    }
                    Err(Undelivered::Gone(_)) => self.undeliverable += 1,
                }
            }
            let posted = before - target.backlog.len();
            self.waiting -= posted;
            if posted > 0 {
                target.post.ring();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::WakerKind;
    use std::thread;

    fn flag_waker() -> (Waker, Arc<AtomicBool>) {
        let flag = Arc::new(AtomicBool::new(false));
        (Waker(WakerKind::Flag(Arc::clone(&flag))), flag)
    }

    #[test]
    fn a_mailbox_holds_its_bound_and_is_busy_beyond() {
        let mut mailbox = Mailbox::new(ShardId(0), 2);
        let post = mailbox.post();
        assert_eq!((post.try_send(1), post.try_send(2)), (Ok(()), Ok(())));
        assert_eq!(post.try_send(3), Err(Undelivered::Busy(3)));
        assert_eq!((mailbox.take(), post.try_send(3)), (Some(1), Ok(())));
        assert_eq!((mailbox.take(), mailbox.take(), mailbox.take()), (Some(2), Some(3), None));
        drop(mailbox);
        assert_eq!(post.try_send(4), Err(Undelivered::Gone(4)));
        assert_eq!(post.send_blocking(4), Err(Undelivered::Gone(4)));
    }

    #[test]
    fn a_shard_has_enough_letters_at_some_number_unless_its_driver_gathers_sends() {
        for gathers_sends in [false, true] {
            let mut mailbox = Mailbox::new(ShardId(0), LETTERS_ENOUGH);
            let post = mailbox.post();
            mailbox.attach(flag_waker().0, gathers_sends);
            for letter in 0..LETTERS_ENOUGH {
                assert!(!post.has_enough_letters(), "{letter}");
                assert_eq!(post.push(letter), Ok(()));
            }
            assert_eq!(post.has_enough_letters(), !gathers_sends);
            mailbox.take();
            assert!(!post.has_enough_letters());
        }
    }

    #[test]
    fn only_a_sleeping_shard_is_woken_and_only_once() {
        let mut mailbox = Mailbox::new(ShardId(0), 16);
        let (waker, woken) = flag_waker();
        mailbox.attach(waker, false);
        let post = mailbox.post();
        assert_eq!((post.push(1), post.ring(), post.is_awake()), (Ok(()), false, true));
        assert!(!woken.load(Ordering::SeqCst), "it is awake");
        assert!(!mailbox.may_sleep(), "a letter is there");
        assert_eq!((mailbox.take(), post.is_awake()), (Some(1), true));
        assert!(mailbox.may_sleep() && !post.is_awake());
        assert_eq!(post.push(2), Ok(()));
        assert!(!woken.load(Ordering::SeqCst), "nobody has rung");
        assert!(post.ring());
        assert!(woken.swap(false, Ordering::SeqCst));
        assert_eq!((post.push(3), post.ring()), (Ok(()), false));
        assert!(!woken.load(Ordering::SeqCst), "somebody has woken it already");
    }

    #[test]
    fn letters_for_an_ended_shard_are_counted() {
        let mailbox = Mailbox::new(ShardId(0), 16);
        let mut mailer = Mailer::new(vec![mailbox.post()]);
        drop(mailbox);
        mailer.send_control(ShardId(0), 1);
        mailer.post_all();
        assert_eq!((mailer.waiting(), mailer.undeliverable()), (0, 1));
    }

    /// Senders race with a receiver that sleeps whenever it may: a lost wake leaves it asleep beside a letter.
    #[test]
    fn no_letter_is_left_lying_while_its_shard_sleeps() {
        const SENDERS: u32 = 3;
        const LETTERS: u32 = 20_000;
        let mut mailbox = Mailbox::new(ShardId(0), 64);
        let (waker, woken) = flag_waker();
        mailbox.attach(waker, false);
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let post = mailbox.post();
                thread::spawn(move || {
                    for number in 0..LETTERS {
                        post.send_blocking((sender, number)).expect("the receiver outlives the senders");
                        if number % 7 == 0 {
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let mut next = [0; SENDERS as usize];
        let mut looks = 0_u64;
        while next.iter().sum::<u32>() < SENDERS * LETTERS {
            while let Some((sender, number)) = mailbox.take() {
                assert_eq!(number, next[sender as usize], "each sender's letters keep their order");
                next[sender as usize] += 1;
            }
            if next.iter().sum::<u32>() < SENDERS * LETTERS && mailbox.may_sleep() {
                while !woken.swap(false, Ordering::SeqCst) {
                    looks += 1;
                    assert!(looks < 1 << 32, "asleep for ever: {next:?}");
                    thread::yield_now();
                }
                mailbox.awake();
            }
        }
        senders.into_iter().for_each(|sender| sender.join().expect("a sender failed"));
    }
}
