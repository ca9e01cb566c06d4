//! Starts Prometheus with the rules of `deploy/prometheus` and targets on this machine.

mod windows;

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{ChildId, Signal, Spec, Stack, free_port, programs, stack::flag};

pub const PROGRAMS: &[&str] = &["prometheus"];
/// A shorter window may contain one sample only, and a rate needs two.
const SCRAPES_OF_A_RATE: u32 = 4;
const READY_DEADLINE: Duration = Duration::from_secs(30);
/// Age at which data is deleted: no window of the rules is longer.
pub const RETENTION: Duration = Duration::from_secs(4 * 86_400);
/// Size at which the oldest data is deleted. A stack of eight replicas, scraped every 2 s, writes 1 GB a day.
pub const RETENTION_GB: u64 = 4;
/// The rules that compose's Prometheus evaluates too.
const RULES: [(&str, &str); 2] = [
    ("rules.yml", include_str!("../../../deploy/prometheus/rules.yml")),
    ("alerts.yml", include_str!("../../../deploy/prometheus/alerts.yml")),
];

#[derive(Debug, Clone)]
pub struct Options {
    /// Interval of scrapes and rule evaluations.
    pub interval: Duration,
    /// Divides all windows and waits of the rules, down to a few scrapes; 1: production's.
    pub time_divisor: u32,
    pub jobs: Vec<ScrapeJob>,
}

/// Processes of one kind that are scraped.
#[derive(Debug, Clone)]
pub struct ScrapeJob {
    pub name: String,
    /// Value of the label `instance`, and `address:port` of each target.
    pub targets: Vec<(String, String)>,
    /// Where each shows its metrics: usually [`METRICS`].
    pub path: &'static str,
}

/// Where most processes show their metrics.
pub const METRICS: &str = "/metrics";

#[derive(Debug, Clone)]
pub struct Prometheus {
    pub child: ChildId,
    pub pid: u32,
    /// `http://127.0.0.1:PORT`
    pub url: String,
    /// E.g. `Prometheus 2.42.0`.
    pub version: String,
    dir: PathBuf,
}

/// Files of targets that are added after the start. Prometheus rereads them when they change.
const LATER: &str = "later-*.json";

impl Prometheus {
    /// Adds targets. Replaces an added job with the same name.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add(&self, job: &ScrapeJob) -> anyhow::Result<()> {
        let group = |(instance, address): &(String, String)| serde_json::json!({ "targets": [address], "labels": { "job": job.name, "instance": instance, "__metrics_path__": job.path } });
        let groups: Vec<_> = job.targets.iter().map(group).collect();
        let file = self.dir.join(LATER.replace('*', &job.name));
        // Written under another name first: Prometheus must not read half a file.
        let part = file.with_extension("part");
        std::fs::write(&part, serde_json::to_vec(&groups)?)
            .and_then(|()| std::fs::rename(&part, &file))
            .with_context(|| format!("cannot write {}", file.display()))
    }
}

/// Starts Prometheus and waits until it answers queries. Its targets need not run yet. Its data is removed with the stack.
///
/// # Errors
/// It is not installed, refuses its configuration, ends, or is not ready within 30 s.
pub async fn start(stack: &mut Stack, options: &Options) -> anyhow::Result<Prometheus> {
    const NAME: &str = "prometheus";
    let program = programs::require(PROGRAMS, "prometheus")?;
    let version = parse_version(&programs::version_text(&program, "--version")?);
    let port = free_port()?;
    let dir = stack.child_dir(NAME)?;
    let write = |name: &str, text: &str| {
        std::fs::write(dir.join(name), text).with_context(|| format!("cannot write {name} in {}", dir.display()))
    };
    for (name, text) in RULES {
        match options.time_divisor {
            1 => write(name, text)?,
            by => write(name, &windows::divide(text, by, options.interval * SCRAPES_OF_A_RATE)?)?,
        }
    }
    write("prometheus.yml", &config(options, port))?;
    let spec = Spec::new(NAME, program)
        .args([
            flag("--config.file", dir.join("prometheus.yml")),
            flag("--storage.tsdb.path", dir.join("data")),
            flag("--web.listen-address", format!("127.0.0.1:{port}")),
            flag("--storage.tsdb.retention.time", format!("{}s", RETENTION.as_secs())),
        ])
        .args([flag("--storage.tsdb.retention.size", format!("{RETENTION_GB}GB"))])
        .args(["--enable-feature=exemplar-storage", "--log.level=warn"])
        // Nothing to save.
        .stop_signal(Signal::SIGKILL);
    let child = stack.spawn(spec)?;
    stack.wait_ready(child, READY_DEADLINE, || is_ready(port)).await?;
    let pid = stack.pid(child).unwrap_or_default();
    Ok(Prometheus { child, pid, url: format!("http://127.0.0.1:{port}"), version, dir })
}

fn config(options: &Options, own_port: u16) -> String {
    let targets = vec![("prometheus".into(), format!("127.0.0.1:{own_port}"))];
    let own = ScrapeJob { name: "prometheus".into(), targets, path: METRICS };
    let millis = options.interval.as_millis();
    let files: Vec<&str> = RULES.iter().map(|(name, _)| *name).collect();
    let mut text = format!(
        "global: {{ scrape_interval: {millis}ms, scrape_timeout: {millis}ms, evaluation_interval: {millis}ms }}\n\
         rule_files: [{}]\nscrape_configs:\n",
        files.join(", ")
    );
    for job in options.jobs.iter().chain([&own]) {
        text.push_str(&format!("  - job_name: {}\n    metrics_path: {}\n    static_configs:\n", job.name, job.path));
        for (instance, address) in &job.targets {
            text.push_str(&format!("      - {{ targets: [\"{address}\"], labels: {{ instance: \"{instance}\" }} }}\n"));
        }
    }
    text.push_str(&format!("  - job_name: later\n    file_sd_configs: [{{ files: [\"{LATER}\"] }}]\n"));
    text
}

async fn is_ready(port: u16) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"GET /-/ready HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    asked.await.is_ok_and(|answer| answer.split(' ').nth(1) == Some("200"))
}

/// `prometheus, version 2.42.0+ds (branch: …`
fn parse_version(text: &str) -> String {
    let number = text.split_once("version ").and_then(|(_, rest)| rest.split(['+', ' ', ',']).next());
    format!("Prometheus {}", number.unwrap_or("of unknown version"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_line() {
        let text = "prometheus, version 2.42.0+ds (branch: debian/sid, revision: 2.42.0+ds-5+deb12u1)\n  build user: x";
        assert_eq!(parse_version(text), "Prometheus 2.42.0");
        assert_eq!(parse_version(""), "Prometheus of unknown version");
    }

    #[test]
    fn targets_have_the_names_of_the_stack() {
        let jobs = vec![ScrapeJob {
            name: "api".into(),
            targets: vec![("api-0".into(), "127.0.0.1:1".into())],
            path: METRICS,
        }];
        let text = config(&Options { interval: Duration::from_secs(2), time_divisor: 1, jobs }, 9);
        assert!(text.contains("job_name: api\n    metrics_path: /metrics\n    static_configs:\n      - { targets: [\"127.0.0.1:1\"], labels: { instance: \"api-0\" } }"), "{text}");
        assert!(text.contains("scrape_interval: 2000ms") && text.contains("127.0.0.1:9"), "{text}");
    }

    /// Otherwise no test would evaluate a rule that only compose's Prometheus has.
    #[test]
    fn every_rule_file_of_deploy_is_there() {
        let deploy = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/prometheus");
        let compose = std::fs::read_to_string(deploy.join("prometheus.yml")).unwrap();
        let line = compose.lines().find_map(|line| line.strip_prefix("rule_files: [")).unwrap();
        let files: Vec<&str> = line.trim_end_matches(']').split(',').map(str::trim).collect();
        assert_eq!(files, RULES.map(|(name, _)| name));
    }
}
