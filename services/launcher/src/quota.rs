//! CPU quotas of children, as Kubernetes gives them to containers: by the kernel (cgroups), or modelled by the program itself.
//!
//! A stack with quotas has one cgroup, `testbed-STACK`, and in it one cgroup for each child that has a quota. A child enters its cgroup between
//! fork and exec. The cgroups end with the stack. `stack.json` lists them, so that `orphans::reap` removes what a killed owner left.

mod hierarchy;
mod limit;
mod of_process;
mod usage;

use std::{
    fmt,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use self::{hierarchy::Hierarchy, limit::Limit};
pub use self::{of_process::ProcessQuota, usage::CpuUsage};
use crate::process::wait_blocking;

/// Time for the last processes of a cgroup to end: they were killed, and some kernels let a throttled process end only in its next period.
const EMPTY_DEADLINE: Duration = Duration::from_secs(5);
const PROCESSES: &str = "cgroup.procs";

/// A CPU quota: CPU seconds per second.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Cores(f64);

impl Cores {
    /// The smallest quota: the kernel's shortest slice, 1 ms, in its longest period, 1 s.
    pub const MIN: f64 = 0.001;

    /// # Errors
    /// Not a number, below `MIN`, or more than the cores that this process may use.
    pub fn new(cores: f64) -> anyhow::Result<Self> {
        let available = std::thread::available_parallelism().context("cannot count the cores")?;
        Self::within(cores, available.get())
    }

    fn within(cores: f64, available: usize) -> anyhow::Result<Self> {
        let most = available as f64;
        ensure!(
            cores >= Self::MIN && cores <= most,
            "a CPU quota of {cores} cores is not in {}..={most}, where {most} is the number of cores",
            Self::MIN
        );
        Ok(Self(cores))
    }

    pub fn get(self) -> f64 {
        self.0
    }
}

/// Which quotas are wanted: `auto`, `kernel` or `modelled`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuotaChoice {
    /// By the kernel where cgroups are usable, otherwise modelled.
    Auto,
    /// By the kernel; an error where cgroups are not usable.
    Kernel,
    /// Modelled, even where cgroups are usable.
    Modelled,
}

impl QuotaChoice {
    /// Asks the system whether a stack of this process can have such quotas, and makes nothing. The stack may still find that the kernel
    /// refuses a quota (`Stack::set_quotas`).
    ///
    /// # Errors
    /// `Kernel`, and cgroups are not usable: the reason.
    pub fn check(self) -> anyhow::Result<()> {
        self.check_with(|| hierarchy::find().map(drop))
    }

    fn check_with(self, find: impl FnOnce() -> Result<(), String>) -> anyhow::Result<()> {
        match self {
            Self::Auto | Self::Modelled => Ok(()),
            Self::Kernel => find().map_err(no_kernel_quota),
        }
    }
}

fn no_kernel_quota(reason: String) -> anyhow::Error {
    anyhow::anyhow!("the kernel cannot enforce CPU quotas here: {reason}")
}

impl FromStr for QuotaChoice {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "kernel" => Ok(Self::Kernel),
            "modelled" => Ok(Self::Modelled),
            other => Err(format!("'{other}' is no kind of quota: choose auto, kernel or modelled")),
        }
    }
}

/// How quotas hold in one stack. Its text is for reports: `kernel (cgroup v1)`, `modelled (REASON)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuotaMode {
    /// The kernel stops a child that has used up its quota until the next period.
    Kernel(KernelQuotas),
    /// Nothing holds a child back: the program models its quota, as a replica does with `http.cpu_quota`.
    Modelled { reason: String },
}

impl QuotaMode {
    /// `open` makes the stack's cgroup; its error is the reason why there can be none.
    pub(crate) fn choose(
        choice: QuotaChoice,
        open: impl FnOnce() -> Result<KernelQuotas, String>,
    ) -> anyhow::Result<Self> {
        match choice {
            QuotaChoice::Modelled => Ok(Self::Modelled { reason: "chosen".into() }),
            QuotaChoice::Auto => Ok(open()
                .map_or_else(|reason| Self::Modelled { reason: format!("no kernel quota: {reason}") }, Self::Kernel)),
            QuotaChoice::Kernel => match open() {
                Ok(quotas) => Ok(Self::Kernel(quotas)),
                Err(reason) => Err(no_kernel_quota(reason)),
            },
        }
    }

    /// Why the kernel does not enforce quotas. `None`: it does.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Kernel(_) => None,
            Self::Modelled { reason } => Some(reason),
        }
    }
}

impl fmt::Display for QuotaMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(quotas) => write!(f, "kernel (cgroup {})", quotas.hierarchy.version()),
            Self::Modelled { reason } => write!(f, "modelled ({reason})"),
        }
    }
}

/// The cgroup of a stack, in which each child with a quota has its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelQuotas {
    hierarchy: Hierarchy,
    /// Name of the stack's directory.
    stack: String,
}

impl KernelQuotas {
    /// Where cgroups can be made, by what the system says. Makes nothing.
    ///
    /// # Errors
    /// The reason why there can be no quotas, as text.
    pub(crate) fn find(stack: &str) -> Result<Self, String> {
        Ok(Self { hierarchy: hierarchy::find()?, stack: stack.to_owned() })
    }

    /// Directories of the stack's cgroup. In cgroup v1 these are two if `cpu` and `cpuacct` are mounted apart.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        let mut directories: Vec<PathBuf> =
            self.hierarchy.bases().iter().map(|base| base.join(name_of(&self.stack))).collect();
        directories.dedup();
        directories
    }

    /// Makes the stack's cgroup and tries whether it takes a quota. If it does not, no cgroup is left.
    pub(crate) fn open(self) -> Result<Self, String> {
        self.try_open().map_err(|error| {
            // The first error says more.
            let _ = remove(&self.directories());
            format!("{error:#}")
        })?;
        Ok(self)
    }

    fn try_open(&self) -> anyhow::Result<()> {
        self.hierarchy.prepare()?;
        for directory in self.directories() {
            make(&directory)?;
            self.hierarchy.delegate(&directory)?;
        }
        // Only writing a quota shows that the kernel was built with quotas and that the parent's own quota permits one.
        let least = Limit::of(Cores(Cores::MIN));
        self.add("trial", least).and(self.remove_child("trial"))
    }

    /// Makes the child's cgroup, or takes the one of an earlier child of this name. A process that writes `0` to the files enters it.
    pub(crate) fn enter(&self, child: &str, cores: Cores) -> anyhow::Result<Vec<File>> {
        self.add(child, Limit::of(cores))?;
        let open = |directory: PathBuf| {
            let path = directory.join(PROCESSES);
            File::options().write(true).open(&path).with_context(|| format!("cannot open {}", path.display()))
        };
        self.child_directories(child).into_iter().map(open).collect()
    }

    /// Of a child that has a cgroup.
    pub(crate) fn change(&self, child: &str, cores: Cores) -> anyhow::Result<()> {
        Limit::of(cores).write(self.hierarchy.version(), &self.cpu_directory(child))
    }

    fn add(&self, child: &str, limit: Limit) -> anyhow::Result<()> {
        for directory in self.child_directories(child) {
            make(&directory)?;
        }
        limit.write(self.hierarchy.version(), &self.cpu_directory(child))
    }

    /// CPU and throttled time of the child's cgroup.
    ///
    /// # Errors
    /// It has no cgroup (no quota, or stopped), or the kernel's files cannot be understood.
    pub fn usage(&self, child: &str) -> anyhow::Result<CpuUsage> {
        usage::read(
            &self.stat_file(child),
            self.hierarchy.usage_file().map(|(base, file)| self.below(base, child).join(file)).as_deref(),
        )
    }

    /// The kernel's `cpu.stat` of the child's cgroup, which has its throttled time. Known before the child is started: a replica shows it in its
    /// metrics (`http.cpu_stat`).
    pub fn stat_file(&self, child: &str) -> PathBuf {
        self.cpu_directory(child).join("cpu.stat")
    }

    /// Removes the cgroup of a child that has ended.
    pub(crate) fn remove_child(&self, child: &str) -> anyhow::Result<()> {
        remove(&self.child_directories(child))
    }

    fn cpu_directory(&self, child: &str) -> PathBuf {
        self.below(self.hierarchy.cpu(), child)
    }

    fn child_directories(&self, child: &str) -> Vec<PathBuf> {
        self.directories().into_iter().map(|directory| directory.join(child)).collect()
    }

    fn below(&self, base: &Path, child: &str) -> PathBuf {
        base.join(name_of(&self.stack)).join(child)
    }
}

/// A stack's directory has a random part in its name, so that stacks of all users and homes differ.
fn name_of(stack: &str) -> String {
    format!("testbed-{stack}")
}

fn make(directory: &Path) -> anyhow::Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("cannot make the cgroup {}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// Removes cgroups and those directly below them. One that is gone is no error. Waits up to 5 s for the end of the last process.
///
/// # Errors
/// A cgroup still has processes, or belongs to another user.
pub(crate) fn remove(directories: &[PathBuf]) -> anyhow::Result<()> {
    let mut result = Ok(());
    for directory in directories {
        let mut last = Ok(());
        wait_blocking(EMPTY_DEADLINE, || {
            last = remove_now(directory);
            last.is_ok()
        });
        result = result.and(last.with_context(|| {
            let left = processes(directory).join(", ");
            format!("cannot remove the cgroup {} (its processes: {left})", directory.display())
        }));
    }
    result
}

fn remove_now(directory: &Path) -> io::Result<()> {
    for directory in children(directory).iter().map(PathBuf::as_path).chain([directory]) {
        match fs::remove_dir(directory) {
            // On a file system that is read-only, the error for a missing directory is another one.
            Err(_) if !directory.exists() => {}
            result => result?,
        }
    }
    Ok(())
}

/// The cgroups directly below.
fn children(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Pids of the cgroup and of those directly below.
fn processes(directory: &Path) -> Vec<String> {
    let directories = children(directory).into_iter().chain([directory.to_owned()]);
    let texts = directories.map(|directory| fs::read_to_string(directory.join(PROCESSES)).unwrap_or_default());
    texts.flat_map(|text| text.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_lie_between_a_thousandth_and_the_number_of_cores() {
        for good in [0.001, 0.05, 1.0, 2.0] {
            assert_eq!(Cores::within(good, 2).unwrap().get(), good);
        }
        for bad in [0.0, -0.05, 0.000_9, 2.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let error = Cores::within(bad, 2).unwrap_err().to_string();
            assert!(error.contains(&format!("quota of {bad} cores is not in 0.001..=2")), "{error}");
        }
        let cores = std::thread::available_parallelism().unwrap().get() as f64;
        assert!(Cores::new(cores).is_ok() && Cores::new(cores + 1.0).is_err());
    }

    #[test]
    fn only_auto_falls_back_to_the_model() {
        let quotas =
            KernelQuotas { hierarchy: Hierarchy::V2 { base: "/c".into(), move_owner: false }, stack: "s-1".into() };
        let works = || Ok(quotas.clone());
        let fails = || Err("the directory /c is read-only".to_owned());
        let choose = |text: &str, open: &dyn Fn() -> Result<KernelQuotas, String>| {
            QuotaMode::choose(text.parse().unwrap(), open)
                .map(|mode| mode.to_string())
                .map_err(|error| error.to_string())
        };
        assert_eq!(choose("auto", &works).unwrap(), "kernel (cgroup v2)");
        assert_eq!(choose("kernel", &works).unwrap(), "kernel (cgroup v2)");
        assert_eq!(choose("auto", &fails).unwrap(), "modelled (no kernel quota: the directory /c is read-only)");
        let error = choose("kernel", &fails).unwrap_err();
        assert_eq!(error, "the kernel cannot enforce CPU quotas here: the directory /c is read-only");
        // Nothing is made that is not used.
        let unused = || -> Result<KernelQuotas, String> { panic!("opened") };
        assert_eq!(choose("modelled", &unused).unwrap(), "modelled (chosen)");
        assert!("cgroup".parse::<QuotaChoice>().unwrap_err().contains("auto, kernel or modelled"));
    }

    #[test]
    fn only_the_choice_of_the_kernel_is_refused_before_the_stack() {
        let refused = || Err("the directory /c is read-only".to_owned());
        for choice in [QuotaChoice::Auto, QuotaChoice::Modelled] {
            choice.check_with(refused).unwrap();
        }
        QuotaChoice::Kernel.check_with(|| Ok(())).unwrap();
        let error = QuotaChoice::Kernel.check_with(refused).unwrap_err().to_string();
        assert_eq!(error, "the kernel cannot enforce CPU quotas here: the directory /c is read-only");
    }

    #[test]
    fn directories_of_a_stack_and_its_children() {
        let v1 = |usage: &str| KernelQuotas {
            hierarchy: Hierarchy::V1 { cpu: "/sys/cpu".into(), usage: usage.into() },
            stack: "up-0a".into(),
        };
        let paths = |texts: &[&str]| texts.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(v1("/sys/cpuacct").directories(), paths(&["/sys/cpu/testbed-up-0a", "/sys/cpuacct/testbed-up-0a"]));
        assert_eq!(v1("/sys/cpu").directories(), paths(&["/sys/cpu/testbed-up-0a"]));
        assert_eq!(v1("/sys/cpu").stat_file("api-3"), Path::new("/sys/cpu/testbed-up-0a/api-3/cpu.stat"));
    }

    #[test]
    fn groups_are_removed_with_those_below_and_absence_is_no_error() {
        let scratch = tempfile::tempdir().unwrap();
        let group = scratch.path().join("testbed-s");
        fs::create_dir_all(group.join("child")).unwrap();
        fs::write(group.join("child/cgroup.procs"), "7\n8\n").unwrap();
        assert_eq!(processes(&group), ["7", "8"]);
        // A file of a real cgroup does not keep its directory.
        fs::remove_file(group.join("child/cgroup.procs")).unwrap();
        remove(std::slice::from_ref(&group)).unwrap();
        assert!(!group.exists());
        remove(&[group]).unwrap();
    }
}
