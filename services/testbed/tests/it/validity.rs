//! Positive controls: what is measured on a machine or by a load generator at its limit is not valid, and no success.

use std::{path::PathBuf, time::Duration};

use launcher::{ProcessIdentity, Signal};
use serde_json::Value;

use crate::{Home, wait_until};

const BUSY: &str = r#"
name = "busy"
description = "For a calibration while other threads keep every core busy."
steps = [20]
interval_ms = 1000
timeout_ms = 20000
warm_up_s = 1
measure_s = 3
replicas = 1
profiles = ["baseline"]
flush_cache_before_step = true
[ids]
unknown_share = 0.0
known = "zipf"
exponent = 1.0
[law]
base_ms = 500.0
slope_ms = 0.0
spread = 0.0
[store]
pool_size = 20
order = "oldest"
checkout_timeout_ms = 19000
max_waiting = 100
[tolerances]
[[article.baseline]]
users = 20
error_pct = 0
qps = 20
"#;

/// Threads that use the processor until dropped, so that a step is above the limit of 90 % and hence not valid.
struct BusyCores(std::sync::Arc<std::sync::atomic::AtomicBool>, Vec<std::thread::JoinHandle<()>>);

impl BusyCores {
    fn new() -> Self {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let cores = std::thread::available_parallelism().unwrap().get();
        let spin = |_| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        };
        let threads = (0..cores).map(spin).collect();
        Self(stop, threads)
    }
}

impl Drop for BusyCores {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        self.1.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

/// The load generator's directory of logs and its process, once it runs.
fn generator(home: &Home) -> Option<(PathBuf, ProcessIdentity)> {
    std::fs::read_dir(home.path().join("stacks")).ok()?.flatten().find_map(|stack| {
        let text = std::fs::read_to_string(stack.path().join("stack.json")).ok()?;
        let description: Value = serde_json::from_str(&text).ok()?;
        let child = description["children"].as_array()?.iter().find(|child| child["name"] == "loadgen")?;
        let pid = u32::try_from(child["pid"].as_u64()?).ok()?;
        Some((stack.path().join("logs/loadgen.log"), ProcessIdentity::of(pid)?))
    })
}

/// Loads the running stack, and calls `disturb` with the load generator's process once it measures. The report of the step.
fn disturbed<T>(home: &Home, lasting: &str, disturb: impl FnOnce(ProcessIdentity) -> T) -> Value {
    let mut load = home.start(&["load", "--users", "20", "--for", lasting, "--out", "out"]);
    let measures = || {
        let (log, process) = generator(home)?;
        std::fs::read_to_string(log).ok()?.contains("\"measure\"").then_some(process)
    };
    wait_until("the load generator measures", || measures().is_some());
    let kept = disturb(measures().unwrap());
    let status = load.wait().unwrap();
    drop(kept);
    let log = std::fs::read_to_string(home.path().join("started.log")).unwrap();
    assert_eq!(status.code(), Some(3), "{log}");
    assert!(log.contains("undecided: 0 of 1 steps are valid"), "{log}");
    let report: Value = serde_json::from_slice(&std::fs::read(home.path().join("out/report.json")).unwrap()).unwrap();
    let step = report["steps"][0].clone();
    assert_eq!(step["valid"], false, "{step}");
    step
}

#[test]
fn a_step_on_busy_cores_and_one_of_a_stopped_generator_are_no_success() {
    let Some(home) = Home::new() else { return };
    home.ok(&["up", "--users", "300", "--scenario", "smoke", "--without", "events"]);
    let text = |value: &Value| value.to_string();

    // Long enough for 90 % of the whole although the first second is over when the cores become busy.
    let step = disturbed(&home, "20s", |_| BusyCores::new());
    assert!(text(&step["invalid_reasons"]).contains("% CPU is above 90 %"), "{step}");
    let seconds = step["series"].as_array().unwrap();
    assert!(seconds.iter().any(|second| second["cpu_pct"].as_f64().is_some_and(|pct| pct > 90.0)), "{step}");
    let given = &step["scheduling"];
    for kind in ["load", "api", "nginx", "mysql", "redis", "faultproxy"] {
        assert!(given["run_queue_ms_per_s"][kind].is_number(), "{kind}: {given}");
    }
    assert!(given["policy"]["load"].as_str().unwrap().starts_with("SCHED_BATCH, nice "), "{given}");
    assert!(given["nice_granted"].is_boolean() && given["generator_wait_ms"].is_number(), "{given}");

    // It stands still for longer than an interval of its users: a part of the load is late.
    let step = disturbed(&home, "6s", |generator| {
        assert!(generator.signal(Signal::SIGSTOP));
        std::thread::sleep(Duration::from_millis(1500));
        assert!(generator.signal(Signal::SIGCONT));
    });
    assert!(text(&step["invalid_reasons"]).contains("send lag p99"), "{step}");
    let late = |second: &Value| second["late"].as_u64() > Some(0) && second["send_lag_max_ms"].as_f64() > Some(10.0);
    let seconds = step["series"].as_array().unwrap();
    assert!(seconds.iter().any(late), "{step}");
}

#[test]
fn a_calibration_that_is_not_valid_stops_the_run() {
    let Some(home) = Home::new() else { return };
    std::fs::write(home.path().join("busy.toml"), BUSY).unwrap();
    let args = ["evaluate", "--scenario", "busy.toml", "--users", "200", "--attempts", "1", "--out", "out"];
    let mut child = home.start(&args);
    let log = || std::fs::read_to_string(home.path().join("started.log")).unwrap();
    // Only the calibration is to be disturbed: processes that start need the cores.
    wait_until("the calibration begins", || log().contains("calibrating") && generator(&home).is_some());
    let busy = BusyCores::new();
    let status = child.wait().unwrap();
    drop(busy);
    assert_eq!(status.code(), Some(1), "{}", log());
    assert!(
        log().contains("the calibration was not valid in 1 attempts") && log().contains("stop other work"),
        "{}",
        log()
    );
    assert!(!home.path().join("out/report.json").exists());
}
