//! When each part of a log came: a file of marks beside it, so that what came since a moment is found without reading the
//! log. What people print carries no time, and what does is in a thousand forms.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    path::Path,
};

use bursar_model::{Span, Timestamp};

/// What follows a mark came within so long of it. A month of marks is 4 MB.
const SPACING: Span = Span::from_secs(10);

/// A moment and an offset, eight bytes each.
const MARK_LEN: usize = 16;

/// What follows this offset came then or later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    at: Timestamp,
    offset: u64,
}

/// Writes a mark, unless the last one still speaks for what came now.
pub(super) fn note(path: &Path, at: Timestamp, offset: u64) -> io::Result<()> {
    let mut file = File::options().create(true).read(true).append(true).open(path)?;
    // What a crash has left of a mark would put all that follow out of step.
    let whole = file.metadata()?.len() / MARK_LEN as u64 * MARK_LEN as u64;
    file.set_len(whole)?;
    if let Some(before) = whole.checked_sub(MARK_LEN as u64) {
        let mut last = [0; MARK_LEN];
        file.read_exact_at(&mut last, before)?;
        if at < parse(last).at + SPACING {
            return Ok(());
        }
    }
    let mut mark = [0; MARK_LEN];
    mark[..8].copy_from_slice(&at.as_millis().to_le_bytes());
    mark[8..].copy_from_slice(&offset.to_le_bytes());
    file.write_all(&mark)
}

/// All marks, in order. None where there is no file.
pub(super) async fn read(path: &Path) -> io::Result<Vec<Mark>> {
    let bytes = match tokio::fs::read(path).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    Ok(bytes.as_chunks::<MARK_LEN>().0.iter().map(|mark| parse(*mark)).collect())
}

/// Where what came since then begins; nothing where all came before.
pub(super) fn place(marks: &[Mark], since: Timestamp) -> Option<u64> {
    marks.iter().find(|mark| mark.at + SPACING > since).map(|mark| mark.offset)
}

fn parse(mark: [u8; MARK_LEN]) -> Mark {
    let [at, offset] = [0, 8].map(|from| {
        let mut number = [0; 8];
        number.copy_from_slice(&mark[from..from + 8]);
        u64::from_le_bytes(number)
    });
    Mark { at: Timestamp::from_millis(at.cast_signed()), offset }
}
