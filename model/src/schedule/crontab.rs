//! Reading crontab fields as `crontab(5)` has them, for a crate that has them otherwise.
//!
//! The `cron` crate takes seconds first, numbers weekdays from 1 = Sunday as Quartz does, and asks a day to match both day
//! of month and weekday. So fields are read here, and the crate is given nothing but lists of numbers that mean the same
//! to it. An expression with both kinds of days becomes two, one for each.

use std::collections::BTreeSet;

use super::{InvalidSchedule, shortened};

/// The calendars of an expression: it fires where one of them does.
pub(super) fn parse(text: &str) -> Result<Vec<cron::Schedule>, InvalidSchedule> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    match *fields {
        [word] => {
            let (_, meaning) = WORDS
                .iter()
                .find(|(known, _)| word.eq_ignore_ascii_case(known))
                .ok_or_else(|| InvalidSchedule::Unreadable(shortened(text)))?;
            parse(meaning)
        }
        [minute, hour, day, month, weekday] => {
            let time = format!("0 {} {}", MINUTE.read(minute)?, HOUR.read(hour)?);
            let (days, month, weekdays) = (DAY.read(day)?, MONTH.read(month)?, WEEKDAY.read(weekday)?);
            let restricted = |field: &str| !field.starts_with('*');
            Ok(if restricted(day) && restricted(weekday) {
                vec![
                    calendar(&format!("{time} {days} {month} *")),
                    calendar(&format!("{time} * {month} {weekdays}")),
                ]
            } else {
                vec![calendar(&format!("{time} {days} {month} {weekdays}"))]
            })
        }
        [_, _, _, _, _, _] | [_, _, _, _, _, _, _] => Err(InvalidSchedule::TooManyFields(shortened(text))),
        _ => Err(InvalidSchedule::Unreadable(shortened(text))),
    }
}

/// What a single word stands for. Those with `@` are crontab's own, where a week begins on Sunday.
const WORDS: [(&str, &str); 11] = [
    ("hour", "0 * * * *"),
    ("day", "0 0 * * *"),
    ("week", "0 0 * * 1"),
    ("month", "0 0 1 * *"),
    ("quarter", "0 0 1 1,4,7,10 *"),
    ("year", "0 0 1 1 *"),
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
];

struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    /// What people read when they wrote something else.
    values: &'static str,
    /// Names of the values from `min` on.
    names: &'static [&'static str],
}

const MINUTE: Field = Field { name: "minute", min: 0, max: 59, values: "0-59", names: &[] };
const HOUR: Field = Field { name: "hour", min: 0, max: 23, values: "0-23", names: &[] };
const DAY: Field = Field { name: "day of month", min: 1, max: 31, values: "1-31", names: &[] };
const MONTH: Field = Field {
    name: "month",
    min: 1,
    max: 12,
    values: "1-12 or jan-dec",
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAY: Field = Field {
    name: "weekday",
    min: 0,
    max: SUNDAY_AGAIN,
    values: "0-7, where 0 and 7 are Sunday, or sun-sat",
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

/// Sunday is 0 and 7, so that a week can begin or end with it.
const SUNDAY_AGAIN: u32 = 7;

impl Field {
    /// The field as the crate understands it: `*` or a list of numbers.
    fn read(&self, text: &str) -> Result<String, InvalidSchedule> {
        let mut values = BTreeSet::new();
        for part in text.split(',') {
            values.extend(self.part(part).ok_or_else(|| InvalidSchedule::Field {
                part: shortened(part),
                field: self.name,
                values: self.values,
            })?);
        }
        let mut all = self.max - self.min + 1;
        if self.max == SUNDAY_AGAIN {
            // The crate counts from 1 = Sunday.
            values = values.into_iter().map(|day| day % SUNDAY_AGAIN + 1).collect();
            all = SUNDAY_AGAIN;
        }
        if values.len() == all as usize {
            return Ok("*".to_owned());
        }
        Ok(values.iter().map(u32::to_string).collect::<Vec<_>>().join(","))
    }

    /// The values of one part of the list: `*`, `a` or `a-b`, with `/step` behind `*` or `a-b`.
    fn part(&self, part: &str) -> Option<impl Iterator<Item = u32> + use<>> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(number(step).filter(|step| *step > 0)?)),
            None => (part, None),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (self.min, self.max),
            Some((first, last)) => (self.value(first)?, self.value(last)?),
            // A single value with a step means different things to different programs.
            None if step.is_some() => return None,
            None => (self.value(range)?, self.value(range)?),
        };
        // So that `fri-sun` is a range.
        let last = if self.max == SUNDAY_AGAIN && last == 0 && first > 0 { SUNDAY_AGAIN } else { last };
        (first <= last).then(|| (first..=last).step_by(step.unwrap_or(1) as usize))
    }

    fn value(&self, text: &str) -> Option<u32> {
        let named = (self.min..).zip(self.names).find(|(_, name)| text.eq_ignore_ascii_case(name));
        let value = named.map(|(value, _)| value).or_else(|| number(text))?;
        (self.min..=self.max).contains(&value).then_some(value)
    }
}

/// Digits alone: `+5` parses as a number and is none here.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn calendar(expression: &str) -> cron::Schedule {
    expression.parse().expect("the fields are lists of numbers within their ranges")
}
