//! The PROXY protocol, versions 1 and 2: what a load balancer says before its client's first byte, so that the client's
//! address is known behind it (the specification is HAProxy's `proxy-protocol.txt`).

use crate::limits::{PROXY_V1_BYTES_MAX, PROXY_V2_BYTES_MAX};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How version 1 begins.
const V1: &[u8] = b"PROXY ";
/// How version 2 begins.
const V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of a head of version 2 before its addresses.
const V2_FIXED_BYTES: usize = 16;
/// A type of TLV: the checksum of the head, CRC-32C.
const TLV_CRC32C: u8 = 3;

/// A whole head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its length.
    pub bytes: usize,
    /// The client's address; none where the balancer speaks for itself (a health check), or of a family that is not
    /// IP: then the connection's own counts.
    pub source: Option<SocketAddr>,
}

/// It is no head, or one that lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrong;

/// Reads the head at the start of `bytes`. None: it is not whole yet; so many bytes as the longest head has always
/// decide.
///
/// # Errors
/// See [`Wrong`]; told at the first byte that shows it.
pub fn parse(bytes: &[u8]) -> Result<Option<Head>, Wrong> {
    if begins(bytes, V1) {
        version_1(bytes)
    } else if begins(bytes, V2) {
        version_2(bytes)
    } else {
        Err(Wrong)
    }
}

/// Whether it is the beginning of a head: of one that nobody expects.
pub fn is_head(bytes: &[u8]) -> bool {
    bytes.starts_with(V1) || bytes.starts_with(V2)
}

/// Whether `bytes` begins with `start`, or is the beginning of it.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    let both = bytes.len().min(start.len());
    bytes[..both] == start[..both]
}

fn version_1(bytes: &[u8]) -> Result<Option<Head>, Wrong> {
    let within = &bytes[..bytes.len().min(PROXY_V1_BYTES_MAX)];
    let Some(end) = within.iter().position(|&byte| byte == b'\n') else {
        return if bytes.len() < PROXY_V1_BYTES_MAX { Ok(None) } else { Err(Wrong) };
    };
    let line = within[..end].strip_suffix(b"\r").ok_or(Wrong)?;
    let line = core::str::from_utf8(line).map_err(|_| Wrong)?;
    let mut words = line.split(' ').skip(1);
    let source = match words.next() {
        // Whatever follows is to be ignored.
        Some("UNKNOWN") => None,
        Some("TCP4") => Some(v1_source(words, |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4))?),
        Some("TCP6") => Some(v1_source(words, |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6))?),
        _ => return Err(Wrong),
    };
    Ok(Some(Head { bytes: end + 1, source }))
}

/// `SOURCE DESTINATION SOURCE-PORT DESTINATION-PORT`.
fn v1_source<'a>(
    mut words: impl Iterator<Item = &'a str>,
    ip: impl Fn(&str) -> Option<IpAddr>,
) -> Result<SocketAddr, Wrong> {
    let mut next = || words.next().ok_or(Wrong);
    let (source, destination, source_port, destination_port) = (next()?, next()?, next()?, next()?);
    if words.next().is_some() || ip(destination).is_none() || port(destination_port).is_none() {
        return Err(Wrong);
    }
    Ok(SocketAddr::new(ip(source).ok_or(Wrong)?, port(source_port).ok_or(Wrong)?))
}

fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

fn version_2(bytes: &[u8]) -> Result<Option<Head>, Wrong> {
    let Some(&version_command) = bytes.get(V2.len()) else { return Ok(None) };
    let is_local = match version_command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Wrong),
    };
    let Some([family, high, low]) = bytes.get(V2.len() + 1..V2_FIXED_BYTES) else { return Ok(None) };
    let end = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([*high, *low]));
    if end > PROXY_V2_BYTES_MAX {
        return Err(Wrong);
    }
    let Some(head) = bytes.get(..end) else { return Ok(None) };
    let rest = &head[V2_FIXED_BYTES..];
    let (source, tlvs) = match family {
        0x11 | 0x12 => v2_source::<4, 12>(rest)?,
        0x21 | 0x22 => v2_source::<16, 36>(rest)?,
        // Two paths of sockets in the file system.
        0x31 | 0x32 => (None, rest.get(216..).ok_or(Wrong)?),
        // A family that is not specified, or not known: how long its addresses are is not known either.
        _ => (None, &[][..]),
    };
    check_tlvs(head, tlvs)?;
    // Over datagrams nobody came here.
    let source = source.filter(|_| !is_local && family & 0xf == 1);
    Ok(Some(Head { bytes: end, source }))
}

/// The source of `ALL` bytes with two addresses of `ONE` byte each and two ports, and what is behind them.
fn v2_source<const ONE: usize, const ALL: usize>(rest: &[u8]) -> Result<(Option<SocketAddr>, &[u8]), Wrong>
where
    IpAddr: From<[u8; ONE]>,
{
    let (addresses, tlvs) = rest.split_at_checked(ALL).ok_or(Wrong)?;
    let ip: [u8; ONE] = addresses[..ONE].try_into().map_err(|_| Wrong)?;
    let port = u16::from_be_bytes([addresses[2 * ONE], addresses[2 * ONE + 1]]);
    Ok((Some(SocketAddr::new(IpAddr::from(ip), port)), tlvs))
}

/// Looks at what follows the addresses: each has to be whole, and a checksum right. What else there is means nothing here.
fn check_tlvs(head: &[u8], mut tlvs: &[u8]) -> Result<(), Wrong> {
    while !tlvs.is_empty() {
        let [kind, high, low, rest @ ..] = tlvs else { return Err(Wrong) };
        let (value, behind) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low]))).ok_or(Wrong)?;
        if *kind == TLV_CRC32C {
            let sum: [u8; 4] = value.try_into().map_err(|_| Wrong)?;
            let at = head.len() - behind.len() - sum.len();
            if crc32c(head, at..at + sum.len()) != u32::from_be_bytes(sum) {
                return Err(Wrong);
            }
        }
        tlvs = behind;
    }
    Ok(())
}

/// CRC-32C (Castagnoli) of `bytes`, with zeros in place of those in `as_zero`. A head is short and comes once a
/// connection, so a bit at a time is fast enough.
fn crc32c(bytes: &[u8], as_zero: core::ops::Range<usize>) -> u32 {
    const POLYNOMIAL: u32 = 0x82F6_3B78;
    let mut sum = u32::MAX;
    for (index, &byte) in bytes.iter().enumerate() {
        sum ^= if as_zero.contains(&index) { 0 } else { u32::from(byte) };
        for _ in 0..8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ POLYNOMIAL } else { sum >> 1 };
        }
    }
    !sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("it is short").to_be_bytes();
        [&V2[..], &[0x20 | command, family], &length, rest].concat()
    }

    const TCP4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 7, 0xd4, 0x31, 0x07, 0x5b];

    fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
        [&[kind][..], &u16::try_from(value.len()).expect("it is short").to_be_bytes(), value].concat()
    }

    fn source(text: &str) -> Option<SocketAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn a_head_of_each_version_and_family_names_its_source() {
        for (head, expected) in [
            (b"PROXY TCP4 192.0.2.1 198.51.100.7 54321 1883\r\n".to_vec(), source("192.0.2.1:54321")),
            (b"PROXY TCP6 2001:db8::1 ::1 0 65535\r\n".to_vec(), source("[2001:db8::1]:0")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff:: whatever else\r\n".to_vec(), None),
            (v2(1, 0x11, &TCP4), source("192.0.2.1:54321")),
            (v2(1, 0x21, &[&[0xfe; 16][..], &[1; 16], &[0, 9, 0, 8]].concat()), {
                source("[fefe:fefe:fefe:fefe:fefe:fefe:fefe:fefe]:9")
            }),
            (v2(1, 0x12, &TCP4), None),
            (v2(0, 0x11, &TCP4), None),
            (v2(0, 0, &[]), None),
            (v2(1, 0x31, &[0; 216]), None),
            (v2(1, 0x41, b"who knows"), None),
            (v2(1, 0x11, &[&TCP4[..], &tlv(4, b"padding"), &tlv(0x20, &[0; 9])].concat()), source("192.0.2.1:54321")),
        ] {
            let bytes = [&head[..], b"\x10more"].concat();
            assert_eq!(parse(&bytes), Ok(Some(Head { bytes: head.len(), source: expected })), "{head:x?}");
            for end in 0..head.len() {
                assert_eq!(parse(&head[..end]), Ok(None), "{:x?}", &head[..end]);
            }
            assert!(is_head(&bytes));
        }
    }

    #[test]
    fn what_is_no_head_or_lies_is_wrong() {
        for head in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXY TCP4 192.0.2.1 198.51.100.7 54321 1883\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.7 54321 65536\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.7 054321 1883\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.7 +5 1883\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.7 5\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.7 5 6 7\r\n",
            b"PROXY TCP4 192.0.2.1  198.51.100.7 5 6\r\n",
            b"PROXY TCP4 ::1 198.51.100.7 5 6\r\n",
            b"PROXY TCP6 192.0.2.1 ::1 5 6\r\n",
            b"PROXY UDP4 192.0.2.1 198.51.100.7 5 6\r\n",
            b"PROXY tcp4 192.0.2.1 198.51.100.7 5 6\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.7 5 6\xff\r\n",
            &v2(2, 0x11, &TCP4),
            &v2(1, 0x11, &TCP4[..11]),
            &v2(1, 0x21, &[0; 35]),
            &v2(1, 0x31, &[0; 215]),
            &v2(1, 0x11, &[&TCP4[..], &[4]].concat()),
            &v2(1, 0x11, &[&TCP4[..], &[4, 0, 2, 0]].concat()),
            &v2(1, 0x11, &[&TCP4[..], &tlv(TLV_CRC32C, &[0; 3])].concat()),
            b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\0",
        ] {
            assert_eq!(parse(head), Err(Wrong), "{head:x?}");
        }
    }

    #[test]
    fn a_checksum_has_to_be_right() {
        assert_eq!(crc32c(b"123456789", 0..0), 0xE306_9283, "the check value of CRC-32C");
        let mut head = v2(1, 0x11, &[&TCP4[..], &tlv(4, &[0]), &tlv(TLV_CRC32C, &[0; 4]), &tlv(4, &[7])].concat());
        let at = V2_FIXED_BYTES + TCP4.len() + 4 + 3;
        let sum = crc32c(&head, at..at + 4).to_be_bytes();
        head[at..at + 4].copy_from_slice(&sum);
        assert_eq!(parse(&head), Ok(Some(Head { bytes: head.len(), source: source("192.0.2.1:54321") })));
        // But for the byte that says that there is one.
        for index in (V2_FIXED_BYTES..head.len()).filter(|&index| index != at - 3) {
            let mut changed = head.clone();
            changed[index] ^= 0x10;
            assert!(parse(&changed) != parse(&head), "changed at {index}");
        }
    }

    #[test]
    fn the_longest_heads_are_taken_and_one_byte_more_is_wrong() {
        let v1 = |bytes: usize| {
            let filler = "x".repeat(bytes - "PROXY UNKNOWN \r\n".len());
            format!("PROXY UNKNOWN {filler}\r\n").into_bytes()
        };
        for (bytes, taken) in
            [(PROXY_V1_BYTES_MAX - 1, true), (PROXY_V1_BYTES_MAX, true), (PROXY_V1_BYTES_MAX + 1, false)]
        {
            assert_eq!(parse(&v1(bytes)), if taken { Ok(Some(Head { bytes, source: None })) } else { Err(Wrong) });
        }
        let v2 = |bytes: usize| {
            v2(1, 0x11, &[&TCP4[..], &tlv(4, &vec![0; bytes - V2_FIXED_BYTES - TCP4.len() - 3])].concat())
        };
        for (bytes, taken) in
            [(PROXY_V2_BYTES_MAX - 1, true), (PROXY_V2_BYTES_MAX, true), (PROXY_V2_BYTES_MAX + 1, false)]
        {
            assert_eq!(
                parse(&v2(bytes)).map(|head| head.map(|head| head.bytes)),
                if taken { Ok(Some(bytes)) } else { Err(Wrong) }
            );
        }
    }

    proptest! {
        #[test]
        fn a_verdict_never_changes_with_more_bytes(
            start in proptest::sample::select(vec![&b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"[..], b"PROXY ", V2, b""]),
            tail in proptest::collection::vec(any::<u8>(), 0..64),
            cut in 0usize..96,
        ) {
            let bytes = [start, &tail].concat();
            let early = parse(&bytes[..cut.min(bytes.len())]);
            prop_assert!(early == Ok(None) || early == parse(&bytes));
        }
    }
}
