use super::super::filter::matches;
use super::*;
use crate::base::ids::Qos;
use bytes::Bytes;
use proptest::prelude::*;

const APP: AppId = AppId(0);
const ALL: Step = Step { visits: 1_000, messages: 1_000, bytes: 1 << 20 };

fn message(topic: &str, payload: &str, expires_ms: Option<u64>) -> Arc<Message> {
    Arc::new(Message {
        app: APP,
        topic: topic.into(),
        only_device: None,
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos: Qos::AtLeastOnce,
        retain: true,
        created_ms: 0,
        expires_ms,
        publisher: None,
        properties: None,
    })
}

fn retained(capacity: usize, bytes: usize) -> Retained {
    Retained::new(Capacity { messages: capacity, bytes })
}

fn topics(found: &Found) -> Vec<&str> {
    found.messages.iter().map(|message| &*message.topic).collect()
}

#[test]
fn the_newest_message_stays_and_an_empty_one_leaves_none() {
    let mut retained = retained(10, 100);
    retained.put(&message("a", "1", None));
    retained.put(&message("a", "22", None));
    assert_eq!(&retained.get(APP, "a").expect("it is there").payload[..], b"22");
    assert_eq!((retained.len(), retained.bytes()), (1, 3));
    retained.put(&message("a", "", None));
    assert_eq!((retained.get(APP, "a"), retained.len(), retained.bytes()), (None, 0, 0));
}

#[test]
fn messages_are_bounded_at_n_with_those_on_their_way() {
    let mut retained = retained(2, 100);
    let [a, b, c] = ["a", "b", "c"].map(|topic| message(topic, "x", None));
    retained.put(&a);
    assert_eq!(retained.reserve(&b), Ok(()));
    assert_eq!(retained.reserve(&c), Err(Full));
    assert_eq!(retained.reserve(&message("c", "", None)), Ok(()), "an empty one takes no room");
    retained.settle(&message("c", "", None), true);
    retained.settle(&b, false);
    assert_eq!(retained.reserve(&c), Ok(()), "what was not committed gives its room back");
    retained.settle(&c, true);
    assert_eq!(retained.reserve(&message("a", "y", None)), Ok(()), "a replacement needs no further place");
}

#[test]
fn bytes_are_bounded_at_n_and_refused_at_n_plus_one() {
    for (payload, expected) in [("12345678", Ok(())), ("123456789", Ok(())), ("1234567890", Err(Full))] {
        assert_eq!(retained(9, 10).reserve(&message("a", payload, None)), expected, "{payload}");
    }
}

#[test]
fn what_is_over_its_time_vanishes_when_it_is_found_or_swept() {
    let mut retained = retained(10, 100);
    retained.put(&message("a", "x", Some(5)));
    retained.put(&message("b", "x", Some(6)));
    assert_eq!(retained.read(APP, "a", "", ALL, 4).messages.len(), 1);
    let found = retained.read(APP, "#", "", ALL, 5);
    assert_eq!((topics(&found), found.expired.len(), retained.len()), (vec!["b"], 1, 1));
    let swept = retained.sweep(APP, "", 10, 6);
    assert_eq!((swept.messages.len(), swept.expired.len(), retained.len()), (0, 1, 0));
}

#[test]
fn a_step_ends_at_its_visits_its_messages_and_its_bytes() {
    let mut retained = retained(10, 100);
    ["a", "b", "c"].iter().for_each(|topic| retained.put(&message(topic, "xx", None)));
    for step in [Step { visits: 2, ..ALL }, Step { messages: 2, ..ALL }, Step { bytes: 4, ..ALL }] {
        let found = retained.read(APP, "#", "", step, 0);
        assert_eq!((topics(&found), found.more.as_deref()), (vec!["a", "b"], Some("b")), "{step:?}");
        let rest = retained.read(APP, "#", "b", ALL, 0);
        assert_eq!((topics(&rest), &rest.more), (vec!["c"], &None));
    }
    assert_eq!(topics(&retained.read(APP, "#", "", Step { bytes: 0, ..ALL }, 0)), ["a"]);
}

proptest! {
    #[test]
    fn reading_in_steps_finds_what_matches_once_in_order(
        names in prop::collection::btree_set("[ab$!]{1,2}(/[ab0.]{0,2}){0,2}", 0..30),
        filter in prop::sample::select(vec!["#", "+", "a/#", "a", "+/a", "a/+", "a/+/b", "$/#", "$a", "+/#", "b/b/#", "/#"]),
        visits in 1_usize..5,
    ) {
        let mut retained = retained(100, 10_000);
        names.iter().for_each(|name| retained.put(&message(name, "x", None)));
        let expected: Vec<&String> = names.iter().filter(|name| matches(filter, name)).collect();
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let step = retained.read(APP, filter, &after, Step { visits, ..ALL }, 0);
            prop_assert!(step.visited <= visits);
            found.extend(step.messages.iter().map(|message| message.topic.to_string()));
            match step.more {
                Some(more) => after = more.to_string(),
                None => break,
            }
        }
        prop_assert_eq!(found.iter().collect::<Vec<_>>(), expected);
    }
}
