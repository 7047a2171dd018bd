//! The files of a bill: opened, decompressed where they have to be, and read with a bar that shows how far it is.

use std::{
    fs::File,
    io::{BufRead, BufReader, IsTerminal, Read, stderr},
    path::{Path, PathBuf},
};

use bursar_ledger::bill::{Bill, FileRead};
use flate2::bufread::MultiGzDecoder;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::exit::{Failure, NOT_FOUND, USAGE};

/// How gzip begins (RFC 1952). AWS writes its exports so, in several members one after the other where they are large.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Read from the disk at once.
const BUFFER_BYTES: usize = 256 << 10;

/// What was found in a file.
#[derive(Debug, Serialize)]
pub(super) struct NamedFile {
    /// As it was given.
    pub(super) file: PathBuf,
    #[serde(flatten)]
    pub(super) read: FileRead,
}

/// Reads all of a bill's files.
pub(super) fn read_bill(
    files: &[PathBuf],
    is_known: impl Fn(&str) -> bool,
) -> Result<(Bill, Vec<NamedFile>), Failure> {
    let opened = files.iter().map(|file| open(file)).collect::<Result<Vec<_>, _>>()?;
    for (index, (path, ..)) in opened.iter().enumerate() {
        if opened[..index].iter().any(|(earlier, ..)| earlier == path) {
            let message = format!("{} was given twice: its rows would count twice", path.display());
            return Err(Failure::new(USAGE, message));
        }
    }
    let bar = bar(opened.iter().map(|(_, _, bytes)| bytes).sum());
    let mut bill = Bill::default();
    let mut read = Vec::with_capacity(files.len());
    for (name, (_, file, _)) in files.iter().zip(opened) {
        bar.set_message(name.display().to_string());
        let found = read_file(&mut bill, bar.wrap_read(file), &is_known);
        let found = found.map_err(|failure| {
            bar.finish_and_clear();
            Failure { message: format!("{}: {}", name.display(), failure.message), ..failure }
        })?;
        read.push(NamedFile { file: name.clone(), read: found });
    }
    bar.finish_and_clear();
    Ok((bill, read))
}

fn read_file(bill: &mut Bill, file: impl Read, is_known: impl Fn(&str) -> bool) -> Result<FileRead, Failure> {
    let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
    let is_gzip = file.fill_buf()?.starts_with(&GZIP);
    let read =
        if is_gzip { bill.read(MultiGzDecoder::new(file), is_known) } else { bill.read(file, is_known) };
    Ok(read?)
}

/// The file with its only name and its length in bytes.
fn open(path: &Path) -> Result<(PathBuf, File, u64), Failure> {
    let named = |error: std::io::Error| {
        let code = if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { USAGE };
        Failure::new(code, format!("{} cannot be read: {error}", path.display()))
    };
    let only = path.canonicalize().map_err(named)?;
    let file = File::open(&only).map_err(named)?;
    let bytes = file.metadata().map_err(named)?.len();
    Ok((only, file, bytes))
}

/// A bar for people who watch.
fn bar(bytes: u64) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes}  {eta}  {msg}");
    ProgressBar::new(bytes).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
