//! The log's answers, each to what waited for it.

use super::command::Event;
use super::gateway::{Core, Gateway};
use super::log_port::Waiting;
use super::push::Answering;
use crate::base::ids::SessionId;
use crate::io::Driver;
use crate::session::protocol;
use crate::store::{Answer, Batch, Done};
use std::sync::Arc;

impl Gateway {
    /// What a group commit brought. It is at hand for readers at once, and offered in its turn.
    pub(super) fn on_batch(&mut self, batch: Arc<Batch>) {
        self.seq = self.seq.max(batch.seq);
        self.hot.push(Arc::clone(&batch));
        self.incoming.batch(batch);
    }

    /// One answer.
    pub(super) fn on_done<D: Driver>(&mut self, core: &mut Core<D>, done: Done) {
        let Done { token, result } = done;
        let now = core.now();
        match self.log.take(token) {
            Waiting::Nobody => {
                if result.is_err() {
                    self.counters.failed_writes += 1;
                }
            }
            Waiting::Positions => {
                self.unwritten.ended();
                if result.is_err() {
                    self.counters.failed_writes += 1;
                }
            }
            Waiting::Upstream { count } => self.watching.answered(count, result.is_ok()),
            Waiting::Canary { token } => self.tell(Event::Canary { token, is_well: result.is_ok() }),
            Waiting::Commit { session, ticket } => {
                let result = result.map(|_| ());
                self.tell_session(core, session, |state, effects| {
                    protocol::on_committed(state, ticket, result, effects);
                });
                self.catch_up(core, session);
            }
            Waiting::PullInbox { session } => match result {
                Ok(Answer::Stream { head, entries }) => self.tell_session(core, session, |state, effects| {
                    state.on_inbox_pulled(head, &entries, now, effects);
                }),
                _ => self.on_pull_failed(core, session),
            },
            Waiting::PullTopics { session } => match result {
                Ok(Answer::Topics { entries, through, gaps }) => {
                    self.on_topics_read(core, session, &entries, &gaps, through);
                }
                _ => self.on_pull_failed(core, session),
            },
            Waiting::Locate { session } => self.on_located(core, session, result),
            Waiting::Inbox { session } => self.on_inbox_standing(core, session, result),
            Waiting::Publish { publish, owed } => self.on_publish_committed(core, &publish, owed, result),
            Waiting::Push { push, token, deliver_by_ms } => {
                self.on_push_committed(core, &push, Answering { token, deliver_by_ms }, result);
            }
            Waiting::RestoreSeq => self.on_log_position(core, result),
            Waiting::ShareRead { index, share } => self.on_share_read(core, index, &share, result),
            Waiting::ShareWritten { index, share } => self.on_share_written(core, index, &share),
            Waiting::ShareTopics { index, share } => self.on_share_topics(core, index, &share, result),
            Waiting::ShareReturned { number } => self.on_share_returned(core, number, result.is_ok()),
            Waiting::History(read) => self.on_history_read(core, *read, result),
            Waiting::UnreadMark { index } => self.on_unread_mark(index, result),
            Waiting::UnreadPage { index } => self.on_unread_page(index, now.wall_ms, result),
            Waiting::Ban { token, answer } => self.on_ban_recorded(token, answer, result),
            Waiting::Restore(what) => self.on_records(core, what, result),
        }
    }

    fn on_pull_failed<D: Driver>(&mut self, core: &mut Core<D>, id: SessionId) {
        self.tell_session(core, id, |state, _| state.on_pull_failed());
        self.read_again(id);
    }
}
