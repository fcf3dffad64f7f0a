//! The scheduler's view of a thread that sleeps until it is woken for, works for some microseconds, and sleeps again.

use super::epoll::sys;
use crate::limits::TIME_SLICE;
use core::time::Duration;
use std::io;

/// Asks for a time slice of [`TIME_SLICE`] for the calling thread. Its share of the CPU stays the same; it gets it in shorter
/// pieces and sooner, for the scheduler picks first whose slice ends first, and has whoever runs with a longer one make way.
///
/// What the thread was started with is kept: its nice value, a slice that is shorter already, and any policy but the
/// usual ones (`SCHED_OTHER`, `SCHED_BATCH`). Nothing changes where the kernel does not know such slices (before Linux
/// 6.12), or where a filter of system calls forbids to ask: the thread works there as well, and waits longer for its CPU.
pub fn shorten_slice() {
    let _ = shorten_slice_to(TIME_SLICE);
}

fn shorten_slice_to(slice: Duration) -> io::Result<()> {
    let wanted = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
    let mut attributes = sys::scheduling()?;
    let is_usual =
        [libc::SCHED_OTHER, libc::SCHED_BATCH].map(libc::c_int::cast_unsigned).contains(&attributes.sched_policy);
    if is_usual && attributes.sched_runtime > wanted {
        attributes.sched_runtime = wanted;
        sys::schedule(&attributes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How a thread of its own, started so, is scheduled once it has asked for these slices.
    fn after(policy: libc::c_int, nice: i32, slices: &'static [Duration]) -> libc::sched_attr {
        let run = move || {
            let mut attributes = sys::scheduling().expect("a thread may ask about itself");
            attributes.sched_policy = policy.cast_unsigned();
            attributes.sched_nice = nice;
            sys::schedule(&attributes).expect("a thread may be nicer");
            for slice in slices {
                shorten_slice_to(*slice).expect("a thread may shorten its slice");
            }
            sys::scheduling().expect("a thread may ask about itself")
        };
        std::thread::spawn(run).join().expect("the thread ends")
    }

    /// Whether the kernel has slices of threads: it says what the calling thread's is.
    fn has_slices() -> bool {
        sys::scheduling().expect("a thread may ask about itself").sched_runtime > 0
    }

    const SHORT: Duration = Duration::from_micros(100);
    const LONGER: Duration = Duration::from_millis(1);

    #[test]
    fn a_slice_is_shortened_and_all_else_is_kept() {
        for policy in [libc::SCHED_OTHER, libc::SCHED_BATCH] {
            let got = after(policy, 5, &[SHORT]);
            assert_eq!((got.sched_policy, got.sched_nice), (policy.cast_unsigned(), 5));
            assert_eq!(got.sched_runtime, if has_slices() { 100_000 } else { 0 });
        }
    }

    #[test]
    fn a_slice_is_never_lengthened() {
        let got = after(libc::SCHED_OTHER, 0, &[SHORT, LONGER]);
        assert_eq!(got.sched_runtime, if has_slices() { 100_000 } else { 0 });
    }

    #[test]
    fn a_thread_for_the_background_stays_there() {
        let got = after(libc::SCHED_IDLE, 0, &[SHORT]);
        assert_eq!(got.sched_policy, libc::SCHED_IDLE.cast_unsigned());
        assert_ne!(got.sched_runtime, 100_000);
    }
}
