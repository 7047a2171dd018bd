//! Finding lines in a file from behind, a block at a time: a log may be long, and its end is what people look at.

use std::io::{self, SeekFrom};

use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
};

/// Bytes read at once.
const BLOCK: u64 = 64 * 1024;

/// Where the last so many lines begin. A line that has not ended yet counts as one.
pub(super) async fn last(file: &mut File, len: u64, lines: u64) -> io::Result<u64> {
    if len == 0 || lines == 0 {
        return Ok(len);
    }
    // The end of the last line begins no other.
    back(file, len - 1, lines - 1).await
}

/// The beginning of the line that `position` is in, or of the line so many before.
pub(super) async fn back(file: &mut File, position: u64, lines: u64) -> io::Result<u64> {
    let (mut end, mut left) = (position, lines);
    // Ends at the beginning of the file: each round looks at a block before the last one.
    while end > 0 {
        let begin = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(begin)).await?;
        let mut block = vec![0; usize::try_from(end - begin).expect("a block is small")];
        file.read_exact(&mut block).await?;
        for (index, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            if left == 0 {
                return Ok(begin + index as u64 + 1);
            }
            left -= 1;
        }
        end = begin;
    }
    Ok(0)
}
