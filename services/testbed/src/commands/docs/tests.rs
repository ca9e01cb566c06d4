//! What the documents say is what the program does.

use std::path::{Path, PathBuf};

use clap::{Parser, error::ErrorKind};

use super::*;
use crate::cli::Cli;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn documents(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            documents(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// The words of each command in a text, up to a comment, a pipe or the next command; and whether it is in a fenced block.
fn commands(text: &str) -> Vec<(bool, Vec<String>)> {
    const STARTS: [&str; 2] = ["./testbed ", "docker compose run --rm testbed "];
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        let pieces: Vec<&str> = if fenced { vec![line] } else { line.split('`').skip(1).step_by(2).collect() };
        for piece in pieces {
            let piece = piece.split(" #").next().unwrap_or_default();
            for command in piece.split(['|', ';', '(', ')']).flat_map(|part| part.split("&&")) {
                let words = STARTS.iter().find_map(|start| command.split_once(start)).map(|(_, words)| words);
                let words = words.map(|words| words.split(" >").next().unwrap_or_default());
                if let Some(words) = words {
                    let plain = |word: &str| word.trim_matches(['\'', '"']).to_owned();
                    let words = words.split_whitespace().filter(|word| *word != "&").map(plain).collect();
                    found.push((fenced, words));
                }
            }
        }
    }
    found
}

#[test]
fn every_command_in_the_documents_is_accepted() {
    let mut files: Vec<PathBuf> = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"]
        .map(|name| root().join(name))
        .into();
    for dir in ["docs", "deploy", "grafana"] {
        documents(&root().join(dir), &mut files);
    }
    let (mut count, mut refused) = (0, Vec::new());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for (fenced, words) in commands(&text) {
            // Answered by the script.
            if words.first().is_none_or(|first| ["test", "setup", "--help"].contains(&first.as_str())) {
                continue;
            }
            count += 1;
            let parsed = Cli::try_parse_from(std::iter::once("testbed".to_owned()).chain(words.clone()));
            // A sentence may name a command, such as `./testbed bench`, without what it requires. A block may not.
            let incomplete = [ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand, ErrorKind::MissingRequiredArgument];
            let named_only = |error: &clap::Error| !fenced && incomplete.contains(&error.kind());
            if let Some(error) = parsed.err().filter(|error| error.use_stderr() && !named_only(error)) {
                refused.push(format!("{}: ./testbed {}: {error}", file.display(), words.join(" ")));
            }
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    assert!(count > 50, "only {count} commands found");
}

#[test]
fn settings_have_defaults_ranges_and_meanings() {
    let text = configuration().unwrap();
    for row in [
        "| `http.worker_threads` | `2` | 1 to 256 |",
        "| `guards.bloom` | `true`; baseline: `false` | `true`, `false` |",
        "| `guards.bloom_fpr` | `0.001` | 0.000001 to 0.5 |",
        "| `http.admission` | `fixed`; baseline: `off` | text |",
        "| `store.instances[].address` |",
        "| `detect.votes` | `majority` | `majority`, `one` |",
        "| `monitors.NAME.http` |",
        "| `max_connections` |",
        "| `interval_ms` | yes | 10 to 60000 |",
        "| `arrivals` | no | \"closed\" or \"open\" |",
        "| `open.max_in_flight` | no | 1 to 20000; only with `arrivals = \"open\"` |",
        "| `law.crosstalk_ms` | no | 0 to 100 | Further delay for each ordered pair",
        "| `criticality.critical` | no | 0 to 1 | Share of the requests with `critical`",
        "| `retry.attempts` | yes | 1 to 10 | Tries of a request in all",
        "| `retry.backoff` | no | \"none\" or \"fixed\" or \"exponential\" | Pause before a retry",
        "| `retry.backoff_ms` | no | 1 to 60000 | Pause before the first retry",
        "| `retry.budget_pct` | no | 0 to 900; only with `budget = \"tokens\"` | Retries per 100 first tries",
        "| `http.honour_deadline` | `false` | `true`, `false` |",
        "| `steps` | yes | list: 1 to 50 elements, each 1 to 20000 |",
        "| `ids.known` | yes | \"once\" or \"zipf\" |",
        "| `law.kind` | no | \"modelled\" or \"none\" |",
        "| `faults.for_s` | yes |",
        "| `faults.pct` | no | 0 to 100; only with `kind = \"loss\"` |",
        "| `ids.exponent` | no | 0 to 5; only with `known = \"zipf\"` |",
    ] {
        assert!(text.contains(row), "{row} is missing in\n{text}");
    }
}

#[test]
fn a_file_out_of_date_is_refused_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.md");
    let text = configuration().unwrap();
    std::fs::write(&file, &text).unwrap();
    assert!(compare(&text, &file).is_ok());
    std::fs::write(&file, text.replacen("Generated", "Made", 1)).unwrap();
    let error = compare(&text, &file).unwrap_err().to_string();
    assert!(error.contains("line 3") && error.contains("./testbed docs configuration"), "{error}");
}
