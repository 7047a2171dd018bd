//! What becomes of a spec's `workdir` before it travels: a folder is packed and sent to the daemon, unless it has it; of a
//! git repository the commit is looked up.

mod git;
mod pack;

use std::{collections::BTreeMap, io::IsTerminal};

use bursar_config::WorkdirSource;
use bursar_model::Workdir;
use futures::stream;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use tokio::io::AsyncReadExt;

use self::pack::{Packed, pack};
use crate::{client::Client, exit::Failure, output::note};

/// Bytes sent at once.
const CHUNK: usize = 256 << 10;

/// What was made ready, so that several specs with one folder pack it once.
#[derive(Debug, Default)]
pub(crate) struct Workdirs {
    ready: BTreeMap<String, Workdir>,
}

impl Workdirs {
    /// Makes a working folder ready to travel, and sends what the daemon does not have.
    pub(crate) async fn send(&mut self, client: &Client, source: WorkdirSource) -> Result<Workdir, Failure> {
        let key = format!("{source:?}");
        if let Some(ready) = self.ready.get(&key) {
            return Ok(ready.clone());
        }
        let workdir = match source {
            WorkdirSource::Folder(folder) => {
                let packed = pack(&folder, progress("packing {pos} files").as_ref())?;
                let Packed { digest, bytes, .. } = packed;
                tell_of(&packed);
                let path = format!("/v1/blobs/{digest}");
                if !client.is_there(&path).await? {
                    send_file(client, &path, packed).await?;
                }
                Workdir::Archive { digest, bytes }
            }
            WorkdirSource::Git { url, name, path, token } => {
                let commit = git::commit_of(&url, &name)?;
                note(&format!("workdir: {url} at {name}, which is {commit}"));
                Workdir::Git { url, commit, path, token }
            }
        };
        self.ready.insert(key, workdir.clone());
        Ok(workdir)
    }
}

/// Says what would travel, and sends nothing.
pub(crate) fn show(source: WorkdirSource) -> Result<(), Failure> {
    match source {
        WorkdirSource::Folder(folder) => {
            tell_of(&pack(&folder, progress("packing {pos} files").as_ref())?);
        }
        WorkdirSource::Git { url, name, .. } => {
            note(&format!("workdir: {url} at {name}, which is {}", git::commit_of(&url, &name)?));
        }
    }
    Ok(())
}

fn tell_of(packed: &Packed) {
    let Packed { folder, files, unpacked, bytes, outside, .. } = packed;
    note(&format!(
        "workdir: {} files of {}, {}, packed {}",
        HumanCount(*files),
        folder.display(),
        HumanBytes(*unpacked),
        HumanBytes(*bytes)
    ));
    if let Some((link, target)) = outside.first() {
        let more = if outside.len() > 1 { format!(" and {} more", outside.len() - 1) } else { String::new() };
        note(&format!(
            "warning: links that lead out of it do not travel: {} -> {}{more}",
            link.display(),
            target.display()
        ));
    }
}

async fn send_file(client: &Client, path: &str, packed: Packed) -> Result<(), Failure> {
    let bytes = packed.bytes;
    let bar = progress("sending {bytes} of {total_bytes}, {eta} left");
    if let Some(bar) = &bar {
        bar.set_length(bytes);
    }
    let file = tokio::fs::File::from_std(packed.file);
    let told = bar.clone();
    // Ends with the file: each step reads on.
    let pieces = stream::try_unfold(file, move |mut file| {
        let told = told.clone();
        async move {
            let mut chunk = vec![0; CHUNK];
            let read = file.read(&mut chunk).await?;
            chunk.truncate(read);
            if let Some(bar) = told {
                bar.inc(read as u64);
            }
            Ok::<_, std::io::Error>((read > 0).then_some((chunk, file)))
        }
    });
    client.upload(path, reqwest::Body::wrap_stream(pieces), bytes).await?;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    Ok(())
}

fn progress(template: &str) -> Option<ProgressBar> {
    std::io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template(&format!("{{spinner}} {template}"));
        ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    })
}
