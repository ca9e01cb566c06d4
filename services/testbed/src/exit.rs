//! Exit codes of all commands. `testbed --help` documents them.

use std::{fmt, process::ExitCode};

use report::Verdict;

/// A tolerance, an aim or a condition was missed: the run is complete, and a figure is outside its limit.
pub const MISSED: u8 = 2;
/// Nothing was missed, but a figure could not be judged because its steps were not valid.
pub const UNDECIDED: u8 = 3;
/// The command line is not valid (`EX_USAGE` of sysexits.h).
pub const USAGE: u8 = 64;
/// Interrupted by SIGINT or SIGTERM: 128 + SIGINT, as in shells.
pub const INTERRUPTED: u8 = 130;

/// The exit code of a complete run with these verdicts.
pub fn judged<'a>(verdicts: impl IntoIterator<Item = &'a Verdict>) -> ExitCode {
    ExitCode::from(code_of(verdicts))
}

fn code_of<'a>(verdicts: impl IntoIterator<Item = &'a Verdict>) -> u8 {
    let mut code = 0;
    for verdict in verdicts {
        match (verdict.undecided, verdict.passed) {
            (true, _) => code = UNDECIDED,
            (false, Some(false)) => return MISSED,
            (false, _) => {}
        }
    }
    code
}

/// An error in the command line that clap cannot detect.
#[derive(Debug)]
pub struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// An error that ends the command with exit code 64.
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Usage(message.into()))
}

/// The exit code of a command that failed.
pub fn failed(error: &anyhow::Error) -> ExitCode {
    if error.is::<Usage>() { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(passed: Option<bool>, undecided: bool) -> Verdict {
        Verdict { passed, undecided, ..Verdict::default() }
    }

    #[test]
    fn a_missed_limit_outweighs_an_undecided_one() {
        let passed = verdict(Some(true), false);
        let missed = verdict(Some(false), false);
        let undecided = verdict(None, true);
        let steps_not_valid = verdict(Some(false), true);
        let not_judged = verdict(None, false);
        assert_eq!(code_of([]), 0);
        assert_eq!(code_of([&passed, &not_judged]), 0, "a quick run judges nothing");
        assert_eq!(code_of([&passed, &undecided, &passed]), UNDECIDED);
        assert_eq!(code_of([&steps_not_valid, &passed]), UNDECIDED);
        assert_eq!(code_of([&undecided, &missed]), MISSED);
        assert_eq!(code_of([&missed, &undecided]), MISSED);
    }
}
