//! What a pass of a topic puts into a window at once is what it would have put there one by one.

use super::*;

/// A session with room for this many in flight, and its shard.
fn with_room(expiry: u32, receive_maximum: u16) -> Shard {
    let mut shard = Shard::new(Version::V5);
    let mut request = shard.request(expiry, expiry == 0);
    request.receive_maximum = receive_maximum;
    shard.open(&request);
    shard.subscribe("$inbox/#", Qos::ExactlyOnce);
    shard
}

/// Offers so many one after the other; whether each is to be sent now.
fn are_all_sent(shard: &mut Shard, qos: Qos, count: usize) -> bool {
    let mut are_sent = true;
    for _ in 0..count {
        shard.call(|session, _, effects| {
            are_sent &= matches!(session.offer_volatile(&message("m", qos), qos, effects), Offer::Send(_));
        });
    }
    are_sent
}

#[test]
fn so_many_are_taken_at_once_as_would_be_sent_one_by_one() {
    for (expiry, qos, before, count) in
        [0, 3600].into_iter().flat_map(|expiry| [(expiry, Qos::AtLeastOnce), (expiry, Qos::ExactlyOnce)]).flat_map(
            |(expiry, qos)| (0..=4).flat_map(move |before| (1..=5).map(move |count| (expiry, qos, before, count))),
        )
    {
        let mut shard = with_room(expiry, 4);
        are_all_sent(&mut shard, Qos::AtLeastOnce, before);
        let takes = shard.session().takes_volatile(qos, count);
        let case = format!("expiry {expiry}, {qos:?}, {count} behind {before}");
        assert_eq!(takes, are_all_sent(&mut shard, qos, count), "{case}");
    }
}

#[test]
fn what_was_taken_at_once_is_acknowledged_one_by_one() {
    let (mut once, mut single) = (with_room(0, 4), with_room(0, 4));
    let mut ids = Vec::new();
    once.call(|session, _, effects| {
        let run = (0..3).map(|_| session.launch_volatile(&message("m", Qos::AtLeastOnce), Qos::AtLeastOnce, effects));
        ids.extend(run.map(|delivery| delivery.0));
    });
    assert!(are_all_sent(&mut single, Qos::AtLeastOnce, 3));
    let flights = |shard: &mut Shard| shard.session().flights().map(|flight| flight.delivery.0).collect::<Vec<_>>();
    assert_eq!((flights(&mut once), flights(&mut single)), (ids.clone(), ids.clone()));
    // The middle one first: the others stay in their order.
    for (id, left) in [(ids[1], vec![ids[0], ids[2]]), (ids[0], vec![ids[2]]), (ids[2], vec![])] {
        once.ack(AckKind::PubAck, id);
        assert_eq!(flights(&mut once), left);
    }
    assert_eq!(once.session().in_flight_count(), 0);
}

#[test]
fn nothing_is_taken_at_once_behind_what_is_being_committed_or_by_who_is_leaving() {
    let mut shard = with_room(3600, 4);
    assert!(shard.session().takes_volatile(Qos::AtLeastOnce, 2));
    shard.hold = true;
    shard.push("committing", Qos::ExactlyOnce);
    assert!(!shard.session().takes_volatile(Qos::AtLeastOnce, 1), "it would overtake");
    let mut shard = with_room(0, 4);
    shard.drop_connection();
    assert!(shard.id.is_none_or(|_| !shard.session().takes_volatile(Qos::AtLeastOnce, 1)));
}
