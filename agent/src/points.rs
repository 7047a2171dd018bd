//! The file of an attempt's metrics over time, which the agent writes and delivers as it does the log.
//!
//! It is bounded, and what an experiment reports is not. So the more of it is full the fewer points are kept: all until
//! half of it is used, of what follows every second until half of the rest is, and so on. The whole run stays visible, each
//! line says of how many it was kept, and the newest point is added at the end.

use std::{collections::BTreeMap, fs::File, io, io::Write, path::PathBuf, time::Duration};

use bursar_model::{POINTS_BYTES_MAX, Point};

/// Where a point comes from: each source is thinned for itself.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source {
    /// The experiment.
    Experiment,
    /// The agent's look at what it uses.
    Usage,
}

/// The file.
#[derive(Debug)]
pub(crate) struct Points {
    path: PathBuf,
    written: u64,
    /// Points that came, by source.
    seen: [u64; 2],
    /// The newest of each source, where it was not kept.
    unkept: [Option<Point>; 2],
    /// Lines that are still to be written.
    lines: Vec<u8>,
}

impl Points {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, written: 0, seen: [0; 2], unkept: [None, None], lines: Vec::new() }
    }

    /// Adds what was reported at this age of the attempt.
    pub(crate) fn add(&mut self, source: Source, age: Duration, values: BTreeMap<String, f64>) {
        let every = stride(self.written + self.lines.len() as u64, POINTS_BYTES_MAX);
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let point = Point { age_ms, every, values };
        let index = source as usize;
        let number = self.seen[index];
        self.seen[index] += 1;
        if number.is_multiple_of(every) {
            self.unkept[index] = None;
            self.push(&point);
        } else {
            self.unkept[index] = Some(point);
        }
    }

    /// Writes what was added since.
    pub(crate) fn write(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        match self.append() {
            Ok(()) => {
                self.written += self.lines.len() as u64;
                self.lines.clear();
            }
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "metrics cannot be written down");
                // A disk that stays full must not fill the memory as well.
                self.lines.clear();
            }
        }
    }

    /// Nothing is added any more: the newest points are written whatever was thinned.
    pub(crate) fn finish(&mut self) {
        for index in 0..self.unkept.len() {
            if let Some(newest) = self.unkept[index].take() {
                self.push(&newest);
            }
        }
        self.write();
    }

    fn push(&mut self, point: &Point) {
        let Ok(line) = serde_json::to_vec(point) else { return };
        if self.written + (self.lines.len() + line.len()) as u64 >= POINTS_BYTES_MAX {
            return;
        }
        self.lines.extend_from_slice(&line);
        self.lines.push(b'\n');
    }

    fn append(&self) -> io::Result<()> {
        File::options().create(true).append(true).open(&self.path)?.write_all(&self.lines)
    }
}

/// Of how many points one is kept where so much of the file is used.
fn stride(written: u64, most: u64) -> u64 {
    /// Then less than a thousandth of a percent is free, which is a matter of time alone.
    const HALVINGS_MAX: u32 = 20;
    let left = most.saturating_sub(written).max(1);
    1 << (most / left).ilog2().min(HALVINGS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u32) -> BTreeMap<String, f64> {
        BTreeMap::from([("step".to_owned(), f64::from(step))])
    }

    #[test]
    fn the_fuller_the_file_the_fewer_points_are_kept() {
        let strides = [0, 49, 50, 74, 75, 88, 99, 100].map(|written| stride(written, 100));
        assert_eq!(strides, [1, 1, 2, 2, 4, 8, 64, 64]);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test looks at a real file")]
    fn points_are_thinned_within_the_bound_and_the_newest_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("points");
        let mut points = Points::new(path.clone());
        // As if almost all of the file were used: of sixteen points one is kept.
        points.written = POINTS_BYTES_MAX - POINTS_BYTES_MAX / 16;
        for number in 0..40 {
            points.add(Source::Experiment, Duration::from_secs(number.into()), step(number));
        }
        points.finish();
        let text = std::fs::read_to_string(&path).unwrap();
        let read: Vec<Point> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let kept: Vec<_> = read.iter().map(|point| (point.step().unwrap(), point.every)).collect();
        assert_eq!(kept, [(0.0, 16), (16.0, 16), (32.0, 16), (39.0, 16)]);
        points.written = POINTS_BYTES_MAX - 5;
        points.add(Source::Usage, Duration::ZERO, step(1));
        points.finish();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "nothing is written beyond the bound");
    }
}
