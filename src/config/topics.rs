//! `topics.history`, `topics.presence`, `topics.slow`, `topics.rate` and `topics.publishers`: what is kept and shown of
//! topics, what becomes of their messages for slow readers, how many they take and from whom, by filter.

use super::ConfigError;
use super::keys::parse_duration;
use super::layers::one_line;
use crate::auth::Publishers;
use crate::base::bucket::Rate;
use crate::limits::{
    HISTORY_ENTRIES_MAX, IDENTITY_BYTES_MAX, RATE_MAX, TOPIC_BURST_SECONDS, TOPIC_PUBLISHERS_MAX, TOPIC_RULES_MAX,
};
use crate::router::filter::check_filter;
use crate::shard::{HistoryRule, RateRule, SlowPolicy, SlowRule, TopicRules};
use core::time::Duration;

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The lists of rules.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lists<'a> {
    pub(super) history: &'a [String],
    pub(super) presence: &'a [String],
    pub(super) slow: &'a [String],
    pub(super) rate: &'a [String],
}

/// Reads all lists but that of publishers.
pub(super) fn parse(lists: Lists<'_>) -> Result<TopicRules, ConfigError> {
    let Lists { history, presence, slow, rate } = lists;
    let history = of("topics.history", history, HISTORY, |entry| {
        // A filter may hold `=`, a count and an age do not.
        let (filter, keep) = entry.rsplit_once('=')?;
        let (entries, age) = keep.split_once('/')?;
        let entries = entries.parse().ok().filter(|entries| (1..=HISTORY_ENTRIES_MAX).contains(entries))?;
        let age = parse_duration(age).filter(|age| (Duration::from_secs(1)..=YEAR).contains(age))?;
        Some(HistoryRule { filter: filter_of(filter)?, entries, age })
    })?;
    let presence = of("topics.presence", presence, PRESENCE, filter_of)?;
    let slow = of("topics.slow", slow, SLOW, |entry| {
        let (filter, policy) = entry.rsplit_once('=')?;
        let policy = match policy {
            "drop_newest" => SlowPolicy::DropNewest,
            "drop_oldest" => SlowPolicy::DropOldest,
            "conflate" => SlowPolicy::Conflate,
            "close" => SlowPolicy::Close,
            _ => return None,
        };
        // An inbox's messages have rules of their own topic: `$inbox/LABEL`.
        let is_inbox = filter.starts_with("$inbox/") && check_filter(filter).is_ok();
        let filter = if is_inbox { filter.into() } else { filter_of(filter)? };
        Some(SlowRule { filter, policy })
    })?;
    let rate = of("topics.rate", rate, RATE, |entry| {
        let (filter, per_second) = entry.rsplit_once('=')?;
        let per_second = per_second.parse().ok().filter(|rate| (1..=RATE_MAX).contains(rate))?;
        Some(RateRule { filter: filter_of(filter)?, rate: Rate { per_second, burst_seconds: TOPIC_BURST_SECONDS } })
    })?;
    Ok(TopicRules { history, presence, slow, rate })
}

/// Reads `topics.publishers`.
pub(super) fn publishers(entries: &[String]) -> Result<Box<[Publishers]>, ConfigError> {
    let rules = of("topics.publishers", entries, PUBLISHERS, |entry| {
        let (filter, users) = entry.rsplit_once('=')?;
        let users: Vec<&str> = if users.is_empty() { Vec::new() } else { users.split('+').collect() };
        let are_names = users.len() <= TOPIC_PUBLISHERS_MAX
            && users.iter().all(|user| (1..=IDENTITY_BYTES_MAX).contains(&user.len()) && !user.contains('\0'));
        let users = users.into_iter().map(Into::into).collect();
        are_names.then_some(Publishers { filter: filter_of(filter)?, users })
    })?;
    Ok(rules.into())
}

const RATE: &str =
    "FILTER=NUMBER, such as chat/+=20: a topic filter that does not begin with $, 1 to 1000000000 a second";
const PUBLISHERS: &str = "FILTER=USERS, such as news/#=ann+bob, or news/#= for the API alone: a topic filter that does not \
     begin with $, at most 256 names of users joined by +";

const HISTORY: &str = "FILTER=COUNT/AGE, such as rooms/+=100/24h: a topic filter that does not begin with $, 1 to 10000000 \
     messages, 1s to 365d";
const SLOW: &str = "FILTER=POLICY, such as ticks/#=conflate: a topic filter that does not begin with $, or one of $inbox/; \
     drop_newest, drop_oldest, conflate or close";
const PRESENCE: &str = "topic filters that do not begin with $, such as rooms/+";

fn of<T>(
    key: &str,
    entries: &[String],
    allowed: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, ConfigError> {
    let error = |wrong: String| ConfigError::new(key, wrong, format!("at most {TOPIC_RULES_MAX} entries: {allowed}"));
    if entries.len() > TOPIC_RULES_MAX {
        return Err(error(format!("{} are too many", entries.len())));
    }
    let one = |entry: &String| read(entry).ok_or_else(|| error(format!("`{}` is not one", one_line(entry))));
    entries.iter().map(one).collect()
}

/// What the server says itself is neither kept nor shown.
fn filter_of(text: &str) -> Option<Box<str>> {
    (check_filter(text).is_ok() && !text.starts_with('$')).then(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(entries: &[&str]) -> Result<TopicRules, ConfigError> {
        let entries: Vec<String> = entries.iter().map(|&entry| entry.to_owned()).collect();
        parse(Lists { history: &entries, ..Lists::default() })
    }

    #[test]
    fn a_rule_is_read_in_its_parts_and_its_filter_may_hold_an_equals_sign() {
        let rules = history(&["rooms/+=100/24h", "a=b/#=1/1s"]).expect("they are rules").history;
        let [rooms, other] = &rules[..] else { panic!("{rules:?}") };
        assert_eq!((&*rooms.filter, rooms.entries, rooms.age), ("rooms/+", 100, Duration::from_secs(86_400)));
        assert_eq!((&*other.filter, other.entries, other.age), ("a=b/#", 1, Duration::from_secs(1)));
    }

    #[test]
    fn what_is_no_rule_is_refused_in_one_line() {
        for entry in ["", "rooms/+", "rooms/+=100", "=1/1h", "a=0/1h", "a=10000001/1h", "a=1/0s", "a=1/366d", "a=x/1h"]
        {
            assert!(history(&[entry]).is_err(), "{entry}");
        }
        for filter in ["a/#/b=1/1h", "$SYS/#=1/1h", "a\n+=1/1h"] {
            let error = history(&[filter]).expect_err("it is no filter").to_string();
            assert!(error.starts_with("topics.history: ") && !error.contains('\n'), "{error}");
        }
        let presence = |entry: &str| parse(Lists { presence: &[entry.to_owned()], ..Lists::default() });
        assert!(presence("$inbox/#").is_err() && presence("rooms/+").is_ok());
    }

    #[test]
    fn a_topics_slow_readers_are_dealt_with_in_one_of_four_ways() {
        let slow = |entry: &str| {
            let slow = &[entry.to_owned()];
            parse(Lists { slow, ..Lists::default() }).map(|rules| rules.slow[0].policy)
        };
        for (entry, policy) in [
            ("a/+=drop_newest", SlowPolicy::DropNewest),
            ("a=b=drop_oldest", SlowPolicy::DropOldest),
            ("$inbox/ticks=conflate", SlowPolicy::Conflate),
            ("#=close", SlowPolicy::Close),
        ] {
            assert_eq!(slow(entry), Ok(policy), "{entry}");
        }
        for entry in ["", "a", "a=", "a=drop", "=close", "$SYS/#=close", "a/#/b=close"] {
            assert!(slow(entry).is_err(), "{entry}");
        }
    }

    #[test]
    fn a_topics_rate_is_a_number_a_second() {
        let rate = |entry: &str| {
            let rate = &[entry.to_owned()];
            parse(Lists { rate, ..Lists::default() }).map(|rules| rules.rate[0].rate.per_second)
        };
        assert_eq!((rate("chat/+=20"), rate("a=b=1"), rate("#=1000000000")), (Ok(20), Ok(1), Ok(1_000_000_000)));
        for entry in ["", "a", "a=", "a=0", "a=-1", "a=1000000001", "$SYS/#=1", "a/#/b=1"] {
            assert!(rate(entry).is_err(), "{entry}");
        }
    }

    #[test]
    fn publishers_of_a_topic_are_named_or_the_api_alone() {
        let rules = publishers(&["news/#=ann+bob".into(), "closed=".into()]).expect("they are rules");
        let [news, closed] = &rules[..] else { panic!("{rules:?}") };
        assert_eq!((&*news.filter, &news.users[..]), ("news/#", &["ann".into(), "bob".into()][..]));
        assert!(&*closed.filter == "closed" && closed.users.is_empty());
        let many = |count: usize| publishers(&[format!("a={}", vec!["u"; count].join("+"))]);
        assert!(many(TOPIC_PUBLISHERS_MAX).is_ok() && many(TOPIC_PUBLISHERS_MAX + 1).is_err());
        for entry in ["", "news", "$inbox/x=ann", "a/#/b=ann", "a=ann+", "a=+", &format!("a={}", "u".repeat(257))] {
            let error = publishers(&[entry.to_owned()]).expect_err("it is none").to_string();
            assert!(error.starts_with("topics.publishers: ") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn rules_are_bounded() {
        let many = |count: usize| history(&vec!["a=1/1h"; count]).map(|rules| rules.history.len());
        assert_eq!(many(TOPIC_RULES_MAX).ok(), Some(TOPIC_RULES_MAX));
        assert!(many(TOPIC_RULES_MAX + 1).is_err());
    }
}
