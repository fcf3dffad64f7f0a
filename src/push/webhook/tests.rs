//! The sink over the log in memory, with a backend that answers as it is told.

use super::*;
use crate::base::ids::Epoch;
use crate::push::fake::Bench;
use crate::shard::command::Happening;
use std::sync::Mutex;

const SECRET: &str = "0123456789abcdef";

/// A backend: what it was sent, and what it answers, the last for good.
#[derive(Clone, Default)]
struct Backend {
    got: Arc<Mutex<Vec<serde_json::Value>>>,
    answers: Arc<Mutex<VecDeque<Posted>>>,
}

impl Carry for Backend {
    async fn post(&self, post: Post) -> Posted {
        assert_eq!(post.signature, body::sign(SECRET.as_bytes(), &post.timestamp, &post.body));
        let body = serde_json::from_slice(&post.body).expect("it is JSON");
        self.got.lock().expect("not poisoned").push(body);
        let mut answers = self.answers.lock().expect("not poisoned");
        answers.pop_front().unwrap_or(Posted::Answered(StatusCode::OK))
    }
}

impl Backend {
    fn answering(statuses: &[u16]) -> Self {
        let backend = Self::default();
        let answers = statuses.iter().map(|&status| Posted::Answered(StatusCode::from_u16(status).expect("a status")));
        backend.answers.lock().expect("not poisoned").extend(answers);
        backend
    }

    /// The devices of each request.
    fn devices(&self) -> Vec<Vec<String>> {
        let name = |event: &serde_json::Value| event["device"].as_str().unwrap_or("gap").to_owned();
        let all = self.got.lock().expect("not poisoned");
        all.iter().map(|body| body["events"].as_array().expect("a list").iter().map(name).collect()).collect()
    }
}

struct Rig {
    bench: Bench,
    backend: Backend,
    task: tokio::task::JoinHandle<()>,
}

impl Rig {
    async fn begin(bench: Bench, backend: Backend) -> Self {
        let settings = Settings {
            url: Uri::from_static("http://backend.example/events"),
            secret: SECRET.into(),
            app: AppId(0),
            wants: AppWatch { connections: true, ..AppWatch::default() },
            events: 4,
            timeout: Duration::from_secs(1),
        };
        let around = bench.around();
        let task = tokio::spawn(run(settings, around, backend.clone()));
        let rig = Self { bench, backend, task };
        rig.settle().await;
        rig
    }

    /// Lets everything happen that does not wait for time, and what waits for retries.
    async fn settle(&self) {
        tokio::time::sleep(WEBHOOK_RETRY_MAX * 4).await;
    }

    fn happens(&self, devices: &[&str]) {
        let what = Happening::Connected { session_present: false };
        self.bench.happen(AppId(0), &devices.iter().map(|device| ("u", *device, what.clone())).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn events_come_in_order_in_batches_and_are_acknowledged_by_2xx() {
    let rig = Rig::begin(Bench::new(), Backend::default()).await;
    rig.happens(&["a", "b", "c", "d", "e", "f"]);
    rig.settle().await;
    assert_eq!(rig.backend.devices(), [vec!["a", "b", "c", "d"], vec!["e", "f"]]);
    let first = rig.backend.got.lock().expect("not poisoned")[0].clone();
    assert_eq!(first["app"], "default");
    let event = &first["events"][0];
    assert_eq!(
        (&event["type"], &event["user"], &event["session_present"]),
        (&"connected".into(), &"u".into(), &false.into())
    );
    assert!(event["position"].as_str().expect("a text").ends_with(":1"), "{event}");
    rig.task.abort();
    // Another process over the same log: it goes on behind what was acknowledged.
    let mut bench = rig.bench;
    bench.restart();
    let rig = Rig::begin(bench, Backend::default()).await;
    rig.happens(&["g"]);
    rig.settle().await;
    assert_eq!(rig.backend.devices(), [["g"]]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_taken_is_sent_again_and_nothing_passes_it() {
    let rig = Rig::begin(Bench::new(), Backend::answering(&[500, 401, 302, 404, 503, 204])).await;
    rig.happens(&["a", "b"]);
    rig.settle().await;
    rig.happens(&["c"]);
    rig.settle().await;
    let mut expected = vec![vec!["a", "b"]; 6];
    expected.push(vec!["c"]);
    assert_eq!(rig.backend.devices(), expected);
    assert_eq!(rig.bench.own("webhook_failures"), 5);
    assert_eq!(rig.bench.own("webhook_refused"), 0);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_the_backend_cannot_read_is_found_and_passed_over() {
    let mut answers = vec![400, 400];
    answers.extend([422; WEBHOOK_REFUSALS_MAX as usize - 1]);
    let rig = Rig::begin(Bench::new(), Backend::answering(&answers)).await;
    rig.happens(&["bad", "b", "c", "d"]);
    rig.settle().await;
    let devices = rig.backend.devices();
    assert_eq!(devices[..2], [vec!["bad", "b", "c", "d"], vec!["bad", "b"]]);
    assert!(devices[2..=1 + WEBHOOK_REFUSALS_MAX as usize - 1].iter().all(|one| *one == ["bad"]), "{devices:?}");
    // The last try was taken after all.
    assert_eq!(rig.bench.own("webhook_refused"), 0);
    assert_eq!(devices.iter().filter(|one| one.contains(&"d".to_owned())).count(), 2);

    let mut answers = vec![413, 413];
    answers.extend([413; WEBHOOK_REFUSALS_MAX as usize]);
    let rig = Rig::begin(Bench::new(), Backend::answering(&answers)).await;
    rig.happens(&["bad", "b", "c", "d"]);
    rig.settle().await;
    assert_eq!(rig.bench.own("webhook_refused"), 1);
    let after: Vec<String> =
        rig.backend.devices().into_iter().skip(2 + WEBHOOK_REFUSALS_MAX as usize).flatten().collect();
    assert_eq!(after, ["b", "c", "d"]);
}

#[test]
fn the_signature_is_hmac_sha256_of_timestamp_dot_body() {
    let signature = body::sign(b"key", "1700000000", br#"{"app":"default"}"#);
    // By Python's hmac.
    assert_eq!(signature, "sha256=3b928a494c6aa06037e71e1bdae87e93e7c0e8e61b94aa9bca11ba1b66638acd");
}

#[test]
fn a_body_has_as_many_events_as_fit_and_one_at_least() {
    let gaps: Vec<Read> = (1..=9).map(|offset| Read::Gap((Epoch(1), Offset(offset)), 1)).collect();
    let (all, whole) = body::encode("a", gaps.iter(), usize::MAX);
    assert_eq!(all, 9);
    let (fits, body) = body::encode("a", gaps.iter(), whole.len() - 2);
    assert_eq!((fits, body.len()), (9, whole.len()), "the bound is for the events");
    assert_eq!(body::encode("a", gaps.iter(), whole.len() - 3).0, 8);
    assert_eq!(body::encode("a", gaps.iter(), 0).0, 1);
}

#[test]
fn pauses_double_up_to_their_bound_and_vary_by_half() {
    assert_eq!(pause(1, 0), WEBHOOK_RETRY_MIN / 2);
    assert!(pause(1, u64::MAX) <= WEBHOOK_RETRY_MIN);
    assert_eq!(pause(3, 0), WEBHOOK_RETRY_MIN * 2);
    for failures in [20, 1_000, u32::MAX] {
        assert_eq!(pause(failures, 0), WEBHOOK_RETRY_MAX / 2);
        assert!(pause(failures, u64::MAX) <= WEBHOOK_RETRY_MAX);
    }
}
