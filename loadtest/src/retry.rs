//! Retries: the settings of a client, and its decision before the first try and after each failed one. Pure: instants and random numbers
//! are arguments. Times in µs since the common start.
//!
//! `attempts` bounds the tries of one request, and its deadline ends them: no try begins at the deadline or later. The budget bounds the
//! retries of all requests together.

mod adaptive;
mod backoff;
mod token_bucket;
mod window;

use anyhow::{Result, ensure};
use rand::Rng;
use serde::{Deserialize, Serialize};

use self::{adaptive::AdaptiveThrottle, token_bucket::TokenBucket};

/// Most tries of a request.
pub const MAX_ATTEMPTS: u32 = 10;
/// Longest pause before a retry, in milliseconds.
pub const MAX_BACKOFF_MS: u64 = 60_000;
/// Most retries per second that a token bucket always permits.
pub const MAX_RESERVE_PER_S: f64 = 20_000.0;
/// Finagle's defaults (`com.twitter.finagle.service.RetryBudget`).
pub const DEFAULT_BUDGET_PCT: f64 = 20.0;
pub const DEFAULT_BUDGET_MIN_PER_S: f64 = 10.0;
/// The book's example (Site Reliability Engineering, 2016, chapter 21).
pub const DEFAULT_ADAPTIVE_K: f64 = 2.0;

/// How a client sends a failed request again. A failure is no complete response in time, a broken connection, or a status of 429, 500 or above.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Tries of a request in all, the first one included (1 to 10). 1: no retries, but the report has their figures, and requests carry their
    /// deadline.
    pub attempts: u32,
    /// Timeout of one try, in milliseconds (10 to `timeout_ms`, the default). Each try carries its own end in the header
    /// `x-request-deadline-ms`. `timeout_ms` is the deadline of the request with all its tries.
    pub per_try_timeout_ms: u64,
    /// Pause before a retry; by default `none`.
    pub backoff: Backoff,
    /// Limit of the retries of all requests together; by default `none`.
    pub budget: Budget,
}

/// Pause before a retry.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Backoff {
    /// A retry follows at once.
    None,
    /// All pauses are equal.
    Fixed {
        /// Pause before the first retry, in milliseconds (1 to 60,000, below `timeout_ms`). Not with `backoff = "none"`.
        backoff_ms: u64,
        /// Random share of each pause (0 to 1, default 0): at 1 a pause is anything up to its full length, at 0 always that. Not with
        /// `backoff = "none"`.
        jitter: f64,
    },
    /// Each pause is twice the one before, at most 60 s.
    Exponential { backoff_ms: u64, jitter: f64 },
}

/// Limit of the retries of all requests together. The load generator is one client.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Budget {
    /// No limit.
    None,
    /// A token bucket, as Finagle's: retries are a share of the first tries of the last 10 s, and a few more.
    Tokens {
        /// Retries per 100 first tries (0 to 100 × (`attempts` − 1), default 20).
        budget_pct: f64,
        /// Retries per second in addition (0 to 20,000, default 10).
        budget_min_per_s: f64,
    },
    /// Adaptive throttling, as in Google's SRE book: the client does not send a try, first ones included, with a probability of
    /// (tries − K × successes) / (tries + 1) over the last 2 minutes.
    Adaptive {
        /// K (1 to 100, default 2): tries per success that are always permitted.
        adaptive_k: f64,
    },
}

/// A client's decision after a failed try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Send the next try at this instant, which is before the deadline.
    RetryAt(u64),
    /// The request has failed: no tries or no time is left.
    GiveUp,
    /// The request has failed: the budget permits no retry now.
    BudgetSpent,
}

/// A client: the settings, and what its requests share.
#[derive(Debug, Clone)]
pub struct Retries {
    retry: Retry,
    budget: BudgetState,
}

#[derive(Debug, Clone)]
enum BudgetState {
    None,
    Tokens(TokenBucket),
    /// Boxed: it has a count for each second of its memory.
    Adaptive(Box<AdaptiveThrottle>),
}

impl Retry {
    /// Checks the settings of requests with this deadline.
    ///
    /// # Errors
    /// A value is out of its range, or two contradict each other. The message begins with the key.
    pub fn check(&self, timeout_ms: u64) -> Result<()> {
        let Self { attempts, per_try_timeout_ms, backoff, budget } = *self;
        ensure!((1..=MAX_ATTEMPTS).contains(&attempts), "attempts must be 1..={MAX_ATTEMPTS}, is {attempts}");
        ensure!(
            (10..=timeout_ms).contains(&per_try_timeout_ms),
            "per_try_timeout_ms must be 10..={timeout_ms}, as no try outlives the request's timeout_ms, is {per_try_timeout_ms}"
        );
        let retries = attempts - 1;
        if let Backoff::Fixed { backoff_ms, jitter } | Backoff::Exponential { backoff_ms, jitter } = backoff {
            ensure!(retries > 0, "backoff contradicts attempts = 1: without retries there are no pauses");
            ensure!(
                (1..=MAX_BACKOFF_MS).contains(&backoff_ms),
                "backoff_ms must be 1..={MAX_BACKOFF_MS}, is {backoff_ms}"
            );
            ensure!(
                backoff_ms < timeout_ms,
                "backoff_ms must be below timeout_ms ({timeout_ms}), as no retry would begin before the request's deadline, is {backoff_ms}"
            );
            ensure!((0.0..=1.0).contains(&jitter), "jitter must be 0..=1, is {jitter}");
        }
        ensure!(
            retries > 0 || !matches!(budget, Budget::Tokens { .. }),
            "budget contradicts attempts = 1: without retries there is nothing to limit"
        );
        match budget {
            Budget::None => {}
            Budget::Tokens { budget_pct, budget_min_per_s } => {
                let most = 100.0 * f64::from(retries);
                ensure!(
                    (0.0..=most).contains(&budget_pct),
                    "budget_pct must be 0..={most}, as attempts = {attempts} needs no more, is {budget_pct}"
                );
                ensure!(
                    (0.0..=MAX_RESERVE_PER_S).contains(&budget_min_per_s),
                    "budget_min_per_s must be 0..={MAX_RESERVE_PER_S}, is {budget_min_per_s}"
                );
                ensure!(
                    budget_pct > 0.0 || budget_min_per_s > 0.0,
                    "budget_pct and budget_min_per_s contradict attempts = {attempts}: with 0 and 0 no retry is ever sent; write attempts = 1"
                );
            }
            Budget::Adaptive { adaptive_k } => {
                ensure!((1.0..=100.0).contains(&adaptive_k), "adaptive_k must be 1..=100, is {adaptive_k}");
            }
        }
        Ok(())
    }

    /// The text that reports show.
    pub fn describe(&self) -> String {
        let Self { attempts, per_try_timeout_ms, backoff, budget } = self;
        let jitter = |jitter: &f64| {
            if *jitter > 0.0 { format!(", {:.0} % of it random", 100.0 * jitter) } else { String::new() }
        };
        let backoff = match backoff {
            Backoff::None => "retries follow at once".to_owned(),
            Backoff::Fixed { backoff_ms, jitter: share } => {
                format!("a pause of {backoff_ms} ms before each retry{}", jitter(share))
            }
            Backoff::Exponential { backoff_ms, jitter: share } => {
                format!("a pause of {backoff_ms} ms before the first retry, doubled each time{}", jitter(share))
            }
        };
        let budget = match budget {
            Budget::None => "no budget".to_owned(),
            Budget::Tokens { budget_pct, budget_min_per_s } => {
                format!("token bucket of {budget_pct} % of the first tries and {budget_min_per_s}/s")
            }
            Budget::Adaptive { adaptive_k } => format!("adaptive throttling, K = {adaptive_k}"),
        };
        if *attempts == 1 {
            return format!("none: one try of at most {per_try_timeout_ms} ms, {budget}");
        }
        format!("at most {attempts} tries of at most {per_try_timeout_ms} ms each, {backoff}, {budget}")
    }
}

impl Retries {
    /// A client that has sent nothing yet.
    pub fn new(retry: &Retry) -> Self {
        let budget = match retry.budget {
            Budget::None => BudgetState::None,
            Budget::Tokens { budget_pct, budget_min_per_s } => {
                BudgetState::Tokens(TokenBucket::new(budget_pct, budget_min_per_s))
            }
            Budget::Adaptive { adaptive_k } => BudgetState::Adaptive(Box::new(AdaptiveThrottle::new(adaptive_k))),
        };
        Self { retry: retry.clone(), budget }
    }

    /// Whether the first try of a request is sent. Only adaptive throttling ever refuses one.
    pub fn begin(&mut self, now_us: u64, random: &mut impl Rng) -> bool {
        match &mut self.budget {
            BudgetState::None => true,
            BudgetState::Tokens(bucket) => {
                bucket.deposit(now_us);
                true
            }
            BudgetState::Adaptive(throttle) => throttle.permits(now_us, random),
        }
    }

    /// A try succeeded.
    pub fn succeeded(&mut self, now_us: u64) {
        if let BudgetState::Adaptive(throttle) = &mut self.budget {
            throttle.succeeded(now_us);
        }
    }

    /// What follows the failure of the `tries`-th try of a request, from 1.
    pub fn after_failure(&mut self, tries: u32, now_us: u64, deadline_us: u64, random: &mut impl Rng) -> Next {
        if tries >= self.retry.attempts {
            return Next::GiveUp;
        }
        let at_us = now_us.saturating_add(self.retry.backoff.pause_us(tries, random));
        if at_us >= deadline_us {
            return Next::GiveUp;
        }
        let permits = match &mut self.budget {
            BudgetState::None => true,
            BudgetState::Tokens(bucket) => bucket.withdraw(now_us),
            BudgetState::Adaptive(throttle) => throttle.permits(now_us, random),
        };
        if permits { Next::RetryAt(at_us) } else { Next::BudgetSpent }
    }

    /// End of a try that begins now, within the request's deadline.
    pub fn end_of_try_us(&self, now_us: u64, deadline_us: u64) -> u64 {
        deadline_us.min(now_us.saturating_add(self.retry.per_try_timeout_ms * 1000))
    }
}

#[cfg(test)]
mod tests;
