//! A made-up report for tests: figures near the model's, marked as a sample. Nothing in it was measured.

mod seconds;

use std::collections::BTreeMap;

use self::seconds::{curve, series};
use crate::{
    findings::Findings,
    schema::*,
    section::*,
    soak::{self, SoakMinute},
    validity::Validity,
};

/// Users, article (mean ms, error %, QPS), model (mean ms, error %, answered/s, good/s).
type Expected = (u32, (f64, f64, f64), (f64, f64, f64, f64));
const TABLE: [Expected; 5] = [
    (1000, (89.0, 0.1, 998.0), (93.0, 0.0, 1000.0, 1000.0)),
    (2000, (135.0, 0.3, 1986.0), (124.0, 0.0, 2000.0, 2000.0)),
    (3000, (210.0, 1.2, 2940.0), (186.0, 0.0, 3000.0, 3000.0)),
    (4000, (380.0, 4.7, 3720.0), (397.0, 5.42, 3614.0, 3418.0)),
    (5000, (620.0, 12.8, 3480.0), (624.0, 13.74, 3958.0, 3415.0)),
];

/// `article` with the two profiles, one repeat, every tolerance met.
pub(crate) fn report() -> Report {
    let mut steps = Vec::new();
    for profile in ["baseline", "protected"] {
        for expected in TABLE {
            steps.push(if profile == "baseline" { baseline(expected) } else { protected(profile, expected.0, 1.0) });
        }
    }
    // The article's one figure for the cure.
    if let Some(step) = steps.iter_mut().find(|s| s.profile == "protected" && s.users == 4000) {
        step.article = Some(ArticleFigures { mean_ms: None, error_pct: 0.9, qps: 4100.0 });
    }
    let versions = [
        ("redis", "7.0.15"),
        ("store", "MariaDB 10.11.19"),
        ("nginx", "1.22.1"),
        ("rustc", "1.95.0"),
        ("testbed", "0.1.0"),
    ];
    let mut report = Report {
        schema_version: SCHEMA_VERSION,
        created: "2026-11-02T09:30:00Z".into(),
        scenario: ScenarioInfo {
            name: "article".into(),
            description: "SAMPLE: made-up figures, nothing was measured".into(),
            steps: TABLE.map(|t| t.0).to_vec(),
            warm_up_s: 15.0,
            measure_s: 60.0,
            interval_ms: 1000,
            arrival_grid_ms: 0,
            timeout_ms: 3000,
            unknown_share: vec![0.5; TABLE.len()],
            known: "once".into(),
            arrivals: loadtest::arrivals::Arrivals::Closed.describe(),
            retries: String::new(),
            target: None,
        },
        law: Law::Modelled {
            base_ms: 70.8,
            base_ms_scenario: 74.0,
            overhead_ms: 3.2,
            slope_ms: 0.2,
            crosstalk_ms: 0.0,
            spread: 0.3,
        },
        machine: Machine {
            cpu: "SAMPLE processor".into(),
            cores: 2,
            memory_gb: 24.0,
            memory_latency_ns: Some(25.0),
            kernel: "6.1.0".into(),
            os: "Debian GNU/Linux 12".into(),
        },
        versions: versions.map(|(k, v)| (k.to_string(), v.to_string())).into(),
        revision: Revision { git: "0123456789abcdef0123456789abcdef01234567".into(), dirty: true },
        data: DataInfo {
            source: DataSource::Generator,
            name: "seed 1".into(),
            users: 200_000,
            items: 20_000,
            events: 4_000_000,
            bad_rows: 0,
        },
        model_version: 1,
        quick: false,
        profiles: vec!["baseline".into(), "protected".into()],
        repeats: 1,
        steps,
        knees: Vec::new(),
        sections: Vec::new(),
        waterfalls: Vec::new(),
        verdicts: Vec::new(),
        changed: Vec::new(),
        seed: None,
        manifest: None,
        remarks: vec!["SAMPLE: all figures are made up.".into()],
    };
    report.conclude(Some(&crate::Tolerances::default()));
    report
}

/// Protected with one guard off at a time, as `--ablation` runs it: six profiles.
pub(crate) fn ablation() -> Report {
    let mut report = report();
    for (name, load) in
        [("protected -bloom", 14.0), ("protected -warmup", 9.0), ("protected -shared", 3.0), ("protected -jitter", 1.4)]
    {
        report.profiles.push(name.into());
        report.steps.extend(TABLE.map(|t| protected(name, t.0, load)));
    }
    report.conclude(Some(&crate::Tolerances::default()));
    report
}

/// Sections, recorded requests and a growing share of unknown ids added.
pub(crate) fn with_extras() -> Report {
    let mut report = report();
    let minute = |minute: u32| SoakMinute {
        minute,
        p99_ms: Some(12.0),
        max_ms: None,
        rss_mb: [own(("api", 400.0 + f64::from(minute)))].into(),
        open_files: [own(("api", 120.0))].into(),
    };
    let soak = soak::section(&soak::conclude((0..30).map(minute).collect())).expect("JSON");
    report.sections = vec![soak, surge()];
    for step in &mut report.steps {
        step.known_good_per_s = Some(step.good_per_s / 2.0);
        step.corrected = Some(Latency { mean_ms: step.mean_ms * 1.5, p50_ms: step.p50_ms * 1.5, ..Latency::default() });
    }
    report.scenario.unknown_share = vec![0.0, 0.2, 0.5, 0.75, 0.9];
    recorded(&mut report);
    report
}

/// As an experiment makes it: a table for the terminal, one for the pages, and a chart of each kind.
fn surge() -> Section {
    let rows = ["baseline", "protected"].map(|profile| [profile, "600"].map(str::to_owned).to_vec()).to_vec();
    let seconds =
        Table { pages_only: true, ..Table::new("Second by second", "Of the load.", &["step", "good"], rows.clone()) };
    let answers = Drawing::Answers {
        series: series(600.0, 1.0, 120.0),
        level_per_s: 600.0,
        level: "offered before and after".into(),
    };
    let points = vec![(0.0, 900.0), (73.0, 10.0)];
    let curves = vec![Curve { name: "p99, ms".into(), points }];
    let log_log = Drawing::LogLog { x_label: "bytes".into(), y_label: "ns".into(), curves: curves.clone() };
    let points = Drawing::Points { x_label: "replica-minutes".into(), y_label: "%".into(), curves: curves.clone() };
    let over_time = Drawing::OverTime { x_label: "second".into(), y_label: "ms".into(), curves };
    let charts = vec![
        Chart::new("protected through the surge", "2,130 requests/s in seconds 10 to 30.", answers),
        Chart::new("Size & speed", "smaller is slower", log_log),
        Chart::new("Users & cost", "", points),
        Chart::new("p99 over time", "", over_time),
    ];
    Section::new("After a surge", "How soon is the service back to normal?", serde_json::json!([{"back_after_s": 1}]))
        .with_tables(vec![Table::new("Back to normal", "Three seconds.", &["step", "steady/s"], rows), seconds])
        .with_charts(charts)
}

/// An experiment with steps of load and the sections of [`with_extras`].
pub(crate) fn findings() -> Findings {
    let invalid_seconds = vec!["12: 97 % CPU is above 90 %".into()];
    let validity = Validity { invalid_seconds, ..Validity::of(2.1, 97.0) };
    Findings {
        experiment: "overload".into(),
        what: "three <ways>".into(),
        validity: [("protected, surge".to_owned(), validity)].into(),
        ..plain_findings()
    }
    .with_steps(with_extras())
}

/// An experiment without load.
pub(crate) fn plain_findings() -> Findings {
    let report = report();
    Findings {
        schema_version: SCHEMA_VERSION,
        experiment: "codecs".into(),
        created: report.created,
        what: "three <ways>".into(),
        quick: false,
        machine: report.machine,
        versions: report.versions,
        revision: report.revision,
        steps: Vec::new(),
        conditions: None,
        sections: vec![surge()],
        verdicts: vec![Verdict::new("small", "≤ 100".into(), "187".into(), false, "why")],
        validity: BTreeMap::new(),
        remarks: vec!["a remark".into()],
    }
}

/// One request of a hundred recorded, and two of them shown.
fn recorded(report: &mut Report) {
    let stage = |name: &str, mean_ms: f64, requests| Stage {
        name: name.into(),
        mean_ms,
        median_ms: (requests > 0).then_some(mean_ms * 0.9),
        requests,
    };
    for step in &mut report.steps {
        let stages = vec![
            stage("gateway", 0.6, 400),
            stage("admission", 0.0, 0),
            stage("Redis", 0.3, 400),
            stage("pool wait", step.mean_ms * 0.4, 300),
            stage("MySQL", step.mean_ms * 0.5, 300),
            stage("ranking", 0.1, 300),
            stage("api itself", 0.2, 400),
        ];
        step.time_spent = Some(TimeSpent { sample_ratio: 10.0 / step.offered_per_s, requests: 400, stages });
    }
    let row = |depth, service: &str, name: &str, offset_ms, duration_ms, detail: &str| Row {
        depth,
        service: service.into(),
        name: name.into(),
        offset_ms,
        duration_ms,
        failed: detail.starts_with("error"),
        detail: detail.into(),
    };
    let waterfall = |kind: &str, profile: &str, rows: Vec<Row>| Waterfall {
        kind: kind.into(),
        profile: profile.into(),
        offered_per_s: 1000.0,
        trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
        rows,
    };
    report.waterfalls = vec![
        waterfall(
            "A hit",
            "protected",
            vec![
                row(0, "loadgen", "GET", 0.0, 1.4, "status_code=200"),
                row(1, "api", "GET /recommendations", 0.5, 0.7, "testbed.answer.source=cache"),
                row(2, "api", "GET", 0.6, 0.4, "testbed.cache.result=hit"),
            ],
        ),
        waterfall(
            "A timeout",
            "baseline",
            vec![
                row(0, "loadgen", "GET", 0.0, 1002.0, "error.type=store-checkout-timeout"),
                row(1, "api", "GET /recommendations <&>", 0.5, 1001.0, "error.type=store-checkout-timeout"),
                row(2, "api", "load", 1.0, 1000.0, ""),
                row(3, "api", "pool wait", 1.0, 1000.0, "error.type=timeout"),
            ],
        ),
    ];
}

/// The same three times over, a little apart.
pub(crate) fn repeated() -> Report {
    let mut report = report();
    report.repeats = 3;
    let first = report.steps.clone();
    for (repeat, factor) in [(2, 1.008), (3, 0.994)] {
        report.steps.extend(first.iter().cloned().map(|mut s| {
            s.repeat = repeat;
            s.mean_ms *= factor;
            s.p99_ms *= factor;
            s.error_pct *= factor;
            s
        }));
    }
    report.conclude(Some(&crate::Tolerances::default()));
    report
}

fn baseline((users, article, model): Expected) -> Step {
    let offered = f64::from(users);
    let answered = model.2 * 0.996;
    let error_pct = model.1 * 1.03;
    let errors = (answered * 60.0 * error_pct / 100.0).round() as u64;
    let other = errors / 200;
    let mut by_class = BTreeMap::new();
    if errors > 0 {
        by_class.insert("store-checkout-timeout".to_string(), errors - other);
        by_class.insert("client-timeout".to_string(), other);
    }
    let mean = model.0 * 1.02;
    let p99 = if errors > 0 { 2904.0 } else { mean * 2.05 };
    let good = (answered * 60.0) as u64 - errors;
    Step {
        profile: "baseline".into(),
        users,
        repeat: 1,
        valid: true,
        offered_per_s: offered,
        sent_per_s: answered,
        answered_per_s: answered,
        good_per_s: good as f64 / 60.0,
        skipped: ((offered - answered) * 60.0) as u64,
        mean_ms: mean,
        p50_ms: mean * 0.93,
        p90_ms: mean * 1.4,
        p99_ms: p99,
        p999_ms: p99 * 1.02,
        max_ms: p99 * 1.03,
        error_pct,
        errors: by_class,
        store_timeouts: errors - other,
        store_queries_per_request: 1.0 - error_pct / 100.0,
        store_share: 1.0,
        hit_ratio: Some(0.0),
        known_personal_pct: Some(100.0 - error_pct),
        sources: Sources { cache: 0, store: good / 2, popular: good - good / 2, stale: 0 },
        send_lag_p50_ms: 0.4,
        send_lag_p99_ms: 2.1,
        gateway_mean_ms: Some(0.3),
        store_upstream_mean_ms: Some(0.9),
        cpu_total_pct: 12.0 + offered / 125.0,
        cpu_stolen_pct: Some(0.4),
        cpu: cpu(offered / 5000.0, [0.35, 0.06, 0.28, 0.16, 0.22, 0.31]),
        rss_mb: [("api", 412.0), ("loadtest", 180.0), ("mariadb", 640.0), ("nginx", 24.0), ("redis", 130.0)]
            .map(own)
            .into(),
        article: Some(ArticleFigures { mean_ms: Some(article.0), error_pct: article.1, qps: article.2 }),
        model: Some(ModelFigures {
            mean_ms: model.0,
            error_pct: model.1,
            answered_per_s: model.2,
            good_per_s: model.3,
        }),
        series: series(answered, error_pct, p99),
        latency_curve: curve(mean * 0.93, p99),
        hdr_log: Some(format!("hdr/baseline-{users}-1.hlog")),
        ..Step::default()
    }
}

fn protected(profile: &str, users: u32, load: f64) -> Step {
    let offered = f64::from(users);
    let error_pct = if load > 5.0 { 0.002 * load * offered / 1000.0 } else { 0.0 };
    let mean = 1.9 + load * offered / 2000.0;
    let p99 = mean * 3.2;
    let requests = (offered * 60.0) as u64;
    let rejected = if profile.ends_with("-bloom") { 0.0 } else { 0.4995 };
    Step {
        profile: profile.into(),
        users,
        repeat: 1,
        valid: true,
        offered_per_s: offered,
        sent_per_s: offered,
        answered_per_s: offered * 0.9995,
        good_per_s: offered * 0.9995 * (1.0 - error_pct / 100.0),
        mean_ms: mean,
        p50_ms: mean * 0.8,
        p90_ms: mean * 1.9,
        p99_ms: p99,
        p999_ms: p99 * 2.0,
        max_ms: p99 * 4.0,
        error_pct,
        store_queries_per_request: 0.0006 * load,
        store_share: 0.0006 * load,
        hit_ratio: Some(0.998),
        bloom_rejections: (requests as f64 * rejected) as u64,
        bloom_rejections_per_request: rejected,
        known_personal_pct: Some(99.98),
        sources: Sources { cache: requests / 2, store: 30, popular: requests / 2 - 30, stale: 0 },
        send_lag_p50_ms: 0.3,
        send_lag_p99_ms: 1.4,
        gateway_mean_ms: Some(0.2),
        store_upstream_mean_ms: Some(0.8),
        cpu_total_pct: 8.0 + offered / 110.0,
        cpu: cpu(offered / 5000.0, [0.24, 0.11, 0.03, 0.15, 0.01, 0.33]),
        rss_mb: [("api", 430.0), ("loadtest", 180.0), ("mariadb", 640.0), ("nginx", 24.0), ("redis", 610.0)]
            .map(own)
            .into(),
        series: series(offered, error_pct, p99),
        latency_curve: curve(mean * 0.8, p99),
        hdr_log: Some(format!("hdr/{}-{users}-1.hlog", profile.replace(' ', ""))),
        ..Step::default()
    }
}

fn own((name, value): (&str, f64)) -> (String, f64) {
    (name.to_string(), value)
}

fn cpu(load: f64, at_full: [f64; 6]) -> BTreeMap<String, f64> {
    let names = ["api", "redis", "mariadb", "nginx", "faultproxy", "loadtest"];
    names.into_iter().zip(at_full).map(|(name, cores)| (name.to_string(), 0.01 + cores * load)).collect()
}
