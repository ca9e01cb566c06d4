//! The command line and its help.

use super::*;
use clap::CommandFactory;

/// Every command that help shows, with the words that lead to it.
fn visible_commands() -> Vec<(String, clap::Command)> {
    fn collect(path: &str, command: &clap::Command, found: &mut Vec<(String, clap::Command)>) {
        found.push((path.to_owned(), command.clone()));
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
            collect(&format!("{path} {}", sub.get_name()), sub, found);
        }
    }
    let mut root = Cli::command();
    root.build();
    let mut found = Vec::new();
    collect("testbed", &root, &mut found);
    found
}

#[test]
fn every_command_has_help_and_examples_and_every_argument_has_help() {
    Cli::command().debug_assert();
    let mut missing = Vec::new();
    for (path, mut command) in visible_commands() {
        if command.get_about().is_none() {
            missing.push(format!("{path}: help"));
        }
        if !command.render_long_help().to_string().contains("Examples:") {
            missing.push(format!("{path}: examples"));
        }
        for argument in command.get_arguments().filter(|argument| argument.get_help().is_none()) {
            missing.push(format!("{path}: help of {}", argument.get_id()));
        }
    }
    assert_eq!(missing, [""; 0]);
}

#[test]
fn repetitions_have_one_flag() {
    for (path, command) in visible_commands() {
        assert!(command.get_arguments().all(|argument| argument.get_long() != Some("repeats")), "{path}");
    }
    assert!(Cli::try_parse_from(["testbed", "bench", "hit", "--repeats", "3"]).is_ok(), "the old name still works");
}

/// The script `testbed` prints this file, so that a fresh clone has help without a build.
#[test]
fn the_help_of_the_script_is_current() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/help.txt");
    let help = Cli::command().term_width(120).render_long_help().to_string();
    if std::env::var_os("TESTBED_UPDATE_HELP").is_some() {
        std::fs::write(file, &help).unwrap();
    }
    let checked_in = std::fs::read_to_string(file).unwrap_or_default();
    assert!(
        checked_in == help,
        "services/testbed/help.txt differs from --help; write it anew: \
         TESTBED_UPDATE_HELP=1 cargo test --workspace --bins -- the_help_of_the_script"
    );
}

#[test]
fn a_load_has_a_scenario_or_users_and_a_duration() {
    let parse = |words: &[&str]| match Cli::try_parse_from([&["testbed", "load"], words].concat()) {
        Ok(Cli { command: Command::Load(args) }) => Ok((args.scenario, args.users, args.lasting)),
        Ok(_) => panic!("another command"),
        Err(error) => Err(error.to_string()),
    };
    assert_eq!(parse(&["smoke"]), Ok((Some("smoke".into()), None, None)));
    assert_eq!(parse(&["--users", "200", "--for", "30s"]), Ok((None, Some(200), Some(30))));
    for (words, expected) in [
        (&[][..], "NAME|FILE"),
        (&["--users", "200"], "--for"),
        (&["--for", "30s"], "--users"),
        (&["smoke", "--users", "200", "--for", "30s"], "cannot be used with"),
        (&["--users", "0", "--for", "30s"], "1..=20000"),
        (&["--users", "20001", "--for", "30s"], "1..=20000"),
        (&["--users", "1", "--for", "100ms"], "whole seconds"),
        (&["--users", "1", "--for", "2h"], "1s to 1h"),
        (&["--users", "1", "--for", "30"], "with a unit"),
        (&["--users", "1", "--for", "30s", "--step", "1"], "cannot be used with"),
    ] {
        assert!(parse(words).is_err_and(|error| error.contains(expected)), "{words:?}");
    }
}

#[test]
fn a_target_has_users_or_a_rate_and_a_duration() {
    let parse = |words: &[&str]| match Cli::try_parse_from([&["testbed", "load"], words].concat()) {
        Ok(Cli { command: Command::Load(args) }) => Ok((args.target.target, args.target.rate, args.users)),
        Ok(_) => panic!("another command"),
        Err(error) => Err(error.to_string()),
    };
    let url = || Some("http://127.0.0.1/".to_owned());
    let target = ["--target", "http://127.0.0.1/", "--for", "3s"];
    let with = |words: &[&str]| parse(&[&target, words].concat());
    assert_eq!(with(&["--rate", "5", "--spacing", "poisson", "--max-in-flight", "9"]), Ok((url(), Some(5), None)));
    assert_eq!(with(&["--users", "5", "--ids", "x", "--zipf", "1", "--allow-remote"]), Ok((url(), None, Some(5))));
    for (words, expected) in [
        (&[][..], "--users <N>|--rate <N>"),
        (&["--users", "1", "--rate", "1"], "cannot be used with"),
        (&["--users", "1", "smoke"], "cannot be used with"),
        (&["--users", "1", "--engine", "k6"], "cannot be used with"),
        (&["--users", "1", "--spacing", "poisson"], "cannot be used with"),
        (&["--users", "1", "--max-in-flight", "9"], "cannot be used with"),
        (&["--users", "1", "--zipf", "1"], "--ids"),
        (&["--rate", "20001"], "1..=20000"),
        (&["--rate", "1", "--timeout", "5"], "with a unit"),
    ] {
        assert!(with(words).is_err_and(|error| error.contains(expected)), "{words:?}: {:?}", with(words));
    }
    for words in [&["--rate", "5", "--for", "3s"][..], &["--allow-remote", "smoke"], &["--ids", "x", "smoke"]] {
        assert!(parse(words).is_err_and(|error| error.contains("--target")), "{words:?}: {:?}", parse(words));
    }
}

#[test]
fn events_are_a_load_of_their_own() {
    let parse = |words: &[&str]| match Cli::try_parse_from([&["testbed", "load", "events"], words].concat()) {
        Ok(Cli { command: Command::Load(LoadArgs { command: Some(LoadCommand::Events(args)), .. }) }) => Some(args),
        _ => None,
    };
    let args = parse(&["--rate", "2000", "--for", "1m"]).unwrap();
    assert_eq!((args.rate, args.lasting, args.seed, args.timestamps, args.json), (2_000, 60, 1, false, false));
    assert_eq!(parse(&["--rate", "1"]).unwrap().lasting, 30);
    for bad in [&[][..], &["--rate", "0"], &["--rate", "50001"], &["--users", "3", "--rate", "1"]] {
        assert!(parse(bad).is_none(), "{bad:?}");
    }
}

#[test]
fn times_have_units_and_their_old_flags_still_work() {
    let law = |words: &[&str]| match Cli::try_parse_from([&["testbed", "fault", "law"], words].concat()) {
        Ok(Cli { command: Command::Fault(FaultCommand::Law(args)) }) => {
            Some((args.base.or(args.base_ms), args.slope.or(args.slope_ms), args.spread))
        }
        _ => None,
    };
    let expected = Some((Some(74.0), Some(0.2), 0.3));
    assert_eq!(law(&["--base", "74ms", "--slope", "0.2ms", "--spread", "0.3"]), expected);
    assert_eq!(law(&["--base-ms", "74", "--slope-ms", "0.2", "--spread", "0.3"]), expected);
    assert_eq!(law(&["none"]), Some((None, None, 0.0)));
    for bad in [&[][..], &["none", "--base", "1ms"], &["--base", "74"], &["--base", "1ms", "--base-ms", "1"]] {
        assert_eq!(law(bad), None, "{bad:?}");
    }
}

#[test]
fn report_is_a_command_with_and_without_another_one() {
    let report = |words: &[&str]| match Cli::try_parse_from([&["testbed", "report"], words].concat()).map(|c| c.command)
    {
        Ok(Command::Report(args)) => Ok(args),
        Ok(_) => panic!("another command"),
        Err(error) => Err(error.to_string()),
    };
    assert!(report(&[]).is_ok_and(|args| args.report.is_none() && args.command.is_none()));
    assert!(report(&["some/dir", "--render", "--json"]).is_ok_and(|args| args.render && args.report.is_some()));
    let args = report(&["diff", "a", "b", "--fail-on", "p99_ms>10%", "--fail-on", "error_pct>1"]).unwrap();
    assert!(matches!(args.command, Some(ReportCommand::Diff(diff)) if diff.fail_on.len() == 2 && !diff.json));
    assert!(report(&["diff", "a"]).is_err_and(|error| error.contains("AFTER")));
    assert!(report(&["diff", "a", "b", "--fail-on", "p98>1"]).is_err_and(|error| error.contains("p99_ms")));
}

#[test]
fn every_key_of_a_condition_is_in_the_help() {
    let mut command = Cli::command();
    let diff = command.find_subcommand_mut("report").unwrap().find_subcommand_mut("diff").unwrap();
    let help = diff.render_long_help().to_string();
    for key in ::report::diff::KEYS {
        assert!(help.contains(key.name), "{}", key.name);
    }
}
