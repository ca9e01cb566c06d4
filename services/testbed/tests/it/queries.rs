//! What dashboards and alerts ask, asked of a real Prometheus beside a real stack under a short load with a fault in it, while a
//! worker is stopped, failed and taken back, and a third replica comes and goes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{SystemTime, UNIX_EPOCH},
};

use launcher::{Signal, exporters};
use serde_json::Value;

use crate::{Home, alerts, dashboards, heartbeats::online, wait_until};

/// Prefixes of series that the native stack lacks, and the program that makes them. Only queries for these are left out, and only where the
/// program is not installed; the collector runs in compose only.
const ELSEWHERE: [(&str, &[&str]); 4] =
    [("otelcol_", &[]), ("node_", exporters::NODE), ("redis_", exporters::REDIS), ("mysql_", exporters::MYSQL)];

/// Twenty users for 20 s, half of the ids unknown, lists that are never fresh so that every step of the path is taken; the store stands
/// still for 3 s of it, which makes errors, waiting and refusals.
const SCENARIO: &str = r#"
name = "queries"
description = "Touches every series."
steps = [20]
interval_ms = 500
timeout_ms = 3000
warm_up_s = 1
measure_s = 20
replicas = 2
profiles = ["protected"]
flush_cache_before_step = false
[ids]
unknown_share = 0.5
known = "once"
[law]
kind = "none"
[store]
pool_size = 2
order = "newest"
checkout_timeout_ms = 1000
max_waiting = 100
[[faults]]
at_s = 5
for_s = 3
kind = "stall"
"#;
/// 40 requests/s are 40 % of 2 × 50 m: a third replica comes. It goes 300 s / `HURRY` after the load.
const HPA: &str = "
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: queries}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: queries}
  minReplicas: 2
  maxReplicas: 3
  metrics:
    - type: Resource
      resource: {name: cpu, target: {type: Utilization, averageUtilization: 25}}
";
const HURRY: &str = "30";
/// The jobs of the stack's own processes: two replicas, faultproxy, three monitors, three workers, nginx, the counter of its answers and the
/// autoscaler.
const JOBS: &str = "api|faultproxy|monitor|worker|gateway|access-log|autoscaler";
const TARGETS: &str = "12";
/// Admission that is reached by a handful of requests that wait for the store.
const SETS: [&str; 6] = [
    "cache.fresh_ms=1",
    "cache.stale_ms=0",
    "guards.warmup=off",
    "http.admission=fixed",
    "http.admission_limit=3",
    "http.admission_waiting=1",
];

struct Prometheus {
    url: String,
    traces: String,
    http: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

impl Prometheus {
    fn of(home: &Home) -> Self {
        let stack = std::fs::read_dir(home.path().join("stacks")).unwrap().next().unwrap().unwrap().path();
        let described: Value = serde_json::from_slice(&std::fs::read(stack.join("stack.json")).unwrap()).unwrap();
        let endpoint = |name: &str| described["endpoints"][name].as_str().unwrap().to_owned();
        Self {
            url: endpoint("prometheus"),
            traces: endpoint("traces"),
            http: runtime::http::plain().build().unwrap(),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
        }
    }

    fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let url = reqwest::Url::parse_with_params(&format!("{}/api/v1/{path}", self.url), parameters).unwrap();
        self.runtime.block_on(async { self.http.get(url).send().await.unwrap().json().await.unwrap() })
    }

    /// Of all exemplars of that time, the bucket and the trace that each leads to.
    fn exemplars(&self, series: &str, from_s: u64, to_s: u64) -> Vec<(Value, String)> {
        let (from, to) = (from_s.to_string(), to_s.to_string());
        let answer = self.ask("query_exemplars", &[("query", series), ("start", &from), ("end", &to)]);
        let of_series = |series: &Value| {
            let labels = series["seriesLabels"].clone();
            let exemplars = series["exemplars"].as_array().unwrap().clone();
            exemplars
                .into_iter()
                .map(move |one| (labels.clone(), one["labels"]["trace_id"].as_str().unwrap().to_owned()))
        };
        answer["data"].as_array().unwrap().iter().flat_map(|series| of_series(series).collect::<Vec<_>>()).collect()
    }

    /// `None`: the store of traces does not have it.
    fn trace(&self, id: &str) -> Option<Value> {
        let url = format!("{}/traces/{id}", self.traces);
        self.runtime.block_on(async {
            let answer = self.http.get(url).send().await.unwrap();
            if answer.status().is_success() { answer.json().await.unwrap() } else { None }
        })
    }

    /// Every series of the stack's own processes that is there now. Alerts that are about to fire are Prometheus's, and come and go.
    fn series(&self) -> BTreeSet<String> {
        let own = format!("{{job=~\"{JOBS}\",__name__!~\"ALERTS.*\"}}");
        let answer = self.ask("query", &[("query", &own)]);
        answer["data"]["result"].as_array().unwrap().iter().map(|series| series["metric"].to_string()).collect()
    }

    /// `None`: it has found a number at some instant of that time; else what was wrong.
    fn problem(&self, expression: &str, from_s: u64, to_s: u64) -> Option<String> {
        let (from, to) = (from_s.to_string(), to_s.to_string());
        let answer = self.ask("query_range", &[("query", expression), ("start", &from), ("end", &to), ("step", "1")]);
        let Some(series) = answer["data"]["result"].as_array() else { return Some(answer["error"].to_string()) };
        let values = series.iter().flat_map(|series| series["values"].as_array().unwrap());
        let found =
            values.map(|value| value[1].as_str().unwrap()).any(|value| value != "NaN" && !value.contains("Inf"));
        (!found).then(|| if series.is_empty() { "no series".to_owned() } else { "no number".to_owned() })
    }

    /// Those of these (place, expression) that find nothing.
    fn check(&self, queries: &[(String, String)], from_s: u64, to_s: u64) -> Vec<String> {
        let missing = ELSEWHERE.iter().filter(|(_, programs)| launcher::find_program(programs).is_none());
        let missing: Vec<&str> = missing.map(|(prefix, _)| *prefix).collect();
        let asked = queries.iter().filter(|(_, text)| !missing.iter().any(|prefix| asks_for(text, prefix)));
        let problem = |(place, text): &(String, String)| {
            let problem = self.problem(&asks_for_something(text), from_s, to_s)?;
            Some(format!("{place}: {problem}: {text}"))
        };
        asked.filter_map(problem).collect()
    }
}

/// Whether a series with this prefix is in the query; `redis_skipped_total` is ours.
fn asks_for(text: &str, prefix: &str) -> bool {
    let ours = text.replace("redis_skipped_total", "");
    let mut starts = ours.match_indices(prefix).map(|(at, _)| at);
    starts.any(|at| !ours[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
}

/// The query with variables filled in as Grafana would, and without operands that always answer.
fn asks_for_something(text: &str) -> String {
    let filled = text.replace("$__rate_interval", "10s").replace("$__range", "30s").replace("$instance", ".*");
    filled.replace(" or vector(0)", "")
}

/// Conditions answer 0 or 1 where the panel would show nothing.
fn of_dashboards() -> Vec<(String, String)> {
    let judged = |text: String| text.replace(" < api:", " < bool api:").replace(") == ", ") == bool ");
    let all = dashboards::dashboards().values().flat_map(dashboards::expressions).collect::<Vec<_>>();
    all.into_iter().map(|(place, text)| (place, judged(text))).collect()
}

/// Each alert's expression as one that answers 0 or 1 where the alert would answer nothing.
fn of_alerts() -> Vec<(String, String)> {
    let judged = |text: &str| text.replace(" > ", " > bool ").replace(" == ", " == bool ");
    alerts::alerts().iter().map(|(name, alert)| (name.clone(), judged(alert["expr"].as_str().unwrap()))).collect()
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn every_query_finds_data_and_no_series_vanishes() {
    let Some(home) = Home::with_kafka() else { return };
    if !launcher::testing::have(&["prometheus"]) {
        return;
    }
    let scenario = home.path().join("queries.toml");
    std::fs::write(&scenario, SCENARIO).unwrap();
    let scenario = scenario.to_str().unwrap();
    let sets: Vec<&str> = SETS.iter().flat_map(|set| ["--set", set]).collect();
    let manifest = home.path().join("hpa.yaml");
    std::fs::write(&manifest, HPA).unwrap();
    let manifest = manifest.to_str().unwrap();
    let up = ["up", "--profile", "protected", "--users", "300", "--scenario", scenario];
    let scaling = ["--autoscale", "--hpa", manifest, "--quota", "modelled", "--hurry", HURRY];
    home.ok(&[&up[..], &scaling, &sets].concat());
    let prometheus = Prometheus::of(&home);
    // Each of them answers, and no target is left of a replica that has gone.
    let complete = || {
        let is_all = |of: &str| {
            let answer = prometheus.ask("query", &[("query", &format!("{of}(up{{job=~\"{JOBS}\"}})"))]);
            answer["data"]["result"][0]["value"][1] == TARGETS
        };
        is_all("sum") && is_all("count")
    };
    wait_until("Prometheus sees every process", complete);

    let (from_s, before) = (now_s(), prometheus.series());
    let mut load = home.start(&["load", scenario]);
    let mut events = home.start(&["load", "events", "--rate", "50", "--for", "20s"]);
    let stopped = home.child("worker-2");
    assert!(stopped.signal(Signal::SIGSTOP));
    wait_until("the stopped worker is failed", || online(&home.beats()) == 2);
    assert!(stopped.signal(Signal::SIGCONT));
    wait_until("it comes back in a new life", || online(&home.beats()) == 3);
    assert!(matches!(load.wait().unwrap().code(), Some(0 | 3)) && events.wait().unwrap().success());
    wait_until("the third replica has come and gone", || {
        let seen = home.json(&["status", "--json"])["autoscaler"]["replicas"].clone();
        let is = |what: &str, count: u64| seen[what] == count;
        seen["scaled_up"].as_u64() > Some(0) && is("desired", 2) && is("ready", 2) && is("leaving", 0)
    });
    wait_until("Prometheus sees it again", complete);
    // What the last scrape saw is evaluated a moment later.
    wait_until("the rules have seen the load", || {
        prometheus.problem("slo:latency_error:ratio_rate5m", from_s, now_s()).is_none()
    });
    let to_s = now_s();

    let queries = of_dashboards();
    assert!(queries.len() > 150, "only {} queries", queries.len());
    assert_eq!(prometheus.check(&queries, from_s, to_s), [] as [String; 0]);
    assert_eq!(prometheus.check(&of_alerts(), from_s, to_s), [] as [String; 0]);

    // The check notices a query that is a little off.
    for (sound, spoiled) in [
        ("http_server_request_duration_seconds_count", "http_server_request_duration_seconds_total"),
        ("http_route=\"/recommendations\"", "http_route=\"/recommendation\""),
    ] {
        let spoil = |(place, text): &(String, String)| (place.clone(), text.replace(sound, spoiled));
        let off: Vec<_> =
            queries.iter().filter(|(_, text)| text.contains(sound) && !text.contains(" or ")).map(spoil).collect();
        assert!(off.len() >= 5, "{sound}");
        assert_eq!(prometheus.check(&off, from_s, to_s).len(), off.len(), "{spoiled}");
    }

    // Every series is there from the start and outlives the fault.
    let after = prometheus.series();
    let vanished: Vec<_> = before.difference(&after).collect();
    let late: Vec<_> = after.difference(&before).collect();
    assert!(vanished.is_empty() && late.is_empty(), "vanished: {vanished:#?}\nnot there from the start: {late:#?}");
    assert!(before.len() > 500, "only {} series", before.len());
    rules_are_in_order(&prometheus);
    exemplars_lead_to_traces(&prometheus, from_s, to_s);
}

/// Not one of them leads nowhere.
fn exemplars_lead_to_traces(prometheus: &Prometheus, from_s: u64, to_s: u64) {
    let exemplars = prometheus.exemplars("http_server_request_duration_seconds_bucket", from_s, to_s);
    let classes: BTreeSet<&str> =
        exemplars.iter().map(|(series, _)| series["status_class"].as_str().unwrap()).collect();
    assert_eq!(classes, BTreeSet::from(["2xx", "5xx"]), "{exemplars:?}");
    for (series, id) in &exemplars {
        let trace = prometheus.trace(id).unwrap_or_else(|| panic!("{id} of {series} is not kept"));
        let spans = trace["spans"].as_array().unwrap();
        let route = series["http_route"].as_str().unwrap();
        let is_server = |span: &&Value| span["name"].as_str().unwrap().ends_with(route) && span["service"] == "api";
        let server = spans.iter().find(is_server).unwrap();
        let status = server["attributes"]["http.response.status_code"].as_str().unwrap();
        assert_eq!(series["status_class"].as_str().unwrap()[..1], status[..1], "{trace}");
        let upper = series["le"].as_str().unwrap().parse().unwrap_or(f64::INFINITY);
        let took = server["duration_ns"].as_f64().unwrap() / 1e9;
        // The span ends a little later.
        assert!(took <= upper + 0.1, "{took} s in the bucket up to {upper}");
    }
}

/// Prometheus has evaluated every rule of deploy/prometheus without an error.
fn rules_are_in_order(prometheus: &Prometheus) {
    let answer = prometheus.ask("rules", &[]);
    let groups = answer["data"]["groups"].as_array().unwrap();
    let rules: BTreeMap<&str, &Value> = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap())
        .map(|rule| (rule["name"].as_str().unwrap(), rule))
        .collect();
    for (name, rule) in &rules {
        assert_eq!(rule["health"], "ok", "{name}: {rule}");
    }
    for name in alerts::alerts().keys() {
        assert!(rules.contains_key(name.as_str()), "Prometheus does not know the alert {name}");
    }
}
