//! What an outage of a server came to: tables and verdicts. Pure.

use super::experiments::{join, not_valid};
use super::numbers::{NO_FIGURE, count, ms, pct, plain};
use super::schema::{Outage, OutagePhase, Probes, Report, Second, Verdict};
use super::tables::Grid;

/// Of those who can be given no list while the store is away: how soon they are told.
const MAX_REFUSAL_P99_MS: f64 = 100.0;
/// From the server's start, its own recovery included.
const MAX_BACK_S: u32 = 5;
/// Nothing is asked for twice, and ids of which nothing is known are let through a few at a time.
const MAX_QUERIES_PER_REQUEST: f64 = 1.0;
/// Seconds shown before the kill and after the restart.
const SECONDS_SHOWN: u32 = 5;

/// One column an outage.
pub(super) fn grid(report: &Report) -> Option<Grid> {
    type Show = fn(&Outage) -> String;
    let figures: [(&str, Show); 10] = [
        ("away, s", |o| plain((o.restarted_s - o.killed_s).round())),
        ("its own recovery, s", |o| recovery_s(o)),
        ("users with a list", |o| counts(o.listed)),
        ("users without one", |o| counts(o.unlisted)),
        ("p99 of those with a list, ms", |o| figure(o.listed.p99_ms)),
        ("p99 of those without, ms", |o| figure(o.unlisted.p99_ms)),
        ("store queries/s", |o| phases(o, |phase| phase.store_queries_per_s)),
        ("CPU, % of all cores", |o| phases(o, |phase| phase.cpu_pct)),
        ("p99 of the load before, ms", |o| figure(o.normal_p99_ms)),
        ("back to normal after", back),
    ];
    let row = |(name, show): &(&str, Show)| {
        std::iter::once((*name).to_owned()).chain(report.outages.iter().map(show)).collect()
    };
    (!report.outages.is_empty()).then(|| Grid {
        title: "While a server was away",
        meaning: "Single requests beside the load, of users with a list in Redis and of users without: answered · 503 · failed. Queries \
                  and CPU: before · during · after. Back to normal counts from the order to start the server.",
        head: std::iter::once("step".to_owned()).chain(report.outages.iter().map(|o| name(report, o))).collect(),
        rows: figures.iter().map(row).collect(),
    })
}

fn figure(value: Option<f64>) -> String {
    value.map_or_else(|| NO_FIGURE.into(), ms)
}

fn counts(probes: Probes) -> String {
    [probes.good, probes.refused, probes.failed].map(|n| count(n as f64)).join(" · ")
}

fn phases(outage: &Outage, of: fn(&OutagePhase) -> f64) -> String {
    [&outage.before, &outage.during, &outage.after].map(|phase| count(of(phase))).join(" · ")
}

fn recovery_s(outage: &Outage) -> String {
    plain(((outage.answering_s - outage.restarted_s) * 10.0).round() / 10.0)
}

/// Each second from shortly before a kill until all is well.
pub(super) fn seconds(report: &Report) -> Option<Grid> {
    let rows_of = |o: &Outage| -> Vec<Vec<String>> {
        let first = (o.killed_s as u32).saturating_sub(SECONDS_SHOWN);
        let last = o.restarted_s as u32 + o.back_after_s.unwrap_or(0).max(SECONDS_SHOWN) + SECONDS_SHOWN;
        let shown = o.series.iter().filter(|s| (first..=last).contains(&s.second));
        shown
            .map(|s| {
                vec![
                    format!("{} {}", name(report, o), s.second),
                    phase(o, s).into(),
                    count(s.sent as f64),
                    count(s.good as f64),
                    error_pct(s).map_or_else(|| NO_FIGURE.into(), pct),
                    s.p99_ms.map_or_else(|| NO_FIGURE.into(), ms),
                ]
            })
            .collect()
    };
    (!report.outages.is_empty()).then(|| Grid {
        title: "Second by second",
        meaning: "The load around each outage; seconds count from the begin of the measured part.",
        head: ["step", "server", "sent", "good", "errors %", "p99, ms"].map(String::from).to_vec(),
        rows: report.outages.iter().flat_map(rows_of).collect(),
    })
}

fn phase(outage: &Outage, second: &Second) -> &'static str {
    let (from, to) = (f64::from(second.second), f64::from(second.second + 1));
    if to <= outage.killed_s {
        "there"
    } else if from < outage.restarted_s {
        if from <= outage.killed_s { "killed" } else { "away" }
    } else if from < outage.answering_s {
        "starting"
    } else {
        "back"
    }
}

pub(super) fn error_pct(second: &Second) -> Option<f64> {
    let ended = second.good + second.errors;
    (ended > 0).then(|| 100.0 * second.errors as f64 / ended as f64)
}

pub(super) fn name(report: &Report, outage: &Outage) -> String {
    let profile = if report.profiles.len() > 1 { format!("{}, ", outage.profile) } else { String::new() };
    let repeat = if report.repeats > 1 { format!(" ({})", outage.repeat) } else { String::new() };
    format!("{profile}{}{repeat}", outage.server)
}

fn back(outage: &Outage) -> String {
    outage.back_after_s.map_or_else(|| "not within the run".into(), |s| format!("{s} s"))
}

/// For `experiment outage`: what was promised of each outage.
pub fn verdicts(report: &Report) -> Vec<Verdict> {
    report.outages.iter().flat_map(|outage| judge(report, outage)).collect()
}

fn judge(report: &Report, o: &Outage) -> Vec<Verdict> {
    let verdict = |what: &str, expected: String, measured: String, good: bool, note: String| Verdict {
        name: format!("{} away: {what}", name(report, o)),
        expected,
        measured,
        passed: (!report.quick && o.invalid_reasons.is_empty()).then_some(good),
        undecided: !report.quick && !o.invalid_reasons.is_empty(),
        note: join([
            if report.quick { "quick run, not judged" } else { "" },
            &join([&not_valid(&o.invalid_reasons), &note]),
        ]),
    };
    let of = |part: u64, whole: u64| format!("{} of {}", count(part as f64), count(whole as f64));
    let mut verdicts = Vec::new();
    if o.server == "MySQL" {
        let (known, listed) = (&o.known_sources, o.listed);
        let asked = o.known_answered + listed.asked;
        let answered = known.cache + known.store + known.stale + listed.good;
        verdicts.push(verdict(
            "users with a cached or stale list",
            "all answered".into(),
            of(answered, asked),
            answered == asked && listed.asked > 0,
            format!(
                "{} from fresh lists, {} from the store, {} from stale ones",
                count(known.cache as f64),
                count(known.store as f64),
                count(known.stale as f64)
            ),
        ));
        let rest = o.unlisted;
        let p99 = rest.p99_ms.unwrap_or(f64::INFINITY);
        verdicts.push(verdict(
            "the rest",
            format!("503, p99 ≤ {MAX_REFUSAL_P99_MS} ms"),
            format!("{} in {} ms", of(rest.refused, rest.asked), ms(p99)),
            rest.failed == 0 && rest.refused > 0 && p99 <= MAX_REFUSAL_P99_MS,
            format!(
                "{} answered, {} failed otherwise; ids nobody has that the filter took for users: {:?}",
                rest.good, rest.failed, o.errors
            ),
        ));
    } else {
        let per_request = o.during.store_queries_per_s / o.offered_per_s.max(f64::MIN_POSITIVE);
        verdicts.push(verdict(
            "load of the store",
            format!("≤ {MAX_QUERIES_PER_REQUEST} query a request"),
            format!("{} ({}/s)", plain(per_request), count(o.during.store_queries_per_s)),
            per_request <= MAX_QUERIES_PER_REQUEST,
            format!(
                "before {}/s, after {}/s; {} connection attempts/s; errors of the load: {:?}",
                count(o.before.store_queries_per_s),
                count(o.after.store_queries_per_s),
                plain(o.during.store_connects_per_s),
                o.errors
            ),
        ));
    }
    let unknown = &o.unknown_sources;
    let wrong =
        o.listed.wrong + o.unlisted.wrong + o.known_sources.popular + unknown.cache + unknown.store + unknown.stale;
    let compared = o.listed.compared + o.unlisted.compared;
    verdicts.push(verdict(
        "no wrong answer",
        "none".into(),
        count(wrong as f64),
        wrong == 0 && compared > 0,
        format!(
            "{} lists compared with those from before; of {} answers to known users none may be an unknown one's, nor the reverse",
            count(compared as f64),
            count(o.known_answered as f64)
        ),
    ));
    verdicts.push(verdict(
        "back to normal after the restart",
        format!("≤ {MAX_BACK_S} s"),
        back(o),
        o.back_after_s.is_some_and(|s| s <= MAX_BACK_S),
        format!("{} s of it are the server's own start", recovery_s(o)),
    ));
    verdicts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Sources, sample};

    fn passed(change: impl Fn(&mut Outage)) -> Vec<Option<bool>> {
        let mut report = sample::with_extras();
        report.outages.iter_mut().for_each(change);
        verdicts(&report).into_iter().map(|verdict| verdict.passed).collect()
    }

    #[test]
    fn each_promise_is_judged_by_itself() {
        const GOOD: [Option<bool>; 7] = [Some(true); 7];
        let but = |failed: &[usize]| {
            let mut all = GOOD.to_vec();
            failed.iter().for_each(|&n| all[n] = Some(false));
            all
        };
        assert_eq!(passed(|_| ()), GOOD, "{:#?}", verdicts(&sample::with_extras()));
        // MySQL: 0 with a list, 1 the rest, 2 wrong, 3 back. Redis: 4 the store's load, 5 wrong, 6 back.
        assert_eq!(passed(|o| o.known_answered += 1), but(&[0]));
        assert_eq!(passed(|o| o.listed.good -= 1), but(&[0]));
        assert_eq!(passed(|o| o.unlisted.p99_ms = Some(101.0)), but(&[1]));
        assert_eq!(passed(|o| o.unlisted.failed = 1), but(&[1]));
        assert_eq!(passed(|o| o.during.store_queries_per_s = 3001.0), but(&[4]));
        assert_eq!(passed(|o| o.listed.wrong = 1), but(&[2, 5]));
        assert_eq!(passed(|o| o.known_sources.popular = 1), but(&[2, 5]));
        assert_eq!(passed(|o| o.unknown_sources = Sources { store: 1, ..Sources::default() }), but(&[2, 5]));
        assert_eq!(passed(|o| o.back_after_s = Some(6)), but(&[3, 6]));
        assert_eq!(passed(|o| o.back_after_s = None), but(&[3, 6]));
        // What was not looked at is no success.
        assert_eq!(passed(|o| (o.listed, o.unlisted) = (Probes::default(), Probes::default())), but(&[0, 1, 2, 5]));
    }

    #[test]
    fn what_is_not_valid_is_not_judged() {
        assert_eq!(passed(|o| o.invalid_reasons = vec!["97 % CPU is above 90 %".into()]), [None; 7]);
        let old = serde_json::to_string(&sample::outage("Redis")).unwrap();
        assert!(!old.contains("invalid_reasons") && serde_json::from_str::<Outage>(&old).is_ok());
    }

    #[test]
    fn a_quick_run_is_not_judged() {
        let mut report = sample::with_extras();
        report.quick = true;
        assert!(verdicts(&report).iter().all(|verdict| verdict.passed.is_none()));
    }

    #[test]
    fn the_seconds_around_the_outage_are_shown() {
        let report = sample::with_extras();
        let grid = seconds(&report).unwrap();
        // 10..=45 of either.
        assert_eq!(grid.rows.len(), 2 * 36);
        let server = |second: &str| {
            let row = grid.rows.iter().find(|row| row[0] == format!("protected, {second}"));
            row.map(|row| row[1].as_str())
        };
        for (second, expected) in [
            ("MySQL 14", "there"),
            ("MySQL 15", "killed"),
            ("MySQL 16", "away"),
            ("MySQL 35", "away"),
            ("MySQL 36", "back"),
        ] {
            assert_eq!(server(second), Some(expected), "{second}");
        }
        assert!(seconds(&sample::report()).is_none() && super::grid(&sample::report()).is_none());
    }
}
