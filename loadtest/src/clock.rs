//! When a thread that sleeps goes on.

use rustix::thread::set_current_timer_slack;
use std::num::NonZeroU64;

/// Lets this thread's sleeps end when they are due, not up to 50 µs later, which the kernel allows itself so that several
/// end together: what is sent late counts as the server's time.
pub fn sleep_to_the_point() {
    // Without it the sleeps are those of any thread.
    let _ = set_current_timer_slack(NonZeroU64::new(1));
}
