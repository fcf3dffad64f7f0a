//! The log thread: takes what has queued up, commits it as a group, delivers. The only thread that writes the store.

use super::handle::{Bell, Letter};
use super::{Address, Batch, Committed, Counters, Done, Handle, Log, Store, StoreFault};
use crate::base::clock::Now;
use crate::limits::{GIVE_BACK_INTERVAL, LOG_BATCH_MAX, LOG_QUEUE_MAX, STORE_SWEEP_INTERVAL};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Where commits go. The log thread calls it in this order: the batch first, then the `Done`s of the same commit. So
/// `batch` returns only when every shard's mailbox holds it; it may block for that, shards never do.
pub trait Deliver {
    /// To every shard.
    fn batch(&mut self, batch: &Arc<Batch>);
    /// To the one that asked. The receiver may be gone; then it is dropped.
    fn done(&mut self, to: Address, done: Done);
}

/// The running thread. Dropping it lets the thread go on until all handles are gone.
pub struct LogThread {
    thread: JoinHandle<()>,
    letters: Sender<Letter>,
    bell: Bell,
}

impl LogThread {
    /// Answers what was submitted before, ends the thread and waits for it. Meant for after the shards have ended: a
    /// request submitted at the same time may get no `Done`, a later one is refused with `Failed`.
    ///
    /// # Errors
    /// The thread had panicked.
    pub fn stop(self) -> thread::Result<()> {
        // A send error says that the thread has ended already.
        let _ = self.letters.send(Letter::Stop);
        self.bell.ring();
        self.thread.join()
    }

    /// Waits until all handles are gone and all they submitted is answered.
    ///
    /// # Errors
    /// The thread had panicked.
    pub fn join(self) -> thread::Result<()> {
        drop(self.letters);
        drop(self.bell);
        self.thread.join()
    }
}

/// Starts the thread of a new log. `clock` is read once per commit.
///
/// # Errors
/// The system gives no thread.
pub fn spawn<S, D>(log: Log<S>, deliver: D, clock: fn() -> Now) -> io::Result<(LogThread, Handle)>
where
    S: Store + Send + 'static,
    D: Deliver + Send + 'static,
{
    let (handle, desk) = open(log);
    let thread = run(&handle, desk, deliver, clock, || {})?;
    Ok((thread, handle))
}

/// Starts the thread of a log that was [`open`]ed. `clock` is read once per commit; `give_back` is called now and then
/// when there is nothing to do.
///
/// # Errors
/// The system gives no thread.
pub fn run<S, D>(
    handle: &Handle,
    desk: Desk<S>,
    deliver: D,
    clock: fn() -> Now,
    give_back: fn(),
) -> io::Result<LogThread>
where
    S: Store + Send + 'static,
    D: Deliver + Send + 'static,
{
    let (letters, bell) = (handle.letters.clone(), handle.bell.clone());
    let thread = thread::Builder::new().name("log".into()).spawn(move || desk.run(deliver, clock, give_back))?;
    bell.wakes(thread.thread().clone());
    // Whoever rang before that rang for nobody.
    bell.ring();
    Ok(LogThread { thread, letters, bell })
}

/// The log with its end of the queue, for whoever drives it: the log thread, or a simulation in its place.
pub struct Desk<S> {
    log: Log<S>,
    inbox: Receiver<Letter>,
    counters: Arc<Counters>,
}

/// A log's desk and a handle to write to it.
pub fn open<S: Store>(log: Log<S>) -> (Handle, Desk<S>) {
    let (letters, inbox) = bounded(LOG_QUEUE_MAX);
    let counters = log.counters();
    let handle = Handle { letters, counters: Arc::clone(&counters), life: log.life(), bell: Bell::default() };
    (handle, Desk { log, inbox, counters })
}

impl<S: Store> Desk<S> {
    /// The log: the simulation crashes it and looks at its queue.
    pub fn log_mut(&mut self) -> &mut Log<S> {
        &mut self.log
    }

    /// Takes in what has come, up to one group. False: nothing will come any more.
    pub fn take_in(&mut self) -> bool {
        while self.log.takes_more() {
            match self.inbox.try_recv() {
                Ok(letter) => {
                    if !self.take(letter) {
                        return false;
                    }
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        true
    }

    /// Commits one group and delivers: the batch first, then the answers.
    pub fn commit(&mut self, now: Now, deliver: &mut impl Deliver) {
        self.counters.commit_begins(now);
        let Committed { batch, dones } = self.log.commit(now);
        self.counters.commit_ends();
        if let Some(batch) = &batch {
            deliver.batch(batch);
        }
        for (to, done) in dones {
            deliver.done(to, done);
        }
    }

    fn take(&mut self, letter: Letter) -> bool {
        let Letter::Request { from, token, request } = letter else { return false };
        let is_taken = self.log.submit(from, token, request).is_ok();
        assert!(is_taken, "the desk queues less than the log has room for");
        true
    }

    /// Sleeps until there is mail, or for `STORE_SWEEP_INTERVAL`.
    fn wait(&self, clock: fn() -> Now) -> Result<Letter, RecvTimeoutError> {
        let until_ms = clock().deadline(STORE_SWEEP_INTERVAL);
        loop {
            match self.inbox.try_recv() {
                Ok(letter) => return Ok(letter),
                Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) => {}
            }
            let left_ms = until_ms.saturating_sub(clock().monotonic_ms);
            if left_ms == 0 {
                return Err(RecvTimeoutError::Timeout);
            }
            thread::park_timeout(Duration::from_millis(left_ms));
        }
    }

    fn run<D: Deliver>(mut self, mut deliver: D, clock: fn() -> Now, give_back: fn()) {
        let _ended = Ended(Arc::clone(&self.counters));
        let mut is_open = true;
        let mut rests_again_ms = 0;
        while is_open {
            // A group that was cut short by its entries leaves requests queued; they must not wait for more mail.
            if self.log.queued() == 0 {
                match self.wait(clock) {
                    Ok(letter) => is_open = self.take(letter),
                    Err(RecvTimeoutError::Timeout) => {
                        let now = clock();
                        if now.monotonic_ms >= rests_again_ms {
                            rests_again_ms = now.deadline(GIVE_BACK_INTERVAL);
                            give_back();
                        }
                    }
                    Err(RecvTimeoutError::Disconnected) => is_open = false,
                }
            }
            is_open = is_open && self.take_in();
            let began = clock();
            self.commit(began, &mut deliver);
            self.counters.commits_took(clock().monotonic_ms.saturating_sub(began.monotonic_ms));
        }
        while self.log.queued() > 0 {
            self.commit(clock(), &mut deliver);
        }
    }
}

/// A log thread that panics leaves a word behind: without it the node would look well and answer nothing.
struct Ended(Arc<Counters>);

impl Drop for Ended {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.failed(StoreFault { reason: "the log thread panicked".into() });
        }
    }
}

const _: () = assert!(LOG_BATCH_MAX <= LOG_QUEUE_MAX);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{Seq, ShardId};
    use crate::limits::COMMIT_STALL_MAX;
    use crate::store::fixture::{Failing, append, appended, inbox, log, record, topic};
    use crate::store::{Answer, Request, RequestToken, StoreError};
    use std::collections::HashMap;

    enum Event {
        Batch(Arc<Batch>),
        Done(Address, Done),
    }

    struct Recorder(Sender<Event>);

    impl Deliver for Recorder {
        fn batch(&mut self, batch: &Arc<Batch>) {
            self.0.send(Event::Batch(batch.clone())).expect("the test listens until the thread has ended");
        }

        fn done(&mut self, to: Address, done: Done) {
            self.0.send(Event::Done(to, done)).expect("the test listens until the thread has ended");
        }
    }

    fn no_time() -> Now {
        Now::default()
    }

    fn insist(handle: &Handle, from: Address, token: u64, mut request: Request) {
        while let Err((back, error)) = handle.try_submit(from, RequestToken(token), request) {
            assert_eq!(error, StoreError::Busy);
            request = back;
            thread::yield_now();
        }
        handle.ring();
    }

    #[test]
    fn every_producer_gets_every_done_once_in_order_and_after_its_batch() {
        const PRODUCERS: u16 = 4;
        const EACH: u64 = 2_000;
        let (events, seen) = crossbeam_channel::unbounded();
        let (thread, handle) = spawn(log(), Recorder(events), no_time).expect("there is a thread");
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|shard| {
                let handle = handle.clone();
                thread::spawn(move || {
                    for token in 0..EACH {
                        let streams = [inbox(&shard.to_string()), topic("all")];
                        let request = if token % 3 == 0 { record("r", "v") } else { append(&streams) };
                        insist(&handle, Address::Shard(ShardId(shard)), token, request);
                    }
                })
            })
            .collect();
        for producer in producers {
            producer.join().expect("a producer does not panic");
        }
        let counters = handle.counters.clone();
        drop(handle);
        thread.join().expect("the log thread does not panic");
        let (mut delivered, mut next) = (Seq(0), HashMap::<Address, u64>::new());
        for event in seen {
            match event {
                Event::Batch(batch) => {
                    for entry in &batch.entries {
                        assert_eq!(entry.seq.0, delivered.0 + 1);
                        delivered = entry.seq;
                    }
                    assert_eq!(batch.seq, delivered);
                }
                Event::Done(to, done) => {
                    let next = next.entry(to).or_default();
                    assert_eq!(done.token.0, *next);
                    *next += 1;
                    let (positions, _, seq) = appended(done.result);
                    assert!(seq <= delivered && positions.iter().all(|position| position.seq <= delivered));
                }
            }
        }
        assert!(next.len() == usize::from(PRODUCERS) && next.values().all(|count| *count == EACH));
        assert_eq!(counters.stats().entries, delivered.0);
        assert_eq!(counters.stats().queue_depth, 0);
    }

    #[test]
    fn a_stop_answers_what_was_submitted_before_and_refuses_what_comes_later() {
        let (events, seen) = crossbeam_channel::unbounded();
        let (thread, handle) = spawn(log(), Recorder(events), no_time).expect("there is a thread");
        for token in 0..500 {
            insist(&handle, Address::Control, token, append(&[topic("t")]));
        }
        thread.stop().expect("the log thread does not panic");
        let dones = seen.iter().filter(|event| matches!(event, Event::Done(..))).count();
        assert_eq!(dones, 500);
        let refused = handle.try_submit(Address::Control, RequestToken(0), append(&[topic("t")]));
        assert!(matches!(refused, Err((Request::Append { .. }, StoreError::Failed))));
        assert_eq!(handle.stats().seq, 500);
    }

    #[test]
    fn a_failing_store_answers_failed_and_shows_it_to_every_thread() {
        let mut store = Failing::new();
        store.writes_fail = true;
        let (events, seen) = crossbeam_channel::unbounded();
        let log = Log::open(store, 1).expect("it opens");
        let (thread, handle) = spawn(log, Recorder(events), no_time).expect("there is a thread");
        insist(&handle, Address::Control, 1, append(&[topic("t")]));
        insist(&handle, Address::Control, 2, Request::Head { stream: topic("t") });
        thread.stop().expect("the log thread does not panic");
        let results: Vec<_> = seen
            .iter()
            .map(|event| match event {
                Event::Done(_, done) => done.result,
                Event::Batch(_) => panic!("nothing was committed"),
            })
            .collect();
        assert!(matches!(results[..], [Err(StoreError::Failed), Ok(Answer::Head(_))]));
        assert!(handle.stats().poisoned && handle.fault().is_some());
    }

    #[test]
    fn a_commit_that_takes_too_long_is_seen_while_it_lasts() {
        let (handle, desk) = open(log());
        let at = |monotonic_ms| Now { monotonic_ms, wall_ms: 0 };
        let stall_ms = COMMIT_STALL_MAX.as_millis() as u64;
        assert!(!handle.is_stalled(at(u64::MAX)), "nothing is being committed");
        desk.counters.commit_begins(at(5));
        assert!(!handle.is_stalled(at(5 + stall_ms - 1)) && handle.is_stalled(at(5 + stall_ms)));
        desk.counters.commit_ends();
        assert!(!handle.is_stalled(at(u64::MAX)));
    }

    #[test]
    fn a_log_thread_that_panics_is_a_fault_of_the_store() {
        struct Breaking;
        impl Deliver for Breaking {
            fn batch(&mut self, _: &Arc<Batch>) {
                panic!("a panic on purpose");
            }
            fn done(&mut self, _: Address, _: Done) {}
        }
        let (thread, handle) = spawn(log(), Breaking, no_time).expect("there is a thread");
        insist(&handle, Address::Control, 0, append(&[topic("t")]));
        assert!(thread.stop().is_err());
        assert_eq!(handle.fault().map(|fault| &*fault.reason), Some("the log thread panicked"));
    }

    /// A queue nobody empties: the thread is held up inside its first delivery.
    #[test]
    fn a_full_queue_gives_the_request_back_at_once() {
        struct HeldUp(Receiver<()>);
        impl Deliver for HeldUp {
            fn batch(&mut self, _: &Arc<Batch>) {
                // Ends when the test lets go of its side.
                let _ = self.0.recv();
            }
            fn done(&mut self, _: Address, _: Done) {}
        }
        let (release, held) = bounded(0);
        let (thread, handle) = spawn(log(), HeldUp(held), no_time).expect("there is a thread");
        insist(&handle, Address::Control, 0, append(&[topic("t")]));
        let mut taken = 0;
        let refused = loop {
            match handle.try_submit(Address::Control, RequestToken(1), record("r", "v")) {
                Ok(()) => taken += 1,
                Err((_, error)) => break error,
            }
            assert!(taken <= LOG_QUEUE_MAX + LOG_BATCH_MAX, "the queue has no bound");
        };
        assert_eq!(refused, StoreError::Busy);
        drop(release);
        drop(handle);
        thread.join().expect("the log thread does not panic");
    }
}
