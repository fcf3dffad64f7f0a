//! A running hash of all that was asked and all that was answered: two runs of one seed must end with the same one.

/// What kind of thing is noted; the numbers only have to differ.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
pub(super) enum Note {
    Op = 1,
    Completion,
    Poll,
    Peer,
    Advance,
    Arrival,
    Crash,
}

/// The hash so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Trace(u64);

impl Trace {
    /// Adds numbers.
    pub fn note(&mut self, note: Note, values: &[u64]) {
        self.mix(note as u64);
        for &value in values {
            self.mix(value);
        }
    }

    /// Adds bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.mix(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    /// The hash.
    pub fn hash(&self) -> u64 {
        self.0
    }

    fn mix(&mut self, value: u64) {
        let mut z = (self.0 ^ value).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        self.0 = z ^ (z >> 29);
    }
}
