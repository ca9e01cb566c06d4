//! Changed scenario texts never cause a panic: each is either an error that names the place, or a scenario that can be run.

use std::path::Path;

use proptest::{prelude::*, sample::Index};

use super::*;
use crate::plan::StepPlan;

/// One change to a text, made of what people get wrong and of noise.
#[derive(Debug, Clone)]
enum Mutation {
    /// What follows the = of a line.
    Value(Index, String),
    /// What stands before it.
    Key(Index, String),
    Drop(Index),
    Twice(Index),
    Swap(Index, Index),
    Insert(Index, String),
    /// From a place on.
    Cut(Index),
}

const NASTY: &[&str] = &[
    "",
    "0",
    "-1",
    "-0.0",
    "1.5",
    "nan",
    "-inf",
    "1e400",
    "1e-400",
    "99999999999999999999",
    "18446744073709551616",
    "0x10",
    "true",
    "\"\"",
    "\"newest\"",
    "\"a/b\"",
    "\"\\u0000\"",
    "'''",
    "[]",
    "[[]]",
    "[1, 1]",
    "[1000, \"x\"]",
    "[0.5, nan]",
    "{}",
    "{ a = 1 }",
    "1979-05-27",
    "# gone",
];

fn values() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => prop::sample::select(NASTY).prop_map(str::to_owned),
        1 => any::<i64>().prop_map(|number| number.to_string()),
        1 => any::<f64>().prop_map(|number| number.to_string()),
        1 => "\\PC{0,12}",
    ]
}

fn mutations() -> impl Strategy<Value = Mutation> {
    let line = any::<Index>;
    prop_oneof![
        6 => (line(), values()).prop_map(|(line, value)| Mutation::Value(line, value)),
        2 => (line(), "[a-z_.]{0,12}|\\PC{0,4}").prop_map(|(line, key)| Mutation::Key(line, key)),
        2 => line().prop_map(Mutation::Drop),
        2 => line().prop_map(Mutation::Twice),
        1 => (line(), line()).prop_map(|(a, b)| Mutation::Swap(a, b)),
        1 => (line(), "(\\PC|\n|\t|\u{0}){0,8}").prop_map(|(at, text)| Mutation::Insert(at, text)),
        1 => line().prop_map(Mutation::Cut),
    ]
}

fn mutate(text: &str, mutation: &Mutation) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if lines.is_empty() {
        return text.to_owned();
    }
    let place = |index: &Index| {
        let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        places[index.index(places.len())]
    };
    match mutation {
        Mutation::Value(line, value) => {
            let line = line.get_mut(&mut lines);
            *line = format!("{}= {value}", line.split('=').next().unwrap_or_default());
        }
        Mutation::Key(line, key) => {
            let line = line.get_mut(&mut lines);
            *line = format!("{key} ={}", line.split_once('=').map_or("", |(_, value)| value));
        }
        Mutation::Drop(line) => {
            lines.remove(line.index(lines.len()));
        }
        Mutation::Twice(line) => {
            let at = line.index(lines.len());
            lines.insert(at, lines[at].clone());
        }
        Mutation::Swap(a, b) => {
            let (a, b) = (a.index(lines.len()), b.index(lines.len()));
            lines.swap(a, b);
        }
        Mutation::Insert(at, inserted) => {
            let (before, after) = text.split_at(place(at));
            return format!("{before}{inserted}{after}");
        }
        Mutation::Cut(at) => return text[..place(at)].to_owned(),
    }
    lines.join("\n")
}

/// Every entry of the list names a line of the text; a syntax error names its place.
fn check_error(error: &str, text: &str) -> Result<(), TestCaseError> {
    let lines = text.lines().count().max(1) + 1;
    let (first, rest) = error.split_once('\n').unwrap_or((error, ""));
    if first.contains("is not valid TOML") {
        prop_assert!(rest.contains("line "), "{error}");
        return Ok(());
    }
    prop_assert!(first.starts_with("scenario test has "), "{error}");
    // A key may hold a line break: then its message goes on in the next line.
    let listed: Vec<&str> = rest.lines().filter(|line| line.starts_with("  line ")).collect();
    prop_assert!(!listed.is_empty(), "{error}");
    for line in listed {
        let (number, message) = line.trim_start_matches("  line ").split_once(": ").unwrap_or_default();
        prop_assert!(number.parse::<usize>().is_ok_and(|number| (1..=lines).contains(&number)), "{line}");
        prop_assert!(!message.is_empty(), "{line}");
    }
    Ok(())
}

/// A scenario that was read needs no further checks.
fn check_scenario(scenario: &Scenario) -> Result<(), TestCaseError> {
    prop_assert_eq!(scenario.steps.len(), scenario.unknown_share.len());
    prop_assert!(!scenario.profiles.is_empty() && (1..=64).contains(&scenario.replicas));
    for (n, &users) in scenario.steps.iter().enumerate() {
        let plan = StepPlan::of(scenario, users, n, Path::new("-"), "http://127.0.0.1:80");
        prop_assert!(plan.check().is_ok(), "{:?}", plan.check());
    }
    Ok(())
}

/// The key of the line that got another value, and the text, if it is TOML still.
fn with_value(text: &str, line: &Index, value: &str) -> Option<(String, String)> {
    let at = line.index(text.lines().count());
    let key = text.lines().nth(at)?.split_once('=')?.0.trim().to_owned();
    let changed = mutate(text, &Mutation::Value(*line, value.to_owned()));
    let plain = !key.starts_with('#');
    (plain && toml::from_str::<toml::Table>(&changed).is_ok()).then_some((key, changed))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mutated_scenario_is_refused_in_words_or_can_be_run(
        scenario in 0..BUILT_IN.len(),
        all in prop::collection::vec(mutations(), 1..5),
    ) {
        let text = all.iter().fold(BUILT_IN[scenario].1.to_owned(), |text, mutation| mutate(&text, mutation));
        match Scenario::parse("test", &text) {
            Ok(scenario) => check_scenario(&scenario)?,
            Err(error) => check_error(&error.to_string(), &text)?,
        }
    }

    #[test]
    fn a_bad_value_is_told_by_its_key(
        scenario in 0..BUILT_IN.len(),
        line in any::<Index>(),
        value in values(),
    ) {
        if let Some((key, changed)) = with_value(BUILT_IN[scenario].1, &line, &value)
            && let Err(error) = Scenario::parse("test", &changed)
        {
            prop_assert!(error.to_string().contains(&key), "{key} = {value}: {error}");
        }
    }

    #[test]
    fn any_text_at_all_is_refused_in_words(text in "(\\PC|\n|[=\\[\\]\"']){0,60}") {
        match Scenario::parse("test", &text) {
            Ok(_) => prop_assert!(false, "accepted: {text:?}"),
            Err(error) => check_error(&error.to_string(), &text)?,
        }
    }
}
