//! A seeded source of numbers whose whole state is one `u64`.
//!
//! The state goes into every checkpoint, so that a resumed attempt draws what the interrupted one would
//! have drawn. `rand` hides its state and changes its streams between versions; SplitMix64 is ten lines
//! and fixed for ever.

/// SplitMix64 (Steele, Lea, Flood 2014): good enough for shuffles and noise, not for secrets.
#[derive(Debug, Clone)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn from_state(state: u64) -> Self {
        Self(state)
    }

    /// A stream of its own for each (seed, purpose) pair, so that one more draw in one place does not shift
    /// the draws of another.
    pub(super) fn stream(seed: u64, purpose: u64) -> Self {
        let mut mixed = Self(seed);
        let offset = mixed.next_u64();
        Self(offset ^ Self(purpose).next_u64())
    }

    pub(super) fn state(&self) -> u64 {
        self.0
    }

    pub(super) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `-half_width .. half_width`. 24 bits fill the mantissa of an `f32` exactly.
    pub(super) fn symmetric(&mut self, half_width: f32) -> f32 {
        spread((self.next_u64() >> 40) as u32, half_width)
    }

    /// Two draws for the price of one; pixel noise is most of what the trainer draws.
    pub(super) fn symmetric_pair(&mut self, half_width: f32) -> [f32; 2] {
        let bits = self.next_u64();
        [spread((bits >> 40) as u32, half_width), spread((bits & 0xff_ffff) as u32, half_width)]
    }

    /// Fisher-Yates. The modulo bias is below 2^-50 for lists of our length.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            let pick = (self.next_u64() % (end as u64 + 1)) as usize;
            items.swap(end, pick);
        }
    }
}

fn spread(bits_24: u32, half_width: f32) -> f32 {
    const SCALE: f32 = 2.0 / (1 << 24) as f32;
    (bits_24 as f32 * SCALE - 1.0) * half_width
}
