//! The dashboard in `tuning/grafana/` asks for series that there are.

use crate::gateway::Gateway;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// All names of ours in the expressions of a dashboard, wherever they are.
fn asked_for(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(expression)) = map.get("expr") {
                let words = expression.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
                names.extend(words.filter(|word| word.starts_with("kittiwake_")).map(str::to_owned));
            }
            map.values().for_each(|value| asked_for(value, names));
        }
        Value::Array(values) => values.iter().for_each(|value| asked_for(value, names)),
        _ => {}
    }
}

#[test]
fn every_series_of_the_dashboard_is_there_on_a_loaded_gateway() {
    let dashboard = include_str!("../../tuning/grafana/kittiwake.json");
    let dashboard: Value = serde_json::from_str(dashboard).expect("Grafana reads JSON");
    let mut names = BTreeSet::new();
    asked_for(&dashboard, &mut names);
    assert!(names.len() > 20, "{names:?}");
    let gateway = Gateway::start("epoll", 2);
    let subscriber = gateway.mosquitto_sub(&["-q", "1", "-t", "$inbox/#", "-i", "phone", "-u", "alice"]);
    gateway.wait_for_gauge("subscriptions", 1);
    for number in 0..20 {
        gateway.push(json!({ "to": { "user": "alice" }, "payload": number.to_string(), "qos": number % 2 }));
    }
    subscriber.take(20);
    let text = gateway.text("/metrics");
    let lacking: Vec<&String> = names
        .iter()
        .filter(|name| {
            !text.lines().any(|line| line.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with(['{', ' '])))
        })
        .collect();
    assert!(lacking.is_empty(), "/metrics lacks {lacking:?}");
}
