//! Whether the store serves this worker's partitions, judged by the worker's own requests. Pure.
//!
//! A partition is failing if its store is silent, or if too many of its requests failed in the last seconds. If requests fail for several
//! partitions on the same server, the path to the server is at fault, and all partitions on it are failing. That is known sooner than for
//! each partition alone.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use heartbeat::assign::PARTITIONS;

/// Requests of this time are judged.
const WINDOW: Duration = Duration::from_secs(10);
const BUCKET: Duration = Duration::from_secs(1);
/// Below it no share of failed requests is judged: at 0.1 % failed requests, four within a window of 80 are rare.
const MIN_FAILED: u32 = 4;
/// Failed requests of 1,000 from which a partition is failing, and below which it is not failing any more.
const FAILING_PER_MILLE: u32 = 50;
const RECOVERED_PER_MILLE: u32 = 20;

/// Derived from the interval of heartbeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A store that has not answered for this long is silent. A request that takes longer has failed.
    pub silent_after: Duration,
    /// The store is asked if no request did for this long.
    pub check_every: Duration,
    /// A partition whose store is silent for this long is not served any more.
    pub resign_after: Duration,
}

impl Limits {
    pub fn new(interval: Duration) -> Self {
        let silent_after = (interval * 3).clamp(Duration::from_secs(1), Duration::from_secs(10));
        Self {
            silent_after,
            check_every: (silent_after / 3).min(Duration::from_secs(1)),
            resign_after: silent_after * 2,
        }
    }
}

#[derive(Debug)]
pub struct StoreHealth {
    limits: Limits,
    /// Number of each partition's server.
    servers: [usize; PARTITIONS],
    /// `None`: not owned.
    partitions: [Option<PartitionHealth>; PARTITIONS],
}

#[derive(Debug)]
struct PartitionHealth {
    epoch: u64,
    /// Last answer of the store, or the time at which the partition was assigned to this worker.
    answered_at: Instant,
    /// Oldest first, at most one per second.
    buckets: VecDeque<Bucket>,
    /// Last time at which the partition was failing.
    failed_at: Option<Instant>,
}

#[derive(Debug)]
struct Bucket {
    since: Instant,
    requests: Requests,
}

#[derive(Debug, Clone, Copy, Default)]
struct Requests {
    all: u32,
    failed: u32,
}

impl Requests {
    fn plus(self, other: Self) -> Self {
        Self { all: self.all.saturating_add(other.all), failed: self.failed.saturating_add(other.failed) }
    }

    fn failed_share_is(self, per_mille: u32) -> bool {
        u64::from(self.failed) * 1_000 >= u64::from(self.all) * u64::from(per_mille)
    }

    fn is_failing(self) -> bool {
        self.failed >= MIN_FAILED && self.failed_share_is(FAILING_PER_MILLE)
    }
}

impl StoreHealth {
    pub fn new(limits: Limits, servers: [usize; PARTITIONS]) -> Self {
        Self { limits, servers, partitions: [const { None }; PARTITIONS] }
    }

    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The epochs in which this worker owns partitions now. What is known about a partition is valid for its epoch.
    pub fn own(&mut self, epochs: [Option<u64>; PARTITIONS], now: Instant) {
        for (partition, epoch) in self.partitions.iter_mut().zip(epochs) {
            if partition.as_ref().map(|known| known.epoch) != epoch {
                *partition = epoch.map(|epoch| PartitionHealth::new(epoch, now));
            }
        }
    }

    /// The store answered a fence, a check or a request.
    pub fn answered(&mut self, partition: usize, now: Instant) {
        let limits = self.limits;
        if let Some(known) = self.get(partition) {
            known.answered(&limits, now);
        }
    }

    /// A request succeeded.
    pub fn succeeded(&mut self, partition: usize, now: Instant) {
        self.answered(partition, now);
        if let Some(known) = self.get(partition) {
            known.count(Requests { all: 1, failed: 0 }, now);
        }
    }

    /// The store failed a request, or did not answer it within `silent_after`.
    pub fn failed(&mut self, partition: usize, now: Instant) {
        if let Some(known) = self.get(partition) {
            known.count(Requests { all: 1, failed: 1 }, now);
        }
    }

    /// Time since the store last answered for this partition; zero if it is not owned.
    pub fn age(&self, partition: usize, now: Instant) -> Duration {
        let known = self.partitions.get(partition).and_then(Option::as_ref);
        known.map_or(Duration::ZERO, |known| now.saturating_duration_since(known.answered_at))
    }

    /// The longest `age` of a partition.
    pub fn oldest_answer(&self, now: Instant) -> Duration {
        (0..PARTITIONS).map(|partition| self.age(partition, now)).max().unwrap_or_default()
    }

    /// Number of requests in about the last `time`, which is at most `WINDOW`.
    pub fn requests_within(&self, time: Duration, now: Instant) -> u32 {
        let buckets = self.partitions.iter().flatten().flat_map(|known| &known.buckets);
        let recent = buckets.filter(|bucket| now.saturating_duration_since(bucket.since) < time);
        recent.fold(0, |sum, bucket| sum.saturating_add(bucket.requests.all))
    }

    /// Bit mask of the failing partitions. A partition that was failing stays so for `silent_after`, and until few requests fail.
    pub fn failing(&mut self, now: Instant) -> u32 {
        let silent_after = self.limits.silent_after;
        let requests = self.partitions.each_mut().map(|known| known.as_mut().map(|known| known.requests(now)));
        let paths: Vec<bool> = self.servers.iter().map(|server| self.path_is_failing(*server, &requests)).collect();
        let mut failing = 0;
        for (number, known) in self.partitions.iter_mut().enumerate() {
            let (Some(known), Some(requests)) = (known, requests[number]) else { continue };
            let is_silent = now.saturating_duration_since(known.answered_at) > silent_after;
            let stays =
                known.failed_at.is_some() && requests.failed > 0 && requests.failed_share_is(RECOVERED_PER_MILLE);
            if is_silent || requests.is_failing() || paths[number] || stays {
                known.failed_at = Some(now);
            } else if known.failed_at.is_some_and(|at| now.saturating_duration_since(at) > silent_after) {
                known.failed_at = None;
            }
            failing |= u32::from(known.failed_at.is_some()) << number;
        }
        failing
    }

    /// Whether too many requests to this server failed, also without the partition with most failures, for at least half of the requested
    /// partitions.
    fn path_is_failing(&self, server: usize, requests: &[Option<Requests>; PARTITIONS]) -> bool {
        let on_server = requests.iter().zip(&self.servers).filter(|(_, at)| **at == server);
        let mut requested: Vec<Requests> =
            on_server.filter_map(|(requests, _)| *requests).filter(|requests| requests.all > 0).collect();
        let with_failures = requested.iter().filter(|requests| requests.failed > 0).count();
        requested.sort_by_key(|requests| requests.failed);
        let is_shared = with_failures * 2 >= requested.len();
        requested.pop();
        is_shared && requested.into_iter().fold(Requests::default(), Requests::plus).is_failing()
    }

    fn get(&mut self, partition: usize) -> Option<&mut PartitionHealth> {
        self.partitions.get_mut(partition)?.as_mut()
    }
}

impl PartitionHealth {
    fn new(epoch: u64, now: Instant) -> Self {
        Self { epoch, answered_at: now, buckets: VecDeque::new(), failed_at: None }
    }

    fn answered(&mut self, limits: &Limits, now: Instant) {
        let age = now.saturating_duration_since(self.answered_at);
        self.answered_at = self.answered_at.max(now);
        if age > limits.silent_after {
            // Failures during the silence say nothing about the store that is back.
            self.failed_at = Some(now);
            self.buckets.clear();
        }
    }

    fn count(&mut self, request: Requests, now: Instant) {
        match self.buckets.back_mut() {
            Some(bucket) if now.saturating_duration_since(bucket.since) < BUCKET => {
                bucket.requests = bucket.requests.plus(request);
            }
            _ => self.buckets.push_back(Bucket { since: now, requests: request }),
        }
        self.requests(now);
    }

    /// Requests within the window.
    fn requests(&mut self, now: Instant) -> Requests {
        while self.buckets.front().is_some_and(|bucket| now.saturating_duration_since(bucket.since) >= WINDOW) {
            self.buckets.pop_front();
        }
        self.buckets.iter().fold(Requests::default(), |sum, bucket| sum.plus(bucket.requests))
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const ALL_OWNED: [Option<u64>; PARTITIONS] = [Some(1); PARTITIONS];

    /// Heartbeats once per second; partition n is on server n modulo `servers`.
    fn health(servers: usize, owned: [Option<u64>; PARTITIONS]) -> (StoreHealth, Instant) {
        let (limits, start) = (Limits::new(Duration::from_secs(1)), Instant::now());
        let mut health = StoreHealth::new(limits, std::array::from_fn(|n| n % servers));
        health.own(owned, start);
        (health, start)
    }

    fn owned(partitions: &[usize]) -> [Option<u64>; PARTITIONS] {
        std::array::from_fn(|n| partitions.contains(&n).then_some(1))
    }

    /// Requests to these partitions every 100 ms for this many seconds, of which `failing(partition)` fail. Returns the seconds at which the
    /// mask of failing partitions changed, with the mask.
    fn run(
        health: &mut StoreHealth,
        start: Instant,
        (partitions, seconds, seed): (&[usize], u32, u64),
        failing: impl Fn(usize) -> f64,
    ) -> Vec<(f64, u32)> {
        let (mut random, mut changes, mut last) = (StdRng::seed_from_u64(seed), Vec::new(), health.failing(start));
        for tick in 1..=seconds * 10 {
            let now = start + MS * 100 * tick;
            for partition in partitions {
                match random.random_bool(failing(*partition)) {
                    true => health.failed(*partition, now),
                    false => health.succeeded(*partition, now),
                }
            }
            let mask = health.failing(now);
            if mask != last {
                changes.push((f64::from(tick) / 10.0, mask));
                last = mask;
            }
        }
        changes
    }

    #[test]
    fn limits_follow_the_interval_of_heartbeats() {
        let limits = |ms| Limits::new(MS * ms);
        assert_eq!((limits(100).silent_after, limits(100).check_every), (MS * 1_000, MS * 1_000 / 3));
        assert_eq!((limits(1_000).silent_after, limits(1_000).check_every), (MS * 3_000, MS * 1_000));
        assert_eq!((limits(60_000).silent_after, limits(60_000).check_every), (MS * 10_000, MS * 1_000));
    }

    #[test]
    fn a_silent_store_is_noticed_without_requests_and_only_for_its_partitions() {
        let (mut health, start) = health(2, owned(&[0, 1]));
        let at = |ms| start + MS * ms;
        health.answered(1, at(2_000));
        assert_eq!((health.failing(at(3_000)), health.failing(at(3_001))), (0, 0b01));
        assert_eq!((health.oldest_answer(at(3_001)), health.age(1, at(3_001))), (MS * 3_001, MS * 1_001));
        health.failed(0, at(3_500));
        health.answered(0, at(4_000));
        assert_eq!((health.age(0, at(4_000)), health.failing(at(4_900))), (Duration::ZERO, 0b01));
        health.answered(1, at(5_000));
        health.answered(0, at(6_000));
        assert_eq!(health.failing(at(7_901)), 0, "the failure during the silence does not count");
        // A new epoch begins without evidence, also if the partition came back at once.
        assert_eq!(health.failing(at(9_001)), 0b11);
        health.own(std::array::from_fn(|n| (n == 0).then_some(2)), at(9_001));
        assert_eq!((health.failing(at(9_001)), health.age(1, at(9_001))), (0, Duration::ZERO));
    }

    #[test]
    fn ten_percent_of_failed_requests_are_noticed_within_seconds() {
        for seed in 0..100 {
            let (mut one, start) = health(1, owned(&[3]));
            let changes = run(&mut one, start, (&[3], 60, seed), |_| 0.1);
            assert!(changes[0].0 <= 12.0 && changes.len() <= 3, "seed {seed}: {changes:?}");
            // Five partitions that share a server are known sooner, and together.
            let (mut five, start) = health(1, owned(&[0, 1, 2, 3, 4]));
            let changes = run(&mut five, start, (&[0, 1, 2, 3, 4], 60, seed), |_| 0.1);
            let (at, mask) = *changes.last().unwrap();
            assert!(at <= 5.0 && mask == 0b11111 && changes.len() <= 3, "seed {seed}: {changes:?}");
        }
        let mut first: Vec<f64> = (0..101)
            .map(|seed| {
                let (mut one, start) = health(1, owned(&[3]));
                run(&mut one, start, (&[3], 60, seed), |_| 0.1)[0].0
            })
            .collect();
        first.sort_by(f64::total_cmp);
        assert!(first[50] <= 4.0, "{first:?}");
    }

    #[test]
    fn one_failing_shard_does_not_condemn_the_others_on_its_server() {
        for seed in 0..100 {
            let (mut health, start) = health(1, owned(&[0, 1, 2, 3, 4]));
            let failing = |partition| if partition == 2 { 0.4 } else { 0.001 };
            let changes = run(&mut health, start, (&[0, 1, 2, 3, 4], 60, seed), failing);
            assert!(changes[0].0 <= 3.0 && changes[0].1 == 0b100 && changes.len() == 1, "seed {seed}: {changes:?}");
        }
    }

    /// 40 partition hours at 10 requests/s.
    #[test]
    fn one_failed_request_in_a_thousand_is_nothing() {
        for seed in 0..5 {
            let (mut health, start) = health(4, ALL_OWNED);
            let all: Vec<usize> = (0..PARTITIONS).collect();
            assert_eq!(run(&mut health, start, (&all, 1_800, seed), |_| 0.001), [], "seed {seed}");
        }
    }

    #[test]
    fn a_partition_recovers_once_requests_succeed_for_a_while() {
        let (mut health, start) = health(1, owned(&[0]));
        assert_eq!(run(&mut health, start, (&[0], 5, 1), |_| 1.0).last().unwrap().1, 1);
        let changes = run(&mut health, start + MS * 5_000, (&[0], 60, 1), |_| 0.0);
        assert!(changes.len() == 1 && changes[0].1 == 0 && (3.0..=15.0).contains(&changes[0].0), "{changes:?}");
    }
}
