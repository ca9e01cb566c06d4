//! Compiler version and commit of the build, for reports and `--version`.

use std::{env, fs, path::Path, process::Command};

const ROOT: &str = "../..";

fn main() {
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let version = output(Command::new(rustc).arg("--version")).unwrap_or_default();
    println!("cargo::rustc-env=TESTBED_RUSTC={version}");

    // A build without `.git`, such as Docker's, gets the commit from its environment: `HASH` or `HASH-dirty`.
    let given = env::var("TESTBED_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = given.or_else(|| {
        let describe = ["-C", ROOT, "describe", "--always", "--exclude=*", "--abbrev=40", "--dirty"];
        output(Command::new("git").args(describe))
    });
    let commit = commit.unwrap_or_default();
    let (hash, dirty) = commit.strip_suffix("-dirty").map_or((commit.as_str(), ""), |hash| (hash, "-dirty"));
    let short = hash.get(..12).unwrap_or(hash);
    let suffix = if short.is_empty() { String::new() } else { format!(" ({short}{dirty})") };
    println!("cargo::rustc-env=TESTBED_COMMIT={commit}");
    println!("cargo::rustc-env=TESTBED_COMMIT_SUFFIX={suffix}");
    println!("cargo::rerun-if-env-changed=TESTBED_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    // Not on each commit: a commit that leaves the sources as they are needs no new binary.
    sources();
}

/// Everything that is compiled into the binary.
fn sources() {
    let services = fs::read_dir("..").into_iter().flatten().flatten().map(|service| service.path().join("src"));
    let others = ["Cargo.lock", "loadtest/src", "migrations"].map(|path| Path::new(ROOT).join(path));
    for path in services.chain(others).filter(|path| path.exists()) {
        println!("cargo::rerun-if-changed={}", path.display());
    }
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
