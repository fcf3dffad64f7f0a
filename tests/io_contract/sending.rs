use crate::rig::{Bench, Peer, Rig, pattern, read_some};
use bytes::Bytes;
use kittiwake::io::{Driver, Op, Outcome, Segment};

pub fn a_shared_segment_is_sent_and_comes_back_unadvanced<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (mut peer, slot) = bench.installed();
    let (segment, sent) = bench.send(slot, Segment::Shared(Bytes::from_static(b"shared")));
    assert_eq!((sent.unwrap(), segment.remaining()), (6, &b"shared"[..]));
    assert_eq!(bench.peer_reads(&mut peer, 6), b"shared");
    bench.driver.close(slot);
}

/// For drivers of this machine's kernel, whose loopback delivers within the system call.
pub fn a_flushed_send_has_left_before_the_next_poll<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (mut peer, slot) = bench.installed();
    let token = bench.submit(|token| Op::Send {
        slot,
        segment: Segment::Shared(Bytes::from_static(b"now")),
        more: false,
        token,
    });
    bench.driver.flush().expect("the kernel takes it");
    let mut all = Vec::new();
    assert!(read_some(&mut peer, &mut all, 3), "nothing has left: {all:?}");
    assert_eq!(all, b"now");
    assert_eq!(bench.expect_sent(token).1.unwrap(), 3);
    bench.driver.close(slot);
}

pub fn a_part_of_a_block_is_sent<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (mut peer, slot) = bench.guest();
    let mut segment = bench.segment(b"0123456789");
    if let Segment::Block { start, end, .. } = &mut segment {
        (*start, *end) = (3, 7);
    }
    let (segment, sent) = bench.send(slot, segment);
    assert_eq!((sent.unwrap(), segment.remaining()), (4, &b"3456"[..]));
    bench.drop_segment(segment);
    assert_eq!(bench.peer_reads(&mut peer, 4), b"3456");
    bench.driver.close(slot);
}

pub fn a_large_segment_is_sent_in_parts_without_loss<R: Rig>() {
    const BYTES: usize = 12 << 20;
    let mut bench = Bench::<R>::new();
    let (mut peer, slot) = bench.installed();
    let mut segment = Segment::Shared(pattern(0, BYTES).into());
    let (mut all, mut parts) = (Vec::new(), 0);
    while !segment.remaining().is_empty() {
        let token = bench.submit(|token| Op::Send { slot, segment, more: false, token });
        let outcome = bench.until("a send with a reading peer", |bench| {
            read_some(&mut peer, &mut all, usize::MAX);
            bench.take(token)
        });
        let (returned, sent) = Bench::<R>::sent(outcome);
        let count = sent.unwrap();
        assert!(count > 0, "a send completes with at least one byte");
        segment = returned;
        segment.advance(count);
        parts += 1;
    }
    bench.until("the rest", |_| read_some(&mut peer, &mut all, BYTES).then_some(()));
    assert!(all == pattern(0, BYTES), "bytes were lost or changed places");
    assert!(parts > 1, "a send does not wait for room for everything");
    bench.driver.close(slot);
}

pub fn a_blocked_send_completes_when_the_peer_reads<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (mut peer, slot) = bench.installed();
    let (blocked, left) = bench.block_sends(slot);
    let mut all = Vec::new();
    let outcome = bench.until("the blocked send", |bench| {
        read_some(&mut peer, &mut all, usize::MAX);
        bench.take(blocked)
    });
    let total = left + Bench::<R>::sent(outcome).1.unwrap();
    bench.until("the rest", |_| read_some(&mut peer, &mut all, total).then_some(()));
    assert!(all == pattern(0, total), "bytes were lost or changed places");
    assert!(bench.linger(blocked).is_none(), "a send completes once");
    bench.driver.close(slot);
}

pub fn a_shutdown_ends_a_blocked_send<R: Rig>() {
    let mut bench = Bench::<R>::new();
    for installed in [false, true] {
        let (mut peer, slot) = if installed { bench.installed() } else { bench.guest() };
        let (blocked, _) = bench.block_sends(slot);
        bench.shutdown(slot);
        let (segment, sent) = bench.expect_sent(blocked);
        assert!(sent.is_err());
        assert!(!segment.remaining().is_empty(), "the segment comes back");
        bench.driver.close(slot);
        bench.peer_ends(&mut peer);
    }
}

pub fn a_reset_ends_a_blocked_send<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (peer, slot) = bench.installed();
    let (blocked, _) = bench.block_sends(slot);
    peer.reset();
    assert!(bench.expect_sent(blocked).1.is_err());
    bench.driver.close(slot);
}

pub fn a_send_after_shutdown_fails<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (_peer, slot) = bench.installed();
    bench.shutdown(slot);
    let segment = bench.segment(b"too late");
    let (segment, sent) = bench.send(slot, segment);
    assert_eq!(sent.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    bench.drop_segment(segment);
    bench.driver.close(slot);
    assert_eq!(bench.pool.out(), 0);
}

pub fn a_shutdown_tells_the_peer_and_can_be_repeated<R: Rig>() {
    let mut bench = Bench::<R>::new();
    for installed in [false, true] {
        let (mut peer, slot) = if installed { bench.installed() } else { bench.guest() };
        bench.send_all(slot, b"goodbye");
        bench.shutdown(slot);
        assert_eq!(bench.peer_reads(&mut peer, usize::MAX), b"goodbye");
        bench.shutdown(slot);
        bench.driver.close(slot);
    }
}

pub fn segments_that_announce_more_all_arrive<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (mut peer, slot) = bench.installed();
    for part in 0..4 {
        let segment = bench.segment(&pattern(part * 100, 100));
        let token = bench.submit(|token| Op::Send { slot, segment, more: part < 3, token });
        let (segment, sent) = bench.expect_sent(token);
        assert_eq!(sent.unwrap(), 100);
        bench.drop_segment(segment);
    }
    assert_eq!(bench.peer_reads(&mut peer, 400), pattern(0, 400));
    bench.driver.close(slot);
}

pub fn a_blocked_sender_still_receives<R: Rig>() {
    let mut bench = Bench::<R>::new();
    for once in [false, true] {
        let (mut peer, slot) = bench.installed();
        let watch = bench.submit(|token| if once { Op::WatchOnce { slot, token } } else { Op::Watch { slot, token } });
        let (blocked, _) = bench.block_sends(slot);
        for round in 0..3 {
            bench.peer_writes(&mut peer, b"acknowledged");
            if round == 0 || !once {
                bench.expect_ready(watch);
            }
            assert_eq!(bench.receive_all(slot, 12), b"acknowledged");
        }
        if !once {
            bench.unwatch(slot, watch);
        }
        assert!(bench.linger(blocked).is_none(), "nobody reads, so nothing leaves");
        bench.shutdown(slot);
        assert!(matches!(bench.expect(blocked), Outcome::SendFailed { .. }));
        bench.driver.close(slot);
    }
}

pub fn a_driver_dropped_with_a_blocked_send_ends_its_sockets<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (mut peer, slot) = bench.installed();
    let (mut other, socket) = bench.pair();
    let guest = bench.driver.attach(socket);
    bench.submit(|token| Op::WatchOnce { slot: guest, token });
    bench.submit(|token| Op::Watch { slot, token });
    bench.block_sends(slot);
    bench.driver = bench.rig.driver(None);
    bench.peer_ends(&mut peer);
    bench.peer_ends(&mut other);
}
