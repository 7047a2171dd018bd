//! What an experiment reports: JSON lines that it appends to `BURSAR_METRICS`, or prints with a prefix. The newest value of
//! each metric is for decisions and travels with every report; the points are for people.

use std::{collections::BTreeMap, time::Duration};

use bursar_model::agent_api::LOG_BYTES_MAX;

use crate::{
    folder::Folder,
    points::{Points, Source},
    tail::Tail,
};

/// How many metrics one attempt may have: each travels with every heartbeat.
const METRICS_MAX: usize = 256;

/// What a printed line begins with that is metrics, for programs that run where no file can be written. Nobody prints this
/// by accident.
const PRINTED: &[u8] = b"::bursar {";

/// What was read so far.
#[derive(Debug)]
pub(crate) struct Metrics {
    file: Tail,
    printed: Tail,
    newest: BTreeMap<String, f64>,
    points: Points,
}

impl Metrics {
    /// Metrics whose points are kept in this folder.
    pub(crate) fn new(folder: &Folder) -> Self {
        Self {
            file: Tail::new(u64::MAX),
            printed: Tail::new(LOG_BYTES_MAX),
            newest: BTreeMap::new(),
            points: Points::new(folder.points()),
        }
    }

    /// Takes in what was reported since. The attempt is of this age.
    pub(crate) fn look(&mut self, folder: &Folder, age: Duration) {
        let Self { file, printed, newest, points } = self;
        let mut take = |line: &[u8]| {
            let values = numbers(line);
            if values.is_empty() {
                return;
            }
            let mut kept = BTreeMap::new();
            for (name, value) in values {
                if newest.contains_key(&name) || newest.len() < METRICS_MAX {
                    newest.insert(name.clone(), value);
                    kept.insert(name, value);
                }
            }
            points.add(Source::Experiment, age, kept);
        };
        file.read(&folder.metrics(), &mut take);
        printed.read(&folder.log(), |line| {
            if line.starts_with(PRINTED) {
                take(&line[PRINTED.len() - 1..]);
            }
        });
        points.write();
    }

    /// The same when nothing runs any longer. Says whether all was taken in.
    pub(crate) fn finish(&mut self, folder: &Folder, age: Duration) -> bool {
        self.look(folder, age);
        let all = !self.file.is_behind() && !self.printed.is_behind();
        if all {
            self.points.finish();
        }
        all
    }

    /// The newest value of each.
    pub(crate) fn newest(&self) -> &BTreeMap<String, f64> {
        &self.newest
    }

    /// Keeps a look at what the attempt uses.
    pub(crate) fn note_usage(&mut self, age: Duration, values: BTreeMap<String, f64>) {
        self.points.add(Source::Usage, age, values);
    }
}

/// The numbers of a line. Whatever is not an object of numbers is passed over: an experiment may write what it likes.
fn numbers(line: &[u8]) -> BTreeMap<String, f64> {
    let read = serde_json::from_slice(line).or_else(|_| serde_json::from_slice(&with_nulls(line)));
    let Ok(serde_json::Value::Object(object)) = read else { return BTreeMap::new() };
    let number = |value: &serde_json::Value| if value.is_null() { Some(f64::NAN) } else { value.as_f64() };
    object.into_iter().filter_map(|(name, value)| Some((name, number(&value)?))).collect()
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
    use std::{
        fs::{self, File},
        io::Write,
        path::Path,
    };

    use bursar_model::Point;

    use super::*;

    fn append(path: &Path, bytes: &[u8]) {
        let mut file = File::options().create(true).append(true).open(path).unwrap();
        file.write_all(bytes).unwrap();
    }

    #[expect(clippy::disallowed_methods, reason = "the tests look at real files")]
    fn folder() -> (tempfile::TempDir, Folder) {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path(), "att_0000000000001".parse().unwrap());
        fs::create_dir_all(folder.metrics().parent().unwrap()).unwrap();
        (root, folder)
    }

    #[expect(clippy::disallowed_methods, reason = "the tests look at real files")]
    fn points(folder: &Folder) -> Vec<Point> {
        let text = fs::read_to_string(folder.points()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn the_last_number_of_each_key_counts_and_broken_lines_do_not() {
        let (_root, folder) = folder();
        let mut metrics = Metrics::new(&folder);
        metrics.look(&folder, Duration::ZERO);
        assert!(metrics.newest().is_empty());
        append(
            &folder.metrics(),
            b"{\"step\": 1, \"loss\": 0.5}\nnonsense\n[1]\n{\"loss\": \"NaN\", \"step\": 2}\n{\"step\"",
        );
        metrics.look(&folder, Duration::ZERO);
        assert_eq!(*metrics.newest(), BTreeMap::from([("loss".to_owned(), 0.5), ("step".to_owned(), 2.0)]));
        append(&folder.metrics(), b": 3}\n");
        metrics.look(&folder, Duration::ZERO);
        assert_eq!(metrics.newest()["step"], 3.0);
    }

    #[test]
    fn a_run_that_diverged_still_reports() {
        let (_root, folder) = folder();
        let mut metrics = Metrics::new(&folder);
        append(
            &folder.metrics(),
            b"{\"step\": 1, \"loss\": 0.5, \"acc\": 0.1}\n{\"step\": 2, \"loss\": NaN, \"acc\": null, \"a \\\" NaN\": -Infinity}\n",
        );
        metrics.look(&folder, Duration::ZERO);
        let values = metrics.newest();
        assert_eq!(values["step"], 2.0);
        assert!(values["loss"].is_nan() && values["acc"].is_nan() && values["a \" NaN"].is_nan());
    }

    #[test]
    fn what_is_printed_with_the_prefix_counts_and_other_lines_do_not() {
        let (_root, folder) = folder();
        let mut metrics = Metrics::new(&folder);
        append(
            &folder.log(),
            b"::bursar {\"step\": 1}\nsee ::bursar {\"step\": 7}\n::bursar step 8\n{\"step\": 9}\n::bursar {\"step\": 2, \"loss\": 0.1}\n",
        );
        assert!(metrics.finish(&folder, Duration::ZERO));
        assert_eq!(*metrics.newest(), BTreeMap::from([("loss".to_owned(), 0.1), ("step".to_owned(), 2.0)]));
    }

    #[test]
    fn every_line_is_a_point_in_order_with_its_time() {
        let (_root, folder) = folder();
        let mut metrics = Metrics::new(&folder);
        append(&folder.metrics(), b"{\"step\": 1, \"loss\": 0.5}\n{\"step\": 2}\n");
        metrics.look(&folder, Duration::from_millis(250));
        metrics.note_usage(Duration::from_millis(400), BTreeMap::from([("cpu.cores".to_owned(), 1.5)]));
        append(&folder.metrics(), b"{\"step\": 3}\n");
        assert!(metrics.finish(&folder, Duration::from_millis(500)));
        let found: Vec<_> = points(&folder).iter().map(|point| (point.age_ms, point.step())).collect();
        assert_eq!(found, [(250, Some(1.0)), (250, Some(2.0)), (400, None), (500, Some(3.0))]);
    }
}
