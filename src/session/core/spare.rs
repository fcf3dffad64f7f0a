//! What calls leave to the next ones, or each message would allocate: windows of sessions that have nothing in flight any
//! more, and texts seen lately.

use super::super::Effects;
use super::state::{Extra, Session, Work};
use super::text::Text;
use std::sync::Arc;

/// Empty [`Work`]s, and topic and filter texts seen lately: a million sessions have the same few filters.
#[derive(Debug, Default)]
pub struct Spare {
    #[expect(clippy::vec_box, reason = "the box itself is what is used again")]
    works: Vec<Box<Work>>,
    texts: [Option<Arc<str>>; 8],
    next_text: usize,
    filters: [Option<Text>; 8],
    next_filter: usize,
}

const SPARE_WORKS_MAX: usize = 1_024;

impl Spare {
    /// Takes the other's works, by moving the fewer ones.
    pub(in crate::session) fn take_over(&mut self, other: &mut Self) {
        if other.works.len() > self.works.len() {
            core::mem::swap(&mut self.works, &mut other.works);
        }
        if other.works.is_empty() {
            return;
        }
        let room = SPARE_WORKS_MAX - self.works.len();
        let from = other.works.len().saturating_sub(room);
        self.works.extend(other.works.drain(from..));
    }

    pub(in crate::session) fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.iter().flatten().find(|known| &***known == text) {
            return Arc::clone(known);
        }
        let made: Arc<str> = text.into();
        self.texts[self.next_text] = Some(Arc::clone(&made));
        self.next_text = (self.next_text + 1) % self.texts.len();
        made
    }

    pub(in crate::session) fn filter(&mut self, text: &str) -> Text {
        if let Some(known) = self.filters.iter().flatten().find(|known| &***known == text) {
            return known.clone();
        }
        let made = Text::from(text);
        self.filters[self.next_filter] = Some(made.clone());
        self.next_filter = (self.next_filter + 1) % self.filters.len();
        made
    }
}

impl Session {
    /// What it has in flight, which it has from now on.
    pub(in crate::session) fn work(&mut self, effects: &mut Effects) -> &mut Work {
        self.work.get_or_insert_with(|| effects.spare.works.pop().unwrap_or_default())
    }

    /// Gives back what holds nothing.
    pub(in crate::session) fn tidy(&mut self, effects: &mut Effects) {
        if let Some(work) = self.work.take_if(|work| work.is_empty())
            && effects.spare.works.len() < SPARE_WORKS_MAX
        {
            effects.spare.works.push(work);
        }
        self.extra.take_if(|extra| **extra == Extra::default());
    }
}
