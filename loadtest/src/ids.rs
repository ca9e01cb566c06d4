//! Selects the user ids of the requests: ids of existing users by the plan's rule, and ids that do not exist.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result, bail, ensure};
use contract::UserId;
use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::SliceRandom};
use rand_distr::{Distribution, Zipf};
use statistics::seed::mixed;

use crate::{
    plan::{StepPlan, stream},
    scenario::KnownIds,
};

/// Bounds the memory: 20 million ids of 64 bytes need more than a gigabyte.
const MAX_IDS: usize = 20_000_000;

/// Of an id of somebody else's endpoint.
const MAX_FOREIGN_BYTES: usize = 512;

/// Shared by all users of a step.
pub(crate) struct Ids {
    /// Percent-encoded, in the order of use (`once`) or of popularity (`zipf`).
    known: Encoded,
    popularity: Option<Zipf<f64>>,
    unknown_share: f64,
    unknown_prefix: String,
    next_known: AtomicU64,
    next_unknown: AtomicU64,
    /// One bit per known id.
    used: Vec<AtomicU64>,
    repeated: AtomicU64,
}

/// Strings in one allocation: a `String` for each would need more memory than the ids.
#[derive(Default)]
struct Encoded {
    text: String,
    ends: Vec<u32>,
}

impl Ids {
    /// `list` has one id per line; for `zipf` its order is the order of popularity.
    ///
    /// # Errors
    /// A line is not a valid id or has the prefix of unknown ids, or the list is empty although the plan needs existing users.
    pub(crate) fn new(plan: &StepPlan, list: &str) -> Result<Self> {
        let unknown_prefix = format!("x-{}-", plan.seed);
        let mut lines: Vec<&str> = Vec::new();
        for (number, line) in list.lines().enumerate() {
            if plan.target.is_some() {
                check_foreign(line).with_context(|| format!("line {} of the ids", number + 1))?;
            } else if let Err(error) = UserId::new(line) {
                bail!("line {} of the known ids {error}", number + 1);
            }
            ensure!(
                plan.unknown_share == 0.0 || !line.starts_with(&unknown_prefix),
                "line {} of the known ids has the prefix of unknown ids: {line}",
                number + 1
            );
            ensure!(number < MAX_IDS, "the list of known ids has more than {MAX_IDS} lines");
            lines.push(line);
        }
        ensure!(!lines.is_empty() || plan.unknown_share == 1.0, "the list of known ids is empty");
        let popularity = match plan.known {
            KnownIds::Once => {
                lines.shuffle(&mut SmallRng::seed_from_u64(mixed(plan.seed, &stream::IDS)));
                None
            }
            KnownIds::Zipf { exponent } => Some(Zipf::new(lines.len().max(1) as f64, exponent)?),
        };
        let mut known = Encoded::default();
        for line in &lines {
            known.push(line)?;
        }
        Ok(Self {
            used: (0..lines.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            known,
            popularity,
            unknown_share: plan.unknown_share,
            unknown_prefix,
            next_known: AtomicU64::new(0),
            next_unknown: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
        })
    }

    /// Appends the next id, percent-encoded, and returns whether it belongs to an existing user.
    pub(crate) fn append(&self, random: &mut SmallRng, query: &mut String) -> bool {
        if random.random::<f64>() < self.unknown_share {
            let number = self.next_unknown.fetch_add(1, Ordering::Relaxed);
            query.push_str(&self.unknown_prefix);
            write!(query, "{number}").expect("a String takes any text");
            return false;
        }
        let index = match &self.popularity {
            // Ranks begin at 1.
            Some(popularity) => (popularity.sample(random) as usize).clamp(1, self.known.ends.len()) - 1,
            None => (self.next_known.fetch_add(1, Ordering::Relaxed) % self.known.ends.len() as u64) as usize,
        };
        let bit = 1 << (index % 64);
        if self.used[index / 64].fetch_or(bit, Ordering::Relaxed) & bit != 0 {
            self.repeated.fetch_add(1, Ordering::Relaxed);
        }
        query.push_str(self.known.get(index));
        true
    }

    /// Number of requests with an id that an earlier request had used.
    pub(crate) fn repeated(&self) -> u64 {
        self.repeated.load(Ordering::Relaxed)
    }
}

/// Somebody else's ids have any characters but control characters.
fn check_foreign(id: &str) -> Result<()> {
    ensure!(!id.is_empty(), "is empty");
    ensure!(id.len() <= MAX_FOREIGN_BYTES, "has more than {MAX_FOREIGN_BYTES} bytes");
    ensure!(!id.contains(char::is_control), "has a control character");
    Ok(())
}

impl Encoded {
    fn push(&mut self, id: &str) -> Result<()> {
        for byte in id.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                self.text.push(char::from(byte));
            } else {
                write!(self.text, "%{byte:02X}")?;
            }
        }
        self.ends.push(u32::try_from(self.text.len())?);
        Ok(())
    }

    fn get(&self, index: usize) -> &str {
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        &self.text[start..self.ends[index] as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use crate::arrivals::Arrivals;

    fn plan(unknown_share: f64, known: KnownIds) -> StepPlan {
        StepPlan {
            name: String::new(),
            base_url: String::new(),
            users: 1,
            curve: None,
            interval_ms: 1000,
            arrival_grid_ms: 0,
            timeout_ms: 1000,
            retry: None,
            criticality: None,
            slo_ms: None,
            warm_up_ms: 0,
            measure_ms: 1000,
            unknown_share,
            known,
            known_ids: "-".into(),
            seed: 7,
            worker_threads: 1,
            metrics: None,
            telemetry: None,
            arrivals: Arrivals::Closed,
            target: None,
        }
    }

    fn list(count: usize) -> String {
        (0..count).map(|number| format!("u{number}\n")).collect()
    }

    fn draw(ids: &Ids, count: usize) -> Vec<(bool, String)> {
        let mut random = SmallRng::seed_from_u64(1);
        let draw = |_| {
            let mut query = String::new();
            (ids.append(&mut random, &mut query), query)
        };
        (0..count).map(draw).collect()
    }

    #[test]
    fn once_repeats_none_until_all_were_used() {
        let ids = Ids::new(&plan(0.0, KnownIds::Once), &list(100)).unwrap();
        let drawn = draw(&ids, 100);
        assert_eq!(drawn.iter().map(|(_, id)| id).collect::<HashSet<_>>().len(), 100);
        assert!(drawn.iter().all(|(known, _)| *known));
        assert_ne!(drawn.iter().map(|(_, id)| format!("{id}\n")).collect::<String>(), list(100), "not shuffled");
        assert_eq!(ids.repeated(), 0);
        draw(&ids, 30);
        assert_eq!(ids.repeated(), 30);
    }

    #[test]
    fn unknown_ids_have_their_share_and_are_unique() {
        let ids = Ids::new(&plan(0.3, KnownIds::Once), &list(20_000)).unwrap();
        let drawn = draw(&ids, 20_000);
        let unknown: HashSet<_> = drawn.iter().filter(|(known, _)| !known).map(|(_, id)| id).collect();
        let count = drawn.iter().filter(|(known, _)| !known).count();
        assert_eq!(unknown.len(), count);
        assert!(unknown.iter().all(|id| id.starts_with("x-7-")));
        // Four standard deviations of a binomial distribution.
        assert!((count as f64 - 6000.0).abs() < 4.0 * (20_000.0_f64 * 0.3 * 0.7).sqrt(), "{count}");
    }

    #[test]
    fn zipf_prefers_the_first_lines() {
        let ids = Ids::new(&plan(0.0, KnownIds::Zipf { exponent: 1.0 }), &list(1000)).unwrap();
        let mut counts = HashMap::new();
        for (_, id) in draw(&ids, 10_000) {
            *counts.entry(id).or_insert(0_u32) += 1;
        }
        let count = |id: &str| counts.get(id).copied().unwrap_or_default();
        assert!(count("u0") > count("u9") && count("u9") > count("u99"), "{} {}", count("u0"), count("u9"));
        assert_eq!(ids.repeated(), 10_000 - counts.len() as u64);
    }

    #[test]
    fn any_id_is_made_fit_for_a_query() {
        let ids = Ids::new(&plan(0.0, KnownIds::Once), "a b&c=ü/~").unwrap();
        assert_eq!(draw(&ids, 1)[0].1, "a%20b%26c%3D%C3%BC%2F~");
    }

    #[test]
    fn bad_lists_are_refused() {
        assert!(Ids::new(&plan(0.5, KnownIds::Once), "").is_err());
        assert!(Ids::new(&plan(1.0, KnownIds::Once), "").is_ok());
        for (bad, line) in [("a\n\nb", "line 2"), ("a\nb\nx-7-0", "line 3"), (&"x".repeat(65), "line 1")] {
            let error = Ids::new(&plan(0.5, KnownIds::Once), bad).err().unwrap().to_string();
            assert!(error.contains(line), "{error}");
        }
    }
}
