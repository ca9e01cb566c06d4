//! Who connects to whom: as the settings say, and as the NetworkPolicies allow.

use std::collections::BTreeSet;

use serde_json::Value;

use super::files::{containers, find, labels, name, of_kind, selects, workloads};
use crate::deploy::texts;

/// From, to, port, protocol.
pub type Edge = (String, String, u64, String);

/// Addresses that no setting names: workers register theirs with the monitors, which probe them and tell them to other workers.
const LEARNT: [(&str, &str, u64, &str); 3] =
    [("monitor", "worker", 7500, "TCP"), ("monitor", "worker", 7501, "UDP"), ("worker", "worker", 7500, "TCP")];

fn edge(from: &str, to: &str, port: u64, protocol: &str) -> Edge {
    (from.to_owned(), to.to_owned(), port, protocol.to_owned())
}

/// Every edge that is needed is allowed on both sides, and no other one is; what is not allowed is denied.
pub fn differences(objects: &[Value]) -> Vec<String> {
    let (needed, egress, ingress) = (needed(objects), allowed(objects, "egress"), allowed(objects, "ingress"));
    let mut found = Vec::new();
    for (side, edges) in [("egress", &egress), ("ingress", &ingress)] {
        let missing = needed.difference(edges).map(|edge| format!("no {side} for {}", shown(edge)));
        let unneeded = edges.difference(&needed).map(|edge| format!("unneeded {side} for {}", shown(edge)));
        found.extend(missing.chain(unneeded));
    }
    let denies = |policy: &Value| {
        let spec = &policy["spec"];
        let of_all = spec["podSelector"].as_object().is_some_and(|selector| selector.is_empty());
        of_all && texts(&spec["policyTypes"]) == ["Ingress", "Egress"] && spec.as_object().is_some_and(|s| s.len() == 2)
    };
    if !of_kind(objects, "NetworkPolicy").any(denies) {
        found.push("nothing is denied by default".to_owned());
    }
    found
}

fn shown((from, to, port, protocol): &Edge) -> String {
    format!("{from} → {to}:{port}/{protocol}")
}

/// From the addresses in settings, with the Service's protocol for the port.
pub fn needed(objects: &[Value]) -> BTreeSet<Edge> {
    let mut edges: BTreeSet<Edge> =
        LEARNT.iter().map(|(from, to, port, protocol)| edge(from, to, *port, protocol)).collect();
    // Users.
    edges.insert(edge("everybody", "gateway", 8080, "TCP"));
    for workload in workloads(objects) {
        for (host, port) in settings(objects, workload).iter().flat_map(|text| addresses(text)) {
            // mysql-3.mysql, api.recommendation.svc.cluster.local
            let host = host.trim_end_matches(".recommendation.svc.cluster.local");
            let service = host.rsplit('.').next().unwrap_or_default();
            let Some(service) = of_kind(objects, "Service").find(|object| name(object) == service) else { continue };
            if service["spec"]["type"] == "ExternalName" {
                continue;
            }
            let ports = service["spec"]["ports"].as_array().unwrap();
            let protocols = ports.iter().filter(|declared| declared["port"] == port);
            let protocols: Vec<&str> = protocols.map(|port| port["protocol"].as_str().unwrap_or("TCP")).collect();
            assert!(
                !protocols.is_empty(),
                "{} uses {host}:{port}, a port that the Service does not have",
                name(workload)
            );
            let to = workloads(objects).into_iter().find(|to| selects(&service["spec"]["selector"], labels(to)));
            let Some(to) = to else { continue };
            edges.extend(protocols.iter().map(|protocol| edge(name(workload), name(to), port, protocol)));
        }
    }
    edges
}

/// Words of a command, variables and mounted files; not what a process advertises to others.
fn settings(objects: &[Value], workload: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for container in containers(workload) {
        found.extend([&container["command"], &container["args"]].into_iter().flat_map(texts).map(str::to_owned));
        for variable in container["env"].as_array().into_iter().flatten() {
            let reference = &variable["valueFrom"]["configMapKeyRef"];
            match (variable["value"].as_str(), reference["name"].as_str()) {
                (Some(value), _) => found.push(format!("{}={value}", variable["name"].as_str().unwrap())),
                (None, Some(map)) => {
                    let map = find(objects, "ConfigMap", map);
                    found.push(map["data"][reference["key"].as_str().unwrap()].as_str().unwrap().to_owned());
                }
                (None, None) => {}
            }
        }
    }
    for volume in workload["spec"]["template"]["spec"]["volumes"].as_array().into_iter().flatten() {
        let Some(map) = volume["configMap"]["name"].as_str() else { continue };
        let data = find(objects, "ConfigMap", map)["data"].as_object().unwrap();
        let lines = data.values().flat_map(|text| text.as_str().unwrap().lines());
        found.extend(lines.filter(|line| !line.trim_start().starts_with('#')).map(str::to_owned));
    }
    found.retain(|text| !text.contains("ADVERTISE") && !text.starts_with("--advertise-client-urls"));
    found
}

/// `redis://redis:6379/` → (`redis`, 6379)
pub fn addresses(text: &str) -> Vec<(&str, u64)> {
    let separates = |c: char| !(c.is_ascii_alphanumeric() || ".-:".contains(c));
    text.split(separates)
        .filter_map(|token| {
            let (host, port) = token.rsplit_once(':')?;
            Some((host.trim_start_matches('.'), port.parse().ok()?))
        })
        .collect()
}

/// Edges between workloads that the policies allow on one side, `egress` or `ingress`. Peers in other namespaces do not count.
fn allowed(objects: &[Value], side: &str) -> BTreeSet<Edge> {
    let mut edges = BTreeSet::new();
    let peers = if side == "egress" { "to" } else { "from" };
    for policy in of_kind(objects, "NetworkPolicy") {
        let selector = &policy["spec"]["podSelector"]["matchLabels"];
        for own in workloads(objects).into_iter().filter(|workload| selects(selector, labels(workload))) {
            for rule in policy["spec"][side].as_array().into_iter().flatten() {
                for port in rule["ports"].as_array().into_iter().flatten() {
                    let (number, protocol) = (port["port"].as_u64().unwrap(), port["protocol"].as_str().unwrap());
                    let mut add = |other: &str| {
                        let (from, to) = if side == "egress" { (name(own), other) } else { (other, name(own)) };
                        edges.insert(edge(from, to, number, protocol));
                    };
                    let Some(peers) = rule[peers].as_array() else {
                        add("everybody");
                        continue;
                    };
                    for peer in peers.iter().filter(|peer| peer["namespaceSelector"].is_null()) {
                        let selector = &peer["podSelector"]["matchLabels"];
                        let taken = workloads(objects).into_iter().filter(|other| selects(selector, labels(other)));
                        taken.for_each(|other| add(name(other)));
                    }
                }
            }
        }
    }
    if side == "egress" {
        // They are no pods of ours.
        edges.insert(edge("everybody", "gateway", 8080, "TCP"));
    }
    edges
}
