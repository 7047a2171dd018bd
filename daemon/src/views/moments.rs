//! Moments as people write them: `2026-11-01`, `7d`, `last-month`. All days are UTC, as those of reports are.

use bursar_model::{Schedule, Span, Timestamp};

use super::budgets::day_of;

/// A text that names no moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no time: write 2026-11-22T18:00:00Z, a day such as 2026-11-22, so long ago such as 12h or 7d (whole days \
     reach back to the beginning of the day), or the beginning of today, yesterday, week, last-week, month, last-month, \
     quarter, last-quarter, year or last-year"
)]
pub(crate) struct InvalidMoment(String);

/// The moment that a text names at this time.
///
/// A word is the beginning of what it names, so that `since last-month until month` is the whole of last month.
pub(crate) fn moment(text: &str, now: Timestamp) -> Result<Timestamp, InvalidMoment> {
    let text = text.trim();
    let invalid = || InvalidMoment(text.chars().take(40).collect());
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    if let Ok(midnight) = format!("{text}T00:00:00Z").parse::<Timestamp>() {
        return Ok(midnight);
    }
    if let Ok(ago) = text.parse::<Span>() {
        const DAY: Span = Span::from_hours(24);
        let at = now - ago;
        return Ok(if ago.as_millis() % DAY.as_millis() == 0 { day_of(at) } else { at });
    }
    let (unit, back) = match text {
        "today" => ("day", false),
        "yesterday" => ("day", true),
        _ => text.strip_prefix("last-").map_or((text, false), |unit| (unit, true)),
    };
    if !["day", "week", "month", "quarter", "year"].contains(&unit) {
        return Err(invalid());
    }
    let calendar = Schedule::parse(unit, None).map_err(|_| invalid())?;
    let begins = calendar.window_at(now).from;
    Ok(if back { calendar.window_at(begins - Span::from_millis(1)).from } else { begins })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_moment_is_a_date_so_long_ago_or_the_beginning_of_what_is_named() {
        // A Sunday.
        let now = at("2026-11-22T15:42:10Z");
        for (text, meant) in [
            ("2026-11-01T08:30:00Z", "2026-11-01T08:30:00Z"),
            ("2026-11-01", "2026-11-01T00:00:00Z"),
            ("12h", "2026-11-22T03:42:10Z"),
            ("7d", "2026-11-15T00:00:00Z"),
            ("36h", "2026-11-21T03:42:10Z"),
            ("today", "2026-11-22T00:00:00Z"),
            ("yesterday", "2026-11-21T00:00:00Z"),
            ("week", "2026-11-16T00:00:00Z"),
            ("last-week", "2026-11-09T00:00:00Z"),
            ("month", "2026-11-01T00:00:00Z"),
            ("last-month", "2026-10-01T00:00:00Z"),
            ("last-quarter", "2026-07-01T00:00:00Z"),
            ("last-year", "2025-01-01T00:00:00Z"),
        ] {
            assert_eq!(moment(text, now), Ok(at(meant)), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_answered_with_what_is() {
        let now = at("2026-11-22T15:42:10Z");
        for text in ["", "soon", "2026-13-01", "last-decade", "* * * * *", "@daily", "-7d"] {
            let error = moment(text, now).unwrap_err().to_string();
            assert!(error.contains("2026-11-22") && error.contains("last-month"), "{text}: {error}");
        }
    }
}
