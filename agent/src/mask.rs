//! Hiding secrets in a log before it leaves the instance.
//!
//! Best effort: what is found is the value as it is, or one of its lines. A program that prints a secret encoded, or a
//! piece of it, is not caught. Each byte becomes a `*`, so that offsets into the log mean the same on both sides.

use std::collections::BTreeSet;

/// Shorter values are not looked for: they stand in ordinary words, and guessing them takes no log.
const LEN_MIN: usize = 8;

/// How many values and lines are looked for in a log. A key has some fifty lines, and each costs time at every chunk.
const PATTERNS_MAX: usize = 1024;

/// What is not to be seen.
#[derive(Default)]
pub(crate) struct Mask {
    /// By their first byte, the longest first.
    patterns: Vec<Vec<Vec<u8>>>,
    longest: usize,
}

impl Mask {
    /// Hides these values, and each of their lines.
    pub(crate) fn new<'a>(secrets: impl Iterator<Item = &'a str>) -> Self {
        let mut found = BTreeSet::new();
        for secret in secrets {
            found.extend([secret].into_iter().chain(secret.lines()).map(str::trim));
        }
        let mut found: Vec<&str> = found.into_iter().filter(|text| text.len() >= LEN_MIN).collect();
        found.sort_by_key(|text| std::cmp::Reverse(text.len()));
        found.truncate(PATTERNS_MAX);
        let longest = found.first().map_or(0, |text| text.len());
        if longest == 0 {
            return Self::default();
        }
        let mut patterns = vec![Vec::new(); 256];
        for text in found {
            patterns[usize::from(text.as_bytes()[0])].push(text.as_bytes().to_owned());
        }
        Self { patterns, longest }
    }

    /// How many bytes beside a part of a log have to be looked at to find what lies partly in it.
    pub(crate) fn reach(&self) -> usize {
        self.longest.saturating_sub(1)
    }

    /// Hides what is found.
    pub(crate) fn cover(&self, bytes: &mut [u8]) {
        if self.longest == 0 {
            return;
        }
        let mut at = 0;
        while at < bytes.len() {
            let candidates = &self.patterns[usize::from(bytes[at])];
            match candidates.iter().find(|pattern| bytes[at..].starts_with(pattern)) {
                Some(pattern) => {
                    bytes[at..at + pattern.len()].fill(b'*');
                    at += pattern.len();
                }
                None => at += 1,
            }
        }
    }

    /// How many bytes at the end may be the beginning of something that is not to be seen, and that is still being written.
    pub(crate) fn open_end(&self, bytes: &[u8]) -> usize {
        let longest = self.reach().min(bytes.len());
        let is_open = |len: &usize| {
            let end = &bytes[bytes.len() - len..];
            let candidates = &self.patterns[usize::from(end[0])];
            candidates.iter().any(|pattern| pattern.len() > end.len() && pattern.starts_with(end))
        };
        (1..=longest).rev().find(is_open).unwrap_or(0)
    }
}

/// Says nothing of what it hides.
impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mask(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(secrets: &[&str], text: &str) -> String {
        let mut bytes = text.as_bytes().to_owned();
        Mask::new(secrets.iter().copied()).cover(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn every_value_and_every_line_of_one_is_hidden_at_its_full_length() {
        assert_eq!(covered(&["hunter2hunter2"], "a hunter2hunter2 b"), "a ************** b");
        let key = "-----BEGIN-----\nabcdefgh\nxyz\n-----END-----\n";
        assert_eq!(covered(&[key], "x abcdefgh xyz"), "x ******** xyz");
        assert_eq!(covered(&["abcdefgh", "abcdefghijkl"], "abcdefghijkl"), "************");
    }

    #[test]
    fn what_is_short_stays_as_it_is() {
        assert_eq!(covered(&["short", "", "  \n "], "a short text"), "a short text");
        assert_eq!(covered(&[], "text"), "text");
    }

    #[test]
    fn the_beginning_of_a_secret_at_the_end_is_held_back() {
        let mask = Mask::new(["abcabcabd"].into_iter());
        assert_eq!(mask.open_end(b"xx abcab"), 5);
        assert_eq!(mask.open_end(b"abcabc"), 6);
        assert_eq!(mask.open_end(b"abcabcabd"), 0, "all of it is none that is being written");
        assert_eq!(mask.open_end(b"nothing"), 0);
        assert_eq!(Mask::default().open_end(b"text"), 0);
    }
}
