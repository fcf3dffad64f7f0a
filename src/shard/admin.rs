//! An administrator's wishes: closing a user's connections, hearing whether messages flow.

use super::command::{CommandToken, Event};
use super::gateway::{Core, Gateway};
use super::log_port::Waiting;
use crate::base::ids::AppId;
use crate::io::Driver;
use crate::session::CloseReason;
use crate::store::Request;

impl Gateway {
    /// Sends a request through the log that writes nothing: its answer has come the way of every commit's.
    pub(super) fn on_canary(&mut self, token: CommandToken) {
        let request = Request::Append { key: None, entries: Vec::new(), records: Vec::new() };
        self.log.submit(request, Waiting::Canary { token });
    }

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
}
