//! Delays commands: one precise timer for the whole proxy, and a grid of instants.
//!
//! Tokio's timer rounds up to whole milliseconds, twice when idle: too coarse for a law whose mean must be right within 0.1 ms. A timer per
//! connection would wake the machine up once per command: thousands of times a second, with cold caches. So long delays are rounded to a
//! grid (to the nearest point, which keeps the mean), and all delays with the same end fire together.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, AsRawFd, RawFd},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{Notify, oneshot},
};

/// A delay is rounded by at most 1/32 of itself.
const GRIDS_PER_DELAY: u128 = 16;
/// And by at most 8 ms.
const COARSEST_US: u128 = 8_000;
/// Wake-up latency (measured: 45 µs on an idle machine, 100 µs at 5,400 commands/s). The timer fires earlier by it, so that the mean delay
/// is exact.
const WAKE_UP: Duration = Duration::from_micros(60);

#[derive(Debug)]
pub(crate) struct DelayTimer {
    epoch: Instant,
    /// By µs since `epoch`. Cancelled waits stay until their time.
    waiting: Mutex<BTreeMap<u64, Vec<oneshot::Sender<()>>>>,
    /// The earliest instant has changed.
    earlier: Notify,
}

impl Default for DelayTimer {
    fn default() -> Self {
        Self { epoch: Instant::now(), waiting: Mutex::default(), earlier: Notify::new() }
    }
}

impl DelayTimer {
    /// Waits until `arrival + delay`, rounded to the grid. Needs a running `run`.
    pub(crate) async fn wait(&self, arrival: Instant, delay: Duration) {
        let since_epoch = arrival.saturating_duration_since(self.epoch).as_micros() as u64;
        let at_us = on_grid(since_epoch, delay);
        let (release, released) = oneshot::channel();
        let first = {
            let mut waiting = self.lock();
            let first = waiting.first_key_value().is_none_or(|(&first, _)| at_us < first);
            waiting.entry(at_us).or_default().push(release);
            first
        };
        if first {
            self.earlier.notify_one();
        }
        // An error means that the proxy stops; the connection is cancelled separately.
        released.await.ok();
    }

    /// Fires all delays. Runs until cancelled.
    ///
    /// # Errors
    /// The timer cannot be created.
    pub(crate) async fn run(&self) -> std::io::Result<()> {
        let timer = create()?;
        loop {
            let next = self.lock().first_key_value().map(|(&at_us, _)| at_us);
            let Some(next) = next else {
                self.earlier.notified().await;
                continue;
            };
            let at = (self.epoch + Duration::from_micros(next)).checked_sub(WAKE_UP).unwrap_or(self.epoch);
            let left = at.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                let due = self.lock().remove(&next).unwrap_or_default();
                due.into_iter().for_each(|release| release.send(()).unwrap_or_default());
                continue;
            }
            let expiration = Expiration::OneShot(TimeSpec::from_duration(left));
            timer.get_ref().0.set(expiration, TimerSetTimeFlags::empty())?;
            tokio::select! {
                // Setting the timer clears an unread expiration.
                ready = timer.readable() => ready?.clear_ready(),
                () = self.earlier.notified() => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Vec<oneshot::Sender<()>>>> {
        // Every change is a single step: no other thread sees half of one.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The instant on the grid, in µs. Each grid contains the coarser ones.
fn on_grid(arrival_us: u64, delay: Duration) -> u64 {
    let exact_us = u128::from(arrival_us) + delay.as_micros();
    let mut grid_us = COARSEST_US;
    while grid_us > 1 && grid_us * GRIDS_PER_DELAY > delay.as_micros() {
        grid_us /= 2;
    }
    // Exact below a delay of 2 ms.
    if grid_us < 125 {
        grid_us = 1;
    }
    ((exact_us + grid_us / 2) / grid_us * grid_us) as u64
}

#[derive(Debug)]
struct Fd(TimerFd);

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
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

    #[test]
    fn the_grid_keeps_the_mean_and_is_fine_for_short_delays() {
        for (delay_ms, most_us) in [(1.0, 0), (3.0, 125), (20.0, 1_000), (74.0, 4_000), (234.0, 8_000)] {
            let delay = Duration::from_secs_f64(delay_ms / 1000.0);
            let errors: Vec<f64> = (0..10_000_u64)
                .map(|n| n * 37 + 5)
                .map(|arrival| on_grid(arrival, delay) as f64 - (arrival as f64 + delay_ms * 1000.0))
                .collect();
            let mean = errors.iter().sum::<f64>() / errors.len() as f64;
            assert!(mean.abs() <= 20.0, "{delay_ms} ms: mean error {mean} µs");
            assert!(errors.iter().all(|error| error.abs() <= f64::from(most_us) / 2.0 + 1.0), "{delay_ms} ms");
        }
    }

    #[tokio::test]
    async fn never_early_beyond_the_grid_in_order_and_after_others_gave_up() {
        let timer = DelayTimer::default();
        let waits = async {
            let start = Instant::now();
            let given_up = timer.wait(start, Duration::from_millis(2));
            tokio::select! {
                biased;
                () = given_up => unreachable!("not yet"),
                () = std::future::ready(()) => {}
            }
            timer.wait(start, Duration::from_millis(40)).await;
            assert!(start.elapsed() >= Duration::from_millis(38));
            let (sooner, later) = (Mutex::new(None), Mutex::new(None));
            let start = Instant::now();
            let mark = async |at: &Mutex<Option<Duration>>, ms| {
                timer.wait(start, Duration::from_millis(ms)).await;
                *at.lock().unwrap() = Some(start.elapsed());
            };
            tokio::join!(mark(&later, 60), mark(&sooner, 5));
            assert!(sooner.lock().unwrap().unwrap() < later.lock().unwrap().unwrap());
        };
        tokio::select! {
            () = waits => {}
            end = timer.run() => panic!("{end:?}"),
        }
    }
}
