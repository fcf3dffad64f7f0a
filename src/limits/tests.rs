//! The documents say these bounds.

use super::*;

#[test]
fn the_readme_says_the_limits_that_users_meet() {
    let readme = include_str!("../../README.md");
    let rows = [
        ("API_BODY_BYTES_MAX", API_BODY_BYTES_MAX.to_string()),
        ("API_BODY_BYTES_TOTAL_MAX", API_BODY_BYTES_TOTAL_MAX.to_string()),
        ("API_KEYS_MAX", API_KEYS_MAX.to_string()),
        ("API_KEY_BYTES_MIN", API_KEY_BYTES_MIN.to_string()),
        ("API_KEY_BYTES_MAX", API_KEY_BYTES_MAX.to_string()),
        ("API_STREAMS_PER_CONNECTION_MAX", API_STREAMS_PER_CONNECTION_MAX.to_string()),
        ("GRPC_CALLS_MAX", GRPC_CALLS_MAX.to_string()),
        ("PUSH_STREAM_IN_FLIGHT_MAX", PUSH_STREAM_IN_FLIGHT_MAX.to_string()),
        ("DELIVERY_WAITS_MAX", DELIVERY_WAITS_MAX.to_string()),
        ("EVENTS_GROUPS_MAX", EVENTS_GROUPS_MAX.to_string()),
        ("EVENTS_FILTERS_MAX", EVENTS_FILTERS_MAX.to_string()),
        ("EVENTS_GROUP_IDLE", format!("{}s", EVENTS_GROUP_IDLE.as_secs())),
        ("UPSTREAM_WAITING_MAX", UPSTREAM_WAITING_MAX.to_string()),
        ("WEBHOOK_RETRY_MAX", format!("{}s", WEBHOOK_RETRY_MAX.as_secs())),
        ("WEBHOOK_REFUSALS_MAX", WEBHOOK_REFUSALS_MAX.to_string()),
        ("API_CONNECTIONS_MAX", API_CONNECTIONS_MAX.to_string()),
        ("PENDING_COMMANDS_MAX", PENDING_COMMANDS_MAX.to_string()),
        ("PUSH_USERS_MAX", PUSH_USERS_MAX.to_string()),
        ("PUSH_BATCH_MAX", PUSH_BATCH_MAX.to_string()),
        ("PUSH_TIMEOUT_DEFAULT", format!("{}s", PUSH_TIMEOUT_DEFAULT.as_secs())),
        ("PUSH_TIMEOUT_MAX", format!("{}s", PUSH_TIMEOUT_MAX.as_secs())),
        ("PUSH_TTL_MS_MAX", PUSH_TTL_MS_MAX.to_string()),
        ("HISTORY_PAGE_MAX", HISTORY_PAGE_MAX.to_string()),
        ("HISTORY_PAGE_BYTES_MAX", HISTORY_PAGE_BYTES_MAX.to_string()),
        ("TOPIC_RULES_MAX", TOPIC_RULES_MAX.to_string()),
        ("TOPIC_PUBLISHERS_MAX", TOPIC_PUBLISHERS_MAX.to_string()),
        ("QUOTAS_MAX", QUOTAS_MAX.to_string()),
        ("PRESENCE_GRACE", format!("{}s", PRESENCE_GRACE.as_secs())),
        ("PRESENCE_ENTRIES_MAX", PRESENCE_ENTRIES_MAX.to_string()),
        ("PRESENCE_USERS_MAX", PRESENCE_USERS_MAX.to_string()),
        ("UNREAD_COUNTS_MAX", UNREAD_COUNTS_MAX.to_string()),
        ("QUESTIONS_MAX", QUESTIONS_MAX.to_string()),
        ("ANSWER_BYTES_MAX", ANSWER_BYTES_MAX.to_string()),
        ("POLL_TIMEOUT_MAX", format!("{}s", POLL_TIMEOUT_MAX.as_secs())),
        ("POLL_EVENTS_MAX", POLL_EVENTS_MAX.to_string()),
        ("SLOWEST_MAX", SLOWEST_MAX.to_string()),
        ("KEY_BYTES_MAX", KEY_BYTES_MAX.to_string()),
        ("KEY_AGE_MAX", format!("{}s", KEY_AGE_MAX.as_secs())),
        ("KEYS_MAX", KEYS_MAX.to_string()),
        ("LABEL_BYTES_MAX", LABEL_BYTES_MAX.to_string()),
        ("CONTENT_TYPE_BYTES_MAX", CONTENT_TYPE_BYTES_MAX.to_string()),
        ("APPS_MAX", APPS_MAX.to_string()),
        ("SHARDS_MAX", SHARDS_MAX.to_string()),
        ("IDENTITY_BYTES_MAX", IDENTITY_BYTES_MAX.to_string()),
        ("TOPIC_BYTES_MAX", TOPIC_BYTES_MAX.to_string()),
        ("TOPIC_LEVELS_MAX", TOPIC_LEVELS_MAX.to_string()),
        ("TOPIC_ALIAS_MAX", TOPIC_ALIAS_MAX.to_string()),
        ("TOPIC_ALIAS_OUT_MAX", TOPIC_ALIAS_OUT_MAX.to_string()),
        ("GUESTS_MAX", GUESTS_MAX.to_string()),
        ("OUTBOX_CONTROL_BYTES_MAX", OUTBOX_CONTROL_BYTES_MAX.to_string()),
        ("TOPIC_ENTRIES_MAX", TOPIC_ENTRIES_MAX.to_string()),
        ("TOPIC_AGE_MAX", format!("{}s", TOPIC_AGE_MAX.as_secs())),
        ("FANOUT_PENDING_MAX", FANOUT_PENDING_MAX.to_string()),
        ("LAGGING_MESSAGES_MAX", LAGGING_MESSAGES_MAX.to_string()),
        ("LAGGING_BYTES_MAX", LAGGING_BYTES_MAX.to_string()),
        ("LOG_QUEUE_MAX", LOG_QUEUE_MAX.to_string()),
        ("SLOW_SESSION_MESSAGES_MAX", SLOW_SESSION_MESSAGES_MAX.to_string()),
        ("COLLAPSE_BYTES_MAX", COLLAPSE_BYTES_MAX.to_string()),
        ("BANS_MAX", BANS_MAX.to_string()),
        ("BANNED_RANGES_MAX", BANNED_RANGES_MAX.to_string()),
        ("BAN_REASON_BYTES_MAX", BAN_REASON_BYTES_MAX.to_string()),
        ("ALLOWED_RANGES_MAX", ALLOWED_RANGES_MAX.to_string()),
    ];
    for (name, value) in &rows {
        assert!(readme.contains(&format!("\n| `{name}` | {value} | ")), "README lacks {name}, {value}");
    }
    let table = readme.split("### Limits without a key").nth(1).expect("the table is there");
    let rows_there = table.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows_there, rows.len(), "README has a row that is not checked");
}
