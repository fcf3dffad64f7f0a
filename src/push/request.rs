//! A push, as JSON or as a [`Draft`] → a validated [`Push`].

use super::keys::Caller;
use super::problem::Problem;
use crate::base::ids::{AppId, PushId, Qos};
use crate::base::message::{Message, Properties};
use crate::limits;
use crate::shard::command::{Push, Target};
use axum::http::StatusCode;
use base64::Engine;
use bytes::Bytes;
use core::time::Duration;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::collections::HashSet;
use std::sync::Arc;

/// The body of a push.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    app: Option<String>,
    to: To,
    label: Option<String>,
    #[serde(default, deserialize_with = "even_null")]
    payload: Option<Box<RawValue>>,
    payload_base64: Option<String>,
    content_type: Option<String>,
    qos: Option<u8>,
    ttl_ms: Option<u64>,
    key: Option<String>,
    collapse: Option<String>,
    retain: Option<bool>,
    wait: Option<WaitFor>,
    timeout_ms: Option<u64>,
}

/// `null` is a payload like any other JSON value; only a missing field is none.
fn even_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::deserialize(deserializer).map(Some)
}

/// Where to, as the request says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum To {
    User(String),
    Users(Vec<String>),
    Device(DeviceOfUser),
    Topic(String),
    Everyone(bool),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeviceOfUser {
    pub(super) user: String,
    pub(super) device: String,
}

/// A push that nobody has checked, whatever it came as.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) app: Option<&'a str>,
    pub(super) to: &'a To,
    pub(super) label: Option<&'a str>,
    pub(super) payload: Bytes,
    pub(super) content_type: Option<&'a str>,
    pub(super) qos: Option<u8>,
    pub(super) ttl_ms: Option<u64>,
    pub(super) key: Option<&'a str>,
    pub(super) collapse: Option<&'a str>,
    pub(super) retain: bool,
    pub(super) wait: Option<WaitFor>,
    pub(super) timeout_ms: Option<u64>,
}

/// What a request is judged by.
#[derive(Debug)]
pub(super) struct Asking<'a> {
    pub(super) rules: &'a Rules,
    pub(super) caller: &'a Caller,
    /// What query or header said.
    pub(super) outside_app: Option<&'a str>,
    /// Becomes a push's time of creation.
    pub(super) wall_ms: u64,
}

impl Asking<'_> {
    /// The app of a request: what its body says, else what its query or header said, else the caller's first one.
    pub(super) fn app(&self, body: Option<&str>) -> Result<AppId, Problem> {
        let app = match body.or(self.outside_app) {
            Some(name) => self.rules.app(name)?,
            None => self.caller.first_app(),
        };
        if !self.caller.may(app) {
            return Err(Problem::new(StatusCode::FORBIDDEN, "this key does not speak for the app"));
        }
        Ok(app)
    }
}

/// When a push is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WaitFor {
    /// As soon as the data plane has taken it in.
    Accepted,
    /// Once it is committed, or handed to every interested shard where nothing is owed.
    Stored,
    /// Once the devices that are connected at the commit have it, or at the timeout.
    Delivered,
}

/// What requests are checked against.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Names of the apps; an app's id is its place.
    pub apps: Vec<String>,
    /// Longest MQTT packet a push may become.
    pub packet_bytes: usize,
}

impl Rules {
    /// The name of an app.
    pub(super) fn name(&self, app: AppId) -> &str {
        self.apps.get(usize::from(app.0)).map_or("", String::as_str)
    }

    /// The app of this name.
    fn app(&self, name: &str) -> Result<AppId, Problem> {
        let index = self.apps.iter().position(|app| app == name);
        index
            .and_then(|index| u16::try_from(index).ok())
            .map(AppId)
            .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "there is no such app"))
    }
}

/// A push that may be carried out.
#[derive(Debug)]
pub struct Accepted {
    /// For the data plane.
    pub push: Push,
    /// When to answer.
    pub wait: WaitFor,
    /// How long to wait for that.
    pub timeout: Duration,
}

/// Reads one push and gives it to `then`.
pub(super) fn read<T>(json: &[u8], then: impl FnOnce(Draft<'_>) -> Result<T, Problem>) -> Result<T, Problem> {
    let body: Body = serde_json::from_slice(json)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, format!("the body is not a push: {error}")))?;
    then(Draft {
        app: body.app.as_deref(),
        to: &body.to,
        label: body.label.as_deref(),
        payload: payload(body.payload.as_deref(), body.payload_base64.as_deref())?,
        content_type: body.content_type.as_deref(),
        qos: body.qos,
        ttl_ms: body.ttl_ms,
        key: body.key.as_deref(),
        collapse: body.collapse.as_deref(),
        retain: body.retain.unwrap_or(false),
        wait: body.wait,
        timeout_ms: body.timeout_ms,
    })
}

/// Checks one push.
pub(super) fn check(draft: Draft<'_>, asking: &Asking<'_>) -> Result<Accepted, Problem> {
    check_availability(&draft)?;
    let app = asking.app(draft.app)?;
    let (target, topic, only_device) = target(draft.to, draft.label)?;
    let (payload, content_type, wall_ms) = (draft.payload, draft.content_type, asking.wall_ms);
    check_size(&payload, &topic, content_type, asking.rules.packet_bytes)?;
    let qos = qos(draft.qos)?;
    let ttl_ms = ttl_ms(draft.ttl_ms)?;
    let message = Message {
        app,
        topic,
        only_device,
        payload,
        qos,
        retain: draft.retain,
        created_ms: wall_ms,
        expires_ms: ttl_ms.map(|ttl| wall_ms.saturating_add(ttl)),
        publisher: None,
        properties: properties(content_type, draft.collapse)?,
    };
    let key = key(draft.key, &target, &message, ttl_ms)?;
    let timeout = timeout(draft.timeout_ms)?;
    let wait = draft.wait.unwrap_or(match qos {
        Qos::AtMostOnce => WaitFor::Accepted,
        Qos::AtLeastOnce | Qos::ExactlyOnce => WaitFor::Stored,
    });
    let deliver_within = (wait == WaitFor::Delivered).then_some(timeout);
    if deliver_within.is_some() && matches!(target, Target::Topic(_) | Target::Everyone) {
        return Err(Problem::field("wait", "`delivered` is for users and devices: nobody lists a topic's receivers"));
    }
    // Whoever hands it over gives it its id.
    let push = Push { app, target, message: Arc::new(message), key, id: PushId::default(), deliver_within };
    Ok(Accepted { push, wait, timeout })
}

fn check_availability(draft: &Draft<'_>) -> Result<(), Problem> {
    if draft.retain && !matches!(draft.to, To::Topic(_)) {
        return Err(Problem::field("retain", "is for topics; an inbox keeps what is pushed to it"));
    }
    Ok(())
}

thread_local! {
    /// What receivers see of a push without a label. Each thread counts its own, so that they do not share the count.
    static UNLABELLED: Arc<str> = Arc::from("$inbox/push");
}

/// Where to, the name receivers see, and the one device that takes it.
#[expect(clippy::type_complexity, reason = "three results of one match, taken apart at once by the one caller")]
fn target(to: &To, label: Option<&str>) -> Result<(Target, Arc<str>, Option<Arc<str>>), Problem> {
    if let To::Topic(topic) = to {
        if label.is_some() {
            return Err(Problem::field("label", "is for inboxes; a topic has its own name"));
        }
        check_name("to.topic", topic, limits::TOPIC_BYTES_MAX, limits::TOPIC_LEVELS_MAX)?;
        let topic: Arc<str> = Arc::from(topic.as_str());
        return Ok((Target::Topic(Arc::clone(&topic)), topic, None));
    }
    let topic = match label {
        None => UNLABELLED.with(Arc::clone),
        Some(label) => {
            // `$inbox` is a level of its own.
            check_name("label", label, limits::LABEL_BYTES_MAX, limits::TOPIC_LEVELS_MAX - 1)?;
            Arc::from(["$inbox/", label].concat())
        }
    };
    Ok(match to {
        To::User(user) => (Target::User(identity("to.user", user)?), topic, None),
        To::Users(users) => (Target::Users(self::users(users)?), topic, None),
        To::Device(DeviceOfUser { user, device }) => {
            let device = identity("to.device.device", device)?;
            let user = identity("to.device.user", user)?;
            (Target::Device { user, device: Arc::clone(&device) }, topic, Some(device))
        }
        To::Everyone(true) => (Target::Everyone, topic, None),
        To::Everyone(false) => return Err(Problem::field("to.everyone", "must be true")),
        To::Topic(_) => unreachable!("topics have returned above"),
    })
}

fn users(users: &[String]) -> Result<Vec<Arc<str>>, Problem> {
    if users.is_empty() || users.len() > limits::PUSH_USERS_MAX {
        let detail = format!("has {} users; allowed: 1 to {}", users.len(), limits::PUSH_USERS_MAX);
        return Err(Problem::field("to.users", detail));
    }
    let mut seen = HashSet::with_capacity(users.len());
    let mut checked = Vec::with_capacity(users.len());
    for (index, user) in users.iter().enumerate() {
        let field = || format!("to.users[{index}]");
        if !seen.insert(user.as_str()) {
            return Err(Problem::field(field(), "is in the list already"));
        }
        checked.push(identity_in(field, user)?);
    }
    Ok(checked)
}

/// A user name or client id.
pub(super) fn identity(field: &str, text: &str) -> Result<Arc<str>, Problem> {
    identity_in(|| field.to_owned(), text)
}

/// A topic that clients and backends may publish to.
pub(super) fn topic(field: &str, name: &str) -> Result<Arc<str>, Problem> {
    check_name(field, name, limits::TOPIC_BYTES_MAX, limits::TOPIC_LEVELS_MAX)?;
    Ok(Arc::from(name))
}

fn identity_in(field: impl FnOnce() -> String, text: &str) -> Result<Arc<str>, Problem> {
    if text.is_empty() || text.len() > limits::IDENTITY_BYTES_MAX {
        let detail = format!("has {} bytes; allowed: 1 to {}", text.len(), limits::IDENTITY_BYTES_MAX);
        return Err(Problem::field(field(), detail));
    }
    if text.contains('\0') {
        return Err(Problem::field(field(), "contains the character U+0000"));
    }
    Ok(Arc::from(text))
}

/// A topic name or a label: no wildcards, no U+0000, bounded; `$` at the start is the server's own.
fn check_name(field: &str, name: &str, bytes_max: usize, levels_max: usize) -> Result<(), Problem> {
    if name.is_empty() || name.len() > bytes_max {
        return Err(Problem::field(field, format!("has {} bytes; allowed: 1 to {bytes_max}", name.len())));
    }
    if name.contains(['+', '#', '\0']) {
        return Err(Problem::field(field, "contains a wildcard (`+`, `#`) or U+0000"));
    }
    if name.starts_with('$') {
        return Err(Problem::field(field, "starts with `$`, which is reserved"));
    }
    let levels = name.split('/').count();
    if levels > levels_max {
        return Err(Problem::field(field, format!("has {levels} levels; allowed: 1 to {levels_max}")));
    }
    Ok(())
}

fn payload(json: Option<&RawValue>, base64: Option<&str>) -> Result<Bytes, Problem> {
    match (json, base64) {
        (Some(json), None) => json_payload(json.get()),
        (None, Some(text)) => base64::engine::general_purpose::STANDARD
            .decode(text)
            .map(Bytes::from)
            .map_err(|error| Problem::field("payload_base64", format!("is not base64: {error}"))),
        (None, None) => Err(Problem::field("payload", "is missing: give `payload` or `payload_base64`")),
        (Some(_), Some(_)) => Err(Problem::field("payload", "is there twice: give `payload` or `payload_base64`")),
    }
}

/// A string is its text; any other value stays as it was written, without the white space between its parts.
fn json_payload(raw: &str) -> Result<Bytes, Problem> {
    if raw.starts_with('"') {
        let text: String = serde_json::from_str(raw)
            .map_err(|error| Problem::field("payload", format!("is not a string: {error}")))?;
        return Ok(Bytes::from(text));
    }
    let mut compact = Vec::with_capacity(raw.len());
    let mut in_string = false;
    let mut escaped = false;
    for byte in raw.bytes() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if byte == b'"' {
            in_string = true;
        } else if byte.is_ascii_whitespace() {
            continue;
        }
        compact.push(byte);
    }
    Ok(Bytes::from(compact))
}

/// The message must fit the longest packet that devices are sent.
fn check_size(payload: &Bytes, topic: &str, content_type: Option<&str>, packet_bytes: usize) -> Result<(), Problem> {
    let around = topic.len() + content_type.map_or(0, str::len) + limits::PUSH_PACKET_OVERHEAD_BYTES;
    if around + payload.len() > packet_bytes {
        let allowed = packet_bytes.saturating_sub(around);
        return Err(Problem::too_large(
            "payload",
            format!("has {} bytes; allowed with this topic: {allowed}", payload.len()),
        ));
    }
    Ok(())
}

fn qos(bits: Option<u8>) -> Result<Qos, Problem> {
    match bits {
        None => Ok(Qos::AtLeastOnce),
        Some(bits) => Qos::from_bits(bits).ok_or_else(|| Problem::field("qos", "must be 0, 1 or 2")),
    }
}

fn ttl_ms(ttl_ms: Option<u64>) -> Result<Option<u64>, Problem> {
    if ttl_ms.is_some_and(|ttl| ttl == 0 || ttl > limits::PUSH_TTL_MS_MAX) {
        return Err(Problem::field("ttl_ms", format!("allowed: 1 to {}", limits::PUSH_TTL_MS_MAX)));
    }
    Ok(ttl_ms)
}

fn timeout(timeout_ms: Option<u64>) -> Result<Duration, Problem> {
    let Some(timeout_ms) = timeout_ms else {
        return Ok(limits::PUSH_TIMEOUT_DEFAULT);
    };
    let timeout = Duration::from_millis(timeout_ms);
    if timeout.is_zero() || timeout > limits::PUSH_TIMEOUT_MAX {
        let detail = format!("allowed: 1 to {}", limits::PUSH_TIMEOUT_MAX.as_millis());
        return Err(Problem::field("timeout_ms", detail));
    }
    Ok(timeout)
}

fn properties(content_type: Option<&str>, collapse: Option<&str>) -> Result<Option<Box<Properties>>, Problem> {
    if content_type.is_none() && collapse.is_none() {
        return Ok(None);
    }
    if collapse.is_some_and(|key| key.is_empty() || key.len() > limits::COLLAPSE_BYTES_MAX) {
        let detail = format!("allowed: 1 to {} bytes", limits::COLLAPSE_BYTES_MAX);
        return Err(Problem::field("collapse", detail));
    }
    if let Some(content_type) = content_type
        && (content_type.len() > limits::CONTENT_TYPE_BYTES_MAX || content_type.contains('\0'))
    {
        let detail = format!("allowed: at most {} bytes without U+0000", limits::CONTENT_TYPE_BYTES_MAX);
        return Err(Problem::field("content_type", detail));
    }
    let (content_type, collapse) = (content_type.map(Box::from), collapse.map(Box::from));
    Ok(Some(Box::new(Properties { content_type, collapse, ..Properties::default() })))
}

fn key(
    key: Option<&str>,
    target: &Target,
    message: &Message,
    ttl_ms: Option<u64>,
) -> Result<Option<(Box<str>, u64)>, Problem> {
    let Some(key) = key else {
        return Ok(None);
    };
    if key.is_empty() || key.len() > limits::KEY_BYTES_MAX {
        return Err(Problem::field("key", format!("has {} bytes; allowed: 1 to {}", key.len(), limits::KEY_BYTES_MAX)));
    }
    Ok(Some((Box::from(key), body_hash(target, message, ttl_ms))))
}

/// What a key stands for: all that receivers can tell apart, not how the caller waits. It is kept as long as the key,
/// across restarts and versions, so it is a fixed function (FNV-1a over length-prefixed parts) and must not change.
fn body_hash(target: &Target, message: &Message, ttl_ms: Option<u64>) -> u64 {
    let mut hash = Fnv::new();
    match target {
        Target::User(user) => hash.part(b"user").part(user.as_bytes()),
        Target::Users(users) => users.iter().fold(hash.part(b"users"), |hash, user| hash.part(user.as_bytes())),
        Target::Device { user, device } => hash.part(b"device").part(user.as_bytes()).part(device.as_bytes()),
        Target::Topic(_) => hash.part(b"topic"),
        Target::Everyone => hash.part(b"everyone"),
    };
    let content_type = message.properties.as_ref().and_then(|properties| properties.content_type.as_deref());
    hash.part(message.topic.as_bytes())
        .part(&message.payload)
        .part(&[message.qos as u8])
        .part(content_type.unwrap_or_default().as_bytes())
        .part(&ttl_ms.unwrap_or_default().to_le_bytes());
    if let Some(collapse) = message.properties.as_ref().and_then(|properties| properties.collapse.as_deref()) {
        hash.part(b"collapse").part(collapse.as_bytes());
    }
    if message.retain {
        // Only then, so that keys of other pushes stand for what they did before there was such a thing.
        hash.part(b"retain");
    }
    hash.0
}

struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn part(&mut self, bytes: &[u8]) -> &mut Self {
        let length = (bytes.len() as u64).to_le_bytes();
        for &byte in length.iter().chain(bytes) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self
    }
}
