//! Work that can wait for a core while requests cannot: building a model, hashing and encoding files.

use std::{io, thread};

use tokio::sync::oneshot;

/// The highest: a request that wakes up beside such work runs at once. Beside three such threads at 10, it still waits for milliseconds:
/// each takes a share of the core, and with it the right to end its slice.
const NICENESS: i32 = 19;

#[derive(Debug, thiserror::Error)]
pub enum BackgroundError {
    #[error("cannot start a thread")]
    NotStarted(#[source] io::Error),
    #[error("the work panicked")]
    Panicked,
}

impl From<BackgroundError> for io::Error {
    fn from(error: BackgroundError) -> Self {
        Self::other(error)
    }
}

/// Runs `work` on a thread of its own, with a lower priority than the process has. The thread cannot be one of tokio's: only a privileged
/// process may raise its priority again. Callers bound the number of threads. The work goes on if the future is dropped.
///
/// # Errors
/// The thread cannot be started, or `work` panicked.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, BackgroundError> {
    let (done, result) = oneshot::channel();
    let thread = move || {
        // On Linux, of the calling thread alone. Where it is not permitted, the work is as urgent as all other.
        let _ = rustix::process::setpriority_process(None, NICENESS);
        // Nobody may wait any more.
        let _ = done.send(work());
    };
    thread::Builder::new().name("background".to_owned()).spawn(thread).map_err(BackgroundError::NotStarted)?;
    result.await.map_err(|_closed| BackgroundError::Panicked)
}

#[cfg(test)]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    #[tokio::test]
    async fn only_the_work_is_less_urgent() {
        let niceness = || getpriority_process(None).unwrap();
        let before = niceness();
        assert_eq!(run(niceness).await.unwrap(), NICENESS);
        assert_eq!(niceness(), before);
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let failed = run(|| panic!("on purpose")).await;
        assert!(matches!(failed, Err(BackgroundError::Panicked)), "{failed:?}");
    }
}
