use proptest::prelude::*;
use rand::{SeedableRng, rngs::SmallRng};

use super::*;

const TIMEOUT_MS: u64 = 3000;

fn retry(attempts: u32, backoff: Backoff, budget: Budget) -> Retry {
    Retry { attempts, per_try_timeout_ms: 1000, backoff, budget }
}

const EXPONENTIAL: Backoff = Backoff::Exponential { backoff_ms: 100, jitter: 1.0 };
const TOKENS: Budget = Budget::Tokens { budget_pct: 20.0, budget_min_per_s: 10.0 };
const ADAPTIVE: Budget = Budget::Adaptive { adaptive_k: 2.0 };

#[test]
fn settings_out_of_range_and_contradictions_are_named() {
    for budget in [Budget::None, TOKENS, ADAPTIVE] {
        for backoff in [Backoff::None, Backoff::Fixed { backoff_ms: 2999, jitter: 0.0 }, EXPONENTIAL] {
            retry(4, backoff, budget).check(TIMEOUT_MS).unwrap();
        }
    }
    retry(1, Backoff::None, Budget::None).check(TIMEOUT_MS).unwrap();
    retry(1, Backoff::None, ADAPTIVE).check(TIMEOUT_MS).unwrap();
    let tokens = |budget_pct, budget_min_per_s| Budget::Tokens { budget_pct, budget_min_per_s };
    let fixed = |backoff_ms, jitter| Backoff::Fixed { backoff_ms, jitter };
    for (bad, reason) in [
        (retry(0, Backoff::None, Budget::None), "attempts must be 1..=10, is 0"),
        (retry(11, Backoff::None, Budget::None), "attempts must be 1..=10, is 11"),
        (retry(1, EXPONENTIAL, Budget::None), "backoff contradicts attempts = 1"),
        (retry(1, Backoff::None, TOKENS), "budget contradicts attempts = 1"),
        (retry(2, fixed(0, 0.0), Budget::None), "backoff_ms must be 1..=60000, is 0"),
        (retry(2, fixed(3000, 0.0), Budget::None), "backoff_ms must be below timeout_ms (3000)"),
        (retry(2, fixed(1, 1.1), Budget::None), "jitter must be 0..=1, is 1.1"),
        (retry(2, fixed(1, f64::NAN), Budget::None), "jitter must be 0..=1, is NaN"),
        (
            retry(2, Backoff::None, tokens(101.0, 0.0)),
            "budget_pct must be 0..=100, as attempts = 2 needs no more, is 101",
        ),
        (retry(2, Backoff::None, tokens(-1.0, 0.0)), "budget_pct must be 0..=100"),
        (retry(2, Backoff::None, tokens(0.0, 0.0)), "with 0 and 0 no retry is ever sent"),
        (retry(2, Backoff::None, tokens(0.0, 20_001.0)), "budget_min_per_s must be 0..=20000"),
        (retry(2, Backoff::None, Budget::Adaptive { adaptive_k: 0.9 }), "adaptive_k must be 1..=100, is 0.9"),
        (
            Retry { per_try_timeout_ms: 9, ..retry(2, Backoff::None, Budget::None) },
            "per_try_timeout_ms must be 10..=3000",
        ),
        (Retry { per_try_timeout_ms: 3001, ..retry(2, Backoff::None, Budget::None) }, "no try outlives"),
    ] {
        let error = bad.check(TIMEOUT_MS).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn a_request_ends_with_its_attempts_its_deadline_or_the_budget() {
    let mut random = SmallRng::seed_from_u64(1);
    let mut at_once = Retries::new(&retry(3, Backoff::None, Budget::None));
    assert!(at_once.begin(0, &mut random));
    assert_eq!(at_once.after_failure(1, 500, 1000, &mut random), Next::RetryAt(500));
    assert_eq!(at_once.after_failure(2, 999, 1000, &mut random), Next::RetryAt(999));
    assert_eq!(at_once.after_failure(2, 1000, 1000, &mut random), Next::GiveUp, "no try begins at the deadline");
    assert_eq!(at_once.after_failure(3, 500, 1000, &mut random), Next::GiveUp);
    assert_eq!(
        (at_once.end_of_try_us(0, 3_000_000), at_once.end_of_try_us(2_500_000, 3_000_000)),
        (1_000_000, 3_000_000)
    );
    let mut paused = Retries::new(&retry(3, Backoff::Fixed { backoff_ms: 100, jitter: 0.0 }, Budget::None));
    assert_eq!(paused.after_failure(1, 0, 100_001, &mut random), Next::RetryAt(100_000));
    assert_eq!(paused.after_failure(1, 0, 100_000, &mut random), Next::GiveUp, "the pause would end at the deadline");
    let mut poor = Retries::new(&retry(3, Backoff::None, Budget::Tokens { budget_pct: 100.0, budget_min_per_s: 0.0 }));
    assert!(poor.begin(0, &mut random));
    assert_eq!(poor.after_failure(1, 1, 1000, &mut random), Next::RetryAt(1));
    assert_eq!(poor.after_failure(2, 2, 1000, &mut random), Next::BudgetSpent);
}

#[test]
fn adaptive_throttling_refuses_first_tries_too() {
    let (mut client, mut random) = (Retries::new(&retry(1, Backoff::None, ADAPTIVE)), SmallRng::seed_from_u64(2));
    let sent = (0..1000).filter(|n| client.begin(n * 1000, &mut random)).count();
    assert!((1..50).contains(&sent), "{sent}: nothing succeeds");
    (0..1000).for_each(|_| client.succeeded(1_000_000));
    assert!((0..900).all(|_| client.begin(1_000_000, &mut random)), "as many as succeeded");
}

#[test]
fn a_report_names_the_policy() {
    assert_eq!(
        retry(4, EXPONENTIAL, TOKENS).describe(),
        "at most 4 tries of at most 1000 ms each, a pause of 100 ms before the first retry, doubled each time, 100 % of it random, token bucket \
         of 20 % of the first tries and 10/s"
    );
    assert_eq!(
        retry(1, Backoff::None, ADAPTIVE).describe(),
        "none: one try of at most 1000 ms, adaptive throttling, K = 2"
    );
    let fixed = retry(2, Backoff::Fixed { backoff_ms: 5, jitter: 0.0 }, Budget::None).describe();
    assert!(fixed.contains("a pause of 5 ms before each retry, no budget"), "{fixed}");
}

#[test]
fn json_survives_and_a_misspelt_field_does_not() {
    for budget in [Budget::None, TOKENS, ADAPTIVE] {
        let whole = retry(4, EXPONENTIAL, budget);
        let text = serde_json::to_string(&whole).unwrap();
        assert_eq!(serde_json::from_str::<Retry>(&text).unwrap(), whole);
        assert!(serde_json::from_str::<Retry>(&text.replace("attempts", "tries")).is_err());
    }
}

fn any_retry() -> impl Strategy<Value = Retry> {
    let backoff = prop_oneof![
        Just(Backoff::None),
        (1..2999_u64, 0.0..=1.0_f64).prop_map(|(backoff_ms, jitter)| Backoff::Fixed { backoff_ms, jitter }),
        (1..2999_u64, 0.0..=1.0_f64).prop_map(|(backoff_ms, jitter)| Backoff::Exponential { backoff_ms, jitter }),
    ];
    let budget = prop_oneof![
        Just(Budget::None),
        (0.1..100.0_f64, 0.0..10.0_f64)
            .prop_map(|(budget_pct, budget_min_per_s)| Budget::Tokens { budget_pct, budget_min_per_s }),
        (1.0..4.0_f64).prop_map(|adaptive_k| Budget::Adaptive { adaptive_k }),
    ];
    (2..=MAX_ATTEMPTS, 10..=TIMEOUT_MS, backoff, budget).prop_map(|(attempts, per_try_timeout_ms, backoff, budget)| {
        Retry { attempts, per_try_timeout_ms, backoff, budget }
    })
}

/// The instants at which the tries of one request begin, when all fail after `lasts_us`, and why it ended.
fn tries(client: &mut Retries, begin_us: u64, lasts_us: u64, random: &mut SmallRng) -> (Vec<u64>, Next) {
    let deadline_us = begin_us + TIMEOUT_MS * 1000;
    let (mut begun, mut now_us) = (vec![begin_us], begin_us);
    loop {
        now_us = client.end_of_try_us(now_us, deadline_us).min(now_us + lasts_us);
        match client.after_failure(begun.len() as u32, now_us, deadline_us, random) {
            Next::RetryAt(at_us) => {
                now_us = at_us;
                begun.push(at_us);
            }
            end => return (begun, end),
        }
    }
}

proptest! {
    /// Independent of what fails and when, a request has at most `attempts` tries, all begin before its deadline, in order, and the seed decides them.
    #[test]
    fn every_request_ends(retry in any_retry(), gaps_us in prop::collection::vec((0..500_000_u64, 0..5_000_000_u64), 1..50), seed in any::<u64>()) {
        retry.check(TIMEOUT_MS).unwrap();
        let run = || {
            let (mut client, mut random, mut now_us) = (Retries::new(&retry), SmallRng::seed_from_u64(seed), 0);
            let mut all = Vec::new();
            for (gap_us, lasts_us) in &gaps_us {
                now_us += gap_us;
                if client.begin(now_us, &mut random) {
                    all.push(tries(&mut client, now_us, *lasts_us, &mut random));
                }
            }
            all
        };
        let all = run();
        for (begun, end) in &all {
            prop_assert!(begun.len() <= retry.attempts as usize && begun.is_sorted());
            prop_assert!(begun.iter().all(|at_us| *at_us < begun[0] + TIMEOUT_MS * 1000));
            prop_assert!(*end != Next::BudgetSpent || retry.budget != Budget::None);
        }
        prop_assert_eq!(run(), all);
    }
}
