//! `testbed load events`: realistic behaviour over `POST /events` of the running stack's gateway.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use launcher::Description;
use loadtest::event_load::{self, EventLoad, EventLoadOutcome, EventProgress};
use statistics::has_percentile;

use crate::{
    cli::EventsArgs,
    commands::{
        running_stack,
        up::{KNOWN_IDS, KNOWN_ITEMS},
    },
    progress::{self, stage},
};

pub async fn run(args: &EventsArgs) -> anyhow::Result<ExitCode> {
    let stack = running_stack()?;
    let gateway = stack.endpoints.get("gateway").context("the running stack has no gateway")?.clone();
    let load = EventLoad {
        gateway,
        per_s: args.rate,
        lasting: Duration::from_secs(args.lasting.into()),
        seed: args.seed,
        users: list(&stack, KNOWN_IDS, "user ids")?,
        items: list(&stack, KNOWN_ITEMS, "item ids")?,
        timestamps: args.timestamps,
    };
    let bar = progress::bar(args.lasting.into(), "starting");
    stage(&bar, &format!("{} events/s for {} s", args.rate, args.lasting));
    let show = |now: EventProgress| {
        bar.set_position(now.elapsed.as_secs());
        bar.set_message(format!("{} events accepted, {} failed", now.accepted, now.failed));
    };
    let outcome = event_load::run(&load, show).await;
    bar.finish_and_clear();
    let outcome = outcome?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&outcome)?);
    } else {
        print!("{}", text(&outcome));
    }
    Ok(ExitCode::SUCCESS)
}

/// The file of ids that this endpoint names.
fn list(stack: &Description, endpoint: &str, what: &str) -> anyhow::Result<String> {
    let file = stack.endpoints.get(endpoint);
    let file = file.with_context(|| format!("the running stack has no list of {what} (endpoint {endpoint})"))?;
    std::fs::read_to_string(file).with_context(|| format!("cannot read the list of {what}, {file}"))
}

fn text(outcome: &EventLoadOutcome) -> String {
    let EventLoadOutcome { requests, offered, accepted, failed, accepted_per_s, seconds, .. } = outcome;
    let mut lines = vec![
        format!("{offered} events in {requests} requests, {seconds:.1} s"),
        format!("  accepted   {accepted} ({accepted_per_s:.0}/s)"),
        format!("  failed     {failed}"),
    ];
    lines.extend(outcome.errors.iter().map(|(class, requests)| format!("    {class:<28} {requests} requests")));
    if let Some(latency) = &outcome.latency {
        let [p50, p90, max] = [latency.p50_ms, latency.p90_ms, latency.max_ms];
        let p99 =
            if has_percentile(99.0, *requests) { format!("p99 {:.1} ms, ", latency.p99_ms) } else { String::new() };
        lines.push(format!("  latency    p50 {p50:.1} ms, p90 {p90:.1} ms, {p99}max {max:.1} ms"));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use loadtest::event_load::LatencyMs;

    use super::*;

    #[test]
    fn counts_errors_and_latencies_are_shown() {
        let outcome = EventLoadOutcome {
            seconds: 2.0,
            requests: 30,
            offered: 120,
            accepted: 100,
            failed: 20,
            accepted_per_s: 50.0,
            errors: BTreeMap::from([("overloaded".to_owned(), 5)]),
            latency: Some(LatencyMs { p50_ms: 1.0, p90_ms: 2.0, p99_ms: 3.0, max_ms: 4.0 }),
        };
        let shown = text(&outcome);
        for part in
            ["120 events in 30 requests, 2.0 s", "accepted   100 (50/s)", "overloaded", "5 requests", "max 4.0 ms"]
        {
            assert!(shown.contains(part), "{part} is missing in\n{shown}");
        }
        assert!(!shown.contains("p99"), "of 30 requests: {shown}");
        assert!(text(&EventLoadOutcome { requests: 1_000, ..outcome.clone() }).contains("p99 3.0 ms, max 4.0 ms"));
        assert!(!text(&EventLoadOutcome { latency: None, ..outcome }).contains("latency"));
    }
}
