//! Charts as SVG: what all of them are drawn with.
//!
//! Places and lengths are whole tenths of a pixel ([`px`]); no float is needed and the text is the same on every machine.
//! Each chart is drawn once wide and once narrow, because text in a picture that a browser shrinks to a phone cannot be
//! read; the page shows the one that fits. Colours are the page's style sheet's: a mark has a class.

mod burndown;
mod columns;
mod curves;
mod estimate;
mod saving;
mod waste;

use bursar_model::Usd;

pub(super) use self::{
    burndown::burndown, columns::columns, curves::curves, estimate::estimate, saving::saving, waste::waste,
};
use super::figures::{self, tenths, thousands};

/// Which of the two pictures of a chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    /// For a desk and for paper.
    Wide,
    /// For a phone of 360 pixels.
    Narrow,
}

/// What a chart says to those who do not see it.
#[derive(Debug)]
pub(super) struct Words<'a> {
    /// Unique in the page.
    pub(super) id: &'a str,
    /// What it shows.
    pub(super) title: &'a str,
    /// What can be seen in it.
    pub(super) description: &'a str,
}

/// Height of a line of text.
const LINE: i64 = px(16);
/// More lines across a chart hide what it shows.
const STEPS_MAX: i128 = 6;
/// The legend's square, which holds the letter of its series.
const SWATCH: i64 = px(15);

/// So many pixels.
const fn px(pixels: i64) -> i64 {
    pixels * 10
}

impl Size {
    const fn width(self) -> i64 {
        match self {
            Self::Wide => px(920),
            Self::Narrow => px(328),
        }
    }

    const fn suffix(self) -> &'static str {
        match self {
            Self::Wide => "wide",
            Self::Narrow => "narrow",
        }
    }
}

/// The part of a picture that holds the marks.
#[derive(Debug, Clone, Copy)]
struct Area {
    left: i64,
    top: i64,
    right: i64,
    bottom: i64,
}

impl Area {
    const fn width(self) -> i64 {
        self.right - self.left
    }

    const fn height(self) -> i64 {
        self.bottom - self.top
    }
}

/// From values (nano-dollars, milliseconds) to places.
#[derive(Debug, Clone, Copy)]
struct Scale {
    from: i64,
    to: i64,
    start: i64,
    end: i64,
}

impl Scale {
    /// The place of a value. Values far outside stop a hundred thousand pixels away, where no picture reaches.
    fn at(self, value: i64) -> i64 {
        let values = (i128::from(self.to) - i128::from(self.from)).max(1);
        let places = i128::from(self.end - self.start);
        let moved = (i128::from(value) - i128::from(self.from)) * places / values;
        self.start + moved.clamp(-1_000_000, 1_000_000) as i64
    }
}

/// An axis of amounts or counts with round ticks.
#[derive(Debug)]
struct Axis {
    ticks: Vec<(i64, String)>,
}

impl Axis {
    /// Of amounts: holds zero and both ends.
    fn money(low: Usd, high: Usd) -> Self {
        let (low, high) = (low.min(Usd::ZERO), high.max(Usd::ZERO));
        let high = if low == high { Usd::from_dollars(1) } else { high };
        Self::new(low.as_nanos(), high.as_nanos(), 1, tick_label)
    }

    /// Of things in thousandths: from zero up to the most of them, in whole ones.
    fn counts(most: i64) -> Self {
        Self::new(0, most.max(1000), 1000, |tick, _| thousands(&(tick / 1000).to_string()))
    }

    fn new(low: i64, high: i64, least_step: i128, label: impl Fn(i64, i128) -> String) -> Self {
        let step = round_step(i128::from(high) - i128::from(low)).max(least_step);
        let first = i128::from(low).div_euclid(step);
        let last = -(-i128::from(high)).div_euclid(step);
        // At most `STEPS_MAX + 2` ticks: a step is at least that part of the range, and each end may be rounded outwards.
        let ticks = (first..=last).filter_map(|n| i64::try_from(n * step).ok());
        Self { ticks: ticks.map(|tick| (tick, label(tick, step))).collect() }
    }

    fn label_width(&self) -> i64 {
        self.ticks.iter().map(|(_, label)| text_width(label)).max().unwrap_or_default()
    }

    /// Upwards over the height of an area.
    fn scale(&self, area: Area) -> Scale {
        let end = |tick: Option<&(i64, String)>| tick.map_or(0, |(value, _)| *value);
        Scale { from: end(self.ticks.first()), to: end(self.ticks.last()), start: area.bottom, end: area.top }
    }

    /// Lines over the width of the area, and labels on their left.
    fn draw(&self, canvas: &mut Canvas, area: Area) {
        let scale = self.scale(area);
        for (tick, label) in &self.ticks {
            let y = scale.at(*tick);
            let class = if *tick == 0 { "base" } else { "grid" };
            canvas.line(class, (area.left, y), (area.right, y));
            canvas.text("tick", Anchor::End, (area.left - px(8), y + px(4)), label);
        }
    }
}

/// The smallest of 1, 2, 5 times a power of ten of which [`STEPS_MAX`] cover the range.
fn round_step(range: i128) -> i128 {
    let least = (range + STEPS_MAX - 1) / STEPS_MAX;
    let mut power = 1_i128;
    // Ends: 10^19 is above any range of nano-dollars.
    loop {
        if let Some(step) = [1, 2, 5].into_iter().map(|digit| digit * power).find(|step| *step >= least) {
            return step;
        }
        power *= 10;
    }
}

/// A tick with as many decimals as the step between ticks needs.
fn tick_label(tick: i64, step: i128) -> String {
    const NANOS: i128 = 1_000_000_000;
    // Cents at least, because `$0.2` is no amount of money.
    let decimals = (2..9).find(|decimals| step >= NANOS / 10_i128.pow(*decimals)).unwrap_or(9);
    let sign = if tick < 0 { "-" } else { "" };
    let magnitude = tick.unsigned_abs();
    let whole = thousands(&(magnitude / 1_000_000_000).to_string());
    if step >= NANOS {
        return format!("{sign}${whole}");
    }
    let fraction = format!("{:09}", magnitude % 1_000_000_000);
    format!("{sign}${whole}.{}", &fraction[..decimals as usize])
}

/// Where a text stands by its place.
#[derive(Debug, Clone, Copy)]
enum Anchor {
    Start,
    Middle,
    End,
}

/// A picture that is being drawn.
#[derive(Debug)]
struct Canvas {
    marks: String,
}

impl Canvas {
    const fn new() -> Self {
        Self { marks: String::new() }
    }

    fn rect(&mut self, class: &str, (x, y): (i64, i64), width: i64, height: i64) {
        let [x, y, width, height] = [x, y, width, height].map(tenths);
        self.marks +=
            &format!(r#"<rect class="{class}" x="{x}" y="{y}" width="{width}" height="{height}"/>"#);
    }

    fn line(&mut self, class: &str, from: (i64, i64), to: (i64, i64)) {
        let [x1, y1, x2, y2] = [from.0, from.1, to.0, to.1].map(tenths);
        self.marks += &format!(r#"<line class="{class}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>"#);
    }

    fn dot(&mut self, class: &str, (x, y): (i64, i64), radius: i64) {
        let [x, y, radius] = [x, y, radius].map(tenths);
        self.marks += &format!(r#"<circle class="{class}" cx="{x}" cy="{y}" r="{radius}"/>"#);
    }

    /// A line through points.
    fn path(&mut self, class: &str, points: &[(i64, i64)]) {
        self.marks += &format!(r#"<polyline class="{class}" points="{}"/>"#, places(points));
    }

    /// The shape within points.
    fn shape(&mut self, class: &str, points: &[(i64, i64)]) {
        self.marks += &format!(r#"<polygon class="{class}" points="{}"/>"#, places(points));
    }

    fn text(&mut self, class: &str, anchor: Anchor, (x, y): (i64, i64), text: &str) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => r#" text-anchor="middle""#,
            Anchor::End => r#" text-anchor="end""#,
        };
        let [x, y] = [x, y].map(tenths);
        self.marks += &format!(r#"<text class="{class}"{anchor} x="{x}" y="{y}">{}</text>"#, escape(text));
    }

    /// Marks that show `title` when they are pointed at.
    fn group(&mut self, title: &str, draw: impl FnOnce(&mut Self)) {
        self.marks += &format!("<g><title>{}</title>", escape(title));
        draw(self);
        self.marks += "</g>";
    }

    /// Marks of which only what is inside the area shows.
    fn clipped(&mut self, area: Area, draw: impl FnOnce(&mut Self)) {
        let [x, y, width, height] = [area.left, area.top, area.width(), area.height()].map(tenths);
        self.marks += &format!(
            r#"<svg x="{x}" y="{y}" width="{width}" height="{height}" viewBox="{x} {y} {width} {height}">"#
        );
        draw(self);
        self.marks += "</svg>";
    }

    /// One line of a legend: the letter and colour of a series and its name.
    fn key(&mut self, series: &Key, (x, y): (i64, i64), name: &str) {
        self.rect(&series.class, (x, y), SWATCH, SWATCH);
        self.text("letter", Anchor::Middle, (x + SWATCH / 2, y + px(11)), &series.letter);
        self.text("label", Anchor::Start, (x + SWATCH + px(7), y + px(12)), name);
    }

    /// The picture, with its words.
    fn finish(self, words: &Words<'_>, size: Size, height: i64) -> String {
        let (id, suffix) = (words.id, size.suffix());
        let (width, height) = (tenths(size.width()), tenths(height));
        format!(
            concat!(
                r#"<svg class="chart {suffix}" viewBox="0 0 {width} {height}" role="img" "#,
                r#"aria-labelledby="{id}-{suffix}-title {id}-{suffix}-desc">"#,
                r#"<title id="{id}-{suffix}-title">{title}</title>"#,
                r#"<desc id="{id}-{suffix}-desc">{description}</desc>{marks}</svg>"#,
            ),
            id = id,
            suffix = suffix,
            width = width,
            height = height,
            title = escape(words.title),
            description = escape(words.description),
            marks = self.marks,
        )
    }
}

/// How a series is told from the others: a colour, and a letter for those who do not see it.
#[derive(Debug)]
struct Key {
    class: String,
    letter: String,
}

impl Key {
    /// The key of a series by its place among those of its kind: `s` for projects, `w` for kinds of waste.
    fn new(kind: &str, index: usize) -> Self {
        const LETTERS: &[u8; 26] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";
        let letter = char::from(LETTERS[index % LETTERS.len()]);
        Self { class: format!("{kind}{}", index + 1), letter: letter.to_string() }
    }
}

/// Labels below an area, as many as fit side by side.
fn labels_below(canvas: &mut Canvas, area: Area, labels: &[(i64, String)]) {
    let widest = labels.iter().map(|(_, label)| text_width(label)).max().unwrap_or_default() + px(14);
    let fitting = (area.width() / widest.max(1)).max(1);
    let every = (labels.len() as i64 + fitting - 1) / fitting;
    for (x, label) in labels.iter().step_by(every.max(1) as usize) {
        canvas.text("tick", Anchor::Middle, (*x, area.bottom + px(18)), label);
    }
}

/// The labels of days, weeks or months below their middles.
fn bins_below<'a>(canvas: &mut Canvas, area: Area, bins: Scale, labels: impl Iterator<Item = &'a str>) {
    let middle = |n: i64| (bins.at(n) + bins.at(n + 1)) / 2;
    let labels: Vec<(i64, String)> = (0..).map(middle).zip(labels.map(figures::bin)).collect();
    labels_below(canvas, area, &labels);
}

/// About how wide a text of 12 pixels is in the fonts of the common systems.
fn text_width(text: &str) -> i64 {
    text.chars().count() as i64 * 65
}

/// A text of at most so many characters: its middle goes, because names often begin or end alike.
fn shortened(text: &str, chars_max: usize) -> String {
    let length = text.chars().count();
    if length <= chars_max {
        return text.to_owned();
    }
    let kept_after = (chars_max - 1) / 2;
    let kept_before = chars_max - 1 - kept_after;
    let before: String = text.chars().take(kept_before).collect();
    let after: String = text.chars().skip(length - kept_after).collect();
    format!("{before}…{after}")
}

/// Text of others as XML text. What XML forbids even when it is escaped becomes the replacement character.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\t' | '\n' | '\r' => escaped.push(' '),
            control if control.is_control() => escaped.push(char::REPLACEMENT_CHARACTER),
            other => escaped.push(other),
        }
    }
    escaped
}

fn places(points: &[(i64, i64)]) -> String {
    let places: Vec<String> = points.iter().map(|(x, y)| format!("{},{}", tenths(*x), tenths(*y))).collect();
    places.join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A billion dollars: far more than any report has, and a tick above it can still be written.
    const BILLION: i64 = 1_000_000_000_000_000_000;

    fn labels(low: &str, high: &str) -> Vec<String> {
        let axis = Axis::money(low.parse().unwrap(), high.parse().unwrap());
        axis.ticks.into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_are_round_and_say_no_more_decimals_than_they_need() {
        assert_eq!(labels("0", "9.3"), ["$0", "$2", "$4", "$6", "$8", "$10"]);
        assert_eq!(labels("0", "4200"), ["$0", "$1,000", "$2,000", "$3,000", "$4,000", "$5,000"]);
        assert_eq!(labels("0", "0.07"), ["$0.00", "$0.02", "$0.04", "$0.06", "$0.08"]);
        assert_eq!(labels("-3", "9"), ["-$4", "-$2", "$0", "$2", "$4", "$6", "$8", "$10"]);
        assert_eq!(labels("0", "0"), ["$0.00", "$0.20", "$0.40", "$0.60", "$0.80", "$1.00"]);
    }

    #[test]
    fn long_names_lose_their_middle() {
        assert_eq!(shortened("vision-pretrain", 15), "vision-pretrain");
        assert_eq!(shortened("vision-pretrain-eu-2", 15), "vision-…in-eu-2");
    }

    #[test]
    fn text_of_others_cannot_leave_its_element() {
        assert_eq!(
            escape("</text><script>\"'&\u{1b}"),
            "&lt;/text&gt;&lt;script&gt;&quot;&#39;&amp;\u{fffd}"
        );
    }

    proptest! {
        #[test]
        fn an_axis_holds_its_values_in_few_ticks(a in -BILLION..=BILLION, b in -BILLION..=BILLION) {
            let axis = Axis::money(Usd::from_nanos(a.min(b)), Usd::from_nanos(a.max(b)));
            prop_assert!((2..=STEPS_MAX as usize + 2).contains(&axis.ticks.len()));
            let area = Area { left: 0, top: 0, right: px(100), bottom: px(100) };
            for value in [a, b, 0] {
                prop_assert!((area.top..=area.bottom).contains(&axis.scale(area).at(value)));
            }
        }

        #[test]
        fn more_money_is_never_lower(a in any::<i64>(), b in any::<i64>(), from in any::<i64>(), to in any::<i64>()) {
            let scale = Scale { from: from.min(to), to: from.max(to), start: px(200), end: 0 };
            prop_assert!(scale.at(a.max(b)) <= scale.at(a.min(b)));
        }
    }
}
