//! The words of a line: some stand in their place, others follow the word that says what they are.

use std::{fmt, str::FromStr};

use super::Wrong;

/// What is left of a line. Each word is taken once; what nobody took is wrong.
#[derive(Debug)]
pub(super) struct Words<'a>(Vec<&'a str>);

impl<'a> Words<'a> {
    pub(super) fn of(line: &'a str) -> Self {
        Self(line.split_whitespace().collect())
    }

    /// The next word, if there is one.
    pub(super) fn first(&mut self) -> Option<&'a str> {
        (!self.0.is_empty()).then(|| self.0.remove(0))
    }

    /// The next word as what it has to be.
    pub(super) fn next<T: FromStr<Err: fmt::Display>>(&mut self, what: &str) -> Result<T, Wrong> {
        let word = self.first().ok_or_else(|| format!("{what} is missing"))?;
        word.parse().map_err(|error| format!("{what}: {error}"))
    }

    /// The word after this one, wherever it stands.
    pub(super) fn after<T: FromStr<Err: fmt::Display>>(&mut self, key: &str) -> Result<Option<T>, Wrong> {
        let Some(at) = self.0.iter().position(|word| *word == key) else { return Ok(None) };
        self.0.remove(at);
        if at >= self.0.len() {
            return Err(format!("nothing follows `{key}`"));
        }
        let word = self.0.remove(at);
        word.parse().map(Some).map_err(|error| format!("{key}: {error}"))
    }

    /// The word after this one, which has to be there.
    pub(super) fn needed<T: FromStr<Err: fmt::Display>>(&mut self, key: &str) -> Result<T, Wrong> {
        self.after(key)?.ok_or_else(|| format!("`{key}` is missing"))
    }

    /// Whether this word is there.
    pub(super) fn has(&mut self, word: &str) -> bool {
        let at = self.0.iter().position(|found| *found == word);
        at.map(|at| self.0.remove(at)).is_some()
    }

    /// The one of these words that is there, as what it means.
    pub(super) fn one_of<T: Copy>(&mut self, meanings: &[(&str, T)]) -> Option<T> {
        meanings.iter().find(|(word, _)| self.has(word)).map(|(_, meaning)| *meaning)
    }

    /// The word that is an amount of money, such as `$0.35`.
    pub(super) fn amount<T: FromStr<Err: fmt::Display>>(&mut self) -> Result<T, Wrong> {
        let at = self.0.iter().position(|word| word.starts_with('$'));
        let word = self.0.remove(at.ok_or("an amount such as $5 is missing")?);
        word.parse().map_err(|error: T::Err| error.to_string())
    }

    /// How often, such as `x3`; once where nothing is said.
    pub(super) fn times(&mut self) -> Result<u32, Wrong> {
        let number = |word: &&str| word.strip_prefix('x').and_then(|rest| rest.parse::<u32>().ok());
        let Some(at) = self.0.iter().position(|word| number(word).is_some()) else { return Ok(1) };
        match number(&self.0.remove(at)) {
            Some(count) if count > 0 => Ok(count),
            Some(_) | None => Err("x0 is never".to_owned()),
        }
    }

    /// All that is left, in place.
    pub(super) fn rest(&mut self) -> Vec<&'a str> {
        std::mem::take(&mut self.0)
    }

    /// Nothing may be left.
    pub(super) fn end(&self) -> Result<(), Wrong> {
        match self.0.first() {
            None => Ok(()),
            Some(word) => Err(format!("nobody knows what `{word}` means here")),
        }
    }
}

#[cfg(test)]
mod tests {
    use bursar_model::Span;

    use super::*;

    #[test]
    fn words_are_found_by_their_place_or_by_the_word_before_them() {
        let mut words = Words::of("train duration 90m spot x3");
        assert_eq!(words.first(), Some("train"));
        assert_eq!(words.needed("duration"), Ok(Span::from_secs(5400)));
        assert_eq!(words.after::<u32>("gpus"), Ok(None));
        assert_eq!(words.times(), Ok(3));
        assert!(words.end().is_err());
        assert!(words.has("spot") && !words.has("spot"));
        assert_eq!(words.end(), Ok(()));
    }

    #[test]
    fn a_word_that_is_missing_or_wrong_is_named() {
        let mut words = Words::of("duration soon gpus");
        let error = words.needed::<Span>("duration").unwrap_err();
        assert_eq!(error, "duration: `soon` is not a duration such as 30s, 5m, 1h or 1d");
        assert_eq!(words.needed::<u32>("gpus").unwrap_err(), "nothing follows `gpus`");
        assert_eq!(words.next::<u32>("a number").unwrap_err(), "a number is missing");
    }
}
