//! Schedules: when a budget's window begins, when a report is sent.
//!
//! A schedule is a crontab expression read against the wall clock of a time zone. It fires at the first moment at which
//! that wall clock shows a time of the expression or has passed it. So it fires once where clocks go back and show a time
//! twice, and where clocks go forward over a time, it fires at the first moment after the gap instead of never; times that
//! share that moment share one firing. A daily schedule therefore fires once on every day that the zone's calendar has.
//!
//! The `cron` crate knows the calendar; zones are ours. The crate is asked about wall clock times only (dressed as UTC,
//! where no time is missing and none comes twice), because in a zone it drops times in a gap and fires twice in a fold.

mod crontab;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use chrono::{DateTime, Duration, MappedLocalTime, NaiveDateTime, TimeZone, Utc};
use chrono_tz::{GapInfo, TZ_VARIANTS, Tz};

use crate::time::{Period, Timestamp};

/// Clocks go back by a few hours at most, so a day's minutes are more than any run of times that were already shown.
const TIMES_SHOWN_AGAIN_MAX: usize = 24 * 60;

/// When something recurs, by the wall clock of a time zone. Cheap to copy; equal where it was written alike.
///
/// The calendar reaches from 1970 to 2100: nothing fires outside.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Schedule(Arc<Parsed>);

/// A text that is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSchedule {
    /// Neither a word nor five fields.
    #[error(
        "`{0}` is no schedule: write hour, day, week, month, quarter, year, @hourly, @daily, @weekly, @monthly, @yearly \
         or the five fields of a crontab (minute, hour, day of month, month, weekday) such as `0 0 1 * *`"
    )]
    Unreadable(String),
    /// Six or seven fields: which field is which depends on the program that they were written for.
    #[error("`{0}` has seconds or years: write five fields (minute, hour, day of month, month, weekday)")]
    TooManyFields(String),
    /// A part of a field that is wrong.
    #[error(
        "`{part}` is wrong in the field for the {field}: write `*`, a value ({values}), an ascending range such as 1-5, \
         either with a step such as */2, or a list of these"
    )]
    Field {
        /// What is wrong.
        part: String,
        /// The field's name.
        field: &'static str,
        /// What it takes.
        values: &'static str,
    },
    /// A date that no year has.
    #[error("`{0}` never comes: no month of it has such a day")]
    NeverFires(String),
    /// A name that the time zone database does not have.
    #[error("`{zone}` is no time zone such as UTC or Europe/Berlin{}", did_you_mean(*.nearest))]
    UnknownZone {
        /// What was written.
        zone: String,
        /// The zone that was probably meant.
        nearest: Option<&'static str>,
    },
}

impl Schedule {
    /// Reads a schedule in the time zone of this IANA name; UTC where none is named.
    ///
    /// The text is a word or five crontab fields as in `crontab(5)`: minute, hour, day of month, month, weekday (0 and 7
    /// are Sunday). Where neither day of month nor weekday begins with `*`, a day matches that matches either. The words
    /// `hour`, `day`, `week` (Monday), `month`, `quarter` and `year` are the starts of these; `@hourly`, `@daily`,
    /// `@weekly` (Sunday), `@monthly` and `@yearly` mean what they mean in a crontab.
    ///
    /// # Errors
    /// Where the text or the zone cannot be read, and where the schedule would never fire.
    pub fn parse(text: &str, zone: Option<&str>) -> Result<Self, InvalidSchedule> {
        let zone = zone.map_or(Ok(Tz::UTC), parse_zone)?;
        let cron = crontab::parse(text)?;
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let schedule = Self(Arc::new(Parsed { text, zone, cron }));
        match schedule.next_after(Timestamp::from_millis(0)) {
            Some(_) => Ok(schedule),
            None => Err(InvalidSchedule::NeverFires(shortened(&schedule.0.text))),
        }
    }

    /// The first firing strictly after `t`.
    #[must_use]
    pub fn next_after(&self, t: Timestamp) -> Option<Timestamp> {
        let wall = self.wall_clock(t).and_utc();
        let first = |cron: &cron::Schedule| {
            cron.after(&wall)
                .take(TIMES_SHOWN_AGAIN_MAX)
                .find_map(|time| self.moment(time).filter(|m| *m > t))
        };
        self.0.cron.iter().filter_map(first).min()
    }

    /// The last firing at or before `t`.
    #[must_use]
    pub fn last_at_or_before(&self, t: Timestamp) -> Option<Timestamp> {
        let wall = self.wall_clock(t);
        // Where the clock shows this time for the second time, later times were shown before `t` as well.
        let shown_before = match self.0.zone.from_local_datetime(&wall) {
            MappedLocalTime::Ambiguous(first, second) => second - first,
            MappedLocalTime::Single(_) | MappedLocalTime::None => Duration::zero(),
        };
        // The crate looks strictly before the time that it is given.
        let end = (wall + shown_before + Duration::milliseconds(1)).and_utc();
        let last = |cron: &cron::Schedule| {
            let times = cron.after(&end).rev().take(TIMES_SHOWN_AGAIN_MAX);
            times.filter_map(|time| self.moment(time)).find(|moment| *moment <= t)
        };
        self.0.cron.iter().filter_map(last).max()
    }

    /// The window around `t`: from the last firing until the next. Windows follow each other without gap or overlap; the
    /// one before the first firing of the calendar has no beginning and the one after the last has no end.
    #[must_use]
    pub fn window_at(&self, t: Timestamp) -> Period {
        Period {
            from: self.last_at_or_before(t).unwrap_or(Timestamp::from_millis(i64::MIN)),
            to: self.next_after(t).unwrap_or(Timestamp::from_millis(i64::MAX)),
        }
    }

    /// What the zone's clock shows at a moment.
    fn wall_clock(&self, t: Timestamp) -> NaiveDateTime {
        // A year on either side of the calendar, so that no zone's offset leads into it.
        const CALENDAR: (i64, i64) = (-31_536_000_000, 4_165_516_800_000);
        let within = t.as_millis().clamp(CALENDAR.0, CALENDAR.1);
        let utc = DateTime::<Utc>::from_timestamp_millis(within).expect("these years are in range");
        utc.with_timezone(&self.0.zone).naive_local()
    }

    /// The first moment at which the zone's clock shows this time or has passed it.
    fn moment(&self, wall: DateTime<Utc>) -> Option<Timestamp> {
        let wall = wall.naive_utc();
        let zone = self.0.zone;
        let shown = zone.from_local_datetime(&wall).earliest();
        let moment = shown.or_else(|| GapInfo::new(&wall, &zone)?.end)?;
        Some(Timestamp::from_millis(moment.timestamp_millis()))
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || (self.0.zone == other.0.zone && self.0.text == other.0.text)
    }
}

impl Eq for Schedule {}

/// As it was written, with the zone where it is not UTC: `0 0 1 * * (Europe/Berlin)`.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parsed { text, zone, cron: _ } = &*self.0;
        f.write_str(text)?;
        if *zone != Tz::UTC {
            write!(f, " ({zone})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

struct Parsed {
    text: String,
    zone: Tz,
    /// It fires where one of these does: two where day of month and weekday are alternatives.
    cron: Vec<cron::Schedule>,
}

/// As it is stored: what a person wrote, read anew.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    cron: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
}

impl From<Schedule> for Written {
    fn from(schedule: Schedule) -> Self {
        let Parsed { text, zone, cron: _ } = &*schedule.0;
        Self { cron: text.clone(), zone: (*zone != Tz::UTC).then(|| zone.name().to_owned()) }
    }
}

impl TryFrom<Written> for Schedule {
    type Error = InvalidSchedule;
    fn try_from(Written { cron, zone }: Written) -> Result<Self, InvalidSchedule> {
        Self::parse(&cron, zone.as_deref())
    }
}

fn parse_zone(name: &str) -> Result<Tz, InvalidSchedule> {
    name.trim().parse().map_err(|_| InvalidSchedule::UnknownZone {
        zone: shortened(name),
        nearest: nearest_zone(name.trim()),
    })
}

/// The zone that was probably meant: by its whole name or its city alone, a third of the letters off at most.
fn nearest_zone(written: &str) -> Option<&'static str> {
    // Comparing takes time in proportion to the length, and the longest zone has 32 letters.
    const NAME_LEN_MAX: usize = 64;
    if written.len() > NAME_LEN_MAX {
        return None;
    }
    let written = written.to_lowercase().replace(' ', "_");
    TZ_VARIANTS
        .iter()
        .map(|zone| {
            let name = zone.name().to_lowercase();
            let city = name.rsplit('/').next().unwrap_or(&name);
            let off = |name: &str| strsim::damerau_levenshtein(&written, name);
            (off(&name).min(off(city)), zone.name())
        })
        // Less than a third, so that an abbreviation such as PST is not taken for EST: a wild guess misleads.
        .filter(|(distance, _)| distance * 3 < written.chars().count())
        .min()
        .map(|(_, name)| name)
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|name| format!(": did you mean {name}?")).unwrap_or_default()
}

/// What is shown of a text that is wrong.
fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}
