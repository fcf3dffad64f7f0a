//! The whole node in the simulator: shards, log, network, clients and backends from one seed, on one thread.
//!
//! A failing seed is printed with the line that repeats it; `KITTIWAKE_STORY=1` has it told. `KITTIWAKE_SEEDS=N` runs N
//! seeds instead of 1,000, `KITTIWAKE_FIRST_SEED=N` others. `KITTIWAKE_NARROW=1` has them mean what they meant to the
//! first clients, who did less.

mod asked;
mod backend;
mod client;
mod client_state;
mod coverage;
#[path = "../event_stream/mod.rs"]
mod event_stream;
mod kept;
mod ledger;
mod node;
mod page;
mod share;
mod store;
mod turning;
mod upstream;
mod wills;
mod world;

use coverage::Coverage;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use world::{Breadth, Outcome, run};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs a seed; a failure says how to repeat it.
fn run_named(seed: u64, freezes: bool) -> Outcome {
    let breadth = if std::env::var_os("KITTIWAKE_NARROW").is_some() { Breadth::Narrow } else { Breadth::Wide };
    catch_unwind(AssertUnwindSafe(|| run(seed, freezes, breadth))).unwrap_or_else(|panic| {
        eprintln!("\nrepeat: KITTIWAKE_SEED={seed} cargo nextest run --test sim one_seed\n");
        resume_unwind(panic)
    })
}

/// Each seed is a run of its own; all of them together must reach every mark.
#[test]
fn seeds_hold() {
    let count = number("KITTIWAKE_SEEDS").unwrap_or(1_000);
    let first = number("KITTIWAKE_FIRST_SEED").unwrap_or(0);
    let (next, end, coverage) = (AtomicU64::new(first), first + count, Mutex::new(Coverage::default()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            let outcome = catch_unwind(AssertUnwindSafe(|| run_named(seed, true))).unwrap_or_else(|panic| {
                // One is enough: the other threads begin no more.
                next.store(end, Ordering::Relaxed);
                resume_unwind(panic)
            });
            coverage.lock().expect("it is held by whoever adds to it").merge(&outcome.coverage);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let coverage = coverage.into_inner().expect("no run failed");
    println!("{coverage}");
    let missing = coverage.missing();
    assert!(missing.is_empty(), "seeds {first} to {} never reached {missing:?}", end - 1);
}

#[test]
fn one_seed() {
    let seed = number("KITTIWAKE_SEED").unwrap_or(0);
    println!("{}", run_named(seed, true).coverage);
}

/// Found when clients did less, so the seed means this only with such clients.
#[test]
fn what_is_owed_does_not_overtake_what_nobody_was_owed_seed_5873() {
    run(5_873, true, Breadth::Narrow);
}

#[test]
fn what_waits_for_a_window_goes_before_what_was_logged_behind_it_seed_8441() {
    run_named(8_441, true);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..5 {
        assert_eq!(run_named(seed, true).trace_hash, run_named(seed, true).trace_hash, "seed {seed}");
    }
}

#[test]
fn freezing_and_thawing_sessions_at_random_turns_leaves_the_trace_as_it_is() {
    for seed in 0..20 {
        assert_eq!(run_named(seed, true).trace_hash, run_named(seed, false).trace_hash, "seed {seed}");
    }
}
