//! Verdicts on the default policy; the others are there to compare with. Pure.

use report::{
    Validity, Verdict,
    numbers::{NO_FIGURE, count, pct},
    trend::returned_within,
};

use super::{
    compared::DEFAULT,
    figures::{Cost, LoadFigures, PolicyFigures, over_rounds},
    windows::{LOADS, SPIKE},
};
use crate::experiments::under_load::note;

/// Of the best goodput of any policy at any load, by load. Only answers that needed a query count: of the others a higher load has more.
const MIN_GOODPUT_PCT: [(f64, f64); 2] = [(2.0, 95.0), (5.0, 90.0)];
/// Of the most critical requests, at twice the capacity.
const MIN_CRITICAL_PCT: f64 = 99.0;
const MAX_SETTLED_S: f64 = 1.0;
const MAX_ADAPTED_S: f64 = 5.0;
/// Of a hit's CPU time.
const MAX_COST_PCT: f64 = 10.0;

/// A figure that a verdict compares with its limit.
struct Judged<'a> {
    name: String,
    expected: String,
    measured: Option<f64>,
    unit: &'a str,
    passed: Option<bool>,
    note: String,
}

/// `None` for a run without the default policy.
pub fn verdicts(all: &[PolicyFigures], cost: Option<(Cost, &Validity)>) -> Vec<Verdict> {
    let of_default: Vec<&PolicyFigures> = all.iter().filter(|figures| figures.policy == DEFAULT).collect();
    if of_default.is_empty() {
        return Vec::new();
    }
    let mut verdicts: Vec<Verdict> = MIN_GOODPUT_PCT.iter().map(|(load, least)| goodput(all, *load, *least)).collect();
    verdicts.push(critical(all));
    let validity = |figures: &PolicyFigures| figures.changes.validity.clone();
    let invalid = invalid(of_default.iter().copied().map(validity));
    let seconds = |figure: fn(&PolicyFigures) -> Option<u32>| {
        over_rounds(all, DEFAULT, |figures| Some(figure(figures).map_or(f64::INFINITY, f64::from)))
    };
    let settled = seconds(|figures| figures.changes.settled_after_s);
    let earliest = seconds(|figures| figures.changes.settled_earliest_s);
    let adapted = seconds(|figures| figures.changes.adapted_after_s);
    let name = format!("settled after a spike of {SPIKE} × capacity");
    let is_settled =
        settled.zip(earliest).and_then(|(after_s, earliest_s)| returned_within(MAX_SETTLED_S, after_s, earliest_s));
    verdicts.push(timed(name, settled, (MAX_SETTLED_S, is_settled), &invalid));
    let name = "goodput within 10 % of half the capacity, after the halving";
    let is_adapted = adapted.map(|after_s| after_s <= MAX_ADAPTED_S);
    verdicts.push(timed(name.to_owned(), adapted, (MAX_ADAPTED_S, is_adapted), &invalid));
    verdicts.extend(cost.map(|(cost, validity)| rejection(cost, validity)));
    verdicts
}

fn verdict(judged: Judged<'_>) -> Verdict {
    let Judged { name, expected, measured, unit, passed, note } = judged;
    let measured = match measured {
        Some(figure) if figure.is_infinite() => "not within the window".to_owned(),
        Some(figure) => format!("{} {unit}", pct(figure)),
        None => NO_FIGURE.to_owned(),
    };
    Verdict { name: format!("{DEFAULT}: {name}"), expected, measured, passed, undecided: passed.is_none(), note }
}

/// Why a window is not valid; empty if all are.
fn invalid(validities: impl Iterator<Item = Validity>) -> String {
    validities.map(|validity| validity.note()).find(|note| !note.is_empty()).unwrap_or_default()
}

fn goodput(all: &[PolicyFigures], load: f64, least_pct: f64) -> Verdict {
    let good = |policy: &str, load: f64| over_rounds(all, policy, |figures| Some(figures.at(load)?.store_good_per_s));
    let policies = || all.iter().map(|figures| figures.policy.as_str());
    let best = policies().flat_map(|policy| LOADS.map(|load| (good(policy, load).unwrap_or_default(), policy, load)));
    let best = best.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(peak, ..)| *peak > 0.0);
    let measured = good(DEFAULT, load).zip(best).map(|(good, (peak, ..))| 100.0 * good / peak);
    let of_load = all.iter().filter(|figures| figures.policy == DEFAULT).filter_map(|figures| figures.at(load));
    let invalid = invalid(of_load.map(|figures: &LoadFigures| figures.validity.clone()));
    // Without another policy that was measured well there is nothing to compare with.
    let is_comparable = all
        .iter()
        .any(|figures| figures.policy != DEFAULT && figures.loads.iter().all(|load| load.validity.is_valid()));
    let alone = if is_comparable { "" } else { "no other policy has a valid figure" };
    let best = best.map(|(peak, policy, at)| {
        format!("the peak: {} good/s from the store, {policy} at {at} × capacity", count(peak))
    });
    verdict(Judged {
        name: format!("goodput of the store at {load} × capacity"),
        expected: format!("≥ {least_pct} % of the peak of all policies"),
        measured,
        unit: "%",
        passed: measured.map(|share| share >= least_pct).filter(|_| invalid.is_empty() && is_comparable),
        note: note(&[&invalid, alone, &best.unwrap_or_default()]),
    })
}

fn critical(all: &[PolicyFigures]) -> Verdict {
    const LOAD: f64 = 2.0;
    let share = |figures: &PolicyFigures| figures.at(LOAD)?.critical_pct();
    let measured = over_rounds(all, DEFAULT, share);
    let of_load = all.iter().filter(|figures| figures.policy == DEFAULT).filter_map(|figures| figures.at(LOAD));
    let invalid = invalid(of_load.map(|figures| figures.validity.clone()));
    verdict(Judged {
        name: format!("critical requests at {LOAD} × capacity"),
        expected: format!("≥ {MIN_CRITICAL_PCT} % good"),
        measured,
        unit: "%",
        passed: measured.map(|share| share >= MIN_CRITICAL_PCT).filter(|_| invalid.is_empty()),
        note: invalid,
    })
}

fn timed(name: String, measured: Option<f64>, (most_s, passed): (f64, Option<bool>), invalid: &str) -> Verdict {
    verdict(Judged {
        name,
        expected: format!("≤ {most_s} s"),
        measured,
        unit: "s",
        passed: passed.filter(|_| invalid.is_empty()),
        note: invalid.to_owned(),
    })
}

fn rejection(cost: Cost, validity: &Validity) -> Verdict {
    let measured = (cost.hit_us > 0.0).then(|| 100.0 * cost.rejection_us / cost.hit_us);
    let [rejection, hit, memory] = [cost.rejection_us, cost.hit_us, cost.memory_us].map(count);
    let figures = format!(
        "{rejection} µs and {hit} µs of the replicas' CPU; an answer from memory, little more than HTTP, {memory} µs"
    );
    verdict(Judged {
        name: "CPU of a rejection, of that of a hit".into(),
        expected: format!("≤ {MAX_COST_PCT} %"),
        measured,
        unit: "%",
        passed: measured.map(|share| share <= MAX_COST_PCT).filter(|_| validity.is_valid()),
        note: note(&[&validity.note(), &figures]),
    })
}

#[cfg(test)]
mod tests {
    use contract::http::Criticality;

    use super::{super::figures::CriticalityShare, *};

    fn figures(policy: &str, good: [f64; 3], critical_pct: f64, seconds: Option<u32>) -> PolicyFigures {
        let share = CriticalityShare { criticality: Criticality::Critical, good_pct: Some(critical_pct) };
        let load = |(load, store_good_per_s)| LoadFigures {
            load,
            store_good_per_s,
            criticalities: vec![share.clone()],
            ..LoadFigures::default()
        };
        let mut figures = PolicyFigures { policy: policy.into(), repeat: 1, ..PolicyFigures::default() };
        figures.loads = LOADS.into_iter().zip(good).map(load).collect();
        (figures.changes.settled_after_s, figures.changes.adapted_after_s) = (seconds, seconds);
        figures.changes.settled_earliest_s = seconds;
        figures
    }

    fn passed(all: &[PolicyFigures], cost: Cost, validity: &Validity) -> Vec<Option<bool>> {
        verdicts(all, Some((cost, validity))).iter().map(|verdict| verdict.passed).collect()
    }

    #[test]
    fn the_default_is_judged_against_the_best_of_all() {
        let valid = Validity::default();
        let other = figures("codel", [100.0, 200.0, 150.0], 10.0, None);
        let good = figures(DEFAULT, [150.0, 190.0, 180.0], 99.0, Some(1));
        let cheap = Cost { hit_us: 100.0, memory_us: 8.0, rejection_us: 10.0 };
        assert_eq!(passed(&[other.clone(), good.clone()], cheap, &valid), [Some(true); 6]);
        let alone = passed(&[good], cheap, &valid);
        assert_eq!(alone[..3], [None, None, Some(true)], "its own peak is no comparison");
        let bad = figures(DEFAULT, [200.0, 189.0, 179.0], 98.9, None);
        let dear = Cost { hit_us: 100.0, memory_us: 8.0, rejection_us: 11.0 };
        assert_eq!(passed(&[other.clone(), bad.clone()], dear, &valid), [Some(false); 6]);
        let shown = verdicts(&[other.clone(), bad], None);
        assert_eq!(shown[0].measured, "94.5 %");
        assert!(shown[0].note.contains("200 good/s from the store"), "{}", shown[0].note);
        assert_eq!(shown[3].measured, "not within the window");
        assert!(verdicts(&[other], None).is_empty(), "without the default policy");
    }

    #[test]
    fn what_is_not_valid_is_open() {
        let invalid = Validity::of(1.0, 97.0);
        let mut bad = figures(DEFAULT, [200.0, 200.0, 200.0], 100.0, Some(0));
        bad.loads.iter_mut().for_each(|load| load.validity = invalid.clone());
        bad.changes.validity = invalid.clone();
        let cost = Cost { hit_us: 100.0, memory_us: 8.0, rejection_us: 1.0 };
        assert_eq!(passed(std::slice::from_ref(&bad), cost, &invalid), [None; 6]);
        assert!(verdicts(&[bad], None).iter().all(|verdict| verdict.undecided));
    }
}
