//! Which topic filter matches which topic name (MQTT 4.7): the one place where that is said of the strings themselves.
//! Sessions, rules and the store ask here; the router's trie is tested against it.

/// Whether a filter that starts with a wildcard passes this topic over: `$`-topics [MQTT-4.7.2-1] and this house's own
/// lists, whose names start with U+0000.
pub fn is_hidden(topic: &str) -> bool {
    matches!(topic.as_bytes().first(), Some(b'$' | 0))
}

/// Whether a valid filter matches a valid topic name.
pub fn matches(filter: &str, topic: &str) -> bool {
    if is_hidden(topic) && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut names = topic.split('/');
    for level in filter.split('/') {
        // `#` also stands for the parent level, so it is looked at before the topic has to have one more level.
        if level == "#" {
            return true;
        }
        match names.next() {
            Some(name) if level == "+" || level == name => {}
            _ => return false,
        }
    }
    names.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_as_the_standard_s_examples_say() {
        for (filter, topic, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("#", "a/b", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/load", false),
            ("+/load", "$SYS/load", false),
            ("$SYS/#", "$SYS/load", true),
            ("$SYS/+", "$SYS/load", true),
            ("a//b", "a//b", true),
            ("a/+/b", "a//b", true),
            ("a", "A", false),
            ("$inbox/#", "$inbox/push", true),
            ("+", "/x", false),
            ("a/b", "a/b/c", false),
            ("+/x", "$SYS/x", false),
            ("#", "\0everyone", false),
            ("+", "\0everyone", false),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} against {topic}");
        }
    }
}
