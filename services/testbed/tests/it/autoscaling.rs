//! The simulation, and quotas where there are no cgroups. What the experiment measures, its judgement's tests check; replicas that come and go
//! are in autoscale.rs.

use std::process::Command;

use crate::{Home, experiment::schema_walk};

/// Runs its arguments on a system on which no cgroup hierarchy is mounted. For root only.
const WITHOUT_CGROUPS: &str = r#"
awk '/ - cgroup2? / { print $5 }' /proc/self/mountinfo | sort -r | while read -r mount; do umount -l "$mount" || exit 77; done
exec "$@"
"#;

fn without_cgroups(command: &Command) -> Command {
    let mut inside = Command::new("unshare");
    inside.args(["--mount", "--propagation", "private", "sh", "-c", WITHOUT_CGROUPS, "sh"]);
    inside.arg(command.get_program()).args(command.get_args());
    inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(directory) = command.get_current_dir() {
        inside.current_dir(directory);
    }
    inside
}

/// `--quota kernel` must not measure something else.
#[test]
fn without_cgroups_a_kernel_quota_is_refused_with_the_reason() {
    let home = Home::bare();
    let mut trial = Command::new("true");
    if !without_cgroups(trial.current_dir(home.path())).status().is_ok_and(|status| status.success()) {
        launcher::testing::skip("cgroups cannot be unmounted here");
        return;
    }
    let asked = home.command(&["experiment", "autoscaling", "--quick", "--quota", "kernel"]);
    let output = without_cgroups(&asked).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains(
            "the kernel cannot enforce CPU quotas here: no cgroup hierarchy with the controller cpu is mounted"
        ),
        "{error}"
    );
    assert_eq!(home.processes(), [] as [u64; 0]);
}

const SIMULATE: [&str; 4] = ["experiment", "autoscaling", "--simulate", "--quick"];

/// Twice, because the same command has the same figures.
#[test]
fn policies_are_simulated_without_servers() {
    let home = Home::bare();
    let simulate = |out: &str| {
        let words = ["--policy", "hpa-article", "knative", "foresight", "--out", out, "--json"];
        home.json(&[&SIMULATE[..], &words].concat())
    };
    let report = simulate("one");
    let schema = serde_json::from_str(include_str!("../../../report/report.schema.json")).unwrap();
    assert_eq!(schema_walk::problems(&schema, &report), [""; 0]);
    let sections = report["sections"].as_array().unwrap();
    assert_eq!(sections.len(), 7, "the policies and six loads");
    for section in &sections[1..] {
        assert_eq!(section["measured"].as_array().unwrap().len(), 3, "{section}");
        assert_eq!(section["charts"].as_array().unwrap().len(), 1, "{section}");
    }
    for file in ["report.json", "report.md", "report.html"] {
        assert!(home.path().join("one").join(file).is_file(), "{file}");
    }
    assert_eq!(report["sections"], simulate("two")["sections"]);
}

#[test]
fn a_bad_curve_is_refused_with_its_line() {
    let home = Home::bare();
    for (text, reason) in [
        ("", "line 1: the head must be second,rate"),
        ("second,rate\n", "line 2: second 0 is missing"),
        ("second,rate\n0,5\n2,5\n", "line 3: second 1 is missing before second 2"),
        ("second,rate\n0,5\n1,5\n0,5\n", "line 4: second 0 goes back in time"),
        ("second,rate\n0,5\n1,-5\n", "line 3: the rate must be 0..=20000, is \"-5\""),
    ] {
        std::fs::write(home.path().join("mine.csv"), text).unwrap();
        let output = home.run(&[&SIMULATE[..], &["--curve", "mine.csv"]].concat());
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("mine.csv") && error.contains(reason), "{text:?}: {error}");
    }
}

#[test]
fn without_cgroups_servers_with_quotas_are_skipped_with_the_reason() {
    let Some(home) = Home::new() else { return };
    let mut trial = Command::new("true");
    if !without_cgroups(trial.current_dir(home.path())).status().is_ok_and(|status| status.success()) {
        launcher::testing::skip("cgroups cannot be unmounted here");
        return;
    }
    let words = ["experiment", "sharding", "--quick", "--part", "quota", "--servers", "2", "--out", "out", "--json"];
    let output = without_cgroups(&home.command(&words)).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let reason = "no cgroup hierarchy with the controller cpu is mounted";
    assert!(report["sections"][0]["measured"]["skipped"].as_str().unwrap().contains(reason), "{report}");
    assert!(report["verdicts"][0]["note"].as_str().unwrap().contains(reason), "{report}");
    assert!(report["verdicts"][0]["passed"].is_null(), "{report}");
}
