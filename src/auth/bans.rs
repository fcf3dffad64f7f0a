//! Who is banned, why, and until when. The one owner keeps [`Bans`]; whoever lets people in has a [`BanSet`], made from it
//! whenever it changes.

use super::rates::Table;
use crate::base::clock::Now;
use crate::base::hash::KeyedHash;
use crate::base::ids::AppId;
use crate::base::prefix::Prefix;
use crate::limits::{BAN_REMEMBERED, BANNED_RANGES_MAX, BANS_MAX, OFFENDER_ENTRIES};
use core::net::IpAddr;
use core::time::Duration;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Who may be limited and banned: an address, or a user. One abuser behind an address that many share is a user.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// Whoever comes from there.
    Source(Prefix),
    /// Wherever it comes from.
    User(AppId, Arc<str>),
}

/// Who decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Author {
    /// An operator, for this reason. It outlives the process.
    Operator(Box<str>),
    /// The node, for its offences. `before`: bans that it had lately.
    Node {
        /// How many.
        before: u8,
    },
}

/// A ban.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Since when, wall-clock milliseconds.
    pub since_ms: u64,
    /// Until when; `u64::MAX`: until somebody lifts it.
    pub until_ms: u64,
    /// By whom.
    pub author: Author,
}

impl Ban {
    fn is_manual(&self) -> bool {
        matches!(self.author, Author::Operator(_))
    }
}

/// There is no room for another ban.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

/// From what weight on somebody is banned, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BanRule {
    /// Weight of recent offences; 0: nobody is banned but by an operator.
    pub weight: u32,
    /// The first ban of somebody.
    pub time: Duration,
    /// Each further one takes twice as long as the one before, up to this.
    pub time_max: Duration,
}

/// All bans of the node, and the weight of those who may be next. Bounded, see `limits.rs`.
#[derive(Debug)]
pub struct Bans {
    rule: BanRule,
    hash: KeyedHash,
    /// Automatic ones that are over stay a while, so that the next one of the same subject is longer.
    list: BTreeMap<Subject, Ban>,
    offenders: Table,
    changed: bool,
}

impl Bans {
    /// None yet.
    pub fn new(rule: BanRule, hash: KeyedHash) -> Self {
        Self { rule, hash, list: BTreeMap::new(), offenders: Table::new(OFFENDER_ENTRIES), changed: false }
    }

    /// Somebody has offended; true: it is banned for it from now on.
    pub fn offend(&mut self, subject: &Subject, weight: u32, now: Now) -> bool {
        if self.rule.weight == 0 || self.list.get(subject).is_some_and(|ban| ban.until_ms > now.wall_ms) {
            return false;
        }
        let entry = self.offenders.entry(self.hash.of(subject), now);
        if entry.weight.add(weight as f32, now) < self.rule.weight as f32 {
            return false;
        }
        // What it is banned for counts once.
        entry.weight = Default::default();
        let before = match self.list.get(subject).map(|ban| &ban.author) {
            Some(Author::Node { before }) => before.saturating_add(1),
            _ => 0,
        };
        let time = self.rule.time.saturating_mul(1u32.checked_shl(u32::from(before)).unwrap_or(u32::MAX));
        let time_ms = u64::try_from(time.min(self.rule.time_max).as_millis()).unwrap_or(u64::MAX);
        let until_ms = now.wall_ms.saturating_add(time_ms);
        let ban = Ban { since_ms: now.wall_ms, until_ms, author: Author::Node { before } };
        self.add(subject.clone(), ban).is_ok()
    }

    /// Bans somebody; an earlier ban of the same is replaced.
    ///
    /// # Errors
    /// There are too many of an operator's already, or of ranges.
    pub fn add(&mut self, subject: Subject, ban: Ban) -> Result<(), NoRoom> {
        if !self.list.contains_key(&subject) {
            let is_range = |subject: &Subject| matches!(subject, Subject::Source(prefix) if !prefix.is_source());
            if is_range(&subject) && self.list.keys().filter(|subject| is_range(subject)).count() >= BANNED_RANGES_MAX {
                return Err(NoRoom);
            }
            if self.list.len() >= BANS_MAX {
                let automatic = self.list.iter().filter(|(_, ban)| !ban.is_manual());
                let first = automatic.min_by_key(|(_, ban)| ban.until_ms).map(|(subject, _)| subject.clone());
                self.list.remove(&first.ok_or(NoRoom)?);
            }
        }
        self.list.insert(subject, ban);
        self.changed = true;
        Ok(())
    }

    /// Lifts a ban and forgets the offences; the ban that it was.
    pub fn lift(&mut self, subject: &Subject, now: Now) -> Option<Ban> {
        self.offenders.entry(self.hash.of(subject), now).weight = Default::default();
        let ban = self.list.remove(subject)?;
        self.changed = true;
        Some(ban)
    }

    /// A ban, also one that is over and remembered.
    pub fn get(&self, subject: &Subject) -> Option<&Ban> {
        self.list.get(subject)
    }

    /// Those that are in force, by subject.
    pub fn in_force(&self, now: Now) -> impl Iterator<Item = (&Subject, &Ban)> {
        self.list.iter().filter(move |(_, ban)| ban.until_ms > now.wall_ms)
    }

    /// What those who let people in are to know, if that has changed since the last time. Forgets what is long over, and
    /// gives an operator's bans that have ended, which are on record.
    pub fn publish(&mut self, now: Now) -> Option<(BanSet, Vec<Subject>)> {
        if !core::mem::take(&mut self.changed) {
            return None;
        }
        let remembered_ms = u64::try_from(BAN_REMEMBERED.as_millis()).unwrap_or(u64::MAX);
        let mut ended = Vec::new();
        self.list.retain(|subject, ban| {
            let kept_ms = if ban.is_manual() { 0 } else { remembered_ms };
            let is_kept = ban.until_ms.saturating_add(kept_ms) > now.wall_ms;
            if !is_kept && ban.is_manual() {
                ended.push(subject.clone());
            }
            is_kept
        });
        let mut set = BanSet::default();
        for (subject, ban) in self.in_force(now) {
            match subject {
                Subject::Source(prefix) if prefix.is_source() => drop(set.sources.insert(*prefix, Term::of(ban))),
                Subject::Source(prefix) => set.ranges.push((*prefix, Term::of(ban))),
                Subject::User(app, user) => {
                    set.users.entry(*app).or_default().insert(Arc::clone(user), Term::of(ban));
                }
            }
        }
        Some((set, ended))
    }
}

/// Who is not let in: an immutable copy for those who do. A ban that is over is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BanSet {
    sources: HashMap<Prefix, Term>,
    ranges: Vec<(Prefix, Term)>,
    users: HashMap<AppId, HashMap<Arc<str>, Term>>,
}

/// Until when, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Term {
    until_ms: u64,
    by: By,
}

/// Whose ban it is. An operator's is the stronger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    /// The node's.
    Node,
    /// An operator's.
    Operator,
}

impl Term {
    fn of(ban: &Ban) -> Self {
        Self { until_ms: ban.until_ms, by: if ban.is_manual() { By::Operator } else { By::Node } }
    }

    fn at(self, now: Now) -> Option<By> {
        (self.until_ms > now.wall_ms).then_some(self.by)
    }
}

impl BanSet {
    /// Nobody is banned.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty() && self.ranges.is_empty() && self.users.is_empty()
    }

    /// Who bans whoever comes from an address.
    pub fn bans_source(&self, address: IpAddr, now: Now) -> Option<By> {
        let exact = (!self.sources.is_empty()).then(|| self.sources.get(&Prefix::source(address))).flatten();
        let ranges = self.ranges.iter().filter(|(range, _)| range.contains(address)).map(|(_, term)| term);
        exact.into_iter().chain(ranges).filter_map(|term| term.at(now)).max()
    }

    /// Who bans a user.
    pub fn bans_user(&self, app: AppId, user: &str, now: Now) -> Option<By> {
        self.users.get(&app)?.get(user)?.at(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: BanRule = BanRule { weight: 100, time: Duration::from_secs(60), time_max: Duration::from_secs(150) };

    fn at(seconds: u64) -> Now {
        Now { monotonic_ms: seconds * 1_000, wall_ms: 1_000_000 + seconds * 1_000 }
    }

    fn source(text: &str) -> Subject {
        Subject::Source(text.parse().expect("a prefix"))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn bans() -> Bans {
        Bans::new(RULE, KeyedHash::new(1))
    }

    #[test]
    fn whoever_offends_again_and_again_is_banned_for_longer_each_time_and_let_in_again() {
        let (mut bans, abuser) = (bans(), source("192.0.2.1"));
        let mut now_s = 0;
        for seconds in [60, 120, 150, 150] {
            assert!(!bans.offend(&abuser, 99, at(now_s)));
            assert!(bans.offend(&abuser, 1, at(now_s)), "100 is the weight");
            assert!(!bans.offend(&abuser, 1_000, at(now_s)), "who is banned is banned");
            let (set, _) = bans.publish(at(now_s)).expect("it has changed");
            for (after, banned) in [(0, true), (seconds - 1, true), (seconds, false)] {
                let by = banned.then_some(By::Node);
                assert_eq!(set.bans_source(address("192.0.2.1"), at(now_s + after)), by, "after {after} s");
            }
            assert_eq!(set.bans_source(address("192.0.2.2"), at(now_s)), None);
            now_s += seconds + 1;
        }
        now_s += 25 * 3_600;
        // Its remembered ban is forgotten with the next change of any.
        bans.add(source("192.0.2.9"), Ban { since_ms: 0, until_ms: u64::MAX, author: Author::Operator("".into()) })
            .expect("there is room");
        bans.publish(at(now_s)).expect("it has changed");
        assert!(bans.offend(&abuser, 100, at(now_s)));
        assert_eq!(bans.get(&abuser).expect("it is banned").author, Author::Node { before: 0 });
    }

    #[test]
    fn offences_that_are_far_apart_are_no_ban() {
        let (mut bans, sometimes) = (bans(), source("192.0.2.1"));
        assert!((0..1_000).all(|n| !bans.offend(&sometimes, 40, at(n * 60))), "40, 60, 70, … stay below 80");
        assert!(bans.publish(at(0)).is_none());
    }

    #[test]
    fn a_user_is_banned_and_others_from_its_address_are_not() {
        let mut bans = bans();
        let abuser = Subject::User(AppId(1), "mallory".into());
        assert!(bans.offend(&abuser, 100, at(0)));
        let (set, _) = bans.publish(at(0)).expect("it has changed");
        assert_eq!(set.bans_user(AppId(1), "mallory", at(1)), Some(By::Node));
        assert_eq!(set.bans_user(AppId(1), "mallory", at(60)), None);
        assert_eq!(set.bans_user(AppId(0), "mallory", at(1)).or(set.bans_user(AppId(1), "alice", at(1))), None);
        assert_eq!(set.bans_source(address("192.0.2.1"), at(1)), None);
    }

    #[test]
    fn an_operators_ban_holds_for_a_range_until_it_is_lifted_or_over() {
        let mut bans = bans();
        let operator = |until_ms| Ban { since_ms: 0, until_ms, author: Author::Operator("abuse".into()) };
        bans.add(source("2001:db8::/32"), operator(u64::MAX)).expect("there is room");
        bans.add(source("10.0.0.0/8"), operator(at(10).wall_ms)).expect("there is room");
        let (set, ended) = bans.publish(at(0)).expect("it has changed");
        assert_eq!(set.bans_source(address("2001:db8:1::1"), at(1_000_000)), Some(By::Operator));
        assert!(ended.is_empty());
        assert_eq!(set.bans_source(address("10.1.2.3"), at(9)), Some(By::Operator));
        assert_eq!(set.bans_source(address("10.1.2.3"), at(10)), None);
        assert!(bans.lift(&source("2001:db8::/32"), at(20)).is_some());
        assert!(bans.lift(&source("2001:db8::/32"), at(20)).is_none());
        let (set, ended) = bans.publish(at(20)).expect("it has changed");
        assert!(set.is_empty());
        assert_eq!(ended, [source("10.0.0.0/8")], "its record can go");
    }

    #[test]
    fn bans_are_bounded_and_an_operators_is_never_displaced() {
        let mut bans = bans();
        let user = |n: usize| Subject::User(AppId(0), n.to_string().into());
        let automatic = |until_ms| Ban { since_ms: 0, until_ms, author: Author::Node { before: 0 } };
        let operator = || Ban { since_ms: 0, until_ms: u64::MAX, author: Author::Operator("".into()) };
        for n in 0..BANS_MAX {
            let until_ms = if n == 7 { at(1).wall_ms } else { at(100).wall_ms };
            bans.add(user(n), automatic(until_ms)).expect("there is room");
        }
        bans.add(user(BANS_MAX), operator()).expect("the one that ends first goes");
        assert!(bans.get(&user(7)).is_none() && bans.in_force(at(0)).count() == BANS_MAX);
        for n in 0..BANS_MAX {
            bans.add(user(n), operator()).ok();
        }
        assert_eq!(bans.add(user(BANS_MAX + 1), operator()), Err(NoRoom));
        let mut ranges = Bans::new(RULE, KeyedHash::new(1));
        let range = |n: usize| source(&format!("10.{}.{}.0/24", n / 256, n % 256));
        for n in 0..BANNED_RANGES_MAX {
            ranges.add(range(n), operator()).expect("there is room");
        }
        assert_eq!(ranges.add(range(BANNED_RANGES_MAX), operator()), Err(NoRoom));
        assert_eq!(ranges.add(range(0), operator()), Ok(()), "which is there already");
    }

    #[test]
    fn a_million_fake_offenders_do_not_hide_one_that_goes_on() {
        let mut bans = bans();
        let real = source("192.0.2.1");
        let mut banned = 0;
        for n in 0..1_000_000u32 {
            let fake = Subject::Source(Prefix::of(IpAddr::V4((n | 0xe000_0000).into()), 32));
            banned += u32::from(bans.offend(&fake, 1, at(u64::from(n) / 100_000)));
            if n % 100 == 0 {
                banned += u32::from(bans.offend(&real, 1, at(u64::from(n) / 100_000)));
            }
        }
        assert_eq!(banned, 1);
        assert!(bans.get(&real).is_some());
    }
}
