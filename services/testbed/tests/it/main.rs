//! The commands as a user runs them, with real servers, in a home of their own.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod alerts;
mod autoscale;
mod autoscaling;
mod bench;
mod containers;
mod counting;
mod dashboards;
mod deploy;
mod docs;
mod elsewhere;
mod evaluate;
mod experiment;
mod flood;
mod gateway;
mod heartbeats;
mod kubernetes;
mod modules;
mod plain_words;
mod plan;
mod queries;
mod resume;
mod same_lists;
mod scraping;
mod target;
mod up;
mod validity;
mod words;

use std::{
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

pub struct Home(TempDir);

impl Home {
    /// `None`: servers are missing, the test is skipped.
    pub fn new() -> Option<Self> {
        launcher::testing::have(&["redis-server", "mariadbd|mysqld", "nginx", "etcd"]).then(Self::bare)
    }

    /// As `new`, for stacks with Kafka.
    pub fn with_kafka() -> Option<Self> {
        let home = Self::new()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        match runtime.block_on(launcher::kafka::provide()) {
            Ok(_) => Some(home),
            Err(reason) => {
                launcher::testing::skip(&reason);
                None
            }
        }
    }

    /// For what needs no servers.
    pub fn bare() -> Self {
        let dir = TempDir::new().unwrap();
        // Preparing a MySQL data directory takes seconds: the templates of the real home serve every test.
        let templates = launcher::home().join("templates");
        std::fs::create_dir_all(&templates).unwrap();
        std::os::unix::fs::symlink(&templates, dir.path().join("templates")).unwrap();
        Self(dir)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_testbed"));
        command.args(args).env("TESTBED_HOME", self.path()).current_dir(self.path()).stdin(Stdio::null());
        // As in an image without certificates: no client of plain HTTP, in this process or one that it starts, may want any.
        let none = self.path().join("no-certificates");
        command.env("SSL_CERT_FILE", &none).env("SSL_CERT_DIR", none);
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Standard output of a command that must succeed.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// JSON of `load --json`, whose steps may be invalid on a busy machine: that is exit code 3 and no failure.
    pub fn loaded(&self, args: &[&str]) -> Value {
        let output = self.run(args);
        let code = output.status.code();
        assert!(matches!(code, Some(0 | 3)), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Standard error of a command that must fail.
    pub fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(!output.status.success(), "{args:?} should fail");
        String::from_utf8(output.stderr).unwrap()
    }

    pub fn start(&self, args: &[&str]) -> Child {
        let log = std::fs::File::create(self.path().join("started.log")).unwrap();
        self.command(args).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }

    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }

    /// Pids of all processes that a stack of this home has started.
    pub fn processes(&self) -> Vec<u64> {
        let stacks = self.json(&["status", "--json"])["stacks"].as_array().unwrap().clone();
        let of = |stack: &Value| {
            stack["processes"].as_array().unwrap().iter().map(|p| p["pid"].as_u64().unwrap()).collect::<Vec<_>>()
        };
        stacks.iter().flat_map(of).collect()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // Also when the test fails; nothing of it may outlive it.
        drop(self.command(&["down", "--all"]).output());
    }
}

pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 120 s: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub fn signal(child: &Child, signal: launcher::Signal) {
    assert!(launcher::ProcessIdentity::of(child.id()).unwrap().signal(signal));
}
