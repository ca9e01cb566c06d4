//! `testbed doctor --url`: one HTTP request, for health checks in images without curl.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;

/// Longer than any healthy response takes, shorter than the timeout of a health check.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Exit code 0 if the response is 2xx within the timeout.
pub fn ask(url: &str) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let http = runtime::http::plain().timeout(TIMEOUT).build()?;
        let answer = http.get(url).send().await.with_context(|| format!("no response from {url:?}"))?;
        let status = answer.status();
        println!("{url}: {status} {}", answer.text().await.unwrap_or_default().trim_end());
        Ok(if status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}
