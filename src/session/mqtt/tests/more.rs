//! Random conversations, greetings and limits.

use super::*;

impl Shard {
    pub(super) fn install(&mut self, ticket: crate::session::Ticket, filters: u32) {
        let places: Vec<_> = (0..filters).map(|at| (at + 100, 0)).collect();
        let (seq, live) = (self.seq, self.meanwhile.take());
        self.call(|session, _, _| {
            on_subscribed(session, ticket, &places);
            live.iter().for_each(|live| assert!(session.note_offer(live, Offer::Behind)));
        });
        self.call(|session, _, effects| on_interest_installed(session, ticket, seq, effects));
    }
}

#[test]
fn an_absence_that_is_over_does_not_count_after_a_restart() {
    let mut shard = Shard::new(Version::V5);
    shard.connect(60, false);
    shard.drop_connection();
    shard.flush();
    shard.now.monotonic_ms += 50_000;
    shard.now.wall_ms += 50_000;
    assert_eq!(shard.connect(60, false), ["pause", "CONNACK 00 present", "resume"]);
    // Nothing moves its positions, so nothing is written lazily.
    shard.now.monotonic_ms += 30_000;
    shard.now.wall_ms += 30_000;
    shard.crash();
    let session = shard.id.and_then(|id| shard.directory.get(id)).expect("it was restored");
    let deadline = session.offline_deadline().expect("it is away");
    assert!(deadline >= shard.now.monotonic_ms + 60_000 - 100, "its absence began when the process ended: {deadline}");
}

#[test]
fn a_session_that_outlives_its_connection_no_longer_is_done_with_what_is_retained_once_it_is_sent() {
    let mut shard = Shard::new(Version::V5);
    shard.connect(60, false);
    shard.subscribe("a", Qos::AtLeastOnce);
    assert!(shard.session().is_replaying(), "until its record is removed with the next lazy write");
    shard.drop_connection();
    shard.connect(0, false);
    assert!(shard.records.is_empty(), "its records went before the greeting was answered");
    assert!(!shard.session().is_replaying(), "nothing is left to be removed");
}

#[test]
fn a_live_message_that_was_dropped_comes_as_the_retained_one_although_an_earlier_one_came_live() {
    let mut shard = Shard::new(Version::V5);
    shard.connect(60, false);
    shard.hold_reads = true;
    shard.subscribe("a", Qos::ExactlyOnce);
    let kept =
        |payload: &'static str| Arc::new(Message { topic: "a".into(), ..(*message(payload, Qos::AtMostOnce)).clone() });
    let (older, newer) = (kept("older"), kept("newer"));
    let answer = |shard: &mut Shard, message: &Arc<Message>| {
        let (filter, after) = shard.reads.remove(0);
        shard.call(|session, now, effects| {
            session.on_retained_read(&filter, &after, &[Arc::clone(message)], None, now, effects);
        });
        shard.seen()
    };
    shard.call(|session, _, _| {
        assert!(session.note_live(&older, Qos::AtMostOnce));
        session.lose_live(Some("b"));
        session.lose_live(Some("a"));
    });
    assert_eq!(answer(&mut shard, &older), [""; 0], "what was read before may be older than what came live");
    assert_eq!(shard.reads.len(), 1, "it is read again");
    assert_eq!(answer(&mut shard, &newer), ["RETAINED a q0"]);
    shard.subscribe("a", Qos::ExactlyOnce);
    shard.call(|session, _, _| assert!(session.note_live(&newer, Qos::AtMostOnce)));
    assert_eq!(answer(&mut shard, &newer), [""; 0], "it came live");
}

/// It was published just before the subscription was confirmed, so that its live copy is dropped without a word.
#[test]
fn a_retained_message_of_qos2_comes_although_an_older_live_one_of_qos0_did() {
    let mut shard = Shard::new(Version::V5);
    shard.connect(60, false);
    shard.hold_reads = true;
    let made = |qos: Qos, created_ms: u64| {
        Arc::new(Message { topic: "a".into(), created_ms, ..(*message("kept", qos)).clone() })
    };
    let mut told = |kept: &Arc<Message>, live: &Message, live_qos: Qos| {
        shard.subscribe("a", Qos::ExactlyOnce);
        shard.call(|session, _, _| assert!(session.note_live(live, live_qos)));
        let (filter, after) = shard.reads.remove(0);
        shard.call(|session, now, effects| {
            session.on_retained_read(&filter, &after, &[Arc::clone(kept)], None, now, effects);
        });
        let seen = shard.seen();
        shard.flush();
        [seen, shard.seen()].concat()
    };
    assert_eq!(told(&made(Qos::ExactlyOnce, 5), &made(Qos::AtMostOnce, 6), Qos::AtMostOnce), [""; 0], "it is older");
    assert_eq!(
        told(&made(Qos::ExactlyOnce, 5), &made(Qos::ExactlyOnce, 4), Qos::ExactlyOnce),
        [""; 0],
        "it comes live"
    );
    assert_eq!(told(&made(Qos::AtLeastOnce, 5), &made(Qos::AtMostOnce, 4), Qos::AtMostOnce), [""; 0], "it comes live");
    let seen = told(&made(Qos::ExactlyOnce, 5), &made(Qos::AtMostOnce, 4), Qos::AtMostOnce);
    assert!(seen.iter().any(|seen| *seen == "PUBLISH 1 a q2"), "its live copy is dropped: {seen:?}");
}

/// One that was not taken when it came live is not read in the log either, for its place there is before that from which
/// on the subscription counts.
#[test]
fn a_retained_message_comes_although_it_was_told_of_before_the_subscription_counted() {
    let mut shard = Shard::new(Version::V311);
    shard.connect(60, false);
    shard.hold_reads = true;
    let kept = Arc::new(Message { topic: "a".into(), ..(*message("kept", Qos::AtLeastOnce)).clone() });
    shard.meanwhile = Some(Arc::clone(&kept));
    shard.subscribe("a", Qos::AtLeastOnce);
    let (filter, after) = shard.reads.remove(0);
    shard.call(|session, now, effects| {
        session.on_retained_read(&filter, &after, &[Arc::clone(&kept)], None, now, effects);
    });
    assert_eq!(shard.seen(), ["PUBLISH 1 a q1"]);
}

#[test]
fn what_was_read_before_a_subscription_is_not_sent_for_it_and_there_is_one_read_at_a_time() {
    let mut shard = Shard::new(Version::V5);
    shard.connect(0, false);
    shard.hold_reads = true;
    let answer = |shard: &mut Shard, messages: &[Arc<Message>]| {
        assert_eq!(shard.reads.len(), 1, "one at a time");
        let (filter, after) = shard.reads.remove(0);
        shard.call(|session, now, effects| {
            session.on_retained_read(&filter, &after, messages, None, now, effects);
        });
        shard.seen()
    };
    let stale = Arc::new(Message { topic: "a".into(), ..(*message("stale", Qos::AtMostOnce)).clone() });
    let fresh = Arc::new(Message { topic: "a".into(), ..(*message("fresh", Qos::AtMostOnce)).clone() });
    shard.subscribe("a", Qos::AtMostOnce);
    // Its homes have answered, and a newer one is sent live, before the answer comes.
    shard.subscribe("a", Qos::AtMostOnce);
    assert_eq!(answer(&mut shard, &[Arc::clone(&stale)]), [""; 0], "subscribed anew");
    let properties = Default::default();
    let filters = wire::FilterNames::borrowed(&["a"]);
    shard.send(&wire::Unsubscribe { packet_id: PacketId::MIN, properties, filters });
    shard.subscribe("a", Qos::AtMostOnce);
    assert_eq!(answer(&mut shard, &[stale]), [""; 0], "subscribed again");
    assert_eq!(answer(&mut shard, &[fresh]), ["RETAINED a q0"]);
    assert!(!shard.session().is_replaying() && shard.reads.is_empty());
}

#[test]
fn what_follows_a_greeting_does_not_change_how_it_is_refused() {
    for following in [4, 5, 6] {
        let bytes = [0x10, 6, 0, 4, b'M', b'Q', b'T', b'T', following];
        let Greeting::Refuse { frames, .. } = greet(&bytes, 1000) else { panic!("its level is not there") };
        assert!(frames.is_empty(), "a byte behind it is not its level");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_is_lost_and_qos2_never_comes_twice(ops in proptest::collection::vec((0u8..8, 0u8..40), 1..120)) {
        let mut shard = durable(Version::V5);
        let mut delivered = Vec::new();
        let mut pushed = 0;
        let mut client: BTreeMap<u16, bool> = BTreeMap::new();
        let mut step = |shard: &mut Shard, client: &mut BTreeMap<u16, bool>| {
            for line in shard.seen() {
                let words: Vec<&str> = line.split(' ').collect();
                match words[0] {
                    "PUBLISH" => {
                        let id: u16 = words[1].parse().expect("an id");
                        // A client that keeps its state takes an identifier it holds as the same message.
                        if client.insert(id, false).is_none() {
                            delivered.push(words[2].to_owned());
                        }
                    }
                    "PubRel" => {
                        client.insert(words[1].parse().expect("an id"), true);
                    }
                    _ => {}
                }
            }
            delivered.len()
        };
        for (op, which) in ops {
            match op {
                0..=2 => {
                    pushed += 1;
                    shard.push(&pushed.to_string(), Qos::ExactlyOnce);
                }
                3..=5 => {
                    let nth = usize::from(which) % client.len().max(1);
                    if let Some((&id, &released)) = client.iter().nth(nth) {
                        let kind = if released { AckKind::PubComp } else { AckKind::PubRec };
                        if released {
                            client.remove(&id);
                        }
                        shard.trace = shard.ack(kind, id);
                    }
                }
                6 => {
                    shard.flush();
                    shard.drop_connection();
                    shard.trace = shard.connect(3600, false);
                }
                _ => {
                    shard.crash();
                    shard.trace = shard.connect(3600, false);
                }
            }
            step(&mut shard, &mut client);
        }
        for _ in 0..3 * pushed + 100 {
            let Some((&id, &released)) = client.iter().next() else { break };
            let kind = if released { AckKind::PubComp } else { AckKind::PubRec };
            if released {
                client.remove(&id);
            }
            shard.trace = shard.ack(kind, id);
            step(&mut shard, &mut client);
        }
        let mut sorted = delivered.clone();
        sorted.sort();
        sorted.dedup();
        proptest::prop_assert_eq!(sorted.len(), delivered.len(), "a duplicate: {:?}", delivered);
        proptest::prop_assert_eq!(delivered.len(), pushed);
    }
}

#[test]
fn greetings_are_read_or_refused_in_words_their_peer_knows() {
    let connack = |bytes: &[u8]| match greet(bytes, 1000) {
        Greeting::Refuse { frames, .. } => frames,
        other => panic!("{other:?}"),
    };
    // An empty client identifier without clean session.
    assert_eq!(connack(b"\x10\x0c\0\x04MQTT\x04\x00\0\0\0\0"), [0x20, 2, 0, 2]);
    assert_eq!(connack(b"\x10\x0c\0\x04MQTT\x03\x02\0\0\0\0"), [0x20, 2, 0, 1]);
    assert_eq!(connack(b"\x10\x0d\0\x04MQTT\x06\x02\0\0\0\0\0")[3], 0x84);
    assert!(connack(b"\xc0\x00").is_empty());
    let mut bytes = Vec::new();
    let mut connect = Connect::new(Version::V5, "phone");
    connect.properties.authentication_method = Some("SCRAM");
    connect.encode_to(Version::V5, &mut bytes);
    assert_eq!(connack(&bytes)[3], 0x8C);
    assert!(matches!(greet(&bytes[..5], 1000), Greeting::NeedMore));
}

#[test]
fn publishing_to_system_topics_is_refused() {
    let mut shard = Shard::new(Version::V5);
    shard.connect(0, true);
    assert_eq!(shard.publish("$inbox/x", Qos::AtLeastOnce, 1), ["PubAck 1 87"]);
    assert_eq!(shard.publish("$inbox/x", Qos::ExactlyOnce, 2), ["PubRec 2 87"]);
    assert!(shard.publish("$inbox/x", Qos::AtMostOnce, 0).is_empty());
    assert!(shard.session().extra.is_none() && shard.session().work.is_none(), "nothing is kept of it");
}

#[test]
fn a_smaller_receive_maximum_is_respected_when_in_flight_messages_are_sent_again() {
    let mut shard = durable(Version::V5);
    for label in ["a", "b", "c"] {
        shard.push(label, Qos::AtLeastOnce);
    }
    shard.drop_connection();
    let mut request = shard.request(3600, false);
    request.receive_maximum = 2;
    let seen = shard.open(&request);
    assert_eq!(seen.iter().filter(|line| line.starts_with("PUBLISH")).count(), 2);
    assert_eq!(shard.ack(AckKind::PubAck, 1), ["PUBLISH 3 $inbox/c q1 dup"]);
}

#[test]
fn unsubscribe_answers_for_each_filter() {
    let mut shard = Shard::new(Version::V5);
    shard.connect(0, true);
    shard.subscribe("a/b", Qos::AtMostOnce);
    let filters = ["a/b", "c"];
    let unsubscribe = wire::Unsubscribe {
        packet_id: PacketId::MIN,
        properties: Default::default(),
        filters: wire::FilterNames::borrowed(&filters),
    };
    assert_eq!(shard.send(&unsubscribe), ["pause", "UNSUBACK [00, 11]", "resume"]);
    assert!(shard.session().subscriptions().is_empty());
}

#[test]
fn topic_entries_from_before_the_subscription_are_not_for_it_and_a_full_window_pulls() {
    let mut shard = durable(Version::V5);
    shard.subscribe("t", Qos::AtLeastOnce);
    let mut inner = (*message("x", Qos::AtLeastOnce)).clone();
    inner.topic = "t".into();
    let told = Arc::new(inner);
    let entry = |seq: u64| Entry {
        stream: StreamKey::Topic(AppId(0), "t".into()),
        epoch: Epoch(9),
        offset: Offset(seq),
        seq: Seq(seq),
        message: Arc::clone(&told),
    };
    let mut effects = Effects::default();
    let now = shard.now;
    let session = shard.session();
    for seq in 11..=42 {
        let offer = session.offer_logged(
            LoggedAt::Topics(Seq(seq)),
            (Epoch(9), Offset(seq)),
            &told,
            Qos::AtLeastOnce,
            &mut effects,
        );
        assert!(matches!(offer, Offer::Send(_)));
    }
    let offer =
        session.offer_logged(LoggedAt::Topics(Seq(50)), (Epoch(9), Offset(50)), &told, Qos::AtLeastOnce, &mut effects);
    assert_eq!(offer, Offer::Behind);
    effects.clear();
    handle(session, &[0x40, 0x02, 0x00, 0x01], now, &mut effects);
    let asked = effects.list.iter().any(|effect| matches!(effect, Effect::PullTopics { after: Seq(49), .. }));
    assert!(asked, "{:?}", effects.list);
    effects.clear();
    session.on_topics_pulled(&[entry(9), entry(50)], &[], Seq(60), now, &mut effects);
    let sent = effects.list.iter().filter(|effect| matches!(effect, Effect::Deliver { .. })).count();
    assert_eq!(sent, 1);
    assert!(session.effective_from("t", None, Seq(9)).is_none());
    assert_eq!(session.prefix().topics, Seq(11));
}

#[test]
fn a_clean_session_moves_the_read_mark_when_it_ends() {
    let mut shard = Shard::new(Version::V311);
    shard.connect(0, true);
    shard.subscribe("$inbox/#", Qos::AtLeastOnce);
    for label in ["a", "b"] {
        shard.push(label, Qos::AtLeastOnce);
    }
    shard.ack(AckKind::PubAck, 1);
    assert!(shard.records.is_empty());
    shard.drop_connection();
    let key = super::super::super::core::record::read_mark_key(AppId(0), "alice");
    let mark = shard.records.get(&key).and_then(|value| super::super::super::core::record::parse_read_mark(value));
    assert_eq!(mark, Some((Epoch(5), Offset(1))), "what was not acknowledged is for the next one");
}

#[test]
fn the_read_mark_of_an_only_session_that_is_away_has_no_place_of_its_own_and_is_not_lost() {
    let mut shard = durable(Version::V5);
    let key = super::super::super::core::record::read_mark_key(AppId(0), "alice");
    let recorded = |shard: &Shard| super::super::super::core::record::parse_read_mark(shard.records.get(&key)?);
    let known = |shard: &Shard| shard.directory.read_mark(AppId(0), "alice");
    shard.push("a", Qos::AtLeastOnce);
    shard.ack(AckKind::PubAck, 1);
    shard.flush();
    assert_eq!((recorded(&shard), known(&shard)), (Some((Epoch(5), Offset(1))), Some((Epoch(5), Offset(1)))));
    shard.drop_connection();
    shard.flush();
    assert_eq!((recorded(&shard), known(&shard)), (Some((Epoch(5), Offset(1))), Some(Default::default())));
    shard.connect(3600, false);
    shard.push("b", Qos::AtLeastOnce);
    shard.flush();
    assert_eq!(recorded(&shard), Some((Epoch(5), Offset(1))), "it does not go back");
    shard.ack(AckKind::PubAck, 2);
    shard.flush();
    assert_eq!(recorded(&shard), Some((Epoch(5), Offset(2))));
}

#[test]
fn mqtt5_2_2_1_4_an_identifier_is_never_zero_and_never_in_use() {
    let mut shard = durable(Version::V5);
    shard.push("first", Qos::AtLeastOnce);
    assert_eq!(shard.session().last_delivery, 1);
    // All of them have been used but the last few, and 1 is still in flight.
    shard.session().last_delivery = 65_532;
    for expected in [65_533, 65_534, 65_535, 2, 3] {
        shard.push("more", Qos::AtLeastOnce);
        assert_eq!(shard.session().last_delivery, expected);
    }
    let mut ids: Vec<u16> = shard.session().flights().map(|flight| flight.delivery.0).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3, 65_533, 65_534, 65_535]);
}

/// Decoded again: the decoder takes from each packet only the codes of its own table.
fn readable(version: Version, frames: &[u8]) {
    let mut left = frames;
    while !left.is_empty() {
        let Ok(FrameLen::Known { total_bytes, .. }) = wire::frame_len(left, usize::MAX) else { panic!("{left:x?}") };
        let (frame, rest) = left.split_at(total_bytes);
        assert!(wire::decode(version, frame).is_ok(), "{frame:x?}");
        left = rest;
    }
}

#[test]
fn mqtt5_3_2_2_8_every_refusal_has_a_code_of_connack() {
    let refusals = [
        Refusal::BadCredentials,
        Refusal::NotAuthorized,
        Refusal::QuotaExceeded,
        Refusal::Unavailable,
        Refusal::RateExceeded,
        Refusal::ClientIdentifier,
    ];
    for version in [Version::V5, Version::V311] {
        let request = Shard::new(version).request(0, true);
        for why in refusals {
            for reference in [None, Some("other.example")] {
                let mut frames = Vec::new();
                refuse(&request, why, reference, &mut frames);
                assert!(!frames.is_empty(), "{why:?}");
                readable(version, &frames);
            }
        }
    }
}

#[test]
fn mqtt5_3_14_2_1_every_reason_for_a_close_has_a_code_of_disconnect() {
    for close in CloseReason::ALL {
        for reference in [None, Some("other.example")] {
            for version in [Version::V5, Version::V311] {
                let mut shard = Shard::new(version);
                shard.connect(0, true);
                let mut effects = Effects::default();
                disconnect(shard.session(), close, reference, &mut effects);
                // 3.1.1 has no such packet from a server.
                assert_eq!(effects.control.is_empty(), version == Version::V311, "{close:?}");
                readable(version, &effects.control);
                assert!(effects.list.iter().any(|effect| matches!(effect, Effect::Close(why) if *why == close)));
            }
        }
    }
}

#[test]
fn mqtt5_3_4_2_1_every_answer_to_a_publish_has_a_code_of_its_packet() {
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        for result in [Ok(true), Ok(false), Err(StoreError::Busy), Err(StoreError::Failed)] {
            let mut shard = Shard::new(Version::V5);
            shard.connect(0, true);
            shard.publish("a", qos, 7);
            let (_, receipt) = shard.published.pop().expect("it was routed");
            let mut effects = Effects::default();
            on_published(shard.session(), receipt.expect("it wants an answer"), result, &mut effects);
            assert_eq!(effects.control[0], if qos == Qos::AtLeastOnce { 0x40 } else { 0x50 });
            let code = effects.control.get(4).copied().unwrap_or(0);
            assert_eq!(code >= 0x80, result.is_err(), "{result:?}");
            readable(Version::V5, &effects.control);
        }
    }
}

#[test]
fn mqtt311_4_8_0_2_a_publish_that_cannot_be_stored_ends_the_connection() {
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let mut shard = durable(Version::V311);
        shard.publish("a", qos, 7);
        let lines = shard.answer(0, Err(StoreError::Failed));
        assert_eq!(lines, ["close StoreFailed"], "3.1.1 cannot say no, and must not say yes");
    }
}

#[test]
fn a_session_is_kept_for_the_longest_expiry_at_most_also_when_a_disconnect_asks_for_more() {
    let bound = u32::try_from(crate::limits::SESSION_EXPIRY_MAX.as_secs()).expect("it fits");
    for wanted in [bound - 1, bound, bound + 1, u32::MAX] {
        for at_the_end in [false, true] {
            let mut shard = Shard::new(Version::V5);
            shard.connect(if at_the_end { 1 } else { wanted }, false);
            if at_the_end {
                let properties = wire::properties::DisconnectProperties {
                    session_expiry_seconds: Some(wanted),
                    ..Default::default()
                };
                shard.send(&wire::Disconnect { properties, ..wire::Disconnect::new(Reason::Success) });
            }
            shard.drop_connection();
            let lives_ms = u64::from(wanted.min(bound)) * 1_000;
            let deadline = shard.now.monotonic_ms.next_multiple_of(100) + lives_ms;
            assert_eq!(shard.session().offline_deadline(), Some(deadline), "{wanted}, {at_the_end}");
        }
    }
}

#[test]
fn an_idle_session_has_one_record_until_something_is_settled() {
    let mut shard = durable(Version::V5);
    shard.flush();
    assert_eq!(shard.records.len(), 1, "the main record says where it stands: {:?}", shard.records.keys());
    shard.push("a", Qos::AtLeastOnce);
    shard.push("b", Qos::AtLeastOnce);
    shard.ack(AckKind::PubAck, 1);
    shard.ack(AckKind::PubAck, 2);
    shard.flush();
    let sessions = |shard: &Shard| shard.records.keys().filter(|key| key.starts_with(b"s")).count();
    assert_eq!(sessions(&shard), 2, "what is settled is written");
    // Another main record is no reason to leave the cursor's behind.
    shard.push("c", Qos::AtLeastOnce);
    shard.ack(AckKind::PubAck, 3);
    shard.subscribe("t", Qos::AtLeastOnce);
    shard.flush();
    shard.crash();
    let seen = shard.connect(3600, false);
    assert!(!seen.iter().any(|line| line.starts_with("PUBLISH")), "all was settled: {seen:?}");
}

#[test]
fn a_device_named_as_its_user_is_found_again_by_its_record() {
    let record = super::super::super::core::record::main;
    let identities = [("alice", "alice"), ("alice", "phone"), ("bob", "bob"), ("", "x")];
    let named = |(user, device): (&str, &str)| Identity { app: AppId(3), user: user.into(), device: device.into() };
    let mut page: Vec<_> = identities
        .into_iter()
        .map(|names| record(&Session::new(&named(names))))
        .map(|change| (change.key, change.value.expect("it is written")))
        .collect();
    page.sort();
    let mut directory = Directory::new(KeyedHash::new(8), 16, 16);
    let now = Now { monotonic_ms: 0, wall_ms: 0 };
    assert_eq!(directory.thaw_records(&page, now), Default::default());
    assert_eq!(directory.thaw_records(&[], now), Default::default());
    for (user, device) in identities {
        assert!(directory.find(AppId(3), user, device).is_some(), "{user}/{device}");
    }
    assert_eq!(directory.sessions(), identities.len());
}

#[test]
fn a_received_id_committed_after_its_session_ended_is_not_the_next_sessions() {
    let mut shard = durable(Version::V5);
    let before = shard.records.clone();
    shard.publish("t", Qos::ExactlyOnce, 9);
    // The publish is committed at its topic's home, and that may be after a clean start has removed the session.
    let late: Vec<_> = shard.records.clone().into_iter().filter(|(key, _)| !before.contains_key(key)).collect();
    assert_eq!(late.len(), 1);
    shard.drop_connection();
    shard.connect(3600, true);
    shard.records.extend(late.clone());
    shard.crash();
    assert!(shard.records.keys().all(|key| *key != late[0].0), "it is removed");
    shard.connect(3600, false);
    assert_eq!(shard.publish("t", Qos::ExactlyOnce, 9), ["route t"]);
    // Nor does it take the place of the next session's own.
    shard.answer(1, Ok(true));
    shard.records.extend(late);
    shard.crash();
    shard.connect(3600, false);
    assert_eq!(shard.publish("t", Qos::ExactlyOnce, 9), ["PubRec 9 00"]);
}

#[test]
fn refused_and_unknown_acks_are_counted() {
    let mut effects = Effects::default();
    let mut shard = durable(Version::V5);
    let id = shard.id.expect("opened");
    let session = shard.directory.get_mut(id).expect("it lives");
    let bytes = [0x40, 0x02, 0x00, 0x07];
    handle(session, &bytes, Now::default(), &mut effects);
    assert!(effects.list.is_empty() && effects.counted == [Counter::UnknownAck]);
    assert!(session.flights().all(|flight| flight.state != Flight::Settled));
}

#[test]
fn sessions_found_at_start_share_the_text_of_their_filter() {
    let shard = durable(Version::V5);
    let (key, value) = shard.records.first_key_value().expect("it is recorded");
    let at = key.windows(5).position(|window| window == b"phone").expect("the key names the device");
    let named = |device: &[u8; 5]| ([&key[..at], device, &key[at + 5..]].concat().into_boxed_slice(), value.clone());
    let mut directory = Directory::new(KeyedHash::new(8), 16, 16);
    assert_eq!(directory.thaw_records(&[named(b"one's"), named(b"other")], shard.now), Default::default());
    assert_eq!(directory.thaw_records(&[], shard.now), Default::default());
    let texts: Vec<_> = directory.iter().map(|(_, session)| session.subscriptions()[0].text.shared()).collect();
    assert!(texts.len() == 2 && Arc::ptr_eq(texts[0], texts[1]), "{texts:?}");
}
