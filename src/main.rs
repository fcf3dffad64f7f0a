//! The `kittiwake` binary.

use std::process::ExitCode;

/// Shards free and take blocks of few sizes all the time, often on another thread than the one that made them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    kittiwake::node::cli::run()
}
