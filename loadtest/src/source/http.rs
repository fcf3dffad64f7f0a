//! `POST /v1/push` over connections that stay: one thread each, one request at a time.

use super::{HTTP_CONNECTIONS, Order, Push, Shared};
use crate::api::{Api, Conversation, base64};
use serde_json::{Value, json};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle, Thread};

/// Batches that wait for one connection.
const BATCHES_AHEAD: usize = 64;

/// The sending ends.
pub struct Connections {
    queues: Vec<SyncSender<Vec<Push>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Connections {
    pub fn open(order: &Order, shared: &Arc<Shared>, builder: &Thread) -> Self {
        let (mut queues, mut threads) = (Vec::new(), Vec::new());
        for _ in 0..HTTP_CONNECTIONS {
            let (queue, receiver) = sync_channel(BATCHES_AHEAD);
            let (api, qos) = (Api::new(order.api, order.api_key.clone()), order.qos as u8);
            let (shared, builder) = (Arc::clone(shared), builder.clone());
            threads.push(thread::spawn(move || serve(&api, qos, &receiver, &shared, &builder)));
            queues.push(queue);
        }
        Self { queues, threads }
    }

    /// Pushes to one user always take the same connection, so that they keep their order.
    pub fn send(&mut self, pushes: Vec<Push>) -> Result<(), String> {
        let mut batches = vec![Vec::new(); self.queues.len()];
        for push in pushes {
            let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(&push.user);
            let at = (hash % batches.len() as u64) as usize;
            batches[at].push(push);
        }
        for (queue, batch) in self.queues.iter().zip(batches).filter(|(_, batch)| !batch.is_empty()) {
            queue.send(batch).map_err(|_| "an HTTP thread has ended".to_owned())?;
        }
        Ok(())
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.queues.clear();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve(api: &Api, qos: u8, batches: &Receiver<Vec<Push>>, shared: &Shared, builder: &Thread) {
    let mut conversation: Option<Conversation> = None;
    for pushes in batches {
        let body =
            |push: &Push| json!({ "to": { "user": push.user }, "payload_base64": base64(&push.payload), "qos": qos });
        let (path, request) = match &pushes[..] {
            [push] => ("/v1/push", body(push)),
            many => ("/v1/push/batch", json!({ "pushes": many.iter().map(body).collect::<Vec<_>>() })),
        };
        let asked = api.ask(&mut conversation, path, &request);
        for (at, push) in pushes.iter().enumerate() {
            let refusal = match &asked {
                Err(failure) => Some(failure.to_string()),
                Ok(reply) if pushes.len() == 1 => refusal(reply),
                Ok(reply) => refusal(&reply["results"][at]),
            };
            shared.answered(builder, push.due, refusal);
        }
    }
}

/// Why a reply is none.
fn refusal(reply: &Value) -> Option<String> {
    reply["id"].is_null().then(|| format!("{} {}", reply["status"], reply["detail"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_has_an_id_and_a_problem_has_none() {
        assert_eq!(refusal(&json!({ "id": "x", "results": [] })), None);
        assert!(refusal(&json!({ "status": 429, "detail": "busy" })).is_some_and(|text| text.contains("429")));
        assert!(refusal(&Value::Null).is_some());
    }
}
