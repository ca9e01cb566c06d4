//! Quotas where there are no cgroups. What the experiments measure, their judgements' tests check; replicas that come and go are in
//! autoscale.rs.

use std::process::Command;

use crate::Home;

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
