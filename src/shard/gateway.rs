//! The state of one shard, and the engine's calls into it. It only dispatches: what happens stands in the file named
//! after the event.

use super::authenticate::Asking;
use super::census::Census;
use super::command::{Event, Question, Story};
use super::committing::Committing;
use super::connect::Moving;
use super::connections::Survey;
use super::deflating::Deflating;
use super::diary::Diary;
use super::doors::Securing;
use super::draining::Draining;
use super::fanout::{Parcel, Passing};
use super::flavours::Flavours;
use super::gaps::GapNotes;
use super::home::Homes;
use super::incoming::{HotRing, Incoming};
use super::lagging::Lagging;
use super::letter::Letter;
use super::limiting::Limiting;
use super::log_port::LogPort;
use super::presence::Showing;
use super::push::ListPush;
use super::quotas::{Apps, Quotas};
use super::restore::Restoring;
use super::retained::RetainedReads;
use super::settings::Settings;
use super::share::Shares;
use super::slow::Slow;
use super::stats::Counters;
use super::subscribe::Installing;
use super::turning::Turning;
use super::unread::UnreadCount;
use super::unsent::Unsent;
use super::unwritten::Unwritten;
use super::waits::Waits;
use super::watching::Watching;
use crate::auth::Bans;
use crate::base::hash::KeyedHash;
use crate::base::ids::{ConnectionId, Seq, SessionId, ShardId};
use crate::base::wheel::Wheel;
use crate::engine::{self, CloseCause, Departure, Handler, MoreWork};
use crate::io::{Driver, ListenerId, Socket};
use crate::limits::TURN_MAIL_MAX;
use crate::router::fanout::Fanout;
use crate::router::interest::Interest;
use crate::router::retained::Retained;
use crate::router::subscribers::Subscribers;
use crate::session::directory::Directory;
use crate::session::{Effects, Ticket};
use crate::store::{self, RecordChange};
use crate::wire::tls::Layers;
use crossbeam_channel::{Sender, TrySendError};
use slab::Slab;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

/// The engine as this handler sees it.
pub(crate) type Core<D> = engine::Core<D, Letter, Layers>;

/// What a shard is made of.
#[derive(Debug)]
pub(crate) struct GatewaySettings {
    pub(crate) shard: ShardId,
    pub(crate) homes: Homes,
    pub(crate) hash: KeyedHash,
    pub(crate) settings: Arc<Settings>,
    pub(crate) store: store::Handle,
    pub(crate) events: Sender<Event>,
    pub(crate) stories: Sender<Story>,
    pub(crate) questions: Sender<Question>,
    pub(crate) apps: Apps,
}

/// One shard's state: sessions, topics, and what is under way.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(super) shard: ShardId,
    pub(super) homes: Homes,
    pub(super) hash: KeyedHash,
    pub(super) settings: Arc<Settings>,
    events: Sender<Event>,
    /// This turn's, in order, behind those that found the queue full.
    untold: VecDeque<Event>,
    /// The queue was full at the end of the last turn.
    answers_wait: bool,

    pub(super) directory: Directory,
    /// Deadlines of sessions without a connection, by session index; of those with one, the end of their token.
    pub(super) offline: Wheel,
    pub(super) asking: Asking,
    pub(super) limiting: Limiting,
    pub(super) quotas: Quotas,
    /// All bans, at the one shard that keeps them.
    pub(super) bans: Bans,
    /// CONNECTs whose connection is about to move, by the tag of the connection.
    pub(super) moving: Slab<Moving>,
    /// Server-assigned client identifiers so far.
    pub(super) assigned: u64,

    pub(super) subscribers: Subscribers,
    /// Filters of all sessions.
    pub(super) subscription_count: u64,
    pub(super) interest: Interest,
    pub(super) installing: Slab<Installing>,
    /// Filters whose interest is on its way to a home, with the number of letters.
    pub(super) on_the_way: HashMap<u32, u32>,

    /// Of the topics whose home this is.
    pub(super) retained: Retained,
    pub(super) reads: RetainedReads,
    pub(super) shares: Shares,

    pub(super) fanout: Fanout<Parcel>,
    pub(super) flavours: Flavours,
    pub(super) deflating: Deflating,
    pub(super) passing: Passing,
    pub(super) lagging: Lagging,
    pub(super) unsent: Unsent,
    pub(super) slow: Slow,
    /// Sessions whose window has room again because something could not be sent, with unlogged messages waiting for it.
    /// Worked off each turn.
    pub(super) freed: Vec<SessionId>,
    pub(super) gap_notes: GapNotes,
    pub(super) incoming: Incoming,
    pub(super) hot: HotRing,
    /// The last seq whose batch has come.
    pub(super) seq: Seq,
    /// The last seq whose batch has been worked off.
    pub(super) offered: Seq,
    /// Sessions that may not read beyond a seq until an unlogged message that comes before has reached them.
    pub(super) held_reads: Vec<(SessionId, Seq)>,
    /// Reads from the hot ring to be served.
    pub(super) pulls: VecDeque<(SessionId, Seq)>,
    /// Sessions for which a read from the store failed, and when to try again. At most a few entries a session.
    pub(super) failed_reads: Vec<SessionId>,
    pub(super) retry_reads_ms: u64,

    /// Received identifiers of sessions that are over, which may be committed only now: removed when their publish is
    /// answered, as each is.
    pub(super) orphans: HashMap<(SessionId, Ticket), RecordChange>,
    pub(super) log: LogPort,
    pub(super) committing: Committing,
    pub(super) turning: Turning,
    pub(super) lists: Slab<ListPush>,
    pub(super) presence: Showing,
    /// Polls that may be ready at the end of the turn, each once. The others wait for something.
    pub(super) polls: Vec<SessionId>,
    /// Users whose unread messages are being counted.
    pub(super) unread: Slab<UnreadCount>,
    /// Pushes that are answered once devices have them.
    pub(super) waits: Waits,
    /// What the control plane wants to be told of.
    pub(super) watching: Watching,
    /// Sessions whose record has a lazily written change, each once.
    pub(super) unwritten: Unwritten,
    /// Questions for the slowest connections, each some way through the sessions.
    pub(super) surveys: Vec<Survey>,
    pub(super) census: Census,
    /// Connections not read because the log or another shard is congested.
    pub(super) throttled: Vec<ConnectionId>,

    /// Connections whose outbox is empty and took nothing all the same. Each at most once for a message of a window.
    pub(super) refused: Vec<ConnectionId>,

    pub(super) draining: bool,
    pub(super) drain: Draining,
    pub(super) diary: Diary,
    /// How far the sessions are back.
    pub(super) restoring: Restoring,
    /// Shards whose sessions are back.
    pub(super) restored_shards: u16,
    /// Sockets that listen already, by their address.
    pub(super) passed: Vec<(SocketAddr, Socket)>,
    /// Addresses to listen on once the sessions are back.
    pub(super) to_listen: Option<Vec<SocketAddr>>,
    /// Its listeners, in the order of the settings.
    pub(super) doors: Vec<ListenerId>,
    pub(super) securing: Securing,
    /// Monotonic milliseconds of the turn.
    pub(super) turn_ms: u64,
    /// Re-used: bytes of one frame.
    pub(super) scratch: Vec<u8>,
    stopped: bool,
    pub(super) counters: Counters,
    /// Boxed, for they come and go with every call of a session.
    #[expect(clippy::vec_box, reason = "the box itself is what is used again")]
    spare_effects: Vec<Box<Effects>>,
}

impl Gateway {
    pub(crate) fn new(start: GatewaySettings) -> Self {
        let GatewaySettings { shard, homes, hash, settings, store, events, stories, questions, apps } = start;
        let sessions_max = settings.sessions_per_shard();
        Self {
            shard,
            homes,
            events,
            // Most are answers to letters: what a turn takes of those has room. Memory nobody touches costs none.
            untold: VecDeque::with_capacity(TURN_MAIL_MAX),
            answers_wait: false,
            directory: Directory::new(hash.clone(), sessions_max, settings.limits.devices_per_user),
            offline: Wheel::new(u32::try_from(sessions_max).expect("sessions are numbered with 32 bits"), 0),
            asking: Asking::new(questions),
            limiting: Limiting::new(&settings, hash.clone()),
            quotas: Quotas::new(apps, settings.connections_per_shard()),
            bans: Bans::new(settings.limits.defence.bans, hash.clone()),
            moving: Slab::new(),
            assigned: 0,
            subscribers: Subscribers::new(hash.clone()),
            subscription_count: 0,
            interest: Interest::new(hash.clone()),
            installing: Slab::new(),
            on_the_way: HashMap::new(),
            retained: Retained::new(settings.retained_per_shard()),
            reads: RetainedReads::default(),
            shares: Shares::default(),
            fanout: Fanout::new(hash.clone()),
            flavours: Flavours::default(),
            deflating: Deflating::new(settings.limits.deflate_bytes),
            passing: Passing::default(),
            lagging: Lagging::default(),
            unsent: Unsent::default(),
            slow: Slow::default(),
            freed: Vec::new(),
            gap_notes: GapNotes::default(),
            incoming: Incoming::default(),
            hot: HotRing::default(),
            seq: Seq(0),
            offered: Seq(0),
            held_reads: Vec::new(),
            pulls: VecDeque::new(),
            failed_reads: Vec::new(),
            retry_reads_ms: 0,
            orphans: HashMap::new(),
            log: LogPort::new(store, shard),
            committing: Committing::new(hash.clone()),
            turning: Turning::default(),
            hash,
            lists: Slab::new(),
            presence: Showing::default(),
            polls: Vec::new(),
            unread: Slab::new(),
            waits: Waits::default(),
            watching: Watching::default(),
            unwritten: Unwritten::default(),
            surveys: Vec::new(),
            census: Census::default(),
            throttled: Vec::new(),
            refused: Vec::new(),
            draining: false,
            drain: Draining::default(),
            diary: Diary::new(stories),
            restoring: Restoring::Reading,
            restored_shards: 0,
            passed: Vec::new(),
            to_listen: None,
            doors: Vec::new(),
            securing: Securing { server: settings.tls.clone(), ..Securing::default() },
            turn_ms: 0,
            scratch: Vec::new(),
            stopped: false,
            counters: Counters::default(),
            spare_effects: Vec::new(),
            settings,
        }
    }

    /// The thread may end.
    pub(crate) fn stopped(&self) -> bool {
        self.stopped
    }

    /// Answers the control plane, once this turn's sends are under way.
    pub(super) fn tell(&mut self, event: Event) {
        self.untold.push_back(event);
    }

    /// An event that found no room comes back.
    fn try_tell(&self, event: Event) -> Option<Event> {
        match self.events.try_send(event) {
            Err(TrySendError::Full(event)) => Some(event),
            // Without a control plane nobody wants to know.
            Ok(()) | Err(TrySendError::Disconnected(_)) => None,
        }
    }

    /// An empty list of effects, to be given back.
    pub(super) fn take_effects(&mut self) -> Box<Effects> {
        let mut effects = self.spare_effects.pop().unwrap_or_else(|| Box::new(Effects::new(self.settings.sessions())));
        effects.tells_received = self.watching.any() || !self.waits.is_empty();
        effects.subscriptions_left = None;
        effects
    }

    /// Takes an empty list of effects back.
    pub(super) fn give_effects(&mut self, mut effects: Box<Effects>) {
        effects.counted.drain(..).for_each(|counter| self.counters.session(counter));
        effects.clear();
        if let Some(inner) = self.spare_effects.last_mut() {
            effects.take_spare(inner);
        }
        self.spare_effects.push(effects);
    }
}

impl<D: Driver> Handler<D> for Gateway {
    type Letter = Letter;
    type Transform = Layers;

    fn admits(&mut self, core: &mut Core<D>, listener: ListenerId, peer: SocketAddr) -> bool {
        // Those for whom a balancer speaks are asked for when it has said who they are.
        self.speaks_for_others(listener, peer) || self.admits_source(core, peer)
    }

    fn on_accept(&mut self, core: &mut Core<D>, id: ConnectionId, listener: ListenerId, peer: SocketAddr) {
        if !self.speaks_for_others(listener, peer) {
            self.count_guest(id, peer);
        }
        self.guest_arrived(core, id, listener, peer);
    }

    fn on_bytes(&mut self, core: &mut Core<D>, id: ConnectionId, bytes: &[u8]) -> usize {
        self.received(core, id, bytes)
    }

    fn on_departed(&mut self, core: &mut Core<D>, id: ConnectionId, departure: Departure<Layers>) {
        let tag = core.tag(id).expect("the id is valid in this call");
        self.uncount_guest(id);
        self.departed(core, tag, departure);
    }

    fn on_installed(&mut self, core: &mut Core<D>, id: ConnectionId) {
        self.installed_connection(core, id);
    }

    fn on_deadline(&mut self, core: &mut Core<D>, id: ConnectionId) {
        self.deadline(core, id);
    }

    fn on_drained(&mut self, core: &mut Core<D>, id: ConnectionId) {
        self.drained(core, id);
    }

    fn on_closed(&mut self, core: &mut Core<D>, id: ConnectionId, cause: CloseCause) {
        let tag = core.tag(id).expect("the id is valid in this call");
        self.quotas.disconnect(id);
        self.closed(core, id, tag, cause);
        self.uncount_guest(id);
    }

    fn takes_letters(&self) -> bool {
        !self.incoming.is_full() && !self.answers_wait
    }

    fn on_letter(&mut self, core: &mut Core<D>, letter: Letter) {
        match letter {
            Letter::Arrival(arrival) => self.on_arrival(core, *arrival),
            Letter::Publish(publish) => self.on_publish_at_home(core, *publish),
            Letter::Published { session, receipt, outcome } => self.on_published(core, session, receipt, outcome),
            Letter::Deliver(message) => self.incoming.deliver(message),
            Letter::DeliverEveryone(message) => self.incoming.everyone(message),
            Letter::UsersPart(part) => self.incoming.users(part),
            Letter::UsersCounted { ticket, counts } => self.on_users_counted(ticket, counts),
            Letter::Interest(interest) => self.on_interest(core, &interest),
            Letter::InterestSet { ticket } => self.on_interest_set(core, ticket),
            Letter::RetainedRead(question) => self.on_retained_asked(*question),
            Letter::RetainedFound(found) => self.on_retained_found(core, *found),
            Letter::Share(letter) => self.on_share(core, *letter),
            Letter::Restored => self.restored_shards += 1,
            Letter::Batch(batch) => self.on_batch(batch),
            Letter::Done(done) => self.on_done(core, done),
            Letter::Passed(sockets) => self.passed = sockets,
            Letter::Listen(addresses) => self.to_listen = Some(addresses),
            Letter::Push { push, token } => self.on_push(core, push, token),
            Letter::Verdict { token, verdict } => self.on_verdict(core, token, *verdict),
            Letter::Follow(followed) => self.diary.follow(followed),
            Letter::Canary { token } => self.on_canary(token),
            Letter::Stats { token } => self.on_stats(core, token),
            Letter::Connections { query, token } => self.on_connections(core, query, token),
            Letter::Disconnect { app, user, device, token } => {
                self.on_disconnect(core, app, &user, device.as_deref(), token);
            }
            Letter::User { app, user, token } => self.on_user(app, user, token),
            Letter::History { query, token } => self.on_history(*query, token),
            Letter::Present { app, topic, asker } => self.on_present(core, app, topic, asker),
            Letter::Presented { session, to, present } => {
                self.answer_presence(core, session, &to, present.as_deref());
            }
            Letter::Presence(letter) => self.on_presence(core, *letter),
            Letter::Offences(offences) => self.on_offences(core, &offences),
            Letter::Banned(set) => self.on_banned(set),
            Letter::Ban { command, token } => self.on_ban_command(core, *command, token),
            Letter::Watch(watch) => self.watching.set(watch),
            Letter::Tls(server) => self.securing.server = Some(server),
            Letter::Drain => self.on_drain(core),
            Letter::Stop => self.stopped = true,
        }
    }

    fn run_jobs(&mut self, core: &mut Core<D>) -> MoreWork {
        if self.work(core) { MoreWork::Yes } else { MoreWork::No }
    }

    fn next_job_ms(&self) -> Option<u64> {
        self.job_ms()
    }

    fn has_to_tell(&self) -> bool {
        !self.untold.is_empty() || self.log.is_posted()
    }

    fn tell_others(&mut self) -> MoreWork {
        self.log.ring();
        self.answers_wait = false;
        while let Some(event) = self.untold.pop_front() {
            if let Some(event) = self.try_tell(event) {
                self.untold.push_front(event);
                self.answers_wait = true;
                return MoreWork::Yes;
            }
        }
        // From the front again, where its memory is warm.
        self.untold.clear();
        MoreWork::No
    }
}
