//! Starts nginx as the gateway in front of the api replicas.

use std::{
    ffi::OsStr,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use tokio::net::TcpStream;

use crate::{ChildId, Signal, Spec, Stack, create_dir_all, programs};

pub const PROGRAMS: &[&str] = &["nginx"];
const NAME: &str = "nginx";
const READY_DEADLINE: Duration = Duration::from_secs(30);
const TEMPLATE: &str = include_str!("../../../deploy/nginx/recommendation.conf.template");
/// Included files, the same as compose's.
const INCLUDED: [(&str, &str); 4] = [
    ("connections.conf", include_str!("../../../deploy/nginx/gateway/connections.conf")),
    ("http.conf", include_str!("../../../deploy/nginx/gateway/http.conf")),
    ("upstream.conf", include_str!("../../../deploy/nginx/gateway/upstream.conf")),
    ("server.conf", include_str!("../../../deploy/nginx/gateway/server.conf")),
];
/// Included as well where replicas come and go.
const UPSTREAM_OF_SLOTS: &str = include_str!("../../../deploy/nginx/slots/upstream.conf");
const SERVER_OF_SLOTS: &str = include_str!("../../../deploy/nginx/slots/server.conf");
/// Files of a worker besides connections: log, listeners, channels, temporary files.
const SPARE_FILES: u64 = 512;

#[derive(Debug, Clone)]
pub struct Options {
    pub listen_port: u16,
    /// `address:port` or `unix:/path`; at least one.
    pub upstreams: Vec<String>,
    pub worker_processes: u32,
    /// Where `testbed serve access-log` listens (UDP); `None`: nginx sends no line of its access log.
    pub access_log: Option<SocketAddr>,
    /// `None`: the upstreams are always there.
    pub slots: Option<Slots>,
}

/// The upstreams are the Unix sockets of all replicas that there may be. Replicas come and go without a reload: see `runtime::slot`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slots {
    /// After a failed connect a socket is skipped for this long, in whole seconds. A new replica gets its first request up to a second later.
    pub skip: Duration,
    /// An idle connection to a replica is closed after this time. Shorter than the time that a replica is given to leave.
    pub idle: Duration,
}

impl Default for Slots {
    fn default() -> Self {
        Self { skip: Duration::from_secs(2), idle: Duration::from_secs(1) }
    }
}

#[derive(Debug, Clone)]
pub struct Nginx {
    pub child: ChildId,
    /// Pid of the master. The CPU time is its workers': see `cpu::process_tree_seconds`.
    pub pid: u32,
    pub port: u16,
    /// `http://127.0.0.1:PORT`
    pub url: String,
    /// One line per request: `$msec $status $request_time $upstream_response_time`, up to a second late.
    pub access_log: PathBuf,
    /// E.g. `nginx 1.22.1`.
    pub version: String,
}

/// Starts nginx with `deploy/nginx/recommendation.conf.template`, and waits until it accepts connections; the upstreams
/// need not run yet.
///
/// # Errors
/// It is not installed, refuses its configuration, ends, or does not listen within 30 s.
pub async fn start(stack: &mut Stack, options: &Options) -> anyhow::Result<Nginx> {
    ensure!(!options.upstreams.is_empty(), "nginx needs an upstream");
    let program = programs::require(PROGRAMS, "nginx")?;
    let version = parse_version(&programs::version_text(&program, "-v")?);
    let dir = stack.child_dir(NAME)?;
    create_dir_all(&dir.join("temp"))?;
    let config = write_config(&dir, options)?;
    let spec = Spec::new(NAME, program)
        .args([OsStr::new("-p"), dir.as_os_str(), OsStr::new("-e"), OsStr::new("stderr")])
        .args([OsStr::new("-c"), config.as_os_str()])
        // A master that is killed with SIGKILL would leave its workers behind.
        .death_signal(Signal::SIGTERM);
    let child = stack.spawn(spec)?;
    let port = options.listen_port;
    stack
        .wait_ready(child, READY_DEADLINE, || async move { TcpStream::connect(("127.0.0.1", port)).await.is_ok() })
        .await?;
    let pid = stack.pid(child).unwrap_or_default();
    let access_log = dir.join("access.log");
    Ok(Nginx { child, pid, port, url: format!("http://127.0.0.1:{port}"), access_log, version })
}

/// Writes the configuration below `dir` and returns its path.
fn write_config(dir: &Path, options: &Options) -> anyhow::Result<PathBuf> {
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        path.parent().map_or(Ok(()), create_dir_all)?;
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok::<_, anyhow::Error>(path)
    };
    for (name, text) in INCLUDED {
        write(&format!("gateway/{name}"), text)?;
    }
    let scratch = dir.to_str().context("the path of the testbed's home is not UTF-8")?;
    let (mut failures, mut upstream, mut server_of_slots) =
        ("max_fails=0".to_owned(), "gateway/upstream.conf", String::new());
    if let Some(Slots { skip, idle }) = options.slots {
        failures = format!("max_fails=1 fail_timeout={}s", skip.as_secs());
        upstream = "slots/upstream.conf";
        write(upstream, &fill(UPSTREAM_OF_SLOTS, &[("IDLE", &format!("{}ms", idle.as_millis()))])?)?;
        let server = write("slots/server.conf", SERVER_OF_SLOTS)?;
        server_of_slots = format!("include {};", server.display());
    }
    let open_files = crate::raise_nofile_limit()?.min(65_536);
    let servers: Vec<String> = options.upstreams.iter().map(|server| format!("server {server} {failures};")).collect();
    // By default the workers of a root master run as the user nobody, who cannot write to the scratch directory.
    let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
    let config = fill(
        TEMPLATE,
        &[
            ("USER_DIRECTIVE", user),
            ("WORKER_PROCESSES", &options.worker_processes.to_string()),
            ("OPEN_FILES", &open_files.to_string()),
            ("WORKER_CONNECTIONS", &open_files.saturating_sub(SPARE_FILES).max(256).to_string()),
            ("COUNTED_ACCESS_LOG", &options.access_log.map(counted).unwrap_or_default()),
            ("LISTEN", &format!("127.0.0.1:{}", options.listen_port)),
            ("UPSTREAM_SERVERS", &servers.join("\n        ")),
            ("UPSTREAM", upstream),
            ("SLOTS_SERVER", &server_of_slots),
            ("SCRATCH", scratch),
        ],
    )?;
    write("nginx.conf", &config)
}

impl Nginx {
    /// Lets nginx read its configuration again, with these options. Does not wait until it has done so.
    ///
    /// A reload closes idle connections of users, so requests may be lost: slots are without it.
    ///
    /// # Errors
    /// A file cannot be written, or nginx has ended.
    pub fn reload(&self, stack: &mut Stack, options: &Options) -> anyhow::Result<()> {
        write_config(&stack.child_dir(NAME)?, options)?;
        stack.kill(self.child, Signal::SIGHUP)
    }

    /// Renames an access log of more than `max_bytes` to `access.log.1` and lets nginx open a new one. An earlier `access.log.1` is replaced.
    /// Returns whether it did so.
    ///
    /// # Errors
    /// The file cannot be renamed, or nginx has ended.
    pub fn rotate_access_log(&self, stack: &mut Stack, max_bytes: u64) -> anyhow::Result<bool> {
        let log = &self.access_log;
        // After a failed rotation the file is missing until nginx opens it again.
        if std::fs::metadata(log).is_ok_and(|file| file.len() <= max_bytes) {
            return Ok(false);
        }
        if log.exists() {
            let earlier = log.with_extension("log.1");
            std::fs::rename(log, &earlier).with_context(|| format!("cannot rename {}", log.display()))?;
        }
        // nginx's signal for opening its log files again.
        stack.kill(self.child, Signal::SIGUSR1)?;
        Ok(true)
    }
}

/// The directive by which nginx sends a line per request to `testbed serve access-log`.
fn counted(server: SocketAddr) -> String {
    format!("access_log syslog:server={server},nohostname,tag=gateway counted;")
}

/// Replaces `${NAME}`; nginx's variables have no braces.
fn fill(template: &str, values: &[(&str, &str)]) -> anyhow::Result<String> {
    let config =
        values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("${{{name}}}"), value));
    if let Some(at) = config.find("${") {
        let name: String = config[at..].chars().take(40).take_while(|c| *c != '\n').collect();
        anyhow::bail!("nginx template: no value for {name}");
    }
    Ok(config)
}

/// `nginx version: nginx/1.22.1`
fn parse_version(text: &str) -> String {
    let number = text.split_ascii_whitespace().find_map(|word| word.strip_prefix("nginx/"));
    format!("nginx {}", number.unwrap_or("of unknown version"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_without_value_is_named() {
        let error = fill(TEMPLATE, &[("SCRATCH", "/x")]).unwrap_err().to_string();
        assert!(error.contains("no value for ${"), "{error}");
    }

    #[test]
    fn version_line() {
        assert_eq!(parse_version("nginx version: nginx/1.22.1\n"), "nginx 1.22.1");
    }
}
