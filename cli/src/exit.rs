//! Exit codes, and errors that know theirs.

use std::fmt;

/// All went well.
pub(crate) const OK: u8 = 0;
/// It failed: what was asked for did not happen, or an experiment that was waited for failed.
pub(crate) const FAILED: u8 = 1;
/// The command or a file was not understood.
pub(crate) const USAGE: u8 = 2;
/// A budget or a policy refused.
pub(crate) const REFUSED: u8 = 3;
/// There is no such experiment, sweep or instance.
pub(crate) const NOT_FOUND: u8 = 4;
/// The daemon does not answer.
pub(crate) const UNREACHABLE: u8 = 5;

/// What a command that went well says to the shell, or what it says when it did not.
pub(crate) type Outcome = Result<u8, Failure>;

/// Why a command failed: what, and what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What the shell is told.
    pub(crate) code: u8,
    /// What the person is told.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with where it comes from, as `file:line:column:`.
    pub(crate) fn at(mut self, position: &str) -> Self {
        if !position.is_empty() {
            self.message = format!("{position} {}", self.message);
        }
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

/// Any other error: with all that lies beneath it.
impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(FAILED, format!("{:#}", error.into()))
    }
}
