//! Exit codes of all commands.

use std::process::ExitCode;

use report::Verdict;

/// A tolerance was missed: the run is complete, and a figure is outside its limits.
pub const MISSED: u8 = 2;

/// The exit code of a complete run with these verdicts.
pub fn judged<'a>(verdicts: impl IntoIterator<Item = &'a Verdict>) -> ExitCode {
    let missed = verdicts.into_iter().any(|verdict| verdict.passed == Some(false));
    if missed { ExitCode::from(MISSED) } else { ExitCode::SUCCESS }
}
