//! What can be said on the command line. Help texts carry examples; what a command does is in `commands/`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use api::Profile;
use clap::{Args, Parser, Subcommand};
use loadtest::report::diff::Condition;
use tracestore::TraceId;

#[derive(Parser)]
#[command(
    name = "testbed",
    version,
    about = "A recommendation service to measure, break and cure: baseline and protected side by side",
    after_help = "Examples:
  ./testbed evaluate                    the article's load table, measured here (about 15 minutes)
  ./testbed evaluate --quick            the same in under 4 minutes, tolerances not judged
  ./testbed up && ./testbed load smoke  the stack to try by hand; ./testbed down ends it
  ./testbed test                        every test, with the real servers it needs (answered by the script `testbed`)",
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    Evaluate(Box<EvaluateArgs>),
    #[command(subcommand)]
    Experiment(ExperimentCommand),
    Up(UpArgs),
    Down(DownArgs),
    Status(StatusArgs),
    Doctor(DoctorArgs),
    #[command(subcommand)]
    Data(DataCommand),
    Load(LoadArgs),
    #[command(subcommand)]
    Fault(FaultCommand),
    Trace(TraceArgs),
    #[command(subcommand)]
    Bench(BenchCommand),
    Report(ReportArgs),
    #[command(subcommand)]
    Serve(ServeCommand),
}

/// Run a scenario on the real stack and report it beside the article and the model
#[derive(Args)]
#[command(after_help = "Examples:
  ./testbed evaluate                                   scenario article: 15 s warm-up + 60 s per step, both profiles
  ./testbed evaluate --quick --out /tmp/quick          short steps, judged by nobody
  ./testbed evaluate --law none                        the store's real speed instead of the modelled one
  ./testbed evaluate --data ratings.inter              your behaviour data (RecBole .inter or CSV)
  ./testbed evaluate --set guards.bloom=off            one setting of the replicas changed, in both profiles
  ./testbed evaluate --ablation                        protected, and protected with one guard off at a time
  ./testbed evaluate --repeat 3                        three rounds; the report gives median and spread
  ./testbed evaluate --soak 30m                        one protected step for half an hour: does anything grow?")]
pub struct EvaluateArgs {
    /// A built-in scenario (article, penetration, overload, outage, zipf, smoke) or a TOML file
    #[arg(long, default_value = "article", value_name = "NAME|FILE")]
    pub scenario: String,
    /// Behaviour data to import; without it, synthetic users are generated
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Synthetic users to generate [default: 200000, or 60000 with --quick]
    #[arg(long, conflicts_with = "data", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub users: Option<u32>,
    /// Short steps (3 s + 10 s); the tolerances are not judged
    #[arg(long)]
    pub quick: bool,
    /// "none": no modelled response time, the store as fast as it is
    #[arg(long, value_name = "none|modelled")]
    pub law: Option<LawChoice>,
    /// Change a setting of the replicas, e.g. guards.bloom=off (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Only these profiles (repeatable) [default: the scenario's]
    #[arg(long = "profile", value_name = "PROFILE")]
    pub profiles: Vec<Profile>,
    /// protected, then protected with each guard switched off in turn
    #[arg(long, conflicts_with = "profiles")]
    pub ablation: bool,
    /// Rounds; profiles take turns within each
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeat: u32,
    /// The lowest step for so long (3m to 4h), protected only; slopes of memory, open files and latency
    #[arg(long, value_name = "TIME", value_parser = soak, conflicts_with_all = ["quick", "profiles", "ablation", "repeat"])]
    pub soak: Option<Duration>,
    /// MySQL servers to spread the 16 shards over
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16))]
    pub instances: u16,
    /// Where the report goes [default: reports/<time>-<scenario>]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print report.json instead of the table
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LawChoice {
    None,
    Modelled,
}

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
    /// Workers killed and stopped by turns: until the majority has confirmed it, new primaries work and clients are sent on
    #[command(after_help = "Examples:
  ./testbed experiment switchover            fixed, dynamic and majority, 20 deaths of each kind at 1 s and 100 ms beats (about 20 minutes)
  ./testbed experiment switchover --quick    3 of each kind, by majority, judged for stale writes only
  ./testbed experiment switchover --strategy majority --beat-ms 100
  ./testbed experiment switchover --json | jq '.series[] | {strategy, interval_ms, false_alarms}'")]
    Switchover(SwitchoverArgs),
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
pub struct DetectorsArgs {
    /// Judge one detector on this trace instead
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
    pub strategies: Vec<crate::switchover::Strategy>,
    /// Only these intervals of the beats (repeatable) [default: 1000 and 100]
    #[arg(long = "beat-ms", value_name = "MS", value_parser = clap::value_parser!(u64).range(50..=10_000))]
    pub beats_ms: Vec<u64>,
    /// Deaths of each kind [default: 20]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub kills: Option<u16>,
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

/// Start the stack and leave it running
#[derive(Args)]
#[command(after_help = "Examples:
  ./testbed up                              protected, synthetic users, the scenario article's law
  ./testbed up --profile baseline --law none
  ./testbed up --data ratings.inter --set cache.items=50
  curl \"$(./testbed status --json | jq -r .gateway)/recommendations?user_id=u000042\"")]
pub struct UpArgs {
    #[arg(long, default_value = "protected", value_name = "baseline|protected")]
    pub profile: Profile,
    /// Whose law, pools and number of replicas to use
    #[arg(long, default_value = "article", value_name = "NAME|FILE")]
    pub scenario: String,
    /// Behaviour data to import; without it, synthetic users are generated
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Synthetic users to generate
    #[arg(long, default_value_t = 20_000, conflicts_with = "data", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub users: u32,
    /// "none": no modelled response time, the store as fast as it is
    #[arg(long, value_name = "none|modelled")]
    pub law: Option<LawChoice>,
    /// Change a setting of the replicas (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// MySQL servers to spread the 16 shards over
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16))]
    pub instances: u16,
    /// Workers that share the 16 partitions and fail over; 0: neither workers nor monitors nor etcd
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=16))]
    pub workers: u8,
    /// Monitors that watch them
    #[arg(long, default_value = "3", value_name = "1|3", value_parser = monitors)]
    pub monitors: u8,
    /// Port of the gateway [default: a free one]
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
}

/// Stop what `up` started, and whatever a killed run left behind
#[derive(Args)]
#[command(after_help = "Examples:
  ./testbed down          the stack of `up`, and orphans of runs that were killed
  ./testbed down --all    runs that are still under way, too")]
pub struct DownArgs {
    /// Also end evaluations and other stacks whose owner is alive
    #[arg(long)]
    pub all: bool,
}

/// Show what runs; on a terminal, while monitors and workers run, again every second
#[derive(Args)]
#[command(after_help = "Examples:
  ./testbed status                          Ctrl-C ends it
  ./testbed status --once
  ./testbed status --json | jq .gateway
  ./testbed status --json | jq '.heartbeats.nodes[] | {id, online, states}'")]
pub struct StatusArgs {
    /// Show it once
    #[arg(long)]
    pub once: bool,
    /// Print it once, as JSON
    #[arg(long)]
    pub json: bool,
}

/// Check that this machine can run the testbed
#[derive(Args)]
#[command(after_help = "Examples:
  ./testbed doctor
  ./testbed doctor --json
  ./testbed doctor --url http://127.0.0.1:9080/readyz    a health check in a container without curl")]
pub struct DoctorArgs {
    /// Instead: ask this address, exit code 0 if it answers 2xx within 2 s
    #[arg(long, value_name = "URL", conflicts_with = "json")]
    pub url: Option<String>,
    #[arg(long)]
    pub json: bool,
}

/// Import, generate and judge behaviour data
#[derive(Subcommand)]
#[command(after_help = "Examples:
  ./testbed data generate --users 1000 --out users.csv
  ./testbed data quality users.csv
  ./testbed data import users.csv")]
pub enum DataCommand {
    /// Load a file into the running stack (`up`) and rebuild the model from all its data
    #[command(
        after_help = "Formats: RecBole atomic files (user_id:token item_id:token rating:float timestamp:float, tabs)
and CSV with the header user_id,item_id,event,timestamp[,weight] (events view, cart, purchase, rating).

Examples:
  ./testbed data import ratings.inter
  ./testbed data import --strict events.csv"
    )]
    Import {
        file: PathBuf,
        /// Write nothing if any row is bad
        #[arg(long)]
        strict: bool,
        #[arg(long)]
        json: bool,
    },
    /// Migrate and fill the store of a stack that TESTBED_ENDPOINTS describes, unless that was done before
    #[command(after_help = "For a stack that neither `up` nor `evaluate` has started, such as compose.yaml's:
  TESTBED_ENDPOINTS=deploy/compose/endpoints.toml testbed data prepare --users 20000")]
    Prepare {
        /// Behaviour data to import; without it, synthetic users are generated
        #[arg(long, value_name = "FILE")]
        data: Option<PathBuf>,
        /// Synthetic users to generate
        #[arg(long, default_value_t = 20_000, conflicts_with = "data", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
        users: u32,
    },
    /// Write seeded synthetic behaviour as CSV
    #[command(after_help = "Examples:
  ./testbed data generate --users 1000 > users.csv
  ./testbed data generate --users 200000 --seed 7 --out users.csv")]
    Generate {
        #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
        users: u32,
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(2..=10_000_000))]
        items: u32,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Where to write; standard output without it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Rank held-out behaviour: NDCG@10, hit rate@10 and recall@10 beside popularity
    #[command(after_help = "Examples:
  ./testbed data quality ratings.inter
  ./testbed data quality --json events.csv | jq .ndcg_ratio")]
    Quality {
        file: PathBuf,
        #[arg(long)]
        strict: bool,
        #[arg(long)]
        json: bool,
    },
}

/// Run the steps of a scenario against the running stack (`up`)
#[derive(Args)]
#[command(after_help = "Examples:
  ./testbed load smoke
  ./testbed load article --step 3000
  ./testbed load zipf --out /tmp/zipf
  ./testbed load smoke --engine k6        goose's figures and its k6 twin's side by side
  ./testbed load zipf --step 500 --engine k6-open")]
pub struct LoadArgs {
    /// A built-in scenario (article, penetration, overload, outage, zipf, smoke) or a TOML file
    #[arg(value_name = "NAME|FILE")]
    pub scenario: String,
    /// Only this step, by its number of users
    #[arg(long, value_name = "USERS")]
    pub step: Option<u32>,
    /// Lay another program's figures beside goose's: k6 with the same users, or k6 with an open-loop arrival rate
    #[arg(long, value_enum, default_value = "goose")]
    pub engine: Engine,
    /// Write the report here
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Engine {
    Goose,
    K6,
    K6Open,
}

/// Break the store of the running stack, through its faultproxy
#[derive(Subcommand)]
#[command(after_help = "Examples:
  ./testbed fault law --base-ms 74 --slope-ms 0.2 --spread 0.3
  ./testbed fault law none
  ./testbed fault add stall --for 5s
  ./testbed fault add latency --ms 100 --for 30s
  ./testbed fault add loss --pct 20 --for 30s
  ./testbed fault clear")]
pub enum FaultCommand {
    /// Show the law and the faults in force
    Show {
        #[arg(long)]
        json: bool,
    },
    /// Set the store's response-time law: base + slope × commands in flight
    #[command(after_help = "Examples:
  ./testbed fault law none
  ./testbed fault law --base-ms 74 --slope-ms 0.2 --spread 0.3")]
    Law {
        /// "none" takes the law away
        #[arg(value_parser = ["none"], conflicts_with_all = ["base_ms", "slope_ms", "spread"], required_unless_present = "base_ms")]
        none: Option<String>,
        #[arg(long)]
        base_ms: Option<f64>,
        #[arg(long, default_value_t = 0.0)]
        slope_ms: f64,
        /// Sigma of the log-normal spread
        #[arg(long, default_value_t = 0.0)]
        spread: f64,
    },
    /// Add a fault: latency, stall, reset, refuse, loss
    #[command(
        after_help = "loss: datagrams are lost; commands and other TCP are late by what retransmission would take.

Examples:
  ./testbed fault add stall --for 5s
  ./testbed fault add loss --pct 20 --seed 7"
    )]
    Add {
        #[arg(value_parser = ["latency", "stall", "reset", "refuse", "loss"])]
        kind: String,
        /// Added latency (latency only)
        #[arg(long, required_if_eq("kind", "latency"))]
        ms: Option<f64>,
        /// Percent of what is sent, either way (loss only)
        #[arg(long, required_if_eq("kind", "loss"))]
        pct: Option<f64>,
        /// Which are lost (loss only) [default: 1]
        #[arg(long)]
        seed: Option<u64>,
        /// It lifts itself after this long, e.g. 5s; without it, it stays until `fault clear`
        #[arg(long = "for", value_name = "TIME", value_parser = duration)]
        lasting: Option<Duration>,
    },
    /// Lift all faults (the law stays)
    Clear,
}

/// Show where the time of single requests went: waterfalls of the running stack's traces
#[derive(Args)]
#[command(
    after_help = "Kept are the slowest traces of the last minutes, the newest that failed, and a sample of the others.

Examples:
  ./testbed trace                        what is there: the newest traces, a line each
  ./testbed trace --slowest              the slowest request as a waterfall
  ./testbed trace --errors --limit 3     the newest three that failed
  ./testbed trace 4bf92f3577b34da6a3ce929d0e0e4736 --json | jq '.spans[].name'"
)]
pub struct TraceArgs {
    /// The trace of this id: 32 hexadecimal digits, as lists and log lines show it
    #[arg(value_name = "ID", conflicts_with_all = ["slowest", "errors", "limit"])]
    pub id: Option<TraceId>,
    /// The slowest
    #[arg(long, conflicts_with = "errors")]
    pub slowest: bool,
    /// The newest that failed
    #[arg(long)]
    pub errors: bool,
    /// How many [default: 1 waterfall, or 20 lines]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub limit: Option<u16>,
    /// Print the spans as JSON
    #[arg(long)]
    pub json: bool,
}

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
    /// Runs of each side [default: 5 (hit, heartbeats) or 7]
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

/// Be one of the processes of the stack
#[derive(Subcommand)]
#[command(after_help = "Examples:
  ./testbed serve api --profile protected --set redis.url=redis://127.0.0.1:6379
  ./testbed serve api --mysql db-0:3306,db-1:3306 --set redis.url=redis://cache:6379
  TESTBED_NODE__KEY=secret ./testbed serve monitor m0 --config monitor.toml
  ./testbed serve faultproxy --config faultproxy.toml
  ./testbed serve faultproxy --mysql db-0:3306 --listen 127.0.0.1:3306 --admin 127.0.0.1:9090 --scenario article
  ./testbed serve traces --listen 127.0.0.1:4317 --admin 127.0.0.1:9095")]
pub enum ServeCommand {
    /// A replica of the recommendation API
    Api {
        /// Which guards are on by default
        #[arg(long, default_value = "protected", value_name = "baseline|protected")]
        profile: Profile,
        /// TOML file; TESTBED_SECTION__KEY and --set override it
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Servers that the 16 shards are dealt to in turn, if the file does not say
        #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', default_value = "127.0.0.1:3306")]
        mysql: Vec<String>,
        #[arg(long = "set", value_name = "KEY=VALUE")]
        sets: Vec<String>,
    },
    /// One of the monitors that hear heartbeats, vote on failures and assign partitions
    Monitor {
        /// Its name
        id: String,
        /// TOML file; TESTBED_SECTION__KEY and --set override it
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[arg(long = "set", value_name = "KEY=VALUE")]
        sets: Vec<String>,
    },
    /// One of the workers that share the partitions
    Worker {
        /// Its name
        id: String,
        /// TOML file; TESTBED_SECTION__KEY and --set override it
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Servers that the 16 shards are dealt to in turn, if the file does not say
        #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', default_value = "127.0.0.1:3306")]
        mysql: Vec<String>,
        #[arg(long = "set", value_name = "KEY=VALUE")]
        sets: Vec<String>,
    },
    /// The proxy in front of the store that makes it slow or broken
    Faultproxy {
        #[arg(long, value_name = "FILE", required_unless_present = "mysql")]
        config: Option<PathBuf>,
        /// Instead of a file: the servers to stand in front of
        #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', conflicts_with = "config", requires_all = ["listen", "admin"])]
        mysql: Vec<String>,
        /// Where the first of them is reached; the others at the ports that follow
        #[arg(long, value_name = "ADDRESS:PORT", requires = "mysql")]
        listen: Option<SocketAddr>,
        #[arg(long, value_name = "ADDRESS:PORT", requires = "mysql")]
        admin: Option<SocketAddr>,
        /// Whose law to begin with [default: none]
        #[arg(long, value_name = "NAME|FILE", requires = "mysql")]
        scenario: Option<String>,
    },
    /// A receiver of traces (OTLP by gRPC, and by HTTP at /v1/traces) that keeps some of them in memory
    Traces {
        /// For exporters
        #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:4317")]
        listen: SocketAddr,
        /// Health, metrics, and what `testbed trace` asks
        #[arg(long, value_name = "ADDRESS:PORT")]
        admin: SocketAddr,
    },
    /// The least that axum and Redis can do; for `bench hit` and `bench telemetry`
    #[command(hide = true)]
    Bare {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        redis: String,
        /// Makes three spans of every request and sends them there
        #[arg(long, value_name = "URL")]
        telemetry: Option<String>,
    },
    /// As many requests as a process answers; for the same two
    #[command(hide = true)]
    Hammer { plan: PathBuf },
    /// Many heartbeat senders; for `experiment senders`
    #[command(hide = true)]
    Fleet { plan: PathBuf },
    /// One step of load; told and asked by its parent
    #[command(hide = true)]
    Loadgen { plan: PathBuf },
    /// Owner of the stack that `up` starts
    #[command(hide = true)]
    Supervisor { spec: PathBuf },
}

/// An odd number: one more has no better majority.
fn monitors(text: &str) -> Result<u8, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("1 or 3".into()),
    }
}

/// `5s`, `500ms`, `2m`.
fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|_| format!("'{text}' is no time, e.g. 5s or 500ms"))?;
    let allowed = Duration::from_millis(1)..=Duration::from_secs(86_400);
    if allowed.contains(&duration) { Ok(duration) } else { Err("must be at least 1 ms and at most a day".into()) }
}

/// `threshold=8`
fn param(text: &str) -> Result<(String, f64), String> {
    let known =
        text.split_once('=').and_then(|(name, value)| Some((name.trim().to_owned(), value.trim().parse().ok()?)));
    known.ok_or_else(|| format!("'{text}' is no parameter, e.g. threshold=8"))
}

/// As `duration`, within what a soak can be.
fn soak(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_secs(u64::from(loadtest::plan::MAX_MEASURE_S));
    let length = duration(text)?;
    if (Duration::from_secs(180)..=longest).contains(&length) {
        Ok(length)
    } else {
        Err("a soak takes from 3m (fewer minutes have no slope) to 4h".into())
    }
}

#[cfg(test)]
mod tests;
