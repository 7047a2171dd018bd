//! A file that whoever plays the cloud writes: the local provider, and tests.

use std::{path::Path, time::Duration};

use super::{News, Notice};

/// Between two looks. A cloud's shortest notice is 30 s.
pub(super) const PAUSE: Duration = Duration::from_millis(500);

/// A file that is not there, or is still being written, is no notice.
pub(super) async fn look(path: &Path) -> Option<News> {
    let text = tokio::fs::read(path).await.ok()?;
    serde_json::from_slice::<Notice>(&text).ok().map(News::Gone)
}
