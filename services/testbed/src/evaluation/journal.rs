//! `steps.jsonl`: each step is written when it has ended, so that a run that was interrupted can go on.
//!
//! Each line is one JSON object. The first is the header; then come what all steps depend on, the steps, and a line for each time that the
//! run was resumed.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use report::{Document, Law, Manifest, Step, Waterfall};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub const FILE: &str = "steps.jsonl";

/// More than 5,000 steps with all their seconds need.
const MAX_BYTES: u64 = 1 << 30;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    Header(Box<Header>),
    Begun(Begun),
    Step(Box<Finished>),
    Resumed(Resumed),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Of the steps: that of the report.
    pub schema_version: u32,
    /// Begin of the run, RFC 3339, as in the report.
    pub created: String,
    pub manifest: Manifest,
}

/// What all steps of a run depend on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Begun {
    /// Of the calibration; a run that is resumed takes it over.
    pub law: Law,
    /// A remark if the calibration was not valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<String>,
    /// Of servers and program, as in the report.
    #[serde(default)]
    pub versions: BTreeMap<String, String>,
}

/// A step with all its attempts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    pub step: Step,
    /// Requests of it that were recorded, at most one of each kind.
    #[serde(default)]
    pub examples: Vec<Waterfall>,
}

/// The run goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resumed {
    /// RFC 3339.
    pub at: String,
    /// The last step before, in words; null if none had ended.
    pub after: Option<String>,
    /// Profile and repeat that begin anew: their steps before this line do not count.
    pub anew: Option<(String, u32)>,
}

/// What a directory says of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Past {
    pub header: Header,
    pub begun: Option<Begun>,
    /// Those that count, in their order.
    pub finished: Vec<Finished>,
    pub resumed: Vec<Resumed>,
    /// Bytes up to the end of the last whole line.
    pub whole_bytes: u64,
    /// The last line had no end.
    pub truncated: bool,
}

impl Past {
    /// # Errors
    /// There is no such file, it has no header, another schema, or a line that is broken: the message names it.
    pub fn read(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(FILE);
        let mut text = String::new();
        let file = File::open(&path).with_context(|| {
            format!(
                "cannot read {}: evaluate writes it (not with --soak), experiments do not; without it run ./testbed evaluate again",
                path.display()
            )
        })?;
        file.take(MAX_BYTES).read_to_string(&mut text).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("cannot use {}", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        // A line without its end was being written when the run ended.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        let mut lines = whole.lines().enumerate().map(|(n, line)| parsed(n + 1, line));
        let header = match lines.next().transpose()? {
            Some(Line::Header(header)) => *header,
            Some(_) => bail!("line 1 is no header: the file was not written by evaluate"),
            None => bail!("it has no header: the run ended before its first step, so run ./testbed evaluate again"),
        };
        let (whole_bytes, truncated) = (whole.len() as u64, whole.len() < text.len());
        let mut past = Self { header, begun: None, finished: Vec::new(), resumed: Vec::new(), whole_bytes, truncated };
        for line in lines {
            match line? {
                Line::Header(_) => bail!("it has two headers: it is the file of two runs"),
                Line::Begun(begun) => past.begun = Some(begun),
                Line::Step(finished) => past.finished.push(*finished),
                Line::Resumed(resumed) => past.resume(resumed),
            }
        }
        Ok(past)
    }

    fn resume(&mut self, resumed: Resumed) {
        if let Some((profile, repeat)) = &resumed.anew {
            self.finished.retain(|one| (&one.step.profile, one.step.repeat) != (profile, *repeat));
        }
        self.resumed.push(resumed);
    }

    pub fn steps(self) -> Vec<Step> {
        self.finished.into_iter().map(|finished| finished.step).collect()
    }

    /// The report of this very run, if it was written.
    pub fn report(&self, dir: &Path) -> Option<Document> {
        let document = Document::load(&dir.join("report.json")).ok()?;
        let report = document.clone().into_steps()?;
        (report.created == self.header.created).then_some(document)
    }
}

fn parsed(number: usize, line: &str) -> anyhow::Result<Line> {
    let broken = || {
        format!(
            "line {number} is broken: remove what changed the file, or run ./testbed evaluate again with another --out"
        )
    };
    let value: Value = serde_json::from_str(line).with_context(broken)?;
    if let Some(version) = value.pointer("/header/schema_version").and_then(Value::as_u64) {
        ensure!(
            version == u64::from(report::SCHEMA_VERSION),
            "its schema version is {version}, and this program writes version {}: resume it with the testbed that began it",
            report::SCHEMA_VERSION
        );
    }
    serde_json::from_value(value).with_context(broken)
}

/// The file while a run writes it. It is locked, so that two runs cannot write to one directory.
pub struct Journal {
    file: File,
    path: PathBuf,
}

impl Journal {
    /// A new file with this header. Replaces that of a run whose report is there, or that had no step.
    ///
    /// # Errors
    /// Another run is not finished in this directory, or the file cannot be written.
    pub fn create(dir: &Path, header: &Header) -> anyhow::Result<Self> {
        let journal = Self::open(dir)?;
        if let Ok(past) = Past::read(dir) {
            ensure!(
                past.finished.is_empty() || past.report(dir).is_some(),
                "{0} has {1} step(s) of a run that did not end: go on with ./testbed evaluate --resume {0}, choose another --out, or remove \
                 the directory",
                dir.display(),
                past.finished.len()
            );
        }
        journal.file.set_len(0).with_context(|| format!("cannot write {}", journal.path.display()))?;
        journal.append(&Line::Header(Box::new(header.clone())))?;
        // The name of the file has to survive a crash of the machine, too.
        File::open(dir).and_then(|dir| dir.sync_all()).with_context(|| format!("cannot sync {}", dir.display()))?;
        Ok(journal)
    }

    /// Goes on after the last whole line.
    ///
    /// # Errors
    /// The run is still going on, or the file cannot be written.
    pub fn resume(dir: &Path, past: &Past, resumed: &Resumed) -> anyhow::Result<Self> {
        let journal = Self::open(dir)?;
        journal.file.set_len(past.whole_bytes).with_context(|| format!("cannot write {}", journal.path.display()))?;
        journal.append(&Line::Resumed(resumed.clone()))?;
        Ok(journal)
    }

    fn open(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(FILE);
        let cannot = || format!("cannot write {}", path.display());
        let file = OpenOptions::new().create(true).append(true).open(&path).with_context(cannot)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                bail!("another ./testbed evaluate writes to {}: wait for its end", dir.display())
            }
            // Some shared file systems have no locks.
            Err(std::fs::TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {}
            Err(std::fs::TryLockError::Error(error)) => return Err(error).with_context(cannot),
        }
        Ok(Self { file, path })
    }

    /// Writes the line to the disk.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append(&self, line: &Line) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec(line).context("the step has no JSON form")?;
        text.push(b'\n');
        let written = (&self.file).write_all(&text).and_then(|()| self.file.sync_data());
        written.with_context(|| format!("cannot write {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests;
