//! An administrator's wishes: closing a user's connections, draining the shard.

use super::command::{CommandToken, Event};
use super::gateway::{Core, Gateway};
use crate::base::ids::AppId;
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
