//! Users who act and read their list at once, and again until it shows the action: an item that a user has seen is not recommended.

use std::time::Duration;

use anyhow::ensure;
use contract::http::Recommendations;
use reqwest::StatusCode;
use serde_json::json;
use statistics::percentile;
use tokio::time::{Instant, sleep, sleep_until};

use super::judgement::FirstReads;

/// Between the begins of two users.
const EVERY: Duration = Duration::from_millis(100);
/// Between two reads of a user who waits for the action.
const PAUSE: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_secs(10);

struct Seen {
    /// Of the first read.
    latency: Duration,
    /// Zero: the first read shows it. `None`: no read did.
    age: Option<Duration>,
}

/// One user after the other. Each acts once. A user with a failed request is counted and left.
///
/// # Errors
/// The HTTP client cannot be made.
pub(super) async fn run(replica: &str, users: &[String], lasting: Duration) -> anyhow::Result<FirstReads> {
    let http = runtime::http::plain().timeout(LONGEST).build()?;
    let (begun, mut all, mut failed) = (Instant::now(), Vec::new(), 0);
    let mut next = begun;
    for user in users {
        if next >= begun + lasting {
            break;
        }
        sleep_until(next).await;
        match act_and_read(&http, replica, user).await {
            Ok(seen) => all.extend(seen),
            Err(_) => failed += 1,
        }
        next = Instant::now().max(next + EVERY);
    }
    Ok(summary(&all, failed))
}

/// `None`: the list of this user is not the user's own.
async fn act_and_read(http: &reqwest::Client, replica: &str, user: &str) -> anyhow::Result<Option<Seen>> {
    let before = list(http, replica, user).await?;
    let Some(item) = before.items.first().filter(|_| before.source != contract::http::Source::Popular) else {
        return Ok(None);
    };
    let event = json!({ "user_id": user, "item_id": item.item_id, "event": "view" });
    let answer = http.post(format!("{replica}/events")).json(&event).send().await?;
    ensure!(answer.status() == StatusCode::ACCEPTED, "{} for an event", answer.status());
    let acknowledged = Instant::now();
    let mut first = None;
    loop {
        let begun = Instant::now();
        let now = list(http, replica, user).await?;
        let latency = *first.get_or_insert_with(|| (begun, begun.elapsed()));
        if now.items.iter().all(|shown| shown.item_id != item.item_id) {
            let age = if latency.0 == begun { Duration::ZERO } else { begun - acknowledged };
            return Ok(Some(Seen { latency: latency.1, age: Some(age) }));
        }
        if acknowledged.elapsed() > LONGEST {
            return Ok(Some(Seen { latency: latency.1, age: None }));
        }
        sleep(PAUSE).await;
    }
}

async fn list(http: &reqwest::Client, replica: &str, user: &str) -> anyhow::Result<Recommendations> {
    let url = format!("{replica}/recommendations?user_id={user}");
    Ok(http.get(url).send().await?.error_for_status()?.json().await?)
}

fn summary(all: &[Seen], failed: u64) -> FirstReads {
    let in_ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let latencies: Vec<f64> = all.iter().map(|seen| in_ms(seen.latency)).collect();
    let ages: Vec<f64> = all.iter().filter_map(|seen| seen.age).map(in_ms).collect();
    let at_once = ages.iter().filter(|age| **age == 0.0).count();
    FirstReads {
        users: all.len() as u64,
        shows_pct: 100.0 * at_once as f64 / all.len().max(1) as f64,
        p50_ms: percentile(&latencies, 50.0),
        p99_ms: percentile(&latencies, 99.0),
        age_p50_ms: percentile(&ages, 50.0),
        age_p99_ms: percentile(&ages, 99.0),
        never: (all.len() - ages.len()) as u64,
        failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_shows_the_action_at_once_has_no_age() {
        let ms = Duration::from_millis;
        let seen = |latency, age: Option<u64>| Seen { latency: ms(latency), age: age.map(ms) };
        let all = [seen(2, Some(0)), seen(1, Some(80)), seen(1, Some(120)), seen(9, None)];
        let reads = summary(&all, 2);
        assert_eq!((reads.users, reads.shows_pct, reads.never, reads.failed), (4, 25.0, 1, 2));
        assert_eq!((reads.p50_ms, reads.p99_ms), (Some(1.0), Some(9.0)));
        assert_eq!((reads.age_p50_ms, reads.age_p99_ms), (Some(80.0), Some(120.0)));
        assert_eq!(summary(&[], 0).p50_ms, None);
    }
}
