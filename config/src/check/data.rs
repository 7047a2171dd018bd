//! Stores, and what an experiment gets from them and leaves there. Whether a store is there shows when it is used: nothing
//! is asked here.

use std::{
    collections::BTreeMap,
    path::{Component, Path},
};

use bursar_model::DataSpec;

use super::words;
use crate::{
    config::{Config, Storage},
    problem::{Problem, Report, did_you_mean, shortened},
    raw::{RawOutputs, RawStorage},
};

/// How many checkpoints of an experiment are kept where nobody says: one more than is needed, should the newest be damaged.
const CHECKPOINTS_KEPT_DEFAULT: u32 = 2;
/// More is an archive.
const CHECKPOINTS_KEPT_MAX: u32 = 1000;
/// The longest path of most systems, and of an object.
const PATH_LEN_MAX: usize = 1024;
/// Each is listed, and told to the agent.
const ENTRIES_MAX: usize = 256;

/// The stores that can be used, by the scheme of their URLs, and what opens them beside what instances have themselves.
const STORES: &[(&str, &[&str])] = &[
    ("s3", &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]),
    ("gs", &["GOOGLE_SERVICE_ACCOUNT_KEY"]),
    ("az", &["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_TOKEN"]),
    ("file", &[]),
];

/// The installation's store.
pub(super) fn check_storage(report: &mut Report, raw: RawStorage) -> Option<Storage> {
    let RawStorage { url, endpoint, region, credentials, checkpoints_kept } = raw;
    if let Some(endpoint) = &endpoint
        && !["http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme))
    {
        let problem = Problem::new("storage.endpoint", format!("`{}` is no address", shortened(endpoint)));
        report.error(problem.hint("write `https://host` or `http://host:port`"));
    }
    let checkpoints_kept = checkpoints_kept
        .and_then(|n| words::count(report, "storage.checkpoints_kept", n, 1, CHECKPOINTS_KEPT_MAX))
        .unwrap_or(CHECKPOINTS_KEPT_DEFAULT);
    let Some(url) = url else {
        let problem = Problem::new("storage.url", "is missing");
        report.error(problem.hint("name a place, such as `s3://bucket/prefix` or `file:///shared/folder`"));
        return None;
    };
    let url = store_url(report, "storage.url", &url)?;
    let scheme = scheme_of(&url);
    let known = STORES.iter().find(|(store, _)| *store == scheme).map_or(&[][..], |(_, names)| names);
    let credentials = credentials.into_iter().filter_map(|(name, secret)| {
        let path = format!("storage.credentials.{name}");
        if !known.contains(&&*name) {
            let message = format!("`{}` opens no store of {scheme}://", shortened(&name));
            let hint = did_you_mean(&name, known.iter().copied());
            let hint = hint.unwrap_or_else(|| format!("it takes {}", known.join(", ")));
            report.error(Problem::new(&*path, message).hint(hint));
        }
        Some((name, words::secret(report, &path, secret)?))
    });
    let credentials = credentials.collect();
    Some(Storage { url, endpoint, region, credentials, checkpoints_kept })
}

/// The mounts and outputs of an experiment.
pub(super) fn check_data(
    report: &mut Report,
    mounts: BTreeMap<String, String>,
    outputs: RawOutputs,
    config: Option<&Config>,
) -> DataSpec {
    for (path, count) in [("mounts", mounts.len()), ("outputs", outputs.0.len())] {
        if count > ENTRIES_MAX {
            report.error(Problem::new(path, format!("{count} are more than {ENTRIES_MAX}")));
        }
    }
    let mut data = DataSpec::default();
    for (target, url) in mounts {
        let path = format!("mounts.{target}");
        folder(report, &path, &target);
        if let Some(url) = store_url(report, &path, &url) {
            data.mounts.insert(target, url);
        }
    }
    for (source, url) in outputs.0 {
        let path = format!("outputs.{source}");
        if Path::new(&source).is_absolute() {
            let problem = Problem::new(&*path, "is no path from the working folder");
            report.error(problem.hint("outputs are what `run` leaves below the folder that it starts in"));
        } else {
            folder(report, &path, &source);
        }
        let url = url.map(|url| store_url(report, &path, &url));
        if url.is_none() && config.is_some_and(|config| config.storage.is_none()) {
            let problem = Problem::new(&*path, "there is no store here that it could be kept in");
            report.error(problem.hint(
                "name one, such as `outputs: {results: \"s3://bucket/results\"}`, or have `storage.url` configured",
            ));
        }
        data.outputs.insert(source, url.flatten());
    }
    data
}

/// A place in a store.
pub(super) fn store_url(report: &mut Report, path: &str, url: &str) -> Option<String> {
    let known = STORES.iter().any(|(scheme, _)| scheme_of(url) == *scheme);
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let problem = if !known {
        let schemes: Vec<_> = STORES.iter().map(|(scheme, _)| format!("{scheme}://")).collect();
        let message = format!("`{}` is no place in a store", shortened(url));
        Problem::new(path, message).hint(format!("begin with one of {}", schemes.join(", ")))
    } else if url.len() > PATH_LEN_MAX || url.contains(char::is_control) || url.contains(['?', '#', '@', ' '])
    {
        Problem::new(path, "is no URL of a place: no `?`, `#`, `@` or space, and 1024 bytes at most")
    } else if scheme_of(url) == "file" && !rest.starts_with('/') {
        Problem::new(path, format!("`{}` names no folder", shortened(url))).hint("write `file:///folder`")
    } else if rest.is_empty() || scheme_of(url) != "file" && rest.starts_with('/') {
        Problem::new(path, format!("`{}` names no bucket", shortened(url)))
    } else if rest.split('/').any(|part| part == "..") {
        Problem::new(path, "a place in a store is not named by way of `..`")
    } else {
        return Some(url.trim_end_matches('/').to_owned());
    };
    report.error(problem);
    None
}

/// A path that is absolute, or leads into the working folder.
pub(super) fn folder(report: &mut Report, path: &str, text: &str) {
    let goes_up = Path::new(text).components().any(|part| part == Component::ParentDir);
    let is_the_folder_itself = !Path::new(text).components().any(|part| matches!(part, Component::Normal(_)));
    if text.len() > PATH_LEN_MAX || text.contains('\0') || goes_up || is_the_folder_itself {
        let problem = Problem::new(path, format!("`{}` is no path that can be used here", shortened(text)));
        report.error(problem.hint("a path below the working folder, without `..`, or an absolute one"));
    }
}

fn scheme_of(url: &str) -> &str {
    url.split_once("://").map_or("", |(scheme, _)| scheme)
}
