//! A range of addresses: `192.0.2.0/24`, `2001:db8::/32`, or one address.

use core::fmt;
use core::net::{IpAddr, Ipv6Addr};
use core::str::FromStr;

/// A range of addresses. What it holds beyond its bits is 0, so that equal ranges are equal values; an IPv4 address
/// written as an IPv6 one is the IPv4 one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    address: IpAddr,
    bits: u8,
}

/// The text is no address and no range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAPrefix;

impl Prefix {
    /// The range of so many bits that an address is in. `bits` beyond the address's own are the address's own.
    pub fn of(address: IpAddr, bits: u8) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let bits = bits.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                Self { address: IpAddr::V4((v4.to_bits() & mask).into()), bits }
            }
            IpAddr::V6(v6) => {
                let bits = bits.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                Self { address: IpAddr::V6((v6.to_bits() & mask).into()), bits }
            }
        }
    }

    /// Whom an address stands for: an IPv4 address itself, of an IPv6 one the /64, which is what one subscriber gets
    /// (RFC 6177) and can draw addresses from at will.
    pub fn source(address: IpAddr) -> Self {
        match address.to_canonical() {
            v4 @ IpAddr::V4(_) => Self::of(v4, 32),
            v6 @ IpAddr::V6(_) => Self::of(v6, 64),
        }
    }

    /// Whether it is as narrow as what [`Prefix::source`] gives.
    pub fn is_source(&self) -> bool {
        self.bits == if self.address.is_ipv4() { 32 } else { 64 }
    }

    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && Self::of(address, self.bits) == *self
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = if self.address.is_ipv4() { 32 } else { 128 };
        match self.bits == whole {
            true => self.address.fmt(f),
            false => write!(f, "{}/{}", self.address, self.bits),
        }
    }
}

impl FromStr for Prefix {
    type Err = NotAPrefix;

    /// Bits beyond the range's may not be set: `10.0.0.1/8` may be a slip of the pen.
    fn from_str(text: &str) -> Result<Self, NotAPrefix> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                (address, Some(bits.parse::<u8>().map_err(|_| NotAPrefix)?))
            }
            Some(_) => return Err(NotAPrefix),
            None => (text, None),
        };
        let written: IpAddr = address.parse().map_err(|_| NotAPrefix)?;
        let address = written.to_canonical();
        let whole = if address.is_ipv4() { 32 } else { 128 };
        // `::ffff:10.0.0.0/104` counts the bits of the mapping, too.
        let mapped = u8::from(written != address) * (Ipv6Addr::BITS as u8 - 32);
        let bits = match bits {
            Some(bits) => bits.checked_sub(mapped).filter(|&bits| bits <= whole).ok_or(NotAPrefix)?,
            None => whole,
        };
        let prefix = Self::of(address, bits);
        if prefix.address == address { Ok(prefix) } else { Err(NotAPrefix) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap_or_else(|_| panic!("{text} is one"))
    }

    #[test]
    fn a_range_is_read_and_written_in_its_shortest_form() {
        for (text, written) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1/32", "192.0.2.1"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::/0", "::/0"),
            ("::1", "::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ] {
            assert_eq!(prefix(text).to_string(), written);
        }
        for text in ["", "/8", "10.0.0.1/8", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/8/8", "a"] {
            assert_eq!(text.parse::<Prefix>(), Err(NotAPrefix), "{text}");
        }
    }

    #[test]
    fn a_range_contains_its_addresses_however_they_are_written() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert!(prefix("127.0.0.0/8").contains(address("127.1.2.3")));
        assert!(prefix("127.0.0.0/8").contains(address("::ffff:127.1.2.3")));
        assert!(!prefix("127.0.0.0/8").contains(address("128.0.0.1")));
        assert!(!prefix("0.0.0.0/0").contains(address("::1")) && prefix("::/0").contains(address("2001:db8::1")));
        assert!(prefix("2001:db8::/64").contains(address("2001:db8::ffff")));
        assert!(!prefix("2001:db8::/64").contains(address("2001:db8:0:1::")));
    }

    #[test]
    fn addresses_of_one_subscriber_are_one_source() {
        let source = |text: &str| Prefix::source(text.parse().expect("an address"));
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert!(source("192.0.2.1").is_source() && source("2001:db8::1").is_source());
        assert!(!prefix("2001:db8::/63").is_source() && !prefix("2001:db8::1").is_source());
    }
}
