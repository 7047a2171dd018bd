//! Stacked bars: the kinds of waste by project.

use bursar_model::Usd;

use super::{Anchor, Area, Canvas, Key, Scale, Size, Words, px, shortened, text_width};
use crate::reports::{ProjectSpend, Waste, figures};

const BAR: i64 = px(20);

/// A bar for each project, all on one scale, with what part of the project's spend it is.
pub(crate) fn waste(words: &Words<'_>, size: Size, projects: &[ProjectSpend]) -> String {
    let most = projects.iter().map(|project| project.spent.wasted()).max().unwrap_or_default();
    let mut canvas = Canvas::new();
    let top = legend(&mut canvas, size) + px(14);
    // A phone has no room for a name beside its bar.
    let (row, area) = match size {
        Size::Wide => (px(34), Area { left: px(150), top, right: size.width() - px(150), bottom: top }),
        Size::Narrow => (px(50), Area { left: 0, top, right: size.width(), bottom: top }),
    };
    let scale = Scale { from: 0, to: most.as_nanos(), start: area.left, end: area.right };
    for (index, project) in projects.iter().enumerate() {
        let wasted = project.spent.wasted();
        let amount = figures::money(wasted);
        let part = format!("{} of spend", figures::percent(wasted, project.spent.total()));
        let y = top + row * index as i64;
        let bar_y = match size {
            Size::Wide => {
                let name = shortened(&project.project, 20);
                canvas.text("label", Anchor::End, (area.left - px(10), y + px(15)), &name);
                let end = scale.at(wasted.as_nanos()) + px(8);
                canvas.text("label number", Anchor::Start, (end, y + px(9)), &amount);
                canvas.text("tick", Anchor::Start, (end, y + px(22)), &part);
                y
            }
            Size::Narrow => {
                canvas.text("label", Anchor::Start, (0, y + px(12)), &shortened(&project.project, 20));
                let text = format!("{amount} · {part}");
                canvas.text("label number", Anchor::End, (area.right, y + px(12)), &text);
                y + px(18)
            }
        };
        bar(&mut canvas, scale, bar_y, project);
    }
    canvas.finish(words, size, top + row * projects.len() as i64)
}

fn bar(canvas: &mut Canvas, scale: Scale, y: i64, project: &ProjectSpend) {
    let mut from = Usd::ZERO;
    for (index, kind) in Waste::ALL.into_iter().enumerate() {
        // A correction that outweighs its category has no length; the table says it.
        let part = project.spent.waste(kind).max(Usd::ZERO);
        let (x, end) = (scale.at(from.as_nanos()), scale.at((from + part).as_nanos()));
        from += part;
        if x == end {
            continue;
        }
        let key = Key::new("w", index);
        let title = format!("{}: {kind} {}", project.project, figures::money(part));
        canvas.group(&title, |canvas| {
            canvas.rect(&key.class, (x, y), (end - x - px(1)).max(px(1)), BAR);
            let name = kind.to_string();
            let text = if end - x > text_width(&name) + px(10) {
                name
            } else if end - x > px(13) {
                key.letter
            } else {
                return;
            };
            canvas.text("letter", Anchor::Middle, ((x + end) / 2, y + px(14)), &text);
        });
    }
}

/// The kinds in the order of the bars; gives the height that it took.
fn legend(canvas: &mut Canvas, size: Size) -> i64 {
    let (mut x, mut y) = (0, 0);
    for (index, kind) in Waste::ALL.into_iter().enumerate() {
        let name = kind.to_string();
        let width = px(46) + text_width(&name);
        if x + width > size.width() {
            (x, y) = (0, y + px(22));
        }
        canvas.key(&Key::new("w", index), (x, y), &name);
        x += width;
    }
    y + px(18)
}
