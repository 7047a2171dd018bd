//! What the rows of all formats come down to, and how their fields are read.

use bursar_model::{Period, Span, Timestamp, Usd};
use chrono::NaiveDate;
use csv::StringRecord;

use super::{BilledCost, OurTags, decimal::usd_from_decimal};

/// One row of a bill.
pub(super) struct Row<'a> {
    /// The cloud's name of the resource; empty where there is none.
    pub(super) resource: &'a str,
    /// Another name that the cloud knows it by; empty where there is none.
    pub(super) name: &'a str,
    pub(super) account: &'a str,
    pub(super) region: &'a str,
    pub(super) tags: OurTags,
    pub(super) kind: Kind,
    pub(super) period: Period,
    pub(super) cost: BilledCost,
    pub(super) unit_hours: Span,
}

/// What a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Something was used in the row's period.
    Usage,
    /// A tax.
    Tax,
    /// Credits, discounts, fees, adjustments: they change what something cost, not when it was used.
    Other,
}

/// Why a row cannot be counted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RowError {
    /// It makes no sense.
    Bad(String),
    /// It is in another currency, and so will be the others.
    Currency(String),
}

impl Row<'_> {
    /// What may be the cloud id of an instance of ours: a name, or the last part of a longer one, as in
    /// `arn:aws:ec2:us-east-1:1:instance/i-0abc` and `//compute.googleapis.com/projects/1/zones/z/instances/7`.
    pub(super) fn cloud_names(&self) -> impl Iterator<Item = &str> {
        let last = |name: &'_ str| name.rfind('/').map_or(0, |slash| slash + 1);
        let (resource, name) = (self.resource, self.name);
        [resource, &resource[last(resource)..], name, &name[last(name)..]].into_iter()
    }
}

/// `lineItem/UsageStartDate`, `resource.name`, `BilledCost` and `bursar:instance` in the spelling of CUR 2.0:
/// `line_item_usage_start_date` and so on.
pub(super) fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    let mut after_lower = false;
    for letter in name.trim().chars() {
        if !letter.is_ascii_alphanumeric() {
            if !snake.ends_with('_') {
                snake.push('_');
            }
            after_lower = false;
            continue;
        }
        if letter.is_ascii_uppercase() && after_lower {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
        after_lower = !letter.is_ascii_uppercase();
    }
    snake
}

/// Where a column is; none where the export leaves it out.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Column(Option<usize>);

impl Column {
    /// Finds a column by its name in snake case.
    pub(super) fn find(header: &[String], name: &str) -> Self {
        Self(header.iter().position(|column| column == name))
    }

    /// Whether the export has it.
    pub(super) fn exists(self) -> bool {
        self.0.is_some()
    }

    /// What the row has in it, trimmed; empty where there is no such column.
    pub(super) fn of(self, record: &StringRecord) -> &str {
        self.0.and_then(|at| record.get(at)).unwrap_or("").trim()
    }
}

/// An amount that a row may leave out.
pub(super) fn amount(column: &str, text: &str) -> Result<Option<Usd>, RowError> {
    match text {
        // Athena and spreadsheets write nothing as `null`.
        "" | "null" => Ok(None),
        text => usd_from_decimal(text).map(Some).map_err(|error| RowError::Bad(format!("{column}: {error}"))),
    }
}

/// An amount that a row must have.
pub(super) fn needed_amount(column: &str, text: &str) -> Result<Usd, RowError> {
    amount(column, text)?.ok_or_else(|| RowError::Bad(format!("{column} is empty")))
}

/// The period of a row, whose end may be its start but not before it.
pub(super) fn period(from: (&str, &str), to: (&str, &str)) -> Result<Period, RowError> {
    let read = |(column, text): (&str, &str)| {
        let bad =
            || RowError::Bad(format!("{column} `{text}` is not a time in UTC such as 2026-11-22T18:00:00Z"));
        moment(text).ok_or_else(bad)
    };
    let (start, end) = (read(from)?, read(to)?);
    if end < start {
        return Err(RowError::Bad(format!("{} is before {}", to.0, from.0)));
    }
    Ok(Period::new(start, end))
}

/// Nothing but dollars: an exchange rate would be an estimate, and the bill is what ends estimating.
pub(super) fn check_currency(column: &str, text: &str) -> Result<(), RowError> {
    match text {
        "USD" => Ok(()),
        "" => Err(RowError::Bad(format!("{column} is empty"))),
        other => Err(RowError::Currency(other.chars().take(40).collect())),
    }
}

/// A quantity of hours, to the millisecond.
pub(super) fn hours(column: &str, text: &str) -> Result<Span, RowError> {
    // A decimal is a decimal: billionths of an hour have the same digits as billionths of a dollar.
    let billionths = amount(column, text)?.unwrap_or_default().as_nanos();
    Ok(Span::from_millis((i128::from(billionths) * 3_600_000 / 1_000_000_000) as i64))
}

/// `2026-11-22T18:00:00Z`, with a blank for the `T`, with decimals of a second (which are dropped), with `UTC` or
/// nothing for the `Z`: AWS, BigQuery and Athena each have their own way of writing the same moment. All are in UTC;
/// another offset is not read.
fn moment(text: &str) -> Option<Timestamp> {
    let (stamp, rest) = text.split_at_checked(19)?;
    let digits = |at: usize, count: usize| {
        let part = stamp.get(at..at + count)?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<u32>().ok())?
    };
    let between = stamp.as_bytes();
    if [between[4], between[7], between[13], between[16]] != *b"--::" || !matches!(between[10], b'T' | b' ') {
        return None;
    }
    let decimals =
        rest.strip_prefix('.').map_or(rest, |rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    if !matches!(decimals.trim(), "" | "Z" | "UTC" | "+00" | "+00:00") {
        return None;
    }
    let date = NaiveDate::from_ymd_opt(digits(0, 4)? as i32, digits(5, 2)?, digits(8, 2)?)?;
    let time = date.and_hms_opt(digits(11, 2)?, digits(14, 2)?, digits(17, 2)?)?;
    Some(Timestamp::from_millis(time.and_utc().timestamp_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn column_names_of_all_exports_become_those_of_cur_2() {
        for (name, snake) in [
            ("lineItem/UsageStartDate", "line_item_usage_start_date"),
            ("savingsPlan/NetSavingsPlanEffectiveCost", "savings_plan_net_savings_plan_effective_cost"),
            ("line_item_line_item_type", "line_item_line_item_type"),
            ("BilledCost", "billed_cost"),
            ("resource.global_name", "resource_global_name"),
            ("resourceTags/user:bursar:instance", "resource_tags_user_bursar_instance"),
        ] {
            assert_eq!(snake_case(name), snake);
        }
    }

    #[test]
    fn moments_are_read_as_each_cloud_writes_them() {
        let expected: Timestamp = "2026-11-22T18:00:05Z".parse().unwrap();
        for text in [
            "2026-11-22T18:00:05Z",
            "2026-11-22T18:00:05.000Z",
            "2026-11-22 18:00:05 UTC",
            "2026-11-22 18:00:05.123456 UTC",
            "2026-11-22 18:00:05",
            "2026-11-22T18:00:05+00:00",
        ] {
            assert_eq!(moment(text), Some(expected), "{text}");
        }
        for bad in [
            "",
            "2026-11-22",
            "2026-13-22T18:00:05Z",
            "2026-11-22T18:00:05+01:00",
            "2026-11-22T18:00:+5Z",
            "ééééééééééé",
        ] {
            assert_eq!(moment(bad), None, "{bad}");
        }
    }

    #[test]
    fn hours_are_exact_to_the_millisecond() {
        assert_eq!(hours("u", "1.5"), Ok(Span::from_secs(5_400)));
        assert_eq!(hours("u", "0.0002777778"), Ok(Span::from_secs(1)));
        assert_eq!(hours("u", ""), Ok(Span::ZERO));
    }
}
