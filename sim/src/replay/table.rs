//! Tables in CSV files, by the names in their first row.

use std::{collections::BTreeMap, io};

/// More problems than this are not listed: whoever has mended these sees the next.
const PROBLEMS_MAX: usize = 20;

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// It cannot be opened or read.
    #[error("{file} cannot be read")]
    Unreadable {
        /// Which.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// A column is missing.
    #[error("{file} line 1: there is no column `{column}`")]
    NoColumn {
        /// Which file.
        file: String,
        /// Which column.
        column: String,
    },
    /// Rows are wrong.
    #[error("{file} has problems\n  {}", .problems.join("\n  "))]
    Rows {
        /// Which file.
        file: String,
        /// What is wrong, with lines.
        problems: Vec<String>,
    },
}

/// What is wrong in a file so far.
#[derive(Debug)]
pub(super) struct Problems {
    file: String,
    found: Vec<String>,
    unlisted: usize,
}

impl Problems {
    pub(super) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), found: Vec::new(), unlisted: 0 }
    }

    pub(super) fn add(&mut self, line: u64, problem: String) {
        if self.found.len() < PROBLEMS_MAX {
            self.found.push(format!("line {line}: {problem}"));
        } else {
            self.unlisted += 1;
        }
    }

    /// Ok where there are none.
    pub(super) fn none(mut self) -> Result<(), TableError> {
        if self.unlisted > 0 {
            self.found.push(format!("and {} more", self.unlisted));
        }
        if self.found.is_empty() {
            Ok(())
        } else {
            Err(TableError::Rows { file: self.file, problems: self.found })
        }
    }

    /// As notes of what was left out.
    pub(super) fn into_notes(self) -> Vec<String> {
        let Self { file, found, unlisted } = self;
        let more = (unlisted > 0).then(|| format!("{file}: {unlisted} more rows are left out"));
        found.into_iter().map(|problem| format!("{file} {problem}: left out")).chain(more).collect()
    }
}

/// A table that is being read.
pub(super) struct Table<R> {
    reader: csv::Reader<R>,
    columns: BTreeMap<String, usize>,
    file: String,
}

/// One row of it.
pub(super) struct Row<'a> {
    pub(super) line: u64,
    columns: &'a BTreeMap<String, usize>,
    record: csv::StringRecord,
}

impl<R: io::Read> Table<R> {
    pub(super) fn open(file: &str, input: R) -> Result<Self, TableError> {
        let mut reader = csv::ReaderBuilder::new()
            .flexible(true)
            .trim(csv::Trim::All)
            .comment(Some(b'#'))
            .from_reader(input);
        let headers = reader.headers().map_err(|error| TableError::Unreadable {
            file: file.to_owned(),
            source: io::Error::other(error),
        })?;
        // A byte order mark is what some spreadsheets begin with.
        let name = |header: &str| header.trim_start_matches('\u{feff}').to_lowercase();
        let columns = headers.iter().enumerate().map(|(index, header)| (name(header), index)).collect();
        Ok(Self { reader, columns, file: file.to_owned() })
    }

    pub(super) fn has(&self, column: &str) -> bool {
        self.columns.contains_key(column)
    }

    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.keys().map(String::as_str)
    }

    pub(super) fn require(&self, columns: &[&str]) -> Result<(), TableError> {
        match columns.iter().find(|column| !self.has(column)) {
            Some(column) => {
                Err(TableError::NoColumn { file: self.file.clone(), column: (*column).to_owned() })
            }
            None => Ok(()),
        }
    }

    /// The columns that are not among these.
    pub(super) fn unknown(&self, known: &[&str]) -> Vec<String> {
        self.columns().filter(|column| !known.contains(column)).map(str::to_owned).collect()
    }

    /// The next row that has as many values as there are columns.
    pub(super) fn next_row(&mut self, problems: &mut Problems) -> Option<Row<'_>> {
        // Ends with the file: each round reads a row of it.
        loop {
            let mut record = csv::StringRecord::new();
            let read = self.reader.read_record(&mut record);
            let line = record.position().map_or(0, csv::Position::line);
            match read {
                Ok(false) => return None,
                Ok(true) if record.len() == self.columns.len() => {
                    return Some(Row { line, columns: &self.columns, record });
                }
                Ok(true) => {
                    let problem = format!("{} values for {} columns", record.len(), self.columns.len());
                    problems.add(line, problem);
                }
                Err(error) => {
                    problems.add(error.position().map_or(0, csv::Position::line), error.to_string());
                    // What is no UTF-8 is one bad row; what cannot be read at all would fail for ever.
                    if error.is_io_error() {
                        return None;
                    }
                }
            }
        }
    }
}

impl Row<'_> {
    /// What stands in a column, if the column is there and something does.
    pub(super) fn text(&self, column: &str) -> Option<&str> {
        let text = self.record.get(*self.columns.get(column)?)?;
        (!text.is_empty()).then_some(text)
    }

    /// The same as a value.
    pub(super) fn parsed<T>(
        &self,
        column: &str,
        wanted: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let Some(text) = self.text(column) else { return Ok(None) };
        let shown: String = text.chars().take(40).collect();
        parse(text).map(Some).ok_or_else(|| format!("{column} `{shown}` is not {wanted}"))
    }

    /// The same where something must stand there.
    pub(super) fn required<T>(
        &self,
        column: &str,
        wanted: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, String> {
        self.parsed(column, wanted, parse)?.ok_or_else(|| format!("{column} is empty"))
    }
}
