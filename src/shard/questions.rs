//! Devices' questions (`$api/…`): read where the control plane's are, answered to the one session that asked.

use super::command::{HistoryPage, HistoryQuery, Missing, Place, Present};
use super::flavours::said;
use super::gateway::{Core, Gateway};
use super::history::HistoryAsker;
use super::letter::Letter;
use super::presence::Asker;
use crate::base::ids::{Qos, SessionId};
use crate::base::message::{Message, Properties, StreamKey};
use crate::io::Driver;
use crate::limits::ANSWER_BYTES_MAX;
use crate::session::{Question, ReplyTo, Session};
use crate::wire::json::{write_message, write_string};
use std::io::Write;
use std::sync::Arc;

/// Of a packet, what is not an answer's payload: topic, correlation data and what MQTT adds, with room to spare.
const ENVELOPE_BYTES: usize = 256;

impl Gateway {
    /// A session asks.
    pub(super) fn ask<D: Driver>(&mut self, core: &mut Core<D>, id: SessionId, question: Question, to: Box<ReplyTo>) {
        let session = self.directory.get(id).expect("who asks is there");
        let app = session.app();
        match question {
            Question::History { topic, after, limit } => {
                let stream = match topic {
                    Some(topic) => StreamKey::Topic(app, topic),
                    None => StreamKey::Inbox(app, session.user().into()),
                };
                let after = after.map(|(epoch, offset)| Place { epoch, offset });
                self.read_history(HistoryQuery { stream, after, limit }, HistoryAsker::Device(id, to));
            }
            Question::Presence { topic } => {
                let home = self.homes.topic(app, &topic);
                let asker = Asker::Device(self.shard, id, to);
                if home == self.shard {
                    self.on_present(core, app, topic, asker);
                } else {
                    core.send_control(home, Letter::Present { app, topic, asker });
                }
            }
        }
    }

    /// None: it could not be read.
    pub(super) fn answer_history<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: SessionId,
        to: &ReplyTo,
        page: Option<&HistoryPage>,
    ) {
        let Some(session) = self.directory.get(id) else { return };
        let beside = to.topic.len() + to.correlation_data.as_ref().map_or(0, |data| data.len()) + ENVELOPE_BYTES;
        let room = self.frame_bytes_max(session).min(ANSWER_BYTES_MAX).saturating_sub(beside);
        let payload = match page {
            Some(page) => history(session, page, room),
            None => br#"{"error":"the store cannot be read now"}"#.to_vec(),
        };
        self.reply(core, id, to, payload);
    }

    /// None: nobody is shown there.
    pub(super) fn answer_presence<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: SessionId,
        to: &ReplyTo,
        present: Option<&Present>,
    ) {
        let payload = match present {
            Some(present) => users(present),
            None => br#"{"error":"no presence is shown of this topic"}"#.to_vec(),
        };
        self.reply(core, id, to, payload);
    }

    /// At QoS 0, like the question's own fate: who hears nothing asks again.
    fn reply<D: Driver>(&mut self, core: &mut Core<D>, id: SessionId, to: &ReplyTo, payload: Vec<u8>) {
        let Some(session) = self.directory.get_mut(id) else { return };
        session.answered();
        // It may have left the topic, or the node, meanwhile.
        if !session.is_open() || session.effective(&to.topic, None).is_none() {
            return;
        }
        let properties = Properties {
            payload_is_utf8: Some(true),
            content_type: Some("application/json".into()),
            correlation_data: to.correlation_data.clone(),
            ..Properties::default()
        };
        let message = Message {
            app: session.app(),
            topic: to.topic.clone(),
            only_device: None,
            payload: payload.into(),
            qos: Qos::AtMostOnce,
            retain: false,
            created_ms: core.now().wall_ms,
            expires_ms: None,
            publisher: None,
            properties: Some(Box::new(properties)),
        };
        // What finds no room is counted.
        let _is_sent = self.deliver_once(core, id, &Arc::new(message), None);
    }
}

/// Entries as far as they fit; one that never will is passed over, and `next` says so.
fn history(session: &Session, page: &HistoryPage, room: usize) -> Vec<u8> {
    let mut entries = Vec::new();
    let (mut next, mut skipped) = (page.next, 0);
    // What stands before and behind the entries.
    let room = room.saturating_sub(HISTORY_FRAME_BYTES);
    for entry in &page.entries {
        let message = &entry.message;
        if message.only_device.as_deref().is_some_and(|device| device != session.device()) {
            continue;
        }
        let before = entries.len();
        if before > 0 {
            entries.push(b',');
        }
        write_message(&said(message, message.qos, Some((entry.epoch, entry.offset)), page.at_ms), &mut entries);
        if entries.len() <= room {
            continue;
        }
        let is_too_long = entries.len() - before > room;
        entries.truncate(before);
        if !is_too_long {
            next = crate::base::ids::Offset(entry.offset.0 - 1);
            break;
        }
        skipped += 1;
    }
    let head = page.head;
    let mut out = Vec::with_capacity(entries.len() + HISTORY_FRAME_BYTES);
    let more = next < head.last;
    write!(
        out,
        "{{\"epoch\":\"{:016x}\",\"first\":{},\"last\":{},\"next\":{next},\"more\":{more},",
        head.epoch.0, head.first, head.last
    )
    .expect("a Vec takes all");
    match page.missing {
        Some(Missing::Unknown) => out.extend_from_slice(b"\"gap\":{\"reason\":\"unknown_position\"},"),
        Some(Missing::Trimmed(first, entries)) => {
            write!(out, "\"gap\":{{\"reason\":\"trimmed\",\"first\":{first},\"entries\":{entries}}},")
                .expect("a Vec takes all");
        }
        None => {}
    }
    if skipped > 0 {
        write!(out, "\"too_large\":{skipped},").expect("a Vec takes all");
    }
    out.extend_from_slice(b"\"entries\":[");
    out.extend_from_slice(&entries);
    out.extend_from_slice(b"]}");
    out
}

/// The numbers and names of a page, at their longest.
const HISTORY_FRAME_BYTES: usize = 256;

/// As many as an answer has room for; `count` says how many there are.
fn users(present: &Present) -> Vec<u8> {
    let mut out = Vec::new();
    write!(out, "{{\"count\":{},\"users\":[", present.count).expect("a Vec takes all");
    for (index, user) in present.users.iter().enumerate() {
        if out.len() + user.len() * 6 + 4 > ANSWER_BYTES_MAX {
            break;
        }
        if index > 0 {
            out.push(b',');
        }
        write_string(user, &mut out);
    }
    out.extend_from_slice(b"]}");
    out
}
