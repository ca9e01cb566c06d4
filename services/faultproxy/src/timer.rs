//! A timer of microsecond precision. Tokio's rounds up to whole milliseconds, twice when idle: too coarse for a law whose
//! mean must be right within 0.1 ms.

use std::{
    os::fd::{AsFd, AsRawFd, RawFd},
    time::{Duration, Instant},
};

use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use tokio::io::{Interest, unix::AsyncFd};

#[derive(Debug)]
struct Fd(TimerFd);

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// One per connection, made at the first delay: a connection without delays costs no descriptor.
#[derive(Debug, Default)]
pub(crate) struct Timer(Option<AsyncFd<Fd>>);

impl Timer {
    /// Falls back on tokio's timer when descriptors run out.
    pub(crate) async fn sleep_until(&mut self, deadline: Instant) {
        if self.precisely(deadline).await.is_err() {
            tokio::time::sleep_until(deadline.into()).await;
        }
    }

    async fn precisely(&mut self, deadline: Instant) -> std::io::Result<()> {
        let fd = match &mut self.0 {
            Some(fd) => fd,
            none => none.insert(create()?),
        };
        // Looks at the clock again after each event: an earlier sleep that was given up may have left one.
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return Ok(());
            }
            let expiration = Expiration::OneShot(TimeSpec::from_duration(left));
            fd.get_ref().0.set(expiration, TimerSetTimeFlags::empty())?;
            // Setting the timer takes back an expiry that was never read: no read needed.
            fd.readable().await?.clear_ready();
        }
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe, for types that may close the descriptor early; `Fd` owns its own"
)]
fn create() -> std::io::Result<AsyncFd<Fd>> {
    let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
    let fd = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
    AsyncFd::with_interest(Fd(fd), Interest::READABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn never_early_and_reusable_after_a_sleep_was_given_up() {
        let mut timer = Timer::default();
        for ms in [1, 3, 2] {
            let deadline = Instant::now() + Duration::from_millis(ms);
            tokio::select! {
                biased;
                () = timer.sleep_until(deadline) => unreachable!("not yet"),
                () = std::future::ready(()) => {}
            }
            timer.sleep_until(deadline).await;
            assert!(Instant::now() >= deadline);
        }
    }
}
