//! JSON, Markdown and the terminal's table.

use super::*;

fn load(dir: &std::path::Path) -> anyhow::Result<Report> {
    match Document::load(&dir.join("report.json"))? {
        Document::Evaluation(report) => Ok(*report),
        Document::Experiment(_) => panic!("{} is an experiment", dir.display()),
    }
}

#[test]
fn json_comes_back_and_draws_the_same_pages() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    for report in [sample::report(), sample::ablation(), sample::repeated(), sample::with_extras()] {
        let (first, second) = (dir.path().join("a/b"), dir.path().join("c"));
        write_report(&report, &first).expect("written");
        let loaded = load(&first).expect("read");
        assert_eq!((&loaded.verdicts, &loaded.knees[0].why), (&report.verdicts, &report.knees[0].why));
        write_report(&loaded, &second).expect("written");
        // Rounded once, it stays as it is.
        assert_eq!(load(&second).expect("read"), loaded);
        for name in ["report.json", "report.md", "report.html"] {
            let read = |dir: &std::path::Path| std::fs::read_to_string(dir.join(name)).expect("written");
            assert!(read(&first).len() > 1000);
            assert_eq!(read(&first), read(&second), "{name}");
        }
    }
}

#[test]
fn json_keeps_its_names() {
    let json = serde_json::to_value(sample::report()).expect("JSON");
    for name in ["scenario", "law", "machine", "revision", "steps"] {
        assert!(!json[name].is_null(), "{name}");
    }
    let names = [
        "profile",
        "users",
        "valid",
        "offered_per_s",
        "answered_per_s",
        "good_per_s",
        "mean_ms",
        "p50_ms",
        "p99_ms",
        "error_pct",
        "errors",
        "store_timeouts",
        "store_queries_per_request",
        "hit_ratio",
        "send_lag_p99_ms",
        "article",
        "model",
        "skipped",
        "sent_per_s",
        "p90_ms",
        "p999_ms",
        "max_ms",
        "store_share",
        "bloom_rejections",
        "bloom_rejections_per_request",
        "known_personal_pct",
        "sources",
        "repeated_ids",
        "send_lag_p50_ms",
        "gateway_mean_ms",
        "store_upstream_mean_ms",
        "cpu_total_pct",
        "cpu_stolen_pct",
        "cpu",
        "rss_mb",
        "series",
        "latency_curve",
        "hdr_log",
        "repeat",
        "invalid_reasons",
    ];
    for step in json["steps"].as_array().expect("steps") {
        for name in names {
            assert!(step.get(name).is_some(), "{name}");
        }
    }
    let step = &json["steps"][4];
    let keys = |v: &serde_json::Value| v.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&step["article"]), ["error_pct", "mean_ms", "qps"]);
    assert_eq!(keys(&step["model"]), ["answered_per_s", "error_pct", "good_per_s", "mean_ms"]);
    assert_eq!(json["law"]["kind"], "modelled");
    assert_eq!(json["law"]["base_ms_scenario"], 74.0);
    assert_eq!(serde_json::to_value(Law::None).expect("JSON"), serde_json::json!({"kind": "none"}));
    assert!(step["latency_curve"][0].as_array().is_some_and(|pair| pair.len() == 2));
}

#[test]
fn every_field_is_documented() {
    let doc = include_str!("../../REPORT.md");
    let mut missing = Vec::new();
    fn names(value: &serde_json::Value, out: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(map) => map.iter().for_each(|(k, v)| {
                out.push(k.clone());
                // The keys below are names of processes and the like.
                if !["errors", "cpu", "rss_mb", "open_files", "versions", "measured", "validity"].contains(&k.as_str())
                {
                    names(v, out);
                }
            }),
            serde_json::Value::Array(all) => all.iter().for_each(|v| names(v, out)),
            _ => {}
        }
    }
    names(&serde_json::to_value(sample::findings()).expect("JSON"), &mut missing);
    names(&serde_json::to_value(sample::with_extras()).expect("JSON"), &mut missing);
    missing.retain(|name| !doc.contains(&format!("`{name}`")));
    assert_eq!(missing, [""; 0]);
}

#[test]
fn a_report_of_another_schema_is_refused_in_words() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let path = dir.path().join("report.json");
    let refused = |text: &str| {
        std::fs::write(&path, text).expect("written");
        format!("{:#}", Document::load(&path).expect_err(text))
    };
    let error = refused("{\"schema_version\": 99, \"more\": 1}");
    assert!(error.contains("schema version is 99") && error.contains("report.json"), "{error}");
    assert!(refused("[]").contains("is no report") && refused("{").contains("not JSON"));
    let error = refused("{\"schema_version\": 1, \"outages\": []}");
    assert!(error.contains("'outages'") && error.contains("make the report again"), "{error}");
    let error = refused("{\"schema_version\": 1, \"experiment\": \"codecs\"}");
    assert!(error.contains("run the experiment again"), "{error}");
    let missing = format!("{:#}", Document::load(&dir.path().join("none.json")).expect_err("missing"));
    assert!(missing.contains("cannot read"), "{missing}");
    // Version 1 of an evaluation without those fields means the same.
    let old = serde_json::to_value(Report { schema_version: 1, ..sample::report() }).expect("JSON");
    std::fs::write(&path, old.to_string()).expect("written");
    assert_eq!(load(dir.path()).expect("read").steps.len(), 10);
}

#[test]
fn the_terminal_fits_and_is_the_same_without_colour() {
    let mut wide = sample::report();
    for (i, mut step) in wide.steps.clone().into_iter().enumerate() {
        step.users += 7 + i as u32 * 10_000;
        step.offered_per_s = f64::from(step.users);
        wide.steps.push(step);
    }
    wide.remarks.push("x".repeat(300));
    let mut broken = sample::report();
    broken.steps.iter_mut().for_each(|s| (s.valid, s.mean_ms) = (false, f64::NAN));
    broken.conclude(Some(&Tolerances::default()));
    let mut empty = sample::report();
    empty.steps.clear();
    empty.conclude(Some(&Tolerances::default()));
    for report in [sample::report(), sample::ablation(), sample::repeated(), sample::with_extras(), wide, broken, empty]
    {
        let plain = terminal::render(&report, false);
        assert!(!plain.contains('\u{1b}'));
        for line in plain.lines() {
            assert!(line.chars().count() <= terminal::WIDTH, "{} columns: {line}", line.chars().count());
        }
        let coloured = terminal::render(&report, true);
        assert!(coloured.contains('\u{1b}'));
        assert_eq!(without_colour(&coloured), plain);
    }
}

fn without_colour(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        out.push_str(before);
        rest = after.split_once('m').expect("a whole escape sequence").1;
    }
    out.push_str(rest);
    // Blanks before the end of a line differ only inside a colour.
    out.lines().map(|l| format!("{}\n", l.trim_end())).collect()
}

#[test]
fn the_terminal_shows_figures_and_verdicts() {
    let text = words_of(&terminal::render(&sample::report(), false));
    for part in [
        "✗ baseline (passive cache, no guards) breaks at 4,000 requests/s",
        "✓ protected (bloom filter and warmed cache in front of the store) holds every step, up to 5,000 requests/s",
        "are store checkout timeouts",
        "modelled: 74 ms + 0.2 ms × commands in flight",
        "Checks: 13 of 13 passed",
        "SAMPLE",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let mut report = sample::report();
    report.steps[4].mean_ms = 10_000.0;
    report.conclude(Some(&Tolerances::default()));
    let text = terminal::render(&report, false);
    assert!(text.contains("11 of 13 passed, 2 failed") && text.contains("10,000"), "{text}");
    let words = words_of(&text);
    assert!(words.contains("50 % of the requests ask for users that do not exist; no known user"), "{text}");
    report.law = Law::None;
    report.scenario.unknown_share = vec![0.1, 0.9];
    let words = words_of(&terminal::render(&report, false));
    assert!(words.contains("10 % to 90 % (by step)") && words.contains("none: the store's real speed"), "{words}");
}

/// Wherever the lines break.
fn words_of(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn repeats_show_their_spread_and_invalid_steps_their_sign() {
    let mut report = sample::repeated();
    let text = terminal::render(&report, false);
    assert!(text.contains("[186, 194]"), "{text}");
    report.steps.iter_mut().filter(|s| s.profile == "protected" && s.users == 2000).for_each(|s| s.valid = false);
    report.conclude(Some(&Tolerances::default()));
    let text = terminal::render(&report, false);
    assert!(text.contains("! step invalid") && text.contains("2.9!"), "{text}");
}

#[test]
fn markdown_tables_are_whole_and_text_stays_text() {
    let mut report = sample::ablation();
    report.scenario.name = "a|b <i>*c*\n# d".into();
    let text = markdown::render(&report);
    assert!(text.starts_with("# Evaluation: a\\|b &lt;i&gt;\\*c\\* \\# d\n"), "{}", &text[..80]);
    let mut width = None;
    let mut tables = 0;
    for line in text.lines() {
        if !line.starts_with('|') {
            width = None;
            continue;
        }
        let cells = line.replace("\\|", "").matches('|').count();
        if width.is_none() {
            tables += 1;
        }
        assert_eq!(*width.get_or_insert(cells), cells, "{line}");
    }
    assert!(tables > 15, "{tables}");
    for profile in &report.profiles {
        assert!(text.contains(&format!("| {profile} |")), "{profile}");
    }
}

#[test]
fn that_no_user_came_twice_is_said_only_where_none_did() {
    let mut report = sample::report();
    assert!(markdown::render(&report).contains("no known user is asked for twice in a step"));
    (report.steps[0].repeated_ids, report.steps[1].repeated_ids) = (3, 4);
    let text = markdown::render(&report);
    assert!(!text.contains("asked for twice") && text.contains("7 requests asked for a user again"), "{text}");
}

#[test]
fn percentiles_of_few_requests_are_maxima_by_name() {
    let mut report = sample::report();
    report.steps.iter_mut().filter(|s| s.profile == "protected" && s.users == 1000).for_each(|s| {
        (s.samples, s.max_ms) = (Some(999), 61.0);
    });
    report.conclude(None);
    for text in [terminal::render(&report, false), crate::markdown::render(&report), crate::html::render(&report)] {
        assert!(text.contains("max 61"), "{text}");
        assert_eq!(text.matches("One run: no interval.").count(), 1, "{text}");
    }
}

#[test]
fn an_undecided_verdict_is_shown_as_such() {
    let mut report = sample::repeated();
    let of = |s: &&mut crate::Step| s.profile == "protected" && s.users == 4000 && s.repeat == 2;
    report.steps.iter_mut().find(of).expect("a step of the sample").error_pct = 5.0;
    report.conclude(Some(&Tolerances::default()));
    let text = terminal::render(&report, false);
    assert!(text.contains("12 of 13 passed, 1 undecided") && text.contains("? Protected: few errors"), "{text}");
    assert!(crate::markdown::render(&report).contains("? undecided"));
    let page = crate::html::render(&report);
    assert!(page.contains("? undecided") && page.contains("class=\"whisker\""), "whiskers in the charts");
}
