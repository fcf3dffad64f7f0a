//! Streams of pushes against a fake data plane.

use super::super::fake::{Behaviour, Bench};
use super::generated as pb;
use super::generated::tagged_result::Result as Of;
use super::tests::{client, tagged, to_alice};
use crate::limits;
use crate::shard::command::CommandError;
use core::time::Duration;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

/// A stream with room for so many batches on their way, and its results.
async fn opened(bench: &Bench, room: usize) -> (mpsc::Sender<pb::PushBatch>, Streaming<pb::PushResults>) {
    let (send, receive) = mpsc::channel(room);
    let results = client(bench).push_stream(ReceiverStream::new(receive)).await.expect("it begins");
    (send, results.into_inner())
}

#[tokio::test]
async fn every_push_of_a_stream_has_its_result() {
    let bench = Bench::new();
    let batches = (0..63_u64).map(|batch| tagged((batch * 16..(batch + 1) * 16).map(|tag| (tag, to_alice()))));
    let odd = tagged([
        (9_000, pb::PushRequest { to: None, ..to_alice() }),
        (9_001, pb::PushRequest { qos: pb::Qos::AtMostOnce.into(), ..to_alice() }),
    ]);
    let batches: Vec<_> = batches.chain([odd]).collect();
    let stream = client(&bench).push_stream(futures_util::stream::iter(batches)).await.expect("it begins");
    let mut results: Vec<pb::TaggedResult> = Vec::new();
    let mut stream = stream.into_inner();
    while let Some(batch) = stream.message().await.expect("it goes well") {
        assert!(!batch.results.is_empty() && batch.results.len() <= limits::PUSH_BATCH_MAX);
        results.extend(batch.results);
    }
    results.sort_by_key(|result| result.tag);
    let (good, odd) = results.split_at(63 * 16);
    for (tag, result) in (0..).zip(good) {
        assert_eq!(result.tag, tag);
        assert!(matches!(&result.result, Some(Of::Reply(reply)) if reply.results[0].online == Some(2)));
    }
    let Some(Of::Error(error)) = &odd[0].result else { panic!("it has no target") };
    assert_eq!((odd[0].tag, error.code, error.field.as_str()), (9_000, Code::InvalidArgument as u32, "to"));
    assert!(matches!(&odd[1].result, Some(Of::Reply(reply)) if reply.results.is_empty()));
    assert_eq!(bench.push_count(), 63 * 16 + 1);
}

#[tokio::test]
async fn a_stream_rings_once_when_all_is_handed_over_and_before_it_answers() {
    let bench = Bench::new();
    let (send, mut results) = opened(&bench, 4).await;
    for round in 1..=3 {
        let unlogged = || pb::PushRequest { qos: pb::Qos::AtMostOnce.into(), ..to_alice() };
        send.send(tagged((0..16).map(|tag| (tag, unlogged())))).await.expect("it is read");
        let answered = results.message().await.expect("it goes well").expect("a result");
        assert_eq!(answered.results.len(), 16);
        let expected: Vec<usize> = (1..=round).map(|round| round * 16).collect();
        assert_eq!(*bench.fake.rung.lock().expect("not poisoned"), expected);
    }
}

/// Time stands still, so that only what has come decides.
#[tokio::test(start_paused = true)]
async fn batches_that_come_together_are_answered_together() {
    let bench = Bench::new();
    let (send, receive) = mpsc::channel(4);
    for round in 0..3 {
        let unlogged = || pb::PushRequest { qos: pb::Qos::AtMostOnce.into(), ..to_alice() };
        send.send(tagged((0..16).map(|tag| (round * 16 + tag, unlogged())))).await.expect("there is room");
    }
    let requests = ReceiverStream::new(receive);
    let mut results = client(&bench).push_stream(requests).await.expect("it begins").into_inner();
    let answered = results.message().await.expect("it goes well").expect("a result");
    let tags: Vec<u64> = answered.results.iter().map(|result| result.tag).collect();
    assert_eq!(tags, (0..48).collect::<Vec<_>>());
    assert_eq!(*bench.fake.rung.lock().expect("not poisoned"), [48]);
}

#[tokio::test]
async fn a_busy_node_is_in_the_results_of_a_stream_and_does_not_end_it() {
    let bench = Bench::new();
    bench.behave(Behaviour::Refuse(CommandError::Busy));
    let (send, mut results) = opened(&bench, 4).await;
    send.send(tagged([(1, to_alice())])).await.expect("it is read");
    let first = results.message().await.expect("it goes well").expect("a result");
    let Some(Of::Error(error)) = &first.results[0].result else { panic!("it is busy") };
    assert_eq!((error.code, error.retry_after_ms), (Code::ResourceExhausted as u32, 1_000));
    bench.behave(Behaviour::Answer);
    send.send(tagged([(2, to_alice())])).await.expect("it is read");
    let second = results.message().await.expect("it goes well").expect("a result");
    assert!(matches!(&second.results[0].result, Some(Of::Reply(_))));
    drop(send);
    assert!(results.message().await.expect("it ends well").is_none());
}

/// Time stands still but for what is waited for.
#[tokio::test(start_paused = true)]
async fn pushes_of_a_stream_that_nobody_answers_say_so_each_in_its_time() {
    let bench = Bench::new();
    bench.behave(Behaviour::Silent);
    let (send, mut results) = opened(&bench, 4).await;
    let within = |tag, timeout_ms| (tag, pb::PushRequest { timeout_ms, ..to_alice() });
    let begun = tokio::time::Instant::now();
    // The one that is over first is neither the first nor the last.
    send.send(tagged([within(1, 300), within(2, 100), within(3, 300)])).await.expect("it is read");
    for (tags, after_ms) in [(&[2][..], 100), (&[1, 3], 300)] {
        let late = results.message().await.expect("it goes on").expect("results").results;
        assert_eq!(late.iter().map(|late| late.tag).collect::<Vec<_>>(), tags);
        for late in late {
            let Some(Of::Error(error)) = late.result else { panic!("nobody answers") };
            assert_eq!(error.code, Code::DeadlineExceeded as u32);
        }
        let passed = begun.elapsed();
        assert!(
            passed >= Duration::from_millis(after_ms) && passed < Duration::from_millis(after_ms + 20),
            "{passed:?}"
        );
    }
    assert_eq!(bench.own("commands_pending"), 0);
    bench.behave(Behaviour::Answer);
    send.send(tagged([within(4, 100)])).await.expect("it is read");
    let answered = results.message().await.expect("it goes on").expect("a result").results;
    assert!(answered[0].tag == 4 && matches!(answered[0].result, Some(Of::Reply(_))));
}

#[tokio::test]
async fn a_stream_that_is_dropped_has_rung_and_leaves_nothing_behind() {
    let bench = Bench::new();
    bench.behave(Behaviour::Silent);
    let (send, mut results) = opened(&bench, 4).await;
    send.send(tagged((0..16).map(|tag| (tag, to_alice())))).await.expect("it is read");
    // Looked at once: what there is has been handed over.
    assert!(results.message().now_or_never().is_none());
    assert_eq!((bench.push_count(), bench.own("commands_pending")), (16, 16));
    drop(results);
    assert_eq!(bench.own("commands_pending"), 0);
    assert_eq!(*bench.fake.rung.lock().expect("not poisoned"), [16]);
}

#[tokio::test]
async fn a_stream_is_not_read_while_too_much_of_it_is_under_way() {
    let bench = Bench::new();
    bench.behave(Behaviour::Silent);
    let (send, mut results) = opened(&bench, 1).await;
    // As a connection does: a stream goes on while its response may be sent.
    tokio::spawn(async move { results.message().await });
    let batch = || tagged((0..limits::PUSH_BATCH_MAX as u64).map(|tag| (tag, to_alice())));
    let full = limits::PUSH_STREAM_IN_FLIGHT_MAX / limits::PUSH_BATCH_MAX;
    for _ in 0..full {
        send.send(batch()).await.expect("it is read");
    }
    while bench.push_count() < limits::PUSH_STREAM_IN_FLIGHT_MAX {
        tokio::task::yield_now().await;
    }
    // What the transport holds on the way is one message here; nothing of it reaches the data plane.
    send.send(batch()).await.expect("it is queued");
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.push_count(), limits::PUSH_STREAM_IN_FLIGHT_MAX);
}

#[tokio::test]
async fn a_batch_of_a_stream_is_bounded() {
    let bench = Bench::new();
    for (count, fits) in [
        (0, false),
        (limits::PUSH_BATCH_MAX - 1, true),
        (limits::PUSH_BATCH_MAX, true),
        (limits::PUSH_BATCH_MAX + 1, false),
    ] {
        let batch = tagged((0..count as u64).map(|tag| (tag, to_alice())));
        let stream = client(&bench).push_stream(futures_util::stream::iter([batch])).await.expect("it begins");
        let ended: Result<Vec<_>, Status> = stream.into_inner().collect::<Vec<_>>().await.into_iter().collect();
        assert_eq!(
            ended.map_err(|status| status.code()).map(|_| ()),
            if fits { Ok(()) } else { Err(Code::InvalidArgument) }
        );
    }
}
