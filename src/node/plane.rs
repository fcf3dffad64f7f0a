//! The data plane as the node starts it and as the API sees it.

use super::capacity::Capacity;
use super::give_way::let_catch_up;
use crate::auth::{Lists, Rights};
use crate::base::ids::AppId;
use crate::config::Config;
use crate::limits::DRAIN_END;
use crate::push::Gateway;
use crate::shard::command::{
    BanCommand, CommandError, CommandToken, ConnectionQuery, Follow, HistoryQuery, Push, Watch,
};
use crate::shard::{Handle, Limits, Settings};
use crate::store::{Request, RequestToken, StoreError};
use crate::wire::tls;
use core::time::Duration;
use rustix::rand::{GetRandomFlags, getrandom};
use std::io;
use std::sync::Arc;

/// The data plane's settings. `shards` and `capacity` are what the node made of the machine and the configuration.
pub(super) fn settings(
    config: &Config,
    shards: u16,
    capacity: Capacity,
    tls: Option<tls::Server>,
) -> io::Result<Settings> {
    let limits = &config.limits;
    Ok(Settings {
        shards,
        driver: config.driver,
        listen: config.edge_listen.clone(),
        doors: config.doors.clone(),
        tls,
        apps: config.apps.clone(),
        server_reference: config.server_reference.clone(),
        user: config.user_template.clone(),
        tokens: config.tokens.is_some(),
        hook: config.hook.is_some(),
        rights: Arc::new(Rights { node: Arc::new(config.rights.clone()), own: Lists::default() }),
        sys_users: config.sys_users.iter().map(|user| user.as_str().into()).collect(),
        topics: config.topics.clone(),
        origins: config.origins.clone(),
        hash_key: random()?,
        random_seed: random()?,
        limits: Limits {
            connections: usize::try_from(capacity.connections).unwrap_or(usize::MAX),
            packet_bytes: limits.packet_bytes,
            outbox_bytes: limits.outbox_bytes,
            receive_maximum_out: limits.receive_maximum_out,
            receive_maximum_in: limits.receive_maximum_in,
            subscriptions: limits.subscriptions,
            session_expiry: limits.session_expiry_max,
            handshake_timeout: limits.handshake_timeout,
            idle_timeout: limits.idle_timeout,
            tls_handshakes: limits.tls_handshakes,
            sse_heartbeat: limits.sse_heartbeat,
            deflate_bytes: limits.deflate_bytes,
            devices_per_user: limits.devices_per_user,
            drain_within: drain_within(config),
            drain_rate: config.drain_rate,
            inbox_entries: limits.inbox_entries,
            inbox_age: limits.inbox_age,
            retained_messages: limits.retained_messages,
            retained_bytes: limits.retained_bytes,
            buffer_bytes: limits.buffer_bytes,
            defence: config.defence.clone(),
            quotas: config.quotas.clone(),
            events_entries: limits.events_keep,
            events_bytes: limits.events_keep_bytes,
            events_age: limits.events_keep_age,
        },
    })
}

/// The shards' part of the time to stop: the rest is for requests under way, the last commits and the kernel, which closes
/// what is left.
fn drain_within(config: &Config) -> Duration {
    config.drain_timeout - (config.drain_timeout / 4).min(DRAIN_END)
}

pub(super) fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    let count = getrandom(&mut bytes[..], GetRandomFlags::empty())?;
    assert_eq!(count, bytes.len(), "the kernel gives up to 256 bytes at once, or none");
    Ok(u64::from_ne_bytes(bytes))
}

impl Gateway for Handle {
    fn push(&self, push: Push, token: CommandToken) -> Result<(), CommandError> {
        Self::push(self, push, token)?;
        // It has rung by itself, for so many were handed over.
        if !self.is_unrung() {
            let_catch_up(self);
        }
        Ok(())
    }

    fn is_unrung(&self) -> bool {
        Self::is_unrung(self)
    }

    fn ring(&self) {
        Self::ring(self);
        let_catch_up(self);
    }

    fn stats(&self, token: CommandToken) -> Result<usize, CommandError> {
        Self::stats(self, token)
    }

    fn connections(&self, query: ConnectionQuery, token: CommandToken) -> Result<usize, CommandError> {
        Self::connections(self, query, token)
    }

    fn disconnect(
        &self,
        app: AppId,
        user: Arc<str>,
        device: Option<Arc<str>>,
        token: CommandToken,
    ) -> Result<(), CommandError> {
        Self::disconnect(self, app, user, device, token)
    }

    fn user(&self, app: AppId, user: Arc<str>, token: CommandToken) -> Result<(), CommandError> {
        Self::user(self, app, user, token)
    }

    fn history(&self, query: HistoryQuery, token: CommandToken) -> Result<(), CommandError> {
        Self::history(self, query, token)
    }

    fn presence(&self, app: AppId, topic: Arc<str>, token: CommandToken) -> Result<(), CommandError> {
        Self::presence(self, app, topic, token)
    }

    fn bans(&self, command: BanCommand, token: CommandToken) -> Result<(), CommandError> {
        Self::bans(self, command, token)
    }

    fn watch(&self, watch: &Arc<Watch>) -> Result<(), CommandError> {
        Self::watch(self, watch)
    }

    fn ask_log(&self, request: Request, token: RequestToken) -> Result<(), StoreError> {
        Self::ask_log(self, request, token)
    }

    fn canary(&self, token: CommandToken) -> Result<usize, CommandError> {
        Self::canary(self, token)
    }

    fn follow(&self, followed: &Arc<[Follow]>) -> Result<(), CommandError> {
        Self::follow(self, followed)
    }

    fn drain(&self) {
        Self::drain(self);
    }

    fn shards(&self) -> usize {
        Self::shards(self)
    }

    fn store_stats(&self) -> Vec<(&'static str, u64)> {
        let stats = Self::store_stats(self);
        let held = stats.store;
        vec![
            ("commits", stats.commits),
            ("commits_ms", self.commits_ms()),
            ("entries", stats.entries),
            ("records", stats.records),
            ("bytes", stats.bytes),
            ("duplicates", stats.duplicates),
            ("key_conflicts", stats.key_conflicts),
            ("failures", stats.failures),
            ("queue_depth", stats.queue_depth),
            ("seq", stats.seq),
            ("poisoned", u64::from(stats.poisoned)),
            ("held_streams", held.streams),
            ("held_entries", held.entries),
            ("held_records", held.records),
            ("held_bytes", held.bytes),
            ("held_keys", held.keys),
            ("trimmed", held.trimmed),
            ("keys_dropped", held.keys_dropped),
        ]
    }

    fn healthy(&self) -> bool {
        Self::healthy(self, crate::io::now())
    }
}
