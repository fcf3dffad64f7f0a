//! Which topic filter matches which topic name (MQTT 4.7): the one place where that is said of the strings themselves.
//! Sessions, rules and the store ask here; the router's trie is tested against it.

/// Whether a filter that starts with a wildcard passes this topic over: `$`-topics [MQTT-4.7.2-1] and this house's own
/// lists, whose names start with U+0000.
pub fn is_hidden(topic: &str) -> bool {
    matches!(topic.as_bytes().first(), Some(b'$' | 0))
}

/// Whether a valid filter matches a valid topic name. Wildcards are whole levels of a filter and in no name, so the bytes
/// can be compared as they come.
pub fn matches(filter: &str, topic: &str) -> bool {
    if is_hidden(topic) && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut name = topic.as_bytes();
    let mut rest = filter.as_bytes();
    while let [wanted, behind @ ..] = rest {
        match (wanted, name) {
            (b'#', _) => return true,
            (b'+', _) => name = &name[name.iter().position(|&byte| byte == b'/').unwrap_or(name.len())..],
            (byte, [first, following @ ..]) if byte == first => name = following,
            // `#` also stands for the parent level.
            _ => return name.is_empty() && rest == b"/#",
        }
        rest = behind;
    }
    name.is_empty()
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

    /// As the standard says it: level by level.
    fn matches_by_levels(filter: &str, topic: &str) -> bool {
        if is_hidden(topic) && filter.starts_with(['+', '#']) {
            return false;
        }
        let mut names = topic.split('/');
        for level in filter.split('/') {
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

    /// All texts of one to `length` of these characters.
    fn texts(of: &[char], length: usize) -> Vec<String> {
        let mut all = vec![String::new()];
        let mut last = 0;
        for _ in 0..length {
            let longer = all[last..].iter().flat_map(|text| of.iter().map(move |&char| format!("{text}{char}")));
            let longer: Vec<_> = longer.collect();
            last = all.len();
            all.extend(longer);
        }
        all.split_off(1)
    }

    #[test]
    fn bytes_match_as_levels_do() {
        let is_valid = |filter: &String| {
            let mut levels = filter.split('/').rev();
            let is_end = |level: &str| level == "#" || !level.contains('#');
            levels.clone().all(|level| level == "+" || !level.contains('+'))
                && levels.next().is_some_and(is_end)
                && levels.all(|level| !level.contains('#'))
        };
        let filters: Vec<_> = texts(&['a', '$', '/', '+', '#'], 5).into_iter().filter(is_valid).collect();
        let topics = texts(&['a', '$', '/'], 5);
        assert!(filters.len() > 400 && topics.len() == 363, "{} filters, {} topics", filters.len(), topics.len());
        for filter in &filters {
            for topic in &topics {
                assert_eq!(matches(filter, topic), matches_by_levels(filter, topic), "{filter} against {topic}");
            }
        }
    }
}
