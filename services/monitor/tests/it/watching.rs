use heartbeat::{
    node_state::State,
    registry::{Registered, Registration},
    transport::http::Received,
};
use launcher::{Signal, testing};
use monitor::status::Status;

use crate::support::{Monitors, Worker, eventually, primaries};

fn online(status: &Status) -> usize {
    status.nodes.iter().filter(|node| node.online).count()
}

fn state(status: &Status, id: &str) -> Option<State> {
    status.nodes.iter().find(|node| &*node.id == id).map(|node| node.state)
}

/// Three workers, admitted, that own all partitions.
async fn settled(monitors: &Monitors) -> (Vec<Worker>, u64) {
    let mut workers = Vec::new();
    for id in ["a", "b", "c"] {
        workers.push(monitors.worker(id).await);
    }
    let settled = |status: &Status| {
        let spread = primaries(status);
        online(status) == 3 && spread.len() == 3 && spread.values().all(|count| (5..=6).contains(count))
    };
    let mut epoch = 0;
    for n in 0..monitors.configs.len() {
        epoch = monitors.until(n, "all workers are admitted", settled).await.table.epoch;
    }
    (workers, epoch)
}

#[tokio::test]
async fn a_death_is_confirmed_and_its_partitions_go_to_their_replicas() {
    if !testing::have(&["etcd"]) {
        return;
    }
    let monitors = Monitors::start("test-death", 3).await;
    let (mut workers, epoch) = settled(&monitors).await;
    let before = monitors.status(1).await.unwrap();
    let poll = monitors.url(1, &format!("/partitions?epoch={epoch}&wait_ms=30000"));
    let poll = tokio::spawn(monitors.http.get(poll).timeout(std::time::Duration::from_secs(40)).send());
    drop(workers.pop());
    let after = monitors.until(1, "c is off-line", |status| online(status) == 2).await;
    assert_eq!(primaries(&after).values().sum::<usize>(), 16);
    for (old, new) in before.table.partitions.iter().zip(&after.table.partitions) {
        if old.primary.as_deref() == Some("c") {
            assert!(old.replicas.contains(new.primary.as_ref().unwrap()) && new.epoch == after.table.epoch);
        }
    }
    let told: heartbeat::assign::Table = poll.await.unwrap().unwrap().json().await.unwrap();
    assert!(told.epoch > epoch, "a poll that waits is answered with the change");
    monitors.until(1, "the way to c counts as cut", |status| state(status, "c") == Some(State::Partitioned)).await;
    for line in [
        "testbed_heartbeat_failures_confirmed_total 1",
        "testbed_heartbeat_transitions_total{cause=\"unanswered\",from=\"warning\",to=\"failed\"} 1",
        "testbed_heartbeat_node_state{node=\"c\",state=\"partitioned\"} 1",
        "testbed_heartbeat_monitors_present 3",
    ] {
        eventually(line, async || monitors.metrics(1).await.contains(line)).await;
    }

    // A later incarnation returns.
    let _c = Worker::start(&monitors, "c", heartbeat::clock::wall_ms()).await;
    monitors.until(2, "c is back", |status| online(status) == 3).await;
    monitors.stop().await;
}

#[tokio::test]
async fn who_answers_probes_is_not_failed_for_the_silence_of_its_beats() {
    if !testing::have(&["etcd"]) {
        return;
    }
    let monitors = Monitors::start("test-probes", 3).await;
    let (mut workers, epoch) = settled(&monitors).await;
    workers[0].beats.abort_all();
    let refuted = "testbed_heartbeat_transitions_total{cause=\"answer\",from=\"suspicious\",to=\"healthy\"} ";
    let refutations = |metrics: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(refuted));
        line.and_then(|count| count.parse::<u32>().ok()).unwrap_or(0)
    };
    eventually("suspicions are refuted again and again", async || refutations(&monitors.metrics(0).await) >= 3).await;
    let status = monitors.status(0).await.unwrap();
    assert_eq!((online(&status), status.table.epoch), (3, epoch));
    monitors.stop().await;
}

#[tokio::test]
async fn without_a_majority_nothing_is_switched_until_there_is_one() {
    if !testing::have(&["etcd"]) {
        return;
    }
    let mut monitors = Monitors::start("test-majority", 3).await;
    let (mut workers, epoch) = settled(&monitors).await;
    monitors.end(0).await;
    let status = monitors.until(2, "one of three is gone", |status| status.present == 2).await;
    assert_eq!((online(&status), status.table.epoch), (3, epoch), "nothing has changed");
    monitors.end(1).await;
    monitors.until(2, "the last one does not lead alone", |status| !status.leading && status.present == 1).await;
    drop(workers.pop());
    let failed = |status: &Status| state(status, "c").is_some_and(State::is_failed);
    monitors.until(2, "the last monitor has failed c", failed).await;
    let unanswered = "testbed_heartbeat_probes_total{outcome=\"unanswered\",path=\"udp\"} ";
    let rounds = |metrics: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(unanswered));
        line.and_then(|count| count.parse::<u32>().ok()).unwrap_or(0)
    };
    let so_far = rounds(&monitors.metrics(2).await);
    eventually("it goes on probing", async || rounds(&monitors.metrics(2).await) >= so_far + 2).await;
    let status = monitors.status(2).await.unwrap();
    assert_eq!((online(&status), status.table.epoch), (3, epoch), "one vote of three decides nothing");

    // Restarted without state: it reads nodes and table from the registry.
    monitors.run(1);
    let status = monitors.until(1, "two of three confirm it", |status| online(status) == 2).await;
    assert!(status.table.epoch > epoch && status.nodes.len() == 3);
    monitors.stop().await;
}

#[tokio::test]
async fn while_etcd_stands_still_nothing_fails_and_nothing_is_lost() {
    if !testing::have(&["etcd"]) {
        return;
    }
    let mut monitors = Monitors::start("test-etcd", 3).await;
    let (mut workers, epoch) = settled(&monitors).await;
    monitors.stack.kill(monitors.etcd.child, Signal::SIGSTOP).unwrap();
    for n in 0..3 {
        monitors.until(n, "etcd is away", |status| !status.registry_up && !status.leading).await;
    }
    drop(workers.pop());
    for n in 0..3 {
        monitors.until(n, "c is failed", |status| state(status, "c").is_some_and(State::is_failed)).await;
        let status = monitors.status(n).await.unwrap();
        assert_eq!((online(&status), status.table.epoch), (3, epoch), "nothing can be switched");
        let others = ["a", "b"].map(|id| state(&status, id).unwrap());
        assert!(!others.iter().any(|state| state.is_failed()), "{others:?}");
    }
    monitors.stack.kill(monitors.etcd.child, Signal::SIGCONT).unwrap();
    monitors.until(0, "c is off-line", |status| online(status) == 2).await;
    monitors.stop().await;
}

#[tokio::test]
async fn beats_and_registrations_of_every_kind_are_taken_or_told_what_is_wrong() {
    if !testing::have(&["etcd"]) {
        return;
    }
    let mut monitors = Monitors::start("test-alone", 1).await;
    let worker = monitors.worker("a").await;
    monitors.until(0, "a monitor alone decides", |status| online(status) == 1).await;
    assert_eq!(worker.register(&monitors, 0).await, Some(Registered::Registered), "it is registered already");
    let incarnation = worker.registration.incarnation;
    let clone = Registration { process: worker.registration.process + 1, ..worker.registration.clone() };
    let answer = monitors.sealed(0, &clone).send().await.unwrap().json::<Registered>().await.unwrap();
    assert_eq!(answer, Registered::Superseded { incarnation }, "another process with this name and incarnation");
    let plain = |monitors: &Monitors, body: String| {
        let request = monitors.http.post(monitors.url(0, "/register")).header("content-type", "application/json");
        request.body(body).send()
    };
    // Without a MAC nothing is accepted, unless the configuration allows it.
    let leaving = format!(
        r#"{{"id": "a", "incarnation": {}, "http": "x:1", "udp": "x:1", "leaving": true}}"#,
        worker.registration.incarnation
    );
    assert_eq!(plain(&monitors, leaving.clone()).await.unwrap().status(), 401);
    assert_eq!(monitors.http.get(monitors.url(0, "/heartbeat?id=a")).send().await.unwrap().status(), 401);
    monitors.end(0).await;
    monitors.configs[0].listen.plain = true;
    monitors.run(0);
    monitors.until(0, "it is back", |status| online(status) == 1).await;
    assert_eq!(plain(&monitors, leaving).await.unwrap().status(), 401, "a stranger sends nobody away");
    let endless = Registration { incarnation: u64::MAX, ..worker.registration.clone() };
    let answer = monitors.sealed(0, &endless).send().await.unwrap();
    assert_eq!(answer.status(), 400);
    assert!(answer.text().await.unwrap().contains("more than a day ahead"));

    let received = |outcome: &str| Received { outcome: outcome.into() };
    let get = async |path: &str| monitors.http.get(monitors.url(0, path)).send().await.unwrap();
    // Heartbeats without an incarnation do not keep a worker with incarnations alive.
    eventually("the life of a is known", async || {
        get("/heartbeat?id=a").await.json::<Received>().await.unwrap() == received("stale_incarnation")
    })
    .await;
    assert_eq!(get("/heartbeat?id=stranger").await.json::<Received>().await.unwrap(), received("received"));
    assert_eq!(get("/heartbeat").await.status(), 400);
    let post = async |path: &str, body: &str| {
        let request = monitors.http.post(monitors.url(0, path)).header("content-type", "application/json");
        request.body(body.to_owned()).send().await.unwrap().status().as_u16()
    };
    assert_eq!(post("/heartbeat", r#"{"timestamp": 1, "node_id": "a"}"#).await, 200);
    assert_eq!(post("/register", r#"{"id": "b", "incarnation": 0, "http": "x:1", "udp": "x:1"}"#).await, 400);
    assert_eq!(post("/register", r#"{"id": "b", "incarnation": 1, "http": "x", "udp": "x:1"}"#).await, 400);
    assert_eq!(post("/register", r#"{"id": "", "incarnation": 1, "http": "x:1", "udp": "x:1"}"#).await, 400);
    // The article's node: registered once, then only its id.
    assert_eq!(
        post("/register", r#"{"id": "b", "incarnation": 1, "http": "127.0.0.1:1", "udp": "127.0.0.1:1"}"#).await,
        200
    );
    eventually("b is online", async || {
        get("/heartbeat?id=b").await;
        monitors.status(0).await.is_some_and(|status| online(&status) == 2)
    })
    .await;
    let ballot = r#"{"from": "stranger", "round": 1, "seen": {}, "failed": {"a": 99999999999999}, "fit": {}}"#;
    assert_eq!(post("/ballot", ballot).await, 401, "a caller without the key has no vote");
    assert_eq!(post("/register", "{}").await, 400);
    let endless = r#"{"id": "b", "incarnation": 18446744073709551615, "http": "x:1", "udp": "x:1"}"#;
    assert_eq!(post("/register", endless).await, 400);
    assert_eq!(get("/heartbeat?id=b&incarnation=18446744073709551615").await.status(), 400);
    let refused = "testbed_heartbeat_words_refused_total{reason=\"frame\",word=\"ballot\"} 1";
    assert!(monitors.metrics(0).await.contains(refused));
    let status = monitors.status(0).await.unwrap();
    assert_eq!((status.nodes.len(), state(&status, "stranger")), (2, None));

    // A ballot on 10,000 nodes may be this large; a registration may not.
    let long = " ".repeat(1_000_000);
    assert_eq!((post("/ballot", &long).await, post("/register", &long).await), (401, 413));
    monitors.end(0).await;
    monitors.configs[0].node.max_nodes = 2;
    monitors.run(0);
    monitors.until(0, "it is back again", |status| status.nodes.len() == 2).await;
    let third = Registration { id: "c".into(), ..worker.registration.clone() };
    let answer = monitors.sealed(0, &third).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.text().await.unwrap().contains("node.max_nodes"));
    let later = Registration { incarnation: worker.registration.incarnation + 1, ..worker.registration.clone() };
    assert_eq!(monitors.sealed(0, &later).send().await.unwrap().status(), 200, "who is known may begin again");
    monitors.stop().await;
}
