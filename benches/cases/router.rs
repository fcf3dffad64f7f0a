//! From a topic to its subscribers.

use super::{Case, Make};
use kittiwake::base::hash::KeyedHash;
use kittiwake::base::ids::{AppId, Qos, ShardId};
use kittiwake::router::fanout::{Fanout, Step};
use kittiwake::router::interest::{Interest, Level};
use kittiwake::router::subscribers::{Options, Subscriber, Subscribers};
use std::hint::black_box;
use std::sync::Arc;

pub const CASES: &[Make] = &[match_exact, match_wildcards, look_up, fan_out, fan_out_coalesced];

const APP: AppId = AppId(0);
const FILTERS: u32 = 10_000;
const BATCH: u32 = 64;

fn subscriber(session: u32) -> Subscriber {
    Subscriber { session, options: Options::new(Qos::AtMostOnce) }
}

fn matching(name: &'static str, filter: impl Fn(u32) -> String) -> Case {
    let mut subscribers = Subscribers::new(KeyedHash::new(7));
    for number in 0..FILTERS {
        subscribers.subscribe(APP, &filter(number), subscriber(number));
    }
    let topics: Vec<String> = (0..BATCH).map(|number| format!("rooms/{}/state", number * 151)).collect();
    let mut found = Vec::new();
    Case::plain(name, BATCH, move || {
        for topic in &topics {
            found.clear();
            subscribers.matches(APP, black_box(topic), &mut found);
            assert!(!found.is_empty(), "each topic has a subscriber");
        }
    })
}

fn match_exact() -> Case {
    matching("router/match, 10,000 exact filters", |number| format!("rooms/{number}/state"))
}

fn match_wildcards() -> Case {
    matching("router/match, 10,000 wildcard filters", |number| format!("rooms/{number}/+"))
}

/// At the topic's home, for every message.
fn look_up() -> Case {
    let mut interest = Interest::new(KeyedHash::new(7));
    for number in 0..FILTERS {
        let shard = ShardId((number % 4) as u16);
        interest.set(APP, &format!("rooms/{number}/state"), shard, Level::Listening);
    }
    let topics: Vec<String> = (0..BATCH).map(|number| format!("rooms/{}/state", number * 151)).collect();
    Case::plain("router/interest, 10,000 filters", BATCH, move || {
        for topic in &topics {
            // By reference: handing the set on by value would be counted as well.
            black_box(&interest.lookup(APP, black_box(topic)));
        }
    })
}

fn fanning(name: &'static str, messages: u32) -> Case {
    const SUBSCRIBERS: u32 = 1_024;
    let mut subscribers = Subscribers::new(KeyedHash::new(7));
    for number in 0..SUBSCRIBERS {
        subscribers.subscribe(APP, "news", subscriber(number));
    }
    let mut fanout = Fanout::new(KeyedHash::new(7));
    let message = Arc::new(0_u64);
    Case::plain(name, SUBSCRIBERS, move || {
        for _ in 0..messages {
            assert!(fanout.submit(APP, "news", Arc::clone(&message)).is_ok(), "there is room");
        }
        let mut visits = 0;
        while fanout.jobs() > 0 {
            fanout.run(256, &mut subscribers, |step| {
                if let Step::Visit(visit) = step {
                    visits += 1;
                    black_box((visit.session, visit.messages.len()));
                }
            });
        }
        assert_eq!(visits, SUBSCRIBERS, "each was visited once");
    })
}

fn fan_out() -> Case {
    fanning("router/fan-out visit, 1 message", 1)
}

fn fan_out_coalesced() -> Case {
    fanning("router/fan-out visit, 16 messages", 16)
}
