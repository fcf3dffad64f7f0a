//! The `kittiwake` binary.

use std::process::ExitCode;

/// Shards free and take blocks of few sizes all the time, often on another thread than the one that made them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

// SAFETY: mimalloc, linked as the allocator above, declares it so; any thread may call it at any time.
#[allow(unsafe_code, reason = "the name of a foreign function")]
unsafe extern "C" {
    /// Gives the calling thread's free pages back to the system. Without `force` one page of each size stays for up to
    /// 16 calls, and the others for a second: 18,000 idle connections then cost some 30 bytes more each until that long
    /// after their last burst.
    safe fn mi_collect(force: bool);
}

fn main() -> ExitCode {
    kittiwake::node::cli::run(|| mi_collect(true))
}
