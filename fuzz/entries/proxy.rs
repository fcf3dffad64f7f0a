//! Any bytes as a head of the PROXY protocol.

use kittiwake::limits::{PROXY_V1_BYTES_MAX, PROXY_V2_BYTES_MAX};
use kittiwake::wire::proxy::{Wrong, parse};

/// The verdict on a beginning is the verdict on the whole, or that more is needed; and a head is within its bounds.
pub fn head(bytes: &[u8]) {
    let whole = parse(bytes);
    for end in 0..bytes.len().min(64) {
        let early = parse(&bytes[..end]);
        assert!(early == Ok(None) || early == whole, "{early:?} of {end} bytes, {whole:?} of all");
    }
    match whole {
        Ok(Some(head)) => {
            assert!(head.bytes <= bytes.len() && head.bytes <= PROXY_V2_BYTES_MAX);
            assert!(bytes[0] != b'P' || head.bytes <= PROXY_V1_BYTES_MAX);
            assert_eq!(parse(&bytes[..head.bytes]), whole);
            assert_eq!(parse(&bytes[..head.bytes - 1]), Ok(None));
        }
        Ok(None) => assert!(bytes.len() < PROXY_V2_BYTES_MAX),
        Err(Wrong) => {}
    }
}
