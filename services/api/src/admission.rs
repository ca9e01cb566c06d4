//! Step 0: limits the requests in flight. Further requests wait in a short queue. If the queue is full or the wait is too long, a request is
//! refused: work that ends too late would only delay the others. A policy decides the limit and the longest wait (`crate::policies`); the most
//! critical request is admitted first (`queue`).

mod queue;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use contract::{http::Criticality, spans::name};
use runtime::telemetry::{Kind, Span};
use tokio::{sync::oneshot, time::Instant};

use self::queue::{Answer, Arrival, Queue};
use crate::{
    config::HttpConfig,
    error::ApiError,
    metrics::AdmissionMetrics,
    policies::{self, Ended, Outcome, Policy, PolicyKind, Settings},
};

pub struct Admission {
    state: Mutex<State>,
    metrics: AdmissionMetrics,
}

struct State {
    queue: Queue,
    policy: Box<dyn Policy>,
}

/// A request is admitted until this is dropped.
pub struct Admitted<'a> {
    admission: &'a Admission,
    since: Instant,
    /// A request that is dropped without an end was given up by its client.
    outcome: Outcome,
}

impl Admission {
    /// `None`: switched off (or not a policy's name, which the check of the settings refuses).
    pub fn new(config: &HttpConfig, metrics: AdmissionMetrics, now: Instant) -> Option<Self> {
        let kind = policies::find(&config.admission)?;
        Some(Self::start(kind, config.admission_limit, config, metrics, now))
    }

    /// For sign-ups and events. Always on, with a separate limit: many writes must not use up the limit of reads.
    pub fn for_writes(config: &HttpConfig, metrics: AdmissionMetrics, now: Instant) -> Self {
        Self::start(policies::FIXED, config.writes_limit, config, metrics, now)
    }

    fn start(
        kind: &PolicyKind,
        max_limit: usize,
        config: &HttpConfig,
        metrics: AdmissionMetrics,
        now: Instant,
    ) -> Self {
        let settings = Settings {
            max_limit,
            target: Duration::from_millis(config.admission_target_ms),
            wait: Duration::from_millis(config.admission_wait_ms),
        };
        let policy = (kind.start)(&settings, now);
        let queue = Queue::new(policy.limit(), kind.order, config.admission_waiting);
        metrics.limit.set(policy.limit() as f64);
        Self { state: Mutex::new(State { queue, policy }), metrics }
    }

    /// Waits in the queue, at most until `deadline`. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// `Overloaded`.
    pub async fn enter(
        &self,
        deadline: Instant,
        criticality: Criticality,
        span: &Span,
    ) -> Result<Admitted<'_>, ApiError> {
        let now = Instant::now();
        let (arrival, max_wait) = {
            let mut state = self.lock();
            let arrival = state.queue.arrive(now, criticality);
            let max_wait = match &arrival {
                Arrival::Waits { since, .. } => state.policy.max_wait(now - *since),
                Arrival::Admitted | Arrival::Refused => Duration::ZERO,
            };
            (arrival, max_wait)
        };
        match arrival {
            Arrival::Admitted => {}
            Arrival::Refused => {
                self.metrics.queue_full.inc();
                span.child(Kind::Internal, name::ADMISSION_WAIT).fail("line_full");
                return Err(ApiError::Overloaded);
            }
            Arrival::Waits { ticket, answer, .. } => {
                let waiter = WaitingRequest { admission: self, criticality, ticket, answer };
                // Boxed: otherwise the future of a request that need not wait would contain it.
                Box::pin(self.wait(waiter, now, deadline.min(now + max_wait), span)).await?;
            }
        }
        self.metrics.in_flight.inc();
        Ok(Admitted { admission: self, since: Instant::now(), outcome: Outcome::Overloaded })
    }

    async fn wait(
        &self,
        mut waiter: WaitingRequest<'_>,
        started: Instant,
        until: Instant,
        span: &Span,
    ) -> Result<(), ApiError> {
        let waiting = span.child(Kind::Internal, name::ADMISSION_WAIT);
        let answer = tokio::time::timeout_at(until, &mut waiter.answer).await;
        self.metrics.wait_seconds.observe(started.elapsed().as_secs_f64());
        let reason = match answer {
            Ok(Ok(Answer::Admitted)) => return Ok(()),
            Ok(_displaced) => {
                self.metrics.queue_full.inc();
                "line_full"
            }
            Err(_elapsed) => {
                self.metrics.wait_timeout.inc();
                "timeout"
            }
        };
        waiting.fail(reason);
        Err(ApiError::Overloaded)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admitted<'_> {
    /// The request ends now, with this answer.
    pub fn end<T>(mut self, answer: &Result<T, ApiError>) {
        self.outcome = match answer {
            Ok(_) => Outcome::Answered,
            Err(error) if error.is_overload() => Outcome::Overloaded,
            Err(_) => Outcome::Failed,
        };
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        let Admission { state: _, metrics } = self.admission;
        let now = Instant::now();
        let mut state = self.admission.lock();
        // A bug is no overload.
        let outcome = if std::thread::panicking() { Outcome::Failed } else { self.outcome };
        let ended = Ended { duration: now - self.since, outcome, in_flight: state.queue.in_flight() };
        state.policy.observe(now, ended);
        // With a limit of 0 no request would end that could raise it again.
        let limit = state.policy.limit().max(1);
        state.queue.end(limit);
        metrics.limit.set(limit as f64);
        drop(state);
        metrics.in_flight.dec();
    }
}

/// Leaves the queue when it is dropped, or returns an admission that it has not seen.
struct WaitingRequest<'a> {
    admission: &'a Admission,
    criticality: Criticality,
    ticket: u64,
    answer: oneshot::Receiver<Answer>,
}

impl Drop for WaitingRequest<'_> {
    fn drop(&mut self) {
        self.admission.lock().queue.leave(self.criticality, self.ticket, &mut self.answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(policy: &str, limit: usize, waiting: usize) -> Admission {
        let mut config = crate::config::HttpConfig::new(true);
        config.admission = policy.to_owned();
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
        let admission = admission("fixed", 2, 1);
        let first = admission.enter(far(), Criticality::Default, &Span::NONE).await.unwrap();
        let _second = admission.enter(far(), Criticality::Default, &Span::NONE).await.unwrap();
        let waiting = async {
            let started = Instant::now();
            (admission.enter(far(), Criticality::Default, &Span::NONE).await.map(drop), started.elapsed())
        };
        let refused = async {
            let started = Instant::now();
            (admission.enter(far(), Criticality::Default, &Span::NONE).await.map(drop), started.elapsed())
        };
        let (waited, refused) = tokio::join!(waiting, refused);
        assert!(matches!(waited, (Err(ApiError::Overloaded), duration) if duration.as_millis() == 100));
        assert!(matches!(refused, (Err(ApiError::Overloaded), Duration::ZERO)));
        let (served, ()) =
            tokio::join!(admission.enter(far(), Criticality::Default, &Span::NONE), async { drop(first) });
        drop(served.unwrap());
        // No wait goes beyond the request's deadline.
        let _first = admission.enter(far(), Criticality::Default, &Span::NONE).await.unwrap();
        let started = Instant::now();
        assert!(admission.enter(started + Duration::from_millis(30), Criticality::Default, &Span::NONE).await.is_err());
        assert_eq!(started.elapsed().as_millis(), 30);
        assert_eq!((admission.metrics.queue_full.get(), admission.metrics.wait_timeout.get()), (1, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_leaves_the_queue_frees_its_place() {
        let admission = admission("fixed", 1, 1);
        let _held = admission.enter(far(), Criticality::Default, &Span::NONE).await.unwrap();
        for _ in 0..10 {
            let gave_up = tokio::time::timeout(
                Duration::from_millis(1),
                admission.enter(far(), Criticality::Default, &Span::NONE),
            )
            .await;
            assert!(gave_up.is_err());
        }
        assert_eq!(admission.metrics.queue_full.get(), 0);
    }

    /// Waiting requests are answered, time out and are cancelled at various moments. No slot is lost or added.
    #[tokio::test]
    async fn slots_survive_cancellation_storms() {
        for policy in policies::ALL {
            let admission = std::sync::Arc::new(admission(policy.name, 3, 1_000));
            let mut tasks = tokio::task::JoinSet::new();
            for n in 0..5_000_u64 {
                let admission = std::sync::Arc::clone(&admission);
                tasks.spawn(async move {
                    let deadline = Instant::now() + Duration::from_micros(n % 700);
                    let criticality = Criticality::ALL[n as usize % Criticality::ALL.len()];
                    let entered = admission.enter(deadline, criticality, &Span::NONE);
                    if let Ok(Ok(admitted)) = tokio::time::timeout(Duration::from_micros(n % 500), entered).await {
                        tokio::task::yield_now().await;
                        admitted.end(&Ok(()));
                    }
                });
            }
            tasks.join_all().await;
            assert_eq!(admission.lock().queue.in_flight(), 0, "{}", policy.name);
            assert_eq!(admission.metrics.in_flight.get(), 0.0);
            let limit = admission.lock().policy.limit();
            let mut all = Vec::new();
            while let Ok(admitted) = admission.enter(Instant::now(), Criticality::Default, &Span::NONE).await {
                all.push(admitted);
            }
            assert_eq!(all.len(), limit, "{}", policy.name);
        }
    }

    /// The order in which waiting requests are admitted, by criticality and number.
    async fn order_admitted(policy: &str, waiting: usize, arrivals: &[Criticality]) -> (Vec<usize>, u64) {
        let admission = std::sync::Arc::new(admission(policy, 1, waiting));
        let first = admission.enter(far(), Criticality::Sheddable, &Span::NONE).await.unwrap();
        let (done, mut served) = tokio::sync::mpsc::unbounded_channel();
        let mut tasks = tokio::task::JoinSet::new();
        for (n, criticality) in arrivals.iter().copied().enumerate() {
            let (task_admission, done) = (std::sync::Arc::clone(&admission), done.clone());
            tasks.spawn(async move {
                if task_admission.enter(far(), criticality, &Span::NONE).await.is_ok() {
                    done.send(n).unwrap();
                }
            });
            // On one thread the task runs until it waits or is refused.
            tokio::task::yield_now().await;
        }
        drop(first);
        drop(done);
        tasks.join_all().await;
        let mut order = Vec::new();
        while let Some(n) = served.recv().await {
            order.push(n);
        }
        (order, admission.metrics.queue_full.get())
    }

    #[tokio::test(start_paused = true)]
    async fn the_most_critical_request_is_admitted_first() {
        use Criticality::{Critical, Default, Sheddable};
        let arrivals = [Sheddable, Default, Critical, Sheddable, Critical];
        assert_eq!(order_admitted("fixed", 10, &arrivals).await, (vec![2, 4, 1, 0, 3], 0));
        assert_eq!(order_admitted("codel", 10, &arrivals).await, (vec![4, 2, 1, 3, 0], 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_refuses_the_request_that_would_be_last() {
        use Criticality::{Critical, Default, Sheddable};
        let arrivals = [Sheddable, Default, Sheddable, Default, Critical, Critical, Default];
        // The first two wait. Then a sheddable one gives way to `default`, and both of those to `critical`.
        assert_eq!(order_admitted("fixed", 2, &arrivals).await, (vec![4, 5], 5));
        assert_eq!(order_admitted("codel", 2, &arrivals).await, (vec![5, 4], 5));
        assert_eq!(order_admitted("fixed", 1, &[Default, Default]).await, (vec![0], 1));
        assert_eq!(order_admitted("codel", 1, &[Default, Default]).await, (vec![1], 1));
    }

    /// All requests exceed the target: the limit falls, and the new limit is enforced.
    #[tokio::test(start_paused = true)]
    async fn an_adaptive_limit_is_enforced() {
        let admission = admission("adaptive", 100, 0);
        for _ in 0..50 {
            let mut all = Vec::new();
            while let Ok(admitted) = admission.enter(far(), Criticality::Default, &Span::NONE).await {
                all.push(admitted);
            }
            tokio::time::advance(Duration::from_secs(5)).await;
        }
        let limit = admission.metrics.limit.get();
        assert!(limit < 50.0, "{limit}");
        let mut all = Vec::new();
        while let Ok(admitted) = admission.enter(far(), Criticality::Default, &Span::NONE).await {
            all.push(admitted);
        }
        assert_eq!(all.len() as f64, limit);
    }
}
