//! The kernel's figures of this process, named as in Prometheus's client libraries.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use prometheus::{Counter, Gauge, Result, core::Collector};

use super::{OnScrape, advance, gauge};

pub struct Process {
    cpu: Counter,
    resident: Gauge,
    virtual_memory: Gauge,
    open_files: Gauge,
    max_files: Gauge,
    threads: Gauge,
    started: Gauge,
}

impl Process {
    pub fn new() -> Result<Self> {
        let started = gauge("process_start_time_seconds", "Start of the process, Unix time in seconds")?;
        started.set(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64()));
        Ok(Self {
            cpu: Counter::new("process_cpu_seconds_total", "CPU time of this process, user and system")?,
            resident: gauge("process_resident_memory_bytes", "Memory of this process that is in RAM")?,
            virtual_memory: gauge("process_virtual_memory_bytes", "Address space of this process")?,
            open_files: gauge("process_open_fds", "Open files and sockets")?,
            max_files: gauge("process_max_fds", "Limit of open files")?,
            threads: gauge("process_threads", "Threads of this process")?,
            started,
        })
    }
}

/// CPU time of this process, user and system, in seconds; 0 if it cannot be read.
pub fn cpu_seconds() -> f64 {
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    getrusage(UsageWho::RUSAGE_SELF).map_or(0.0, |usage| seconds(usage.user_time()) + seconds(usage.system_time()))
}

impl OnScrape for Process {
    fn collectors(&self) -> Vec<&dyn Collector> {
        vec![
            &self.cpu,
            &self.resident,
            &self.virtual_memory,
            &self.open_files,
            &self.max_files,
            &self.threads,
            &self.started,
        ]
    }

    fn update(&self) {
        advance(&self.cpu, cpu_seconds());
        if let Ok((soft, _hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
            self.max_files.set(soft as f64);
        }
        if let Some(count) = open_files() {
            self.open_files.set(count as f64);
        }
        if let Ok(status) = fs::read_to_string("/proc/self/status") {
            let field = |key: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
                line.split_whitespace().next()?.parse::<f64>().ok()
            };
            for (gauge, key, unit) in [
                (&self.resident, "VmRSS", 1024.0),
                (&self.virtual_memory, "VmSize", 1024.0),
                (&self.threads, "Threads", 1.0),
            ] {
                if let Some(value) = field(key) {
                    gauge.set(value * unit);
                }
            }
        }
    }
}

/// From Linux 6.2 on, the size of the directory is the number of open files. Before, the entries are counted.
fn open_files() -> Option<u64> {
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => Some(fs::read_dir("/proc/self/fd").ok()?.count() as u64),
        count => Some(count),
    }
}
