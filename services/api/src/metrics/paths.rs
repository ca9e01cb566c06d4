//! How each request for recommendations was answered: one count per request, so that the counts add up to the requests.

use prometheus::{IntCounter, Registry, Result};

/// The step of the request path that decided the answer. The order is that of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// A parameter is missing or invalid.
    Invalid,
    /// Admission refused it, or it arrived after its client's deadline.
    Refused,
    /// A list in this process's memory.
    Memory,
    /// The filter says that the user does not exist.
    Filter,
    /// A list in Redis.
    Redis,
    /// A recent load found no behaviour of the user.
    NoBehaviour,
    /// It needed the store; a load may fail, and an expired list may be the answer.
    Store,
    /// It ended before any of these: the client went away, or the handler panicked.
    Undecided,
}

impl Path {
    const ALL: [Self; 8] = [
        Self::Invalid,
        Self::Refused,
        Self::Memory,
        Self::Filter,
        Self::Redis,
        Self::NoBehaviour,
        Self::Store,
        Self::Undecided,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Refused => "refused",
            Self::Memory => "memory",
            Self::Filter => "filter",
            Self::Redis => "redis",
            Self::NoBehaviour => "no_behaviour",
            Self::Store => "store",
            Self::Undecided => "undecided",
        }
    }
}

#[derive(Clone)]
pub struct PathMetrics([IntCounter; Path::ALL.len()]);

/// A request in the request path. Dropping it counts the request, also if the client went away.
pub struct Undecided<'a> {
    metrics: &'a PathMetrics,
    path: Path,
}

impl PathMetrics {
    /// # Errors
    /// The registry has this name already.
    pub fn new(registry: &Registry) -> Result<Self> {
        let paths = super::counters(
            registry,
            "recommendation_paths_total",
            "Requests for recommendations, each counted once, by what decided the answer: invalid (a parameter), refused (by admission, or because it arrived after its deadline), memory, filter (no such user), redis, no_behaviour (a recent load found none), store (a load was needed; it may have failed), undecided (the client went away before)",
            "path",
        )?;
        let [a, b, c, d, e, f, g, h] = Path::ALL.map(|path| paths.get_metric_with_label_values(&[path.label()]));
        Ok(Self([a?, b?, c?, d?, e?, f?, g?, h?]))
    }

    pub fn of(&self, path: Path) -> &IntCounter {
        &self.0[path as usize]
    }

    pub fn enter(&self) -> Undecided<'_> {
        Undecided { metrics: self, path: Path::Undecided }
    }
}

impl Undecided<'_> {
    pub fn decide(&mut self, path: Path) {
        self.path = path;
    }
}

impl Drop for Undecided<'_> {
    fn drop(&mut self) {
        self.metrics.of(self.path).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_once_also_if_it_is_cut_short() {
        let metrics = PathMetrics::new(&Registry::new()).unwrap();
        drop(metrics.enter());
        let mut decided = metrics.enter();
        decided.decide(Path::Redis);
        drop(decided);
        let counts = Path::ALL.map(|path| metrics.of(path).get());
        assert_eq!(counts, [0, 0, 0, 0, 1, 0, 0, 1]);
    }
}
