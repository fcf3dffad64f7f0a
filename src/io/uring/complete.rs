//! What the kernel's completions mean.

use super::slots::{IN_FLIGHT, Kind, ONCE, Place, RECEIVING, SENDING, SHUTTING, UNWATCHING, UserData, WATCHED};
use super::{Flight, Payload, UringDriver};
use crate::io::{Completion, Outcome};
use io_uring::cqueue;
use std::io;

impl UringDriver {
    #[inline]
    pub(super) fn on_completion(&mut self, completion: &cqueue::Entry, into: &mut Vec<Completion>) {
        let user_data = UserData::from_bits(completion.user_data());
        let result = completion.result();
        match user_data.kind {
            Kind::Watch => self.on_watch(user_data, completion, into),
            Kind::Receive => self.on_receive(user_data, completion, into),
            Kind::Send => self.on_send(user_data, result, into),
            Kind::Shutdown => self.on_shutdown(user_data, into),
            Kind::Unwatch => self.on_unwatch(user_data, result),
            Kind::Close => self.on_close(user_data, result),
            Kind::Install => self.on_install(user_data, result),
            Kind::Accept => self.on_accept(user_data.index as usize, completion, into),
            Kind::StopAccept => self.on_stop_accept(user_data.index as usize, result),
            Kind::Connect => self.on_connect(user_data.index as usize, result, into),
            Kind::Wake => self.on_wake(completion),
            Kind::RingSignal => self.on_ring_signal(user_data.index as usize),
            Kind::CancelAll => {}
        }
    }

    #[inline]
    fn on_receive(&mut self, user_data: UserData, completion: &cqueue::Entry, into: &mut Vec<Completion>) {
        let Flight { token, payload } = self.flights.remove(user_data.flight as usize);
        let Payload::Receive(block) = payload else { unreachable!("a receive's flight holds its block") };
        self.entry(user_data.slot()).flags &= !RECEIVING;
        let outcome = match usize::try_from(completion.result()) {
            Ok(count) => {
                let more = count > 0 && (count == block.capacity() || cqueue::sock_nonempty(completion.flags()));
                Outcome::Received { block, count, more }
            }
            Err(_) => Outcome::ReceiveFailed { block, error: io::Error::from_raw_os_error(-completion.result()) },
        };
        into.push(Completion { token, outcome });
    }

    #[inline]
    fn on_send(&mut self, user_data: UserData, result: i32, into: &mut Vec<Completion>) {
        let finds_no_room = result == -libc::EAGAIN || result == -libc::EINTR;
        if finds_no_room && !self.dropping {
            return self.push_send(user_data.slot(), user_data.flight as usize, true);
        }
        let Flight { token, payload } = self.flights.remove(user_data.flight as usize);
        let Payload::Send { segment, .. } = payload else { unreachable!("a send's flight holds its segment") };
        self.entry(user_data.slot()).flags &= !SENDING;
        let outcome = match usize::try_from(result) {
            Ok(count) => Outcome::Sent { segment, count },
            Err(_) => Outcome::SendFailed { segment, error: io::Error::from_raw_os_error(-result) },
        };
        into.push(Completion { token, outcome });
    }

    fn on_shutdown(&mut self, user_data: UserData, into: &mut Vec<Completion>) {
        let Flight { token, .. } = self.flights.remove(user_data.flight as usize);
        self.entry(user_data.slot()).flags &= !SHUTTING;
        // Its only failure is that the peer was faster, which is as good.
        into.push(Completion { token, outcome: Outcome::ShutDone });
    }

    /// Only a completion without `F_MORE` means that a watch is disarmed.
    #[inline]
    fn on_watch(&mut self, user_data: UserData, completion: &cqueue::Entry, into: &mut Vec<Completion>) {
        let slot = user_data.slot();
        let armed = cqueue::more(completion.flags());
        let failed = completion.result() < 0;
        match Place::of(slot) {
            Place::Guest { .. } => self.steps += usize::from(!failed),
            Place::Direct { .. } => self.arrivals += usize::from(!failed),
        }
        let dropping = self.dropping;
        let entry = self.entry(slot);
        let token = entry.watch_token();
        if armed {
            into.push(Completion { token, outcome: Outcome::Ready });
            return;
        }
        let once = entry.is(ONCE);
        let ends = once || failed || entry.is(UNWATCHING) || dropping;
        if ends {
            entry.flags &= !(WATCHED | ONCE | UNWATCHING);
        } else {
            // It ended by itself, as it does when the completion queue is full.
            self.push_watch(slot, false);
        }
        let outcome = if failed || (ends && !once) { Outcome::WatchEnded } else { Outcome::Ready };
        into.push(Completion { token, outcome });
    }

    /// The removal is done, and the watch's own last completion says so. Caught at work the watch went on.
    fn on_unwatch(&mut self, user_data: UserData, result: i32) {
        let dropping = self.dropping;
        let entry = self.entry(user_data.slot());
        if result == -libc::EALREADY && entry.is(WATCHED) && entry.is(UNWATCHING) && !dropping {
            self.push_unwatch(user_data.slot());
        }
    }

    fn on_close(&mut self, user_data: UserData, result: i32) {
        assert!(result >= 0, "closing an open direct descriptor failed with errno {}", -result);
        self.release_direct(user_data.slot());
    }

    fn on_wake(&mut self, completion: &cqueue::Entry) {
        if !cqueue::more(completion.flags()) && !self.dropping {
            self.push_wake_watch();
        }
    }

    /// The slot ring is looked at in any case; its poll is armed again before the next wait.
    fn on_ring_signal(&mut self, ring: usize) {
        let signal = self.rings[ring].signal.as_mut().expect("only slot rings signal");
        signal.armed = false;
        self.lively.insert(ring);
    }

    /// Whether nothing of the driver is in flight that holds memory or may bring an fd.
    pub(super) fn is_at_rest(&self) -> bool {
        self.flights.is_empty()
            && self.batches.is_empty()
            && self.listeners.iter().all(|(_, listener)| !listener.is_accepting())
    }

    /// Asserts that a slot has nothing in flight.
    pub(super) fn assert_at_rest(&mut self, slot: crate::io::Slot) {
        let flags = self.entry(slot).flags;
        assert!(flags & IN_FLIGHT == 0, "a slot was let go with ops in flight: {flags:#x}");
    }
}
