//! Where this process may make cgroups with CPU quotas: decided from what the system says, with the reason if it may not.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use nix::unistd::{AccessFlags, access};

/// In cgroup v2 a cgroup with processes has no controllers for those below it. So the owner moves here, beside the stacks' cgroups.
const OWNER: &str = "testbed-owner";
const DELEGATE: &str = "systemd-run --user --scope -p Delegate=cpu COMMAND";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hierarchy {
    /// `cpu` has quotas and throttled time, `usage` (the controller `cpuacct`) has CPU time. Both may be one directory.
    V1 { cpu: PathBuf, usage: PathBuf },
    /// `move_owner`: this process is in `base` and must leave it before the first quota.
    V2 { base: PathBuf, move_owner: bool },
}

impl Hierarchy {
    pub fn version(&self) -> Version {
        match self {
            Self::V1 { .. } => Version::V1,
            Self::V2 { .. } => Version::V2,
        }
    }

    /// Directories in which a stack makes its cgroup.
    pub fn bases(&self) -> Vec<&Path> {
        match self {
            Self::V1 { cpu, usage } => vec![cpu, usage],
            Self::V2 { base, .. } => vec![base],
        }
    }

    /// The base in which quotas are.
    pub fn cpu(&self) -> &Path {
        match self {
            Self::V1 { cpu: base, .. } | Self::V2 { base, .. } => base,
        }
    }

    /// The base and the name of the file with the used nanoseconds. `None`: `cpu.stat` has them.
    pub fn usage_file(&self) -> Option<(&Path, &'static str)> {
        match self {
            Self::V1 { usage, .. } => Some((usage, "cpuacct.usage")),
            Self::V2 { .. } => None,
        }
    }

    /// Lets cgroups below the base have quotas.
    pub fn prepare(&self) -> anyhow::Result<()> {
        let Self::V2 { base, move_owner } = self else { return Ok(()) };
        if *move_owner {
            let owner = base.join(OWNER);
            super::make(&owner)?;
            // 0 is the process that writes.
            write(&owner.join(super::PROCESSES), "0")?;
        }
        self.delegate(base)
    }

    /// Lets cgroups below this one have quotas.
    pub fn delegate(&self, directory: &Path) -> anyhow::Result<()> {
        match self {
            Self::V1 { .. } => Ok(()),
            Self::V2 { .. } => write(&directory.join("cgroup.subtree_control"), "+cpu"),
        }
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {text} to {}", path.display()))
}

/// What the system says. Tests answer in its place.
struct System<'a> {
    /// `/proc/self/mountinfo`
    mounts: &'a str,
    /// `/proc/self/cgroup`
    own: &'a str,
    pid: u32,
    read: &'a dyn Fn(&Path) -> io::Result<String>,
    /// Whether this process may write to a file or directory.
    writable: &'a dyn Fn(&Path) -> io::Result<()>,
}

/// # Errors
/// The reason why this process may not make cgroups with quotas.
pub fn find() -> Result<Hierarchy, String> {
    let text = |path: &str| fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"));
    let (mounts, own) = (text("/proc/self/mountinfo")?, text("/proc/self/cgroup")?);
    decide(&System {
        mounts: &mounts,
        own: &own,
        pid: std::process::id(),
        read: &|path| fs::read_to_string(path),
        writable: &|path| Ok(access(path, AccessFlags::W_OK)?),
    })
}

/// Where the accounts of a process's cgroup are.
pub struct Directories {
    /// With quotas and throttled time.
    pub cpu: PathBuf,
    /// The mount that `cpu` is in.
    pub point: PathBuf,
    /// With CPU time; `None` where `cpu` has it.
    pub usage: Option<PathBuf>,
}

/// Where the CPU accounts of a process are, by `/proc/self/mountinfo` and the process's `/proc/PID/cgroup`. `None`: not mounted here.
pub fn cpu_directories(mounts: &str, own: &str) -> Option<Directories> {
    let mounts: Vec<Mount> = mounts.lines().filter_map(Mount::parse).collect();
    let v1 = |controller: &str| {
        let has = |mount: &&Mount| mount.kind == "cgroup" && mount.options.iter().any(|option| option == controller);
        let mount = mounts.iter().find(has)?;
        Some((mount.directory(own_path(own, controller).ok()?).ok()?, mount.point.clone()))
    };
    if let Some((cpu, point)) = v1("cpu") {
        return Some(Directories { cpu, point, usage: Some(v1("cpuacct")?.0) });
    }
    let mount = mounts.iter().find(|mount| mount.kind == "cgroup2")?;
    let cpu = mount.directory(own_path(own, "").ok()?).ok()?;
    Some(Directories { cpu, point: mount.point.clone(), usage: None })
}

fn decide(system: &System<'_>) -> Result<Hierarchy, String> {
    let mounts: Vec<Mount> = system.mounts.lines().filter_map(Mount::parse).collect();
    let v1 = |controller: &str| {
        mounts.iter().find(|mount| mount.kind == "cgroup" && mount.options.iter().any(|option| option == controller))
    };
    // A controller is in one of the versions, and v1 has it if it is mounted there.
    if let Some(cpu) = v1("cpu") {
        let usage = v1("cpuacct").ok_or("the cgroup controller cpuacct is not mounted")?;
        let own = |mount: &Mount, controller: &str| -> Result<PathBuf, String> {
            let directory = mount.directory(own_path(system.own, controller)?)?;
            may_write(system, &directory)?;
            Ok(directory)
        };
        return Ok(Hierarchy::V1 { cpu: own(cpu, "cpu")?, usage: own(usage, "cpuacct")? });
    }
    let mount = mounts.iter().find(|mount| mount.kind == "cgroup2");
    let mount = mount.ok_or("no cgroup hierarchy with the controller cpu is mounted")?;
    in_v2(system, mount.directory(own_path(system.own, "")?)?)
}

fn in_v2(system: &System<'_>, own: PathBuf) -> Result<Hierarchy, String> {
    // An earlier stack of this process has moved it.
    let moved = own.file_name().is_some_and(|name| name == OWNER);
    let base = if moved { own.parent().map(Path::to_owned).unwrap_or_default() } else { own };
    let read = |file: &str| {
        let path = base.join(file);
        (system.read)(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
    };
    if !read("cgroup.controllers")?.split_ascii_whitespace().any(|controller| controller == "cpu") {
        return Err(format!(
            "the controller cpu is not delegated to the cgroup {}; start with {DELEGATE}",
            base.display()
        ));
    }
    for file in ["", super::PROCESSES, "cgroup.subtree_control"] {
        may_write(system, &base.join(file))?;
    }
    // Only the root of all cgroups has no type, and only it may have processes beside controllers.
    if moved || read("cgroup.type").is_err() {
        return Ok(Hierarchy::V2 { base, move_owner: false });
    }
    let pid = system.pid.to_string();
    let others: Vec<String> =
        read(super::PROCESSES)?.split_ascii_whitespace().filter(|other| **other != pid).map(str::to_owned).collect();
    if !others.is_empty() {
        let others = others.join(", ");
        return Err(format!("other processes ({others}) are in the cgroup {}; start with {DELEGATE}", base.display()));
    }
    Ok(Hierarchy::V2 { base, move_owner: true })
}

fn may_write(system: &System<'_>, path: &Path) -> Result<(), String> {
    (system.writable)(path).map_err(|error| format!("cannot write to {}: {error}", path.display()))
}

/// This process's cgroup by a controller of v1; by the empty name, in v2. A line is `ID:CONTROLLERS:PATH`.
fn own_path<'a>(own: &'a str, controller: &str) -> Result<&'a Path, String> {
    let path = own.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|one| one == controller).then_some(path)
    });
    path.map(Path::new).ok_or_else(|| format!("this process has no cgroup of the controller '{controller}'"))
}

/// A mounted hierarchy.
struct Mount {
    /// The cgroup that is mounted.
    root: PathBuf,
    point: PathBuf,
    kind: String,
    options: Vec<String>,
}

impl Mount {
    /// A line of mountinfo: `ID PARENT DEVICE ROOT POINT OPTIONS [TAG…] - TYPE SOURCE OPTIONS`, see proc(5). `None`: no hierarchy of cgroups.
    fn parse(line: &str) -> Option<Self> {
        let (head, tail) = line.split_once(" - ")?;
        let mut head = head.split(' ').skip(3);
        let (root, point) = (head.next()?, head.next()?);
        let mut tail = tail.split(' ');
        let kind = tail.next().filter(|kind| kind.starts_with("cgroup"))?;
        let options = tail.nth(1)?.split(',').map(str::to_owned).collect();
        Some(Self { root: unescape(root), point: unescape(point), kind: kind.to_owned(), options })
    }

    /// Directory of a cgroup.
    fn directory(&self, cgroup: &Path) -> Result<PathBuf, String> {
        let below = cgroup.strip_prefix(&self.root).ok().filter(|below| !below.starts_with(".."));
        let below = below.ok_or_else(|| {
            format!("this process's cgroup {} is not below the mounted {}", cgroup.display(), self.root.display())
        })?;
        // Joining an empty path would add a slash.
        Ok(if below.as_os_str().is_empty() { self.point.clone() } else { self.point.join(below) })
    }
}

/// mountinfo writes a blank as `\040`, and other characters that separate in the same way.
fn unescape(text: &str) -> PathBuf {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
        .into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const SEPARATE: &str = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
    const UNIFIED: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    /// Files of cgroups by path; a path that begins with one of `locked` cannot be written to.
    fn decided(mounts: &str, own: &str, files: &[(&str, &str)], locked: &[&str]) -> Result<Hierarchy, String> {
        let files: BTreeMap<&Path, &str> = files.iter().map(|(path, text)| (Path::new(*path), *text)).collect();
        decide(&System {
            mounts,
            own,
            pid: 70,
            read: &|path| files.get(path).map(|text| (*text).to_owned()).ok_or(io::ErrorKind::NotFound.into()),
            writable: &|path| {
                let locked = locked.iter().any(|locked| path.starts_with(locked));
                if locked { Err(io::Error::from_raw_os_error(30)) } else { Ok(()) }
            },
        })
    }

    #[test]
    fn v1_with_controllers_apart_together_and_in_a_container() {
        let own = "9:name=systemd:/\n2:cpuacct:/\n1:cpu:/\n0::/\n";
        let (cpu, usage) = ("/sys/fs/cgroup/cpu".into(), "/sys/fs/cgroup/cpuacct".into());
        assert_eq!(decided(SEPARATE, own, &[], &[]), Ok(Hierarchy::V1 { cpu, usage }));

        let together = "32 31 0:29 /docker/ab /sys/fs/cgroup/cpu,cpu\\040acct rw - cgroup cgroup rw,cpu,cpuacct\n";
        let directory = PathBuf::from("/sys/fs/cgroup/cpu,cpu acct/inner");
        let expected = Hierarchy::V1 { cpu: directory.clone(), usage: directory };
        assert_eq!(decided(together, "4:cpu,cpuacct:/docker/ab/inner\n", &[], &[]), Ok(expected));

        let error = decided(together, "4:cpu,cpuacct:/elsewhere\n", &[], &[]).unwrap_err();
        assert!(error.contains("/elsewhere is not below the mounted /docker/ab"), "{error}");
        let error = decided(SEPARATE, "4:cpuset:/\n", &[], &[]).unwrap_err();
        assert!(error.contains("no cgroup of the controller 'cpu'"), "{error}");
        let error = decided(SEPARATE, own, &[], &["/sys/fs/cgroup/cpuacct"]).unwrap_err();
        assert!(error.starts_with("cannot write to /sys/fs/cgroup/cpuacct: Read-only file system"), "{error}");
        let error = decided(&SEPARATE.replace("rw,cpuacct", "rw,other"), own, &[], &[]).unwrap_err();
        assert!(error.contains("cpuacct is not mounted"), "{error}");
    }

    #[test]
    fn v2_needs_the_controller_and_a_cgroup_of_its_own() {
        let scope = "/sys/fs/cgroup/user/run-1.scope";
        let decided = |own: &str, controllers: &str, processes: &str, locked: &[&str]| {
            let path = |file: &str| format!("{scope}/{file}");
            let (a, b, c) = (path("cgroup.controllers"), path("cgroup.procs"), path("cgroup.type"));
            let files = [(a.as_str(), controllers), (b.as_str(), processes), (c.as_str(), "domain\n")];
            decided(UNIFIED, own, &files, locked)
        };
        let own = "0::/user/run-1.scope\n";
        let base = PathBuf::from(scope);
        let expected = |move_owner| Ok(Hierarchy::V2 { base: base.clone(), move_owner });
        assert_eq!(decided(own, "cpu memory pids\n", "70\n", &[]), expected(true));
        // This process has moved for an earlier stack; its children are with it.
        assert_eq!(decided("0::/user/run-1.scope/testbed-owner\n", "cpu\n", "", &[]), expected(false));

        let error = decided(own, "memory cpuset pids\n", "70\n", &[]).unwrap_err();
        assert!(error.contains("not delegated to the cgroup /sys/fs/cgroup/user/run-1.scope"), "{error}");
        assert!(error.contains("systemd-run --user --scope -p Delegate=cpu"), "{error}");
        let error = decided(own, "cpu\n", "12\n70\n81\n", &[]).unwrap_err();
        assert!(error.contains("other processes (12, 81)"), "{error}");
        let error = decided(own, "cpu\n", "70\n", &[scope]).unwrap_err();
        assert!(error.contains("cannot write to") && error.contains("Read-only"), "{error}");
    }

    #[test]
    fn the_root_of_v2_may_have_processes() {
        let files = [("/sys/fs/cgroup/cgroup.controllers", "cpu\n"), ("/sys/fs/cgroup/cgroup.procs", "1\n2\n70\n")];
        let expected = Hierarchy::V2 { base: "/sys/fs/cgroup".into(), move_owner: false };
        assert_eq!(decided(UNIFIED, "0::/\n", &files, &[]), Ok(expected));
    }

    #[test]
    fn without_cgroups_there_is_a_reason() {
        let error = decided("31 23 0:28 / /tmp rw - tmpfs tmpfs rw\nbroken\n", "", &[], &[]).unwrap_err();
        assert_eq!(error, "no cgroup hierarchy with the controller cpu is mounted");
        // Here v2 has no controllers at all.
        let hybrid = "41 31 0:38 / /unified rw - cgroup2 cgroup2 rw\n";
        assert!(decided(hybrid, "0::/\n", &[("/unified/cgroup.controllers", "\n")], &[]).is_err());
    }

    /// The files that are written, on a directory that is no cgroup.
    #[test]
    fn v2_moves_the_owner_and_delegates() {
        let scratch = tempfile::tempdir().unwrap();
        let base = scratch.path().to_owned();
        let hierarchy = Hierarchy::V2 { base: base.clone(), move_owner: true };
        hierarchy.prepare().unwrap();
        let read = |path: &str| fs::read_to_string(base.join(path)).unwrap();
        assert_eq!((read("testbed-owner/cgroup.procs"), read("cgroup.subtree_control")), ("0".into(), "+cpu".into()));
    }
}
