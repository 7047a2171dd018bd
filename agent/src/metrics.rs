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
        let Ok(serde_json::Value::Object(object)) = serde_json::from_slice(line) else { return };
        for (name, value) in object {
            let Some(value) = value.as_f64() else { continue };
            if self.values.contains_key(&name) || self.values.len() < METRICS_MAX {
                self.values.insert(name, value);
            }
        }
    }
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
