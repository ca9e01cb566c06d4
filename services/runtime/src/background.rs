//! Work that can wait for a core while requests cannot: folding logs, building a model, hashing and encoding files.

use std::{io, sync::LazyLock};

use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, unix};
use tokio::runtime::{Builder, Runtime};

/// Threads of a process. Further work waits for one.
const MAX_THREADS: usize = 8;
/// On Linux SCHED_IDLE: a thread that wakes up for a request takes the core at once. Beside threads that are only less urgent (nice 19), it
/// often waits for the next tick: 4 ms.
const POLICY: ThreadSchedulePolicy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);

/// Threads of their own: one that tokio uses for requests could not raise its priority again.
static THREADS: LazyLock<Runtime> = LazyLock::new(|| {
    let mut threads = Builder::new_current_thread();
    threads.thread_name("background").max_blocking_threads(MAX_THREADS).on_thread_start(|| {
        // Where it is not permitted, the work is as urgent as all other.
        let _ = unix::set_thread_priority_and_policy(unix::thread_native_id(), ThreadPriority::Min, POLICY);
    });
    threads.build().expect("it has neither I/O nor timers that could fail")
});

#[derive(Debug, thiserror::Error)]
#[error("work in the background panicked")]
pub struct Panicked;

impl From<Panicked> for io::Error {
    fn from(panicked: Panicked) -> Self {
        Self::other(panicked)
    }
}

/// Runs `work` on a thread that has a core only while no request needs it. The work goes on if the future is dropped.
///
/// # Errors
/// `work` panicked.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Panicked> {
    THREADS.spawn_blocking(work).await.map_err(|_panic| Panicked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_work_is_less_urgent() {
        let policy = || unix::thread_schedule_policy().unwrap();
        let before = policy();
        assert_ne!(before, POLICY);
        assert_eq!(run(policy).await.unwrap(), POLICY);
        assert_eq!(policy(), before);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_next_work_runs() {
        assert!(run(|| panic!("on purpose")).await.is_err());
        assert_eq!(run(|| 1).await.unwrap(), 1);
    }
}
