//! What is told when something that was acknowledged has not come: whether the gateway has it, and where those stand whom
//! it has not reached.

use crate::consumer;
use crate::gateway::Place;
use crate::ledger::{Ledger, position_text};
use std::collections::BTreeMap;

/// Examples told of each receiver.
const TOLD_MAX: usize = 5;

/// Asserts that nothing is missing.
pub fn check(place: &Place, ledger: &Ledger, missing: &[(String, String)]) {
    assert!(missing.is_empty(), "{}", tell(place, ledger, missing));
}

/// About these, receivers with payloads.
pub fn tell(place: &Place, ledger: &Ledger, missing: &[(String, String)]) -> String {
    let mut of_receiver: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (receiver, payload) in missing {
        of_receiver.entry(receiver).or_default().push(payload);
    }
    // Nothing here is asked of the gateway while the others wait for the ledger.
    let (fallen, does, at) = {
        let facts = ledger.lock();
        let does = facts.consumer_does.as_ref().map(|(what, since)| format!("{what}, for {:?}", since.elapsed()));
        (facts.fallen.clone(), does.unwrap_or_default(), facts.consumer_at)
    };
    let mut lines = vec![format!("{} of what was acknowledged is missing", missing.len())];
    if !fallen.is_empty() {
        lines.push(format!("threads that have panicked, as is said above: {fallen:?}"));
    }
    lines.push(format!("the consumer of events has read up to {}; it {does}", position_text(at)));
    let stored = match consumer::stored(place, None) {
        Ok(stored) => stored,
        Err(status) => {
            lines.push(format!("the stream of events cannot be read: {status}"));
            BTreeMap::new()
        }
    };
    for (receiver, payloads) in of_receiver {
        lines.push(format!("{receiver} lacks {}, such as", payloads.len()));
        lines.extend(payloads.iter().take(TOLD_MAX).map(|payload| {
            let facts = ledger.lock();
            let (places, positions) = (facts.places.get(*payload), facts.positions.get(*payload));
            let stored = stored.get(*payload).map(|position| position_text(*position));
            format!("  {payload}: pushed to {places:?}, told to backends as {positions:?}, in the stream as {stored:?}")
        }));
        if let Some((user, _)) = receiver.split_once('/') {
            let state = place.request("GET", &format!("/v1/users/{user}"), "");
            lines.push(format!("  the gateway says of {user}: {state:?}"));
        }
    }
    lines.join("\n")
}
