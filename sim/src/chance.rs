//! Chance that comes out the same every time.

use bursar_model::{Span, id::split_mix};

/// A stream of draws that its seed decides. Whole numbers only, so that no machine's floats can differ.
#[derive(Debug, Clone)]
pub struct Chance {
    state: u64,
    is_calm: bool,
}

impl Chance {
    /// The stream of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: split_mix(seed), is_calm: false }
    }

    /// No chance at all: every draw is the middle of what it may be. For stories whose times and amounts people read,
    /// and which stay as they are when something else draws once more.
    #[must_use]
    pub fn calm() -> Self {
        Self { state: 0, is_calm: true }
    }

    /// A stream of its own for each purpose, so that one more draw for one does not shift the others.
    #[must_use]
    pub fn child(&self, purpose: u64) -> Self {
        Self { state: split_mix(self.state ^ split_mix(purpose)), is_calm: self.is_calm }
    }

    /// A number below `end`; 0 where there is none.
    pub fn below(&mut self, end: u64) -> u64 {
        if self.is_calm {
            return end / 2;
        }
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        // The bias of the remainder is below 2^-30 for the small ranges drawn here.
        split_mix(self.state) % end.max(1)
    }

    /// True so many times out of a thousand.
    pub fn per_mille(&mut self, rate: u32) -> bool {
        self.below(1000) < u64::from(rate)
    }

    /// A time from `least` up to and without `most`.
    pub fn span(&mut self, least: Span, most: Span) -> Span {
        let range = most.saturating_sub(least).as_millis();
        least + Span::from_millis(self.below(range as u64) as i64)
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len() as u64) as usize)
    }
}
