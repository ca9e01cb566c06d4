//! `testbed doctor --url`: one question to one process, for health checks in images that hold nothing but this program.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;

/// Longer than any healthy answer takes, shorter than a health check's own patience.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Success: it answered 2xx in time.
pub fn ask(url: &str) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let http = runtime::http::plain().timeout(TIMEOUT).build()?;
        let answer = http.get(url).send().await.with_context(|| format!("no answer from {url:?}"))?;
        let status = answer.status();
        println!("{url}: {status} {}", answer.text().await.unwrap_or_default().trim_end());
        Ok(if status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}
