//! What retention took from a session is told: counted, as a `$inbox/$gap` notice where a filter covers that, and as a
//! user property of the next message where the client speaks MQTT 5.

use super::gateway::{Core, Gateway};
use crate::base::ids::{Qos, SessionId};
use crate::base::message::{Message, StreamKey};
use crate::io::Driver;
use crate::limits::GAP_NOTES_MAX;
use crate::session::{Gap, Session, protocol};
use std::collections::HashMap;
use std::sync::Arc;

const NOTICE: &str = "$inbox/$gap";
const PROPERTY: &str = "gap";

/// Gaps that the next message of their session will name, by session index.
#[derive(Debug, Default)]
pub(crate) struct GapNotes {
    sessions: HashMap<u32, Vec<Box<str>>>,
}

impl GapNotes {
    /// Whether the session's next message is not like that of others.
    #[inline]
    pub(crate) fn has(&self, session: u32) -> bool {
        !self.sessions.is_empty() && self.sessions.contains_key(&session)
    }

    fn push(&mut self, session: u32, note: Box<str>) {
        let notes = self.sessions.entry(session).or_default();
        // Each of them has been counted, and told to whoever takes notices.
        if notes.len() == GAP_NOTES_MAX {
            notes.remove(0);
        }
        notes.push(note);
    }

    /// The message with the session's gaps, for as long as there are any.
    pub(crate) fn noted(&self, session: u32, message: &Message) -> Option<Message> {
        if !self.has(session) || &*message.topic == NOTICE {
            return None;
        }
        let mut noted = message.clone();
        let user = &mut noted.properties.get_or_insert_default().user;
        user.extend(self.sessions[&session].iter().map(|note| (PROPERTY.into(), note.clone())));
        Some(noted)
    }

    /// They have been told, or the session is gone.
    pub(crate) fn forget(&mut self, session: u32) {
        self.sessions.remove(&session);
    }

    /// Sessions that have any.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.len()
    }
}

impl Gateway {
    /// Tells a device what retention took from it.
    pub(super) fn deliver_gap<D: Driver>(&mut self, core: &mut Core<D>, id: SessionId, gap: &Gap) {
        match gap {
            Gap::Inbox { entries, .. } => self.counters.gaps += entries,
            Gap::Topics(_) => self.counters.topic_gaps += 1,
        }
        self.notice_trimmed(id, gap, core.now());
        let Some(session) = self.directory.get(id) else { return };
        if !session.protocol().acknowledges() {
            return self.tell_session(core, id, |session, effects| protocol::on_gap(session, gap, effects));
        }
        let (app, is_mqtt5) = (session.app(), Session::is_mqtt5(session));
        let text = said(gap);
        if session.effective(NOTICE, None).is_some() {
            let notice = Message {
                app,
                topic: NOTICE.into(),
                only_device: None,
                payload: text.clone().into_bytes().into(),
                qos: Qos::AtMostOnce,
                retain: false,
                created_ms: core.now().wall_ms,
                expires_ms: None,
                publisher: None,
                properties: None,
            };
            self.deliver_once(core, id, &Arc::new(notice), None);
        }
        if is_mqtt5 {
            self.gap_notes.push(id.index, text.into());
        }
    }
}

/// As JSON. A topic's name is the only text that could need escaping.
fn said(gap: &Gap) -> String {
    match gap {
        Gap::Inbox { first, entries } => format!("{{\"first\":{first},\"entries\":{entries}}}"),
        Gap::Topics(gap) => match &gap.stream {
            StreamKey::Topic(_, topic) => {
                let topic = serde_json::Value::from(&**topic);
                format!("{{\"topic\":{topic},\"kept_from\":{}}}", gap.kept_from)
            }
            StreamKey::Everyone(_) | StreamKey::Inbox(..) | StreamKey::Upstream(_) => {
                format!("{{\"everyone\":true,\"kept_from\":{}}}", gap.kept_from)
            }
        },
    }
}
