//! The reports below `reports/`, and how a person names one.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use report::Document;
use serde::Serialize;

/// A row of the list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listed {
    /// 1 is the newest; `report` accepts it.
    pub number: usize,
    /// RFC 3339; empty if the report cannot be read.
    pub created: String,
    /// "evaluation" or "experiment"; empty if the report cannot be read.
    pub kind: &'static str,
    /// The scenario, or the experiment.
    pub what: String,
    /// How many checks passed, or why the report cannot be read.
    pub verdict: String,
    pub path: PathBuf,
}

/// All reports, the newest first.
pub fn list(reports: &Path) -> Vec<Listed> {
    let row = |(n, path): (usize, PathBuf)| {
        let (created, kind, what, verdict) = match Document::load(&path.join("report.json")) {
            Ok(Document::Evaluation(report)) => (
                report.created.clone(),
                "evaluation",
                report.scenario.name.clone(),
                verdict(&report.verdicts, report.quick),
            ),
            Ok(Document::Experiment(found)) => {
                (found.created.clone(), "experiment", found.experiment.clone(), verdict(&found.verdicts, found.quick))
            }
            // The outer context is the path, which is in the row.
            Err(error) => (String::new(), "", String::new(), format!("not readable: {}", error.root_cause())),
        };
        Listed { number: n + 1, created, kind, what, verdict, path }
    };
    directories(reports).into_iter().enumerate().map(row).collect()
}

fn verdict(verdicts: &[report::Verdict], quick: bool) -> String {
    match (verdicts.is_empty(), quick) {
        (true, _) => "no checks".into(),
        (false, true) => format!("{} (quick)", report::score(verdicts)),
        (false, false) => report::score(verdicts),
    }
}

/// The list as text; ends in a line break.
pub fn render(all: &[Listed]) -> String {
    let mut out = format!("{:>3}  {:<20}  {:<10}  {:<16}  {:<34}  path\n", "", "begun", "kind", "of", "checks");
    for one in all {
        let Listed { number, created, kind, what, verdict, path } = one;
        let path = path.display();
        out.push_str(&format!("{number:>3}  {created:<20}  {kind:<10}  {what:<16}  {verdict:<34}  {path}\n"));
    }
    out
}

/// The report that `name` means: a directory with a report, a number of the list, or the begin of a directory's name below `reports`, with or
/// without its time.
///
/// # Errors
/// There is none, or there are several.
pub fn find(reports: &Path, name: &Path) -> anyhow::Result<PathBuf> {
    if name.exists() {
        return Ok(name.to_owned());
    }
    let all = directories(reports);
    let text = name.to_string_lossy();
    if let Ok(number) = text.parse::<usize>() {
        let found = number.checked_sub(1).and_then(|index| all.get(index));
        return found.cloned().with_context(|| {
            format!(
                "there is no report {number}: {} has {}; ./testbed report --list shows them",
                reports.display(),
                all.len()
            )
        });
    }
    let begins = |path: &&PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&*text) || without_time(&name).starts_with(&*text)
    };
    match all.iter().filter(begins).collect::<Vec<_>>().as_slice() {
        [] => bail!(
            "cannot find a report {text}: it is neither a directory with report.json, nor a number or the begin of a name in ./testbed report --list"
        ),
        [one] => Ok((*one).clone()),
        several => {
            let names: Vec<String> = several.iter().map(|path| path.display().to_string()).collect();
            bail!("{text} means {} reports; name one of {}", names.len(), names.join(", "))
        }
    }
}

/// `2026-01-31T12-00-00-article` without its time.
fn without_time(name: &str) -> &str {
    const TIME: usize = "2026-01-31T12-00-00-".len();
    name.get(TIME..).filter(|_| name.starts_with(|c: char| c.is_ascii_digit())).unwrap_or(name)
}

/// Names begin with the time, so the last one is the newest.
pub fn newest(reports: &Path) -> Option<PathBuf> {
    directories(reports).into_iter().next()
}

/// Those with a report, the newest first.
fn directories(reports: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(reports).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut all: Vec<PathBuf> = entries.filter(|path| path.join("report.json").is_file()).collect();
    all.sort_unstable_by(|a, b| b.cmp(a));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reports(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join("report.json"), "{\"schema_version\": 99}").unwrap();
        }
        std::fs::create_dir(dir.path().join("logs")).unwrap();
        dir
    }

    #[test]
    fn a_report_is_named_by_number_or_by_the_begin_of_its_name() {
        let dir =
            reports(&["2026-01-31T12-00-00-article", "2026-02-01T12-00-00-outage", "2026-02-02T12-00-00-article"]);
        let find = |name: &str| super::find(dir.path(), Path::new(name));
        let name = |name: &str| find(name).unwrap().file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(
            (name("1"), name("3")),
            ("2026-02-02T12-00-00-article".into(), "2026-01-31T12-00-00-article".into())
        );
        assert_eq!(
            (name("out"), name("2026-01")),
            ("2026-02-01T12-00-00-outage".into(), "2026-01-31T12-00-00-article".into())
        );
        assert_eq!(newest(dir.path()).unwrap(), find("1").unwrap());
        let error = |name: &str| find(name).unwrap_err().to_string();
        assert!(
            error("article").contains("means 2 reports") && error("article").contains("2026-01-31T12-00-00-article")
        );
        assert!(error("4").contains("there is no report 4") && error("0").contains("there is no report 0"));
        assert!(error("logs").contains("cannot find a report logs") && error("é").contains("é"));
        let there = dir.path().join("logs");
        assert_eq!(super::find(dir.path(), &there).unwrap(), there, "a directory is taken as it is");
    }

    #[test]
    fn what_cannot_be_read_is_listed_with_the_reason() {
        let dir = reports(&["2026-01-31T12-00-00-article"]);
        let all = list(dir.path());
        assert!(all.len() == 1 && all[0].verdict.contains("schema version is 99"), "{all:?}");
        assert!(render(&all).contains("2026-01-31T12-00-00-article"));
        assert_eq!((list(Path::new("/no/such")).len(), newest(Path::new("/no/such"))), (0, None));
    }
}
