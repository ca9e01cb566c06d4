//! What recorded requests add to the pages.

use super::*;

#[test]
fn pages_show_where_the_time_went_and_an_example_of_each_kind() {
    let report = sample::with_extras();
    let page = html::render(&report);
    assert!(page.contains("<h2 id=\"time\">Where the time went</h2>"));
    // A figure per profile, a bar per step, the key without what never happened.
    for profile in ["baseline", "protected"] {
        assert!(page.contains(&format!("Mean time of a recorded request, {profile}")), "{profile}");
    }
    assert!(page.contains("pool wait: 38 ms") && !page.contains("</svg>admission</li>"));
    assert_eq!(page.matches("<table class=\"waterfall\">").count(), 2);
    assert!(
        page.contains("A timeout: baseline at 1000/s")
            && page.contains("1,002 ms · trace 4bf92f3577b34da6a3ce929d0e0e4736")
    );
    assert!(page.contains("GET /recommendations &lt;&amp;&gt;"), "names are text");
    // It begins after a thousandth of the width.
    assert!(page.contains("<rect x=\"0.05\" y=\"1\" width=\"99.90\" height=\"8\"/>"), "the replica's bar");
    assert!(
        page.contains("<dt>Recorded requests</dt><dd>0.20 to 1.0 % of each step&#39;s, chosen before they are sent"),
        "{page}"
    );

    let text = markdown::render(&report);
    for part in [
        "## Time by stage, ms",
        "### A hit: protected at 1000/s",
        "| · · GET | api | 0.60 | 0.40 | testbed.cache.result=hit |",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    assert!(text.contains("| · · · pool wait ✗ |"), "{text}");
}

#[test]
fn a_report_without_recorded_requests_says_nothing_of_them() {
    let report = sample::report();
    let (page, text) = (html::render(&report), markdown::render(&report));
    for words in ["Where the time went", "Recorded requests", "waterfalls\"", "Time by stage"] {
        assert!(!page.contains(words) && !text.contains(words), "{words}");
    }
    let json = serde_json::to_string(&report).unwrap();
    assert!(!json.contains("time_spent") && !json.contains("waterfalls"));
}
