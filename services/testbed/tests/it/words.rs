//! What needs no servers: bad words are refused with advice, files are read and judged.

use std::collections::HashSet;

use crate::Home;

#[test]
fn errors_say_what_to_do() {
    let home = Home::bare();
    for (args, expected) in [
        (&["evaluate", "--scenario", "no-such"][..], "article, penetration, overload, outage, open, zipf, smoke"),
        (&["evaluate", "--users", "0"], "1..=10000000"),
        (&["evaluate", "--law", "murphy"], "none"),
        (&["evaluate", "--scenario", "smoke", "--law", "modelled"], "has no law"),
        (&["up", "--scenario", "smoke", "--law", "modelled"], "has no law"),
        (&["evaluate", "--set", "store.pool_size=0", "--out", "out"], "store.pool_size"),
        (&["evaluate", "--set", "store.pool_size=1000", "--out", "out"], "choose a smaller pool"),
        (&["up", "--instances", "16", "--set", "store.pool_size=100"], "choose a smaller pool"),
        (&["evaluate", "--set", "no.such=1", "--out", "out"], "not valid"),
        (&["evaluate", "--profile", "reckless"], "baseline or protected"),
        (&["evaluate", "--repeat", "0"], "1..=100"),
        (&["evaluate", "--instances", "17"], "1..=16"),
        (&["evaluate", "--soak", "1m"], "3m"),
        (&["evaluate", "--soak", "soon"], "is not a duration"),
        (&["evaluate", "--soak", "1h", "--quick"], "cannot be used with"),
        (&["experiment"], "overload"),
        (&["experiment", "chaos"], "unrecognized subcommand"),
        (&["experiment", "overload", "--repeat", "many"], "invalid digit"),
        (&["experiment", "sharding", "--servers", "3"], "2, 4, 8, 16"),
        (&["experiment", "sharding", "--part", "disk"], "quota, law, skew"),
        (&["experiment", "metastable", "--class", "deadlock"], "retry-storm, cold-cache, capacity-loss, slow-failover"),
        (&["experiment", "metastable", "--scale", "0"], "1..=10"),
        (&["experiment", "metastable", "--resume", "no-such"], "begin a run with --out no-such first"),
        (&["bench"], "faultproxy"),
        (&["bench", "everything"], "Usage"),
        (&["bench", "bloom", "--repeat", "0"], "1..=100"),
        (&["report", "diff", "a"], "AFTER"),
        (&["report", "diff", "no-such-a", "no-such-b"], "no-such-a"),
        (&["report", "diff", "a", "b", "--fail-on", "p98_ms>1"], "p99_ms"),
        (&["report", "diff", "a", "b", "--fail-on", "p99_ms"], "KEY>N%"),
        (&["report", "diff", "a", "b", "--fail-on", "good_per_s<5%"], "good_per_s>5%"),
        (&["load", "no-such"], "article, penetration, overload, outage, open, zipf, smoke"),
        (&["load", "smoke", "--engine", "ab"], "k6"),
        (&["load", "events"], "--rate"),
        (&["load", "events", "--rate", "0"], "1..=50000"),
        (&["load", "events", "--rate", "10", "--for", "2h"], "1s to 1h"),
        (&["load", "events", "--rate", "10"], "./testbed up"),
        (&["load", "smoke", "events", "--rate", "10"], "cannot be used with"),
        (&["up", "--without", "mysql"], "events"),
        (&["fault", "kafka", "kill"], "./testbed up"),
        (&["fault", "worker", "kill"], "invalid digit"),
        (&["load", "smoke", "--step", "many"], "invalid digit"),
        (&["serve", "hammer", "no-such.json"], "no-such.json"),
        (&["serve", "fleet", "no-such.json"], "no-such.json"),
        (&["experiment", "codecs", "--repeat", "3"], "--repeat"),
        (&["experiment", "alerts", "--alert", "Nothing"], "TargetDown"),
        (&["fault", "add", "loss"], "--pct"),
        (&["fault", "add", "flood"], "blackhole"),
        (&["fault", "add", "blackhole", "--drop-syn", "--for", "5s"], "./testbed up"),
        (&["serve", "bare", "--listen", "nowhere", "--redis", "x"], "--listen"),
        (&["serve", "loadgen"], "PLAN"),
        (&["data", "quality", "no-such.csv"], "no-such.csv"),
        (&["data", "import", "no-such.csv"], "no-such.csv"),
        (&["fault", "show"], "./testbed up"),
        (&["report"], "./testbed evaluate"),
        (&["report", "no-such"], "no-such"),
        (&["report", "7"], "there is no report 7"),
        (&["report", "--list", "no-such"], "cannot be used with"),
        (&["report", "compare", "no-such-a", "no-such-b", "--out", "x.html"], "no-such-a"),
        (&["report", "compare", "a", "b"], "--out"),
        (&["report", "check", "no-such"], "no-such"),
        (&["evaluate", "--resume", "no-such"], "no-such/steps.jsonl"),
        (&["evaluate", "--resume", "reports", "--seed", "2"], "cannot be used with"),
        (&["evaluate", "--resume", "reports", "--scenario", "smoke"], "cannot be used with"),
        (&["serve", "api", "--set", "store.pool_size=0", "--set", "cache.items=0"], "store.pool_size"),
        (&["serve", "api", "--set", "store.pool_size=0", "--set", "cache.items=0"], "cache.items"),
        (&["serve", "api", "--set", "nonsense"], "key=value"),
        (&["serve", "api", "--mysql", "nowhere"], "store.instances[0].address"),
        (&["serve", "faultproxy"], "--config"),
        (&["serve", "faultproxy", "--mysql", "127.0.0.1:1"], "--listen"),
        (&["serve", "faultproxy", "--config", "no-such.toml"], "no-such.toml"),
        (
            &["serve", "faultproxy", "--mysql", "nowhere", "--listen", "127.0.0.1:1", "--admin", "127.0.0.1:2"],
            "nowhere",
        ),
        (&["doctor", "--url", "nowhere"], "nowhere"),
        (&["data", "prepare"], "./testbed up"),
        (&["plan", "no-such.ndjson"], "no-such.ndjson"),
        (&["plan", "--hpa", "no-such.yaml"], "no-such.yaml"),
        (&["trace"], "./testbed up"),
        (&["trace", "4bf9"], "32 hexadecimal digits"),
        (&["trace", "--slowest", "--errors"], "cannot be used with"),
        (&["serve", "traces"], "--admin"),
        (&["frobnicate"], "Usage"),
    ] {
        let error = home.fails(args);
        assert!(error.contains(expected), "{args:?}: {error}");
        assert!(!error.contains("panicked"), "{args:?}: {error}");
    }
}

#[test]
fn a_file_of_addresses_stands_for_a_stack() {
    let home = Home::bare();
    let file = home.path().join("endpoints.toml");
    let fails = |args: &[&str]| {
        let output = home.command(args).env("TESTBED_ENDPOINTS", &file).output().unwrap();
        assert!(!output.status.success(), "{args:?} should fail");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(fails(&["fault", "show"]).contains("endpoints.toml"));
    std::fs::write(&file, "gateway = \"http://127.0.0.1:1\"\n").unwrap();
    assert!(fails(&["fault", "show"]).contains("no line faultproxy"));
    std::fs::write(&file, "gateway = \"http://127.0.0.1:1\"\nfaultproxy = \"http://127.0.0.1:1\"\n").unwrap();
    assert!(fails(&["data", "prepare"]).contains("no mysql-00"));
    assert!(fails(&["trace"]).contains("no address called traces"));
    // Nobody listens there: it went where the file says.
    assert!(fails(&["fault", "show"]).contains("127.0.0.1:1"));
}

#[test]
fn without_k6_the_way_to_it_is_told() {
    let home = Home::bare();
    let output = home.command(&["load", "smoke", "--engine", "k6"]).env("PATH", "/nowhere").output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    // Debian's directories of system programs are looked at as well; a k6 there would be found.
    if launcher::find_program(&["k6"]).is_none() {
        assert!(error.contains("go install go.k6.io/k6@v1.8.1"), "{error}");
    }
    assert!(!output.status.success() && !error.contains("panicked"), "{error}");
}

#[test]
fn every_bad_value_of_a_scenario_is_told_at_once() {
    let home = Home::bare();
    let scenario = "name = \"x\"\nsteps = [0]\ninterval_ms = 1\n[law]\nbase_ms = -1\n";
    std::fs::write(home.path().join("bad.toml"), scenario).unwrap();
    for command in
        [&["evaluate", "--scenario", "bad.toml"][..], &["load", "bad.toml"], &["up", "--scenario", "bad.toml"]]
    {
        let error = home.fails(command);
        for part in ["line 2: steps[0]", "line 3: interval_ms", "law.base_ms", "replicas is missing", "ids is missing"]
        {
            assert!(error.contains(part), "{command:?} does not say {part}: {error}");
        }
    }
    std::fs::write(home.path().join("bad.toml"), b"name = \"\xff\"").unwrap();
    assert!(home.fails(&["load", "bad.toml"]).contains("bad.toml"));
}

/// The least that a report is: one step, by hand.
fn report(p99_ms: f64) -> serde_json::Value {
    let step = serde_json::json!({
        "profile": "protected", "users": 100, "repeat": 1, "valid": true, "offered_per_s": 100.0, "sent_per_s": 100.0,
        "answered_per_s": 100.0, "good_per_s": 100.0, "skipped": 0, "mean_ms": 2.0, "p50_ms": 2.0, "p90_ms": 3.0,
        "p99_ms": p99_ms, "p999_ms": 9.0, "max_ms": 9.0, "error_pct": 0.0, "errors": {}, "store_timeouts": 0,
        "store_queries_per_request": 0.0, "store_share": 0.0, "hit_ratio": null, "bloom_rejections": 0,
        "bloom_rejections_per_request": 0.0, "known_personal_pct": null,
        "sources": {"cache": 1, "store": 0, "popular": 0, "stale": 0}, "repeated_ids": 0, "send_lag_p50_ms": 0.1,
        "send_lag_p99_ms": 0.2, "gateway_mean_ms": null, "store_upstream_mean_ms": null, "cpu_total_pct": 10.0,
        "cpu": {}, "rss_mb": {}, "article": null, "model": null, "series": [], "latency_curve": [], "hdr_log": null
    });
    serde_json::json!({
        "schema_version": 1, "created": "2026-01-01T00:00:00Z",
        "scenario": {"name": "s", "description": "d", "steps": [100], "warm_up_s": 1.0, "measure_s": 1.0,
            "interval_ms": 1000, "timeout_ms": 1000, "unknown_share": [0.0], "known": "once"},
        "law": {"kind": "none"},
        "machine": {"cpu": "c", "cores": 1, "memory_gb": 1.0, "kernel": "k", "os": "o"},
        "versions": {}, "revision": {"git": "", "dirty": false},
        "data": {"source": "generator", "name": "n", "users": 1, "items": 1, "events": 1, "bad_rows": 0},
        "model_version": 1, "quick": false, "profiles": ["protected"], "repeats": 1, "steps": [step]
    })
}

#[test]
fn reports_are_compared_and_judged() {
    let home = Home::bare();
    for (name, p99_ms) in [("before", 10.0), ("after", 12.0)] {
        std::fs::create_dir(home.path().join(name)).unwrap();
        std::fs::write(home.path().join(name).join("report.json"), report(p99_ms).to_string()).unwrap();
    }
    let compare = |more: &[&str]| home.run(&[&["report", "diff", "before", "after"], more].concat());
    let text = |output: &std::process::Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let plain = compare(&[]);
    assert_eq!(plain.status.code(), Some(0));
    assert!(text(&plain).contains("+20.0 % worse"), "{}", text(&plain));
    assert_eq!(compare(&["--fail-on", "p99_ms>20%", "--fail-on", "error_pct>1"]).status.code(), Some(0));
    let failed = compare(&["--fail-on", "p99_ms>19%"]);
    assert_eq!(failed.status.code(), Some(2));
    assert!(text(&failed).contains("✗ p99_ms>19%: protected at 100 users"), "{}", text(&failed));
    let json = home.json(&["report", "diff", "before/report.json", "after/report.json", "--json"]);
    assert_eq!(json["changes"].as_array().unwrap().len(), 5);
    // The command without another one is what it was.
    assert!(home.ok(&["report", "before"]).contains("protected"));
    assert!(plain.status.success() && text(&plain).contains("noise unknown"), "{}", text(&plain));
    home.ok(&["report", "before", "--render"]);
    assert!(home.path().join("before/report.html").is_file());
    assert_eq!(home.json(&["report", "after", "--json"])["steps"][0]["p99_ms"].as_f64(), Some(12.0));
}

#[test]
fn reports_are_listed_named_and_drawn_over_each_other() {
    let home = Home::bare();
    let write = |name: &str, report: &serde_json::Value| {
        let dir = home.path().join("reports").join(name);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("report.json"), report.to_string()).unwrap();
    };
    assert_eq!(home.json(&["report", "--list", "--json"]).as_array().map(Vec::len), Some(0));
    write("2026-01-01T00-00-00-article", &report(10.0));
    write("2026-01-02T00-00-00-article", &report(12.0));
    let mut later = report(11.0);
    later["schema_version"] = 99.into();
    write("2026-01-03T00-00-00-later", &later);
    let mut none = report(11.0);
    none["steps"] = serde_json::json!([]);
    write("2026-01-04T00-00-00-none", &none);
    let list = home.json(&["report", "--list", "--json"]);
    assert_eq!((list[2]["number"].as_u64(), list[2]["kind"].as_str()), (Some(3), Some("evaluation")), "{list}");
    assert!(home.ok(&["report", "--list"]).contains("schema version is 99"));
    assert_eq!(home.json(&["report", "4", "--json"])["steps"][0]["p99_ms"].as_f64(), Some(10.0));
    assert_eq!(home.json(&["report", "2026-01-02", "--json"])["steps"][0]["p99_ms"].as_f64(), Some(12.0));
    let error = home.fails(&["report", "article"]);
    assert!(error.contains("means 2 reports"), "{error}");

    fn compare<'a>(names: &[&'a str]) -> Vec<&'a str> {
        [&["report", "compare"], names, &["--out", "page.html"]].concat()
    }
    assert_eq!(home.ok(&compare(&["4", "3"])), "page.html\n");
    let page = std::fs::read_to_string(home.path().join("page.html")).unwrap();
    assert!(page.contains("2026-01-02T00-00-00-article") && page.contains("Comparison of 2 reports"));
    for (names, expected) in [
        (&["4", "4"][..], "are the same report"),
        (&["4", "later"], "schema version is 99"),
        (&["4", "none"], "has no steps of load"),
        (&["4"], "2 to 16 reports, and 1"),
        (&["3"; 17], "2 to 16 reports, and 17"),
    ] {
        let error = home.fails(&compare(names));
        assert!(error.contains(expected), "{names:?}: {error}");
    }
}

#[test]
fn generated_data_can_be_read_and_judged() {
    let home = Home::bare();
    home.ok(&["data", "generate", "--users", "400", "--items", "200", "--seed", "3", "--out", "a.csv"]);
    let again = home.ok(&["data", "generate", "--users", "400", "--items", "200", "--seed", "3"]);
    assert_eq!(std::fs::read_to_string(home.path().join("a.csv")).unwrap(), again);
    let quality = home.json(&["data", "quality", "a.csv", "--json"]);
    assert!(quality["ndcg_ratio"].as_f64().unwrap() > 1.0, "{quality}");
    assert!(quality["protocol"].as_str().unwrap().contains("Leave-last-out"));
    assert!(home.ok(&["data", "quality", "a.csv", "--trec", "trec"]).contains("NDCG@10"));
    let trec = |name: &str| std::fs::read_to_string(home.path().join("trec").join(name)).unwrap();
    let (held_out, run) = (trec("qrels"), trec("run"));
    let of_run: HashSet<(&str, &str)> = run
        .lines()
        .map(|line| {
            let mut words = line.split(' ');
            (words.next().unwrap(), words.nth(1).unwrap())
        })
        .collect();
    let of_user = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        of_run.contains(&(words[0], words[2]))
    };
    let hits = held_out.lines().filter(|line| of_user(line)).count() as f64;
    let hit_rate = quality["model"]["hit_rate"].as_f64().unwrap();
    assert!((hits / held_out.lines().count() as f64 - hit_rate).abs() < 1e-12, "{hits} hits");
    let mut bad = again;
    bad.push_str("u1,i1,like,5,\n");
    std::fs::write(home.path().join("b.csv"), bad).unwrap();
    assert!(
        home.fails(&["data", "quality", "--strict", "b.csv"]).contains("is not one of view, cart, purchase, rating")
    );
    home.ok(&["data", "quality", "b.csv"]);
}

#[test]
fn exit_codes_tell_usage_from_errors() {
    let home = Home::bare();
    let code = |args: &[&str]| home.run(args).status.code();
    for fine in [&["--help"][..], &["-h"], &["help"], &["--version"], &["help", "fault"], &["load", "--help"]] {
        assert_eq!(code(fine), Some(0), "{fine:?}");
    }
    for usage in [
        &[][..],
        &["frobnicate"],
        &["load"],
        &["load", "--users", "200"],
        &["load", "--users", "200", "--for", "soon"],
        &["evaluate", "--repeat", "0"],
        &["fault", "replica", "3", "restart"],
        &["fault", "add", "stall", "--pct", "3"],
        &["fault", "add", "latency"],
        &["completions", "tcsh"],
        &["test"],
        &["setup"],
    ] {
        assert_eq!(code(usage), Some(64), "{usage:?}");
    }
    for error in [&["report", "no-such"][..], &["load", "no-such"], &["fault", "redis", "kill"], &["trace"]] {
        assert_eq!(code(error), Some(1), "{error:?}");
    }
}

#[test]
fn the_script_answers_without_a_compiler() {
    let home = Home::bare();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let script = |args: &[&str]| {
        let mut command = std::process::Command::new(root.join("testbed"));
        command.args(args).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home.path()).current_dir(home.path());
        command.env("CARGO_TARGET_DIR", home.path().join("target")).output().unwrap()
    };
    let help = std::fs::read(root.join("services/testbed/help.txt")).unwrap();
    for args in [&["--help"][..], &["-h"], &["help"]] {
        let output = script(args);
        assert_eq!((output.status.code(), &output.stdout), (Some(0), &help), "{args:?}");
    }
    let none = script(&[]);
    assert_eq!((none.status.code(), &none.stderr), (Some(64), &help));
    for args in [&["test", "--help"][..], &["setup", "-h"], &["help", "test"]] {
        let output = script(args);
        assert!(output.status.success() && output.stdout.starts_with(b"Usage: ./testbed "), "{args:?}");
    }
    let version = script(&["--version"]);
    let version = String::from_utf8(version.stdout).unwrap();
    assert!(version.starts_with("testbed 0.1.0"), "{version}");
    // Both describe the same clone, whose files may have changed since the build.
    let own = home.ok(&["--version"]);
    assert!(own.starts_with("testbed 0.1.0"), "{own}");
    assert_eq!(version.contains('('), own.contains('('), "{version}{own}");
    assert!(!home.path().join("target").exists(), "nothing was built");
}

#[test]
fn completions_and_manual_pages() {
    let home = Home::bare();
    for shell in ["bash", "zsh", "fish"] {
        let script = home.ok(&["completions", shell]);
        assert!(script.contains("testbed") && script.contains("drop-syn"), "{shell}");
    }
    assert!(home.ok(&["man"]).contains("Exit codes:"));
    home.ok(&["man", "pages/man1"]);
    for page in ["testbed.1", "testbed-load.1", "testbed-fault-redis.1"] {
        let text = std::fs::read_to_string(home.path().join("pages/man1").join(page)).unwrap();
        assert!(text.contains(".SH NAME"), "{page}");
    }
}

#[test]
fn signals_to_a_stack_elsewhere_name_the_docker_command() {
    let home = Home::bare();
    let file = home.path().join("endpoints.toml");
    std::fs::write(&file, "gateway = \"http://127.0.0.1:1\"\nfaultproxy = \"http://127.0.0.1:1\"\n").unwrap();
    for (args, docker) in [
        (&["fault", "redis", "kill"][..], "docker compose kill redis"),
        (&["fault", "redis", "stop"], "docker compose pause redis"),
        (&["fault", "kafka", "stop"], "docker compose pause kafka"),
        (&["fault", "worker", "1", "kill"], "docker compose kill worker-1"),
        (&["fault", "replica", "3", "resume"], "docker unpause recommendation-testbed-api-4"),
    ] {
        let output = home.command(args).env("TESTBED_ENDPOINTS", &file).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && error.contains(docker), "{args:?}: {error}");
    }
}
