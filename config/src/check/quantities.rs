//! CPUs, memory, disk and percentages: `4`, `4+`, `0.5`, `32GB`. Exact decimals, no floats.

use std::fmt;

use crate::{
    problem::{Report, shortened},
    raw::Written,
};

/// Ten thousand CPUs, more than any machine has.
const CPUS_MILLI_MAX: u64 = 10_000_000;
/// A PiB, more than any machine has of memory or disk.
const GIB_MAX: u64 = 1 << 20;

/// What a quantity should look like.
struct NotAQuantity<'a> {
    text: &'a str,
    such_as: &'static str,
}

impl fmt::Display for NotAQuantity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, such_as } = self;
        write!(f, "`{}` is no amount such as {such_as}", shortened(text))
    }
}

/// Virtual CPUs in thousandths.
pub(super) fn cpus_milli(report: &mut Report, path: &str, written: &Written) -> Option<u32> {
    let text = written.0.as_str();
    let milli = thousandths(at_least(text)).filter(|milli| (1..=CPUS_MILLI_MAX).contains(milli));
    let milli = report.take(path, milli.ok_or(NotAQuantity { text, such_as: "4, 4+ or 0.5" }))?;
    Some(u32::try_from(milli).expect("the bound is below u32::MAX"))
}

/// Memory in MiB.
pub(super) fn memory_mib(report: &mut Report, path: &str, written: &Written) -> Option<u64> {
    let text = written.0.as_str();
    report.take(path, mib(text).ok_or(NotAQuantity { text, such_as: "32, 32+ or 512MB" }))
}

/// Disk in MiB.
pub(super) fn disk_mib(report: &mut Report, path: &str, written: &Written) -> Option<u64> {
    let text = written.0.as_str();
    report.take(path, mib(text).ok_or(NotAQuantity { text, such_as: "100GB or 512MB" }))
}

/// Disk in GiB, rounded up.
pub(super) fn disk_gib(report: &mut Report, path: &str, written: &Written) -> Option<u32> {
    let text = written.0.as_str();
    let gib =
        report.take(path, mib(text).ok_or(NotAQuantity { text, such_as: "100 or 100GB" }))?.div_ceil(1024);
    Some(u32::try_from(gib).expect("the bound is below u32::MAX"))
}

/// A part of more than nothing and less than all that is written in percent, in millionths.
pub(super) fn percent_millionths(report: &mut Report, path: &str, written: &Written) -> Option<u32> {
    let text = written.0.as_str();
    let millionths = decimal(text.trim(), 4).filter(|part| (1..1_000_000).contains(part));
    let millionths = report.take(
        path,
        millionths.ok_or_else(|| {
            let text = shortened(text);
            format!("`{text}` is not more than 0 and less than 100, with at most four decimals")
        }),
    )?;
    Some(u32::try_from(millionths).expect("the bound is below u32::MAX"))
}

/// `4+` says what `4` means here anyway.
fn at_least(text: &str) -> &str {
    let text = text.trim();
    text.strip_suffix('+').unwrap_or(text).trim_end()
}

/// An amount of bytes in MiB, rounded up; GiB unless another unit is named. `GB` is read as GiB, as schedulers do.
fn mib(text: &str) -> Option<u64> {
    let text = at_least(text);
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let mib_per_unit: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "g" | "gb" | "gib" => 1024,
        "m" | "mb" | "mib" => 1,
        "t" | "tb" | "tib" => 1024 * 1024,
        _ => return None,
    };
    let mib = thousandths(number.trim_end())?.checked_mul(mib_per_unit)?.div_ceil(1000);
    (1..=GIB_MAX * 1024).contains(&mib).then_some(mib)
}

/// A decimal number with at most three decimals, in thousandths.
fn thousandths(text: &str) -> Option<u64> {
    decimal(text, 3)
}

/// A decimal number with at most so many decimals, in units of the last.
fn decimal(text: &str, decimals: usize) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > decimals {
        return None;
    }
    // The digits up to the last unit are the number of units.
    format!("{whole}{fraction:0<decimals$}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_counts_in_gib_unless_a_unit_is_named() {
        for (text, want) in [
            ("32", Some(32 * 1024)),
            ("32+", Some(32 * 1024)),
            ("32GB", Some(32 * 1024)),
            ("32 GiB+", Some(32 * 1024)),
            ("0.5", Some(512)),
            ("512MB", Some(512)),
            ("1T", Some(1 << 20)),
            ("0", None),
            ("-1", None),
            ("1e3", None),
            ("12 parsecs", None),
            ("99999999999999999999", None),
            ("18446744073709551", None),
        ] {
            assert_eq!(mib(text), want, "{text}");
        }
    }

    #[test]
    fn cpus_may_be_parts_of_one() {
        assert_eq!(thousandths("0.25"), Some(250));
        assert_eq!(thousandths(at_least("4+")), Some(4000));
        assert_eq!(thousandths("0.0001"), None);
        assert_eq!(thousandths(".5"), None);
        assert_eq!(thousandths("é"), None);
    }
}
