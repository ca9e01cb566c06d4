//! Reports beside each other, and the noise of their difference.

use super::*;
use crate::{
    compare::{Comparison, Run},
    diff::{Diff, diff, render},
    noise::Basis,
};

fn run(name: &str, change: impl Fn(&mut Report)) -> Run {
    let mut report = sample::report();
    change(&mut report);
    Run { name: name.to_owned(), report }
}

fn slower(report: &mut Report) {
    report.steps.iter_mut().for_each(|step| step.mean_ms *= 2.0);
}

fn page(runs: Vec<Run>) -> String {
    html::render_comparison(&Comparison::of(runs).expect("a comparison"))
}

fn refused(runs: Vec<Run>) -> String {
    Comparison::of(runs).expect_err("refused").to_string()
}

#[test]
fn what_cannot_be_compared_is_refused_with_the_reason() {
    let numbered = |n: usize| run(&format!("run {n}"), |report| report.created = format!("at {n}"));
    assert!(refused(vec![]).contains("2 to 16 reports, and 0"));
    assert!(refused(vec![numbered(1)]).contains("2 to 16 reports, and 1"));
    assert!(refused((0..17).map(numbered).collect()).contains("2 to 16 reports, and 17"));
    let same = refused(vec![numbered(1), numbered(2), Run { name: "copy".into(), ..numbered(1) }]);
    assert!(same.contains("run 1 and copy are the same report"), "{same}");
    let empty = refused(vec![numbered(1), run("bare", |report| report.steps.clear())]);
    assert!(empty.contains("bare has no steps of load"), "{empty}");
    assert!(Comparison::of((0..16).map(numbered).collect()).is_ok());
}

#[test]
fn the_page_draws_all_reports_and_names_what_differs() {
    let page = page(vec![
        run("before", |_| ()),
        run("after", |report| {
            slower(report);
            report.law = Law::None;
            report.scenario.timeout_ms = 1234;
            report.machine.cpu = "another processor".into();
        }),
        run("without 5000", |report| {
            report.revision.git = "feedbeef".into();
            report.steps.retain(|step| step.users != 5000);
        }),
    ]);
    super::html_page::check(&page);
    for text in
        ["1 before", "2 after", "3 without 5000", "scenario.timeout_ms", "1234", "another processor", "feedbeef"]
    {
        assert!(page.contains(text), "{text}");
    }
    for name in ["law.base_ms", "law.kind", "machine.cpu", "revision.git"] {
        assert!(page.contains(&format!("<th scope=\"row\">{name}</th>")), "{name}");
    }
    // What is the same is not named, nor are figures.
    for name in ["machine.cores", "scenario.name", "steps", "verdicts"] {
        assert!(!page.contains(&format!("<th scope=\"row\">{name}</th>")), "{name}");
    }
    // Without a script the first profile and the highest step are shown.
    assert_eq!(page.matches("checked=\"\"").count(), 3, "profile, and a step in each");
    for id in ["mean-0", "p99-0", "errors-1", "good-1", "percentiles-0-1000", "percentiles-1-5000"] {
        assert!(page.contains(&format!("aria-labelledby=\"{id}-t {id}-d\"")), "{id}");
    }
    // A row for each report that has the step.
    assert_eq!(page.matches("<th scope=\"row\">5,000/s: ").count(), 2 * 2);
    assert_eq!(page.matches("<th scope=\"row\">4,000/s: ").count(), 2 * 3);
}

#[test]
fn names_of_compared_reports_cannot_break_out() {
    let evil = "<script>alert('x')</script>\"&";
    let of_evil = run(evil, |report| {
        report.scenario.name = evil.into();
        report.created = evil.into();
        report.profiles = vec![evil.into(), "protected".into()];
        report.steps.iter_mut().filter(|step| step.profile == "baseline").for_each(|step| step.profile = evil.into());
    });
    let page = page(vec![of_evil, run("fine", |_| ())]);
    super::html_page::check(&page);
    assert!(!page.contains("<script") && !page.contains("alert('x')"));
}

#[test]
fn sixteen_reports_and_reports_with_nothing_in_common_fit_on_a_page() {
    let all = (0..16).map(|n| {
        run(&format!("run {n}"), |report| {
            report.created = format!("at {n}");
            report.steps.iter_mut().for_each(|step| step.mean_ms += n as f64);
        })
    });
    super::html_page::check(&page(all.collect()));
    let other = run("other", |report| {
        report.profiles = vec!["bare".into()];
        report.steps.retain(|step| step.profile == "baseline");
        report.steps.iter_mut().for_each(|step| {
            step.profile = "bare".into();
            step.offered_per_s *= 1.5;
            (step.series, step.latency_curve) = (Vec::new(), Vec::new());
        });
    });
    let page = page(vec![run("one", |_| ()), other]);
    super::html_page::check(&page);
    assert!(page.contains("1,500/s: 2 other"));
}

fn compared(before: &Report, change: impl Fn(&mut Step)) -> Diff {
    let mut after = before.clone();
    after.steps.iter_mut().for_each(change);
    diff(before, &after, &[])
}

#[test]
fn with_three_repeats_their_spread_is_the_noise() {
    // The repeats are 4 % up and 3 % down.
    let before = sample::repeated();
    let found = compared(&before, |step| step.mean_ms *= 1.5);
    let means =
        |diff: &Diff| -> Vec<_> { diff.changes.iter().filter(|change| change.key == "mean_ms").cloned().collect() };
    for change in means(&found) {
        let noise = change.noise.expect("an interval");
        assert_eq!((noise.basis, change.exceeds_noise), (Basis::Repeats, Some(true)), "{change:?}");
        assert!(
            change.difference.is_some_and(|difference| (noise.low..noise.high).contains(&difference)),
            "{change:?}"
        );
    }
    let found = compared(&before, |step| step.mean_ms *= 1.02);
    assert!(means(&found).iter().all(|change| change.exceeds_noise == Some(false)), "{found:?}");
    let text = render(&found);
    assert!(
        text.contains("within the noise") && text.contains("means of the repeats") && !text.contains('≥'),
        "{text}"
    );
}

#[test]
fn with_one_run_the_seconds_give_a_lower_bound_of_the_noise() {
    let before = sample::report();
    let found = compared(&before, |step| step.mean_ms *= 1.5);
    let change = found.changes.iter().find(|change| change.key == "mean_ms").expect("a mean");
    assert_eq!(change.noise.map(|noise| noise.basis), Some(Basis::Seconds), "{change:?}");
    assert_eq!(change.exceeds_noise, Some(true));
    // Seconds do not have queries of the store.
    let queries = found.changes.iter().find(|change| change.key == "store_queries_per_request").expect("queries");
    assert_eq!((queries.noise, queries.exceeds_noise, queries.difference), (None, None, Some(0.0)));
    let text = render(&found);
    for part in [
        "exceeds the known noise",
        "within the noise",
        "noise unknown",
        "do not have the figure",
        "fewer than 3 valid repeats",
        "≥ ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn without_seconds_the_noise_is_unknown() {
    let mut before = sample::report();
    before.steps.iter_mut().for_each(|step| step.series.clear());
    let found = compared(&before, |step| step.mean_ms *= 1.5);
    assert!(found.changes.iter().all(|change| change.noise.is_none() && change.exceeds_noise.is_none()), "{found:?}");
    let json = serde_json::to_value(&found).expect("JSON");
    assert!(json["changes"][0]["noise"].is_null() && json["changes"][0]["difference"].is_f64());
    assert!(!render(&found).contains("+0.0") && !render(&found).contains("−0.0"), "{}", render(&found));
    // Half of the repeats invalid: too few are left.
    let mut invalid = sample::repeated();
    invalid.steps.iter_mut().filter(|step| step.repeat == 2).for_each(|step| step.valid = false);
    let found = diff(&invalid, &sample::repeated(), &[]);
    assert!(
        found.changes.iter().all(|change| change.noise.is_none_or(|noise| noise.basis == Basis::Seconds)),
        "{found:?}"
    );
}
