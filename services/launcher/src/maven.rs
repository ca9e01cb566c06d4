//! Fetches files from Maven Central into the user's cache.

use std::{path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, bail};
use tokio::{process::Command, time::timeout};

use crate::programs;

/// 50 MB, and Maven's plug-ins on a fresh machine.
pub(crate) const FETCH_DEADLINE: Duration = Duration::from_secs(400);

/// The directory that also has the build cache of `.ci/run`.
pub(crate) fn cache_dir() -> PathBuf {
    let set = std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set.unwrap_or_else(|| std::env::home_dir().unwrap_or_else(std::env::temp_dir).join(".cache"));
    cache.join("recommendation-testbed")
}

/// Maven, silent and without questions. The caller sets a working directory, because Maven writes marker files there.
pub(crate) fn command() -> anyhow::Result<Command> {
    let mut command = Command::new(programs::require(&["mvn"], "maven")?);
    command.args(["-B", "-q"]);
    Ok(command)
}

/// Runs a command to its end.
///
/// # Errors
/// It fails or does not finish within [`FETCH_DEADLINE`].
pub(crate) async fn run(mut command: Command, name: &str) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(FETCH_DEADLINE, output)
        .await
        .with_context(|| format!("{name} did not finish within {FETCH_DEADLINE:?}"))?;
    let output = output.with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        // Maven reports errors on stdout, tar on stderr. The first line is the reason.
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        bail!("{name} failed: {}", text.lines().find(|line| !line.trim().is_empty()).unwrap_or("no output"));
    }
    Ok(())
}
