//! Writes the report page of a made-up month to standard output, to be looked at in a browser; with the argument
//! `first-day`, that of a day on which nothing was spent; with `markdown`, the month as markdown.
//!
//! `cargo run -p bursar-daemon --example report_page > report.html`

#[path = "../tests/reports/sample.rs"]
mod sample;

use std::io::Write;

use bursar_daemon::reports::{html, markdown};

fn main() -> std::io::Result<()> {
    let text = match std::env::args().nth(1).as_deref() {
        Some("first-day") => html(&sample::first_day()),
        Some("markdown") => markdown(&sample::november()),
        _ => html(&sample::november()),
    };
    std::io::stdout().write_all(text.as_bytes())
}
