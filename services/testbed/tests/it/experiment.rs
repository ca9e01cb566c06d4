//! That an experiment runs from end to end; what it comes to is for a release build on a quiet machine.

use crate::Home;

#[test]
fn servers_are_killed_and_come_back() {
    let Some(home) = Home::new() else { return };
    if !launcher::testing::full() {
        return;
    }
    let report = home.json(&["experiment", "outage", "--quick", "--out", "out", "--json"]);
    let [mysql, redis] = report["outages"].as_array().unwrap().as_slice() else { panic!("{report}") };
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
    let count = |outage: &serde_json::Value, kind: &str, name: &str| outage[kind][name].as_u64().unwrap();
    assert_eq!(count(mysql, "listed", "good"), count(mysql, "listed", "asked"), "{mysql}");
    assert_eq!(count(mysql, "unlisted", "refused"), count(mysql, "unlisted", "asked"), "{mysql}");
    assert!(count(redis, "unlisted", "good") > 0, "{redis}");
    let page = std::fs::read_to_string(home.path().join("out/report.md")).unwrap();
    assert!(page.contains("While a server was away") && page.contains("Second by second"), "{page}");
    assert_eq!(home.processes(), [] as [u64; 0]);
}
