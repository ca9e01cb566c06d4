//! The CPU time of a replica: the kernel's figure, or that of the virtual CPU where the quota is modelled.

use std::time::Duration;

use anyhow::Context as _;
use launcher::QuotaMode;

use crate::{
    instruments::scrape::Reading,
    stack::service::{Replica, ServiceStack},
};

/// Since the replica was started, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CpuTime {
    pub used_s: f64,
    /// Time for which its quota held it back.
    pub throttled_s: f64,
}

const TIMEOUT: Duration = Duration::from_secs(2);

/// Reads CPU times.
pub struct Meter {
    http: reqwest::Client,
}

impl Meter {
    /// # Errors
    /// There can be no HTTP client.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self { http: runtime::http::plain().timeout(TIMEOUT).build()? })
    }

    /// Of a modelled quota only the declared work counts (`http.work_us`).
    ///
    /// # Errors
    /// The figures cannot be read.
    pub async fn read(&self, service: &ServiceStack, replica: &Replica) -> anyhow::Result<CpuTime> {
        if let Some(QuotaMode::Kernel(_)) = service.stack.quotas() {
            let usage = service.stack.cpu_usage(replica.child)?;
            return Ok(CpuTime { used_s: usage.used_s, throttled_s: usage.throttled_s });
        }
        let url = format!("{}/metrics", replica.admin);
        let answer = self.http.get(&url).send().await.with_context(|| format!("cannot read {url}"))?;
        let text = answer.error_for_status()?.text().await?;
        let reading = Reading::of([text.as_str()]);
        let sum = |name| reading.sum(name, &[]);
        Ok(CpuTime { used_s: sum("api_cpu_seconds_total"), throttled_s: sum("api_cpu_throttled_seconds_total") })
    }
}
