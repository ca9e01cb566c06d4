//! What disturbs the modelled system. Times in µs since the common start.

use std::ops::Range;

use rand::{RngExt, rngs::SmallRng};

/// Something that happens to the system for a while and is over then.
#[derive(Debug, Clone, PartialEq)]
pub enum Disturbance {
    /// Responses of the store that would leave meanwhile leave at the end, as with faultproxy's stall.
    Stall(Range<u64>),
    /// Queries that begin meanwhile take longer by this factor.
    Slow(Range<u64>, f64),
    /// The first `replicas` replicas are suspended: they begin no query, and read the end of one afterwards. Requests still go to them.
    Pause {
        /// Number of replicas.
        replicas: usize,
        /// While they are suspended.
        during: Range<u64>,
    },
    /// Each cached list is deleted with this probability.
    Flush {
        /// When.
        at_us: u64,
        /// 0 to 1.
        share: f64,
    },
}

impl Disturbance {
    /// When something happens to the state of the model: lists are deleted, or replicas run again.
    pub(super) fn event_us(&self) -> Option<u64> {
        match self {
            Self::Flush { at_us, .. } => Some(*at_us),
            Self::Pause { during, .. } => Some(during.end),
            Self::Stall(_) | Self::Slow(..) => None,
        }
    }

    /// Factor of the response time of a query that begins now.
    pub(super) fn slower(&self, now_us: u64) -> f64 {
        match self {
            Self::Slow(during, factor) if during.contains(&now_us) => *factor,
            _ => 1.0,
        }
    }

    /// When this replica gets a response that leaves the store at `end_us`, if that is later.
    pub(super) fn held_until_us(&self, end_us: u64, replica: usize) -> Option<u64> {
        match self {
            Self::Stall(during) => during.contains(&end_us).then_some(during.end),
            Self::Pause { during, .. } => self.pauses(end_us, replica).then_some(during.end),
            Self::Slow(..) | Self::Flush { .. } => None,
        }
    }

    pub(super) fn pauses(&self, now_us: u64, replica: usize) -> bool {
        matches!(self, Self::Pause { replicas, during } if replica < *replicas && during.contains(&now_us))
    }
}

/// Which users' lists are cached. Empty without a cache.
pub(super) struct Lists(Vec<bool>);

impl Lists {
    pub(super) fn all_cached(users: u32) -> Self {
        Self(vec![true; users as usize])
    }

    /// The user of a request. Draws nothing without a cache.
    pub(super) fn user(&self, random: &mut SmallRng) -> u32 {
        if self.0.is_empty() { 0 } else { random.random_range(0..self.0.len() as u32) }
    }

    pub(super) fn is_cached(&self, user: u32) -> bool {
        self.0.get(user as usize).copied().unwrap_or(false)
    }

    pub(super) fn cache(&mut self, user: u32) {
        if let Some(cached) = self.0.get_mut(user as usize) {
            *cached = true;
        }
    }

    pub(super) fn delete(&mut self, share: f64, random: &mut SmallRng) {
        for cached in &mut self.0 {
            *cached &= !random.random_bool(share.clamp(0.0, 1.0));
        }
    }
}
