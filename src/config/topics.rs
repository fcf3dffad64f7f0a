//! `topics.history`, `topics.presence` and `topics.slow`: what is kept and shown of topics, and what becomes of their
//! messages for slow readers, by filter.

use super::ConfigError;
use super::keys::parse_duration;
use super::layers::one_line;
use crate::limits::{HISTORY_ENTRIES_MAX, TOPIC_RULES_MAX};
use crate::router::filter::check_filter;
use crate::shard::{HistoryRule, SlowPolicy, SlowRule, TopicRules};
use core::time::Duration;

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Reads all lists.
pub(super) fn parse(history: &[String], presence: &[String], slow: &[String]) -> Result<TopicRules, ConfigError> {
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
    Ok(TopicRules { history, presence, slow })
}

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
        parse(&entries, &[], &[])
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
        let presence = |entry: &str| parse(&[], &[entry.to_owned()], &[]);
        assert!(presence("$inbox/#").is_err() && presence("rooms/+").is_ok());
    }

    #[test]
    fn a_topics_slow_readers_are_dealt_with_in_one_of_four_ways() {
        let slow = |entry: &str| parse(&[], &[], &[entry.to_owned()]).map(|rules| rules.slow[0].policy);
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
    fn rules_are_bounded() {
        let many = |count: usize| history(&vec!["a=1/1h"; count]).map(|rules| rules.history.len());
        assert_eq!(many(TOPIC_RULES_MAX).ok(), Some(TOPIC_RULES_MAX));
        assert!(many(TOPIC_RULES_MAX + 1).is_err());
    }
}
