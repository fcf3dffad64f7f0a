//! A whole run from one seed: a wild time, then all is healed, everybody comes back, and what is owed must arrive.

use crate::backend::Backend;
use crate::client::{Client, EXPIRY, Mood, Traits};
use crate::coverage::{Coverage, Seen};
use crate::ledger::{Ledger, Life};
use crate::node::Node;
use crate::page::Page;
use crate::turning::Turning;
use kittiwake::io::sim::{Census, Faults, Random, SimNet};
use kittiwake::shard::command::{Event, ShardStats};
use kittiwake::wire::mqtt::Version;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

/// What a run was like.
pub struct Outcome {
    pub trace_hash: u64,
    pub coverage: Coverage,
}

/// Virtual time within which everything must have arrived once nothing is broken any more.
pub const HEALED_WITHIN_MS: u64 = 120_000;
/// The wall clock is set by at most an hour at a time.
const WALL_STEP_MS_MAX: i64 = 3_600_000;
/// Steps of one run, healing included: more than ever needed, so that a shard that spins shows.
const STEPS_MAX: usize = 400_000;

/// What clients, backends and the operator do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breadth {
    /// What the first seeds did: those that found something then still mean the same.
    Narrow,
    /// All of it.
    Wide,
}

pub struct World {
    breadth: Breadth,
    pub net: SimNet,
    random: Random,
    /// A stream of its own, so that freezing changes nothing else that is drawn.
    freezes: Option<Random>,
    pub ledger: Rc<RefCell<Ledger>>,
    pub node: Node,
    pub clients: Vec<Client>,
    pub pages: Vec<Page>,
    /// A stream of its own: a run without pages is the same as if there were none.
    page_random: Random,
    pub backend: Backend,
    restart_at_ms: u64,
    steps: usize,
    stats: Vec<ShardStats>,
    /// What was answered to who asked.
    pub answers: Vec<Event>,
    /// Is owed every will, so that all are in the log, and away.
    watcher: Option<Client>,
    pub turning: Option<Turning>,
    /// The node is being drained since then; so many shards have said that they are.
    draining: Option<(u64, usize)>,
    /// How far the wall clock was set, all in all.
    wall_offset_ms: i64,
}

/// Runs a seed.
pub fn run(seed: u64, freezes: bool, breadth: Breadth) -> Outcome {
    let mut world = World::new(seed, freezes, breadth);
    world.set_watch();
    world.wild_time();
    world.heal();
    if breadth == Breadth::Wide {
        world.check_presence();
        world.check_unread();
    }
    world.end();
    let mut coverage = world.ledger.borrow().coverage.clone();
    coverage.marks = world.net.marks();
    Outcome { trace_hash: world.net.trace_hash(), coverage }
}

impl World {
    fn new(seed: u64, freezes: bool, breadth: Breadth) -> Self {
        let is_wide = breadth == Breadth::Wide;
        let mut random = Random::new(seed);
        let mut faults = Faults::drawn(&mut random);
        if random.below(10) == 0 {
            faults.slots_max = random.within(1, 4) as usize;
        }
        let net = SimNet::new(random.bits(), faults);
        let address: SocketAddr = "10.0.0.1:1883".parse().expect("it is an address");
        let is_told = std::env::var_os("KITTIWAKE_STORY").is_some();
        let ledger = Rc::new(RefCell::new(Ledger::default()));
        ledger.borrow_mut().is_told = is_told;
        let mut clients = Vec::new();
        let count = random.within(2, 8) as usize;
        // The same client identifier under two users is two devices.
        let devices = if is_wide && random.below(2) == 0 { 4 } else { usize::MAX };
        if count > devices {
            ledger.borrow_mut().coverage.hit(Seen::SameIdTwoUsers);
        }
        for index in 0..count {
            let version = if random.below(2) == 0 { Version::V5 } else { Version::V311 };
            let receive_maximum = match version {
                Version::V311 => 32,
                Version::V5 => [1, 2, 3, 32][random.below(4) as usize],
            };
            let is_v5 = version == Version::V5;
            let traits = Traits {
                index,
                user: format!("user-{}", index / 2),
                device: format!("device-{}", index % devices),
                version,
                durable: random.below(3) > 0,
                receive_maximum,
                keep_alive: [0, 2, 30][random.below(3) as usize],
                expiry: if is_wide { [3, EXPIRY, EXPIRY, 300][random.below(4) as usize] } else { EXPIRY },
                packet_bytes_max: if is_wide && is_v5 {
                    [None, None, Some(50), Some(120)][random.below(4) as usize]
                } else {
                    None
                },
                is_wide,
            };
            let mut life = Life::new(&traits.user, &traits.device, traits.durable);
            life.packet_bytes_max = traits.packet_bytes_max;
            ledger.borrow_mut().lives.push(life);
            clients.push(Client::new(traits, &net, address, &ledger));
        }
        let mut pages = Vec::new();
        let mut page_random = Random::new(seed ^ 0x5e5e);
        let pages_max = [1, 4][page_random.below(2) as usize];
        for life in count..count + page_random.below(pages_max) as usize {
            let user = format!("user-{}", page_random.below(count as u64) / 2);
            let mut page = Page::new(life, &user, &mut page_random, &net, address);
            page.enter(&ledger);
            let (user, device) = page.device();
            ledger.borrow_mut().lives.push(Life::of_page(&user, &device));
            pages.push(page);
        }
        let devices = clients.iter().map(|client| (client.traits.user.clone(), client.traits.device.clone()));
        let devices = devices.chain(pages.iter().map(Page::device));
        let backend = Backend::new(&ledger, devices.collect(), is_wide);
        let watcher = is_wide.then(|| Self::watcher(count + pages.len(), &net, address, &ledger));
        let turning = if is_wide { Turning::drawn(seed, &net, address, &ledger) } else { None };
        let keeps = is_wide && page_random.below(3) == 0;
        // A stream of its own, as for pages.
        let has_group = is_wide && Random::new(seed ^ 0x6e6e).below(2) == 0;
        ledger.borrow_mut().upstream.is_wanted = has_group;
        let mut node = Node::new(&net, address, &ledger, &mut random, keeps);
        node.start(&mut random);
        let freezes = freezes.then(|| Random::new(!seed));
        let (restart_at_ms, steps, stats) = (0, 0, Vec::new());
        let (draining, wall_offset_ms) = (None, 0);
        Self {
            breadth,
            net,
            random,
            freezes,
            ledger,
            node,
            clients,
            pages,
            page_random,
            backend,
            restart_at_ms,
            steps,
            stats,
            answers: Vec::new(),
            watcher,
            turning,
            draining,
            wall_offset_ms,
        }
    }

    fn watcher(index: usize, net: &SimNet, address: SocketAddr, ledger: &Rc<RefCell<Ledger>>) -> Client {
        let traits = Traits {
            index,
            user: "watcher".to_owned(),
            device: "watcher".to_owned(),
            version: Version::V5,
            durable: true,
            receive_maximum: 32,
            keep_alive: 0,
            expiry: 100_000,
            packet_bytes_max: None,
            is_wide: false,
        };
        ledger.borrow_mut().lives.push(Life::new(&traits.user, &traits.device, true));
        Client::new(traits, net, address, ledger)
    }

    /// From now on somebody is owed all wills.
    fn set_watch(&mut self) {
        let Some(mut watcher) = self.watcher.take() else { return };
        let deadline_ms = self.now_ms() + HEALED_WITHIN_MS;
        while !watcher.has_subscribed("wills/#") {
            assert!(self.now_ms() < deadline_ms, "the watcher could not subscribe");
            watcher.watch(&mut self.random, "wills/#");
            self.rest();
        }
        watcher.hang_up();
        self.watcher = Some(watcher);
    }

    pub fn now_ms(&self) -> u64 {
        self.net.now().monotonic_ms
    }

    pub fn hit(&self, seen: Seen) {
        self.ledger.borrow_mut().coverage.hit(seen);
    }

    fn wild_time(&mut self) {
        let steps = self.random.within(300, 2_500);
        let crashes = [0, 0, 2, 8][self.random.below(4) as usize];
        let breaks = [0, 0, 3][self.random.below(3) as usize];
        // What only its figures tell is forgotten when the node dies.
        let asks = if self.breadth == Breadth::Wide { 60 } else { 300 };
        for _ in 0..steps {
            self.step(Mood::Wild);
            if self.random.below(1_000) < crashes || self.node.is_poisoned() && self.random.below(30) == 0 {
                self.crash();
            }
            if self.node.running.is_some() && self.random.below(asks) == 0 {
                self.node.ask_stats();
            }
            if self.random.below(500) == 0 {
                self.lull();
            }
            if self.random.below(1_000) < breaks {
                self.node.break_store(&mut self.random);
            }
            if self.breadth == Breadth::Wide {
                self.operate();
            }
        }
    }

    /// What operators do.
    fn operate(&mut self) {
        match self.random.below(4_000) {
            0..2 if self.draining.is_none() && self.node.drain() => {
                self.ledger.borrow().tell(|| "the node is drained".to_owned());
                self.draining = Some((self.now_ms(), 0));
            }
            2..6 => self.set_wall_clock(),
            _ => {}
        }
    }

    /// Not by so much that keys are forgotten.
    fn set_wall_clock(&mut self) {
        let by_ms = self.random.within(1, 2 * WALL_STEP_MS_MAX as u64) as i64 - WALL_STEP_MS_MAX;
        if (self.wall_offset_ms + by_ms).abs() > 3 * WALL_STEP_MS_MAX {
            return;
        }
        self.wall_offset_ms += by_ms;
        self.net.step_wall_clock(by_ms);
        self.ledger.borrow().tell(|| format!("the wall clock is set by {by_ms} ms"));
        self.ledger.borrow_mut().wall_stepped_ms = Some(self.now_ms());
        self.hit(if by_ms < 0 { Seen::ClockBack } else { Seen::ClockForward });
    }

    /// All shards have said that they are drained: the process ends, with nothing left to do.
    fn stop(&mut self) {
        self.hit(Seen::Drained);
        self.ledger.borrow().tell(|| "the node is stopped".to_owned());
        self.end_of_node();
    }

    fn crash(&mut self) {
        if self.node.running.is_none() {
            return;
        }
        if self.clients.iter().any(|client| client.talk.is_opening()) {
            self.hit(Seen::CrashWhileOpening);
        }
        if self.clients.iter().any(|client| client.talk.waiting != crate::client_state::Waiting::Nothing) {
            self.hit(Seen::CrashWhileSubscribing);
        }
        self.ledger.borrow().tell(|| "the node dies".to_owned());
        self.end_of_node();
    }

    fn end_of_node(&mut self) {
        self.draining = None;
        self.ledger.borrow_mut().died_at = Some(self.steps);
        self.ledger.borrow_mut().wills.node_died(self.now_ms());
        self.ledger.borrow_mut().upstream_died();
        self.node.crash();
        self.backend.node_died();
        self.restart_at_ms = self.now_ms() + self.random.below(1_500);
    }

    /// One of those who could do something does it, or time passes.
    pub fn step(&mut self, mood: Mood) {
        self.steps += 1;
        self.ledger.borrow_mut().step = self.steps;
        assert!(self.steps < STEPS_MAX, "somebody spins");
        if self.node.running.is_none() && self.now_ms() >= self.restart_at_ms {
            self.node.start(&mut self.random);
        }
        self.note_waiting();
        let due = self.due_shards();
        let log = self.node.log_due_ms().filter(|&at_ms| at_ms <= self.now_ms());
        let wild = mood == Mood::Wild;
        let (shards, log, others) = (due.len() as u64 * 4, if log.is_some() { 3 } else { 0 }, if wild { 4 } else { 3 });
        let pick = self.random.below(shards + log + others);
        if pick < shards {
            self.turn(due[(pick / 4) as usize]);
        } else if pick < shards + log {
            self.node.log_step(&mut self.random, wild);
        } else {
            self.others(mood, shards + log == 0);
        }
        self.take_events();
    }

    fn take_events(&mut self) {
        for event in self.node.events() {
            match event {
                Event::Pushed { token, result } => self.backend.answered(token, result),
                Event::Stats { stats, .. } => {
                    self.note_stats(&stats);
                    self.stats.push(*stats);
                }
                Event::Listening { .. } => {}
                Event::Drained { shard, cut } => {
                    // There is time for all of them, also for one that was on its way when the drain began.
                    assert_eq!(cut, 0, "shard {shard} has cut connections off that nobody told");
                    let (_, shards) = self.draining.as_mut().expect("it was asked for");
                    *shards += 1;
                }
                answer @ (Event::User { .. } | Event::Presence { .. }) => self.answers.push(answer),
                other => panic!("nobody asked for {other:?}"),
            }
        }
        let Some((since_ms, drained)) = self.draining else { return };
        if self.node.running.as_ref().is_some_and(|running| drained == running.shards.len()) {
            self.stop();
        } else {
            let is_slow = self.now_ms() > since_ms + HEALED_WITHIN_MS && !self.node.is_poisoned();
            assert!(!is_slow, "the node does not end: {drained} shards are drained");
        }
    }

    /// Clients say nothing for a while: keep alives run out.
    fn lull(&mut self) {
        let until_ms = self.now_ms() + self.random.within(1_000, 8_000);
        while self.now_ms() < until_ms {
            self.rest();
        }
    }

    /// Counts what only the node's own figures tell.
    fn note_stats(&self, stats: &ShardStats) {
        for (name, value) in &stats.counters {
            match *name {
                "adopted" if *value > 0 => self.hit(Seen::Moved),
                "throttled" if *value > 0 => self.hit(Seen::Throttled),
                "publishes_held" if *value > 0 => self.hit(Seen::PublishHeld),
                "dropped_expired" if *value > 0 => self.hit(Seen::ExpiredDropped),
                "dropped_share_session_ended" if *value > 0 => self.hit(Seen::SharedDiedWithSession),
                "dropped_too_large" if *value > 0 => self.hit(Seen::TooLargeDropped),
                _ => {}
            }
        }
    }

    /// Counts who waits for what, now and then.
    fn note_waiting(&self) {
        if !self.steps.is_multiple_of(16) {
            return;
        }
        if self.clients.iter().any(|client| client.talk.is_opening()) {
            self.hit(Seen::Opening);
        }
        if self.clients.iter().any(|client| client.talk.waiting != crate::client_state::Waiting::Nothing) {
            self.hit(Seen::SubscribePending);
        }
    }

    fn others(&mut self, mood: Mood, idle: bool) {
        if mood == Mood::Wild && self.turning.as_mut().is_some_and(Turning::is_next) {
            return self.go_on_turning();
        }
        if mood == Mood::Good && idle {
            self.clients.iter_mut().for_each(|client| client.act(&mut self.random, mood));
            self.turning.iter_mut().for_each(Turning::act);
            self.pages.iter_mut().for_each(|page| page.act(&mut self.page_random, false));
            return self.pass_time(mood);
        }
        if idle && self.random.below(3) > 0 {
            return self.pass_time(mood);
        }
        if mood == Mood::Wild && self.random.below(8) == 0 {
            if let Some(running) = &self.node.running {
                let wall_ms = self.net.now().wall_ms;
                self.backend.act(&mut self.random, &running.handle, wall_ms);
            }
            return;
        }
        let at = self.random.below(self.clients.len() as u64) as usize;
        self.clients[at].act(&mut self.random, mood);
        if !self.pages.is_empty() && self.page_random.below(3) == 0 {
            let at = self.page_random.below(self.pages.len() as u64) as usize;
            self.pages[at].act(&mut self.page_random, mood == Mood::Wild);
        }
    }

    fn due_shards(&self) -> Vec<usize> {
        let Some(running) = &self.node.running else { return Vec::new() };
        let shards = running.shards.iter().enumerate();
        shards.filter(|(_, shard)| shard.driver().is_due()).map(|(index, _)| index).collect()
    }

    fn turn(&mut self, index: usize) {
        let Some(running) = &mut self.node.running else { return };
        let shard = &mut running.shards[index];
        shard.turn().expect("a simulated driver can be polled");
        if let Some(freezes) = &mut self.freezes
            && freezes.below(4) == 0
        {
            shard.freeze_and_thaw();
            self.ledger.borrow_mut().coverage.hit(Seen::FrozenAndThawed);
        }
    }

    /// On to the next thing that happens by itself, but not beyond a moment, for clients act by themselves.
    fn pass_time(&mut self, mood: Mood) {
        let longest = match (mood, self.random.below(200)) {
            (Mood::Wild, 0) => 20_000,
            (Mood::Wild, 1..10) => 1_500,
            (Mood::Wild, _) => 40,
            (Mood::Good, _) => 400,
        };
        let limit = self.now_ms() + self.random.within(1, longest);
        let restart = self.node.running.is_none().then_some(self.restart_at_ms);
        let log = self.node.log_due_ms();
        let next = [self.net.next_due_ms(), log, restart].into_iter().flatten().min().unwrap_or(limit);
        self.net.advance_to(next.max(self.now_ms() + 1).min(limit));
    }

    /// No faults from now on: everybody comes back and all that is owed must arrive.
    fn heal(&mut self) {
        self.net.set_faults(Faults::none());
        self.node.mend_store();
        if self.node.is_poisoned() {
            self.crash();
        }
        let deadline_ms = self.now_ms() + HEALED_WITHIN_MS;
        loop {
            self.step(Mood::Good);
            let is_quiet = self.due_shards().is_empty() && self.node.log_due_ms().is_none();
            let all_settled = self.clients.iter().all(Client::is_settled) && self.pages.iter().all(Page::is_settled);
            let all_settled = all_settled && self.turning.iter().all(Turning::is_settled);
            let settled = all_settled && self.backend.is_settled();
            let wills = self.ledger.borrow().wills.missing();
            if is_quiet && settled && wills.is_empty() && self.ledger.borrow().missing().is_empty() {
                break;
            }
            if self.now_ms() > deadline_ms {
                let ledger = self.ledger.borrow();
                assert!(wills.is_empty(), "wills that were never published: {wills:?} {:?}", ledger.wills);
                let missing = ledger.missing();
                for (id, client) in missing.iter().take(5) {
                    println!("m{id} has not come to client {client}: {:?}", ledger.messages[id]);
                    println!("   {:?}", ledger.lives[*client]);
                }
                let unsettled: Vec<usize> =
                    (0..self.clients.len()).filter(|&at| !self.clients[at].is_settled()).collect();
                let pages: Vec<bool> = self.pages.iter().map(Page::is_settled).collect();
                panic!(
                    "not healed: missing {missing:?}, clients not settled {unsettled:?}, pages {pages:?}, {}",
                    self.backend.is_settled()
                );
            }
        }
        self.ledger.borrow_mut().count_proofs();
        self.ledger.borrow().check_upstream();
    }

    /// Everybody leaves for good; nothing may be left of them.
    fn end(&mut self) {
        self.pages.drain(..).for_each(Page::end);
        let mut waiting: Vec<Client> = std::mem::take(&mut self.clients);
        waiting.extend(self.watcher.take());
        waiting.extend(self.turning.take().into_iter().flat_map(Turning::into_clients));
        // A connection given up before it was answered may still take over; let it be through.
        waiting.iter_mut().for_each(Client::close_abandoned);
        let settled_ms = self.now_ms() + 5_000;
        while self.now_ms() < settled_ms {
            self.rest();
        }
        let deadline_ms = self.now_ms() + HEALED_WITHIN_MS;
        while !waiting.is_empty() {
            assert!(self.now_ms() < deadline_ms, "{} clients could not leave", waiting.len());
            waiting.retain_mut(|client| !client.end());
            self.rest();
        }
        let until_ms = self.now_ms() + 10_000;
        while self.now_ms() < until_ms {
            self.rest();
        }
        self.stats.clear();
        self.node.ask_stats();
        while self.stats.len() < self.node.running.as_ref().map_or(0, |running| running.shards.len()) {
            self.rest();
        }
        self.check_nothing_is_left();
    }

    /// Lets the node do what it has to do, then time pass.
    pub fn rest(&mut self) {
        self.rest_briefly();
        let limit = self.now_ms() + 1_000;
        let next = [self.net.next_due_ms(), self.node.log_due_ms()].into_iter().flatten().min().unwrap_or(limit);
        self.net.advance_to(next.max(self.now_ms() + 1).min(limit));
    }

    /// Lets the node do what it has to do now.
    pub fn rest_briefly(&mut self) {
        loop {
            let due = self.due_shards();
            due.iter().for_each(|&index| self.turn(index));
            let now_ms = self.now_ms();
            let log = self.node.log_due_ms().is_some_and(|at_ms| at_ms <= now_ms);
            if log {
                self.node.log_step(&mut self.random, false);
            }
            self.take_events();
            self.steps += 1;
            assert!(self.steps < STEPS_MAX, "somebody spins");
            if due.is_empty() && !log {
                break;
            }
        }
    }

    fn check_nothing_is_left(&mut self) {
        // Standing things, and what is kept at hand for those who come later.
        const STAYS: [&str; 7] = [
            "listeners",
            "hot_ring",
            "lobby",
            "memory_lagging",
            "memory_retained",
            "retained_messages",
            "retained_bytes",
        ];
        // What was counted of sessions at some time in the last seconds; nothing is held for it.
        const COUNTED: [&str; 6] = [
            "window_messages",
            "behind_connections",
            "stalled_connections",
            "inbox_lag_entries",
            "inbox_lag_entries_max",
            "topics_lag_commits_max",
        ];
        let is_held = |name: &&str| !STAYS.contains(name) && !COUNTED.contains(name);
        for stats in &self.stats {
            let left: Vec<_> = stats.gauges.iter().filter(|(name, value)| *value > 0 && is_held(name)).collect();
            assert!(left.is_empty(), "shard {} has left: {left:?}", stats.shard);
        }
        let retained: u64 = self
            .stats
            .iter()
            .flat_map(|stats| &stats.gauges)
            .filter(|(name, _)| *name == "retained_messages")
            .map(|(_, value)| value)
            .sum();
        assert_eq!(retained, self.ledger.borrow().retained_now(), "each topic's home holds what the store does");
        let census = Census { listeners: 0, ..self.net.census() };
        assert_eq!(census, Census::default(), "the network holds something");
        assert_eq!(self.node.session_records(), 0, "records of sessions that are over");
    }
}
