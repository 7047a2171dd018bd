//! `bursar outputs`: what an experiment left behind. The daemon reads the store, so that who has no access to that can
//! fetch them too.

use std::{
    fs::{self, File},
    io::Write,
    path::{Component, Path, PathBuf},
};

use bursar_daemon::http::{OutputView, OutputsView};
use futures::StreamExt;
use sha2::{Digest, Sha256};

use super::Context;
use crate::{
    args::Outputs,
    client::Client,
    exit::{FAILED, Failure, OK, Outcome},
    output::{json, note, table},
    source::segment,
};

pub(super) async fn run(context: Context, wanted: Outputs) -> Outcome {
    let path = format!("/v1/experiments/{}/outputs", segment(&wanted.name));
    let view: OutputsView = context.client.get(&path).await?;
    if let Some(folder) = &wanted.to {
        for file in &view.files {
            fetch(&context.client, &path, file, folder).await?;
        }
    }
    for missing in &view.missing {
        note(&format!("`{missing}` was not there when the attempt ended"));
    }
    if context.json {
        json(&view)?;
        return Ok(OK);
    }
    if view.files.is_empty() {
        note("nothing was stored (yet): outputs are stored when an attempt ends");
        return Ok(OK);
    }
    let rows = view.files.into_iter().map(|file| {
        let OutputView { path, size, sha256, attempt, store } = file;
        vec![path, size.to_string(), sha256[..12.min(sha256.len())].to_owned(), attempt.to_string(), store]
    });
    table(&["path", "bytes", "sha256", "attempt", "store"], rows.collect(), &[1, 3])?;
    Ok(OK)
}

/// Fetches one file, and puts it in place once it is what it should be.
#[expect(clippy::disallowed_methods, reason = "this is where files that were asked for are written")]
async fn fetch(client: &Client, path: &str, file: &OutputView, folder: &Path) -> Result<(), Failure> {
    let target = inside(folder, &file.path)?;
    let failed =
        |error: std::io::Error| Failure::new(FAILED, format!("cannot write {}: {error}", target.display()));
    fs::create_dir_all(target.parent().unwrap_or(folder)).map_err(failed)?;
    let mut half = target.clone().into_os_string();
    half.push(".part");
    let mut written = File::create(&half).map_err(failed)?;
    let mut hasher = Sha256::new();
    let mut body =
        client.stream(&format!("{path}/file"), &[("path", file.path.clone())]).await?.bytes_stream();
    while let Some(piece) = body.next().await {
        let piece = piece?;
        hasher.update(&piece);
        written.write_all(&piece).map_err(failed)?;
    }
    let found: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if found != file.sha256 {
        let message = format!("{} is not what was stored: its SHA-256 is {found}", file.path);
        return Err(
            Failure::new(FAILED, message).hint(format!("what came is in {}", PathBuf::from(half).display()))
        );
    }
    fs::rename(&half, &target).map_err(failed)
}

/// Where a file goes. What the other side says must not write elsewhere.
fn inside(folder: &Path, path: &str) -> Result<PathBuf, Failure> {
    let stays =
        !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    match stays {
        true => Ok(folder.join(path)),
        false => Err(Failure::new(FAILED, format!("`{path}` leads out of the folder: nothing was fetched"))),
    }
}
