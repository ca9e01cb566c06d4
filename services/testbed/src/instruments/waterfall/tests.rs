use std::collections::BTreeMap;

use tracestore::{Event, Kind, SpanId};

use super::*;

const PLAIN: Style = Style { width: 110, colour: false };

fn span(id: u64, parent: u64, name: &str, service: &str, start_ms: u64, duration_us: u64) -> Span {
    Span {
        id: SpanId::from_bytes(&id.to_be_bytes()).unwrap(),
        parent: SpanId::from_bytes(&parent.to_be_bytes()),
        name: name.into(),
        kind: Kind::Internal,
        service: service.into(),
        instance: (service == "api").then(|| "3".into()),
        start_ns: 1_700_000_000_000_000_000 + start_ms * 1_000_000,
        duration_ns: duration_us * 1000,
        failed: false,
        message: String::new(),
        attributes: BTreeMap::new(),
        events: Vec::new(),
    }
}

fn miss() -> Trace {
    let attributes = |list: &[(&str, &str)]| list.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    let mut spans = vec![
        span(1, 0, "GET", "load", 0, 100_000),
        span(2, 1, "GET /recommendations", "api", 1, 98_000),
        span(3, 2, "GET rec", "api", 2, 300),
        span(4, 2, "checkout", "api", 3, 20_000),
        span(5, 2, "SELECT history", "api", 23, 74_000),
        span(6, 2, "SET rec", "api", 99, 1_000),
    ];
    spans[1].attributes = attributes(&[
        ("http.route", "/recommendations"),
        ("http.response.status_code", "200"),
        ("network.peer.address", "x"),
    ]);
    let start_ns = spans[1].start_ns;
    spans[1].events.push(Event { name: "admitted".into(), at_ns: start_ns + 500_000, attributes: BTreeMap::new() });
    spans[5].failed = true;
    spans[5].message = "connection reset".into();
    Trace {
        id: "4bf92f3577b34da6a3ce929d0e0e4736".parse().unwrap(),
        reasons: vec![Reason::Slow, Reason::Sample],
        spans,
        dropped_spans: 2,
    }
}

#[test]
fn a_waterfall_reads_from_the_top_and_from_the_left() {
    let text = render(&miss(), PLAIN);
    let expected = "\
trace 4bf92f3577b34da6a3ce929d0e0e4736  2023-11-14T22:13:20.000Z · 100 ms · 6 spans · kept: slow, sample  ✗ failed
load  GET                    ███████████████████████████████████    100 ms
api/3 └ GET /recommendations ██████████████████████████████████    98.00 ms   status_code=200 route=/recommenda…
";
    let lines: Vec<&str> = text.lines().collect();
    for (line, expected) in lines.iter().zip(expected.lines()) {
        let squeeze =
            |text: &str| text.split_whitespace().filter(|word| !word.contains('█')).collect::<Vec<_>>().join(" ");
        assert_eq!(squeeze(line), squeeze(expected), "\n{text}");
    }
    assert!(lines[3].contains("├ GET rec") && lines[3].contains('▏') && lines[3].contains("300 µs"), "{text}");
    assert!(lines[6].contains("└ SET rec") && lines[6].contains("✗ connection reset"), "{text}");
    assert_eq!(lines[7], "(2 more spans were dropped)");
    // The wait for a connection ends where the query begins.
    let column = |line: &str, of: fn(char) -> bool| line.chars().position(of).unwrap();
    let checkout_end = column(lines[4], |c| c == '█') + lines[4].matches('█').count();
    assert!(checkout_end.abs_diff(column(lines[5], |c| c == '█')) <= 1, "{text}");
}

#[test]
fn the_sentences_of_a_decision_are_lines_below_it() {
    let mut trace = miss();
    trace.spans[0].events = ["The metrics ask for 12.", "The highest of the window is 16."]
        .map(|name| Event { name: name.into(), at_ns: trace.spans[0].start_ns, attributes: BTreeMap::new() })
        .into();
    let text = render(&trace, PLAIN);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[2..4].concat(), "      The metrics ask for 12.      The highest of the window is 16.");
    assert!(!lines[1].contains("metrics") && lines[4].contains("GET /recommendations"), "{text}");
}

#[test]
fn lines_are_cut_to_the_terminal_and_coloured_only_there() {
    for width in [1, 60, 80, 200] {
        let text = render(&miss(), Style { width, colour: false });
        let longest = text.lines().skip(1).map(|line| line.chars().count()).max().unwrap();
        assert!(longest <= width.max(MIN_WIDTH), "{width}: {longest}\n{text}");
        assert!(!text.contains('\x1b'));
    }
    let coloured = render(&miss(), Style { colour: true, ..PLAIN });
    assert!(coloured.contains("\x1b[31m") && coloured.contains("\x1b[36m"));
}

#[test]
fn a_bar_is_where_the_span_was() {
    assert_eq!(bar(0, 100, 100, 10), "██████████");
    assert_eq!(bar(50, 30, 100, 10), "     ███  ");
    assert_eq!(bar(100, 0, 100, 10), "         ▏");
    assert_eq!(bar(99, 400, 100, 10), "         █", "clocks of two machines may differ");
    assert_eq!(bar(0, 0, 0, 4), "▏   ");
}

#[test]
fn times_are_short() {
    for (ns, expected) in
        [(0, "0 µs"), (999_999, "999 µs"), (1_500_000, "1.50 ms"), (123_456_789, "123 ms"), (12_345_000_000, "12.3 s")]
    {
        assert_eq!(duration(ns), expected);
        assert!(duration(ns).chars().count() <= DURATION_WIDTH);
    }
}

#[test]
fn a_list_has_a_line_per_trace() {
    let summary = Summary {
        id: "4bf92f3577b34da6a3ce929d0e0e4736".parse().unwrap(),
        reasons: vec![Reason::Open],
        name: "GET /recommendations".into(),
        service: "api".into(),
        start_ns: 1_700_000_000_000_000_000,
        duration_ns: 2_500_000,
        failed: true,
        spans: 7,
    };
    let text = list(&[summary.clone(), summary], PLAIN);
    let line = "4bf92f3577b34da6a3ce929d0e0e4736  2023-11-14T22:13:20.000Z   2.50 ms ✗   7 spans  still open     api: GET /recommendations\n";
    assert_eq!(text, line.repeat(2));
}
