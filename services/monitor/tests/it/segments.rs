//! Damaged copies are repaired by real monitors over real sockets.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use contract::SegmentId;
use launcher::testing;
use monitor::status::Status;
use segments::{BLOCK_BYTES, CopyState, Manifest, Version};
use tokio::sync::RwLock;

use crate::{
    holders::{Disk, Holder, file, version},
    support::{INTERVAL, Monitors, eventually, primaries},
};

/// On a busy machine no worker is suspected: the copies of one that failed are made again elsewhere.
const LONG_INTERVAL: Duration = Duration::from_secs(3);

struct Cluster {
    monitors: Monitors,
    gate: Arc<RwLock<()>>,
    holders: Vec<Holder>,
}

fn segment(number: u8) -> SegmentId {
    SegmentId::new(number).unwrap()
}

impl Cluster {
    /// Four workers. The primaries have published version 7 of all segments, and it is on all replicas.
    async fn start(name: &str, monitors: usize, interval: Duration) -> Self {
        let monitors = Monitors::with_interval(name, monitors, interval).await;
        let gate = Arc::new(RwLock::new(()));
        let mut holders = Vec::new();
        for id in ["a", "b", "c", "d"] {
            holders.push(Holder::start(&monitors, id, &gate).await);
        }
        let cluster = Self { monitors, gate, holders };
        let is_settled = |status: &Status| {
            let spread = primaries(status);
            spread.len() == 4 && spread.values().all(|&count| count == 4)
        };
        cluster.monitors.until(0, "all workers have partitions", is_settled).await;
        cluster.publish(7).await;
        cluster.healed(0, 7).await;
        cluster
    }

    async fn publish(&self, position: u64) {
        let _gate = self.gate.write().await;
        for segment in SegmentId::all() {
            let (disks, version) = self.disks(segment, position).await;
            disks[0].publish(segment, version);
        }
    }

    /// The disks of the segment's primary and replicas, and this version in the partition's epoch.
    async fn disks(&self, segment: SegmentId, position: u64) -> (Vec<Arc<Disk>>, Version) {
        let status = self.monitors.until(0, "monitor 0 answers", |_| true).await;
        let assignment = &status.table.partitions[segment.index()];
        let disk = |id: &Arc<str>| {
            let holder = self.holders.iter().find(|holder| holder.worker.registration.id == *id);
            Arc::clone(&holder.unwrap().disk)
        };
        let disks = assignment.primary.iter().chain(&assignment.replicas).map(disk).collect();
        (disks, version(assignment.epoch, position))
    }

    /// Waits until all holders have this version, on the disks and as monitor `n` knows.
    async fn healed(&self, n: usize, position: u64) {
        let status = self.monitors.until(n, "it answers", |_| true).await;
        for segment in SegmentId::all() {
            for id in holders_of(&status, segment) {
                let holder = self.holders.iter().find(|holder| holder.worker.registration.id == id).unwrap();
                let is_good = async || {
                    let found = holder.disk.bytes(segment);
                    found.is_some_and(|(version, bytes)| {
                        version.vector.positions()[0] == position && bytes == file(segment, version)
                    })
                };
                eventually(&format!("segment {segment} is good at {id}"), is_good).await;
            }
        }
        let is_good = |status: &Status| {
            let good =
                |of: &monitor::status::SegmentStatus| of.good == 3 && of.holders == 3 && of.version == 16 * position;
            status.segments.len() == 16 && status.segments.iter().all(good)
        };
        self.monitors.until(n, "all copies are good", is_good).await;
    }

    fn moved(&self) -> (u64, u64, u64) {
        let sum = |of: fn(&Disk) -> u64| self.holders.iter().map(|holder| of(&holder.disk)).sum();
        (
            sum(|disk| disk.blocks.load(SeqCst)),
            sum(|disk| disk.manifests.load(SeqCst)),
            sum(|disk| disk.rebuilds.load(SeqCst)),
        )
    }

    async fn stop(self) {
        drop(self.holders);
        self.monitors.stop().await;
    }
}

fn holders_of(status: &Status, segment: SegmentId) -> Vec<Arc<str>> {
    let assignment = &status.table.partitions[segment.index()];
    assignment.primary.iter().chain(&assignment.replicas).cloned().collect()
}

fn blocks_file(disk: &Disk, segment: SegmentId) -> PathBuf {
    let is_of_segment = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(&format!("segment-{segment}-")) && name.ends_with(".blocks")
    };
    let files = fs::read_dir(disk.path()).unwrap().map(|entry| entry.unwrap().path());
    files.into_iter().find(is_of_segment).unwrap()
}

fn flip(path: PathBuf, offset: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

/// Blocks of the version that this disk does not have, and whether it lacks the manifest.
fn damage(disk: &Disk, segment: SegmentId, version: Version) -> (u64, u64) {
    let manifest = Manifest::of(segment, version, &file(segment, version)).unwrap();
    let current = disk.report(segment).and_then(|copy| copy.current).unwrap_or_default();
    let missing = (0..manifest.blocks().len() as u32).filter(|&block| !CopyState::has(&current, &manifest, block));
    (missing.count() as u64, u64::from(current.manifest.as_ref() != Some(&manifest)))
}

#[tokio::test]
async fn copies_damaged_in_any_way_are_repaired_and_only_damaged_blocks_move() {
    if !testing::have(&["etcd"]) {
        return;
    }
    let cluster = Cluster::start("test-repair", 1, LONG_INTERVAL).await;
    let before = cluster.moved();
    let (mut damaged_blocks, mut damaged_manifests) = (0, 0);
    {
        let _gate = cluster.gate.write().await;
        let block = BLOCK_BYTES as u64;
        for number in 0..7 {
            let segment = segment(number);
            let (disks, _) = cluster.disks(segment, 7).await;
            let version = disks[0].bytes(segment).unwrap().0;
            match number {
                0 => flip(blocks_file(&disks[1], segment), 2 * block + 9),
                1 => flip(disks[0].path().join(format!("segment-{segment}.manifest")), 40),
                2 => {
                    let file = File::options().write(true).open(blocks_file(&disks[2], segment)).unwrap();
                    file.set_len(block + 5).unwrap();
                }
                3 => {
                    // A stale replica: version 5 against 7.
                    disks[1].directory.remove(segment).unwrap();
                    let old = super::holders::version(version.epoch, 5);
                    disks[1].directory.write(segment, old, &file(segment, old)).unwrap();
                }
                4 => (0..3).for_each(|n| flip(blocks_file(&disks[n], segment), n as u64 * block)),
                5 => disks.iter().for_each(|disk| flip(blocks_file(disk, segment), 3 * block + 1)),
                _ => fs::remove_file(blocks_file(&disks[2], segment)).unwrap(),
            }
            for disk in &disks {
                let (blocks, manifests) = damage(disk, segment, version);
                damaged_blocks += blocks;
                damaged_manifests += manifests;
            }
        }
    }
    assert!(damaged_blocks >= 1 + 4 + 4 + 3 + 3 + 5 && damaged_manifests == 2, "{damaged_blocks} {damaged_manifests}");
    cluster.healed(0, 7).await;
    let after = cluster.moved();
    let (blocks, manifests, rebuilds) = (after.0 - before.0, after.1 - before.1, after.2 - before.2);
    assert!(blocks <= damaged_blocks, "{blocks} blocks were moved, {damaged_blocks} were damaged");
    assert!(manifests <= damaged_manifests, "{manifests} manifests were moved, {damaged_manifests} were damaged");
    assert_eq!(rebuilds, 1, "only of the segment whose block is bad in all copies");
    for line in [
        "testbed_segment_copies{segment=\"0\",state=\"good\"} 3",
        "testbed_segment_copies{segment=\"0\",state=\"missing\"} 0",
        "testbed_segment_repairs_total{kind=\"rebuild\"} 1",
        "testbed_segment_repairs_total{kind=\"drop\"} ",
        "testbed_segment_repair_failures_total ",
        "testbed_segment_conflicts_total 0",
        "testbed_segment_under_replicated_seconds 0",
    ] {
        eventually(line, async || cluster.monitors.metrics(0).await.contains(line)).await;
    }
    // Orders of an earlier term of this leader are not in it.
    let metrics = cluster.monitors.metrics(0).await;
    let counted = metrics.lines().find_map(|line| line.strip_prefix("testbed_segment_blocks_moved_total ")).unwrap();
    assert!((1..=after.0).contains(&counted.parse().unwrap()), "{counted} of {} blocks", after.0);
    cluster.stop().await;
}

#[tokio::test]
async fn a_worker_that_lost_its_directory_gets_its_copies_back_although_a_reply_is_lost() {
    if !testing::have(&["etcd"]) {
        return;
    }
    let cluster = Cluster::start("test-directory", 1, LONG_INTERVAL).await;
    let before = cluster.moved();
    let disk = &cluster.holders[2].disk;
    let lost = {
        let _gate = cluster.gate.write().await;
        let lost = SegmentId::all().filter(|&segment| disk.bytes(segment).is_some()).count() as u64;
        fs::remove_dir_all(disk.path()).unwrap();
        disk.loses.store(true, SeqCst);
        lost
    };
    cluster.healed(0, 7).await;
    assert!(!disk.loses.load(SeqCst), "a reply with orders was lost");
    let after = cluster.moved();
    assert_eq!((after.0 - before.0, after.1 - before.1, after.2), (5 * lost, lost, before.2));
    cluster.stop().await;
}

#[tokio::test]
async fn a_new_leader_finishes_the_repair_of_one_that_died() {
    if !testing::have(&["etcd"]) {
        return;
    }
    let mut cluster = Cluster::start("test-leader", 3, LONG_INTERVAL).await;
    let mut leader = None;
    eventually("a monitor leads", async || {
        for n in 0..3 {
            if cluster.monitors.status(n).await.is_some_and(|status| status.leading) {
                leader = Some(n);
            }
        }
        leader.is_some()
    })
    .await;
    let leader = leader.unwrap();
    let (disks, _) = cluster.disks(segment(3), 7).await;
    for disk in &disks {
        disk.holds.send_replace(true);
    }
    {
        let _gate = cluster.gate.write().await;
        flip(blocks_file(&disks[1], segment(3)), 9);
        flip(blocks_file(&disks[2], segment(3)), 9);
    }
    // The workers have the orders, and stand still.
    for disk in &disks[1..] {
        eventually("an order was handed out", async || disk.waits()).await;
    }
    cluster.monitors.end(leader).await;
    for disk in &disks {
        disk.holds.send_replace(false);
    }
    let next = (leader + 1) % 3;
    let is_led = |status: &Status| status.leader.is_some() && status.leader != Some(format!("m{leader}").into());
    cluster.monitors.until(next, "another monitor leads", is_led).await;
    cluster.healed(next, 7).await;
    cluster.stop().await;
}

#[tokio::test]
async fn the_heir_of_a_dead_primary_is_the_replica_that_is_ahead() {
    if !testing::have(&["etcd"]) {
        return;
    }
    let mut cluster = Cluster::start("test-heir", 1, 4 * INTERVAL).await;
    for holder in &cluster.holders {
        holder.disk.holds.send_replace(true);
    }
    let before = cluster.monitors.status(0).await.unwrap();
    let of_a = |status: &Status| {
        let is_primary = |segment: &SegmentId| &*holders_of(status, *segment)[0] == "a";
        SegmentId::all().filter(is_primary).collect::<Vec<_>>()
    };
    let segments = of_a(&before);
    {
        let _gate = cluster.gate.write().await;
        for &segment in &segments {
            // The primary, and alternately one of its two replicas.
            let (disks, version) = cluster.disks(segment, 9).await;
            disks[0].publish(segment, version);
            disks[1 + segment.index() % 2].publish(segment, version);
        }
    }
    let is_known = |status: &Status| {
        let ahead = status.segments.iter().filter(|of| of.version == 16 * 9 && of.good == 2);
        ahead.count() == segments.len()
    };
    cluster.monitors.until(0, "the monitor knows who is ahead", is_known).await;
    drop(cluster.holders.remove(0));
    let after = cluster.monitors.until(0, "a has no partition", |status| of_a(status).is_empty()).await;
    for &segment in &segments {
        let ahead = &holders_of(&before, segment)[1 + segment.index() % 2];
        assert_eq!(&holders_of(&after, segment)[0], ahead, "{segment}");
    }
    cluster.stop().await;
}
