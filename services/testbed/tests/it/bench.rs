//! That the comparisons run; what they come to is for a release build on a quiet machine.

use crate::Home;

#[test]
fn a_hit_is_compared_with_the_least_that_can_be_done() {
    let Some(home) = Home::new() else { return };
    let json = home.json(&["bench", "hit", "--repeat", "1", "--json"]);
    let sides = json["sides"].as_array().unwrap();
    let names: Vec<&str> = sides.iter().map(|side| side["name"].as_str().unwrap()).collect();
    assert_eq!(names[..3], ["api × 8", "bare × 8", "api with in-process cache × 8"], "{json}");
    assert_eq!(names.len(), 9, "three at each concurrency");
    let bytes = |side: usize| sides[side]["figures"]["body_bytes"]["median"].as_f64().unwrap();
    assert!(bytes(0) > 100.0 && (1..9).all(|side| (bytes(0) - bytes(side)).abs() < 5.0), "all answer the same: {json}");
    assert!(json["ratio_median"].as_f64().is_some_and(|ratio| ratio > 0.0), "{json}");
    assert!(json["conditions"]["versions"]["redis"].is_string(), "{json}");
    assert_eq!(home.processes(), [] as [u64; 0]);
}

#[test]
fn heartbeats_reach_the_observer_in_every_way() {
    let home = Home::bare();
    let json = home.json(&["bench", "heartbeats", "--repeat", "1", "--json"]);
    let sides = json["sides"].as_array().unwrap();
    let figure = |side: usize, name: &str| sides[side]["figures"][name]["median"].as_f64().unwrap();
    assert_eq!(figure(0, "beats_per_datagram"), 1.0, "{json}");
    let batched = sides.iter().position(|side| side["name"] == "batches").unwrap();
    assert!(figure(batched, "beats_per_datagram") > 5.0 && figure(batched, "beats_per_s") > 0.0, "{json}");
    assert!(figure(sides.len() - 1, "bytes_per_node") <= 256.0, "{json}");
    assert!(json["marks"].as_array().unwrap().iter().any(|mark| mark["at_least"] == 120_000.0), "{json}");
}

#[test]
fn codecs_are_shown_beside_the_article() {
    let json = Home::bare().json(&["bench", "codecs", "--repeat", "1", "--json"]);
    let names: Vec<&str> = json["sides"].as_array().unwrap().iter().filter_map(|side| side["name"].as_str()).collect();
    assert_eq!(names, ["JSON", "Protobuf", "Protobuf+Zstd"]);
    let marks = json["marks"].as_array().unwrap();
    let of = |figure: &str| marks.iter().find(|mark| mark["figure"] == figure).unwrap();
    assert_eq!(of("article_fields_bytes")["article"], 187.0, "{json}");
    let judged =
        marks.iter().find(|mark| mark["figure"] == "batch_saving_pct" && mark["at_least"].is_number()).unwrap();
    assert_eq!(judged["met"], true, "{json}");
}

/// An aim for a release build: 120,000 heartbeats per second, which no debug build of one repetition has to meet.
#[test]
fn a_missed_aim_is_an_exit_code_only_with_check() {
    let home = Home::bare();
    for (args, expected) in [(&["--json"][..], 0), (&["--json", "--check"], 2)] {
        let output = home.run(&[&["bench", "heartbeats", "--repeat", "1"], args].concat());
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let missed = json["marks"].as_array().unwrap().iter().any(|mark| mark["met"] == false);
        let expected = if missed { expected } else { 0 };
        assert_eq!(output.status.code(), Some(expected), "{json}");
    }
}

#[test]
fn telemetry_is_compared_with_the_same_binary_without_it() {
    let Some(home) = Home::new() else { return };
    let json = home.json(&["bench", "telemetry", "--repeat", "1", "--json"]);
    for rate in ["0", "0.1", "1"] {
        assert!(json["rates"][rate]["ratio_median"].as_f64().is_some_and(|ratio| ratio > 0.0), "{json}");
    }
    assert_eq!(json["rates"]["0"]["ratio_median"], json["ratio_median"]);
    assert_eq!(json["sides"].as_array().map(Vec::len), Some(6));
    let remarks: Vec<&str> =
        json["conditions"]["remarks"].as_array().unwrap().iter().filter_map(|r| r.as_str()).collect();
    assert!(remarks.contains(&"api, 0 % recorded: 0 spans sent, 0 dropped."), "{remarks:?}");
    assert!(!remarks.contains(&"api, 100 % recorded: 0 spans sent, 0 dropped."), "{remarks:?}");
    assert_eq!(home.processes(), [] as [u64; 0]);
}

#[test]
fn a_worker_is_compared_with_a_loop_that_inserts_the_same_rows() {
    let Some(home) = Home::with_kafka() else { return };
    if !launcher::testing::full() {
        return;
    }
    let json = home.json(&["bench", "events", "--repeat", "1", "--json"]);
    let sides = json["sides"].as_array().unwrap();
    let names: Vec<&str> = sides.iter().map(|side| side["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["worker", "worker without lists", "inserts only", "decodes only"]);
    let figure = |side: usize, name: &str| sides[side]["figures"][name]["median"].as_f64().unwrap();
    assert!((0..4).all(|side| figure(side, "events_per_cpu_s") > 0.0), "{json}");
    assert!(figure(0, "stage_publish_us_per_event") > figure(1, "stage_publish_us_per_event"), "{json}");
    assert_eq!(json["marks"][0]["at_least"].as_f64(), Some(0.4), "{json}");
    let remark = json["conditions"]["remarks"][0].as_str().unwrap();
    assert!(remark.starts_with("The worker's longest stage is "), "{remark}");
    assert_eq!(home.processes(), [] as [u64; 0]);
}

/// What the others lose, their negative controls in `services/api/tests/it/slots.rs` show.
#[test]
fn no_request_is_lost_while_replicas_come_and_go() {
    let Some(home) = Home::new() else { return };
    let json = home.json(&["bench", "slots", "--repeat", "1", "--json"]);
    let sides = json["sides"].as_array().unwrap();
    let names: Vec<&str> = sides.iter().map(|side| side["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["slots", "slots and a reload", "slots without a leave"]);
    let mark = &json["marks"][0];
    assert_eq!((mark["side"].as_str(), mark["figure"].as_str()), (Some("slots"), Some("lost")), "{json}");
    assert_eq!((mark["measured"].as_f64(), mark["met"].as_bool()), (Some(0.0), Some(true)), "{json}");
    assert!(sides.iter().all(|side| side["figures"]["requests"]["median"].as_f64() > Some(100.0)), "{json}");
    assert_eq!(home.processes(), [] as [u64; 0]);
}
