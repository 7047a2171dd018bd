//! In what state the git repository of a working folder is, for the record of what is submitted.

use std::{path::Path, process::Command};

use bursar_config::RawSource;
use sha2::{Digest, Sha256};

/// The state of the repository that a folder is in; `None` where it is in none, there is no commit, or no git to ask.
pub(crate) fn source(folder: &Path) -> Option<RawSource> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
        output.status.success().then_some(output.stdout)
    };
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
    let commit = text(git(&["rev-parse", "HEAD"])?);
    // The working folder's part of the repository is what travels.
    let diff = git(&["diff", "HEAD", "--binary", "--no-ext-diff", "--no-textconv", "--relative", "--", "."])?;
    let unknown = text(git(&["ls-files", "--others", "--exclude-standard"])?);
    let untracked = i64::try_from(unknown.lines().count()).unwrap_or(i64::MAX);
    let is_dirty = !diff.is_empty() || untracked > 0;
    let digest = || Sha256::digest(&diff).iter().map(|byte| format!("{byte:02x}")).collect();
    Some(RawSource {
        commit: Some(commit),
        diff_sha256: is_dirty.then(digest),
        untracked: is_dirty.then_some(untracked),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test makes a repository")]
    fn a_change_makes_a_repository_dirty_and_another_change_has_another_digest() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(source(folder.path()), None);
        let git = |arguments: &str| {
            let identity =
                ["-c", "user.name=me", "-c", "user.email=me@example.com", "-c", "commit.gpgsign=false"];
            let mut command = Command::new("git");
            command.arg("-C").arg(folder.path()).args(identity).args(arguments.split(' '));
            assert!(command.output().unwrap().status.success(), "{arguments}");
        };
        git("init -q");
        std::fs::write(folder.path().join("train.py"), "1").unwrap();
        git("add .");
        git("commit -q -m first");
        let clean = source(folder.path()).unwrap();
        assert_eq!(clean.commit.as_ref().unwrap().len(), 40);
        assert_eq!((clean.diff_sha256, clean.untracked), (None, None));
        std::fs::write(folder.path().join("new.py"), "1").unwrap();
        let unknown = source(folder.path()).unwrap();
        assert_eq!(unknown.untracked, Some(1));
        std::fs::write(folder.path().join("train.py"), "2").unwrap();
        let changed = source(folder.path()).unwrap();
        assert_eq!(changed.commit, clean.commit);
        assert_ne!(changed.diff_sha256, unknown.diff_sha256);
    }
}
