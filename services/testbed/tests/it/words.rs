//! What needs no servers: bad words are refused with advice, files are read and judged.

use crate::Home;

#[test]
fn errors_say_what_to_do() {
    let home = Home::bare();
    for (args, expected) in [
        (&["evaluate", "--scenario", "no-such"][..], "article, penetration, overload, zipf, smoke"),
        (&["evaluate", "--users", "0"], "1..=10000000"),
        (&["evaluate", "--law", "murphy"], "none"),
        (&["data", "quality", "no-such.csv"], "no-such.csv"),
        (&["data", "import", "no-such.csv"], "no-such.csv"),
        (&["fault", "show"], "./testbed up"),
        (&["report"], "./testbed evaluate"),
        (&["report", "no-such"], "no-such"),
        (&["serve", "api", "--set", "store.pool_size=0", "--set", "cache.items=0"], "store.pool_size"),
        (&["serve", "api", "--set", "store.pool_size=0", "--set", "cache.items=0"], "cache.items"),
        (&["serve", "api", "--set", "nonsense"], "key=value"),
        (&["frobnicate"], "Usage"),
    ] {
        let error = home.fails(args);
        assert!(error.contains(expected), "{args:?}: {error}");
        assert!(!error.contains("panicked"), "{args:?}: {error}");
    }
}

#[test]
fn generated_data_can_be_read_and_judged() {
    let home = Home::bare();
    home.ok(&["data", "generate", "--users", "400", "--items", "200", "--seed", "3", "--out", "a.csv"]);
    let again = home.ok(&["data", "generate", "--users", "400", "--items", "200", "--seed", "3"]);
    assert_eq!(std::fs::read_to_string(home.path().join("a.csv")).unwrap(), again);
    let quality = home.json(&["data", "quality", "a.csv", "--json"]);
    assert!(quality["ndcg_ratio"].as_f64().unwrap() > 1.0, "{quality}");
    assert!(quality["protocol"].as_str().unwrap().contains("Leave-last-out"));
    assert!(home.ok(&["data", "quality", "a.csv"]).contains("NDCG@10"));
    let mut bad = again;
    bad.push_str("u1,i1,like,5\n");
    std::fs::write(home.path().join("b.csv"), bad).unwrap();
    assert!(
        home.fails(&["data", "quality", "--strict", "b.csv"]).contains("is not one of view, cart, purchase, rating")
    );
    home.ok(&["data", "quality", "b.csv"]);
}
