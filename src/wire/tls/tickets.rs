//! Resumption without a memory: what a server has to remember of a client is sealed and given to that client. Nodes that
//! share the keys take each other's tickets.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, Nonce, RandomizedNonceKey};
use core::fmt;
use rustls::server::ProducesTickets;

/// Bytes of a key: its name, then the key itself.
pub const TICKET_KEY_BYTES: usize = NAME_BYTES + SECRET_BYTES;
const NAME_BYTES: usize = 16;
const SECRET_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;

/// A key that tickets are sealed with. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketKey([u8; TICKET_KEY_BYTES]);

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey")
    }
}

impl From<[u8; TICKET_KEY_BYTES]> for TicketKey {
    fn from(bytes: [u8; TICKET_KEY_BYTES]) -> Self {
        Self(bytes)
    }
}

impl TicketKey {
    /// Reads one as it stands in a file: hexadecimal digits. None: they are too few, too many, or none.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; TICKET_KEY_BYTES];
        let digits = text.as_bytes();
        if digits.len() != 2 * bytes.len() {
            return None;
        }
        let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = value(pair[0])? << 4 | value(pair[1])?;
        }
        Some(Self(bytes))
    }
}

struct Sealer {
    name: [u8; NAME_BYTES],
    key: RandomizedNonceKey,
}

/// Keys: the first one seals, all of them open.
///
/// A nonce is drawn for each ticket. GCM-SIV bears that two are alike, so a key may serve for as long as its file does.
pub struct Tickets {
    sealers: Vec<Sealer>,
    /// What a ticket holds for: it opens nowhere else.
    scope: Box<[u8]>,
    lifetime_seconds: u32,
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("keys", &self.sealers.len()).finish_non_exhaustive()
    }
}

impl Tickets {
    /// Tickets of these keys that say they live so long, for servers with the same `scope`.
    pub fn new(keys: &[TicketKey], scope: &[u8], lifetime_seconds: u32) -> Self {
        let sealer = |TicketKey(bytes): &TicketKey| {
            let (name, secret) = bytes.split_at(NAME_BYTES);
            let key =
                RandomizedNonceKey::new(&AES_256_GCM_SIV, secret).expect("the key is as long as its cipher wants");
            Sealer { name: name.try_into().expect("it was cut to this length"), key }
        };
        Self { sealers: keys.iter().map(sealer).collect(), scope: scope.into(), lifetime_seconds }
    }

    fn aad(&self, name: &[u8]) -> Aad<Vec<u8>> {
        Aad::from([name, &self.scope].concat())
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        !self.sealers.is_empty()
    }

    fn lifetime(&self) -> u32 {
        self.lifetime_seconds
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let Sealer { name, key } = self.sealers.first()?;
        let mut sealed = plain.to_vec();
        let nonce = key.seal_in_place_append_tag(self.aad(name), &mut sealed).ok()?;
        Some([name, &nonce.as_ref()[..], &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME_BYTES)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_BYTES)?;
        let Sealer { key, .. } = self.sealers.iter().find(|sealer| sealer.name == name)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut opened = sealed.to_vec();
        let bytes = key.open_in_place(nonce, self.aad(name), &mut opened).ok()?.len();
        opened.truncate(bytes);
        Some(opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> TicketKey {
        TicketKey([byte; TICKET_KEY_BYTES])
    }

    #[test]
    fn a_ticket_opens_where_its_key_is_and_nowhere_else() {
        let (old, both, new) = (
            Tickets::new(&[key(1)], b"here", 60),
            Tickets::new(&[key(2), key(1)], b"here", 60),
            Tickets::new(&[key(2)], b"here", 60),
        );
        let ticket = old.encrypt(b"state").expect("it has a key");
        assert_eq!(both.decrypt(&ticket).as_deref(), Some(&b"state"[..]), "an older key still opens");
        assert_eq!(new.decrypt(&ticket), None);
        let ticket = both.encrypt(b"state").expect("it has a key");
        assert_eq!((new.decrypt(&ticket).is_some(), old.decrypt(&ticket)), (true, None), "the first key seals");
        assert_eq!(Tickets::new(&[key(2)], b"there", 60).decrypt(&ticket), None, "another scope");
    }

    #[test]
    fn what_is_no_ticket_of_ours_does_not_open() {
        let tickets = Tickets::new(&[key(1)], b"", 60);
        let ticket = tickets.encrypt(b"state").expect("it has a key");
        for end in 0..ticket.len() {
            assert_eq!(tickets.decrypt(&ticket[..end]), None, "cut off after {end}");
        }
        for index in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[index] ^= 1;
            assert_eq!(tickets.decrypt(&changed), None, "changed at {index}");
        }
        assert!(!Tickets::new(&[], b"", 60).enabled());
    }

    #[test]
    fn a_key_in_a_file_is_so_many_hexadecimal_digits() {
        let text = "0f".repeat(TICKET_KEY_BYTES);
        assert_eq!(TicketKey::from_hex(&text), Some(key(15)));
        for wrong in [&text[1..], &format!("{text}0"), &text.replace('f', "g"), &text.replace("0f", "é")] {
            assert_eq!(TicketKey::from_hex(wrong), None, "{wrong}");
        }
    }
}
