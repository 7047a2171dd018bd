use std::collections::BTreeSet;

use chrono::{Datelike, Days, NaiveDate, Timelike};
use proptest::prelude::*;

use super::*;

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

/// Zones with clocks that change by an hour (on either half of the globe), by half an hour, that stopped changing, that
/// are off by half an hour, and that never change.
const ZONES: [&str; 6] =
    ["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia", "UTC"];

fn schedule(text: &str, zone: &str) -> Schedule {
    Schedule::parse(text, Some(zone)).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The first firings after a moment.
fn firings(schedule: &Schedule, after: &str, count: usize) -> Vec<String> {
    std::iter::successors(schedule.next_after(at(after)), |t| schedule.next_after(*t))
        .take(count)
        .map(|t| t.to_string().replace(":00.000Z", "Z"))
        .collect()
}

fn refusal(text: &str, zone: Option<&str>) -> String {
    Schedule::parse(text, zone).expect_err(text).to_string()
}

#[test]
fn words_are_the_starts_of_what_they_name() {
    // 2026-11-22 is a Sunday.
    for (word, next) in [
        ("hour", "2026-11-22T16:00Z"),
        ("day", "2026-11-23T00:00Z"),
        ("week", "2026-11-23T00:00Z"),
        ("month", "2026-12-01T00:00Z"),
        ("quarter", "2027-01-01T00:00Z"),
        ("year", "2027-01-01T00:00Z"),
        ("@hourly", "2026-11-22T16:00Z"),
        ("@daily", "2026-11-23T00:00Z"),
        ("@weekly", "2026-11-29T00:00Z"),
        ("@monthly", "2026-12-01T00:00Z"),
        ("@Yearly", "2027-01-01T00:00Z"),
    ] {
        let schedule = Schedule::parse(word, None).unwrap();
        assert_eq!(firings(&schedule, "2026-11-22T15:42:34.567Z", 1), [next], "{word}");
    }
}

#[test]
fn fields_mean_what_they_mean_in_a_crontab() {
    for (text, fires) in [
        ("30 9 * * 1-5", ["2026-11-23T09:30Z", "2026-11-24T09:30Z", "2026-11-25T09:30Z"]),
        ("0 0 * * 5-7", ["2026-11-27T00:00Z", "2026-11-28T00:00Z", "2026-11-29T00:00Z"]),
        ("0 0 * * fri-SUN", ["2026-11-27T00:00Z", "2026-11-28T00:00Z", "2026-11-29T00:00Z"]),
        ("0 0 * * 0,6", ["2026-11-28T00:00Z", "2026-11-29T00:00Z", "2026-12-05T00:00Z"]),
        ("0 0 * * */2", ["2026-11-24T00:00Z", "2026-11-26T00:00Z", "2026-11-28T00:00Z"]),
        ("0 0 * * 1-5/2", ["2026-11-23T00:00Z", "2026-11-25T00:00Z", "2026-11-27T00:00Z"]),
        ("*/25 18 * * *", ["2026-11-22T18:00Z", "2026-11-22T18:25Z", "2026-11-22T18:50Z"]),
        ("0 0 1 jan,jul *", ["2027-01-01T00:00Z", "2027-07-01T00:00Z", "2028-01-01T00:00Z"]),
        ("0 0 29 2 *", ["2028-02-29T00:00Z", "2032-02-29T00:00Z", "2036-02-29T00:00Z"]),
        // Either day will do where both are restricted: Mondays, and the first of December, a Tuesday.
        ("0 0 1 * 1", ["2026-11-23T00:00Z", "2026-11-30T00:00Z", "2026-12-01T00:00Z"]),
        // A field that begins with a star restricts nothing, so both must match: an odd day that is a Monday.
        ("0 0 */2 * 1", ["2026-11-23T00:00Z", "2026-12-07T00:00Z", "2026-12-21T00:00Z"]),
    ] {
        let schedule = Schedule::parse(text, None).unwrap();
        assert_eq!(firings(&schedule, "2026-11-22T15:42:34Z", 3), fires, "{text}");
    }
}

#[test]
fn clocks_that_change_neither_lose_nor_double_a_firing() {
    for (text, zone, after, fires) in [
        // Clocks go forward from 02:00 to 03:00, which is 01:00 UTC.
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-03-28T12:00:00Z",
            ["2026-03-29T01:00Z", "2026-03-30T00:30Z", "2026-03-31T00:30Z"],
        ),
        // All that falls into the gap fires once, together with what is due at its end.
        (
            "*/30 2-3 * * *",
            "Europe/Berlin",
            "2026-03-29T00:00:00Z",
            ["2026-03-29T01:00Z", "2026-03-29T01:30Z", "2026-03-30T00:00Z"],
        ),
        // Clocks go back from 03:00 to 02:00, which is 01:00 UTC.
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-10-24T12:00:00Z",
            ["2026-10-25T00:30Z", "2026-10-26T01:30Z", "2026-10-27T01:30Z"],
        ),
        // The hour that is shown twice counts once.
        (
            "hour",
            "America/New_York",
            "2026-11-01T04:30:00Z",
            ["2026-11-01T05:00Z", "2026-11-01T07:00Z", "2026-11-01T08:00Z"],
        ),
        (
            "30 2 * * *",
            "America/New_York",
            "2026-03-07T12:00:00Z",
            ["2026-03-08T07:00Z", "2026-03-09T06:30Z", "2026-03-10T06:30Z"],
        ),
        // Half an hour is left out: 02:00 becomes 02:30 at 15:30 UTC.
        (
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2026-10-02T18:00:00Z",
            ["2026-10-03T15:30Z", "2026-10-04T15:15Z", "2026-10-05T15:15Z"],
        ),
        // Half an hour comes twice: 02:00 becomes 01:30 at 15:00 UTC.
        (
            "45 1 * * *",
            "Australia/Lord_Howe",
            "2026-04-03T15:30:00Z",
            ["2026-04-04T14:45Z", "2026-04-05T15:15Z", "2026-04-06T15:15Z"],
        ),
        // Samoa had no 30th of December 2011.
        (
            "day",
            "Pacific/Apia",
            "2011-12-28T12:00:00Z",
            ["2011-12-29T10:00Z", "2011-12-30T10:00Z", "2011-12-31T10:00Z"],
        ),
        // Midnight is left out: the day begins at 01:00.
        (
            "day",
            "America/Havana",
            "2026-03-07T12:00:00Z",
            ["2026-03-08T05:00Z", "2026-03-09T04:00Z", "2026-03-10T04:00Z"],
        ),
    ] {
        assert_eq!(firings(&schedule(text, zone), after, 3), fires, "{text} in {zone}");
    }
}

#[test]
fn a_window_within_a_repeated_hour_goes_back_to_its_first_showing() {
    // In Berlin, 02:00 to 03:00 is shown from 00:00 to 01:00 UTC and again until 02:00.
    for (text, from, to, inside) in [
        ("hour", "2026-10-25T00:00:00Z", "2026-10-25T02:00:00Z", "2026-10-25T00:00:00Z"),
        ("hour", "2026-10-25T00:00:00Z", "2026-10-25T02:00:00Z", "2026-10-25T01:00:00Z"),
        ("hour", "2026-10-25T00:00:00Z", "2026-10-25T02:00:00Z", "2026-10-25T01:59:59.999Z"),
        ("45 2 * * *", "2026-10-24T00:45:00Z", "2026-10-25T00:45:00Z", "2026-10-25T00:44:59.999Z"),
        ("45 2 * * *", "2026-10-25T00:45:00Z", "2026-10-26T01:45:00Z", "2026-10-25T00:50:00Z"),
        ("45 2 * * *", "2026-10-25T00:45:00Z", "2026-10-26T01:45:00Z", "2026-10-25T01:10:00Z"),
    ] {
        let window = Period { from: at(from), to: at(to) };
        assert_eq!(schedule(text, "Europe/Berlin").window_at(at(inside)), window, "{text} at {inside}");
    }
}

#[test]
fn windows_at_the_ends_of_the_calendar_are_open() {
    let year = schedule("year", "Asia/Kolkata");
    let (first, last) = (at("1969-12-31T18:30:00Z"), at("2099-12-31T18:30:00Z"));
    assert_eq!(year.next_after(Timestamp::from_millis(i64::MIN)), Some(first));
    assert_eq!(year.last_at_or_before(Timestamp::from_millis(i64::MAX)), Some(last));
    assert_eq!(year.next_after(last), None);
    assert_eq!(year.last_at_or_before(first - crate::Span::from_millis(1)), None);
    assert_eq!(year.window_at(last), Period { from: last, to: Timestamp::from_millis(i64::MAX) });
}

#[test]
fn what_never_comes_is_refused() {
    for text in ["0 0 30 2 *", "0 0 31 2,4,6 *"] {
        assert_eq!(
            Schedule::parse(text, None),
            Err(InvalidSchedule::NeverFires(text.to_owned())),
            "no month of it has that day"
        );
    }
    // Mondays in February come though the 30th does not.
    assert!(Schedule::parse("0 0 30 2 1", None).is_ok());
}

#[test]
fn what_is_wrong_is_named() {
    assert!(refusal("0 0 9 * * *", None).contains("has seconds or years"));
    assert!(refusal("0 0 9 * * * 2026", None).contains("has seconds or years"));
    for text in ["", "monthly", "0 0 1 *", "1 2 3 4 5 6 7 8"] {
        assert!(refusal(text, None).contains("is no schedule"), "{text}");
    }
    for (text, part, field) in [
        ("61 * * * *", "61", "minute"),
        ("0 24 * * *", "24", "hour"),
        ("0 0 0 * *", "0", "day of month"),
        ("0 0 ? * 1", "?", "day of month"),
        ("0 0 L * *", "L", "day of month"),
        ("0 0 1 13 *", "13", "month"),
        ("0 0 * * 8", "8", "weekday"),
        ("0 0 * * monday", "monday", "weekday"),
        ("0 0 * * sat-mon", "sat-mon", "weekday"),
        ("0 9-17,23-4 * * *", "23-4", "hour"),
        ("5/15 * * * *", "5/15", "minute"),
        ("*/0 * * * *", "*/0", "minute"),
        ("1,,2 * * * *", "", "minute"),
        ("+1 * * * *", "+1", "minute"),
        ("-1 * * * *", "-1", "minute"),
        ("1-2-3 * * * *", "1-2-3", "minute"),
        ("99999999999 * * * *", "99999999999", "minute"),
    ] {
        let found = refusal(text, None);
        assert!(found.starts_with(&format!("`{part}` is wrong in the field for the {field}")), "{found}");
    }
}

#[test]
fn an_unknown_zone_is_answered_with_the_nearest() {
    for (zone, nearest) in [
        ("Europe/Berln", Some("Europe/Berlin")),
        ("europe/berlin", Some("Europe/Berlin")),
        ("Berlin", Some("Europe/Berlin")),
        ("new york", Some("America/New_York")),
        ("PST", None),
        ("Mars/Olympus_Mons", None),
        ("", None),
    ] {
        let expected = InvalidSchedule::UnknownZone { zone: zone.to_owned(), nearest };
        assert_eq!(Schedule::parse("day", Some(zone)), Err(expected), "{zone}");
    }
    assert!(
        refusal("day", Some("Berlin")).ends_with("such as UTC or Europe/Berlin: did you mean Europe/Berlin?")
    );
}

#[test]
fn it_shows_and_stores_what_was_written() {
    let monthly = schedule(" 0 0  1 * * ", "Europe/Berlin");
    assert_eq!(monthly.to_string(), "0 0 1 * * (Europe/Berlin)");
    assert_eq!(schedule("month", "UTC").to_string(), "month");

    let stored = serde_json::to_string(&monthly).unwrap();
    assert_eq!(stored, r#"{"cron":"0 0 1 * *","zone":"Europe/Berlin"}"#);
    assert_eq!(serde_json::from_str::<Schedule>(&stored).unwrap(), monthly);
    assert_eq!(serde_json::from_str::<Schedule>(r#"{"cron":"month"}"#).unwrap(), schedule("month", "UTC"));
    assert!(serde_json::from_str::<Schedule>(r#"{"cron":"0 0 30 2 *"}"#).is_err());
    assert_ne!(monthly, schedule("0 0 1 * *", "UTC"));
}

/// A field of the reference: its text and the values that it has.
type Field = (String, BTreeSet<u32>);

/// A list of up to three values, ranges and steps.
fn field(min: u32, max: u32) -> impl Strategy<Value = Field> {
    let part = (min..=max, min..=max, 1..=4_u32, 0..4_u8).prop_map(move |(a, b, step, kind)| {
        let (first, last) = (a.min(b), a.max(b));
        match kind {
            0 => (format!("{first}-{last}"), (first..=last).collect()),
            1 => (format!("{first}-{last}/{step}"), (first..=last).step_by(step as usize).collect()),
            _ => (first.to_string(), BTreeSet::from([first])),
        }
    });
    prop::collection::vec(part, 1..=3).prop_map(|parts: Vec<Field>| {
        let (texts, values): (Vec<String>, Vec<BTreeSet<u32>>) = parts.into_iter().unzip();
        (texts.join(","), values.into_iter().flatten().collect())
    })
}

fn field_or_star(min: u32, max: u32) -> impl Strategy<Value = Field> {
    let star = (1..=4_u32).prop_map(move |step| {
        let text = if step == 1 { "*".to_owned() } else { format!("*/{step}") };
        (text, (min..=max).step_by(step as usize).collect())
    });
    prop_oneof![field(min, max), star]
}

/// Minute, hour, day of month and weekday; any month.
fn crontab() -> impl Strategy<Value = [Field; 4]> {
    [
        field(0, 59).boxed(),
        field_or_star(0, 23).boxed(),
        field_or_star(1, 31).boxed(),
        field_or_star(0, 7).boxed(),
    ]
}

fn text_of([minute, hour, day, weekday]: &[Field; 4]) -> String {
    format!("{} {} {} * {}", minute.0, hour.0, day.0, weekday.0)
}

/// Whether a crontab fires at this time, by the words of `crontab(5)`.
fn matches([minute, hour, day, weekday]: &[Field; 4], time: NaiveDateTime) -> bool {
    let number = time.weekday().num_days_from_sunday();
    let on_weekday = weekday.1.contains(&number) || number == 0 && weekday.1.contains(&7);
    let on_day = day.1.contains(&time.day());
    let either = !day.0.starts_with('*') && !weekday.0.starts_with('*');
    minute.1.contains(&time.minute())
        && hour.1.contains(&time.hour())
        && if either { on_day || on_weekday } else { on_day && on_weekday }
}

/// Where a crontab fires in `[from, to)`, found by looking at the clock every minute: wherever it shows a matching time
/// for the first time or has jumped over one.
fn found_by_stepping(crontab: &[Field; 4], zone: Tz, from: i64, to: i64) -> Vec<Timestamp> {
    let wall = |ms| DateTime::<Utc>::from_timestamp_millis(ms).unwrap().with_timezone(&zone).naive_local();
    let (mut found, mut shown) = (Vec::new(), wall(from - DAY));
    for ms in (from - DAY + MINUTE..to).step_by(MINUTE as usize) {
        let now = wall(ms);
        let mut fires = false;
        while shown < now {
            shown += Duration::minutes(1);
            fires |= matches(crontab, shown);
        }
        if fires && ms >= from {
            found.push(Timestamp::from_millis(ms));
        }
    }
    found
}

fn minutes_2020_to_2035() -> impl Strategy<Value = i64> {
    (at("2020-01-01T00:00:00Z").as_millis() / MINUTE..at("2036-01-01T00:00:00Z").as_millis() / MINUTE)
        .prop_map(|minute| minute * MINUTE)
}

fn zone() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&ZONES)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn firings_are_those_that_a_look_at_the_clock_every_minute_finds(
        crontab in crontab(), zone in zone(), year in 2020..2035_i32, month in 0..5_usize,
    ) {
        // Weeks in which clocks change somewhere, and one in which they do not.
        let (month, day) = [(3, 1), (3, 20), (9, 20), (10, 20), (12, 20)][month];
        let from = NaiveDate::from_ymd_opt(year, month, day).unwrap().and_time(chrono::NaiveTime::MIN);
        let from = from.and_utc().timestamp_millis();
        let to = from + 16 * DAY;
        let schedule = schedule(&text_of(&crontab), zone);
        let found = found_by_stepping(&crontab, zone.parse().unwrap(), from, to);

        let before = Timestamp::from_millis(from - 1);
        let forwards: Vec<_> = std::iter::successors(schedule.next_after(before), |t| schedule.next_after(*t))
            .take_while(|t| t.as_millis() < to)
            .collect();
        prop_assert_eq!(&forwards, &found);

        let mut last = None;
        let mut later = found.iter().peekable();
        for ms in (from..to).step_by(10 * MINUTE as usize) {
            let t = Timestamp::from_millis(ms);
            last = std::iter::from_fn(|| later.next_if(|fired| **fired <= t)).last().or(last);
            if let Some(last) = last {
                prop_assert_eq!(schedule.last_at_or_before(t), Some(*last), "at {}", t);
            }
        }
    }
}

proptest! {
    #[test]
    fn windows_follow_each_other_without_gap_or_overlap(
        crontab in crontab(), zone in zone(), minute in minutes_2020_to_2035(), ms in 0..MINUTE,
    ) {
        let schedule = schedule(&text_of(&crontab), zone);
        let t = Timestamp::from_millis(minute + ms);
        let millisecond = crate::Span::from_millis(1);
        let window = schedule.window_at(t);
        prop_assert!(window.from <= t && t < window.to);
        prop_assert_eq!(schedule.window_at(window.from), window);
        prop_assert_eq!(schedule.window_at(window.to - millisecond), window);
        prop_assert_eq!(schedule.window_at(window.to).from, window.to);
        prop_assert_eq!(schedule.window_at(window.from - millisecond).to, window.from);
    }

    #[test]
    fn a_daily_schedule_fires_once_on_every_day(
        zone in zone(), start in minutes_2020_to_2035(), hour in 0..24, minute in 0..60,
    ) {
        let schedule = schedule(&format!("{minute} {hour} * * *"), zone);
        let zone: Tz = zone.parse().unwrap();
        let date = |t: Timestamp| {
            DateTime::<Utc>::from_timestamp_millis(t.as_millis()).unwrap().with_timezone(&zone).date_naive()
        };
        let mut fired = schedule.next_after(Timestamp::from_millis(start)).unwrap();
        for _ in 0..400 {
            let next = schedule.next_after(fired).unwrap();
            prop_assert_eq!(date(next), date(fired) + Days::new(1));
            fired = next;
        }
    }
}
