//! The `kittiwake` binary.

use std::process::ExitCode;

/// Shards free and take blocks of few sizes all the time, often on another thread than the one that made them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

// SAFETY: mimalloc, linked as the allocator above, declares it so; any thread may call it at any time.
#[allow(unsafe_code, reason = "the name of a foreign function")]
unsafe extern "C" {
    /// Gives the calling thread's free pages back; the system gets those that nobody took again for a second.
    safe fn mi_collect(force: bool);
}

fn main() -> ExitCode {
    kittiwake::node::cli::run(|| mi_collect(false))
}
