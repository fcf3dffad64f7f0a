//! What is told to who asks, once all is quiet: who is in a topic, and how much is unread.

use crate::client::{Client, EXPIRY, Mood};
use crate::coverage::Seen;
use crate::page::Page;
use crate::world::{HEALED_WITHIN_MS, World};
use kittiwake::base::ids::AppId;
use kittiwake::limits::PRESENCE_GRACE;
use kittiwake::shard::Handle;
use kittiwake::shard::command::{CommandError, CommandToken, DeviceState, Event, Present, UserState};
use std::collections::BTreeSet;

/// The one topic that a rule shows and that somebody subscribes to by name.
const SHOWN: &str = "rooms/1";
const TOKEN: CommandToken = CommandToken(u64::MAX - 1);
/// Messages that a device finds when it comes back.
const UNREAD: usize = 3;

impl World {
    /// Whoever subscribes to it by name and is connected is in the topic, and nobody else: not who has just left, either.
    pub fn check_presence(&mut self) {
        let leaves = (0..self.clients.len()).find(|&at| self.clients[at].traits.durable);
        let gone = leaves.map(|at| {
            let mut client = self.clients.remove(at);
            client.hang_up();
            (at, client)
        });
        // Who has gone has left by then.
        self.settle_for(PRESENCE_GRACE.as_millis() as u64 + 5_000);
        self.check_who_is_in();
        if let Some((at, client)) = gone {
            self.clients.insert(at, client);
        }
        self.settle_for(1);
    }

    /// Lets time pass until all are settled.
    fn settle_for(&mut self, ms: u64) {
        let until_ms = self.now_ms() + ms;
        while self.now_ms() < until_ms || !self.clients.iter().all(Client::is_settled) {
            self.step(Mood::Good);
            assert!(self.now_ms() < until_ms + HEALED_WITHIN_MS, "clients do not settle");
        }
    }

    fn check_who_is_in(&mut self) {
        let user = |life: usize| self.ledger.borrow().lives[life].user.clone();
        let is_in = |life: &usize| self.ledger.borrow().lives[*life].has_by_name(SHOWN);
        let may_be_in = |life: &usize| self.ledger.borrow().lives[*life].may_have_by_name(SHOWN);
        let clients = || self.clients.iter().map(|client| client.traits.index);
        let pages = |polls| self.pages.iter().filter(move |page| page.is_polling() == polls).map(Page::life);
        let must: BTreeSet<String> = clients().chain(pages(false)).filter(is_in).map(user).collect();
        // Who polls may be between two polls.
        let all = clients().chain(pages(false)).chain(pages(true));
        let may: BTreeSet<String> = all.filter(may_be_in).map(user).collect();
        let shown = |handle: &Handle| handle.presence(AppId(0), SHOWN.into(), TOKEN);
        let Event::Presence { present: Some(Present { users, count }), .. } = self.ask(shown) else {
            panic!("a rule shows {SHOWN}")
        };
        let users: BTreeSet<String> = users.iter().map(|user| user.to_string()).collect();
        assert_eq!(users.len(), count);
        assert!(
            must.is_subset(&users) && users.is_subset(&may),
            "{users:?} are in {SHOWN}, {must:?} and at most {may:?} should"
        );
        if !must.is_empty() {
            self.hit(Seen::PresenceTold);
        }
    }

    /// Who has settled all has nothing unread, and who is away has what came meanwhile.
    pub fn check_unread(&mut self) {
        let all: Vec<(String, String)> =
            self.clients.iter().map(|client| (client.traits.user.clone(), client.traits.device.clone())).collect();
        for (user, device) in &all {
            let deadline_ms = self.now_ms() + HEALED_WITHIN_MS;
            loop {
                let state = self.device(user, device);
                if state.online && state.unread.unwrap_or_default() == 0 {
                    break;
                }
                // What nobody has to wait for may still be under way to it.
                assert!(self.now_ms() < deadline_ms, "{state:?} has settled all");
                self.step(Mood::Good);
            }
        }
        // While it is away time passes, so a short session would be over.
        let reads_all = |client: &Client| {
            client.traits.durable && client.traits.packet_bytes_max.is_none() && client.traits.expiry >= EXPIRY
        };
        let at = (0..self.clients.len()).find(|&at| {
            let client = &self.clients[at];
            reads_all(client) && self.ledger.borrow().lives[client.traits.index].has_by_name("$inbox/#")
        });
        let Some(at) = at else { return };
        let (user, device) = all[at].clone();
        self.clients[at].hang_up();
        let deadline_ms = self.now_ms() + HEALED_WITHIN_MS;
        while self.device(&user, &device).online {
            assert!(self.now_ms() < deadline_ms, "nobody notices that {device} is gone");
            self.rest();
        }
        for _ in 0..UNREAD {
            // A full mailbox would refuse it. No time passes: a short session must not expire meanwhile.
            self.rest_briefly();
            let running = self.node.running.as_ref().expect("it was healed");
            self.backend.push_to(&user, &running.handle, self.net.now().wall_ms);
            while !self.backend.is_settled() {
                self.rest();
            }
        }
        let expected = UNREAD.min(self.node.inbox_entries) as u64;
        assert_eq!(self.device(&user, &device).unread, Some(expected), "{device} of {user} was away");
        self.hit(Seen::UnreadTold);
    }

    fn device(&mut self, user: &str, device: &str) -> DeviceState {
        let devices_of = |handle: &Handle| handle.user(AppId(0), user.into(), TOKEN);
        let Event::User { result: Ok(UserState { devices, .. }), .. } = self.ask(devices_of) else {
            panic!("nobody knows {user}")
        };
        let found = devices.into_iter().find(|state| *state.device == *device);
        found.unwrap_or_else(|| panic!("{device} of {user} has no session"))
    }

    /// The answer to a question. A full mailbox refuses it, and has room before long.
    fn ask(&mut self, question: impl Fn(&Handle) -> Result<(), CommandError>) -> Event {
        let deadline_ms = self.now_ms() + HEALED_WITHIN_MS;
        while let Err(error) = question(&self.node.running.as_ref().expect("it was healed").handle) {
            assert_eq!(error, CommandError::Busy, "a running node takes questions");
            assert!(self.now_ms() < deadline_ms, "a mailbox stays full");
            self.rest_briefly();
            self.pass_a_moment();
        }
        self.answer()
    }

    fn answer(&mut self) -> Event {
        let deadline_ms = self.now_ms() + HEALED_WITHIN_MS;
        loop {
            if let Some(event) = self.answers.pop() {
                return event;
            }
            assert!(self.now_ms() < deadline_ms, "a question has no answer");
            self.rest_briefly();
            if self.answers.is_empty() {
                self.pass_a_moment();
            }
        }
    }

    /// A full mailbox, say, is looked at again when time has passed.
    fn pass_a_moment(&mut self) {
        let next_ms = self.net.next_due_ms().unwrap_or(u64::MAX).min(self.now_ms() + 5);
        self.net.advance_to(next_ms.max(self.now_ms() + 1));
    }
}
