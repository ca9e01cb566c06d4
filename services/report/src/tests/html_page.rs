//! The page: whole, self-contained, accessible in its structure, and safe against what is in the names.

use super::*;

/// Open tags in order; fails on what is not closed, closed twice or nested wrongly.
pub fn check_nesting(page: &str) -> usize {
    const VOID: [&str; 3] = ["meta", "wbr", "!doctype"];
    let mut open: Vec<String> = Vec::new();
    let mut tags = 0;
    let mut rest = page;
    while let Some((text, after)) = rest.split_once('<') {
        assert!(open.last().is_some_and(|t| t == "style") || !text.contains('>'), "stray >: {text}");
        let (tag, after) = after.split_once('>').expect("every tag ends");
        rest = after;
        tags += 1;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "closing {name}; open: {open:?}");
            continue;
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes of <{tag}>");
        let name = tag.split([' ', '/', '\n']).next().unwrap_or_default();
        if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name.to_string());
        }
        if name == "style" {
            rest = &rest[rest.find("</style>").expect("the style ends")..];
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
    tags
}

/// Whole, self-contained, without broken numbers, script or duplicate ids.
pub(super) fn check(page: &str) {
    assert!(check_nesting(page) > 50);
    for word in
        ["NaN", ">inf", "\"inf", "-inf", "null", "http:", "https:", "src=", "@import", "<script", "<link", "<iframe"]
    {
        assert!(!page.contains(word), "{word}");
    }
    assert!(page.split("href=\"").skip(1).all(|u| u.starts_with('#')));
    let mut ids: Vec<&str> = page.split(" id=\"").skip(1).filter_map(|s| s.split('"').next()).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all);
    // Each button has its label.
    let labels = page.split(" for=\"").skip(1).filter_map(|s| s.split('"').next());
    assert!(labels.clone().all(|id| ids.contains(&id)));
    assert_eq!(labels.count(), page.matches("type=\"radio\"").count());
}

fn pages() -> Vec<(Report, String)> {
    let mut invalid = sample::report();
    invalid.steps.iter_mut().for_each(|s| s.valid = false);
    let mut bare = sample::report();
    for s in &mut bare.steps {
        *s = Step { profile: s.profile.clone(), users: s.users, repeat: 1, ..Step::default() };
    }
    let mut one = sample::report();
    one.steps.retain(|s| s.users == 1000);
    let mut empty = sample::report();
    empty.steps.clear();
    let mut broken = sample::report();
    for s in &mut broken.steps {
        (s.mean_ms, s.good_per_s, s.p99_ms) = (f64::NAN, f64::INFINITY, -1.0);
        s.latency_curve = vec![(0.0, 0.0), (100.0, f64::NAN)];
    }
    let all = [sample::report(), sample::ablation(), sample::repeated(), invalid, bare, one, empty, broken];
    let all = all.into_iter().chain([sample::with_extras()]);
    all.map(|mut report| {
        report.conclude(Some(&Tolerances::default()));
        let page = html::render(&report);
        (report, page)
    })
    .collect()
}

#[test]
fn pages_are_whole_and_hold_no_broken_numbers() {
    let experiments = [sample::findings(), sample::plain_findings()].map(|findings| html::render_findings(&findings));
    for page in pages().into_iter().map(|(_, page)| page).chain(experiments) {
        assert!(check_nesting(&page) > 50);
        for word in ["NaN", ">inf", "\"inf", "-inf", "null"] {
            assert!(!page.contains(word), "{word}");
        }
    }
}

#[test]
fn nothing_is_loaded_from_elsewhere_and_no_script_runs() {
    for (_, page) in pages() {
        for word in ["http:", "https:", "src=", "@import", "url(//", "<script", "<link", "<iframe", "javascript:"] {
            assert!(!page.contains(word), "{word}");
        }
        assert!(page.split("url(").skip(1).all(|u| u.starts_with('#')));
        assert!(page.split("href=\"").skip(1).all(|u| u.starts_with('#')));
    }
}

#[test]
fn every_step_law_and_verdict_is_there() {
    for (report, page) in pages() {
        for users in report.user_steps() {
            let offered = report.steps.iter().find(|s| s.users == users).expect("a step").offered_per_s;
            assert!(page.contains(&format!("<th scope=\"col\">{offered:.0}")), "{users}");
        }
        for profile in &report.profiles {
            assert!(page.contains(&format!("<th scope=\"row\">{profile}</th>")), "{profile}");
        }
        for v in &report.verdicts {
            assert!(page.contains(&v.name) && page.contains(&v.expected.replace('\'', "&#39;")), "{v:?}");
        }
        assert!(page.contains("modelled: 74 ms + 0.2 ms × commands in flight"));
        assert!(page.contains("SAMPLE"));
        for (name, version) in &report.versions {
            assert!(page.contains(name) && page.contains(version), "{name}");
        }
    }
    let (_, page) = &pages()[0];
    for id in [
        "latency",
        "errors",
        "good",
        "percentiles-1000",
        "percentiles-5000",
        "time-1000-0",
        "time-5000-1",
        "heat-4000-1",
        "cpu",
    ] {
        assert!(page.contains(&format!("aria-labelledby=\"{id}-t {id}-d\"")), "{id}");
    }
}

#[test]
fn drawings_are_described_and_ids_are_unique() {
    for (_, page) in pages() {
        let drawings = page.matches("<svg ").count();
        let described = page.matches("role=\"img\" aria-labelledby").count();
        assert_eq!(drawings, described + page.matches("aria-hidden=\"true\"").count());
        let mut ids: Vec<&str> = page.split(" id=\"").skip(1).filter_map(|s| s.split('"').next()).collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all);
        for reference in page.split("aria-labelledby=\"").skip(1).filter_map(|s| s.split('"').next()) {
            assert!(reference.split(' ').all(|id| ids.contains(&id)), "{reference}");
        }
    }
}

#[test]
fn names_cannot_break_out() {
    let evil = "<script>alert('x')</script>\"&";
    let mut report = sample::report();
    report.scenario.name = evil.into();
    report.scenario.description = evil.into();
    report.scenario.known = evil.into();
    report.created = evil.into();
    report.machine.cpu = evil.into();
    report.revision.git = evil.into();
    report.data.name = evil.into();
    report.versions.insert(evil.into(), evil.into());
    report.remarks.push(evil.into());
    report.profiles = vec![evil.into(), "protected".into()];
    for s in &mut report.steps {
        if s.profile == "baseline" {
            s.profile = evil.into();
        }
        s.errors.insert(evil.into(), 3);
        s.cpu.insert(evil.into(), 0.1);
        s.rss_mb.insert(evil.into(), 1.0);
        s.hdr_log = Some(evil.into());
        (s.valid, s.invalid_reasons) = (false, vec![evil.into()]);
    }
    report.conclude(Some(&Tolerances { baseline: evil.into(), ..Tolerances::default() }));
    let page = html::render(&report);
    check_nesting(&page);
    assert!(!page.contains("<script") && !page.contains("alert('x')"));
    assert!(page.matches("&lt;script&gt;").count() > 20);
    assert!(!markdown::render(&report).contains("<script"));
}

#[test]
fn each_chart_point_lies_inside_its_drawing() {
    for (_, page) in pages() {
        for points in page.split("points=\"").skip(1).filter_map(|s| s.split('"').next()) {
            for pair in points.split(' ').filter(|p| !p.is_empty()) {
                let (x, y) = pair.split_once(',').expect("x,y");
                let (x, y): (f64, f64) = (x.parse().expect("a number"), y.parse().expect("a number"));
                assert!((-5.0..=485.0).contains(&x) && (-5.0..=300.0).contains(&y), "{pair}");
            }
        }
    }
}

#[test]
fn what_an_invalid_step_measured_is_marked_in_the_charts() {
    let marks = |report: &Report| html::render(report).matches("class=\"doubt\"").count();
    let mut report = sample::report();
    report.steps.iter_mut().for_each(|step| step.valid = true);
    assert_eq!(marks(&report), 0);
    let step = report.steps.last_mut().unwrap();
    step.valid = false;
    // Latency, errors, good answers, queries of the store.
    assert_eq!(marks(&report), 4);
}

#[test]
fn one_step_is_shown_and_the_others_can_be_chosen() {
    let all = pages();
    let (report, page) = &all[0];
    check(page);
    assert_eq!(page.matches("type=\"radio\"").count(), report.user_steps().len());
    assert_eq!(page.matches("checked=\"\"").count(), 1, "the highest");
    assert!(page.contains("id=\"step-4\" checked=\"\"/><label for=\"step-4\">5,000/s</label>"));
    // A single step needs no choice, and without counts by latency there is no heat map.
    let mut one = report.clone();
    one.steps.retain(|step| step.users == 1000);
    one.steps.iter_mut().flat_map(|step| &mut step.series).for_each(|second| second.latency_counts.clear());
    let page = html::render(&one);
    check(&page);
    assert!(!page.contains("type=\"radio\"") && !page.contains("heat-1000"));
}

#[test]
fn a_long_series_shares_columns() {
    let mut report = sample::report();
    for step in &mut report.steps {
        let seconds = step.series.iter().cycle().take(14_400).cloned().enumerate();
        step.series = seconds.map(|(second, one)| Second { second: second as u32, ..one }).collect();
    }
    let page = html::render(&report);
    check(&page);
    let map =
        page.split("id=\"heat-5000-0-t\"").nth(1).and_then(|rest| rest.split("</svg>").next()).expect("a heat map");
    assert_eq!(map.matches("class=\"touch\"").count(), 240);
}
