//! What MQTT 4.7 says about topic names and filters: which are valid, and which filter matches which name.
//!
//! The functions here work on the strings alone; they judge what peers send, and the trie is tested against them.

pub use crate::base::filter::{is_hidden, matches};

use crate::limits::{TOPIC_BYTES_MAX, TOPIC_LEVELS_MAX};

/// Whether a filter stands for one name or for many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterKind {
    /// Matches the one topic of the same name.
    Exact,
    /// Has `+` or `#`.
    Wildcard,
}

/// Why a name or filter is refused. Always the peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// [MQTT-4.7.3-1]
    Empty,
    /// More than `TOPIC_BYTES_MAX` bytes.
    TooLong,
    /// More than `TOPIC_LEVELS_MAX` levels.
    TooManyLevels,
    /// Contains U+0000 [MQTT-4.7.3-2].
    Nul,
    /// `#` not alone in the last level, `+` not alone in its level [MQTT-4.7.1-1] [MQTT-4.7.1-2], or either of them in
    /// a topic name.
    Wildcard,
}

/// Judges a topic filter, without a `$share` prefix.
pub fn check_filter(filter: &str) -> Result<FilterKind, NameError> {
    check_size(filter)?;
    let mut kind = FilterKind::Exact;
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        match level {
            "+" => kind = FilterKind::Wildcard,
            "#" if levels.peek().is_none() => kind = FilterKind::Wildcard,
            _ if is_wildcard(level) => return Err(NameError::Wildcard),
            _ => {}
        }
    }
    Ok(kind)
}

/// Judges a topic name.
pub fn check_topic(topic: &str) -> Result<(), NameError> {
    check_size(topic)?;
    if is_wildcard(topic) { Err(NameError::Wildcard) } else { Ok(()) }
}

/// Whether a valid filter may match more than one name.
pub fn is_wildcard(filter: &str) -> bool {
    filter.bytes().any(|byte| matches!(byte, b'+' | b'#'))
}

fn check_size(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > TOPIC_BYTES_MAX {
        return Err(NameError::TooLong);
    }
    let mut levels = 1;
    for byte in name.bytes() {
        match byte {
            0 => return Err(NameError::Nul),
            b'/' => levels += 1,
            _ => {}
        }
    }
    if levels > TOPIC_LEVELS_MAX { Err(NameError::TooManyLevels) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misplaced_wildcards_are_refused() {
        for filter in ["#/a", "a#", "a/#/b", "a+", "+a/b", "a/b+", "##", "++"] {
            assert_eq!(check_filter(filter), Err(NameError::Wildcard), "{filter}");
        }
        for filter in ["#", "+", "a/#", "+/+/#", "/+"] {
            assert_eq!(check_filter(filter), Ok(FilterKind::Wildcard), "{filter}");
            assert_eq!(check_topic(filter), Err(NameError::Wildcard), "{filter}");
        }
        assert_eq!(check_filter("a//b/"), Ok(FilterKind::Exact));
    }

    #[test]
    fn levels_are_bounded_at_n_and_refused_at_n_plus_one() {
        let name = |levels: usize| vec!["a"; levels].join("/");
        assert_eq!(check_topic(&name(TOPIC_LEVELS_MAX - 1)), Ok(()));
        assert_eq!(check_topic(&name(TOPIC_LEVELS_MAX)), Ok(()));
        assert_eq!(check_topic(&name(TOPIC_LEVELS_MAX + 1)), Err(NameError::TooManyLevels));
    }

    #[test]
    fn bytes_are_bounded_at_n_and_refused_at_n_plus_one() {
        assert_eq!(check_filter(&"a".repeat(TOPIC_BYTES_MAX - 1)), Ok(FilterKind::Exact));
        assert_eq!(check_filter(&"a".repeat(TOPIC_BYTES_MAX)), Ok(FilterKind::Exact));
        assert_eq!(check_filter(&"a".repeat(TOPIC_BYTES_MAX + 1)), Err(NameError::TooLong));
    }

    #[test]
    fn empty_names_and_nul_are_refused() {
        assert_eq!(check_topic(""), Err(NameError::Empty));
        assert_eq!(check_filter("a\u{0}"), Err(NameError::Nul));
        assert_eq!(check_filter(super::super::EVERYONE), Err(NameError::Nul));
    }
}
