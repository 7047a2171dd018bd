//! What is left of a budget over its window, and where it is heading.

use bursar_model::{Period, Timestamp, Usd};

use super::{Anchor, Area, Axis, Canvas, LINE, Scale, Size, Words, labels_below, px, text_width};
use crate::reports::{BudgetReport, figures};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// The remaining money as a line from the limit down to now, then what is expected within its interval. Spending
/// stops at the limit, so nothing is drawn below zero: where the expected line meets it, the breach is marked.
pub(crate) fn burndown(
    words: &Words<'_>,
    size: Size,
    budget: &BudgetReport,
    limit: Usd,
    now: Timestamp,
) -> String {
    let axis = Axis::money(Usd::ZERO, limit);
    let bottom = match size {
        Size::Wide => px(220),
        Size::Narrow => px(190),
    };
    let left = axis.label_width() + px(10);
    let area = Area { left, top: px(18), right: size.width() - px(92), bottom };
    let now = now.clamp(budget.period.from, budget.period.to);
    let drawing = Drawing {
        x: Scale {
            from: budget.period.from.as_millis(),
            to: budget.period.to.as_millis(),
            start: area.left,
            end: area.right,
        },
        y: axis.scale(area),
        limit,
    };
    let mut canvas = Canvas::new();
    axis.draw(&mut canvas, area);
    thresholds(&mut canvas, area, &drawing, budget);
    let here = drawing.place(now, budget.spent);
    let top = drawing.place(budget.period.from, Usd::ZERO);
    let limit_text = format!("limit {}", figures::money(limit));
    // In the first days what is left is said in the same place, and is about the limit.
    if here.0 - top.0 > text_width(&limit_text) + px(18) {
        canvas.text("label", Anchor::Start, (top.0 + px(9), top.1 - px(5)), &limit_text);
    }
    canvas.clipped(Area { top: area.top - px(6), left: area.left - px(6), ..area }, |canvas| {
        if let Some(projection) = &budget.projection {
            let end = |spent| drawing.place(budget.period.to, spent);
            canvas.shape("band", &[here, end(projection.low), end(projection.high)]);
            let breach = projection.breach_at.map(|at| drawing.place(at, limit));
            canvas.path("line projected", &[here, breach.unwrap_or_else(|| end(projection.expected))]);
        }
        let mut line = vec![drawing.place(budget.period.from, Usd::ZERO)];
        line.extend(budget.series.iter().map(|(at, spent)| drawing.place(*at, *spent)));
        line.push(here);
        canvas.path("line remaining", &line);
        let held = drawing.place(now, budget.spent.saturating_add(budget.held));
        canvas.line("held", here, held);
    });
    let here = (here.0, here.1.clamp(area.top, area.bottom));
    canvas.dot("dot remaining", here, px(4));
    let left = match limit.saturating_sub(budget.spent) {
        over if over < Usd::ZERO => format!("{} over the limit", figures::money(-over)),
        left => format!("{} left", figures::money(left)),
    };
    let held = format!("{} held", figures::money(budget.held));
    let lines: &[&str] = if budget.held > Usd::ZERO { &[&left, &held] } else { &[&left] };
    let first_y = here.1 - px(7) - LINE * (lines.len() as i64 - 1);
    beside(&mut canvas, size, (here.0 + px(9), first_y), lines);
    ending(&mut canvas, size, area, &drawing, budget);
    labels_below(&mut canvas, area, &time_labels(budget.period, drawing.x));
    canvas.finish(words, size, area.bottom + px(28))
}

/// From moments and what was spent to places: what is left is what is drawn.
struct Drawing {
    x: Scale,
    y: Scale,
    limit: Usd,
}

impl Drawing {
    fn place(&self, at: Timestamp, spent: Usd) -> (i64, i64) {
        (self.x.at(at.as_millis()), self.y.at(self.limit.saturating_sub(spent).as_nanos()))
    }
}

/// Lines at what is left when people are told.
fn thresholds(canvas: &mut Canvas, area: Area, drawing: &Drawing, budget: &BudgetReport) {
    let limit = i128::from(drawing.limit.as_nanos());
    for percent in budget.thresholds.iter().filter(|percent| (1..100).contains(*percent)) {
        let left = limit * i128::from(100 - *percent) / 100;
        let y = drawing.y.at(left as i64);
        canvas.line("threshold", (area.left, y), (area.right, y));
        // On the left, where the line of what is left is still far above.
        canvas.text("tick", Anchor::Start, (area.left + px(4), y - px(4)), &format!("{percent}% spent"));
    }
}

/// Where the expected line ends: at the breach, or at the end of the window.
fn ending(canvas: &mut Canvas, size: Size, area: Area, drawing: &Drawing, budget: &BudgetReport) {
    let Some(projection) = &budget.projection else { return };
    if let Some(breach) = projection.breach_at {
        let place = drawing.place(breach, drawing.limit);
        canvas.line("breach-at", (place.0, (place.1 - px(70)).max(area.top)), place);
        canvas.dot("dot breach", place, px(5));
        let day = figures::day(breach);
        beside(canvas, size, (place.0 + px(9), place.1 - px(10) - LINE), &["limit reached", &day]);
    } else if projection.expected <= drawing.limit {
        let (x, y) = drawing.place(budget.period.to, projection.expected);
        canvas.dot("dot projected", (x, y), px(4));
        let left = figures::money(drawing.limit.saturating_sub(projection.expected));
        beside(canvas, size, (x + px(9), y + px(4)), &[&left, "expected left"]);
    }
}

/// Lines of text from this place on, or as far to the left of it as they need to stay in the picture.
fn beside(canvas: &mut Canvas, size: Size, (x, y): (i64, i64), lines: &[&str]) {
    let widest = lines.iter().map(|line| text_width(line)).max().unwrap_or_default();
    let x = x.min(size.width() - widest);
    for (index, line) in lines.iter().enumerate() {
        let class = if index == 0 { "label strong" } else { "label number" };
        canvas.text(class, Anchor::Start, (x, y + LINE * index as i64), line);
    }
}

/// Days, or hours where the window is short.
fn time_labels(period: Period, x: Scale) -> Vec<(i64, String)> {
    const HOURS: [i64; 14] = [1, 3, 6, 12, 24, 48, 120, 168, 336, 720, 1440, 2160, 4320, 8760];
    const LABELS_MAX: i64 = 12;
    let length = period.span().as_millis();
    let longest = length / LABELS_MAX;
    // Windows of more than twelve years are labelled at the same number of places, wherever those fall.
    let step =
        HOURS.map(|hours| hours * HOUR_MS).into_iter().find(|step| *step >= longest).unwrap_or(longest);
    let step = step.max(1);
    let round = step.min(DAY_MS);
    let first = -(-period.from.as_millis()).div_euclid(round) * round;
    let moments = (0..=LABELS_MAX).map(|n| first + n * step);
    moments
        .take_while(|millis| *millis < period.to.as_millis())
        .map(|millis| {
            let at = Timestamp::from_millis(millis);
            let label =
                if millis.rem_euclid(DAY_MS) == 0 { figures::day(at) } else { figures::time_of_day(at) };
            (x.at(millis), label)
        })
        .collect()
}
