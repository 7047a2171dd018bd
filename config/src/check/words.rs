//! Names, durations, schedules, amounts and secrets: one reader each, which reports what is wrong and returns nothing
//! then.

use std::path::Path;

use bursar_model::{InvalidSchedule, Schedule, SecretRef, Span, Usd, UsdPerHour};

use crate::{
    problem::{Problem, Report, did_you_mean, shortened},
    raw::{RawSecret, Written},
};

/// The longest name: what still fits a tag of every cloud, a metric label and a terminal.
const NAME_LEN_MAX: usize = 63;

/// The longest name of a user, who may be known by an address.
const USER_LEN_MAX: usize = 100;

/// The longest duration. Longer ones are slips of the unit, and sums of such stay far from the end of `Span`.
const SPAN_MAX: Span = Span::from_hours(10 * 365 * 24);

/// The largest amount, a billion dollars: sums of many such still fit.
const AMOUNT_MAX: Usd = Usd::from_dollars(1_000_000_000);

/// A name of ours: it ends up in tags, file names and tables.
pub(super) fn name(report: &mut Report, path: &str, text: &str) {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let fits = (1..=NAME_LEN_MAX).contains(&text.len());
    if !fits || !text.bytes().all(allowed) || !text.as_bytes()[0].is_ascii_alphanumeric() {
        let message = format!("`{}` is no name", shortened(text));
        let hint = format!(
            "use 1 to {NAME_LEN_MAX} letters, digits, `-`, `_` and `.`, beginning with a letter or a digit"
        );
        report.error(Problem::new(path, message).hint(hint));
    }
}

/// The name of a user as the API takes it: no other could ever submit.
pub(super) fn user(report: &mut Report, path: &str, text: &str) {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | '+');
    if text.is_empty() || text.len() > USER_LEN_MAX || !text.chars().all(allowed) {
        let message = format!("`{}` is no name of a user", shortened(text));
        let hint = format!("use at most {USER_LEN_MAX} letters, digits, `-`, `_`, `.`, `@` and `+`");
        report.error(Problem::new(path, message).hint(hint));
    }
}

/// The name of an environment variable that an experiment may set.
pub(super) fn variable(report: &mut Report, path: impl FnOnce() -> String, text: &str) {
    let starts = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    let message = if !starts || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        format!("`{}` is no name of an environment variable (letters, digits and `_`)", shortened(text))
    } else if text.starts_with("BURSAR_") || text == "CUDA_VISIBLE_DEVICES" {
        format!("`{text}` is set by bursar itself")
    } else {
        return;
    };
    report.error(Problem::new(path(), message));
}

/// Text that a process can be given: the system ends every argument and variable at a NUL.
pub(super) fn process_text(report: &mut Report, path: impl FnOnce() -> String, text: &str) {
    if text.contains('\0') {
        report.error(Problem::new(path(), "a NUL character cannot be passed to a process"));
    }
}

/// A length of time, nothing included.
pub(super) fn span(report: &mut Report, path: &str, text: &str) -> Option<Span> {
    let span: Span = report.take(path, text.parse())?;
    if span > SPAN_MAX {
        report.error(Problem::new(path, format!("`{}` is longer than ten years", shortened(text))));
        return None;
    }
    Some(span)
}

/// A length of time that is not nothing.
pub(super) fn some_span(report: &mut Report, path: &str, text: &str) -> Option<Span> {
    let span = span(report, path, text)?;
    if span == Span::ZERO {
        report.error(Problem::new(path, "must be more than 0"));
        return None;
    }
    Some(span)
}

/// When something recurs. A wrong zone does not hide a wrong schedule.
pub(super) fn schedule(
    report: &mut Report,
    path: &str,
    text: &str,
    zone_path: &str,
    zone: Option<&str>,
) -> Option<Schedule> {
    match Schedule::parse(text, zone) {
        Ok(schedule) => Some(schedule),
        Err(error @ InvalidSchedule::UnknownZone { .. }) => {
            report.error(Problem::new(zone_path, error.to_string()));
            report.take(path, Schedule::parse(text, None));
            None
        }
        Err(error) => {
            report.error(Problem::new(path, error.to_string()));
            None
        }
    }
}

/// Where a secret's value is found. What stands there is never repeated: it may be the secret itself.
pub(super) fn secret(report: &mut Report, path: &str, raw: RawSecret) -> Option<SecretRef> {
    let problem = match (raw.env, raw.file) {
        (Some(env), None) if !env.is_empty() && !env.contains(['=', '\0']) => {
            return Some(SecretRef::Env(env));
        }
        (Some(_), None) => Problem::new(format!("{path}.env"), "is no name of an environment variable"),
        (None, Some(file)) if Path::new(&file).is_absolute() && !file.contains('\0') => {
            return Some(SecretRef::File(file));
        }
        (None, Some(_)) => Problem::new(format!("{path}.file"), "is no absolute path"),
        (None, None) | (Some(_), Some(_)) => {
            Problem::new(path, "name exactly one place: {env: NAME} or {file: /path}")
        }
    };
    report.error(problem);
    None
}

/// A cap on spending.
pub(super) fn budget(report: &mut Report, path: &str, written: &Written) -> Option<Usd> {
    let amount: Usd = report.take(path, written.0.parse())?;
    let problem = if amount == Usd::ZERO {
        Problem::new(path, "a budget of 0 pays for nothing")
            .hint("name an amount that may be spent; to leave the key out would mean no limit, not nothing")
    } else if amount < Usd::ZERO {
        Problem::new(path, format!("`{written}` is negative"))
    } else if amount > AMOUNT_MAX {
        Problem::new(path, format!("`{written}` is more than a billion dollars"))
            .hint("to leave the key out means no limit")
    } else {
        return Some(amount);
    };
    report.error(problem);
    None
}

/// A price, or a ceiling on one.
pub(super) fn price(report: &mut Report, path: &str, written: &Written) -> Option<UsdPerHour> {
    let price: UsdPerHour = report.take(path, written.0.parse())?;
    let problem = if price == UsdPerHour::ZERO {
        Problem::new(path, "a price of 0 counts as unknown: nothing is ever rented at it")
    } else if price < UsdPerHour::ZERO {
        Problem::new(path, format!("`{written}` is negative"))
    } else if price.as_nanos() > AMOUNT_MAX.as_nanos() {
        Problem::new(path, format!("`{written}` is more than a billion dollars an hour"))
    } else {
        return Some(price);
    };
    report.error(problem);
    None
}

/// An amount that comes on top of a price, where there is one.
pub(super) fn extra(report: &mut Report, path: &str, written: &Written) -> Option<Usd> {
    let amount: Usd = report.take(path, written.0.parse())?;
    let message = if amount < Usd::ZERO {
        format!("`{written}` is negative")
    } else if amount > AMOUNT_MAX {
        format!("`{written}` is more than a billion dollars")
    } else {
        return Some(amount);
    };
    report.error(Problem::new(path, message));
    None
}

/// A whole number within bounds.
pub(super) fn count(report: &mut Report, path: &str, number: i64, low: u32, high: u32) -> Option<u32> {
    let within = u32::try_from(number).ok().filter(|n| (low..=high).contains(n));
    if within.is_none() {
        report.error(Problem::new(path, format!("`{number}` is not between {low} and {high}")));
    }
    within
}

/// One of a few words.
pub(super) fn word<T: Copy>(report: &mut Report, path: &str, text: &str, words: &[(&str, T)]) -> Option<T> {
    let found = words.iter().find(|(word, _)| *word == text);
    if found.is_none() {
        let known = words.iter().map(|(word, _)| *word);
        let message =
            format!("`{}` is none of {}", shortened(text), known.clone().collect::<Vec<_>>().join(", "));
        report.error(Problem::new(path, message).maybe_hint(did_you_mean(text, known)));
    }
    found.map(|(_, value)| *value)
}
