//! `up --autoscale`: replicas come with the load and go after it, and no request is lost.

use serde_json::Value;

use crate::{Home, wait_until};

/// 32 requests/s are 32 % of 2 × 50 m, and 16 % of four. So low that no request waits for CPU.
const HPA: &str = "apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: test}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: test}
  minReplicas: 2
  maxReplicas: 4
  metrics:
    - type: Resource
      resource: {name: cpu, target: {type: Utilization, averageUtilization: 15}}
";
const USERS: &str = "32";

fn manifest(home: &Home, text: &str) -> String {
    let file = home.path().join("hpa.yaml");
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

/// The root of each traced decision, newest first, and the names of the spans below it.
fn decisions(home: &Home) -> Vec<(Value, Vec<String>)> {
    let list = home.json(&["trace", "--limit", "1000", "--json"]);
    let decisions = list.as_array().unwrap().iter().filter(|trace| trace["name"] == "autoscale");
    let whole = |trace: &Value| {
        let trace = home.json(&["trace", trace["id"].as_str().unwrap(), "--json"]);
        let spans = trace["spans"].as_array().unwrap();
        let root = spans.iter().find(|span| span["parent"].is_null())?;
        let below = spans.iter().filter(|span| span["parent"] == root["id"]);
        Some((root.clone(), below.map(|span| span["name"].as_str().unwrap().to_owned()).collect()))
    };
    decisions.filter_map(whole).collect()
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
    // The step may be invalid on a busy machine.
    let is_complete = matches!(load.wait().unwrap().code(), Some(0 | 3));
    assert!(is_complete, "{}", std::fs::read_to_string(home.path().join("started.log")).unwrap());
    let report: Value =
        serde_json::from_slice(&std::fs::read(home.path().join("loaded/report.json")).unwrap()).unwrap();
    let step = &report["steps"][0];
    assert_eq!(step["error_pct"].as_f64(), Some(0.0), "{step}");
    wait_until("two have left", || count("desired") == 2 && count("ready") == 2 && count("leaving") == 0);
    let last = scaling()["replicas"].clone();
    assert!(last["scaled_up"].as_u64() > Some(0) && last["scaled_down"].as_u64() > Some(0), "{last}");
    let text = home.ok(&["status"]);
    assert!(text.contains("2 desired of 2 to 4") && text.contains("15 % aimed at"), "{text}");
    let log = std::fs::read_to_string(home.path().join("up.log")).unwrap();
    assert!(log.contains("autoscaler: 2 → ") && log.contains("→ 2 replicas"), "{log}");

    // A decision is a trace of what came of it. There may be more than one for two replicas.
    let count_parts =
        |name: &str| decisions(&home).iter().flat_map(|(_, below)| below).filter(|part| *part == name).count();
    wait_until("the starts of replicas are traced", || count_parts("start replica") >= 2);
    wait_until("so are their ends", || count_parts("drain replica") == count_parts("start replica"));
    let last = decisions(&home).into_iter().find(|(_, below)| !below.is_empty()).unwrap().0;
    let attribute = |key: &str| last["attributes"][key].as_str().unwrap();
    assert_eq!((attribute("testbed.replicas.after"), attribute("k8s.hpa.metric.type")), ("2", "Resource"), "{last}");
    assert!(last["events"].as_array().is_some_and(|events| !events.is_empty()), "{last}");

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
