//! A request's body, and its signature.

use super::position_text;
use crate::base::ids::{Epoch, Offset};
use crate::push::events::Read;
use crate::shard::command::{Happening, Receipt};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use std::fmt::Write as _;

#[derive(Serialize)]
struct Event<'a> {
    position: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    #[serde(flatten)]
    what: What<'a>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum What<'a> {
    Connected {
        session_present: bool,
    },
    Disconnected {
        reason: &'a str,
    },
    Published {
        topic: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        payload: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        payload_base64: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        content_type: Option<&'a str>,
        qos: u8,
        retain: bool,
    },
    Receipt {
        topic: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        inbox: Option<String>,
        outcome: &'static str,
        messages: u64,
    },
    /// Events that are missing before the next one; 0: nobody knows how many.
    Gap {
        events: u64,
    },
}

/// As many events as fit, but one at least; there is one.
pub(super) fn encode<'a>(app: &str, events: impl Iterator<Item = &'a Read>, bytes_max: usize) -> (usize, Vec<u8>) {
    let fits = "texts and numbers are JSON";
    let mut body = Vec::from(&b"{\"app\":"[..]);
    serde_json::to_writer(&mut body, app).expect(fits);
    body.extend_from_slice(b",\"events\":[");
    let mut count = 0;
    for read in events {
        let before = body.len();
        if count > 0 {
            body.push(b',');
        }
        serde_json::to_writer(&mut body, &event(read)).expect(fits);
        if count > 0 && body.len() > bytes_max {
            body.truncate(before);
            break;
        }
        count += 1;
    }
    body.extend_from_slice(b"]}");
    (count, body)
}

fn event(read: &Read) -> Event<'_> {
    match read {
        Read::Gap(at, events) => {
            let what = What::Gap { events: *events };
            Event { position: position_text(*at), at_ms: None, user: None, device: None, what }
        }
        Read::Event(at, happened) => Event {
            position: position_text(*at),
            at_ms: Some(happened.at_ms),
            user: Some(&happened.user),
            device: Some(&happened.device),
            what: what(&happened.what),
        },
    }
}

fn what(happening: &Happening) -> What<'_> {
    match happening {
        Happening::Connected { session_present } => What::Connected { session_present: *session_present },
        Happening::Disconnected { reason } => What::Disconnected { reason },
        Happening::Published(message) => {
            let (payload, payload_base64) = match core::str::from_utf8(&message.payload) {
                Ok(text) => (Some(text), None),
                Err(_) => (None, Some(STANDARD.encode(&message.payload))),
            };
            let content_type = message.properties.as_ref().and_then(|properties| properties.content_type.as_deref());
            let (qos, retain) = (message.qos as u8, message.retain);
            What::Published { topic: &message.topic, payload, payload_base64, content_type, qos, retain }
        }
        Happening::Receipt { topic, inbox, receipt, count } => What::Receipt {
            topic,
            inbox: inbox.map(|at: (Epoch, Offset)| position_text(at)),
            outcome: match receipt {
                Receipt::Delivered => "delivered",
                Receipt::Refused => "refused",
                Receipt::Expired => "expired",
                Receipt::Trimmed => "trimmed",
            },
            messages: *count,
        },
    }
}

/// HMAC-SHA256 of timestamp, `.` and body, so that nobody can send an old request again as a new one.
pub(super) fn sign(secret: &[u8], timestamp: &str, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
    context.update(timestamp.as_bytes());
    context.update(b".");
    context.update(body);
    let mut text = String::from("sha256=");
    for byte in context.sign().as_ref() {
        write!(text, "{byte:02x}").expect("a string takes all");
    }
    text
}
