//! Reading the files of a bill: telling formats apart, going through the rows, keeping count of the bad ones.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fmt,
    io::{self, BufRead, BufReader, Read},
};

use csv::{ErrorKind, StringRecord};
use serde::{Serialize, de::IgnoredAny};

use super::{
    Bill, RESOURCES_MAX, TooManyResources, aws,
    aws::Cur,
    fields::{Row, RowError, snake_case},
    focus,
    focus::Focus,
    gcp,
    gcp::{Gcp, JsonRow},
};

/// Bad rows are alike: a hundred show what is wrong with the file, the count how much of it.
const BAD_ROWS_MAX: usize = 100;
/// No row is longer than this: a resource has at most some dozens of tags, each of a few hundred bytes. What is longer is
/// a quotation mark that nobody closed, and would be read into memory to the end of the file.
const ROW_BYTES_MAX: usize = 4 << 20;

/// The format of a file of a bill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BillFormat {
    /// FOCUS columns, CSV.
    Focus,
    /// AWS Cost and Usage Report, 2.0 or legacy, CSV.
    AwsCur,
    /// GCP billing export, CSV.
    GcpCsv,
    /// GCP billing export, JSON lines.
    GcpJsonLines,
}

/// What was found in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileRead {
    /// Its format.
    pub format: BillFormat,
    /// How many rows were counted.
    pub rows: u64,
    /// How many were not.
    pub bad_row_count: u64,
    /// The first hundred that were not.
    pub bad_rows: Vec<BadRow>,
}

/// A row that was not counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BadRow {
    /// Its line in the file, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub why: String,
}

/// Why a file cannot be read as a bill. What it had added to the bill by then is still there.
#[derive(Debug, thiserror::Error)]
pub enum BillError {
    /// Reading it failed.
    #[error("the bill cannot be read")]
    Io(#[from] io::Error),
    /// It is no text.
    #[error("the bill is {what}: {advice}")]
    NotText {
        /// What it is.
        what: &'static str,
        /// How to make a text of it.
        advice: &'static str,
    },
    /// Its columns are those of no format that we know.
    #[error("the bill has the columns {found}, but {}", needs())]
    UnknownFormat {
        /// The columns that it has.
        found: String,
    },
    /// It is in another currency.
    #[error("line {line}: the bill is in {currency}, but charges are in USD: have it exported in USD")]
    Currency {
        /// The first line in that currency.
        line: u64,
        /// Which.
        currency: String,
    },
    /// It names more resources than can be ours.
    #[error(
        "line {line}: the bill has more than {RESOURCES_MAX} resources with our tags: read fewer months at once"
    )]
    TooManyResources {
        /// Where there were too many.
        line: u64,
    },
}

impl Bill {
    /// Adds a file of the bill. `is_known` says whether a name is the cloud id of an instance of ours: such a resource
    /// is kept even if the bill has no tags.
    ///
    /// Each row must be in one file only: files of the same month, not two versions of it.
    ///
    /// Rows that make no sense are not counted but reported. After an error the bill has a part of the file in it, and
    /// should be thrown away.
    pub fn read(&mut self, file: impl Read, is_known: impl Fn(&str) -> bool) -> Result<FileRead, BillError> {
        let mut file = file;
        let mut start = Vec::with_capacity(4);
        (&mut file).take(4).read_to_end(&mut start)?;
        check_is_text(&start)?;
        let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&start);
        let left = Cell::new(ROW_BYTES_MAX);
        let file = RowLimit { file: start.chain(file), left: &left };
        let rows = Rows { bill: self, is_known: &is_known, left: &left };
        if start.first() == Some(&b'{') { rows.read_json_lines(file) } else { rows.read_csv(file) }
    }
}

impl fmt::Display for BillFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Focus => "FOCUS",
            Self::AwsCur => "AWS Cost and Usage Report",
            Self::GcpCsv => "GCP billing export (CSV)",
            Self::GcpJsonLines => "GCP billing export (JSON lines)",
        })
    }
}

/// Rows on their way into a bill.
struct Rows<'a> {
    bill: &'a mut Bill,
    is_known: &'a dyn Fn(&str) -> bool,
    /// What `RowLimit` lets through until the row ends.
    left: &'a Cell<usize>,
}

/// The columns of a CSV.
enum Columns {
    Focus(Focus),
    AwsCur(Cur),
    Gcp(Gcp),
}

impl Columns {
    fn find(header: &StringRecord) -> Result<Self, BillError> {
        let names: Vec<String> = header.iter().map(snake_case).collect();
        let has = |needed: &[&str]| needed.iter().all(|name| names.contains(&snake_case(name)));
        if has(&focus::NEEDED) {
            Ok(Self::Focus(Focus::new(&names)))
        } else if has(&aws::NEEDED) {
            Ok(Self::AwsCur(Cur::new(&names)))
        } else if has(&gcp::NEEDED) {
            Ok(Self::Gcp(Gcp::new(&names)))
        } else {
            Err(unknown_format(header.iter()))
        }
    }

    fn format(&self) -> BillFormat {
        match self {
            Self::Focus(_) => BillFormat::Focus,
            Self::AwsCur(_) => BillFormat::AwsCur,
            Self::Gcp(_) => BillFormat::GcpCsv,
        }
    }

    fn row<'a>(&self, record: &'a StringRecord) -> Result<Row<'a>, RowError> {
        match self {
            Self::Focus(columns) => columns.row(record),
            Self::AwsCur(columns) => columns.row(record),
            Self::Gcp(columns) => columns.row(record),
        }
    }
}

impl Rows<'_> {
    fn read_csv(mut self, file: impl Read) -> Result<FileRead, BillError> {
        let mut reader = csv::Reader::from_reader(file);
        let columns = Columns::find(reader.headers().map_err(io::Error::from)?)?;
        let mut read = FileRead::new(columns.format());
        let mut record = StringRecord::new();
        loop {
            self.left.set(ROW_BYTES_MAX);
            match reader.read_record(&mut record) {
                Ok(true) => {
                    let line = record.position().map_or(0, csv::Position::line);
                    self.take(columns.row(&record), line, &mut read)?;
                }
                Ok(false) => return Ok(read),
                Err(error)
                    if matches!(error.kind(), ErrorKind::Utf8 { .. } | ErrorKind::UnequalLengths { .. }) =>
                {
                    read.add_bad(error.position().map_or(0, csv::Position::line), error.to_string());
                }
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
    }

    fn read_json_lines(mut self, file: impl Read) -> Result<FileRead, BillError> {
        let mut reader = BufReader::new(file);
        let mut read = FileRead::new(BillFormat::GcpJsonLines);
        let mut text = Vec::new();
        for line in 1.. {
            self.left.set(ROW_BYTES_MAX);
            text.clear();
            if reader.read_until(b'\n', &mut text)? == 0 {
                break;
            }
            if line == 1 {
                let names = serde_json::from_slice::<BTreeMap<String, IgnoredAny>>(&text).unwrap_or_default();
                if !gcp::NEEDED.iter().all(|name| names.contains_key(*name)) {
                    return Err(unknown_format(names.keys().map(String::as_str)));
                }
            }
            if text.trim_ascii().is_empty() {
                continue;
            }
            match serde_json::from_slice::<JsonRow<'_>>(&text) {
                Ok(row) => self.take(row.row(), line, &mut read)?,
                Err(error) => read.add_bad(line, error.to_string()),
            }
        }
        Ok(read)
    }

    fn take(
        &mut self,
        row: Result<Row<'_>, RowError>,
        line: u64,
        read: &mut FileRead,
    ) -> Result<(), BillError> {
        match row {
            Ok(row) => {
                read.rows += 1;
                let added = self.bill.add(row, self.is_known);
                added.map_err(|TooManyResources| BillError::TooManyResources { line })
            }
            Err(RowError::Bad(why)) => {
                read.add_bad(line, why);
                Ok(())
            }
            Err(RowError::Currency(currency)) => Err(BillError::Currency { line, currency }),
        }
    }
}

impl FileRead {
    fn new(format: BillFormat) -> Self {
        Self { format, rows: 0, bad_row_count: 0, bad_rows: Vec::new() }
    }

    fn add_bad(&mut self, line: u64, why: String) {
        self.bad_row_count += 1;
        if self.bad_rows.len() < BAD_ROWS_MAX {
            self.bad_rows.push(BadRow { line, why });
        }
    }
}

/// Files that look like something else by their first bytes.
fn check_is_text(start: &[u8]) -> Result<(), BillError> {
    let (what, advice) = match start {
        [b'P', b'A', b'R', b'1', ..] => (
            "a Parquet file",
            "export it as CSV (AWS Data Exports: format `gzip - text/csv`; BigQuery: JSON) and read that",
        ),
        [0x1f, 0x8b, ..] => ("compressed with gzip", "decompress it with `gunzip` and read that"),
        [b'P', b'K', 3, 4] => ("a ZIP archive", "unpack it with `unzip` and read what is in it"),
        [b'[', ..] => ("one JSON array", "make lines of it with `jq -c '.[]'` and read those"),
        _ => return Ok(()),
    };
    Err(BillError::NotText { what, advice })
}

fn unknown_format<'a>(found: impl Iterator<Item = &'a str>) -> BillError {
    // A bill may have hundreds of columns, and a file that is no bill one of any length.
    let mut names: Vec<String> = found.take(21).map(|name| name.chars().take(60).collect()).collect();
    if names.len() > 20 {
        names[20] = "…".to_owned();
    }
    BillError::UnknownFormat { found: if names.is_empty() { "(none)".to_owned() } else { names.join(", ") } }
}

/// What a file needs to be a bill.
fn needs() -> String {
    let formats: [(BillFormat, &[&str]); 3] = [
        (BillFormat::Focus, &focus::NEEDED),
        (BillFormat::AwsCur, &aws::NEEDED),
        (BillFormat::GcpCsv, &gcp::NEEDED),
    ];
    let needs = formats.map(|(format, needed)| format!("{format} needs {}", needed.join(", ")));
    needs.join("; ")
}

/// A reader that ends with an error where one row has no end.
struct RowLimit<'a, R> {
    file: R,
    left: &'a Cell<usize>,
}

impl<R: Read> Read for RowLimit<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // A row that starts in a buffer read earlier has room for itself in any case: the limit is far above a buffer.
        let read = self.file.read(buffer)?;
        let left = self.left.get().checked_sub(read).ok_or_else(|| {
            io::Error::other(format!(
                "a row is longer than {} MiB: is there a quotation mark without its second?",
                ROW_BYTES_MAX >> 20
            ))
        })?;
        self.left.set(left);
        Ok(read)
    }
}
