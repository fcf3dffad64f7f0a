//! The simulation's one source of chance: xoshiro256++ seeded by splitmix64, so that a seed means the same for ever
//! and on every machine.

/// A chance, in ten-thousandths. Zero never happens, 10,000 always does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Chance(pub u16);

impl Chance {
    /// Never.
    pub const NEVER: Self = Self(0);
    /// Always.
    pub const ALWAYS: Self = Self(10_000);
    /// `percent` of the time.
    pub const fn percent(percent: u16) -> Self {
        Self(percent * 100)
    }
}

/// A deterministic generator.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    /// The generator of that seed.
    pub fn new(seed: u64) -> Self {
        let mut x = seed;
        let mut splitmix = || {
            x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = x;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        Self { state: [splitmix(), splitmix(), splitmix(), splitmix()] }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        let s = &mut self.state;
        let out = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        out
    }

    /// A number below `bound`, which is not 0. The bias of the multiplication is below 2⁻³² for the bounds used here.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing is below zero");
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `low..=high`.
    pub fn within(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "an empty range has no members");
        low + self.below((high - low).saturating_add(1))
    }

    /// A length in `1..=high`: often 1, often all, else between, because the ends are where the bugs are.
    pub fn part_of(&mut self, high: usize) -> usize {
        match self.below(3) {
            0 => 1,
            1 => high.div_ceil(2),
            _ => self.within(1, high as u64) as usize,
        }
    }

    /// Whether it happens this time. A chance of zero draws nothing, so that switching a fault off leaves others be.
    pub fn happens(&mut self, chance: Chance) -> bool {
        chance.0 > 0 && self.below(10_000) < u64::from(chance.0)
    }
}
