//! `up`, `down`, `status`, `doctor`, `fault`, `trace`: the stack by hand.

use std::{path::PathBuf, time::Duration};

use api::Profile;
use clap::{Args, Subcommand};
use tracestore::TraceId;
use worker::config::Transport;

use super::{LawChoice, beats, duration, monitors};

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
    /// "none": no modelled response time, the store as fast as it is; "modelled": the scenario's law, which is what it does by itself
    #[arg(long, value_name = "none|modelled")]
    pub law: Option<LawChoice>,
    /// Change a setting of the replicas (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// MySQL servers to spread the 16 shards over; each replica shares the scenario's store.pool_size out among them, but one given by
    /// --set is to each server
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16))]
    pub instances: u16,
    /// Workers that share the 16 partitions and fail over; 0: neither workers nor monitors nor etcd
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=16))]
    pub workers: u8,
    /// Monitors that watch them
    #[arg(long, default_value = "3", value_name = "1|3", value_parser = monitors)]
    pub monitors: u8,
    /// How their heartbeats travel
    #[arg(long, default_value = "udp", value_name = "udp|tcp", value_parser = beats)]
    pub beats: Transport,
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

/// Break the store of the running stack, through its faultproxy
#[derive(Subcommand)]
#[command(after_help = "Examples:
  ./testbed fault law --base-ms 74 --slope-ms 0.2 --spread 0.3
  ./testbed fault law none
  ./testbed fault add stall --for 5s
  ./testbed fault add latency --ms 100 --for 30s
  ./testbed fault add loss --pct 20 --for 30s
  ./testbed fault add blackhole --for 30s
  ./testbed fault clear
  ./testbed fault resume")]
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
    /// Add a fault: latency, stall, reset, refuse, loss, blackhole
    #[command(
        after_help = "loss: datagrams are lost; commands and other TCP are late by what retransmission would take.
blackhole: the store's host has vanished. What is sent is lost without an error; connections open during it stay silent afterwards.
With --drop-syn, TCP connections are not accepted either; Unix sockets, which `up` uses, still are.

Examples:
  ./testbed fault add stall --for 5s
  ./testbed fault add loss --pct 20 --seed 7
  ./testbed fault add blackhole --drop-syn --for 30s"
    )]
    Add {
        #[arg(value_parser = ["latency", "stall", "reset", "refuse", "loss", "blackhole"])]
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
        /// Do not accept new connections either (blackhole only)
        #[arg(long)]
        drop_syn: bool,
        /// It lifts itself after this long, e.g. 5s; without it, it stays until `fault clear`
        #[arg(long = "for", value_name = "TIME", value_parser = duration)]
        lasting: Option<Duration>,
    },
    /// Lift all faults (the law stays)
    Clear,
    /// Start heartbeats over TCP again at once that wait, are silent, or have stopped with an alarm
    #[command(after_help = "A monitor's contact does the same. Over UDP (up's default) no sender ever gives up.

Examples:
  ./testbed fault resume
  ./testbed fault resume worker-0 worker-2")]
    Resume {
        /// Whose [default: every worker's]
        #[arg(value_name = "WORKER")]
        workers: Vec<String>,
    },
}

/// Show where the time of single requests went: waterfalls of the running stack's traces
#[derive(Args)]
#[command(
    after_help = "Kept are the slowest requests of the last minutes, the newest that failed, and a sample of the others.

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
    /// The slowest requests
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
