//! Phrases that readers had to read twice: none of them stands in a text of the repository (ARCHITECTURE.md, "Words").

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A phrase, and what to write instead.
const PHRASES: [(&str, &str); 12] = [
    ("so many at once", "at most N at a time"),
    ("only so many", "at most N"),
    ("at most so many", "at most N"),
    ("is told of", "is recorded, reported or traced"),
    ("are told of", "are recorded, reported or traced"),
    ("told of by", "recorded by"),
    ("what is told", "what is recorded"),
    ("an own ", "a separate, or its own"),
    ("whoever", "the client, the caller, the process"),
    ("whatever", "name the thing"),
    ("nobody knows", "is unknown"),
    ("who asks for", "a request for"),
];
const ENDINGS: [&str; 9] = ["rs", "md", "toml", "yaml", "yml", "json", "conf", "sql", "sh"];
const NOT_OURS: [&str; 6] = ["target", ".git", "reports", "node_modules", "vendor", "Cargo.lock"];

/// Tests that list such phrases.
const LISTS: [&str; 2] = ["tests/it/plain_words.rs", "tests/it/dashboards.rs"];

fn texts(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if NOT_OURS.contains(&name.as_str()) || path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            texts(&path, found);
        } else if path.extension().is_some_and(|ending| ENDINGS.contains(&ending.to_string_lossy().as_ref())) {
            found.push(path);
        }
    }
}

#[test]
fn texts_are_in_plain_words() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let mut files = Vec::new();
    texts(&root, &mut files);
    assert!(files.len() > 300, "only {} files were found below {}", files.len(), root.display());
    let mut hits = Vec::new();
    for file in files.iter().filter(|file| !LISTS.iter().any(|list| file.ends_with(list))) {
        let text = fs::read_to_string(file).unwrap();
        for (n, line) in text.lines().enumerate() {
            let lower = line.to_lowercase();
            for (phrase, instead) in PHRASES.iter().filter(|(phrase, _)| lower.contains(phrase)) {
                let place = file.strip_prefix(&root).unwrap().display();
                hits.push(format!("{place}:{}: \"{}\" (write: {instead})", n + 1, phrase.trim()));
            }
        }
    }
    assert!(hits.is_empty(), "{} places:\n{}", hits.len(), hits.join("\n"));
}
