//! A page that compares policies by curves and figures: what `bursar simulate fleet --html` writes. It looks as the
//! report does, and is drawn with the same pencils; whoever calls brings the words and the numbers.

use askama::Template;
use bursar_model::{Timestamp, Usd};

use super::{
    chart::{self, Words},
    figures::{money, tenths},
    html::{
        Figure, both,
        tables::{Cell, Table},
    },
};

/// Rows of the table below a chart; between two of them nothing is lost that a reader of numbers would miss.
const ROWS: usize = 24;

/// All that the page shows.
#[derive(Debug, Clone, Default)]
pub struct Comparison {
    /// The heading.
    pub title: String,
    /// What stands above it: what was compared.
    pub over: String,
    /// What stands below it: when and how.
    pub meta: String,
    /// Numbers to begin with: a label, the number, a note.
    pub headlines: Vec<[String; 3]>,
    /// The figures: a name, and what it is under each policy.
    pub rows: Vec<(String, Vec<String>)>,
    /// The policies, in the order of the cells of a row.
    pub policies: Vec<String>,
    /// The charts.
    pub charts: Vec<CurveChart>,
    /// What was left out and assumed.
    pub notes: Vec<String>,
}

/// Curves on one pair of axes.
#[derive(Debug, Clone)]
pub struct CurveChart {
    /// Unique in the page, letters and digits.
    pub id: String,
    /// What it shows.
    pub heading: String,
    /// What can be seen in it, in a sentence.
    pub lead: String,
    /// What its values are.
    pub unit: Unit,
    /// The moments of the values, in order.
    pub at: Vec<Timestamp>,
    /// At most seven: more colours nobody tells apart.
    pub curves: Vec<Curve>,
}

/// What values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Nano-dollars, of an amount or of an hour.
    Money,
    /// Thousandths.
    Count,
}

/// One curve.
#[derive(Debug, Clone)]
pub struct Curve {
    /// What it is called.
    pub name: String,
    /// A value for each moment.
    pub values: Vec<i64>,
}

#[derive(Template)]
#[template(path = "comparison.html")]
struct Page<'a> {
    page: &'a Comparison,
    figures: Table,
    charts: Vec<Figure>,
}

impl Comparison {
    /// The page: nothing is fetched from anywhere, nothing runs.
    #[must_use]
    pub fn html(&self) -> String {
        let head = std::iter::once((String::new(), false));
        let row = |(name, cells): &(String, Vec<String>)| {
            let cells = cells.iter().cloned().map(Cell::Number);
            std::iter::once(Cell::Text(name.clone())).chain(cells).collect()
        };
        let figures = Table {
            caption: "Figures".to_owned(),
            head: head.chain(self.policies.iter().map(|name| (name.clone(), true))).collect(),
            rows: self.rows.iter().map(row).collect(),
            foot: Vec::new(),
        };
        let page = Page { page: self, figures, charts: self.charts.iter().map(figure).collect() };
        page.render().expect("writing to a string does not fail, and the template calls nothing that can")
    }
}

fn figure(chart: &CurveChart) -> Figure {
    let words = Words { id: &chart.id, title: &chart.heading, description: &chart.lead };
    let value = |value: i64| match chart.unit {
        Unit::Money => money(Usd::from_nanos(value)),
        Unit::Count => tenths(value / 100),
    };
    let head = std::iter::once(("Time".to_owned(), false));
    let row = |(number, at): (usize, &Timestamp)| {
        let values = chart.curves.iter().map(|curve| curve.values.get(number).copied().unwrap_or_default());
        let cells = values.map(|of| Cell::Number(value(of)));
        std::iter::once(Cell::Text(super::figures::moment(*at))).chain(cells).collect()
    };
    let every = chart.at.len().div_ceil(ROWS).max(1);
    let table = Table {
        caption: chart.heading.clone(),
        head: head.chain(chart.curves.iter().map(|curve| (curve.name.clone(), true))).collect(),
        rows: chart.at.iter().enumerate().step_by(every).map(row).collect(),
        foot: Vec::new(),
    };
    let pictures = both(|size| chart::curves(&words, size, chart));
    Figure { heading: chart.heading.clone(), lead: chart.lead.clone(), pictures, table }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_cannot_leave_their_place_and_every_chart_is_drawn_twice() {
        let at = [0, 3_600_000, 7_200_000].map(Timestamp::from_millis).to_vec();
        let curve = Curve { name: "<script>".to_owned(), values: vec![0, 1000, 500] };
        let page = Comparison {
            title: "a & b".to_owned(),
            policies: vec!["<img>".to_owned()],
            rows: vec![("cost".to_owned(), vec!["$1".to_owned()])],
            charts: vec![CurveChart {
                id: "queue".to_owned(),
                heading: "Queue".to_owned(),
                lead: String::new(),
                unit: Unit::Count,
                at,
                curves: vec![curve],
            }],
            ..Comparison::default()
        };
        let html = page.html();
        assert!(!html.contains("<script") && !html.contains("<img"), "{html}");
        assert_eq!(html.matches("<polyline").count(), 2);
        assert!(html.contains("a &#38; b") || html.contains("a &amp; b"));
    }
}
