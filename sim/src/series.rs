//! Values that stand until the next one: prices and counts over time.

use bursar_model::{Period, Timestamp};

/// What was so from when on. Before its first value that one stands too, and the last one stands for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series<T> {
    /// In the order of time, never empty, no value twice in a row.
    points: Vec<(Timestamp, T)>,
}

impl<T: Copy + PartialEq> Series<T> {
    /// In any order; of several at one moment the last given counts. `None` without any.
    #[must_use]
    pub fn new(mut points: Vec<(Timestamp, T)>) -> Option<Self> {
        points.sort_by_key(|(at, _)| *at);
        let mut kept: Vec<(Timestamp, T)> = Vec::with_capacity(points.len());
        for (at, value) in points {
            kept.pop_if(|(before, _)| *before == at);
            if kept.last().is_none_or(|(_, before)| *before != value) {
                kept.push((at, value));
            }
        }
        (!kept.is_empty()).then_some(Self { points: kept })
    }

    /// The value of a moment.
    #[must_use]
    pub fn at(&self, at: Timestamp) -> T {
        self.points[self.index(at)].1
    }

    /// Since when that stands.
    #[must_use]
    pub fn since(&self, at: Timestamp) -> Timestamp {
        self.points[self.index(at)].0.min(at)
    }

    /// The first change after a moment.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<(Timestamp, T)> {
        let next = self.points.partition_point(|(at, _)| *at <= after);
        // What stands before the first value is the first value: no change.
        self.points.get(next.max(1)).copied()
    }

    /// The parts of a period with their values.
    pub fn parts(&self, period: Period) -> impl Iterator<Item = (Period, T)> {
        let first = self.index(period.from);
        self.points[first..].iter().enumerate().map_while(move |(number, (at, value))| {
            let from = if number == 0 { period.from } else { *at };
            let to = self.points.get(first + number + 1).map_or(period.to, |(next, _)| *next).min(period.to);
            (from < to).then(|| (Period::new(from, to), *value))
        })
    }

    /// Its values and since when they stand.
    #[must_use]
    pub fn points(&self) -> &[(Timestamp, T)] {
        &self.points
    }

    fn index(&self, at: Timestamp) -> usize {
        self.points.partition_point(|(from, _)| *from <= at).saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn series(points: &[(i64, u32)]) -> Series<u32> {
        Series::new(points.iter().map(|(millis, value)| (at(*millis), *value)).collect()).unwrap()
    }

    #[test]
    fn a_value_stands_until_the_next_and_the_ends_stand_for_ever() {
        let series = series(&[(30, 3), (10, 1), (20, 2), (20, 5), (25, 5)]);
        assert_eq!([0, 10, 19, 20, 29, 30, 99].map(|now| series.at(at(now))), [1, 1, 1, 5, 5, 3, 3]);
        assert_eq!([5, 25].map(|now| series.since(at(now))), [at(5), at(20)]);
        assert_eq!(
            [0, 10, 20, 30].map(|now| series.next(at(now)).map(|(_, value)| value)),
            [Some(5), Some(5), Some(3), None]
        );
        assert_eq!(Series::<u32>::new(Vec::new()), None);
    }

    #[test]
    fn the_parts_of_a_period_are_all_of_it() {
        let series = series(&[(10, 1), (20, 2), (30, 3)]);
        let parts = |from, to| -> Vec<(i64, i64, u32)> {
            let period = Period::new(at(from), at(to));
            series.parts(period).map(|(p, v)| (p.from.as_millis(), p.to.as_millis(), v)).collect()
        };
        assert_eq!(parts(0, 25), [(0, 20, 1), (20, 25, 2)]);
        assert_eq!(parts(20, 99), [(20, 30, 2), (30, 99, 3)]);
        assert_eq!(parts(40, 40), []);
    }
}
