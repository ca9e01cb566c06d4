use launcher::Signal;
use serde_json::Value;

use crate::{Home, experiment::schema_walk, wait_until};

pub const SCENARIO: &str = r#"
name = "tiny"
description = "Two profiles, one small step each."
steps = [60]
interval_ms = 1000
timeout_ms = 3000
warm_up_s = 1
measure_s = 4
replicas = 2
profiles = ["baseline", "protected"]
flush_cache_before_step = true
[ids]
unknown_share = 0.5
known = "once"
[law]
base_ms = 100.0
slope_ms = 0.2
spread = 0.3
[store]
pool_size = 6
order = "newest"
checkout_timeout_ms = 2900
max_waiting = 100
"#;

#[test]
fn both_profiles_are_measured_and_reported() {
    let Some(home) = Home::new() else { return };
    std::fs::write(home.path().join("tiny.toml"), SCENARIO).unwrap();
    let report: Value =
        home.json(&["evaluate", "--scenario", "tiny.toml", "--quick", "--users", "1000", "--out", "out", "--json"]);
    let steps = report["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 2);
    for step in steps {
        assert_eq!((step["users"].as_u64(), step["error_pct"].as_f64()), (Some(60), Some(0.0)), "{step}");
        assert_eq!(step["offered_per_s"].as_f64(), Some(60.0));
        assert!((55.0..=65.0).contains(&step["good_per_s"].as_f64().unwrap()), "{step}");
        assert!(home.path().join("out").join(step["hdr_log"].as_str().unwrap()).is_file());
    }
    // Every baseline request costs one query, whose modelled time it shows; a protected one costs (almost) none.
    let (baseline, protected) = (&steps[0], &steps[1]);
    assert!((0.95..=1.05).contains(&baseline["store_queries_per_request"].as_f64().unwrap()), "{baseline}");
    assert!(baseline["mean_ms"].as_f64().unwrap() > 30.0);
    assert!(baseline["model"]["mean_ms"].is_number());
    assert!(protected["store_queries_per_request"].as_f64().unwrap() < 0.05, "{protected}");
    assert!(protected["hit_ratio"].as_f64().unwrap() > 0.95);
    assert_eq!(protected["known_personal_pct"].as_f64(), Some(100.0));
    // What is counted does not depend on the length of a step, so it is judged in a quick run, too.
    let check =
        report["verdicts"].as_array().unwrap().iter().find(|verdict| verdict["name"] == "Counts add up").unwrap();
    assert_eq!(check["passed"], true, "{check}");
    for step in steps {
        let counts = &step["counts"];
        assert_eq!(counts["generator"]["requests"], counts["gateway"]["generator"], "{counts}");
        assert!(counts["generator"]["requests"].as_u64() > step["sources"]["popular"].as_u64(), "{counts}");
    }
    // Some requests are recorded from the user to the store: the parts of their time, and one of each kind.
    for step in steps {
        let spent = &step["time_spent"];
        assert!(spent["requests"].as_u64().unwrap() > 0 && spent["sample_ratio"].as_f64() == Some(0.166_667), "{step}");
    }
    let stage = |step: &Value, name: &str| {
        let stages = step["time_spent"]["stages"].as_array().unwrap();
        stages.iter().find(|stage| stage["name"] == name).unwrap()["mean_ms"].as_f64().unwrap()
    };
    assert!(stage(baseline, "MySQL") > 20.0 && stage(baseline, "gateway") > 0.0, "{baseline}");
    assert!(stage(protected, "Redis") > 0.0 && stage(protected, "MySQL") < 5.0, "{protected}");
    let kinds: Vec<_> = report["waterfalls"].as_array().unwrap().iter().map(|example| &example["kind"]).collect();
    for kind in ["A hit", "A miss", "An unknown id, rejected"] {
        assert!(kinds.contains(&&Value::from(kind)), "no {kind} in {kinds:?}");
    }
    assert_eq!(report["law"]["kind"], "modelled");
    assert!(
        report["versions"]["store"].as_str().unwrap().contains("10.")
            || report["versions"]["store"].as_str().unwrap().contains("8.")
    );
    for file in ["report.html", "report.md"] {
        let page = std::fs::read_to_string(home.path().join("out").join(file)).unwrap();
        assert!(page.contains("A miss: baseline at 60/s"), "{file}");
    }
    let schema: Value = serde_json::from_str(include_str!("../../../report/report.schema.json")).unwrap();
    assert_eq!(schema_walk::problems(&schema, &report), [""; 0]);
    // The report can be shown again, and nothing runs any more.
    assert!(home.ok(&["report", "out"]).contains("baseline"));
    assert_eq!(home.processes(), [] as [u64; 0]);
    assert_eq!(std::fs::read_dir(home.path().join("stacks")).unwrap().count(), 0);
}

#[test]
fn real_data_on_sixteen_servers_with_one_setting_changed() {
    let Some(home) = Home::new() else { return };
    std::fs::write(home.path().join("tiny.toml"), SCENARIO).unwrap();
    let mut csv = String::from("user_id,item_id,event,timestamp\n");
    for user in 0..50 {
        for k in 0..8 {
            csv.push_str(&format!("u{user},i{},view,{}\n", (user + k * k) % 40, 1_700_000_000 + 60 * k));
        }
    }
    csv.push_str("broken line\n");
    std::fs::write(home.path().join("events.csv"), csv).unwrap();
    let args = [
        "evaluate",
        "--scenario",
        "tiny.toml",
        "--quick",
        "--data",
        "events.csv",
        "--instances",
        "16",
        "--law",
        "none",
    ];
    let more = ["--profile", "protected", "--set", "guards.warmup=off", "--out", "out", "--json"];
    let report = home.json(&[&args[..], &more[..]].concat());
    assert_eq!((report["data"]["users"].as_u64(), report["data"]["bad_rows"].as_u64()), (Some(50), Some(1)));
    assert_eq!(report["law"]["kind"], "none");
    let step = &report["steps"][0];
    assert_eq!(step["error_pct"].as_f64(), Some(0.0));
    assert!(step["sources"]["store"].as_u64().unwrap() > 0, "without warm-up first requests reach the store: {step}");
    assert!(step["repeated_ids"].as_u64().unwrap() > 0, "50 users cannot fill the step without repeats");
}

/// Starts an evaluation that has hours to go and waits until its load generator runs.
fn under_way(home: &Home) -> std::process::Child {
    std::fs::write(home.path().join("long.toml"), SCENARIO.replace("measure_s = 4", "measure_s = 3000")).unwrap();
    let child = home.start(&["evaluate", "--scenario", "long.toml", "--users", "500", "--out", "out"]);
    wait_until("the load generator runs", || {
        let status = home.json(&["status", "--json"]);
        // Redis, MySQL, faultproxy, nginx with two workers, two replicas, load generator.
        status["stacks"].as_array().unwrap().iter().any(|stack| stack["processes"].as_array().unwrap().len() >= 9)
    });
    child
}

#[test]
fn ctrl_c_leaves_nothing() {
    let Some(home) = Home::new() else { return };
    let mut child = under_way(&home);
    crate::signal(&child, Signal::SIGINT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(home.processes(), [] as [u64; 0]);
    assert_eq!(std::fs::read_dir(home.path().join("stacks")).unwrap().count(), 0);
}

#[test]
fn after_kill_9_down_leaves_nothing() {
    let Some(home) = Home::new() else { return };
    let mut child = under_way(&home);
    let before = home.processes();
    crate::signal(&child, Signal::SIGKILL);
    child.wait().unwrap();
    home.ok(&["down"]);
    assert_eq!(home.processes(), [] as [u64; 0]);
    for pid in before {
        let alive =
            launcher::ProcessIdentity::of(u32::try_from(pid).unwrap()).is_some_and(launcher::ProcessIdentity::is_alive);
        assert!(!alive, "pid {pid} is still there");
    }
    assert_eq!(std::fs::read_dir(home.path().join("stacks")).unwrap().count(), 0);
}
