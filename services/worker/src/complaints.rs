//! Workers that clients of this worker had no success with. A client names them in a header when it turns to this worker. The monitors get
//! the names with the heartbeats. Pure.

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
/// A worker is reported if this many requests named it for a partition within `WINDOW`.
const MIN_REQUESTS: usize = 3;
const WINDOW: Duration = Duration::from_secs(3);

/// Knows only workers of the partition table, which bounds it.
#[derive(Debug)]
pub struct Complaints {
    me: NodeId,
    /// Times of the last requests that named a worker, by partition.
    recent: BTreeMap<NodeId, [VecDeque<Instant>; PARTITIONS]>,
}

impl Complaints {
    pub fn new(me: NodeId) -> Self {
        Self { me, recent: BTreeMap::new() }
    }

    /// A request for this partition named these workers, separated by commas. This worker and unknown ones are ignored.
    pub fn record(&mut self, names: &str, partition: usize, table: &Table, now: Instant) {
        for name in names.split(',').map(str::trim).take(MAX_NAMES) {
            let Some((node, _)) = table.nodes.get_key_value(name).filter(|(node, _)| **node != self.me) else {
                continue;
            };
            let of_node = self.recent.entry(node.clone()).or_default();
            let Some(times) = of_node.get_mut(partition) else { continue };
            times.push_back(now);
            if times.len() > MIN_REQUESTS {
                times.pop_front();
            }
        }
    }

    /// At most `MAX_COMPLAINTS`; workers with most partitions first, then by name.
    pub fn report(&mut self, table: &Table, now: Instant) -> Vec<Complaint> {
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < WINDOW;
        self.recent.retain(|node, of_node| {
            of_node.iter_mut().for_each(|times| times.retain(is_recent));
            table.nodes.contains_key(node) && of_node.iter().any(|times| !times.is_empty())
        });
        let partitions = |of_node: &[VecDeque<Instant>; PARTITIONS]| {
            let named = of_node.iter().enumerate().filter(|(_, times)| times.len() >= MIN_REQUESTS);
            named.fold(0_u32, |mask, (partition, _)| mask | 1 << partition)
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
        complaints.record("a, b", 3, &table, at(0));
        complaints.record("a", 3, &table, at(1_000));
        complaints.record("a", 4, &table, at(1_000));
        assert_eq!(complaints.report(&table, at(1_000)), []);
        complaints.record("me,,unknown, a", 3, &table, at(2_000));
        assert_eq!(complaints.report(&table, at(2_999)), [complaint("a", 0b1000)]);
        assert_eq!(complaints.report(&table, at(3_000)), [], "the first one is too old");
        complaints.record("a", 3, &table, at(3_500));
        assert_eq!(complaints.report(&table, at(3_500)), [complaint("a", 0b1000)]);
        complaints.record("b, b, b", 16, &table, at(3_600));
        assert_eq!(complaints.report(&Table::default(), at(3_600)), [], "the table does not know them any more");
        assert!(complaints.recent.is_empty());
    }

    #[test]
    fn complaints_are_limited() {
        let (mut complaints, now) = (Complaints::new("me".into()), Instant::now());
        let table = table((0..100).map(|n| format!("w{n:02}")));
        for _ in 0..MIN_REQUESTS {
            for n in 0..100 {
                complaints.record(&format!("w{n:02}"), n % PARTITIONS, &table, now);
            }
            complaints.record("w98", 15, &table, now);
            complaints.record("a, b, c, d, w97", 15, &table, now);
        }
        let report = complaints.report(&table, now);
        assert_eq!((report.len(), &*report[0].node_id), (MAX_COMPLAINTS, "w98"));
        assert!(report.iter().all(|complaint| complaint.partitions.count_ones() <= 2));
    }
}
