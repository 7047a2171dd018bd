//! What is wrong with a document: every problem at once, each with its place and, where we know one, a way out.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How many problems of one document are kept. A person mends the first few and asks again; a file that is not meant
/// for us at all would otherwise fill the terminal.
pub(crate) const PROBLEMS_MAX: usize = 100;

/// One thing that is wrong, or looks wrong, with a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The file, or the environment variable, that it stands in; none for what came over the wire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Where in the file, where it came from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// The key, such as `resources.accelerators[1]`; empty for the document as a whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key_path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
}

/// Everything that is wrong with a document, in the order of its lines. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Problems(pub Vec<Problem>);

/// A checked value with what looks wrong but may be meant.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked<T> {
    /// The value.
    pub value: T,
    /// What to show beside it.
    pub warnings: Vec<Problem>,
}

/// Collects problems while a document is read and checked.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) errors: Vec<Problem>,
    pub(crate) warnings: Vec<Problem>,
}

impl Problem {
    /// What is wrong with a key of what came from no file.
    #[must_use]
    pub fn new(key_path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { source: None, place: None, key_path: key_path.into(), message: message.into(), hint: None }
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }
}

impl Problem {
    /// `file:line:column:` as compilers write it, as far as it is known.
    #[must_use]
    pub fn position(&self) -> String {
        match (&self.source, self.place) {
            (None, _) => String::new(),
            (Some(source), None) => format!("{source}:"),
            (Some(source), Some(Place { line, column })) => format!("{source}:{line}:{column}:"),
        }
    }
}

impl Report {
    /// Takes note of what makes the document unusable.
    pub(crate) fn error(&mut self, problem: Problem) {
        if self.errors.len() < PROBLEMS_MAX {
            self.errors.push(problem);
        }
    }

    /// Takes note of what looks wrong but may be meant.
    pub(crate) fn warn(&mut self, problem: Problem) {
        if self.warnings.len() < PROBLEMS_MAX {
            self.warnings.push(problem);
        }
    }

    /// The value of a result, or its error as a problem of that key.
    pub(crate) fn take<T, E: fmt::Display>(&mut self, key_path: &str, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.error(Problem::new(key_path, error.to_string()));
                None
            }
        }
    }

    /// The value with the warnings, unless there was an error.
    pub(crate) fn finish<T>(self, value: T) -> Result<Checked<T>, Problems> {
        if self.errors.is_empty() {
            Ok(Checked { value, warnings: self.warnings })
        } else {
            Err(Problems(self.errors))
        }
    }
}

/// The known word that was probably meant, as a hint.
pub(crate) fn did_you_mean<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    closest(written, known).map(|word| format!("did you mean `{word}`?"))
}

/// The known word that was probably meant. Nothing where none is close: a wild guess misleads.
pub(crate) fn closest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Comparing takes time in proportion to the length, and no word of ours is nearly as long.
    const WORD_LEN_MAX: usize = 64;
    if written.len() > WORD_LEN_MAX {
        return None;
    }
    let lower = written.to_lowercase();
    known
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(&lower, &word.to_lowercase()), word))
        // A third of the letters may differ, so that `retrys` finds `retry` and `x` does not find `run`.
        .filter(|(distance, word)| distance * 3 <= word.chars().count().max(3))
        .min()
        .map(|(_, word)| word)
}

/// What is shown of a text that is wrong.
pub(crate) fn shortened(text: &str) -> String {
    const SHOWN_MAX: usize = 40;
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
    .replace(char::is_control, "?")
}

/// As compilers write it, so that editors and terminals make it a link: `exp.yaml:7:5: key.path: message`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source: _, place: _, key_path, message, hint } = self;
        let position = self.position();
        if !position.is_empty() {
            write!(f, "{position} ")?;
        }
        if !key_path.is_empty() {
            write!(f, "{key_path}: ")?;
        }
        f.write_str(message)?;
        if let Some(hint) = hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
