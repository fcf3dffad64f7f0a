//! What the API asks of the data plane.

use crate::base::ids::AppId;
use crate::shard::command::{
    BanCommand, CommandError, CommandToken, ConnectionQuery, Follow, HistoryQuery, Push, Watch,
};
use crate::store::handle::{Request, RequestToken, StoreError};
use std::sync::Arc;

/// The data plane as the API sees it: the shards' handle, or the fake of the API's tests. No call blocks.
pub trait Gateway: Send + Sync {
    /// Hands a push over; `Event::Pushed` answers. A shard that sleeps learns of it by [`Gateway::ring`], which must
    /// follow.
    fn push(&self, push: Push, token: CommandToken) -> Result<(), CommandError>;
    /// Whether pushes were handed over since the last [`Gateway::ring`], by whomever.
    fn is_unrung(&self) -> bool;
    /// Wakes the shards that sleep beside pushes, and lets them go before the caller where they share its CPU.
    fn ring(&self);
    /// Asks all shards for their figures; that many `Event::Stats` answer.
    fn stats(&self, token: CommandToken) -> Result<usize, CommandError>;
    /// Looks connections up; that many `Event::Connections` answer.
    fn connections(&self, query: ConnectionQuery, token: CommandToken) -> Result<usize, CommandError>;
    /// Closes the connections of a user, or of one device; `Event::Disconnected` answers.
    fn disconnect(
        &self,
        app: AppId,
        user: Arc<str>,
        device: Option<Arc<str>>,
        token: CommandToken,
    ) -> Result<(), CommandError>;
    /// Asks for what is known of a user; `Event::User` answers.
    fn user(&self, app: AppId, user: Arc<str>, token: CommandToken) -> Result<(), CommandError>;
    /// Reads a part of a stream; `Event::History` answers.
    fn history(&self, query: HistoryQuery, token: CommandToken) -> Result<(), CommandError>;
    /// Asks who subscribes to a topic; `Event::Presence` answers.
    fn presence(&self, app: AppId, topic: Arc<str>, token: CommandToken) -> Result<(), CommandError>;
    /// Lists, adds or lifts bans; `Event::Bans` answers.
    fn bans(&self, command: BanCommand, token: CommandToken) -> Result<(), CommandError>;
    /// Has the shards tell of these and nothing else, from the next command that they answer at the latest.
    fn watch(&self, watch: &Arc<Watch>) -> Result<(), CommandError>;
    /// Asks the log itself; its answer comes as [`crate::shard::command::Notice::Answered`].
    fn ask_log(&self, request: Request, token: RequestToken) -> Result<(), StoreError>;
    /// Sends a canary through every shard and the log; that many `Event::Canary` answer.
    fn canary(&self, token: CommandToken) -> Result<usize, CommandError>;
    /// Has the shards follow these connections and no others.
    fn follow(&self, followed: &Arc<[Follow]>) -> Result<(), CommandError>;
    /// Starts closing everything; each shard says `Event::Drained`.
    fn drain(&self);
    /// Shards there are.
    fn shards(&self) -> usize;
    /// The store's figures by name.
    fn store_stats(&self) -> Vec<(&'static str, u64)>;
    /// The store can write.
    fn healthy(&self) -> bool;
}
