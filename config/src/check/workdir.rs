//! A working folder: what it starts with, and what has to be done before it can travel.
//!
//! A spec that travels names an archive by its digest, or a commit by its full id. A path, a branch or a tag mean
//! something only where they were written, so whoever reads a *file* (`load_spec`) takes them out first, as a
//! `WorkdirSource`, and puts in what became of them.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use bursar_model::{
    Workdir,
    workdir::{Digest, PACKED_BYTES_MAX, is_inside},
};

use crate::{
    problem::{Problem, Report, shortened},
    raw::{RawSecret, RawWorkdir, RawWorkdirMap},
};

/// The longest path of most systems; longer URLs are no repositories.
const PATH_LEN_MAX: usize = 4096;

/// How git repositories may be reached. Others, such as `ext::`, run commands.
const SCHEMES: [&str; 5] = ["https", "http", "ssh", "git", "file"];

/// What a spec's working folder is made from, on the machine where the spec was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkdirSource {
    /// A folder, by its absolute path: to be packed.
    Folder(PathBuf),
    /// A git repository: the commit that the name stands for is to be found.
    Git {
        /// Where it is.
        url: String,
        /// A branch, a tag, or `HEAD`.
        name: String,
        /// The folder inside it.
        path: Option<String>,
        /// The variable of `secrets` with its token.
        token: Option<String>,
    },
}

/// What was written, well formed.
enum Written {
    Folder(String),
    Archive { digest: Digest, bytes: u64 },
    Git { url: String, name: Option<String>, path: Option<String>, token: Option<String> },
}

/// What travelled with a spec: only what means the same everywhere.
pub(super) fn check_workdir(
    report: &mut Report,
    raw: RawWorkdir,
    secrets: &BTreeMap<String, RawSecret>,
) -> Option<Workdir> {
    let problem = match well_formed(report, raw, secrets)? {
        Written::Archive { digest, bytes } => return Some(Workdir::Archive { digest, bytes }),
        Written::Git { url, name: Some(commit), path, token } if is_commit(&commit) => {
            return Some(Workdir::Git { url, commit, path, token });
        }
        Written::Git { name, .. } => {
            let name = name.unwrap_or_else(|| "HEAD".to_owned());
            let message = format!("`{}` is no full commit id", shortened(&name));
            Problem::new("workdir", message).hint("`bursar submit` finds the commit of a branch or tag; a spec that is sent otherwise names it by all its hexadecimal digits")
        }
        Written::Folder(path) => {
            let message = format!("`{}` is a path, which means nothing on another machine", shortened(&path));
            Problem::new("workdir", message).hint("`bursar submit` packs and sends it; a spec that is sent otherwise names an archive that was put to /v1/blobs, or a git repository at a commit")
        }
    };
    report.error(problem);
    None
}

/// What a file says that cannot travel as it is written; `raw` keeps the rest.
pub(crate) fn take_source(
    report: &mut Report,
    raw: &mut Option<RawWorkdir>,
    secrets: &BTreeMap<String, RawSecret>,
    folder: &Path,
) -> Option<WorkdirSource> {
    let written = raw.take()?;
    match well_formed(report, written.clone(), secrets)? {
        Written::Folder(path) if path.starts_with('~') => {
            let problem = Problem::new("workdir", "`~` is not replaced");
            report.error(problem.hint("write a path that counts from the folder of this file"));
            None
        }
        Written::Folder(path) if folder.join(&path).components().all(|part| part == Component::RootDir) => {
            let problem = Problem::new("workdir", format!("`{path}` is all of this machine"));
            report.error(
                problem.hint("name the folder of the project, such as `workdir: .` for that of this file"),
            );
            None
        }
        Written::Folder(path) => {
            // `join` keeps an absolute path as it is; the components drop the `.` of `./data`.
            Some(WorkdirSource::Folder(folder.join(path).components().collect()))
        }
        Written::Git { url, name, path, token } if !name.as_deref().is_some_and(is_commit) => {
            let name = name.unwrap_or_else(|| "HEAD".to_owned());
            Some(WorkdirSource::Git { url, name, path, token })
        }
        Written::Git { .. } | Written::Archive { .. } => {
            *raw = Some(written);
            None
        }
    }
}

/// Whether this is the full id of a commit: SHA-1, or SHA-256 in newer repositories.
fn is_commit(name: &str) -> bool {
    matches!(name.len(), 40 | 64) && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn well_formed(
    report: &mut Report,
    raw: RawWorkdir,
    secrets: &BTreeMap<String, RawSecret>,
) -> Option<Written> {
    match raw {
        RawWorkdir::Text(text) if is_git_url(&text) => {
            let (url, name) = match at_of_name(&text) {
                Some(at) => (text[..at].to_owned(), Some(text[at + 1..].to_owned())),
                None => (text, None),
            };
            git(report, "workdir", (url, name, None, None), secrets)
        }
        RawWorkdir::Text(path) if path.is_empty() || path.len() > PATH_LEN_MAX || path.contains('\0') => {
            report.error(Problem::new("workdir", "is no path"));
            None
        }
        RawWorkdir::Text(path) => Some(Written::Folder(path)),
        RawWorkdir::Map(RawWorkdirMap { git: Some(url), r#ref, path, token, archive: None, bytes: None }) => {
            git(report, "workdir.git", (url, r#ref, path, token), secrets)
        }
        RawWorkdir::Map(RawWorkdirMap {
            git: None,
            r#ref: None,
            path: None,
            token: None,
            archive: Some(digest),
            bytes: Some(bytes),
        }) => {
            let digest = report.take("workdir.archive", digest.parse());
            let bytes = u64::try_from(bytes).ok().filter(|bytes| (1..=PACKED_BYTES_MAX).contains(bytes));
            if bytes.is_none() {
                report.error(Problem::new("workdir.bytes", format!("is not from 1 to {PACKED_BYTES_MAX}")));
            }
            Some(Written::Archive { digest: digest?, bytes: bytes? })
        }
        RawWorkdir::Map(_) => {
            let problem = Problem::new("workdir", "is neither a git repository nor an archive");
            report.error(problem.hint("write a path, or {git: URL, ref: NAME}"));
            None
        }
    }
}

type GitParts = (String, Option<String>, Option<String>, Option<String>);

fn git(
    report: &mut Report,
    key: &str,
    (url, name, path, token): GitParts,
    secrets: &BTreeMap<String, RawSecret>,
) -> Option<Written> {
    let mut problem = None;
    let scheme = url.split_once("://").map_or("ssh", |(scheme, _)| scheme);
    let authority = url[..path_start(&url)].split_once("://").map_or("", |(_, authority)| authority);
    let user = authority.rsplit_once('@').map(|(user, _)| user);
    let is_word = |text: &str| {
        !text.is_empty()
            && text.len() <= PATH_LEN_MAX
            && !text.starts_with('-')
            && !text.contains(|c: char| c.is_whitespace() || c.is_control())
    };
    if !is_git_url(&url) || !SCHEMES.contains(&scheme) || !is_word(&url) {
        let message = format!("`{}` is no URL of a git repository", shortened(&url));
        problem = Some(Problem::new(key, message).hint(format!("one of {}", SCHEMES.join(", "))));
    } else if user.is_some_and(|user| scheme.starts_with("http") || user.contains(':')) {
        // Not shown: it may hold a password.
        let hint = "put the token into `secrets` and write {git: URL, ref: NAME, token: NAME_OF_THE_SECRET}";
        problem = Some(Problem::new(key, "a URL with a user or password would be stored").hint(hint));
    } else if name.as_deref().is_some_and(|name| !is_word(name)) {
        problem = Some(Problem::new("workdir.ref", "is no branch, tag or commit"));
    } else if path.as_deref().is_some_and(|path| path.is_empty() || !is_inside(Path::new(path))) {
        problem = Some(Problem::new("workdir.path", "is no folder inside the repository"));
    } else if let Some(token) = &token
        && !secrets.contains_key(token)
    {
        let message = format!("there is no `{}` in `secrets`", shortened(token));
        problem = Some(Problem::new("workdir.token", message));
    } else if token.is_some() && scheme != "https" {
        problem =
            Some(Problem::new("workdir.token", "is sent over https alone: others on the way would read it"));
    }
    match problem {
        Some(problem) => {
            report.error(problem);
            None
        }
        None => Some(Written::Git { url, name, path, token }),
    }
}

fn is_git_url(text: &str) -> bool {
    text.contains("://") || text.starts_with("git@")
}

/// Where the `@` of a branch, tag or commit stands: the first behind the host, as that may have one for a user.
fn at_of_name(url: &str) -> Option<usize> {
    let start = path_start(url);
    url[start..].find('@').map(|at| start + at)
}

/// Where the path of a URL begins: `https://host/` or `git@host:`.
fn path_start(url: &str) -> usize {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = if host == 0 { ':' } else { '/' };
    url[host..].find(end).map_or(url.len(), |at| host + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn read(text: &str) -> Result<(Option<WorkdirSource>, Option<RawWorkdir>), String> {
        let secrets = BTreeMap::from([("TOKEN".to_owned(), RawSecret::default())]);
        let mut raw = Some(serde_json::from_str(text).unwrap());
        let mut report = Report::default();
        let source = take_source(&mut report, &mut raw, &secrets, Path::new("/home/me"));
        match report.errors.first() {
            Some(problem) => Err(problem.to_string()),
            None => Ok((source, raw)),
        }
    }

    fn git_source(url: &str, name: &str) -> Option<WorkdirSource> {
        Some(WorkdirSource::Git { url: url.to_owned(), name: name.to_owned(), path: None, token: None })
    }

    #[test]
    fn a_repository_is_written_with_its_branch_behind_an_at() {
        for (text, url, name) in [
            ("https://host/a/b.git@main", "https://host/a/b.git", "main"),
            ("https://host/a/b.git@feature/x", "https://host/a/b.git", "feature/x"),
            ("https://host/a/b.git", "https://host/a/b.git", "HEAD"),
            ("ssh://git@host:22/a/b@v1", "ssh://git@host:22/a/b", "v1"),
            ("git@host:a/b.git@v1.2", "git@host:a/b.git", "v1.2"),
            ("git@host:a/b.git", "git@host:a/b.git", "HEAD"),
            ("file:///srv/b.git@main", "file:///srv/b.git", "main"),
        ] {
            assert_eq!(read(&format!("\"{text}\"")).unwrap().0, git_source(url, name), "{text}");
        }
    }

    #[test]
    fn what_means_the_same_everywhere_stays_as_it_is_written() {
        for text in [
            format!("\"https://host/b.git@{COMMIT}\""),
            format!(r#"{{"git": "https://host/b.git", "ref": "{COMMIT}", "path": "sub", "token": "TOKEN"}}"#),
            format!(r#"{{"archive": "{}", "bytes": 7}}"#, "0".repeat(64)),
        ] {
            let (source, raw) = read(&text).unwrap();
            assert_eq!(source, None, "{text}");
            assert!(
                check_workdir(
                    &mut Report::default(),
                    raw.unwrap(),
                    &BTreeMap::from([("TOKEN".to_owned(), RawSecret::default())])
                )
                .is_some()
            );
        }
    }

    #[test]
    fn what_would_leak_or_run_something_is_refused() {
        for (text, why) in [
            (r#""https://me:pass@host/b.git""#, "would be stored"),
            (r#""https://token@host/b.git""#, "would be stored"),
            (r#""ext::sh -c evil://""#, "no URL"),
            (r#"{"git": "--upload-pack=evil"}"#, "no URL"),
            (r#"{"git": "https://host/b", "ref": "--all"}"#, "no branch"),
            (r#"{"git": "https://host/b", "path": "../.."}"#, "no folder inside"),
            (r#"{"git": "https://host/b", "token": "OTHER"}"#, "no `OTHER` in `secrets`"),
            (r#"{"git": "http://host/b", "token": "TOKEN"}"#, "https alone"),
            (r#"{"git": "https://host/b", "archive": "00"}"#, "neither"),
            (r#"{"archive": "../../etc", "bytes": 7}"#, "hexadecimal"),
        ] {
            let problem = read(text).unwrap_err();
            assert!(problem.contains(why), "{text}: {problem}");
            assert!(!problem.contains("me:pass"), "{problem}");
        }
    }

    #[test]
    fn a_path_or_a_branch_that_travelled_is_refused_with_a_way_out() {
        for text in ["/home/me/code", "code", "https://host/b.git@main", "https://host/b.git"] {
            let mut report = Report::default();
            assert_eq!(check_workdir(&mut report, RawWorkdir::Text(text.to_owned()), &BTreeMap::new()), None);
            assert!(report.errors[0].to_string().contains("`bursar submit`"), "{text}");
        }
    }
}
