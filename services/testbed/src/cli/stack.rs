//! `up`, `down`, `status`, `doctor`, `fault`, `trace`: the running stack.

use std::{path::PathBuf, time::Duration};

use api::Profile;
use clap::{Args, Subcommand};
use faultproxy::FaultKind;
use launcher::QuotaChoice;
use tracestore::TraceId;
use worker::config::Transport;

use super::{LawChoice, beats, duration, milliseconds, monitors};

/// Start the stack and leave it running
#[derive(Args)]
#[command(
    after_help = "A worker, a monitor, a replica, a Redis or a Kafka that ends is started again after 15 s. If another process ends, the
whole stack stops.

Examples:
  ./testbed up                              protected, synthetic users, the scenario article's law
  ./testbed up --profile baseline --law none
  ./testbed up --without events             no Kafka: replicas write events to MySQL, and need no Java
  ./testbed up --data ratings.inter --set cache.items=50
  ./testbed up --autoscale                 8 to 20 replicas, by the article's rule
  ./testbed up --autoscale --hpa docs/examples/hpa.yaml --hurry 10 --law none
  curl \"$(./testbed status --json | jq -r .gateway)/recommendations?user_id=u000042\""
)]
pub struct UpArgs {
    /// Guards of the replicas: none of them (baseline) or all (protected)
    #[arg(long, default_value = "protected", value_name = "baseline|protected")]
    pub profile: Profile,
    /// Scenario that sets the law, the connection pools and the number of replicas
    #[arg(long, default_value = "article", value_name = "NAME|FILE")]
    pub scenario: String,
    /// File with behaviour data to import [default: synthetic users]
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Number of synthetic users
    #[arg(long, default_value_t = 20_000, conflicts_with = "data", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub users: u32,
    /// Response time of the store: its real one (none), or the scenario's law (modelled) [default: modelled, if the scenario has a law]
    #[arg(long, value_name = "none|modelled")]
    pub law: Option<LawChoice>,
    /// Change a setting of the replicas (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// MySQL servers that share the 16 shards. The servers also share the connections of the scenario's store.pool_size; a store.pool_size
    /// given by --set is for each server
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16))]
    pub instances: u16,
    /// Leave out this part of the stack. events: Kafka, through which workers get events and compute features
    #[arg(long, value_name = "PART", value_enum)]
    pub without: Option<Part>,
    /// Workers that share the 16 partitions and fail over; 0 starts no workers, no monitors, no etcd and no Kafka
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=16))]
    pub workers: u8,
    /// Monitors that watch the workers
    #[arg(long, default_value = "3", value_name = "1|3", value_parser = monitors)]
    pub monitors: u8,
    /// Transport of the heartbeats
    #[arg(long, default_value = "udp", value_name = "udp|tcp", value_parser = beats)]
    pub beats: Transport,
    /// Port of the gateway [default: a free one]
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Start and drain replicas as Kubernetes' autoscaler would. Each replica has 50 m of CPU, and a request costs 1 ms of it
    #[arg(long)]
    pub autoscale: bool,
    /// HorizontalPodAutoscaler (autoscaling/v2, YAML) to scale by [default: the article's rule, docs/examples/hpa.yaml]
    #[arg(long, value_name = "FILE.yaml", requires = "autoscale")]
    pub hpa: Option<PathBuf>,
    /// Who holds replicas to their CPU: the kernel by cgroups, a model in the replica, or the kernel if it can (auto)
    #[arg(long, value_name = "auto|kernel|modelled", default_value = "auto", requires = "autoscale")]
    pub quota: QuotaChoice,
    /// Divide all windows and periods of the autoscaler by this
    #[arg(long, value_name = "N", default_value_t = 1, requires = "autoscale", value_parser = clap::value_parser!(u32).range(1..=60))]
    pub hurry: u32,
}

/// A part of the stack that `up` can leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    Events,
}

/// Stop the stack that `up` started, and remove processes and files that killed commands left behind
#[derive(Args)]
#[command(after_help = "Examples:
  ./testbed down          the stack of `up`, and leftovers of killed commands
  ./testbed down --all    also the stacks of commands that still run")]
pub struct DownArgs {
    /// Also stop the stacks of commands that still run, such as `evaluate`
    #[arg(long)]
    pub all: bool,
}

/// Show the running stack; on a terminal with running monitors, refresh every second
#[derive(Args)]
#[command(after_help = "Examples:
  ./testbed status                          Ctrl-C ends it
  ./testbed status --once
  ./testbed status --json | jq .gateway
  ./testbed status --json | jq '.events.partitions[] | {partition, owner, lag}'
  ./testbed status --json | jq .autoscaler.replicas
  ./testbed status --json | jq '.heartbeats.nodes[] | {id, online, states}'")]
pub struct StatusArgs {
    /// Show it once, without refreshing
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
    /// Only request this address: exit code 0 if the response is 2xx within 2 s, else 1
    #[arg(long, value_name = "URL", conflicts_with = "json")]
    pub url: Option<String>,
    /// Print the checks as JSON
    #[arg(long)]
    pub json: bool,
}

/// Break the running stack: its store through faultproxy, Redis, Kafka, a worker, or a replica
#[derive(Subcommand)]
#[command(after_help = "Examples:
  ./testbed fault law --base 74ms --slope 0.2ms --spread 0.3
  ./testbed fault law none
  ./testbed fault add stall --for 5s
  ./testbed fault add latency --delay 100ms --for 30s
  ./testbed fault add loss --pct 20 --for 30s
  ./testbed fault clear
  ./testbed fault redis kill
  ./testbed fault kafka stop && sleep 10 && ./testbed fault kafka resume
  ./testbed fault worker 1 kill
  ./testbed fault replica 3 stop && ./testbed fault replica 3 resume
  ./testbed fault resume                   starts stopped heartbeats again")]
pub enum FaultCommand {
    /// Show the law and the active faults of the store
    #[command(after_help = "Examples:
  ./testbed fault show
  ./testbed fault show --json | jq .faults")]
    Show {
        /// Print them as JSON
        #[arg(long)]
        json: bool,
    },
    Law(LawArgs),
    Add(AddFaultArgs),
    /// Remove all faults of the store; the law stays
    #[command(after_help = "Examples:
  ./testbed fault clear
  ./testbed fault clear --link store-00")]
    Clear {
        /// Only the faults that were added with this --link
        #[arg(long, value_name = "NAME")]
        link: Option<String>,
    },
    /// Kill, stop or resume Redis
    #[command(
        after_help = "Only for a stack that `up` started. A stopped process keeps its connections and does not respond. `up` starts a
killed Redis again after 15 s, on the same port and empty.

Examples:
  ./testbed fault redis kill
  ./testbed fault redis stop && sleep 5 && ./testbed fault redis resume"
    )]
    Redis {
        /// What to do with the process
        #[arg(value_name = "ACTION")]
        action: ProcessAction,
    },
    /// Kill, stop or resume a replica of the API
    #[command(
        after_help = "Only for a stack that `up` started. A stopped process keeps its connections and does not respond. `up` starts a
killed replica again after 15 s, at the same addresses.

Examples:
  ./testbed fault replica 3 kill
  ./testbed fault replica 3 stop
  ./testbed fault replica 3 resume"
    )]
    Replica {
        /// Number of the replica, from 0, as in the names api-0, api-1, … of `status`
        #[arg(value_name = "N")]
        number: u16,
        /// What to do with the process
        #[arg(value_name = "ACTION")]
        action: ProcessAction,
    },
    /// Kill, stop or resume Kafka
    #[command(
        after_help = "Only for a stack that `up` started. A stopped process keeps its connections and does not respond. `up` starts a
killed Kafka again after 15 s, on the same port and data: what it had acknowledged is still there.

Examples:
  ./testbed fault kafka kill
  ./testbed fault kafka stop && sleep 5 && ./testbed fault kafka resume"
    )]
    Kafka {
        /// What to do with the process
        #[arg(value_name = "ACTION")]
        action: ProcessAction,
    },
    /// Kill, stop or resume a worker
    #[command(
        after_help = "Only for a stack that `up` started. The monitors give the partitions of a killed or stopped worker to others. `up`
starts a killed worker again after 15 s, at the same addresses.

Examples:
  ./testbed fault worker 1 kill
  ./testbed fault worker 1 stop
  ./testbed fault worker 1 resume"
    )]
    Worker {
        /// Number of the worker, from 0, as in the names worker-0, worker-1, … of `status`
        #[arg(value_name = "N")]
        number: u16,
        /// What to do with the process
        #[arg(value_name = "ACTION")]
        action: ProcessAction,
    },
    /// Damage a worker's copy of a segment of the model
    #[command(
        after_help = "Only for a stack that `up` started. The worker's scrubber finds the damage within a minute,
a reader at once; the monitors order the repair. `status` shows the copies, `trace` and the
dashboard Segments show the repair.

Examples:
  ./testbed fault segment flip                       a bit of block 0 in the primary's copy of segment 0
  ./testbed fault segment flip --segment 3 --worker 1 --block 7
  ./testbed fault segment truncate --segment 3       cuts the file off after one block
  ./testbed fault segment delete --worker 2          removes the worker's directory with all its segments
  ./testbed fault segment old --segment 3            puts the version of now back after the next one; needs events meanwhile"
    )]
    Segment {
        /// What to do with the copy
        #[arg(value_name = "ACTION")]
        action: SegmentAction,
        /// Number of the segment
        #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..16))]
        segment: u8,
        /// Number of the worker [default: the segment's primary]
        #[arg(long, value_name = "N")]
        worker: Option<u16>,
        /// Block of 4096 bytes that `flip` damages
        #[arg(long, value_name = "N", default_value_t = 0)]
        block: u32,
    },
    /// Make workers send heartbeats over TCP at once, after they have paused or stopped with an alarm
    #[command(
        after_help = "A message from a monitor has the same effect. Heartbeats over UDP (the default of `up`) never stop.

Examples:
  ./testbed fault resume
  ./testbed fault resume worker-0 worker-2"
    )]
    Resume {
        /// Names of the workers [default: all]
        #[arg(value_name = "WORKER")]
        workers: Vec<String>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ProcessAction {
    /// End the process with SIGKILL
    Kill,
    /// Suspend the process with SIGSTOP
    Stop,
    /// Continue a stopped process with SIGCONT
    Resume,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SegmentAction {
    /// Flip a bit of a block
    Flip,
    /// Damage the manifest
    Manifest,
    /// Cut the file off after one block
    Truncate,
    /// Remove the directory with all segments of the worker
    Delete,
    /// Put the version of now back after the next one is published
    Old,
}

/// Set the response-time law of the store: base + slope × n + crosstalk × n × (n − 1), with n commands in flight
#[derive(Args)]
#[command(after_help = "Examples:
  ./testbed fault law none
  ./testbed fault law --base 74ms --slope 0.2ms --spread 0.3
  ./testbed fault law --base 70ms --slope 0.2ms --crosstalk 0.007ms   # the rate is highest at 100 commands in flight")]
pub struct LawArgs {
    /// Remove the law: the store responds at its real speed
    #[arg(value_name = "none", value_parser = ["none"], conflicts_with_all = ["base", "base_ms", "slope", "slope_ms", "crosstalk", "spread"],
        required_unless_present_any = ["base", "base_ms"])]
    pub none: Option<String>,
    /// Response time of an idle store, e.g. 74ms
    #[arg(long, value_name = "TIME", value_parser = milliseconds, conflicts_with = "base_ms")]
    pub base: Option<f64>,
    /// As --base, in milliseconds
    #[arg(long, value_name = "MS", hide = true)]
    pub base_ms: Option<f64>,
    /// Additional response time for each command in flight, e.g. 0.2ms [default: 0ms]
    #[arg(long, value_name = "TIME", value_parser = milliseconds, conflicts_with = "slope_ms")]
    pub slope: Option<f64>,
    /// As --slope, in milliseconds
    #[arg(long, value_name = "MS", hide = true)]
    pub slope_ms: Option<f64>,
    /// Response time that each ordered pair of commands in flight adds: from some load on the rate falls
    #[arg(long, value_name = "TIME", value_parser = milliseconds, default_value = "0ms", hide_default_value = true)]
    pub crosstalk: f64,
    /// Sigma of the log-normal factor
    #[arg(long, value_name = "SIGMA", default_value_t = 0.0)]
    pub spread: f64,
}

/// Add a fault of the store: latency, stall, reset, refuse, loss, blackhole, fail-writes or stall-writes
#[derive(Args)]
#[command(after_help = "latency       delays each response by --delay
stall         forwards nothing
reset         resets open connections
refuse        refuses new connections
loss          loses --pct percent of the datagrams; TCP is delayed by the time of its retransmissions
blackhole     the store's host has vanished: sent bytes are lost without an error, and connections that were open stay silent
              afterwards; with --drop-syn, new TCP connections get no response either (Unix sockets, as in `up`, still connect)
fail-writes   answers --pct percent of the writes with --error, and does not execute them
stall-writes  writes wait, reads pass

Examples:
  ./testbed fault add stall --for 5s
  ./testbed fault add latency --delay 100ms
  ./testbed fault add loss --pct 20 --seed 7
  ./testbed fault add blackhole --drop-syn --for 30s
  ./testbed fault add fail-writes --pct 10 --error disk-full --link store-00
  ./testbed fault add stall --direction to-client --link 'store-*'")]
pub struct AddFaultArgs {
    /// Kind of the fault
    #[arg(value_name = "KIND", value_parser = FaultKind::ALL.map(FaultKind::as_str))]
    pub kind: String,
    /// Additional delay, e.g. 100ms (latency only)
    #[arg(long, value_name = "TIME", value_parser = milliseconds, conflicts_with = "ms")]
    pub delay: Option<f64>,
    /// As --delay, in milliseconds
    #[arg(long, value_name = "MS", hide = true)]
    pub ms: Option<f64>,
    /// Percentage of the lost datagrams or failed writes (loss and fail-writes only)
    #[arg(long, value_name = "PERCENT", required_if_eq_any([("kind", "loss"), ("kind", "fail-writes")]))]
    pub pct: Option<f64>,
    /// Seed that selects them (loss and fail-writes only) [default: 1]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Also drop requests for new TCP connections (blackhole only)
    #[arg(long)]
    pub drop_syn: bool,
    /// Error of the failed writes (fail-writes only) [default: read-only]
    #[arg(long, value_name = "ERROR", value_parser = ["read-only", "disk-full"])]
    pub error: Option<String>,
    /// Only the links with this name; * stands for any text, `fault show` lists the names [default: all]
    #[arg(long, value_name = "NAME")]
    pub link: Option<String>,
    /// Only this direction (latency, stall, loss and blackhole only) [default: both]
    #[arg(long, value_name = "DIRECTION", value_parser = ["to-server", "to-client"])]
    pub direction: Option<String>,
    /// Remove the fault after this time, e.g. 5s [default: it stays until `fault clear`]
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub lasting: Option<Duration>,
}

/// Show the traces of single requests to the running stack as waterfalls
#[derive(Args)]
#[command(
    after_help = "The stack keeps the slowest requests of the last minutes, the newest failed requests, and a sample of the others.

Examples:
  ./testbed trace                        the newest traces, one line each
  ./testbed trace --slowest              the slowest request as a waterfall
  ./testbed trace --errors --limit 3     the newest three failed requests
  ./testbed trace 4bf92f3577b34da6a3ce929d0e0e4736 --json | jq '.spans[].name'"
)]
pub struct TraceArgs {
    /// Show the trace with this id: 32 hexadecimal digits, as in lists and log lines
    #[arg(value_name = "ID", conflicts_with_all = ["slowest", "errors", "limit"])]
    pub id: Option<TraceId>,
    /// Show the slowest requests
    #[arg(long, conflicts_with = "errors")]
    pub slowest: bool,
    /// Show the newest failed requests
    #[arg(long)]
    pub errors: bool,
    /// Number of traces [default: 1 waterfall, or 20 lines]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub limit: Option<u16>,
    /// Print the spans as JSON
    #[arg(long)]
    pub json: bool,
}
