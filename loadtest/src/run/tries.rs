//! One request: its first try and its retries.

use std::{
    borrow::Cow,
    sync::{Mutex, atomic::Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use contract::http::{CRITICALITY, REQUEST_DEADLINE};
use rand::{SeedableRng, rngs::SmallRng};
use runtime::telemetry::{Context as TraceContext, TRACEPARENT};
use statistics::seed::mixed;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Ask, Ended, Step, lock, micros_since};
use crate::{
    answer::{class, class_of_failure, foreign_result_of, result_of},
    client::{Failure, Response},
    plan::stream,
    recorder::Recorder,
    retry::{Next, Retries},
    trace::{self, Outcome},
};

/// What a response or its absence means.
type Answer = Outcome<Cow<'static, str>>;

impl Step {
    /// Sends a request and, if it fails, sends it again as the plan says. Waits for its end; the last try decides the result. `number`: that of
    /// the user or of the arrival.
    pub(super) async fn send(
        &self,
        start: Instant,
        (number, planned_us): (u64, u64),
        ask: Ask<'_>,
        shard: &Mutex<Recorder>,
    ) -> Ended {
        if let Some(retries) = &self.retries {
            let random = SmallRng::seed_from_u64(mixed(self.plan.seed, &stream::retries(number, planned_us)));
            return self.send_with_retries(start, planned_us, ask, (retries, random), shard).await;
        }
        self.sent(planned_us, micros_since(start), shard);
        let answer = self.one_try(ask, None).await;
        Ended { at_us: micros_since(start), result: answer.result }
    }

    async fn send_with_retries(
        &self,
        start: Instant,
        planned_us: u64,
        ask: Ask<'_>,
        (retries, mut random): (&Mutex<Retries>, SmallRng),
        shard: &Mutex<Recorder>,
    ) -> Ended {
        let mut begun_us = micros_since(start);
        if !lock(retries).begin(begun_us, &mut random) {
            lock(shard).throttled(begun_us);
            self.live.iter().for_each(|live| live.throttled());
            return Ended { at_us: begun_us, result: Err(class::CLIENT_THROTTLED.into()) };
        }
        self.sent(planned_us, begun_us, shard);
        let deadline_us = begun_us + self.plan.timeout_ms * 1000;
        let mut tries = 1;
        loop {
            let end_us = lock(retries).end_of_try_us(begun_us, deadline_us);
            let answer = self.one_try(ask, Some(start + Duration::from_micros(end_us))).await;
            let now_us = micros_since(start);
            let (status, ended) = (answer.status, Ended { at_us: now_us, result: answer.result });
            if ended.result.is_ok() {
                lock(retries).succeeded(now_us);
                return ended;
            }
            if !may_succeed_later(status) {
                return ended;
            }
            let next = lock(retries).after_failure(tries, now_us, deadline_us, &mut random);
            match next {
                Next::GiveUp => return ended,
                Next::BudgetSpent => {
                    lock(shard).budget_spent(now_us);
                    return ended;
                }
                Next::RetryAt(at_us) if at_us > now_us => sleep_until(start + Duration::from_micros(at_us)).await,
                Next::RetryAt(_at_once) => {}
            }
            begun_us = micros_since(start);
            // A busy machine wakes up late.
            if begun_us >= deadline_us || self.stop.load(Ordering::Relaxed) {
                return ended;
            }
            tries += 1;
            lock(shard).retried(begun_us);
            self.live.iter().for_each(|live| live.retried());
        }
    }

    /// Counts the first try of a request.
    fn sent(&self, planned_us: u64, sent_us: u64, shard: &Mutex<Recorder>) {
        lock(shard).sent(planned_us, sent_us);
        if let Some(live) = &self.live {
            live.sent(Duration::from_micros(sent_us.saturating_sub(planned_us)));
        }
    }

    /// Sends one try and waits for its end. With an end of its own, the try says so in its header.
    async fn one_try(&self, ask: Ask<'_>, end: Option<Instant>) -> Answer {
        let (sent_at, departure) = (std::time::Instant::now(), self.telemetry.start_trace());
        let answer = match end {
            None => self.request(ask, departure, None).await,
            Some(end) => {
                let request = self.request(ask, departure, Some(unix_ms_at(end)));
                timeout_at(end, request).await.unwrap_or_else(|_elapsed| failed(Failure::Timeout))
            }
        };
        let url = || format!("{}{}", self.plan.base_url.trim_end_matches('/'), ask.path);
        trace::record(&self.telemetry, departure, sent_at, url, &answer);
        answer
    }

    /// Sends one request and classifies its response; an error is its class.
    async fn request(&self, ask: Ask<'_>, departure: Option<TraceContext>, deadline_ms: Option<u64>) -> Answer {
        let context = departure.map(|context| (TRACEPARENT, context.to_string()));
        let deadline = deadline_ms.map(|ms| (REQUEST_DEADLINE, ms.to_string()));
        let criticality = ask.criticality.map(|criticality| (CRITICALITY, criticality.as_str()));
        let headers = context.iter().chain(&deadline).map(|(name, value)| (*name, value.as_str()));
        let headers: Vec<_> = headers.chain(criticality).collect();
        match self.client.get(ask.path, &headers).await {
            Ok(Response { status, body }) => {
                let is_ours = self.plan.target.is_none();
                let result = if is_ours { result_of(status, &body) } else { foreign_result_of(status) };
                Outcome { status: Some(status), result }
            }
            Err(failure) => failed(failure),
        }
    }
}

fn failed(failure: Failure) -> Answer {
    Outcome { status: None, result: Err(class_of_failure(failure).into()) }
}

/// Whether a failed request is worth another try: it got no response, or the response says that the server could not serve it now. Other
/// responses would be the same again.
fn may_succeed_later(status: Option<u16>) -> bool {
    status.is_none_or(|status| status == 429 || status >= 500)
}

/// Unix time in milliseconds, rounded down.
fn unix_ms_at(instant: Instant) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (now + instant.saturating_duration_since(Instant::now())).as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_succeed_later_is_sent_again() {
        for status in [None, Some(429), Some(500), Some(502), Some(503), Some(504)] {
            assert!(may_succeed_later(status), "{status:?}");
        }
        // 200: a body that is not ours.
        for status in [200, 301, 400, 404, 413] {
            assert!(!may_succeed_later(Some(status)), "{status}");
        }
    }
}
