//! Times, by criterion: `cargo bench -p benches --bench timing [FILTER]`. They depend on the machine and on what else
//! runs there; `benches/instructions.rs` counts the same work in a way that does not.

#![allow(missing_docs, reason = "a benchmark")]

mod cases;
#[allow(dead_code, reason = "the conformance tests use the rest of it")]
#[path = "../tests/conformance/client.rs"]
mod client;
#[allow(dead_code, reason = "the conformance tests use the rest of it")]
#[path = "../tests/conformance/node.rs"]
mod node;
#[allow(dead_code, reason = "the conformance tests use the rest of it")]
#[path = "../tests/conformance/websocket.rs"]
mod websocket;

use criterion::Criterion;
use std::time::{Duration, Instant};

/// As the gateway's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(30)
        .configure_from_args();
    for make in cases::all() {
        let mut case = make();
        let (part, what) = case.name.split_once('/').expect("names are part/what");
        let mut group = criterion.benchmark_group(part);
        group.bench_function(what, |bencher| {
            bencher.iter_custom(|runs| {
                let mut spent = Duration::ZERO;
                for _ in 0..runs {
                    case.prepare();
                    let start = Instant::now();
                    case.measured_run();
                    spent += start.elapsed();
                }
                // By unit, so that the printed time is that of one PUBLISH, one visit, one delivery.
                spent / case.units
            });
        });
        group.finish();
    }
    criterion.final_summary();
}
