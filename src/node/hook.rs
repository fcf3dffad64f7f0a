//! `auth.mode = "http"`: asks a backend who devices are, beside the shards. Whoever is not let in by an answer is not let
//! in: a backend that is late, gone or does not make sense keeps everybody out who is not remembered.

use super::cli::Failure;
use crate::auth::{Fault, Introduction, UserTemplate, answered};
use crate::config::Hook;
use crate::limits::{AUTH_HOOK_ANSWER_BYTES_MAX, AUTH_HOOK_REMEMBERED_MAX};
use crate::shard::Handle;
use crate::shard::command::{Question, Shown, Verdict};
use aws_lc_rs::hmac;
use axum::http::{Request, StatusCode, header};
use bytes::Bytes;
use crossbeam_channel::Receiver;
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::Semaphore;
use tracing::warn;

/// Asks.
pub(super) struct Asker {
    hook: Hook,
    template: UserTemplate,
    apps: Vec<String>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    in_flight: Arc<Semaphore>,
    remembered: Remembered,
    wall_ms: fn() -> u64,
    /// When it was last told that the backend does not answer, wall seconds: once a second is enough.
    told_s: AtomicU64,
}

impl Asker {
    /// Trusts whom the system trusts.
    pub(super) fn new(
        hook: Hook,
        template: UserTemplate,
        apps: Vec<String>,
        secret: u64,
        wall_ms: fn() -> u64,
    ) -> Result<Self, Failure> {
        let roots = HttpsConnectorBuilder::new().with_native_roots();
        let roots =
            roots.map_err(|error| Failure::Runtime(format!("cannot read the system's certificates: {error}")))?;
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(hook.in_flight)
            .build(roots.https_or_http().enable_http1().build());
        let in_flight = Arc::new(Semaphore::new(hook.in_flight));
        let remembered = Remembered::new(secret);
        Ok(Self { hook, template, apps, client, in_flight, remembered, wall_ms, told_s: AtomicU64::new(0) })
    }

    /// Starts the thread that takes the questions of all shards; it ends when they have dropped their side. With as many
    /// requests under way as may be it waits, their queue fills, and who comes then is told that there is no room.
    pub(super) fn spawn(self: Arc<Self>, questions: Receiver<Question>, handle: Handle) -> io::Result<JoinHandle<()>> {
        let runtime = tokio::runtime::Handle::current();
        std::thread::Builder::new().name("kittiwake-auth-http".to_owned()).spawn(move || {
            for Question { token, shown } in questions.iter() {
                let Shown::Device(who) = shown else {
                    // In this mode nobody asks for tokens.
                    handle.verdict(token, Err(Fault::Unanswered));
                    continue;
                };
                if let Some(verdict) = self.remembered.find(&who, (self.wall_ms)()) {
                    handle.verdict(token, verdict);
                    continue;
                }
                let room = runtime.block_on(Arc::clone(&self.in_flight).acquire_owned());
                let (asker, handle) = (Arc::clone(&self), handle.clone());
                runtime.spawn(async move {
                    let _room = room.expect("nobody closes this semaphore");
                    let verdict = asker.ask(&who).await;
                    // A mailbox may be full; the runtime's threads must not wait for it.
                    let _answered = tokio::task::spawn_blocking(move || handle.verdict(token, verdict)).await;
                });
            }
        })
    }

    async fn ask(&self, who: &Introduction) -> Verdict {
        let verdict = match tokio::time::timeout(self.hook.timeout, self.request(who)).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(why)) => self.failed(&why),
            Err(_) => self.failed("it did not answer in time"),
        };
        let now_ms = (self.wall_ms)();
        let keep = match &verdict {
            Ok(_) => self.hook.cache,
            Err(Fault::Denied) => self.hook.cache_denied,
            // The next one may find the backend well.
            Err(_) => return verdict,
        };
        let keep_ms = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
        if keep_ms > 0 {
            let ends_ms = verdict.as_ref().map_or(u64::MAX, |grant| grant.ends_ms);
            self.remembered.keep(who, verdict.clone(), now_ms.saturating_add(keep_ms).min(ends_ms));
        }
        verdict
    }

    /// The error is for the log: it holds nothing that the device showed.
    async fn request(&self, who: &Introduction) -> Result<Verdict, String> {
        let request = Request::post(self.hook.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .body(Full::from(who.to_json()))
            .expect("the address was checked when it was configured");
        let answer = self.client.request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Ok(Err(Fault::Denied));
        }
        if status != StatusCode::OK {
            return Err(format!("it answers {status}"));
        }
        let body = Limited::new(answer.into_body(), AUTH_HOOK_ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        let verdict = answered(&body, who, &self.template, &self.apps, (self.wall_ms)());
        if verdict == Err(Fault::Unanswered) {
            return Err("its answer is none".to_owned());
        }
        Ok(verdict)
    }

    fn failed(&self, why: &str) -> Verdict {
        let now_s = (self.wall_ms)() / 1_000;
        if self.told_s.swap(now_s, Ordering::Relaxed) != now_s {
            warn!("auth.url: devices are not let in: {why}");
        }
        Err(Fault::Unanswered)
    }
}

/// Answers for the same question, until they are too old. Two halves: when the young one is full it becomes the old
/// one, and what was old goes; so at most `AUTH_HOOK_REMEMBERED_MAX` are kept, and of those what was asked lately.
struct Remembered {
    key: hmac::Key,
    halves: Mutex<Halves>,
}

#[derive(Default)]
struct Halves {
    young: HashMap<[u8; 32], (Verdict, u64)>,
    old: HashMap<[u8; 32], (Verdict, u64)>,
}

impl Remembered {
    /// `secret` was drawn when the process started: what is kept tells nothing of passwords without it.
    fn new(secret: u64) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &secret.to_le_bytes()), halves: Mutex::default() }
    }

    /// Everything that the backend is told, but for the port that a device comes from.
    fn name(&self, who: &Introduction) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        let username = who.username.as_deref().map(str::as_bytes);
        let password = who.password.as_ref().map(|password| password.bytes());
        for part in [Some(who.device.as_bytes()), username, password, Some(who.protocol.as_bytes())] {
            // Lengths, so that no two questions are the same bytes; none is not empty.
            context.update(&part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
            context.update(part.unwrap_or_default());
        }
        context.update(who.peer.ip().to_string().as_bytes());
        context.sign().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    fn find(&self, who: &Introduction, now_ms: u64) -> Option<Verdict> {
        let name = self.name(who);
        // Nobody panics while it is held: the value in it is whole.
        let halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        let (verdict, until_ms) = halves.young.get(&name).or_else(|| halves.old.get(&name))?;
        (*until_ms > now_ms).then(|| verdict.clone())
    }

    fn keep(&self, who: &Introduction, verdict: Verdict, until_ms: u64) {
        let name = self.name(who);
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        if halves.young.len() >= AUTH_HOOK_REMEMBERED_MAX / 2 {
            halves.old = core::mem::take(&mut halves.young);
        }
        halves.young.insert(name, (verdict, until_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::Secret;
    use axum::response::IntoResponse;
    use axum::routing::post;
    use core::time::Duration;
    use serde_json::{Value, json};
    use std::sync::atomic::AtomicUsize;

    fn who(device: &str, password: &str) -> Introduction {
        Introduction {
            device: device.into(),
            username: None,
            password: Some(Secret::from(password)),
            peer: "192.0.2.1:7".parse().expect("an address"),
            protocol: "mqtt-5",
        }
    }

    /// A backend that counts, and knows one password; `slow` is never answered, and `odd` strangely.
    async fn backend(asked: Arc<AtomicUsize>) -> axum::http::Uri {
        let answer = move |body: Bytes| async move {
            asked.fetch_add(1, Ordering::Relaxed);
            let said: Value = serde_json::from_slice(&body).expect("the question is JSON");
            let allow = json!({ "result": "allow", "user": "ann", "expires_in_ms": 60_000 });
            match said["password"].as_str() {
                Some("good") => allow.to_string().into_response(),
                Some("odd") => json!({ "verdict": "allow" }).to_string().into_response(),
                Some("broken") => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
                Some("slow") => std::future::pending().await,
                _ => StatusCode::FORBIDDEN.into_response(),
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/auth", listener.local_addr().expect("it is bound"));
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().route("/auth", post(answer))).await });
        url.parse().expect("an address")
    }

    fn asker(url: axum::http::Uri) -> Asker {
        let (timeout, cache) = (Duration::from_millis(200), Duration::from_secs(10));
        let hook = Hook { url, timeout, in_flight: 4, cache, cache_denied: Duration::from_secs(2) };
        Asker::new(hook, UserTemplate::default(), vec!["default".to_owned()], 7, || 1_000_000)
            .unwrap_or_else(|_| panic!("the system has certificates, or none"))
    }

    #[tokio::test]
    async fn a_backend_says_who_is_let_in_and_its_answers_are_remembered() {
        let asked = Arc::new(AtomicUsize::new(0));
        let asker = asker(backend(Arc::clone(&asked)).await);
        let grant = asker.ask(&who("phone", "good")).await.expect("it is let in");
        assert_eq!((&*grant.user, grant.ends_ms), ("ann", 1_060_000));
        assert_eq!(asker.ask(&who("phone", "wrong")).await, Err(Fault::Denied));
        let find = |password, now_ms| asker.remembered.find(&who("phone", password), now_ms);
        assert_eq!(find("good", 1_009_999), Some(Ok(grant)));
        assert_eq!(find("wrong", 1_001_999), Some(Err(Fault::Denied)));
        assert_eq!((find("good", 1_010_000), find("wrong", 1_002_000)), (None, None), "not for longer");
        assert_eq!(find("another", 1_000_000), None);
        assert!(asker.remembered.find(&who("tablet", "good"), 1_000_000).is_none(), "another device");
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_backend_that_does_not_answer_lets_nobody_in_and_is_asked_again() {
        let asker = asker(backend(Arc::default()).await);
        for password in ["odd", "broken", "slow"] {
            assert_eq!(asker.ask(&who("phone", password)).await, Err(Fault::Unanswered), "{password}");
            assert_eq!(asker.remembered.find(&who("phone", password), 0), None);
        }
        let gone = super::tests::asker("http://127.0.0.1:9/auth".parse().expect("an address"));
        assert_eq!(gone.ask(&who("phone", "good")).await, Err(Fault::Unanswered));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_half_goes() {
        let remembered = Remembered::new(7);
        for number in 0..AUTH_HOOK_REMEMBERED_MAX + 1 {
            remembered.keep(&who(&number.to_string(), "pw"), Err(Fault::Denied), 10);
        }
        let halves = remembered.halves.lock().expect("not poisoned");
        assert!(halves.young.len() + halves.old.len() <= AUTH_HOOK_REMEMBERED_MAX);
        drop(halves);
        let knows = |number: usize| remembered.find(&who(&number.to_string(), "pw"), 5).is_some();
        assert!(knows(AUTH_HOOK_REMEMBERED_MAX) && knows(AUTH_HOOK_REMEMBERED_MAX / 2) && !knows(0));
    }
}
