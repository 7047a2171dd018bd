//! What the report page and the markdown hold.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod sample;

use bursar_daemon::reports::{SpendReport, Waste, html, markdown};
use bursar_model::{Category, Usd};

/// The tags of a page in order, after it was checked that every element is closed in turn and every value quoted.
fn checked_tags(page: &str) -> Vec<&str> {
    const VOID: [&str; 2] = ["meta", "!DOCTYPE"];
    let (mut open, mut tags) = (Vec::new(), Vec::new());
    for piece in page.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').unwrap_or_else(|| panic!("no end of a tag: {piece}"));
        assert_eq!(tag.matches('"').count() % 2, 0, "an open quote in {tag}");
        tags.push(tag);
        let name = tag.split([' ', '/']).find(|part| !part.is_empty()).unwrap_or_default();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "closed out of turn");
        } else if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
        }
        assert!(!text.contains('>') || open.last() == Some(&"style"), "a bare > in {text}");
    }
    assert_eq!(open, Vec::<&str>::new(), "never closed");
    tags
}

fn dollars(amount: Usd) -> f64 {
    amount.to_string().parse().unwrap()
}

/// The numbers of the rows of the table with this caption, without its head and sums.
fn numbers_of(page: &str, caption: &str) -> Vec<Vec<f64>> {
    let table = page.split("<table>").find(|table| table.contains(&format!("<caption>{caption}</caption>")));
    let body = table.unwrap().split_once("<tbody>").unwrap().1.split_once("</tbody>").unwrap().0;
    let number = |cell: &str| cell.split_once('<').unwrap().0.replace(['$', ',', '%'], "").parse().unwrap();
    body.split("<tr>")
        .skip(1)
        .map(|row| row.split("<td class=\"n\">").skip(1).map(number).collect())
        .collect()
}

#[test]
fn the_page_is_well_formed_whether_money_was_spent_or_not() {
    for report in [sample::november(), sample::first_day()] {
        let page = html(&report);
        assert!(checked_tags(&page).len() > 100);
    }
}

#[test]
fn the_page_asks_nobody_for_anything_and_runs_nothing() {
    let page = html(&sample::november());
    for tag in checked_tags(&page) {
        let name = tag.split(' ').next().unwrap();
        assert!(!["script", "link", "img", "iframe", "image", "use", "object", "a"].contains(&name), "{tag}");
        let outside_values: String = tag.split('"').step_by(2).collect();
        for attribute in ["src=", "href=", " on"] {
            assert!(!outside_values.contains(attribute), "{tag}");
        }
    }
    assert!(!page.contains("@import") && !page.contains("url("));
    assert!(page.contains("default-src 'none'; style-src 'unsafe-inline'; img-src data:"));
}

#[test]
fn every_chart_has_words_of_its_own_and_a_table() {
    let page = html(&sample::november());
    let tags = checked_tags(&page);
    let charts: Vec<&&str> = tags.iter().filter(|tag| tag.starts_with("svg class=\"chart")).collect();
    // Spend, waste, saving and two budgets with a limit, each wide and narrow.
    assert_eq!(charts.len(), 10);
    assert_eq!(tags.iter().filter(|tag| **tag == "details").count(), 5);
    for chart in charts {
        let named = chart.split("aria-labelledby=\"").nth(1).unwrap().split('"').next().unwrap();
        for id in named.split(' ') {
            assert_eq!(tags.iter().filter(|tag| tag.contains(&format!(" id=\"{id}\""))).count(), 1, "{id}");
        }
    }
}

#[test]
fn the_numbers_under_the_charts_are_those_of_the_report() {
    let report = sample::november();
    let page = html(&report);
    let close = |shown: f64, meant: Usd| (shown - dollars(meant)).abs() <= 0.005;

    let spend = numbers_of(&page, "Spend over time by project");
    assert_eq!(spend.len(), report.timeline.len());
    for (row, bin) in spend.iter().zip(&report.timeline) {
        assert!(close(*row.last().unwrap(), bin.spent()), "{row:?}");
    }
    let waste = numbers_of(&page, "Kinds of waste by project");
    for (row, project) in waste.iter().zip(&report.projects) {
        for (shown, kind) in row.iter().zip(Waste::ALL) {
            assert!(close(*shown, project.spent.waste(kind)), "{row:?}");
        }
    }
    let saving = numbers_of(&page, "Paid, and the same at on-demand prices");
    for (row, bin) in saving.iter().zip(&report.timeline) {
        assert!(close(row[0], bin.on_demand) && close(row[1], bin.spent()), "{row:?}");
    }
    let left = numbers_of(&page, "What is left of the budget of project speech");
    for (row, (_, spent)) in left.iter().zip(&report.budgets[1].series) {
        assert!(close(row[0], *spent) && close(row[1], Usd::from_dollars(4_500) - *spent), "{row:?}");
    }
}

#[test]
fn a_report_that_was_sent_as_json_gives_the_same_page() {
    let report = sample::november();
    let sent: SpendReport = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
    assert!(html(&sent) == html(&report));
}

#[test]
fn a_limit_that_was_lowered_below_what_is_spent_is_said_to_be_over() {
    let mut report = sample::november();
    report.budgets[1].limit = Some(Usd::from_dollars(2_000));
    report.budgets[1].spent = "2200.5".parse().unwrap();
    assert_eq!(report.budgets[1].outlook(), "exhausted");
    assert!(html(&report).contains(">$200.50 over the limit</text>"));
}

#[test]
fn a_limit_within_the_interval_of_the_projection_may_be_reached() {
    let mut report = sample::november();
    let budget = &mut report.budgets[0];
    assert_eq!(budget.outlook(), "lasts");
    budget.projection.as_mut().unwrap().high = Usd::from_dollars(20_001);
    assert_eq!(budget.outlook(), "limit may be reached");
}

#[test]
fn a_report_by_nothing_is_its_sum_alone() {
    let mut report = sample::november();
    report.table.by.clear();
    report.table.rows = vec![report.table.total.clone()];
    let page = html(&report);
    let table = page.split("<table>").find(|table| table.contains("<caption>Sum</caption>")).unwrap();
    let table = table.split("</table>").next().unwrap();
    assert_eq!(table.matches("$10,404.21").count(), 1);
    assert_eq!(markdown(&report).matches("| **total** | $10,404.21 |").count(), 1);
}

#[test]
fn rows_beyond_what_a_browser_bears_are_summed_in_one() {
    let mut report = sample::november();
    let row = report.table.rows[0].clone();
    report.table.rows = vec![row; 600];
    let page = html(&report);
    let rows =
        page.split("<table>").find(|table| table.contains("<caption>Spend by project</caption>")).unwrap();
    assert_eq!(rows.matches("<tr>").count(), 1 + 500 + 1 + 1);
    assert!(rows.contains("100 more"));
}

fn renamed(mut report: SpendReport, name: &str) -> SpendReport {
    report.title = name.to_owned();
    report.installation = name.to_owned();
    report.projects[0].project = name.to_owned();
    report.table.by[0] = name.to_owned();
    report.table.rows[0].keys[0] = "exp_1".to_owned();
    report.table.rows[1].keys[0] = name.to_owned();
    report.table.names.insert("exp_1".to_owned(), name.to_owned());
    for bin in &mut report.timeline {
        let spent = bin.by_project.remove("speech").unwrap();
        bin.by_project.insert(name.to_owned(), spent);
        bin.label = name.to_owned();
    }
    report.budgets[0].name = name.to_owned();
    report.budgets[0].window = name.to_owned();
    report.estimates[0].name = name.to_owned();
    report.top[0].name = name.to_owned();
    report.top[0].project = name.to_owned();
    report.top[0].state = name.to_owned();
    report
}

#[test]
fn hostile_names_stay_text() {
    let hostile = "\"'><script>alert(1)</script><b onload=x>{{7*7}}]]>&\u{0}";
    let page = html(&renamed(sample::november(), hostile));
    // As long, so that everything has the same place.
    let plain = html(&renamed(sample::november(), &"x".repeat(hostile.chars().count())));
    let names = |page: &str| -> Vec<String> {
        let tags = checked_tags(page).into_iter();
        tags.map(|tag| tag.split(' ').next().unwrap().to_owned()).collect()
    };
    assert!(names(&page) == names(&plain), "a name has made an element");
    assert!(!page.contains("<script") && !page.contains("<b onload"));
}

#[test]
fn hostile_names_make_no_markdown() {
    let text = markdown(&renamed(sample::november(), "a | b\n# [x](y) <img> `c` @all *d*"));
    assert!(text.contains(r"a \| b \# \[x\](y) &lt;img\> \`c\` @"), "{text}");
    assert!(!text.contains("@all") && !text.contains("<img"));
    let lines = text.lines().filter(|line| line.starts_with('#')).count();
    assert_eq!(lines, 4, "{text}");
}

#[test]
fn the_markdown_of_a_month() {
    insta::assert_snapshot!(markdown(&sample::november()));
}

#[test]
fn the_markdown_of_a_first_day() {
    insta::assert_snapshot!(markdown(&sample::first_day()));
}

#[test]
fn kinds_of_waste_and_kept_work_are_all_of_the_spend() {
    let spent = sample::november().totals.spent;
    let kept = spent.category(Category::Run) - spent.failed_attempts;
    assert_eq!(kept + spent.wasted(), spent.total());
}

/// The ratio of WCAG 2.2 (1.4.3, relative luminance).
#[expect(clippy::float_arithmetic, reason = "a ratio of luminances is no money")]
fn contrast(a: &str, b: &str) -> f64 {
    let luminance = |colour: &str| {
        let channel = |at: usize| {
            let value = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).unwrap()) / 255.0;
            if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
    };
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[test]
fn text_can_be_read_in_both_palettes() {
    let style = include_str!("../../templates/report.css");
    let palettes: Vec<&str> =
        style.split(":root {").skip(1).map(|rest| rest.split('}').next().unwrap()).collect();
    assert_eq!(palettes.len(), 2);
    for palette in palettes {
        let colour = |name: &str| -> &str {
            palette.split(&format!("--{name}: ")).nth(1).unwrap().split(';').next().unwrap()
        };
        for text in ["ink", "dim"] {
            assert!(contrast(colour(text), colour("page")) >= 4.5, "{text} on the page");
            assert!(contrast(colour(text), colour("band")) >= 4.5, "{text} on a band");
        }
        let marks = (1..=7).map(|n| format!("s{n}")).chain((1..=5).map(|n| format!("w{n}")));
        for mark in marks {
            assert!(contrast(colour("on-mark"), colour(&mark)) >= 4.5, "letters on {mark}");
        }
        // Marks that are no text need three to one (1.4.11).
        for mark in ["paid", "on-demand", "alarm"] {
            assert!(contrast(colour(mark), colour("page")) >= 3.0, "{mark}");
        }
    }
}
