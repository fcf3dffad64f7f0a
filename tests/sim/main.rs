//! The whole node in the simulator: shards, log, network, clients and backends from one seed, on one thread.
//!
//! A failing seed is printed with the line that repeats it; `KITTIWAKE_STORY=1` has it told. `KITTIWAKE_SEEDS=N` runs
//! N seeds a test instead of 100. `KITTIWAKE_NARROW=1` has them mean what they meant to the first clients, who did less.

mod backend;
mod client;
mod client_state;
mod coverage;
mod kept;
mod ledger;
mod node;
mod share;
mod store;
mod wills;
mod world;

use coverage::Coverage;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
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

/// The `chunk`th of ten shares of the seeds.
fn seeds(chunk: u64) {
    let count = number("KITTIWAKE_SEEDS").unwrap_or(100);
    let mut coverage = Coverage::default();
    for seed in chunk * count..(chunk + 1) * count {
        coverage.merge(&run_named(seed, true).coverage);
    }
    println!("{coverage}");
    let missing = coverage.missing();
    assert!(missing.is_empty(), "seeds {}..{} never reached {missing:?}", chunk * count, (chunk + 1) * count);
}

macro_rules! chunks {
    ($($name:ident: $chunk:literal,)*) => {
        $(#[test]
        fn $name() {
            seeds($chunk);
        })*
    };
}

chunks! {
    seeds_hold_0: 0,
    seeds_hold_1: 1,
    seeds_hold_2: 2,
    seeds_hold_3: 3,
    seeds_hold_4: 4,
    seeds_hold_5: 5,
    seeds_hold_6: 6,
    seeds_hold_7: 7,
    seeds_hold_8: 8,
    seeds_hold_9: 9,
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
