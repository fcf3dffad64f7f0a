//! The application unit that all layers hand on: made once, shared by reference, never changed.

use super::ids::{AppId, Epoch, Offset, Qos, Seq};
use bytes::Bytes;
use std::sync::Arc;

/// A message as its origin gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Tenant.
    pub app: AppId,
    /// Name subscribers see: a topic name, or `$inbox/LABEL` for inbox, device and everyone targets.
    pub topic: Arc<str>,
    /// Only this device of the user takes it; its other devices skip it. Only in inbox entries.
    pub only_device: Option<Arc<str>>,
    /// At most the packet limit.
    pub payload: Bytes,
    /// The publisher's QoS; a delivery has the smaller of this and the subscription's.
    pub qos: Qos,
    /// The publisher's retain flag.
    pub retain: bool,
    /// Wall-clock milliseconds.
    pub created_ms: u64,
    /// Wall-clock milliseconds from which it is neither delivered nor counted.
    pub expires_ms: Option<u64>,
    /// Who published it, for No Local; none for pushes. A hash of (app, user, device).
    pub publisher: Option<u64>,
    /// MQTT 5 properties passed on unaltered; none for most messages.
    pub properties: Option<Box<Properties>>,
}

/// MQTT 5 PUBLISH properties that a server passes on unaltered, and what of a push has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// Payload Format Indicator 1: UTF-8.
    pub payload_is_utf8: Option<bool>,
    /// Content Type.
    pub content_type: Option<Box<str>>,
    /// Response Topic.
    pub response_topic: Option<Box<str>>,
    /// Correlation Data.
    pub correlation_data: Option<Box<[u8]>>,
    /// What makes messages of one topic replace each other where they wait for a slow client. It is not stored: what is
    /// logged waits in the log.
    pub collapse: Option<Box<str>>,
    /// User Properties in order.
    pub user: Vec<(Box<str>, Box<str>)>,
}

/// An ordered log: an inbox, a topic, the app's `everyone`, or what backends are told of its devices.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StreamKey {
    /// A user's own stream.
    Inbox(AppId, Arc<str>),
    /// A topic's.
    Topic(AppId, Arc<str>),
    /// What reaches every session of the app with an `$inbox` filter.
    Everyone(AppId),
    /// What happens to the app's devices, for the consumer groups of its backends. No session reads it.
    Upstream(AppId),
}

impl StreamKey {
    /// The app in whose topics its entries are also found by seq; none for inboxes and what is for backends.
    pub fn topics_of(&self) -> Option<AppId> {
        match self {
            Self::Inbox(..) | Self::Upstream(_) => None,
            Self::Topic(app, _) | Self::Everyone(app) => Some(*app),
        }
    }
}

/// A committed entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose.
    pub stream: StreamKey,
    /// The stream's life.
    pub epoch: Epoch,
    /// From 1 without gaps.
    pub offset: Offset,
    /// Over all streams.
    pub seq: Seq,
    /// The same allocation for every user of a list.
    pub message: Arc<Message>,
}
