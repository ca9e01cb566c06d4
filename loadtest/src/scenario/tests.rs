use super::*;

const GOOD: &str = include_str!("../../scenarios/article.toml");

/// The article's scenario with `changes` made to its text.
fn with(changes: &[(&str, &str)]) -> Result<Scenario> {
    let mut text = GOOD.to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    Scenario::parse("test.toml", &text)
}

fn errors(changes: &[(&str, &str)]) -> Vec<String> {
    let text = with(changes).expect_err("an error").to_string();
    text.lines().skip(1).map(|line| line.trim().to_owned()).collect()
}

#[test]
fn built_in_scenarios_are_what_their_names_say() {
    for (name, _) in BUILT_IN {
        let scenario = Scenario::load(name).unwrap();
        assert_eq!(scenario.name, name);
        assert_eq!(scenario.unknown_share.len(), scenario.steps.len());
    }
    let article = Scenario::load("article").unwrap();
    assert_eq!(article.steps, [1000, 2000, 3000, 4000, 5000]);
    assert_eq!(article.law, Law::Modelled { base_ms: 74.0, slope_ms: 0.2, crosstalk_ms: 0.0, spread: 0.3 });
    assert_eq!((article.warm_up_s, article.measure_s, article.replicas), (15, 60, 8));
    assert_eq!(article.store.order, Order::Newest);
    assert_eq!(article.tolerances, Some(Tolerances::default()));
    assert_eq!(article.article("baseline", 5000).unwrap().mean_ms, Some(620.0));
    assert_eq!(article.article("protected", 4000).unwrap().qps, 4100.0);
    assert_eq!(article.article("protected", 5000), None);
    assert_eq!(Scenario::load("smoke").unwrap().tolerances, None);
}

#[test]
fn a_file_is_read_and_a_missing_one_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    std::fs::write(&path, GOOD.replace("steps = [1000,", "steps = [10,").replace("users = 1000", "users = 10"))
        .unwrap();
    assert_eq!(Scenario::load(path.to_str().unwrap()).unwrap().steps[0], 10);
    let error = Scenario::load("nowhere.toml").unwrap_err().to_string();
    assert!(
        error.contains(
            "nowhere.toml is neither a built-in scenario (article, penetration, overload, outage, open, zipf, smoke)"
        ),
        "{error}"
    );
}

#[test]
fn every_error_is_reported_with_line_and_field() {
    let found = errors(&[
        ("interval_ms = 1000", "interval_ms = 0"),
        ("arrival_grid_ms = 4", "arrival_grid_ms = 11"),
        ("timeout_ms = 3000\n", "timeout = 3000\n"),
        ("unknown_share = 0.5", "unknown_share = 1.5"),
        ("order = \"newest\"", "order = \"random\""),
        ("pool_size = 100", "pool_size = \"many\""),
    ]);
    assert_eq!(found.len(), 7, "{found:#?}");
    assert!(found[0].starts_with("line 1: timeout_ms is missing"), "{found:#?}");
    assert!(found[1].starts_with("line 5: interval_ms must be 10..=60000, is 0"), "{found:#?}");
    assert!(found[2].starts_with("line 8: arrival_grid_ms must be 0..=10, is 11"), "{found:#?}");
    assert!(
        found[3].starts_with("line 9: timeout is unknown; known here: arrival_grid_ms, arrivals, article"),
        "{found:#?}"
    );
    assert!(found[4].contains("ids.unknown_share must be 0..=1, is 1.5"), "{found:#?}");
    assert!(found[5].contains("store.pool_size must be an integer, is a string"), "{found:#?}");
    assert!(found[6].contains("store.order must be \"newest\" or \"oldest\""), "{found:#?}");
}

#[test]
fn unknown_keys_are_found_in_every_table() {
    for (section, path) in
        [("[ids]", "ids."), ("[law]", "law."), ("[store]", "store."), ("[tolerances]", "tolerances.")]
    {
        let found = errors(&[(section, &format!("{section}\nwrong = 1"))]);
        assert!(found.len() == 1 && found[0].contains(&format!("{path}wrong is unknown")), "{found:?}");
    }
    let found = errors(&[("[[article.baseline]]", "[[article.baseline]]\nwrong = 1")]);
    assert!(found[0].contains("article.baseline[0].wrong is unknown"), "{found:?}");
}

#[test]
fn a_syntax_error_names_its_line() {
    let error = with(&[("interval_ms = 1000", "interval_ms = = 1000")]).unwrap_err().to_string();
    assert!(error.contains("test.toml is not valid TOML") && error.contains("line 5"), "{error}");
}

#[test]
fn steps_differ_and_shares_match_them() {
    let found = errors(&[("steps = [1000, 2000,", "steps = [1000, 1000, 0, 2000,")]);
    assert!(found.iter().any(|line| line.contains("steps must not repeat")), "{found:?}");
    assert!(found.iter().any(|line| line.contains("steps[2] must be 1..=20000, is 0")), "{found:?}");
    let found = errors(&[("unknown_share = 0.5", "unknown_share = [0.5, 0.6]")]);
    assert!(found[0].contains("a list of one per step"), "{found:?}");
    let scenario = with(&[("unknown_share = 0.5", "unknown_share = [0, 0.1, 0.2, 0.3, 1]")]).unwrap();
    assert_eq!(scenario.unknown_share, [0.0, 0.1, 0.2, 0.3, 1.0]);
}

#[test]
fn numbers_out_of_any_sense_are_refused() {
    for bad in ["-1", "nan", "inf", "99999999999999999999999999", "true", "\"1\""] {
        assert_eq!(errors(&[("base_ms = 74.0", &format!("base_ms = {bad}"))]).len(), 1, "{bad}");
        assert_eq!(errors(&[("pool_size = 100", &format!("pool_size = {bad}"))]).len(), 1, "{bad}");
    }
    // As faultproxy takes it.
    assert!(with(&[("spread = 0.3", "spread = 2.0")]).is_ok());
    assert_eq!(errors(&[("spread = 0.3", "spread = 2.1")]).len(), 1);
    assert_eq!(with(&[("pool_size = 100", "pool_size = 0x64")]).unwrap().store.pool_size, 100);
}

#[test]
fn keys_of_another_kind_are_refused() {
    let none = errors(&[("base_ms = 74.0", "kind = \"none\"\nbase_ms = 74.0")]);
    assert_eq!(none.len(), 3, "{none:?}");
    assert!(errors(&[("known = \"once\"", "known = \"once\"\nexponent = 1.0")])[0].contains("ids.exponent belongs to"));
    assert!(errors(&[("known = \"once\"", "known = \"zipf\"")])[0].contains("ids.exponent is missing"));
    assert!(
        errors(&[("base_ms = 74.0", "base_ms = 74.0\ncrosstalk_ms = 101")])[0]
            .contains("law.crosstalk_ms must be 0..=100")
    );
    let crosstalk = with(&[("base_ms = 74.0", "base_ms = 74.0\ncrosstalk_ms = 0.01")]).unwrap();
    assert_eq!(crosstalk.law, Law::Modelled { base_ms: 74.0, slope_ms: 0.2, crosstalk_ms: 0.01, spread: 0.3 });
    let zipf = with(&[("known = \"once\"", "known = \"zipf\"\nexponent = 1.1")]).unwrap();
    assert_eq!(zipf.known, KnownIds::Zipf { exponent: 1.1 });
}

#[test]
fn faults_belong_to_a_step_and_end_within_it() {
    let faults = "[[faults]]\nstep = 2\nat_s = 30\nfor_s = 5\nkind = \"latency\"\nms = 50\n\n\
                  [[faults]]\nat_s = 10\nfor_s = 1\nkind = \"stall\"\n\n[law]";
    let scenario = with(&[("[law]", faults)]).unwrap();
    let second = scenario.faults_of(1);
    assert_eq!(second.len(), 2);
    assert_eq!((second[0].at_s, second[0].kind), (10.0, FaultKind::Stall));
    assert_eq!((second[1].step, second[1].kind), (Some(1), FaultKind::Latency { ms: 50 }));
    assert_eq!(scenario.faults_of(0).len(), 1);

    let found = errors(&[("[law]", "[[faults]]\nstep = 6\nat_s = 58\nfor_s = 5\nkind = \"reset\"\nms = 1\n\n[law]")]);
    assert_eq!(found.len(), 3, "{found:?}");

    let loss = "[[faults]]\nat_s = 1\nfor_s = 1\nkind = \"loss\"\npct = 5.5\n\n[law]";
    let scenario = with(&[("[law]", loss)]).unwrap();
    assert_eq!(scenario.faults[0].kind, FaultKind::Loss { pct: 5.5, seed: 1 });
    let found = errors(&[("[law]", &loss.replace("pct = 5.5", "pct = 101\nms = 1"))]);
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn the_overload_goes_to_twice_what_the_store_can() {
    let scenario = Scenario::load("overload").unwrap();
    let knee = scenario.store_capacity_per_s().unwrap();
    let offered: Vec<f64> = scenario.steps.iter().map(|&users| scenario.offered_per_s(users)).collect();
    assert!(
        offered.iter().any(|rate| *rate < 0.8 * knee)
            && offered.iter().any(|rate| (0.98..1.05).contains(&(rate / knee / 2.0)))
    );
    let article = Scenario::load("article").unwrap().store_capacity_per_s().unwrap();
    assert!((3410.0..3430.0).contains(&article), "{article}");
}

#[test]
fn profiles_are_known_and_named_once() {
    assert!(
        errors(&[("\"baseline\", \"protected\"", "\"fast\"")])[0]
            .contains("profiles[0] must be one of: baseline, protected")
    );
    assert!(errors(&[("\"baseline\", \"protected\"", "\"baseline\", \"baseline\"")])[0].contains("twice"));
}

#[test]
fn tolerances_may_be_changed_one_at_a_time() {
    let scenario = with(&[("[tolerances]", "[tolerances]\narticle_mean_pct = 30")]).unwrap();
    assert_eq!(scenario.tolerances, Some(Tolerances { article_mean_pct: 30.0, ..Tolerances::default() }));
}

#[test]
fn a_steady_load_needs_no_file() {
    let scenario = Scenario::steady(250, 30).unwrap();
    assert_eq!((scenario.steps.as_slice(), scenario.measure_s), (&[250][..], 30));
    assert_eq!(
        (scenario.interval_ms, scenario.timeout_ms, scenario.unknown_share.as_slice()),
        (1000, 3000, &[0.0][..])
    );
    assert!(scenario.faults.is_empty() && scenario.tolerances.is_none());
    for (users, measure_s) in [(0, 30), (20_001, 30), (1, 0), (1, 3_601)] {
        assert!(Scenario::steady(users, measure_s).is_err(), "{users} {measure_s}");
    }
}
