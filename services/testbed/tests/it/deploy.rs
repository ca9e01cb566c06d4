//! compose.yaml and its mounts, checked by reading the files: no Docker is needed. `containers.rs` has the properties that a run has shown
//! to be necessary. `otelcol validate` is run by hand (deploy/README.md).

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::Home;

const GB: u64 = 1024;

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

pub fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Anchors and merge keys resolved, variables by their defaults.
pub fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&with_defaults(&read(path))).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// `${NAME:-default}` → `default`
fn with_defaults(text: &str) -> String {
    let mut parts = text.split("${");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once('}').and_then(|(inside, rest)| Some((inside.split_once(":-")?.1, rest))) {
            Some((default, rest)) => out.extend([default, rest]),
            None => out.extend(["${", part]),
        }
    }
    out
}

pub type Services = BTreeMap<String, Value>;

pub fn services_of(file: &Value) -> Services {
    let services = file["services"].as_object().unwrap();
    services.iter().map(|(name, service)| (name.clone(), service.clone())).collect()
}

/// Of compose.yaml: what its parts say.
pub fn services() -> Services {
    let includes = yaml("compose.yaml")["include"].clone();
    includes.as_array().unwrap().iter().flat_map(|file| services_of(&yaml(file.as_str().unwrap()))).collect()
}

/// With an overlay: maps are merged, all else is replaced. Lists are appended by compose, which no figure here depends on.
pub fn overlaid(name: &str) -> Services {
    fn merge(into: &mut Value, from: &Value) {
        match (into, from) {
            (Value::Object(into), Value::Object(from)) => {
                for (key, value) in from {
                    merge(into.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
            (into, from) => *into = from.clone(),
        }
    }
    let mut merged = services();
    for (service, change) in services_of(&yaml(name)) {
        merge(merged.entry(service).or_insert(Value::Null), &change);
    }
    merged
}

pub fn texts(value: &Value) -> Vec<&str> {
    value.as_array().map(|list| list.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

/// `144m` → 144
fn megabytes(service: &Value) -> u64 {
    let limit = service["mem_limit"].as_str().unwrap_or_else(|| panic!("no mem_limit: {service}"));
    limit.strip_suffix('m').and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{limit} is not like 64m"))
}

/// The most that can run at the same time: `init` has ended before the replicas begin, and k6 is asked for by name, as deploy/README.md says.
fn limits(services: &Services) -> u64 {
    let left_out = |name: &str, service: &Value| {
        ["init", "k6-program", "k6"].contains(&name) || texts(&service["profiles"]).contains(&"full")
    };
    let counted = services.iter().filter(|(name, service)| !left_out(name, service));
    counted.map(|(_, service)| megabytes(service) * service["scale"].as_u64().unwrap_or(1)).sum()
}

/// A tag with a full version: `8.4.8`, `1.29.8-otel`, `v3.5.0`, `bookworm-20260824-slim`.
fn is_pinned(image: &str) -> bool {
    let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag);
    let number = tag.trim_start_matches('v').split('-').next().unwrap_or_default();
    number.split('.').count() == 3 || tag.split('-').any(|part| part.len() == 8 && part.parse::<u32>().is_ok())
}

#[test]
fn every_service_is_bounded_pinned_and_has_few_rights() {
    let mut all = services();
    all.extend(overlaid("deploy/compose/mysql-16.yaml"));
    for (name, service) in all {
        assert!(is_pinned(service["image"].as_str().unwrap()), "{name}: {}", service["image"]);
        let user = service["user"].as_str().unwrap_or("root");
        assert!(!user.starts_with("root") && !user.starts_with("0:"), "{name} runs as root");
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(texts(&service["cap_drop"]), ["ALL"], "{name}");
        assert_eq!(texts(&service["security_opt"]), ["no-new-privileges:true"], "{name}");
        assert!(megabytes(&service) >= 64, "{name}");
        assert!(service["restart"].is_string() && service["logging"]["options"]["max-size"].is_string(), "{name}");
        for port in texts(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name} publishes {port} to everybody");
        }
    }
}

#[test]
fn it_fits_the_memory_that_it_promises() {
    assert!(limits(&services()) <= 6 * GB, "{} MB", limits(&services()));
    let minimal = limits(&overlaid("deploy/compose/minimal.yaml"));
    assert!(minimal <= 3 * GB, "{minimal} MB");
    assert_eq!(services()["api"]["scale"], 8);
}

#[test]
fn services_that_others_wait_for_have_a_health_check() {
    for services in [services(), overlaid("deploy/compose/mysql-16.yaml"), overlaid("deploy/compose/minimal.yaml")] {
        for (name, service) in &services {
            for (other, on) in service["depends_on"].as_object().into_iter().flatten() {
                let other =
                    services.get(other).unwrap_or_else(|| panic!("{name} depends on {other}, which is no service"));
                if on["condition"] == "service_healthy" {
                    assert!(other["healthcheck"]["test"].is_array(), "{name} waits for ever: {other}");
                }
                let left_out = |service: &Value| texts(&service["profiles"]).contains(&"full");
                let optional = on["required"] == false;
                assert!(
                    left_out(service) || optional || !left_out(other),
                    "{name} would start {other}, which minimal leaves out"
                );
            }
        }
        // The chain by which the first request finds everything ready.
        assert_eq!(services["nginx"]["depends_on"]["api"]["condition"], "service_healthy");
        assert_eq!(services["api"]["depends_on"]["init"]["condition"], "service_completed_successfully");
        assert_eq!(services["init"]["depends_on"]["mysql"]["condition"], "service_healthy");
    }
}

#[test]
fn what_is_mounted_exists() {
    // Paths of an included file are relative to it, those of an overlay to compose.yaml.
    let overlay = |name: &str| services_of(&yaml(name));
    for (base, services) in [
        ("deploy/compose", services()),
        ("", overlay("deploy/compose/mysql-16.yaml")),
        ("", overlay("deploy/compose/minimal.yaml")),
    ] {
        for (name, service) in services {
            for source in texts(&service["volumes"]).into_iter().filter_map(|volume| volume.split(':').next()) {
                // Else a volume of Docker's.
                if source.starts_with('.') {
                    assert!(root().join(base).join(source).exists(), "{name}: {source} does not exist");
                }
            }
        }
    }
}

/// The same words on the same stack: its report has goose's figures and k6's.
#[test]
fn k6_runs_where_the_load_generator_runs() {
    let all = services();
    let (load, k6) = (&all["load"], &all["k6"]);
    assert_eq!([texts(&load["entrypoint"]), vec!["--engine", "k6"]].concat(), texts(&k6["entrypoint"]));
    for key in ["image", "user", "network_mode", "ulimits", "command"] {
        assert_eq!(load[key], k6[key], "{key}");
    }
    for (key, value) in load["environment"].as_object().unwrap() {
        assert_eq!(value, &k6["environment"][key], "{key}");
    }
    for volume in texts(&load["volumes"]) {
        assert!(texts(&k6["volumes"]).contains(&volume), "{volume}");
    }
    // The program: from its image into the volume, and from there onto PATH.
    let mount = k6["volumes"].as_array().unwrap().iter().find(|volume| volume["source"] == "k6").unwrap();
    let path = k6["environment"]["PATH"].as_str().unwrap();
    assert!(path.split(':').any(|dir| mount["target"] == dir) && mount["read_only"] == true, "{mount}, {path}");
    let [source, target] = ["/usr/bin/k6", "/home/k6/k6"];
    assert_eq!(texts(&all["k6-program"]["entrypoint"]), ["cp", source, target]);
    assert_eq!(texts(&all["k6-program"]["volumes"]), ["k6:/home/k6"]);
    assert_eq!(k6["depends_on"]["k6-program"]["condition"], "service_completed_successfully");
    let version = all["k6-program"]["image"].as_str().unwrap().rsplit(':').next().unwrap();
    assert!(loadtest::k6::HOW_TO_GET.contains(&format!("@v{version}`")), "{version} is not the natives'");
}

/// `http://api:9100` → (`api`, `9100`)
fn host_and_port(address: &str) -> Option<(&str, &str)> {
    address.rsplit("://").next()?.rsplit_once(':')
}

#[test]
fn the_lists_of_addresses_name_services() {
    for (file, overlay, servers) in [
        ("deploy/compose/endpoints.toml", None, 1),
        ("deploy/compose/endpoints-16.toml", Some("deploy/compose/mysql-16.yaml"), 16),
        ("deploy/compose/endpoints-minimal.toml", Some("deploy/compose/minimal.yaml"), 1),
    ] {
        let mut services = overlay.map_or_else(services, overlaid);
        services.retain(|_, service| !texts(&service["profiles"]).contains(&"full"));
        let endpoints: BTreeMap<String, String> = toml::from_str(&read(file)).unwrap();
        for (name, address) in &endpoints {
            let Some((host, port)) = host_and_port(address) else { continue };
            let aliased = services.values().any(|s| texts(&s["networks"]["default"]["aliases"]).contains(&host));
            let own = host.parse::<IpAddr>().is_ok();
            assert!(
                own || aliased || services.contains_key(host),
                "{file}: {name} is at {host}, but no service has that name"
            );
            if name == "api-admin" {
                assert_eq!(services["api"]["environment"]["TESTBED_HTTP__ADMIN"], format!("0.0.0.0:{port}"));
            }
            if name == "faultproxy" {
                assert!(texts(&services["faultproxy"]["command"]).contains(&&*format!("--admin=0.0.0.0:{port}")));
            }
        }
        assert_eq!(endpoints.keys().filter(|name| name.starts_with("mysql-")).count(), servers);
        let listed = |service: &str| {
            let words = texts(&services[service]["command"]).join(" ").replace("--mysql ", "--mysql=");
            let list = words.split("--mysql=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
            list.split(',').count()
        };
        assert_eq!((listed("faultproxy"), listed("api")), (servers, servers), "{file}");
        for name in ["known-ids", "known-items", "redis"] {
            assert!(endpoints.contains_key(name), "{file}: {name}");
        }
        // `status` shows the path of events where there is one.
        let kafka = services.contains_key("kafka");
        assert_eq!(
            (endpoints.contains_key("kafka"), endpoints.contains_key("worker-0-admin")),
            (kafka, kafka),
            "{file}"
        );
    }
}

#[test]
fn the_replicas_take_the_settings_that_compose_gives_them() {
    let home = Home::bare();
    for services in [services(), overlaid("deploy/compose/mysql-16.yaml"), overlaid("deploy/compose/minimal.yaml")] {
        let api = &services["api"];
        let mut command = home.command(&texts(&api["command"]));
        // One setting that is wrong on purpose: the replica refuses to start, and names nothing else.
        command.args(["--set", "cache.items=0"]);
        for (key, value) in api["environment"].as_object().unwrap() {
            command.env(key, value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        }
        // Otherwise ReplicasMissing would expect another number.
        assert_eq!(api["environment"]["TESTBED_HTTP__REPLICAS"], api["scale"]);
        let error = String::from_utf8(command.output().unwrap().stderr).unwrap();
        let complaints: Vec<&str> = error.lines().skip(1).collect();
        assert!(complaints.len() == 1 && complaints[0].contains("cache.items"), "{error}");
    }
}

#[test]
fn monitors_and_workers_take_the_settings_that_compose_gives_them_and_know_each_other() {
    let home = Home::bare();
    let all = services();
    let settings = |name: &str| all[name]["environment"].as_object().unwrap();
    let names = |role: &str| (0..3).map(|n| format!("{role}-{n}")).collect::<Vec<_>>();
    for name in names("monitor").iter().chain(&names("worker")) {
        let mut command = home.command(&texts(&all[name]["command"]));
        // One setting that is wrong on purpose: the process refuses to start, and names nothing else.
        command.args(["--set", "listen.drain_ms=99999999"]);
        for (key, value) in settings(name) {
            let value = value.as_str().unwrap_or_else(|| panic!("{name}: {key} is no string"));
            command.env(key, value);
        }
        let error = String::from_utf8(command.output().unwrap().stderr).unwrap();
        let complaints: Vec<&str> = error.lines().skip(1).collect();
        assert!(complaints.len() == 1 && complaints[0].contains("listen.drain_ms"), "{name}: {error}");
        for (key, value) in settings(name) {
            let ours = ["PEERS", "MONITORS", "ADVERTISE"].iter().any(|part| key.contains(part));
            let Some((host, port)) = host_and_port(value.as_str().unwrap()).filter(|_| ours) else { continue };
            let listens = settings(host).values().any(|listen| listen == &format!("0.0.0.0:{port}"));
            assert!(listens, "{name}: {key} is {host}:{port}, where no service listens");
        }
    }
    // Each monitor has the two others, and each worker advertises itself.
    for (n, name) in names("monitor").iter().enumerate() {
        let peers = settings(name).keys().filter(|key| key.starts_with("TESTBED_PEERS__"));
        let expected = (0..3).filter(|other| *other != n).map(|other| format!("TESTBED_PEERS__M{other}"));
        assert_eq!(peers.cloned().collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    }
    for name in names("worker") {
        assert_eq!(settings(&name)["TESTBED_LISTEN__ADVERTISE_HTTP"], format!("{name}:7500"));
    }
}

/// With Kafka the workers consume what the replicas send; without it, nothing of the path of events is left.
#[test]
fn replicas_and_workers_use_one_kafka() {
    let all = services();
    let setting = |service: &str, name: &str| all[service]["environment"][name].as_str().map(str::to_owned);
    let brokers = setting("api", "TESTBED_KAFKA__BROKERS").unwrap();
    assert_eq!(setting("api", "TESTBED_FEATURES").unwrap(), "kafka");
    let (host, port) = brokers.split_once(':').unwrap();
    let properties = read("deploy/kafka/server.properties");
    let advertised = format!("\nadvertised.listeners=PLAINTEXT://{host}:{port}\n");
    assert!(all.contains_key(host) && properties.contains(&advertised), "{brokers}");
    for worker in (0..3).map(|n| format!("worker-{n}")) {
        assert_eq!(setting(&worker, "TESTBED_KAFKA__BROKERS").as_ref(), Some(&brokers));
        assert_eq!(setting(&worker, "TESTBED_REDIS__URL"), setting("api", "TESTBED_REDIS__URL"));
        assert_eq!(all[&worker]["depends_on"][host]["condition"], "service_healthy");
    }
    // Replicas must start without it.
    assert_eq!(all["api"]["depends_on"][host]["required"], false);
    // Its log and MySQL's positions live equally long.
    assert!(texts(&all[host]["volumes"]).contains(&"kafka:/var/lib/kafka/data"));
    let minimal = overlaid("deploy/compose/minimal.yaml");
    let api = &minimal["api"]["environment"];
    assert_eq!((&api["TESTBED_KAFKA__BROKERS"], &api["TESTBED_FEATURES"]), (&"".into(), &"inline".into()));
    assert_eq!(texts(&minimal[host]["profiles"]), ["full"]);
}

#[test]
fn the_image_is_built_from_pinned_parts() {
    let dockerfile = read("deploy/Dockerfile");
    let images: Vec<&str> =
        dockerfile.lines().filter_map(|line| line.strip_prefix("FROM ")?.split(' ').next()).collect();
    assert!(images.len() == 2 && images.iter().all(|image| is_pinned(image)), "{images:?}");
    let toolchain: Value = toml::from_str(&read("rust-toolchain.toml")).unwrap();
    let channel = toolchain["toolchain"]["channel"].as_str().unwrap();
    assert!(images[0].starts_with(&format!("rust:{channel}-")), "{} is not the toolchain {channel}", images[0]);
    assert!(dockerfile.contains("\nUSER 10001:10001\n"));
    let image = format!("recommendation-testbed:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(services()["api"]["image"], *image);
    // Everything that is compiled in reaches the builder.
    let ignore = read(".dockerignore");
    let deploy = ["deploy/nginx", "deploy/prometheus", "deploy/kafka"];
    for part in
        ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml", "services", "loadtest", "migrations"].iter().chain(&deploy)
    {
        assert!(ignore.lines().any(|line| line.strip_prefix('!') == Some(*part)), "{part} is kept from the build");
    }
}

/// The module and `resolve` are in the image only: without them, and with a replica on loopback, Debian's nginx can judge the rest.
#[test]
fn nginx_takes_the_configuration_of_compose() {
    if !launcher::testing::have(&["nginx"]) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let mut inside_exporter = false;
    let text: String = read("deploy/nginx/compose.conf")
        .lines()
        .filter(|line| {
            let line = line.trim();
            let opens = line.starts_with("otel_exporter");
            let left_out = inside_exporter || opens || line.starts_with("otel_") || line.starts_with("load_module");
            inside_exporter = (inside_exporter || opens) && line != "}";
            !left_out
        })
        .map(|line| format!("{line}\n"))
        .collect();
    // What the minimal overlay mounts there.
    let untraced = text.replace("traced.map", "untraced.map").replace("counted.conf", "uncounted.conf");
    assert_ne!(untraced, text);
    // The name of the service, which only Docker's DNS knows.
    let counted = read("deploy/nginx/counted.conf");
    let here = counted.replace("server=access-log:5140", "server=127.0.0.1:5140");
    assert_ne!(here, counted);
    let include = "include /etc/nginx/testbed/counted.conf;";
    assert!(text.contains(include));
    let text = text.replace(include, here.lines().last().unwrap());
    assert!(read("deploy/nginx/untraced.map").ends_with("\ndefault off;\n"), "without a collector nothing is traced");
    [text, untraced].iter().for_each(|text| nginx_takes(text, scratch.path()));
}

fn nginx_takes(text: &str, scratch: &Path) {
    let text = text
        .replace("server api:8080 resolve", "server 127.0.0.1:8080")
        .replace("/tmp/", &format!("{}/", scratch.display()))
        .replace("/etc/nginx/testbed", root().join("deploy/nginx").to_str().unwrap());
    assert!(
        !text.lines().any(|line| line.trim().starts_with("otel"))
            && text.contains("proxy_temp_path")
            && text.contains("listen 8080"),
        "{text}"
    );
    let file = scratch.join("nginx.conf");
    std::fs::write(&file, &text).unwrap();
    let program = launcher::find_program(&["nginx"]).unwrap();
    let output = Command::new(program).args(["-t", "-e", "stderr", "-c"]).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
}
