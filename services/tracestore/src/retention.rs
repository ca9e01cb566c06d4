//! Decides which traces are kept: the slowest, the newest failed ones, the newest exemplars, and a random sample. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use crate::{Reason, TraceId};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Number of slowest traces kept.
    pub slow: usize,
    /// Number of newest failed traces kept.
    pub failed: usize,
    /// Number of newest traces kept that a histogram names as an exemplar.
    pub exemplars: usize,
    /// Number of randomly sampled traces kept.
    pub sample: usize,
    /// Age after which a slow trace may be replaced by a faster one: a cold start an hour ago is of no interest.
    pub slow_for: Duration,
}

/// Properties of a trace that decide whether it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traits {
    pub duration_ns: u64,
    pub failed: bool,
    /// A histogram names it as an exemplar.
    pub exemplar: bool,
    /// Recorded after the request because it failed or was slow. Not part of the random sample, which it would bias.
    pub afterwards: bool,
}

#[derive(Debug)]
pub struct Retention {
    quotas: Quotas,
    /// By duration; with the time of arrival.
    slow: BTreeMap<(u64, TraceId), Instant>,
    /// Oldest first.
    failed: VecDeque<TraceId>,
    exemplars: VecDeque<TraceId>,
    /// The traces with the lowest hash of their id: each trace has the same chance, independently of arrival time and repetitions.
    sample: BTreeSet<(u64, TraceId)>,
    kept: HashMap<TraceId, Classes>,
}

/// Reasons for which a trace is kept.
#[derive(Debug, Clone, Copy, Default)]
struct Classes {
    slow: Option<u64>,
    failed: bool,
    exemplar: bool,
    sample: bool,
}

impl Classes {
    fn reasons(self) -> impl Iterator<Item = Reason> {
        let all = [
            (self.slow.is_some(), Reason::Slow),
            (self.failed, Reason::Failed),
            (self.exemplar, Reason::Exemplar),
            (self.sample, Reason::Sample),
        ];
        all.into_iter().filter(|(is, _)| *is).map(|(_, reason)| reason)
    }
}

impl Retention {
    pub fn new(quotas: Quotas) -> Self {
        Self {
            quotas,
            slow: BTreeMap::new(),
            failed: VecDeque::new(),
            exemplars: VecDeque::new(),
            sample: BTreeSet::new(),
            kept: HashMap::new(),
        }
    }

    /// Decides about a trace, again if a span was late. Returns the traces that are dropped, possibly this one.
    pub fn offer(&mut self, id: TraceId, traits: Traits, now: Instant) -> Vec<TraceId> {
        let classes = self.kept.get(&id).copied().unwrap_or_default();
        let mut touched = vec![id];
        self.kept.insert(id, classes);
        if classes.slow != Some(traits.duration_ns) {
            if let Some(old) = classes.slow {
                self.slow.remove(&(old, id));
            }
            self.slow.insert((traits.duration_ns, id), now);
            self.classes_mut(id).slow = Some(traits.duration_ns);
        }
        if traits.failed && !classes.failed {
            self.failed.push_back(id);
            self.classes_mut(id).failed = true;
        }
        if traits.exemplar && !classes.exemplar {
            self.exemplars.push_back(id);
            self.classes_mut(id).exemplar = true;
        }
        if !classes.sample && !traits.afterwards {
            self.sample.insert((id.sample_hash(), id));
            self.classes_mut(id).sample = true;
        }
        touched.extend(self.shrink(now));
        touched.retain(|id| self.dropped(*id));
        touched
    }

    /// Empty if the trace is not kept.
    pub fn reasons(&self, id: TraceId) -> Vec<Reason> {
        self.kept.get(&id).into_iter().flat_map(|classes| classes.reasons()).collect()
    }

    pub fn keeps(&self, id: TraceId) -> bool {
        self.kept.contains_key(&id)
    }

    /// Reduces each class to its quota. Returns the traces that lost a place.
    fn shrink(&mut self, now: Instant) -> Vec<TraceId> {
        let mut out = Vec::new();
        if self.slow.len() > self.quotas.slow {
            let outdated: Vec<_> = self
                .slow
                .iter()
                .filter(|(_, arrived)| now.saturating_duration_since(**arrived) > self.quotas.slow_for)
                .map(|(key, _)| *key)
                .collect();
            for key in outdated {
                self.slow.remove(&key);
                self.classes_mut(key.1).slow = None;
                out.push(key.1);
            }
        }
        while self.slow.len() > self.quotas.slow
            && let Some(((_, id), _)) = self.slow.pop_first()
        {
            self.classes_mut(id).slow = None;
            out.push(id);
        }
        while self.failed.len() > self.quotas.failed
            && let Some(id) = self.failed.pop_front()
        {
            self.classes_mut(id).failed = false;
            out.push(id);
        }
        while self.exemplars.len() > self.quotas.exemplars
            && let Some(id) = self.exemplars.pop_front()
        {
            self.classes_mut(id).exemplar = false;
            out.push(id);
        }
        while self.sample.len() > self.quotas.sample
            && let Some((_, id)) = self.sample.pop_last()
        {
            self.classes_mut(id).sample = false;
            out.push(id);
        }
        out
    }

    fn classes_mut(&mut self, id: TraceId) -> &mut Classes {
        self.kept.entry(id).or_default()
    }

    /// True if the trace was kept and has no reason left.
    fn dropped(&mut self, id: TraceId) -> bool {
        let gone = self.kept.get(&id).is_some_and(|classes| classes.reasons().next().is_none());
        if gone {
            self.kept.remove(&id);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTAS: Quotas = Quotas { slow: 2, failed: 2, exemplars: 2, sample: 0, slow_for: Duration::from_secs(600) };

    fn id(n: u128) -> TraceId {
        TraceId::from_bytes(&n.to_be_bytes()).unwrap()
    }

    fn fine(duration_ns: u64) -> Traits {
        Traits { duration_ns, failed: false, exemplar: false, afterwards: false }
    }

    #[test]
    fn the_slowest_push_out_the_faster() {
        let (mut keep, now) = (Retention::new(QUOTAS), Instant::now());
        assert_eq!(keep.offer(id(1), fine(30), now), []);
        assert_eq!(keep.offer(id(2), fine(20), now), []);
        assert_eq!(keep.offer(id(3), fine(10), now), [id(3)]);
        assert_eq!(keep.offer(id(4), fine(25), now), [id(2)]);
        assert_eq!(keep.reasons(id(4)), [Reason::Slow]);
        assert!(!keep.keeps(id(2)) && !keep.keeps(id(3)));
        // A late span has made it longer.
        assert_eq!(keep.offer(id(4), fine(40), now), []);
        assert_eq!(keep.offer(id(5), fine(35), now), [id(1)]);
    }

    #[test]
    fn what_was_slow_long_ago_makes_room() {
        let (mut keep, start) = (Retention::new(QUOTAS), Instant::now());
        keep.offer(id(1), fine(1000), start);
        keep.offer(id(2), fine(900), start);
        let later = start + Duration::from_secs(601);
        let mut gone = keep.offer(id(3), fine(5), later);
        gone.sort();
        assert_eq!(gone, [id(1), id(2)]);
        assert!(keep.keeps(id(3)));
    }

    #[test]
    fn the_newest_failures_stay_and_a_trace_can_have_two_reasons() {
        let (mut keep, now) = (Retention::new(QUOTAS), Instant::now());
        let failed = Traits { failed: true, ..fine(1) };
        for n in 1..=2 {
            assert_eq!(keep.offer(id(n), failed, now), []);
        }
        assert_eq!(keep.reasons(id(1)), [Reason::Slow, Reason::Failed]);
        keep.offer(id(10), fine(50), now);
        keep.offer(id(11), fine(50), now);
        assert_eq!(keep.reasons(id(1)), [Reason::Failed], "slower ones came, it stays as a failure");
        assert_eq!(keep.offer(id(3), failed, now), [id(1)]);
        // Offered again, it is not counted again.
        assert_eq!(keep.offer(id(3), failed, now), []);
        assert_eq!(keep.reasons(id(2)), [Reason::Failed]);
        // It failed only with its last span.
        keep.offer(id(11), Traits { failed: true, ..fine(50) }, now);
        assert_eq!(keep.reasons(id(11)), [Reason::Slow, Reason::Failed]);
    }

    #[test]
    fn exemplars_stay_although_they_are_ordinary() {
        let (mut keep, now) = (Retention::new(QUOTAS), Instant::now());
        let exemplar = Traits { exemplar: true, ..fine(1) };
        for n in 1..=2 {
            assert_eq!(keep.offer(id(n), exemplar, now), []);
        }
        for n in 10..=12 {
            keep.offer(id(n), fine(50), now);
        }
        assert_eq!(keep.reasons(id(1)), [Reason::Exemplar]);
        assert_eq!(keep.offer(id(3), exemplar, now), [id(1)]);
    }

    /// Each of 4,000 traces has the same chance: the sample's mean position is the middle.
    #[test]
    fn the_sample_is_uniform_and_bounded() {
        let (mut keep, now) = (Retention::new(Quotas { slow: 0, failed: 0, sample: 400, ..QUOTAS }), Instant::now());
        let mut kept = BTreeSet::new();
        for n in 1..=4000 {
            kept.insert(id(n));
            for gone in keep.offer(id(n), fine(1), now) {
                assert!(kept.remove(&gone));
            }
            assert!(keep.kept.len() <= 400);
        }
        assert_eq!(kept.len(), 400);
        let afterwards = Traits { afterwards: true, ..fine(1) };
        assert!((5001..=6000).all(|n| keep.offer(id(n), afterwards, now) == [id(n)]));
        let mean = (1..=4000).filter(|&n| keep.keeps(id(n))).sum::<u128>() / 400;
        // The mean of 400 of 1..=4000 has a standard deviation of 55.
        assert!((1780..=2220).contains(&mean), "{mean}");
    }
}
