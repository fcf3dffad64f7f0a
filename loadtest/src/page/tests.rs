//! The page is whole, and alone.

use super::{compared, quoted, render, stages_of};
use serde_json::{Value, json};

fn spread(median: f64) -> Value {
    json!({ "low": median * 0.9, "median": median, "high": median * 1.1, "all": [median] })
}

fn latency(p50: u64) -> Value {
    json!({ "count": 1000, "mean_us": 1.0, "p50_us": p50, "p90_us": p50, "p99_us": p50 * 7, "p999_us": p50 * 8, "max_us": p50 * 9,
        "curve": [[0.0, p50], [0.5, p50], [0.75, p50 * 2], [0.99, p50 * 7], [0.999, p50 * 9]] })
}

/// A result with everything that can be in one, and text that tries to be markup.
pub fn whole() -> Value {
    let moment = |second: u32| {
        json!({ "seconds": f64::from(second) / 2.0, "stage": if second < 6 { "connect" } else { "hold" },
            "ready": 1000 * second.min(6), "server_rss_bytes": 12_000_000 + 300_000 * second,
            "server_cpu_seconds": 0.4 * f64::from(second), "slab_bytes": 90_000_000 + 4_000_000 * second })
    };
    json!({
        "scenario": "hold", "passed": false, "faults": ["3 < 4 & </p><script>"], "started_unix_s": 1_795_000_000_u64,
        "command": ["loadtest", "hold", "--prefix", "a b"], "commit": "abc", "server_commit": "def", "kernel": "6.18",
        "machine": { "cpu": "AMD <EPYC>", "cpus": 2, "memory": "24000000 kB" },
        "figures": { "connections": 6000, "rss_bytes_per_connection": 322.25, "kernel_bytes_per_connection": 8_412.5,
            "set_up_us": 31.0, "ratio": spread(1.083) },
        "result": { "fanout": { "unit": "delivery", "server_us": spread(8.27), "floor_us": spread(7.61), "ratio": spread(1.09) },
            "late": latency(431) },
        "timeline": (0..12).map(moment).collect::<Vec<_>>(),
    })
}

pub fn comparison() -> Value {
    let mut result = whole();
    let names =
        [("kittiwake-epoll", "kittiwake, epoll", true), ("mosquitto", "mosquitto", false), ("nchan", "nchan", false)];
    let target = |&(name, label, ours): &(&str, &str, bool)| json!({ "name": name, "label": label, "version": "1.2.3", "ours": ours });
    let cells = |base: f64| {
        json!([{ "target": "kittiwake-epoll", "spread": spread(base) }, { "target": "mosquitto", "spread": spread(base * 3.7) },
            { "target": "nchan", "note": "no QoS" }])
    };
    result["scenario"] = "compare".into();
    result["result"] = json!({
        "about": "1,000 subscribers, 64 B.", "targets": names.iter().map(target).collect::<Vec<_>>(),
        "rows": [
            { "name": "fanout-1", "title": "Fan-out, one at a time", "about": "QoS 0", "unit": "µs of CPU a delivery", "floor": spread(7.77), "cells": cells(8.41) },
            { "name": "memory", "title": "Memory", "about": "user space", "unit": "bytes a connection", "floor": null, "cells": cells(333.0) },
        ],
        "latencies": [{ "title": "Idle", "about": "", "items": [{ "name": "kittiwake", "drawn": true, "latency": latency(82), "p50_ratio": spread(0.913) },
            { "name": "mosquitto", "drawn": true, "latency": latency(91) }] }],
        "missing": [{ "name": "rumqttd", "label": "rumqttd", "what": "there is no rumqttd", "get": "cargo install rumqttd" }],
    });
    result
}

/// Every element that is opened is closed, in order.
fn assert_well_formed(markup: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = markup;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let end = rest.find('>').expect("a tag ends");
        let tag = &rest[..end];
        assert_eq!(tag.matches('"').count() % 2, 0, "an attribute does not end: <{tag}>");
        let name = tag.trim_start_matches('/').split_whitespace().next().unwrap_or_default();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed), "</{closed}> closes another element");
        } else if !tag.starts_with('!') && !tag.ends_with('/') {
            open.push(name);
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty(), "never closed: {open:?}");
}

fn assert_alone(markup: &str) {
    let without_name = markup.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    for outside in ["http:", "https:", "//", "src=", "href=", "url(", "@import", "<script", "<link", "<iframe"] {
        assert!(!without_name.contains(outside), "the page refers to something: {outside}");
    }
}

#[test]
fn a_page_is_well_formed_and_refers_to_nothing_outside() {
    for result in [whole(), comparison(), json!({}), json!({ "result": { "rows": 3 } })] {
        let page = render(&result);
        assert_well_formed(&page);
        assert_alone(&page);
        assert!(
            !page.contains("NaN") && page.contains("prefers-color-scheme: dark") && page.contains("width=device-width")
        );
    }
}

#[test]
fn a_page_shows_every_figure_with_its_machine_and_its_command() {
    let page = render(&whole());
    for text in [
        "connections",
        "6,000",
        "rss bytes per connection",
        "322.250",
        "8,412.500",
        "31",
        "1.083",
        "8.270",
        "7.610",
        "431 µs",
        "AMD &lt;EPYC&gt;",
        "6.18",
        "abc",
        "def",
        "loadtest hold --prefix 'a b'",
        "3 &lt; 4 &amp; &lt;/p&gt;",
        "failed",
        "user space",
        "seconds",
        "hold",
    ] {
        assert!(page.contains(text), "{text}");
    }
    assert!(page.matches("<svg").count() >= 8, "ramp, rate, memory, kernel, CPU, bytes, pairs, latency");
}

#[test]
fn a_comparison_shows_every_target_row_floor_and_what_is_missing() {
    let page = render(&comparison());
    for text in [
        "kittiwake, epoll",
        "mosquitto",
        "nchan",
        "1.2.3",
        "Fan-out, one at a time",
        "8.41",
        "31.1",
        "floor 7.77",
        "333",
        "1,232",
        "no QoS",
        "82 µs",
        "637 µs",
        "rumqttd",
        "cargo install rumqttd",
    ] {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn the_chart_of_a_comparison_is_a_file_of_its_own() {
    let result = comparison();
    let svg = compared::of(&result).expect("it is a comparison").svg();
    assert_well_formed(&svg);
    assert_alone(&svg);
    for text in ["prefers-color-scheme: dark", "--ours", "kittiwake, epoll", "floor 7.77", "1,232"] {
        assert!(svg.contains(text), "{text}");
    }
}

#[test]
fn stages_follow_each_other_without_a_hole() {
    let moments = whole()["timeline"].as_array().cloned().unwrap_or_default();
    let stages = stages_of(&moments);
    let found: Vec<_> = stages.iter().map(|stage| (stage.name.as_str(), stage.from, stage.to)).collect();
    assert_eq!(found, [("connect", 0.0, 3.0), ("hold", 3.0, 5.5)]);
}

#[test]
fn a_command_can_be_pasted_into_a_shell() {
    assert_eq!(
        (quoted("--a=b"), quoted("$inbox/#"), quoted("it's"), quoted("")),
        ("--a=b".to_owned(), "'$inbox/#'".to_owned(), "'it'\\''s'".to_owned(), "''".to_owned())
    );
}
