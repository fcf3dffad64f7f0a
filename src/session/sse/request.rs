//! `GET /events` and `GET /poll`: their parameters.

use super::super::core::own_position::PollWish;
use super::{EventsRequest, Given};
use crate::base::ids::Qos;
use crate::limits::{
    IDENTITY_BYTES_MAX, POLL_EVENTS_DEFAULT, POLL_EVENTS_MAX, POLL_TIMEOUT_DEFAULT, POLL_TIMEOUT_MAX, SUBSCRIPTIONS_MAX,
};
use crate::wire::http::Head;
use crate::wire::mqtt::topic;
use crate::wire::sse::EventId;

/// All of a user's own inbox.
const INBOX: &str = "$inbox/#";

/// Reads a request whose method and page were checked. The error is for people.
pub fn read(head: &Head<'_>, page: Option<&str>) -> Result<EventsRequest, &'static str> {
    read_either(head, page, None)
}

/// As [`read`], of a poll. Its QoS is that of acknowledged messages always: what the answer has no room for must not be
/// lost.
pub fn read_poll(head: &Head<'_>, page: Option<&str>) -> Result<EventsRequest, &'static str> {
    let wish = PollWish { timeout_ms: POLL_TIMEOUT_DEFAULT.as_millis() as u32, limit: POLL_EVENTS_DEFAULT };
    let request = read_either(head, page, Some(wish))?;
    if request.raw {
        return Err("format is json");
    }
    Ok(EventsRequest { qos: Qos::AtLeastOnce, ..request })
}

fn read_either(head: &Head<'_>, page: Option<&str>, mut poll: Option<PollWish>) -> Result<EventsRequest, &'static str> {
    let mut request = EventsRequest {
        user: None,
        device: Box::default(),
        filters: Vec::new(),
        qos: Qos::AtLeastOnce,
        raw: false,
        given: Given::Nothing,
        page: page.map(Into::into),
        poll: None,
        token: None,
        rights: None,
    };
    let mut last_event_id = None;
    for parameter in head.query() {
        let (name, value) =
            parameter.map_err(|_| "the query cannot be read: an escape is broken, or it is no UTF-8")?;
        match (&*name, &*value) {
            ("topic", filter) => add(&mut request.filters, filter)?,
            ("inbox", "1" | "true") => add(&mut request.filters, INBOX)?,
            ("inbox", "0" | "false") => {}
            ("inbox", _) => return Err("inbox is 0 or 1"),
            ("user", user) => request.user = Some(identity(user)?),
            ("device", device) => request.device = identity(device)?,
            ("qos", "0") => request.qos = Qos::AtMostOnce,
            ("qos", "1") => request.qos = Qos::AtLeastOnce,
            ("qos", _) => return Err("qos is 0 or 1: an event stream has no acknowledgements"),
            ("format", "json") => request.raw = false,
            ("format", "raw") => request.raw = true,
            ("format", _) => return Err("format is json or raw"),
            ("last_event_id", id) => last_event_id = Some(id.to_owned()),
            ("after", id) if poll.is_some() => last_event_id = Some(id.to_owned()),
            ("timeout_ms", text) if let Some(poll) = &mut poll => {
                let allowed = 0..=POLL_TIMEOUT_MAX.as_millis() as u32;
                poll.timeout_ms = number(text).filter(|ms| allowed.contains(ms)).ok_or("timeout_ms is 0 to 300000")?;
            }
            ("limit", text) if let Some(poll) = &mut poll => {
                let limit = number(text).and_then(|limit| u16::try_from(limit).ok());
                poll.limit = limit.filter(|limit| (1..=POLL_EVENTS_MAX).contains(limit)).ok_or("limit is 1 to 1000")?;
            }
            // Pages add parameters of their own, against caches for one.
            _ => {}
        }
    }
    request.poll = poll;
    if request.filters.is_empty() {
        return Err("nothing is asked for: topic=FILTER, inbox=1, or both");
    }
    // What a browser gives when it comes back is newer than the address it was given at first.
    let last = head.header("last-event-id").filter(|id| !id.is_empty());
    request.given = match last.or(last_event_id.as_deref().filter(|id| !id.is_empty())) {
        None => Given::Nothing,
        Some(id) => EventId::parse(id).map_or(Given::Unreadable, Given::Position),
    };
    Ok(request)
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

fn add(filters: &mut Vec<Box<str>>, filter: &str) -> Result<(), &'static str> {
    if filter.starts_with("$share/") {
        return Err("shared subscriptions are not spoken here");
    }
    if topic::check_filter(filter).is_err() || !topic::within_limits(filter) || filter.contains('\0') {
        return Err("topic is not a topic filter, or longer or deeper than allowed");
    }
    if filters.iter().all(|known| **known != *filter) {
        if filters.len() >= SUBSCRIPTIONS_MAX {
            return Err("more topics than a session may have");
        }
        filters.push(filter.into());
    }
    Ok(())
}

fn identity(name: &str) -> Result<Box<str>, &'static str> {
    if name.len() > IDENTITY_BYTES_MAX || name.contains('\0') {
        return Err("user or device is longer than allowed, or holds a zero");
    }
    Ok(name.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{Epoch, Offset};
    use crate::wire::http::parse;

    fn read_with(query: &str, headers: &str) -> Result<EventsRequest, &'static str> {
        let bytes = format!("GET /events?{query} HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
        let head = parse(bytes.as_bytes()).expect("it is a head").expect("it is whole");
        read(&head, None)
    }

    fn good(query: &str) -> EventsRequest {
        read_with(query, "").unwrap_or_else(|why| panic!("{query}: {why}"))
    }

    #[test]
    fn all_parameters_are_read_and_others_are_let_be() {
        let request = good("topic=a/%2B&topic=b&inbox=1&topic=b&user=ann&device=phone&qos=0&format=raw&_=17");
        assert_eq!(request.filters, ["a/+", "b", "$inbox/#"].map(Box::from));
        assert_eq!((request.user.as_deref(), &*request.device), (Some("ann"), "phone"));
        assert_eq!((request.qos, request.raw, request.given), (Qos::AtMostOnce, true, Given::Nothing));
        let plain = good("inbox=1");
        assert_eq!((plain.qos, plain.raw, &*plain.device, plain.user), (Qos::AtLeastOnce, false, "", None));
    }

    #[test]
    fn what_cannot_be_served_is_refused_in_words() {
        for query in [
            "",
            "inbox=0",
            "inbox=2",
            "topic=",
            "topic=a%2Bb",
            "topic=a/%23/b",
            "topic=%00",
            "topic=$share/g/a",
            "inbox=1&qos=2",
            "inbox=1&format=xml",
            "inbox=1&user=%00",
            "topic=%zz",
        ] {
            assert!(read_with(query, "").is_err(), "{query}");
        }
    }

    #[test]
    fn names_are_bounded() {
        for over in [0, 1] {
            let name = "n".repeat(IDENTITY_BYTES_MAX + over);
            assert_eq!(read_with(&format!("inbox=1&user={name}"), "").is_ok(), over == 0);
            assert_eq!(read_with(&format!("inbox=1&device={name}"), "").is_ok(), over == 0);
        }
        let many = |count: usize| (0..count).map(|n| format!("topic={n:03}&")).collect::<String>();
        let mut filters = Vec::new();
        for n in 0..SUBSCRIPTIONS_MAX {
            add(&mut filters, &n.to_string()).expect("it has room");
        }
        assert!(add(&mut filters, "0").is_ok() && add(&mut filters, "more").is_err());
        assert_eq!(good(&many(9)).filters.len(), 9);
    }

    fn poll(query: &str) -> Result<EventsRequest, &'static str> {
        let bytes = format!("GET /poll?{query} HTTP/1.1\r\nHost: h\r\n\r\n");
        read_poll(&parse(bytes.as_bytes()).expect("it is a head").expect("it is whole"), None)
    }

    #[test]
    fn a_poll_has_a_timeout_and_a_limit_which_a_stream_lets_be() {
        let wish = |query: &str| poll(query).expect(query).poll.map(|wish| (wish.timeout_ms, wish.limit));
        assert_eq!(wish("inbox=1"), Some((POLL_TIMEOUT_DEFAULT.as_millis() as u32, POLL_EVENTS_DEFAULT)));
        assert_eq!(wish("inbox=1&timeout_ms=0&limit=1"), Some((0, 1)));
        assert_eq!(wish("inbox=1&timeout_ms=300000&limit=1000"), Some((300_000, 1_000)));
        for query in ["timeout_ms=300001", "timeout_ms=-1", "timeout_ms=+1", "limit=0", "limit=1001", "format=raw"] {
            assert!(poll(&format!("inbox=1&{query}")).is_err(), "{query}");
        }
        let given = poll("inbox=1&after=0000000000000001:5&qos=0").expect("it is read");
        assert_eq!(given.given, Given::Position(EventId::One(Epoch(1), Offset(5))));
        assert_eq!(given.qos, Qos::AtLeastOnce, "what finds no room in the answer must not be lost");
        let stream = good("inbox=1&after=0000000000000001:5&timeout_ms=x");
        assert_eq!((stream.given, stream.poll), (Given::Nothing, None));
    }

    #[test]
    fn a_position_comes_in_the_header_or_else_in_the_query() {
        let one = |offset| Given::Position(EventId::One(Epoch(1), Offset(offset)));
        assert_eq!(good("inbox=1&last_event_id=0000000000000001:5").given, one(5));
        let header = "Last-Event-ID: 0000000000000001:7\r\n";
        let both = read_with("inbox=1&last_event_id=0000000000000001:5", header).expect("it is read");
        assert_eq!(both.given, one(7), "the header is newer");
        assert_eq!(good("inbox=1&last_event_id=").given, Given::Nothing);
        assert_eq!(good("inbox=1&last_event_id=x").given, Given::Unreadable);
    }
}
