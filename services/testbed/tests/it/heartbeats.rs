//! Monitors and workers as `up` starts them, killed and stopped.

use std::{collections::BTreeSet, time::Duration};

use launcher::{ProcessIdentity, Signal};
use serde_json::Value;

use crate::{Home, wait_until};

impl Home {
    pub fn beats(&self) -> Value {
        self.json(&["status", "--json"])["heartbeats"].clone()
    }

    pub fn child(&self, name: &str) -> ProcessIdentity {
        let stacks = launcher_description(self);
        let child = stacks["children"].as_array().unwrap().iter().find(|child| child["name"] == name).unwrap().clone();
        ProcessIdentity {
            pid: child["pid"].as_u64().unwrap() as u32,
            start_ticks: child["start_ticks"].as_u64().unwrap(),
        }
    }
}

/// `stack.json` of this home's only stack.
fn launcher_description(home: &Home) -> Value {
    let dirs = std::fs::read_dir(home.path().join("stacks")).unwrap();
    let file = dirs.flatten().map(|dir| dir.path().join("stack.json")).find(|file| file.is_file()).unwrap();
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

pub fn online(beats: &Value) -> usize {
    beats["nodes"].as_array().map_or(0, |nodes| nodes.iter().filter(|node| node["online"] == true).count())
}

/// Number of a partition whose primary is this worker.
fn partition_of(beats: &Value, worker: &str) -> Option<usize> {
    beats["partitions"].as_array()?.iter().position(|partition| partition["primary"] == worker)
}

async fn count(client: &reqwest::Client, worker: &str, partition: usize, epoch: &str) -> (u16, Value) {
    let url = format!("{worker}/partitions/{partition}/count{epoch}");
    let answer = client.post(url).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// Repeats the request until it succeeds: a worker may learn of a change shortly after the monitors reported it.
async fn counted(client: &reqwest::Client, worker: &str, partition: usize) -> Value {
    let url = format!("{worker}/partitions/{partition}/count");
    let deadline = std::time::Instant::now() + Duration::from_secs(120);
    loop {
        match client.post(&url).timeout(Duration::from_secs(1)).send().await {
            Ok(answer) if answer.status() == 200 => return answer.json().await.unwrap(),
            last => assert!(std::time::Instant::now() < deadline, "nobody works on {partition}: {last:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

const UNKNOWN: &str = "?";

/// Service and name of a span, those of the spans above it first.
fn path<'a>(mut span: &'a Value, spans: &'a [Value]) -> String {
    let mut path = Vec::new();
    loop {
        path.push(format!("{} {}", span["service"].as_str().unwrap(), span["name"].as_str().unwrap()));
        match spans.iter().find(|above| above["id"] == span["parent"]) {
            Some(above) => span = above,
            None if span["parent"].is_null() => break,
            None => {
                path.push(UNKNOWN.to_owned());
                break;
            }
        }
    }
    path.reverse();
    path.join(" → ")
}

/// From the monitors' suspicions over the majority and the transaction to the fences that the new primaries put up.
fn failover_is_one_trace(home: &Home, lost: &str) -> bool {
    let traces = home.json(&["trace", "--errors", "--limit", "100", "--json"]);
    let is_of = |trace: &&Value| {
        let spans = trace["spans"].as_array().unwrap();
        spans.iter().any(|span| span["name"] == "failover" && span["attributes"]["testbed.node"] == lost)
    };
    let Some(trace) = traces.as_array().unwrap().iter().find(is_of) else { return false };
    let spans = trace["spans"].as_array().unwrap();
    let paths: Vec<String> = spans.iter().map(|span| path(span, spans)).collect();
    let count = |path: &str| paths.iter().filter(|known| *known == path).count();
    let instances = |name: &str| -> BTreeSet<&str> {
        spans.iter().filter(|span| span["name"] == name).map(|span| span["instance"].as_str().unwrap()).collect()
    };
    assert!(instances("takeover").iter().all(|worker| !worker.ends_with(lost)), "{trace:#}");
    let states = ["silence", "suspicious", "warning", "failed"];
    // Each process sends its own spans, at a time of its own.
    paths.iter().all(|path| !path.starts_with(UNKNOWN))
        && count("monitor failover → monitor switch") == 1
        && count("monitor failover → monitor majority") <= 1
        && count("monitor failover → monitor switch → worker takeover → worker UPDATE ownership") >= 5
        // A worker that came back a short time ago has fewest partitions, and may be the only heir.
        && (1..=2).contains(&instances("takeover").len())
        && instances("suspicion").len() == 3
        && states.iter().all(|state| count(&format!("monitor failover → monitor suspicion → monitor {state}")) >= 2)
}

#[test]
fn workers_that_are_killed_or_stopped_are_replaced_and_their_clients_sent_on() {
    let Some(home) = Home::new() else { return };
    home.ok(&["up", "--users", "50", "--scenario", "smoke", "--law", "none", "--beats", "tcp", "--without", "events"]);
    wait_until("three workers share the partitions", || {
        let beats = home.beats();
        online(&beats) == 3 && (0..3).all(|n| partition_of(&beats, &format!("worker-{n}")).is_some())
    });
    let endpoints = launcher_description(&home)["endpoints"].clone();
    let address = |name: &str| endpoints[name].as_str().unwrap().to_owned();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let http = |redirect| {
        let client = runtime::http::plain().redirect(redirect).timeout(Duration::from_secs(10));
        client.build().unwrap()
    };
    let (following, plain) = (http(reqwest::redirect::Policy::default()), http(reqwest::redirect::Policy::none()));

    // Each worker sends on what is another's.
    let before = home.beats();
    let partition = partition_of(&before, "worker-2").unwrap();
    let (status, problem) = runtime.block_on(count(&plain, &address("worker-0"), partition, ""));
    assert_eq!((status, problem["type"].as_str()), (307, Some("/problems/not-the-primary")), "{problem}");
    let done = runtime.block_on(counted(&following, &address("worker-0"), partition));
    assert_eq!((done["worker"].as_str(), done["counter"].as_u64()), (Some("worker-2"), Some(1)), "{done}");
    let (status, problem) = runtime.block_on(count(&following, &address("worker-2"), partition, "?epoch=0"));
    assert_eq!((status, problem["type"].as_str()), (409, Some("/problems/old-epoch")), "{problem}");

    // Stopped: it holds its connections, and does not know what is decided.
    let stopped = home.child("worker-2");
    assert!(stopped.signal(Signal::SIGSTOP));
    wait_until("the stopped worker is failed", || online(&home.beats()) == 2);
    let after = home.beats();
    assert!(after["epoch"].as_u64() > before["epoch"].as_u64() && partition_of(&after, "worker-2").is_none());
    let done = runtime.block_on(counted(&following, &address("worker-0"), partition));
    assert_eq!(done["counter"].as_u64(), Some(2), "nothing was lost: {done}");
    assert!(stopped.signal(Signal::SIGCONT));
    // It writes nothing in its old epoch, although its own table still names it the owner.
    let (status, answer) = runtime.block_on(count(&plain, &address("worker-2"), partition, ""));
    assert!(status == 307 || status == 409, "{status} {answer}");
    wait_until("it comes back in a new life", || online(&home.beats()) == 3);

    // Killed: started again by the stack, after a while.
    let partition = partition_of(&home.beats(), "worker-1").unwrap();
    assert!(home.child("worker-1").signal(Signal::SIGKILL));
    wait_until("the killed worker is failed", || partition_of(&home.beats(), "worker-1").is_none());
    let done = runtime.block_on(counted(&following, &address("worker-0"), partition));
    assert_ne!(done["worker"].as_str(), Some("worker-1"), "{done}");
    wait_until("the failover is one trace", || failover_is_one_trace(&home, "worker-1"));
    wait_until("it is started again and admitted", || online(&home.beats()) == 3);

    // One of three monitors: nothing changes.
    let epoch_before = home.beats()["epoch"].clone();
    let monitor = home.child("monitor-0");
    assert!(monitor.signal(Signal::SIGSTOP));
    wait_until("the others lead without it", || {
        let monitors = home.beats()["monitors"].clone();
        let others = ["monitor-1", "monitor-2"].map(|name| monitors[name].clone());
        others.iter().all(|m| m["present"] == 2) && others.iter().any(|m| m["leading"] == true)
    });
    assert_eq!((online(&home.beats()), &home.beats()["epoch"]), (3, &epoch_before));
    // It takes connections and answers nothing: the workers give it up, and try again when they are told to.
    wait_until("a sender waits for its next try", || {
        let text = home.ok(&["fault", "resume", "worker-0"]);
        assert!(text.contains("worker-0 to monitor-1: connected\n"), "{text}");
        text.contains("worker-0 to monitor-0: waiting, sends again now")
    });
    assert!(home.fails(&["fault", "resume", "worker-9"]).contains("worker-0, worker-1, worker-2"));
    assert!(monitor.signal(Signal::SIGCONT));
    wait_until("it hears all of them again", || {
        let nodes = home.beats()["nodes"].clone();
        nodes.as_array().unwrap().iter().all(|node| node["states"]["monitor-0"] == "healthy")
    });
    let admin = reqwest::Url::parse(&address("worker-0-admin")).unwrap().join("metrics").unwrap();
    let metrics = runtime.block_on(async { plain.get(admin).send().await.unwrap().text().await.unwrap() });
    let resumed = metrics
        .lines()
        .find(|line| line.starts_with("testbed_worker_senders_resumed_total{by=\"operator\",monitor=\"monitor-0\"}"));
    assert!(resumed.is_some_and(|line| !line.ends_with(" 0")), "{metrics}");

    let text = home.ok(&["status"]);
    assert!(text.contains("worker-0") && text.contains("online"), "{text}");
    home.ok(&["down"]);
    assert_eq!(home.processes(), [] as [u64; 0]);
}
