//! Topic names and topic filters: MQTT 5 §4.7 and §4.8, 3.1.1 §4.7.
//!
//! What is wrong by the specification is refused by the decoder. What is only more than kittiwake takes
//! ([`within_limits`]) is correctly formed, so it is the session's to answer: in its SUBACK or PUBACK.

use super::error::DecodeError;
use crate::limits::{TOPIC_BYTES_MAX, TOPIC_LEVELS_MAX};

/// A topic filter taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription<'a> {
    /// The ShareName of a `$share/group/filter`.
    pub group: Option<&'a str>,
    /// What topics are matched with.
    pub filter: &'a str,
}

/// Checks a topic name: at least one character `[MQTT-4.7.3-1]`, no wildcard `[MQTT-3.3.2-2]`. That it is text was
/// checked before.
#[inline]
pub fn check_name(name: &str) -> Result<(), DecodeError> {
    if name.is_empty() {
        Err(DecodeError::TopicName("a topic name is empty"))
    } else if has_wildcard(name) {
        Err(DecodeError::TopicName("a topic name has a wildcard"))
    } else {
        Ok(())
    }
}

/// Checks a topic filter: at least one character `[MQTT-4.7.3-1]`; `+` and `#` alone in their levels, `#` only in the
/// last one `[MQTT-4.7.1-1]`, `[MQTT-4.7.1-2]`.
pub fn check_filter(filter: &str) -> Result<(), DecodeError> {
    if filter.is_empty() {
        return Err(DecodeError::TopicFilter("a topic filter is empty"));
    }
    let bytes = filter.as_bytes();
    for (at, &byte) in bytes.iter().enumerate() {
        if byte != b'+' && byte != b'#' {
            continue;
        }
        let begins = at == 0 || bytes[at - 1] == b'/';
        let ends = at + 1 == bytes.len() || (byte == b'+' && bytes[at + 1] == b'/');
        if !begins || !ends {
            return Err(DecodeError::TopicFilter("a wildcard is not alone in its level, or # is not the last one"));
        }
    }
    Ok(())
}

/// Takes a filter apart, and checks it wholly. A `$share/` filter has a group of at least one character without `/`,
/// `+` and `#`, then `/` and a filter `[MQTT-4.8.2-1]`, `[MQTT-4.8.2-2]`. 3.1.1 does not know shared subscriptions,
/// so there a filter that begins so and is none is only refused when a session takes it apart.
pub fn parse_filter(filter: &str) -> Result<Subscription<'_>, DecodeError> {
    let Some(shared) = filter.strip_prefix("$share/") else {
        check_filter(filter)?;
        return Ok(Subscription { group: None, filter });
    };
    let (group, filter) =
        shared.split_once('/').ok_or(DecodeError::TopicFilter("a shared subscription without a filter"))?;
    if group.is_empty() || has_wildcard(group) {
        return Err(DecodeError::TopicFilter("the name of a share group is empty or has a wildcard"));
    }
    check_filter(filter)?;
    Ok(Subscription { group: Some(group), filter })
}

/// Whether a name or filter has at most `TOPIC_BYTES_MAX` bytes in at most `TOPIC_LEVELS_MAX` levels. Of a shared
/// subscription only the filter counts.
pub fn within_limits(topic: &str) -> bool {
    topic.len() <= TOPIC_BYTES_MAX && topic.bytes().filter(|&byte| byte == b'/').count() < TOPIC_LEVELS_MAX
}

/// Whether `filter` matches any name but its own.
#[inline]
pub fn has_wildcard(filter: &str) -> bool {
    filter.bytes().fold(false, |found, byte| found | (byte == b'+') | (byte == b'#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mqtt5_4_7_1_the_filters_of_the_specification_are_judged_as_it_says() {
        for filter in ["sport/tennis/player1/#", "sport/#", "#", "sport/tennis/#", "+", "+/tennis/#", "sport/+/player1"]
        {
            assert_eq!(check_filter(filter), Ok(()), "{filter}");
        }
        for filter in ["/", "/+", "+/+", "//", "/finance", "$SYS/#", "a b/ä"] {
            assert_eq!(check_filter(filter), Ok(()), "{filter}");
        }
        for filter in ["", "sport/tennis#", "sport/tennis/#/ranking", "sport+", "#/", "##", "++", "+a", "a/+b", "#a"] {
            assert!(matches!(check_filter(filter), Err(DecodeError::TopicFilter(_))), "{filter}");
        }
    }

    #[test]
    fn mqtt5_3_3_2_2_a_topic_name_has_no_wildcard_and_is_not_empty() {
        for name in ["/", "a", "a/b", "$SYS/x", "ä"] {
            assert_eq!(check_name(name), Ok(()));
        }
        for name in ["", "+", "a/#", "a+b", "a#"] {
            assert!(matches!(check_name(name), Err(DecodeError::TopicName(_))), "{name}");
        }
    }

    #[test]
    fn mqtt5_4_8_2_shared_subscriptions_are_taken_apart() {
        let shared = |group, filter| Ok(Subscription { group: Some(group), filter });
        assert_eq!(parse_filter("$share/consumer1/sport/tennis/+"), shared("consumer1", "sport/tennis/+"));
        assert_eq!(parse_filter("$share/g//finance"), shared("g", "/finance"));
        assert_eq!(parse_filter("$shared/g/x"), Ok(Subscription { group: None, filter: "$shared/g/x" }));
        assert_eq!(parse_filter("$share"), Ok(Subscription { group: None, filter: "$share" }));
        for filter in ["$share/", "$share/g", "$share/g/", "$share//x", "$share/g+/x", "$share/#/x", "$share/g/a#"] {
            assert!(matches!(parse_filter(filter), Err(DecodeError::TopicFilter(_))), "{filter}");
        }
    }

    #[test]
    fn the_limits_hold_at_n_and_not_at_n_plus_one() {
        for (levels, within) in [(TOPIC_LEVELS_MAX - 1, true), (TOPIC_LEVELS_MAX, true), (TOPIC_LEVELS_MAX + 1, false)]
        {
            assert_eq!(within_limits(&vec!["a"; levels].join("/")), within);
        }
        for (bytes, within) in [(TOPIC_BYTES_MAX - 1, true), (TOPIC_BYTES_MAX, true), (TOPIC_BYTES_MAX + 1, false)] {
            assert_eq!(within_limits(&"a".repeat(bytes)), within);
        }
    }
}
