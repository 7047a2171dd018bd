//! A curve in the letters of a terminal: Braille cells of two by four dots, or stars where there are no such letters.

use bursar_daemon::reports::bars::BarStyle;

/// The points of a curve, each an x and a y that are finite, drawn with the smallest and the largest y beside it.
#[expect(clippy::float_arithmetic, reason = "a picture for people")]
pub(crate) fn plot(points: &[(f64, f64)], width: usize, height: usize, style: BarStyle) -> Vec<String> {
    let ends = |of: fn(&(f64, f64)) -> f64| {
        let values = points.iter().map(of);
        values.fold(None, |ends: Option<(f64, f64)>, value| {
            Some(ends.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
        })
    };
    let (Some((left, right)), Some((bottom, top))) = (ends(|point| point.0), ends(|point| point.1)) else {
        return Vec::new();
    };
    let (across, down) = match style {
        BarStyle::Blocks => (2, 4),
        BarStyle::Ascii => (1, 1),
    };
    let mut canvas = Canvas { across, down, width, cells: vec![0; width * height] };
    let (columns, rows) = (width * across, height * down);
    // The part of the way from the one end to the other, in dots; a curve without extent lies in the middle.
    let place = |value: f64, low: f64, high: f64, dots: usize| {
        let part = if high > low { (value - low) / (high - low) } else { 0.5 };
        (part * (dots - 1) as f64).round() as usize
    };
    let mut before: Option<(usize, usize)> = None;
    for (x, y) in points {
        let (column, row) = (place(*x, left, right, columns), rows - 1 - place(*y, bottom, top, rows));
        // A line from the last point: never longer than the picture is wide and high.
        let (from, from_row) = before.unwrap_or((column, row));
        let steps = column.abs_diff(from).max(row.abs_diff(from_row)).max(1);
        for step in 0..=steps {
            let between = |from: usize, to: usize| {
                let part = step as f64 / steps as f64;
                (from as f64 + (to as f64 - from as f64) * part).round() as usize
            };
            canvas.set(between(from, column), between(from_row, row));
        }
        before = Some((column, row));
    }
    // A curve without extent has one value, beside it.
    let labels = if top > bottom {
        vec![(height - 1, number(bottom)), (0, number(top))]
    } else {
        vec![((rows - 1 - place(top, bottom, top, rows)) / down, number(top))]
    };
    canvas.lines(&labels)
}

/// A number with four digits that say something.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || (1e-4..1e6).contains(&size) {
        let decimals = match size {
            size if size >= 1000.0 || value.fract() == 0.0 => 0,
            size if size >= 10.0 => 2,
            size if size >= 1.0 => 3,
            size if size >= 1e-2 => 4,
            _ => 6,
        };
        format!("{value:.decimals$}")
    } else {
        format!("{value:.3e}")
    }
}

struct Canvas {
    across: usize,
    down: usize,
    width: usize,
    /// Of each cell which dots are set, a bit each.
    cells: Vec<u8>,
}

impl Canvas {
    fn set(&mut self, column: usize, row: usize) {
        // Where Unicode has the dots of a cell: the last row came later than the other three.
        const DOTS: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
        let cell = row / self.down * self.width + column / self.across;
        if let Some(cell) = self.cells.get_mut(cell) {
            *cell |= DOTS[row % self.down][column % self.across];
        }
    }

    /// With these labels beside the rows of these numbers; of several on one row the last.
    fn lines(&self, labels: &[(usize, String)]) -> Vec<String> {
        let margin = labels.iter().map(|(_, label)| label.chars().count()).max().unwrap_or(0);
        let rows: Vec<_> = self.cells.chunks(self.width).collect();
        let letter = |cell: &u8| match (self.down, *cell) {
            (_, 0) => ' ',
            (1, _) => '*',
            (_, dots) => char::from_u32(0x2800 + u32::from(dots)).unwrap_or('*'),
        };
        let line = |(index, row): (usize, &&[u8])| {
            let label = labels.iter().rev().find(|(row, _)| *row == index);
            let label = label.map_or("", |(_, label)| label);
            let drawn: String = row.iter().map(letter).collect();
            format!("{label:>margin$} |{drawn}").trim_end().to_owned()
        };
        rows.iter().enumerate().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_falls_is_drawn_falling() {
        let points: Vec<_> = (0..10).map(|x| (f64::from(x), f64::from(9 - x))).collect();
        assert_eq!(plot(&points, 4, 4, BarStyle::Ascii), ["9 |*", "  | *", "  |  *", "0 |   *"]);
        assert_eq!(plot(&points, 2, 1, BarStyle::Blocks), ["9 |⠑⢄"]);
    }

    #[test]
    fn what_does_not_change_is_a_line_and_one_point_is_one() {
        assert_eq!(
            plot(&[(0.0, 2.5), (1.0, 2.5)], 3, 3, BarStyle::Ascii),
            ["      |", "2.500 |***", "      |"]
        );
        assert_eq!(plot(&[(7.0, 1.0)], 3, 1, BarStyle::Ascii), ["1 | *"]);
        assert!(plot(&[], 3, 3, BarStyle::Ascii).is_empty());
    }

    #[test]
    fn numbers_are_short() {
        let written = [0.0, 3.0, 0.123_456, 0.000_97, 12.345, 1234.5, 1e-7, 2.5e9].map(number);
        assert_eq!(written, ["0", "3", "0.1235", "0.000970", "12.35", "1234", "1.000e-7", "2.500e9"]);
    }
}
