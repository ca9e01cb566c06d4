//! `cells.jsonl`: each cell is written when it has ended, so that a run that was interrupted can go on. The first line has the settings that
//! all cells depend on.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use report::Validity;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::cell::{Judged, Second, Timing};

pub const FILE: &str = "cells.jsonl";
/// Far more than all cells need.
const MAX_BYTES: u64 = 1 << 28;

/// What a cell is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    pub class: String,
    /// Requests per second.
    pub per_s: u32,
    /// Of the trigger: milliseconds, or lists in a thousand.
    pub size: u32,
    pub seed: u64,
    pub cure: String,
    /// Seconds that a cell must be stuck.
    pub hold_s: u32,
    /// Users that wait for their answers, instead of open arrivals.
    pub closed: bool,
}

impl Key {
    /// In words, unique in a run.
    pub fn name(&self) -> String {
        let Self { class, per_s, size, seed, cure, hold_s, closed } = self;
        let users = if *closed { "users" } else { "requests/s" };
        format!("{class}, {per_s} {users}, trigger {size}, {hold_s} s, cure {cure}, seed {seed}")
    }
}

/// A cell that was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    #[serde(flatten)]
    pub key: Key,
    #[serde(flatten)]
    pub judged: Judged,
    pub timing: Timing,
    /// Share of the store's queries whose result no request waited for, over the whole cell; null without a query.
    pub zombie_share: Option<f64>,
    pub validity: Validity,
    pub seconds: Vec<Second>,
    /// A failed try after the trigger, if one was recorded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trace: Vec<Span>,
}

/// A span of a recorded try.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Span {
    pub depth: usize,
    pub service: String,
    pub name: String,
    /// From the beginning of the try.
    pub offset_ms: f64,
    pub duration_ms: f64,
    pub failed: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Settings(Map<String, Value>),
    Cell(Box<Cell>),
}

/// The file while a run writes it, and its cells.
pub struct Journal {
    file: File,
    path: PathBuf,
    cells: Vec<Cell>,
}

impl Journal {
    /// A new file; that of a run that ended is replaced.
    ///
    /// # Errors
    /// The file cannot be written, is being written by another run, or has cells of a run that was interrupted.
    pub fn create(dir: &Path, settings: &Map<String, Value>) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let path = dir.join(FILE);
        let cannot = || format!("cannot write {}", path.display());
        let file = OpenOptions::new().create(true).append(true).open(&path).with_context(cannot)?;
        lock(&file, &path)?;
        let has_cells = std::fs::read_to_string(&path).is_ok_and(|text| text.lines().nth(1).is_some());
        ensure!(
            !has_cells || dir.join("report.json").exists(),
            "{0} has cells of a run that was interrupted: go on with --resume {0}, or choose another --out",
            dir.display()
        );
        file.set_len(0).with_context(cannot)?;
        let mut journal = Self { file, path, cells: Vec::new() };
        journal.write(&Line::Settings(settings.clone()))?;
        Ok(journal)
    }

    /// Goes on with the cells of an earlier run.
    ///
    /// # Errors
    /// There is no such file, another run writes it, a line is broken, or the settings differ: the message names them.
    pub fn resume(dir: &Path, settings: &Map<String, Value>) -> anyhow::Result<Self> {
        let path = dir.join(FILE);
        let cannot = || format!("cannot read {}: begin a run with --out {} first", path.display(), dir.display());
        let length = std::fs::metadata(&path).with_context(cannot)?.len();
        ensure!(length <= MAX_BYTES, "{} has {length} bytes, more than any run writes", path.display());
        let file =
            OpenOptions::new().append(true).open(&path).with_context(|| format!("cannot write {}", path.display()))?;
        lock(&file, &path)?;
        let text = std::fs::read_to_string(&path).with_context(cannot)?;
        let (whole, cells) = parse(&text, settings).with_context(|| format!("cannot resume {}", path.display()))?;
        file.set_len(whole as u64).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { file, path, cells })
    }

    /// The measured cell, if there is a valid one.
    pub fn find(&self, key: &Key) -> Option<&Cell> {
        self.cells.iter().rev().find(|cell| cell.key == *key && cell.validity.is_valid())
    }

    /// Cells so far.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// # Errors
    /// The file cannot be written.
    pub fn append(&mut self, cell: &Cell) -> anyhow::Result<()> {
        self.write(&Line::Cell(Box::new(cell.clone())))?;
        self.cells.push(cell.clone());
        Ok(())
    }

    fn write(&mut self, line: &Line) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        let written = self.file.write_all(&text).and_then(|()| self.file.sync_data());
        written.with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// Until the file is closed.
fn lock(file: &File, path: &Path) -> anyhow::Result<()> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => bail!("another run writes {}: wait for its end", path.display()),
        // Some shared file systems have no locks.
        _ => Ok(()),
    }
}

/// Bytes up to the end of the last whole line, and the cells.
fn parse(text: &str, settings: &Map<String, Value>) -> anyhow::Result<(usize, Vec<Cell>)> {
    // A line without its end was being written when the run ended.
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    let mut lines = whole.lines().enumerate();
    let parsed = |(n, line): (usize, &str)| {
        serde_json::from_str::<Line>(line)
            .with_context(|| format!("line {} is broken: begin a new run with another --out", n + 1))
    };
    match lines.next().map(parsed).transpose()? {
        Some(Line::Settings(before)) => same(&before, settings)?,
        _ => bail!("its first line has no settings: begin a new run with another --out"),
    }
    let mut cells = Vec::new();
    for line in lines {
        match parsed(line)? {
            Line::Cell(cell) => cells.push(*cell),
            Line::Settings(_) => bail!("it has settings twice: it is the file of two runs"),
        }
    }
    Ok((whole.len(), cells))
}

fn same(before: &Map<String, Value>, now: &Map<String, Value>) -> anyhow::Result<()> {
    let show = |value: Option<&Value>| value.map_or("nothing".into(), Value::to_string);
    let keys = before.keys().chain(now.keys().filter(|key| !before.contains_key(*key)));
    let differences: Vec<String> = keys
        .filter(|key| before.get(*key) != now.get(*key))
        .map(|key| format!("{key}: {} before, {} now", show(before.get(key)), show(now.get(key))))
        .collect();
    ensure!(
        differences.is_empty(),
        "its cells were measured with other settings: restore them, or begin a new run with another --out\n  {}",
        differences.join("\n  ")
    );
    Ok(())
}

#[cfg(test)]
pub mod tests {
    use serde_json::json;

    use super::*;
    use crate::experiments::metastable::cell::{judge, tests as cells};

    /// A cell with these shares of good requests.
    pub fn cell(class: &str, (per_s, size, seed): (u32, u32, u64), cure: &str, parts: &[(usize, u64)]) -> Cell {
        let seconds = cells::seconds(parts);
        let key = Key {
            class: class.into(),
            per_s,
            size,
            seed,
            cure: cure.into(),
            hold_s: cells::TIMING.hold_s,
            closed: false,
        };
        let judged = judge(&seconds, cells::TIMING);
        let validity = Validity::of(1.0, 50.0);
        Cell { key, judged, timing: cells::TIMING, zombie_share: Some(0.5), validity, seconds, trace: Vec::new() }
    }

    fn settings(scale: u32) -> Map<String, Value> {
        json!({ "scale": scale, "quick": false }).as_object().cloned().unwrap()
    }

    #[test]
    fn a_run_goes_on_with_its_cells() {
        let dir = tempfile::tempdir().unwrap();
        let [first, second] = [1, 2].map(|seed| cell("retry-storm", (900, 1_000, seed), "none", &[(10, 100)]));
        let mut journal = Journal::create(dir.path(), &settings(1)).unwrap();
        journal.append(&first).unwrap();
        drop(journal);
        let path = dir.path().join(FILE);
        let torn = std::fs::read_to_string(&path).unwrap() + "{\"cell\":{\"class\":\"ret";
        std::fs::write(&path, torn).unwrap();
        let error = Journal::create(dir.path(), &settings(1)).err().unwrap().to_string();
        assert!(error.contains("go on with --resume"), "{error}");
        let mut journal = Journal::resume(dir.path(), &settings(1)).unwrap();
        assert_eq!((journal.find(&first.key), journal.find(&second.key)), (Some(&first), None));
        journal.append(&second).unwrap();
        let busy = Journal::resume(dir.path(), &settings(1)).err().unwrap().to_string();
        assert!(busy.contains("another run writes"), "{busy}");
        drop(journal);
        let mut journal = Journal::resume(dir.path(), &settings(1)).unwrap();
        assert_eq!(journal.cells, [first, second.clone()]);
        let key = Key { seed: 3, ..second.key.clone() };
        let invalid = Cell { key: key.clone(), validity: Validity::of(1.0, 97.0), ..second };
        journal.append(&invalid).unwrap();
        assert_eq!(journal.find(&key), None, "it is measured again");
    }

    #[test]
    fn other_settings_and_broken_files_are_errors_that_say_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let error =
            |settings: &Map<String, Value>| format!("{:#}", Journal::resume(dir.path(), settings).err().unwrap());
        assert!(error(&settings(1)).contains("begin a run with --out"), "{}", error(&settings(1)));
        drop(Journal::create(dir.path(), &settings(1)).unwrap());
        let differs = error(&settings(2));
        assert!(differs.contains("scale: 1 before, 2 now") && differs.contains("another --out"), "{differs}");
        std::fs::write(dir.path().join(FILE), "{}\n").unwrap();
        assert!(error(&settings(1)).contains("line 1 is broken"), "{}", error(&settings(1)));
        std::fs::write(dir.path().join(FILE), "").unwrap();
        assert!(error(&settings(1)).contains("has no settings"));
    }
}
