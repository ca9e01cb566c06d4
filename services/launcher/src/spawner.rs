//! Starts processes that die with this one.

use std::{
    fs::File,
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    process::{Child, Command},
    sync::{LazyLock, mpsc},
    thread,
};

use nix::{
    errno::Errno,
    libc,
    sys::{prctl::set_pdeathsig, signal::Signal},
    unistd::{getpid, getppid},
};

type SpawnRequest = (Command, mpsc::SyncSender<io::Result<Child>>);

/// The kernel sends the death signal when the *thread* ends that forked the child. So one thread, which ends only with the process, forks
/// all children. The calling thread does not matter: it may be a test's, or one of tokio's blocking pool, which end earlier.
static SPAWNER: LazyLock<io::Result<mpsc::Sender<SpawnRequest>>> = LazyLock::new(|| {
    let (jobs, inbox) = mpsc::channel::<SpawnRequest>();
    let run = move || {
        for (mut command, reply) in inbox {
            // The caller is gone: no stack would own the child.
            if let Err(mpsc::SendError(Ok(mut child))) = reply.send(command.spawn()) {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    };
    thread::Builder::new().name("launcher".into()).spawn(run)?;
    Ok(jobs)
});

/// Starts the command in its own process group, so that Ctrl-C in the terminal reaches only this process, which then stops its children in
/// order. If this process ends, the kernel sends the child `death_signal`. `batch`: under SCHED_BATCH, unless this process already runs
/// under another policy than the default. `cgroups`: files `cgroup.procs` of the cgroups that it enters before it does any work.
pub(crate) fn spawn(mut command: Command, death_signal: Signal, batch: bool, cgroups: Vec<File>) -> io::Result<Child> {
    let parent = getpid();
    command.process_group(0);
    let prepare = move || {
        set_pdeathsig(death_signal)?;
        if batch {
            schedule_as_batch()?;
        }
        for mut cgroup in &cgroups {
            // 0 is the process that writes. One write, without a buffer.
            cgroup.write_all(b"0")?;
        }
        // If the parent died before the call above, no signal comes.
        if getppid() == parent { Ok(()) } else { Err(Errno::ESRCH.into()) }
    };
    #[expect(
        unsafe_code,
        reason = "the system calls and the error are safe between fork and exec: no allocation, no lock"
    )]
    // SAFETY: as above.
    unsafe {
        command.pre_exec(prepare);
    }
    let (reply, answer) = mpsc::sync_channel(1);
    let jobs = SPAWNER.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
    jobs.send((command, reply)).map_err(|_| io::Error::other("the launcher's thread has ended"))?;
    answer.recv().map_err(|_| io::Error::other("the launcher's thread has ended"))?
}

fn schedule_as_batch() -> io::Result<()> {
    if policy() != libc::SCHED_OTHER {
        return Ok(());
    }
    let parameters = libc::sched_param { sched_priority: 0 };
    #[expect(unsafe_code, reason = "a system call that touches only this thread and reads only what is passed")]
    // SAFETY: as above; 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Scheduling policy of this thread; numbers as in sched(7).
fn policy() -> libc::c_int {
    #[expect(unsafe_code, reason = "a system call that only reads; 0 is the calling thread")]
    // SAFETY: as above.
    unsafe {
        libc::sched_getscheduler(0)
    }
}

/// Scheduling policy of children.
pub(crate) fn policy_of_children(batch: bool) -> &'static str {
    match policy() {
        libc::SCHED_OTHER if batch => "SCHED_BATCH",
        libc::SCHED_OTHER => "SCHED_OTHER",
        libc::SCHED_BATCH => "SCHED_BATCH",
        libc::SCHED_IDLE => "SCHED_IDLE",
        libc::SCHED_FIFO => "SCHED_FIFO",
        libc::SCHED_RR => "SCHED_RR",
        _ => "an unknown policy",
    }
}
