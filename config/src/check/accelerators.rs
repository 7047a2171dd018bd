//! Accelerators: `A100`, `a100:8`, `A100:40GB:1`, `A100-80GB`.

use bursar_model::{AcceleratorName, Accelerators};

use crate::problem::{Problem, Report, did_you_mean, shortened};

/// The names that all clouds share, with the most memory that one of them comes with, in GiB. A name that is not here
/// is taken as it was written, as a local provider may have anything: the list only mends spelling.
const KNOWN: &[(&str, u32)] = &[
    ("A10", 24),
    ("A100", 80),
    ("A10G", 24),
    ("A2", 16),
    ("A30", 24),
    ("A40", 48),
    ("B200", 192),
    ("B300", 288),
    ("GB200", 192),
    ("GB300", 288),
    ("GH200", 144),
    ("Gaudi2", 96),
    ("Gaudi3", 128),
    ("H100", 96),
    ("H200", 141),
    ("Inferentia", 8),
    ("Inferentia2", 32),
    ("K80", 12),
    ("L4", 24),
    ("L40", 48),
    ("L40S", 48),
    ("M60", 8),
    ("MI300X", 192),
    ("MI325X", 256),
    ("P100", 16),
    ("P4", 8),
    ("RTX4090", 24),
    ("RTX5090", 32),
    ("RTXPRO6000", 96),
    ("T4", 16),
    ("T4G", 16),
    ("Trainium", 32),
    ("Trainium2", 96),
    ("V100", 32),
];

/// More than any machine has. A request that is merely too large waits, and the plan says for what.
const COUNT_MAX: u32 = 1024;
const MEMORY_GIB_MAX: u32 = 4096;

/// Reads one kind of accelerators.
pub(super) fn accelerators(report: &mut Report, path: &str, text: &str) -> Option<Accelerators> {
    let mut parts = text.split(':').map(str::trim);
    let name_part = parts.next().unwrap_or_default();
    let rest: Vec<_> = parts.collect();
    let (memory_part, count_part) = match rest[..] {
        [] => (None, None),
        [one] if memory_gib(one).is_some() => (Some(one), None),
        [one] => (None, Some(one)),
        [memory, count] => (Some(memory), Some(count)),
        _ => return wrong_form(report, path, text),
    };
    let (name, name_memory) = known_name(report, path, name_part)?;
    let Some(count) = count_part.map_or(Some(1), |part| part.parse::<u32>().ok()) else {
        return wrong_form(report, path, text);
    };
    let part_memory = match memory_part.map(memory_gib) {
        Some(None) => return wrong_form(report, path, text),
        Some(Some(memory)) => Some(memory),
        None => None,
    };
    if !(1..=COUNT_MAX).contains(&count) {
        let message = format!("`{}`: the count must be between 1 and {COUNT_MAX}", shortened(text));
        report.error(Problem::new(path, message));
        return None;
    }
    let memory_gib = part_memory.or(name_memory);
    if let Some(want) = memory_gib
        && let Some((_, most)) = KNOWN.iter().find(|(known, _)| *known == name.as_str())
        && want > *most
    {
        let message = format!("no {name} with {want} GiB is known; the largest has {most}");
        report.warn(Problem::new(path, message));
    }
    Some(Accelerators { name, count, memory_gib })
}

/// The name that all clouds share for this accelerator.
pub(super) fn accelerator_name(report: &mut Report, path: &str, text: &str) -> Option<AcceleratorName> {
    known_name(report, path, text).map(|(name, _)| name)
}

/// The shared name, and the memory that the written one names, as `A100-80GB` does.
fn known_name(report: &mut Report, path: &str, text: &str) -> Option<(AcceleratorName, Option<u32>)> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if text.is_empty() || text.len() > 63 || !text.bytes().all(allowed) {
        return wrong_form(report, path, text);
    }
    let bare = ["nvidia-", "tesla-", "amd-"].iter().fold(text, |name, maker| without_prefix(name, maker));
    let (stem, memory) = match bare.rsplit_once('-').map(|(stem, size)| (stem, memory_gib(size))) {
        Some((stem, Some(memory))) => (stem, Some(memory)),
        _ => (bare, None),
    };
    if let Some((name, _)) = KNOWN.iter().find(|(name, _)| name.eq_ignore_ascii_case(stem)) {
        return Some((AcceleratorName::new(name), memory));
    }
    if let Some(hint) = did_you_mean(stem, KNOWN.iter().map(|(name, _)| *name)) {
        report
            .warn(Problem::new(path, format!("no cloud has a `{text}`; it is taken as written")).hint(hint));
    }
    Some((AcceleratorName::new(text), None))
}

fn without_prefix<'a>(text: &'a str, prefix: &str) -> &'a str {
    match text.split_at_checked(prefix.len()) {
        Some((start, rest)) if start.eq_ignore_ascii_case(prefix) => rest,
        _ => text,
    }
}

/// `40GB`, `40GiB`, `40G`: a bare number is a count.
fn memory_gib(text: &str) -> Option<u32> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit_fits = ["g", "gb", "gib"].iter().any(|known| known.eq_ignore_ascii_case(unit));
    let number = number.parse().ok().filter(|n| (1..=MEMORY_GIB_MAX).contains(n));
    number.filter(|_| unit_fits)
}

fn wrong_form<T>(report: &mut Report, path: &str, text: &str) -> Option<T> {
    let message = format!("`{}` does not name accelerators", shortened(text));
    report.error(
        Problem::new(path, message).hint("write `A100`, `A100:8` or `A100:40GB:1` (name, memory, count)"),
    );
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Option<(String, u32, Option<u32>)>, Report) {
        let mut report = Report::default();
        let read = accelerators(&mut report, "accelerators", text);
        (read.map(|a| (a.name.to_string(), a.count, a.memory_gib)), report)
    }

    #[test]
    fn every_spelling_comes_to_the_shared_name() {
        for (text, want) in [
            ("A100", ("A100", 1, None)),
            ("a100:8", ("A100", 8, None)),
            ("A100:40GB:1", ("A100", 1, Some(40))),
            ("A100:80GB", ("A100", 1, Some(80))),
            ("a100-80gb:2", ("A100", 2, Some(80))),
            ("nvidia-tesla-t4", ("T4", 1, None)),
            ("l40s", ("L40S", 1, None)),
            ("Banana9000:3", ("Banana9000", 3, None)),
        ] {
            let (read, report) = read(text);
            assert_eq!(read, Some((want.0.to_owned(), want.1, want.2)), "{text}");
            assert!(report.errors.is_empty() && report.warnings.is_empty(), "{text}: {report:?}");
        }
    }

    #[test]
    fn what_names_no_accelerators_is_refused() {
        for text in [
            "",
            ":",
            "A100:",
            "A100:0",
            "A100:-1",
            "A100:1:40GB",
            "A100:1:1:1",
            "A 100",
            "A100:x",
            "A100:2000",
        ] {
            let (read, report) = read(text);
            assert!(read.is_none() && report.errors.len() == 1, "{text}: {report:?}");
        }
    }

    #[test]
    fn a_near_miss_of_a_known_name_warns() {
        let (read, report) = read("H1O0:1");
        assert_eq!(read, Some(("H1O0".to_owned(), 1, None)));
        assert!(report.warnings[0].hint.as_deref().is_some_and(|hint| hint.contains("`H100`")), "{report:?}");
    }
}
