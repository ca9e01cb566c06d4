//! deploy/k8s, checked by reading the files: no cluster and no tool is needed, but for the overlays, which kustomize renders where it is
//! installed. What else was run is in deploy/k8s/README.md.

mod edges;
mod files;
mod rules;

use std::{collections::BTreeSet, path::Path, process::Command};

use serde_json::{Value, json};

use self::{
    edges::{addresses, needed},
    files::{BASE, OVERLAYS, base, containers, find, kind, name, of_kind, rendered, workloads},
    rules::findings,
};
use crate::{
    Home,
    deploy::{read, root, services, texts},
};

const MONITORS: usize = 3;

#[test]
fn the_base_holds() {
    assert_eq!(findings(&base()), Vec::<String>::new());
}

#[test]
fn the_overlays_hold() {
    for overlay in OVERLAYS {
        let Some(objects) = rendered(overlay) else { return };
        assert_eq!(findings(&objects), Vec::<String>::new(), "{overlay}");
        let production = overlay.ends_with("production");
        assert_eq!(of_kind(&objects, "ScaledObject").count(), usize::from(production));
        // Secrets are in no file of production.
        assert_eq!(of_kind(&objects, "Secret").count(), usize::from(!production));
        assert!(
            objects
                .iter()
                .all(|object| kind(object) == "Namespace" || object["metadata"]["namespace"] == "recommendation")
        );
        let servers = find(&objects, "StatefulSet", "mysql")["spec"]["replicas"].as_u64().unwrap();
        assert_eq!(addresses(&servers_of(&objects)).len() as u64, servers, "{overlay}");
    }
    // By kustomize, the base is what it is without.
    let Some(by_kustomize) = rendered(BASE) else { return };
    let titles = |objects: &[Value]| {
        let known = objects.iter().filter(|object| kind(object) != "ConfigMap").map(files::title);
        known.collect::<BTreeSet<_>>()
    };
    assert_eq!(titles(&by_kustomize), titles(&base()));
    assert_eq!(needed(&by_kustomize), needed(&base()));
}

/// The addresses that `$(MYSQL_SERVERS)` stands for.
fn servers_of(objects: &[Value]) -> String {
    let api = &containers(find(objects, "Deployment", "api"))[0];
    let variable = api["env"].as_array().unwrap().iter().find(|variable| variable["name"] == "MYSQL_SERVERS").unwrap();
    let map = find(objects, "ConfigMap", variable["valueFrom"]["configMapKeyRef"]["name"].as_str().unwrap());
    map["data"]["servers"].as_str().unwrap().to_owned()
}

/// What somebody may do by mistake, and the rule that finds it.
#[test]
fn each_mistake_is_found_by_name() {
    type Mistake = fn(&mut Vec<Value>);
    fn object<'a>(objects: &'a mut [Value], wanted: &str, called: &str) -> &'a mut Value {
        objects.iter_mut().find(|object| kind(object) == wanted && name(object) == called).unwrap()
    }
    let mistakes: [(&str, Mistake); 12] = [
        ("replicas-beside-autoscaler: Deployment api", |all| {
            object(all, "Deployment", "api")["spec"]["replicas"] = 8.into();
        }),
        ("no-request: Deployment api, container api: requests.cpu", |all| {
            let pod = &mut object(all, "Deployment", "api")["spec"]["template"]["spec"];
            pod["containers"][0]["resources"]["requests"].as_object_mut().unwrap().remove("cpu");
        }),
        // A sidecar without a request fails the autoscaler's metric of whole pods.
        ("no-request: Deployment api, container mesh: requests.cpu", |all| {
            let pod = &mut object(all, "Deployment", "api")["spec"]["template"]["spec"];
            pod["containers"].as_array_mut().unwrap().push(json!({ "name": "mesh" }));
        }),
        ("overlapping-selectors: the selector of Deployment api and the pods of StatefulSet worker", |all| {
            let labels = &mut object(all, "StatefulSet", "worker")["spec"]["template"]["metadata"]["labels"];
            labels["app.kubernetes.io/name"] = "api".into();
        }),
        ("overlapping-selectors: Service redis takes the pods of 11 workloads", |all| {
            object(all, "Service", "redis")["spec"]["selector"] = json!({});
        }),
        ("unknown-key: Deployment api: .spec.template.spec.containers[0].livenessProbe.timeoutSecond", |all| {
            let pod = &mut object(all, "Deployment", "api")["spec"]["template"]["spec"];
            pod["containers"][0]["livenessProbe"]["timeoutSecond"] = 3.into();
        }),
        ("unknown-key: HorizontalPodAutoscaler api: .spec.behavior.scaleUp.tolerence", |all| {
            object(all, "HorizontalPodAutoscaler", "api")["spec"]["behavior"]["scaleUp"]["tolerence"] = "0".into();
        }),
        ("budget-blocks-drains: PodDisruptionBudget etcd", |all| {
            let spec = &mut object(all, "PodDisruptionBudget", "etcd")["spec"];
            spec.as_object_mut().unwrap().remove("maxUnavailable");
            spec["minAvailable"] = 3.into();
        }),
        // Of the autoscaler's least number, 8.
        ("budget-blocks-drains: PodDisruptionBudget api", |all| {
            let spec = &mut object(all, "PodDisruptionBudget", "api")["spec"];
            spec.as_object_mut().unwrap().remove("maxUnavailable");
            spec["minAvailable"] = "90%".into();
        }),
        ("liveness-of-others: Deployment api, container api", |all| {
            let pod = &mut object(all, "Deployment", "api")["spec"]["template"]["spec"];
            pod["containers"][0]["livenessProbe"]["httpGet"]["path"] = "/readyz".into();
        }),
        ("policy: no egress for api → mysql:3306/TCP", |all| {
            let rules = object(all, "NetworkPolicy", "api")["spec"]["egress"].as_array_mut().unwrap();
            let of_mysql = |rule: &Value| rule["ports"][0]["port"] == 3306;
            rules.retain(|rule| !of_mysql(rule));
        }),
        ("policy: unneeded ingress for everybody → redis:6379/TCP", |all| {
            let rule = &mut object(all, "NetworkPolicy", "redis")["spec"]["ingress"][0];
            rule.as_object_mut().unwrap().remove("from");
        }),
    ];
    for (expected, mistake) in mistakes {
        let mut objects = base();
        mistake(&mut objects);
        let found = findings(&objects);
        assert!(found.iter().any(|finding| finding == expected), "{expected}: {found:#?}");
    }
}

/// The edges are those of compose, but that no faultproxy is between replicas and MySQL.
#[test]
fn the_edges_are_those_of_compose() {
    let role = |service: &str| match service {
        "nginx" => "gateway".to_owned(),
        "faultproxy" => "mysql".to_owned(),
        name => name.trim_end_matches(|c: char| c == '-' || c.is_ascii_digit()).to_owned(),
    };
    let serving = ["nginx", "api", "worker-0", "worker-1", "worker-2", "monitor-0", "monitor-1", "monitor-2"];
    let all = services();
    let mut of_compose = BTreeSet::new();
    for from in serving {
        let mut settings: Vec<String> = texts(&all[from]["command"]).into_iter().map(str::to_owned).collect();
        let environment = all[from]["environment"].as_object().into_iter().flatten();
        let used = environment.filter(|(key, _)| !key.contains("ADVERTISE"));
        settings.extend(used.filter_map(|(_, value)| value.as_str().map(str::to_owned)));
        if from == "nginx" {
            settings.extend(["compose.conf", "counted.conf"].map(|file| read(format!("deploy/nginx/{file}"))));
        }
        for (to, port) in settings.iter().flat_map(|text| addresses(text)).filter(|(to, _)| all.contains_key(*to)) {
            of_compose.insert((role(from), role(to), port));
        }
    }
    assert!(of_compose.len() > 15, "{of_compose:?}");
    let base = base();
    let here: BTreeSet<_> = needed(&base).into_iter().map(|(from, to, port, _)| (from, to, port)).collect();
    let missing: Vec<_> = of_compose.difference(&here).collect();
    assert!(missing.is_empty(), "{missing:?}");
    // Members of one cluster, `data prepare`, users, and addresses that processes learn from each other.
    let beyond = |(from, to, _): &&(String, String, u64)| {
        from != to
            && !["everybody", "prepare"].contains(&from.as_str())
            && (from.as_str(), to.as_str()) != ("monitor", "worker")
    };
    let more: Vec<_> = here.difference(&of_compose).filter(beyond).collect();
    assert!(more.is_empty(), "{more:?}");
}

/// What the kubelet would start: the words and variables of a container, of the first pod, with its files in `scratch`.
fn command(home: &Home, objects: &[Value], workload: &Value, pod: &str, scratch: &Path) -> Command {
    let container = &containers(workload)[0];
    let mut variables: Vec<(String, String)> = Vec::new();
    let expanded = |text: &str, known: &[(String, String)]| {
        known.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("$({name})"), value))
    };
    for variable in container["env"].as_array().unwrap() {
        let (from, key) = (&variable["valueFrom"], variable["name"].as_str().unwrap());
        let value = match variable["value"].as_str() {
            Some(value) => expanded(value, &variables),
            None if from["fieldRef"]["fieldPath"] == "metadata.name" => pod.to_owned(),
            None if from["secretKeyRef"]["name"] == "recommendation" => "a secret of some length".to_owned(),
            None => servers_of(objects),
        };
        variables.push((key.to_owned(), value));
    }
    for volume in workload["spec"]["template"]["spec"]["volumes"].as_array().into_iter().flatten() {
        let Some(map) = volume["configMap"]["name"].as_str() else { continue };
        for (file, text) in find(objects, "ConfigMap", map)["data"].as_object().unwrap() {
            std::fs::write(scratch.join(file), text.as_str().unwrap()).unwrap();
        }
    }
    let words = texts(&container["args"])
        .into_iter()
        .map(|word| expanded(word, &variables).replace("/etc/testbed", scratch.to_str().unwrap()));
    let mut command = home.command(&[]);
    command.args(words).envs(variables);
    command
}

#[test]
fn the_services_take_the_settings_that_the_manifests_give_them() {
    let (home, objects) = (Home::bare(), base());
    let pods: Vec<String> = (0..MONITORS).map(|n| format!("monitor-{n}")).collect();
    assert_eq!(find(&objects, "StatefulSet", "monitor")["spec"]["replicas"], MONITORS);
    let mut started = vec![
        ("Deployment", "api", "api-5d4f8-x7x2p", "cache.items=0"),
        ("StatefulSet", "worker", "worker-0", "listen.drain_ms=99999999"),
    ];
    started.extend(pods.iter().map(|pod| ("StatefulSet", "monitor", pod.as_str(), "listen.drain_ms=99999999")));
    for (kind, called, pod, wrong) in started {
        let scratch = tempfile::tempdir().unwrap();
        let mut command = command(&home, &objects, find(&objects, kind, called), pod, scratch.path());
        // One setting that is wrong on purpose: the process refuses to start, and names nothing else.
        let error = String::from_utf8(command.args(["--set", wrong]).output().unwrap().stderr).unwrap();
        let complaints: Vec<&str> = error.lines().skip(1).collect();
        let key = wrong.split('=').next().unwrap();
        assert!(complaints.len() == 1 && complaints[0].contains(key), "{pod}: {error}");
    }
    let words = |called: &str| containers(find(&objects, "Deployment", called))[0]["args"].clone();
    assert_eq!(words("access-log"), services()["access-log"]["command"]);
    for workload in workloads(&objects) {
        let container = &containers(workload)[0];
        if container["image"].as_str().unwrap().starts_with("recommendation-testbed:") {
            let image = format!("recommendation-testbed:{}", env!("CARGO_PKG_VERSION"));
            assert_eq!(container["image"], *image, "{}", name(workload));
        } else {
            // The same server as in compose.
            let same = services().values().any(|service| service["image"] == container["image"]);
            assert!(same, "{}: {}", name(workload), container["image"]);
        }
    }
}

/// 70 % for two minutes, 8 to 20: by the planner that `experiment autoscaling` uses, on the file that the cluster gets.
#[test]
fn the_autoscaler_is_the_rule_of_the_article() {
    let home = Home::bare();
    let file = root().join(BASE).join("api-autoscaler.yaml");
    // Steps of 15 s. `of`: CPU of each replica in percent of its request, for so many steps.
    let wishes = |replicas: u64, of: &[(u64, usize)]| {
        let steps = of.iter().flat_map(|&(percent, steps)| std::iter::repeat_n(percent, steps)).map(|percent| {
            let pod = |n: u64| {
                json!({
                    "name": format!("p{n}"), "phase": "Running", "deleted": false, "started_ms_ago": 3_600_000, "ready": "True",
                    "ready_changed_ms_ago": 3_590_000, "containers": [{ "name": "api", "request_milli": 2000 }],
                    "metrics": { "sampled_ms_ago": 15_000, "window_ms": 30_000,
                        "containers": [{ "name": "api", "usage_milli": 20 * percent }] },
                })
            };
            json!({ "after_ms": 15_000, "pods": (0..replicas).map(pod).collect::<Vec<_>>() })
        });
        let case = json!({ "id": "article", "kind": "reconcile", "current_replicas": replicas, "steps": steps.collect::<Vec<_>>() });
        std::fs::write(home.path().join("cases"), case.to_string()).unwrap();
        let answer = home.json(&["plan", "--hpa", file.to_str().unwrap(), "cases"]);
        let of_step = |step: &Value| step["replicas"].as_u64().unwrap();
        answer["steps"].as_array().unwrap_or_else(|| panic!("{answer}")).iter().map(of_step).collect::<Vec<_>>()
    };
    // 71 % is above 70 %: with the default tolerance nothing would happen up to 77 %. Eight steps later the low wishes are 120 s old.
    let rise = wishes(8, &[(60, 4), (71, 10)]);
    assert_eq!(rise.iter().position(|replicas| *replicas > 8), Some(3 + 8), "{rise:?}");
    assert_eq!(rise[3 + 8], 9, "{rise:?}");
    assert!(wishes(8, &[(60, 4), (70, 12)]).iter().all(|replicas| *replicas == 8));
    // A rise of less than two minutes.
    assert!(wishes(8, &[(60, 4), (100, 7), (60, 4)]).iter().all(|replicas| *replicas == 8));
    // Within 8 to 20.
    assert_eq!(wishes(18, &[(60, 1), (100, 12)]).last(), Some(&20));
    assert_eq!(wishes(8, &[(1, 30)]).last(), Some(&8));
    let api = find(&base(), "Deployment", "api").clone();
    let resources = &containers(&api)[0]["resources"];
    assert_eq!((&resources["requests"]["cpu"], &resources["requests"]["memory"]), (&"2".into(), &"4Gi".into()));
}

/// The value of a directive in the gateway's configuration, in seconds: `keepalive_min_timeout 10s;`
fn seconds(text: &str, directive: &str) -> u64 {
    let line = text.lines().find(|line| line.trim().starts_with(directive)).unwrap();
    let word = line.split([' ', ';', '=']).find_map(|word| word.strip_suffix('s')?.parse().ok());
    word.unwrap_or_else(|| panic!("{line}"))
}

/// No request goes to a replica that has begun to end, and each pod is given the time that its end takes.
#[test]
fn a_roll_out_waits_for_the_gateway() {
    // CoreDNS caches this long.
    const CACHED_S: u64 = 30;
    let objects = base();
    let gateway = &find(&objects, "ConfigMap", "gateway")["data"]["nginx.conf"];
    let gateway = gateway.as_str().unwrap();
    let shared = find(&objects, "ConfigMap", "gateway-shared")["data"]["server.conf"].as_str().unwrap();
    let times = |called: &str| {
        let deployment = find(&objects, "Deployment", called);
        let stop = containers(deployment)[0]["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap();
        (stop, deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap())
    };
    let (stop, grace) = times("api");
    assert!(stop > CACHED_S + seconds(gateway, "resolver "), "{stop} s");
    let defaults = read("docs/configuration.md");
    let drain = defaults.lines().find(|line| line.starts_with("| `http.drain_ms` ")).unwrap();
    let drain_ms: u64 = drain.split('`').nth(3).unwrap().parse().unwrap();
    // Requests, then tasks; leave_ms as api.yaml says; 3 s for the last spans.
    assert!(grace * 1000 >= stop * 1000 + 5000 + 2 * drain_ms + 3000, "{grace} s");
    let (stop, grace) = times("gateway");
    assert!(grace > stop + seconds(gateway, "keepalive_min_timeout") + seconds(shared, "proxy_read_timeout"));
    // Headless: the name has an address per replica.
    assert_eq!(find(&objects, "Service", "api")["spec"]["clusterIP"], "None");
    for called in ["api", "gateway"] {
        assert_eq!(find(&objects, "Deployment", called)["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"], 0);
    }
}

/// All replicas at their most, all workers and `prepare` fit into a server's connections.
#[test]
fn mysql_has_a_connection_for_everybody() {
    let objects = base();
    let words = texts(&containers(find(&objects, "StatefulSet", "mysql"))[0]["args"]).join("\n");
    let max: u64 = words.split("--max-connections=").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
    let api = containers(find(&objects, "Deployment", "api"))[0]["env"].as_array().unwrap().clone();
    let pool = api.iter().find(|variable| variable["name"] == "TESTBED_STORE__POOL_SIZE").unwrap();
    let pool: u64 = pool["value"].as_str().unwrap().parse().unwrap();
    let replicas = find(&objects, "HorizontalPodAutoscaler", "api")["spec"]["maxReplicas"].as_u64().unwrap();
    // 16 workers at most, each with 16 connections to a server and a fence for its shard.
    assert!(max > replicas * pool + 16 * (16 + 1) + 100, "{max}");
    assert!(words.lines().any(|word| word == "--innodb-flush-log-at-trx-commit=1"));
    let servers = servers_of(&objects);
    let endpoints = find(&objects, "ConfigMap", "prepare")["data"]["endpoints.toml"].as_str().unwrap();
    // `prepare` deals the shards to the servers in the same order.
    let listed: Vec<&str> =
        endpoints.lines().filter_map(|line| line.strip_prefix("mysql-")?.split('"').nth(1)).collect();
    assert_eq!(listed.join(","), servers);
}

/// The module, `resolve` and keepalive_min_timeout are in the image only: without them Debian's nginx can judge the rest.
#[test]
fn nginx_takes_the_configuration_of_the_gateway() {
    let Some(nginx) = launcher::find_program(&["nginx"]) else {
        launcher::testing::skip("nginx not installed");
        return;
    };
    let (objects, scratch) = (base(), tempfile::tempdir().unwrap());
    for (file, text) in find(&objects, "ConfigMap", "gateway-shared")["data"].as_object().unwrap() {
        std::fs::write(scratch.path().join(file), text.as_str().unwrap()).unwrap();
    }
    let text = find(&objects, "ConfigMap", "gateway")["data"]["nginx.conf"].as_str().unwrap();
    let (before, after) = text.split_once("otel_exporter {").unwrap();
    let text = format!("{before}{}", after.split_once('}').unwrap().1);
    let only_in_the_image = ["otel_", "load_module", "keepalive_min_timeout", "resolver "];
    let kept = text.lines().filter(|line| !only_in_the_image.iter().any(|word| line.trim().starts_with(word)));
    let text = kept.collect::<Vec<_>>().join("\n");
    let text = text
        .replace("server api.recommendation.svc.cluster.local:8080 resolve", "server 127.0.0.1:8080")
        .replace("server=access-log:5140", "server=127.0.0.1:5140")
        .replace("/tmp/", &format!("{}/", scratch.path().display()))
        .replace("/etc/nginx/shared", scratch.path().to_str().unwrap());
    assert!(text.contains("server 127.0.0.1:8080 max_fails=1 fail_timeout=2s;"), "{text}");
    let file = scratch.path().join("nginx.conf");
    std::fs::write(&file, &text).unwrap();
    let output = Command::new(nginx).args(["-t", "-e", "stderr", "-c"]).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
}
