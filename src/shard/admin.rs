//! An administrator's wishes: closing a user's connections, draining the shard.

use super::command::{CommandToken, DeviceState, Event};
use super::gateway::{Core, Gateway};
use crate::base::ids::{AppId, Epoch};
use crate::io::Driver;
use crate::limits::TURN_EXPIRIES_MAX;
use crate::session::CloseReason;

impl Gateway {
    /// Closes a user's connections, or one device's.
    pub(super) fn on_disconnect<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        app: AppId,
        user: &str,
        device: Option<&str>,
        token: CommandToken,
    ) {
        let mut count = 0;
        let mut next = self.directory.sessions_of(app, user).next();
        while let Some(id) = next {
            next = self.directory.after(id);
            let session = self.directory.get(id).expect("the user's list holds live sessions");
            if session.connection().is_some() && device.is_none_or(|device| device == session.device()) {
                self.end_connection(core, id, CloseReason::Administrative);
                count += 1;
            }
        }
        self.tell(Event::Disconnected { token, count });
    }

    /// What is known of a user's devices.
    pub(super) fn on_user(&mut self, app: AppId, user: &str, token: CommandToken) {
        let count = |number: usize| u32::try_from(number).expect("a session's lists are bounded");
        let state = |id| {
            let session = self.directory.get(id).expect("the user's list holds live sessions");
            let (epoch, offset) = session.inbox_settled();
            DeviceState {
                device: session.device().into(),
                online: session.connection().is_some(),
                expiry_seconds: session.expiry_seconds(),
                subscriptions: count(session.subscriptions().len()),
                in_flight: count(session.in_flight_count()),
                inbox: (epoch != Epoch::default()).then_some((epoch, offset)),
            }
        };
        let devices = self.directory.sessions_of(app, user).map(state).collect();
        self.tell(Event::User { token, devices });
    }

    /// Stops accepting; connections are closed a share a turn.
    pub(super) fn on_drain<D: Driver>(&mut self, core: &mut Core<D>) {
        if !self.draining {
            self.draining = true;
            core.stop_listening_all();
            self.to_drain = self.directory.iter().map(|(id, _)| id).collect();
        }
    }

    /// Closes some of those that are left; says so once when nobody is.
    pub(super) fn drain_some<D: Driver>(&mut self, core: &mut Core<D>) -> bool {
        if !self.draining || self.drained {
            return false;
        }
        for _ in 0..TURN_EXPIRIES_MAX {
            let Some(id) = self.to_drain.pop() else { break };
            self.end_connection(core, id, CloseReason::Draining);
        }
        if self.to_drain.is_empty()
            && core.counts().connections == 0
            && self.dirty.is_empty()
            && self.log.outstanding() == 0
            && self.turning.held() == 0
        {
            self.drained = true;
            self.tell(Event::Drained { shard: self.shard.0 });
        }
        !self.to_drain.is_empty()
    }
}
