//! Starts an etcd with one member.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{ChildId, Spec, Stack, free_port, programs};

pub const PROGRAMS: &[&str] = &["etcd"];
const READY_DEADLINE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub struct Options {
    /// Name of the child.
    pub name: String,
    /// Ports for clients and for peers. None: free ones. A restart passes the former ports and finds its data.
    pub ports: Option<(u16, u16)>,
}

impl Default for Options {
    fn default() -> Self {
        Self { name: "etcd".into(), ports: None }
    }
}

#[derive(Debug, Clone)]
pub struct Etcd {
    pub child: ChildId,
    pub pid: u32,
    /// Ports for clients and for peers.
    pub ports: (u16, u16),
    /// `http://127.0.0.1:PORT`
    pub url: String,
    /// E.g. `etcd 3.4.23`.
    pub version: String,
}

/// Starts an etcd with one member and its data in the child's directory, and waits until it is its own leader.
///
/// # Errors
/// It is not installed, ends, or is not healthy within 30 s.
pub async fn start(stack: &mut Stack, options: &Options) -> anyhow::Result<Etcd> {
    let program = programs::require(PROGRAMS, "etcd-server")?;
    let version = parse_version(&programs::version_text(&program, "--version")?);
    let ports = options.ports.map_or_else(|| Ok::<_, anyhow::Error>((free_port()?, free_port()?)), Ok)?;
    let (client, peer) = (format!("http://127.0.0.1:{}", ports.0), format!("http://127.0.0.1:{}", ports.1));
    let data = stack.child_dir(&options.name)?.join("data");
    let spec = Spec::new(&options.name, program)
        .args(["--data-dir".into(), data.into_os_string()])
        .args(["--name", "one", "--initial-cluster", &format!("one={peer}")])
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        // Old revisions are not needed.
        .args(["--auto-compaction-mode", "revision", "--auto-compaction-retention", "1000"])
        .args(["--logger", "zap", "--log-level", "warn"]);
    let child = stack.spawn(spec)?;
    stack.wait_ready(child, READY_DEADLINE, || is_healthy(ports.0)).await?;
    let pid = stack.pid(child).unwrap_or_default();
    Ok(Etcd { child, pid, ports, url: client, version })
}

async fn is_healthy(port: u16) -> bool {
    let mut answer = String::new();
    let asked = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").await?;
        stream.read_to_string(&mut answer).await
    };
    asked.await.is_ok() && answer.contains("\"health\":\"true\"")
}

/// `etcd Version: 3.4.23`
fn parse_version(text: &str) -> String {
    let number = text.lines().find_map(|line| line.strip_prefix("etcd Version: "));
    format!("etcd {}", number.unwrap_or("of unknown version"))
}
