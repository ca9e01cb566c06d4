//! Free ports, unique within this process and among all processes of this user that use this module.

use std::{
    collections::HashSet,
    fs::File,
    net::{Ipv4Addr, TcpListener},
    ops::Range,
    os::unix::fs::OpenOptionsExt as _,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, bail};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    libc,
};

/// Below 32768, where the kernel's ephemeral ports begin: under load these would collide with a server's port.
const RANGE: Range<u16> = 20_000..32_000;

/// Ports returned by this process, and the file whose byte N is locked while port N is in use. The locks belong to the open file: they are
/// released when the process ends in any way.
struct Taken {
    ports: HashSet<u16>,
    locks: File,
}

static TAKEN: Mutex<Option<Taken>> = Mutex::new(None);

/// A free TCP port on 127.0.0.1, in 20000..32000. Never returned twice by this process, nor at the same time by another process of this
/// user.
///
/// # Errors
/// All 12,000 ports are in use, or the lock file in the temporary directory cannot be opened.
pub fn free_port() -> anyhow::Result<u16> {
    let mut guard = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let Taken { ports, locks } = match &mut *guard {
        Some(taken) => taken,
        none => none.insert(Taken { ports: HashSet::new(), locks: open_lock_file()? }),
    };
    let count = u32::from(RANGE.end - RANGE.start);
    let start = crate::random() % count;
    for step in 0..count {
        let offset = u16::try_from((start + step) % count).expect("smaller than the range of a port");
        let port = RANGE.start + offset;
        if !ports.contains(&port) && lock(locks, port)? {
            // Remembered even if another program listens on it: this process holds its lock.
            ports.insert(port);
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(port);
            }
        }
    }
    bail!("no free port from {} to {}", RANGE.start, RANGE.end - 1)
}

/// In the temporary directory, not in the testbed's home: processes with different homes share the ports.
fn open_lock_file() -> anyhow::Result<File> {
    let path = std::env::temp_dir().join(format!("recommendation-testbed-ports-{}", nix::unistd::geteuid()));
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(&path)
        .with_context(|| format!("cannot open the ports' lock file {}", path.display()))
}

/// True: the port's byte was free and is locked now.
fn lock(file: &File, port: u16) -> anyhow::Result<bool> {
    let range = libc::flock {
        l_type: i16::try_from(libc::F_WRLCK).expect("a small constant"),
        l_whence: i16::try_from(libc::SEEK_SET).expect("a small constant"),
        l_start: port.into(),
        l_len: 1,
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&range)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error).context("cannot lock a port"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_unique_among_threads() {
        let threads: Vec<_> =
            (0..4).map(|_| std::thread::spawn(|| (0..50).map(|_| free_port().unwrap()).collect::<Vec<_>>())).collect();
        let ports: Vec<u16> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(ports.iter().collect::<HashSet<_>>().len(), 200);
        assert!(ports.iter().all(|port| RANGE.contains(port)));
    }

    /// A second open file acts as another process: the locks belong to the open file.
    #[test]
    fn a_port_is_locked_against_other_processes() {
        let port = free_port().unwrap();
        let other = open_lock_file().unwrap();
        assert!(!lock(&other, port).unwrap());
    }

    #[test]
    fn a_port_somebody_listens_on_is_not_handed_out() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port().unwrap())).unwrap();
        let taken = listener.local_addr().unwrap().port();
        // Removed from the set, as if another program had bound it, and the only free one.
        let mut guard = TAKEN.lock().unwrap();
        let ports = guard.as_mut().unwrap();
        ports.ports.remove(&taken);
        assert!(lock(&ports.locks, taken).unwrap(), "our own lock is no obstacle");
        drop(guard);
        assert!((0..50).all(|_| free_port().unwrap() != taken));
    }
}
