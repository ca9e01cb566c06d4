//! Workers that clients of this worker had no success with. A client names them in a header when it turns to this worker. The monitors get
//! the names with the heartbeats, if this worker's own path to the partition's store is good: otherwise it would serve no better. Pure.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use heartbeat::{
    assign::{NodeId, PARTITIONS, Table},
    message::{Complaint, MAX_COMPLAINTS},
};

/// Names in a header; further ones are ignored.
const MAX_NAMES: usize = 4;
/// A worker is reported if this many requests named it within `WINDOW`, with all partitions that they were for: a fault that fails some
/// requests shows at one partition after the other. With two workers in all, one gets every complaint about the other, and counts for two.
const MIN_REQUESTS: u32 = 3;
/// And if they are this share of the requests to this worker itself: others have about as many. Some fail at every worker.
const MIN_PERCENT: u32 = 2;
pub const WINDOW: Duration = Duration::from_secs(3);
const BUCKET: Duration = Duration::from_millis(500);
/// Minimum time between two comparisons.
const COMPARE_EVERY: Duration = Duration::from_secs(1);
/// A path on which the store answers one query within this time is good.
pub const PROMPT: Duration = Duration::from_millis(100);

/// Knows only workers of the partition table, which bounds it.
#[derive(Debug)]
pub struct Complaints {
    me: NodeId,
    /// Requests that named a worker, by partition.
    recent: BTreeMap<NodeId, [Recent; PARTITIONS]>,
    comparisons: [Comparison; PARTITIONS],
}

/// Numbers of requests by the time of the first in each bucket, oldest first.
#[derive(Debug, Default)]
struct Recent(VecDeque<(Instant, u32)>);

/// What this worker knows of its own path to a partition's store.
#[derive(Debug, Clone, Copy, Default)]
struct Comparison {
    asked_at: Option<Instant>,
    prompt_at: Option<Instant>,
}

impl Complaints {
    pub fn new(me: NodeId) -> Self {
        Self { me, recent: BTreeMap::new(), comparisons: [Comparison::default(); PARTITIONS] }
    }

    /// A request for this partition named these workers, separated by commas. This worker and unknown ones are ignored. Returns whether the
    /// caller has to ask the partition's store, and to call `compared`: at most once per `COMPARE_EVERY`.
    pub fn record(&mut self, names: &str, partition: usize, table: &Table, now: Instant) -> bool {
        let mut is_recorded = false;
        for name in names.split(',').map(str::trim).take(MAX_NAMES) {
            let Some((node, _)) = table.nodes.get_key_value(name).filter(|(node, _)| **node != self.me) else {
                continue;
            };
            let of_node = self.recent.entry(node.clone()).or_default();
            let Some(recent) = of_node.get_mut(partition) else { continue };
            recent.add(now);
            is_recorded = true;
        }
        let Some(comparison) = self.comparisons.get_mut(partition).filter(|_| is_recorded) else { return false };
        let is_due = comparison.asked_at.is_none_or(|at| now.saturating_duration_since(at) >= COMPARE_EVERY);
        if is_due {
            comparison.asked_at = Some(now);
        }
        is_due
    }

    /// The partition's store answered this worker promptly, or not.
    pub fn compared(&mut self, partition: usize, is_prompt: bool, now: Instant) {
        if let Some(comparison) = self.comparisons.get_mut(partition) {
            comparison.prompt_at = is_prompt.then_some(now);
        }
    }

    /// At most `MAX_COMPLAINTS`; workers with most partitions first, then by name. `served`: requests to this worker within `WINDOW`.
    pub fn report(&mut self, table: &Table, served: u32, now: Instant) -> Vec<Complaint> {
        self.recent.retain(|node, of_node| {
            of_node.iter_mut().for_each(|recent| recent.expire(now));
            table.nodes.contains_key(node) && of_node.iter().any(|recent| !recent.0.is_empty())
        });
        let others = table.nodes.iter().filter(|(node, membership)| membership.online && **node != self.me).count();
        let least = if others < 2 { 2 * MIN_REQUESTS } else { MIN_REQUESTS };
        let needed = least.max((u64::from(served) * u64::from(MIN_PERCENT) / 100).try_into().unwrap_or(u32::MAX));
        let is_comparable = |partition: usize| {
            self.comparisons[partition].prompt_at.is_some_and(|at| now.saturating_duration_since(at) < WINDOW)
        };
        let partitions = |of_node: &[Recent; PARTITIONS]| {
            let named = of_node.iter().enumerate().filter(|(at, recent)| !recent.0.is_empty() && is_comparable(*at));
            let (mask, requests) = named.fold((0_u32, 0_u32), |(mask, requests), (at, recent)| {
                (mask | 1 << at, requests.saturating_add(recent.count()))
            });
            if requests >= needed { mask } else { 0 }
        };
        let complaints = self.recent.iter().map(|(node, of_node)| (node, partitions(of_node)));
        let mut complaints: Vec<Complaint> = complaints
            .filter(|(_, partitions)| *partitions != 0)
            .map(|(node, partitions)| Complaint { node_id: node.to_string(), partitions })
            .collect();
        complaints.sort_by_key(|complaint| std::cmp::Reverse(complaint.partitions.count_ones()));
        complaints.truncate(MAX_COMPLAINTS);
        complaints
    }
}

impl Recent {
    fn add(&mut self, now: Instant) {
        self.expire(now);
        match self.0.back_mut() {
            Some((since, count)) if now.saturating_duration_since(*since) < BUCKET => *count = count.saturating_add(1),
            _ => self.0.push_back((now, 1)),
        }
    }

    fn expire(&mut self, now: Instant) {
        while self.0.front().is_some_and(|(since, _)| now.saturating_duration_since(*since) >= WINDOW) {
            self.0.pop_front();
        }
    }

    fn count(&self) -> u32 {
        self.0.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }
}

#[cfg(test)]
mod tests {
    use heartbeat::assign::Membership;

    use super::*;

    fn table(nodes: impl IntoIterator<Item = String>) -> Table {
        let membership = Membership { incarnation: 1, process: 7, online: true };
        let nodes = nodes.into_iter().map(|node| (node.into(), membership)).collect();
        Table { nodes, ..Table::default() }
    }

    #[test]
    fn a_worker_is_reported_after_three_complaints_within_seconds() {
        let (mut complaints, start) = (Complaints::new("me".into()), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let table = table(["me", "a", "b"].map(String::from));
        let complaint = |node: &str, partitions| Complaint { node_id: node.into(), partitions };
        (0..PARTITIONS).for_each(|partition| complaints.compared(partition, true, at(1_000)));
        complaints.record("a, b", 3, &table, at(0));
        complaints.record("a", 3, &table, at(1_000));
        assert_eq!(complaints.report(&table, 0, at(1_000)), []);
        complaints.record("me,,unknown, a", 4, &table, at(2_000));
        assert_eq!(complaints.report(&table, 0, at(2_999)), [complaint("a", 0b11000)]);
        assert_eq!(complaints.report(&table, 0, at(3_000)), [], "the first one is too old");
        complaints.record("a", 3, &table, at(3_500));
        assert_eq!(complaints.report(&table, 0, at(3_500)), [complaint("a", 0b11000)]);
        complaints.record("b, b, b", 16, &table, at(3_600));
        assert_eq!(complaints.report(&Table::default(), 0, at(3_600)), [], "the table does not know them any more");
        assert!(complaints.recent.is_empty());
    }

    #[test]
    fn only_partitions_count_whose_store_is_prompt_here() {
        let (mut complaints, start) = (Complaints::new("me".into()), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let table = table(["me", "a", "b"].map(String::from));
        assert!(!complaints.record("unknown", 3, &table, at(0)));
        let due = [0, 10, 999, 1_000].map(|ms| complaints.record("a", 3, &table, at(ms)));
        assert_eq!(due, [true, false, false, true], "one comparison per second");
        assert!(complaints.record("a, a, a", 4, &table, at(1_000)));
        assert_eq!(complaints.report(&table, 0, at(1_000)), []);
        complaints.compared(4, false, at(1_000));
        complaints.compared(3, true, at(1_000));
        let partitions = |complaints: &mut Complaints, ms| {
            complaints.report(&table, 0, at(ms)).first().map_or(0, |complaint| complaint.partitions)
        };
        assert_eq!(partitions(&mut complaints, 1_000), 0b01000);
        complaints.compared(4, true, at(2_000));
        assert_eq!(partitions(&mut complaints, 2_000), 0b11000);
        complaints.compared(3, false, at(2_500));
        assert_eq!(partitions(&mut complaints, 2_500), 0b10000, "the shard is slow for everybody");
    }

    #[test]
    fn a_worker_with_much_traffic_or_alone_needs_more_complaints() {
        let (mut complaints, now) = (Complaints::new("me".into()), Instant::now());
        let (three, two) = (table(["me", "a", "b"].map(String::from)), table(["me", "a"].map(String::from)));
        complaints.compared(0, true, now);
        let mut reported = |requests: u32, table: &Table, served: u32| {
            (0..requests).for_each(|_| _ = complaints.record("a", 0, table, now));
            complaints.report(table, served, now).len()
        };
        assert_eq!((reported(3, &three, 199), reported(0, &three, 200)), (1, 0), "2 % of 200 are 4");
        assert_eq!((reported(0, &two, 0), reported(3, &two, 0)), (0, 1), "it gets all complaints");
        assert_eq!((reported(93, &three, 5_000), reported(1, &three, 5_000)), (0, 1));
    }

    #[test]
    fn complaints_are_limited() {
        let (mut complaints, now) = (Complaints::new("me".into()), Instant::now());
        let table = table((0..100).map(|n| format!("w{n:02}")));
        (0..PARTITIONS).for_each(|partition| complaints.compared(partition, true, now));
        for _ in 0..MIN_REQUESTS {
            for n in 0..100 {
                complaints.record(&format!("w{n:02}"), n % PARTITIONS, &table, now);
            }
            complaints.record("w98", 15, &table, now);
            complaints.record("a, b, c, d, w97", 15, &table, now);
        }
        let report = complaints.report(&table, 0, now);
        assert_eq!((report.len(), &*report[0].node_id), (MAX_COMPLAINTS, "w98"));
        assert!(report.iter().all(|complaint| complaint.partitions.count_ones() <= 2));
    }
}
