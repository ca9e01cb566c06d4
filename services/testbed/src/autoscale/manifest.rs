//! The manifest that a stack is scaled by: read from a file, and checked for what a stack does not have.

use std::{fs::File, io::Read as _, path::Path};

use anyhow::{Context as _, bail, ensure};
use autoscaler::{
    Manifest, Resource,
    line::{MetricInput, MetricKind},
};

use super::planner::CONTAINER;

/// The article's rule: 8 to 20 replicas, more of them after two minutes above 70 % CPU. The same as docs/examples/hpa.yaml, which a build in
/// a container does not have.
pub const ARTICLE: &str = include_str!("article.yaml");
/// A manifest has a few kilobytes; etcd takes no more than this.
const LONGEST: u64 = 1_536 << 10;

/// # Errors
/// The file cannot be read, is longer than etcd takes, or is no text.
pub fn read(file: &Path) -> anyhow::Result<String> {
    let named = || format!("cannot read {}", file.display());
    let mut text = String::new();
    File::open(file).with_context(named)?.take(LONGEST + 1).read_to_string(&mut text).with_context(named)?;
    ensure!(text.len() as u64 <= LONGEST, "{} is longer than {LONGEST} bytes", file.display());
    Ok(text)
}

/// # Errors
/// The text is no manifest that the planner reads, or it needs what a stack does not have: other metrics than the CPU of the replicas.
pub fn parse(text: &str) -> anyhow::Result<Manifest> {
    let manifest = Manifest::parse(text)?;
    ensure!(manifest.min_replicas() > 0, "spec.minReplicas: 0 replicas cannot be scaled by their CPU");
    for (at, metric) in manifest.metrics().iter().enumerate() {
        check(metric, manifest.resource()).with_context(|| format!("spec.metrics[{at}]"))?;
    }
    Ok(manifest)
}

fn check(metric: &MetricInput, resource: Option<Resource>) -> anyhow::Result<()> {
    match (metric.kind, metric.container.as_deref()) {
        (MetricKind::External, _) => bail!("a stack has no external metrics: scale by cpu"),
        (MetricKind::ContainerResource, Some(container)) if container != CONTAINER => {
            bail!("a replica has no container called {container:?}, only {CONTAINER:?}")
        }
        _ => {}
    }
    ensure!(resource == Some(Resource::Cpu), "the memory of replicas is not measured: scale by cpu");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(metric: &str) -> String {
        let from =
            "    - type: Resource\n      resource: {name: cpu, target: {type: Utilization, averageUtilization: 70}}\n";
        assert!(ARTICLE.contains(from));
        ARTICLE.replace(from, metric)
    }

    #[test]
    fn the_articles_rule_is_that_of_the_documents() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        assert_eq!(ARTICLE, read(&root.join("docs/examples/hpa.yaml")).unwrap());
        let article = parse(ARTICLE).unwrap();
        assert_eq!((article.min_replicas(), article.max_replicas()), (8, 20));
        assert_eq!(article.metrics()[0].target_utilization_percent, Some(70));
    }

    #[test]
    fn what_a_stack_does_not_have_is_refused() {
        let refused = |text: &str| format!("{:#}", parse(text).unwrap_err());
        let external =
            with("    - type: External\n      external: {metric: {name: lag}, target: {type: Value, value: 100}}\n");
        assert!(refused(&external).contains("spec.metrics[0]: a stack has no external metrics"));
        assert!(
            refused(&external.replace("minReplicas: 8", "minReplicas: 0")).contains("spec.minReplicas: 0 replicas")
        );
        assert!(refused(&ARTICLE.replace("cpu", "memory")).contains("spec.metrics[0]: the memory"));
        let container = |name: &str| {
            with(&format!(
                "    - type: ContainerResource\n      containerResource: {{name: cpu, container: {name}, target: {{type: Utilization, averageUtilization: 70}}}}\n"
            ))
        };
        parse(&container("app")).unwrap();
        assert!(refused(&container("proxy")).contains("no container called \"proxy\""));
        assert!(refused("kind: Deployment").contains("apiVersion"));
        assert!(refused(&ARTICLE.replace("maxReplicas: 20", "maxReplicas: 7")).contains("minReplicas"));
    }

    #[test]
    fn a_file_is_not_read_without_a_bound() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "#".repeat(LONGEST as usize + 1)).unwrap();
        assert!(read(file.path()).unwrap_err().to_string().contains("longer than 1572864 bytes"));
        assert!(read(Path::new("/nowhere.yaml")).unwrap_err().to_string().contains("/nowhere.yaml"));
    }
}
