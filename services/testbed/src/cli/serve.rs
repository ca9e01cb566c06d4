//! `serve`: the processes of the stack.

use std::{net::SocketAddr, path::PathBuf};

use api::Profile;
use clap::{Args, Subcommand};

/// Run one process of the stack
#[derive(Subcommand)]
#[command(after_help = "Examples:
  ./testbed serve api --profile protected --set redis.url=redis://127.0.0.1:6379
  ./testbed serve api --mysql db-0:3306,db-1:3306 --set redis.url=redis://cache:6379
  TESTBED_NODE__KEY=secret ./testbed serve monitor m0 --config monitor.toml
  TESTBED_NODE__KEY=secret ./testbed serve monitor m0 --set listen.plain=true   # insecure: accepts GET /heartbeat?id=NODE
  ./testbed serve faultproxy --config faultproxy.toml
  ./testbed serve faultproxy --mysql db-0:3306 --listen 127.0.0.1:3306 --admin 127.0.0.1:9090 --scenario article
  ./testbed serve traces --listen 127.0.0.1:4317 --admin 127.0.0.1:9095
  ./testbed serve access-log --listen 127.0.0.1:5140 --admin 127.0.0.1:9096")]
pub enum ServeCommand {
    /// A replica of the recommendation API
    #[command(after_help = "Examples:
  ./testbed serve api --profile protected --mysql 127.0.0.1:3306 --set redis.url=redis://127.0.0.1:6379")]
    Api {
        /// Guards that are on by default: none (baseline) or all (protected)
        #[arg(long, default_value = "protected", value_name = "baseline|protected")]
        profile: Profile,
        #[command(flatten)]
        settings: SettingsArgs,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// A monitor: it receives heartbeats, votes on failures and assigns partitions
    #[command(after_help = "Examples:
  TESTBED_NODE__KEY=secret ./testbed serve monitor monitor-0 --config monitor.toml")]
    Monitor {
        /// Name of the monitor
        #[arg(value_name = "NAME")]
        id: String,
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// A worker: it owns a share of the 16 partitions
    #[command(after_help = "Examples:
  TESTBED_NODE__KEY=secret ./testbed serve worker worker-0 --config worker.toml")]
    Worker {
        /// Name of the worker
        #[arg(value_name = "NAME")]
        id: String,
        #[command(flatten)]
        settings: SettingsArgs,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// The proxy in front of the MySQL servers that adds response times and faults
    #[command(after_help = "Examples:
  ./testbed serve faultproxy --config faultproxy.toml
  ./testbed serve faultproxy --mysql db-0:3306 --listen 127.0.0.1:3306 --admin 127.0.0.1:9090 --scenario article")]
    Faultproxy {
        /// TOML file with listeners, admin address and law
        #[arg(long, value_name = "FILE", required_unless_present = "mysql")]
        config: Option<PathBuf>,
        /// Instead of a file: the MySQL servers behind the proxy
        #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', conflicts_with = "config", requires_all = ["listen", "admin"])]
        mysql: Vec<String>,
        /// Address for connections to the first server; the following ports are for the others
        #[arg(long, value_name = "ADDRESS:PORT", requires = "mysql")]
        listen: Option<SocketAddr>,
        /// Address of the admin API: health, metrics, law and faults
        #[arg(long, value_name = "ADDRESS:PORT", requires = "mysql")]
        admin: Option<SocketAddr>,
        /// Scenario that sets the initial law [default: no law]
        #[arg(long, value_name = "NAME|FILE", requires = "mysql")]
        scenario: Option<String>,
    },
    /// A receiver of traces (OTLP by gRPC, and by HTTP at /v1/traces) that keeps a bounded number of them in memory
    #[command(after_help = "Examples:
  ./testbed serve traces --listen 127.0.0.1:4317 --admin 127.0.0.1:9095")]
    Traces {
        /// Address for OTLP exporters
        #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:4317")]
        listen: SocketAddr,
        /// Address of the admin API: health, metrics, and the traces for `testbed trace`
        #[arg(long, value_name = "ADDRESS:PORT")]
        admin: SocketAddr,
    },
    /// Counts the gateway's answers from the access log that nginx sends (syslog over UDP)
    #[command(after_help = "Examples:
  ./testbed serve access-log --listen 127.0.0.1:5140 --admin 127.0.0.1:9096")]
    AccessLog {
        /// For nginx: `access_log syslog:server=ADDRESS:PORT,nohostname,tag=gateway counted`
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: SocketAddr,
        /// Health and metrics
        #[arg(long, value_name = "ADDRESS:PORT")]
        admin: SocketAddr,
    },
    /// A minimal axum + redis handler; for `bench hit` and `bench telemetry`
    #[command(hide = true)]
    Bare {
        /// Address to listen on
        #[arg(long)]
        listen: SocketAddr,
        /// Address of Redis
        #[arg(long)]
        redis: String,
        /// OTLP endpoint; with it, each request has three spans
        #[arg(long, value_name = "URL")]
        telemetry: Option<String>,
    },
    /// A receiver that discards spans; for `bench telemetry`
    #[command(hide = true)]
    Sink {
        /// Address to listen on
        #[arg(long)]
        listen: SocketAddr,
    },
    /// A client that sends as fast as the server responds; for `bench hit` and `bench telemetry`
    #[command(hide = true)]
    Hammer {
        /// JSON file with the plan
        plan: PathBuf,
    },
    /// A reader of the topic of events; for `bench events`
    #[command(hide = true)]
    TopicReader {
        /// JSON file with the plan
        plan: PathBuf,
    },
    /// Many heartbeat senders; for `experiment senders`
    #[command(hide = true)]
    Fleet {
        /// JSON file with the plan
        plan: PathBuf,
    },
    /// A member of a plain consumer group of Kafka; for `experiment failover`
    #[command(hide = true)]
    GroupConsumer {
        /// JSON file with the plan
        plan: PathBuf,
    },
    /// The load generator: one step of load
    #[command(hide = true)]
    Loadgen {
        /// JSON file with the plan
        plan: PathBuf,
    },
    /// The owner of the stack that `up` starts
    #[command(hide = true)]
    Supervisor {
        /// JSON file with the plan
        plan: PathBuf,
    },
}

/// Settings of a process.
#[derive(Args)]
pub struct SettingsArgs {
    /// TOML file with settings; environment variables TESTBED_SECTION__KEY and --set override it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Change a setting (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
}

#[derive(Args)]
pub struct StoreArgs {
    /// MySQL servers that share the 16 shards, if the file names none
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', default_value = "127.0.0.1:3306")]
    pub mysql: Vec<String>,
}
