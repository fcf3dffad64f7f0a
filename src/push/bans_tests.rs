//! `/v1/bans` and `api.push_rate` against a fake data plane, and what `collapse` means to a key.

use super::fake::{Behaviour, Bench, NOW_MS, answer, to_alice};
use super::*;
use crate::base::ids::AppId;
use crate::shard::command::CommandError;
use axum::body::Body;
use axum::http::{Method, Request, header};
use serde_json::{Value, json};

/// With a key, or none.
async fn ask(bench: &Bench, method: Method, path: &str, key: Option<&str>, body: &Value) -> (u16, Value) {
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
    request = request.header(header::CONTENT_TYPE, "application/json");
    if let Some(key) = key {
        request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
    }
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    answer(bench.send(request.body(body).expect("a request")).await).await
}

#[tokio::test]
async fn bans_are_added_listed_and_lifted() {
    let bench = Bench::new();
    let range = json!({ "source": "192.0.2.0/24", "seconds": 60, "reason": "abuse" });
    let (status, reply) = ask(&bench, Method::POST, "/v1/bans", None, &range).await;
    let until = NOW_MS + 60_000;
    let expected =
        json!({ "source": "192.0.2.0/24", "since_ms": NOW_MS, "until_ms": until, "by": "operator", "reason": "abuse" });
    assert_eq!((status, reply), (200, expected.clone()));
    let (status, reply) = ask(&bench, Method::POST, "/v1/bans?app=shop", None, &json!({ "user": "mallory" })).await;
    let user = json!({ "user": "mallory", "app": "shop", "since_ms": NOW_MS, "by": "operator" });
    assert_eq!((status, reply), (200, user.clone()), "without an end");
    let node =
        |app: &str| json!({ "user": "eve", "app": app, "since_ms": 1, "until_ms": 2, "by": "node", "before": 1 });
    let list = bench.get("/v1/bans").await;
    assert_eq!(list, (200, json!({ "bans": [expected, user.clone(), node("default"), node("shop")] })));
    assert_eq!(bench.get("/v1/bans?app=shop").await.1, json!({ "bans": [user, node("shop")] }));
    for removed in [true, false] {
        let path = "/v1/bans?source=192.0.2.0/24";
        assert_eq!(ask(&bench, Method::DELETE, path, None, &Value::Null).await, (200, json!({ "removed": removed })));
    }
    let path = "/v1/bans?user=mallory&app=shop";
    assert_eq!(ask(&bench, Method::DELETE, path, None, &Value::Null).await.1, json!({ "removed": true }));
    assert_eq!(bench.own("commands_pending"), 0);
}

#[tokio::test]
async fn what_is_no_ban_is_refused_by_name() {
    let bench = Bench::new();
    for (body, field) in [
        (json!({}), None),
        (json!({ "user": "a", "source": "::1" }), None),
        (json!({ "user": "a", "until": 5 }), None),
        (json!({ "source": "10.0.0.1/8" }), Some("source")),
        (json!({ "user": "" }), Some("user")),
        (json!({ "user": "a", "seconds": 0 }), Some("seconds")),
        (json!({ "user": "a", "reason": "r".repeat(limits::BAN_REASON_BYTES_MAX + 1) }), Some("reason")),
    ] {
        let (status, problem) = ask(&bench, Method::POST, "/v1/bans", None, &body).await;
        assert_eq!((status, problem["field"].as_str()), (400, field), "{body}");
    }
    assert_eq!(ask(&bench, Method::POST, "/v1/bans", None, &json!({ "user": "a", "app": "no" })).await.0, 404);
    assert_eq!(ask(&bench, Method::DELETE, "/v1/bans", None, &Value::Null).await.0, 400);
    bench.behave(Behaviour::Fail(CommandError::Busy));
    assert_eq!(ask(&bench, Method::POST, "/v1/bans", None, &json!({ "user": "a" })).await.0, 429);
    bench.behave(Behaviour::Fail(CommandError::StoreFailed));
    assert_eq!(ask(&bench, Method::POST, "/v1/bans", None, &json!({ "user": "a" })).await.0, 503);
}

#[tokio::test]
async fn a_key_of_an_app_bans_its_users_and_no_addresses() {
    const SHOP: &str = "the-shop-key-0123";
    let key = ApiKey::new(Apps::Some([AppId(1)].into()), SHOP).expect("it is short");
    let bench = Bench::with_keys(true, 8, ApiKeys::new(vec![key]));
    let mine = json!({ "user": "mallory" });
    let (status, reply) = ask(&bench, Method::POST, "/v1/bans", Some(SHOP), &mine).await;
    assert_eq!((status, &reply["app"]), (200, &json!("shop")));
    let others = json!({ "user": "mallory", "app": "default" });
    for (method, path, body) in [
        (Method::POST, "/v1/bans", others),
        (Method::POST, "/v1/bans", json!({ "source": "192.0.2.1" })),
        (Method::DELETE, "/v1/bans?source=192.0.2.1", Value::Null),
        (Method::DELETE, "/v1/bans?user=mallory&app=default", Value::Null),
        (Method::GET, "/v1/bans?app=default", Value::Null),
    ] {
        assert_eq!(ask(&bench, method, path, Some(SHOP), &body).await.0, 403, "{path} {body}");
    }
    let (status, list) = ask(&bench, Method::GET, "/v1/bans", Some(SHOP), &Value::Null).await;
    let users: Vec<&str> =
        list["bans"].as_array().expect("a list").iter().filter_map(|ban| ban["user"].as_str()).collect();
    assert_eq!((status, users), (200, vec!["mallory", "eve"]));
    assert_eq!(ask(&bench, Method::GET, "/v1/bans", None, &Value::Null).await.0, 401);
}

#[tokio::test]
async fn a_key_stands_for_the_collapse_of_its_push_too() {
    let bench = Bench::new();
    let mut hashes = Vec::new();
    for collapse in [None, Some("a"), Some("b"), Some("a")] {
        let mut body = to_alice(json!("x"));
        body["key"] = json!("k");
        if let Some(collapse) = collapse {
            body["collapse"] = json!(collapse);
        }
        assert_eq!(bench.push(&body).await.0, 200);
        let pushed = bench.pushed();
        let carried = pushed.message.properties.as_ref().and_then(|properties| properties.collapse.as_deref());
        assert_eq!(carried, collapse);
        hashes.push(pushed.key.expect("it has one").1);
    }
    assert!(hashes[0] != hashes[1] && hashes[1] != hashes[2] && hashes[1] == hashes[3]);
}

#[tokio::test(start_paused = true)]
async fn an_app_that_pushes_more_than_it_may_is_told_to_come_back() {
    let bench = Bench::with_push_rate(10, &[]);
    let users: Vec<String> = (0..150).map(|number| number.to_string()).collect();
    let list = json!({ "to": { "users": users }, "payload": "x" });
    assert_eq!(bench.push(&list).await.0, 200, "a list is taken whole, though a hundred is the burst");
    let (status, problem) = bench.push(&to_alice(json!("x"))).await;
    assert_eq!(status, 429, "{problem}");
    let mut other = to_alice(json!("x"));
    other["app"] = json!("shop");
    assert_eq!(bench.push(&other).await.0, 200, "another app has its own");
    tokio::time::advance(core::time::Duration::from_millis(4_900)).await;
    assert_eq!(bench.push(&to_alice(json!("x"))).await.0, 429);
    tokio::time::advance(core::time::Duration::from_millis(100)).await;
    assert_eq!(bench.push(&to_alice(json!("x"))).await.0, 200, "what was owed has flowed in");
}

#[tokio::test(start_paused = true)]
async fn an_app_may_have_a_push_rate_of_its_own() {
    let bench = Bench::with_push_rate(1_000, &[None, Some(1)]);
    let mut of_shop = to_alice(json!("x"));
    of_shop["app"] = json!("shop");
    for _ in 0..11 {
        assert_eq!(bench.push(&of_shop).await.0, 200);
    }
    assert_eq!(bench.push(&of_shop).await.0, 429, "ten are its burst, and one is owed");
    assert_eq!(bench.push(&to_alice(json!("x"))).await.0, 200, "the others have the rate of all");
    let refused = bench.control.own_stats().into_iter().find(|(name, _)| *name == "refused_push_rate");
    assert_eq!(refused, Some(("refused_push_rate", 1)));
}
