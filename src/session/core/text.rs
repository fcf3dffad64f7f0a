//! Filters as sessions keep them.

use crate::limits::RESTORED_FILTERS_MAX;
use core::borrow::Borrow;
use core::ops::Deref;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A filter's text behind one word, shared by all that have the same ([`Spare::filter`]): a session keeps it for years,
/// and looks at it when a message comes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(Arc<Arc<str>>);

impl Text {
    /// The text itself.
    pub fn shared(&self) -> &Arc<str> {
        &self.0
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Arc::new(text.into()))
    }
}

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self
    }
}

/// The texts of filters in records, while sessions are rebuilt: without it each session would have its own.
#[derive(Debug, Default)]
pub(in crate::session) struct Texts(BTreeSet<Text>);

impl Texts {
    pub fn shared(&mut self, text: &str) -> Text {
        if let Some(known) = self.0.get(text) {
            return known.clone();
        }
        let made = Text::from(text);
        // Beyond it they are not noted, and cost each session its own.
        if self.0.len() < RESTORED_FILTERS_MAX {
            self.0.insert(made.clone());
        }
        made
    }
}
