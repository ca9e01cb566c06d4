//! The CPU time that a request for recommendations is declared to cost (`http.work_us`). With it a replica runs out of CPU at a known rate, and
//! an autoscaler can be tried on a small machine.
//!
//! Without `http.cpu_quota` the time is really used, and a cgroup may hold the replica back. With it the time passes on a virtual CPU, and this
//! process only waits.

mod shared_cpu;
mod usage;
mod virtual_cpu;

use std::{hint::black_box, sync::Arc, time::Duration};

use anyhow::Context as _;
use contract::spans::name;
use nix::time::ClockId;
use prometheus::{Histogram, HistogramOpts, Registry};
use runtime::telemetry::{Kind, Span};
use tokio::time::{Instant, sleep_until};

pub use self::virtual_cpu::VirtualCpu;
use self::{
    shared_cpu::SharedCpu,
    usage::{Source, Usage},
};
use crate::{config::HttpConfig, deadline::Deadline, error::ApiError};

pub struct Work {
    cost: Duration,
    /// `None`: the time is really used.
    cpu: Option<Arc<SharedCpu>>,
    wait_seconds: Histogram,
}

impl Work {
    /// Registers the metrics. `None`: `http.work_us` is 0, and requests cost what they cost.
    ///
    /// # Errors
    /// `http.cpu_stat` cannot be read, or the registry has one of the names already.
    pub fn start(config: &HttpConfig, registry: &Registry) -> anyhow::Result<Option<Self>> {
        let quota = config.cpu_quota;
        let cpu = (quota > 0.0).then(|| Arc::new(SharedCpu::new(quota)));
        let source = match &cpu {
            Some(cpu) => Source::Virtual(Arc::clone(cpu)),
            None if config.cpu_stat.is_empty() => Source::Process,
            None => Source::Cgroup(config.cpu_stat.clone().into()),
        };
        source
            .check()
            .with_context(|| format!("cannot read throttled time from {} (http.cpu_stat)", config.cpu_stat))?;
        registry.register(Box::new(Usage::new(source, quota)?))?;
        let wait_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "api_cpu_wait_seconds",
                "Time that a request waits for its turn on the virtual CPU and its work there",
            )
            // From one work of 1 ms on a whole CPU to the deadline of a request.
            .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0]),
        )?;
        registry.register(Box::new(wait_seconds.clone()))?;
        let cost = Duration::from_micros(config.work_us);
        Ok((cost > Duration::ZERO).then_some(Self { cost, cpu, wait_seconds }))
    }

    /// Spends the CPU time of one request, whose span is `span`. Without a virtual CPU it blocks the thread, as computing does.
    ///
    /// # Errors
    /// `Deadline`: the work would end after the deadline, or the deadline is over. Nothing is spent. The answer comes at once: a request that
    /// waits for it in vain would only occupy memory.
    pub async fn spend(&self, deadline: Deadline, span: &Span) -> Result<(), ApiError> {
        let working = span.child(Kind::Internal, name::WORK);
        let late = || {
            working.fail("timeout");
            deadline.exceeded()
        };
        let now = Instant::now();
        let Some(cpu) = &self.cpu else {
            if now >= deadline.at {
                return Err(late());
            }
            burn(self.cost);
            return Ok(());
        };
        let done = cpu.charge(now, self.cost, deadline.at).ok_or_else(late)?;
        self.wait_seconds.observe((done - now).as_secs_f64());
        sleep_until(done).await;
        Ok(())
    }
}

/// Computes until this thread has used the CPU time. Its CPU clock stands still while the thread is not scheduled or its cgroup is throttled.
fn burn(cost: Duration) {
    // About a microsecond in a release build, far below the costs that are measured; reading the clock is a system call.
    const ROUNDS: u64 = 1_000;
    // Linux always has this clock. Without it there would be no end.
    let used = || ClockId::CLOCK_THREAD_CPUTIME_ID.now().ok().map(Duration::from);
    let Some(start) = used() else { return };
    while used().is_some_and(|used| used.saturating_sub(start) < cost) {
        black_box((0..ROUNDS).fold(1_u64, |sum, n| black_box(sum).wrapping_mul(31).wrapping_add(n)));
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;

    fn work(work_us: u64, cpu_quota: f64) -> Work {
        let config = HttpConfig { work_us, cpu_quota, ..HttpConfig::new(true) };
        Work::start(&config, &Registry::new()).unwrap().unwrap()
    }

    #[test]
    fn no_work_by_default() {
        assert!(Work::start(&HttpConfig::new(true), &Registry::new()).unwrap().is_none());
        let config = HttpConfig { cpu_stat: "/no/such/cpu.stat".into(), ..HttpConfig::new(true) };
        let error = format!("{:#}", Work::start(&config, &Registry::new()).err().unwrap());
        assert!(error.contains("/no/such/cpu.stat (http.cpu_stat)"), "{error}");
    }

    #[test]
    fn burning_uses_the_threads_cpu_time() {
        let used = || Duration::from(ClockId::CLOCK_THREAD_CPUTIME_ID.now().unwrap());
        for cost in [Duration::from_micros(100), Duration::from_millis(30)] {
            let before = used();
            burn(cost);
            assert!(used() - before >= cost);
        }
        // Another thread's work does not count.
        let (before, cost) = (used(), Duration::from_millis(30));
        std::thread::scope(|scope| {
            scope.spawn(|| burn(cost));
            burn(cost);
        });
        assert!(used() - before >= cost);
    }

    #[tokio::test]
    async fn after_the_deadline_nothing_is_burned() {
        let work = work(1_000_000, 0.0);
        let before = Duration::from(ClockId::CLOCK_THREAD_CPUTIME_ID.now().unwrap());
        assert!(matches!(
            work.spend(Deadline::after(Instant::now(), 0), &Span::NONE).await,
            Err(ApiError::Deadline(0))
        ));
        let after = Duration::from(ClockId::CLOCK_THREAD_CPUTIME_ID.now().unwrap());
        assert!(after - before < work.cost);
    }

    /// 50 m and 1 ms a request: 50 requests a second of the 200 that arrive, for as long as they arrive.
    #[tokio::test(start_paused = true)]
    async fn a_replica_holds_its_quota_by_the_cost_of_a_request() {
        let (work, started) = (work(1_000, 0.05), Instant::now());
        let request = async |n: u64| {
            sleep_until(started + Duration::from_millis(5 * n)).await;
            let arrived = Instant::now();
            let answer = work.spend(Deadline::after(arrived, 1_000), &Span::NONE).await;
            (answer.is_ok(), arrived - started, started.elapsed())
        };
        let answers = join_all((0..2_000).map(request)).await;
        let second = |duration: Duration| duration.as_secs();
        // The backlog is full after the first 1.4 s.
        for n in 2..10 {
            let answered = answers.iter().filter(|(ok, _, ended)| *ok && second(*ended) == n).count();
            assert!((49..=51).contains(&answered), "{answered} in second {n}");
        }
        for (ok, arrived, ended) in &answers {
            // Timers have a resolution of 1 ms.
            let most = if *ok { Duration::from_millis(1_001) } else { Duration::ZERO };
            assert!(*ended - *arrived <= most, "{ok} {arrived:?} {ended:?}");
        }
        assert_eq!(work.wait_seconds.get_sample_count(), answers.iter().filter(|(ok, ..)| *ok).count() as u64);
    }

    /// 40 requests a second are within the quota: all are answered, and each waits only for its own work.
    #[tokio::test(start_paused = true)]
    async fn below_its_quota_a_replica_refuses_nothing() {
        let (work, started) = (work(1_000, 0.05), Instant::now());
        for n in 1..=400 {
            work.spend(Deadline::after(Instant::now(), 25), &Span::NONE).await.unwrap();
            sleep_until(started + Duration::from_millis(25 * n)).await;
        }
        assert_eq!(work.wait_seconds.get_sample_count(), 400);
        assert!((work.wait_seconds.get_sample_sum() - 400.0 * 0.02).abs() < 1e-6);
    }
}
