//! The `kittiwake` binary.

use std::process::ExitCode;

/// Shards free and take blocks of few sizes all the time, often on another thread than the one that made them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    keep_untouched_memory_free();
    kittiwake::node::cli::run()
}

/// Tables are reserved for the configured maximum because a page that nobody touched costs nothing. With huge pages,
/// which the allocator asks for, a touched byte costs 2 MiB.
fn keep_untouched_memory_free() {
    // A kernel that cannot do this has no huge pages to give either.
    let _no_huge_pages = rustix::thread::disable_transparent_huge_pages(true);
}
