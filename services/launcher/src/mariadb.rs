//! Starts MariaDB, or MySQL where that is installed.
//!
//! Initialising a data directory takes seconds, copying one much less. So there is a template per server version in `home()/templates`.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::Instant};

use crate::{ChildId, Cores, Signal, Spec, Stack, create_dir_all, free_port, programs, stack::flag};

pub const PROGRAMS: &[&str] = &["mariadbd", "mysqld"];
const READY_DEADLINE: Duration = Duration::from_secs(30);
/// An initialisation takes 1 to 8 s on an idle machine. Processes that wait for the lock wait for that one.
const INITIALISE_DEADLINE: Duration = Duration::from_secs(60);
const LOCK_DEADLINE: Duration = Duration::from_secs(90);
/// Part of the template's name. Increment it when the flags of the initialisation change.
const TEMPLATE_EDITION: u32 = 1;

#[derive(Debug, Clone)]
pub struct Options {
    pub max_connections: u32,
    pub buffer_pool_mb: u32,
    /// None: a free one. A restart on the same data passes the former port.
    pub port: Option<u16>,
    /// None: the installed one.
    pub server: Option<Server>,
    pub commits: CommitDurability,
    /// As `Spec::cores`. None: no quota.
    pub cores: Option<Cores>,
}

/// Durability of a commit (`innodb_flush_log_at_trx_commit`). Neither waits for the disk: a crash of the machine is out of scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitDurability {
    /// The log is written to the operating system: acknowledged commits survive when the server is killed.
    Written,
    /// The log is buffered: a killed server loses the commits of about the last second. For data that is only read.
    Buffered,
}

impl CommitDurability {
    /// The value of `innodb_flush_log_at_trx_commit`.
    pub fn flush_log(self) -> &'static str {
        match self {
            // 2 would be enough, as `innodb_flush_method` syncs nothing; 1 stays right if that changes.
            Self::Written => "1",
            Self::Buffered => "0",
        }
    }
}

impl Default for Options {
    /// Enough for tests.
    fn default() -> Self {
        Self {
            max_connections: 200,
            buffer_pool_mb: 16,
            port: None,
            server: None,
            commits: CommitDurability::Written,
            cores: None,
        }
    }
}

#[derive(Debug, Clone)]
pub struct MySql {
    pub child: ChildId,
    pub pid: u32,
    /// On 127.0.0.1; user root, no password.
    pub port: u16,
    pub socket: PathBuf,
    /// E.g. `MariaDB 10.11.19`.
    pub version: String,
}

/// A server program and its flavour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub program: PathBuf,
    /// Directory of an unpacked server; none: the system's directories.
    pub base: Option<PathBuf>,
    pub flavour: Flavour,
    /// E.g. `10.11.19`.
    pub version: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    MariaDb,
    MySql,
}

/// Starts a server called `name`, and waits until it greets. Its data does not survive a crash of the machine: it never waits for the disk.
/// `Options::commits` defines what survives a kill. Data that an earlier child with this name left in the stack is used again.
///
/// # Errors
/// It is not installed, its data directory cannot be prepared, it ends, or does not greet within 30 s.
pub async fn start(stack: &mut Stack, name: &str, options: &Options) -> anyhow::Result<MySql> {
    let server = options.server.clone().map_or_else(Server::find, Ok)?;
    let port = options.port.map_or_else(free_port, Ok)?;
    let dir = stack.child_dir(name)?;
    let data = dir.join("data");
    if !data.exists() {
        let template = template(stack, name, &server).await?;
        let target = data.clone();
        tokio::task::spawn_blocking(move || copy_dir(&template, &target))
            .await
            .context("copying the template was interrupted")??;
    }
    let socket = stack.socket_path(name);
    let spec = Spec::new(name, &server.program)
        .args(server.start_args(&data, &socket, port, options))
        // Scratch data: an orderly shutdown would only take time.
        .stop_signal(Signal::SIGKILL);
    let child = stack.spawn(Spec { cores: options.cores, ..spec })?;
    stack.wait_ready(child, READY_DEADLINE, || greets(port)).await?;
    let pid = stack.pid(child).unwrap_or_default();
    Ok(MySql { child, pid, port, socket, version: server.to_string() })
}

/// The first packet of a connection: length (3), number (1), then protocol version 10, or 255 for an error.
async fn greets(port: u16) -> bool {
    let mut head = [0; 5];
    match TcpStream::connect(("127.0.0.1", port)).await {
        Ok(mut stream) => stream.read_exact(&mut head).await.is_ok() && head[4] == 10,
        Err(_) => false,
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let flavour = match self.flavour {
            Flavour::MariaDb => "MariaDB",
            Flavour::MySql => "MySQL",
        };
        write!(f, "{flavour} {}", self.version)
    }
}

impl Server {
    /// # Errors
    /// Neither is installed, or the version cannot be read.
    pub fn find() -> anyhow::Result<Self> {
        Self::of(programs::require(PROGRAMS, "mariadb-server")?, None)
    }

    /// A server unpacked into its own directory: `bin/mysqld`, `share/`.
    ///
    /// # Errors
    /// It does not exist, or cannot run.
    pub fn below(base: &Path) -> anyhow::Result<Self> {
        Self::of(base.join("bin/mysqld"), Some(base.to_owned()))
    }

    fn of(program: PathBuf, base: Option<PathBuf>) -> anyhow::Result<Self> {
        let text = programs::version_text(&program, "--version")?;
        let (flavour, version) = parse_version(&text)
            .with_context(|| format!("cannot find the version of {} in {text:?}", program.display()))?;
        Ok(Self { program, base, flavour, version })
    }

    /// Flags of the server and of its initialisation.
    fn first_args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["--no-defaults".into()];
        args.extend(as_root());
        if let Some(base) = &self.base {
            args.extend([flag("--basedir", base), flag("--lc-messages-dir", base.join("share"))]);
        }
        args
    }

    fn start_args(&self, data: &Path, socket: &Path, port: u16, options: &Options) -> Vec<OsString> {
        let mut args = self.first_args();
        args.extend([
            flag("--datadir", data),
            flag("--socket", socket),
            flag("--pid-file", data.join("p.pid")),
            flag("--port", port.to_string()),
            flag("--bind-address", "127.0.0.1"),
            flag("--innodb-buffer-pool-size", format!("{}M", options.buffer_pool_mb)),
            flag("--innodb-flush-log-at-trx-commit", options.commits.flush_log()),
            flag("--performance-schema", "OFF"),
            flag("--character-set-server", "utf8mb4"),
            flag("--max-connections", options.max_connections.to_string()),
            // Per server, over all connections; the default of 16,382 is too few for eight replicas.
            flag("--max-prepared-stmt-count", "200000"),
            // All replicas open their pools at the same time.
            flag("--back-log", "1024"),
            // Faults break connections: the proxy's address must not be blocked.
            flag("--max-connect-errors", "4294967295"),
        ]);
        match self.flavour {
            Flavour::MariaDb => args.extend([
                "--skip-name-resolve".into(),
                flag("--innodb-flush-method", "nosync"),
                // Hundreds of connections share a few cores: a thread per connection would spend its time on context switches.
                flag("--thread-handling", "pool-of-threads"),
                // Every query has one sensible plan: statistics and index dives would only cost time.
                flag("--use-stat-tables", "never"),
                flag("--optimizer-use-condition-selectivity", "1"),
                flag("--eq-range-index-dive-limit", "1"),
                // Grows with the buffer pool, so that imports do not wait for checkpoints.
                flag("--innodb-log-file-size", format!("{}M", (options.buffer_pool_mb / 4).clamp(5, 256))),
            ]),
            // Name resolution stays on (loopback needs no DNS): the only account is root@localhost.
            Flavour::MySql => {
                args.extend([
                    flag("--secure-file-priv", "NULL"),
                    flag("--mysqlx", "OFF"),
                    "--skip-log-bin".into(),
                    // As above: no durability needed.
                    flag("--innodb-flush-method", "nosync"),
                    flag("--innodb-doublewrite", "OFF"),
                ]);
            }
        }
        args
    }

    fn initialise_spec(&self, name: String, data: &Path) -> anyhow::Result<Spec> {
        let mut args = self.first_args();
        args.push(flag("--datadir", data));
        Ok(match self.flavour {
            Flavour::MariaDb => {
                let install = programs::require(&["mariadb-install-db", "mysql_install_db"], "mariadb-server")?;
                Spec::new(name, install).args(args).args([
                    "--auth-root-authentication-method=normal",
                    "--skip-test-db",
                    // Otherwise it resolves this machine's name.
                    "--skip-name-resolve",
                    "--innodb-log-file-size=5M",
                    "--innodb-buffer-pool-size=16M",
                    "--innodb-flush-log-at-trx-commit=0",
                    "--innodb-flush-method=nosync",
                ])
            }
            Flavour::MySql => Spec::new(name, &self.program).args(args).args(["--initialize-insecure"]),
        })
    }
}

/// The servers refuse to run as root without this flag.
fn as_root() -> Option<OsString> {
    nix::unistd::geteuid().is_root().then(|| "--user=root".into())
}

/// An initialised data directory for this version, created if missing. One process at a time creates it.
async fn template(stack: &mut Stack, name: &str, server: &Server) -> anyhow::Result<PathBuf> {
    let templates = crate::home().join("templates");
    create_dir_all(&templates)?;
    let key = format!("{server} edition {TEMPLATE_EDITION}").to_ascii_lowercase().replace(' ', "-");
    let template = templates.join(&key);
    if template.exists() {
        return Ok(template);
    }
    let _lock = lock(&templates.join(format!("{key}.lock")), LOCK_DEADLINE).await?;
    if template.exists() {
        return Ok(template);
    }
    // Created inside the stack, and renamed when complete.
    let child = format!("{name}-initialise");
    let data = stack.child_dir(&child)?.join("data");
    stack.run(server.initialise_spec(child, &data)?, INITIALISE_DEADLINE).await?;
    // The server's UUID, which a copy must not share.
    let _ = fs::remove_file(data.join("auto.cnf"));
    fs::rename(&data, &template).with_context(|| format!("cannot move the template to {}", template.display()))?;
    Ok(template)
}

/// Waits for the lock without blocking a thread. The lock is released when the file is closed.
pub(crate) async fn lock(path: &Path, deadline: Duration) -> anyhow::Result<fs::File> {
    let file = fs::File::options().write(true).create(true).truncate(false).open(path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    let end = Instant::now() + deadline;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < end => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }
}

/// Copies plain files and directories. `to` is renamed into place when complete, so that an interrupted copy is never used.
fn copy_dir(from: &Path, to: &Path) -> anyhow::Result<()> {
    let draft = to.with_extension("draft");
    copy_tree(from, &draft).with_context(|| format!("cannot copy {} to {}", from.display(), draft.display()))?;
    fs::rename(&draft, to).with_context(|| format!("cannot move {} to {}", draft.display(), to.display()))
}

fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_tree(&source, &target)?;
        } else if kind.is_file() {
            fs::copy(&source, &target)?;
        }
    }
    Ok(())
}

/// `mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for …` or `mysqld  Ver 8.0.31 for …`
fn parse_version(text: &str) -> anyhow::Result<(Flavour, String)> {
    let Some(word) = text.split_ascii_whitespace().skip_while(|word| *word != "Ver").nth(1) else {
        bail!("no \"Ver\" in it")
    };
    let flavour = if text.contains("MariaDB") { Flavour::MariaDb } else { Flavour::MySql };
    let number: String = word.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    Ok((flavour, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_both() {
        let maria = "mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64 (Debian 12)";
        assert_eq!(parse_version(maria).unwrap(), (Flavour::MariaDb, "10.11.19".into()));
        let mysql = "/usr/sbin/mysqld  Ver 8.0.31 for Linux on x86_64 (MySQL Community Server - GPL)";
        assert_eq!(parse_version(mysql).unwrap(), (Flavour::MySql, "8.0.31".into()));
        assert!(parse_version("something else").is_err());
    }

    #[test]
    fn the_flavours_need_different_flags() {
        let args = |flavour| {
            let server = Server { program: "/x".into(), base: None, flavour, version: "1".into() };
            let args = server.start_args(Path::new("/d"), Path::new("/s"), 20_001, &Options::default());
            args.into_iter().map(|arg| arg.into_string().unwrap()).collect::<Vec<_>>()
        };
        let (maria, mysql) = (args(Flavour::MariaDb), args(Flavour::MySql));
        assert_eq!((&maria[0], &mysql[0]), (&"--no-defaults".to_owned(), &"--no-defaults".to_owned()));
        assert!(maria.contains(&"--skip-name-resolve".into()) && !mysql.contains(&"--skip-name-resolve".into()));
        assert!(
            mysql.contains(&"--secure-file-priv=NULL".into()) && !maria.contains(&"--secure-file-priv=NULL".into())
        );
        for written in [&maria, &mysql] {
            assert!(written.contains(&"--innodb-flush-log-at-trx-commit=1".into()), "what is acknowledged is kept");
        }
        assert!(maria.contains(&"--port=20001".into()) && mysql.contains(&"--bind-address=127.0.0.1".into()));
    }
}
