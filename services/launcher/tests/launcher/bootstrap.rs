//! The bootstrap script, with a fake cargo.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::PathBuf,
    process::{Command, Output},
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testbed");
/// The fake build: cargo's usual last line, and a binary that prints where and how it was called.
const BUILDS: &str = r#"
echo '    Finished `release` profile [optimized + debuginfo] target(s) in 0.1s' >&2
mkdir -p "$CARGO_TARGET_DIR/release"
printf '#!/bin/sh\necho "$PWD:$*"\n' >"$CARGO_TARGET_DIR/release/testbed"; chmod +x "$CARGO_TARGET_DIR/release/testbed""#;

/// A directory with the test's own programs, before or instead of the machine's.
struct Machine {
    dir: tempfile::TempDir,
    bin: PathBuf,
    path: String,
}

impl Machine {
    /// The machine's programs and the fake cargo; every other program that the script needs seems to be installed.
    fn complete(cargo: &str) -> Self {
        let machine = Self::bare(cargo);
        let exporters = ["node", "redis", "mysqld"].map(|server| format!("prometheus-{server}-exporter"));
        let servers = ["redis-server", "mariadbd", "nginx", "prometheus", "etcd", "java", "mvn"].map(str::to_owned);
        let tools = ["cc", "c++", "make", "protoc"].map(str::to_owned);
        for program in tools.iter().chain(&servers).chain(&exporters) {
            machine.add(program, "exit 1");
        }
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", machine.path);
        Self { path, ..machine }
    }

    /// Only the fake cargo and the tools that every system has.
    fn bare(cargo: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        let machine = Self { path: bin.display().to_string(), bin, dir };
        fs::create_dir(&machine.bin).unwrap();
        for tool in ["bash", "env", "dirname", "readlink", "cat", "mkdir", "rm"] {
            let real = launcher::find_program(&[tool]).unwrap();
            symlink(real, machine.bin.join(tool)).unwrap();
        }
        machine.add("cargo", cargo);
        machine
    }

    fn add(&self, name: &str, script: &str) {
        let file = self.bin.join(name);
        fs::write(&file, format!("#!/bin/bash\n{script}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(SCRIPT);
        command.args(args).env("PATH", &self.path).current_dir(self.dir.path());
        command.env("CARGO_TARGET_DIR", "target").env("TESTBED_HOME", self.dir.path().join("home"));
        command.output().unwrap()
    }
}

fn last_line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().to_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_binary_runs_where_the_user_is_and_a_build_with_nothing_to_do_is_silent() {
    let machine = Machine::complete(BUILDS);
    let output = machine.run(&["data", "quality", "file with blanks"]);
    let here = machine.dir.path().canonicalize().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(last_line(&output), format!("{}:data quality file with blanks", here.display()));
    assert_eq!(stderr(&output), "");

    machine.add("cargo", "echo 'error: no' >&2; exit 101");
    let output = machine.run(&["status"]);
    assert_eq!((output.status.code(), last_line(&output).as_str()), (Some(101), ""));
    assert_eq!(stderr(&output), "error: no\n");
}

#[test]
fn tests_are_counted_over_all_their_binaries() {
    let machine = Machine::complete(
        r#"echo "args: $*, full: ${TESTBED_FULL:-}"
        echo 'test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.03s'
        echo 'test result: ok. 40 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 1.03s'
        echo 'SKIP: some: reason' >>"$TESTBED_SKIP_FILE"; mkdir -p "$TESTBED_HOME/stacks/left""#,
    );
    let output = machine.run(&["test", "--full", "some_filter"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(last_line(&output), "42 passed, 0 failed, 2 skipped");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("args: test --workspace --locked --no-fail-fast some_filter, full: 1\n"), "{text}");
    assert!(text.contains("SKIP: some: reason\n"), "{text}");
    let left: Vec<_> = fs::read_dir(machine.dir.path().join("home")).unwrap().collect();
    assert!(left.is_empty(), "the run's own home is removed: {left:?}");
}

#[test]
fn a_failure_is_counted_even_if_cargo_counts_none() {
    let machine = Machine::complete("echo 'error: could not compile' >&2; exit 101");
    let output = machine.run(&["test"]);
    assert_eq!((output.status.code(), last_line(&output).as_str()), (Some(101), "0 passed, 1 failed, 0 skipped"));

    machine.add(
        "cargo",
        "echo 'test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s'; exit 101",
    );
    let output = machine.run(&["test"]);
    assert_eq!((output.status.code(), last_line(&output).as_str()), (Some(101), "1 passed, 2 failed, 0 skipped"));
}

#[test]
fn without_apt_it_says_what_to_install() {
    let machine = Machine::bare("exit 1");
    let output = machine.run(&["setup"]);
    assert_eq!(output.status.code(), Some(1));
    for package in ["gcc", "g++", "make", "redis-server", "default-jre-headless", "maven"] {
        assert!(stderr(&output).contains(&format!("  {package}\n")), "{}", stderr(&output));
    }
    // Java is only for commands that start Kafka.
    for (args, java) in [(["evaluate", "smoke"], false), (["experiment", "outage"], false), (["bench", "events"], true)]
    {
        let output = machine.run(&args);
        assert_eq!(stderr(&output).contains("  default-jre-headless\n"), java, "{args:?}: {}", stderr(&output));
    }

    // Help needs no server, but a build needs a compiler.
    machine.add("cc", "exit 1");
    machine.add("make", "exit 1");
    let output = machine.run(&["evaluate", "--help"]);
    assert!(!stderr(&output).contains("redis-server"), "{}", stderr(&output));

    fs::remove_file(machine.bin.join("cargo")).unwrap();
    let mut command = Command::new(SCRIPT);
    command.arg("setup").env("PATH", &machine.path).env("HOME", "/nonexistent").env_remove("CARGO_HOME");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cargo is not installed"), "{}", stderr(&output));
}
