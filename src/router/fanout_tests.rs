//! Tests of the fan-out job, against a model and at its bounds.

use super::super::EVERYONE;
use super::super::filter::matches;
use super::super::subscribers::Subscriber;
use super::*;
use crate::base::ids::Qos;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const APP: AppId = AppId(0);
const ALL: usize = usize::MAX / 4;

fn house() -> (Fanout<u32>, Subscribers) {
    (Fanout::new(KeyedHash::new(1)), Subscribers::new(KeyedHash::new(1)))
}

fn quiet(session: u32) -> Subscriber {
    Subscriber { session, options: Options::new(Qos::AtMostOnce) }
}

/// Runs with `budget` and returns (session, topic, messages) of every visit.
fn run(fanout: &mut Fanout<u32>, subscribers: &mut Subscribers, budget: usize) -> Vec<(u32, String, Vec<u32>)> {
    let mut visits = Vec::new();
    fanout.run(budget, subscribers, |step| {
        if let Step::Visit(visit) = step {
            visits.push((visit.session, visit.topic.to_owned(), visit.messages.to_vec()));
        }
    });
    visits
}

#[test]
fn messages_that_wait_together_are_written_in_one_visit_and_later_ones_in_the_next_pass() {
    let (mut fanout, mut all) = house();
    (0..3).for_each(|session| assert_eq!(all.subscribe(APP, "t", quiet(session)).position, session));
    (1..=16).for_each(|message| fanout.submit(APP, "t", message).expect("there is room"));
    let first = run(&mut fanout, &mut all, 2);
    assert_eq!(first, [(0, "t".into(), (1..=16).collect())]);
    fanout.submit(APP, "t", 17).expect("there is room");
    let rest = run(&mut fanout, &mut all, ALL);
    assert_eq!(
        rest.iter().map(|visit| (visit.0, visit.2.len())).collect::<Vec<_>>(),
        [(1, 16), (2, 16), (0, 1), (1, 1), (2, 1)]
    );
    assert_eq!((fanout.jobs(), fanout.pending()), (0, 0));
}

#[test]
fn who_subscribes_during_a_pass_gets_only_later_messages() {
    let (mut fanout, mut all) = house();
    (0..2).for_each(|session| assert_eq!(all.subscribe(APP, "t", quiet(session)).position, session));
    fanout.submit(APP, "t", 1).expect("there is room");
    assert_eq!(run(&mut fanout, &mut all, 2).len(), 1);
    all.subscribe(APP, "t", quiet(2));
    fanout.submit(APP, "t", 2).expect("there is room");
    let visits = run(&mut fanout, &mut all, ALL);
    assert!(visits.iter().all(|visit| visit.0 != 2 || visit.2 == [2]));
    assert_eq!(visits.iter().filter(|visit| visit.0 == 2).count(), 1);
}

#[test]
fn a_small_topic_is_not_starved_by_a_long_list() {
    let (mut fanout, mut all) = house();
    (0..10_000).for_each(|session| assert_eq!(all.subscribe(APP, "big", quiet(session)).position, session));
    all.subscribe(APP, "small", quiet(7));
    fanout.submit(APP, "big", 1).expect("there is room");
    assert_eq!(run(&mut fanout, &mut all, FANOUT_SLICE_VISITS_MAX).len(), FANOUT_SLICE_VISITS_MAX - 1);
    fanout.submit(APP, "small", 2).expect("there is room");
    let visits = run(&mut fanout, &mut all, 2 * FANOUT_SLICE_VISITS_MAX);
    assert!(visits.contains(&(7, "small".into(), vec![2])));
}

#[test]
fn the_budget_bounds_the_visits_of_a_call_at_n_minus_one_n_and_n_plus_one() {
    for (subscribers, more) in [(8_u32, false), (9, false), (10, true)] {
        let (mut fanout, mut all) = house();
        (0..subscribers).for_each(|session| assert_eq!(all.subscribe(APP, "t", quiet(session)).position, session));
        fanout.submit(APP, "t", 1).expect("there is room");
        let progress = fanout.run(10, &mut all, |_| {});
        assert_eq!((progress.charged, progress.more), (10.min(subscribers as usize + 1), more));
    }
}

#[test]
fn pending_messages_are_bounded_and_the_one_too_many_comes_back() {
    let (mut fanout, mut all) = house();
    all.subscribe(APP, "t", quiet(0));
    for message in 0..FANOUT_PENDING_MAX {
        fanout.submit(APP, "t", u32::try_from(message).expect("few")).expect("there is room");
    }
    assert_eq!(fanout.submit(APP, "t", 9_999), Err(9_999));
    let visits = run(&mut fanout, &mut all, ALL);
    assert_eq!(visits.len(), FANOUT_PENDING_MAX.div_ceil(FANOUT_BATCH_MAX));
    let messages: Vec<u32> = visits.into_iter().flat_map(|visit| visit.2).collect();
    assert_eq!(messages, (0..u32::try_from(FANOUT_PENDING_MAX).expect("few")).collect::<Vec<_>>());
    assert_eq!(fanout.submit(APP, "t", 9_999), Ok(()));
}

#[test]
fn topics_are_bounded_and_the_one_too_many_comes_back() {
    let (mut fanout, mut all) = house();
    for topic in 0..FANOUT_JOBS_MAX {
        fanout.submit(APP, &topic.to_string(), 1).expect("there is room");
    }
    assert_eq!(fanout.submit(APP, "one more", 1), Err(1));
    assert_eq!(fanout.submit(APP, "0", 1), Ok(()), "a topic that has a job needs no other");
    fanout.run(ALL, &mut all, |step| assert!(matches!(step, Step::Ended(_)), "nobody subscribes"));
    assert_eq!((fanout.jobs(), fanout.pending()), (0, 0));
    assert_eq!(fanout.submit(APP, "one more", 1), Ok(()));
}

#[test]
fn everyone_s_list_is_reached_by_its_name_alone() {
    let (mut fanout, mut all) = house();
    all.subscribe(APP, "#", quiet(1));
    all.subscribe(APP, EVERYONE, quiet(2));
    all.subscribe(AppId(1), EVERYONE, quiet(3));
    fanout.submit(APP, EVERYONE, 5).expect("there is room");
    assert_eq!(run(&mut fanout, &mut all, ALL), [(2, EVERYONE.into(), vec![5])]);
}

#[test]
fn overlapping_filters_deliver_on_the_first_list_of_the_pass() {
    let (mut fanout, mut all) = house();
    let places: Vec<_> = ["a/b", "#", "a/+"].map(|filter| all.subscribe(APP, filter, quiet(4))).into();
    fanout.submit(APP, "a/b", 1).expect("there is room");
    let position = |filter| places.iter().find(|place| place.filter == filter).map(|place| place.position);
    let mut firsts = Vec::new();
    fanout.run(ALL, &mut all, |step| {
        let Step::Visit(visit) = step else { return };
        firsts.push((visit.lists[visit.list].filter, visit.is_first(position), visit.pass));
    });
    let pass = firsts[0].2;
    assert_eq!(
        firsts,
        [(places[0].filter, true, pass), (places[1].filter, false, pass), (places[2].filter, false, pass)]
    );
}

#[test]
fn a_filter_joined_after_the_pass_started_does_not_hide_the_visit_of_an_older_one() {
    let (mut fanout, mut all) = house();
    (0..2).for_each(|session| assert_eq!(all.subscribe(APP, "t", quiet(session)).position, session));
    let old = all.subscribe(APP, "#", quiet(9));
    fanout.submit(APP, "t", 1).expect("there is room");
    assert_eq!(run(&mut fanout, &mut all, 2).len(), 1);
    let new = all.subscribe(APP, "t", quiet(9));
    let places = [old, new];
    let position = |filter| places.iter().find(|place| place.filter == filter).map(|place| place.position);
    let mut delivered = 0;
    fanout.run(ALL, &mut all, |step| {
        if let Step::Visit(visit) = step {
            delivered += usize::from(visit.session == 9 && visit.is_first(position));
        }
    });
    assert_eq!(delivered, 1);
}

#[test]
fn a_crowded_list_is_compacted_before_the_next_pass_starts() {
    let (mut fanout, mut all) = house();
    let count = 4 * u32::try_from(crate::limits::FANOUT_TOMBSTONES_MIN).expect("few");
    let filter = all.subscribe(APP, "+", quiet(0)).filter;
    (1..count).for_each(|session| assert_eq!(all.subscribe(APP, "+", quiet(session)).position, session));
    fanout.submit(APP, "t", 1).expect("there is room");
    assert_eq!(run(&mut fanout, &mut all, 2).len(), 1);
    (1..count - 10).for_each(|position| assert_eq!(all.unsubscribe(filter, position).moved, None));
    // The pass on `t` holds the list, so that a pass on `u` has to wait until it is over and the list compacted.
    fanout.submit(APP, "u", 2).expect("there is room");
    let (mut order, mut calls, mut more) = (Vec::new(), 0, true);
    while more {
        let progress = fanout.run(100, &mut all, |step| match step {
            Step::Visit(visit) => order.push(visit.messages[0]),
            Step::Moved(_) => order.push(0),
            Step::Ended(_) => {}
        });
        (more, calls) = (progress.more, calls + 1);
        assert!(calls < 200, "every call makes progress");
    }
    assert_eq!(order.iter().filter(|&&message| message == 1).count(), 10);
    assert_eq!(order.iter().filter(|&&message| message == 2).count(), 11);
    let last_of_first = order.iter().rposition(|&message| message == 1);
    assert!(last_of_first < order.iter().position(|&message| message == 2));
    assert_eq!(all.entries(filter).len(), 11);
}

#[derive(Clone, Debug)]
enum Action {
    Subscribe(u32, usize),
    Unsubscribe(u32, usize),
    Submit(usize),
    Run(usize),
}

const FILTERS: [&str; 5] = ["a", "b", "+", "#", "a/#"];
const TOPICS: [&str; 3] = ["a", "b", "a/b"];

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => (0_u32..12, 0..FILTERS.len()).prop_map(|(session, filter)| Action::Subscribe(session, filter)),
        2 => (0_u32..12, 0..FILTERS.len()).prop_map(|(session, filter)| Action::Unsubscribe(session, filter)),
        2 => (0..TOPICS.len()).prop_map(Action::Submit),
        3 => (1_usize..8).prop_map(Action::Run),
    ]
}

/// What the subscribers should be, and what they have been given.
#[derive(Default)]
struct Model {
    /// (session, filter) → (its number, its position, the step it subscribed at).
    places: BTreeMap<(u32, usize), (FilterId, u32, usize)>,
    /// When a message was submitted, and to which topic.
    messages: Vec<(usize, usize)>,
    /// (session, filter, its subscription's step, message).
    visited: BTreeSet<(u32, usize, usize, u32)>,
    /// (session, filter, step) → the last message per topic, to see the order.
    newest: BTreeMap<(u32, usize, usize), [u32; TOPICS.len()]>,
    step: usize,
}

impl Model {
    fn visit(&mut self, visit: &Visit<'_, u32>) {
        let filter = visit.lists[visit.list].filter;
        let of_list = |&(&(session, _), &(id, _, _)): &(&(u32, usize), &(FilterId, u32, usize))| {
            session == visit.session && id == filter
        };
        let (&key, &(_, _, since)) = self.places.iter().find(of_list).expect("only who subscribes is visited");
        let topic = TOPICS.iter().position(|&topic| topic == visit.topic).expect("a topic of the test");
        assert!(matches(FILTERS[key.1], visit.topic));
        for &message in visit.messages {
            assert_eq!(self.messages[message as usize].1, topic);
            assert!(self.visited.insert((key.0, key.1, since, message)), "nobody is visited twice on one list");
            let newest = &mut self.newest.entry((key.0, key.1, since)).or_default()[topic];
            assert!(*newest <= message, "messages of a topic come in order");
            *newest = message;
        }
    }

    fn moved(&mut self, moved: Moved) {
        let place = self.places.iter_mut().find(|(key, place)| key.0 == moved.session && place.0 == moved.filter);
        place.expect("only who subscribes moves").1.1 = moved.position;
    }

    fn apply(&mut self, action: &Action, fanout: &mut Fanout<u32>, all: &mut Subscribers) {
        self.step += 1;
        match *action {
            Action::Subscribe(session, filter) => {
                let step = self.step;
                self.places.entry((session, filter)).or_insert_with(|| {
                    let place = all.subscribe(APP, FILTERS[filter], quiet(session));
                    (place.filter, place.position, step)
                });
            }
            Action::Unsubscribe(session, filter) => {
                if let Some((id, position, _)) = self.places.remove(&(session, filter)) {
                    all.unsubscribe(id, position).moved.into_iter().for_each(|moved| self.moved(moved));
                }
            }
            Action::Submit(topic) => {
                let message = u32::try_from(self.messages.len()).expect("few");
                self.messages.push((self.step, topic));
                fanout.submit(APP, TOPICS[topic], message).expect("there is room");
            }
            Action::Run(budget) => {
                fanout.run(budget, all, |step| match step {
                    Step::Visit(visit) => self.visit(&visit),
                    Step::Moved(moved) => self.moved(moved),
                    Step::Ended(_) => {}
                });
            }
        }
        for (&(session, _), &(id, position, _)) in &self.places {
            assert_eq!(all.subscriber(id, position), Some(quiet(session)), "sessions know their positions");
        }
        assert_eq!(all.live(), self.places.len());
    }
}

proptest! {
    #[test]
    fn who_subscribes_throughout_gets_every_message_once_and_nobody_after_leaving(
        actions in prop::collection::vec(action(), 0..120),
    ) {
        let (mut fanout, mut all) = house();
        let mut model = Model::default();
        for action in &actions {
            model.apply(action, &mut fanout, &mut all);
        }
        while fanout.jobs() > 0 || all.has_uncompacted() {
            model.apply(&Action::Run(5), &mut fanout, &mut all);
        }
        for (&(session, filter), &(_, _, since)) in &model.places {
            for (message, &(at, topic)) in (0_u32..).zip(&model.messages) {
                if at > since && matches(FILTERS[filter], TOPICS[topic]) {
                    prop_assert!(model.visited.contains(&(session, filter, since, message)));
                }
            }
        }
        for (session, filter) in model.places.keys().copied().collect::<Vec<_>>() {
            model.apply(&Action::Unsubscribe(session, filter), &mut fanout, &mut all);
        }
        prop_assert_eq!((all.filters(), all.trie_nodes(), all.live()), (0, 0, 0));
        prop_assert_eq!((fanout.jobs(), fanout.pending()), (0, 0));
    }
}
