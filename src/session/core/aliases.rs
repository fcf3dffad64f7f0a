//! Topic aliases towards a client: the first topics that are sent to a connection each get one, and keep it.

use super::state::Session;
use crate::limits::TOPIC_ALIAS_OUT_MAX;
use core::num::NonZeroU16;
use std::sync::Arc;

/// Bytes that an alias adds to a PUBLISH: its property's identifier and number.
const ALIAS_BYTES: usize = 3;

/// How a topic is named to a client. An alias may be used by messages that follow the one that said what it stands
/// for, so whoever would drop or reorder frames that were written must leave that one where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// By its name alone.
    Name,
    /// By its name, with an alias for the next time; [`Session::alias_sent`] says that it left.
    NameAndAlias(NonZeroU16),
    /// By an alias it has had before.
    Alias(NonZeroU16),
}

/// What a connection's aliases stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::session) struct AliasesOut {
    /// How many the client takes, and we give.
    pub max: u16,
    /// The first is alias 1.
    pub topics: Vec<Arc<str>>,
}

impl AliasesOut {
    pub fn new(client_max: u16) -> Self {
        Self { max: client_max.min(TOPIC_ALIAS_OUT_MAX), topics: Vec::new() }
    }
}

impl Session {
    /// How to name a topic in the next message to the client. Never beyond its Topic Alias Maximum [MQTT-3.1.2-26],
    /// and never for a topic that is as short as an alias.
    pub fn naming(&self, topic: &str) -> Naming {
        let aliases = match &self.extra {
            Some(extra) if extra.aliases_out.max > 0 && topic.len() > ALIAS_BYTES => &extra.aliases_out,
            _ => return Naming::Name,
        };
        let known = aliases.topics.iter().position(|known| **known == *topic);
        let at = known.unwrap_or(aliases.topics.len());
        match u16::try_from(at + 1).ok().and_then(NonZeroU16::new) {
            Some(alias) if known.is_some() => Naming::Alias(alias),
            Some(alias) if alias.get() <= aliases.max => Naming::NameAndAlias(alias),
            _ => Naming::Name,
        }
    }

    /// A message that said what an alias stands for was handed to the connection.
    pub fn alias_sent(&mut self, topic: &Arc<str>) {
        let aliases = &mut self.extra().aliases_out;
        assert!(aliases.topics.len() < usize::from(aliases.max), "an alias is given out once, and within the maximum");
        aliases.topics.push(Arc::clone(topic));
    }
}
