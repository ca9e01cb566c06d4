//! What is modelled, and what follows from it without a run.

use std::time::Duration;

/// What is modelled of a replica, its users and the gateway. Times are those of the machine's clock.
#[derive(Debug, Clone, Copy)]
pub struct Model {
    /// Of each replica, in CPU seconds per second.
    pub quota: f64,
    /// CPU time of a request.
    pub cost: Duration,
    /// An answer within it is in time.
    pub slo: Duration,
    /// A request that would be answered later is not sent: its user still waits for the answer before.
    pub patience: Duration,
    /// From the start of a replica until it is ready.
    pub ready_after: Duration,
    /// From then until the gateway sends it requests.
    pub found_after: Duration,
    /// Seconds of the nominal clock in one second of the machine's clock. The nominal clock is that of the policies.
    pub hurry: u32,
}

impl Model {
    /// Requests per second that use all CPU of a replica.
    pub fn replica_per_s(&self) -> f64 {
        self.quota / self.cost.as_secs_f64()
    }

    /// Fewest replicas that answer this rate in time, at least one. No other count is needed while the rate stays: arrivals are even.
    pub fn demand(&self, rate: f64) -> u32 {
        // The quotient of two figures that are equal may be a little above 1.
        ((rate / self.replica_per_s() - 1e-9).ceil() as u32).max(1)
    }

    /// From the start of a replica until the gateway sends it requests, in seconds of the nominal clock, rounded up.
    pub fn useful_after_s(&self) -> usize {
        ((self.ready_after + self.found_after) * self.hurry).as_secs_f64().ceil() as usize
    }
}

/// 64 bits of nanoseconds last 584 years.
pub fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A replica answers 50 requests/s, each within 20 ms, and is ready 10 s after its start.
    pub const MODEL: Model = Model {
        quota: 0.05,
        cost: Duration::from_millis(1),
        slo: Duration::from_millis(250),
        patience: Duration::from_secs(1),
        ready_after: Duration::from_secs(10),
        found_after: Duration::ZERO,
        hurry: 1,
    };

    #[test]
    fn a_start_is_rounded_up_to_seconds_of_the_nominal_clock() {
        assert_eq!((MODEL.replica_per_s(), MODEL.useful_after_s()), (50.0, 10));
        let live = Model {
            ready_after: Duration::from_millis(610),
            found_after: Duration::from_millis(1_500),
            hurry: 10,
            ..MODEL
        };
        assert_eq!(live.useful_after_s(), 22);
    }
}
