//! The gRPC face against a fake data plane: a generated client over the API's router, without a socket.

use super::super::fake::{Behaviour, Bench, NOW_MS, PACKET_BYTES};
use super::super::{ApiKey, ApiKeys, Apps, signature};
use super::generated as pb;
use super::generated::gateway_client::GatewayClient;
use super::generated::push_request::To;
use crate::base::ids::{AppId, Qos};
use crate::base::secret::Secret;
use crate::limits;
use crate::shard::command::{CommandError, Happening, Target};
use axum::http::{Request, Uri, header};
use core::mem::discriminant;
use core::time::Duration;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;
use tower::ServiceExt;

type Over =
    tower::util::BoxCloneService<Request<tonic::body::Body>, axum::response::Response, core::convert::Infallible>;

/// The API's router, as an HTTP/2 client reaches it.
fn over(bench: &Bench, key: Option<&'static str>) -> Over {
    let router = bench.router.clone();
    let to_router = move |mut request: Request<tonic::body::Body>| {
        let path = request.uri().path_and_query().expect("calls have paths").as_str().to_owned();
        *request.uri_mut() = format!("http://127.0.0.1:7700{path}").parse::<Uri>().expect("an URI");
        if let Some(key) = key {
            let value = format!("Bearer {key}").parse().expect("ASCII");
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        router.clone().oneshot(request.map(axum::body::Body::new))
    };
    Over::new(tower::service_fn(to_router))
}

pub(super) fn client(bench: &Bench) -> GatewayClient<Over> {
    GatewayClient::new(over(bench, None))
}

pub(super) fn to_alice() -> pb::PushRequest {
    pb::PushRequest { to: Some(To::User("alice".into())), payload: "hi".into(), ..Default::default() }
}

pub(super) fn tagged(pushes: impl IntoIterator<Item = (u64, pb::PushRequest)>) -> pb::PushBatch {
    let pushes = pushes.into_iter().map(|(tag, push)| pb::TaggedPush { tag, push: Some(push) }).collect();
    pb::PushBatch { pushes }
}

#[tokio::test]
async fn grpc_push_means_what_http_push_means() {
    let bench = Bench::new();
    let reply = client(&bench).push(to_alice()).await.expect("it is taken").into_inner();
    let result = pb::PushResult {
        user: "alice".into(),
        position: Some(pb::Position { epoch: 0xab, offset: 17 }),
        online: Some(2),
        delivered: Vec::new(),
    };
    assert_eq!(
        reply,
        pb::PushReply { id: "00000000-0000-0000-0000-00000000001d".into(), results: vec![result], duplicate: false }
    );
    let by_grpc = bench.pushed();
    bench.push(&serde_json::json!({ "to": { "user": "alice" }, "payload": "hi" })).await;
    let by_http = bench.pushed();
    assert_eq!((by_grpc.message, by_grpc.target, by_grpc.app), (by_http.message, by_http.target, by_http.app));

    let all = pb::PushRequest {
        app: "shop".into(),
        to: Some(To::Device(pb::Device { user: "bob".into(), device: "phone".into() })),
        label: "orders/7".into(),
        content_type: "text/plain".into(),
        qos: pb::Qos::ExactlyOnce.into(),
        ttl_ms: 5,
        key: "seen".into(),
        wait: pb::Wait::Delivered.into(),
        timeout_ms: 700,
        ..to_alice()
    };
    let reply = client(&bench).push(all).await.expect("it is taken").into_inner();
    assert!(reply.duplicate && reply.results[0].delivered == ["phone"]);
    let push = bench.pushed();
    assert_eq!((push.app, push.message.qos, &*push.message.topic), (AppId(1), Qos::ExactlyOnce, "$inbox/orders/7"));
    assert_eq!(push.deliver_within, Some(Duration::from_millis(700)));
    assert_eq!(push.target, Target::Device { user: "bob".into(), device: "phone".into() });
}

#[tokio::test]
async fn a_payload_keeps_nothing_of_what_it_came_in() {
    let bench = Bench::new();
    let payload = bytes::Bytes::from_static(&[0x55; 300]);
    let push = pb::PushRequest { payload: payload.clone(), ..to_alice() };
    client(&bench).push(push.clone()).await.expect("it is taken");
    let batches = futures_util::stream::iter([tagged([(1, push)])]);
    let mut results = client(&bench).push_stream(batches).await.expect("it begins").into_inner();
    assert!(results.message().await.expect("it goes well").is_some());
    let pushes = core::mem::take(&mut *bench.fake.pushes.lock().expect("not poisoned"));
    assert_eq!(pushes.len(), 2);
    for push in pushes {
        let message = std::sync::Arc::into_inner(push.message).expect("nobody else has it");
        let kept = message.payload.try_into_mut().expect("nobody else has it");
        assert_eq!((&kept[..], kept.capacity()), (&payload[..], payload.len()));
    }
}

#[tokio::test]
async fn what_is_wrong_says_where_in_the_details() {
    let bench = Bench::new();
    let cases = [
        (pb::PushRequest { to: None, ..to_alice() }, Code::InvalidArgument, "to"),
        (pb::PushRequest { to: Some(To::User(String::new())), ..to_alice() }, Code::InvalidArgument, "to.user"),
        (pb::PushRequest { qos: 9, ..to_alice() }, Code::InvalidArgument, "qos"),
        (pb::PushRequest { wait: 9, ..to_alice() }, Code::InvalidArgument, "wait"),
        (pb::PushRequest { retain: true, ..to_alice() }, Code::InvalidArgument, "retain"),
        (pb::PushRequest { payload: vec![0; PACKET_BYTES].into(), ..to_alice() }, Code::OutOfRange, "payload"),
    ];
    for (request, code, field) in cases {
        let status = client(&bench).push(request).await.expect_err("it is wrong");
        assert_eq!(status.code(), code, "{field}");
        let violations = status.get_details_bad_request().expect("a detail").field_violations;
        assert_eq!(violations[0].field, field);
        assert!(status.message().starts_with(field), "{status}");
    }
    let status = client(&bench).push(pb::PushRequest { app: "nobody".into(), ..to_alice() }).await;
    assert_eq!(status.expect_err("there is none").code(), Code::NotFound);
    assert_eq!(bench.push_count(), 0);
}

#[tokio::test]
async fn refusals_have_the_codes_of_the_table_and_busy_says_when_to_come_again() {
    let bench = Bench::new();
    let cases = [
        (CommandError::Busy, Code::ResourceExhausted),
        (CommandError::KeyConflict, Code::AlreadyExists),
        (CommandError::StoreFailed, Code::Unavailable),
        (CommandError::Draining, Code::Unavailable),
    ];
    for (error, code) in cases {
        for behaviour in [Behaviour::Refuse(error), Behaviour::Fail(error)] {
            bench.behave(behaviour);
            let status = client(&bench).push(to_alice()).await.expect_err("it is refused");
            assert_eq!(status.code(), code, "{error:?}");
            let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
            assert_eq!(retry.is_some(), error == CommandError::Busy, "{error:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_at_its_callers_deadline_and_leaves_nothing_behind() {
    let bench = Bench::new();
    bench.behave(Behaviour::Silent);
    let begun = tokio::time::Instant::now();
    let mut request = tonic::Request::new(to_alice());
    request.set_timeout(Duration::from_millis(250));
    let status = client(&bench).push(request).await.expect_err("nobody answers");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(begun.elapsed() < Duration::from_millis(300));
    let status = client(&bench).push(to_alice()).await.expect_err("nobody answers");
    assert_eq!((status.code(), begun.elapsed() >= limits::PUSH_TIMEOUT_DEFAULT), (Code::DeadlineExceeded, true));
    let mut request = tonic::Request::new(pb::GetUserRequest { user: "alice".into(), ..Default::default() });
    request.set_timeout(Duration::from_millis(250));
    assert_eq!(client(&bench).get_user(request).await.expect_err("as above").code(), Code::DeadlineExceeded);
    let mut request = tonic::Request::new(futures_util::stream::pending());
    request.set_timeout(Duration::from_millis(250));
    let mut results = client(&bench).push_stream(request).await.expect("it begins").into_inner();
    assert_eq!(results.message().await.expect_err("it ends").code(), Code::DeadlineExceeded);
    let mut request = tonic::Request::new(to_alice());
    request.metadata_mut().insert("grpc-timeout", "soon".parse().expect("ASCII"));
    assert_eq!(client(&bench).push(request).await.expect_err("no timeout").code(), Code::InvalidArgument);
    assert_eq!(bench.own("commands_pending"), 0);
}

#[tokio::test]
async fn users_are_told_of_and_disconnected() {
    let bench = Bench::new();
    let user = client(&bench).get_user(pb::GetUserRequest { user: "alice".into(), ..Default::default() }).await;
    let user = user.expect("it is taken").into_inner();
    assert_eq!((user.user.as_str(), user.devices.len()), ("alice", 1));
    assert!(user.devices[0].online && user.devices[0].inbox == Some(pb::Position { epoch: 0xab, offset: 16 }));
    let request = pb::DisconnectRequest { app: "shop".into(), user: "bob".into(), device: "phone".into() };
    let reply = client(&bench).disconnect(request).await.expect("it is taken").into_inner();
    assert_eq!(reply.disconnected, 3);
    let asked = bench.fake.disconnects.lock().expect("not poisoned").clone();
    assert_eq!(asked, [(AppId(1), "bob".to_owned(), Some("phone".to_owned()))]);
    let nobody = client(&bench).get_user(pb::GetUserRequest::default()).await.expect_err("no user");
    assert_eq!(nobody.code(), Code::InvalidArgument);
    let read = Some(pb::Position { epoch: 0xab, offset: 15 });
    assert_eq!((user.unread, user.read, user.devices[0].unread), (2, read, Some(1)));
}

#[tokio::test]
async fn history_and_presence_are_told_in_their_own_words() {
    use pb::get_history_request::Of;
    let bench = Bench::new();
    let ask = async |of, after, limit| {
        let request = pb::GetHistoryRequest { of, after, limit, ..Default::default() };
        client(&bench).get_history(request).await.map(tonic::Response::into_inner)
    };
    let topic = || Some(Of::Topic("rooms/42".into()));
    let page = ask(topic(), None, None).await.expect("it is taken");
    assert_eq!((page.epoch, page.first, page.last, page.next, page.trimmed), (0xab, 4, 6, 6, 0));
    let [one, other] = &page.entries[..] else { panic!("{page:?}") };
    assert_eq!(one.position, Some(pb::Position { epoch: 0xab, offset: 4 }));
    assert_eq!((&one.payload[..], one.content_type.as_str(), one.ttl_ms), (&b"one"[..], "text/plain", Some(900)));
    assert_eq!((one.topic.as_str(), one.qos(), one.device.as_str()), ("$inbox/orders", pb::Qos::AtLeastOnce, ""));
    assert_eq!((&other.payload[..], other.device.as_str(), other.ttl_ms), (&[0xff][..], "phone", None));
    let inbox = Some(Of::User("ann".into()));
    let behind = |epoch| Some(pb::Position { epoch, offset: 1 });
    let trimmed = ask(inbox.clone(), behind(0), Some(3)).await.expect("it is taken");
    assert_eq!((trimmed.trimmed, trimmed.unknown_position), (2, false), "the epoch 0 is whichever it is");
    let unknown = ask(inbox.clone(), behind(0xff), Some(0)).await.expect("it is taken");
    assert_eq!((unknown.trimmed, unknown.unknown_position), (0, true));
    let limits: Vec<usize> = bench.fake.queries.lock().expect("not poisoned").iter().map(|query| query.limit).collect();
    assert_eq!(limits, [crate::limits::HISTORY_PAGE_DEFAULT, 3, 0]);
    for (of, limit) in [(None, None), (Some(Of::Topic("a/+".into())), None), (inbox, Some(257))] {
        assert_eq!(ask(of, None, limit).await.expect_err("it is wrong").code(), Code::InvalidArgument);
    }
    let present = async |topic: &str| {
        let request = pb::GetPresenceRequest { topic: topic.into(), ..Default::default() };
        client(&bench).get_presence(request).await.map(tonic::Response::into_inner)
    };
    let found = present("rooms/42").await.expect("a rule shows it");
    assert_eq!((found.users, found.count), (vec!["alice".to_owned(), "bob".to_owned()], 7));
    assert_eq!(present("halls").await.expect_err("no rule shows it").code(), Code::NotFound);
}

fn connects(bench: &Bench, device: &str) {
    let what = Happening::Connected { session_present: true };
    bench.happen(AppId(0), &[("alice", device, what)]);
}

#[tokio::test]
async fn events_come_with_positions_and_go_on_behind_what_was_acknowledged() {
    let bench = Bench::new();
    let request = || pb::EventsRequest { group: "g".into(), connections: true, ..Default::default() };
    let begin = async || client(&bench).events(request()).await.expect("it begins").into_inner();
    let mut events = begin().await;
    let started = events.message().await.expect("it goes well").expect("a reply").reply;
    let position = Some(pb::Position::default());
    assert_eq!(started, Some(pb::events_reply::Reply::Started(pb::Started { position })), "no stream is made yet");
    let watched = bench.fake.watches.lock().expect("not poisoned").last().expect("it was told").clone();
    assert!(watched.apps[0].0 == AppId(0) && watched.apps[0].1.connections && !watched.apps[0].1.receipts);
    connects(&bench, "phone");
    connects(&bench, "tablet");
    let next = async |events: &mut tonic::Streaming<pb::EventsReply>| match events
        .message()
        .await
        .expect("it goes well")
        .expect("a reply")
        .reply
    {
        Some(pb::events_reply::Reply::Event(event)) => event,
        other => panic!("{other:?} is not an event"),
    };
    let event = next(&mut events).await;
    let epoch = event.position.expect("it has one").epoch;
    let position = |offset| Some(pb::Position { epoch, offset });
    assert_eq!((event.position, event.user.as_str(), event.device.as_str()), (position(1), "alice", "phone"));
    assert_eq!(event.event, Some(pb::event::Event::Connected(pb::Connected { session_present: true })));
    let ack = pb::AckEventsRequest { group: "g".into(), position: position(1), ..Default::default() };
    let acknowledged = client(&bench).ack_events(ack).await.expect("it is taken").into_inner();
    assert_eq!(acknowledged.position, position(1));
    let mut again = begin().await;
    while events.message().await.is_ok_and(|reply| reply.is_some()) {}
    again.message().await.expect("it goes well").expect("started");
    assert_eq!(next(&mut again).await.device, "tablet", "it was read, but not acknowledged");
    bench.control.drain();
    assert_eq!(again.message().await.expect_err("it ends").code(), Code::Unavailable);
}

#[tokio::test]
async fn a_request_for_events_is_checked() {
    let bench = Bench::new();
    let good = || pb::EventsRequest { group: "g".into(), receipts: true, ..Default::default() };
    let filters = |count| vec!["a/+".to_owned(); count];
    let cases = [
        (pb::EventsRequest { group: String::new(), ..good() }, Code::InvalidArgument),
        (pb::EventsRequest { receipts: false, ..good() }, Code::InvalidArgument),
        (pb::EventsRequest { publishes: vec!["a/#/b".into()], ..good() }, Code::InvalidArgument),
        (pb::EventsRequest { publishes: filters(limits::EVENTS_FILTERS_MAX + 1), ..good() }, Code::InvalidArgument),
        (pb::EventsRequest { publishes: filters(limits::EVENTS_FILTERS_MAX), ..good() }, Code::Ok),
        (pb::EventsRequest { group: "$webhook".into(), ..good() }, Code::InvalidArgument),
    ];
    for (request, code) in cases {
        let begun = client(&bench).events(request.clone()).await;
        assert_eq!(begun.map_or_else(|status| status.code(), |_| Code::Ok), code, "{request:?}");
    }
    bench.behave(Behaviour::Refuse(CommandError::Busy));
    let busy = client(&bench).events(good()).await.map(drop).expect_err("the shards cannot be told");
    assert_eq!(busy.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn keys_hold_for_grpc_as_for_http() {
    let key = |apps, secret| ApiKey::new(apps, secret).expect("short");
    let shop = key(Apps::Some([AppId(1)].into()), "key-to-the-shop-app");
    let bench = Bench::with_keys(false, 8, ApiKeys::new(vec![shop, key(Apps::All, "key-to-everything")]));
    let push = async |key, app: &str| {
        let request = pb::PushRequest { app: app.into(), ..to_alice() };
        GatewayClient::new(over(&bench, key)).push(request).await.map_or_else(|status| status.code(), |_| Code::Ok)
    };
    assert_eq!(push(None, "").await, Code::Unauthenticated);
    assert_eq!(push(Some("key-to-nothing-here"), "").await, Code::Unauthenticated);
    assert_eq!(push(Some("key-to-the-shop-app"), "default").await, Code::PermissionDenied);
    assert_eq!(push(Some("key-to-the-shop-app"), "").await, Code::Ok);
    assert_eq!(bench.pushed().app, AppId(1));
    assert_eq!(push(Some("key-to-everything"), "default").await, Code::Ok);
    let health = HealthClient::new(over(&bench, None)).check(HealthCheckRequest::default()).await;
    assert!(health.is_ok(), "supervisors have no key");
}

/// A client that sends what somebody has signed, whether that is this call or another one.
fn with_header(bench: &Bench, authorization: &str) -> Over {
    let (inner, value) = (over(bench, None), authorization.to_owned());
    let sign = move |mut request: Request<tonic::body::Body>| {
        request.headers_mut().insert(header::AUTHORIZATION, value.parse().expect("ASCII"));
        inner.clone().oneshot(request)
    };
    Over::new(tower::service_fn(sign))
}

#[tokio::test]
async fn a_signed_call_is_good_once_and_as_it_was_signed() {
    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const PUSH: &str = "/kittiwake.v1.Gateway/Push";
    let key = ApiKey::signing(Apps::All, "back", Secret::from(SECRET));
    let bench = Bench::with_keys(false, 8, ApiKeys::new(vec![key]));
    // What is signed is the body as it is on the wire: a byte for no compression, the length, the message.
    let message = prost::Message::encode_to_vec(&to_alice());
    let length = u32::try_from(message.len()).expect("it is short").to_be_bytes();
    let body = [&[0][..], &length, &message].concat();
    let now_s = NOW_MS / 1_000;
    let signed = |secret: &str, path: &str, seconds| signature::sign(secret, ("POST", path), (seconds, "1"), &body);
    let push = async |authorization: &str, request: pb::PushRequest| {
        let pushed = GatewayClient::new(with_header(&bench, authorization)).push(request).await;
        pushed.map_or_else(|status| status.code(), |_| Code::Ok)
    };
    let good = signed(SECRET, PUSH, now_s);
    let other = pb::PushRequest { payload: "ho".into(), ..to_alice() };
    assert_eq!(push(&good, other).await, Code::Unauthenticated, "another message");
    let another_key = signed("f".repeat(32).as_str(), PUSH, now_s);
    assert_eq!(push(&another_key, to_alice()).await, Code::Unauthenticated);
    let another_call = signed(SECRET, "/kittiwake.v1.Gateway/GetUser", now_s);
    assert_eq!(push(&another_call, to_alice()).await, Code::Unauthenticated);
    assert_eq!(push(&signed(SECRET, PUSH, now_s - 31), to_alice()).await, Code::Unauthenticated, "too long ago");
    assert_eq!(bench.push_count(), 0);
    assert_eq!(push(&good, to_alice()).await, Code::Ok);
    assert_eq!(push(&good, to_alice()).await, Code::Unauthenticated, "it has come before");
    assert_eq!(bench.push_count(), 1);
    let stream = futures_util::stream::iter([tagged([(1, to_alice())])]);
    let on_a_stream = signed(SECRET, "/kittiwake.v1.Gateway/PushStream", now_s);
    let streamed = GatewayClient::new(with_header(&bench, &on_a_stream)).push_stream(stream).await;
    assert_eq!(streamed.map_or_else(|status| status.code(), |_| Code::Ok), Code::Unauthenticated);
    let counted = ["refused_signed_body", "refused_signature", "refused_signature_time", "refused_replay"];
    assert_eq!(counted.map(|name| bench.own(name)), [1, 2, 1, 1]);
}

#[tokio::test]
async fn health_is_what_readyz_says() {
    let bench = Bench::new();
    let check = async |service: &str| {
        let request = HealthCheckRequest { service: service.into() };
        let answer = HealthClient::new(over(&bench, None)).check(request).await;
        answer.map(|answer| answer.into_inner().status).map_err(|status| status.code())
    };
    const SERVING: i32 = 1;
    const NOT_SERVING: i32 = 2;
    assert_eq!(check("").await, Ok(SERVING));
    assert_eq!(check(super::SERVICE).await, Ok(SERVING));
    assert_eq!(check("another.Service").await, Err(Code::NotFound));
    *bench.fake.healthy.lock().expect("not poisoned") = false;
    assert_eq!(check("").await, Ok(NOT_SERVING));
    *bench.fake.healthy.lock().expect("not poisoned") = true;
    let watch = HealthClient::new(over(&bench, None)).watch(HealthCheckRequest::default()).await;
    let mut watch = watch.expect("it begins").into_inner();
    assert_eq!(watch.message().await.expect("it goes well").map(|answer| answer.status), Some(SERVING));
    bench.control.drain();
    assert_eq!(watch.message().await.expect("it goes well").map(|answer| answer.status), Some(NOT_SERVING));
    assert!(watch.message().await.expect("it ends well").is_none());
    assert_eq!(check("").await, Ok(NOT_SERVING));
}

#[tokio::test]
async fn a_foreign_host_and_an_unknown_service_get_a_status() {
    let bench = Bench::new();
    let ask = async |uri: &str, host: Option<&str>| {
        let mut request = Request::post(uri).header(header::CONTENT_TYPE, "application/grpc");
        if let Some(host) = host {
            request = request.header(header::HOST, host);
        }
        let response = bench.send(request.body(axum::body::Body::empty()).expect("a request")).await;
        let status = response.headers().get("grpc-status").and_then(|value| value.to_str().ok()).map(str::to_owned);
        (response.status().as_u16(), status)
    };
    let code = |code: Code| (200, Some((code as i32).to_string()));
    let path = "/kittiwake.v1.Gateway/Push";
    assert_eq!(ask(&format!("http://example.org{path}"), None).await, code(Code::PermissionDenied));
    assert_eq!(ask(&format!("http://localhost{path}"), Some("example.org")).await, code(Code::PermissionDenied));
    assert_eq!(ask(path, None).await, code(Code::PermissionDenied));
    assert_eq!(ask("http://localhost/another.Service/Call", None).await, code(Code::Unimplemented));
    assert_eq!(ask("http://localhost/kittiwake.v1.Gateway/Unknown", None).await, code(Code::Unimplemented));
    let web =
        Request::post(path).header(header::CONTENT_TYPE, "application/grpc-web").header(header::HOST, "localhost");
    let web = bench.send(web.body(axum::body::Body::empty()).expect("a request")).await;
    assert_eq!(web.status().as_u16(), 400);
}

#[tokio::test]
async fn reflection_of_both_versions_knows_the_service() {
    use tonic_reflection::pb::{v1, v1alpha};
    let bench = Bench::new();
    let message = v1::server_reflection_request::MessageRequest::FileContainingSymbol(super::SERVICE.to_owned());
    let asked = v1::ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(over(&bench, None));
    let answers = client.server_reflection_info(futures_util::stream::iter([asked])).await.expect("it begins");
    let answer = answers.into_inner().message().await.expect("it goes well").expect("an answer");
    let found = v1::server_reflection_response::MessageResponse::FileDescriptorResponse;
    assert!(
        matches!(answer.message_response, Some(response) if discriminant(&response) == discriminant(&found(Default::default())))
    );
    let message = v1alpha::server_reflection_request::MessageRequest::ListServices(String::new());
    let asked = v1alpha::ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(over(&bench, None));
    let answers = client.server_reflection_info(futures_util::stream::iter([asked])).await.expect("it begins");
    let answer = answers.into_inner().message().await.expect("it goes well").expect("an answer");
    let Some(v1alpha::server_reflection_response::MessageResponse::ListServicesResponse(list)) =
        answer.message_response
    else {
        panic!("{answer:?} lists nothing")
    };
    assert!(list.service.iter().any(|service| service.name == super::SERVICE));
}
