//! Where an experiment's image and code come from: who may pull it, the state of the repository.

use bursar_model::{Dirty, RegistryAuth, Source};

use super::words;
use crate::{
    problem::{Problem, Report, shortened},
    raw::{RawRegistryAuth, RawSource},
};

/// A user's name at a registry; some are whole e-mail addresses, none are texts.
const USERNAME_LEN_MAX: usize = 256;

/// A folder with more files that git does not know is no source tree.
const UNTRACKED_MAX: u32 = 1_000_000;

pub(super) fn check_registry_auth(report: &mut Report, raw: RawRegistryAuth) -> Option<RegistryAuth> {
    let RawRegistryAuth { username, password } = raw;
    let username = username.unwrap_or_default();
    let fits = (1..=USERNAME_LEN_MAX).contains(&username.len())
        && !username.contains(|c: char| c == ':' || c.is_control());
    if !fits {
        let message = "is missing, too long, or holds a colon, which ends a name there";
        report.error(Problem::new("registry_auth.username", message));
    }
    let Some(password) = password else {
        let problem = Problem::new("registry_auth.password", "is missing");
        report.error(problem.hint("name where the daemon finds it: {env: NAME} or {file: /path}"));
        return None;
    };
    let password = words::secret(report, "registry_auth.password", password)?;
    fits.then_some(RegistryAuth { username, password })
}

pub(super) fn check_source(report: &mut Report, raw: RawSource) -> Option<Source> {
    let RawSource { commit, diff_sha256, untracked } = raw;
    let commit = commit.unwrap_or_default();
    // Git's two kinds of ids.
    if !is_hex(&commit, 40) && !is_hex(&commit, 64) {
        let message = format!("`{}` is no whole id of a commit", shortened(&commit));
        report.error(Problem::new("source.commit", message));
        return None;
    }
    let untracked = untracked
        .map_or(Some(0), |count| words::count(report, "source.untracked", count, 0, UNTRACKED_MAX))?;
    if diff_sha256.as_ref().is_some_and(|digest| !is_hex(digest, 64)) {
        report.error(Problem::new("source.diff_sha256", "is no SHA-256 in hex"));
        return None;
    }
    Some(Source { commit, dirty: diff_sha256.map(|diff_sha256| Dirty { diff_sha256, untracked }) })
}

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
