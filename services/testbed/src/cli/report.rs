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

/// Print a report, list all of them, render its pages again, or compare reports
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  ./testbed report                       the newest report
  ./testbed report --list                all reports: number, time, scenario or experiment, checks, path
  ./testbed report 2                     the second newest one
  ./testbed report outage                the only one whose name begins so
  ./testbed report reports/2026-01-31T12-00-00-article --render
  ./testbed report diff reports/before reports/after --fail-on 'p99_ms>10%'
  ./testbed report compare 3 2 1 --out page.html
  ./testbed report check                 do the figures follow from the histogram logs?"
)]
pub struct ReportArgs {
    #[command(subcommand)]
    pub command: Option<ReportCommand>,
    /// Directory with report.json, number in the list, or begin of a directory's name below reports/ with or without its time
    /// [default: the newest]
    #[arg(value_name = "REPORT")]
    pub report: Option<PathBuf>,
    /// List the reports below reports/, of evaluations and experiments
    #[arg(long, conflicts_with_all = ["report", "render"])]
    pub list: bool,
    /// Write report.md and report.html again from report.json
    #[arg(long)]
    pub render: bool,
    /// Print report.json instead of the table; with --list, the list as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Subcommand)]
pub enum ReportCommand {
    Diff(DiffArgs),
    Compare(CompareArgs),
    Check(CheckArgs),
}

/// Compute the figures of a report again from the histogram logs and counts beside it; exit code 2 if one differs
#[derive(Args)]
#[command(
    after_help = "Computed again: latencies, rates and errors from the histogram logs (.hlog); percentages and sums from the counts of
each step; knees, verdicts and their intervals from all steps; each figure of a step beside steps.jsonl. What nothing beside the report
can confirm is listed with the reason.

Examples:
  ./testbed report check                     the newest report
  ./testbed report check reports/2026-01-31T12-00-00-article
  ./testbed report check 2 --json | jq .differences"
)]
pub struct CheckArgs {
    /// Report with steps of load: directory, number in the list, or begin of a name [default: the newest]
    #[arg(value_name = "REPORT")]
    pub report: Option<PathBuf>,
    /// Print what was compared, the differences and what was not computed again as JSON
    #[arg(long)]
    pub json: bool,
}

/// Draw 2 to 16 reports over each other: one self-contained page with steps, percentiles, a table and the conditions that differ
#[derive(Args)]
#[command(after_help = "Steps are the same if profile and offered requests/s are.

Examples:
  ./testbed report compare reports/before reports/after --out page.html
  ./testbed report compare 3 2 1 --out page.html       by their numbers in ./testbed report --list")]
pub struct CompareArgs {
    /// Reports with steps of load: directory, report.json, number in the list, or begin of a name
    #[arg(value_name = "REPORT", required = true)]
    pub reports: Vec<PathBuf>,
    /// The page to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Compare two reports step by step, and say which differences exceed the noise; exit code 2 if a --fail-on condition holds
#[derive(Args)]
#[command(
    after_help = "A condition is KEY>N% (worse by more than N percent: higher, or for rates lower), or KEY>N, KEY<N
(value in the second report). Repeated steps are compared by their median. Invalid steps are not judged.
A step that is missing in the second report, or a condition without any valid step, fails.

The noise is a 95 % interval of the difference of the means: from the repeats if both reports have 3 valid ones or more, otherwise
from the spread between the seconds of the steps. The latter is a lower bound, marked ≥: it does not contain what changes from run to
run. --fail-on does not look at the noise.

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
