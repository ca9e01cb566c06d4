//! Step 0: limits the requests in flight. Further requests wait in a short queue. If the queue is full or the wait is too long, a request is
//! refused: work that ends too late would only delay the others.

mod aimd;

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use contract::spans::name;
use runtime::telemetry::{Kind, Span};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};

use self::aimd::Aimd;
use crate::{
    config::{AdmissionMode, HttpConfig},
    error::ApiError,
    metrics::AdmissionMetrics,
};

pub struct Admission {
    slots: Semaphore,
    waiting: AtomicUsize,
    max_waiting: usize,
    max_wait: Duration,
    /// `None`: the limit is fixed.
    adaptive: Option<Mutex<Adaptive>>,
    metrics: AdmissionMetrics,
}

struct Adaptive {
    policy: Aimd,
    /// All slots, free or in use.
    slots: usize,
    /// Slots that are removed as soon as they become free.
    surplus: usize,
}

/// A request is admitted until this is dropped.
pub struct Admitted<'a> {
    admission: &'a Admission,
    slot: Option<SemaphorePermit<'a>>,
    /// Only with an adaptive limit.
    since: Option<Instant>,
}

impl Admission {
    /// `None`: switched off.
    pub fn new(config: &HttpConfig, metrics: AdmissionMetrics, now: Instant) -> Option<Self> {
        let adaptive = match config.admission {
            AdmissionMode::Off => return None,
            AdmissionMode::Fixed => None,
            AdmissionMode::Adaptive => {
                let target = Duration::from_millis(config.admission_target_ms);
                let policy = Aimd::new(config.admission_limit, target, now);
                Some(Mutex::new(Adaptive { policy, slots: config.admission_limit, surplus: 0 }))
            }
        };
        Some(Self::limited(config.admission_limit, adaptive, config, metrics))
    }

    /// For sign-ups and events. Always on, with a separate limit: many writes must not use up the limit of reads.
    pub fn for_writes(config: &HttpConfig, metrics: AdmissionMetrics) -> Self {
        Self::limited(config.writes_limit, None, config, metrics)
    }

    fn limited(
        limit: usize,
        adaptive: Option<Mutex<Adaptive>>,
        config: &HttpConfig,
        metrics: AdmissionMetrics,
    ) -> Self {
        metrics.limit.set(limit as f64);
        Self {
            slots: Semaphore::new(limit),
            waiting: AtomicUsize::new(0),
            max_waiting: config.admission_waiting,
            max_wait: Duration::from_millis(config.admission_wait_ms),
            adaptive,
            metrics,
        }
    }

    /// Waits in the queue, at most until `deadline`. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// `Overloaded`.
    pub async fn enter(&self, deadline: Instant, span: &Span) -> Result<Admitted<'_>, ApiError> {
        let slot = match self.slots.try_acquire() {
            Ok(slot) => slot,
            // Boxed: otherwise the future of a request that need not wait would contain it.
            Err(_none_free) => Box::pin(self.wait(deadline, span)).await?,
        };
        self.metrics.in_flight.inc();
        let since = self.adaptive.as_ref().map(|_| Instant::now());
        Ok(Admitted { admission: self, slot: Some(slot), since })
    }

    async fn wait(&self, deadline: Instant, span: &Span) -> Result<SemaphorePermit<'_>, ApiError> {
        let waiting = span.child(Kind::Internal, name::ADMISSION_WAIT);
        let started = Instant::now();
        let queued = QueuedRequest(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.max_waiting {
            self.metrics.queue_full.inc();
            waiting.fail("line_full");
            return Err(ApiError::Overloaded);
        }
        let until = deadline.min(started + self.max_wait);
        let slot = tokio::time::timeout_at(until, self.slots.acquire()).await;
        drop(queued);
        self.metrics.wait_seconds.observe(started.elapsed().as_secs_f64());
        slot.ok().and_then(Result::ok).ok_or_else(|| {
            self.metrics.wait_timeout.inc();
            waiting.fail("timeout");
            ApiError::Overloaded
        })
    }

    fn leave(&self, slot: SemaphorePermit<'_>, since: Option<Instant>) {
        let (Some(adaptive), Some(since)) = (&self.adaptive, since) else { return drop(slot) };
        let duration = since.elapsed();
        let mut adaptive = adaptive.lock().unwrap_or_else(PoisonError::into_inner);
        let in_use = adaptive.slots.saturating_sub(self.slots.available_permits());
        let wanted = adaptive.policy.observe(Instant::now(), duration, in_use);
        adaptive.set(&self.slots, wanted);
        if adaptive.surplus > 0 {
            adaptive.surplus -= 1;
            adaptive.slots -= 1;
            slot.forget();
        }
        self.metrics.limit.set(wanted as f64);
    }
}

impl Adaptive {
    /// Adds slots at once. Removes free slots at once, and slots in use when they become free.
    fn set(&mut self, slots: &Semaphore, wanted: usize) {
        let limit = self.slots - self.surplus;
        if wanted > limit {
            let kept = self.surplus.min(wanted - limit);
            self.surplus -= kept;
            let added = wanted - limit - kept;
            slots.add_permits(added);
            self.slots += added;
        } else {
            let removed = slots.forget_permits(limit - wanted);
            self.slots -= removed;
            self.surplus += limit - wanted - removed;
        }
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.admission.metrics.in_flight.dec();
        if let Some(slot) = self.slot.take() {
            self.admission.leave(slot, self.since);
        }
    }
}

/// Decrements the number of waiting requests when it is dropped.
struct QueuedRequest<'a>(&'a AtomicUsize);

impl Drop for QueuedRequest<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(mode: AdmissionMode, limit: usize, waiting: usize) -> Admission {
        let mut config = crate::config::HttpConfig::new(true);
        config.admission = mode;
        config.admission_limit = limit;
        config.admission_waiting = waiting;
        config.admission_wait_ms = 100;
        Admission::new(&config, AdmissionMetrics::reads(&prometheus::Registry::new()).unwrap(), Instant::now()).unwrap()
    }

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_and_a_long_wait_are_refused() {
        let admission = admission(AdmissionMode::Fixed, 2, 1);
        let first = admission.enter(far(), &Span::NONE).await.unwrap();
        let _second = admission.enter(far(), &Span::NONE).await.unwrap();
        let waiting = async {
            let started = Instant::now();
            (admission.enter(far(), &Span::NONE).await.map(drop), started.elapsed())
        };
        let refused = async {
            let started = Instant::now();
            (admission.enter(far(), &Span::NONE).await.map(drop), started.elapsed())
        };
        let (waited, refused) = tokio::join!(waiting, refused);
        assert!(matches!(waited, (Err(ApiError::Overloaded), duration) if duration.as_millis() == 100));
        assert!(matches!(refused, (Err(ApiError::Overloaded), Duration::ZERO)));
        let (served, ()) = tokio::join!(admission.enter(far(), &Span::NONE), async { drop(first) });
        drop(served.unwrap());
        // No wait goes beyond the request's deadline.
        let _first = admission.enter(far(), &Span::NONE).await.unwrap();
        let started = Instant::now();
        assert!(admission.enter(started + Duration::from_millis(30), &Span::NONE).await.is_err());
        assert_eq!(started.elapsed().as_millis(), 30);
        assert_eq!((admission.metrics.queue_full.get(), admission.metrics.wait_timeout.get()), (1, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_leaves_the_queue_frees_its_place() {
        let admission = admission(AdmissionMode::Fixed, 1, 1);
        let _held = admission.enter(far(), &Span::NONE).await.unwrap();
        for _ in 0..10 {
            let gave_up = tokio::time::timeout(Duration::from_millis(1), admission.enter(far(), &Span::NONE)).await;
            assert!(gave_up.is_err());
        }
        assert_eq!(admission.metrics.queue_full.get(), 0);
    }

    /// No slot is lost or added by mistake when the limit changes while slots are in use.
    #[tokio::test(start_paused = true)]
    async fn a_changing_limit_keeps_the_number_of_slots() {
        let slots = Semaphore::new(10);
        let policy = Aimd::new(10, Duration::from_millis(1), Instant::now());
        let mut adaptive = Adaptive { policy, slots: 10, surplus: 0 };
        let held = slots.try_acquire_many(8).unwrap();
        adaptive.set(&slots, 4);
        assert_eq!((adaptive.slots, adaptive.surplus, slots.available_permits()), (8, 4, 0));
        adaptive.set(&slots, 6);
        assert_eq!((adaptive.slots, adaptive.surplus, slots.available_permits()), (8, 2, 0));
        adaptive.set(&slots, 12);
        assert_eq!((adaptive.slots, adaptive.surplus, slots.available_permits()), (12, 0, 4));
        drop(held);
        assert_eq!(slots.available_permits(), 12);
    }

    /// All requests exceed the target: the limit falls, and the new limit is enforced.
    #[tokio::test(start_paused = true)]
    async fn an_adaptive_limit_is_enforced() {
        let admission = admission(AdmissionMode::Adaptive, 100, 0);
        for _ in 0..50 {
            let mut all = Vec::new();
            while let Ok(admitted) = admission.enter(far(), &Span::NONE).await {
                all.push(admitted);
            }
            tokio::time::advance(Duration::from_secs(5)).await;
        }
        let limit = admission.metrics.limit.get();
        assert!(limit < 50.0, "{limit}");
        let mut all = Vec::new();
        while let Ok(admitted) = admission.enter(far(), &Span::NONE).await {
            all.push(admitted);
        }
        assert_eq!(all.len() as f64, limit);
    }
}
