//! `up --autoscale`: replicas come with the load and go after it, and no request is lost.

use serde_json::Value;

use crate::{Home, wait_until};

/// 80 requests/s are 80 % of 2 × 50 m, and 40 % of four.
const HPA: &str = "apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: test}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: test}
  minReplicas: 2
  maxReplicas: 4
  metrics:
    - type: Resource
      resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}
";
const USERS: &str = "80";

fn manifest(home: &Home, text: &str) -> String {
    let file = home.path().join("hpa.yaml");
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

/// Names of the spans below the root, sorted, of the newest decision that changed the count from `before`.
fn parts(home: &Home, before: &str) -> Option<(Value, Vec<String>)> {
    let list = home.json(&["trace", "--limit", "1000", "--json"]);
    let decisions = list.as_array().unwrap().iter().filter(|trace| trace["name"] == "autoscale");
    decisions.map(|trace| home.json(&["trace", trace["id"].as_str().unwrap(), "--json"])).find_map(|trace| {
        let spans = trace["spans"].as_array().unwrap();
        let root = spans.iter().find(|span| span["parent"].is_null())?;
        let of = |key: &str| root["attributes"][key].as_str().unwrap_or_default();
        if of("testbed.replicas.before") != before || of("testbed.replicas.after") == before {
            return None;
        }
        let below = spans.iter().filter(|span| span["parent"] == root["id"]);
        let mut names: Vec<String> = below.map(|span| span["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        Some((root.clone(), names))
    })
}

#[test]
fn replicas_come_with_the_load_and_go_after_it() {
    let Some(home) = Home::new() else { return };
    let file = manifest(&home, HPA);
    let words = ["up", "--users", "300", "--law", "none", "--workers", "0", "--autoscale", "--hpa", &file];
    home.ok(&[&words[..], &["--quota", "modelled", "--hurry", "60"]].concat());
    let scaling = || home.json(&["status", "--json"])["autoscaler"].clone();
    let count = |what: &str| scaling()["replicas"][what].as_u64().unwrap();
    let first = scaling();
    assert_eq!((&first["quota"], &first["hurry"]), (&"modelled (chosen)".into(), &60.into()), "{first}");
    assert_eq!((first["replicas"]["min"].as_u64(), first["replicas"]["max"].as_u64()), (Some(2), Some(4)));
    assert_eq!((count("desired"), count("ready"), count("leaving")), (2, 2, 0));

    let mut load = home.start(&["load", "--users", USERS, "--for", "30s", "--out", "loaded"]);
    wait_until("four replicas are ready", || count("ready") == 4);
    assert!(load.wait().unwrap().success());
    let report: Value =
        serde_json::from_slice(&std::fs::read(home.path().join("loaded/report.json")).unwrap()).unwrap();
    let step = &report["steps"][0];
    assert_eq!(step["error_pct"].as_f64(), Some(0.0), "{step}");
    wait_until("two have left", || count("desired") == 2 && count("ready") == 2 && count("leaving") == 0);
    let last = scaling()["replicas"].clone();
    assert!(last["scaled_up"].as_u64() > Some(0) && last["scaled_down"].as_u64() > Some(0), "{last}");
    let text = home.ok(&["status"]);
    assert!(text.contains("2 desired of 2 to 4") && text.contains("50 % aimed at"), "{text}");
    let log = std::fs::read_to_string(home.path().join("up.log")).unwrap();
    assert!(log.contains("autoscaler: 2 → ") && log.contains("→ 2 replicas"), "{log}");

    // A decision is a trace of what came of it.
    wait_until("the start of replicas is traced", || {
        parts(&home, "2").is_some_and(|(_, names)| names.iter().any(|name| name == "start replica"))
    });
    wait_until("the end of replicas is traced", || {
        parts(&home, "4").is_some_and(|(_, names)| names == ["drain replica", "drain replica"])
    });
    let (root, _) = parts(&home, "4").unwrap();
    let attributes = &root["attributes"];
    assert_eq!(
        (&attributes["testbed.replicas.after"], &attributes["k8s.hpa.metric.type"]),
        (&"2".into(), &"Resource".into())
    );
    assert!(root["events"].as_array().is_some_and(|events| !events.is_empty()), "{root}");

    // A replica that dies is started again, and those that have left are not.
    home.ok(&["fault", "replica", "1", "kill"]);
    wait_until("a replica is missing", || count("ready") == 1);
    wait_until("it is ready again", || count("ready") == 2);
    assert_eq!((count("desired"), count("starting"), count("leaving")), (2, 0, 0));
    home.ok(&["down"]);
    assert_eq!(home.processes(), [] as [u64; 0]);
}

#[test]
fn what_cannot_be_scaled_by_is_refused_before_anything_starts() {
    let home = Home::bare();
    let up = |text: &str| home.fails(&["up", "--autoscale", "--hpa", &manifest(&home, text)]);
    let error = up(&HPA.replace("minReplicas: 2", "minReplicas: 9"));
    assert!(error.contains("cannot scale by") && error.contains("spec.minReplicas: 9 is above maxReplicas"), "{error}");
    assert!(up(&HPA.replace("name: cpu", "name: memory")).contains("the memory of replicas is not measured"));
    assert!(up("kind: [").contains("hpa.yaml"));
    for words in [["--hurry", "2"], ["--quota", "kernel"], ["--hpa", "hpa.yaml"]] {
        assert!(home.fails(&[&["up"][..], &words].concat()).contains("--autoscale"), "{words:?}");
    }
    assert!(home.fails(&["up", "--autoscale", "--hurry", "61"]).contains("1..=60"));
    // Where the kernel has no quotas; the reason is the machine's.
    if launcher::QuotaChoice::Kernel.check().is_err() {
        let output = home.run(&["up", "--autoscale", "--quota", "kernel"]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && error.contains("cannot enforce CPU quotas here: "), "{error}");
    }
    assert_eq!(home.processes(), [] as [u64; 0]);
}
