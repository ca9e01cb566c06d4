//! What the objects of deploy/k8s must fulfil. Each finding begins with the name of its rule.

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    autoscaling::v2::HorizontalPodAutoscaler,
    batch::v1::Job,
    core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Secret, Service},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    edges,
    files::{containers, find, kind, labels, name, of_kind, selects, title, workloads},
};
use crate::deploy::texts;

/// Its name, and what it finds in all manifests of a rendering.
type Rule = (&'static str, fn(&[Value]) -> Vec<String>);

pub fn findings(objects: &[Value]) -> Vec<String> {
    let rules: [Rule; 8] = [
        ("unknown-key", unknown_keys),
        ("replicas-beside-autoscaler", replicas_beside_autoscalers),
        ("no-request", missing_requests),
        ("overlapping-selectors", overlapping_selectors),
        ("budget-blocks-drains", budgets_that_block_drains),
        ("liveness-of-others", liveness_of_others),
        ("rights", rights),
        ("policy", edges::differences),
    ];
    let named =
        |(rule, check): &Rule| check(objects).iter().map(|finding| format!("{rule}: {finding}")).collect::<Vec<_>>();
    rules.iter().flat_map(named).collect()
}

/// A key that the type of Kubernetes 1.37 does not have is lost on the way through it. The API server would drop it as well, with a warning.
fn unknown_keys(objects: &[Value]) -> Vec<String> {
    let of_object = |object: &Value| {
        let lost = match kind(object) {
            "ConfigMap" => lost::<ConfigMap>(object),
            "Deployment" => lost::<Deployment>(object),
            "HorizontalPodAutoscaler" => lost::<HorizontalPodAutoscaler>(object),
            "Job" => lost::<Job>(object),
            "Namespace" => lost::<Namespace>(object),
            "NetworkPolicy" => lost::<NetworkPolicy>(object),
            "PersistentVolumeClaim" => lost::<PersistentVolumeClaim>(object),
            "PodDisruptionBudget" => lost::<PodDisruptionBudget>(object),
            "ScaledObject" => unknown_of_keda(object),
            "Secret" => lost::<Secret>(object),
            "Service" => lost::<Service>(object),
            "StatefulSet" => lost::<StatefulSet>(object),
            _ => vec!["no such kind is expected".to_owned()],
        };
        lost.into_iter().map(|what| format!("{}: {what}", title(object))).collect::<Vec<_>>()
    };
    objects.iter().flat_map(of_object).collect()
}

fn lost<T: Serialize + DeserializeOwned>(object: &Value) -> Vec<String> {
    match serde_json::from_value::<T>(object.clone()) {
        Ok(typed) => differences(object, &serde_json::to_value(typed).unwrap(), ""),
        Err(error) => vec![error.to_string()],
    }
}

fn differences(before: &Value, after: &Value, path: &str) -> Vec<String> {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => before
            .iter()
            .flat_map(|(key, value)| {
                let path = format!("{path}.{key}");
                after.get(key).map_or_else(|| vec![path.clone()], |after| differences(value, after, &path))
            })
            .collect(),
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            let pairs = before.iter().zip(after).enumerate();
            pairs.flat_map(|(at, (before, after))| differences(before, after, &format!("{path}[{at}]"))).collect()
        }
        (before, after) if before == after => Vec::new(),
        _ => vec![path.to_owned()],
    }
}

/// KEDA's types are in no crate: these are the keys of its CRD that we use, at any depth. A trigger's `metadata` is free.
fn unknown_of_keda(value: &Value) -> Vec<String> {
    const KEYS: [&str; 24] = [
        "apiVersion",
        "kind",
        "metadata",
        "name",
        "namespace",
        "spec",
        "scaleTargetRef",
        "minReplicaCount",
        "maxReplicaCount",
        "pollingInterval",
        "fallback",
        "failureThreshold",
        "replicas",
        "behavior",
        "advanced",
        "horizontalPodAutoscalerConfig",
        "scaleDown",
        "stabilizationWindowSeconds",
        "policies",
        "type",
        "value",
        "periodSeconds",
        "triggers",
        "metricType",
    ];
    match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, inner)| match key.as_str() {
                "metadata" if map.contains_key("type") => Vec::new(),
                known if KEYS.contains(&known) => unknown_of_keda(inner),
                unknown => vec![format!(".{unknown}")],
            })
            .collect(),
        Value::Array(list) => list.iter().flat_map(unknown_of_keda).collect(),
        _ => Vec::new(),
    }
}

/// Each apply would reset the number that the autoscaler has chosen.
fn replicas_beside_autoscalers(objects: &[Value]) -> Vec<String> {
    let scaled = of_kind(objects, "HorizontalPodAutoscaler").chain(of_kind(objects, "ScaledObject"));
    let targets = scaled.map(|scaler| {
        let target = &scaler["spec"]["scaleTargetRef"];
        find(objects, target["kind"].as_str().unwrap(), target["name"].as_str().unwrap())
    });
    targets.filter(|target| !target["spec"]["replicas"].is_null()).map(title).collect()
}

/// The scheduler goes by requests, and the autoscaler's percentages are of them. A limit bounds what one container takes from others.
fn missing_requests(objects: &[Value]) -> Vec<String> {
    let wanted = [("requests", "cpu"), ("requests", "memory"), ("limits", "cpu"), ("limits", "memory")];
    let mut found = Vec::new();
    for workload in workloads(objects) {
        for container in containers(workload) {
            for (part, resource) in wanted.iter().filter(|(part, of)| container["resources"][part][of].is_null()) {
                found.push(format!("{}, container {}: {part}.{resource}", title(workload), name_of(container)));
            }
        }
    }
    found
}

fn name_of(container: &Value) -> &str {
    container["name"].as_str().unwrap()
}

/// A pod of two workloads is counted twice by autoscalers, and adopted by either.
fn overlapping_selectors(objects: &[Value]) -> Vec<String> {
    let mut found = Vec::new();
    for owner in workloads(objects) {
        let selector = &owner["spec"]["selector"]["matchLabels"];
        if kind(owner) == "Job" {
            continue;
        }
        for other in workloads(objects) {
            let (same, takes) = (title(owner) == title(other), selects(selector, labels(other)));
            if same != takes {
                found.push(format!("the selector of {} and the pods of {}", title(owner), title(other)));
            }
        }
    }
    let of_services = of_kind(objects, "Service")
        .filter(|service| service["spec"]["type"] != "ExternalName")
        .map(|service| (service, &service["spec"]["selector"]));
    let of_budgets =
        of_kind(objects, "PodDisruptionBudget").map(|budget| (budget, &budget["spec"]["selector"]["matchLabels"]));
    for (object, selector) in of_services.chain(of_budgets) {
        let taken = workloads(objects).into_iter().filter(|workload| selects(selector, labels(workload))).count();
        if taken != 1 {
            found.push(format!("{} takes the pods of {taken} workloads", title(object)));
        }
    }
    found
}

/// A node could never be emptied.
fn budgets_that_block_drains(objects: &[Value]) -> Vec<String> {
    let blocks = |budget: &&Value| {
        let spec = &budget["spec"];
        let selector = &spec["selector"]["matchLabels"];
        let of: Vec<&Value> =
            workloads(objects).into_iter().filter(|workload| selects(selector, labels(workload))).collect();
        // The least number that an autoscaler may choose.
        let replicas = |workload: &Value| {
            let scalers = of_kind(objects, "HorizontalPodAutoscaler").chain(of_kind(objects, "ScaledObject"));
            let mut own = scalers.filter(|scaler| scaler["spec"]["scaleTargetRef"]["name"] == name(workload));
            let least = own.next().map(|scaler| {
                let spec = &scaler["spec"];
                spec["minReplicas"].as_u64().or(spec["minReplicaCount"].as_u64())
            });
            least.flatten().or(workload["spec"]["replicas"].as_u64()).unwrap_or(1)
        };
        let least = of.into_iter().map(replicas).min().unwrap_or(0);
        // Percentages are rounded up.
        let count = |value: &Value| match value.as_str().and_then(|text| text.strip_suffix('%')) {
            Some(percent) => (least * percent.parse::<u64>().unwrap()).div_ceil(100),
            None => value.as_u64().unwrap(),
        };
        match (&spec["maxUnavailable"], &spec["minAvailable"]) {
            (Value::Null, min) => count(min) >= least,
            (max, _) => count(max) == 0,
        }
    };
    of_kind(objects, "PodDisruptionBudget").filter(blocks).map(title).collect()
}

/// A process whose database is away must not restart: that helps nobody, and all replicas would restart together.
fn liveness_of_others(objects: &[Value]) -> Vec<String> {
    const OWN_STATE: [&str; 4] = ["/healthz", "/livez", "/-/healthy", "/metrics"];
    let mut found = Vec::new();
    for workload in workloads(objects).into_iter().filter(|workload| kind(workload) != "Job") {
        for container in containers(workload) {
            let probe = &container["livenessProbe"];
            let asks_itself = match probe["httpGet"]["path"].as_str() {
                Some(path) => OWN_STATE.contains(&path) && probe["httpGet"]["host"].is_null(),
                // A command may ask anybody.
                None => probe["tcpSocket"]["port"].is_string() && probe["tcpSocket"]["host"].is_null(),
            };
            if !asks_itself || !container["readinessProbe"].is_object() {
                found.push(format!("{}, container {}", title(workload), name_of(container)));
            }
        }
    }
    found
}

/// What Pod Security `restricted` demands, and a file system that cannot be written.
fn rights(objects: &[Value]) -> Vec<String> {
    let mut found = Vec::new();
    for workload in workloads(objects) {
        let pod = &workload["spec"]["template"]["spec"];
        let security = &pod["securityContext"];
        let pod_holds = security["runAsNonRoot"] == true
            && security["runAsUser"].as_u64().is_some_and(|user| user > 0)
            && security["seccompProfile"]["type"] == "RuntimeDefault"
            && pod["automountServiceAccountToken"] == false;
        let holds = |container: &Value| {
            let security = &container["securityContext"];
            security["allowPrivilegeEscalation"] == false
                && security["readOnlyRootFilesystem"] == true
                && texts(&security["capabilities"]["drop"]) == ["ALL"]
        };
        if !pod_holds || !containers(workload).iter().all(holds) {
            found.push(title(workload));
        }
    }
    let enforced = |namespace: &Value| namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"].clone();
    if of_kind(objects, "Namespace").map(enforced).collect::<Vec<_>>() != ["restricted"] {
        found.push("the namespace does not enforce Pod Security restricted".to_owned());
    }
    found
}
