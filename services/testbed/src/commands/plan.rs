//! `testbed plan`: lines of JSON in, answers out as soon as each is known.

mod table;

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::Context;
use autoscaler::{
    Manifest,
    line::{self, Answer},
};

use crate::{autoscale::manifest, cli::PlanArgs};

/// Of a line, without its end.
const LONGEST_LINE: u64 = 16 << 20;

pub fn run(args: &PlanArgs) -> anyhow::Result<ExitCode> {
    // Read first: without it no line can be answered as asked.
    let manifest = args.hpa.as_deref().map(read_manifest).transpose()?;
    let input: Box<dyn Read> = match args.file.as_deref().filter(|file| *file != Path::new("-")) {
        Some(file) => Box::new(File::open(file).with_context(|| format!("cannot read {}", file.display()))?),
        None => Box::new(io::stdin().lock()),
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let answered = answer_lines(BufReader::new(input), manifest.as_ref(), args.table, &mut out);
    match answered.and_then(|bad| out.flush().map(|()| bad)) {
        Ok(0) => Ok(ExitCode::SUCCESS),
        Ok(_) => Ok(ExitCode::FAILURE),
        // `plan | head` is not an error.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error).context("cannot answer all lines"),
    }
}

fn read_manifest(file: &Path) -> anyhow::Result<Manifest> {
    Manifest::parse(&manifest::read(file)?).with_context(|| format!("cannot plan with {}", file.display()))
}

/// Returns the number of lines that are not valid.
fn answer_lines(
    mut input: impl BufRead,
    manifest: Option<&Manifest>,
    as_table: bool,
    out: &mut impl Write,
) -> io::Result<usize> {
    let (mut bad, mut bytes) = (0, Vec::new());
    for number in 1_u64.. {
        bytes.clear();
        // One byte more than a line and its end: the line is too long.
        if input.by_ref().take(LONGEST_LINE + 2).read_until(b'\n', &mut bytes)? == 0 {
            break;
        }
        let is_complete = bytes.pop_if(|byte| *byte == b'\n').is_some();
        if bytes.len() as u64 > LONGEST_LINE {
            bad += 1;
            eprintln!("line {number}: longer than {LONGEST_LINE} bytes");
            if !is_complete {
                input.skip_until(b'\n')?;
            }
            continue;
        }
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        match answer(&bytes, manifest) {
            Ok(answer) if as_table => table::write(out, &answer)?,
            Ok(answer) => write_json(out, &answer)?,
            Err(error) => {
                bad += 1;
                out.flush()?;
                eprintln!("line {number}: {error}");
            }
        }
    }
    Ok(bad)
}

fn answer(bytes: &[u8], manifest: Option<&Manifest>) -> Result<Answer, line::BadLine> {
    let mut case = line::parse(bytes)?;
    if let Some(manifest) = manifest {
        manifest.fill(&mut case);
    }
    line::answer(&case)
}

/// A reader that waits for the answer gets it: each line is flushed.
fn write_json(out: &mut impl Write, answer: &Answer) -> io::Result<()> {
    serde_json::to_writer(&mut *out, answer)?;
    out.write_all(b"\n")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CASE: &str =
        r#"{"id":"a","kind":"external","current_replicas":3,"values_milli":[4500],"target_average_milli":1000}"#;

    fn answers(input: &[u8]) -> (usize, String) {
        let mut out = Vec::new();
        let bad = answer_lines(input, None, false, &mut out).unwrap();
        (bad, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_line_has_a_limit_and_the_next_ones_are_answered() {
        let limit = usize::try_from(LONGEST_LINE).unwrap();
        let padded = |length: usize| format!("{CASE}{}\n{CASE}", " ".repeat(length - CASE.len()));
        for (length, bad) in [(limit, 0), (limit + 1, 1), (limit + 2, 1), (limit + 100_000, 1)] {
            let (found, out) = answers(padded(length).as_bytes());
            assert_eq!((found, out.lines().count()), (bad, 2 - bad), "{length}");
        }
    }

    #[test]
    fn empty_lines_are_no_cases_and_bad_ones_print_nothing() {
        let (bad, out) = answers(format!("\n{CASE}\r\n  \nnonsense\n\u{0}\n{CASE}").as_bytes());
        assert_eq!((bad, out.lines().count()), (2, 2));
        assert!(
            out.lines().all(|line| line.starts_with(r#"{"id":"a","replicas":5,"usage_milli":1500,"explain":["#)),
            "{out}"
        );
        assert_eq!(answers(b"").0, 0);
    }
}
