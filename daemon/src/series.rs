//! A metric over time in as few points as a plot has room for, and what it came to in all.
//!
//! A series is a row of *buckets* of equally many points, of which each keeps the smallest and the largest: a plot of these
//! two has the same outline as one of all, which no plot of every n-th point has. When there are too many buckets,
//! neighbours are merged. So one pass over any number of points takes memory for a few hundred.

use bursar_model::Timestamp;
use serde::{Deserialize, Serialize};

/// One value at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Dot {
    /// When it was reported.
    pub at: Timestamp,
    /// How far the experiment was, where it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<f64>,
    /// What.
    pub value: f64,
    /// By which attempt, counted from 1.
    pub attempt: u32,
}

/// What a series came to in all.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many values were reported, those that were thinned included.
    pub count: u64,
    /// The newest; none where that is no number.
    pub last: Option<f64>,
    /// The smallest number.
    pub min: Option<f64>,
    /// The largest.
    pub max: Option<f64>,
    /// The mean of the numbers that were kept.
    pub mean: Option<f64>,
}

/// A series that is being gathered.
#[derive(Debug)]
pub(crate) struct Series {
    buckets_max: usize,
    bucket_len: u64,
    buckets: Vec<Bucket>,
    summary: Summary,
    numbers: u64,
    sum: f64,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    len: u64,
    first: Dot,
    min: Dot,
    max: Dot,
    last: Dot,
}

impl Series {
    /// A series of which at most so many points are shown, 0 for its summary alone.
    pub(crate) fn new(points: usize) -> Self {
        Self {
            // Two of each bucket, the very first and the very last.
            buckets_max: (points.saturating_sub(2) / 2).max(1),
            bucket_len: 1,
            buckets: Vec::new(),
            summary: Summary::default(),
            numbers: 0,
            sum: 0.0,
        }
    }

    /// Adds the next value, which stands for so many.
    #[expect(clippy::float_arithmetic, reason = "a mean for people; no money is made of it")]
    pub(crate) fn add(&mut self, dot: Dot, every: u64) {
        let Summary { count, last, min, max, mean } = &mut self.summary;
        *count += every;
        *last = dot.value.is_finite().then_some(dot.value);
        if !dot.value.is_finite() {
            return;
        }
        *min = Some(min.map_or(dot.value, |min| min.min(dot.value)));
        *max = Some(max.map_or(dot.value, |max| max.max(dot.value)));
        self.numbers += 1;
        self.sum += dot.value;
        *mean = Some(self.sum / self.numbers as f64);
        match self.buckets.last_mut().filter(|bucket| bucket.len < self.bucket_len) {
            Some(bucket) => *bucket = bucket.followed_by(&Bucket::of(dot)),
            None => self.buckets.push(Bucket::of(dot)),
        }
        if self.buckets.len() > self.buckets_max {
            self.bucket_len *= 2;
            let merged = self.buckets.chunks(2).map(|pair| match pair {
                [one, next] => one.followed_by(next),
                one => one[0],
            });
            self.buckets = merged.collect();
        }
    }

    /// What it came to.
    pub(crate) fn summary(&self) -> &Summary {
        &self.summary
    }

    /// The points to show, in order.
    pub(crate) fn dots(&self) -> Vec<Dot> {
        let mut dots: Vec<Dot> = Vec::new();
        let ends =
            self.buckets.first().zip(self.buckets.last()).map(|(first, last)| (first.first, last.last));
        let Some((first, last)) = ends else { return dots };
        let mut push = |dot: Dot| {
            if dots.last() != Some(&dot) {
                dots.push(dot);
            }
        };
        push(first);
        for Bucket { min, max, .. } in &self.buckets {
            let (one, other) =
                if (max.at, max.attempt) < (min.at, min.attempt) { (max, min) } else { (min, max) };
            push(*one);
            push(*other);
        }
        push(last);
        dots
    }
}

impl Bucket {
    fn of(dot: Dot) -> Self {
        Self { len: 1, first: dot, min: dot, max: dot, last: dot }
    }

    fn followed_by(&self, next: &Self) -> Self {
        Self {
            len: self.len + next.len,
            first: self.first,
            min: if next.min.value < self.min.value { next.min } else { self.min },
            max: if next.max.value > self.max.value { next.max } else { self.max },
            last: next.last,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dot(number: usize, value: f64) -> Dot {
        let at = Timestamp::from_millis(1_800_000_000_000 + number as i64);
        Dot { at, step: None, value, attempt: 1 }
    }

    fn gathered(values: &[f64], points: usize) -> Series {
        let mut series = Series::new(points);
        for (number, value) in values.iter().enumerate() {
            series.add(dot(number, *value), 1);
        }
        series
    }

    #[test]
    fn few_points_are_shown_as_they_are() {
        let values: Vec<f64> = gathered(&[3.0, 1.0, 2.0], 10).dots().iter().map(|dot| dot.value).collect();
        assert_eq!(values, [3.0, 1.0, 2.0]);
        assert!(gathered(&[], 10).dots().is_empty());
    }

    #[test]
    fn what_is_no_number_is_counted_and_not_shown() {
        let series = gathered(&[1.0, f64::NAN, 3.0, f64::INFINITY], 10);
        let summary = Summary { count: 4, last: None, min: Some(1.0), max: Some(3.0), mean: Some(2.0) };
        assert_eq!(*series.summary(), summary);
        assert_eq!(series.dots().len(), 2);
    }

    #[test]
    fn one_spike_among_a_million_is_seen() {
        let mut values = vec![1.0; 1_000_000];
        values[765_432] = 100.0;
        let dots = gathered(&values, 100).dots();
        assert!(dots.iter().any(|dot| dot.value == 100.0));
    }

    proptest! {
        #[test]
        fn shown_are_at_most_as_many_as_wanted_in_order_with_both_ends_and_extremes(
            values in prop::collection::vec(-1e6..1e6, 1..2000_usize), points in 4..200_usize,
        ) {
            let dots = gathered(&values, points).dots();
            prop_assert!(dots.len() <= points, "{} of {points}", dots.len());
            prop_assert!(dots.is_sorted_by(|one, next| one.at < next.at));
            let shown: Vec<f64> = dots.iter().map(|dot| dot.value).collect();
            prop_assert_eq!((shown.first(), shown.last()), (values.first(), values.last()));
            for extreme in [f64::min, f64::max] {
                let of = |values: &[f64]| values.iter().copied().reduce(extreme);
                prop_assert_eq!(of(&shown), of(&values));
            }
        }
    }
}
