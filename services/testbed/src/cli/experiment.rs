//! `experiment`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::param;

/// Put one question to the stack: steps made for it, and the answer judged
#[derive(Subcommand)]
#[command(after_help = "Examples:
  ./testbed experiment overload --quick
  ./testbed experiment penetration --repeat 3 --out /tmp/penetration")]
pub enum ExperimentCommand {
    /// Steps to 2 × the knee, then a surge and its end: goodput, and seconds until back to normal, with admission on and off
    #[command(after_help = "Examples:
  ./testbed experiment overload            with the admission limit, adaptive, off (about 13 minutes)
  ./testbed experiment overload --quick    the same in about 6 minutes, not judged
  ./testbed experiment overload --json | jq '.recoveries[] | {profile, back_after_s}'")]
    Overload(ExperimentArgs),
    /// Unknown ids from 0 to 90 % on top of steady real users: what they still get, and what the store is asked
    #[command(after_help = "Examples:
  ./testbed experiment penetration         baseline and protected (about 8 minutes)
  ./testbed experiment penetration --quick --out /tmp/penetration
  ./testbed experiment penetration --json | jq '.steps[] | {profile, users, known_good_per_s}'")]
    Penetration(ExperimentArgs),
    /// MySQL killed under load and started again, then Redis: who is still answered, how soon the others are told, and seconds
    /// until back to normal
    #[command(after_help = "Examples:
  ./testbed experiment outage              20 s each at 3000 requests/s (about 5 minutes)
  ./testbed experiment outage --quick      6 s each at 600 requests/s, not judged
  ./testbed experiment outage --json | jq '.outages[] | {server, back_after_s}'")]
    Outage(ExperimentArgs),
    /// Workers killed and stopped by turns: until the majority has confirmed it, new primaries work and clients are sent on; then
    /// etcd stopped, of which nothing is to come
    #[command(after_help = "Examples:
  ./testbed experiment switchover            fixed, dynamic and majority, 20 deaths of each kind at 1 s and 100 ms beats (about 22 minutes)
  ./testbed experiment switchover --quick    3 of each kind, by majority, judged for stale writes only
  ./testbed experiment switchover --strategy majority --beat-ms 100
  ./testbed experiment switchover --json | jq '.series[] | {strategy, interval_ms, false_alarms}'")]
    Switchover(SwitchoverArgs),
    /// Every alert made to fire on a real stack by a fault of its own, and to clear, in windows of seconds instead of hours
    #[command(after_help = "Examples:
  ./testbed experiment alerts              all of deploy/prometheus/alerts.yml (about 6 minutes)
  ./testbed experiment alerts --quick      without the burn rates, whose windows are the longest
  ./testbed experiment alerts --alert TargetDown --alert CacheAway
  ./testbed experiment alerts --json | jq '.measured.alerts[] | {alert, fires_s, clears_s}'")]
    Alerts(AlertsArgs),
    /// The receiver of traces killed and started again under load: errors, latency, memory, and whether each lost span is counted
    #[command(after_help = "Examples:
  ./testbed experiment collector           five times: alive, killed, started again, 15 s each (about 5 minutes)
  ./testbed experiment collector --quick   once, 5 s each
  ./testbed experiment collector --json | jq '.measured | {errors, killed_p99_ratio, spans_made, spans_sent, spans_dropped}'")]
    Collector(FindingsArgs),
    /// Heartbeats over TCP and over UDP under the same faults: what arrives, how late, and who would be suspected wrongly
    #[command(after_help = "Examples:
  ./testbed experiment transports          seven conditions (about 4 minutes)
  ./testbed experiment transports --quick
  ./testbed experiment transports --json | jq .measured")]
    Transports(FindingsArgs),
    /// A heartbeat as JSON, Protobuf and Protobuf+Zstd: bytes, time, bandwidth of 10,000 nodes
    #[command(after_help = "Examples:
  ./testbed experiment codecs
  ./testbed experiment codecs --json | jq '.measured[] | {name, bytes: .figures.bytes.median}'")]
    Codecs(FindingsArgs),
    /// 50,000 heartbeat senders in one process: how late their ticks are, what they cost, how they stop
    #[command(after_help = "Examples:
  ./testbed experiment senders             20 s each: ticks only, a datagram each, in batches (about 2 minutes)
  ./testbed experiment senders --quick     5,000 senders for 2 s")]
    Senders(FindingsArgs),
    /// A monitor that is away: delays between tries, silent period, alarm, and the way back
    #[command(after_help = "Examples:
  ./testbed experiment reconnect           the article's delays (about 2 minutes)
  ./testbed experiment reconnect --quick   all delays a tenth")]
    Reconnect(FindingsArgs),
    /// Failure detectors: how soon a crash is detected, how often a healthy node is suspected, under 13 conditions and two beat rates
    #[command(after_help = "Examples:
  ./testbed experiment detectors             72 hours of each condition, all parameters swept (about 15 minutes)
  ./testbed experiment detectors --quick     2 hours of each, not judged
  ./testbed experiment detectors --trace mine.csv --detector phi-normal --param threshold=12 --json
  ./testbed experiment detectors --trace mine.csv --detector fixed --param suspect=3 --crash-at 60000000000

A trace is CSV, a line per beat sent: seq,send_ns,recv_ns with 'lost' for recv_ns if it did not arrive. Spans of
parameters are in intervals of the beats; a wrong name is answered with the right ones.")]
    Detectors(DetectorsArgs),
}

#[derive(Args)]
pub struct AlertsArgs {
    /// Only the fault that sets off this one (repeatable)
    #[arg(long = "alert", value_name = "NAME")]
    pub alerts: Vec<String>,
    #[command(flatten)]
    pub findings: FindingsArgs,
}

#[derive(Args)]
pub struct DetectorsArgs {
    /// Judge one detector on this trace instead: lines of seq,send_ns,recv_ns (or 'lost'), both stamps of one clock
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "out"])]
    pub trace: Option<PathBuf>,
    /// Which one [default: adaptive]
    #[arg(long, value_name = "NAME", requires = "trace")]
    pub detector: Option<String>,
    /// One of its parameters (repeatable)
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = param, requires = "trace")]
    pub params: Vec<(String, f64)>,
    /// The sender crashes then, on the clock of send_ns [default: 1000 crashes spread over the trace]
    #[arg(long, value_name = "NS", requires = "trace")]
    pub crash_at: Option<u64>,
    #[command(flatten)]
    pub findings: FindingsArgs,
}

#[derive(Args)]
pub struct SwitchoverArgs {
    /// 3 deaths of each kind; only stale writes are judged
    #[arg(long)]
    pub quick: bool,
    /// Only these (repeatable) [default: all, or majority with --quick]
    #[arg(long = "strategy", value_name = "STRATEGY")]
    pub strategies: Vec<crate::experiments::switchover::Strategy>,
    /// Only these intervals of the beats (repeatable) [default: 1000 and 100]
    #[arg(long = "beat-ms", value_name = "MS", value_parser = clap::value_parser!(u64).range(50..=10_000))]
    pub beats_ms: Vec<u64>,
    /// Deaths of each kind [default: 20]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub kills: Option<u16>,
    /// Then etcd stands still for so long, with the majority's rule; 0: it does not [default: 60, or 5 with --quick]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u16).range(0..=3_600))]
    pub etcd_away_s: Option<u16>,
    /// Where the report goes [default: reports/<time>-switchover]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print switchover.json instead of the table
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct FindingsArgs {
    /// Shorter and smaller; nothing is judged
    #[arg(long)]
    pub quick: bool,
    /// Where the report goes [default: reports/<time>-<name>]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print report.json instead of the tables
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct ExperimentArgs {
    /// Short steps (3 s + 10 s); nothing is judged
    #[arg(long)]
    pub quick: bool,
    /// Rounds; the variants take turns within each
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeat: u32,
    /// Where the report goes [default: reports/<time>-<name>]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print report.json instead of the table
    #[arg(long)]
    pub json: bool,
}
