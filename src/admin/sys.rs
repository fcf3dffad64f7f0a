//! `$SYS`: the node's figures as messages, for tools that know them from other brokers. Each app gets them; who may
//! subscribe is the session's to say. They are of QoS 0 and not retained: a subscriber has them within one interval.

use super::figures::Figures;
use crate::base::ids::{AppId, PushId, Qos};
use crate::base::message::Message;
use crate::push::control::{Control, Failure};
use crate::shard::command::{Push, Target};
use core::time::Duration;
use std::sync::Arc;

/// When and for whom they are made.
#[derive(Clone, Copy, Debug)]
pub struct Publishing {
    /// Between two rounds.
    pub interval: Duration,
    /// Apps there are.
    pub apps: u16,
    /// The clock: milliseconds since 1970-01-01 UTC.
    pub wall_ms: fn() -> u64,
}

/// Publishes them for ever; a round that a busy node refuses is left out, for the next one is as good.
pub async fn publish(control: Arc<Control>, publishing: Publishing) {
    let started = tokio::time::Instant::now();
    let mut rounds = tokio::time::interval_at(started + publishing.interval, publishing.interval);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        rounds.tick().await;
        let Ok(figures) = Figures::read(&control).await else { continue };
        let topics = topics(&figures, started.elapsed());
        for app in 0..publishing.apps {
            let pushed: Result<(), Failure> = topics.iter().try_for_each(|(topic, text)| {
                control.push_unawaited(push(AppId(app), topic, text, (publishing.wall_ms)()))
            });
            if pushed.is_err() {
                break;
            }
        }
    }
}

fn push(app: AppId, topic: &str, text: &str, wall_ms: u64) -> Push {
    let topic: Arc<str> = topic.into();
    let message = Message {
        app,
        topic: Arc::clone(&topic),
        only_device: None,
        payload: text.as_bytes().to_vec().into(),
        qos: Qos::AtMostOnce,
        retain: false,
        created_ms: wall_ms,
        expires_ms: None,
        publisher: None,
        properties: None,
    };
    Push {
        app,
        target: Target::Topic(topic),
        message: Arc::new(message),
        key: None,
        id: PushId::default(),
        deliver_within: None,
    }
}

/// Topics and payloads, named as mosquitto names them.
fn topics(figures: &Figures, uptime: Duration) -> Vec<(&'static str, String)> {
    let (gauges, counters) = (figures.gauges(), figures.counters());
    let held = |name| gauges.get(name).copied().unwrap_or_default();
    let done = |name| counters.get(name).copied().unwrap_or_default();
    let all = |start: &str| -> u64 {
        counters.iter().filter(|(name, _)| name.starts_with(start)).map(|(_, value)| value).sum()
    };
    let store = |name| figures.store.iter().find(|(key, _)| *key == name).map_or(0, |&(_, value)| value);
    let online = held("connections").saturating_sub(held("guests"));
    let numbers = [
        ("$SYS/broker/clients/connected", online),
        ("$SYS/broker/clients/disconnected", held("sessions").saturating_sub(online)),
        ("$SYS/broker/clients/total", held("sessions")),
        ("$SYS/broker/subscriptions/count", held("subscriptions")),
        ("$SYS/broker/bytes/received", done("bytes_in")),
        ("$SYS/broker/bytes/sent", done("bytes_out")),
        ("$SYS/broker/messages/received", done("frames_in")),
        ("$SYS/broker/publish/messages/received", all("published_qos")),
        ("$SYS/broker/publish/messages/sent", all("sent_qos")),
        ("$SYS/broker/publish/messages/dropped", all("dropped_")),
        ("$SYS/broker/store/messages/count", store("held_entries")),
        ("$SYS/broker/store/messages/bytes", store("held_bytes")),
    ];
    let words = [
        ("$SYS/broker/version", concat!("kittiwake ", env!("CARGO_PKG_VERSION")).to_owned()),
        ("$SYS/broker/uptime", format!("{} seconds", uptime.as_secs())),
    ];
    words.into_iter().chain(numbers.map(|(topic, value)| (topic, value.to_string()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::command::ShardStats;

    #[test]
    fn figures_of_all_shards_are_added_up() {
        let shard = |shard, connections| ShardStats {
            shard,
            driver: "fake",
            gauges: vec![("connections", connections), ("guests", 1), ("sessions", 9), ("subscriptions", 4)],
            counters: vec![("sent_qos0", 5), ("sent_qos1", 6), ("dropped_expired", 1), ("dropped_too_large", 2)],
        };
        let (api, store) = (Vec::new(), vec![("held_entries", 7), ("held_bytes", 70)]);
        let figures = Figures { draining: false, api, store, shards: vec![shard(0, 3), shard(1, 4)] };
        let topics = topics(&figures, Duration::from_millis(61_500));
        let payload = |topic: &str| {
            let found = topics.iter().find(|(name, _)| name.strip_prefix("$SYS/broker/") == Some(topic));
            found.map(|(_, text)| text.as_str())
        };
        assert_eq!(payload("clients/connected"), Some("5"));
        assert_eq!(payload("clients/disconnected"), Some("13"));
        assert_eq!(payload("subscriptions/count"), Some("8"));
        assert_eq!(payload("publish/messages/sent"), Some("22"));
        assert_eq!(payload("publish/messages/dropped"), Some("6"));
        assert_eq!(payload("store/messages/count"), Some("7"));
        assert_eq!(payload("uptime"), Some("61 seconds"));
    }
}
