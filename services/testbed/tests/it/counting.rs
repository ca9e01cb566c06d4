//! The check of the counts on a real stack: it passes, and it fails where a count is lost.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use launcher::Description;
use serde_json::Value;

use crate::{Home, wait_until};

/// The directory and description of the running stack with a child of this name.
fn stack_with(home: &Home, child: &str) -> Option<(PathBuf, Description)> {
    let dirs = std::fs::read_dir(home.path().join("stacks")).ok()?.flatten().map(|entry| entry.path());
    let described = dirs.filter_map(|dir| Description::read(&dir).ok().map(|stack| (dir, stack)));
    described.into_iter().find(|(_, stack)| stack.children.iter().any(|known| known.name == child))
}

/// No user has this id, so that no answer is ever in Redis, and each request needs the store.
const USER: &str = "nobody";

/// The answer to a request that goes to this Unix socket.
fn ask(socket: &Path) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    let request = format!("GET /recommendations?user_id={USER} HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The only step's check after `disturb` was called while the load generator ran.
fn loaded(home: &Home, out: &str, disturb: impl FnOnce(&Path, &Description)) -> Value {
    let mut load = home.start(&["load", "smoke", "--out", out]);
    wait_until("the load generator runs", || stack_with(home, "loadgen").is_some());
    let (dir, up) = stack_with(home, "api-0").unwrap();
    disturb(&dir, &up);
    // 3: a step is not valid on a busy machine.
    assert!(matches!(load.wait().unwrap().code(), Some(0 | 3)));
    home.json(&["report", out, "--json"])
}

fn check(report: &Value) -> &Value {
    report["verdicts"].as_array().unwrap().iter().find(|verdict| verdict["name"] == "Counts add up").unwrap()
}

#[test]
fn counts_add_up_until_one_is_lost() {
    let Some(home) = Home::new() else { return };
    home.ok(&["up", "--profile", "baseline", "--users", "300", "--scenario", "smoke", "--without", "events"]);

    // A request of another client is known by its name.
    let report = loaded(&home, "whole", |_, up| {
        let gateway = up.endpoints["gateway"].trim_start_matches("http://").to_owned();
        let mut stream = std::net::TcpStream::connect(&gateway).unwrap();
        let request =
            format!("GET /recommendations?user_id={USER} HTTP/1.1\r\nHost: {gateway}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    });
    let counts = &report["steps"][0]["counts"];
    assert_eq!(check(&report)["passed"], true, "{}\n{counts:#}", check(&report));
    let sent = counts["generator"]["requests"].as_u64().unwrap();
    assert!(sent >= report["steps"][0]["sources"]["store"].as_u64().unwrap(), "the warm-up counts too");
    assert_eq!((&counts["gateway"]["generator"], &counts["gateway"]["others"]), (&sent.into(), &1.into()));
    let answered = |name: &str| -> u64 {
        counts["replicas"].as_object().unwrap().values().map(|replica| replica[name].as_u64().unwrap()).sum()
    };
    assert_eq!((answered("ended"), answered("store"), answered("queries")), (sent + 1, sent + 1, sent + 1));
    assert_eq!(counts["proxied_commands"], sent + 1, "connections were open before");

    let past = loaded(&home, "past", |_, up| {
        assert!(ask(&up.sockets.join("api-0")).starts_with("HTTP/1.1 200"));
    });
    assert_eq!(check(&past)["passed"], false);
    let note = check(&past)["note"].as_str().unwrap();
    assert!(note.ends_with(": nginx = replicas: -1 unexplained"), "{note}");

    let lost = loaded(&home, "lost", |dir, _| {
        let log = dir.join("nginx/access.log");
        let length = || std::fs::metadata(&log).unwrap().len();
        let before = length();
        wait_until("nginx writes lines", || length() > before);
        std::fs::File::options().write(true).open(&log).unwrap().set_len(0).unwrap();
    });
    assert_eq!(check(&lost)["passed"], false);
    let note = check(&lost)["note"].as_str().unwrap();
    assert!(note.contains("load generator = nginx: +") && note.contains("nginx = replicas: -"), "{note}");
    home.ok(&["down"]);
}

/// The store answers 400 ms after each query, and the client gives a try up after 100 ms: every try is counted on its whole path, and its query
/// is work for nobody.
#[test]
fn tries_add_up_and_queries_without_a_client_are_zombies() {
    let Some(home) = Home::new() else { return };
    let smoke = include_str!("../../../../loadtest/scenarios/smoke.toml");
    let scenario = home.path().join("retries.toml");
    std::fs::write(&scenario, format!("{smoke}\n[retry]\nattempts = 3\nper_try_timeout_ms = 100\n")).unwrap();
    home.ok(&["up", "--profile", "baseline", "--users", "300", "--scenario", "smoke", "--without", "events"]);
    home.ok(&["fault", "add", "latency", "--delay", "400ms"]);
    let mut load = home.start(&["load", scenario.to_str().unwrap(), "--out", "retried"]);
    assert!(matches!(load.wait().unwrap().code(), Some(0 | 3)));
    let report = home.json(&["report", "retried", "--json"]);
    let step = &report["steps"][0];
    assert_eq!(check(&report)["passed"], true, "{}\n{:#}", check(&report), step["counts"]);
    let tries = &step["counts"]["generator"]["tries"];
    let [first, retries] = ["first", "retries"].map(|which| tries[which].as_u64().unwrap());
    assert_eq!(step["counts"]["generator"]["requests"], first + retries);
    assert_eq!(retries, 2 * first, "each request has three tries");
    // The counters are read at the edges of the measured part, where some queries have begun and not ended.
    let zombies = step["retries"]["zombie_share"].as_f64().unwrap();
    assert!(zombies > 0.8, "{zombies}");
    assert_eq!(step["good_per_s"], 0.0);
    home.ok(&["report", "check", "retried"]);
    home.ok(&["down"]);
}
