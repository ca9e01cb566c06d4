//! `serve`: the processes of the stack.

use std::{net::SocketAddr, path::PathBuf};

use api::Profile;
use clap::{Args, Subcommand};

/// Be one of the processes of the stack
#[derive(Subcommand)]
#[command(after_help = "Examples:
  ./testbed serve api --profile protected --set redis.url=redis://127.0.0.1:6379
  ./testbed serve api --mysql db-0:3306,db-1:3306 --set redis.url=redis://cache:6379
  TESTBED_NODE__KEY=secret ./testbed serve monitor m0 --config monitor.toml
  TESTBED_NODE__KEY=secret ./testbed serve monitor m0 --set listen.plain=true   # believes GET /heartbeat?id=NODE
  ./testbed serve faultproxy --config faultproxy.toml
  ./testbed serve faultproxy --mysql db-0:3306 --listen 127.0.0.1:3306 --admin 127.0.0.1:9090 --scenario article
  ./testbed serve traces --listen 127.0.0.1:4317 --admin 127.0.0.1:9095
  ./testbed serve access-log --listen 127.0.0.1:5140 --admin 127.0.0.1:9096")]
pub enum ServeCommand {
    /// A replica of the recommendation API
    Api {
        /// Which guards are on by default
        #[arg(long, default_value = "protected", value_name = "baseline|protected")]
        profile: Profile,
        #[command(flatten)]
        settings: SettingsArgs,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// One of the monitors that hear heartbeats, vote on failures and assign partitions
    Monitor {
        /// Its name
        id: String,
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// One of the workers that share the partitions
    Worker {
        /// Its name
        id: String,
        #[command(flatten)]
        settings: SettingsArgs,
        #[command(flatten)]
        store: StoreArgs,
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
    /// Counts the gateway's answers by the access log that nginx sends it (syslog over UDP)
    AccessLog {
        /// For nginx: `access_log syslog:server=ADDRESS:PORT,nohostname,tag=gateway counted`
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: SocketAddr,
        /// Health and metrics
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
    /// Takes spans and reads none; for `bench telemetry`
    #[command(hide = true)]
    Sink {
        #[arg(long)]
        listen: SocketAddr,
    },
    /// As many requests as a process answers; for both of these benches
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

/// Of a process that has a configuration of its own.
#[derive(Args)]
pub struct SettingsArgs {
    /// TOML file; TESTBED_SECTION__KEY and --set override it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Change a setting (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
}

#[derive(Args)]
pub struct StoreArgs {
    /// Servers that the 16 shards are dealt to in turn, if the file does not say
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', default_value = "127.0.0.1:3306")]
    pub mysql: Vec<String>,
}
