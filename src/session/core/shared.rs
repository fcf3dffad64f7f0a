//! Shared subscriptions, as a member sees them: the group at its home decides who gets what, a session takes it into its
//! window or says that there is no room.
//!
//! At QoS 1, what is not acknowledged when the connection ends is another member's, so it is not kept, and not recorded.
//!
//! At QoS 2 a message is begun with one member and completed with that one or nobody [MQTT-4.8.2-4], [MQTT-4.8.2-5].
//! Before it is sent, one commit makes it the session's: with the record of the message in flight, if the session
//! outlives its connection, and with the record that the group need not assign it again, if it is logged. The group is
//! told once that is answered. Until then it assigns the message to nobody else, whatever becomes of the connection:
//!
//! - the connection ends: the next one sends it;
//! - the session ends: the group has it back once the record of its being taken is removed;
//! - the commit fails: the session says nothing, for only a restart can tell whether it has the message.

use super::super::{Counter, DeliveryId, Effect, Effects, Fate, GrantedFilter};
use super::record;
use super::state::{Flight, InFlight, LoggedAt, Offer, Purpose, Session, State, Subscription, flag};
use super::window::Launched;
use crate::base::ids::{Qos, Seq};
use crate::base::message::Message;
use std::sync::Arc;

/// In a mark: the subscription asks for Retain As Published. The other bits are its identifier, which has 28.
pub const RETAIN_AS_PUBLISHED: u32 = 1 << 31;

/// The group and the filter of a shared subscription; none: it is a plain filter.
pub fn share_of(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix("$share/")?.split_once('/')
}

/// A message of a share group that has to be recorded as taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// `$share/group/filter`.
    pub share: Arc<str>,
    /// Where it is logged.
    pub seq: Seq,
}

/// A claim that is being committed.
#[derive(Debug)]
pub(in crate::session) struct Claiming {
    pub delivery: DeliveryId,
    pub claim: Claim,
}

fn mark(identifier: u32, retain_as_published: bool) -> u32 {
    identifier | if retain_as_published { RETAIN_AS_PUBLISHED } else { 0 }
}

impl GrantedFilter {
    /// Whether it is a shared subscription.
    pub fn is_shared(&self) -> bool {
        share_of(&self.filter).is_some()
    }

    /// What deliveries have to say of it.
    pub fn mark(&self) -> u32 {
        mark(self.identifier, self.retain_as_published)
    }
}

impl Subscription {
    /// Whether it is a shared subscription.
    pub fn is_shared(&self) -> bool {
        share_of(&self.text).is_some()
    }

    /// What takes it out of the router or its group.
    pub(in crate::session) fn leave(self, session: &Session) -> Effect {
        if self.is_shared() {
            Effect::LeaveShare { share: (session.app, self.text), member: None }
        } else {
            Effect::Unsubscribe { filter: self.filter, position: self.position }
        }
    }
}

impl Session {
    /// Messages of QoS 1 and 2 it takes at a time.
    pub fn share_window(&self) -> u16 {
        u16::from(self.window)
    }

    fn has_shares(&self) -> bool {
        self.subscriptions.iter().any(Subscription::is_shared)
    }

    /// Offers a message that its group has assigned to it under a number, at QoS 1 or 2. When there is no room the group
    /// is told once there is. With a claim, it is recorded as taken before it is sent.
    pub fn offer_shared(
        &mut self,
        message: &Arc<Message>,
        qos: Qos,
        (number, mark): (u64, u32),
        claim: Option<Claim>,
        effects: &mut Effects,
    ) -> Offer {
        if self.state != State::Open || !self.has_room() {
            self.extra().awaits_share = self.state == State::Open;
            return Offer::Full;
        }
        let at = LoggedAt::Shared { number, mark };
        let Launched { delivery, .. } = self.launch(message, qos, Some(at), None, effects);
        if qos == Qos::AtLeastOnce {
            return Offer::Send(delivery);
        }
        if claim.is_none() && !self.is_durable() {
            effects.push(Effect::Share { number, fate: Fate::Taken });
            return Offer::Send(delivery);
        }
        self.flight_mut(delivery).expect("it was just launched").state = Flight::Committing;
        self.work(effects).claiming.extend(claim.map(|claim| Claiming { delivery, claim }));
        self.commit_shared(delivery, effects);
        Offer::AfterCommit
    }

    fn claim_of(&self, delivery: DeliveryId) -> Option<&Claim> {
        let claiming = self.work.as_ref()?.claiming.iter().find(|claiming| claiming.delivery == delivery)?;
        Some(&claiming.claim)
    }

    /// All that makes a message of QoS 2 the session's.
    pub(in crate::session) fn commit_shared(&mut self, delivery: DeliveryId, effects: &mut Effects) {
        let claim = self.claim_of(delivery).map(|claim| record::share_taken(self.app, &claim.share, claim.seq));
        let mut records: Vec<_> = claim.into_iter().collect();
        // Who does not outlive its connection any more, and has nothing to claim, waits only for its turn.
        if self.is_durable() || records.is_empty() {
            let flight = self.in_flight(delivery).expect("the caller has it");
            records.push(record::flight(self, flight));
            self.set(flag::RECORDED, true);
        }
        effects.push(Effect::Commit { ticket: Purpose::Flight.ticket(0, delivery.0), records });
    }

    /// It is the session's: it may be sent. Of a session that ends with its connection, which is about to be closed,
    /// it is not, for nobody would get it.
    pub(in crate::session) fn on_shared_committed(&mut self, index: usize, effects: &mut Effects) {
        let (is_open, window) = (self.is_open(), usize::from(self.window));
        if !is_open && !self.is_durable() {
            return;
        }
        let work = self.work.as_mut().expect("it has the message");
        let flight = &mut work.window[index];
        let delivery = flight.delivery;
        let Some(LoggedAt::Shared { number, .. }) = flight.at else { unreachable!("the caller looked") };
        work.claiming.retain(|claiming| claiming.delivery != delivery);
        if number > 0 {
            effects.push(Effect::Share { number, fate: Fate::Taken });
        }
        // An earlier connection's window may have been wider than this one's.
        if is_open && work.queued == 0 && work.sent <= window {
            flight.state = Flight::Sent;
            effects.push(Effect::Deliver { delivery, dup: false });
            return;
        }
        // Or the connection that it was for is gone; the next one, which may be opening, sends it.
        flight.state = Flight::Queued;
        work.sent -= 1;
        work.queued += 1;
        if is_open {
            self.send_queued(effects);
        }
    }

    /// It ends: what it did not have yet of its groups' is theirs again, what it has at QoS 2 dies with it.
    pub(in crate::session) fn return_shared(&self, effects: &mut Effects) {
        for flight in self.flights() {
            let Some(LoggedAt::Shared { number, .. }) = flight.at else { continue };
            match flight.state {
                Flight::Committing => {
                    let claim = self.claim_of(flight.delivery).map(|claim| (self.app, claim.clone()));
                    effects.push(Effect::Share { number, fate: Fate::Returned(claim) });
                }
                Flight::Sent | Flight::Queued => effects.count(Counter::DroppedShareSessionEnded),
                Flight::Held | Flight::Releasing | Flight::Released | Flight::Settled => {}
            }
        }
    }

    /// Its groups may assign to it from now on.
    pub(in crate::session) fn open_shares(&mut self, effects: &mut Effects) {
        if self.has_shares() {
            effects.push(Effect::ShareOpen { window: self.share_window() });
        }
    }

    /// There may be room again for what was refused.
    pub(in crate::session) fn ask_for_shares(&mut self, effects: &mut Effects) {
        let awaits = self.extra.as_ref().is_some_and(|extra| extra.awaits_share);
        if awaits && self.has_room() {
            self.extra().awaits_share = false;
            self.open_shares(effects);
        }
    }

    /// The connection has ended: what it has not acknowledged at QoS 1 is for others.
    pub(in crate::session) fn close_shares(&mut self, effects: &mut Effects) {
        if let Some(extra) = self.extra.as_mut() {
            extra.awaits_share = false;
        }
        if let Some(work) = self.work.as_mut() {
            let is_kept = |flight: &InFlight| flight.qos == Qos::ExactlyOnce || !flight.is_shared();
            let before =
                work.window.iter().filter(|flight| !is_kept(flight) && flight.state != Flight::Settled).count();
            work.window.retain(is_kept);
            work.sent -= before;
        }
        if self.has_shares() {
            effects.push(Effect::ShareOpen { window: 0 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{AppId, ConnectionId};
    use crate::base::message::Message;
    use crate::session::{Identity, Protocol};

    const CONNECTION: ConnectionId = ConnectionId { index: 1, generation: 2 };

    fn message() -> Arc<Message> {
        Arc::new(Message {
            app: AppId(0),
            topic: "t".into(),
            only_device: None,
            payload: bytes::Bytes::new(),
            qos: Qos::ExactlyOnce,
            retain: false,
            created_ms: 0,
            expires_ms: None,
            publisher: None,
            properties: None,
        })
    }

    fn open(expiry: u32) -> (Session, Effects) {
        let mut effects = Effects::new(Default::default());
        let mut session = Session::new(&Identity { app: AppId(0), user: "u".into(), device: "d".into() });
        session.expiry = expiry;
        session.attach(CONNECTION, Protocol::Mqtt5, 9, &mut effects);
        session.start(&mut effects, |_, _| {});
        effects.clear();
        (session, effects)
    }

    fn claim() -> Option<Claim> {
        Some(Claim { share: "$share/g/t".into(), seq: Seq(7) })
    }

    /// Keys of what it wants committed, by their first letter.
    fn commits(effects: &Effects) -> Vec<Vec<u8>> {
        let commits = effects.list.iter().filter_map(|effect| match effect {
            Effect::Commit { records, .. } => Some(records.iter().map(|change| change.key[0]).collect()),
            _ => None,
        });
        commits.collect()
    }

    fn fates(effects: &Effects) -> Vec<(u64, Fate)> {
        let fates = effects.list.iter().filter_map(|effect| match effect {
            Effect::Share { number, fate } => Some((*number, fate.clone())),
            _ => None,
        });
        fates.collect()
    }

    #[test]
    fn one_commit_makes_a_message_the_session_s_and_only_then_is_the_group_told() {
        for (expiry, claim, wanted) in [
            (60, claim(), vec![vec![b'g', b's']]),
            (60, None, vec![vec![b's']]),
            (0, claim(), vec![vec![b'g']]),
            (0, None, vec![]),
        ] {
            let (mut session, mut effects) = open(expiry);
            let offer = session.offer_shared(&message(), Qos::ExactlyOnce, (3, 0), claim, &mut effects);
            assert_eq!(commits(&effects), wanted);
            if wanted.is_empty() {
                assert!(matches!(offer, Offer::Send(_)));
            } else {
                assert_eq!((offer, fates(&effects)), (Offer::AfterCommit, vec![]));
                effects.clear();
                session.on_flight_committed(session.last_delivery, &mut effects);
            }
            assert_eq!(fates(&effects), [(3, Fate::Taken)]);
        }
    }

    #[test]
    fn a_claim_that_is_being_committed_survives_a_freeze_and_is_made_again_by_the_next_connection() {
        let (mut session, mut effects) = open(60);
        session.offer_shared(&message(), Qos::ExactlyOnce, (3, 0), claim(), &mut effects);
        let mut bytes = Vec::new();
        session.freeze(&mut bytes);
        let mut session = Session::thaw(&bytes, Some(CONNECTION)).expect("it was frozen just now");
        session.on_connection_closed(
            crate::session::Close::Lost,
            crate::base::clock::Now { monotonic_ms: 0, wall_ms: 0 },
            Seq(0),
            &mut effects,
        );
        session.attach(CONNECTION, Protocol::Mqtt5, 9, &mut effects);
        effects.clear();
        session.start(&mut effects, |_, _| {});
        assert_eq!(commits(&effects), [[b'g', b's']]);
        session.on_flight_committed(session.last_delivery, &mut effects);
        assert!(session.work.is_some_and(|work| work.claiming.is_empty() && work.sent == 1));
    }

    #[test]
    fn a_group_s_record_is_read_as_it_was_written_and_cut_off_not_at_all() {
        let open = [Seq(3), Seq(4), Seq(900)];
        let written = record::share(record::share_key(AppId(1), "$share/g/t"), Seq(1_000), &open);
        let value = written.value.expect("it is no removal");
        assert_eq!(record::parse_share(&value), Some((Seq(1_000), open.to_vec())));
        assert!((0..value.len()).all(|end| record::parse_share(&value[..end]).is_none()));
        let taken = record::share_taken_key(AppId(1), "$share/g/t", Seq(4));
        assert_eq!(record::share_taken_seq(&written.key, &taken), Some(Seq(4)));
        assert_eq!(record::share_taken_seq(&written.key, &written.key), None);
    }
}
