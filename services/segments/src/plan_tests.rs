use contract::{ShardId, VersionVector};
use proptest::{prelude::*, sample::Index};

use super::*;
use crate::{digest::Digest, manifest::BLOCK_BYTES};

fn vector(positions: [u64; 2]) -> VersionVector {
    let mut vector = VersionVector::default();
    for (log, position) in ShardId::all().zip(positions) {
        vector.set(log, position);
    }
    vector
}

fn version(epoch: u64, positions: [u64; 2]) -> Version {
    Version { epoch, vector: vector(positions) }
}

fn segment() -> SegmentId {
    SegmentId::new(7).unwrap()
}

/// The fold of the logs at a version: three or four blocks, some of which are equal in several versions.
fn folded(vector: VersionVector) -> Vec<u8> {
    let [a, b] = [0, 1].map(|log| vector.positions()[log]);
    let whole = [0, a / 2, b / 2].map(|seed| [seed as u8; BLOCK_BYTES]);
    let mut bytes = whole.concat();
    if (a + b) % 3 != 0 {
        bytes.extend([a, b].map(|position| position as u8));
    }
    bytes
}

fn manifest(version: Version) -> Manifest {
    Manifest::of(segment(), version, &folded(version.vector)).unwrap()
}

/// What a worker has on its disk.
#[derive(Debug, Clone, Default)]
struct Disk {
    manifest: Option<Manifest>,
    blocks: Vec<Vec<u8>>,
}

impl Disk {
    fn with(version: Version) -> Self {
        let blocks = folded(version.vector).chunks(BLOCK_BYTES).map(<[u8]>::to_vec).collect();
        Self { manifest: Some(manifest(version)), blocks }
    }

    fn report(&self) -> Option<CopyReport> {
        let blocks = self.blocks.iter().map(|block| (!block.is_empty()).then(|| Digest::of(block))).collect();
        (self.manifest.is_some() || !self.blocks.is_empty())
            .then(|| CopyReport { manifest: self.manifest.clone(), blocks })
    }

    fn dominates(&self, version: Version) -> bool {
        self.manifest.as_ref().is_some_and(|own| own.version().vector > version.vector)
    }

    /// As `SegmentDirectory::adopt`.
    fn adopt(&mut self, manifest: Manifest) {
        self.blocks.resize(manifest.blocks().len(), Vec::new());
        for (number, block) in (0..).zip(&mut self.blocks) {
            if !manifest.accepts(number, block) {
                block.clear();
            }
        }
        self.manifest = Some(manifest);
    }

    /// As `VerifiedFile::block`.
    fn verified(&self, version: Version, number: u32) -> Option<Vec<u8>> {
        let manifest = self.manifest.as_ref().filter(|manifest| manifest.version() == version)?;
        self.blocks.get(number as usize).filter(|block| manifest.accepts(number, block)).cloned()
    }

    fn is_complete(&self, version: Version) -> bool {
        self.manifest.as_ref() == Some(&manifest(version)) && self.blocks.concat() == folded(version.vector)
    }
}

fn names() -> Vec<WorkerId> {
    ["a", "b", "c", "d", "e"].map(WorkerId::from).to_vec()
}

#[derive(Debug, Clone)]
struct Cluster {
    disks: BTreeMap<WorkerId, Disk>,
    offline: Vec<WorkerId>,
    holders: Vec<WorkerId>,
    announced: Version,
    /// Every version that was announced.
    ever: Vec<Version>,
    epoch: u64,
    /// A plan of earlier reports, which is on its way.
    late: Plan,
    blocks_moved: usize,
    manifests_moved: usize,
    rebuilds: usize,
}

impl Cluster {
    fn new() -> Self {
        let first = version(1, [1, 1]);
        let holders = names()[..3].to_vec();
        let disk = |worker: &WorkerId| if holders.contains(worker) { Disk::with(first) } else { Disk::default() };
        Self {
            disks: names().into_iter().map(|worker| (worker.clone(), disk(&worker))).collect(),
            offline: Vec::new(),
            holders,
            announced: first,
            ever: vec![first],
            epoch: 1,
            late: Plan::default(),
            blocks_moved: 0,
            manifests_moved: 0,
            rebuilds: 0,
        }
    }

    fn plan(&self, running: &Plan) -> Plan {
        let online = self.disks.iter().filter(|(worker, _)| !self.offline.contains(worker));
        let reports: BTreeMap<WorkerId, Option<CopyReport>> =
            online.map(|(worker, disk)| (worker.clone(), disk.report())).collect();
        let copies = reports.iter().map(|(worker, report)| (worker.clone(), report.as_ref())).collect();
        let announced = Some(self.announced);
        plan(&[SegmentCopies { segment: segment(), holders: &self.holders, announced, copies }], running)
    }

    /// Carries out the first `parts` parts of the transfer, as if the process ended then.
    fn transfer(&mut self, transfer: &Transfer, parts: usize) {
        let late = self.late.transfers.contains(transfer);
        let Transfer { version, from, to, manifest, blocks, .. } = transfer;
        if self.offline.contains(from) || self.offline.contains(to) {
            return;
        }
        let source = self.disks[from].clone();
        let receiver = self.disks.get_mut(to).unwrap();
        if *manifest && parts > 0 {
            let theirs = source.manifest.clone().filter(|theirs| theirs.version() == *version);
            let Some(theirs) = theirs.filter(|_| !receiver.dominates(*version)) else { return };
            receiver.adopt(theirs);
            self.manifests_moved += 1;
        }
        for &number in blocks.iter().take(parts.saturating_sub(usize::from(*manifest))) {
            let accepts = |bytes: &Vec<u8>| receiver.manifest.as_ref().is_some_and(|own| own.accepts(number, bytes));
            if let Some(bytes) = source.verified(*version, number).filter(accepts) {
                assert!(folded(version.vector).chunks(BLOCK_BYTES).nth(number as usize) == Some(bytes.as_slice()));
                // A file that was cut off grows again.
                let blocks = receiver.blocks.len().max(number as usize + 1);
                receiver.blocks.resize(blocks, Vec::new());
                assert!(late || receiver.blocks[number as usize] != bytes, "a good block was moved");
                receiver.blocks[number as usize] = bytes;
                self.blocks_moved += 1;
            }
        }
    }

    fn rebuild(&mut self, rebuild: &Rebuild) {
        if !self.offline.contains(&rebuild.worker) && !self.disks[&rebuild.worker].dominates(rebuild.version) {
            self.disks.insert(rebuild.worker.clone(), Disk::with(rebuild.version));
            self.rebuilds += 1;
        }
    }

    /// Blocks that the holders have to get for the version.
    fn damaged(&self, version: Version) -> usize {
        let manifest = manifest(version);
        let of_holder = |holder| {
            let blocks = &self.disks[holder].blocks;
            let good =
                |number: &u32| blocks.get(*number as usize).is_some_and(|bytes| manifest.accepts(*number, bytes));
            manifest.blocks().len() - (0..manifest.blocks().len() as u32).filter(good).count()
        };
        self.holders.iter().map(of_holder).sum()
    }

    /// Whether repairs can do without the logs: an online worker has the manifest, and a holder or such a worker each block.
    fn has_good_copies(&self, version: Version) -> bool {
        let wanted = manifest(version);
        let with_manifest = |worker: &&WorkerId| self.disks[*worker].manifest.as_ref() == Some(&wanted);
        let sources: Vec<_> = names().into_iter().filter(|worker| with_manifest(&worker)).collect();
        let good = |worker: &WorkerId, number: u32| {
            self.disks[worker].blocks.get(number as usize).is_some_and(|bytes| wanted.accepts(number, bytes))
        };
        !sources.is_empty()
            && (0..wanted.blocks().len() as u32)
                .all(|number| self.holders.iter().chain(&sources).any(|worker| good(worker, number)))
    }

    /// All workers are online and nothing more fails: plans are carried out until there is nothing to do.
    fn settle(&mut self) -> Version {
        self.offline.clear();
        for _round in 0..100 {
            let plan = self.plan(&Plan::default());
            assert!(plan.transfers.len() <= MAX_TRANSFERS && plan.rebuilds.len() <= MAX_REBUILDS);
            assert_eq!(plan.conflicts, []);
            if plan == Plan::default() {
                return self.disks[&self.holders[0]].manifest.as_ref().unwrap().version();
            }
            plan.rebuilds.iter().for_each(|rebuild| self.rebuild(rebuild));
            plan.transfers.iter().for_each(|transfer| self.transfer(transfer, usize::MAX));
        }
        panic!("still not settled: {:?}", self.plan(&Plan::default()));
    }
}

#[derive(Debug, Clone)]
enum Action {
    /// The primary publishes and announces; it reads at most this much further.
    Publish([u64; 2]),
    /// A primary of an earlier epoch writes a version of its own on its disk.
    Deposed(Index, [u64; 2]),
    /// The segment gets other holders, and a new epoch.
    Move(Index),
    Offline(Index),
    Online(Index),
    FlipBlock(Index, Index),
    Truncate(Index),
    DamageManifest(Index),
    LoseDisk(Index),
    /// An old version comes back, as from a backup.
    Stale(Index, Index),
    /// One round of repairs, of which some parts are carried out before a process ends.
    Repair(usize),
    /// A plan is made now, and carried out when other things have happened.
    Decide,
    CarryOut(usize),
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let ahead = || prop::array::uniform2(0_u64..6);
    let action = prop_oneof![
        3 => ahead().prop_map(Action::Publish),
        1 => (any::<Index>(), ahead()).prop_map(|(worker, ahead)| Action::Deposed(worker, ahead)),
        1 => any::<Index>().prop_map(Action::Move),
        1 => any::<Index>().prop_map(Action::Offline),
        1 => any::<Index>().prop_map(Action::Online),
        3 => (any::<Index>(), any::<Index>()).prop_map(|(worker, block)| Action::FlipBlock(worker, block)),
        1 => any::<Index>().prop_map(Action::Truncate),
        1 => any::<Index>().prop_map(Action::DamageManifest),
        1 => any::<Index>().prop_map(Action::LoseDisk),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(worker, old)| Action::Stale(worker, old)),
        3 => (0_usize..5).prop_map(Action::Repair),
        2 => Just(Action::Decide),
        2 => (0_usize..5).prop_map(Action::CarryOut),
    ];
    prop::collection::vec(action, 0..30)
}

impl Cluster {
    fn act(&mut self, action: &Action) {
        let all = names();
        match action {
            Action::Publish(ahead) => {
                let positions = [0, 1].map(|log| self.announced.vector.positions()[log] + ahead[log]);
                let primary = self.holders[0].clone();
                if !self.offline.contains(&primary) {
                    self.announced = version(self.epoch, positions);
                    self.ever.push(self.announced);
                    self.disks.insert(primary, Disk::with(self.announced));
                }
            }
            Action::Deposed(worker, ahead) if self.epoch > 1 => {
                let positions = [0, 1].map(|log| self.ever[0].vector.positions()[log] + ahead[log]);
                self.disks.insert(worker.get(&all).clone(), Disk::with(version(self.epoch - 1, positions)));
            }
            Action::Deposed(..) => {}
            Action::Move(first) => {
                self.holders = (0..3).map(|n| all[(first.index(all.len()) + n) % all.len()].clone()).collect();
                self.epoch += 1;
            }
            Action::Offline(worker) => self.offline.push(worker.get(&all).clone()),
            Action::Online(worker) => self.offline.retain(|offline| offline != worker.get(&all)),
            Action::FlipBlock(worker, block) => {
                let blocks = &mut self.disks.get_mut(worker.get(&all)).unwrap().blocks;
                if !blocks.is_empty() {
                    let at = block.index(blocks.len());
                    blocks[at].iter_mut().take(1).for_each(|byte| *byte ^= 0x80);
                }
            }
            Action::Truncate(worker) => {
                self.disks.get_mut(worker.get(&all)).unwrap().blocks.pop();
            }
            Action::DamageManifest(worker) => self.disks.get_mut(worker.get(&all)).unwrap().manifest = None,
            Action::LoseDisk(worker) => *self.disks.get_mut(worker.get(&all)).unwrap() = Disk::default(),
            Action::Stale(worker, old) => {
                self.disks.insert(worker.get(&all).clone(), Disk::with(*old.get(&self.ever)));
            }
            Action::Repair(parts) => self.carry_out(&self.plan(&Plan::default()), *parts),
            Action::Decide => self.late = self.plan(&Plan::default()),
            Action::CarryOut(parts) => self.carry_out(&self.late.clone(), *parts),
        }
    }

    fn carry_out(&mut self, plan: &Plan, parts: usize) {
        if parts > 2 {
            plan.rebuilds.iter().for_each(|rebuild| self.rebuild(rebuild));
        }
        plan.transfers.iter().for_each(|transfer| self.transfer(transfer, parts));
    }

    /// Repairs everything, and checks what that cost and what is left.
    fn check(mut self) -> Result<(), TestCaseError> {
        self.offline.clear();
        self.late = Plan::default();
        let before = self.clone();
        (self.blocks_moved, self.manifests_moved, self.rebuilds) = (0, 0, 0);
        let settled = self.settle();
        for holder in &self.holders {
            prop_assert!(self.disks[holder].is_complete(settled), "{holder} of {settled:?}: {:?}", self.disks[holder]);
        }
        // No announced version is lost: what is left has all events that it has.
        for announced in &self.ever {
            prop_assert!(announced.vector <= settled.vector, "announced {announced:?}, left {settled:?}");
        }
        prop_assert!(self.blocks_moved <= before.damaged(settled), "{} blocks were moved", self.blocks_moved);
        prop_assert!(self.manifests_moved <= self.holders.len());
        if before.has_good_copies(settled) {
            prop_assert_eq!(self.rebuilds, 0, "good copies were there");
        } else {
            prop_assert_eq!(self.rebuilds, 1);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn no_announced_version_is_lost_and_only_damaged_blocks_move(actions in actions()) {
        let mut cluster = Cluster::new();
        actions.iter().for_each(|action| cluster.act(action));
        cluster.check()?;
    }

    /// The card's case: damage of any kind to at most two of three copies is repaired without the logs.
    #[test]
    fn two_damaged_copies_are_repaired_from_the_third(
        healthy in 0_usize..3,
        damage in prop::collection::vec(actions(), 1..3),
        ahead in prop::array::uniform2(0_u64..6),
    ) {
        let mut cluster = Cluster::new();
        cluster.act(&Action::Publish(ahead));
        cluster.settle();
        let good = cluster.disks[&cluster.holders[healthy]].clone();
        for action in damage.iter().flatten() {
            if !matches!(action, Action::Publish(_) | Action::Deposed(..) | Action::Move(_) | Action::Repair(_) | Action::CarryOut(_)) {
                cluster.act(action);
            }
        }
        let announced = cluster.announced;
        let survivor = cluster.holders[healthy].clone();
        cluster.disks.insert(survivor, good);
        cluster.offline.clear();
        let damaged = cluster.damaged(announced);
        (cluster.blocks_moved, cluster.manifests_moved, cluster.rebuilds) = (0, 0, 0);
        prop_assert_eq!(cluster.settle(), announced);
        prop_assert_eq!(cluster.rebuilds, 0);
        prop_assert_eq!(cluster.blocks_moved, damaged);
        prop_assert!(cluster.manifests_moved <= 2);
    }
}

#[test]
fn the_case_of_the_article_v5_against_two_v7() {
    let mut cluster = Cluster::new();
    cluster.announced = version(1, [7, 7]);
    for (worker, position) in names().iter().zip([5, 7, 7]) {
        cluster.disks.insert(worker.clone(), Disk::with(version(1, [position, position])));
    }
    let damaged = cluster.damaged(cluster.announced);
    let plan = cluster.plan(&Plan::default());
    let [Transfer { to, manifest: true, blocks, version: winner, .. }] = plan.transfers.as_slice() else {
        panic!("{plan:?}")
    };
    assert_eq!((&**to, *winner, blocks.len()), ("a", version(1, [7, 7]), damaged));
    // Block 0 is the same in both versions.
    assert!(!blocks.contains(&0));
    assert_eq!(cluster.settle(), version(1, [7, 7]));
    assert_eq!((cluster.blocks_moved, cluster.rebuilds), (damaged, 0));
}

#[test]
fn different_blocks_bad_in_all_copies_need_no_logs_and_the_same_block_does() {
    let mut different = Cluster::new();
    for (number, worker) in names()[..3].iter().enumerate() {
        different.disks.get_mut(worker).unwrap().blocks[number][9] ^= 1;
    }
    let mut same = Cluster::new();
    for worker in &names()[..3] {
        same.disks.get_mut(worker).unwrap().blocks[1][9] ^= 1;
    }
    for (cluster, moved, rebuilds) in [(&mut different, 3, 0), (&mut same, 2, 1)] {
        cluster.settle();
        assert_eq!((cluster.blocks_moved, cluster.manifests_moved, cluster.rebuilds), (moved, 0, rebuilds));
    }
}

#[test]
fn of_versions_that_do_not_compare_the_highest_epoch_wins_after_the_dominated_ones_left() {
    // C has the highest epoch, but A dominates it; A and B do not compare.
    let (a, b, c) = (version(1, [5, 2]), version(2, [2, 5]), version(3, [4, 1]));
    for order in [[a, b, c], [b, c, a], [c, a, b]] {
        let mut cluster = Cluster::new();
        for (worker, version) in names().iter().zip(order) {
            cluster.disks.insert(worker.clone(), Disk::with(version));
        }
        assert_eq!(cluster.settle(), b);
    }
    // The same version again in a later epoch: only manifests move.
    let mut cluster = Cluster::new();
    let again = version(9, [1, 1]);
    cluster.disks.insert(names()[2].clone(), Disk::with(again));
    assert_eq!(cluster.settle(), again);
    assert_eq!((cluster.blocks_moved, cluster.manifests_moved), (0, 2));
}

#[test]
fn a_version_that_was_announced_is_not_replaced_by_one_that_lacks_its_events() {
    // A new primary wrote [1, 2] before it had read as far as the announced version: a higher epoch, but not announced.
    let mut cluster = Cluster::new();
    cluster.act(&Action::Publish([3, 0]));
    cluster.disks.insert(names()[1].clone(), Disk::with(version(2, [1, 2])));
    assert_eq!(cluster.settle(), version(1, [4, 1]));
}

#[test]
fn an_announced_version_that_no_copy_has_is_folded_again() {
    let mut cluster = Cluster::new();
    cluster.announced = version(2, [9, 9]);
    let plan = cluster.plan(&Plan::default());
    let expected = Rebuild { segment: segment(), version: cluster.announced, worker: "a".into() };
    assert_eq!((plan.rebuilds.as_slice(), plan.transfers.len()), (&[expected][..], 0));
    // It runs: nothing is started twice.
    assert_eq!(cluster.plan(&plan), Plan::default());
    cluster.offline.push("a".into());
    assert_eq!(&*cluster.plan(&Plan::default()).rebuilds[0].worker, "b");
    assert_eq!(cluster.settle(), version(2, [9, 9]));
}

#[test]
fn the_rarest_blocks_come_first_and_two_transfers_run_at_a_time() {
    let mut cluster = Cluster::new();
    cluster.disks.get_mut("a").unwrap().blocks[0][0] ^= 1;
    cluster.disks.get_mut("b").unwrap().blocks[0][0] ^= 1;
    cluster.disks.get_mut("c").unwrap().blocks[2][0] ^= 1;
    // Block 0 has one good copy, block 2 has two.
    let plan = cluster.plan(&Plan::default());
    let started: Vec<_> = plan.transfers.iter().map(|t| (&*t.from, &*t.to, t.blocks.as_slice())).collect();
    assert_eq!(started, [("c", "a", &[0][..]), ("c", "b", &[0][..])]);
    assert_eq!(cluster.plan(&plan), Plan::default(), "two are running");
    let one = Plan { transfers: plan.transfers[..1].to_vec(), ..Plan::default() };
    assert_eq!(cluster.plan(&one).transfers, plan.transfers[1..]);
}

#[test]
fn two_contents_of_one_version_are_a_conflict_and_the_primary_counts() {
    let mut cluster = Cluster::new();
    let other = b"folded by another program".to_vec();
    let foreign = Manifest::of(segment(), cluster.announced, &other).unwrap();
    cluster.disks.insert(names()[1].clone(), Disk { manifest: Some(foreign), blocks: vec![other] });
    let plan = cluster.plan(&Plan::default());
    assert_eq!(plan.conflicts, [segment()]);
    let [Transfer { to, manifest: true, blocks, .. }] = plan.transfers.as_slice() else { panic!("{plan:?}") };
    assert_eq!((&**to, blocks.len()), ("b", manifest(cluster.announced).blocks().len()));
}

#[test]
fn without_reports_there_is_nothing_to_do() {
    let mut cluster = Cluster::new();
    cluster.offline = names();
    assert_eq!(cluster.plan(&Plan::default()), Plan::default());
}
