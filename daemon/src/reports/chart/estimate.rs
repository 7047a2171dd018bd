//! A small picture for a row of a table: the interval of an estimate and where the cost fell.

use bursar_model::Usd;

use super::{Canvas, Scale, escape, px};
use crate::reports::{EstimateLine, figures::tenths};

const WIDTH: i64 = px(140);
const HEIGHT: i64 = px(18);

/// Every row from nothing to twice its own estimate, so that small and large experiments compare.
pub(crate) fn estimate(line: &EstimateLine, words: &str) -> String {
    let twice = line.expected.saturating_add(line.expected).max(Usd::from_nanos(1));
    let scale = Scale { from: 0, to: twice.as_nanos(), start: px(5), end: WIDTH - px(5) };
    let at = |amount: Usd| scale.at(amount.clamp(Usd::ZERO, twice).as_nanos());
    let middle = HEIGHT / 2;
    let mut canvas = Canvas::new();
    canvas.line("grid", (scale.start, middle), (scale.end, middle));
    canvas.rect("range", (at(line.low), middle - px(4)), (at(line.high) - at(line.low)).max(px(1)), px(8));
    canvas.line("expected", (at(line.expected), middle - px(7)), (at(line.expected), middle + px(7)));
    if line.actual > twice {
        // What is off the scale points to where it is.
        let (tip, back) = (scale.end + px(4), scale.end - px(5));
        canvas.shape("beyond", &[(tip, middle), (back, middle - px(5)), (back, middle + px(5))]);
    } else {
        canvas.dot("dot paid", (at(line.actual), middle), px(4));
    }
    format!(
        r#"<svg class="estimate" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"><title>{words}</title><desc>The band is the interval of the estimate, the tick what was expected, the dot the cost, an arrow a cost beyond the scale.</desc>{marks}</svg>"#,
        width = tenths(WIDTH),
        height = tenths(HEIGHT),
        words = escape(words),
        marks = canvas.marks,
    )
}
