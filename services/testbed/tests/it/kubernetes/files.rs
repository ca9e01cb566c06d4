//! The objects of deploy/k8s: those of `base` from its files, without any tool; those of an overlay by kustomize, where it is installed.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Map, Value, json};

use crate::deploy::{read, root, texts};

pub const BASE: &str = "deploy/k8s/base";
pub const OVERLAYS: [&str; 2] = ["deploy/k8s/overlays/production", "deploy/k8s/overlays/local"];

/// Of `base`: the files that it names, and its ConfigMaps under the names without a hash.
pub fn base() -> Vec<Value> {
    objects_of(Path::new(BASE))
}

/// The part of kustomize that `base` uses: `resources` and `configMapGenerator`.
fn objects_of(directory: &Path) -> Vec<Value> {
    let kustomization = documents(&read(directory.join("kustomization.yaml"))).remove(0);
    let known = ["apiVersion", "kind", "namespace", "resources", "configMapGenerator"];
    for key in kustomization.as_object().unwrap().keys() {
        assert!(known.contains(&key.as_str()), "{}: {key} is not read here", directory.display());
    }
    let mut objects = Vec::new();
    for resource in texts(&kustomization["resources"]) {
        let path = directory.join(resource);
        match root().join(&path).is_dir() {
            true => objects.extend(objects_of(&path)),
            false => objects.extend(documents(&read(&path))),
        }
    }
    let generators = kustomization["configMapGenerator"].as_array().cloned().unwrap_or_default();
    objects.extend(generators.iter().map(|generator| config_map(directory, generator)));
    objects
}

fn config_map(directory: &Path, generator: &Value) -> Value {
    let mut data = Map::new();
    for literal in texts(&generator["literals"]) {
        let (key, value) = literal.split_once('=').unwrap();
        data.insert(key.to_owned(), value.into());
    }
    for file in texts(&generator["files"]) {
        let (key, path) = file.split_once('=').unwrap_or((file.rsplit('/').next().unwrap(), file));
        data.insert(key.to_owned(), read(directory.join(path)).into());
    }
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": generator["name"] }, "data": data })
}

/// Anchors and merge keys resolved.
pub fn documents(text: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

/// By `kustomize build` or `kubectl kustomize`; `None` where neither is installed in version 5.
pub fn rendered(directory: &str) -> Option<Vec<Value>> {
    let asked = |program: &PathBuf, words: &[&str]| Command::new(program).args(words).current_dir(root()).output();
    let is_5 = |program: &PathBuf, words: &[&str]| {
        let output = asked(program, words).map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        output.is_ok_and(|text| text.contains("v5."))
    };
    let kustomize = launcher::find_program(&["kustomize"]).filter(|program| is_5(program, &["version"]));
    let kubectl = launcher::find_program(&["kubectl"]).filter(|program| is_5(program, &["version", "--client"]));
    let output = match (kustomize, kubectl) {
        (Some(program), _) => asked(&program, &["build", directory]),
        (None, Some(program)) => asked(&program, &["kustomize", directory]),
        (None, None) => {
            launcher::testing::skip("neither kustomize 5 nor a kubectl with it is installed");
            return None;
        }
    };
    let output = output.unwrap();
    assert!(output.status.success(), "{directory}: {}", String::from_utf8_lossy(&output.stderr));
    Some(documents(&String::from_utf8(output.stdout).unwrap()))
}

pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

pub fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap()
}

/// `Deployment api`
pub fn title(object: &Value) -> String {
    format!("{} {}", kind(object), name(object))
}

pub fn of_kind<'a>(objects: &'a [Value], wanted: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| kind(object) == wanted)
}

/// What has pods.
pub fn workloads(objects: &[Value]) -> Vec<&Value> {
    objects.iter().filter(|object| ["Deployment", "StatefulSet", "Job"].contains(&kind(object))).collect()
}

pub fn find<'a>(objects: &'a [Value], wanted: &str, called: &str) -> &'a Value {
    let found = objects.iter().find(|object| kind(object) == wanted && name(object) == called);
    found.unwrap_or_else(|| panic!("there is no {wanted} {called}"))
}

pub fn containers(workload: &Value) -> &Vec<Value> {
    workload["spec"]["template"]["spec"]["containers"].as_array().unwrap()
}

pub fn labels(workload: &Value) -> &Value {
    &workload["spec"]["template"]["metadata"]["labels"]
}

/// Whether all of a selector's labels are among `labels`; an empty selector takes everything.
pub fn selects(selector: &Value, labels: &Value) -> bool {
    selector.as_object().into_iter().flatten().all(|(key, value)| labels[key] == *value)
}
