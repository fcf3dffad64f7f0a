//! Bans: kept by one shard, published to all of them as an immutable set whenever they change.
//!
//! ```text
//!  shards ──Offences, once a second──► registrar ──Banned(set)──► every shard: who comes is refused,
//!  API    ──Ban(command)─────────────►    │   ▲                   who is here is closed, a share a turn
//!                            record of an operator's ban
//! ```
//! An operator's bans have a record each and are read at start. The others are forgotten with the process: whoever goes
//! on is banned again, and whoever was banned by mistake is not.

use super::command::{BanAnswer, BanCommand, CommandError, CommandToken, Event, NamedBan};
use super::gateway::{Core, Gateway};
use super::letter::Letter;
use super::limiting::{REGISTRAR, is_allowed};
use super::log_port::Waiting;
use super::settings::Enforce;
use crate::auth::{Author, Ban, BanSet, By, Subject};
use crate::base::bytes::Reader;
use crate::base::clock::Now;
use crate::base::ids::{AppId, SessionId};
use crate::base::prefix::Prefix;
use crate::io::Driver;
use crate::limits::TURN_BAN_SWEEP_MAX;
use crate::session::CloseReason;
use crate::store::{Answer, Record, RecordChange, Request, StoreError};
use std::sync::Arc;

/// What keys of their records begin with.
pub(super) const PREFIX: &[u8] = b"b";
const SOURCE: u8 = b'a';
const USER: u8 = b'u';

impl Gateway {
    /// What a shard has seen in the last second.
    pub(super) fn on_offences<D: Driver>(&mut self, core: &mut Core<D>, offences: &[(Subject, u32)]) {
        let now = core.now();
        for (subject, weight) in offences {
            self.counters.bans += u64::from(self.bans.offend(subject, *weight, now));
        }
        self.publish_bans(core);
    }

    /// Has every shard know, if something has changed.
    fn publish_bans<D: Driver>(&mut self, core: &mut Core<D>) {
        let Some((set, ended)) = self.bans.publish(core.now()) else { return };
        if !ended.is_empty() {
            let records = ended.iter().map(|subject| RecordChange { key: key_of(subject), value: None }).collect();
            self.log.submit(Request::Append { key: None, entries: Vec::new(), records }, Waiting::Nobody);
        }
        let set = Arc::new(set);
        self.homes.all().for_each(|shard| core.send_control(shard, Letter::Banned(Arc::clone(&set))));
    }

    /// Other people are banned from now on.
    pub(super) fn on_banned(&mut self, set: Arc<BanSet>) {
        self.limiting.banned = set;
        self.limiting.sweep = (!self.limiting.banned.is_empty()).then_some(0);
    }

    /// Closes connections of those who are banned, a share of the sessions a turn; true while there are more.
    pub(super) fn sweep_banned<D: Driver>(&mut self, core: &mut Core<D>) -> bool {
        let Some(first) = self.limiting.sweep else { return false };
        let (end, now) = (self.directory.end(), core.now());
        let until = end.min(first.saturating_add(TURN_BAN_SWEEP_MAX));
        for index in first..until {
            if let Some(id) = self.directory.id_at(index)
                && self.is_banned(core, id, now)
            {
                self.end_connection(core, id, CloseReason::Banned);
            }
        }
        self.limiting.sweep = (until < end).then_some(until);
        until < end
    }

    fn is_banned<D: Driver>(&self, core: &Core<D>, id: SessionId, now: Now) -> bool {
        let Some(session) = self.directory.get(id) else { return false };
        let Some(peer) = session.connection().and_then(|connection| core.peer(connection)) else { return false };
        let (banned, defence) = (&self.limiting.banned, &self.settings.limits.defence);
        let source = banned.bans_source(peer.ip(), now).filter(|_| !is_allowed(defence, peer.ip()));
        let by = banned.bans_user(session.app(), session.user(), now).max(source);
        by == Some(By::Operator) || by.is_some() && defence.enforce == Enforce::Refuse
    }

    /// An operator's wish. A ban holds at once, and is answered when it is on record.
    pub(super) fn on_ban_command<D: Driver>(&mut self, core: &mut Core<D>, command: BanCommand, token: CommandToken) {
        let now = core.now();
        let (answer, record) = match command {
            BanCommand::List => {
                let bans = self.bans.in_force(now).map(|(subject, ban)| named(subject, ban)).collect();
                (BanAnswer::List(bans), None)
            }
            BanCommand::Add { subject, until_ms, reason } => {
                let ban = Ban { since_ms: now.wall_ms, until_ms, author: Author::Operator(reason) };
                let record = RecordChange { key: key_of(&subject), value: Some(value_of(&ban)) };
                let named = named(&subject, &ban);
                match self.bans.add(subject, ban) {
                    Ok(()) => (BanAnswer::Added(Box::new(named)), Some(record)),
                    Err(_) => return self.tell(Event::Bans { token, result: Err(CommandError::Busy) }),
                }
            }
            BanCommand::Remove(subject) => {
                let lifted = self.bans.lift(&subject, now);
                let was_manual = matches!(&lifted, Some(Ban { author: Author::Operator(_), .. }));
                let was_in_force = lifted.is_some_and(|ban| ban.until_ms > now.wall_ms);
                let record = was_manual.then(|| RecordChange { key: key_of(&subject), value: None });
                (BanAnswer::Removed(was_in_force), record)
            }
        };
        self.publish_bans(core);
        match record {
            None => self.tell(Event::Bans { token, result: Ok(answer) }),
            Some(record) => {
                let request = Request::Append { key: None, entries: Vec::new(), records: vec![record] };
                self.log.submit(request, Waiting::Ban { token, answer });
            }
        }
    }

    /// A ban is on record, or its record is gone.
    pub(super) fn on_ban_recorded(
        &mut self,
        token: CommandToken,
        answer: BanAnswer,
        result: Result<Answer, StoreError>,
    ) {
        let result = result.map(|_| answer).map_err(|error| match error {
            StoreError::Busy => CommandError::Busy,
            StoreError::Failed | StoreError::KeyConflict | StoreError::OverQuota => CommandError::StoreFailed,
        });
        self.tell(Event::Bans { token, result });
    }

    /// Records of bans, at start. Only the registrar reads them.
    pub(super) fn restore_bans<D: Driver>(&mut self, core: &mut Core<D>, page: &[Record]) {
        for (key, value) in page {
            match ban_of(key, value) {
                // No more were taken than there is room for.
                Some((subject, ban)) => drop(self.bans.add(subject, ban)),
                None => self.counters.unreadable_records += 1,
            }
        }
        self.publish_bans(core);
    }

    /// Whether this shard keeps the bans.
    pub(super) fn is_registrar(&self) -> bool {
        self.shard == REGISTRAR
    }
}

fn named(subject: &Subject, ban: &Ban) -> NamedBan {
    NamedBan { subject: subject.clone(), ban: ban.clone() }
}

fn key_of(subject: &Subject) -> Box<[u8]> {
    let mut key = PREFIX.to_vec();
    match subject {
        Subject::Source(prefix) => {
            key.push(SOURCE);
            key.extend_from_slice(prefix.to_string().as_bytes());
        }
        Subject::User(app, user) => {
            key.push(USER);
            key.extend_from_slice(&app.0.to_be_bytes());
            key.extend_from_slice(user.as_bytes());
        }
    }
    key.into()
}

fn value_of(ban: &Ban) -> Box<[u8]> {
    let Author::Operator(reason) = &ban.author else { unreachable!("only an operator's bans have records") };
    let mut value = ban.since_ms.to_be_bytes().to_vec();
    value.extend_from_slice(&ban.until_ms.to_be_bytes());
    value.extend_from_slice(reason.as_bytes());
    value.into()
}

fn ban_of(key: &[u8], value: &[u8]) -> Option<(Subject, Ban)> {
    let text = |bytes| core::str::from_utf8(bytes).ok();
    let mut key = Reader(key.strip_prefix(PREFIX)?);
    let subject = match key.u8()? {
        SOURCE => Subject::Source(text(key.0)?.parse::<Prefix>().ok()?),
        USER => Subject::User(AppId(key.u16()?), text(key.0)?.into()),
        _ => return None,
    };
    let mut value = Reader(value);
    let (since_ms, until_ms) = (value.u64()?, value.u64()?);
    Some((subject, Ban { since_ms, until_ms, author: Author::Operator(text(value.0)?.into()) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_is_read_as_it_was_written_and_garbage_is_none() {
        let source = |text: &str| Subject::Source(text.parse().expect("a prefix"));
        for subject in [source("192.0.2.0/24"), source("2001:db8::1"), Subject::User(AppId(258), "mallory/é".into())] {
            let ban = Ban { since_ms: 1, until_ms: u64::MAX, author: Author::Operator("spam".into()) };
            let (key, value) = (key_of(&subject), value_of(&ban));
            assert_eq!(ban_of(&key, &value), Some((subject, ban)));
            assert_eq!(ban_of(&key, &value[..15]), None);
        }
        assert_eq!(ban_of(b"bx", &[0; 16]), None);
        assert_eq!(ban_of(b"ba10.0.0.1/8", &[0; 16]), None);
        assert_eq!(ban_of(b"bu\0\0\xff", &[0; 16]), None);
    }
}
