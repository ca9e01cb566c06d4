//! Reads behaviour from the two formats of `data import`: RecBole atomic files and CSV.
//!
//! * RecBole: tab separated, no quoting; the header names the columns `user_id:token`, `item_id:token`,
//!   `rating:float`, `timestamp:float`. Rows become `EventKind::Rating` with the rating as weight.
//! * CSV: RFC 4180; the header names `user_id`, `item_id`, `event`, `timestamp` and may name `weight`. Without a weight
//!   the kind's default applies.
//!
//! Columns may be in any order; unknown ones are ignored. Timestamps are Unix seconds with optional fraction; in CSV also RFC 3339.

use std::{
    fmt,
    io::{BufReader, Read, Write},
    str::FromStr,
};

use contract::EventKind;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    dataset::{Dataset, DatasetBuilder, PushError},
    records::{Record, RecordError, Records},
};

/// Number of bad rows that the report lists.
const BAD_ROWS_SHOWN: usize = 10;

/// 9999-12-31T23:59:59Z, the last second of a MySQL date.
const LAST_SECOND: i64 = 253_402_300_799;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    RecBole,
    Csv,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadRows {
    /// Bad rows are counted and skipped.
    Skip,
    /// A bad row fails the parse. All rows are read first, so that the error counts the bad ones.
    Refuse,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BadRow {
    /// Physical line on which the row starts, counted from 1.
    pub line: u64,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ParseReport {
    pub format: Format,
    /// Rows after the header, bad ones included.
    pub rows: u64,
    pub bad_rows: u64,
    /// The first `BAD_ROWS_SHOWN` of them.
    pub first_bad_rows: Vec<BadRow>,
    /// Events equal to an earlier one in user, item, kind and time; left out.
    pub duplicates: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(
        "the header is neither RecBole's (user_id:token, item_id:token, rating:float, timestamp:float, separated by tabs) \
         nor CSV's (user_id,item_id,event,timestamp[,weight]); the first line is {found:?}"
    )]
    UnknownFormat { found: String },
    #[error("the header has no column {}", .0.join(", "))]
    MissingColumns(Vec<&'static str>),
    #[error("the header has the column {0} twice")]
    DuplicateColumn(&'static str),
    #[error("{0}")]
    BadRows(ParseReport),
    #[error("there is no valid row; {0}")]
    NoRows(ParseReport),
}

/// One line, and one more for each listed bad row.
impl fmt::Display for ParseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} rows are bad, {} are duplicates", self.bad_rows, self.rows, self.duplicates)?;
        for bad in &self.first_bad_rows {
            write!(f, "\n  line {}: {}", bad.line, bad.reason)?;
        }
        let unseen = self.bad_rows - self.first_bad_rows.len() as u64;
        if unseen > 0 {
            write!(f, "\n  and {unseen} more")?;
        }
        Ok(())
    }
}

/// Reads all of `input`.
///
/// # Errors
/// The input cannot be read, the header is unknown or incomplete, there is no valid row, or there are bad rows and `bad_rows` refuses them.
pub fn parse(input: impl Read, bad_rows: BadRows) -> Result<(Dataset, ParseReport), ParseError> {
    let mut records = Records::new(BufReader::with_capacity(1 << 16, input))?;
    let format = recognise(records.first_line())?;
    match format {
        Format::RecBole => records.set_format(b'\t', false),
        Format::Csv => records.set_format(b',', true),
    }
    let columns = match records.next()? {
        Some(header) => Columns::find(format, &header)?,
        None => return Err(ParseError::UnknownFormat { found: String::new() }),
    };

    let mut report = ParseReport { format, rows: 0, bad_rows: 0, first_bad_rows: Vec::new(), duplicates: 0 };
    let mut builder = DatasetBuilder::default();
    while let Some(record) = records.next()? {
        report.rows += 1;
        if let Err(reason) = columns.push_row(&record, &mut builder) {
            report.bad_rows += 1;
            if report.first_bad_rows.len() < BAD_ROWS_SHOWN {
                report.first_bad_rows.push(BadRow { line: record.line, reason: reason.to_string() });
            }
        }
    }

    let (dataset, duplicates) = builder.finish();
    report.duplicates = duplicates;
    if report.bad_rows > 0 && bad_rows == BadRows::Refuse {
        return Err(ParseError::BadRows(report));
    }
    if dataset.events.is_empty() {
        return Err(ParseError::NoRows(report));
    }
    Ok((dataset, report))
}

fn recognise(first_line: &[u8]) -> Result<Format, ParseError> {
    let line = String::from_utf8_lossy(first_line);
    let names = |separator: char, name: &str| line.split(separator).any(|column| column.trim_matches('"') == name);
    if names('\t', "user_id:token") || names('\t', "item_id:token") {
        Ok(Format::RecBole)
    } else if names(',', "user_id") || names(',', "item_id") {
        Ok(Format::Csv)
    } else {
        Err(ParseError::UnknownFormat { found: line.chars().take(120).collect() })
    }
}

/// Positions of the columns.
struct Columns {
    format: Format,
    /// Number of columns of the header and of each row.
    count: usize,
    user: usize,
    item: usize,
    timestamp: usize,
    /// CSV only.
    event: Option<usize>,
    /// The rating of RecBole.
    weight: Option<usize>,
}

#[derive(Debug, thiserror::Error)]
enum RowError {
    #[error("has {found} columns, the header has {wanted}")]
    ColumnCount { found: usize, wanted: usize },
    #[error("the {0} is not UTF-8")]
    NotUtf8(&'static str),
    #[error(transparent)]
    Push(#[from] PushError),
    #[error("the event {0:?} is not one of view, cart, purchase, rating")]
    Event(String),
    #[error("the {name} {text:?} is not a finite number above 0")]
    NotPositive { name: &'static str, text: String },
    #[error("the timestamp {0:?} is not a time{1}")]
    Timestamp(String, &'static str),
    #[error("the timestamp {0:?} is not in the years 1970 to 9999; it must be in seconds")]
    OutOfRange(String),
}

impl Columns {
    fn find(format: Format, header: &Record<'_>) -> Result<Self, ParseError> {
        let [user, item, timestamp, event, weight] = match format {
            Format::RecBole => ["user_id:token", "item_id:token", "timestamp:float", "", "rating:float"],
            Format::Csv => ["user_id", "item_id", "timestamp", "event", "weight"],
        };
        let find = |name: &'static str| {
            let mut found = (0..header.len()).filter(|&at| header.field(at) == Some(name.as_bytes()));
            match (found.next(), found.next()) {
                (_, Some(_)) => Err(ParseError::DuplicateColumn(name)),
                (first, None) => Ok(first),
            }
        };
        let mut missing = Vec::new();
        let mut need = |name| -> Result<usize, ParseError> {
            Ok(find(name)?.unwrap_or_else(|| {
                missing.push(name);
                0
            }))
        };
        let (user, item) = (need(user)?, need(item)?);
        let (event, weight) = match format {
            Format::RecBole => (None, Some(need(weight)?)),
            Format::Csv => (Some(need(event)?), find(weight)?),
        };
        let timestamp = need(timestamp)?;
        if !missing.is_empty() {
            return Err(ParseError::MissingColumns(missing));
        }
        Ok(Columns { format, count: header.len(), user, item, timestamp, event, weight })
    }

    fn push_row(&self, record: &Record<'_>, builder: &mut DatasetBuilder) -> Result<(), RowError> {
        if record.len() != self.count {
            return Err(RowError::ColumnCount { found: record.len(), wanted: self.count });
        }
        let text = |at: usize, name| {
            std::str::from_utf8(record.field(at).unwrap_or_default()).map_err(|_| RowError::NotUtf8(name))
        };
        let kind = match self.event {
            None => EventKind::Rating,
            Some(at) => {
                let event = text(at, "event")?;
                EventKind::from_str(event).map_err(|_| RowError::Event(excerpt(event)))?
            }
        };
        let (name, stated) = match (self.format, self.weight) {
            (Format::RecBole, Some(at)) => ("rating", text(at, "rating")?),
            (Format::Csv, Some(at)) => ("weight", text(at, "weight")?),
            (_, None) => ("weight", ""),
        };
        let weight = match (stated, self.format) {
            ("", Format::Csv) => kind.default_weight(),
            _ => match stated.parse::<f32>() {
                Ok(weight) if weight.is_finite() && weight > 0.0 => weight,
                _ => return Err(RowError::NotPositive { name, text: excerpt(stated) }),
            },
        };
        let at_ms = self.time(text(self.timestamp, "timestamp")?)?;
        Ok(builder.push(text(self.user, "user id")?, text(self.item, "item id")?, kind, at_ms, weight)?)
    }

    fn time(&self, text: &str) -> Result<i64, RowError> {
        let out_of_range = || RowError::OutOfRange(excerpt(text));
        let ms = if let Ok(seconds) = text.parse::<i64>() {
            seconds.checked_mul(1000).ok_or_else(out_of_range)?
        } else if let Ok(seconds) = text.parse::<f64>() {
            // The cast saturates out of range, which is refused below. It would make NaN 0, so NaN becomes -1.
            if seconds.is_nan() { -1 } else { (seconds * 1000.0).round() as i64 }
        } else {
            match self.format {
                Format::RecBole => return Err(RowError::Timestamp(excerpt(text), " in Unix seconds")),
                Format::Csv => {
                    unix_ms(text).ok_or_else(|| RowError::Timestamp(excerpt(text), " in Unix seconds or RFC 3339"))?
                }
            }
        };
        if (0..=LAST_SECOND * 1000 + 999).contains(&ms) { Ok(ms) } else { Err(out_of_range()) }
    }
}

/// `2024-02-29T23:59:59.5+01:00` → Unix milliseconds, rounded down. A leap second counts as second 59. `None`: not a time with an offset
/// from UTC.
fn unix_ms(text: &str) -> Option<i64> {
    let time: Timestamp = text.parse().ok()?;
    i64::try_from(time.as_nanosecond().div_euclid(1_000_000)).ok()
}

/// The start of a value, for error messages: a value may have 64 KiB.
fn excerpt(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Writes CSV, from which `parse` reads an equal dataset. Ids are quoted if necessary, and a default weight is left empty.
///
/// # Errors
/// Those of `out`.
pub fn write_csv(data: &Dataset, out: impl Write) -> std::io::Result<()> {
    let mut out = std::io::BufWriter::with_capacity(1 << 16, out);
    out.write_all(b"user_id,item_id,event,timestamp,weight\n")?;
    for e in &data.events {
        write_field(&mut out, data.users[e.user as usize].as_str())?;
        out.write_all(b",")?;
        write_field(&mut out, data.items[e.item as usize].as_str())?;
        let (seconds, ms) = (e.at_ms.div_euclid(1000), e.at_ms.rem_euclid(1000));
        write!(out, ",{},{seconds}", name(e.kind))?;
        if ms != 0 {
            write!(out, ".{ms:03}")?;
        }
        if e.weight == e.kind.default_weight() { out.write_all(b",\n")? } else { writeln!(out, ",{}", e.weight)? }
    }
    out.flush()
}

fn name(kind: EventKind) -> &'static str {
    match kind {
        EventKind::View => "view",
        EventKind::Cart => "cart",
        EventKind::Purchase => "purchase",
        EventKind::Rating => "rating",
    }
}

fn write_field(out: &mut impl Write, id: &str) -> std::io::Result<()> {
    // Ids contain no control characters, so no line ends.
    if id.contains([',', '"']) { write!(out, "\"{}\"", id.replace('"', "\"\"")) } else { out.write_all(id.as_bytes()) }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
