//! Curves over time, each with its letter at its end.

use bursar_model::{Timestamp, Usd};

use super::{Anchor, Area, Axis, Canvas, Key, LINE, SWATCH, Scale, Size, Words, labels_below, px, shortened};
use crate::reports::{
    comparison::{CurveChart, Unit},
    figures,
};

const HOUR_MS: i64 = 3_600_000;
/// More moments below an axis nobody reads.
const MOMENTS_MAX: i64 = 8;

/// The curves of a chart on one pair of axes.
pub(crate) fn curves(words: &Words<'_>, size: Size, chart: &CurveChart) -> String {
    let high = chart.curves.iter().flat_map(|curve| &curve.values).copied().max().unwrap_or_default();
    let axis = match chart.unit {
        Unit::Money => Axis::money(Usd::ZERO, Usd::from_nanos(high)),
        Unit::Count => Axis::counts(high),
    };
    let left = axis.label_width() + px(10);
    let (right, bottom) = match size {
        Size::Wide => (size.width() - px(220), px(230)),
        Size::Narrow => (size.width() - px(24), px(190)),
    };
    let area = Area { left, top: px(12), right, bottom };
    let mut canvas = Canvas::new();
    axis.draw(&mut canvas, area);
    let millis = |at: Option<&Timestamp>| at.map_or(0, |at| at.as_millis());
    let (from, to) = (millis(chart.at.first()), millis(chart.at.last()));
    let (x, y) = (Scale { from, to, start: area.left, end: area.right }, axis.scale(area));
    for (number, curve) in chart.curves.iter().enumerate() {
        let places = chart.at.iter().zip(&curve.values);
        let places: Vec<(i64, i64)> =
            places.map(|(at, value)| (x.at(at.as_millis()), y.at(*value))).collect();
        canvas.path(&format!("line {}", Key::new("s", number).class), &places);
    }
    let ends = chart.curves.iter().map(|curve| curve.values.last().map_or(area.bottom, |value| y.at(*value)));
    for (number, y) in apart(ends.collect(), area).into_iter().enumerate() {
        let key = Key::new("s", number);
        let place = (area.right + px(4), y - SWATCH / 2);
        canvas.rect(&key.class, place, SWATCH, SWATCH);
        canvas.text("letter", Anchor::Middle, (place.0 + SWATCH / 2, place.1 + px(11)), &key.letter);
    }
    labels_below(&mut canvas, area, &moments(from, to, x));

    let (legend_left, legend_top) = match size {
        Size::Wide => (area.right + px(36), area.top),
        Size::Narrow => (px(0), area.bottom + px(36)),
    };
    let names = if size == Size::Wide { 24 } else { 40 };
    for (number, curve) in chart.curves.iter().enumerate() {
        let y = legend_top + LINE * 5 / 4 * number as i64;
        canvas.key(&Key::new("s", number), (legend_left, y), &shortened(&curve.name, names));
    }
    let legend_height = LINE * 5 / 4 * chart.curves.len() as i64;
    let height = match size {
        Size::Wide => (area.bottom + px(28)).max(legend_top + legend_height),
        Size::Narrow => legend_top + legend_height,
    };
    canvas.finish(words, size, height)
}

/// Round moments with their labels: hours within two days, days beyond.
fn moments(from: i64, to: i64, x: Scale) -> Vec<(i64, String)> {
    let is_short = to - from <= 48 * HOUR_MS;
    let unit = if is_short { HOUR_MS } else { 24 * HOUR_MS };
    let units = (to - from) / unit;
    let step = ((units + MOMENTS_MAX - 1) / MOMENTS_MAX).max(1) * unit;
    let first = -(-from).div_euclid(step) * step;
    let label = |millis| {
        let at = Timestamp::from_millis(millis);
        if is_short { figures::time_of_day(at) } else { figures::day(at) }
    };
    // At most `MOMENTS_MAX + 1`, by the choice of the step.
    (0..=MOMENTS_MAX)
        .map(|n| first + n * step)
        .take_while(|millis| *millis <= to)
        .map(|millis| (x.at(millis), label(millis)))
        .collect()
}

/// Places for a letter beside each end: there, or as near as none covers another.
fn apart(ends: Vec<i64>, area: Area) -> Vec<i64> {
    let room = SWATCH + px(2);
    let mut order: Vec<usize> = (0..ends.len()).collect();
    order.sort_by_key(|index| (ends[*index], *index));
    let mut places = ends;
    let mut lowest = area.bottom;
    // From below upwards, because curves crowd at the bottom.
    for index in order.into_iter().rev() {
        places[index] = places[index].min(lowest);
        lowest = places[index] - room;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    const AREA: Area = Area { left: 0, top: 0, right: px(100), bottom: px(200) };

    #[test]
    fn letters_of_curves_that_end_together_do_not_cover_each_other() {
        let places = apart(vec![px(200), px(50), px(200), px(198)], AREA);
        assert_eq!(places[1], px(50));
        let mut sorted = places.clone();
        sorted.sort_unstable();
        assert!(sorted.windows(2).all(|pair| pair[1] - pair[0] >= SWATCH), "{places:?}");
        assert!(places.iter().all(|place| *place <= AREA.bottom));
    }

    #[test]
    fn moments_are_round() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap().as_millis();
        let labels = |from, to| -> Vec<String> {
            let (from, to) = (at(from), at(to));
            let x = Scale { from, to, start: 0, end: px(100) };
            moments(from, to, x).into_iter().map(|(_, label)| label).collect()
        };
        assert_eq!(labels("2026-11-01T07:10:00Z", "2026-11-01T10:00:00Z"), ["08:00", "09:00", "10:00"]);
        assert_eq!(labels("2026-11-01T07:10:00Z", "2026-11-04T10:00:00Z"), ["2 Nov", "3 Nov", "4 Nov"]);
        assert!(labels("2026-01-01T00:00:00Z", "2026-12-31T00:00:00Z").len() <= 9);
    }
}
