//! Reads delimited records, each with the physical line on which it starts.
//!
//! The parser is that of csv (csv-core). The reader of csv is not used: it reports wrong lines after CRLF and blank lines, and an unclosed
//! quote makes it read the rest of the file into memory.

use std::io::{self, BufRead, Read};

use csv_core::{ReadRecordResult, ReaderBuilder};

/// Longest record, in bytes of content. Ids, a kind and two numbers need much less.
const MAX_RECORD_BYTES: usize = 64 * 1024;
const MAX_FIELDS: usize = 256;

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("cannot read the data")]
    Io(#[from] io::Error),
    #[error("the record starting on line {line} is longer than {MAX_RECORD_BYTES} bytes; is a quote left open?")]
    TooLong { line: u64 },
    #[error("the record starting on line {line} has more than {MAX_FIELDS} fields")]
    TooManyFields { line: u64 },
}

pub(crate) struct Records<R> {
    input: R,
    parser: csv_core::Reader,
    /// The physical line that is being parsed, and the bytes parsed of it.
    line: Vec<u8>,
    used: usize,
    line_number: u64,
    content: Box<[u8]>,
    ends: Box<[usize]>,
}

/// Fields of one record; valid until the next one is read.
pub(crate) struct Record<'a> {
    /// Counted from 1.
    pub(crate) line: u64,
    content: &'a [u8],
    ends: &'a [usize],
}

impl<'a> Record<'a> {
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn field(&self, at: usize) -> Option<&'a [u8]> {
        let end = *self.ends.get(at)?;
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        Some(&self.content[start..end])
    }
}

impl<R: BufRead> Records<R> {
    /// Reads the first line, from which the caller chooses the delimiter.
    pub(crate) fn new(input: R) -> Result<Self, RecordError> {
        let mut records = Records {
            input,
            parser: csv_core::Reader::new(),
            line: Vec::new(),
            used: 0,
            line_number: 0,
            content: vec![0; MAX_RECORD_BYTES].into(),
            ends: vec![0; MAX_FIELDS].into(),
        };
        records.read_line(1)?;
        if records.line.starts_with(b"\xef\xbb\xbf") {
            records.used = 3;
        }
        Ok(records)
    }

    /// The first line without byte order mark and line end.
    pub(crate) fn first_line(&self) -> &[u8] {
        self.line[self.used..].trim_ascii_end()
    }

    pub(crate) fn set_format(&mut self, delimiter: u8, quoting: bool) {
        self.parser = ReaderBuilder::new().delimiter(delimiter).quoting(quoting).build();
    }

    /// The next record that is not an empty line; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Record<'_>>, RecordError> {
        let (mut out, mut fields) = (0, 0);
        let mut start = self.line_number;
        loop {
            if self.used == self.line.len() {
                self.read_line(if out + fields == 0 { self.line_number + 1 } else { start })?;
            }
            if out + fields == 0 {
                start = self.line_number;
            }
            // An empty slice means the end of the data to the parser. `read_line` leaves one only at the end.
            let (result, used, written, ended) =
                self.parser.read_record(&self.line[self.used..], &mut self.content[out..], &mut self.ends[fields..]);
            self.used += used;
            out += written;
            fields += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => return Err(RecordError::TooLong { line: start }),
                ReadRecordResult::OutputEndsFull => return Err(RecordError::TooManyFields { line: start }),
                ReadRecordResult::Record => break,
                ReadRecordResult::End => return Ok(None),
            }
        }
        Ok(Some(Record { line: start, content: &self.content[..out], ends: &self.ends[..fields] }))
    }

    /// `start`: the line to report if this one is too long.
    fn read_line(&mut self, start: u64) -> Result<(), RecordError> {
        self.line.clear();
        self.used = 0;
        // Quotes can double a record's length.
        let limit = 2 * MAX_RECORD_BYTES;
        let read = self.input.by_ref().take(limit as u64).read_until(b'\n', &mut self.line)?;
        if read == limit {
            return Err(RecordError::TooLong { line: start });
        }
        if read > 0 {
            self.line_number += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Row = (u64, Vec<String>);

    fn read(text: &[u8], delimiter: u8, quoting: bool) -> Result<Vec<Row>, RecordError> {
        // A buffer of 3 bytes tests boundaries at many positions.
        let mut records = Records::new(io::BufReader::with_capacity(3, text))?;
        records.set_format(delimiter, quoting);
        let mut rows = Vec::new();
        while let Some(r) = records.next()? {
            rows.push((
                r.line,
                (0..r.len()).map(|at| String::from_utf8_lossy(r.field(at).unwrap()).into_owned()).collect(),
            ));
        }
        Ok(rows)
    }

    fn row(line: u64, fields: &[&str]) -> Row {
        (line, fields.iter().map(|f| f.to_string()).collect())
    }

    #[test]
    fn lines_are_physical_with_quoted_newlines_blank_lines_and_crlf() {
        let text = b"\xef\xbb\xbfa,b\r\n1,\"x\r\ny\"\"z\"\r\n\r\n\r\n2,\"p,q\"\r\n\n3,\n,\"\n\"\nlast,end";
        let rows = read(text, b',', true).unwrap();
        let want = [
            row(1, &["a", "b"]),
            row(2, &["1", "x\r\ny\"z"]),
            row(6, &["2", "p,q"]),
            row(8, &["3", ""]),
            row(9, &["", "\n"]),
            row(11, &["last", "end"]),
        ];
        assert_eq!(rows, want);
    }

    #[test]
    fn without_quoting_a_quote_is_text() {
        let rows = read(b"a\t\"b\n\"\"\tc\n", b'\t', false).unwrap();
        assert_eq!(rows, [row(1, &["a", "\"b"]), row(2, &["\"\"", "c"])]);
    }

    #[test]
    fn an_open_quote_ends_in_an_error_that_names_its_line() {
        let mut text = b"a,b\n1,\"2\n".to_vec();
        for _ in 0..20_000 {
            text.extend_from_slice(b"some more\n");
        }
        assert!(matches!(read(&text, b',', true), Err(RecordError::TooLong { line: 2 })));
    }

    #[test]
    fn endless_lines_and_fields_are_refused() {
        let mut reader = io::BufReader::new(io::repeat(b'x'));
        assert!(matches!(Records::new(&mut reader), Err(RecordError::TooLong { line: 1 })));
        let text = [b"a\n".to_vec(), vec![b','; 300]].concat();
        assert!(matches!(read(&text, b',', true), Err(RecordError::TooManyFields { line: 2 })));
    }
}
