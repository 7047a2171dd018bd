//! How long logs and metrics are kept: those of ended attempts go when they are old, and the oldest of them when all
//! together are too much. What still runs keeps its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

use bursar_config::LogPolicy;
use bursar_model::{AttemptId, Clock, Span, Timestamp};
use bursar_store::Reader;
use tokio::sync::watch;
use tracing::{info, warn};

use super::{LogOf, Logs};
use crate::configuration::Configuration;

/// How often is looked for what need not be kept: days count, not minutes.
const EVERY: Span = Span::from_hours(1);

/// What is on the disk of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// In all its files.
    pub bytes: u64,
    /// When the newest of it came.
    pub newest: Timestamp,
    /// The highest rank of a node that has left any.
    pub last_node: u32,
}

/// Whose files go, the oldest first.
#[must_use]
pub fn to_remove(
    kept: &BTreeMap<AttemptId, Kept>,
    live: &BTreeSet<AttemptId>,
    policy: &LogPolicy,
    now: Timestamp,
) -> Vec<AttemptId> {
    let mut total: u64 = kept.values().map(|kept| kept.bytes).sum();
    let mut ended: Vec<_> = kept.iter().filter(|(attempt, _)| !live.contains(attempt)).collect();
    ended.sort_by_key(|(attempt, kept)| (kept.newest, **attempt));
    let mut gone = Vec::new();
    for (attempt, kept) in ended {
        if total > policy.max_total || now.since(kept.newest) > policy.keep {
            total -= kept.bytes;
            gone.push(*attempt);
        }
    }
    gone
}

/// Removes what need not be kept, now and every hour, until the daemon stops.
pub async fn look_after(
    logs: Logs,
    reader: Reader,
    configuration: Configuration,
    clock: Arc<dyn Clock>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let (logs, reader, policy) = (logs.clone(), reader.clone(), configuration.current().logs);
        let now = clock.now();
        // Thousands of files may have to be looked at: not on a worker that answers agents.
        let swept = tokio::task::spawn_blocking(move || sweep(&logs, &reader, &policy, now)).await;
        if let Ok(Err(error)) = swept {
            warn!(error = %crate::reconciler::chain(&*error), "old logs could not be looked for; they will be in an hour");
        }
        if tokio::time::timeout(EVERY.to_std(), stop.wait_for(|stop| *stop)).await.is_ok() {
            return;
        }
    }
}

fn sweep(
    logs: &Logs,
    reader: &Reader,
    policy: &LogPolicy,
    now: Timestamp,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // The files first: one that comes meanwhile is not looked at, and whose files are there is live or has ended by now.
    let kept = logs.kept()?;
    let live = reader.live_attempts()?;
    let gone = to_remove(&kept, &live, policy, now);
    let mut bytes = 0;
    for attempt in &gone {
        let Kept { bytes: own, newest: _, last_node } = kept[attempt];
        logs.remove(*attempt, last_node)?;
        bytes += own;
    }
    if !gone.is_empty() {
        info!(attempts = gone.len(), bytes, keep = %policy.keep, max_total = policy.max_total, "removed old logs");
    }
    Ok(())
}

impl Logs {
    /// What is on the disk.
    ///
    /// # Errors
    /// When the folder cannot be read.
    fn kept(&self) -> io::Result<BTreeMap<AttemptId, Kept>> {
        let mut found: BTreeMap<AttemptId, Kept> = BTreeMap::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            // Whatever else somebody put there is none of ours.
            let Some((stem, rest)) = name.to_str().and_then(|name| name.split_once('.')) else { continue };
            let Ok(attempt) = stem.parse() else { continue };
            let node = rest.split_once('.').and_then(|(node, _)| node.parse().ok()).unwrap_or(0);
            // It may be gone by now, as after a removal by hand.
            let Ok(metadata) = entry.metadata() else { continue };
            let modified =
                metadata.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
            let millis = modified.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
            let newest = Timestamp::from_millis(millis);
            let kept = found.entry(attempt).or_insert(Kept { bytes: 0, newest, last_node: 0 });
            kept.bytes += metadata.len();
            kept.newest = kept.newest.max(newest);
            kept.last_node = kept.last_node.max(node);
        }
        Ok(found)
    }

    /// Removes all files of an attempt.
    ///
    /// # Errors
    /// When one cannot be removed.
    #[expect(clippy::disallowed_methods, reason = "this is where logs meet the disk")]
    fn remove(&self, attempt: AttemptId, last_node: u32) -> io::Result<()> {
        let nodes = (0..=last_node).map(|node| LogOf { attempt, node });
        for path in nodes.flat_map(|of| [self.path(of), self.times_path(of), self.points_path(of)]) {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bursar_model::IdGen;

    use super::*;

    #[test]
    fn the_oldest_ended_go_and_what_runs_stays_however_old_and_large() {
        let mut ids = IdGen::new(1);
        let now = Timestamp::from_millis(1_800_000_000_000);
        let days = |count: i64| Span::from_hours(24 * count);
        let attempts: Vec<AttemptId> = (0..5).map(|_| ids.attempt(now)).collect();
        let kept: BTreeMap<_, _> = [(40, 10), (20, 30), (10, 30), (0, 30), (50, 100)]
            .iter()
            .zip(&attempts)
            .map(|((age, bytes), attempt)| {
                (*attempt, Kept { bytes: *bytes, newest: now - days(*age), last_node: 0 })
            })
            .collect();
        let live = BTreeSet::from([attempts[4]]);
        let gone = |keep, max_total| {
            let policy = LogPolicy { keep: days(keep), max_total };
            to_remove(&kept, &live, &policy, now)
        };
        assert!(gone(60, 200).is_empty());
        assert_eq!(gone(30, 200), [attempts[0]]);
        assert_eq!(gone(60, 160), [attempts[0], attempts[1]]);
        assert_eq!(gone(60, 0), attempts[..4], "what runs is never removed");
        assert!(
            to_remove(&BTreeMap::new(), &live, &LogPolicy { keep: days(0), max_total: 0 }, now).is_empty()
        );
    }
}
