//! The requests and their spans, period by period. Pure.

use anyhow::ensure;
use loadtest::figures::Tail;
use report::{Second, Table, Validity, Verdict, invalid_because, trend};
use serde::Serialize;

use crate::instruments::{comparison::Spread, scrape::Reading};

/// One for the request, and one for its command to Redis.
pub const SPANS_OF_A_HIT: f64 = 2.0;
const MAX_P99_RATIO: f64 = 1.2;
const MAX_MEMORY_RATIO: f64 = 1.1;
const MAX_RESUMED_S: f64 = 5.0;

pub const SENT: &str = "telemetry_spans_sent_total";
pub const DROPPED: &str = "telemetry_spans_dropped_total";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Receiver {
    Alive,
    Killed,
    Restarted,
}

impl Receiver {
    pub const CYCLE: [Self; 3] = [Self::Alive, Self::Killed, Self::Restarted];

    pub fn of_period(n: u32) -> Self {
        Self::CYCLE[n as usize % Self::CYCLE.len()]
    }
}

#[derive(Debug, Serialize)]
pub struct Period {
    receiver: Receiver,
    /// Median of its valid seconds; of their longest requests where too few ended for a 99th percentile. Null without any.
    p99_ms: f64,
    errors: u64,
    spans_sent: f64,
    spans_dropped: f64,
    /// Of the replicas at its end.
    memory_mib: f64,
    /// From the receiver's start to the first batch that it accepted.
    resumed_s: Option<f64>,
}

#[derive(Debug, Serialize)]
pub struct Measured {
    answered: u64,
    errors: u64,
    /// p99 of a period over that of the same cycle's period in which the receiver is alive.
    killed_p99_ratio: Spread,
    restarted_p99_ratio: Spread,
    resumed_s: Spread,
    /// The maximum of the last cycle over the maximum of the first.
    memory_ratio: f64,
    /// Computed from the number of requests.
    spans_made: f64,
    spans_sent: f64,
    spans_dropped: f64,
    periods: Vec<Period>,
}

/// Counters at the end of a period, or at the beginning of the first.
pub struct Boundary {
    pub replicas: Reading,
    pub memory_mib: f64,
    /// Of the receiver that was started at this boundary.
    pub resumed_s: Option<f64>,
}

/// What the replicas have counted since they started.
pub struct Counted {
    pub requests: f64,
    pub hits: f64,
    pub sent: f64,
    pub dropped: f64,
}

impl Counted {
    pub fn made(&self) -> f64 {
        SPANS_OF_A_HIT * self.requests
    }
}

pub fn measured(
    series: &[Second],
    boundaries: &[Boundary],
    total: &Counted,
    period_s: u32,
) -> anyhow::Result<Measured> {
    ensure!(
        total.hits == total.requests,
        "{} of {} requests were no hits, so the number of their spans is unknown",
        total.requests - total.hits,
        total.requests
    );
    let periods: Vec<Period> =
        boundaries.windows(2).zip(0..).map(|(ends, n)| period(series, ends, n, period_s)).collect();
    // Cycle by cycle, relative to the period of the same cycle in which the receiver is alive.
    let ratios = |receiver: Receiver| {
        let cycles = periods.chunks_exact(Receiver::CYCLE.len());
        let of = |cycle: &[Period]| Some(cycle.iter().find(|p| p.receiver == receiver)?.p99_ms / cycle.first()?.p99_ms);
        // A period without a valid second has no p99.
        Spread::of(cycles.filter_map(of).filter(|ratio| ratio.is_finite()).collect())
    };
    let most = |cycle: Option<&[Period]>| cycle.into_iter().flatten().map(|p| p.memory_mib).fold(0.0, f64::max);
    let mut cycles = periods.chunks_exact(Receiver::CYCLE.len());
    let (first, last) = (most(cycles.clone().next()), most(cycles.next_back()));
    Ok(Measured {
        answered: series.iter().map(|second| second.good + second.errors).sum(),
        errors: series.iter().map(|second| second.errors).sum(),
        killed_p99_ratio: ratios(Receiver::Killed),
        restarted_p99_ratio: ratios(Receiver::Restarted),
        resumed_s: Spread::of(periods.iter().filter_map(|period| period.resumed_s).collect()),
        memory_ratio: last / first,
        spans_made: total.made(),
        spans_sent: total.sent,
        spans_dropped: total.dropped,
        periods,
    })
}

fn period(series: &[Second], ends: &[Boundary], n: u32, period_s: u32) -> Period {
    let within = n * period_s..(n + 1) * period_s;
    let seconds: Vec<&Second> = series.iter().filter(|second| within.contains(&second.second)).collect();
    // A second that is not valid decides nothing.
    let valid = seconds.iter().copied().filter(|second| invalid_because(second).is_none());
    let (before, after) = (&ends[0], &ends[1]);
    Period {
        receiver: Receiver::of_period(n),
        p99_ms: trend::typical_tail(valid).map_or(f64::NAN, Tail::ms),
        errors: seconds.iter().map(|second| second.errors).sum(),
        spans_sent: after.replicas.since(&before.replicas, SENT, &[]),
        spans_dropped: after.replicas.since(&before.replicas, DROPPED, &[]),
        memory_mib: after.memory_mib,
        resumed_s: before.resumed_s,
    }
}

pub fn table(measured: &Measured) -> Table {
    let row = |(n, period): (usize, &Period)| {
        vec![
            format!("{}: {:?}", n + 1, period.receiver).to_lowercase(),
            format!("{:.1}", period.p99_ms),
            period.errors.to_string(),
            format!("{:.0}", period.spans_sent),
            format!("{:.0}", period.spans_dropped),
            format!("{:.0}", period.memory_mib),
            period.resumed_s.map_or_else(|| "–".into(), |s| format!("{s:.2}")),
        ]
    };
    Table::new(
        "Period by period",
        "p99 is the median of the period's seconds (of their longest requests where fewer than 1,000 ended); memory is that of the replicas at its end; resumed counts from the receiver's start to the \
         first accepted batch.",
        &["receiver", "p99, ms", "errors", "spans sent", "dropped", "memory, MiB", "resumed after, s"],
        measured.periods.iter().enumerate().map(row).collect(),
    )
}

pub fn verdicts(measured: &Measured, validity: &Validity) -> Vec<Verdict> {
    let ratio = |name: &str, spread: &Spread| {
        let verdict = Verdict::new(
            name,
            format!("≤ {MAX_P99_RATIO} × alive"),
            format!("{:.2} ({:.2} to {:.2})", spread.median, spread.min, spread.max),
            spread.median <= MAX_P99_RATIO,
            "Median of the cycles, each relative to its own period without a fault.",
        );
        if spread.runs.is_empty() { Verdict { passed: None, undecided: true, ..verdict } } else { verdict }
    };
    let Measured { spans_made, spans_sent, spans_dropped, .. } = measured;
    let restarts = measured.periods.iter().filter(|period| period.receiver == Receiver::Restarted).count();
    let verdicts = vec![
        Verdict::new(
            "no request fails",
            "0 errors".into(),
            format!("{} of {}", measured.errors, measured.answered),
            measured.errors == 0,
            "",
        ),
        ratio("p99, receiver killed", &measured.killed_p99_ratio),
        ratio("p99, receiver started again", &measured.restarted_p99_ratio),
        Verdict::new(
            "memory is flat",
            format!("≤ {MAX_MEMORY_RATIO} × the first cycle"),
            format!("{:.2}", measured.memory_ratio),
            measured.memory_ratio <= MAX_MEMORY_RATIO,
            "The maximum of the last cycle; both include a full queue.",
        ),
        Verdict::new(
            "telemetry resumes",
            format!("≤ {MAX_RESUMED_S} s, each time"),
            format!("{:.2} s at most, {} of {restarts}", measured.resumed_s.max, measured.resumed_s.runs.len()),
            measured.resumed_s.runs.len() == restarts && measured.resumed_s.max <= MAX_RESUMED_S,
            "",
        ),
        Verdict::new(
            "every lost span is counted",
            "sent + dropped = made, some dropped".into(),
            format!("{spans_sent:.0} + {spans_dropped:.0} = {spans_made:.0}"),
            spans_sent + spans_dropped == *spans_made && *spans_dropped > 0.0,
            "Made: two for each request.",
        ),
    ];
    verdicts.into_iter().map(|verdict| verdict.within(validity)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boundary(sent: u32, dropped: u32, memory_mib: f64, resumed_s: Option<f64>) -> Boundary {
        let text = format!("{SENT} {sent}\n{DROPPED}{{reason=\"queue_full\"}} {dropped}\n");
        Boundary { replicas: Reading::of([text.as_str()]), memory_mib, resumed_s }
    }

    fn series(p99s: &[f64]) -> Vec<Second> {
        let full = Second { sent: 10, good: 10, ..Second::default() };
        let second = |(n, p99): (usize, &f64)| Second { second: n as u32, p99_ms: Some(*p99), ..full.clone() };
        p99s.iter().enumerate().map(second).collect()
    }

    #[test]
    fn each_cycle_is_compared_with_itself() {
        // Two seconds a period; the machine is half as fast in the second cycle.
        let series = series(&[10.0, 10.0, 11.0, 11.0, 12.0, 12.0, 20.0, 20.0, 22.0, 22.0, 20.0, 20.0]);
        let boundaries = [
            boundary(0, 0, 50.0, None),
            boundary(40, 0, 50.0, None),
            boundary(40, 20, 60.0, Some(1.5)),
            boundary(100, 20, 58.0, None),
            boundary(140, 20, 58.0, None),
            boundary(140, 40, 61.0, Some(0.5)),
            boundary(200, 40, 60.0, None),
        ];
        let total = Counted { requests: 120.0, hits: 120.0, sent: 200.0, dropped: 40.0 };
        let measured = measured(&series, &boundaries, &total, 2).unwrap();
        assert_eq!(
            (measured.killed_p99_ratio.runs.as_slice(), measured.restarted_p99_ratio.runs.as_slice()),
            ([1.1, 1.1].as_slice(), [1.2, 1.0].as_slice())
        );
        assert_eq!((measured.resumed_s.max, measured.memory_ratio), (1.5, 61.0 / 60.0));
        let kinds: Vec<Receiver> = measured.periods.iter().map(|period| period.receiver).collect();
        assert_eq!(kinds, [Receiver::CYCLE, Receiver::CYCLE].concat());
        assert_eq!((measured.periods[1].spans_sent, measured.periods[1].spans_dropped), (0.0, 20.0));
        let valid = Validity::of(1.0, 50.0);
        assert!(verdicts(&measured, &valid).iter().all(|verdict| verdict.passed == Some(true)), "{measured:?}");
        let invalid = Validity::of(1.0, 97.0);
        assert!(verdicts(&measured, &invalid).iter().all(|verdict| verdict.passed.is_none() && verdict.undecided));
        let lost = Counted { dropped: 39.0, ..total };
        assert!(
            verdicts(&super::measured(&series, &boundaries, &lost, 2).unwrap(), &valid)
                .iter()
                .any(|verdict| verdict.passed == Some(false))
        );
        assert!(super::measured(&series, &boundaries, &Counted { hits: 119.0, ..lost }, 2).is_err());
    }
}
