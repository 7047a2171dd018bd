//! The newest value of each metric, from the JSON lines that an experiment appends to `BURSAR_METRICS`.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// How much of the file is read at once. Of what is further back only older values would be learned.
const READ_BYTES_MAX: u64 = 1 << 20;

/// A longer line than this is no set of metrics.
const LINE_BYTES_MAX: usize = 64 << 10;

/// How many metrics one attempt may have: each travels with every heartbeat.
const METRICS_MAX: usize = 256;

/// What was read so far.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    offset: u64,
    values: BTreeMap<String, f64>,
}

impl Metrics {
    /// Reads what was appended since, and gives the newest values.
    pub(crate) fn read(&mut self, path: &Path) -> &BTreeMap<String, f64> {
        if let Err(error) = self.read_on(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(path = %path.display(), %error, "metrics cannot be read");
        }
        &self.values
    }

    fn read_on(&mut self, path: &Path) -> io::Result<()> {
        let mut file = File::open(path)?;
        let len = file.metadata()?.len();
        if len < self.offset {
            self.offset = 0; // It was written anew.
        }
        let skipped = len.saturating_sub(READ_BYTES_MAX) > self.offset;
        self.offset = self.offset.max(len.saturating_sub(READ_BYTES_MAX));
        file.seek(SeekFrom::Start(self.offset))?;
        let mut new = Vec::new();
        file.take(READ_BYTES_MAX).read_to_end(&mut new)?;
        // The last line may still grow: it is read again until its end is there, or until it is too long to be one.
        let complete = match new.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if new.len() > LINE_BYTES_MAX => new.len(),
            None => 0,
        };
        self.offset += complete as u64;
        for line in new[..complete].split(|byte| *byte == b'\n').skip(usize::from(skipped)) {
            self.take_line(line);
        }
        Ok(())
    }

    /// Whatever is not an object of numbers is passed over: an experiment may write what it likes.
    fn take_line(&mut self, line: &[u8]) {
        if line.len() > LINE_BYTES_MAX {
            return;
        }
        let read = serde_json::from_slice(line).or_else(|_| serde_json::from_slice(&with_nulls(line)));
        let Ok(serde_json::Value::Object(object)) = read else { return };
        for (name, value) in object {
            let value = if value.is_null() { Some(f64::NAN) } else { value.as_f64() };
            let Some(value) = value else { continue };
            if self.values.contains_key(&name) || self.values.len() < METRICS_MAX {
                self.values.insert(name, value);
            }
        }
    }
}

/// The line with null for each `NaN` and `Infinity` outside of text. Python writes them so, which is no JSON; yet a run
/// that diverged must not look as if it had stopped to report.
fn with_nulls(line: &[u8]) -> Vec<u8> {
    const WORDS: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];
    let mut made = Vec::with_capacity(line.len() + 8);
    let (mut rest, mut in_text) = (line, false);
    while let Some(byte) = rest.first() {
        let word = WORDS.iter().find(|word| !in_text && rest.starts_with(word));
        let taken = match word {
            Some(word) => {
                made.extend_from_slice(b"null");
                word.len()
            }
            // What is escaped does not end a text.
            None if in_text && *byte == b'\\' => 2.min(rest.len()),
            None => 1,
        };
        if word.is_none() {
            in_text ^= *byte == b'"';
            made.extend_from_slice(&rest[..taken]);
        }
        rest = &rest[taken..];
    }
    made
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn append(path: &Path, bytes: &[u8]) {
        let mut file = File::options().create(true).append(true).open(path).unwrap();
        file.write_all(bytes).unwrap();
    }

    #[test]
    fn the_last_number_of_each_key_counts_and_broken_lines_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut metrics = Metrics::default();
        assert!(metrics.read(&path).is_empty());
        append(
            &path,
            b"{\"step\": 1, \"loss\": 0.5}\nnonsense\n[1]\n{\"loss\": \"NaN\", \"step\": 2}\n{\"step\"",
        );
        assert_eq!(
            *metrics.read(&path),
            BTreeMap::from([("loss".to_owned(), 0.5), ("step".to_owned(), 2.0)])
        );
        append(&path, b": 3}\n");
        assert_eq!(metrics.read(&path)["step"], 3.0);
    }

    #[test]
    fn a_run_that_diverged_still_reports() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut metrics = Metrics::default();
        append(
            &path,
            b"{\"step\": 1, \"loss\": 0.5, \"acc\": 0.1}\n{\"step\": 2, \"loss\": NaN, \"acc\": null, \"a \\\" NaN\": -Infinity}\n",
        );
        let values = metrics.read(&path);
        assert_eq!(values["step"], 2.0);
        assert!(values["loss"].is_nan() && values["acc"].is_nan() && values["a \" NaN"].is_nan());
    }

    #[test]
    fn a_line_without_end_does_not_stop_what_follows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut metrics = Metrics::default();
        append(&path, &vec![b'x'; 3 << 20]);
        assert!(metrics.read(&path).is_empty());
        append(&path, b"\n{\"step\": 4}\n");
        assert_eq!(metrics.read(&path)["step"], 4.0);
    }
}
