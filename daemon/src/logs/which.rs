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

/// Why there is no such log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSuchLog {
    /// No attempt can be meant.
    #[error("attempt: write a number or `all`")]
    Malformed,
    /// There is no such attempt.
    #[error("{of} has no attempt {number}: {known}")]
    Attempt {
        /// The experiment.
        of: String,
        /// What was asked for.
        number: u32,
        /// Which there are.
        known: String,
    },
    /// There is no such node.
    #[error("{of} has no node {node}: its nodes are {known}")]
    Node {
        /// The experiment.
        of: String,
        /// What was asked for.
        node: u32,
        /// Which there are.
        known: String,
    },
}

impl Which {
    /// What `--attempt` means: a number, `all`, or nothing for the newest. Whoever follows may name the attempt that comes
    /// next.
    ///
    /// # Errors
    /// When it means nothing, or there is no such attempt or node.
    pub fn find(
        written: Option<&str>,
        node: u32,
        follows: bool,
        detail: &ExperimentDetail,
    ) -> Result<Self, NoSuchLog> {
        let ExperimentDetail { experiment, spec, attempts, .. } = detail;
        if node >= spec.num_nodes {
            let last = spec.num_nodes.saturating_sub(1);
            let known = if last == 0 { "0 alone".to_owned() } else { format!("0 to {last}") };
            return Err(NoSuchLog::Node { of: experiment.name.clone(), node, known });
        }
        let newest = attempts.last().map(|newest| newest.number);
        let number = match written {
            None => return Ok(Self::From(newest.unwrap_or(1))),
            Some("all") => return Ok(Self::All),
            Some(number) => number.parse().map_err(|_| NoSuchLog::Malformed)?,
        };
        let is_next = follows && experiment.ended_at.is_none() && number == newest.unwrap_or(0) + 1;
        if is_next || attempts.iter().any(|attempt| attempt.number == number) {
            return Ok(Self::One(number));
        }
        let known = match newest {
            None => "none has begun".to_owned(),
            Some(1) => "there is but the first".to_owned(),
            Some(newest) => format!("there are 1 to {newest}"),
        };
        Err(NoSuchLog::Attempt { of: experiment.name.clone(), number, known })
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
