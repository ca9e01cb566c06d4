//! What a report shows folded: every measurement of a step that was measured again, and what the kernel gave the processes.

use super::{
    numbers::{NO_FIGURE, count, ms, pct, plain},
    schema::{Report, Step},
    section::Table,
};

/// Tables that are closed until a reader opens them. Empty where no step was measured again and nothing was recorded.
pub(super) fn folded(report: &Report) -> Vec<Table> {
    [attempts(report), conditions(report)].into_iter().flatten().collect()
}

/// How many measurements were not valid and were made again, in words; empty without any.
pub(super) fn count_in_words(report: &Report) -> String {
    let discarded: usize = report.steps.iter().map(|step| step.discarded.len()).sum();
    match discarded {
        0 => String::new(),
        1 => "1 measurement was not valid and was made again; its figures are in report.json and report.html.".into(),
        more => format!(
            "{more} measurements were not valid and were made again; their figures are in report.json and report.html."
        ),
    }
}

fn attempts(report: &Report) -> Option<Table> {
    let again = report.steps.iter().filter(|step| !step.discarded.is_empty());
    let rows: Vec<Vec<String>> = again
        .flat_map(|step| step.discarded.iter().chain([step]).zip(1..).map(move |(attempt, n)| row(step, attempt, n)))
        .collect();
    (!rows.is_empty()).then(|| {
        Table::new(
            "Attempts",
            "Every measurement of the steps that were measured again, in their order. The last of each step is the one in the tables above.",
            &[
                "step", "attempt", "answered/s", "good/s", "errors, %", "mean, ms", "p50, ms", "p99, ms",
                "send lag p99, ms", "CPU, %", "not valid because", "HDR log",
            ],
            rows,
        )
    })
}

/// A figure of a step, and how it is shown.
type Figure = (fn(&Step) -> f64, fn(f64) -> String);

/// `attempt` is one of those of the step.
fn row(step: &Step, attempt: &Step, n: usize) -> Vec<String> {
    let figures: [Figure; 8] = [
        (|s| s.answered_per_s, count),
        (|s| s.good_per_s, count),
        (|s| s.error_pct, pct),
        (|s| s.mean_ms, ms),
        (|s| s.p50_ms, ms),
        (|s| s.p99_ms, ms),
        (|s| s.send_lag_p99_ms, ms),
        (|s| s.cpu_total_pct, pct),
    ];
    // Reports before version 3 kept no figures of an attempt.
    let is_known = attempt.offered_per_s > 0.0;
    let show = |(figure, show): Figure| {
        if is_known { show(figure(attempt)) } else { NO_FIGURE.into() }
    };
    let name = format!("{} {:.0} ({})", step.profile, step.offered_per_s, step.repeat);
    let reasons = if attempt.valid { "valid".into() } else { attempt.invalid_reasons.join("; ") };
    let log = attempt.hdr_log.clone().unwrap_or_else(|| NO_FIGURE.into());
    [name, n.to_string()].into_iter().chain(figures.map(show)).chain([reasons, log]).collect()
}

fn conditions(report: &Report) -> Option<Table> {
    let mut rows = Vec::new();
    for step in &report.steps {
        let Some(given) = &step.scheduling else { continue };
        let by_kind = |figures: &std::collections::BTreeMap<String, f64>| {
            let all: Vec<String> = figures.iter().map(|(kind, value)| format!("{kind} {}", plain(*value))).collect();
            if all.is_empty() { NO_FIGURE.into() } else { all.join(", ") }
        };
        let policies: Vec<String> = given.policy.iter().map(|(kind, policy)| format!("{kind} {policy}")).collect();
        rows.push(vec![
            format!("{} {:.0} ({})", step.profile, step.offered_per_s, step.repeat),
            step.cpu_stolen_pct.map_or_else(|| NO_FIGURE.into(), pct),
            by_kind(&given.run_queue_ms_per_s),
            given.generator_wait_ms.map_or_else(|| NO_FIGURE.into(), |wait| format!("{wait:.3}")),
            by_kind(&given.quota_cores),
            by_kind(&given.throttled_ms),
            policies.join(", "),
            match given.nice_granted {
                Some(true) => "yes".into(),
                Some(false) => "no".into(),
                None => NO_FIGURE.into(),
            },
        ]);
    }
    (!rows.is_empty()).then(|| {
        Table::new(
            "Conditions of each step",
            "Stolen: CPU that the hypervisor gave to other machines. Run queue: time in which runnable threads waited for a core, in ms per \
             second, summed over the threads of a kind of process. Quota and throttled time are those of cgroups.",
            &[
                "step", "stolen, %", "run queue, ms/s", "generator waits per wake-up, ms", "quota, cores", "throttled, ms",
                "policy", "nice -10 granted",
            ],
            rows,
        )
    })
}
