use api::Profile;
use loadtest::scenario::Scenario;

use super::*;
use crate::evaluation::{
    Variant,
    journal::{Finished, Header},
    manifest,
    tests::plan,
};

fn article() -> Plan {
    let variants = [Profile::Baseline, Profile::Protected].map(Variant::plain).to_vec();
    Plan { variants, ..plan(Scenario::load("article").unwrap(), &[]) }
}

/// A run with these steps, in the scenario's order.
fn past(steps: &[(&str, u32)]) -> Past {
    let finished = steps.iter().map(|&(profile, users)| Finished {
        step: Step { profile: profile.into(), users, repeat: 1, ..Step::default() },
        examples: Vec::new(),
    });
    let manifest = Manifest::default();
    Past {
        header: Header { schema_version: report::SCHEMA_VERSION, created: String::new(), manifest },
        begun: None,
        finished: finished.collect(),
        resumed: Vec::new(),
        whole_bytes: 0,
        truncated: false,
    }
}

#[test]
fn another_scenario_seed_setting_or_binary_is_named() {
    let before = manifest::of(&article()).unwrap();
    same_run(&before, &before).unwrap();
    let error = |plan: Plan| same_run(&before, &manifest::of(&plan).unwrap()).unwrap_err().to_string();
    let mut shorter = article();
    shorter.scenario.measure_s = 30;
    assert!(error(shorter).contains("scenario.measure_s: 60, now 30"));
    assert!(error(Plan { seed: 2, ..article() }).contains("seed: 1, now 2"));
    let set = error(Plan { sets: vec!["store.pool_size=5".into()], ..article() });
    assert!(set.contains("run.sets: [], now [\"store.pool_size=5\"]"), "{set}");
    assert!(
        set.contains("processes.api baseline.store.pool_size: 100, now 5") && set.contains("another --out"),
        "{set}"
    );
    assert!(
        error(Plan { source: crate::data::Source::Generator(7), ..article() }).contains("run.data.generated_users")
    );
    let fewer = Plan { variants: vec![Variant::plain(Profile::Baseline)], ..article() };
    assert!(error(fewer).contains("run.variants"));
    let other = Manifest { binary_blake3: "00".into(), ..before.clone() };
    let error = same_run(&other, &before).unwrap_err().to_string();
    assert!(error.contains("use the program that began the run") && error.contains("binary_blake3: \"00\""), "{error}");
}

#[test]
fn a_run_goes_on_after_its_last_step() {
    let mut recorded = past(&[("baseline", 1000), ("baseline", 2000)]);
    let resumed = go_on(&article(), &mut recorded, SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!((recorded.finished.len(), &resumed.anew), (2, &None));
    assert_eq!(resumed.after.as_deref(), Some("baseline 2000, repeat 1"));
    assert_eq!(resumed.at, "1970-01-01T00:00:00Z");
    let nothing = go_on(&article(), &mut past(&[]), SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!((nothing.after, nothing.anew), (None, None));
}

#[test]
fn a_variant_whose_cache_depends_on_its_steps_begins_anew() {
    let mut penetration = plan(Scenario::load("penetration").unwrap(), &[]);
    penetration.variants = [Profile::Protected, Profile::Baseline].map(Variant::plain).to_vec();
    let steps = penetration.scenario.steps.clone();
    let protected: Vec<(&str, u32)> = steps.iter().map(|&users| ("protected", users)).collect();
    let mut recorded = past(&[&protected[..], &[("baseline", steps[0])]].concat());
    let resumed = go_on(&penetration, &mut recorded, SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(resumed.anew, Some(("baseline".to_owned(), 1)));
    assert_eq!(recorded.finished.len(), steps.len());
    let complete = go_on(&penetration, &mut recorded, SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(complete.anew, None, "nothing of the baseline is left");
}

#[test]
fn steps_of_another_plan_are_refused() {
    let error = go_on(&article(), &mut past(&[("baseline", 7)]), SystemTime::UNIX_EPOCH).unwrap_err().to_string();
    assert!(error.contains("baseline, repeat 1, are [7]"), "{error}");
}

#[test]
fn other_servers_are_named() {
    let versions = |nginx: &str| [("nginx".to_owned(), nginx.to_owned())].into();
    same_servers(&versions("1.22"), &versions("1.22")).unwrap();
    assert!(same_servers(&versions("1.22"), &versions("1.24")).unwrap_err().to_string().contains("1.24"));
}

#[test]
fn words_with_a_secret_cannot_be_used_again() {
    let words_of = |word: &str| {
        let manifest = Manifest { argv: vec!["evaluate".into(), word.into()], ..Manifest::default() }.redacted();
        words(&manifest).map(<[String]>::to_vec).map_err(|error| error.to_string())
    };
    assert_eq!(words_of("cache.items=5"), Ok(vec!["evaluate".into(), "cache.items=5".into()]));
    assert!(words_of("store.password=x").is_err_and(|error| error.contains("store.password=REDACTED")));
}
