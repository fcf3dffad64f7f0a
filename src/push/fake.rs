//! A fake data plane and the API's router before it, for tests: no socket, no clock.

use super::*;
use crate::admin;
use crate::base::ids::{AppId, ConnectionId, Epoch, Offset, PushId, Qos, Seq, ShardId};
use crate::base::log::StreamHead;
use crate::base::message::{Entry, Message, Properties};
use crate::shard::command::{
    Author, Ban, BanAnswer, BanCommand, CommandError, CommandToken, ConnectionFigures, ConnectionName, ConnectionQuery,
    DeviceState, Event, Follow, Happening, HistoryPage, HistoryQuery, Missing, NamedBan, Notice, Present, Push,
    PushResult, Pushed, ShardStats, Subject, Target, UserState, Watch, upstream,
};
use crate::store::handle::{self as store, InMemory, NewEntry, RequestToken, StoreError};
use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, header};
use serde_json::{Value, json};
use smallvec::smallvec;
use std::sync::{Mutex, OnceLock};
use tower::ServiceExt;

pub(super) const NOW_MS: u64 = 1_700_000_000_000;
pub(super) const PACKET_BYTES: usize = 4_096;

/// What the fake does with a command.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// Answers at once, from inside the call: the earliest an answer can come.
    Answer,
    /// Refuses the call.
    Refuse(CommandError),
    /// Takes it in and answers with an error.
    Fail(CommandError),
    /// Takes it in and says nothing.
    Silent,
}

/// The id of every push, and that of the one that had the key `seen` first.
const ID: PushId = PushId(0x1d);
const FIRST: PushId = PushId(0xf1);

/// The fake data plane and what it was asked for.
pub(super) struct Fake {
    behaviour: Mutex<Behaviour>,
    pub(super) healthy: Mutex<bool>,
    pub(super) pushes: Mutex<Vec<Push>>,
    /// What is told of them once somebody rings.
    unrung: Mutex<Vec<Event>>,
    /// How many pushes there had been, each time that somebody rang.
    pub(super) rung: Mutex<Vec<usize>>,
    pub(super) disconnects: Mutex<Vec<(AppId, String, Option<String>)>>,
    pub(super) queries: Mutex<Vec<HistoryQuery>>,
    pub(super) watches: Mutex<Vec<Arc<Watch>>>,
    pub(super) bans: Mutex<Vec<NamedBan>>,
    /// A real log, which commits at once and tells what it says.
    pub(super) log: Mutex<InMemory>,
    notices: Mutex<Option<Arc<Notices>>>,
    pub(super) followed: Mutex<Vec<Follow>>,
    pub(super) control: OnceLock<Arc<Control>>,
}

pub(super) struct FakeGateway(Arc<Fake>);

impl Fake {
    fn dispatch(&self, event: Event) {
        self.control.get().expect("set before the first command").dispatch(event);
    }

    fn answer_connections(
        &self,
        token: CommandToken,
        answers: Vec<Vec<ConnectionFigures>>,
    ) -> Result<usize, CommandError> {
        let count = answers.len();
        answers.into_iter().for_each(|connections| self.dispatch(Event::Connections { token, connections }));
        Ok(count)
    }

    fn tell(&self, notice: Notice) {
        let notices = self.notices.lock().expect("not poisoned").clone().expect("set before the first command");
        notices.take(notice);
    }

    fn behave(&self) -> Behaviour {
        *self.behaviour.lock().expect("not poisoned")
    }
}

impl Gateway for FakeGateway {
    fn push(&self, push: Push, token: CommandToken) -> Result<(), CommandError> {
        let result = |user: Option<&Arc<str>>, offset: u64| PushResult {
            user: user.cloned(),
            position: (push.qos() != Qos::AtMostOnce).then_some((Epoch(0xab), Offset(offset))),
            online: user.map(|_| 2),
            delivered: push.deliver_within.map(|_| vec![Arc::from("phone")]).unwrap_or_default(),
        };
        let results = match &push.target {
            Target::User(user) | Target::Device { user, .. } => smallvec![result(Some(user), 17)],
            Target::Users(users) => users.iter().zip(1..).map(|(user, offset)| result(Some(user), offset)).collect(),
            Target::Topic(_) | Target::Everyone => smallvec![result(None, 5)],
        };
        let duplicate = push.key.as_ref().is_some_and(|(key, _)| &**key == "seen");
        let id = if duplicate { FIRST } else { push.id };
        self.0.pushes.lock().expect("not poisoned").push(push.clone());
        let result = match self.0.behave() {
            Behaviour::Answer => Ok(Pushed { results, duplicate, id }),
            Behaviour::Fail(error) => Err(error),
            Behaviour::Refuse(error) => return Err(error),
            Behaviour::Silent => return Ok(()),
        };
        self.0.unrung.lock().expect("not poisoned").push(Event::Pushed { token, result });
        Ok(())
    }

    fn is_unrung(&self) -> bool {
        let seen = self.0.rung.lock().expect("not poisoned").last().copied().unwrap_or(0);
        self.0.pushes.lock().expect("not poisoned").len() > seen
    }

    fn ring(&self) {
        let pushes = self.0.pushes.lock().expect("not poisoned").len();
        self.0.rung.lock().expect("not poisoned").push(pushes);
        let unrung = core::mem::take(&mut *self.0.unrung.lock().expect("not poisoned"));
        unrung.into_iter().for_each(|event| self.0.dispatch(event));
    }

    fn canary(&self, token: CommandToken) -> Result<usize, CommandError> {
        match self.0.behave() {
            Behaviour::Refuse(error) => return Err(error),
            Behaviour::Silent => {}
            behaviour @ (Behaviour::Answer | Behaviour::Fail(_)) => {
                let is_well = behaviour == Behaviour::Answer;
                (0..2).for_each(|_| self.0.dispatch(Event::Canary { token, is_well }));
            }
        }
        Ok(2)
    }

    fn follow(&self, followed: &Arc<[Follow]>) -> Result<(), CommandError> {
        *self.0.followed.lock().expect("not poisoned") = followed.to_vec();
        Ok(())
    }

    fn stats(&self, token: CommandToken) -> Result<usize, CommandError> {
        match self.0.behave() {
            Behaviour::Refuse(error) => return Err(error),
            Behaviour::Silent => {}
            Behaviour::Answer | Behaviour::Fail(_) => {
                for shard in [1, 0] {
                    let stats = ShardStats {
                        shard,
                        driver: "fake",
                        gauges: vec![("connections", 10 + u64::from(shard))],
                        counters: vec![("accepted", 100), ("sent_qos1", 5), ("dropped_expired", 2)],
                    };
                    self.0.dispatch(Event::Stats { token, stats: Box::new(stats) });
                }
            }
        }
        Ok(2)
    }

    /// Each shard has one connection, named as asked or as the shard's first.
    fn connections(&self, query: ConnectionQuery, token: CommandToken) -> Result<usize, CommandError> {
        let figures = |name: ConnectionName| ConnectionFigures {
            name,
            app: AppId(1),
            user: "alice".into(),
            device: "phone".into(),
            peer: "192.0.2.1:4000".parse().expect("an address"),
            protocol: "mqtt 5.0",
            behind: name.shard.0 == 1,
            outbox_bytes: 100,
            window: 32,
            stalled: false,
            lag: 7,
            in_flight: 32,
            subscriptions: 2,
            durable: true,
        };
        let names = match query {
            ConnectionQuery::One(name) if name.id.index > 9 => return self.0.answer_connections(token, vec![vec![]]),
            ConnectionQuery::One(name) => vec![name],
            ConnectionQuery::Slowest(_) => {
                let id = ConnectionId { index: 0, generation: 1 };
                [0, 1].map(|shard| ConnectionName { shard: ShardId(shard), id }).to_vec()
            }
        };
        self.0.answer_connections(token, names.into_iter().map(|name| vec![figures(name)]).collect())
    }

    fn disconnect(
        &self,
        app: AppId,
        user: Arc<str>,
        device: Option<Arc<str>>,
        token: CommandToken,
    ) -> Result<(), CommandError> {
        let asked = (app, user.to_string(), device.map(|device| device.to_string()));
        self.0.disconnects.lock().expect("not poisoned").push(asked);
        match self.0.behave() {
            Behaviour::Refuse(error) => return Err(error),
            Behaviour::Silent => {}
            Behaviour::Answer | Behaviour::Fail(_) => self.0.dispatch(Event::Disconnected { token, count: 3 }),
        }
        Ok(())
    }

    /// A stream of three, of which the second is over its time and the third is not text.
    fn history(&self, query: HistoryQuery, token: CommandToken) -> Result<(), CommandError> {
        let result = match self.0.behave() {
            Behaviour::Refuse(error) => return Err(error),
            Behaviour::Silent => return Ok(()),
            Behaviour::Fail(error) => Err(error),
            Behaviour::Answer => Ok(history_of(&query)),
        };
        self.0.queries.lock().expect("not poisoned").push(query);
        self.0.dispatch(Event::History { token, result });
        Ok(())
    }

    fn presence(&self, _app: AppId, topic: Arc<str>, token: CommandToken) -> Result<(), CommandError> {
        let users = vec![Arc::from("alice"), Arc::from("bob")];
        let present = (&*topic == "rooms/42").then_some(Present { users, count: 7 });
        match self.0.behave() {
            Behaviour::Refuse(error) => return Err(error),
            Behaviour::Silent => {}
            Behaviour::Answer | Behaviour::Fail(_) => self.0.dispatch(Event::Presence { token, present }),
        }
        Ok(())
    }

    fn user(&self, _app: AppId, user: Arc<str>, token: CommandToken) -> Result<(), CommandError> {
        let phone = DeviceState {
            device: Arc::from("phone"),
            online: true,
            expiry_seconds: 60,
            subscriptions: 2,
            in_flight: 3,
            inbox: Some((Epoch(0xab), Offset(16))),
            unread: Some(1),
        };
        let alice = UserState { devices: vec![phone], read: Some((Epoch(0xab), Offset(15))), unread: 2 };
        let state = if &*user == "alice" { alice } else { UserState::default() };
        match self.0.behave() {
            Behaviour::Refuse(error) => return Err(error),
            Behaviour::Silent => {}
            Behaviour::Fail(error) => self.0.dispatch(Event::User { token, result: Err(error) }),
            Behaviour::Answer => self.0.dispatch(Event::User { token, result: Ok(state) }),
        }
        Ok(())
    }

    /// Keeps what it is told, and the node has banned one user of each app itself.
    fn bans(&self, command: BanCommand, token: CommandToken) -> Result<(), CommandError> {
        let mut bans = self.0.bans.lock().expect("not poisoned");
        let answer = match command {
            BanCommand::List => {
                let node = |app| NamedBan {
                    subject: Subject::User(AppId(app), "eve".into()),
                    ban: Ban { since_ms: 1, until_ms: 2, author: Author::Node { before: 1 } },
                };
                BanAnswer::List(bans.iter().cloned().chain([node(0), node(1)]).collect())
            }
            BanCommand::Add { subject, until_ms, reason } => {
                let ban = Ban { since_ms: NOW_MS, until_ms, author: Author::Operator(reason) };
                bans.push(NamedBan { subject, ban });
                BanAnswer::Added(Box::new(bans.last().expect("just added").clone()))
            }
            BanCommand::Remove(subject) => {
                let before = bans.len();
                bans.retain(|ban| ban.subject != subject);
                BanAnswer::Removed(bans.len() < before)
            }
        };
        drop(bans);
        let result = match self.0.behave() {
            Behaviour::Refuse(error) => return Err(error),
            Behaviour::Fail(error) => Err(error),
            Behaviour::Answer => Ok(answer),
            Behaviour::Silent => return Ok(()),
        };
        self.0.dispatch(Event::Bans { token, result });
        Ok(())
    }

    fn watch(&self, watch: &Arc<Watch>) -> Result<(), CommandError> {
        if let Behaviour::Refuse(error) = self.0.behave() {
            return Err(error);
        }
        self.0.watches.lock().expect("not poisoned").push(Arc::clone(watch));
        Ok(())
    }

    fn ask_log(&self, request: store::Request, token: RequestToken) -> Result<(), StoreError> {
        if let Behaviour::Refuse(_) = self.0.behave() {
            return Err(StoreError::Busy);
        }
        let done = self.0.log.lock().expect("not poisoned").ask(request, token)?;
        self.0.tell(Notice::Answered(done));
        Ok(())
    }

    fn drain(&self) {}

    fn shards(&self) -> usize {
        2
    }

    fn store_stats(&self) -> Vec<(&'static str, u64)> {
        vec![("entries", 7)]
    }

    fn healthy(&self) -> bool {
        *self.0.healthy.lock().expect("not poisoned")
    }
}

pub(super) struct Bench {
    pub(super) fake: Arc<Fake>,
    pub(super) control: Arc<Control>,
    pub(super) router: axum::Router,
    pub(super) notices: Arc<Notices>,
    hub: Arc<events::Hub>,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(true, limits::PENDING_COMMANDS_MAX)
    }

    pub(super) fn with(is_loopback: bool, pending_max: usize) -> Self {
        Self::with_keys(is_loopback, pending_max, ApiKeys::default())
    }

    pub(super) fn with_keys(is_loopback: bool, pending_max: usize, keys: ApiKeys) -> Self {
        Self::build(is_loopback, pending_max, keys, (None, &[]))
    }

    pub(super) fn with_push_rate(per_second: u32, own: &[Option<u32>]) -> Self {
        Self::build(true, limits::PENDING_COMMANDS_MAX, ApiKeys::default(), (Some(per_second), own))
    }

    fn build(is_loopback: bool, pending_max: usize, keys: ApiKeys, rates: (Option<u32>, &[Option<u32>])) -> Self {
        let fake = Arc::new(Fake {
            behaviour: Mutex::new(Behaviour::Answer),
            healthy: Mutex::new(true),
            pushes: Mutex::default(),
            unrung: Mutex::default(),
            rung: Mutex::default(),
            disconnects: Mutex::default(),
            queries: Mutex::default(),
            watches: Mutex::default(),
            bans: Mutex::default(),
            log: Mutex::new(InMemory::new(NOW_MS)),
            notices: Mutex::default(),
            followed: Mutex::default(),
            control: OnceLock::new(),
        });
        let control = Arc::new(Control::with_capacity(Box::new(FakeGateway(Arc::clone(&fake))), pending_max));
        assert!(fake.control.set(Arc::clone(&control)).is_ok());
        let apps = vec!["default".to_owned(), "shop".to_owned()];
        let rules = Rules { apps: apps.clone(), packet_bytes: PACKET_BYTES };
        let sources = Sources { wall_ms: || NOW_MS, new_id: || ID };
        let api = Api::new(Arc::clone(&control), rules, sources, keys, is_loopback).with_push_rate(rates.0, rates.1);
        let (notices, hub) = (Arc::new(api.notices()), Arc::clone(&api.events));
        *fake.notices.lock().expect("not poisoned") = Some(Arc::clone(&notices));
        let router = api.router(admin::router(Arc::clone(&control), apps, sources.wall_ms));
        Self { fake, control, router, notices, hub }
    }

    /// What a sink of events needs besides its settings.
    pub(super) fn around(&self) -> webhook::Around {
        let (control, hub) = (Arc::clone(&self.control), Arc::clone(&self.hub));
        webhook::Around { control, hub, app_name: "default".to_owned(), wall_ms: || NOW_MS, random: || 0 }
    }

    pub(super) fn hub(&self) -> Arc<events::Hub> {
        Arc::clone(&self.hub)
    }

    /// Another process over the same log.
    pub(super) fn restart(&mut self) {
        self.restart_at(|| NOW_MS);
    }

    /// The same, with a clock of its own.
    pub(super) fn restart_at(&mut self, wall_ms: fn() -> u64) {
        self.hub = Arc::new(events::Hub::new(LogDesk::new(Arc::clone(&self.control)), wall_ms));
        self.notices = Arc::new(Notices { control: Arc::clone(&self.control), events: Arc::clone(&self.hub) });
        *self.fake.notices.lock().expect("not poisoned") = Some(Arc::clone(&self.notices));
    }

    /// Things happen to devices, in one commit: user, device, what.
    pub(super) fn happen(&self, app: AppId, all: &[(&str, &str, Happening)]) {
        let entry = |(user, device, what): &(&str, &str, Happening)| upstream::entry(app, user, device, what, NOW_MS);
        self.append(all.iter().map(entry).collect());
    }

    /// What happens meanwhile comes into the log, and no hint of it arrives.
    pub(super) fn unheard(&self, happens: impl FnOnce()) {
        let deaf = Arc::new(events::Hub::new(LogDesk::new(Arc::clone(&self.control)), || NOW_MS));
        let deaf = Arc::new(Notices { control: Arc::clone(&self.control), events: deaf });
        let swap = |notices| self.fake.notices.lock().expect("not poisoned").replace(notices);
        let hears = swap(deaf).expect("it was set");
        happens();
        swap(hears);
    }

    /// Entries come into the log, as from a shard.
    pub(super) fn append(&self, entries: Vec<NewEntry>) {
        let batch = self.fake.log.lock().expect("not poisoned").append(entries);
        self.fake.tell(Notice::Written(batch));
    }

    pub(super) fn behave(&self, behaviour: Behaviour) {
        *self.fake.behaviour.lock().expect("not poisoned") = behaviour;
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.expect("the router never fails")
    }

    pub(super) async fn post(&self, path: &str, body: impl Into<Body>) -> (u16, Value) {
        answer(self.send(post(path).body(body.into()).expect("a request")).await).await
    }

    pub(super) async fn push(&self, body: &Value) -> (u16, Value) {
        self.post("/v1/push", body.to_string()).await
    }

    pub(super) async fn get(&self, path: &str) -> (u16, Value) {
        let request = Request::get(path).header(header::HOST, "localhost").body(Body::empty()).expect("a request");
        answer(self.send(request).await).await
    }

    /// The last push that the data plane was given.
    pub(super) fn pushed(&self) -> Push {
        self.fake.pushes.lock().expect("not poisoned").last().expect("a push").clone()
    }

    pub(super) fn push_count(&self) -> usize {
        self.fake.pushes.lock().expect("not poisoned").len()
    }

    pub(super) fn own(&self, name: &str) -> u64 {
        let stats = self.control.own_stats();
        stats.iter().find(|&&(key, _)| key == name).expect("a known name").1
    }
}

/// Offsets 4 to 6 are kept; 5 is over its time.
fn history_of(query: &HistoryQuery) -> HistoryPage {
    let head = StreamHead { epoch: Epoch(0xab), first: Offset(4), last: Offset(6), trimmed: Seq(0) };
    let entry = |offset, payload: &'static [u8], content_type: Option<&str>| {
        let properties =
            content_type.map(|name| Box::new(Properties { content_type: Some(name.into()), ..Properties::default() }));
        let message = Message {
            app: AppId(0),
            topic: "$inbox/orders".into(),
            only_device: (offset == 6).then(|| "phone".into()),
            payload: payload.into(),
            qos: Qos::AtLeastOnce,
            retain: false,
            created_ms: NOW_MS - 5,
            expires_ms: (offset == 4).then_some(NOW_MS + 900),
            publisher: None,
            properties,
        };
        let (stream, epoch) = (query.stream.clone(), Epoch(0xab));
        Entry { stream, epoch, offset: Offset(offset), seq: Seq(offset), message: Arc::new(message) }
    };
    let entries = vec![entry(4, b"one", Some("text/plain")), entry(6, &[0xff], None)];
    let missing = query.after.map(|place| match place.epoch {
        Some(Epoch(0xab)) | None => Missing::Trimmed(Offset(place.offset.0 + 1), 3 - place.offset.0),
        Some(_) => Missing::Unknown,
    });
    HistoryPage { head, entries, next: Offset(6), missing, at_ms: NOW_MS }
}

pub(super) fn post(path: &str) -> axum::http::request::Builder {
    Request::post(path).header(header::HOST, "127.0.0.1:7700").header(header::CONTENT_TYPE, "application/json")
}

/// Status and JSON; every refusal must be a problem whose status is the response's.
pub(super) async fn answer(response: Response<Body>) -> (u16, Value) {
    let (parts, body) = response.into_parts();
    let status = parts.status.as_u16();
    let bytes = to_bytes(body, 64 << 20).await.expect("a body in memory");
    let value: Value = serde_json::from_slice(&bytes).expect("replies are JSON");
    let kind = parts.headers[header::CONTENT_TYPE].to_str().expect("ASCII");
    if parts.status.is_success() {
        assert_eq!(kind, "application/json");
    } else {
        assert_eq!(kind, "application/problem+json");
        assert_eq!(value["status"], status);
        assert_eq!(value["type"], "about:blank");
        assert!(value["title"].is_string() && value["detail"].is_string(), "{value}");
    }
    assert_eq!(parts.headers.contains_key(header::RETRY_AFTER), status == 429);
    (status, value)
}

pub(super) fn to_alice(payload: Value) -> Value {
    json!({ "to": { "user": "alice" }, "payload": payload })
}
