//! Against another implementation's client, and against peers that do as they please.

use super::*;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Method, Request, header};
use axum::routing::{any, get, post};
use core::time::Duration;
use h2::client::{self, SendRequest};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
/// SETTINGS that say nothing.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

/// A server of these routes, and the other end of its connection.
struct Server {
    ended: JoinHandle<()>,
    stop: Option<oneshot::Sender<()>>,
}

fn server(router: Router) -> (Server, DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let (stop, stopped) = oneshot::channel();
    let stopping = async move {
        let _stopped = stopped.await;
    };
    let ended = tokio::spawn(serve(ours, PEER, router, stopping));
    (Server { ended, stop: Some(stop) }, theirs)
}

async fn client(router: Router) -> (Server, SendRequest<Bytes>) {
    let (server, io) = server(router);
    (server, connect(io, &client::Builder::new()).await)
}

async fn connect(io: DuplexStream, builder: &client::Builder) -> SendRequest<Bytes> {
    let (requests, connection) = builder.handshake(io).await.expect("a handshake");
    tokio::spawn(connection);
    requests
}

fn request(method: Method, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://localhost{path}")).body(()).expect("a request")
}

/// Sends a request with this body, and reads the whole answer.
async fn ask(
    requests: &SendRequest<Bytes>,
    method: Method,
    path: &str,
    body: Bytes,
) -> (StatusCode, HeaderMap, Vec<u8>) {
    let mut requests = requests.clone().ready().await.expect("it takes requests");
    let (response, mut sender) = requests.send_request(request(method, path), false).expect("it is sent");
    tokio::spawn(async move {
        // All at once: what the windows do not hold waits in the client.
        sender.send_data(body, true)
    });
    let (head, mut body) = response.await.expect("an answer").into_parts();
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.expect("a piece");
        body.flow_control().release_capacity(piece.len()).expect("it was taken");
        bytes.extend_from_slice(&piece);
    }
    (head.status, head.headers, bytes)
}

fn noise(length: usize) -> Bytes {
    (0..length).map(|at| (at * at / 7 + at) as u8).collect::<Vec<_>>().into()
}

/// Answers with what it is sent, as it comes.
fn echo() -> Router {
    Router::new().route("/echo", post(|body: Body| async { body }))
}

#[tokio::test]
async fn answers_have_their_status_their_headers_and_a_date() {
    let router = Router::new()
        .route("/json", get(|| async { ([(header::CONTENT_TYPE, "application/json")], "{}") }))
        .route("/gone", get(|| async { StatusCode::NO_CONTENT }))
        .route("/peer", any(|axum::Extension(Peer(peer)): axum::Extension<Peer>| async move { peer.to_string() }))
        .route("/uri", any(|request: axum::extract::Request| async move { request.uri().to_string() }));
    let (_server, requests) = client(router).await;
    let (status, headers, body) = ask(&requests, Method::GET, "/json", Bytes::new()).await;
    assert_eq!((status, &body[..]), (StatusCode::OK, &b"{}"[..]));
    assert_eq!(
        (headers[header::CONTENT_TYPE].as_bytes(), headers[header::CONTENT_LENGTH].as_bytes()),
        (&b"application/json"[..], &b"2"[..])
    );
    let date = headers[header::DATE].to_str().expect("ASCII");
    let said = httpdate::parse_http_date(date).expect("a date");
    assert!(said.elapsed().is_ok_and(|since| since < Duration::from_secs(60)), "{date}");
    assert_eq!(ask(&requests, Method::GET, "/gone", Bytes::new()).await.0, StatusCode::NO_CONTENT);
    assert_eq!(ask(&requests, Method::GET, "/nothing", Bytes::new()).await.0, StatusCode::NOT_FOUND);
    let head = ask(&requests, Method::HEAD, "/json", Bytes::new()).await;
    assert_eq!((head.0, head.2.len()), (StatusCode::OK, 0));
    assert_eq!(ask(&requests, Method::GET, "/peer", Bytes::new()).await.2, b"127.0.0.1");
    assert_eq!(ask(&requests, Method::GET, "/uri?a=b%20c", Bytes::new()).await.2, b"http://localhost/uri?a=b%20c");
}

#[tokio::test]
async fn bodies_of_any_length_go_both_ways_through_windows_of_any_width() {
    for (window, length) in [(65_535, 5_000_000), (1, 300), (1_000, 200_000), (1 << 24, 3_000_000)] {
        let (_server, io) = server(echo());
        let mut builder = client::Builder::new();
        builder.initial_window_size(window);
        let requests = connect(io, &builder).await;
        for length in [0, 1, length] {
            let sent = noise(length);
            let (status, _, got) = ask(&requests, Method::POST, "/echo", sent.clone()).await;
            assert!(status == StatusCode::OK && got == sent, "{length} bytes, windows of {window}: {}", got.len());
        }
    }
}

#[tokio::test]
async fn many_calls_share_a_connection_and_none_gets_anothers_bytes() {
    let (_server, requests) = client(echo()).await;
    let calls = (0..600_usize).map(|call| {
        let requests = requests.clone();
        tokio::spawn(async move {
            let sent = noise(call * 37);
            let (status, _, got) = ask(&requests, Method::POST, "/echo", sent.clone()).await;
            assert!(status == StatusCode::OK && got == sent, "{call}");
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.expect("answered");
    }
}

#[tokio::test]
async fn a_stream_answers_each_piece_before_the_next_has_come() {
    let (_server, requests) = client(echo()).await;
    let mut requests = requests.ready().await.expect("it takes requests");
    let (response, mut sender) = requests.send_request(request(Method::POST, "/echo"), false).expect("sent");
    sender.send_data("first".into(), false).expect("sent");
    let mut body = response.await.expect("an answer").into_body();
    assert_eq!(body.data().await.expect("a piece").expect("whole"), "first");
    for piece in ["second", "third"] {
        sender.send_data(piece.into(), false).expect("sent");
        assert_eq!(body.data().await.expect("a piece").expect("whole"), piece);
    }
    sender.send_data(Bytes::new(), true).expect("sent");
    while let Some(piece) = body.data().await {
        assert_eq!(piece.expect("whole"), "");
    }
}

#[tokio::test]
async fn trailers_follow_the_body() {
    let trailing = || async {
        let trailers =
            HeaderMap::from_iter([(header::HeaderName::from_static("grpc-status"), HeaderValue::from_static("7"))]);
        let frames = [Frame::data(Bytes::from("body")), Frame::trailers(trailers)];
        Body::new(StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, io::Error>))))
    };
    let (_server, mut requests) = client(Router::new().route("/", get(trailing))).await;
    let response = requests.send_request(request(Method::GET, "/"), true).expect("sent").0;
    let mut body = response.await.expect("an answer").into_body();
    assert_eq!(body.data().await.expect("a piece").expect("whole"), "body");
    assert_eq!(body.trailers().await.expect("whole").expect("some")["grpc-status"], "7");
}

#[tokio::test]
async fn a_body_that_fails_ends_its_call_and_no_other() {
    let failing = || async {
        let frames = [Ok(Frame::data(Bytes::from("half"))), Err(io::Error::other("the rest is lost"))];
        Body::new(StreamBody::new(futures_util::stream::iter(frames)))
    };
    let (_server, mut requests) = client(echo().route("/", get(failing))).await;
    let response = requests.send_request(request(Method::GET, "/"), true).expect("sent").0;
    let mut body = response.await.expect("an answer").into_body();
    let mut last = body.data().await.expect("a piece");
    if last.is_ok() {
        last = body.data().await.expect("an end");
    }
    assert_eq!(last.expect_err("it is cut").reason(), Some(h2::Reason::INTERNAL_ERROR));
    assert_eq!(ask(&requests, Method::POST, "/echo", "on".into()).await.2, b"on");
}

#[tokio::test]
async fn who_does_not_read_its_body_holds_up_nobody_else() {
    let idle = post(|body: Body| async move {
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        drop(body);
    });
    let refusing = post(|| async { StatusCode::FORBIDDEN });
    let (_server, requests) = client(echo().route("/idle", idle).route("/refusing", refusing)).await;
    let mut slow = requests.clone().ready().await.expect("it takes requests");
    let (_response, mut sender) = slow.send_request(request(Method::POST, "/idle"), false).expect("sent");
    // Less than the connection's window, which they share.
    sender.send_data(noise(500_000), false).expect("taken");
    for _ in 0..20 {
        let (status, ..) = ask(&requests, Method::POST, "/refusing", noise(300_000)).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        let (.., got) = ask(&requests, Method::POST, "/echo", noise(100_000)).await;
        assert_eq!(got, noise(100_000));
    }
}

#[tokio::test]
async fn a_body_may_be_read_in_a_task_of_its_own() {
    let elsewhere = post(|body: Body| async move {
        let read = tokio::spawn(async move { body.collect().await.map(|body| body.to_bytes().len()) });
        read.await.expect("it does not panic").expect("whole").to_string()
    });
    let (_server, requests) = client(Router::new().route("/", elsewhere)).await;
    assert_eq!(ask(&requests, Method::POST, "/", noise(3_000_000)).await.2, b"3000000");
}

/// Says when it is dropped.
struct Guard(Arc<AtomicBool>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_call_that_is_given_up_is_dropped_and_so_are_all_when_the_peer_is_gone() {
    for by_reset in [true, false] {
        let is_dropped = Arc::new(AtomicBool::new(false));
        let (begun, mut has_begun) = mpsc::channel(1);
        let waiting = {
            let is_dropped = Arc::clone(&is_dropped);
            get(move || async move {
                let _guard = Guard(is_dropped);
                begun.send(()).await.expect("somebody waits");
                core::future::pending::<()>().await
            })
        };
        let (server, mut requests) = client(echo().route("/", waiting)).await;
        let (response, mut sender) = requests.send_request(request(Method::GET, "/"), false).expect("sent");
        has_begun.recv().await.expect("it begins");
        if by_reset {
            sender.send_reset(h2::Reason::CANCEL);
            drop(response);
            assert_eq!(ask(&requests, Method::POST, "/echo", "on".into()).await.2, b"on");
        } else {
            drop((response, sender, requests));
            server.ended.await.expect("it ends");
        }
        assert!(is_dropped.load(Ordering::Relaxed), "by a reset: {by_reset}");
    }
}

#[tokio::test]
async fn how_long_a_body_is_is_known_where_its_head_says_so() {
    let told = any(|body: Body| async move { format!("{:?}", http_body::Body::size_hint(&body).exact()) });
    let (_server, mut requests) = client(Router::new().route("/", told)).await;
    let mut said = Vec::new();
    for (length, ends) in [(None, true), (Some("3"), false), (None, false)] {
        let mut asked = request(Method::POST, "/");
        if let Some(length) = length {
            asked.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static(length));
        }
        let (response, mut sender) = requests.send_request(asked, ends).expect("sent");
        if !ends {
            sender.send_data("abc".into(), true).expect("sent");
        }
        said.push(response.await.expect("an answer").into_body().data().await.expect("a piece").expect("whole"));
    }
    assert_eq!(said, ["Some(0)", "Some(3)", "None"]);
}

#[tokio::test]
async fn a_handler_that_panics_ends_its_own_call() {
    let panics = get(|| async {
        let nothing: Option<&str> = std::hint::black_box(None);
        nothing.expect("this is what it is for")
    });
    let (_server, mut requests) = client(echo().route("/", panics)).await;
    let response = requests.send_request(request(Method::GET, "/"), true).expect("sent").0;
    let error = response.await.expect_err("there is none");
    assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR));
    assert_eq!(ask(&requests, Method::POST, "/echo", "on".into()).await.2, b"on");
}

#[tokio::test]
async fn a_body_that_is_dropped_elsewhere_gives_its_window_back() {
    let (dropped, mut is_dropped) = mpsc::channel(64);
    let elsewhere = post(move |body: Body| async move {
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            drop(body);
            dropped.send(()).await
        });
        core::future::pending::<()>().await
    });
    let (_server, requests) = client(echo().route("/elsewhere", elsewhere)).await;
    let mut kept = Vec::new();
    for _ in 0..8 {
        let mut ready = requests.clone().ready().await.expect("it takes requests");
        let (response, mut sender) = ready.send_request(request(Method::POST, "/elsewhere"), false).expect("sent");
        sender.send_data(noise(300_000), false).expect("taken");
        is_dropped.recv().await.expect("it is dropped");
        kept.push((response, sender));
    }
    let answer = ask(&requests, Method::POST, "/echo", noise(500_000));
    let (.., got) = tokio::time::timeout(Duration::from_secs(10), answer).await.expect("there is room");
    assert_eq!(got, noise(500_000));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_what_it_is_sent_slowly_is_there() {
    let much = get(|| async { noise(400_000) });
    let (server, io) = server(Router::new().route("/", much));
    let (mut reader, mut writer) = tokio::io::split(io);
    let wide = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0x7f, 0, 0];
    let wider = [0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0x7f, 0, 0];
    let head = [0, 0, 3, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84];
    writer.write_all(&[crate::wire::http2::PREFACE, &wide[..], &wider, &head].concat()).await.expect("it listens");
    let mut got = 0;
    while got < 400_000 {
        tokio::time::sleep(Duration::from_secs(9)).await;
        let count = reader.read(&mut [0; 10_000]).await.expect("it goes on");
        assert!(count > 0, "it was cut after {got} bytes");
        got += count;
    }
    assert!(!server.ended.is_finished());
}

#[tokio::test]
async fn what_a_peer_sent_before_it_hung_up_is_read() {
    let (begun, mut got) = mpsc::channel(1);
    let reading = post(move |mut body: Body| async move {
        while let Some(Ok(frame)) = body.frame().await {
            begun.send(frame.into_data().expect("data")).await.expect("somebody waits");
        }
    });
    let (server, mut io) = server(Router::new().route("/", reading));
    let head = [0, 0, 3, 1, 4, 0, 0, 0, 1, 0x83, 0x86, 0x84];
    let data = [0, 0, 4, 0, 0, 0, 0, 0, 1, b'l', b'a', b's', b't'];
    io.write_all(&[crate::wire::http2::PREFACE, &SETTINGS[..], &head, &data].concat()).await.expect("it listens");
    drop(io);
    server.ended.await.expect("it ends");
    assert_eq!(got.recv().await.as_deref(), Some(&b"last"[..]));
}

/// Keeps what is written until it is flushed, and is not ready for that the first few times, as TLS is beside a slow socket.
struct Reluctant {
    io: DuplexStream,
    written: Vec<u8>,
    asked: usize,
}

impl AsyncRead for Reluctant {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, into)
    }
}

impl AsyncWrite for Reluctant {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.written.extend_from_slice(from);
        Poll::Ready(Ok(from.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.asked += 1;
        if !self.asked.is_multiple_of(4) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Self { io, written, .. } = &mut *self;
        while !written.is_empty() {
            let Poll::Ready(count) = Pin::new(&mut *io).poll_write(cx, written)? else { return Poll::Pending };
            written.drain(..count);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn what_was_written_is_flushed_however_often_that_must_be_asked() {
    let (ours, theirs) = tokio::io::duplex(1_000);
    let reluctant = Reluctant { io: ours, written: Vec::new(), asked: 0 };
    tokio::spawn(serve(reluctant, PEER, echo(), core::future::pending()));
    let requests = connect(theirs, &client::Builder::new()).await;
    for length in [0, 10, 50_000] {
        let answer = ask(&requests, Method::POST, "/echo", noise(length));
        let (.., got) = tokio::time::timeout(Duration::from_secs(10), answer).await.expect("it is flushed");
        assert_eq!(got, noise(length));
    }
}

#[tokio::test]
async fn a_server_that_stops_answers_what_was_asked_and_ends() {
    let (release, released) = oneshot::channel::<()>();
    let slow = Arc::new(std::sync::Mutex::new(Some(released)));
    let slow = get(move || async move {
        let released = slow.lock().expect("nobody panics").take().expect("asked once");
        released.await.expect("somebody releases it");
        "late"
    });
    let (mut server, mut requests) = client(echo().route("/", slow)).await;
    let response = requests.send_request(request(Method::GET, "/"), true).expect("sent").0;
    ask(&requests, Method::POST, "/echo", "before".into()).await;
    server.stop.take().expect("it runs").send(()).expect("it listens");
    // The client learns of it, and asks for nothing more.
    let refused = loop {
        match requests.clone().ready().await {
            Ok(mut ready) => match ready.send_request(request(Method::POST, "/echo"), true) {
                Ok((response, _)) => match response.await {
                    Ok(_) => tokio::task::yield_now().await,
                    Err(error) => break error,
                },
                Err(error) => break error,
            },
            Err(error) => break error,
        }
    };
    assert!(refused.is_go_away() || refused.reason() == Some(h2::Reason::REFUSED_STREAM), "{refused}");
    assert!(!server.ended.is_finished());
    release.send(()).expect("it waits");
    let mut body = response.await.expect("an answer").into_body();
    assert_eq!(body.data().await.expect("a piece").expect("whole"), "late");
    server.ended.await.expect("it ends");
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_asked_and_given_up_and_one_that_answers_is_kept() {
    let (server, mut io) = server(echo());
    io.write_all(crate::wire::http2::PREFACE).await.expect("it listens");
    io.write_all(&SETTINGS).await.expect("it listens");
    let begun = Instant::now();
    let mut got = Vec::new();
    io.read_to_end(&mut got).await.expect("it is closed");
    server.ended.await.expect("it ends");
    let waited = begun.elapsed();
    let silence = limits::API_KEEP_ALIVE + limits::API_KEEP_ALIVE_TIMEOUT;
    assert!((silence..silence + limits::API_KEEP_ALIVE + Duration::from_secs(1)).contains(&waited), "{waited:?}");
    assert!(got.ends_with(&[0, 0, 8, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), "a ping: {got:?}");

    let (server, requests) = client(echo()).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(!server.ended.is_finished());
    assert_eq!(ask(&requests, Method::POST, "/echo", "on".into()).await.2, b"on");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_not_read() {
    let (_server, mut io) = server(echo());
    io.write_all(crate::wire::http2::PREFACE).await.expect("it listens");
    io.write_all(&SETTINGS).await.expect("it listens");
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let pings = ping.repeat(60_000);
    let (mut reader, mut writer) = tokio::io::split(io);
    let mut sent = 0;
    while let Ok(count) = tokio::time::timeout(Duration::from_secs(5), writer.write(&pings[sent..])).await {
        sent += count.expect("it listens");
        assert!(sent < pings.len(), "a megabyte of pings was taken from one who reads no answers");
    }
    // It goes on where it was left off when its peer reads.
    tokio::spawn(async move {
        writer.write_all(&pings[sent..]).await.expect("it listens");
        core::future::pending::<()>().await;
    });
    let (mut got, mut buffer) = (0, vec![0; 64 << 10]);
    while got < 60_000 * ping.len() {
        let count = reader.read(&mut buffer).await.expect("it answers");
        assert!(count > 0, "it has left off");
        got += count;
    }
}

#[tokio::test]
async fn what_cannot_be_asked_is_told_so() {
    let (_server, requests) = client(echo()).await;
    let mut ready = requests.ready().await.expect("it takes requests");
    let mut long = request(Method::GET, "/echo");
    let value = "x".repeat(limits::API_HEAD_BYTES_MAX as usize - 200);
    long.headers_mut().insert("x-long", value.parse().expect("a value"));
    long.headers_mut().insert("x-longer", value[..300].parse().expect("a value"));
    let answer = ready.send_request(long, true).map(|(response, _)| response);
    // A client that heeds our settings does not send it.
    if let Ok(response) = answer {
        assert_eq!(
            response.await.map(|response| response.status()).ok(),
            Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
        );
    }
    let (_server, mut io) = server(echo());
    let mut block = vec![0x82, 0x86, 0x04, 2];
    block.extend_from_slice(b"/\x80");
    let head = [0, 0, block.len() as u8, 1, 5, 0, 0, 0, 1];
    io.write_all(&[crate::wire::http2::PREFACE, &SETTINGS[..], &head, &block].concat()).await.expect("it listens");
    let mut got = [0; 1_000];
    let mut filled = 0;
    while !got[..filled].windows(4).any(|bytes| bytes == [0, 0, 0, 1]) {
        filled += io.read(&mut got[filled..]).await.expect("an answer");
    }
    // It is no text at all: the stream is reset.
    let reset = [0, 0, 4, 3, 0, 0, 0, 0, 1];
    assert!(got[..filled].windows(9).any(|bytes| bytes == reset), "{:?}", &got[..filled]);
}
