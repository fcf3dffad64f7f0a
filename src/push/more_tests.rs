//! The API's router against a fake data plane: pushes that wait for devices, what is known of users, keys.

use super::fake::{Behaviour, Bench, NOW_MS, answer, post, to_alice};
use super::*;
use crate::base::ids::{AppId, Epoch, Offset};
use crate::base::message::StreamKey;
use crate::base::secret::Secret;
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

#[tokio::test]
async fn a_key_is_good_for_its_scopes_alone() {
    let key = |scope, secret| ApiKey::new(Apps::All, secret).expect("short").with_scopes(Scopes::of([scope]));
    let keys =
        [("key-that-pushes-1", Scope::Push), ("key-that-reads-22", Scope::Read), ("key-of-an-operator", Scope::Admin)];
    let bench = Bench::with_keys(true, 8, ApiKeys::new(keys.map(|(secret, scope)| key(scope, secret)).into()));
    let asks = [
        (post("/v1/push"), to_alice(json!("x")).to_string(), [200, 403, 403]),
        (Request::get("/v1/users/alice"), String::new(), [403, 200, 403]),
        (Request::get("/v1/stats"), String::new(), [403, 200, 403]),
        (post("/v1/users/alice/disconnect"), String::new(), [403, 403, 200]),
        (post("/v1/drain"), String::new(), [403, 403, 202]),
    ];
    let mut refusals = 0;
    for (request, body, expected) in asks {
        let (head, ()) = request.body(()).expect("a request").into_parts();
        for ((secret, _), status) in keys.iter().zip(expected) {
            let mut request = Request::from_parts(head.clone(), Body::from(body.clone()));
            let value = format!("Bearer {secret}").parse().expect("ASCII");
            request.headers_mut().insert(header::AUTHORIZATION, value);
            assert_eq!(answer(bench.send(request).await).await.0, status, "{} {secret}", head.uri);
            refusals += u64::from(status == 403);
        }
    }
    assert_eq!(bench.own("refused_scope"), refusals);
}

#[tokio::test]
async fn requests_come_from_where_the_node_and_the_key_say() {
    let network = |text: &str| vec![text.parse().expect("a network")];
    let key = ApiKey::new(Apps::All, "key-to-everything").expect("short").only_from(network("10.1.0.0/16"));
    let bench = Bench::with_keys(false, 8, ApiKeys::new(vec![key]).only_from(network("10.0.0.0/8")));
    for (peer, path, status) in [
        ("10.1.2.3", "/v1/stats", 200),
        ("10.2.2.3", "/v1/stats", 403),
        ("11.1.2.3", "/v1/stats", 403),
        ("11.1.2.3", "/readyz", 200),
    ] {
        let mut request = Request::get(path).body(Body::empty()).expect("a request");
        request.headers_mut().insert(header::AUTHORIZATION, "Bearer key-to-everything".parse().expect("ASCII"));
        request.extensions_mut().insert(Peer(peer.parse().expect("an address")));
        assert_eq!(answer(bench.send(request).await).await.0, status, "{peer} {path}");
    }
    assert_eq!(bench.own("refused_address"), 2);
}

#[tokio::test]
async fn a_signed_request_is_good_once_and_as_it_was_signed() {
    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const NOW_S: u64 = NOW_MS / 1_000;
    let key = ApiKey::signing(Apps::Some([AppId(0)].into()), "back", Secret::from(SECRET));
    let bench = Bench::with_keys(false, 8, ApiKeys::new(vec![key]));
    let body = to_alice(json!("x")).to_string();
    let signed = |secret: &str, seconds, nonce: &str| {
        signature::sign(secret, ("POST", "/v1/push?app=default"), (seconds, nonce), body.as_bytes())
    };
    let send = async |authorization: &str, path: &str, body: &str| {
        let request = post(path).header(header::AUTHORIZATION, authorization);
        answer(bench.send(request.body(Body::from(body.to_owned())).expect("a request")).await).await.0
    };
    let path = "/v1/push?app=default";
    let good = signed(SECRET, NOW_S, "1");
    let changed = body.replace('x', "y");
    assert_eq!(send(&good, path, &changed).await, 401, "another body");
    assert_eq!(send(&good, "/v1/push?app=shop", &body).await, 401, "another path");
    assert_eq!(send(&signed("f".repeat(32).as_str(), NOW_S, "1"), path, &body).await, 401, "another key");
    assert_eq!(send(&good.replace("nonce=1", "nonce=2"), path, &body).await, 401, "another nonce");
    assert_eq!(send(&good.replace("id=back", "id=nobody"), path, &body).await, 401, "another name");
    assert_eq!(send(&signed(SECRET, NOW_S - 31, "1"), path, &body).await, 401, "too long ago");
    assert_eq!(send(&signed(SECRET, NOW_S + 31, "1"), path, &body).await, 401, "not yet");
    assert_eq!(bench.push_count(), 0);
    assert_eq!(send(&good, path, &body).await, 200);
    assert_eq!(send(&good, path, &body).await, 401, "again");
    assert_eq!(send(&signed(SECRET, NOW_S, "2"), path, &body).await, 200, "the same, asked for twice");
    assert_eq!(send(&signed(SECRET, NOW_S - 30, "1"), path, &body).await, 200);
    assert_eq!(bench.push_count(), 3);
    let counted =
        ["refused_signed_body", "refused_signature", "refused_key", "refused_signature_time", "refused_replay"];
    assert_eq!(counted.map(|name| bench.own(name)), [1, 3, 1, 2, 1]);
}

#[tokio::test]
async fn a_wish_to_drain_reaches_the_node_and_is_answered_at_once() {
    let bench = Bench::new();
    let (status, reply) = bench.post("/v1/drain", "").await;
    assert_eq!((status, reply), (202, json!({ "draining": true })));
    bench.control.drain_wanted().await;
}
