use std::fs;

use tempfile::TempDir;

use super::*;

fn header() -> Header {
    let manifest = Manifest { seed: 3, ..Manifest::default() };
    Header { schema_version: report::SCHEMA_VERSION, created: "2026-01-31T12:00:00Z".into(), manifest }
}

fn finished(profile: &str, users: u32, repeat: u32) -> Finished {
    Finished { step: Step { profile: profile.into(), users, repeat, ..Step::default() }, examples: Vec::new() }
}

fn step(profile: &str, users: u32) -> Line {
    Line::Step(Box::new(finished(profile, users, 1)))
}

/// A directory with these steps.
fn written(lines: &[Line]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::create(dir.path(), &header()).unwrap();
    lines.iter().for_each(|line| journal.append(line).unwrap());
    dir
}

fn error(dir: &TempDir) -> String {
    format!("{:#}", Past::read(dir.path()).unwrap_err())
}

fn users(past: &Past) -> Vec<u32> {
    past.finished.iter().map(|finished| finished.step.users).collect()
}

#[test]
fn steps_are_read_as_they_were_written() {
    let begun = Begun { law: Law::None, doubt: Some("doubtful".into()), versions: BTreeMap::new() };
    let dir = written(&[Line::Begun(begun.clone()), step("baseline", 60), step("baseline", 80)]);
    let past = Past::read(dir.path()).unwrap();
    assert_eq!((&past.header, &past.begun, past.truncated), (&header(), &Some(begun), false));
    assert_eq!(users(&past), [60, 80]);
}

#[test]
fn a_truncated_last_line_is_dropped_and_written_over() {
    let dir = written(&[step("baseline", 60), step("baseline", 80)]);
    let path = dir.path().join(FILE);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, &text[..text.len() - 1]).unwrap();
    let past = Past::read(dir.path()).unwrap();
    assert_eq!((users(&past), past.truncated), (vec![60], true));
    let resumed = Resumed { at: "later".into(), after: None, anew: None };
    let journal = Journal::resume(dir.path(), &past, &resumed).unwrap();
    journal.append(&step("baseline", 80)).unwrap();
    drop(journal);
    let again = Past::read(dir.path()).unwrap();
    assert_eq!((users(&again), again.truncated, again.resumed), (vec![60, 80], false, vec![resumed]));
}

#[test]
fn a_broken_line_is_an_error_with_its_number() {
    let dir = written(&[step("baseline", 60), step("baseline", 80)]);
    let path = dir.path().join(FILE);
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    for broken in ["{\"step\": ", "{\"step\": {}}", "", "{\"other\": 1}"] {
        fs::write(&path, [lines[0], broken, lines[2], ""].join("\n")).unwrap();
        assert!(error(&dir).contains("line 2 is broken"), "{broken}: {}", error(&dir));
    }
    fs::write(&path, [lines[1], ""].join("\n")).unwrap();
    assert!(error(&dir).contains("line 1 is no header"));
    fs::write(&path, [lines[0], lines[0], ""].join("\n")).unwrap();
    assert!(error(&dir).contains("two headers"));
    fs::write(&path, &lines[0][..20]).unwrap();
    assert!(error(&dir).contains("no header: the run ended before its first step"));
    fs::remove_file(&path).unwrap();
    assert!(error(&dir).contains("run ./testbed evaluate again"));
}

#[test]
fn another_schema_is_an_error_even_if_its_header_has_another_form() {
    let dir = written(&[]);
    fs::write(dir.path().join(FILE), "{\"header\": {\"schema_version\": 99, \"new\": []}}\n").unwrap();
    let error = error(&dir);
    assert!(error.contains("its schema version is 99") && error.contains("with the testbed that began it"), "{error}");
}

#[test]
fn a_variant_that_began_anew_has_only_its_later_steps() {
    let resumed = Resumed { at: "later".into(), after: None, anew: Some(("protected".into(), 1)) };
    let dir = written(&[step("baseline", 60), step("protected", 60), Line::Resumed(resumed), step("protected", 60)]);
    let past = Past::read(dir.path()).unwrap();
    let profiles: Vec<&str> = past.finished.iter().map(|one| one.step.profile.as_str()).collect();
    assert_eq!((profiles, past.resumed.len()), (vec!["baseline", "protected"], 1));
}

#[test]
fn an_unfinished_run_is_not_overwritten() {
    let dir = written(&[step("baseline", 60)]);
    let error = Journal::create(dir.path(), &header()).err().unwrap().to_string();
    assert!(error.contains("1 step(s) of a run that did not end") && error.contains("--resume"), "{error}");
    let without_steps = written(&[]);
    Journal::create(without_steps.path(), &header()).unwrap();
}

#[test]
fn two_runs_cannot_write_to_one_directory() {
    let dir = written(&[]);
    let journal = Journal::create(dir.path(), &header()).unwrap();
    let error = Journal::create(dir.path(), &header()).err().unwrap().to_string();
    assert!(error.contains("another ./testbed evaluate writes to"), "{error}");
    drop(journal);
    Journal::create(dir.path(), &header()).unwrap();
}
