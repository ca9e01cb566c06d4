//! The machine, the programs and the source of a measurement.

use std::{collections::BTreeMap, fs, process::Command, sync::LazyLock, time::Instant};

use rand::{SeedableRng, rngs::SmallRng, seq::SliceRandom};
use report::{Machine, Revision};

pub fn read() -> Machine {
    let field = |file: &str, key: &str| -> Option<String> {
        let text = fs::read_to_string(file).ok()?;
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once([':', '='])?.1.trim().trim_matches('"').to_owned())
    };
    let kilobytes = field("/proc/meminfo", "MemTotal").and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    Machine {
        cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into()),
        cores: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
        memory_gb: kilobytes.map_or(0.0, |kb| (kb / 1024.0 / 102.4).round() / 10.0),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
            .map_or_else(|_| "unknown".into(), |text| text.trim().to_owned()),
        os: field("/etc/os-release", "PRETTY_NAME").unwrap_or_else(|| "unknown".into()),
        memory_latency_ns: Some(memory_latency_ns().round()),
    }
}

/// Mean duration in ns of a dependent read in 8 MiB; needs about 0.1 s.
///
/// A dozen processes on a few cores depend on the last-level cache, and neighbours on the same host use it up unseen. On a virtual machine no
/// other figure explains why a request costs two or three times the CPU of the day before.
fn memory_latency_ns() -> f64 {
    const LINES: usize = (8 << 20) / 64;
    const READS: u32 = 500_000;
    let mut order: Vec<usize> = (0..LINES).collect();
    order.shuffle(&mut SmallRng::seed_from_u64(1));
    // One 64-byte line each, whose first word names the next: a single circle through all of them.
    let mut lines = vec![[0_usize; 8]; LINES];
    for (n, &line) in order.iter().enumerate() {
        lines[line][0] = order[(n + 1) % LINES];
    }
    let mut at = 0;
    let started = Instant::now();
    for _ in 0..READS {
        at = lines[at][0];
    }
    let duration = started.elapsed();
    // Without a use of its end the walk could be left out.
    std::hint::black_box(at);
    duration.as_secs_f64() * 1e9 / f64::from(READS)
}

/// The source that is being measured, as it was at the first call; outside a git clone the commit of the build, if it is known.
pub fn revision() -> Revision {
    static REVISION: LazyLock<Revision> = LazyLock::new(|| {
        let git = |args: &[&str]| {
            let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
            let output = Command::new("git").args(["-C", dir]).args(args).output().ok()?;
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let Some(head) = git(&["rev-parse", "HEAD"]) else { return built_from(env!("TESTBED_COMMIT")) };
        let dirty = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty());
        Revision { git: head, dirty }
    });
    REVISION.clone()
}

/// `HASH` or `HASH-dirty`.
fn built_from(commit: &str) -> Revision {
    let clean = commit.strip_suffix("-dirty");
    Revision { git: clean.unwrap_or(commit).to_owned(), dirty: clean.is_some() }
}

pub fn versions(service: &crate::stack::service::ServiceStack) -> BTreeMap<String, String> {
    let store = service.servers.first().map_or("none", |server| &server.version);
    let servers =
        [("redis", service.redis.version.as_str()), ("store", store), ("nginx", &service.nginx.version)].into_iter();
    let mut versions = own_versions();
    versions.extend(servers.map(|(name, version)| (name.to_owned(), version.to_owned())));
    versions
}

/// This program, and how it was built.
pub fn own_versions() -> BTreeMap<String, String> {
    [
        ("testbed", env!("CARGO_PKG_VERSION")),
        ("rustc", env!("TESTBED_RUSTC")),
        ("build", if cfg!(debug_assertions) { "debug" } else { "release" }),
    ]
    .into_iter()
    .map(|(name, version)| (name.to_owned(), version.to_owned()))
    .collect()
}
