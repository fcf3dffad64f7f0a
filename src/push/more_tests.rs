//! The API's router against a fake data plane: pushes that wait for devices, what is known of users, keys.

use super::fake::{Behaviour, Bench, NOW_MS, answer, post, to_alice};
use super::*;
use crate::base::ids::{AppId, Epoch, Offset};
use crate::base::message::StreamKey;
use crate::shard::command::{CommandError, HistoryQuery, Place};
use axum::body::Body;
use axum::http::{Request, header};
use serde_json::{Value, json};

#[tokio::test]
async fn a_push_that_waits_for_devices_names_those_that_have_it() {
    let bench = Bench::new();
    let mut body = to_alice(json!("x"));
    assert_eq!(bench.push(&body).await.1["results"][0].get("delivered"), None);
    body["wait"] = json!("delivered");
    body["timeout_ms"] = json!(1_500);
    let (status, reply) = bench.push(&body).await;
    assert_eq!((status, &reply["results"][0]["delivered"]), (200, &json!(["phone"])));
    assert_eq!(bench.pushed().deliver_within, Some(core::time::Duration::from_millis(1_500)));
}

#[tokio::test(start_paused = true)]
async fn a_push_that_waits_for_devices_is_given_up_after_its_shard_should_have_answered() {
    let bench = Bench::new();
    bench.behave(Behaviour::Silent);
    let mut body = to_alice(json!("x"));
    body["wait"] = json!("delivered");
    body["timeout_ms"] = json!(1_000);
    let begun = tokio::time::Instant::now();
    assert_eq!(bench.push(&body).await.0, 504);
    let waited = begun.elapsed();
    let expected = core::time::Duration::from_secs(1) + limits::DELIVERY_ANSWER_GRACE;
    assert!(waited >= expected && waited < expected + core::time::Duration::from_millis(100), "{waited:?}");
}

#[tokio::test]
async fn what_is_known_of_a_users_devices_is_told() {
    let bench = Bench::new();
    let (status, reply) = bench.get("/v1/users/alice").await;
    let phone = json!({
        "device": "phone", "online": true, "session_expiry_seconds": 60, "subscriptions": 2, "in_flight": 3,
        "offset": 16, "epoch": "00000000000000ab", "unread": 1,
    });
    let alice = json!({
        "user": "alice", "online": 1, "unread": 2, "read_offset": 15, "epoch": "00000000000000ab", "devices": [phone],
    });
    assert_eq!((status, reply), (200, alice));
    let nobody = json!({ "user": "nobody", "online": 0, "unread": 0, "devices": [] });
    assert_eq!(bench.get("/v1/users/nobody").await, (200, nobody));
    assert_eq!(bench.get("/v1/users/alice?app=nobody").await.0, 404);
    assert_eq!(bench.get(&format!("/v1/users/{}", "u".repeat(limits::IDENTITY_BYTES_MAX + 1))).await.0, 400);
    bench.behave(Behaviour::Refuse(CommandError::Busy));
    assert_eq!(bench.get("/v1/users/alice").await.0, 429);
    assert_eq!(bench.own("commands_pending"), 0);
}

#[tokio::test]
async fn a_part_of_a_stream_is_told_with_where_it_stands() {
    let bench = Bench::new();
    let (status, reply) = bench.get("/v1/topics/rooms%2F42/history?after=2&epoch=00000000000000ab&limit=3").await;
    let entries = json!([
        {
            "offset": 4, "topic": "$inbox/orders", "payload": "one", "content_type": "text/plain", "qos": 1,
            "at_ms": NOW_MS - 5, "ttl_ms": 900,
        },
        {
            "offset": 6, "topic": "$inbox/orders", "payload_base64": "/w==", "qos": 1, "device": "phone",
            "at_ms": NOW_MS - 5,
        },
    ]);
    let gap = json!({ "reason": "trimmed", "first": 3, "entries": 1 });
    let page = json!({
        "epoch": "00000000000000ab", "first": 4, "last": 6, "next": 6, "more": false, "gap": gap, "entries": entries,
    });
    assert_eq!((status, reply), (200, page));
    let (status, reply) = bench.get("/v1/users/al%2Fice/inbox").await;
    assert_eq!((status, reply.get("gap")), (200, None));
    let (_, reply) = bench.get("/v1/users/ann/inbox?after=2&epoch=00000000000000ff&limit=0&app=shop").await;
    assert_eq!(reply["gap"], json!({ "reason": "unknown_position" }));
    let place = |epoch: u64| Some(Place { epoch: Some(Epoch(epoch)), offset: Offset(2) });
    let query = |stream, after, limit| HistoryQuery { stream, after, limit };
    let asked = bench.fake.queries.lock().expect("not poisoned").clone();
    let expected = [
        query(StreamKey::Topic(AppId(0), "rooms/42".into()), place(0xab), 3),
        query(StreamKey::Inbox(AppId(0), "al/ice".into()), None, limits::HISTORY_PAGE_DEFAULT),
        query(StreamKey::Inbox(AppId(1), "ann".into()), place(0xff), 0),
    ];
    assert_eq!(asked, expected);
}

#[tokio::test]
async fn what_is_no_part_of_a_stream_is_refused() {
    let bench = Bench::new();
    let over = limits::HISTORY_PAGE_MAX + 1;
    for path in [
        "/v1/topics/rooms%2F%2B/history".to_owned(),
        "/v1/topics/$SYS/history".to_owned(),
        "/v1/users/ann/inbox?after=x".to_owned(),
        "/v1/users/ann/inbox?epoch=00000000000000ab".to_owned(),
        "/v1/users/ann/inbox?after=1&epoch=ab".to_owned(),
        format!("/v1/users/ann/inbox?limit={over}"),
        "/v1/users/ann/inbox?more=1".to_owned(),
        format!("/v1/users/{}/inbox", "u".repeat(limits::IDENTITY_BYTES_MAX + 1)),
    ] {
        assert_eq!(bench.get(&path).await.0, 400, "{path}");
    }
    assert_eq!(bench.get("/v1/users/ann/inbox?app=nobody").await.0, 404);
    bench.behave(Behaviour::Fail(CommandError::StoreFailed));
    let (status, reply) = bench.get("/v1/users/ann/inbox").await;
    assert_eq!((status, &reply["detail"]), (503, &json!("the store cannot be read now")));
}

#[tokio::test]
async fn who_is_in_a_topic_is_told_where_a_rule_shows_it() {
    let bench = Bench::new();
    let present = json!({ "topic": "rooms/42", "count": 7, "users": ["alice", "bob"] });
    assert_eq!(bench.get("/v1/topics/rooms%2F42/presence").await, (200, present));
    assert_eq!(bench.get("/v1/topics/halls/presence").await.0, 404);
    assert_eq!(bench.get("/v1/topics/a%2F%23/presence").await.0, 400);
}

/// Keys for everything, for `default`, and for `shop`.
fn keys() -> ApiKeys {
    let key = |apps, secret| ApiKey::new(apps, secret).expect("short");
    ApiKeys::new(vec![
        key(Apps::All, "key-to-everything"),
        key(Apps::Some([AppId(0)].into()), "key-to-default-app"),
        key(Apps::Some([AppId(1)].into()), "key-to-the-shop-app"),
    ])
}

#[tokio::test]
async fn a_key_speaks_for_its_apps_and_nobody_else() {
    let bench = Bench::with_keys(true, 8, keys());
    let ask = async |key: Option<&str>, path: &str, body: Option<Value>| {
        let mut request = if body.is_some() { post(path) } else { Request::get(path) };
        if let Some(key) = key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let request = request.header(header::HOST, "example.org").body(body).expect("a request");
        let response = bench.send(request).await;
        let challenge = response.headers().get(header::WWW_AUTHENTICATE).cloned();
        let status = answer(response).await.0;
        assert_eq!(challenge.is_some(), status == 401, "{path}");
        status
    };
    let push = || Some(to_alice(json!("x")));
    let in_app = |app: &str| {
        let mut body = to_alice(json!("x"));
        body["app"] = json!(app);
        Some(body)
    };
    // With keys, no name of the host is asked for; but a request with two of them has none.
    assert_eq!(ask(None, "/v1/push", push()).await, 401);
    assert_eq!(ask(Some("key-to-nothing-here"), "/v1/push", push()).await, 401);
    assert_eq!(ask(Some("key-to-everything"), "/v1/push", in_app("shop")).await, 200);
    assert_eq!(ask(Some("key-to-the-shop-app"), "/v1/push", in_app("shop")).await, 200);
    assert_eq!(ask(Some("key-to-the-shop-app"), "/v1/push", push()).await, 200);
    assert_eq!(bench.pushed().app, AppId(1), "who names no app means its own");
    assert_eq!(ask(Some("key-to-the-shop-app"), "/v1/push", in_app("default")).await, 403);
    assert_eq!(ask(Some("key-to-default-app"), "/v1/users/alice?app=shop", None).await, 403);
    assert_eq!(ask(Some("key-to-default-app"), "/v1/users/alice", None).await, 200);
    let batch = json!({ "pushes": [push(), in_app("default")] });
    assert_eq!(ask(Some("key-to-the-shop-app"), "/v1/push/batch", Some(batch)).await, 200);
    // Figures are of all apps.
    assert_eq!(ask(None, "/v1/stats", None).await, 401);
    assert_eq!(ask(Some("key-to-default-app"), "/v1/stats", None).await, 403);
    assert_eq!(ask(Some("key-to-everything"), "/v1/stats", None).await, 200);
    assert_eq!(ask(Some("key-to-default-app"), "/v2/anything", None).await, 403);
    assert_eq!(ask(None, "/readyz", None).await, 200);
}

#[tokio::test]
async fn a_store_that_hangs_or_has_failed_is_503_at_once_for_what_has_to_be_stored() {
    let bench = Bench::new();
    *bench.fake.healthy.lock().expect("not poisoned") = false;
    // It would say nothing: the log hangs.
    bench.behave(Behaviour::Silent);
    let stored = json!({ "to": { "user": "alice" }, "payload": "x", "qos": 1 });
    let keyed = json!({ "to": { "user": "alice" }, "payload": "x", "qos": 0, "key": "k" });
    for push in [stored, keyed] {
        let (status, problem) = bench.push(&push).await;
        assert_eq!(status, 503, "{problem}");
    }
    bench.behave(Behaviour::Answer);
    let unlogged = json!({ "to": { "user": "alice" }, "payload": "x", "qos": 0 });
    assert_eq!(bench.push(&unlogged).await.0, 200);
    *bench.fake.healthy.lock().expect("not poisoned") = true;
    assert_eq!(bench.push(&to_alice("x".into())).await.0, 200);
}
