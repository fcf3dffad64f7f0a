//! Processes that follow each other on one directory and on sockets that somebody else holds, under load.

use super::{PATIENCE, QUIET, habits, is_exactly_once, produce, wait_for_backend};
use crate::backend::Backend;
use crate::client::Client;
use crate::consumer;
use crate::gateway::{Gateway, Place, Start};
use crate::lack;
use crate::ledger::{Ledger, check};
use crate::random::Random;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Processes after the first.
const ROUNDS: u64 = 6;
/// Between two attempts to connect: of those that come while nobody accepts, the socket's queue holds 128.
const PACE: Duration = Duration::from_millis(20);

/// Connects again and again, until clients are to stop: how often, and each attempt that was refused.
fn knock(to: SocketAddr, ledger: &Ledger) -> (u64, Vec<String>) {
    let (mut attempts, mut refused) = (0, Vec::new());
    while !ledger.wait_for(PACE, |facts| facts.clients_stop) {
        attempts += 1;
        match TcpStream::connect_timeout(&to, PATIENCE) {
            Ok(stream) => drop(stream),
            Err(error) => refused.push(format!("attempt {attempts} at {to}: {error}")),
        }
    }
    (attempts, refused)
}

/// The next process. It is started when the one before has ended, or while that still serves.
fn next((place, backend): (&Place, Backend), before: Option<Gateway>, round: u64, random: &mut Random) -> Gateway {
    let mut environment = backend.environment();
    environment.push(("KITTIWAKE_LIMITS_INBOX_ENTRIES", "100000".to_owned()));
    let start = Start { shards: 1 + random.below(3) as usize, environment, ..Start::default() };
    let begin = move |place: &Place| place.start(&start).expect("it serves");
    let Some(mut before) = before else { return begin(place) };
    if round.is_multiple_of(2) {
        assert_eq!(before.stop(), Some(0), "{}", before.said());
        return begin(place);
    }
    let waiting = {
        let place = place.clone();
        thread::spawn(move || begin(&place))
    };
    // Whether it has come as far as to the directory makes no difference.
    thread::park_timeout(QUIET * 5);
    assert_eq!(before.stop(), Some(0), "{}", before.said());
    waiting.join().expect("the starter does not panic")
}

#[test]
fn processes_that_are_passed_the_listeners_lose_nothing_and_refuse_nobody() {
    let mut random = Random(1);
    let folder = tempfile::tempdir().expect("the temporary directory is writable");
    let (place, ledger) = (Place::held(&folder.path().join("data")), Arc::new(Ledger::default()));
    ledger.tell(|facts| (facts.producing, facts.clients) = (1, habits().len() + 1));
    let knockers = [place.edge, place.api].map(|to| {
        let ledger = Arc::clone(&ledger);
        thread::spawn(move || knock(to, &ledger))
    });
    let clients: Vec<_> = habits()
        .into_iter()
        .map(|(name, habits)| {
            let client = Client::new(name, &place, &ledger, habits, Random(random.bits()));
            ledger.spawn(name, move || client.run())
        })
        .collect();
    let producer = {
        let (place, mine, mut random) = (place.clone(), Arc::clone(&ledger), Random(random.bits()));
        ledger.spawn("x", move || {
            assert!(mine.wait_for(PATIENCE, |facts| facts.all_ready()), "not all are ready");
            produce("x", &place, &mine, &mut random);
        })
    };
    let consumer = consumer::start(&place, &ledger, Random(random.bits()));
    let backend = Backend::start(&ledger, Random(random.bits()));
    let mut serving = None;
    for round in 0..=ROUNDS {
        ledger.tell(|facts| facts.is_up = false);
        let gateway = next((&place, backend), serving.take(), round, &mut random);
        if round == 0 {
            wait_for_backend(&place, &ledger);
        }
        let from = ledger.tell(|facts| {
            facts.generation += 1;
            facts.is_up = true;
            facts.progress
        });
        assert!(ledger.wait_for(PATIENCE, |facts| facts.all_ready() && facts.progress >= from + 60), "nothing happens");
        serving = Some(gateway);
    }
    ledger.tell(|facts| facts.producers_stop = true);
    assert!(ledger.wait_for(PATIENCE, |facts| facts.producing == 0), "a push is not answered");
    lack::check(&place, &ledger, &ledger.settle());
    ledger.tell(|facts| facts.clients_stop = true);
    for thread in clients.into_iter().chain([producer, consumer]) {
        thread.join().expect("no thread panics");
    }
    let mut last = serving.expect("the last one serves");
    assert_eq!(last.stop(), Some(0), "{}", last.said());
    for knocker in knockers {
        let (attempts, refused) = knocker.join().expect("no thread panics");
        assert!(attempts > ROUNDS && refused.is_empty(), "{attempts} attempts, refused: {refused:?}");
    }
    check(&ledger.lock(), is_exactly_once);
}
