use super::*;

#[test]
fn durations_read_back_what_they_print() {
    for text in ["500ms", "10s", "5m", "1h", "7d", "90s", "1500ms"] {
        assert_eq!(parse_duration(text).map(format_duration).as_deref(), Some(text));
    }
    assert_eq!(parse_duration("0s"), Some(Duration::ZERO));
    for text in ["", "10", "s", "-1s", "1.5h", "1 h", "1w", "99999999999999999999s", "18446744073709551615d"] {
        assert_eq!(parse_duration(text), None, "{text}");
    }
}

#[test]
fn every_default_is_of_its_keys_kind() {
    for key in KEYS {
        let fits = match (key.kind, key.default) {
            (Kind::Integer { min, max }, Default::Integer(number)) => (min..=max).contains(&number),
            (Kind::Duration { min, max }, Default::Duration(duration)) => (min..=max).contains(&duration),
            (Kind::Choice(words), Default::Text(word)) => words.contains(&word),
            (Kind::Bool, Default::Bool(_)) | (Kind::Text, Default::Text(_)) | (Kind::List, Default::List(_)) => true,
            _ => false,
        };
        assert!(fits, "{}", key.name);
    }
}

#[test]
fn no_two_keys_share_an_environment_name() {
    for (index, key) in KEYS.iter().enumerate() {
        assert!(KEYS[index + 1..].iter().all(|other| other.environment() != key.environment()), "{}", key.name);
    }
}

#[test]
fn the_readme_has_a_row_for_every_key() {
    let readme = include_str!("../../../README.md");
    for key in KEYS {
        let default = key.default_text();
        let default = if default.is_empty() { "none".to_owned() } else { format!("`{default}`") };
        let row = format!("| `{}` | `{}` | {default} | {} |", key.name, key.environment(), key.about);
        assert!(readme.contains(&row), "README lacks this row:\n{row}");
    }
}
