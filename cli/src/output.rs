//! What goes to standard output: data and nothing else.

use std::io::{self, IsTerminal, Write};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::exit::Failure;

/// How data is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// For spreadsheets.
    Csv,
}

/// Writes a line of data.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    write_all(format!("{text}\n").as_bytes())
}

/// Writes a value as one JSON document.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let mut text = if io::stdout().is_terminal() {
        serde_json::to_string_pretty(value)?
    } else {
        serde_json::to_string(value)?
    };
    text.push('\n');
    write_all(text.as_bytes())
}

/// Writes rows under headers; `numbers` are the columns that align right.
pub(crate) fn table(headers: &[&str], rows: Vec<Vec<String>>, numbers: &[usize]) -> Result<(), Failure> {
    line(&render(headers, rows, numbers))
}

/// Rows under headers as text.
pub(crate) fn render(headers: &[&str], rows: Vec<Vec<String>>, numbers: &[usize]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headers.iter().map(|header| header.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    for column in numbers {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let text = table.to_string();
    // Trailing blanks make copied lines ugly, and diffs too.
    text.lines()
        .map(str::trim_end)
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Writes rows as comma-separated values (RFC 4180).
pub(crate) fn csv(headers: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
    let mut text = csv_row(headers.iter().copied());
    for row in rows {
        text.push_str(&csv_row(row.iter().map(String::as_str)));
    }
    write_all(text.as_bytes())
}

fn csv_row<'a>(cells: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = cells
        .map(|cell| {
            if cell.contains([',', '"', '\n', '\r']) {
                format!("\"{}\"", cell.replace('"', "\"\""))
            } else {
                cell.to_owned()
            }
        })
        .collect();
    format!("{}\r\n", quoted.join(","))
}

/// Writes bytes as they are. A reader that has seen enough (`| head`) is no error.
pub(crate) fn write_all(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            std::process::exit(i32::from(crate::exit::OK))
        }
        result => Ok(result?),
    }
}

/// Tells the person something that is not data.
pub(crate) fn note(text: &str) {
    // Nobody to tell it to is no reason to fail.
    let _ = writeln!(io::stderr(), "{text}");
}
