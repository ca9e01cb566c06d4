//! `bench` and `report`: figures compared and shown.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use report::diff::Condition;

/// Compare the cost of a part with an alternative, both measured in turns
#[derive(Subcommand)]
#[command(after_help = "Examples:
  ./testbed bench hit                    the cache-hit path beside a minimal axum + redis handler
  ./testbed bench bloom --repeat 3
  ./testbed bench heartbeats --check     exit code 2 if an aim is missed
  ./testbed bench codecs --json | jq .marks
  ./testbed bench faultproxy --json | jq .ratio_median")]
pub enum BenchCommand {
    /// Requests per CPU second of the API's cache-hit path, beside a minimal axum + redis handler and the in-process cache
    #[command(after_help = "Examples:
  ./testbed bench hit
  ./testbed bench hit --json | jq .ratio_median")]
    Hit(BenchArgs),
    /// Cost and false-positive rate of the bloom filter, beside fastbloom, with 200,000 and 1,000,000 keys
    #[command(after_help = "Examples:
  ./testbed bench bloom --repeat 3")]
    Bloom(BenchArgs),
    /// Commands per second through faultproxy without a law, beside a direct connection
    #[command(after_help = "Examples:
  ./testbed bench faultproxy --json | jq .ratio_median")]
    Faultproxy(BenchArgs),
    /// Authenticated heartbeats per second into the monitor's table, with sender and receiver on two cores; memory of 1,000,000 nodes
    #[command(after_help = "Examples:
  ./testbed bench heartbeats
  ./testbed bench heartbeats --check     exit code 2 if an aim is missed")]
    Heartbeats(BenchArgs),
    /// Size and encoding time of a heartbeat as JSON, Protobuf and Protobuf+Zstd, beside the article's figures
    #[command(after_help = "Examples:
  ./testbed bench codecs --json | jq .marks")]
    Codecs(BenchArgs),
    /// CPU time of a cache hit without telemetry and with 0, 10 and 100 % of the requests recorded, beside a minimal handler with three
    /// spans
    #[command(after_help = "Examples:
  ./testbed bench telemetry --repeat 7")]
    Telemetry(BenchArgs),
    /// Events per CPU second of a worker, beside a loop that only inserts the same rows and one that only decodes the events
    #[command(after_help = "Examples:
  ./testbed bench events
  ./testbed bench events --json | jq '{ratio_median, sides: [.sides[] | {name, cpu: .figures.cpu_us_per_event.median}]}'")]
    Events(BenchArgs),
    /// Requests lost while replicas come and go under load, beside a reload of nginx and replicas that end without a leave
    #[command(after_help = "Examples:
  ./testbed bench slots --check          exit code 2 if a request was lost with slots")]
    Slots(BenchArgs),
}

#[derive(Clone, Copy, Args)]
pub struct BenchArgs {
    /// Runs of each side [default: 7, heartbeats and events 5, slots 10, telemetry 28]
    #[arg(long, alias = "repeats", value_name = "N", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub repeat: Option<u8>,
    /// End with exit code 2 if a figure misses its aim (column "met": NO)
    #[arg(long)]
    pub check: bool,
    /// Print ratios, each side's figures and the conditions as JSON
    #[arg(long)]
    pub json: bool,
}

/// Print a report, render its pages again, or compare two reports
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  ./testbed report                       the newest report
  ./testbed report reports/2026-01-31T12-00-00-article --render
  ./testbed report diff reports/before reports/after --fail-on 'p99_ms>10%'"
)]
pub struct ReportArgs {
    #[command(subcommand)]
    pub command: Option<ReportCommand>,
    /// Directory with report.json [default: the newest below reports/]
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Write report.md and report.html again from report.json
    #[arg(long)]
    pub render: bool,
    /// Print report.json instead of the table
    #[arg(long)]
    pub json: bool,
}

#[derive(Subcommand)]
pub enum ReportCommand {
    Diff(DiffArgs),
}

/// Compare two reports step by step; exit code 2 if a --fail-on condition holds
#[derive(Args)]
#[command(
    after_help = "A condition is KEY>N% (worse by more than N percent: higher, or for rates lower), or KEY>N, KEY<N
(value in the second report). Repeated steps are compared by their median. Invalid steps are not judged.
A step that is missing in the second report, or a condition without any valid step, fails.

Keys: mean_ms p50_ms p90_ms p99_ms p999_ms max_ms error_pct answered_per_s good_per_s
  known_good_per_s known_personal_pct hit_ratio store_queries_per_request store_timeouts skipped
  send_lag_p99_ms cpu_total_pct

Examples:
  ./testbed report diff reports/before reports/after
  ./testbed report diff before after --fail-on 'p99_ms>10%' --fail-on 'error_pct>1'
  ./testbed report diff before.json after.json --json | jq .failures"
)]
pub struct DiffArgs {
    /// The earlier report: a directory with report.json, or the file
    #[arg(value_name = "BEFORE")]
    pub before: PathBuf,
    /// The later report, which is judged: a directory with report.json, or the file
    #[arg(value_name = "AFTER")]
    pub after: PathBuf,
    /// Fail if this holds, e.g. 'p99_ms>10%' or 'error_pct>1' (repeatable)
    #[arg(long, value_name = "CONDITION")]
    pub fail_on: Vec<Condition>,
    /// Print changes, failures and remarks as JSON
    #[arg(long)]
    pub json: bool,
}
