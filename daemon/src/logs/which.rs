//! Of which attempts a log is read.

use crate::views::{AttemptView, ExperimentDetail};

/// Which attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one of this number.
    One(u32),
    /// Those from this number on: the newest when it was asked, and those that come after it.
    From(u32),
    /// All, one after another.
    All,
}

impl Which {
    /// What `--attempt` means: a number, `all`, or nothing for the newest. `None` where it means nothing.
    #[must_use]
    pub fn parse(written: Option<&str>, detail: &ExperimentDetail) -> Option<Self> {
        match written {
            None => Some(Self::From(detail.attempts.last().map_or(1, |newest| newest.number))),
            Some("all") => Some(Self::All),
            Some(number) => number.parse().ok().map(Self::One),
        }
    }

    /// Whether the attempt of this number may be read after that one.
    #[must_use]
    pub fn follows(self, before: Option<u32>, number: u32) -> bool {
        let is_meant = match self {
            Self::One(one) => number == one,
            Self::From(first) => number >= first,
            Self::All => true,
        };
        is_meant && before.is_none_or(|before| number > before)
    }

    /// Whether no other attempt is read after one.
    #[must_use]
    pub fn is_one(self) -> bool {
        matches!(self, Self::One(_))
    }

    /// The line that stands before an attempt's log where those of several are read.
    #[must_use]
    pub fn heading(
        self,
        attempt: &AttemptView,
        node: u32,
        attempts: usize,
        is_later: bool,
    ) -> Option<String> {
        let needed = is_later || (self == Self::All && attempts > 1);
        let place = attempt.nodes.get(node as usize).and_then(|node| node.offering.as_deref());
        let on = place.unwrap_or("unknown");
        needed.then(|| format!("==> attempt {} on {on} <==\n", attempt.number))
    }
}
