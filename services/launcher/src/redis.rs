//! Starts redis-server.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{ChildId, Signal, Spec, Stack, free_port, programs};

pub const PROGRAMS: &[&str] = &["redis-server"];
const READY_DEADLINE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub struct Options {
    /// Name of the child.
    pub name: String,
    /// None: a free one. A restart passes the former port.
    pub port: Option<u16>,
}

impl Default for Options {
    fn default() -> Self {
        Self { name: "redis".into(), port: None }
    }
}

#[derive(Debug, Clone)]
pub struct Redis {
    pub child: ChildId,
    pub pid: u32,
    pub port: u16,
    /// `redis://127.0.0.1:PORT/`
    pub url: String,
    /// `unix:///PATH`, the same server.
    pub socket_url: String,
    /// E.g. `Redis 7.0.15`.
    pub version: String,
}

/// Starts a Redis without persistence, and waits until it answers PING.
///
/// # Errors
/// It is not installed, ends, or does not answer within 30 s.
pub async fn start(stack: &mut Stack, options: &Options) -> anyhow::Result<Redis> {
    let program = programs::require(PROGRAMS, "redis-server")?;
    let version = parse_version(&programs::version_text(&program, "--version")?);
    let port = options.port.map_or_else(free_port, Ok)?;
    let dir = stack.child_dir(&options.name)?;
    let socket = stack.socket_path(&options.name);
    let spec = Spec::new(&options.name, program)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(["--dir".into(), dir.into_os_string()])
        .args(["--unixsocket".into(), socket.clone().into_os_string()])
        // Nothing to save.
        .stop_signal(Signal::SIGKILL);
    let child = stack.spawn(spec)?;
    stack.wait_ready(child, READY_DEADLINE, || ping(port)).await?;
    let pid = stack.pid(child).unwrap_or_default();
    let url = format!("redis://127.0.0.1:{port}/");
    let socket_url = format!("unix://{}", socket.display());
    Ok(Redis { child, pid, port, url, socket_url, version })
}

async fn ping(port: u16) -> bool {
    let mut answer = [0; 7];
    let asked = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"PING\r\n").await?;
        stream.read_exact(&mut answer).await
    };
    asked.await.is_ok() && &answer == b"+PONG\r\n"
}

/// `Redis server v=7.0.15 sha=…`
fn parse_version(text: &str) -> String {
    let number = text.split_ascii_whitespace().find_map(|word| word.strip_prefix("v="));
    format!("Redis {}", number.unwrap_or("of unknown version"))
}
