//! Stacked columns: spend over time by project.

use bursar_model::Usd;

use super::{Anchor, Area, Axis, Canvas, Key, LINE, Scale, Size, Words, bins_below, px, shortened};
use crate::reports::{figures, series::Stacks};

/// A part lower or narrower than this cannot hold its letter.
const LETTER_HEIGHT: i64 = px(12);
const LETTER_WIDTH: i64 = px(11);
/// The column of a single day is no wall.
const WIDTH_MAX: i64 = px(72);

/// A column for each label; what corrections made negative hangs below the line.
pub(crate) fn columns(words: &Words<'_>, size: Size, stacks: &Stacks) -> String {
    let ends = stacks.columns.iter().map(|(_, parts)| extent(parts));
    let (low, high) = ends.fold((Usd::ZERO, Usd::ZERO), |(low, high), (l, h)| (low.min(l), high.max(h)));
    let axis = Axis::money(low, high);
    let legend_height = LINE * 5 / 4 * stacks.names.len() as i64;
    let left = axis.label_width() + px(10);
    let area = match size {
        Size::Wide => Area { left, top: px(12), right: size.width() - px(220), bottom: px(300) },
        Size::Narrow => Area { left, top: px(12), right: size.width() - px(4), bottom: px(220) },
    };
    let mut canvas = Canvas::new();
    axis.draw(&mut canvas, area);
    let scale = axis.scale(area);
    let step = Scale { from: 0, to: stacks.columns.len() as i64, start: area.left, end: area.right };
    for (index, (label, parts)) in stacks.columns.iter().enumerate() {
        let (x, next) = (step.at(index as i64), step.at(index as i64 + 1));
        let width = ((next - x) - ((next - x) / 5).min(px(6))).min(WIDTH_MAX);
        let total = figures::money(parts.iter().copied().sum());
        canvas.group(&format!("{}: {total}", figures::bin(label)), |canvas| {
            for (series, y, height) in stacked(parts, scale) {
                canvas.rect(&Key::new("s", series).class, ((x + next - width) / 2, y), width, height);
            }
        });
    }
    letters(&mut canvas, stacks, scale, step);
    bins_below(&mut canvas, area, step, stacks.columns.iter().map(|(label, _)| label.as_str()));

    let (legend_left, legend_top) = match size {
        Size::Wide => (area.right + px(24), area.top),
        Size::Narrow => (px(0), area.bottom + px(36)),
    };
    // In the order of the stack, so that the legend reads as the columns do.
    for (line, series) in (0..stacks.names.len()).rev().enumerate() {
        let y = legend_top + LINE * 5 / 4 * line as i64;
        canvas.key(&Key::new("s", series), (legend_left, y), &shortened(&stacks.names[series], 15));
        let sum = figures::money(stacks.sum(series));
        canvas.text("label number", Anchor::End, (size.width() - px(2), y + px(12)), &sum);
    }
    let height = match size {
        Size::Wide => (area.bottom + px(28)).max(legend_top + legend_height),
        Size::Narrow => legend_top + legend_height,
    };
    canvas.finish(words, size, height)
}

/// How far a column reaches below and above the line.
fn extent(parts: &[Usd]) -> (Usd, Usd) {
    let below = parts.iter().copied().filter(|part| *part < Usd::ZERO).sum();
    let above = parts.iter().copied().filter(|part| *part > Usd::ZERO).sum();
    (below, above)
}

/// The parts of a column that show: the series, the top and the height.
fn stacked(parts: &[Usd], scale: Scale) -> Vec<(usize, i64, i64)> {
    let (mut below, mut above) = (Usd::ZERO, Usd::ZERO);
    let mut shown = Vec::with_capacity(parts.len());
    for (series, part) in parts.iter().enumerate() {
        let base = if *part < Usd::ZERO { &mut below } else { &mut above };
        let (from, to) = (*base, *base + *part);
        *base = to;
        let (y1, y2) = (scale.at(from.as_nanos()), scale.at(to.as_nanos()));
        if y1 != y2 {
            shown.push((series, y1.min(y2), (y1 - y2).abs()));
        }
    }
    shown
}

/// Each series bears its letter where it is largest, so that nobody has to tell colours apart.
fn letters(canvas: &mut Canvas, stacks: &Stacks, scale: Scale, step: Scale) {
    for series in 0..stacks.names.len() {
        let largest = stacks
            .columns
            .iter()
            .enumerate()
            .flat_map(|(column, (_, parts))| {
                stacked(parts, scale)
                    .into_iter()
                    .filter(move |(of, ..)| *of == series)
                    .map(move |(_, y, height)| (height, column, y))
            })
            .max();
        let Some((height, column, y)) = largest else { continue };
        let (x, next) = (step.at(column as i64), step.at(column as i64 + 1));
        if height >= LETTER_HEIGHT && next - x >= LETTER_WIDTH {
            let place = ((x + next) / 2, y + height / 2 + px(4));
            canvas.text("letter", Anchor::Middle, place, &Key::new("s", series).letter);
        }
    }
}
