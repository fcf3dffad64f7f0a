//! The `kittiwake` binary.

use std::process::ExitCode;

// Shards free and take blocks of few sizes all the time, often on another thread than the one that made them: mimalloc. It
// is linked in malloc's place, where Rust's own allocator finds it. Its `GlobalAlloc` would ask for an alignment with each
// allocation, which takes the next larger class whenever there is no free block at hand: 120 bytes of each idle connection of
// TLS.
use mimalloc as _;

// SAFETY: mimalloc declares them so; any thread may call them at any time.
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

#[cfg(test)]
mod tests {
    use core::ffi::c_void;

    // SAFETY: mimalloc declares it so; it looks the address up, and follows it nowhere.
    #[allow(unsafe_code, reason = "the name of a foreign function")]
    unsafe extern "C" {
        safe fn mi_is_in_heap_region(address: *const c_void) -> bool;
    }

    #[test]
    fn what_is_allocated_is_mimallocs() {
        for bytes in [1_usize, 600, 20_000, 3_000_000] {
            let allocated = vec![1_u8; bytes];
            assert!(mi_is_in_heap_region(allocated.as_ptr().cast()), "{bytes} bytes are another allocator's");
        }
        let here = 0_u8;
        assert!(!mi_is_in_heap_region((&raw const here).cast()), "it tells what is and what is not");
    }
}
