//! Reading on in a file that somebody appends to: whole lines, each once, and a bounded amount at a time.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// How much is read at one look. Files are looked at four times a second, so this keeps up with 4 MiB a second; what comes
/// faster is read later.
const READ_BYTES_MAX: u64 = 1 << 20;

/// A longer line is passed over: it is nothing that anybody reports.
pub(crate) const LINE_BYTES_MAX: usize = 64 << 10;

/// How far a file was read.
#[derive(Debug)]
pub(crate) struct Tail {
    /// What is beyond is not read: it may be cut off.
    bytes_max: u64,
    offset: u64,
    /// Inside of a line whose beginning was passed over.
    in_long_line: bool,
    /// There was more than one look takes.
    behind: bool,
}

impl Tail {
    /// At the beginning of a file of which only so much counts.
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { bytes_max, offset: 0, in_long_line: false, behind: false }
    }

    /// Gives each whole line that was appended since to `take`, without its end. A file that is not there has none.
    pub(crate) fn read(&mut self, path: &Path, take: impl FnMut(&[u8])) {
        if let Err(error) = self.read_on(path, take)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(path = %path.display(), %error, "a file cannot be read on");
        }
    }

    /// Whether the last look left something that was there.
    pub(crate) fn is_behind(&self) -> bool {
        self.behind
    }

    fn read_on(&mut self, path: &Path, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        self.behind = false;
        let mut file = File::open(path)?;
        let len = file.metadata()?.len().min(self.bytes_max);
        if len < self.offset {
            *self = Self::new(self.bytes_max); // It was written anew.
        }
        if len == self.offset {
            return Ok(());
        }
        file.seek(SeekFrom::Start(self.offset))?;
        let mut new = Vec::new();
        file.take(READ_BYTES_MAX.min(len - self.offset)).read_to_end(&mut new)?;
        // The last line may still grow: it is read again until its end is there, or until it is too long.
        let complete = match new.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if new.len() > LINE_BYTES_MAX => new.len(),
            None => 0,
        };
        self.offset += complete as u64;
        self.behind = complete > 0 && self.offset < len;
        let mut rest = &new[..complete];
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line = &rest[..end];
            if !std::mem::take(&mut self.in_long_line) && line.len() <= LINE_BYTES_MAX {
                take(line);
            }
            rest = &rest[end + 1..];
        }
        self.in_long_line |= !rest.is_empty();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn append(path: &Path, bytes: &[u8]) {
        File::options().create(true).append(true).open(path).unwrap().write_all(bytes).unwrap();
    }

    fn lines(tail: &mut Tail, path: &Path) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            tail.read(path, |line| lines.push(String::from_utf8_lossy(line).into_owned()));
            if !tail.is_behind() {
                return lines;
            }
        }
    }

    #[test]
    fn each_line_comes_once_and_only_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut tail = Tail::new(u64::MAX);
        assert!(lines(&mut tail, &path).is_empty());
        append(&path, b"one\ntw");
        assert_eq!(lines(&mut tail, &path), ["one"]);
        append(&path, b"o\n\nthree\n");
        assert_eq!(lines(&mut tail, &path), ["two", "", "three"]);
        File::create(&path).unwrap().write_all(b"anew\n").unwrap();
        assert_eq!(lines(&mut tail, &path), ["anew"]);
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over_and_what_follows_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut tail = Tail::new(u64::MAX);
        append(&path, &vec![b'x'; 3 << 20]);
        assert!(lines(&mut tail, &path).is_empty());
        append(&path, b" its end\nnext\n");
        assert_eq!(lines(&mut tail, &path), ["next"]);
    }

    #[test]
    fn a_file_that_is_cut_at_its_bound_is_not_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut tail = Tail::new(8);
        append(&path, b"one\ntwo\nthree\n");
        assert_eq!(lines(&mut tail, &path), ["one", "two"]);
        File::options().write(true).open(&path).unwrap().set_len(8).unwrap();
        append(&path, b"four\n");
        assert!(lines(&mut tail, &path).is_empty());
    }

    #[test]
    fn more_than_a_look_takes_is_read_by_the_next_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let text: String = (0..300_000).map(|number| format!("line {number}\n")).collect();
        append(&path, text.as_bytes());
        let mut tail = Tail::new(u64::MAX);
        tail.read(&path, |_| {});
        assert!(tail.is_behind());
        assert_eq!(lines(&mut Tail::new(u64::MAX), &path).concat(), text.replace('\n', ""));
    }
}
