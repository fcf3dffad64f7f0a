//! Huffman's code for header strings (RFC 7541 §5.2, Appendix B). It is canonical: shorter codes first, and of one length in
//! the order of their symbols. So the lengths say it all.

/// Bits of each symbol's code; the last one is the end of a string.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];
/// Bits of the longest code.
const LENGTH_MAX: usize = 30;
/// What comes after the last byte.
const END: u16 = 256;

/// Codes by their length.
struct Codes {
    /// Of each length the first code.
    first: [u32; LENGTH_MAX + 1],
    /// How many there are.
    count: [u16; LENGTH_MAX + 1],
    /// Where its symbols begin in `symbols`.
    start: [u16; LENGTH_MAX + 1],
    /// By length, then by value.
    symbols: [u16; LENGTHS.len()],
}

const CODES: Codes = Codes::new();

impl Codes {
    const fn new() -> Self {
        let mut codes = Self {
            first: [0; LENGTH_MAX + 1],
            count: [0; LENGTH_MAX + 1],
            start: [0; LENGTH_MAX + 1],
            symbols: [0; LENGTHS.len()],
        };
        let (mut length, mut next, mut code) = (1, 0, 0);
        while length <= LENGTH_MAX {
            (codes.first[length], codes.start[length]) = (code, next);
            let mut symbol = 0;
            while symbol <= END {
                if LENGTHS[symbol as usize] as usize == length {
                    codes.symbols[next as usize] = symbol;
                    next += 1;
                    code += 1;
                }
                symbol += 1;
            }
            codes.count[length] = next - codes.start[length];
            code <<= 1;
            length += 1;
        }
        codes
    }

    /// The symbol of a code of this length, if it is one.
    fn symbol(&self, code: u32, length: usize) -> Option<u16> {
        let place = code.checked_sub(self.first[length])?;
        let place = u16::try_from(place).ok().filter(|&place| place < self.count[length])?;
        Some(self.symbols[usize::from(self.start[length] + place)])
    }
}

/// Appends what these bytes stand for; false: they are not a string in this code.
pub(super) fn decode(bytes: &[u8], into: &mut Vec<u8>) -> bool {
    let (mut code, mut length) = (0, 0);
    for bit in bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)) {
        (code, length) = (code << 1 | u32::from(bit), length + 1);
        match CODES.symbol(code, length) {
            None if length == LENGTH_MAX => return false,
            None => {}
            Some(symbol) => match u8::try_from(symbol) {
                Ok(byte) => {
                    into.push(byte);
                    (code, length) = (0, 0);
                }
                Err(_) => return false,
            },
        }
    }
    // The rest of the last byte are the first bits of the end's code, which are ones.
    length < 8 && code == (1 << length) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of each symbol its code and how many bits that has.
    fn code_of(symbol: u16) -> (u32, usize) {
        let length = usize::from(LENGTHS[usize::from(symbol)]);
        let (start, count) = (usize::from(CODES.start[length]), usize::from(CODES.count[length]));
        let place = CODES.symbols[start..start + count].iter().position(|&other| other == symbol).expect("it is there");
        (CODES.first[length] + u32::try_from(place).expect("small"), length)
    }

    fn encode(bytes: &[u8]) -> Vec<u8> {
        let mut bits = String::new();
        for &byte in bytes {
            let (code, length) = code_of(u16::from(byte));
            bits += &format!("{code:0length$b}");
        }
        bits += &"1".repeat(bits.len().next_multiple_of(8) - bits.len());
        bits.as_bytes().chunks(8).map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | (bit - b'0'))).collect()
    }

    fn decoded(bytes: &[u8]) -> Option<Vec<u8>> {
        let mut into = Vec::new();
        decode(bytes, &mut into).then_some(into)
    }

    #[test]
    fn codes_are_those_of_the_appendix() {
        assert_eq!(code_of(u16::from(b'0')), (0, 5));
        assert_eq!(code_of(u16::from(b'a')), (3, 5));
        assert_eq!(code_of(u16::from(b' ')), (0x14, 6));
        assert_eq!(code_of(0), (0x1ff8, 13));
        assert_eq!(code_of(u16::from(b'\\')), (0x7fff0, 19));
        assert_eq!(code_of(10), (0x3fff_fffc, 30));
        assert_eq!(code_of(END), (0x3fff_ffff, 30));
    }

    #[test]
    fn strings_of_the_examples_are_read() {
        let name = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decoded(&name).as_deref(), Some(&b"www.example.com"[..]));
        assert_eq!(decoded(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]).as_deref(), Some(&b"no-cache"[..]));
    }

    #[test]
    fn all_bytes_come_back() {
        let all: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
        for length in 0..all.len() {
            assert_eq!(decoded(&encode(&all[..length])).as_deref(), Some(&all[..length]));
        }
    }

    #[test]
    fn what_is_left_of_the_last_byte_must_be_ones_and_less_than_a_byte() {
        assert_eq!(decoded(&[0x1f]).as_deref(), Some(&b"a"[..]), "three ones behind it");
        assert_eq!(decoded(&[0x1e]), None, "they are not ones");
        assert_eq!(decoded(&[0x1f, 0xff]), None, "a whole byte of them");
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xff]), None, "the end itself");
    }
}
