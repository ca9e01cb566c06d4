//! `bench` and `report`: figures compared and shown.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use report::diff::Condition;

/// Comparisons, all sides in one run and in turns
#[derive(Subcommand)]
#[command(after_help = "Examples:
  ./testbed bench hit                    the cache-hit path beside a bare axum + redis handler
  ./testbed bench bloom --repeats 3
  ./testbed bench heartbeats
  ./testbed bench codecs --json | jq .marks
  ./testbed bench faultproxy --json | jq .ratio_median")]
pub enum BenchCommand {
    /// Requests per CPU second of the api's cache-hit path, beside a bare axum + redis handler and its in-process cache
    Hit(BenchArgs),
    /// Cost and false positives of the bloom filter, beside fastbloom, at 200,000 and 1,000,000 keys
    Bloom(BenchArgs),
    /// Commands per second through faultproxy with law none, beside a direct connection
    Faultproxy(BenchArgs),
    /// Authenticated heartbeats per second into the monitor's table, sender and receiver on two cores; a table of 1,000,000 nodes
    Heartbeats(BenchArgs),
    /// Bytes and nanoseconds of a heartbeat as JSON, Protobuf and Protobuf+Zstd, beside the article's
    Codecs(BenchArgs),
    /// CPU of a cache hit with telemetry off and with 0, 10 and 100 % of the requests recorded, beside a bare handler with three spans
    Telemetry(BenchArgs),
}

#[derive(Clone, Copy, Args)]
pub struct BenchArgs {
    /// Runs of each side [default: 7, heartbeats 5, telemetry 28]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub repeats: Option<u8>,
    /// Print ratios, each side's figures and the conditions as JSON
    #[arg(long)]
    pub json: bool,
}

/// Print a report again, render its pages anew, or compare two
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  ./testbed report                       the newest one
  ./testbed report reports/2026-01-31T12-00-00-article --render
  ./testbed report diff reports/before reports/after --fail-on 'p99_ms>10%'"
)]
pub struct ReportArgs {
    #[command(subcommand)]
    pub command: Option<ReportCommand>,
    /// A directory with report.json [default: the newest below reports/]
    pub dir: Option<PathBuf>,
    /// Write report.md and report.html again from report.json
    #[arg(long)]
    pub render: bool,
    #[arg(long)]
    pub json: bool,
}

#[derive(Subcommand)]
pub enum ReportCommand {
    Diff(DiffArgs),
}

/// Compare two reports step by step; exit code 2 if a condition holds
#[derive(Args)]
#[command(
    after_help = "A condition is KEY>N% (worse by more than N percent: higher, or for rates lower), or KEY>N, KEY<N
(of the second report). Repeats count by their median. Invalid steps are not judged; a step that is
missing in the second report fails.

Keys: mean_ms p50_ms p90_ms p99_ms p999_ms max_ms error_pct answered_per_s good_per_s
  known_good_per_s known_personal_pct hit_ratio store_queries_per_request store_timeouts skipped
  send_lag_p99_ms cpu_total_pct

Examples:
  ./testbed report diff reports/before reports/after
  ./testbed report diff before after --fail-on 'p99_ms>10%' --fail-on 'error_pct>1'
  ./testbed report diff before.json after.json --json | jq .failures"
)]
pub struct DiffArgs {
    /// A directory with report.json, or the file
    #[arg(value_name = "BEFORE")]
    pub before: PathBuf,
    /// The same, of the run to be judged
    #[arg(value_name = "AFTER")]
    pub after: PathBuf,
    /// What must not be, e.g. 'p99_ms>10%' or 'error_pct>1' (repeatable)
    #[arg(long, value_name = "CONDITION")]
    pub fail_on: Vec<Condition>,
    /// Print changes, failures and remarks as JSON
    #[arg(long)]
    pub json: bool,
}
