//! A user's read mark: up to where the inbox was served by a session whose filters cover all of it. A device new to the
//! user starts behind it. It is a record of its own, because it outlives the user's sessions.

use crate::base::ids::{AppId, Epoch, Offset};
use crate::base::log::RecordChange;
use crate::session::Session;

/// A place in an inbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReadMark {
    pub(crate) epoch: Epoch,
    pub(crate) offset: Offset,
}

/// `r`, app, user, 0: names never hold 0 `[MQTT-1.5.4-2]`, so no user's key begins another's.
pub(crate) fn key(app: AppId, user: &str) -> Box<[u8]> {
    let mut key = Vec::with_capacity(user.len() + 4);
    key.push(b'r');
    key.extend_from_slice(&app.0.to_be_bytes());
    key.extend_from_slice(user.as_bytes());
    key.push(0);
    key.into()
}

/// None: it is not one of ours.
pub(crate) fn decode(value: &[u8]) -> Option<ReadMark> {
    let (epoch, offset) = value.split_first_chunk::<8>()?;
    let offset = offset.first_chunk::<8>()?;
    Some(ReadMark { epoch: Epoch(u64::from_be_bytes(*epoch)), offset: Offset(u64::from_be_bytes(*offset)) })
}

/// The record that the session's position makes of its user's mark; none when its filters do not cover the inbox, or
/// nothing is settled there.
pub(crate) fn change(session: &Session) -> Option<RecordChange> {
    let (epoch, offset) = session.inbox_settled();
    if !session.covers_inbox() || offset == Offset(0) {
        return None;
    }
    let value = [epoch.0.to_be_bytes(), offset.0.to_be_bytes()].concat();
    Some(RecordChange { key: key(session.app(), session.user()), value: Some(value.into()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_nobody_elses_prefix() {
        let (short, long) = (key(AppId(1), "al"), key(AppId(1), "alice"));
        assert!(!long.starts_with(&short));
    }

    #[test]
    fn a_value_that_is_too_short_is_no_mark() {
        assert_eq!(decode(&[0; 15]), None);
        assert_eq!(decode(&[0; 16]), Some(ReadMark::default()));
    }
}
