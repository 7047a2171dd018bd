//! What goes to standard output: data and nothing else.

use std::{
    io::{self, IsTerminal, Write},
    path::Path,
};

use bursar_config::read::environment;
use bursar_daemon::reports::bars::BarStyle;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::{
    exit::{FAILED, Failure},
    terminal::Filter,
};

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
    /// For pull requests and chat.
    Markdown,
    /// One page with charts, which needs nothing else.
    Html,
    /// For finance: every charge as rows of FOCUS 1.2, with the split-cost columns of 1.3
    Focus,
}

/// Writes a line of data.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    show(&format!("{text}\n"))
}

/// Text of others on its way to standard output: filtered where that is a terminal.
#[derive(Debug)]
pub(crate) struct Shown {
    filter: Option<Filter>,
}

impl Shown {
    pub(crate) fn new() -> Self {
        Self { filter: io::stdout().is_terminal().then(|| Filter::new(wants_colours())) }
    }

    /// Writes the next piece.
    pub(crate) fn write(&mut self, piece: &[u8]) -> Result<(), Failure> {
        match &mut self.filter {
            Some(filter) => write_all(&filter.pass(piece)),
            None => write_all(piece),
        }
    }

    /// After the last piece.
    pub(crate) fn end(self) -> Result<(), Failure> {
        self.filter.map_or(Ok(()), |filter| write_all(filter.end()))
    }
}

/// Whether the person likes colours, see https://no-color.org.
pub(crate) fn wants_colours() -> bool {
    environment().get("NO_COLOR").is_none_or(String::is_empty)
}

/// What bars are made of on this terminal.
pub(crate) fn bar_style() -> BarStyle {
    BarStyle::for_term(environment().get("TERM").map(String::as_str))
}

/// Writes a value as one JSON document.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    show(&json_text(value)?)
}

/// A value as one JSON document, with line ends where a person reads it.
pub(crate) fn json_text(value: &impl Serialize) -> Result<String, Failure> {
    let mut text = if io::stdout().is_terminal() {
        serde_json::to_string_pretty(value)?
    } else {
        serde_json::to_string(value)?
    };
    text.push('\n');
    Ok(text)
}

/// How many letters fit into a line of the terminal; none where there is no terminal.
pub(crate) fn terminal_width() -> Option<usize> {
    let is_terminal = io::stdout().is_terminal();
    is_terminal.then(|| Table::new().width().map_or(80, usize::from))
}

/// Writes a text that is ready.
pub(crate) fn show(text: &str) -> Result<(), Failure> {
    let mut out = Shown::new();
    out.write(text.as_bytes())?;
    out.end()
}

/// Writes a text that is ready into a file.
#[expect(clippy::disallowed_methods, reason = "this is where files that were asked for are written")]
pub(crate) fn write_file(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text)
        .map_err(|error| Failure::new(FAILED, format!("cannot write {}: {error}", path.display())))
}

/// Writes rows under headers; `numbers` are the columns that align right.
pub(crate) fn table(headers: &[&str], rows: Vec<Vec<String>>, numbers: &[usize]) -> Result<(), Failure> {
    line(&cut(&render(headers, rows, numbers), terminal_width()))
}

/// Text whose lines fit a terminal of so many columns: a table that is wrapped cannot be read. Whole where there is none.
pub(crate) fn cut(text: &str, width: Option<usize>) -> String {
    let Some(width) = width else { return text.to_owned() };
    let fits = |line: &str| {
        if line.chars().count() <= width {
            return line.to_owned();
        }
        let kept: String = line.chars().take(width.saturating_sub(1)).collect();
        format!("{}…", kept.trim_end())
    };
    text.lines().map(fits).collect::<Vec<_>>().join("\n")
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

/// Rows as comma-separated values (RFC 4180).
pub(crate) fn csv(headers: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = csv_row(headers.iter().copied());
    for row in rows {
        text.push_str(&csv_row(row.iter().map(String::as_str)));
    }
    text
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

/// Writes bytes as they are, all at once. A reader that has seen enough (`| head`) is no error.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_to_the_width_of_a_terminal_and_nowhere_else() {
        let text = "NAME  REASON\ndigits  the budget of the sweep has $0.10 left";
        assert_eq!(cut(text, None), text);
        assert_eq!(cut(text, Some(20)), "NAME  REASON\ndigits  the budget…");
        assert_eq!(cut("größer", Some(6)), "größer");
        assert_eq!(cut("größer", Some(5)), "größ…");
    }
}
