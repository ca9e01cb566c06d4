use std::collections::BTreeMap;

use prometheus::Registry;

use super::*;
use crate::SpanId;

fn id(n: u128) -> TraceId {
    TraceId::from_bytes(&n.to_be_bytes()).unwrap()
}

fn span_id(n: u64) -> SpanId {
    SpanId::from_bytes(&n.to_be_bytes()).unwrap()
}

fn span(n: u64, parent: Option<u64>, start_ns: u64, duration_ns: u64) -> Span {
    Span {
        id: span_id(n),
        parent: parent.map(span_id),
        name: format!("span {n}"),
        kind: Kind::Server,
        service: "api".into(),
        instance: None,
        start_ns,
        duration_ns,
        failed: false,
        message: String::new(),
        attributes: BTreeMap::new(),
        events: Vec::new(),
    }
}

fn store(limits: Limits) -> Store {
    Store::new(limits, Metrics::new(&Registry::new()).unwrap())
}

fn limits(slow: usize, failed: usize, sample: usize) -> Limits {
    let quotas = Quotas { slow, failed, sample, ..Limits::default().quotas };
    Limits { quotas, ..Limits::default() }
}

const SETTLE: Duration = Duration::from_secs(6);

#[test]
fn spans_of_a_trace_meet_and_the_trace_is_judged_once_it_has_settled() {
    let (mut store, start) = (store(limits(1, 0, 0)), Instant::now());
    store.add(id(1), span(2, Some(1), 10, 50), start);
    store.add(id(1), span(1, None, 0, 100), start + SETTLE / 2);
    store.add(id(2), span(1, None, 0, 90), start + SETTLE / 2);
    store.settle(start + SETTLE / 2);
    assert_eq!(store.get(id(1)).unwrap().reasons, [Reason::Open]);
    store.settle(start + SETTLE);
    let trace = store.get(id(1)).unwrap();
    assert_eq!((trace.reasons.as_slice(), trace.spans.len()), (&[Reason::Slow][..], 2));
    assert_eq!(store.get(id(2)).unwrap().reasons, [Reason::Open]);
    store.settle(start + SETTLE * 2);
    assert_eq!(store.get(id(2)), None, "faster than the one that is kept");
    assert_eq!((store.metrics.judged.get(), store.metrics.evicted.get()), (2, 0));
}

#[test]
fn late_spans_join_a_trace_that_is_kept_and_are_counted_otherwise() {
    let (mut store, start) = (store(limits(1, 1, 0)), Instant::now());
    store.add(id(1), span(1, None, 0, 100), start);
    store.add(id(2), span(1, None, 0, 50), start);
    store.settle(start + SETTLE);
    let failed = Span { failed: true, ..span(2, Some(1), 10, 20) };
    store.add(id(1), failed, start + SETTLE);
    assert_eq!(store.get(id(1)).unwrap().reasons, [Reason::Slow, Reason::Failed]);
    // Sent again, as an exporter does without a response.
    store.add(id(1), span(2, Some(1), 10, 20), start + SETTLE);
    assert_eq!(store.get(id(1)).unwrap().spans.len(), 2);
    store.add(id(2), span(2, Some(1), 10, 20), start + SETTLE);
    assert_eq!(store.get(id(2)), None);
    assert_eq!((store.metrics.received.get(), store.metrics.dropped_late.get()), (5, 1));
}

#[test]
fn a_trace_has_so_much_room() {
    let size = span(1, None, 0, 1).size();
    let mut store = store(Limits { trace_bytes: 3 * size, ..Limits::default() });
    for n in 1..=5 {
        store.add(id(1), span(n, None, 0, 1), Instant::now());
    }
    let trace = store.get(id(1)).unwrap();
    assert_eq!((trace.spans.len(), trace.dropped_spans, store.metrics.dropped_full.get()), (3, 2, 2));
}

#[test]
fn open_traces_have_so_much_room_and_the_oldest_is_judged_early() {
    let size = span(1, None, 0, 1).size();
    let mut store = store(Limits { open_bytes: 10 * size, ..limits(0, 0, 3) });
    for n in 1..=100 {
        store.add(id(n), span(1, None, u64::try_from(n).unwrap(), 1), Instant::now());
        assert!(store.open_bytes <= 10 * size && store.kept.len() <= 3);
        assert_eq!(store.arrivals.len(), store.open.len());
    }
    assert_eq!((store.open.len(), store.metrics.judged_early.get()), (10, 90));
    assert_eq!(store.metrics.open.get(), 10);
    let newest = store.list(Selection::Newest, 5);
    assert_eq!(newest.iter().map(|trace| trace.start_ns).collect::<Vec<_>>(), [100, 99, 98, 97, 96]);
}

#[test]
fn lists_are_in_the_order_asked_for() {
    let (mut store, now) = (store(Limits::default()), Instant::now());
    store.add(id(1), span(1, None, 100, 5), now);
    store.add(id(2), Span { failed: true, ..span(1, None, 200, 9) }, now);
    store.settle(now + SETTLE);
    store.add(id(3), span(1, None, 300, 7), now + SETTLE);
    let list = |choice| store.list(choice, 10).iter().map(|trace| trace.id).collect::<Vec<_>>();
    assert_eq!(list(Selection::Slowest), [id(2), id(3), id(1)]);
    assert_eq!(list(Selection::Newest), [id(3), id(2), id(1)]);
    assert_eq!(list(Selection::Errors), [id(2)]);
    assert_eq!(store.list(Selection::Slowest, 1).len(), 1);
}

#[test]
fn what_nobody_waited_for_is_not_slow() {
    let (mut store, start) = (store(limits(1, 0, 0)), Instant::now());
    store.add(id(1), span(1, None, 0, 100), start);
    store.add(id(2), Span { kind: Kind::Internal, ..span(1, None, 0, 1_000) }, start);
    let slowest: Vec<_> = store.list(Selection::Slowest, 10).into_iter().map(|summary| summary.id).collect();
    assert_eq!(slowest, [id(1), id(2)], "the worker's absence comes last");
    store.settle(start + SETTLE);
    assert!(store.get(id(1)).is_some() && store.get(id(2)).is_none());
}

#[test]
fn after_clear_only_what_is_new_is_there() {
    let (mut store, now) = (store(Limits::default()), Instant::now());
    store.add(id(1), span(1, None, 0, 5), now);
    store.settle(now + SETTLE);
    store.add(id(2), span(1, None, 0, 5), now + SETTLE);
    store.clear();
    assert_eq!(store.list(Selection::Newest, 10), []);
    store.add(id(2), span(2, Some(1), 0, 5), now + SETTLE);
    store.add(id(3), span(1, None, 0, 5), now + SETTLE);
    assert_eq!(store.list(Selection::Newest, 10).iter().map(|trace| trace.id).collect::<Vec<_>>(), [id(3)]);
    assert_eq!(store.metrics.dropped_late.get(), 1);
}

/// The request is the span without a parent, even if its cache fill ends later.
#[test]
fn the_root_stands_for_the_trace() {
    let mut spans = vec![span(3, Some(2), 50, 5000), span(2, Some(1), 10, 30)];
    assert_eq!(root(&spans).unwrap().id, span_id(2), "the only one whose parent is missing");
    spans.push(span(1, None, 0, 40));
    assert_eq!(root(&spans).unwrap().id, span_id(1));
    spans[2].parent = Some(span_id(3));
    assert_eq!(root(&spans), None, "a circle has no beginning");
}
