//! Workers with real directories, which fail in all ways at any time, and repairs as a plan orders them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
};

use contract::{SegmentId, ShardId, VersionVector};
use proptest::{prelude::*, sample::Index};
use tempfile::TempDir;

use crate::{
    directory::{Found, Place, SegmentDirectory},
    manifest::{BLOCK_BYTES, Manifest, Version},
    plan::{FailedPairs, MAX_REBUILDS, MAX_TRANSFERS, Plan, Rebuild, SegmentCopies, Transfer, plan},
    report::{CopyReport, WorkerId},
};

fn vector(positions: [u64; 2]) -> VersionVector {
    let mut vector = VersionVector::default();
    for (log, position) in ShardId::all().zip(positions) {
        vector.set(log, position);
    }
    vector
}

pub(crate) fn version(epoch: u64, positions: [u64; 2]) -> Version {
    Version { epoch, vector: vector(positions) }
}

pub(crate) fn segment() -> SegmentId {
    SegmentId::new(7).unwrap()
}

/// The fold of the logs at a version: three or four blocks, some of which are equal in several versions. None is all zeros, as one that never
/// came is.
pub(crate) fn folded(vector: VersionVector) -> Vec<u8> {
    let [a, b] = [0, 1].map(|log| vector.positions()[log]);
    let whole = [0, a / 2, b / 2].map(|seed| [seed as u8 + 1; BLOCK_BYTES]);
    let mut bytes = whole.concat();
    if (a + b) % 3 != 0 {
        bytes.extend([a, b].map(|position| position as u8));
    }
    bytes
}

pub(crate) fn manifest(version: Version) -> Manifest {
    Manifest::of(segment(), version, &folded(version.vector)).unwrap()
}

pub(crate) fn names() -> Vec<WorkerId> {
    ["a", "b", "c", "d", "e"].map(WorkerId::from).to_vec()
}

pub(crate) type Copies = BTreeMap<WorkerId, Option<CopyReport>>;

#[derive(Debug)]
pub(crate) struct Cluster {
    root: TempDir,
    pub(crate) offline: BTreeSet<WorkerId>,
    /// Online, but their report is late.
    pub(crate) awaited: BTreeSet<WorkerId>,
    pub(crate) holders: Vec<WorkerId>,
    pub(crate) announced: Version,
    /// Every version that was announced.
    ever: Vec<Version>,
    epoch: u64,
    /// Transfers from the first to the second worker fail, and rebuilds if both are the same.
    pub(crate) broken: Option<(WorkerId, WorkerId)>,
    pub(crate) failed: FailedPairs,
    /// A plan of earlier reports, which is on its way.
    late: Plan,
    pub(crate) blocks_moved: usize,
    pub(crate) manifests_moved: usize,
    pub(crate) rebuilds: usize,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let first = version(1, [1, 1]);
        // Syncing is free in memory.
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
        let cluster = Self {
            root: root.unwrap(),
            offline: BTreeSet::new(),
            awaited: BTreeSet::new(),
            holders: names()[..3].to_vec(),
            announced: first,
            ever: vec![first],
            epoch: 1,
            broken: None,
            failed: FailedPairs::new(),
            late: Plan::default(),
            blocks_moved: 0,
            manifests_moved: 0,
            rebuilds: 0,
        };
        cluster.holders.iter().for_each(|holder| cluster.set(holder, first));
        cluster
    }

    pub(crate) fn disk(&self, worker: &str) -> SegmentDirectory {
        SegmentDirectory { path: self.root.path().join(worker) }
    }

    /// The worker has this version and nothing else.
    pub(crate) fn set(&self, worker: &str, version: Version) {
        self.disk(worker).remove(segment()).unwrap();
        self.disk(worker).write(segment(), version, &folded(version.vector)).unwrap();
    }

    pub(crate) fn lose(&self, worker: &str) {
        // It may have none.
        let _ = fs::remove_dir_all(self.disk(worker).path);
    }

    /// Flips a bit of a block of the current version.
    pub(crate) fn flip(&self, worker: &str, block: usize) {
        flip_byte(&self.disk(worker).block_files(segment()).unwrap()[0], block * BLOCK_BYTES);
    }

    pub(crate) fn current(&self, worker: &str) -> Option<(Version, Vec<u8>)> {
        match self.disk(worker).find(segment()).unwrap() {
            Found::Version(file) => Some((file.manifest().version(), file.all().ok()?)),
            Found::BadManifest(_) | Found::Nothing => None,
        }
    }

    /// Of all workers, also of those that are offline.
    pub(crate) fn reports(&self) -> Copies {
        let report = |worker: &WorkerId| self.disk(worker).report(segment()).unwrap();
        names().into_iter().map(|worker| (worker.clone(), report(&worker))).collect()
    }

    pub(crate) fn plan(&self, running: &Plan) -> Plan {
        let awaited: BTreeSet<WorkerId> = self.awaited.difference(&self.offline).cloned().collect();
        let reports = self.reports();
        let known = reports.iter().filter(|(name, _)| !self.offline.contains(*name) && !awaited.contains(*name));
        let copies = known.map(|(worker, report)| (worker.clone(), report.as_ref())).collect();
        let holders = &self.holders;
        let of_segment =
            SegmentCopies { segment: segment(), holders, announced: Some(self.announced), copies, awaited: &awaited };
        let plan = plan(&[of_segment], running, &self.failed);
        assert!(awaited.is_empty() || plan.rebuilds.is_empty());
        plan
    }

    /// Carries out the first `parts` parts of the transfer, as if the process ended then.
    pub(crate) fn transfer(&mut self, transfer: &Transfer, parts: usize) {
        let Transfer { version, content, from, to, manifest, blocks, .. } = transfer;
        let pair = (from.clone(), to.clone());
        if self.broken.as_ref() == Some(&pair) {
            self.failed.insert(pair);
            return;
        }
        if parts == 0 || self.offline.contains(from) || self.offline.contains(to) {
            return;
        }
        self.failed.remove(&pair);
        let (source, receiver) = (self.disk(from), self.disk(to));
        let manifest_of = |directory: &SegmentDirectory| {
            let manifests = directory.manifests(segment()).unwrap();
            manifests.into_iter().find(|found| (found.version(), found.content()) == (*version, *content))
        };
        let own = manifest_of(&receiver);
        let is_fetched = own.is_none() && *manifest;
        let Some(winner) = own.or_else(|| is_fetched.then(|| manifest_of(&source)).flatten()) else { return };
        let Ok(mut incoming) = receiver.begin(winner) else { return };
        self.manifests_moved += usize::from(is_fetched);
        let missing = incoming.missing();
        let carried_out = blocks.len().min(parts.saturating_sub(usize::from(*manifest)));
        for number in blocks[..carried_out].iter().filter(|number| missing.contains(number)) {
            let file = source.by_content(segment(), *content).unwrap();
            if let Some(bytes) = file.and_then(|file| file.block(*number).ok()) {
                assert!(folded(version.vector).chunks(BLOCK_BYTES).nth(*number as usize) == Some(bytes.as_slice()));
                incoming.put(*number, &bytes).unwrap();
                self.blocks_moved += 1;
            }
        }
        if carried_out == blocks.len() {
            incoming.finish().unwrap();
        }
    }

    fn rebuild(&mut self, rebuild: &Rebuild) {
        let Rebuild { version, worker, .. } = rebuild;
        let pair = (worker.clone(), worker.clone());
        if self.broken.as_ref() == Some(&pair) {
            self.failed.insert(pair);
        } else if !self.offline.contains(worker)
            && self.disk(worker).write(segment(), *version, &folded(version.vector)).is_ok()
        {
            self.rebuilds += 1;
        }
    }

    pub(crate) fn carry_out(&mut self, plan: &Plan, parts: usize) {
        if parts > 2 {
            plan.rebuilds.iter().for_each(|rebuild| self.rebuild(rebuild));
            // The worker refuses if it is a holder by now.
            let drops = plan.drops.iter().filter(|(_, worker)| !self.holders.contains(worker));
            drops.for_each(|(segment, worker)| self.disk(worker).remove(*segment).unwrap());
        }
        plan.transfers.iter().for_each(|transfer| self.transfer(transfer, parts));
    }

    /// All workers are online and nothing more fails, except for the broken link: plans are carried out until there is nothing to do.
    pub(crate) fn settle(&mut self) -> Version {
        self.offline.clear();
        self.awaited.clear();
        for _round in 0..100 {
            let plan = self.plan(&Plan::default());
            assert!(plan.transfers.len() <= MAX_TRANSFERS && plan.rebuilds.len() <= MAX_REBUILDS);
            assert!(plan.drops.iter().all(|(_, worker)| !self.holders.contains(worker)));
            assert_eq!(plan.conflicts, []);
            if plan == Plan::default() {
                return self.current(&self.holders[0]).unwrap().0;
            }
            self.carry_out(&plan, usize::MAX);
        }
        panic!("still not settled: {:?}", self.plan(&Plan::default()));
    }

    /// Repairs everything, and checks what that cost and what is left.
    pub(crate) fn check(mut self) -> Result<(), TestCaseError> {
        let before = self.reports();
        (self.blocks_moved, self.manifests_moved, self.rebuilds) = (0, 0, 0);
        let settled = self.settle();
        for worker in names() {
            let expected = self.holders.contains(&worker).then(|| (settled, folded(settled.vector)));
            prop_assert_eq!(self.current(&worker), expected);
        }
        // No announced version is lost: what is left has all events that it has.
        for announced in &self.ever {
            prop_assert!(announced.vector <= settled.vector, "announced {announced:?}, left {settled:?}");
        }
        prop_assert!(self.blocks_moved <= damaged(&before, &self.holders, settled), "{} blocks", self.blocks_moved);
        prop_assert!(self.manifests_moved <= self.holders.len());
        prop_assert_eq!(self.rebuilds, usize::from(!has_good_copies(&before, &self.holders, settled)));
        Ok(())
    }
}

/// Blocks that the holders have to get for the version: they have them neither in a current nor in a staged file.
pub(crate) fn damaged(copies: &Copies, holders: &[WorkerId], version: Version) -> usize {
    let wanted = manifest(version);
    let has =
        |copy: &Option<CopyReport>, block| copy.iter().flat_map(CopyReport::states).any(|s| s.has(&wanted, block));
    let of_holder = |holder| (0..wanted.blocks().len() as u32).filter(|&block| !has(&copies[holder], block)).count();
    holders.iter().map(of_holder).sum()
}

/// Whether repairs can do without the logs: a worker has the manifest, and a holder or such a worker each block.
fn has_good_copies(copies: &Copies, holders: &[WorkerId], version: Version) -> bool {
    let wanted = manifest(version);
    let all = || copies.iter().filter_map(|(worker, copy)| Some((worker, copy.as_ref()?)));
    let states = || all().flat_map(|(worker, copy)| copy.states().map(move |state| (worker, state)));
    let is_good = |block| {
        states().any(|(worker, state)| state.has(&wanted, block) && (holders.contains(worker) || state.is_of(&wanted)))
    };
    states().any(|(_, state)| state.is_of(&wanted)) && (0..wanted.blocks().len() as u32).all(is_good)
}

#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// The primary publishes and announces; it reads at most this much further.
    Publish([u64; 2]),
    /// A primary of an earlier epoch writes a version of its own on its disk.
    Deposed(Index, [u64; 2]),
    /// The segment gets other holders, and a new epoch.
    Move(Index),
    Offline(Index),
    Online(Index),
    /// The worker's report is late from now on, or comes.
    Silent(Index),
    Reports(Index),
    /// Transfers between these two fail, from now on and until something else breaks.
    Break(Index, Index),
    FlipBlock(Index, Index, Index),
    Truncate(Index, Index),
    DamageManifest(Index, bool),
    LoseDisk(Index),
    /// An old version comes back, as from a backup.
    Stale(Index, Index),
    /// The worker's process starts again.
    Restart(Index),
    /// One round of repairs, of which some parts are carried out before a process ends.
    Repair(usize),
    /// A plan is made now, and carried out when other things have happened.
    Decide,
    CarryOut(usize),
}

pub(crate) fn actions() -> impl Strategy<Value = Vec<Action>> {
    let ahead = || prop::array::uniform2(0_u64..6);
    let index = any::<Index>;
    let action = prop_oneof![
        3 => ahead().prop_map(Action::Publish),
        1 => (index(), ahead()).prop_map(|(worker, ahead)| Action::Deposed(worker, ahead)),
        1 => index().prop_map(Action::Move),
        1 => index().prop_map(Action::Offline),
        1 => index().prop_map(Action::Online),
        1 => index().prop_map(Action::Silent),
        1 => index().prop_map(Action::Reports),
        1 => (index(), index()).prop_map(|(from, to)| Action::Break(from, to)),
        3 => (index(), index(), index()).prop_map(|(worker, file, block)| Action::FlipBlock(worker, file, block)),
        1 => (index(), index()).prop_map(|(worker, file)| Action::Truncate(worker, file)),
        1 => (index(), any::<bool>()).prop_map(|(worker, staged)| Action::DamageManifest(worker, staged)),
        1 => index().prop_map(Action::LoseDisk),
        1 => (index(), index()).prop_map(|(worker, old)| Action::Stale(worker, old)),
        1 => index().prop_map(Action::Restart),
        4 => (0_usize..5).prop_map(Action::Repair),
        2 => Just(Action::Decide),
        2 => (0_usize..5).prop_map(Action::CarryOut),
    ];
    prop::collection::vec(action, 0..30)
}

impl Cluster {
    pub(crate) fn act(&mut self, action: &Action) {
        let all = names();
        let name = |worker: &Index| worker.get(&all).clone();
        match action {
            Action::Publish(ahead) => {
                let positions = [0, 1].map(|log| self.announced.vector.positions()[log] + ahead[log]);
                let (primary, next) = (&self.holders[0], version(self.epoch, positions));
                let is_online = !self.offline.contains(primary);
                if is_online && self.disk(primary).write(segment(), next, &folded(next.vector)).is_ok() {
                    self.announced = next;
                    self.ever.push(next);
                }
            }
            Action::Deposed(worker, ahead) if self.epoch > 1 => {
                let positions = [0, 1].map(|log| self.ever[0].vector.positions()[log] + ahead[log]);
                let own = version(self.epoch - 1, positions);
                // It is refused if the worker has a newer one.
                let _ = self.disk(&name(worker)).write(segment(), own, &folded(own.vector));
            }
            Action::Deposed(..) => {}
            Action::Move(first) => {
                self.holders = (0..3).map(|n| all[(first.index(all.len()) + n) % all.len()].clone()).collect();
                self.epoch += 1;
            }
            Action::Offline(worker) => drop(self.offline.insert(name(worker))),
            Action::Online(worker) => drop(self.offline.remove(&name(worker))),
            Action::Silent(worker) => drop(self.awaited.insert(name(worker))),
            Action::Reports(worker) => drop(self.awaited.remove(&name(worker))),
            Action::Break(from, to) => {
                self.broken = Some((name(from), name(to))).filter(|(from, to)| from != to);
                self.failed.clear();
            }
            Action::FlipBlock(worker, file, block) => self.damage(&name(worker), file, |path, length| {
                let block = block.index(length.div_ceil(BLOCK_BYTES));
                flip_byte(path, block * BLOCK_BYTES);
            }),
            Action::Truncate(worker, file) => self.damage(&name(worker), file, |path, length| {
                let whole = (length - 1) / BLOCK_BYTES * BLOCK_BYTES;
                File::options().write(true).open(path).unwrap().set_len(whole as u64).unwrap();
            }),
            Action::DamageManifest(worker, staged) => {
                let place = if *staged { Place::Staged } else { Place::Current };
                let path = self.disk(&name(worker)).manifest_path(segment(), place);
                if path.exists() {
                    flip_byte(&path, 9);
                }
            }
            Action::LoseDisk(worker) => self.lose(&name(worker)),
            Action::Stale(worker, old) => self.set(&name(worker), *old.get(&self.ever)),
            Action::Restart(worker) => drop(SegmentDirectory::open(self.disk(&name(worker)).path).unwrap()),
            Action::Repair(parts) => self.carry_out(&self.plan(&Plan::default()), *parts),
            Action::Decide => self.late = self.plan(&Plan::default()),
            Action::CarryOut(parts) => self.carry_out(&self.late.clone(), *parts),
        }
    }

    /// Damages one of the worker's files of blocks, if one has bytes.
    fn damage(&self, worker: &str, file: &Index, damage: impl Fn(&Path, usize)) {
        let files = self.disk(worker).block_files(segment()).unwrap();
        if files.is_empty() {
            return;
        }
        let path = file.get(&files);
        let length = fs::metadata(path).unwrap().len() as usize;
        if length > 0 {
            damage(path, length);
        }
    }
}

fn flip_byte(path: &Path, at: usize) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 0x80], at as u64).unwrap();
}
