//! The API's router against a fake data plane: pushes that wait for devices, what is known of users, keys.

use super::fake::{Behaviour, Bench, answer, post, to_alice};
use super::*;
use crate::base::ids::AppId;
use crate::shard::command::CommandError;
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
        "offset": 16, "epoch": "00000000000000ab",
    });
    assert_eq!((status, reply), (200, json!({ "user": "alice", "devices": [phone] })));
    assert_eq!(bench.get("/v1/users/nobody").await, (200, json!({ "user": "nobody", "devices": [] })));
    assert_eq!(bench.get("/v1/users/alice?app=nobody").await.0, 404);
    assert_eq!(bench.get(&format!("/v1/users/{}", "u".repeat(limits::IDENTITY_BYTES_MAX + 1))).await.0, 400);
    bench.behave(Behaviour::Refuse(CommandError::Busy));
    assert_eq!(bench.get("/v1/users/alice").await.0, 429);
    assert_eq!(bench.own("commands_pending"), 0);
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
