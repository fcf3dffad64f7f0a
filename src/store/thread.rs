//! The log thread: takes what has queued up, commits it as a group, delivers. The only thread that writes the store.

use super::handle::Letter;
use super::{Address, Batch, Committed, Done, Handle, Log, Store};
use crate::base::clock::Now;
use crate::limits::{LOG_BATCH_MAX, LOG_QUEUE_MAX, STORE_SWEEP_INTERVAL};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

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
}

impl LogThread {
    /// Answers what was submitted before, ends the thread and waits for it. Meant for after the shards have ended: a
    /// request submitted at the same time may get no `Done`, a later one is refused with `Failed`.
    ///
    /// # Errors
    /// The thread had panicked.
    pub fn stop(self) -> std::thread::Result<()> {
        // A send error says that the thread has ended already.
        let _ = self.letters.send(Letter::Stop);
        self.thread.join()
    }

    /// Waits until all handles are gone and all they submitted is answered.
    ///
    /// # Errors
    /// The thread had panicked.
    pub fn join(self) -> std::thread::Result<()> {
        drop(self.letters);
        self.thread.join()
    }
}

/// Starts the thread. `clock` is read once per commit.
///
/// # Errors
/// The system gives no thread.
pub fn spawn<S, D>(log: Log<S>, deliver: D, clock: fn() -> Now) -> io::Result<(LogThread, Handle)>
where
    S: Store + Send + 'static,
    D: Deliver + Send + 'static,
{
    let (letters, inbox) = bounded(LOG_QUEUE_MAX);
    let handle = Handle { letters: letters.clone(), counters: log.counters() };
    let worker = Worker { log, deliver, clock, inbox };
    let thread = std::thread::Builder::new().name("log".into()).spawn(move || worker.run())?;
    Ok((LogThread { thread, letters }, handle))
}

struct Worker<S, D> {
    log: Log<S>,
    deliver: D,
    clock: fn() -> Now,
    inbox: Receiver<Letter>,
}

impl<S: Store, D: Deliver> Worker<S, D> {
    fn run(mut self) {
        let mut is_open = true;
        while is_open {
            // A group that was cut short by its entries leaves requests queued; they must not wait for more mail.
            if self.log.queued() == 0 {
                match self.inbox.recv_timeout(STORE_SWEEP_INTERVAL) {
                    Ok(letter) => is_open = self.take(letter),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => is_open = false,
                }
            }
            is_open = is_open && self.fill();
            self.commit();
        }
        while self.log.queued() > 0 {
            self.commit();
        }
    }

    /// Takes what is there, up to one group. False: nothing will come any more.
    fn fill(&mut self) -> bool {
        while self.log.queued() < LOG_BATCH_MAX {
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

    fn take(&mut self, letter: Letter) -> bool {
        let Letter::Request { from, token, request } = letter else { return false };
        let is_taken = self.log.submit(from, token, request).is_ok();
        assert!(is_taken, "the thread queues less than the log has room for");
        true
    }

    fn commit(&mut self) {
        let Committed { batch, dones } = self.log.commit((self.clock)());
        if let Some(batch) = &batch {
            self.deliver.batch(batch);
        }
        for (to, done) in dones {
            self.deliver.done(to, done);
        }
    }
}

const _: () = assert!(LOG_BATCH_MAX <= LOG_QUEUE_MAX);
