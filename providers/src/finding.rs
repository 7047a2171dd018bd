//! What a provider finds when it looks at itself for `bursar doctor`.

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is: the provider's name, and what of it.
    pub name: String,
    /// Whether it is well.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What to do, as a command or a place: where it is not well.
    pub fix: Option<String>,
}
