//! Pushes that a topic keeps.

use super::*;

#[tokio::test]
async fn a_retained_push_is_for_topics() {
    let bench = Bench::new();
    let body = json!({ "to": { "topic": "rooms/42" }, "payload": "x", "retain": true, "key": "k" });
    assert_eq!(bench.push(&body).await.0, 200);
    let retained = bench.pushed();
    assert!(retained.message.retain);
    let body = json!({ "to": { "topic": "rooms/42" }, "payload": "x", "key": "k" });
    assert_eq!(bench.push(&body).await.0, 200);
    assert_ne!(bench.pushed().key, retained.key, "its key stands for another push");
}
