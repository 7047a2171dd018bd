//! Two lines: what was paid, and what on-demand prices would have cost, both since the start of the period.

use bursar_model::Usd;

use super::{Anchor, Area, Axis, Canvas, LINE, Scale, Size, Words, bins_below, px, text_width};
use crate::reports::{TimeBin, figures};

/// The gap between the lines is what was saved.
pub(crate) fn saving(words: &Words<'_>, size: Size, timeline: &[TimeBin]) -> String {
    let paid = running_sum(timeline, TimeBin::spent);
    let on_demand = running_sum(timeline, |bin| bin.on_demand);
    let all = || paid.iter().chain(&on_demand).copied();
    let axis = Axis::money(all().min().unwrap_or_default(), all().max().unwrap_or_default());
    let bottom = match size {
        Size::Wide => px(230),
        Size::Narrow => px(190),
    };
    let left = axis.label_width() + px(10);
    let area = Area { left, top: px(12), right: size.width() - px(92), bottom };
    let mut canvas = Canvas::new();
    axis.draw(&mut canvas, area);
    let (x, y) =
        (Scale { from: 0, to: timeline.len() as i64, start: area.left, end: area.right }, axis.scale(area));
    let line = |sums: &[Usd]| -> Vec<(i64, i64)> {
        sums.iter().enumerate().map(|(n, sum)| (x.at(n as i64), y.at(sum.as_nanos()))).collect()
    };
    let (paid_line, on_demand_line) = (line(&paid), line(&on_demand));
    let between: Vec<(i64, i64)> = on_demand_line.iter().chain(paid_line.iter().rev()).copied().collect();
    canvas.shape("gap", &between);
    canvas.path("line on-demand", &on_demand_line);
    canvas.path("line paid", &paid_line);
    let end = |line: &[(i64, i64)]| line.last().map_or(area.bottom, |(_, y)| *y);
    let (on_demand_end, paid_end) = (end(&on_demand_line), end(&paid_line));
    let saved = on_demand.last().copied().unwrap_or_default() - paid.last().copied().unwrap_or_default();
    let text = format!("{} saved", figures::money(saved));
    let (right, middle) = (area.right - px(12), (on_demand_end + paid_end) / 2 + px(4));
    let under = |(x, _): &&(i64, i64)| *x >= right - text_width(&text) - px(20);
    // Said in the gap where the gap is as wide as the text and a line higher.
    if on_demand_line.iter().filter(under).all(|(_, y)| *y < middle - LINE)
        && paid_line.iter().filter(under).all(|(_, y)| *y > middle + LINE / 2)
    {
        canvas.text("label strong", Anchor::End, (right, middle), &text);
    }

    let ends = [
        ("on-demand", &on_demand, &on_demand_line, "dot on-demand"),
        ("paid", &paid, &paid_line, "dot paid"),
    ];
    let places = apart(on_demand_end, paid_end, area);
    for ((name, sums, line, class), label_y) in ends.into_iter().zip(places) {
        let (Some(sum), Some(end)) = (sums.last(), line.last()) else { continue };
        canvas.dot(class, *end, px(4));
        canvas.text("label strong", Anchor::Start, (area.right + px(10), label_y), name);
        canvas.text(
            "label number",
            Anchor::Start,
            (area.right + px(10), label_y + LINE),
            &figures::money(*sum),
        );
    }
    bins_below(&mut canvas, area, x, timeline.iter().map(|bin| bin.label.as_str()));
    canvas.finish(words, size, area.bottom + px(28))
}

/// The sums from nothing to the end: one more than there are bins.
fn running_sum(timeline: &[TimeBin], of: impl Fn(&TimeBin) -> Usd) -> Vec<Usd> {
    let mut sum = Usd::ZERO;
    let after = timeline.iter().map(|bin| {
        sum += of(bin);
        sum
    });
    std::iter::once(Usd::ZERO).chain(after).collect()
}

/// Places for two labels of two lines beside two ends: where the ends are, or as near as they fit.
fn apart(first: i64, second: i64, area: Area) -> [i64; 2] {
    let room = LINE * 9 / 4;
    let lowest = area.bottom - LINE;
    let (upper, lower) = (first.min(second), first.max(second));
    let upper = upper.min((upper + lower - room) / 2).clamp(area.top, lowest - room);
    let lower = lower.max(upper + room).min(lowest);
    if first <= second { [upper, lower] } else { [lower, upper] }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn labels_of_lines_that_meet_do_not_overlap(first in 0_i64..2000, second in 0_i64..2000) {
            let area = Area { left: 0, top: px(12), right: px(100), bottom: px(200) };
            let [a, b] = apart(first, second, area);
            prop_assert!((a - b).abs() >= LINE * 2);
            prop_assert_eq!(a <= b, first <= second);
            prop_assert!((area.top..=area.bottom).contains(&a) && (area.top..=area.bottom).contains(&b));
        }
    }
}
