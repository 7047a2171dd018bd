//! An experiment's metrics over time, all its attempts as one.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader},
};

use bursar_model::{AttemptId, ExperimentId, Point, Span, Timestamp};
use serde::{Deserialize, Serialize};

use super::shapes::{AttemptView, ExperimentDetail};
use crate::{
    logs::Logs,
    series::{Dot, Series, Summary},
};

/// Points of a series where nobody says how many: as many as a wide plot has columns.
const POINTS_DEFAULT: usize = 500;

/// The most points of a series: more than any screen has columns.
const POINTS_MAX: usize = 10_000;

/// Metrics in one answer: more than an attempt may report.
const SERIES_MAX: usize = 1000;

/// Which metrics, and how precisely.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsWanted {
    /// Names with commas between; all where none is given.
    pub name: Option<String>,
    /// At most so many points of each: 500 where nothing is said, 0 for what they came to alone.
    pub points: Option<usize>,
}

/// An experiment's metrics.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MetricsView {
    /// Whose.
    pub experiment: ExperimentId,
    /// Each by its name.
    pub metrics: BTreeMap<String, SeriesView>,
}

/// One metric over time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SeriesView {
    /// What it came to in all.
    pub summary: Summary,
    /// Its outline in order: of every stretch the smallest and the largest value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub points: Vec<Dot>,
}

impl MetricsView {
    /// Reads the metrics of all attempts. What one did that a later one did again from a checkpoint is left out: it was lost.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read(logs: &Logs, detail: &ExperimentDetail, wanted: &MetricsWanted) -> io::Result<Self> {
        let names: Option<Vec<&str>> = wanted.name.as_deref().map(|names| names.split(',').collect());
        let points = wanted.points.unwrap_or(POINTS_DEFAULT).min(POINTS_MAX);
        let mut series: BTreeMap<String, Series> = BTreeMap::new();
        let mut firsts = Vec::new();
        for attempt in &detail.attempts {
            firsts.push(lines(logs, attempt.id)?.find_map(|point| point.step()));
        }
        for (attempt, redone_from) in detail.attempts.iter().zip(redone_from(&firsts)) {
            for point in lines(logs, attempt.id)? {
                let step = point.step();
                if step.zip(redone_from).is_some_and(|(step, from)| step >= from) {
                    continue;
                }
                let at = moment(attempt, &point);
                for (name, value) in point.values {
                    let is_wanted = names.as_ref().is_none_or(|names| names.contains(&name.as_str()));
                    let has_room = series.len() < SERIES_MAX || series.contains_key(&name);
                    if is_wanted && has_room {
                        let dot = Dot { at, step, value, attempt: attempt.number };
                        series.entry(name).or_insert_with(|| Series::new(points)).add(dot, point.every);
                    }
                }
            }
        }
        let shown = |series: &Series| SeriesView {
            summary: series.summary().clone(),
            points: if points == 0 { Vec::new() } else { series.dots() },
        };
        let metrics = series.iter().map(|(name, series)| (name.clone(), shown(series))).collect();
        Ok(Self { experiment: detail.experiment.id, metrics })
    }
}

/// From which step on each attempt's work was done again by a later one, by the first step of each.
fn redone_from(firsts: &[Option<f64>]) -> Vec<Option<f64>> {
    let mut least: Option<f64> = None;
    let mut redone: Vec<Option<f64>> = Vec::with_capacity(firsts.len());
    for first in firsts.iter().rev() {
        redone.push(least);
        least = match (least, *first) {
            (Some(least), Some(first)) => Some(least.min(first)),
            (least, first) => first.or(least),
        };
    }
    redone.reverse();
    redone
}

/// Agents count from when they got the attempt, which is when it was given to them, but for the way there.
fn moment(attempt: &AttemptView, point: &Point) -> Timestamp {
    attempt.assigned_at + Span::from_millis(i64::try_from(point.age_ms).unwrap_or(i64::MAX))
}

/// The points of an attempt that can be read. The file is bounded, and so is each of its lines.
fn lines(logs: &Logs, attempt: AttemptId) -> io::Result<Box<dyn Iterator<Item = Point>>> {
    let file = match File::open(logs.points_path(attempt)) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Box::new(std::iter::empty())),
        Err(error) => return Err(error),
    };
    // The last line may still be on its way; a file that fails in the middle is shown up to there.
    let whole = file.split(b'\n').map_while(Result::ok);
    Ok(Box::new(whole.filter_map(|line| serde_json::from_slice(&line).ok())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_later_attempt_did_again_is_not_shown_twice() {
        let cases = [
            (vec![Some(1.0), Some(50.0), Some(80.0)], vec![Some(50.0), Some(80.0), None]),
            // The third began anew: all before it was lost.
            (vec![Some(1.0), Some(50.0), Some(1.0)], vec![Some(1.0), Some(1.0), None]),
            (vec![Some(1.0), None], vec![None, None]),
            (vec![], vec![]),
        ];
        for (firsts, expected) in cases {
            assert_eq!(redone_from(&firsts), expected, "{firsts:?}");
        }
    }
}
