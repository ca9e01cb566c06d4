//! Work that can wait for a core while requests cannot: folding logs, building a model, hashing and encoding files.

use std::{io, sync::LazyLock};

use tokio::runtime::{Builder, Runtime};

/// Threads of a process. Further work waits for one.
const MAX_THREADS: usize = 8;
/// Above that of the process: 10 steps are a ninth of the weight. Under Linux's default policy a request that wakes up interrupts this work at
/// once; under SCHED_BATCH it waits for the end of the time slice, also beside nice 19. SCHED_IDLE would be interrupted in both cases, but a
/// replica whose requests need all cores would then never switch its model, and only a privileged process may leave SCHED_IDLE again.
const NICENESS: i32 = 10;

/// Threads of their own: one that tokio uses for requests could not raise its priority again.
static THREADS: LazyLock<Runtime> = LazyLock::new(|| {
    let mut threads = Builder::new_current_thread();
    threads.thread_name("background").max_blocking_threads(MAX_THREADS).on_thread_start(|| {
        // On Linux, of the calling thread alone. Where it is not permitted, the work is as urgent as all other.
        let _ = rustix::process::nice(NICENESS);
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

/// Runs `work` on a thread with a lower priority than the process has. The work goes on if the future is dropped.
///
/// # Errors
/// `work` panicked.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Panicked> {
    THREADS.spawn_blocking(work).await.map_err(|_panic| Panicked)
}

#[cfg(test)]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    #[tokio::test]
    async fn only_the_work_is_less_urgent() {
        let niceness = || getpriority_process(None).unwrap();
        let before = niceness();
        assert_eq!(run(niceness).await.unwrap(), (before + NICENESS).min(19));
        assert_eq!(niceness(), before);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_next_work_runs() {
        assert!(run(|| panic!("on purpose")).await.is_err());
        assert_eq!(run(|| 1).await.unwrap(), 1);
    }
}
