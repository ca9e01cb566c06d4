//! Words and their help.

use super::*;
use clap::CommandFactory;

#[test]
fn the_command_line_is_consistent_and_every_command_has_examples() {
    let mut command = Cli::command();
    command.build();
    command.clone().debug_assert();
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let help = sub.clone().render_long_help().to_string();
        assert!(help.contains("Examples:"), "{} has no examples", sub.get_name());
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
    assert!(report(&[]).is_ok_and(|args| args.dir.is_none() && args.command.is_none()));
    assert!(report(&["some/dir", "--render", "--json"]).is_ok_and(|args| args.render && args.dir.is_some()));
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

#[test]
fn soaks_have_a_length() {
    assert_eq!(soak("30m"), Ok(Duration::from_secs(1800)));
    assert!(soak("2h").is_ok() && soak("4h").is_ok());
    assert!(soak("2m").is_err() && soak("5h").is_err() && soak("long").is_err());
}

#[test]
fn times() {
    assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
    assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
    assert!(duration("soon").is_err() && duration("0s").is_err() && duration("5").is_err());
}
