//! The promises of an outage. Pure.

use report::{
    Report, Verdict,
    numbers::{count, ms, plain},
    trend::returned_within,
};

use super::{
    figures::Outage,
    words::{back, recovery_s},
};
use crate::experiments::under_load::{self, QUICK};

/// Until a user without a list gets the 503 while the store is away.
const MAX_REFUSAL_P99_MS: f64 = 100.0;
/// From the server's start, its own recovery included.
const MAX_BACK_S: f64 = 5.0;
/// No list is loaded twice at a time, and only a few unverified ids are looked up at a time.
const MAX_QUERIES_PER_REQUEST: f64 = 1.0;
/// The promises of each outage.
pub fn verdicts(report: &Report, outages: &[Outage]) -> Vec<Verdict> {
    outages.iter().flat_map(|outage| judge(report, outage)).collect()
}

fn judge(report: &Report, o: &Outage) -> Vec<Verdict> {
    let verdict = |what: &str, expected: String, measured: String, good: bool, note: String| Verdict {
        name: format!("{} away: {what}", o.name(report.profiles.len(), report.repeats)),
        expected,
        measured,
        passed: (!report.quick && o.validity.is_valid()).then_some(good),
        undecided: !report.quick && !o.validity.is_valid(),
        note: under_load::note(&[if report.quick { QUICK } else { "" }, &o.validity.note(), &note]),
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
                "{} answered, {} failed otherwise; errors of unknown ids that passed the filter: {:?}",
                rest.good, rest.failed, o.errors
            ),
        ));
    } else {
        let per_request = o.during.store_queries_per_s / o.offered_per_s.max(f64::MIN_POSITIVE);
        verdicts.push(verdict(
            "load of the store",
            format!("≤ {MAX_QUERIES_PER_REQUEST} query per request"),
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
            "{} lists compared with the lists from before; {} answers to known users, none of which may be popular items; no unknown id may get a list",
            count(compared as f64),
            count(o.known_answered as f64)
        ),
    ));
    let seconds = |after: Option<u32>| after.map_or(f64::INFINITY, f64::from);
    let within = returned_within(MAX_BACK_S, seconds(o.back_after_s), seconds(o.earliest_back_s));
    let last = verdict(
        "back to normal after the restart",
        format!("≤ {MAX_BACK_S} s"),
        back(o),
        within.unwrap_or(false),
        under_load::note(&[
            &format!("{} s of it are the server's own start", recovery_s(o)),
            &o.validity.seconds_note(),
        ]),
    );
    verdicts.push(if within.is_some() { last } else { Verdict { passed: None, undecided: !report.quick, ..last } });
    verdicts
}

#[cfg(test)]
mod tests {
    use report::{Sources, Validity};

    use super::*;
    use crate::experiments::{
        outage::figures::{Probes, sample::outage},
        under_load::sample::report,
    };

    fn passed(change: impl Fn(&mut Outage)) -> Vec<Option<bool>> {
        let mut outages = [outage("MySQL"), outage("Redis")];
        outages.iter_mut().for_each(change);
        verdicts(&report(&["protected"]), &outages).into_iter().map(|verdict| verdict.passed).collect()
    }

    #[test]
    fn each_promise_is_judged_separately() {
        const GOOD: [Option<bool>; 7] = [Some(true); 7];
        let but = |failed: &[usize]| {
            let mut all = GOOD.to_vec();
            failed.iter().for_each(|&n| all[n] = Some(false));
            all
        };
        assert_eq!(passed(|_| ()), GOOD);
        // MySQL: 0 with a list, 1 the rest, 2 wrong, 3 back. Redis: 4 the store's load, 5 wrong, 6 back.
        assert_eq!(passed(|o| o.known_answered += 1), but(&[0]));
        assert_eq!(passed(|o| o.listed.good -= 1), but(&[0]));
        assert_eq!(passed(|o| o.unlisted.p99_ms = Some(101.0)), but(&[1]));
        assert_eq!(passed(|o| o.unlisted.failed = 1), but(&[1]));
        assert_eq!(passed(|o| o.during.store_queries_per_s = 3001.0), but(&[4]));
        assert_eq!(passed(|o| o.listed.wrong = 1), but(&[2, 5]));
        assert_eq!(passed(|o| o.known_sources.popular = 1), but(&[2, 5]));
        assert_eq!(passed(|o| o.unknown_sources = Sources { store: 1, ..Sources::default() }), but(&[2, 5]));
        assert_eq!(passed(|o| (o.back_after_s, o.earliest_back_s) = (Some(6), Some(6))), but(&[3, 6]));
        assert_eq!(passed(|o| (o.back_after_s, o.earliest_back_s) = (None, None)), but(&[3, 6]));
        // Without probes nothing has succeeded.
        assert_eq!(passed(|o| (o.listed, o.unlisted) = (Probes::default(), Probes::default())), but(&[0, 1, 2, 5]));
    }

    #[test]
    fn invalid_outages_and_quick_runs_are_not_judged() {
        assert_eq!(passed(|o| o.validity = Validity::of(1.0, 97.0)), [None; 7]);
        let open = passed(|o| (o.back_after_s, o.earliest_back_s) = (Some(6), Some(5)));
        assert_eq!((open[3], open[6], open[0]), (None, None, Some(true)), "invalid seconds decide nothing");
        let mut report = report(&["protected"]);
        report.quick = true;
        assert!(verdicts(&report, &[outage("MySQL"), outage("Redis")]).iter().all(|verdict| verdict.passed.is_none()));
    }
}
