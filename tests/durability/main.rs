//! The real process, killed: everything that was acknowledged is there afterwards, once and in order.
//!
//! Clients over real sockets receive, publish and come and go while backends push with idempotency keys and push again
//! whatever was not answered, one is told of the publishes by webhook and one reads them by gRPC. The process dies again and again, by kill -9
//! from outside at a random moment or by its own hand at a durable point (`src/shard/failpoint.rs`), and is started
//! again with another number of shards.
//!
//! `DURABILITY_KILLS=50 DURABILITY_SEED=7 cargo test --test durability -- --nocapture` is a long run. A seed repeats all
//! decisions; how threads and sockets interleave is the machine's.

mod backend;
mod client;
mod consumer;
mod damage;
mod gateway;
mod handover;
mod lack;
mod ledger;
#[path = "../ports/mod.rs"]
mod ports;
mod random;

use backend::Backend;
use client::{Client, Habits, raw};
use gateway::{PATIENCE, Place, Start, eventually};
use kittiwake::base::ids::Qos;
use ledger::{Facts, Ledger, check, position_text};
use random::Random;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// In CI; a run by hand says more.
const KILLS: u64 = 12;
/// How long something is waited for before the process is looked at.
const QUIET: Duration = Duration::from_millis(20);
/// Points at which the process kills itself, with when; the fifth is
/// `a_qos2_delivery_in_flight_outlives_retention_and_a_kill`.
const POINTS: [&str; 10] = [
    "flight:before",
    "flight:after",
    "released:before",
    "released:after",
    "received:before",
    "received:after",
    "received-removed:before",
    "received-removed:after",
    "any:before",
    "any:after",
];
/// Receivers, each a user with one device.
const RECEIVERS: [&str; 4] = ["a/1", "b/1", "c/1", "d/1"];

fn number_of(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// A backend: pushes one after the other, each until it is answered.
fn produce(name: &str, place: &Place, ledger: &Ledger, random: &mut Random) {
    for number in 1_u64.. {
        if ledger.lock().producers_stop {
            ledger.tell(|facts| facts.producing -= 1);
            return;
        }
        let qos = 1 + random.below(2);
        let payload = format!("{name} q{qos} {number}");
        let (to, receivers): (Value, Vec<&str>) = match random.below(10) {
            0..4 => {
                let receiver = *random.pick(&RECEIVERS);
                (json!({ "user": user_of(receiver) }), vec![receiver])
            }
            4..7 => (json!({ "topic": format!("t/{}", random.below(2)) }), vec!["a/1", "b/1"]),
            _ => (json!({ "users": RECEIVERS.map(user_of) }), RECEIVERS.to_vec()),
        };
        let body = json!({ "to": to, "payload": payload, "qos": qos, "key": payload });
        let answer = push_until_answered(place, ledger, &body);
        let stream = match (&to["user"], &to["topic"]) {
            (Value::String(user), _) => Some(format!("inbox {user}")),
            (_, Value::String(topic)) => Some(format!("topic {topic}")),
            _ => None,
        };
        ledger.tell(|facts| note(facts, &payload, &receivers, stream.as_deref(), &answer));
    }
}

fn user_of(receiver: &str) -> &str {
    receiver.split('/').next().expect("user/device")
}

fn push_until_answered(place: &Place, ledger: &Ledger, body: &Value) -> Value {
    loop {
        let generation = ledger.lock().generation;
        match place.push(body) {
            Ok((200, answer)) => return answer,
            Ok((429 | 503, _)) => {}
            Ok((status, answer)) => panic!("{body} was answered {status} {answer}"),
            // The process has died, and whether it has the push is not known.
            Err(_) => drop(ledger.wait_for(PATIENCE, |facts| facts.is_up && facts.generation > generation)),
        }
    }
}

fn note(facts: &mut Facts, payload: &str, receivers: &[&str], stream: Option<&str>, answer: &Value) {
    facts.pushes += 1;
    facts.progress += 1;
    facts.duplicates_answered += u64::from(answer["duplicate"] == true);
    for result in answer["results"].as_array().expect("results") {
        let stream = match (stream, &result["user"]) {
            (Some(stream), _) => stream.to_owned(),
            (None, user) => format!("inbox {}", user.as_str().expect("a list's result names its user")),
        };
        let epoch = result["epoch"].as_str().expect("it is stored").to_owned();
        let offset = result["offset"].as_u64().expect("it is stored");
        facts.places.entry(payload.to_owned()).or_default().push(ledger::Place { stream, epoch, offset });
    }
    let owed = facts.owed.entry(payload.to_owned()).or_default();
    owed.extend(receivers.iter().map(|&receiver| receiver.to_owned()));
}

fn habits() -> Vec<(&'static str, Habits)> {
    let filters = |all: &[(&str, Qos)]| all.iter().map(|(filter, qos)| ((*filter).to_owned(), *qos)).collect();
    let two = Qos::ExactlyOnce;
    let a = filters(&[("$inbox/#", two), ("t/+", two), ("c/#", two)]);
    let b = filters(&[("$inbox/#", two), ("t/0", two), ("t/1", two), ("c/1", two), ("c/2", two)]);
    let c = filters(&[("$inbox/#", two)]);
    let d = filters(&[("$inbox/#", Qos::AtLeastOnce)]);
    let receiver = |filters, comes_and_goes, is_slow| Habits { filters, publishes_to: None, comes_and_goes, is_slow };
    let publisher = |topic: &str, comes_and_goes| Habits {
        publishes_to: Some(topic.to_owned()),
        comes_and_goes,
        ..Habits::default()
    };
    vec![
        ("a/1", receiver(a, false, false)),
        ("b/1", receiver(b, true, true)),
        ("c/1", receiver(c, true, false)),
        ("d/1", receiver(d, true, true)),
        ("p/1", publisher("c/1", false)),
        ("q/1", publisher("c/2", true)),
    ]
}

/// Until the backend's group is on record: what happens before is not owed to it.
fn wait_for_backend(place: &Place, ledger: &Ledger) {
    eventually("the backend is told", || {
        drop(raw::connect(place, "probe", "1"));
        ledger.lock().comings > 0
    });
}

/// One process after the other, each but the last killed. How often each point was met.
fn kill_again_and_again(
    (place, backend): (&Place, Backend),
    ledger: &Ledger,
    kills: u64,
    random: &mut Random,
) -> BTreeMap<String, u64> {
    let mut met = BTreeMap::new();
    for kill in 0..=kills {
        ledger.check_threads();
        let is_last = kill == kills;
        let failpoint = (kill > 0 && !is_last && kill % 3 != 0).then(|| {
            let point = POINTS[(kill * 2 / 3) as usize % POINTS.len()];
            format!("{point}:{}", 1 + random.below(20))
        });
        let mut environment = backend.environment();
        environment.push(("KITTIWAKE_LIMITS_INBOX_ENTRIES", "100000".to_owned()));
        let start = Start {
            shards: 1 + random.below(3) as usize,
            failpoint: failpoint.clone(),
            environment,
            ..Start::default()
        };
        let Some(mut gateway) = place.start(&start) else {
            let failpoint = failpoint.expect("it ends by itself only at a point");
            *met.entry(point_of(&failpoint).to_owned()).or_default() += 1;
            continue;
        };
        if kill == 0 {
            wait_for_backend(place, ledger);
        }
        let from = ledger.tell(|facts| {
            facts.generation += 1;
            facts.is_up = true;
            facts.progress
        });
        if is_last {
            ledger.tell(|facts| facts.producers_stop = true);
            assert!(ledger.wait_for(PATIENCE, |facts| facts.producing == 0), "a push is not answered");
            lack::check(place, ledger, &ledger.settle());
            check_keys(place, ledger);
            check_stored(place, ledger);
            ledger.tell(|facts| facts.clients_stop = true);
            assert_eq!(gateway.stop(), Some(0), "{}", gateway.said());
            break;
        }
        // Nothing is killed before all subscriptions stand: what is owed is known from there on.
        assert!(ledger.wait_for(PATIENCE, |facts| kill > 0 || facts.all_ready()), "not all are ready");
        let steps = 20 + random.below(150);
        // A process with a point meets it sooner or later.
        let until = if failpoint.is_some() { u64::MAX } else { from + steps };
        let deadline = Instant::now() + PATIENCE;
        while !gateway.has_ended() && !ledger.wait_for(QUIET, |facts| facts.progress >= until) {
            assert!(Instant::now() < deadline, "{failpoint:?}: nothing happens");
        }
        assert!(failpoint.is_some() || !gateway.has_ended(), "it ended by itself: {}", gateway.said());
        ledger.tell(|facts| facts.is_up = false);
        gateway.kill();
        *met.entry(failpoint.as_deref().map_or("outside", point_of).to_owned()).or_default() += 1;
    }
    met
}

/// Whether this receiver must not get this message twice: at QoS 1 a device may, and a backend may always.
fn is_exactly_once(receiver: &str, payload: &str) -> bool {
    !["d/1", backend::NAME, consumer::NAME].contains(&receiver) && !payload.contains(" q1 ")
}

/// The point at which a process kills itself, without the count.
fn point_of(failpoint: &str) -> &str {
    failpoint.rsplit_once(':').expect("point, when, count").0
}

/// A key that was answered is answered the same, and with another body refused.
fn check_keys(place: &Place, ledger: &Ledger) {
    let places = ledger.lock().places.clone();
    let singles = places.iter().filter(|(_, places)| places.len() == 1).step_by(7);
    for (payload, known) in singles.take(40) {
        let ledger::Place { stream, epoch, offset } = &known[0];
        let (kind, name) = stream.split_once(' ').expect("kind and name");
        let to = if kind == "inbox" { json!({ "user": name }) } else { json!({ "topic": name }) };
        let answers: Vec<_> = [1, 2]
            .map(|qos| json!({ "to": to, "payload": payload, "qos": qos, "key": payload }))
            .map(|body| place.push(&body).expect("the API answers"))
            .into();
        let (same, other): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(status, _)| *status == 200);
        assert!(same.len() == 1 && other[0].0 == 409, "{payload}: {same:?} {other:?}");
        let answer = &same[0].1;
        assert_eq!(answer["duplicate"], true, "{payload}");
        assert_eq!((&answer["results"][0]["offset"], &answer["results"][0]["epoch"]), (&json!(offset), &json!(epoch)));
    }
}

/// The stream of events has each publish that was acknowledged once, under the position that backends were told.
fn check_stored(place: &Place, ledger: &Ledger) {
    let newest = ledger.lock().newest_position();
    let stored = consumer::stored(place, Some(newest)).expect("the stream can be read from its beginning");
    let facts = ledger.lock();
    for (payload, _) in facts.owed.iter().filter(|(_, owed)| owed.iter().any(|receiver| receiver == consumer::NAME)) {
        let position = stored.get(payload).map(|position| position_text(*position));
        let told = facts.positions[payload].first();
        assert_eq!(position.as_ref(), told, "{payload} in the stream, and as backends were told of it");
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9_once_and_in_order() {
    let kills = number_of("DURABILITY_KILLS", KILLS);
    let seed = number_of("DURABILITY_SEED", 1);
    let mut random = Random(seed);
    let folder = tempfile::tempdir().expect("the temporary directory is writable");
    let (place, ledger) = (Place::new(&folder.path().join("data")), Arc::new(Ledger::default()));
    ledger.tell(|facts| (facts.producing, facts.clients) = (2, habits().len() + 1));
    let clients: Vec<_> = habits()
        .into_iter()
        .map(|(name, habits)| {
            let client = Client::new(name, &place, &ledger, habits, Random(random.bits()));
            ledger.spawn(name, move || client.run())
        })
        .collect();
    let producers: Vec<_> = ["x", "y"]
        .map(|name| {
            let (place, mine, mut random) = (place.clone(), Arc::clone(&ledger), Random(random.bits()));
            ledger.spawn(name, move || {
                assert!(mine.wait_for(PATIENCE, |facts| facts.all_ready()), "not all are ready");
                produce(name, &place, &mine, &mut random);
            })
        })
        .into();
    let consumer = consumer::start(&place, &ledger, Random(random.bits()));
    let backend = Backend::start(&ledger, Random(random.bits()));
    let met = kill_again_and_again((&place, backend), &ledger, kills, &mut random);
    for thread in producers.into_iter().chain(clients).chain([consumer]) {
        thread.join().expect("no thread panics");
    }
    let facts = ledger.lock();
    // What the last publishes of a device were is complete by now, so all of it is owed.
    check(&facts, is_exactly_once);
    let delivered: usize = facts.receipts.values().map(|receipts| receipts.order.len()).sum();
    println!(
        "seed {seed}: {kills} kills {met:?}; {} pushes and {} publishes acknowledged, {delivered} deliveries, {} repeated \
         at QoS 1 or to backends, which were told of {} publishes under one position each, {} sessions resumed, the \
         consumer of events {} times behind one of its {} acknowledgements, with {} receipts and {} gaps among them, {} \
         keys answered as duplicates",
        facts.pushes,
        facts.publishes,
        facts.redelivered,
        facts.positions.len(),
        facts.sessions_resumed,
        facts.consumer_resumed,
        facts.consumer_acknowledged,
        facts.receipts_told,
        facts.gaps,
        facts.duplicates_answered
    );
    assert_eq!(met.values().sum::<u64>(), kills);
    let lacking: Vec<_> = POINTS[..8].iter().filter(|point| !met.contains_key(**point)).collect();
    assert!(kills < KILLS || lacking.is_empty(), "not met: {lacking:?}");
    assert!(facts.pushes > kills && facts.publishes > kills && facts.sessions_resumed > kills);
    assert!(facts.consumer_resumed > kills / 2 && facts.consumer_acknowledged > 0 && facts.receipts_told > 0);
}
