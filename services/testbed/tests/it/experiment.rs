//! Every experiment runs from end to end. Its figures are for a release build on a quiet machine.

#[path = "../../../report/src/tests/schema_walk.rs"]
pub mod schema_walk;

use std::process::Command;

use serde_json::Value;

use crate::Home;

/// Runs it with `--json`: checks the report against the schema, and every jq example of the help on it.
fn run(home: &Home, name: &str, words: &[&str]) -> Value {
    let words = [&["experiment", name, "--out", "out", "--json"], words].concat();
    let output = home.run(&words);
    let progress = String::from_utf8_lossy(&output.stderr);
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{words:?}: {error}: {progress}"));
    assert!(output.status.success(), "{words:?}: {progress}{:#}", report["verdicts"]);
    let schema: Value = serde_json::from_str(include_str!("../../../report/report.schema.json")).unwrap();
    assert_eq!(schema_walk::problems(&schema, &report), [""; 0]);
    assert_eq!(report["experiment"].as_str(), Some(name));
    for file in ["report.json", "report.md", "report.html"] {
        assert!(home.path().join("out").join(file).is_file(), "{file}");
    }
    if launcher::find_program(&["jq"]).is_some() {
        jq_examples(home, name);
    }
    assert_eq!(home.processes(), [] as [u64; 0]);
    report
}

fn jq_examples(home: &Home, name: &str) {
    let list = home.json(&["experiment", "list", "--json"]);
    let one = list.as_array().unwrap().iter().find(|one| one["name"] == name).unwrap();
    let examples = one["examples"].as_str().unwrap();
    let filters: Vec<&str> = examples.lines().filter_map(|line| line.split_once("| jq ")).map(|(_, jq)| jq).collect();
    assert!(!filters.is_empty(), "{name} has no jq example");
    for filter in filters {
        let file = home.path().join("out/report.json");
        let output = Command::new("jq").args(["-c", filter.trim_matches('\'')]).arg(file).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && !text.trim().is_empty() && text.trim() != "null", "{filter}: {text}");
    }
}

#[test]
fn servers_are_killed_and_come_back() {
    let Some(home) = Home::new() else { return };
    if !launcher::testing::full() {
        return;
    }
    let report = run(&home, "outage", &["--quick"]);
    let [mysql, redis] = report["sections"][0]["measured"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert_eq!((mysql["server"].as_str(), redis["server"].as_str()), (Some("MySQL"), Some("Redis")));
    for outage in [mysql, redis] {
        let at = |name: &str| outage[name].as_f64().unwrap();
        assert!(at("restarted_s") - at("killed_s") >= 6.0 && at("answering_s") >= at("restarted_s"), "{outage}");
        for kind in ["listed", "unlisted"] {
            let count = |name: &str| outage[kind][name].as_u64().unwrap();
            assert!(count("asked") > 100 && count("compared") > 100, "{outage}");
            assert_eq!((count("wrong"), count("failed")), (0, 0), "{outage}");
        }
    }
    // Who has a list is answered without MySQL, who has none is not; without Redis both are.
    let count = |outage: &Value, kind: &str, name: &str| outage[kind][name].as_u64().unwrap();
    assert_eq!(count(mysql, "listed", "good"), count(mysql, "listed", "asked"), "{mysql}");
    assert_eq!(count(mysql, "unlisted", "refused"), count(mysql, "unlisted", "asked"), "{mysql}");
    assert!(count(redis, "unlisted", "good") > 0, "{redis}");
    let page = std::fs::read_to_string(home.path().join("out/report.md")).unwrap();
    assert!(page.contains("While a server was away") && page.contains("Second by second"), "{page}");
    assert_eq!(report["validity"].as_object().unwrap().len(), 2, "{report}");
}

fn alerts(home: &Home, words: &[&str], count: usize) {
    let report = run(home, "alerts", words);
    let alerts = report["sections"][0]["measured"]["alerts"].as_array().unwrap();
    assert_eq!(alerts.len(), count, "{report}");
    for alert in alerts {
        assert!(alert["fires_s"].is_number() && alert["clears_s"].is_number(), "{alert}");
    }
}

#[test]
fn two_alerts_fire_on_their_faults_and_clear() {
    let Some(home) = Home::with_kafka() else { return };
    if launcher::testing::have(&["prometheus"]) {
        alerts(&home, &["--quick", "--alert", "CacheAway", "--alert", "TelemetryLost"], 2);
    }
}

#[test]
fn every_alert_fires_on_its_fault_and_clears() {
    let Some(home) = Home::with_kafka() else { return };
    if launcher::testing::have(&["prometheus"]) && launcher::testing::full() {
        alerts(&home, &[], crate::alerts::alerts().len());
    }
}

#[test]
fn a_receiver_that_is_killed_under_load_costs_counted_spans_only() {
    let Some(home) = Home::new() else { return };
    if !launcher::testing::full() {
        return;
    }
    let report = run(&home, "collector", &["--quick"]);
    let measured = &report["sections"][0]["measured"];
    let figure = |name: &str| measured[name].as_f64().unwrap();
    assert_eq!(figure("errors"), 0.0, "{report}");
    assert_eq!(figure("spans_sent") + figure("spans_dropped"), figure("spans_made"), "{report}");
    assert!(measured["periods"][2]["resumed_s"].is_number(), "{report}");
}

#[test]
fn one_detector_is_judged_on_a_file() {
    let Some(home) = Home::new() else { return };
    // A beat a second, 0.1 s on its way; 50 and 51 are lost.
    let received = |n: u64| if n / 2 == 25 { "lost".to_owned() } else { (n * 1_000_000_000 + 100_000_000).to_string() };
    let lines: String = (1..=100).map(|n| format!("{n},{},{}\n", n * 1_000_000_000, received(n))).collect();
    std::fs::write(home.path().join("trace.csv"), format!("seq,send_ns,recv_ns\n{lines}")).unwrap();
    let judge = ["experiment", "detectors", "--trace", "trace.csv", "--detector", "fixed", "--json"];
    let fixed = ["--param", "suspect=2.5", "--param", "scan=0", "--crash-at", "60500000000"];
    let judged = home.json(&[judge.as_slice(), &fixed].concat());
    let figure = |name: &str| judged[name].as_f64().unwrap();
    assert_eq!((figure("interval_ms"), figure("crashes"), figure("mistakes")), (1_000.0, 1.0, 1.0), "{judged}");
    // Heard at 60.1 s, suspected at 62.6 s; wrongly from 51.6 s to 52.1 s.
    assert!((figure("detection_p99_s") - 2.1).abs() < 1e-6, "{judged}");
    assert!((figure("mistake_duration_s") - 0.5).abs() < 1e-6 && judged["mistake_recurrence_s"].is_null(), "{judged}");
    // Stamps of two clocks make no figures: the receiver's is behind, or so far ahead that nothing was heard in time.
    for (ahead, expected) in [(-1_000_000_000_i64, "the clocks differ"), (200_000_000_000, "of different clocks")] {
        let received = |n: i64| n * 1_000_000_000 + 100_000_000 + ahead;
        let lines: String = (1..=100).map(|n| format!("{n},{},{}\n", n * 1_000_000_000, received(n))).collect();
        std::fs::write(home.path().join("apart.csv"), lines).unwrap();
        let error = home.fails(&["experiment", "detectors", "--trace", "apart.csv"]);
        assert!(error.contains(expected) && error.contains("subtract the difference"), "{error}");
    }
    let spread = home.json(&judge);
    assert!(spread["crashes"].as_u64().unwrap() > 900, "{spread}");
}

#[test]
fn detectors_are_swept() {
    let Some(home) = Home::new() else { return };
    if !launcher::testing::full() {
        return;
    }
    let report = run(&home, "detectors", &["--quick"]);
    let cells = report["sections"][0]["measured"].as_array().unwrap();
    assert!(cells.len() >= 24 && cells.iter().all(|cell| cell["settings"].as_array().unwrap().len() > 50), "{report}");
    assert!(report["verdicts"].as_array().unwrap().iter().all(|verdict| verdict["passed"].is_null()), "{report}");
}

/// A quick run that needs no servers: its first table has at least this many rows, and nothing in it failed.
fn quick(name: &str, rows: usize) {
    let home = Home::bare();
    let report = run(&home, name, &["--quick"]);
    assert_eq!(report["quick"].as_bool(), Some(true), "{report}");
    let tables = report["sections"][0]["tables"].as_array().unwrap();
    assert!(!tables.is_empty(), "{report}");
    let lengths: Vec<usize> = tables.iter().map(|table| table["rows"].as_array().unwrap().len()).collect();
    assert!(lengths[0] >= rows && !lengths.contains(&0), "{lengths:?} in {report}");
    not_failed(&report);
}

fn not_failed(report: &Value) {
    let failed = |verdict: &Value| verdict["passed"].as_bool() == Some(false);
    assert!(!report["verdicts"].as_array().unwrap().iter().any(failed), "{report}");
}

#[test]
fn three_codecs_are_compared() {
    quick("codecs", 3);
}

#[test]
fn thousands_of_senders_beat() {
    quick("senders", 3);
}

#[test]
fn senders_reconnect_or_give_up() {
    quick("reconnect", 5);
}

#[test]
fn tcp_and_udp_beat_through_the_same_faults() {
    if launcher::testing::full() {
        quick("transports", 7);
    }
}

#[test]
fn workers_die_and_their_partitions_go_to_others() {
    let Some(home) = Home::new() else { return };
    if !launcher::testing::full() {
        return;
    }
    let report = run(&home, "switchover", &["--quick"]);
    let series = report["sections"][0]["measured"].as_array().unwrap();
    assert_eq!(series.len(), 2, "{report}");
    for one in series {
        assert_eq!(one["samples"].as_array().unwrap().len(), 6, "{one}");
        assert!(one["writes"].as_u64().unwrap() > 0 && one["stale_writes"] == 0, "{one}");
        assert!(one["etcd_away"]["writes"].as_u64().unwrap() > 0, "{one}");
        assert!(one["check"]["acknowledged"].as_u64().unwrap() > 0, "{one}");
        assert_eq!(one["check"]["violations"], serde_json::json!([]), "{one}");
        assert!(!one["slowest"]["rows"].as_array().unwrap().is_empty(), "{one}");
    }
    let control = &report["sections"][1]["measured"];
    assert!(control["stale_writes"] == 0 || control["found"] == true, "{control}");
    not_failed(&report);
}

#[test]
fn each_event_counts_once_through_kills() {
    let Some(home) = Home::with_kafka() else { return };
    let report = run(&home, "exactly-once", &["--quick"]);
    let measured = &report["sections"][0]["measured"];
    assert_eq!(measured["events"].as_u64(), Some(20_000), "{measured}");
    assert_eq!(measured["faults"].as_array().map(Vec::len), Some(9), "{measured}");
    assert_eq!(measured["topic"]["dead_letters"], measured["poison"], "{measured}");
    for verdict in report["verdicts"].as_array().unwrap() {
        assert_eq!(verdict["passed"].as_bool(), Some(true), "{verdict}");
    }
}

#[test]
fn damaged_copies_of_the_model_are_repaired() {
    let Some(home) = Home::with_kafka() else { return };
    let report = run(&home, "corruption", &["--quick"]);
    let measured = &report["sections"][0]["measured"];
    assert_eq!(measured["repairs"].as_array().map(Vec::len), Some(10), "{measured}");
    let count = |value: &Value| value.as_u64().unwrap();
    for repair in measured["repairs"].as_array().unwrap() {
        assert!(count(&repair["received"]) <= count(&repair["allowed"]), "{repair}");
    }
    let [files, death] = [&measured["files"], &measured["deaths"][0]];
    assert_eq!(count(&files["wrong"]), 0, "{files}");
    assert!(count(&files["compared"]) > 100 && count(&files["versions"]) > 16, "{files}");
    assert!(count(&death["copies"]) > 0 && count(&measured["switches"]["switches"]) > 0, "{measured}");
    assert_eq!(count(&measured["failed_list_reads"]), 0, "{measured}");
}

#[test]
fn partitions_of_dead_owners_are_consumed_again() {
    let Some(home) = Home::with_kafka() else { return };
    if !launcher::testing::full() {
        return;
    }
    let report = run(&home, "failover", &["--quick"]);
    let series = report["sections"][0]["measured"].as_array().unwrap();
    assert_eq!(series.len(), 4, "{report}");
    for sample in series.iter().flat_map(|one| one["samples"].as_array().unwrap()) {
        assert!(sample["consumed_s"].is_number() && sample["partitions"].as_u64().unwrap() > 0, "{sample}");
    }
}

#[test]
fn misses_are_compared_under_events_and_a_backlog_is_drained() {
    let Some(home) = Home::with_kafka() else { return };
    if !launcher::testing::full() {
        return;
    }
    let report = run(&home, "decoupling", &["--quick", "--law", "none"]);
    let [direct, kafka] = report["sections"][0]["measured"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert_eq!((direct["path"].as_str(), kafka["path"].as_str()), (Some("direct"), Some("kafka")));
    assert!(direct["backlog"].is_null() && direct["misses"].as_array().unwrap().len() == 1, "{direct}");
    assert_eq!(direct["first_reads"]["shows_pct"].as_f64(), Some(100.0), "{direct}");
    let [inline, prepared] = kafka["misses"].as_array().unwrap().as_slice() else { panic!("{kafka}") };
    for misses in [inline, prepared] {
        assert!(misses["reads"].as_u64().unwrap() > 100, "{kafka}");
    }
    // Counts do not depend on the machine.
    let rows = |misses: &Value| misses["rows"].as_f64().unwrap();
    assert!(rows(prepared) < 1.5 && rows(inline) > 5.0, "{kafka}");
    let number = |value: &Value| value.as_f64().unwrap();
    assert!(number(&kafka["freshness"]["events"]) > 500.0, "{kafka}");
    assert!(number(&kafka["backlog"]["consumed_per_s"]) > 0.0, "{kafka}");
    assert_eq!(kafka["first_reads"]["never"].as_u64(), Some(0), "{kafka}");
}

#[test]
fn a_worker_whose_writes_stall_is_measured_with_heartbeats_alone() {
    let Some(home) = Home::new() else { return };
    let words = ["--quick", "--fault", "writes-stall", "--evidence", "heartbeats"];
    let report = run(&home, "gray", &words);
    let [one] = report["sections"][0]["measured"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert_eq!((one["fault"].as_str(), one["defence"].as_str()), (Some("writes-stall"), Some("heartbeats")));
    // Its heartbeats arrive: without other evidence it keeps its partitions, and their users get errors until the end.
    assert_eq!((one["tables"].as_array().map(Vec::len), one["moved"].as_u64()), (Some(0), Some(0)), "{one}");
    assert!(one["detected"].is_null() && one["served_after_s"].is_null(), "{one}");
    assert!(one["errors"].as_u64().unwrap() > 0 && one["errors"].as_u64() < one["writes"].as_u64(), "{one}");
}

/// A fifth of the load: the model says that this stall sticks, and all cures on are beside it.
#[test]
fn a_stall_that_sticks_is_measured_and_a_second_run_takes_its_cells_over() {
    let Some(home) = Home::new() else { return };
    let words = ["--quick", "--class", "retry-storm", "--scale", "5"];
    let report = run(&home, "metastable", &words);
    let [plain, cured] = report["sections"][0]["measured"]["cells"].as_array().unwrap().as_slice() else {
        panic!("{report}")
    };
    assert_eq!((plain["cure"].as_str(), cured["cure"].as_str()), (Some("none"), Some("all")));
    assert_eq!((&plain["size"], &plain["per_s"]), (&cured["size"], &cured["per_s"]));
    // Without a cure a slow machine makes it only worse.
    assert_ne!(plain["state"].as_str(), Some("recovered"), "{plain}");
    assert!(plain["tries_per_request"].as_f64().unwrap() > 1.5, "{plain}");
    // Budget: a tenth of the first tries, and 10 a second, of 180.
    assert!(cured["tries_per_request"].as_f64().unwrap() < 1.5, "{cured}");
    let before = std::fs::read_to_string(home.path().join("out/cells.jsonl")).unwrap();
    assert_eq!(before.lines().count(), 3, "the settings and two cells");

    let resume = [&["experiment", "metastable", "--resume", "out", "--json"], &words[..]].concat();
    let again = home.json(&resume);
    let seconds = |report: &Value, n: usize| report["sections"][0]["measured"]["cells"][n]["seconds"].clone();
    assert_eq!([0, 1].map(|n| seconds(&again, n)), [0, 1].map(|n| seconds(&report, n)));
    assert_eq!(std::fs::read_to_string(home.path().join("out/cells.jsonl")).unwrap(), before);
    let error = home.fails(&["experiment", "metastable", "--resume", "out", "--quick", "--class", "retry-storm"]);
    assert!(error.contains("other settings") && error.contains("scale: 5 before, 1 now"), "{error}");
}

/// Of the variants of a section: operations of the servers.
fn completed(section: &Value) -> Vec<u64> {
    let runs = section["measured"]["runs"].as_array().unwrap();
    runs.iter().map(|run| run["by_shard"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum()).collect()
}

#[test]
fn reads_and_writes_go_to_one_and_two_modelled_instances() {
    let Some(home) = Home::new() else { return };
    let report = run(&home, "sharding", &["--quick", "--part", "law", "--servers", "2"]);
    let [section] = report["sections"].as_array().unwrap().as_slice() else { panic!("{report}") };
    let completed = completed(section);
    assert!(completed.len() == 4 && completed.iter().all(|count| *count > 0), "{section}");
    for run in section["measured"]["runs"].as_array().unwrap() {
        assert_eq!(run["failed"].as_u64(), Some(0), "{run}");
        // No instance is without work.
        assert!(run["by_shard"].as_array().unwrap().iter().all(|count| count.as_u64().unwrap() > 0), "{run}");
    }
    // (74 + 0.2 × 800) / (74 + 0.2 × 400)
    let predicted = section["measured"]["predicted"][1]["gain"].as_f64().unwrap();
    assert!((predicted - 234.0 / 154.0).abs() < 1e-4, "{section}");
    assert!(section["measured"]["gains"].as_array().unwrap().iter().all(|one| one["gain"]["mean"].is_number()));
    assert!(report["verdicts"].as_array().unwrap().iter().all(|verdict| verdict["passed"].is_null()), "{report}");
}

#[test]
fn sixteen_servers_with_quotas_with_a_law_and_under_skewed_users() {
    let Some(home) = Home::new() else { return };
    if !launcher::testing::full() {
        return;
    }
    let report = run(&home, "sharding", &["--quick"]);
    let [quota, law, skew] = report["sections"].as_array().unwrap().as_slice() else { panic!("{report}") };
    let (of_law, of_skew) = (completed(law), completed(skew));
    assert_eq!((of_law.len(), of_skew.len()), (10, 9), "{report}");
    assert!(of_law.iter().chain(&of_skew).all(|count| *count > 0), "{report}");
    if quota["measured"]["skipped"].is_null() {
        assert!(completed(quota).len() == 10 && completed(quota).iter().all(|count| *count > 0), "{quota}");
    }
    let from_redis: u64 =
        skew["measured"]["runs"].as_array().unwrap().iter().map(|run| run["from_redis"].as_u64().unwrap()).sum();
    assert!(from_redis > 0, "{skew}");
}
