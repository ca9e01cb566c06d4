use tracestore::{SpanId, TraceId};

use super::*;

/// `(id, parent, name, start µs, duration µs)`
fn span(id: u64, parent: u64, name: &str, start_us: u64, duration_us: u64) -> Span {
    Span {
        id: SpanId::from_bytes(&id.to_be_bytes()).unwrap(),
        parent: SpanId::from_bytes(&parent.to_be_bytes()),
        name: name.into(),
        kind: Kind::Internal,
        service: "api".into(),
        instance: None,
        start_ns: start_us * 1000,
        duration_ns: duration_us * 1000,
        failed: false,
        message: String::new(),
        attributes: BTreeMap::new(),
        events: Vec::new(),
    }
}

fn with(span: Span, attributes: &[(&str, &str)]) -> Span {
    Span { attributes: attributes.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(), ..span }
}

fn trace(n: u8, spans: Vec<Span>) -> Trace {
    Trace { id: TraceId::from_bytes(&[n; 16]).unwrap(), reasons: vec![Reason::Sample], spans, dropped_spans: 0 }
}

fn request(duration_us: u64, source: &str, guard: &str) -> Vec<Span> {
    let user = Span { kind: Kind::Client, service: "loadgen".into(), ..span(1, 0, "GET", 0, duration_us + 200) };
    let server = Span { kind: Kind::Server, ..span(2, 1, "GET /recommendations", 100, duration_us) };
    vec![user, with(server, &[(attribute::ANSWER_SOURCE, source), (attribute::GUARD_RESULT, guard)])]
}

/// 200 µs gateway, then 100 ms in the api: Redis 1, load 90 (pool wait 20, MySQL 60, ranking 5, 5 of its own), and a fill that goes on
/// after the answer.
fn miss(n: u8) -> Trace {
    let mut spans = request(100_000, "store", "present");
    spans.extend([
        with(
            Span { kind: Kind::Client, ..span(3, 2, "GET", 1_000, 1_000) },
            &[(attribute::DB_SYSTEM_NAME, system::REDIS)],
        ),
        span(4, 2, name::LOAD, 5_000, 90_000),
        span(5, 4, name::POOL_WAIT, 5_000, 20_000),
        with(
            Span { kind: Kind::Client, ..span(6, 4, "SELECT behaviour", 25_000, 60_000) },
            &[(attribute::DB_SYSTEM_NAME, system::MYSQL)],
        ),
        span(7, 4, name::RANK, 85_000, 5_000),
        span(8, 4, name::CACHE_FILL, 94_000, 50_000),
        with(
            Span { kind: Kind::Client, ..span(9, 8, "SET", 94_000, 50_000) },
            &[(attribute::DB_SYSTEM_NAME, system::REDIS)],
        ),
    ]);
    trace(n, spans)
}

#[test]
fn stages_add_up_to_the_users_time() {
    let stages = stages(&miss(1));
    let near = |name: &str, ms: f64| assert!((stages[name] - ms).abs() < 1e-9, "{name}: {stages:?}");
    near(GATEWAY, 0.2);
    near(REDIS, 1.0);
    near(POOL_WAIT, 20.0);
    near(MYSQL, 60.0);
    near(RANKING, 5.0);
    // 9 around the load, 5 in it: of the fill nothing.
    near(API, 14.0);
    assert!((stages.values().sum::<f64>() - 100.2).abs() < 1e-9);
}

/// The user has gone after 3 s, the replica works on for a while.
#[test]
fn what_a_child_does_after_its_parents_end_is_not_counted() {
    let mut spans = request(5_000_000, "store", "present");
    spans[0].duration_ns = 3_000_000_000;
    let stages = stages(&trace(1, spans));
    assert!((stages.values().sum::<f64>() - 3_000.0).abs() < 1e-6, "{stages:?}");
}

#[test]
fn means_are_over_all_requests_and_medians_over_those_that_have_the_stage() {
    let hit = trace(2, request(1_000, "cache", "present"));
    let mut told_afterwards = request(900_000, "store", "present");
    told_afterwards[1].attributes.insert(attribute::RETROSPECTIVE.into(), "true".into());
    let not_drawn = Trace { reasons: vec![Reason::Slow, Reason::Exemplar], ..miss(5) };
    let open = Trace { reasons: vec![Reason::Open], ..hit };
    let traces = [miss(1), open, trace(3, told_afterwards), trace(4, vec![span(1, 0, "GET /x", 0, 5)]), not_drawn];
    let spent = time_spent(&traces, 0.01).unwrap();
    assert_eq!((spent.requests, spent.sample_ratio, spent.stages.len()), (2, 0.01, STAGES.len()));
    let stage = |name: &str| spent.stages.iter().find(|stage| stage.name == name).unwrap();
    let mysql = stage(MYSQL);
    assert_eq!((mysql.requests, mysql.mean_ms, mysql.median_ms), (1, 30.0, Some(60.0)));
    let admission = stage(ADMISSION);
    assert_eq!((admission.requests, admission.mean_ms, admission.median_ms), (0, 0.0, None));
    assert_eq!(time_spent(&traces[2..], 0.01), None);
}

#[test]
fn each_kind_has_its_example_the_one_in_the_middle() {
    let unknown = trace(5, request(300, "popular", "absent"));
    let new_user = trace(6, request(300, "popular", "present"));
    let mut failed = request(400_000, "", "");
    failed[1] = Span { failed: true, ..with(failed[1].clone(), &[(attribute::ERROR_TYPE, "store-checkout-timeout")]) };
    let mut broken = request(400_000, "", "");
    broken[1] = Span { failed: true, ..with(broken[1].clone(), &[(attribute::ERROR_TYPE, "store-unavailable")]) };
    let hits = [500, 700, 900].map(|us| request(us, "cache", "present"));
    let [a, b, c] = hits;
    let traces =
        [trace(1, c), trace(2, a), trace(3, b), miss(4), unknown, new_user, trace(7, failed), trace(8, broken)];
    let examples = examples(&traces, "protected", 1000.0);
    assert_eq!(examples.iter().map(|example| example.kind.as_str()).collect::<Vec<_>>(), KINDS);
    assert_eq!(examples[0].trace_id, TraceId::from_bytes(&[3; 16]).unwrap().to_string());
    assert_eq!(examples[1].rows.len(), 9);
    assert_eq!(examples[1].rows[4].name, name::POOL_WAIT);
    assert!((examples[1].rows[4].offset_ms - 5.0).abs() < 1e-9 && examples[1].rows[4].depth == 3);
    assert_eq!(examples[3].rows[1].detail, "error.type=store-checkout-timeout");
}
