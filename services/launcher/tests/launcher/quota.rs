//! CPU quotas that the kernel enforces.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use launcher::{Cores, CpuUsage, QuotaChoice, QuotaMode, Stack, orphans, scheduling::ProcessQuota, testing};

use crate::{Victim, eventually, found, log_of, shell, wait_if_victim};

/// 50 m, as a replica of the experiment has.
const QUOTA: f64 = 0.05;
/// Two processes that need all the CPU time that they can get.
const BUSY: &str = "sh -c 'while :; do :; done' & echo up; while :; do :; done";

/// A stack with kernel quotas; `None`: skipped, the kernel has none here.
fn stack_with_quotas(name: &str) -> Option<Stack> {
    let mut stack = Stack::create(name).unwrap();
    let mode = stack.set_quotas(QuotaChoice::Auto).unwrap();
    if let Some(reason) = mode.reason() {
        testing::skip(reason);
        return None;
    }
    assert!(mode.to_string().starts_with("kernel (cgroup v"), "{mode}");
    Some(stack)
}

/// The cgroups of a stack, as `stack.json` lists them.
fn cgroups(dir: &Path) -> Vec<PathBuf> {
    found(dir).unwrap().description.unwrap().cgroups
}

/// CPU time since `from` per second. The clock is read outside of both readings, so that the share is not too high.
fn used_of(from: CpuUsage, since: Instant, now: impl FnOnce() -> CpuUsage) -> (CpuUsage, f64) {
    let to = now();
    (to, (to.used_s - from.used_s) / since.elapsed().as_secs_f64())
}

#[tokio::test]
async fn busy_children_stay_within_their_quotas() {
    let Some(mut stack) = stack_with_quotas("test-quota") else { return };
    let groups = cgroups(stack.dir());
    assert!(!groups.is_empty() && groups.iter().all(|group| group.is_dir()), "{groups:?}");
    let quotas = [QUOTA, 2.0 * QUOTA];
    let children = quotas.map(|cores| {
        let name = format!("busy-{}", cores * 1000.0);
        stack.spawn(shell(&name, BUSY).cores(Cores::new(cores).unwrap())).unwrap()
    });
    for name in ["busy-50", "busy-100"] {
        eventually("the child is up", || log_of(&stack, name) == "up\n");
    }
    let own = std::fs::read_to_string(format!("/proc/{}/cgroup", stack.pid(children[0]).unwrap())).unwrap();
    assert!(own.contains("/busy-50\n"), "{own}");
    let Some(QuotaMode::Kernel(kernel)) = stack.quotas() else { panic!("the stack has kernel quotas") };
    let stat = std::fs::read_to_string(kernel.stat_file("busy-50")).unwrap();
    assert!(stat.contains("throttled_"), "{stat}");

    let usage = |child| stack.cpu_usage(child).unwrap();
    let before = children.map(|child| (Instant::now(), usage(child)));
    // Both measured at the same time. Many periods, so that a slice at the edge counts little.
    tokio::time::sleep(Duration::from_secs(3)).await;
    for (n, (since, from)) in before.into_iter().enumerate() {
        let (to, share) = used_of(from, since, || usage(children[n]));
        assert!(
            to.used_s > from.used_s && share <= 1.05 * quotas[n],
            "{share} cores of {}: {from:?} {to:?}",
            quotas[n]
        );
        assert!(to.throttled_periods > from.throttled_periods && to.throttled_s > from.throttled_s, "{to:?}");
        assert!(to.periods >= to.throttled_periods);
        // The same is found from the process alone, as it is for processes of other owners.
        let found = ProcessQuota::of(stack.pid(children[n]).unwrap()).unwrap();
        assert!((found.cores - quotas[n]).abs() < 0.01 * quotas[n], "{found:?}");
        assert!(found.throttled_s >= to.throttled_s && found.used_s >= to.used_s, "{found:?} {to:?}");
    }

    stack.stop_child(children[0]).await.unwrap();
    assert!(stack.cpu_usage(children[0]).is_err());
    assert!(groups.iter().all(|group| !group.join("busy-50").exists() && group.join("busy-100").is_dir()));
    // Its name begins with a new cgroup.
    let again = stack.spawn(shell("busy-50", "sleep 600").cores(Cores::new(1.0).unwrap())).unwrap();
    assert_eq!(stack.cpu_usage(again).unwrap().throttled_periods, 0);
    assert!(stack.spawn(shell("free", "sleep 600")).is_ok(), "a child without a quota");
    stack.stop().await.unwrap();
    assert!(groups.iter().all(|group| !group.exists()));
}

#[tokio::test]
async fn the_quota_of_a_running_child_changes() {
    let Some(mut stack) = stack_with_quotas("test-quota-change") else { return };
    let child = stack.spawn(shell("child", "sleep 600").cores(Cores::new(1.0).unwrap())).unwrap();
    let pid = stack.pid(child).unwrap();
    // A shorter and a longer period than before.
    for cores in [QUOTA, 1.0] {
        stack.set_cores(child, Cores::new(cores).unwrap()).unwrap();
        assert!((ProcessQuota::of(pid).unwrap().cores - cores).abs() < 0.01 * cores);
    }
    let free = stack.spawn(shell("free", "sleep 600")).unwrap();
    let error = stack.set_cores(free, Cores::new(QUOTA).unwrap()).unwrap_err().to_string();
    assert!(error.contains("free"), "{error}");
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn cgroups_end_with_a_dropped_stack() {
    let Some(mut stack) = stack_with_quotas("test-quota-drop") else { return };
    let groups = cgroups(stack.dir());
    stack.spawn(shell("busy", BUSY).cores(Cores::new(QUOTA).unwrap())).unwrap();
    assert!(groups.iter().all(|group| group.join("busy").is_dir()));
    drop(stack);
    assert!(groups.iter().all(|group| !group.exists()));
}

#[tokio::test]
async fn modelled_quotas_make_no_cgroup_and_a_quota_without_a_mode_is_refused() {
    let mut stack = Stack::create("test-quota-none").unwrap();
    let spec = || shell("child", "sleep 600").cores(Cores::new(QUOTA).unwrap());
    let error = stack.spawn(spec()).unwrap_err().to_string();
    assert!(error.contains("set_quotas"), "{error}");
    let mode = stack.set_quotas(QuotaChoice::Modelled).unwrap();
    assert_eq!(*mode, QuotaMode::Modelled { reason: "chosen".into() });
    let child = stack.spawn(spec()).unwrap();
    assert!(cgroups(stack.dir()).is_empty());
    assert!(stack.cpu_usage(child).unwrap_err().to_string().contains("no kernel quota"));
    stack.stop().await.unwrap();
}

/// A test below runs this as a separate process that is killed. Run alone, it checks that the stack stops.
#[tokio::test]
async fn a_stack_with_a_quota_stops() {
    let Some(mut stack) = stack_with_quotas("test-quota-killed") else { return };
    stack.spawn(shell("busy", BUSY).cores(Cores::new(QUOTA).unwrap())).unwrap();
    // Its second process outlives the owner.
    eventually("the child is up", || log_of(&stack, "busy") == "up\n");
    wait_if_victim(&stack).await;
    stack.stop().await.unwrap();
}

/// `testbed down` calls `orphans::stop`.
#[test]
fn cgroups_of_a_killed_owner_are_removed() {
    // The victim would end at once without quotas.
    if stack_with_quotas("test-quota-trial").is_none() {
        return;
    }
    for described in [true, false] {
        let scratch = tempfile::tempdir().unwrap();
        let mut victim = Victim::start(scratch.path(), "quota::a_stack_with_a_quota_stops");
        let dir = victim.stack.clone();
        let groups = cgroups(&dir);
        assert!(groups.iter().all(|group| group.join("busy").is_dir()), "{groups:?}");
        victim.kill();
        if !described {
            std::fs::write(dir.join("stack.json"), "{").unwrap();
        }
        assert!(groups.iter().all(|group| group.is_dir()), "no process is left that could remove them");
        orphans::stop(&found(&dir).unwrap()).unwrap();
        assert!(groups.iter().all(|group| !group.exists()) && !dir.exists());
    }
}
