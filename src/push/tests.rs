//! The API's router against a fake data plane.

mod retained;

use super::control::Failure;
use super::fake::{Behaviour, Bench, NOW_MS, PACKET_BYTES, answer, post, to_alice};
use super::keys::Caller;
use super::*;
use crate::base::ids::{AppId, Qos};
use crate::shard::command::{CommandError, CommandToken, Event, Target};
use axum::body::Body;
use axum::http::{Request, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};

#[tokio::test]
async fn a_push_to_a_user_has_the_defaults_of_the_contract() {
    let bench = Bench::new();
    let (status, reply) = bench.push(&to_alice(json!("hello"))).await;
    assert_eq!(status, 200);
    let expected = json!({
        "id": "00000000-0000-0000-0000-00000000001d",
        "results": [{ "user": "alice", "offset": 17, "epoch": "00000000000000ab", "online": 2 }],
        "duplicate": false,
    });
    assert_eq!(reply, expected);
    let push = bench.pushed();
    assert_eq!((push.app, push.target.clone()), (AppId(0), Target::User(Arc::from("alice"))));
    assert_eq!(&*push.message.topic, "$inbox/push");
    assert_eq!(&push.message.payload[..], b"hello");
    assert_eq!(push.message.qos, Qos::AtLeastOnce);
    assert_eq!((push.message.created_ms, push.message.expires_ms), (NOW_MS, None));
    assert!(!push.message.retain && push.key.is_none() && push.message.properties.is_none());
}

#[tokio::test]
async fn all_fields_of_a_push_arrive() {
    let bench = Bench::new();
    let body = json!({
        "app": "shop", "to": { "device": { "user": "alice", "device": "phone" } }, "label": "orders/7",
        "payload_base64": "AP8=", "content_type": "application/cbor", "qos": 2, "ttl_ms": 1000, "key": "k",
        "retain": false, "wait": "stored", "timeout_ms": 60000,
    });
    assert_eq!(bench.push(&body).await.0, 200);
    let push = bench.pushed();
    assert_eq!(push.app, AppId(1));
    assert_eq!(push.target, Target::Device { user: Arc::from("alice"), device: Arc::from("phone") });
    assert_eq!(push.message.app, AppId(1));
    assert_eq!(&*push.message.topic, "$inbox/orders/7");
    assert_eq!(push.message.only_device.as_deref(), Some("phone"));
    assert_eq!(&push.message.payload[..], [0, 255]);
    assert_eq!((push.message.qos, push.message.expires_ms), (Qos::ExactlyOnce, Some(NOW_MS + 1_000)));
    let properties = push.message.properties.clone().expect("there is a content type");
    assert_eq!(properties.content_type.as_deref(), Some("application/cbor"));
    assert_eq!(&*push.key.expect("there is a key").0, "k");
}

#[tokio::test]
async fn topics_and_everyone_are_targets_too() {
    let bench = Bench::new();
    let (status, reply) = bench.push(&json!({ "to": { "topic": "rooms/42" }, "payload": "x" })).await;
    assert_eq!((status, &reply["results"]), (200, &json!([{ "offset": 5, "epoch": "00000000000000ab" }])));
    assert_eq!(&*bench.pushed().message.topic, "rooms/42");
    let (status, _) = bench.push(&json!({ "to": { "everyone": true }, "label": "news", "payload": "x" })).await;
    assert_eq!(status, 200);
    let push = bench.pushed();
    assert_eq!((push.target, &*push.message.topic), (Target::Everyone, "$inbox/news"));
}

#[tokio::test]
async fn qos_0_is_answered_when_it_was_taken_in() {
    let bench = Bench::new();
    bench.behave(Behaviour::Silent);
    let (status, reply) = bench.push(&json!({ "to": { "user": "alice" }, "payload": "x", "qos": 0 })).await;
    assert_eq!(
        (status, reply),
        (200, json!({ "id": "00000000-0000-0000-0000-00000000001d", "results": [], "duplicate": false }))
    );
    bench.behave(Behaviour::Answer);
    let body = json!({ "to": { "user": "alice" }, "payload": "x", "qos": 0, "wait": "stored" });
    let (_, reply) = bench.push(&body).await;
    assert_eq!(reply["results"], json!([{ "user": "alice", "online": 2 }]), "nothing was owed: no position");
}

#[tokio::test]
async fn an_accepted_push_that_fails_later_is_counted() {
    let bench = Bench::new();
    bench.behave(Behaviour::Fail(CommandError::StoreFailed));
    let body = json!({ "to": { "user": "alice" }, "payload": "x", "wait": "accepted" });
    assert_eq!(bench.push(&body).await.0, 200);
    assert_eq!(bench.own("unawaited_push_failures"), 1);
}

#[tokio::test]
async fn a_payload_is_a_strings_bytes_or_compact_json_with_numbers_untouched() {
    let bench = Bench::new();
    let cases: [(&str, &str); 9] = [
        (r#""gr\u00fc\u00df \"dich\"""#, "grüß \"dich\""),
        (r#""""#, ""),
        ("1.50000000000000000000000000000001e+400", "1.50000000000000000000000000000001e+400"),
        ("18446744073709551616", "18446744073709551616"),
        (r#"{ "a" : [ 1.0 , -0 ] , "b c" : " d \" e\\" }"#, r#"{"a":[1.0,-0],"b c":" d \" e\\"}"#),
        ("[\n\t1 ,\r 2 ]", "[1,2]"),
        ("null", "null"),
        ("true", "true"),
        ("{\"z\":1,\"a\":1,\"z\":2}", "{\"z\":1,\"a\":1,\"z\":2}"),
    ];
    for (json, bytes) in cases {
        let body = format!(r#"{{ "to": {{ "user": "a" }}, "payload": {json} }}"#);
        assert_eq!(bench.post("/v1/push", body).await.0, 200, "{json}");
        assert_eq!(bench.pushed().message.payload, bytes.as_bytes(), "{json}");
    }
}

/// Posts a push that must be refused; returns the problem. Nothing may have reached the data plane.
async fn refused(bench: &Bench, body: &Value, status: u16) -> Value {
    let before = bench.push_count();
    let (got, problem) = bench.push(body).await;
    assert_eq!(got, status, "{body} gave {problem}");
    assert_eq!(bench.push_count(), before, "{body}");
    problem
}

#[tokio::test]
async fn a_wrong_field_is_named() {
    let bench = Bench::new();
    let user = json!({ "user": "alice" });
    let cases = [
        (json!({ "to": { "topic": "a/+" }, "payload": "" }), "to.topic"),
        (json!({ "to": { "topic": "a/#" }, "payload": "" }), "to.topic"),
        (json!({ "to": { "topic": "" }, "payload": "" }), "to.topic"),
        (json!({ "to": { "topic": "$SYS/x" }, "payload": "" }), "to.topic"),
        (json!({ "to": { "topic": "a\u{0}" }, "payload": "" }), "to.topic"),
        (json!({ "to": { "topic": "a" }, "label": "b", "payload": "" }), "label"),
        (json!({ "to": user, "label": "$gap", "payload": "" }), "label"),
        (json!({ "to": user, "label": "a/#", "payload": "" }), "label"),
        (json!({ "to": { "user": "" }, "payload": "" }), "to.user"),
        (json!({ "to": { "users": [] }, "payload": "" }), "to.users"),
        (json!({ "to": { "users": ["a", "b", "a"] }, "payload": "" }), "to.users[2]"),
        (json!({ "to": { "users": ["a", ""] }, "payload": "" }), "to.users[1]"),
        (json!({ "to": { "device": { "user": "a", "device": "" } }, "payload": "" }), "to.device.device"),
        (json!({ "to": { "device": { "user": "a\u{0}", "device": "d" } }, "payload": "" }), "to.device.user"),
        (json!({ "to": { "everyone": false }, "payload": "" }), "to.everyone"),
        (json!({ "to": user }), "payload"),
        (json!({ "to": user, "payload": "", "payload_base64": "" }), "payload"),
        (json!({ "to": user, "payload_base64": "*" }), "payload_base64"),
        (json!({ "to": user, "payload": "", "qos": 3 }), "qos"),
        (json!({ "to": user, "payload": "", "ttl_ms": 0 }), "ttl_ms"),
        (json!({ "to": user, "payload": "", "key": "" }), "key"),
        (json!({ "to": user, "payload": "", "content_type": "a\u{0}" }), "content_type"),
        (json!({ "to": user, "payload": "", "timeout_ms": 0 }), "timeout_ms"),
        (json!({ "to": { "topic": "t" }, "payload": "", "wait": "delivered" }), "wait"),
        (json!({ "to": { "everyone": true }, "payload": "", "wait": "delivered" }), "wait"),
        (json!({ "to": user, "payload": "", "collapse": "" }), "collapse"),
        (json!({ "to": user, "payload": "", "collapse": "c".repeat(257) }), "collapse"),
        (json!({ "to": user, "payload": "", "retain": true }), "retain"),
    ];
    for (body, field) in cases {
        assert_eq!(refused(&bench, &body, 400).await["field"], field, "{body}");
    }
}

#[tokio::test]
async fn a_body_that_is_no_push_says_what_and_where() {
    let bench = Bench::new();
    let unknown = refused(&bench, &json!({ "to": { "user": "a" }, "payload": "", "prio": 1 }), 400).await;
    let detail = unknown["detail"].as_str().expect("a text");
    assert!(detail.contains("unknown field `prio`") && detail.contains("line 1 column"), "{detail}");
    for body in [
        json!({ "payload": "" }),
        json!({ "to": {}, "payload": "" }),
        json!({ "to": { "user": "a", "topic": "b" }, "payload": "" }),
        json!({ "to": { "device": { "user": "a", "device": "b", "x": 1 } }, "payload": "" }),
        json!({ "to": { "user": "a" }, "payload": "", "wait": "soon" }),
        json!({ "to": { "user": "a" }, "payload": "", "ttl_ms": -1 }),
        json!([]),
    ] {
        refused(&bench, &body, 400).await;
    }
    assert_eq!(bench.post("/v1/push", "{").await.0, 400);
    assert_eq!(bench.post("/v1/push", "").await.0, 400);
    assert_eq!(bench.post("/v1/push", &b"{\"to\":{\"user\":\"\xff\"},\"payload\":1}"[..]).await.0, 400);
    assert_eq!(bench.post("/v1/push", r#"{"to":{"user":"a"},"payload":"\ud800"}"#).await.0, 400);
}

/// Checks a limit at n − 1, n and n + 1.
async fn at_the_limit(limit: usize, status: u16, body: impl Fn(usize) -> Value) {
    let bench = Bench::new();
    for (size, expected) in [(limit - 1, 200), (limit, 200), (limit + 1, status)] {
        let (got, reply) = bench.push(&body(size)).await;
        assert_eq!(got, expected, "{size} of {limit}: {reply}");
    }
}

#[tokio::test]
async fn limits_hold_at_and_beyond_their_edge() {
    at_the_limit(
        limits::LABEL_BYTES_MAX,
        400,
        |n| json!({ "to": { "user": "a" }, "label": "l".repeat(n), "payload": "" }),
    )
    .await;
    at_the_limit(limits::IDENTITY_BYTES_MAX, 400, |n| json!({ "to": { "user": "u".repeat(n) }, "payload": "" })).await;
    at_the_limit(limits::KEY_BYTES_MAX, 400, |n| json!({ "to": { "user": "a" }, "payload": "", "key": "k".repeat(n) }))
        .await;
    at_the_limit(
        limits::CONTENT_TYPE_BYTES_MAX,
        400,
        |n| json!({ "to": { "user": "a" }, "payload": "", "content_type": "c".repeat(n) }),
    )
    .await;
    at_the_limit(
        limits::TOPIC_LEVELS_MAX,
        400,
        |n| json!({ "to": { "topic": vec!["t"; n].join("/") }, "payload": "" }),
    )
    .await;
    at_the_limit(
        limits::TOPIC_LEVELS_MAX - 1,
        400,
        |n| json!({ "to": { "user": "a" }, "label": vec!["t"; n].join("/"), "payload": "" }),
    )
    .await;
    at_the_limit(limits::PUSH_USERS_MAX, 400, |n| {
        let users: Vec<String> = (0..n).map(|index| format!("u{index}")).collect();
        json!({ "to": { "users": users }, "payload": "" })
    })
    .await;
    let timeout_max = usize::try_from(limits::PUSH_TIMEOUT_MAX.as_millis()).expect("small");
    at_the_limit(timeout_max, 400, |n| json!({ "to": { "user": "a" }, "payload": "", "timeout_ms": n })).await;
    let ttl_max = usize::try_from(limits::PUSH_TTL_MS_MAX).expect("64 bits");
    at_the_limit(ttl_max, 400, |n| json!({ "to": { "user": "a" }, "payload": "", "ttl_ms": n })).await;
    let around = "rooms/42".len() + limits::PUSH_PACKET_OVERHEAD_BYTES;
    at_the_limit(PACKET_BYTES - around, 413, |n| json!({ "to": { "topic": "rooms/42" }, "payload": "p".repeat(n) }))
        .await;
}

#[tokio::test]
async fn a_topics_length_is_bounded() {
    // The packet limit of the other tests is below that of a topic.
    let rules = Rules { apps: vec!["default".to_owned()], packet_bytes: limits::PACKET_BYTES_MAX };
    let caller = Caller::anybody();
    let asking = request::Asking { rules: &rules, caller: &caller, outside_app: None, wall_ms: NOW_MS };
    for (size, fits) in
        [(limits::TOPIC_BYTES_MAX - 1, true), (limits::TOPIC_BYTES_MAX, true), (limits::TOPIC_BYTES_MAX + 1, false)]
    {
        let body = json!({ "to": { "topic": "t".repeat(size) }, "payload": "" }).to_string();
        assert_eq!(request::read(body.as_bytes(), |draft| request::check(draft, &asking)).is_ok(), fits, "{size}");
    }
}

#[tokio::test]
async fn a_body_beyond_its_limit_is_413_whether_it_says_its_length_or_not() {
    let bench = Bench::new();
    let head = r#"{"to":{"user":"a"},"payload":1"#;
    let body = |size: usize| format!("{head}{}}}", " ".repeat(size - head.len() - 1));
    for (size, status) in [
        (limits::API_BODY_BYTES_MAX - 1, 200),
        (limits::API_BODY_BYTES_MAX, 200),
        (limits::API_BODY_BYTES_MAX + 1, 413),
    ] {
        assert_eq!(bench.post("/v1/push", body(size)).await.0, status, "{size}");
        // A mapped body does not know its length.
        let unannounced = Body::new(BodyExt::map_frame(Body::from(body(size)), |frame| frame));
        assert_eq!(bench.post("/v1/push", unannounced).await.0, status, "{size}, unannounced");
    }
}

#[tokio::test]
async fn the_app_comes_from_the_body_then_the_query_then_the_header() {
    let bench = Bench::new();
    let push = |app: Option<&str>| {
        let mut body = to_alice(json!(""));
        if let Some(app) = app {
            body["app"] = json!(app);
        }
        Body::from(body.to_string())
    };
    let cases = [
        ("/v1/push", None, None, 200, 0),
        ("/v1/push", Some("shop"), None, 200, 1),
        ("/v1/push?app=shop", Some("nobody"), None, 200, 1),
        ("/v1/push?app=shop", None, Some("default"), 200, 0),
        ("/v1/push?app=nobody", None, None, 404, 0),
        ("/v1/push", Some("nobody"), None, 404, 0),
        ("/v1/push", None, Some("nobody"), 404, 0),
        ("/v1/push?application=shop", None, None, 400, 0),
    ];
    for (path, header, body, status, app) in cases {
        let mut request = post(path);
        if let Some(header) = header {
            request = request.header("x-kittiwake-app", header);
        }
        let (got, _) = answer(bench.send(request.body(push(body)).expect("a request")).await).await;
        assert_eq!(got, status, "{path} {header:?} {body:?}");
        if status == 200 {
            assert_eq!(bench.pushed().app, AppId(app), "{path} {header:?} {body:?}");
        }
    }
}

#[tokio::test]
async fn what_the_data_plane_refuses_becomes_the_status_of_the_contract() {
    let bench = Bench::new();
    let cases = [
        (CommandError::Busy, 429),
        (CommandError::KeyConflict, 409),
        (CommandError::StoreFailed, 503),
        (CommandError::RetainedFull, 429),
        (CommandError::Draining, 503),
    ];
    for (error, status) in cases {
        for behaviour in [Behaviour::Refuse(error), Behaviour::Fail(error)] {
            bench.behave(behaviour);
            assert_eq!(bench.push(&to_alice(json!(""))).await.0, status, "{error:?}");
            assert_eq!(bench.own("commands_pending"), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_push_without_an_answer_times_out_and_leaves_nothing_behind() {
    let bench = Bench::new();
    bench.behave(Behaviour::Silent);
    let (status, problem) = bench.push(&to_alice(json!(""))).await;
    assert_eq!(status, 504);
    assert!(problem["detail"].as_str().expect("a text").contains("may still be carried out"));
    assert_eq!(bench.own("commands_pending"), 0);
    let answer = Event::Pushed { token: CommandToken(1), result: Err(CommandError::Busy) };
    assert_eq!(bench.control.dispatch(answer), None);
    assert_eq!(bench.own("late_answers"), 1);
}

#[tokio::test]
async fn a_full_table_of_pending_commands_is_429() {
    for (held, status) in [(1, 200), (2, 429)] {
        let bench = Bench::with(true, 2);
        bench.behave(Behaviour::Silent);
        let replies: Vec<_> = (0..held).map(|_| bench.control.disconnect(AppId(0), Arc::from("a"), None)).collect();
        assert!(replies.iter().all(Result::is_ok));
        bench.behave(Behaviour::Answer);
        assert_eq!(bench.push(&to_alice(json!(""))).await.0, status, "{held} held");
        drop(replies);
        assert_eq!(bench.push(&to_alice(json!(""))).await.0, 200, "their places are free again");
    }
}

#[tokio::test]
async fn a_data_plane_that_ends_answers_all_who_wait() {
    let bench = Bench::new();
    bench.behave(Behaviour::Silent);
    let reply = bench.control.disconnect(AppId(0), Arc::from("a"), None).expect("taken in");
    bench.control.close();
    assert_eq!(reply.wait(limits::PUSH_TIMEOUT_MAX).await, Err(Failure::Gone));
}

#[tokio::test]
async fn a_repeated_key_says_duplicate_and_its_hash_covers_the_body() {
    let bench = Bench::new();
    let mut hashes = Vec::new();
    let base = json!({ "to": { "user": "alice" }, "payload": "x", "key": "seen" });
    let mut variants = vec![base.clone()];
    for (field, value) in [
        ("to", json!({ "user": "bob" })),
        ("to", json!({ "users": ["alice"] })),
        ("to", json!({ "device": { "user": "alice", "device": "d" } })),
        ("to", json!({ "topic": "alice" })),
        ("to", json!({ "everyone": true })),
        ("payload", json!("y")),
        ("label", json!("l")),
        ("qos", json!(2)),
        ("ttl_ms", json!(5)),
        ("content_type", json!("text/plain")),
    ] {
        let mut variant = base.clone();
        variant[field] = value;
        variants.push(variant);
    }
    for body in &variants {
        let (status, reply) = bench.push(body).await;
        assert_eq!((status, &reply["duplicate"]), (200, &json!(true)));
        assert_eq!(reply["id"], "00000000-0000-0000-0000-0000000000f1", "the first one's");
        hashes.push(bench.pushed().key.expect("a key").1);
    }
    for (index, hash) in hashes.iter().enumerate() {
        assert!(!hashes[..index].contains(hash), "{} hashes like another", variants[index]);
    }
    let mut waiting = base.clone();
    waiting["timeout_ms"] = json!(1_000);
    bench.push(&waiting).await;
    assert_eq!(bench.pushed().key.expect("a key").1, hashes[0], "how the caller waits is not part of it");
    assert_eq!(hashes[0], 10_568_483_845_831_392_222, "the hash is kept with the key and must never change");
}

#[tokio::test]
async fn a_batch_has_one_result_each_in_order() {
    let bench = Bench::new();
    let pushes = json!({ "pushes": [
        to_alice(json!("1")),
        { "to": { "user": "" }, "payload": "2" },
        { "to": { "user": "bob" }, "payload": "3", "qos": 0 },
        { "nonsense": 1 },
    ] });
    let (status, reply) = bench.post("/v1/push/batch?app=shop", pushes.to_string()).await;
    assert_eq!(status, 200);
    let results = reply["results"].as_array().expect("a list");
    assert_eq!(results.len(), 4);
    assert_eq!(results[0]["results"][0]["user"], "alice");
    assert_eq!((&results[1]["status"], &results[1]["field"]), (&json!(400), &json!("to.user")));
    assert_eq!(results[2]["results"], json!([]));
    assert_eq!(results[3]["status"], 400);
    assert_eq!(bench.push_count(), 2);
    assert_eq!(bench.pushed().app, AppId(1));
}

#[tokio::test]
async fn a_batch_is_bounded() {
    let bench = Bench::new();
    for (count, status) in
        [(0, 400), (limits::PUSH_BATCH_MAX - 1, 200), (limits::PUSH_BATCH_MAX, 200), (limits::PUSH_BATCH_MAX + 1, 400)]
    {
        let body = json!({ "pushes": vec![to_alice(json!("")); count] });
        assert_eq!(bench.post("/v1/push/batch", body.to_string()).await.0, status, "{count}");
    }
    assert_eq!(bench.post("/v1/push/batch", "[]").await.0, 400);
    assert_eq!(bench.post("/v1/push/batch", r#"{"pushes":[],"x":1}"#).await.0, 400);
}

#[tokio::test]
async fn a_user_or_one_device_is_disconnected() {
    let bench = Bench::new();
    let (status, reply) = bench.post("/v1/users/al%2Fice%20b/disconnect", "").await;
    assert_eq!((status, reply), (200, json!({ "disconnected": 3 })));
    let body = json!({ "app": "shop", "device": "phone" }).to_string();
    assert_eq!(bench.post("/v1/users/bob/disconnect", body).await.0, 200);
    let asked = bench.fake.disconnects.lock().expect("not poisoned").clone();
    let expected = [(AppId(0), "al/ice b".to_owned(), None), (AppId(1), "bob".to_owned(), Some("phone".to_owned()))];
    assert_eq!(asked, expected);
    assert_eq!(bench.post("/v1/users/bob/disconnect", r#"{"reason":1}"#).await.0, 400);
    assert_eq!(bench.post("/v1/users/bob/disconnect?app=nobody", "").await.0, 404);
    assert_eq!(bench.post("/v1/users/%ff/disconnect", "").await.0, 400);
    bench.behave(Behaviour::Refuse(CommandError::Busy));
    assert_eq!(bench.post("/v1/users/bob/disconnect", "").await.0, 429);
}

#[tokio::test(start_paused = true)]
async fn health_is_red_when_the_store_or_a_shard_is() {
    let bench = Bench::new();
    assert_eq!(bench.get("/healthz").await.0, 200);
    assert_eq!(bench.get("/readyz").await.0, 200);
    *bench.fake.healthy.lock().expect("not poisoned") = false;
    assert_eq!(bench.get("/healthz").await.0, 503);
    assert_eq!(bench.get("/readyz").await.0, 503);
    *bench.fake.healthy.lock().expect("not poisoned") = true;
    bench.behave(Behaviour::Silent);
    assert_eq!(bench.get("/healthz").await.0, 503, "a shard that does not answer");
    assert_eq!(bench.get("/v1/stats").await.0, 504);
    bench.behave(Behaviour::Refuse(CommandError::Busy));
    assert_eq!(bench.get("/healthz").await.0, 200, "load is not illness");
}

#[tokio::test(start_paused = true)]
async fn readyz_is_red_while_no_canary_comes_through() {
    let bench = Bench::new();
    assert_eq!(bench.get("/readyz").await.0, 200);
    bench.behave(Behaviour::Fail(CommandError::StoreFailed));
    assert_eq!((bench.get("/readyz").await.0, bench.get("/healthz").await.0), (503, 200), "the log says no");
    bench.behave(Behaviour::Silent);
    assert_eq!(bench.get("/readyz").await.0, 503, "a shard or the log is stuck");
    bench.behave(Behaviour::Refuse(CommandError::Busy));
    assert_eq!(bench.get("/readyz").await.0, 200, "load is not illness");
}

#[tokio::test]
async fn who_is_followed_in_the_log_is_set_and_listed_by_operators() {
    let bench = Bench::new();
    let wish = |body: Value| bench.post("/v1/log", body.to_string());
    let ann = json!({ "user": "ann", "app": "shop", "for_ms": 60_000 });
    assert_eq!(wish(ann.clone()).await, (200, json!({ "followed": [ann] })));
    let there = json!({ "address": "10.0.0.0/8", "for_ms": 1_000 });
    assert_eq!(wish(there.clone()).await, (200, json!({ "followed": [ann, there] })));
    assert_eq!(bench.get("/v1/log").await, (200, json!({ "followed": [ann, there] })));
    let followed = bench.fake.followed.lock().expect("not poisoned").clone();
    assert_eq!((followed.len(), followed[0].until_ms), (2, NOW_MS + 60_000));
    let stop = json!({ "user": "ann", "app": "shop", "for_ms": 0 });
    assert_eq!(wish(stop).await, (200, json!({ "followed": [there] })));
    for wrong in [
        json!({ "for_ms": 1 }),
        json!({ "user": "ann" }),
        json!({ "user": "ann", "for_ms": 1, "level": 1 }),
        json!({ "app": "another", "for_ms": 1 }),
        json!({ "address": "10.0.0.1/8", "for_ms": 1 }),
        json!({ "user": "ann", "for_ms": limits::FOLLOW_FOR_MAX.as_millis() as u64 + 1 }),
    ] {
        assert_eq!(wish(wrong.clone()).await.0, 400, "{wrong}");
    }
    for number in 1..limits::FOLLOWED_MAX {
        assert_eq!(wish(json!({ "user": number.to_string(), "for_ms": 1 })).await.0, 200);
    }
    assert_eq!(wish(json!({ "user": "one more", "for_ms": 1 })).await.0, 429);
}

#[tokio::test]
async fn a_draining_node_is_alive_but_not_ready_and_takes_no_push() {
    let bench = Bench::new();
    bench.control.drain();
    assert_eq!(bench.get("/healthz").await.0, 200);
    assert_eq!(bench.get("/readyz").await.0, 503);
    assert_eq!(bench.push(&to_alice(json!(""))).await.0, 503);
    assert_eq!(bench.push(&json!({ "to": { "user": "a" }, "payload": "", "qos": 0 })).await.0, 503);
    assert_eq!(bench.push_count(), 0);
    assert_eq!(bench.control.dispatch(Event::Drained { shard: 1, cut: 3 }), Some(3));
}

#[tokio::test]
async fn only_a_loopback_host_is_answered_on_loopback() {
    let bench = Bench::new();
    let ask = async |bench: &Bench, hosts: &[&str]| {
        let request = hosts.iter().fold(Request::get("/healthz"), |request, host| request.header(header::HOST, *host));
        bench.send(request.body(Body::empty()).expect("a request")).await.status().as_u16()
    };
    for host in ["localhost", "LOCALHOST:7700", "127.0.0.1", "127.0.0.1:7700", "127.3.2.1:1", "[::1]", "[::1]:7700"] {
        assert_eq!(ask(&bench, &[host]).await, 200, "{host}");
    }
    for host in [
        "example.org",
        "example.org:7700",
        "localhost.example.org",
        "127.0.0.1.example.org",
        "192.0.2.1",
        "[2001:db8::1]",
        "evil@",
        "",
    ] {
        assert_eq!(ask(&bench, &[host]).await, 403, "{host}");
    }
    assert_eq!(ask(&bench, &[]).await, 403);
    assert_eq!(ask(&bench, &["localhost", "example.org"]).await, 403);
    let open = Bench::with(false, 8);
    assert_eq!(ask(&open, &["example.org"]).await, 200, "an insecure node on another address has no name of its own");
}

#[tokio::test]
async fn a_post_must_say_that_it_is_json() {
    let bench = Bench::new();
    for (kind, status) in [
        (Some("application/json"), 200),
        (Some("Application/JSON; charset=utf-8"), 200),
        (Some("text/plain"), 400),
        (Some("application/x-www-form-urlencoded"), 400),
        (Some("application/jsonp"), 400),
        (None, 400),
    ] {
        for path in ["/v1/push", "/v1/users/bob/disconnect"] {
            let mut request = Request::post(path).header(header::HOST, "localhost");
            if let Some(kind) = kind {
                request = request.header(header::CONTENT_TYPE, kind);
            }
            let body = if path == "/v1/push" { to_alice(json!("")).to_string() } else { String::new() };
            let (got, _) = answer(bench.send(request.body(Body::from(body)).expect("a request")).await).await;
            assert_eq!(got, status, "{path} {kind:?}");
        }
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems_too() {
    let bench = Bench::new();
    assert_eq!(bench.get("/v2/push").await.0, 404);
    assert_eq!(bench.get("/v1/push").await.0, 405);
    assert_eq!(bench.post("/healthz", "").await.0, 405);
}
