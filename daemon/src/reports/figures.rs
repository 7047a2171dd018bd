//! How amounts, parts, moments and days are written for people.

use bursar_model::{Period, Timestamp, Usd};

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// As [`Usd::rounded`], with commas between thousands: `$12,345.68`.
pub(crate) fn money(amount: Usd) -> String {
    let text = amount.rounded();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let digits_at = whole.find(|c: char| c.is_ascii_digit()).unwrap_or(0);
    let (sign, digits) = whole.split_at(digits_at);
    format!("{sign}{}.{fraction}", thousands(digits))
}

/// Digits with commas between thousands.
pub(super) fn thousands(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Thousandths that `part` is of `whole`, rounded; none where there is no whole to be a part of.
pub(super) fn permille(part: Usd, whole: Usd) -> Option<i64> {
    let (part, whole) = (i128::from(part.as_nanos()), i128::from(whole.as_nanos()));
    (whole > 0).then(|| saturate((part * 2000 + whole).div_euclid(whole * 2)))
}

/// A part in percent: `12.3%`, or a dash where there is no whole.
pub(super) fn percent(part: Usd, whole: Usd) -> String {
    permille(part, whole).map_or_else(|| "–".to_owned(), |p| format!("{}%", tenths(p)))
}

/// Tenths as a decimal: 123 is `12.3`, 120 is `12`.
pub(super) fn tenths(value: i64) -> String {
    let sign = if value < 0 { "-" } else { "" };
    match (value.unsigned_abs() / 10, value.unsigned_abs() % 10) {
        (whole, 0) => format!("{sign}{whole}"),
        (whole, rest) => format!("{sign}{whole}.{rest}"),
    }
}

/// Seconds as hours: `1,234.56`.
#[expect(clippy::float_arithmetic, reason = "hours for people; no money is made of them")]
pub(super) fn hours(seconds: f64) -> String {
    let text = format!("{:.2}", seconds / 3600.0);
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, "00"));
    format!("{}.{fraction}", thousands(whole))
}

/// A day as axes show it: `22 Nov`.
pub(super) fn day(at: Timestamp) -> String {
    bin(at.to_string().get(..10).unwrap_or_default())
}

/// The label of a day, week or month as axes show it: `22 Nov`, `W47`, `Nov 2026`. What is none of these stays.
pub(super) fn bin(label: &str) -> String {
    let parts: Vec<&str> = label.split('-').collect();
    match parts[..] {
        [_, month, day] => match (month_name(month), day.parse::<u8>()) {
            (Some(month), Ok(day)) => format!("{day} {month}"),
            _ => label.to_owned(),
        },
        [_, week] if week.starts_with('W') => week.to_owned(),
        [year, month] => {
            month_name(month).map_or_else(|| label.to_owned(), |month| format!("{month} {year}"))
        }
        _ => label.to_owned(),
    }
}

/// The time of day: `15:42`.
pub(super) fn time_of_day(at: Timestamp) -> String {
    at.to_string().get(11..16).unwrap_or_default().to_owned()
}

/// A moment in full: `22 Nov 2026 15:42 UTC`.
pub(crate) fn moment(at: Timestamp) -> String {
    format!("{} {} UTC", date(at), time_of_day(at))
}

/// A half-open period: whole days by their first and last, others by their moments.
pub(crate) fn period(period: Period) -> String {
    const DAY_MS: i64 = 86_400_000;
    let whole_days = [period.from, period.to].iter().all(|at| at.as_millis().rem_euclid(DAY_MS) == 0);
    if !whole_days || period.from == period.to {
        return format!("{} – {}", moment(period.from), moment(period.to));
    }
    let last = date(Timestamp::from_millis(period.to.as_millis() - 1));
    let first = date(period.from);
    if first == last { first } else { format!("{first} – {last}") }
}

fn date(at: Timestamp) -> String {
    let text = at.to_string();
    format!("{} {}", day(at), text.get(..4).unwrap_or_default())
}

fn month_name(number: &str) -> Option<&'static str> {
    let number: usize = number.parse().ok()?;
    MONTHS.get(number.checked_sub(1)?).copied()
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn thousands_are_separated_and_the_sign_stays_in_front() {
        let written = |text: &str| money(text.parse().unwrap());
        assert_eq!(written("1234567.891"), "$1,234,567.89");
        assert_eq!(written("-1234"), "-$1,234.00");
        assert_eq!(written("999.5"), "$999.50");
        assert_eq!(written("0.0421"), "$0.0421");
        assert_eq!(written("0"), "$0.00");
    }

    #[test]
    fn a_part_of_nothing_has_no_percentage() {
        assert_eq!(percent(Usd::from_dollars(1), Usd::ZERO), "–");
        assert_eq!(percent(Usd::from_dollars(1), Usd::from_dollars(3)), "33.3%");
        assert_eq!(percent(Usd::from_dollars(-1), Usd::from_dollars(2)), "-50%");
        assert_eq!(percent(Usd::MAX, Usd::from_nanos(1)), format!("{}%", tenths(i64::MAX)));
    }

    #[test]
    fn a_period_of_whole_days_is_named_by_its_first_and_last_day() {
        let november = Period::new(at("2026-11-01T00:00:00Z"), at("2026-12-01T00:00:00Z"));
        assert_eq!(period(november), "1 Nov 2026 – 30 Nov 2026");
        let day = Period::new(at("2026-11-01T00:00:00Z"), at("2026-11-02T00:00:00Z"));
        assert_eq!(period(day), "1 Nov 2026");
        let hours = Period::new(at("2026-11-01T08:00:00Z"), at("2026-11-01T20:30:00Z"));
        assert_eq!(period(hours), "1 Nov 2026 08:00 UTC – 1 Nov 2026 20:30 UTC");
    }

    #[test]
    fn days_weeks_and_months_are_short_on_an_axis() {
        for (label, short) in [("2026-11-03", "3 Nov"), ("2026-W47", "W47"), ("2026-11", "Nov 2026")] {
            assert_eq!(bin(label), short);
        }
        for other in ["2026-13-01", "total", "", "2026-xx"] {
            assert_eq!(bin(other), other);
        }
    }

    proptest! {
        #[test]
        fn money_without_its_commas_is_as_everywhere_else(nanos in any::<i64>()) {
            let amount = Usd::from_nanos(nanos);
            prop_assert_eq!(money(amount).replace(',', ""), amount.rounded());
        }
    }
}
