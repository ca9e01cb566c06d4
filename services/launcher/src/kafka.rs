//! Starts Apache Kafka: one process that is broker and controller (KRaft).
//!
//! Debian does not package Kafka. Maven copies the jars that `deploy/kafka/pom.xml` pins into the user's cache, once.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::OnceCell,
};

use crate::{ChildId, Signal, Spec, Stack, create_dir_all, free_port, mariadb::lock, maven, programs, stack::flag};

/// To run it. `mvn` is needed too as long as the jars are not in the cache.
pub const PROGRAMS: &[&str] = &["java"];
const POM: &str = include_str!("../../../deploy/kafka/pom.xml");
const LOG4J: &str = include_str!("../../../deploy/kafka/log4j2.properties");
const COPY: &str = "dependency:copy-dependencies";
/// Two to five seconds on an idle machine.
const READY_DEADLINE: Duration = Duration::from_secs(60);
const FORMAT_DEADLINE: Duration = Duration::from_secs(60);
/// Of every cluster: each is alone on its port.
const CLUSTER_ID: &str = "cmVjb21tZW5kYXRpb24tMA";
/// Small heap, one collector thread, and no optimising compiler, which would take the CPU time of short runs.
const JVM: [&str; 5] =
    ["-Xms128m", "-Xmx128m", "-XX:MaxDirectMemorySize=64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];

#[derive(Debug, Clone)]
pub struct Options {
    /// Name of the child. A restart with the same name finds its data.
    pub name: String,
    /// None: a free one. A restart passes the former port, which clients know.
    pub port: Option<u16>,
    /// Further broker settings; they replace settings of [`start`] with the same name.
    pub properties: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self { name: "kafka".into(), port: None, properties: Vec::new() }
    }
}

#[derive(Debug, Clone)]
pub struct Kafka {
    pub child: ChildId,
    pub pid: u32,
    pub port: u16,
    /// `127.0.0.1:PORT`
    pub bootstrap: String,
    /// E.g. `Kafka 4.4.0`.
    pub version: String,
}

/// Directory of Kafka's jars; fetched if they are not in the cache. A failure is cached for the life of this process, so that not every
/// test waits for a missing network.
///
/// # Errors
/// Java is not installed, or the jars are not in the cache and cannot be fetched.
pub async fn provide() -> Result<PathBuf, String> {
    static PROVIDED: OnceCell<Result<PathBuf, String>> = OnceCell::const_new();
    PROVIDED.get_or_init(async || find_or_fetch().await.map_err(|error| format!("{error:#}"))).await.clone()
}

async fn find_or_fetch() -> anyhow::Result<PathBuf> {
    programs::require(PROGRAMS, "default-jre-headless")?;
    let cache = maven::cache_dir();
    let name = format!("kafka-{}", pinned_version());
    let jars = cache.join(&name);
    if !jars.exists() {
        create_dir_all(&cache)?;
        let _lock = lock(&cache.join(format!("{name}.lock")), maven::FETCH_DEADLINE).await?;
        if !jars.exists() {
            fetch(&cache.join(format!("{name}.draft")), &jars).await?;
        }
    }
    Ok(jars)
}

/// `jars` is renamed into place when complete.
async fn fetch(draft: &Path, jars: &Path) -> anyhow::Result<()> {
    let mut copy = maven::command()?;
    if draft.exists() {
        fs::remove_dir_all(draft).with_context(|| format!("cannot remove {}", draft.display()))?;
    }
    create_dir_all(draft)?;
    write(&draft.join("pom.xml"), POM)?;
    let libs = draft.join("libs");
    copy.args([COPY, "-DincludeScope=runtime"]).arg(flag("-DoutputDirectory", &libs)).current_dir(draft);
    maven::run(copy, "Maven").await?;
    fs::rename(&libs, jars).with_context(|| format!("cannot move Kafka's jars to {}", jars.display()))?;
    fs::remove_dir_all(draft).with_context(|| format!("cannot remove {}", draft.display()))
}

/// Starts a broker without topics on 127.0.0.1, and waits until it serves. It answers the producer before a message is on the disk:
/// what it acknowledged survives a kill of the process, and no crash of the machine. Data that an earlier child with this name left in the
/// stack is used again.
///
/// # Errors
/// Java is not installed, the jars cannot be fetched, the broker ends, or does not serve within 60 s.
pub async fn start(stack: &mut Stack, options: &Options) -> anyhow::Result<Kafka> {
    let java = programs::require(PROGRAMS, "default-jre-headless")?;
    let jars = provide().await.map_err(|reason| anyhow::anyhow!("Kafka is not available: {reason}"))?;
    let port = options.port.map_or_else(free_port, Ok)?;
    let dir = stack.child_dir(&options.name)?;
    let (data, config) = (dir.join("data"), dir.join("server.properties"));
    // The controller's only client is this process, so its port may change.
    write(&config, &properties(port, free_port()?, &data, &options.properties))?;
    write(&dir.join("log4j2.properties"), LOG4J)?;
    let run = |name: String, class: &str, args: &[&OsStr]| {
        let log4j = flag("-Dlog4j2.configurationFile", dir.join("log4j2.properties"));
        Spec::new(name, &java).args(JVM).args([log4j, "-cp".into(), class_path(&jars), class.into()]).args(args)
    };
    if !data.join("meta.properties").exists() {
        let args = ["format", "-t", CLUSTER_ID, "-c"].map(OsStr::new);
        let format = run(
            format!("{}-format", options.name),
            "kafka.tools.StorageTool",
            &[args.as_slice(), &[config.as_os_str()]].concat(),
        );
        stack.run(format, FORMAT_DEADLINE).await?;
    }
    let spec = run(options.name.clone(), "kafka.Kafka", &[config.as_os_str()])
        // An orderly shutdown takes seconds, and the data is as good after a kill.
        .stop_signal(Signal::SIGKILL);
    let child = stack.spawn(spec)?;
    stack.wait_ready(child, READY_DEADLINE, || serves(port)).await?;
    let pid = stack.pid(child).unwrap_or_default();
    let version = format!("Kafka {}", pinned_version());
    Ok(Kafka { child, pid, port, bootstrap: format!("127.0.0.1:{port}"), version })
}

/// Java expands the asterisk itself.
fn class_path(jars: &Path) -> OsString {
    jars.join("*").into_os_string()
}

fn properties(port: u16, controller: u16, data: &Path, further: &[(String, String)]) -> String {
    let mut lines = vec![
        ("process.roles", "broker,controller".to_owned()),
        ("node.id", "1".into()),
        ("controller.quorum.voters", format!("1@127.0.0.1:{controller}")),
        ("listeners", format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}")),
        ("advertised.listeners", format!("PLAINTEXT://127.0.0.1:{port}")),
        ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".into()),
        ("controller.listener.names", "CONTROLLER".into()),
        ("log.dirs", data.display().to_string()),
        // A topic with the broker's default number of partitions would be a wrong one.
        ("auto.create.topics.enable", "false".into()),
        // One broker has no replicas.
        ("offsets.topic.replication.factor", "1".into()),
        ("transaction.state.log.replication.factor", "1".into()),
        ("transaction.state.log.min.isr", "1".into()),
        ("share.coordinator.state.topic.replication.factor", "1".into()),
        ("share.coordinator.state.topic.min.isr", "1".into()),
        // The defaults, 50 each, cost files and seconds.
        ("offsets.topic.num.partitions", "1".into()),
        ("transaction.state.log.num.partitions", "1".into()),
        ("share.coordinator.state.topic.num.partitions", "1".into()),
        ("group.initial.rebalance.delay.ms", "0".into()),
        // A restarted broker has to wait until the session of its killed predecessor has ended; the default is 9 s.
        ("broker.session.timeout.ms", "2000".into()),
        ("broker.heartbeat.interval.ms", "500".into()),
        // The default of 128 MB is more than the heap.
        ("log.cleaner.dedupe.buffer.size", "8388608".into()),
        ("num.network.threads", "2".into()),
        ("num.io.threads", "2".into()),
        ("background.threads", "2".into()),
    ];
    lines.retain(|(name, _)| !further.iter().any(|(other, _)| other == name));
    let further = further.iter().map(|(name, value)| (name.as_str(), value.clone()));
    lines.into_iter().chain(further).map(|(name, value)| format!("{name}={value}\n")).collect()
}

/// True: the broker's metadata contains itself, which the controller permits once it has read its log.
async fn serves(port: u16) -> bool {
    // Length, request Metadata (3) version 1, correlation 7, client "t", no topics.
    const REQUEST: [u8; 19] = [0, 0, 0, 15, 0, 3, 0, 1, 0, 0, 0, 7, 0, 1, b't', 0, 0, 0, 0];
    let asked = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(&REQUEST).await?;
        // Length, correlation, number of brokers.
        let mut head = [0; 12];
        stream.read_exact(&mut head).await?;
        std::io::Result::Ok(head)
    };
    asked.await.is_ok_and(|head| head[4..] == [0, 0, 0, 7, 0, 0, 0, 1])
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// Kafka's version in the pom.
fn pinned_version() -> &'static str {
    let after = POM.split_once("<artifactId>kafka_2.13</artifactId>").map_or("", |(_, rest)| rest);
    let version = after.split_once("<version>").and_then(|(_, rest)| rest.split_once("</version>"));
    version.map_or("of unknown version", |(version, _)| version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_pom() {
        assert!(pinned_version().starts_with("4."), "{}", pinned_version());
    }

    #[test]
    fn a_setting_of_the_caller_replaces_ours() {
        let further = [("num.io.threads".to_owned(), "5".to_owned()), ("x".into(), "y".into())];
        let text = properties(20_001, 20_002, Path::new("/d"), &further);
        let of = |name: &str| text.lines().filter_map(|line| line.strip_prefix(name)).collect::<Vec<_>>();
        assert_eq!((of("num.io.threads="), of("x="), of("log.dirs=")), (vec!["5"], vec!["y"], vec!["/d"]));
        assert_eq!(of("listeners="), ["PLAINTEXT://127.0.0.1:20001,CONTROLLER://127.0.0.1:20002"]);
    }
}
