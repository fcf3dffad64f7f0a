//! One node in the simulator: shards on simulated drivers, and the log driven by hand with delays, failures and crashes.

use crate::coverage::Seen;
use crate::ledger::Ledger;
use crate::store::{Flaky, Write};
use crossbeam_channel::Receiver;
use kittiwake::base::hash::KeyedHash;
use kittiwake::base::ids::{Seq, ShardId};
use kittiwake::io::sim::{Random, SimDriver, SimNet};
use kittiwake::shard::command::{CommandToken, Event};
use kittiwake::shard::launch::{Assembly, LogMail, Shard};
use kittiwake::shard::{Handle, HistoryRule, Limits, Settings, SlowPolicy, SlowRule, TopicRules};
use kittiwake::store::{
    Address, Batch, Deliver, Desk, Done, Group, Log, MemoryStore, Retention, Retentions, Store, thread,
};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The running part: gone in a crash.
pub struct Running {
    pub shards: Vec<Shard<SimDriver>>,
    pub handle: Handle,
    pub events: Receiver<Event>,
    mail: LogMail,
    is_listening: usize,
}

/// What the log has committed and not yet mailed.
enum Outgoing {
    Batch(Arc<Batch>),
    Done(Address, Done),
}

#[derive(Default)]
struct Outbox(VecDeque<Outgoing>);

impl Deliver for Outbox {
    fn batch(&mut self, batch: &Arc<Batch>) {
        self.0.push_back(Outgoing::Batch(Arc::clone(batch)));
    }

    fn done(&mut self, to: Address, done: Done) {
        self.0.push_back(Outgoing::Done(to, done));
    }
}

pub struct Node {
    net: SimNet,
    ledger: Rc<RefCell<Ledger>>,
    address: SocketAddr,
    pub running: Option<Running>,
    store: kittiwake::store::Handle,
    desk: Desk<Flaky>,
    outbox: Outbox,
    /// The log does nothing before.
    log_at_ms: u64,
    last_shards: u16,
    /// Letters a mailbox holds in this run.
    letters_max: usize,
    /// Messages an inbox keeps in this run.
    pub inbox_entries: usize,
    /// Topics whose history is kept in this run.
    kept: Vec<HistoryRule>,
}

impl Node {
    /// `keeps`: it keeps the history of some topics, so that their messages of every QoS are logged.
    pub fn new(
        net: &SimNet,
        address: SocketAddr,
        ledger: &Rc<RefCell<Ledger>>,
        random: &mut Random,
        keeps: bool,
    ) -> Self {
        let mut retentions = Retentions::default();
        if random.below(4) == 0 {
            let entries = random.within(1, 3) as usize;
            retentions.inbox.entries = entries;
            retentions.topic.entries = entries + 1;
            retentions.everyone.entries = entries;
        }
        let rule = |filter: &str| {
            let Retention { entries, age, .. } = retentions.topic;
            HistoryRule { filter: filter.into(), entries, age }
        };
        let kept = if keeps { vec![rule("rooms/+"), rule("news")] } else { Vec::new() };
        retentions.history = kept.iter().map(|rule| (rule.filter.clone(), retentions.topic)).collect();
        let inbox_entries = retentions.inbox.entries;
        let mut inner = MemoryStore::new(retentions, KeyedHash::new(random.bits()));
        if ledger.borrow().upstream.is_wanted {
            // The group of an earlier process.
            let records = [crate::upstream::group()];
            let group = Group { entries: &[], records: &records, keys: &[], seq: Seq(0) };
            inner.append_many(group, net.now()).expect("memory does not fail");
        }
        let flaky = Flaky { inner, next_write: Write::Works, reads_fail: Cell::new(false), ledger: Rc::clone(ledger) };
        let log = Log::open(flaky, random.bits()).expect("memory opens");
        let (store, desk) = thread::open(log);
        let letters_max = if random.below(2) == 0 { random.within(1, 4) as usize } else { 1_000 };
        Self {
            net: net.clone(),
            ledger: Rc::clone(ledger),
            address,
            running: None,
            store,
            desk,
            outbox: Outbox::default(),
            log_at_ms: 0,
            last_shards: 0,
            letters_max,
            inbox_entries,
            kept,
        }
    }

    /// Starts it over what the store holds.
    pub fn start(&mut self, random: &mut Random) {
        let shards = random.within(1, 4) as u16;
        if self.last_shards != 0 && self.last_shards != shards {
            self.hit(Seen::RestartWithOtherShards);
        }
        self.last_shards = shards;
        let limits = Limits {
            connections: 64,
            sse_heartbeat: Duration::from_secs(2),
            outbox_bytes: if random.below(3) == 0 { 16_384 } else { 65_536 },
            ..Limits::default()
        };
        let policies = [SlowPolicy::DropNewest, SlowPolicy::DropOldest, SlowPolicy::Conflate, SlowPolicy::Close];
        let policy = policies[random.below(4) as usize];
        let slow = ["#", "$inbox/#"].map(|filter| SlowRule { filter: filter.into(), policy }).into();
        let settings = Arc::new(Settings {
            shards,
            driver: Default::default(),
            listen: vec![self.address],
            doors: Vec::new(),
            tls: None,
            apps: vec!["default".to_owned()],
            user: Default::default(),
            tokens: false,
            hook: false,
            rights: Default::default(),
            server_reference: None,
            sys_users: Vec::new(),
            topics: TopicRules { history: self.kept.clone(), presence: vec!["rooms/+".into()], slow, rate: Vec::new() },
            origins: Default::default(),
            hash_key: random.bits(),
            random_seed: random.bits(),
            limits,
        });
        let Assembly { handle, events, seats, mail, .. } =
            Assembly::with_mailboxes(&settings, &self.store, self.letters_max);
        let shards = seats.into_iter().map(|seat| Shard::new(seat, self.net.driver()).expect("the driver polls"));
        let shards: Vec<_> = shards.collect();
        for number in 0..shards.len() {
            handle.listen(ShardId(number as u16), vec![self.address]);
        }
        self.running = Some(Running { shards, handle, events, mail, is_listening: 0 });
    }

    /// Kills it: everything that is not committed is gone.
    pub fn crash(&mut self) {
        let Some(running) = self.running.take() else { return };
        self.desk.log_mut().store_mut().mark_held();
        if running.is_listening < running.shards.len() {
            self.hit(Seen::RestartBeforeRestored);
        }
        if self.log_waits() {
            self.hit(Seen::CrashWithUncommitted);
        }
        if !self.outbox.0.is_empty() {
            self.hit(Seen::CrashWithUndelivered);
        }
        drop(running);
        self.outbox.0.clear();
        while self.log_waits() {
            self.desk.take_in();
            self.desk.log_mut().crash().expect("memory says where it ends");
        }
        self.desk.log_mut().crash().expect("memory says where it ends");
        self.desk.log_mut().store_mut().next_write = Write::Works;
        self.desk.log_mut().store_mut().reads_fail.set(false);
    }

    /// Whether the store has failed, so that only a restart helps.
    pub fn is_poisoned(&mut self) -> bool {
        self.desk.log_mut().is_poisoned()
    }

    fn log_waits(&mut self) -> bool {
        self.desk.log_mut().queued() > 0 || self.store.stats().queue_depth > 0
    }

    /// When the log has something to do next.
    pub fn log_due_ms(&mut self) -> Option<u64> {
        (self.running.is_some() && (!self.outbox.0.is_empty() || self.log_waits())).then_some(self.log_at_ms)
    }

    /// A step of the log: mails some of what it has committed, else commits.
    pub fn log_step(&mut self, random: &mut Random, wild: bool) {
        let Some(running) = &mut self.running else { return };
        if !self.outbox.0.is_empty() {
            let mut budget = if wild { random.within(1, 8) } else { u64::MAX };
            while budget > 0 && !self.outbox.0.is_empty() {
                if !running.mail.has_room(1) {
                    self.hit(Seen::FullMail);
                    self.log_at_ms = self.net.now().monotonic_ms + 1;
                    return;
                }
                budget -= 1;
                match self.outbox.0.pop_front().expect("it is not empty") {
                    Outgoing::Batch(batch) => running.mail.batch(&batch),
                    Outgoing::Done(to, done) => running.mail.done(to, done),
                }
            }
            return;
        }
        self.desk.take_in();
        if wild && random.below(10) == 0 {
            self.hit(Seen::StoreDelayed);
            self.log_at_ms = self.net.now().monotonic_ms + random.within(1, 100);
            return;
        }
        self.desk.commit(self.net.now(), &mut self.outbox);
        if self.is_poisoned() {
            self.ledger.borrow_mut().wills.store_failed(self.net.now().monotonic_ms);
        }
    }

    /// Asks it to end; false: it is not the moment, for a mailbox is full.
    pub fn drain(&self) -> bool {
        let Some(running) = self.running.as_ref().filter(|running| running.mail.has_room(1)) else { return false };
        running.handle.drain();
        true
    }

    /// The next write or read fails.
    pub fn break_store(&mut self, random: &mut Random) {
        let store = self.desk.log_mut().store_mut();
        match random.below(3) {
            0 => store.next_write = Write::Fails,
            1 => store.next_write = Write::FailsAfterwards,
            _ => store.reads_fail.set(true),
        }
    }

    /// Nothing is about to fail any more.
    pub fn mend_store(&mut self) {
        let store = self.desk.log_mut().store_mut();
        store.next_write = Write::Works;
        store.reads_fail.set(false);
    }

    pub fn session_records(&mut self) -> usize {
        self.desk.log_mut().store_mut().session_records().len()
    }

    /// Takes the shards' answers; starts are noted here.
    pub fn events(&mut self) -> Vec<Event> {
        let Some(running) = &mut self.running else { return Vec::new() };
        let events: Vec<Event> = running.events.try_iter().collect();
        for event in &events {
            if let Event::Listening { result, .. } = event {
                assert!(result.is_ok(), "{result:?}");
                running.is_listening += 1;
            }
        }
        events
    }

    /// Asks for all figures.
    pub fn ask_stats(&self) {
        let running = self.running.as_ref().expect("it runs");
        // A full mailbox refuses; then there is nothing to learn this time.
        let _busy = running.handle.stats(CommandToken(u64::MAX));
    }

    fn hit(&self, seen: Seen) {
        self.ledger.borrow_mut().coverage.hit(seen);
    }
}
