//! Reads processes from /proc.

use std::{fs, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

/// Identity of a process: pids are reused, but not together with a start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessIdentity {
    pub pid: u32,
    /// Clock ticks from boot to the process's start.
    pub start_ticks: u64,
}

impl ProcessIdentity {
    /// The process with this pid; none if there is none or only a zombie.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = Stat::read(pid)?;
        stat.is_alive().then_some(Self { pid, start_ticks: stat.start_ticks })
    }

    /// This process.
    pub fn current() -> Self {
        Self::of(std::process::id()).expect("a running process is in /proc")
    }

    /// A zombie is not alive.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends the signal unless the process has ended. True: it was sent.
    pub fn signal(self, signal: Signal) -> bool {
        self.is_alive() && kill(nix_pid(self.pid), signal).is_ok()
    }

    /// Blocks the thread until the process has ended. False: it still lives after `deadline`.
    pub fn wait_gone(self, deadline: Duration) -> bool {
        wait_blocking(deadline, || !self.is_alive())
    }
}

/// Checks the condition every 10 ms, blocking the thread, until it holds or the deadline has passed. Returns whether it holds.
pub(crate) fn wait_blocking(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = std::time::Instant::now() + deadline;
    loop {
        if condition() {
            return true;
        }
        if std::time::Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn nix_pid(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).expect("the kernel's pids are below 2^22"))
}

/// The fields of /proc/PID/stat that are used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) command: String,
    pub(crate) state: char,
    pub(crate) parent: u32,
    pub(crate) user_ticks: u64,
    pub(crate) system_ticks: u64,
    pub(crate) start_ticks: u64,
    pub(crate) nice: i32,
    /// As in sched.h.
    pub(crate) policy: u64,
}

impl Stat {
    pub(crate) fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    pub(crate) fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }

    /// The command is in parentheses and may contain blanks and parentheses: the last one closes it.
    fn parse(text: &str) -> Option<Self> {
        let (head, tail) = text.rsplit_once(')')?;
        let command = head.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Self {
            command,
            state: fields.first()?.chars().next()?,
            parent: u32::try_from(number(1)?).ok()?,
            user_ticks: number(11)?,
            system_ticks: number(12)?,
            start_ticks: number(19)?,
            nice: fields.get(16)?.parse().ok()?,
            policy: number(38)?,
        })
    }
}

/// Pids of all processes.
pub(crate) fn all_pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_of_a_command_with_parentheses() {
        let text = "42 (a) b (c)) S 7 42 42 0 -1 4194560 5 0 0 0 11 12 0 0 20 -10 1 0 98765 1000 2 3 0 0 0 0 0 0 0 0 0 0 0 0 17 1 0 3 0 0 0\n";
        let expected = Stat {
            command: "a) b (c)".into(),
            state: 'S',
            parent: 7,
            user_ticks: 11,
            system_ticks: 12,
            start_ticks: 98765,
            nice: -10,
            policy: 3,
        };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse("42 (short) S 1"), None);
    }

    #[test]
    fn another_start_time_is_another_process() {
        let me = ProcessIdentity::current();
        assert!(me.is_alive());
        let recycled = ProcessIdentity { start_ticks: me.start_ticks + 1, ..me };
        assert!(!recycled.is_alive());
        assert!(!recycled.signal(Signal::SIGKILL), "would have ended this test");
    }
}
