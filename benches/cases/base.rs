//! Timers and slots.

use super::{Case, Make};
use kittiwake::base::slab::{Key, Slab};
use kittiwake::base::wheel::Wheel;
use std::hint::black_box;

pub const CASES: &[Make] = &[heartbeat, expire, get, insert];

const CONNECTIONS: u32 = 100_000;
const KEEP_ALIVE_MS: u64 = 90_000;
const BATCH: u32 = 64;

/// Every connection has a deadline; one that has spoken gets a later one.
fn heartbeat() -> Case {
    let mut wheel = filled();
    let (mut key, mut now_ms) = (0, 0);
    Case::plain("wheel/heartbeat", BATCH, move || {
        now_ms += 1;
        for _ in 0..BATCH {
            key = (key + 7_919) % CONNECTIONS;
            wheel.set(black_box(key), now_ms + KEEP_ALIVE_MS);
        }
    })
}

/// Deadlines that have come, each set anew.
fn expire() -> Case {
    let mut wheel = Wheel::new(BATCH, 0);
    let mut now_ms = 0;
    (0..BATCH).for_each(|key| wheel.set(key, KEEP_ALIVE_MS));
    Case::plain("wheel/expire", BATCH, move || {
        now_ms += KEEP_ALIVE_MS;
        let mut visits = usize::MAX;
        let mut expired = 0;
        while let Some(key) = wheel.next_expired(now_ms, &mut visits) {
            expired += 1;
            wheel.set(key, now_ms + KEEP_ALIVE_MS);
        }
        assert_eq!(expired, BATCH, "all were due");
    })
}

fn filled() -> Wheel {
    let mut wheel = Wheel::new(CONNECTIONS, 0);
    (0..CONNECTIONS).for_each(|key| wheel.set(key, KEEP_ALIVE_MS + u64::from(key) % 60_000));
    wheel
}

fn get() -> Case {
    let mut slab = Slab::new(CONNECTIONS);
    let keys: Vec<Key> = (0..CONNECTIONS).map(|value| slab.insert(value).expect("there is room")).collect();
    let mut at = 0;
    Case::plain("slab/get", BATCH, move || {
        let mut sum = 0;
        for _ in 0..BATCH {
            at = (at + 7_919) % keys.len();
            sum += slab.get(black_box(keys[at])).copied().unwrap_or_default();
        }
        black_box(sum);
    })
}

fn insert() -> Case {
    let mut slab = Slab::new(CONNECTIONS);
    Case::plain("slab/insert and remove", BATCH, move || {
        for value in 0..BATCH {
            let key = slab.insert(black_box(value)).expect("there is room");
            black_box(slab.remove(key));
        }
    })
}
