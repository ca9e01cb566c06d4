//! Readers whose every read is a miss. They read at a fixed rate that does not depend on the answers (open loop), and from all
//! targets in turns.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::Xoshiro256PlusPlus};
use reqwest::StatusCode;
use statistics::percentile;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    judgement::{Features, Misses},
    servers::Target,
};

/// Of each target.
pub(super) const PER_S: u32 = 100;
/// As long as users wait.
const TIMEOUT: Duration = Duration::from_secs(3);
/// More than begin within the timeout at two targets.
const MAX_IN_FLIGHT: usize = 1_000;
/// Of one read of `read_each`.
const ATTEMPTS: usize = 3;
/// Lists are fresh for 1 ms.
const EXPIRED: Duration = Duration::from_millis(3);
/// How an answer begins that was computed for this read.
const COMPUTED: &[u8] = b"{\"source\":\"store\"";

pub(super) struct Readers {
    users: Vec<String>,
    seed: u64,
    http: reqwest::Client,
}

/// The reads of one target.
#[derive(Debug, Default)]
pub(super) struct Latencies {
    /// Of misses.
    ms: Vec<f64>,
    others: u64,
}

impl Latencies {
    pub(super) fn summary(self, features: Features, rows: f64) -> Misses {
        let at = |percent| percentile(&self.ms, percent).unwrap_or(f64::NAN);
        Misses { features, reads: self.ms.len() as u64, others: self.others, p50_ms: at(50.0), p99_ms: at(99.0), rows }
    }
}

impl Readers {
    /// `users`: the most active first.
    pub(super) fn new(users: &[String], seed: u64) -> anyhow::Result<Self> {
        let http = runtime::http::plain().timeout(TIMEOUT).build()?;
        Ok(Self { users: users.to_vec(), seed, http })
    }

    /// As many users as asked for, always the same. The n-th user reads 1/n as often as the first one, as they act.
    pub(super) fn draw(&self) -> impl Iterator<Item = &str> {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(self.seed);
        let count = self.users.len();
        std::iter::repeat_with(move || {
            // The logarithm of the rank is uniform.
            let rank = ((count + 1) as f64).powf(random.random::<f64>()) as usize;
            self.users[rank.clamp(1, count) - 1].as_str()
        })
    }

    /// The result has the order of the targets. Latency begins at the planned instant.
    ///
    /// # Errors
    /// A read crashed.
    pub(super) async fn read(&self, targets: &[Target], lasting: Duration) -> anyhow::Result<Vec<Latencies>> {
        let mut all: Vec<Latencies> = targets.iter().map(|_| Latencies::default()).collect();
        let (mut reads, begun) = (JoinSet::new(), Instant::now());
        let pause = Duration::from_secs(1) / (PER_S * targets.len() as u32);
        let take = |all: &mut Vec<Latencies>, (n, ms): (usize, Option<f64>)| match ms {
            Some(ms) => all[n].ms.push(ms),
            None => all[n].others += 1,
        };
        // The same user at every target.
        let plan = self.draw().flat_map(|user| targets.iter().enumerate().map(move |target| (user, target)));
        for (number, (user, (n, target))) in (0_u32..).zip(plan) {
            let planned = begun + pause * number;
            if planned >= begun + lasting {
                break;
            }
            sleep_until(planned).await;
            if reads.len() == MAX_IN_FLIGHT {
                all[n].others += 1;
            } else {
                let request = self.http.get(format!("{}/recommendations?user_id={user}", target.url));
                reads.spawn(async move { (n, computed(request).await.then(|| planned.elapsed().as_secs_f64() * 1e3)) });
            }
            while let Some(done) = reads.try_join_next() {
                take(&mut all, done.context("a read crashed")?);
            }
        }
        while let Some(done) = reads.join_next().await {
            take(&mut all, done.context("a read crashed")?);
        }
        Ok(all)
    }

    /// The first `count` users read from the target, one after the other.
    ///
    /// # Errors
    /// Three reads in a row of one user are no misses.
    pub(super) async fn read_each(&self, target: &Target, count: usize) -> anyhow::Result<()> {
        for user in self.draw().take(count) {
            let mut is_miss = false;
            for _attempt in 0..ATTEMPTS {
                let request = self.http.get(format!("{}/recommendations?user_id={user}", target.url));
                is_miss = computed(request).await;
                if is_miss {
                    break;
                }
                // The same user was read a moment ago, and the list of that read is still fresh.
                sleep(EXPIRED).await;
            }
            ensure!(is_miss, "{ATTEMPTS} reads of {user} were no misses");
        }
        Ok(())
    }
}

async fn computed(request: reqwest::RequestBuilder) -> bool {
    match request.send().await {
        Ok(answer) if answer.status() == StatusCode::OK => {
            answer.bytes().await.is_ok_and(|body| body.starts_with(COMPUTED))
        }
        Ok(_) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn active_users_read_more_often() {
        let users: Vec<String> = (1..=1_000).map(|n| n.to_string()).collect();
        let readers = Readers::new(&users, 7).unwrap();
        let drawn: Vec<&str> = readers.draw().take(20_000).collect();
        let times = |user: &str| drawn.iter().filter(|drawn| **drawn == user).count();
        // ln 2 / ln 1001 of them, and so on.
        assert!((1_800..2_200).contains(&times("1")) && (900..1_400).contains(&times("2")), "{}", times("1"));
        assert!(times("500") < 40 && drawn.iter().any(|user| user.len() == 3));
        assert!(readers.draw().take(100).eq(drawn.iter().copied().take(100)), "the same readers for all targets");
    }

    #[test]
    fn a_summary_has_the_misses_only() {
        let latencies = Latencies { ms: (1..=100).rev().map(f64::from).collect(), others: 4 };
        let summary = latencies.summary(Features::Kafka, 1.0);
        assert_eq!((summary.reads, summary.others, summary.p50_ms, summary.p99_ms), (100, 4, 50.0, 99.0));
    }
}
