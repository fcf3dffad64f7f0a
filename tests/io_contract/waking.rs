use crate::rig::{Bench, Rig};
use kittiwake::io::{Driver, Op, Wait};

/// Far enough in the future that reaching it means that a wake was lost.
const LATER_MS: u64 = 20_000;

pub fn a_wake_from_another_thread_ends_a_wait<R: Rig>() {
    let mut bench = Bench::<R>::new();
    for _ in 0..200 {
        let waker = bench.driver.waker();
        let (start, _) = bench.poll(Wait::No, 64);
        let thread = std::thread::spawn(move || waker.wake());
        let (end, _) = bench.poll(Wait::Until(start + LATER_MS), 64);
        assert!(end < start + LATER_MS, "the wake was lost");
        thread.join().unwrap();
        // Where the wake came before the wait, nothing of it is left over.
        bench.poll(Wait::No, 64);
    }
}

pub fn a_wake_before_the_wait_is_not_lost<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (start, _) = bench.poll(Wait::No, 64);
    let waker = bench.driver.waker();
    waker.wake();
    waker.clone().wake();
    let (end, count) = bench.poll(Wait::Until(start + LATER_MS), 64);
    assert!(end < start + LATER_MS, "the wake was lost");
    assert_eq!(count, 0, "a wake is not a completion");
}

pub fn a_wake_ends_one_wait_only<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (start, _) = bench.poll(Wait::No, 64);
    bench.driver.waker().wake();
    bench.poll(Wait::Until(start + LATER_MS), 64);
    let (now, _) = bench.poll(Wait::No, 64);
    let (end, _) = bench.poll(Wait::Until(now + 20), 64);
    assert!(end >= now + 20, "a wake is used up by the wait that it ends");
}

pub fn a_wait_ends_at_its_deadline<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (mut now, _) = bench.poll(Wait::No, 64);
    for wait_ms in [1, 5, 20] {
        let (end, count) = bench.poll(Wait::Until(now + wait_ms), 64);
        assert!(end >= now + wait_ms, "woken {} ms early by nothing", now + wait_ms - end);
        assert_eq!(count, 0);
        now = end;
    }
    // A deadline that has passed is no wait.
    assert!(bench.poll(Wait::Until(now - 1), 64).0 < now + LATER_MS);
}

pub fn no_wait_returns_at_once<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (_, count) = bench.poll(Wait::No, 64);
    assert_eq!(count, 0);
}

pub fn completions_beyond_the_bound_wait_for_the_next_poll<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let slots: Vec<_> = (0..10).map(|_| bench.installed()).collect();
    let mut receives = Vec::new();
    for (_, slot) in &slots {
        let block = bench.block(512);
        receives.push(bench.submit(|token| Op::Receive { slot: *slot, block, token }));
    }
    let mut total = 0;
    bench.until("all ten", |bench| {
        // The rounds of `until` take what they take; these here are bounded.
        let (_, count) = bench.poll(Wait::No, 3);
        assert!(count <= 3, "more than asked for");
        total += receives.iter().filter(|token| bench.take(**token).is_some()).count();
        (total == 10).then_some(())
    });
    let (_, slot) = &slots[0];
    let block = bench.block(512);
    let token = bench.submit(|token| Op::Receive { slot: *slot, block, token });
    assert_eq!(bench.poll(Wait::No, 0).1, 0, "a bound of nothing brings nothing");
    bench.expect(token);
    for (_, slot) in slots {
        bench.driver.close(slot);
    }
}
