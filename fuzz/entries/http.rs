//! Any bytes as the head of an HTTP request.

use kittiwake::limits::{
    HTTP_HEAD_BYTES_MAX, HTTP_TARGET_BYTES_MAX, IDENTITY_BYTES_MAX, POLL_TIMEOUT_MAX, SUBSCRIPTIONS_MAX,
};
use kittiwake::session::sse;
use kittiwake::wire::http::parse;
use kittiwake::wire::websocket::{Agreement, Offer, WINDOW_BITS_MAX, WINDOW_BITS_MIN};

/// A head is within its bounds, is not told before it is whole, and does not change with what follows.
pub fn head(bytes: &[u8]) {
    let Ok(said) = parse(bytes) else { return };
    let Some(head) = said else {
        assert!(bytes.len() < HTTP_HEAD_BYTES_MAX);
        return;
    };
    assert!(head.bytes <= bytes.len() && head.bytes <= HTTP_HEAD_BYTES_MAX);
    assert!(head.path.len() + head.query.len() <= HTTP_TARGET_BYTES_MAX);
    for (name, value) in head.query().flatten() {
        assert!(name.len() + value.len() <= head.query.len(), "to decode a parameter makes it no longer");
    }
    if let Ok(offer) = Offer::check(&head, None) {
        let (mut answer, agreement) = (Vec::new(), Agreement::find(&head));
        offer.accept(None, agreement, &mut answer);
        let window_bits = agreement.map_or(WINDOW_BITS_MAX, Agreement::window_bits);
        assert!((WINDOW_BITS_MIN..=WINDOW_BITS_MAX).contains(&window_bits));
        assert!(answer.ends_with(b"\r\n\r\n"));
    }
    for request in [sse::read(&head, None), sse::read_poll(&head, None)].into_iter().flatten() {
        assert!((1..=SUBSCRIPTIONS_MAX).contains(&request.filters.len()) && request.device.len() <= IDENTITY_BYTES_MAX);
        let longest = POLL_TIMEOUT_MAX.as_millis();
        assert!(request.poll.is_none_or(|poll| u128::from(poll.timeout_ms) <= longest && poll.limit > 0));
    }
    let again = parse(&bytes[..head.bytes]).expect("it was well formed").expect("it was whole");
    assert_eq!((again.method, again.path, again.query), (head.method, head.path, head.query));
    assert!(!matches!(parse(&bytes[..head.bytes - 1]), Ok(Some(_))));
}
