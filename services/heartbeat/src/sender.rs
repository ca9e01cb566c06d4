//! Sending heartbeats: a task per node on an absolute schedule, and senders that write datagrams.

mod batch;
#[cfg(feature = "udp")]
mod datagrams;
mod pace;

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

#[cfg(feature = "udp")]
pub use self::datagrams::{BatchSender, DatagramSender, SendCounts, SingleSender};
pub use self::{
    batch::{BatchWriter, DATAGRAM_BYTES},
    pace::Pace,
};
use crate::{
    Nanos,
    clock::{Clock, wall_ms},
    message::Beat,
};

/// A heartbeat is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// Planned time.
    pub planned: Nanos,
    /// Actual time.
    pub now: Nanos,
    /// Heartbeats skipped before this one, because the next one was due too.
    pub skipped: u64,
}

/// Calls `emit` on schedule until `stop`. No drift: every time is computed from the start.
pub async fn on_schedule(clock: Clock, pace: Pace, stop: CancellationToken, mut emit: impl FnMut(Tick)) {
    let mut stopped = pin!(stop.cancelled());
    let (mut number, mut skipped) = (0, 0);
    loop {
        let planned = pace.planned(number);
        tokio::select! {
            biased;
            () = &mut stopped => return,
            () = sleep_until(Instant::from_std(clock.instant(planned))) => {}
        }
        emit(Tick { planned, now: clock.now(), skipped });
        let next = pace.next(number, clock.now());
        skipped = next - number - 1;
        number = next;
    }
}

/// Many senders in one process, each with its own task, schedule and sequence.
pub struct Fleet {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Fleet {
    /// `beats` are templates: timestamp and sequence are set at each tick. Phases are spread evenly over the interval; the first heartbeat
    /// is sent within it. `emit` runs on the node's task and must not block.
    pub fn spawn(
        beats: impl IntoIterator<Item = Beat>,
        interval: Duration,
        clock: Clock,
        emit: Arc<impl Fn(&Beat, Tick) + Send + Sync + 'static>,
    ) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let interval = interval.as_nanos() as Nanos;
        let start = clock.now();
        for (n, beat) in beats.into_iter().enumerate() {
            let pace = Pace::new(start + pace::phase(n as u64, interval), interval);
            tasks.spawn(node(clock, pace, stop.clone(), beat, Arc::clone(&emit)));
        }
        tasks.close();
        Self { tasks, stop }
    }

    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Stops all senders and waits until each has finished its current heartbeat. False: some had not by the deadline.
    pub async fn stop(self, deadline: Duration) -> bool {
        self.stop.cancel();
        timeout(deadline, self.tasks.wait()).await.is_ok()
    }
}

async fn node(
    clock: Clock,
    pace: Pace,
    stop: CancellationToken,
    mut beat: Beat,
    emit: Arc<impl Fn(&Beat, Tick) + Send + Sync + 'static>,
) {
    on_schedule(clock, pace, stop, |tick| {
        beat.timestamp = wall_ms();
        beat.sequence += 1;
        emit(&beat, tick);
    })
    .await;
}
