//! What somebody may publish and subscribe to: lists of filters, by containment.

use crate::base::filter;
use crate::limits::{TOPIC_BYTES_MAX, TOPIC_LEVELS_MAX};
use core::fmt;
use std::sync::Arc;

const USER: &str = "{user}";
const DEVICE: &str = "{device}";

/// Whose rights are asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who<'a> {
    /// The user's name.
    pub user: &'a str,
    /// The device's.
    pub device: &'a str,
}

/// A topic filter in which `{user}` and `{device}` stand for the names of whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Box<str>);

/// The text is no topic filter, longer or deeper than those may be, or a shared one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAPattern;

impl fmt::Display for NotAPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("is not a topic filter, or is a shared one")
    }
}

impl Pattern {
    /// Reads one. A shared subscription is judged by what is behind its group, so a list cannot name one.
    pub fn parse(text: &str) -> Result<Self, NotAPattern> {
        let levels = text.split('/').count();
        let is_well_formed = text.split('/').enumerate().all(|(at, level)| match level {
            "#" => at + 1 == levels,
            "+" => true,
            level => !level.contains(['+', '#']),
        });
        let fits = !text.is_empty() && text.len() <= TOPIC_BYTES_MAX && levels <= TOPIC_LEVELS_MAX;
        if !fits || !is_well_formed || text.contains('\0') || text.starts_with("$share/") {
            return Err(NotAPattern);
        }
        Ok(Self(text.into()))
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Whether everything that a filter (or a topic, which is one without wildcards) matches is matched by this.
    pub fn contains(&self, filter: &str, who: Who<'_>) -> bool {
        // There is no topic without a level.
        let filter = if filter == "#" { "+/#" } else { filter };
        let mut asked = filter.split('/');
        for (at, allowed) in self.0.split('/').enumerate() {
            // Wildcards of the first level do not match names that begin with `$` [MQTT-4.7.2-1].
            let reaches = |level: &str| at > 0 || !level.starts_with('$');
            match (allowed, asked.next()) {
                // `a/#` also matches `a`.
                ("#", level) => return level.is_none_or(reaches),
                (_, None | Some("#")) => return false,
                ("+", Some(level)) if reaches(level) => {}
                ("+", Some(_)) | (_, Some("+")) => return false,
                (allowed, Some(level)) if is_level(allowed, level, who) => {}
                _ => return false,
            }
        }
        asked.next().is_none()
    }
}

/// Whether a level of a pattern is this one once the names stand in it. A name that would be more than a part of one level,
/// or a wildcard, stands for nothing: whoever is called `+` has not everybody's rights.
fn is_level(allowed: &str, level: &str, who: Who<'_>) -> bool {
    let (mut allowed, mut level) = (allowed, level);
    while let Some(open) = allowed.find('{') {
        let Some(rest) = level.strip_prefix(&allowed[..open]) else { return false };
        (allowed, level) = (&allowed[open..], rest);
        let (literal, after) = if let Some(after) = allowed.strip_prefix(USER) {
            (who.user, after)
        } else if let Some(after) = allowed.strip_prefix(DEVICE) {
            (who.device, after)
        } else {
            ("{", &allowed[1..])
        };
        if literal.is_empty() || literal.contains(['/', '+', '#']) {
            return false;
        }
        let Some(rest) = level.strip_prefix(literal) else { return false };
        (allowed, level) = (after, rest);
    }
    allowed == level
}

/// Who alone may publish to some topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publishers {
    /// Which topics.
    pub filter: Box<str>,
    /// Names of users, of whatever app; none: no client may.
    pub users: Box<[Box<str>]>,
}

/// What may be published and subscribed to. No list: everything that clients may at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// Topics, as filters.
    pub publish: Option<Box<[Pattern]>>,
    /// Filters.
    pub subscribe: Option<Box<[Pattern]>>,
    /// Of topics that a rule matches: who may publish there. The first rule that matches decides.
    pub publishers: Box<[Publishers]>,
}

impl Lists {
    /// They refuse nothing.
    pub fn is_empty(&self) -> bool {
        self.publish.is_none() && self.subscribe.is_none() && self.publishers.is_empty()
    }

    /// Whether a topic's rule, if there is one, names the user.
    fn is_publisher(&self, topic: &str, who: Who<'_>) -> bool {
        let rule = self.publishers.iter().find(|rule| filter::matches(&rule.filter, topic));
        rule.is_none_or(|rule| rule.users.iter().any(|user| **user == *who.user))
    }
}

/// The node's lists and a token's: what may be done is inside both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Everybody's.
    pub node: Arc<Lists>,
    /// The bearer's own.
    pub own: Lists,
}

impl Rights {
    /// Whether this topic may be published to.
    pub fn may_publish(&self, topic: &str, who: Who<'_>) -> bool {
        [&self.node.publish, &self.own.publish].into_iter().all(|list| contain(list.as_deref(), topic, who))
            && self.node.is_publisher(topic, who)
    }

    /// Whether this filter may be subscribed to. A shared subscription is judged as the filter it shares.
    pub fn may_subscribe(&self, filter: &str, who: Who<'_>) -> bool {
        let shared = filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/'));
        let filter = shared.map_or(filter, |(_group, filter)| filter);
        [&self.node.subscribe, &self.own.subscribe].into_iter().all(|list| contain(list.as_deref(), filter, who))
    }
}

fn contain(list: Option<&[Pattern]>, filter: &str, who: Who<'_>) -> bool {
    list.is_none_or(|list| list.iter().any(|pattern| pattern.contains(filter, who)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: Who<'static> = Who { user: "ann", device: "phone" };

    fn contains(allowed: &str, filter: &str) -> bool {
        Pattern::parse(allowed).unwrap_or_else(|why| panic!("{allowed} {why}")).contains(filter, ANN)
    }

    /// What a filter matches, said by itself: not by containment.
    fn matches(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            (["#"], _) => true,
            ([], []) => true,
            (["+", filter @ ..], [_, topic @ ..]) => matches(filter, topic),
            ([one, filter @ ..], [other, topic @ ..]) => one == other && matches(filter, topic),
            _ => false,
        }
    }

    /// All lists of up to `most` of these.
    fn lists<'a>(of: &[&'a str], most: usize) -> Vec<Vec<&'a str>> {
        let mut all: Vec<Vec<&str>> = Vec::new();
        let mut last: Vec<Vec<&str>> = vec![Vec::new()];
        for _ in 0..most {
            last = last.iter().flat_map(|list| of.iter().map(move |level| [&list[..], &[*level]].concat())).collect();
            all.extend(last.iter().cloned());
        }
        all
    }

    #[test]
    fn a_filter_is_inside_exactly_if_every_topic_of_it_is() {
        let filters: Vec<String> = lists(&["a", "b", "$x", "", "+", "#"], 3)
            .into_iter()
            .map(|levels| levels.join("/"))
            .filter(|filter| Pattern::parse(filter).is_ok())
            .collect();
        // One level that no filter names, and one level more than any filter has.
        let topics = lists(&["a", "b", "$x", "", "z"], 4);
        let found: Vec<Vec<bool>> = filters
            .iter()
            .map(|filter| {
                let levels: Vec<&str> = filter.split('/').collect();
                let is_wild = filter.starts_with(['+', '#']);
                topics.iter().map(|topic| !(is_wild && topic[0].starts_with('$')) && matches(&levels, topic)).collect()
            })
            .collect();
        for (allowed, by_allowed) in filters.iter().zip(&found) {
            for (filter, by_filter) in filters.iter().zip(&found) {
                let expected = by_filter.iter().zip(by_allowed).all(|(asked, allowed)| !asked || *allowed);
                assert_eq!(contains(allowed, filter), expected, "{filter} inside {allowed}");
            }
        }
    }

    #[test]
    fn names_stand_in_patterns() {
        assert!(contains("users/{user}/#", "users/ann/inbox/+"));
        assert!(!contains("users/{user}/#", "users/bob/inbox") && !contains("users/{user}/#", "users/+/inbox"));
        assert!(contains("d/{user}-{device}", "d/ann-phone") && !contains("d/{user}-{device}", "d/ann-phones"));
        assert!(contains("x/{other}", "x/{other}"), "what is no name of ours is a text");
        assert!(!contains("x/{other}", "x/ann"));
    }

    #[test]
    fn a_name_is_never_more_than_a_part_of_its_level() {
        let pattern = Pattern::parse("users/{user}/#").expect("a filter");
        for (user, filter) in [("+", "users/+/x"), ("#", "users/#"), ("a/b", "users/a/b/x"), ("", "users//x")] {
            assert!(!pattern.contains(filter, Who { user, device: "phone" }), "{user} {filter}");
        }
        assert!(
            pattern.contains("users/{device}/x", Who { user: "{device}", device: "phone" }),
            "names are not patterns"
        );
    }

    #[test]
    fn rights_are_inside_the_nodes_and_the_tokens_lists() {
        let list = |texts: &[&str]| Some(texts.iter().map(|text| Pattern::parse(text).expect("a filter")).collect());
        let rights = Rights {
            node: Arc::new(Lists { publish: list(&["rooms/#", "users/{user}/#"]), ..Lists::default() }),
            own: Lists {
                publish: list(&["rooms/+/say"]),
                subscribe: list(&["rooms/+", "$inbox/#"]),
                ..Lists::default()
            },
        };
        assert!(rights.may_publish("rooms/1/say", ANN));
        assert!(!rights.may_publish("rooms/1", ANN) && !rights.may_publish("users/ann/x", ANN));
        assert!(rights.may_subscribe("rooms/+", ANN) && rights.may_subscribe("$share/g/rooms/7", ANN));
        assert!(rights.may_subscribe("$inbox/orders/#", ANN) && rights.may_subscribe("$inbox", ANN));
        for refused in ["#", "rooms/#", "rooms/1/2", "$share/g/#", "$share/rooms/+", "$SYS/#"] {
            assert!(!rights.may_subscribe(refused, ANN), "{refused}");
        }
        let nothing = Rights { node: Arc::default(), own: Lists { publish: list(&[]), ..Lists::default() } };
        assert!(!nothing.may_publish("a", ANN), "an empty list is a list");
        assert!(Rights::default().may_subscribe("#", ANN) && Rights::default().may_publish("a", ANN));
    }

    #[test]
    fn a_topics_rule_says_who_alone_publishes_there_and_the_first_one_decides() {
        let rule = |filter: &str, users: &[&str]| Publishers {
            filter: filter.into(),
            users: users.iter().map(|&user| user.into()).collect(),
        };
        let rules = [rule("news/local", &["bob"]), rule("news/#", &["ann", "carl"]), rule("closed/#", &[])];
        let node = Lists { publishers: rules.into(), ..Lists::default() };
        assert!(!node.is_empty());
        let rights = Rights { node: Arc::new(node), own: Lists::default() };
        let bob = Who { user: "bob", device: "ann" };
        assert!(rights.may_publish("news/world", ANN) && !rights.may_publish("news/world", bob));
        assert!(rights.may_publish("news/local", bob) && !rights.may_publish("news/local", ANN));
        assert!(!rights.may_publish("closed", ANN) && !rights.may_publish("closed/x", bob));
        assert!(rights.may_publish("rooms/1", bob), "no rule is about it");
        assert!(rights.may_subscribe("news/#", bob) && rights.may_subscribe("closed/#", bob));
    }

    #[test]
    fn what_is_no_filter_is_no_pattern() {
        for text in ["", "a/#/b", "a#", "a/b+", "a\0", "$share/g/a", &"a/".repeat(TOPIC_LEVELS_MAX)] {
            assert_eq!(Pattern::parse(text), Err(NotAPattern), "{text}");
        }
        assert!(Pattern::parse(&"a/".repeat(TOPIC_LEVELS_MAX - 1)).is_ok());
        assert!(Pattern::parse(&"a".repeat(TOPIC_BYTES_MAX)).is_ok());
        assert_eq!(Pattern::parse(&"a".repeat(TOPIC_BYTES_MAX + 1)), Err(NotAPattern));
    }
}
