//! Targets of compose's Prometheus, and the retention of both Prometheus servers.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
    time::Duration,
};

use serde_json::Value;

use crate::{
    deploy::{Services, overlaid, read, root, services, texts, yaml},
    wait_until,
};

const PROMETHEUS: &str = "deploy/prometheus/prometheus.yml";
const MINIMAL: &str = "deploy/compose/minimal.yaml";
/// Where the minimal overlay mounts a shorter list of targets.
const TARGETS: &str = "/etc/prometheus/targets.yml";
/// Servers without a page of metrics; their exporters are scraped instead, for Kafka its clients.
const SILENT: [&str; 3] = ["mysql", "redis", "kafka"];

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Runs for as long as the stack does.
fn runs(service: &Value) -> bool {
    texts(&service["profiles"]).is_empty() && service["restart"] != "no"
}

/// The job of each host in a file of targets, and its port.
fn targets(file: &str) -> BTreeMap<String, (String, String)> {
    let file = yaml(file);
    let of_group = |group: &Value| {
        let job = group["labels"]["job"].as_str().unwrap().to_owned();
        let target = move |target: &str| {
            let (host, port) = target.split_once(':').unwrap();
            (host.to_owned(), (job.clone(), port.to_owned()))
        };
        texts(&group["targets"]).into_iter().map(target).collect::<Vec<_>>()
    };
    list(&file).iter().flat_map(of_group).collect()
}

/// Those of these services that Prometheus is to find by name.
fn named(services: &Services) -> BTreeSet<&str> {
    let by_other_ways = ["api", "prometheus"];
    let is_named = |name: &str| !SILENT.contains(&name) && !by_other_ways.contains(&name);
    services.iter().filter(|(name, service)| runs(service) && is_named(name)).map(|(name, _)| name.as_str()).collect()
}

/// A name of Docker's DNS goes with its container: a dead service found that way is no target that is down, it is none.
#[test]
fn a_dead_service_stays_a_target() {
    let config = yaml(PROMETHEUS);
    let by_dns: Vec<&str> = list(&config["scrape_configs"])
        .iter()
        .flat_map(|scrape| list(&scrape["dns_sd_configs"]))
        .flat_map(|dns| texts(&dns["names"]))
        .collect();
    assert_eq!(by_dns, ["api"], "only what is scaled may be found by DNS");

    let (services, targets) = (services(), targets("deploy/prometheus/targets.yml"));
    let mut expected = named(&services);
    // The load generator's, in nginx's network.
    expected.insert("load");
    assert_eq!(targets.keys().map(String::as_str).collect::<BTreeSet<_>>(), expected);
    for (host, (job, port)) in targets {
        let settings = services[&host]["environment"].as_object();
        if let Some(listen) = settings.and_then(|settings| settings.get("TESTBED_LISTEN__ADMIN")) {
            assert_eq!(listen, &format!("0.0.0.0:{port}"), "{host}");
            assert_eq!(host.rsplit_once('-').unwrap().0, job, "the alerts go by the job");
        }
    }
}

#[test]
fn the_minimal_overlay_has_no_target_that_it_does_not_start() {
    let volumes = yaml(MINIMAL)["services"]["prometheus"]["volumes"].clone();
    let mount = texts(&volumes).into_iter().find_map(|volume| volume.strip_suffix(":ro")?.strip_suffix(TARGETS));
    let source = mount.unwrap_or_else(|| panic!("nothing is mounted at {TARGETS}: {volumes}")).trim_end_matches(':');
    let (minimal, full) = (targets(source.trim_start_matches("./")), targets("deploy/prometheus/targets.yml"));
    let services = overlaid(MINIMAL);
    let mut expected = named(&services);
    expected.insert("load");
    assert_eq!(minimal.keys().map(String::as_str).collect::<BTreeSet<_>>(), expected);
    for (host, target) in minimal {
        assert_eq!(full.get(&host), Some(&target), "{host}");
    }
}

/// Panels call a process by its label `instance`.
#[test]
fn targets_are_called_by_the_names_of_their_services() {
    if !launcher::testing::have(&["promtool"]) {
        return;
    }
    let (promtool, dir) = (launcher::find_program(&["promtool"]).unwrap(), root().join("deploy/prometheus"));
    let output =
        Command::new(&promtool).args(["check", "config", "prometheus.yml"]).current_dir(&dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = || {
        let words = ["check", "service-discovery", "--timeout=1s", "prometheus.yml", "services"];
        let output = Command::new(&promtool).args(words).current_dir(&dir).output().unwrap();
        let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let label = |target: &Value, name: &str| target["labels"][name].as_str().unwrap_or_default().to_owned();
        let name = |target: &Value| (label(target, "instance"), label(target, "job"));
        list(&found).iter().map(name).collect::<BTreeMap<_, _>>()
    };
    let expected = targets("deploy/prometheus/targets.yml").into_iter().map(|(host, (job, _))| (host, job)).collect();
    wait_until("promtool has found the targets of the file under these names", || names() == expected);
}

/// `24h` and such, as Prometheus and its rules write it.
fn time(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.len().checked_sub(1)?);
    let seconds = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)].into_iter().find(|(name, _)| *name == unit)?.1;
    Some(Duration::from_secs(number.parse::<u64>().ok()? * seconds))
}

/// `prometheus_tsdb_head_series` of the whole stack: 13,776 with eight replicas, three monitors, three workers and the exporters.
const SERIES: u64 = 14_500;
/// Prometheus's own figure is one to two, without the write-ahead log.
const BYTES_PER_SAMPLE: u64 = 2;

/// With a shorter retention the longest window would contain less time than its name says.
#[test]
fn what_is_kept_is_as_old_as_the_longest_window() {
    let longest = ["rules.yml", "alerts.yml"]
        .map(|name| read(Path::new("deploy/prometheus").join(name)))
        .iter()
        .flat_map(|text| text.split('[').skip(1).filter_map(|rest| time(rest.split(']').next()?)).collect::<Vec<_>>())
        .max()
        .unwrap();
    assert!(longest >= Duration::from_secs(86_400), "the windows are not understood: {longest:?}");
    let services = services();
    let command = texts(&services["prometheus"]["command"]);
    let flag = |name: &str| command.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('=')).unwrap();
    let compose = (
        time(flag("--storage.tsdb.retention.time")).unwrap(),
        flag("--storage.tsdb.retention.size").strip_suffix("GB").unwrap().parse::<u64>().unwrap(),
        time(yaml(PROMETHEUS)["global"]["scrape_interval"].as_str().unwrap()).unwrap(),
    );
    // `Monitoring::usual`.
    let native = (launcher::prometheus::RETENTION, launcher::prometheus::RETENTION_GB, Duration::from_secs(2));
    for (whose, (kept, gigabytes, interval)) in [("compose's", compose), ("the native stack's", native)] {
        assert!(kept >= longest, "{whose} Prometheus keeps {kept:?}, a window is {longest:?}");
        let needed = SERIES * BYTES_PER_SAMPLE * (longest.as_secs() / interval.as_secs());
        assert!(gigabytes << 30 >= needed, "{whose} Prometheus keeps {gigabytes} GB, a window is {needed} bytes");
    }
}
