use crate::Home;

#[test]
fn up_load_break_import_down() {
    let Some(home) = Home::new() else { return };
    assert!(home.fails(&["load", "smoke"]).contains("./testbed up"));
    let said =
        home.ok(&["up", "--profile", "baseline", "--users", "300", "--scenario", "smoke", "--without", "events"]);
    assert!(said.contains("http://127.0.0.1:"), "{said}");
    assert!(home.fails(&["up"]).contains("up already"));
    let gateway = home.json(&["status", "--json"])["gateway"].as_str().unwrap().to_owned();
    let get = |path: &str| fetch(&format!("{gateway}{path}"));
    assert!(get("/recommendations?user_id=u000007").contains("\"source\":\"store\""));
    assert!(get("/openapi.json").contains("/recommendations"));

    let report = home.loaded(&["load", "smoke", "--json", "--out", "loaded"]);
    let step = &report["steps"][0];
    assert_eq!((step["profile"].as_str(), step["error_pct"].as_f64()), (Some("baseline"), Some(0.0)), "{step}");
    assert!(home.path().join("loaded/report.html").is_file());

    if launcher::testing::have(&["prometheus"]) {
        let prometheus = home.json(&["status", "--json"])["stacks"][0]["endpoints"]["prometheus"].clone();
        let up = format!("{}/api/v1/query?query=sum(up)by(job)", prometheus.as_str().unwrap());
        // All but the load generator, which is there only while a step runs.
        let seen = |job: &str| {
            let answer: serde_json::Value = serde_json::from_str(&fetch(&up)).unwrap();
            let all = answer["data"]["result"].as_array().unwrap().clone();
            all.iter().any(|series| series["metric"]["job"] == job && series["value"][1] != "0")
        };
        for job in ["api", "faultproxy", "tracestore", "prometheus"] {
            crate::wait_until(job, || seen(job));
        }
    }
    // A request, from the user to the store, by the parents of its spans.
    crate::wait_until("traces", || home.run(&["trace", "--slowest"]).status.success());
    let traces = home.json(&["trace", "--slowest", "--limit", "20", "--json"]);
    let edges = |trace: &serde_json::Value| {
        let spans = trace["spans"].as_array().unwrap().clone();
        let name = |span: &serde_json::Value| {
            format!("{} {}", span["service"].as_str().unwrap(), span["name"].as_str().unwrap())
        };
        let above = |span: &serde_json::Value| spans.iter().find(|other| other["id"] == span["parent"]).map(name);
        spans.iter().map(|span| (above(span), name(span))).collect::<Vec<_>>()
    };
    let expected = [
        (None, "loadgen GET"),
        (Some("loadgen GET"), "api GET /recommendations"),
        (Some("api GET /recommendations"), "api GET"),
        (Some("api GET /recommendations"), "api load"),
        (Some("api load"), "api pool wait"),
        (Some("api load"), "api SELECT behaviour"),
        (Some("api load"), "api rank"),
    ];
    let whole = |trace: &serde_json::Value| {
        let edges = edges(trace);
        expected.iter().all(|(above, name)| edges.iter().any(|(a, n)| a.as_deref() == *above && n == name))
    };
    let traces = traces.as_array().unwrap();
    let trace = traces
        .iter()
        .find(|trace| whole(trace))
        .unwrap_or_else(|| panic!("{:#?}", traces.iter().map(edges).collect::<Vec<_>>()));
    let shown = home.ok(&["trace", trace["id"].as_str().unwrap()]);
    assert!(shown.contains("pool wait") && shown.contains('█'), "{shown}");
    assert!(home.ok(&["trace", "--limit", "1000"]).contains(trace["id"].as_str().unwrap()));
    let none = "4bf92f3577b34da6a3ce929d0e0e4736";
    assert!(home.fails(&["trace", none]).contains(&format!("no trace {none}")));

    home.ok(&["fault", "law", "--base-ms", "150"]);
    home.ok(&["fault", "add", "latency", "--ms", "20"]);
    let state = home.json(&["fault", "show", "--json"]);
    assert_eq!((state["law"]["base_ms"].as_f64(), state["faults"].as_array().unwrap().len()), (Some(150.0), 1));
    let started = std::time::Instant::now();
    get("/recommendations?user_id=u000008");
    assert!(started.elapsed().as_millis() >= 160, "a miss takes at least what the law and the fault say");
    home.ok(&["fault", "clear"]);
    home.ok(&["fault", "law", "none"]);

    // An item that has neighbours: of so few users' behaviour, most items have none, and a list cannot be made from them.
    let list: serde_json::Value = serde_json::from_str(&get("/recommendations?user_id=u000007")).unwrap();
    let item = list["items"][0]["item_id"].as_str().unwrap();
    let csv = home.path().join("more.csv");
    let rows = format!("user_id,item_id,event,timestamp\nnew,{item},purchase,1700000000\nbad,,view,1\n");
    std::fs::write(&csv, rows).unwrap();
    let file = csv.to_str().unwrap();
    assert!(home.fails(&["data", "import", "--strict", file]).contains("line 3"));
    let imported = home.json(&["data", "import", file, "--json"]);
    assert_eq!((imported["added"].as_u64(), imported["parsed"]["bad_rows"].as_u64()), (Some(1), Some(1)));
    assert_eq!(home.json(&["data", "import", file, "--json"])["present"].as_u64(), Some(1));
    assert!(get("/recommendations?user_id=new").contains("\"source\":\"store\""));

    home.ok(&["down"]);
    assert_eq!(home.processes(), [] as [u64; 0]);
    assert!(home.ok(&["down"]).contains("nothing is running"));
    assert!(home.ok(&["status"]).contains("nothing is running"));
}

fn fetch(url: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { reqwest::get(url).await.unwrap().text().await.unwrap() })
}

#[test]
fn redis_and_replicas_are_killed_stopped_and_resumed() {
    let Some(home) = Home::new() else { return };
    home.ok(&["up", "--users", "300", "--scenario", "smoke", "--workers", "0"]);
    let stack = || home.json(&["status", "--json"])["stacks"][0].clone();
    let admin = stack()["endpoints"]["api-0-admin"].as_str().unwrap().to_owned();
    let responds = || home.run(&["doctor", "--url", &format!("{admin}/healthz")]).status.success();
    assert!(home.ok(&["fault", "replica", "0", "stop"]).contains("stopped"));
    assert!(!responds(), "a stopped replica does not respond");
    home.ok(&["fault", "replica", "0", "resume"]);
    assert!(responds());
    let missing = home.fails(&["fault", "replica", "7", "kill"]);
    assert!(missing.contains("no process api-7; it has: redis, api-0, api-1"), "{missing}");

    // No Kafka without workers: the replicas write the events themselves.
    assert!(home.fails(&["fault", "kafka", "kill"]).contains("no process kafka; it has: redis, api-0, api-1"));
    assert!(home.json(&["status", "--json"])["events"].is_null());
    let loaded = home.json(&["load", "events", "--rate", "100", "--for", "2s", "--json"]);
    let count = |name: &str| loaded[name].as_u64().unwrap();
    assert!(count("accepted") > 50 && count("failed") == 0 && count("offered") == count("accepted"), "{loaded}");

    // Without a scenario; all requests are answered.
    let report = home.loaded(&["load", "--users", "20", "--for", "2s", "--json"]);
    let step = &report["steps"][0];
    assert_eq!((report["scenario"]["name"].as_str(), step["users"].as_u64()), (Some("steady"), Some(20)), "{report}");
    assert_eq!((step["error_pct"].as_f64(), step["sources"]["popular"].as_u64()), (Some(0.0), Some(0)), "{step}");

    let pids = |command: &str| -> Vec<u64> {
        let stack = stack();
        let processes = stack["processes"].as_array().unwrap();
        let of = processes.iter().filter(|process| {
            // None of a process that has just ended.
            process["command"].as_str().is_some_and(|words| words.starts_with(command))
        });
        of.map(|process| process["pid"].as_u64().unwrap()).collect()
    };
    let before = pids("redis-server");
    for process in [&["redis"][..], &["replica", "0"]] {
        let killed = home.ok(&[&["fault"], process, &["kill"]].concat());
        assert!(killed.contains("starts it again after 15 s"), "{killed}");
    }
    crate::wait_until("Redis has ended", || pids("redis-server") != before);
    assert!(home.fails(&["fault", "redis", "stop"]).contains("is not running"));
    crate::wait_until("Redis runs again", || pids("redis-server").len() == 1);
    crate::wait_until("the replica is ready again", || {
        home.run(&["doctor", "--url", &format!("{admin}/readyz")]).status.success()
    });
    assert_ne!(pids("redis-server"), before);
    home.ok(&["down"]);
    assert_eq!(home.processes(), [] as [u64; 0]);
}

/// Events → Kafka → workers → lists, with Kafka and a worker killed in between.
#[test]
fn events_go_through_kafka_and_outlive_kills() {
    let Some(home) = Home::with_kafka() else { return };
    home.ok(&["up", "--users", "300", "--scenario", "smoke", "--law", "none"]);
    let events = || home.json(&["status", "--json"])["events"].clone();
    let partitions = || events()["partitions"].as_array().unwrap().clone();
    let owned = || partitions().iter().all(|partition| partition["owner"].is_string());
    crate::wait_until("each partition has an owner", owned);
    assert_eq!(events()["kafka"]["responds"], true);
    let load = || home.json(&["load", "events", "--rate", "200", "--for", "3s", "--json"]);
    let loaded = load();
    assert!(loaded["accepted"].as_u64() > Some(200) && loaded["failed"] == 0, "{loaded}");
    let drained = || partitions().iter().all(|partition| partition["owner"].is_string() && partition["lag"] == 0);
    crate::wait_until("the workers have processed all events", drained);

    // While Kafka stands still, events are refused and lists are not.
    let gateway = home.json(&["status", "--json"])["gateway"].as_str().unwrap().to_owned();
    home.ok(&["fault", "kafka", "stop"]);
    let refused = load();
    assert!(refused["failed"].as_u64() > Some(0), "{refused}");
    assert!(fetch(&format!("{gateway}/recommendations?user_id=u000007")).contains("\"source\""));
    home.ok(&["fault", "kafka", "resume"]);

    // Killed, it is started again on its data; other workers take over the partitions of a killed one.
    for process in [&["kafka"][..], &["worker", "1"]] {
        let killed = home.ok(&[&["fault"], process, &["kill"]].concat());
        assert!(killed.contains("starts it again after 15 s"), "{killed}");
    }
    crate::wait_until("Kafka takes events again", || load()["failed"] == 0);
    crate::wait_until("the workers have processed all events again", drained);
    // An event that was refused may still be written: its client tries until the deadline.
    let text = || home.ok(&["status"]);
    crate::wait_until("status says so", || text().contains("0 messages behind"));
    assert!(text().contains("worker-0"), "{}", text());
    home.ok(&["down"]);
    assert_eq!(home.processes(), [] as [u64; 0]);
}

#[test]
fn up_says_why_it_cannot() {
    let Some(home) = Home::new() else { return };
    let error = home.fails(&[
        "up",
        "--users",
        "50",
        "--scenario",
        "smoke",
        "--set",
        "guards.bloom_fpr=2",
        "--without",
        "events",
    ]);
    assert!(error.contains("guards.bloom_fpr"), "{error}");
    // Neither Java nor the jars.
    let without =
        home.command(&["up", "--users", "50", "--scenario", "smoke"]).env("PATH", "/nowhere").output().unwrap();
    let error = String::from_utf8_lossy(&without.stderr);
    if !["/usr/sbin/java", "/sbin/java", "/usr/local/sbin/java"].iter().any(|file| std::path::Path::new(file).exists())
    {
        assert!(error.contains("java is not installed") && error.contains("--without events"), "{error}");
    }
    assert_eq!(home.processes(), [] as [u64; 0]);
}

#[test]
fn k6_sees_what_goose_sees() {
    let Some(home) = Home::new() else { return };
    if !launcher::testing::have(&["k6"]) {
        return;
    }
    home.ok(&["up", "--users", "300", "--scenario", "smoke", "--without", "events"]);
    for (engine, profile) in [("k6", "protected k6"), ("k6-open", "protected k6-open")] {
        let report = home.loaded(&["load", "smoke", "--engine", engine, "--json"]);
        let [goose, k6] = report["steps"].as_array().unwrap().as_slice() else { panic!("{report}") };
        assert_eq!((goose["profile"].as_str(), k6["profile"].as_str()), (Some("protected"), Some(profile)));
        assert_eq!((k6["error_pct"].as_f64(), k6["skipped"].as_u64()), (Some(0.0), Some(0)), "{k6}");
        // 20 a second for five seconds; a request at either end may fall out of the window.
        for step in [goose, k6] {
            assert!((19.0..=21.0).contains(&step["good_per_s"].as_f64().unwrap()), "{step}");
            assert!(step["known_good_per_s"].as_f64().unwrap() > 0.0, "{step}");
        }
        assert!(report["versions"]["k6"].as_str().unwrap().starts_with("k6 v"), "{report}");
    }
}
