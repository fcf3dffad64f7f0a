//! A filter's text.

use core::ops::Deref;
use std::sync::Arc;

/// A filter's text behind one word, shared by all that have the same ([`Spare::filter`]): a session keeps it for years,
/// and looks at it when a message comes.
#[derive(Clone, Debug, PartialEq, Eq)]
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
