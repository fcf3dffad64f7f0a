//! `/metrics`: the figures of `/v1/stats` as Prometheus reads them (OpenMetrics 1.0 text). What differs by one word in
//! a figure's name (`dropped_expired`, `dropped_too_large`) is one family with a label (`reason`).

use super::figures::Figures;
use core::fmt;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;

/// What the reply says it is.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All figures as text.
pub(super) fn encode(figures: Figures) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("kittiwake");
    registry.register_collector(Box::new(Scrape(figures)));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

/// Figures whose names begin alike are one family: the beginning, the family, the label that takes the rest.
const LABELLED: [(&str, &str, &str); 8] = [
    ("published_qos", "publishes", "qos"),
    ("published_bytes_qos", "publish_bytes", "qos"),
    ("sent_qos", "deliveries", "qos"),
    ("sent_bytes_qos", "delivery_bytes", "qos"),
    // Before the classes, whose names begin alike.
    ("turns_ms", "turns_ms", ""),
    ("turns_", "turns_by_length", "class"),
    ("dropped_", "dropped", "reason"),
    ("closed_", "connections_ended", "reason"),
];

/// The same of gauges.
const LABELLED_GAUGES: [(&str, &str, &str); 1] = [("memory_", "memory_bytes", "kind")];

/// Figures of the API and the store that may also fall.
const GAUGES: [&str; 10] = [
    "resident_bytes",
    "commands_pending",
    "queue_depth",
    "seq",
    "poisoned",
    "held_streams",
    "held_entries",
    "held_records",
    "held_bytes",
    "held_keys",
];

#[derive(Debug)]
struct Scrape(Figures);

type Labels = Vec<(&'static str, String)>;

/// A family's samples by type; what is one family must stand together.
#[derive(Default)]
struct Families(BTreeMap<(String, bool), Vec<(Labels, u64)>>);

impl Families {
    fn add(&mut self, part: &str, name: &'static str, is_gauge: bool, mut labels: Labels, value: u64) {
        let of_kind: &[_] = if is_gauge { &LABELLED_GAUGES } else { &LABELLED };
        let labelled = of_kind
            .iter()
            .find_map(|&(start, family, label)| name.strip_prefix(start).map(|rest| (family, label, rest)));
        let family = match labelled {
            Some((family, label, rest)) => {
                if !label.is_empty() {
                    labels.push((label, rest.to_owned()));
                }
                family
            }
            None => name,
        };
        self.0.entry((format!("{part}{family}"), is_gauge)).or_default().push((labels, value));
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Self(figures) = self;
        let mut families = Families::default();
        for shard in &figures.shards {
            let labels = || vec![("shard", shard.shard.to_string())];
            shard.gauges.iter().for_each(|&(name, value)| families.add("", name, true, labels(), value));
            shard.counters.iter().for_each(|&(name, value)| families.add("", name, false, labels(), value));
        }
        for (part, list) in [("api_", &figures.api), ("store_", &figures.store)] {
            list.iter().for_each(|&(name, value)| families.add(part, name, GAUGES.contains(&name), Vec::new(), value));
        }
        families.add("", "draining", true, Vec::new(), u64::from(figures.draining));
        for ((family, is_gauge), samples) in &families.0 {
            let kind = if *is_gauge { MetricType::Gauge } else { MetricType::Counter };
            let mut descriptor = encoder.encode_descriptor(family, &about(family), None, kind)?;
            for (labels, value) in samples {
                if labels.is_empty() {
                    encode_sample(&mut descriptor, *is_gauge, *value)?;
                } else {
                    encode_sample(&mut descriptor.encode_family(labels)?, *is_gauge, *value)?;
                }
            }
        }
        Ok(())
    }
}

fn encode_sample(encoder: &mut MetricEncoder<'_>, is_gauge: bool, value: u64) -> Result<(), fmt::Error> {
    if is_gauge { encoder.encode_gauge(&value) } else { encoder.encode_counter::<Labels, _, u64>(&value, None) }
}

/// One line about a family. Most names say it all; these are what they leave open.
fn about(family: &str) -> String {
    let known = match family {
        "publishes" => "messages that clients published",
        "deliveries" => "messages written for clients",
        "publish_bytes" => "bytes of the topics and payloads that clients published",
        "delivery_bytes" => "bytes of the messages written for clients, as they were encoded",
        "memory_bytes" => "memory by what it is for; sessions without what only some of them have",
        "window_messages" => "messages that connected clients have been sent and have not acknowledged",
        "behind_connections" => "clients for which messages wait in the log",
        "stalled_connections" => "clients whose window is full while more waits for them",
        "inbox_lag_entries" => "messages of inboxes that wait in the log for clients",
        "inbox_lag_entries_max" => "the most that wait for one client",
        "topics_lag_commits_max" => "how far the client that is furthest behind in its topics is, in commit numbers",
        "dropped" => "messages not delivered, by reason",
        "connections_ended" => "sessions' connections that ended, by reason",
        "guests" => "connections that have not said who they are",
        "slots" => "sockets that the driver holds",
        "blocks" => "send and receive blocks in use",
        "partial_frames" => "connections with part of a frame",
        "segments" => "blocks and shared payloads that wait in outboxes",
        "lobby" => "accepted sockets that wait for room",
        "hot_ring" => "recent log entries in memory",
        "lagging_sessions" => "sessions with unlogged messages waiting for their window",
        "unsent_sessions" => "sessions with messages waiting for their outbox",
        "throttled" => "times a publisher was not read because the log or a shard was congested",
        "stale_completions" => "completions whose connection was gone",
        "receives_starved" => "receives that waited for a block",
        "store_poisoned" => "1 once the store has failed: nothing is acknowledged any more",
        "store_seq" => "number of the last commit",
        "share_returned" => {
            "messages of QoS 2 that went back to their share group, because a session ended before it had them"
        }
        "share_gaps" => "times retention had taken messages of a topic before a share group read them",
        "turns_by_length" => {
            "turns by how long they took: at most so many milliseconds, and more than the class before"
        }
        "cpu_us" => "microseconds of a processor that the shard has taken",
        "connections_failed" => "connections that ended because something was wrong",
        "draining" => "1 while the node closes its connections to stop",
        other => return other.replace('_', " "),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::command::ShardStats;

    #[test]
    fn what_differs_by_one_word_is_one_family_with_a_label() {
        let shard = ShardStats {
            shard: 3,
            driver: "fake",
            gauges: vec![("memory_buffers", 1), ("memory_sessions", 2), ("sessions", 9)],
            counters: vec![
                ("published_qos1", 3),
                ("published_bytes_qos1", 4),
                ("sent_qos0", 5),
                ("sent_bytes_qos0", 6),
                ("turns_ms", 7),
                ("turns_5ms", 8),
            ],
        };
        let figures = Figures { draining: false, api: Vec::new(), store: Vec::new(), shards: vec![shard] };
        let text = encode(figures).expect("a text takes all");
        for line in [
            r#"kittiwake_memory_bytes{shard="3",kind="buffers"} 1"#,
            r#"kittiwake_memory_bytes{shard="3",kind="sessions"} 2"#,
            r#"kittiwake_sessions{shard="3"} 9"#,
            r#"kittiwake_publishes_total{shard="3",qos="1"} 3"#,
            r#"kittiwake_publish_bytes_total{shard="3",qos="1"} 4"#,
            r#"kittiwake_deliveries_total{shard="3",qos="0"} 5"#,
            r#"kittiwake_delivery_bytes_total{shard="3",qos="0"} 6"#,
            r#"kittiwake_turns_ms_total{shard="3"} 7"#,
            r#"kittiwake_turns_by_length_total{shard="3",class="5ms"} 8"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
